"""What the body of a request may be: of a type, run parameters, or anything; and what is said of one that does not fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import date, timedelta
from enum import Enum
from typing import Annotated, Any, NotRequired, TypedDict

import msgspec
import pydantic
import pytest

from dpcore import App, Plugins, Registry, plan
from dpcore_plugins import ApiTrigger, ManualTrigger
from dpcore_plugins.api.bodies import body_of

from .conftest import JSON


@dataclasses.dataclass
class Paid:
    id: int
    when: date
    notes: list[str] = dataclasses.field(default_factory=list)


class Item(TypedDict):
    name: str
    count: NotRequired[int]


class Point(msgspec.Struct):
    x: float
    y: float


class Order(pydantic.BaseModel):
    id: int
    items: list[str]


class Branch(msgspec.Struct):
    name: str
    inner: list[Branch] = []


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Strange:
    """Has fields that are named as words of JSON Schema are."""

    discriminator: Point
    default: Point


KINDS: dict[str, tuple[Any, Any, Any]] = {
    "dataclass": (Paid, {"id": 7, "when": "2026-11-24"}, Paid(7, date(2026, 11, 24))),
    "typed-dict": (list[Item], [{"name": "a"}], [{"name": "a"}]),
    "struct": (Point, {"x": 1, "y": 2.5}, Point(1.0, 2.5)),
    "model": (Order, {"id": 1, "items": ["a"]}, Order(id=1, items=["a"])),
    "list": (list[int], [1, 2], [1, 2]),
    "enum": (Colour, "red", Colour.RED),
    "recursive": (Branch, {"name": "a", "inner": [{"name": "b"}]}, Branch("a", [Branch("b")])),
    "strange": (
        Strange,
        {"discriminator": {"x": 1, "y": 1}, "default": {"x": 2, "y": 2}},
        Strange(Point(1, 1), Point(2, 2)),
    ),
    "optional": (int | None, None, None),
    "anything": (None, {"any": [1, None]}, {"any": [1, None]}),
}


class Seen:
    def __init__(self) -> None:
        self.tasks = Registry()
        self.app = App(self.tasks, plugins=Plugins(installed=False))
        self.bodies: list[Any] = []
        self.client: Any = None
        task = self.tasks.task

        def note(firing) -> str:
            self.bodies.append(firing.body)
            return "seen"

        def params(firing) -> dict[str, Any]:
            note(firing)
            return {"day": date(2026, 1, 1), "span": timedelta(1)}

        @task
        def load(
            day: date, span: timedelta, colour: Colour = Colour.RED, *, size: Annotated[int, msgspec.Meta(ge=1)] = 1
        ) -> str:
            return f"{day} {span.total_seconds():g} {colour.name} {size}"

        @task
        def more(load: str, day: Any, limit: int) -> str:
            return f"{load} {day} {limit}"

        for name, (kind, _, _) in KINDS.items():
            self.app.schedule(name, ApiTrigger(body=kind), publish="seen", data=note)
        self.app.schedule("params", ManualTrigger(), run=["load"], overlap="allow")
        self.app.schedule("two", [ManualTrigger()], run=["more"], params={"limit": 3}, overlap="allow")
        self.app.schedule("function", ManualTrigger(), run=["load"], params=params, overlap="allow")
        self.app.schedule("typed-run", ApiTrigger(body=Order), run=["load"], params=params, overlap="allow")

    def fire(self, name: str, body: Any) -> Any:
        return self.client.post(f"/schedules/{name}/fire?wait=5", content=msgspec.json.encode(body), headers=JSON)


@pytest.fixture(scope="module")
def seen(house) -> Iterator[Seen]:
    found = Seen()
    with house.serving(found.app) as found.client:
        yield found


@pytest.mark.parametrize("name", KINDS)
def test_a_body_becomes_what_the_trigger_says(seen, name):
    _, body, wanted = KINDS[name]
    seen.bodies.clear()
    assert seen.fire(name, body).status_code == 202
    [found] = seen.bodies
    assert found == wanted
    assert type(found) is type(wanted)


def refused(response) -> list[tuple[str, str]]:
    problem = response.json()
    assert response.status_code == 422, problem
    assert problem["detail"].startswith("the body does not fit: ")
    return [(one["pointer"], one["detail"]) for one in problem["errors"]]


@pytest.mark.parametrize(
    ("name", "body", "errors"),
    [
        ("dataclass", {"when": "2026-11-24"}, [("#", "does not fit Paid: Object missing required field `id`")]),
        ("dataclass", {"id": 1, "when": "x"}, [("#/when", "does not fit Paid: Invalid RFC3339 encoded date")]),
        ("dataclass", {"id": "1", "when": "2026-11-24"}, [("#/id", "does not fit Paid: Expected `int`, got `str`")]),
        ("dataclass", None, [("#", "does not fit Paid: Expected `object`, got `null`")]),
        ("typed-dict", [{"name": "a"}, {"name": 3}], [("#/1/name", "does not fit list[Item]: Expected `str`, got `int`")]),
        ("list", {"a": 1}, [("#", "does not fit list[int]: Expected `array`, got `object`")]),
        ("enum", "green", [("#", "does not fit Colour: Invalid enum value 'green'")]),
        ("recursive", {"name": "a", "inner": [{}]}, [("#/inner/0", "does not fit Branch: Object missing required field `name`")]),
        ("model", {"id": "x"}, [
            ("#/id", "Input should be a valid integer, unable to parse string as an integer"), ("#/items", "Field required"),
        ]),
        ("optional", "x", [("#", "does not fit int | None: Expected `int | null`, got `str`")]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_body_is_said_with_its_place(seen, name, body, errors):
    assert refused(seen.fire(name, body)) == errors


def test_run_parameters_are_read_by_their_hints(seen):
    body = {"day": "2026-11-24", "span": "PT90S", "colour": "blue", "size": 2}
    assert seen.fire("params", body).json()["results"] == {"load": "2026-11-24 90 BLUE 2"}


def test_a_whole_number_is_one_however_it_is_written(seen):
    body = b'{"day": "2026-11-24", "span": "PT1S", "size": 2.0}'
    answer = seen.client.post("/schedules/params/fire?wait=5", content=body, headers=JSON)
    assert answer.json()["results"] == {"load": "2026-11-24 1 RED 2"}
    assert seen.client.post("/schedules/list/fire", content=b"[1.0, 2e0]", headers=JSON).status_code == 202
    assert seen.client.post("/schedules/list/fire", content=b"[1.5]", headers=JSON).status_code == 422


def test_every_run_parameter_that_does_not_fit_is_said(seen):
    body = {"day": "x", "colour": "green", "size": 0, "sise": 1, "a/b": 1}
    assert refused(seen.fire("params", body)) == [
        ("#", "'span' is missing"),
        ("#/day", "does not fit date: Invalid RFC3339 encoded date"),
        ("#/colour", "does not fit Colour: Invalid enum value 'green'"),
        ("#/size", "does not fit int: Expected `int` >= 1"),
        ("#/sise", "there is no such parameter (there are: 'day', 'span', 'colour', 'size')"),
        ("#/a~1b", "there is no such parameter (there are: 'day', 'span', 'colour', 'size')"),
    ]


@pytest.mark.parametrize("body", [[], "x", 3, None])
def test_run_parameters_are_an_object(seen, body):
    assert refused(seen.fire("params", body)) == [("#", "an object of run parameters is expected")]


def test_a_missing_body_is_said_to_be_missing(seen):
    answer = seen.client.post("/schedules/params/fire", headers=JSON)
    assert refused(answer) == [("#", "an object of run parameters is expected")]


def test_a_parameter_of_two_tasks_fits_both_and_one_that_the_schedule_gives_may_be_left_out(seen):
    assert seen.fire("two", {"day": "2026-11-24", "span": "PT1S"}).json()["results"] == {
        "more": "2026-11-24 1 RED 1 2026-11-24 3"
    }
    assert refused(seen.fire("two", {"day": 3, "span": "PT1S"}))[0][0] == "#/day"


def test_where_a_function_makes_the_parameters_the_body_is_its_affair(seen):
    seen.bodies.clear()
    assert seen.fire("function", ["what", "ever"]).json()["state"] == "succeeded"
    assert seen.bodies == [["what", "ever"]]


def test_a_function_that_makes_parameters_gets_the_body_as_its_type(seen):
    seen.bodies.clear()
    assert seen.fire("typed-run", {"id": 1, "items": []}).json()["state"] == "succeeded"
    assert seen.bodies == [Order(id=1, items=[])]


# ---------------------------------------------------------------- described


def described(app: App, name: str) -> dict[str, Any]:
    return body_of(app, app.schedules[name]).schema


def test_what_is_open_is_described_with_what_must_be_there(seen):
    found = described(seen.app, "params")
    assert found["required"] == ["day", "span"]
    assert found["additionalProperties"] is False
    assert found["properties"]["day"] == {"type": "string", "format": "date"}
    assert found["properties"]["colour"] == {"title": "Colour", "enum": ["red", "blue"], "default": "red"}
    assert described(seen.app, "two")["required"] == ["day", "span"]
    assert described(seen.app, "two")["properties"]["day"] == {"allOf": [{"type": "string", "format": "date"}, {}]}


def test_a_schema_is_in_one_piece_and_left_open_where_it_holds_itself(seen):
    found = described(seen.app, "recursive")
    assert found["properties"]["inner"]["items"] == {}
    assert found["properties"]["name"] == {"type": "string"}
    assert {*described(seen.app, "strange")["properties"]} == {"discriminator", "default"}
    assert described(seen.app, "strange")["properties"]["default"]["required"] == ["x", "y"]
    assert "$" not in str([described(seen.app, name) for name in seen.app.schedules])


@pytest.mark.parametrize("name", ["anything", "function"])
def test_what_may_be_anything_is_described_as_that(seen, name):
    assert described(seen.app, name) == {}


def test_a_plan_and_the_result_of_a_task_that_is_given_leave_open_what_they_leave_open():
    tasks = Registry()

    @tasks.task
    def orders(day: str) -> list[int]:
        return [len(day)]

    @tasks.task(inputs={"rows": "orders"})
    def total(rows: list[int], factor: int = 1) -> int:
        return sum(rows) * factor

    app = App(tasks, plugins=Plugins(installed=False))
    app.schedule("plan", ManualTrigger(), run=[plan("total", registry=tasks, params=["day"])])
    app.schedule("given", ManualTrigger(), run=["total"], params={"orders": [1, 2]})
    app.schedule("tags", ManualTrigger(), run=[], root_tasks=["total"], include_upstream=True)
    assert {*described(app, "plan")["properties"]} == {"day", "factor"}
    assert {*described(app, "given")["properties"]} == {"factor"}
    assert {*described(app, "tags")["properties"]} == {"day", "factor"}


def test_a_type_that_payloads_cannot_be_is_converted_as_run_parameters_are():
    class Own:
        pass

    tasks = Registry()
    tasks.task(name="one")(lambda: 1)
    app = App(tasks, plugins=Plugins(installed=False))
    app.schedule("own", ApiTrigger(body=complex), run=["one"])
    app.schedule("class", ApiTrigger(body=Own), run=["one"])
    assert body_of(app, app.schedules["own"]).read("1+2j") == 1 + 2j
    assert body_of(app, app.schedules["own"]).required
    with pytest.raises(Exception, match="the body does not fit: #: 'x' is not"):
        body_of(app, app.schedules["own"]).read("x")
    with pytest.raises(Exception, match=r"the body does not fit: #: 'x' is not a.*Own"):
        body_of(app, app.schedules["class"]).read("x")
