"""The OpenAPI document: what it says, and that what is served is what it says, asked by schemathesis."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from functools import partial
from typing import Annotated, Literal
from uuid import uuid4

import httpx
import jsonschema
import msgspec
import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, assume, given, settings
from schemathesis.config import GenerationConfig, ProjectConfig, ProjectsConfig, SchemathesisConfig
from schemathesis.generation import GenerationMode

from dpcore import App, Plugins, Registry
from dpcore_plugins import ApiTrigger, CronTrigger, ManualTrigger
from dpcore_plugins.api import create_app, create_trigger_router

BEARER = {"Authorization": "Bearer the-token"}


@dataclasses.dataclass
class Paid:
    id: int
    items: list[str]
    kind: Literal["cash", "card"] = "cash"
    note: str | None = None


def made() -> App:
    tasks = Registry()

    @tasks.task
    def load(day: str, limit: Annotated[int, msgspec.Meta(ge=0, le=9)] = 3, *, ratio: float = 0.5) -> list[str]:
        return [day] * limit

    app = App(tasks, plugins=Plugins(installed=False), executor="inline")
    app.schedule("nightly", CronTrigger("0 3 * * *"), run=["load"], overlap="allow")
    app.schedule("lenient", ManualTrigger(), run=["load"], params={"day": "mon"}, overlap="allow")
    app.schedule("paid", ApiTrigger(body=Paid), publish="paid")
    app.schedule("any", ApiTrigger(), publish="any")
    return app


@pytest.fixture(scope="module")
def served(house) -> Iterator[httpx.Client]:
    with house.serving(made(), tokens=["the-token"], most_wait=0.2) as client:
        client.headers.update(BEARER)
        yield client


@pytest.fixture(scope="module")
def document(served) -> dict:
    return served.get("/openapi.json").json()


def test_it_is_openapi_3_1_and_asks_for_a_token(document):
    assert document["openapi"].startswith("3.1.")
    assert document["components"]["securitySchemes"] == {
        "token": {"type": "http", "description": "a token of this router", "scheme": "bearer"}
    }
    assert all(
        operation["security"] == [{"token": []}] for path in document["paths"].values() for operation in path.values()
    )


def test_every_schedule_has_a_path_with_its_body(document):
    bodies = {
        path.split("/")[2]: (
            found["requestBody"].get("required"),
            found["requestBody"]["content"]["application/json"]["schema"],
        )
        for path, operations in document["paths"].items()
        if path.endswith("/fire") and (found := operations["post"])
    }
    assert {*bodies} == {"{name}", "nightly", "lenient", "paid", "any"}
    assert bodies["nightly"][0] is True
    assert bodies["nightly"][1]["required"] == ["day"]
    assert bodies["nightly"][1]["properties"]["limit"] == {"type": "integer", "minimum": 0, "maximum": 9, "default": 3}
    assert bodies["lenient"][0] is False
    assert "required" not in bodies["lenient"][1]
    assert bodies["paid"][0] is True
    assert bodies["paid"][1]["required"] == ["id", "items"]
    assert bodies["any"] == (False, {})
    for _, schema in bodies.values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_every_answer_is_described_and_every_error_as_a_problem(document):
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for status, answer in operation["responses"].items():
                wanted = "application/json" if status < "400" else "application/problem+json"
                assert [*answer["content"]] == [wanted], (path, method, status)
    assert {*document["paths"]["/schedules/nightly/fire"]["post"]["responses"]} == {
        "200", "202", "400", "401", "404", "409", "413", "415", "422", "500", "503",
    }  # fmt: skip


def test_every_reference_leads_somewhere(document):
    def references(found: object) -> Iterator[str]:
        for inner in found.values() if isinstance(found, dict) else found if isinstance(found, list) else ():
            yield from references(inner)
        if isinstance(found, dict) and isinstance(found.get("$ref"), str):
            yield found["$ref"]

    assert {*references(document)} <= {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}


def test_without_tokens_none_is_asked_for():
    found = create_app(made()).openapi()
    assert "securitySchemes" not in found["components"]
    assert "security" not in json.dumps(found)
    assert "403" in found["paths"]["/schedules"]["get"]["responses"]


def test_it_has_the_schedules_that_there_are_when_it_is_made():
    app = made()
    host = FastAPI()
    host.include_router(create_trigger_router(app, prefix="/jobs"), prefix="/v1")
    app.schedule("late.one-more", ManualTrigger(), publish="late")
    assert "/v1/jobs/late.one-more/fire" in host.openapi()["paths"]


def test_schedules_that_have_gone_are_described_no_more(house):
    app = made()
    router = create_trigger_router(app)
    paths = {route.path for route in router.routes}
    with house.hosting(create_app(app)):
        house.portal.call(app.unschedule, "paid")
        house.portal.call(partial(app.schedule, "new", ManualTrigger(), publish="new"))
    assert {route.path for route in router.routes} ^ paths == {"/schedules/paid/fire", "/schedules/new/fire"}


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/schedules"),
        ("GET", "/schedules/{name}"),
        ("GET", "/schedules/{name}/runs/{run_id}"),
        ("POST", "/schedules/{name}/pause"),
        ("POST", "/schedules/{name}/resume"),
        ("POST", "/schedules/{name}/fire"),
        ("POST", "/schedules/nightly/fire"),
        ("POST", "/schedules/lenient/fire"),
        ("POST", "/schedules/paid/fire"),
        ("POST", "/schedules/any/fire"),
    ],
)
def test_what_is_served_is_what_is_described(served, document, method, path, mode):
    """All checks of schemathesis: no error of the server's, answers as described, what fits accepted, the rest refused."""
    drawn = GenerationConfig(allow_extra_parameters=False)  # parameters that nobody reads are no fault
    config = SchemathesisConfig(projects=ProjectsConfig(default=ProjectConfig(generation=drawn)))
    schema = schemathesis.openapi.from_url(f"{served.base_url}/openapi.json", headers=BEARER, config=config)
    operation = schema[path][method]
    if mode is GenerationMode.NEGATIVE and not (operation.body or operation.path_parameters or operation.query):
        pytest.skip("there is nothing that could be wrong")

    @settings(
        max_examples=25,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def asked(case: schemathesis.Case) -> None:
        assume(not any(isinstance(value, list) for value in case.query.values()))  # said twice, the last one counts
        if "Idempotency-Key" in case.headers:
            case.headers["Idempotency-Key"] = uuid4().hex  # the same one again is about the same firing
        case.call_and_validate(headers=BEARER)

    asked()


def test_every_path_was_asked(document):
    [mark] = [one for one in test_what_is_served_is_what_is_described.pytestmark if one.args[0] == ("method", "path")]
    assert {path for _, path in mark.args[1]} == {*document["paths"]}
