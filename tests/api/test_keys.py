"""Idempotency-Key: under one key a schedule fires once, however often and by however many it is asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from dpcore import App, Plugins, Registry
from dpcore_plugins import ApiTrigger, ManualTrigger

from .conftest import JSON


class Shop:
    def __init__(self) -> None:
        self.tasks = Registry()
        self.app = App(self.tasks, plugins=Plugins(installed=False))
        self.published: list[object] = []
        self.ran: list[int] = []
        self.fails = True
        self.client: httpx.Client

        @self.tasks.task
        def one(number: int = 0) -> int:
            self.ran.append(number)
            return number

        def data(firing) -> object:
            if self.fails:
                raise OSError("not yet")
            self.published.append(firing.body)
            return firing.body

        self.app.schedule("event", ApiTrigger(), publish="event", data=data)
        self.app.schedule("run", ManualTrigger(), run=["one"], overlap="allow")
        self.app.schedule("queued", ApiTrigger(), run=["one"])

    def fire(self, name: str, key: str, body: object = None, query: str = "") -> httpx.Response:
        headers = {**JSON, "Idempotency-Key": key}
        return self.client.post(f"/schedules/{name}/fire{query}", headers=headers, json=body)


@pytest.fixture(scope="module")
def served(house) -> Iterator[Shop]:
    shop = Shop()
    with house.serving(shop.app) as shop.client:
        yield shop


@pytest.fixture
def shop(served) -> Shop:
    served.fails = False
    served.published.clear()
    served.ran.clear()
    return served


@pytest.mark.parametrize("name", ["run", "queued"])
def test_a_key_runs_once_and_the_second_answer_is_about_the_first_run(shop, name):
    first, second = (shop.fire(name, "k 1", {"number": 7}, "?wait=5") for _ in range(2))
    assert first.status_code == second.status_code == 200
    assert first.json() == second.json()
    assert first.json()["results"] == {"one": 7}
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert shop.ran == [7]
    third = shop.fire(name, "k 1", {"number": 7})
    assert third.status_code == 202
    assert third.json() == {"id": first.json()["id"], "run_id": first.json()["id"], "state": "known"}
    assert third.headers["location"].endswith(first.json()["id"])


def test_a_key_publishes_once(shop):
    first, second = (shop.fire("event", "k", {"id": 1}) for _ in range(2))
    assert first.json()["event_id"] == second.json()["event_id"]
    assert second.headers["idempotency-replayed"] == "true"
    assert shop.published == [{"id": 1}]


def test_another_key_and_another_schedule_fire_anew(shop):
    found = {shop.fire(name, key, {}).json()["id"] for name in ("run", "queued") for key in ("a", "b")}
    assert len(found) == 4


def test_another_body_under_the_same_key_is_refused(shop):
    assert shop.fire("event", "same", {"a": 1, "b": 2}).status_code == 202
    assert shop.fire("event", "same", {"b": 2, "a": 1}).status_code == 202
    answer = shop.fire("event", "same", {"a": 2})
    assert answer.status_code == 422
    assert answer.json()["detail"] == "another body was sent with this Idempotency-Key; send the same, or another key"
    assert shop.published == [{"a": 1, "b": 2}]


def test_a_key_under_which_nothing_could_be_fired_may_be_used_again(shop):
    shop.fails = True
    assert shop.fire("event", "again", {"a": 1}).status_code == 500
    shop.fails = False
    answer = shop.fire("event", "again", {"a": 2})
    assert answer.status_code == 202
    assert "idempotency-replayed" not in answer.headers


@pytest.mark.parametrize("name", ["event", "run", "queued"])
def test_of_many_who_ask_at_once_with_one_key_one_fires(shop, name):
    start = threading.Barrier(12)

    def ask(_) -> httpx.Response:
        with httpx.Client(base_url=shop.client.base_url, timeout=20) as client:
            start.wait(10)
            headers = {"Idempotency-Key": "crowd"}
            return client.post(f"/schedules/{name}/fire?wait=5", headers=headers, json={"number": 3})

    with ThreadPoolExecutor(12) as pool:
        answers = [*pool.map(ask, range(12))]
    assert {one.status_code for one in answers} == {202 if name == "event" else 200}
    assert len({one.json()["id"] for one in answers}) == 1
    assert sum("idempotency-replayed" in one.headers for one in answers) == 11
    assert len(shop.published) + len(shop.ran) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"])
def test_a_key_is_text_of_some_length(shop, key):
    answer = shop.fire("run", key)
    assert answer.status_code == 422
    assert answer.json()["detail"] == "what the request says of Idempotency-Key does not fit"
    assert shop.ran == []


def test_a_key_that_is_no_ascii_is_refused(shop):
    headers = {**JSON, "Idempotency-Key": "ä".encode()}
    assert shop.client.post("/schedules/run/fire", headers=headers).status_code == 422


def test_a_key_is_known_after_a_restart_where_a_run_was_begun(house, tmp_path):
    ids, states = [], []
    for _ in range(2):
        tasks = Registry()
        tasks.task(name="one")(lambda: 1)
        app = App(
            tasks,
            plugins=Plugins(installed=False),
            store=f"sqlite:{tmp_path}/runs.db",
            io=f"filesystem:{tmp_path}/runs",
        )
        app.schedule("one", ApiTrigger(), run=["one"])
        with house.serving(app) as client:
            answer = client.post("/schedules/one/fire?wait=5", headers={**JSON, "Idempotency-Key": "k"})
            assert answer.status_code == 200
            assert answer.json()["results"] == {"one": 1}
            ids.append(answer.json()["id"])
            states.append(answer.headers.get("idempotency-replayed"))
    assert ids[0] == ids[1]
    assert states == [None, "true"]
