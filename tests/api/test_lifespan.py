"""The router in somebody's app: whose lifespan runs when, and who enters the App."""

from __future__ import annotations

import threading
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse

from dpcore import App
from dpcore.errors import ArgumentError
from dpcore_plugins import ApiTrigger, ManualTrigger
from dpcore_plugins.api import create_app, create_trigger_router

from .conftest import JSON


@pytest.fixture
def shop(app, tasks) -> App:
    tasks.task(name="one")(lambda: 1)
    app.schedule("one", ApiTrigger(), run=["one"])
    return app


def noted(notes: list[str], name: str, app: App):
    """Return a lifespan that notes when it begins and ends, and whether the App was entered then."""

    @asynccontextmanager
    async def lifespan(_):
        notes.append(f"{name} begins, {app.entered}")
        yield
        notes.append(f"{name} ends, {app.entered}")

    return lifespan


def fired(client: httpx.Client, prefix: str = "/schedules") -> object:
    answer = client.post(f"{prefix}/one/fire?wait=5", headers=JSON)
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]["one"]


def test_the_router_enters_the_app_within_the_lifespan_of_its_host(house, shop):
    notes: list[str] = []
    host = FastAPI(lifespan=noted(notes, "host", shop))
    host.include_router(create_trigger_router(shop))
    with house.hosting(host) as client:
        assert fired(client) == 1
        assert shop.entered
    assert not shop.entered
    assert notes == ["host begins, False", "host ends, False"]


@pytest.mark.parametrize("first", [True, False])
def test_lifespans_of_routers_compose_in_both_orders(house, shop, first):
    notes: list[str] = []
    other = APIRouter(lifespan=noted(notes, "other", shop))
    routers = [create_trigger_router(shop), other]
    host = FastAPI(lifespan=noted(notes, "host", shop))
    for router in routers if first else reversed(routers):
        host.include_router(router)
    with house.hosting(host) as client:
        assert fired(client) == 1
    inside = "True" if first else "False"
    assert notes == ["host begins, False", f"other begins, {inside}", f"other ends, {inside}", "host ends, False"]


def test_an_app_that_is_entered_already_is_used_and_left_to_its_owner(house, shop):
    seen = []

    @asynccontextmanager
    async def lifespan(_):
        async with shop:
            yield
            seen.append(shop.entered)

    host = FastAPI(lifespan=lifespan)
    host.include_router(create_trigger_router(shop))
    with house.hosting(host) as client:
        assert fired(client) == 1
    assert seen == [True]
    assert not shop.entered


def test_two_routers_share_an_app(house, shop):
    host = FastAPI()
    host.include_router(create_trigger_router(shop, prefix="/a", tags=["a"]))
    host.include_router(create_trigger_router(shop, prefix="/b"), prefix="/api")
    with house.hosting(host) as client:
        assert fired(client, "/a") == fired(client, "/api/b") == 1
        answer = client.post("/api/b/one/fire", headers=JSON)
        assert answer.headers["location"].startswith("/api/b/one/runs/one-")
        assert client.get(answer.headers["location"]).status_code == 200


def test_a_router_within_a_router_runs_its_lifespan_too(house, shop):
    outer = APIRouter(prefix="/v1")
    outer.include_router(create_trigger_router(shop))
    host = FastAPI()
    host.include_router(outer)
    with house.hosting(host) as client:
        assert fired(client, "/v1/schedules") == 1


def test_an_app_that_is_mounted_is_told_that_its_lifespan_does_not_run(house, shop):
    inner = FastAPI()
    inner.include_router(create_trigger_router(shop))
    host = FastAPI()
    host.mount("/inner", inner)
    with house.hosting(host) as client:
        answer = client.post("/inner/schedules/one/fire", headers=JSON)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    assert answer.json()["detail"] == (
        "the App of these schedules is not entered; if this FastAPI app is mounted in another, its lifespan does not run, "
        "so enter the App yourself: async with app"
    )


def test_an_app_that_is_mounted_serves_where_its_owner_has_entered_it(house, shop):
    inner = FastAPI()
    inner.include_router(create_trigger_router(shop))

    @asynccontextmanager
    async def lifespan(_):
        async with shop:
            yield

    host = FastAPI(lifespan=lifespan)
    host.mount("/inner", inner)
    with house.hosting(host) as client:
        assert fired(client, "/inner/schedules") == 1
        answer = client.post("/inner/schedules/one/fire", headers=JSON)
        assert client.get(answer.headers["location"]).status_code == 200


def test_schedules_that_are_added_later_are_served(house, shop):
    @asynccontextmanager
    async def lifespan(_):
        shop.schedule("late", ManualTrigger(), publish="late")
        yield

    host = FastAPI(lifespan=lifespan)
    host.include_router(create_trigger_router(shop))
    with house.hosting(host) as client:
        assert client.post("/schedules/late/fire", headers=JSON).status_code == 202
        assert "/schedules/late/fire" in client.get("/openapi.json").json()["paths"]


# ---------------------------------------------------------------- beside what is the host's


def test_the_host_tells_its_own_errors_as_it_likes(house, shop):
    host = FastAPI()

    @host.exception_handler(HTTPException)
    async def teapot(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"own": error.detail}, 418)

    @host.get("/own/{number}")
    async def own(number: int) -> int:
        raise HTTPException(400, "no")

    host.include_router(create_trigger_router(shop))
    with house.hosting(host) as client:
        assert client.get("/own/1").json() == {"own": "no"}
        assert client.get("/own/x").headers["content-type"] == "application/json"
        assert client.get("/own/x").json()["detail"][0]["loc"] == ["path", "number"]
        for answer in (
            client.get("/schedules/nobody"),
            client.get("/schedules/one?count=x"),
            client.put("/schedules/one"),
        ):
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.status_code in (404, 422, 405)


def test_what_the_host_demands_beside_is_told_as_a_problem_too(house, shop):
    async def tenant(x_tenant: str = Header()) -> None:
        if x_tenant != "mine":
            raise HTTPException(499, "not yours", {"X-Why": "tenant"})

    host = FastAPI()
    host.include_router(create_trigger_router(shop), dependencies=[Depends(tenant)])
    with house.hosting(host) as client:
        assert client.get("/schedules", headers={"X-Tenant": "mine"}).status_code == 200
        answer = client.get("/schedules", headers={"X-Tenant": "theirs"})
        assert (answer.status_code, answer.headers["x-why"]) == (499, "tenant")
        assert (answer.json()["title"], answer.json()["detail"]) == ("Error", "not yours")
        assert client.get("/schedules").json()["errors"][0]["name"] == "x-tenant"


def test_an_app_of_its_own_serves_with_its_lifespan(house, shop):
    with house.hosting(create_app(shop, title="Shop")) as client:
        assert fired(client) == 1
        assert client.get("/health").json() == {"status": "ok"}
        assert "Shop" in client.get("/docs").text
        assert client.get("/openapi.json").json()["info"]["title"] == "Shop"
        assert client.get("/schedules/").status_code == 404
    assert not shop.entered


def test_an_app_that_is_not_entered_is_not_healthy(house, shop):
    host = FastAPI()
    host.mount("/inner", create_app(shop))
    with house.hosting(host) as client:
        answer = client.get("/inner/health")
    assert answer.status_code == 503
    assert answer.json()["detail"] == "the App is not entered, or is being left"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"most_body": 0}, "most_body=0 must be a number of bytes, at least 1"),
        ({"most_body": True}, "most_body=True must be a number of bytes, at least 1"),
        ({"most_wait": -1}, "most_wait=-1 must be a number of seconds, at least 0"),
        ({"most_wait": float("nan")}, "most_wait=nan must be a number of seconds, at least 0"),
        ({"most_wait": "1"}, "most_wait='1' must be a number of seconds, at least 0"),
    ],
)
def test_limits_that_make_no_sense_are_refused(shop, arguments, said):
    with pytest.raises(ArgumentError) as caught:
        create_trigger_router(shop, **arguments)
    assert str(caught.value) == said


def test_only_an_app_has_schedules():
    with pytest.raises(ArgumentError, match=r"^app='x' must be a dpcore.App$"):
        create_trigger_router("x")
    assert threading.active_count() >= 1
