"""Every answer that a request can have, over real HTTP."""

from __future__ import annotations

import logging
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path

import httpx
import pytest

from dpcore import App, Plugins, Registry, TimeTrigger
from dpcore_plugins import ApiTrigger, CronTrigger, ManualTrigger

from .conftest import JSON

MOST = 2000


class Shop:
    """An App with a schedule of each kind, and what its tasks wait for."""

    def __init__(self) -> None:
        self.tasks = Registry()
        self.app = App(self.tasks, plugins=Plugins(installed=False))
        self.gate = threading.Event()
        self.begun = threading.Semaphore(0)
        self.client: httpx.Client
        self._describe()

    def _describe(self) -> None:
        task, schedule = self.tasks.task, self.app.schedule

        @task
        def orders(day: str, limit: int = 2) -> list[str]:
            return [day] * limit

        @task
        def count(orders: list[str]) -> int:
            return len(orders)

        @task
        def stuck() -> str:
            self.begun.release()
            assert self.gate.wait(20)
            return "done"

        @task
        def bad() -> int:
            raise FileNotFoundError(2, "no such file", "/srv/secret/place")

        @task
        def odd() -> object:
            return {1j}

        @task
        def large() -> str:
            return "x" * (MOST + 1)

        @task
        def many() -> Iterator[Path]:
            yield from (Path("/a"), Path("/b"))

        schedule(
            "nightly",
            CronTrigger("0 3 * * *", timezone="Europe/Berlin"),
            run=["count"],
            params={"limit": 3},
            overlap="allow",
        )
        schedule("paid", ApiTrigger(), publish="orders.paid")
        schedule("both", ManualTrigger(), publish="orders.both", run=["many"], overlap="allow")
        schedule("stuck", ManualTrigger(), run=["stuck"], overlap="skip")
        schedule("queued", ApiTrigger(), run=["stuck"])
        schedule("bad", ApiTrigger(), run=["bad"])
        schedule("odd", ApiTrigger(), run=["odd", "large", "many"])
        schedule("broken", ApiTrigger(), publish="broken", data=lambda firing: firing.body["/etc/hidden"])

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Hold up the tasks that are stuck, and let them go."""
        self.gate.clear()
        try:
            yield
        finally:
            self.gate.set()

    def fire(self, name: str, body: object = None, query: str = "", **headers: str) -> httpx.Response:
        content = {} if body is None else {"json": body}
        return self.client.post(f"/schedules/{name}/fire{query}", headers={**JSON, **headers}, **content)

    def ended(self, name: str, run_id: str) -> None:
        """Wait until a run has ended."""
        running = [one for one in (self.app.schedules[name]).runs if one == run_id]
        for _ in range(2000 if running else 0):
            if self.client.get(f"/schedules/{name}/runs/{run_id}").json()["state"] == "succeeded":
                return
        assert not running


@pytest.fixture(scope="module")
def shop(house) -> Iterator[Shop]:
    found = Shop()
    with house.serving(found.app, most_body=MOST, most_wait=5) as found.client:
        yield found


def told(response: httpx.Response, status: int) -> dict:
    """Return a problem, once it is one as RFC 9457 has it."""
    problem = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert response.status_code == problem["status"] == status
    assert {*problem} >= {"type", "title", "detail", "instance"}
    assert problem["instance"] == response.request.url.raw_path.decode().partition("?")[0]
    return problem


# ---------------------------------------------------------------- looking


def test_all_schedules_are_told_with_what_they_do(shop):
    found = {one["name"]: one for one in shop.client.get("/schedules").json()}
    assert [*found] == [*shop.app.schedules]
    nightly = found["nightly"]
    assert nightly["trigger"] == "cron '0 3 * * *' in Europe/Berlin"
    assert (nightly["paused"], nightly["note"], nightly["error"], nightly["waiting"]) == (False, "", None, [])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT03:00:00\+0[12]:00", nightly["next"])
    assert found["paid"]["next"] is None


def test_one_schedule_is_told_with_its_next_times_each_with_its_offset(shop):
    found = shop.client.get("/schedules/nightly?count=3").json()
    assert found["name"] == "nightly"
    assert len(found["upcoming"]) == 3
    assert all(datetime.fromisoformat(one).utcoffset() for one in found["upcoming"])
    assert found["upcoming"][0] == found["next"]
    assert len(shop.client.get("/schedules/nightly").json()["upcoming"]) == 5


def test_an_unknown_schedule_is_not_found_and_the_nearest_name_is_said(shop):
    problem = told(shop.client.get("/schedules/nightli"), 404)
    assert problem["title"] == "Not Found"
    assert problem["detail"].startswith("there is no schedule 'nightli' (there are: 'bad', ")
    assert problem["detail"].endswith("; did you mean 'nightly'?")
    for path in ("fire", "pause", "resume"):
        told(shop.client.post(f"/schedules/nobody/{path}", headers=JSON), 404)


@pytest.mark.parametrize("count", ["0", "101", "x", "-1"])
def test_a_count_that_makes_no_sense_is_refused(shop, count):
    problem = told(shop.client.get(f"/schedules/nightly?count={count}"), 422)
    assert problem["detail"] == "what the request says of count does not fit"
    [error] = problem["errors"]
    assert (error["in"], error["name"]) == ("query", "count")


def test_a_schedule_that_is_added_later_is_there_and_one_that_is_gone_is_not(shop, house):
    house.portal.call(partial(shop.app.schedule, "late", CronTrigger("@daily"), publish="late"))
    assert shop.client.get("/schedules/late").json()["name"] == "late"
    house.portal.call(shop.app.unschedule, "late")
    told(shop.client.get("/schedules/late"), 404)


def test_a_trigger_that_fails_does_not_keep_the_others_from_being_told(shop, house):
    class Broken(TimeTrigger):
        def next_fire(self, after):
            raise RuntimeError("/srv/secret")

        def __str__(self):
            return "broken"

    house.portal.call(partial(shop.app.schedule, "fails", Broken(), publish="fails"))
    try:
        response = shop.client.get("/schedules")
        assert response.status_code == 200
        assert [one["error"]["type"] for one in response.json() if one["name"] == "fails"] == ["RuntimeError"]
        assert "secret" not in response.text
    finally:
        house.portal.call(shop.app.unschedule, "fails")


# ---------------------------------------------------------------- pausing


def test_a_schedule_is_paused_with_a_note_and_resumed(shop):
    found = shop.client.post("/schedules/nightly/pause", json={"note": "stocktaking"}).json()
    assert (found["paused"], found["note"], found["next"]) == (True, "stocktaking", None)
    assert shop.app.schedules["nightly"].paused
    found = shop.client.post("/schedules/nightly/resume", headers=JSON).json()
    assert (found["paused"], found["note"]) == (False, "")
    assert shop.client.post("/schedules/nightly/pause", headers=JSON).json()["note"] == ""
    shop.client.post("/schedules/nightly/resume", headers=JSON)


@pytest.mark.parametrize("body", [[], "x", {"note": 3}, {"notes": "x"}])
def test_a_pause_takes_a_note_and_nothing_else(shop, body):
    problem = told(shop.client.post("/schedules/nightly/pause", json=body), 422)
    assert problem["detail"] == "the body does not fit: an object with a text 'note' is expected, or nothing"
    assert not shop.app.schedules["nightly"].paused


def test_a_paused_schedule_can_be_fired(shop):
    shop.client.post("/schedules/paid/pause", headers=JSON)
    assert shop.fire("paid").status_code == 202
    shop.client.post("/schedules/paid/resume", headers=JSON)


# ---------------------------------------------------------------- firing


def test_a_fired_run_is_accepted_and_said_where_it_is(shop):
    response = shop.fire("nightly", {"day": "mon"})
    assert response.status_code == 202
    found = response.json()
    assert found == {"id": found["id"], "run_id": found["id"], "state": "fired"}
    assert response.headers["location"] == f"/schedules/nightly/runs/{found['run_id']}"
    assert "idempotency-replayed" not in response.headers
    run = shop.client.get(response.headers["location"])
    assert run.status_code == 200
    assert run.json()["run_id"] == found["run_id"]


def test_a_name_may_be_of_any_script(shop, house):
    house.portal.call(partial(shop.app.schedule, "größe.日-1", ManualTrigger(), run=["many"]))
    answer = shop.fire("größe.日-1", query="?wait=5")
    assert answer.json()["results"] == {"many": ["/a", "/b"]}
    answer = shop.fire("größe.日-1", query="?wait=0")
    assert answer.headers["location"].startswith("/schedules/gr%C3%B6%C3%9Fe.%E6%97%A5-1/runs/gr%C3%B6")
    assert shop.client.get(answer.headers["location"]).json()["run_id"] == answer.json()["id"]
    house.portal.call(shop.app.unschedule, "größe.日-1")


def test_an_event_that_is_fired_is_accepted_and_nothing_is_waited_for(shop):
    response = shop.fire("paid", {"id": 7}, "?wait=5")
    found = response.json()
    assert response.status_code == 202
    assert found == {"id": found["id"], "event_id": found["id"], "state": "fired"}
    assert "location" not in response.headers


def test_what_publishes_and_runs_tells_both_ids(shop):
    found = shop.fire("both", query="?wait=5").json()
    assert found["id"] == found["run_id"] == found["event_id"]
    assert found["results"] == {"many": ["/a", "/b"]}


def test_the_end_of_a_run_is_waited_for_and_its_last_results_are_told(shop):
    response = shop.fire("nightly", {"day": "mon"}, "?wait=5")
    found = response.json()
    assert response.status_code == 200
    assert found == {
        "id": found["id"], "run_id": found["id"], "state": "succeeded", "results": {"count": 3}, "left_out": [], "errors": {},
    }  # fmt: skip
    run = shop.client.get(f"/schedules/nightly/runs/{found['run_id']}").json()
    assert run["state"] == "succeeded"
    assert run["tasks"]["count"] == {"state": "succeeded", "attempt": 1, "error": None}


def test_what_the_schedule_gives_may_be_given_otherwise(shop):
    assert shop.fire("nightly", {"day": "mon", "limit": 4}, "?wait=5").json()["results"] == {"count": 4}


def test_a_run_that_takes_longer_than_is_waited_for_is_accepted(shop):
    with shop.closed():
        response = shop.fire("stuck", query="?wait=0.05")
        assert response.status_code == 202
        run_id = response.json()["run_id"]
        assert shop.begun.acquire(timeout=10)
        assert shop.client.get(f"/schedules/stuck/runs/{run_id}").json()["state"] == "running"
        assert shop.client.get("/schedules/stuck").json()["runs"] == [run_id]
    shop.ended("stuck", run_id)


def test_nobody_waits_longer_than_the_router_says(house, tasks, plugins):
    gate = threading.Event()
    tasks.task(name="slow")(lambda: gate.wait(20))
    app = App(tasks, plugins=plugins)
    app.schedule("slow", ApiTrigger(), run=["slow"])
    with house.serving(app, most_wait=0.05) as client:
        assert client.post("/schedules/slow/fire?wait=1e9", headers=JSON).status_code == 202
        gate.set()


@pytest.mark.parametrize("wait", ["-1", "nan", "inf", "x"])
def test_a_wait_that_makes_no_sense_is_refused_and_nothing_is_fired(shop, wait):
    problem = told(shop.fire("stuck", query=f"?wait={wait}"), 422)
    assert problem["errors"][0]["name"] == "wait"
    assert shop.app.schedules["stuck"].runs == []


def test_results_that_json_cannot_say_are_null_and_listed(shop):
    found = shop.fire("odd", query="?wait=5").json()
    assert found["results"] == {"odd": None, "large": None, "many": ["/a", "/b"]}
    assert sorted(found["left_out"]) == ["large", "odd"]


def test_of_a_failed_run_the_type_of_the_error_is_told_and_no_internals(shop):
    response = shop.fire("bad", query="?wait=5")
    found = response.json()
    assert (response.status_code, found["state"], found["results"]) == (200, "failed", {})
    assert found["errors"] == {"bad": {"type": "FileNotFoundError"}}
    run = shop.client.get(f"/schedules/bad/runs/{found['run_id']}")
    assert run.json()["tasks"]["bad"] == {
        "state": "failed", "attempt": 1, "error": {"type": "FileNotFoundError", "text": None},
    }  # fmt: skip
    for text in (response.text, run.text):
        assert "Traceback" not in text
        assert "/" not in text.replace("/schedules", "")


def test_the_owner_may_have_the_texts_of_errors_told(house, tasks, plugins):
    @tasks.task
    def bad():
        raise ValueError("row 7\nand more")

    app = App(tasks, plugins=plugins)
    app.schedule("bad", ApiTrigger(), run=["bad"])
    with house.serving(app, error_texts=True) as client:
        found = client.post("/schedules/bad/fire?wait=5", headers=JSON).json()
    assert found["errors"] == {"bad": {"type": "ValueError", "text": "row 7"}}


def test_a_run_of_another_schedule_is_not_found(shop):
    run_id = shop.fire("both", query="?wait=5").json()["run_id"]
    problem = told(shop.client.get(f"/schedules/nightly/runs/{run_id}"), 404)
    assert problem["detail"] == f"schedule 'nightly' has no run '{run_id}', or it was forgotten"
    for other in ("nothing", "both-", "both-20261124T000000Z", f"both-{'0' * 20}", f"x-{run_id}", "both-x" * 50):
        told(shop.client.get(f"/schedules/both/runs/{other}"), 404)


# ---------------------------------------------------------------- no room


def test_a_schedule_that_still_runs_and_leaves_out_says_409(shop):
    with shop.closed():
        first = shop.fire("stuck").json()["run_id"]
        problem = told(shop.fire("stuck"), 409)
        assert problem["detail"] == (
            "schedule 'stuck' was not fired, because as many of its runs go on as may; what it is fired for meanwhile is left out"
        )
        assert problem["runs"] == [first]
    shop.ended("stuck", first)


def test_a_firing_waits_for_its_turn_and_its_end_can_be_waited_for(shop):
    with shop.closed():
        first = shop.fire("queued").json()
        second = shop.fire("queued")
        found = second.json()
        assert (second.status_code, first["state"], found["state"]) == (202, "fired", "waiting")
        assert shop.client.get(second.headers["location"]).json() == {
            "run_id": found["id"], "state": "waiting", "reason": "", "tasks": {},
        }  # fmt: skip
        threading.Timer(0.2, shop.gate.set).start()
        third = shop.fire("queued", query="?wait=5")
        assert third.status_code == 200
        assert third.json()["results"] == {"stuck": "done"}
    shop.ended("queued", found["id"])


def test_where_too_many_wait_it_is_said_when_to_come_again(shop):
    with shop.closed():
        answers = [shop.fire("queued") for _ in range(102)]
        assert [one.status_code for one in answers[:101]] == [202] * 101
        problem = told(answers[-1], 503)
        assert answers[-1].headers["retry-after"] == "5"
        assert problem["detail"].endswith("as many of its runs go on as may, and as many firings wait; try again later")
    shop.fire("queued", query="?wait=5")


# ---------------------------------------------------------------- bodies that cannot be read


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "the body is not JSON: Input data was truncated"),
        (b"\xff\xfe", "the body is not JSON: JSON is malformed: invalid character (byte 0)"),
        (b'"\xed\xa0\x80"', "the body is not JSON: 'utf-8' codec can't decode byte"),
        (b"NaN", "the body is not JSON: "),
        (b"1e999", "the body is not JSON: Number out of range"),
        (b"[" * 1999, "the body is not JSON that can be read: it is nested too deeply"),
    ],
    ids=["torso", "bytes", "surrogate", "nan", "huge", "deep"],
)
def test_what_is_not_json_is_said_so(shop, content, said):
    problem = told(shop.client.post("/schedules/paid/fire", content=content, headers=JSON), 400)
    assert problem["detail"].startswith(said)


@pytest.mark.parametrize("media", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_a_body_must_say_that_it_is_json(shop, media):
    problem = told(shop.client.post("/schedules/paid/fire", content=b"{}", headers={"Content-Type": media}), 415)
    assert "the content type must be application/json" in problem["detail"]


@pytest.mark.parametrize(
    "media", ["application/json; charset=utf-8", "Application/JSON", "application/cloudevents+json"]
)
def test_json_has_many_names(shop, media):
    answer = shop.client.post("/schedules/paid/fire", content=b"{}", headers={"Content-Type": media})
    assert answer.status_code == 202


def test_a_body_that_is_too_large_is_refused(shop):
    fits = b'"' + b"x" * (MOST - 2) + b'"'
    assert shop.client.post("/schedules/paid/fire", content=fits, headers=JSON).status_code == 202
    problem = told(shop.client.post("/schedules/paid/fire", content=fits + b" ", headers=JSON), 413)
    assert problem["detail"] == "the body is larger than 2000 bytes, the most that is taken here"
    told(shop.client.post("/schedules/nightly/pause", content=fits + b" ", headers=JSON), 413)


def test_a_body_that_comes_in_chunks_is_refused_as_soon_as_it_is_too_large(shop):
    address = shop.client.base_url.host, shop.client.base_url.port
    head = "POST /schedules/paid/fire HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection(address, 10) as connection:
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(3):  # and no end of it ever comes
            connection.sendall(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
        assert heard(connection).startswith(b"HTTP/1.1 413 ")


def test_a_length_that_is_too_large_is_refused_before_anything_has_come(shop):
    address = shop.client.base_url.host, shop.client.base_url.port
    head = "POST /schedules/paid/fire HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    for length in (MOST + 1, 10**19):
        with socket.create_connection(address, 10) as connection:
            connection.sendall(f"{head}Content-Length: {length}\r\n\r\n".encode())
            assert heard(connection).startswith(b"HTTP/1.1 413 ")


def test_what_follows_a_length_that_lies_is_no_part_of_the_body(shop):
    address = shop.client.base_url.host, shop.client.base_url.port
    head = "POST /schedules/paid/fire HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection(address, 10) as connection:
        connection.sendall(f"{head}Content-Length: 2\r\n\r\n{{}}".encode() + b"x" * 5000 + b"\r\n\r\n")
        answer = heard(connection)
    assert answer.startswith(b"HTTP/1.1 202 ")
    assert b"HTTP/1.1 400 " in answer


def test_a_request_that_is_broken_off_is_no_error_of_the_server(shop, caplog):
    address = shop.client.base_url.host, shop.client.base_url.port
    head = "POST /schedules/paid/fire HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with caplog.at_level(logging.WARNING):
        with socket.create_connection(address, 10) as connection:
            connection.sendall(f"{head}Content-Length: 20\r\n\r\n{{".encode())
        assert shop.client.get("/health").status_code == 200
    assert caplog.records == []


def heard(connection: socket.socket) -> bytes:
    """Return all that is said until the connection is closed."""
    found = b""
    while part := connection.recv(65536):
        found += part
    return found


# ---------------------------------------------------------------- the rest


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_a_method_that_there_is_not_is_said_so(shop, method):
    response = shop.client.request(method, "/schedules/paid/fire")
    problem = told(response, 405)
    assert response.headers["allow"] == "POST"
    assert problem["detail"] == f"{method} is not possible here, only POST"


def test_a_path_that_there_is_not_is_a_problem_too(shop):
    assert told(shop.client.get("/nothing/here"), 404)["detail"] == "Not Found"


def test_what_nobody_expects_has_an_id_under_which_it_is_in_the_log(shop, caplog):
    with caplog.at_level(logging.ERROR, "dpcore.api"):
        response = shop.fire("broken", {})
    problem = told(response, 500)
    assert "hidden" not in response.text
    assert "KeyError" not in response.text
    number = problem["id"]
    assert problem["detail"] == f"something went wrong here; the log of the server says more under {number}"
    [record] = [one for one in caplog.records if number in one.getMessage()]
    assert record.getMessage() == f"request {number}: POST /schedules/broken/fire failed"
    assert record.exc_info is not None
    assert record.exc_info[0] is KeyError


def test_a_store_that_is_away_is_no_fault_of_the_request(house, tasks, plugins, tmp_path, caplog):
    tasks.task(name="one")(lambda: 1)
    app = App(tasks, plugins=plugins, store=f"sqlite:{tmp_path}/runs.db")
    app.schedule("one", ApiTrigger(), run=["one"])
    with house.serving(app) as client:
        assert client.post("/schedules/one/fire?wait=5", headers=JSON).status_code == 200

        async def close() -> None:
            await (await app.store()).__aexit__(None, None, None)

        house.portal.call(close)
        response = client.post("/schedules/one/fire", headers=JSON)
        problem = told(response, 503)
        assert "runs.db" not in response.text
        assert problem["detail"].startswith("what this needs cannot be reached at present; ")
        assert response.headers["retry-after"] == "5"
