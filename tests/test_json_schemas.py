"""Schemas of tasks as JSON Schema: valid documents, true of every value that a hint lets through."""

# ruff: noqa: F821, UP007 - names that do not resolve, and old spellings of hints, are what is tested

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import subprocess
import sys
import types
import typing
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NewType, NotRequired, TypedDict, TypeVar, Union
from uuid import UUID

import jsonschema
import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpcore.hints import convert, schema

T = TypeVar("T")
Number = TypeVar("Number", bound=float)
Text = TypeVar("Text", str, bytes)
UserId = NewType("UserId", int)
Positive = Annotated[int, msgspec.Meta(gt=0, description="how many")]


class Frame:
    """A class that JSON Schema has no word for."""


class Color(enum.Enum):
    RED = "r"
    TWO = 2


class Access(enum.IntFlag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass
class Order:
    id: int
    lines: list[Order] = dataclasses.field(default_factory=list)
    note: str | None = None


@dataclasses.dataclass
class Odd:
    """msgspec takes no union of two kinds of arrays, so its fields are read one by one."""

    either: list[int] | tuple[str, ...]
    inner: Odd | None = None
    lost: Nowhere = None
    more: int = 1


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


class OddMovie(TypedDict):
    title: list[int] | set[str]
    year: NotRequired[Nowhere]


class Point(NamedTuple):
    x: int
    y: int = 0


class OddPoint(NamedTuple):
    x: list[int] | tuple[str, ...]
    y: int = 0


class Paid(msgspec.Struct, rename="camel", tag=True):
    order_id: int
    paid_at: datetime | None = None


class Address(pydantic.BaseModel):
    street: str
    number: int = pydantic.Field(gt=0)


class Person(pydantic.BaseModel):
    name: str
    address: Address


def described(hint: Any) -> dict[str, Any]:
    """Return the schema of a result with that hint, without its dialect."""

    def task(): ...

    task.__annotations__["return"] = hint
    document = schema(task).result_json_schema()
    jsonschema.Draft202012Validator.check_schema(document)
    assert document.pop("$schema") == "https://json-schema.org/draft/2020-12/schema"
    return document


def problems_of(hint: Any) -> tuple[str, ...]:
    def task(): ...

    task.__annotations__["return"] = hint
    return schema(task).problems


def unknown(name: str, where: str) -> dict[str, Any]:
    return {"title": name, "$comment": f"any value: JSON Schema has no word for {where}"}


INTEGER, STRING, NULL = {"type": "integer"}, {"type": "string"}, {"type": "null"}
FRAME = unknown("Frame", f"{__name__}.Frame")


# ---------------------------------------------------------------- every kind of hint


@pytest.mark.parametrize(
    ("hint", "document"),
    [
        (int, INTEGER),
        (float, {"type": "number"}),
        (bool, {"type": "boolean"}),
        (str, STRING),
        (None, NULL),
        (Any, {}),
        (object, {}),
        (typing.Never, {"not": {}}),
        (bytes, {"type": "string", "contentEncoding": "base64"}),
        (datetime, STRING),
        (date, {"type": "string", "format": "date"}),
        (time, STRING),
        (timedelta, {"type": "string", "format": "duration"}),
        (UUID, {"type": "string", "format": "uuid"}),
        (Decimal, {"type": "string", "format": "decimal"}),
        (typing.LiteralString, STRING),
        (Literal["a", 1, None, True], {"enum": ["a", 1, None, True]}),
        (Literal[Color.RED, b"x"], {"enum": ["r", "eA=="]}),
        (int | None, {"anyOf": [INTEGER, NULL]}),
        (
            Union[list[int], tuple[str, ...]],
            {"anyOf": [{"type": "array", "items": INTEGER}, {"type": "array", "items": STRING}]},
        ),
        (int | Any, {}),
        (datetime | str, STRING),
        (list, {"type": "array"}),
        (list[int], {"type": "array", "items": INTEGER}),
        (list[Frame], {"type": "array", "items": FRAME}),
        (set[str], {"type": "array", "items": STRING, "uniqueItems": True}),
        (typing.Sequence[int], {"type": "array", "items": INTEGER}),
        (Iterator[int], {"type": "array", "items": INTEGER}),
        (Generator[int, None, str], {"type": "array", "items": INTEGER}),
        (AsyncIterator[int], {"type": "array", "items": INTEGER}),
        (dict, {"type": "object"}),
        (dict[str, int], {"type": "object", "additionalProperties": INTEGER}),
        (Mapping[UUID, Any], {"type": "object"}),
        (tuple, {"type": "array"}),
        (tuple[int, ...], {"type": "array", "items": INTEGER}),
        (tuple[()], {"type": "array", "minItems": 0, "maxItems": 0}),
        (
            tuple[int, str],
            {"type": "array", "prefixItems": [INTEGER, STRING], "items": False, "minItems": 2, "maxItems": 2},
        ),
        (UserId, INTEGER),
        (T, {}),
        (Number, {"type": "number"}),
        (Text, {"anyOf": [STRING, {"type": "string", "contentEncoding": "base64"}]}),
        (Annotated[int, "a note"], INTEGER),
        (Positive, {"type": "integer", "exclusiveMinimum": 0, "description": "how many"}),
        (Positive | None, {"anyOf": [{"type": "integer", "exclusiveMinimum": 0, "description": "how many"}, NULL]}),
        (Annotated[str, msgspec.Meta(pattern="^a", max_length=3)], {"type": "string", "maxLength": 3, "pattern": "^a"}),
        (
            Annotated[list[Frame | int], msgspec.Meta(max_length=2)],
            {"type": "array", "items": {"anyOf": [FRAME, INTEGER]}, "maxItems": 2},
        ),
        (Annotated[str, msgspec.Meta(gt=0, title="wrong")], {"type": "string", "title": "wrong"}),
        (Frame, FRAME),
        (Frame | int, {"anyOf": [FRAME, INTEGER]}),
        (Path, {"type": "string", "title": "Path"}),
        (complex, unknown("complex", "complex")),
        (Callable[[int], str], unknown("Callable[[int], str]", "collections.abc.Callable[[int], str]")),
        (type[int], unknown("type[int]", "type[int]")),
        (typing.Self, {}),
        ("Nowhere", {}),
    ],
    ids=str,
)
def test_a_hint_is_described(hint, document):
    assert described(hint) == document


@pytest.mark.parametrize(
    ("hint", "document"),
    [
        (Color, {"title": "Color", "enum": ["r", 2]}),
        (Access, {"title": "Access", "type": "integer"}),
        (
            Order,
            {
                "title": "Order",
                "type": "object",
                "properties": {
                    "id": INTEGER,
                    "lines": {"type": "array", "items": {"$ref": "#/$defs/Order"}},
                    "note": {"anyOf": [STRING, NULL], "default": None},
                },
                "required": ["id"],
            },
        ),
        (
            Odd,
            {
                "title": "Odd",
                "type": "object",
                "properties": {
                    "either": {"anyOf": [{"type": "array", "items": INTEGER}, {"type": "array", "items": STRING}]},
                    "inner": {"anyOf": [{"$ref": "#/$defs/Odd"}, NULL], "default": None},
                    "lost": {"default": None},
                    "more": {"type": "integer", "default": 1},
                },
                "required": ["either"],
            },
        ),
        (
            Movie,
            {
                "title": "Movie",
                "type": "object",
                "properties": {"title": STRING, "year": INTEGER},
                "required": ["title"],
            },
        ),
        (
            OddMovie,
            {
                "title": "OddMovie",
                "type": "object",
                "properties": {
                    "title": {
                        "anyOf": [
                            {"type": "array", "items": INTEGER},
                            {"type": "array", "items": STRING, "uniqueItems": True},
                        ]
                    },
                    "year": {},
                },
                "required": ["title"],
            },
        ),
        (
            Point,
            {
                "title": "Point",
                "type": "array",
                "prefixItems": [INTEGER, {"type": "integer", "default": 0}],
                "minItems": 1,
                "maxItems": 2,
            },
        ),
        (
            OddPoint,
            {
                "title": "OddPoint",
                "type": "array",
                "prefixItems": [
                    {"anyOf": [{"type": "array", "items": INTEGER}, {"type": "array", "items": STRING}]},
                    {"type": "integer", "default": 0},
                ],
                "minItems": 1,
                "maxItems": 2,
            },
        ),
        (
            Paid,
            {
                "title": "Paid",
                "type": "object",
                "properties": {
                    "type": {"enum": ["Paid"]},
                    "orderId": INTEGER,
                    "paidAt": {"anyOf": [STRING, NULL], "default": None},
                },
                "required": ["type", "orderId"],
            },
        ),
    ],
    ids=str,
)
def test_a_class_is_described_once_under_its_name(hint, document):
    name = hint.__name__
    found = described(hint)
    if name in ("Order", "Odd"):
        found["$defs"][name].pop("description", None)
    assert found == {"$ref": f"#/$defs/{name}", "$defs": {name: document}}
    assert described(list[hint])["items"] == {"$ref": f"#/$defs/{name}"}
    assert list(described(dict[str, hint | list[hint]])["$defs"]) == [name]


def test_a_model_of_pydantic_describes_itself():
    document = described(list[Person])
    assert document["items"]["properties"]["address"] == {"$ref": "#/$defs/Address"}
    assert document["$defs"]["Address"]["properties"]["number"]["exclusiveMinimum"] == 0

    @dataclasses.dataclass
    class Company:
        owner: Person

    Company.__annotations__["owner"] = Person
    company = described(Company)
    assert company["$defs"]["Company"]["properties"]["owner"]["title"] == "Person"
    jsonschema.validate({"owner": {"name": "A", "address": {"street": "B", "number": 1}}}, company)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"owner": {"name": "A", "address": {"street": "B", "number": 0}}}, company)


def test_two_classes_of_one_name_are_two_definitions():
    first, second = dataclasses.make_dataclass("Row", [("a", int)]), dataclasses.make_dataclass("Row", [("b", str)])
    odd = dataclasses.make_dataclass("Odd", [("row", second), ("either", list[int] | tuple[str, ...])])
    document = described(tuple[first, second, odd])
    assert [item["$ref"] for item in document["prefixItems"]] == ["#/$defs/Row", "#/$defs/Row_2", "#/$defs/Odd"]
    assert list(document["$defs"]["Row"]["properties"]) == ["a"]
    assert list(document["$defs"]["Row_2"]["properties"]) == ["b"]
    assert document["$defs"]["Odd"]["properties"]["row"] == {"$ref": "#/$defs/Row_2"}


def test_a_hint_that_raises_at_every_touch_is_left_open():
    class Sulks(type):
        def __getattribute__(cls, name):
            raise RuntimeError(name)

    class Touchy(metaclass=Sulks): ...

    assert described(list[Touchy]) == {}
    assert "the hint 'a GenericAlias' of the result does not resolve: RuntimeError" in problems_of(list[Touchy])[0]


# ---------------------------------------------------------------- parameters


def kinds(
    first, second: int, /, third: str = "x", *rest: int, fourth: float = 1.5, fifth: Color = Color.RED, **more: str
): ...


def test_parameters_are_an_object_with_what_is_required_and_what_is_default():
    document = schema(kinds).parameters_json_schema()
    jsonschema.Draft202012Validator.check_schema(document)
    assert document == {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "first": {},
            "second": INTEGER,
            "third": {"type": "string", "default": "x"},
            "fourth": {"type": "number", "default": 1.5},
            "fifth": {"$ref": "#/$defs/Color", "default": "r"},
        },
        "required": ["first", "second"],
        "$defs": {"Color": {"title": "Color", "enum": ["r", 2]}},
    }


def test_only_what_takes_any_keyword_takes_other_properties():
    assert "additionalProperties" not in schema(kinds).parameters_json_schema()
    assert schema(lambda a: a).parameters_json_schema()["additionalProperties"] is False


@pytest.mark.parametrize(
    ("default", "shown"),
    [
        (None, None),
        ((1, 2), [1, 2]),
        (Path("a/b"), "a/b"),
        (date(2026, 1, 2), "2026-01-02"),
        (UUID(int=0), "00000000-0000-0000-0000-000000000000"),
        (Order(1), {"id": 1, "lines": [], "note": None}),
        ({1: "a"}, {"1": "a"}),
    ],
    ids=str,
)
def test_a_default_is_recorded_as_json_says_it(default, shown):
    found = schema(lambda a=default: a).parameters_json_schema()
    assert found["properties"] == {"a": {"default": shown}}
    assert "required" not in found


@pytest.mark.parametrize(
    "default",
    [Frame(), float("nan"), float("inf"), print, [Frame()], {Frame(): 1}],
    ids=lambda one: repr(one).partition(" at 0x")[0],
)
def test_a_default_that_json_cannot_say_is_left_out_and_the_parameter_is_not_required(default):
    found = schema(lambda a=default: a).parameters_json_schema()
    assert found["properties"] == {"a": {}}
    assert "required" not in found


class Loader:
    """A task in any clothes."""

    def __init__(self, folder: str, limit: int = 3) -> None:
        self.folder = folder

    def method(self, day: date, limit: int = 3) -> Iterator[Order]:
        yield Order(1)

    def __call__(self, day: Later) -> Later: ...


Later = NewType("Later", int)


def stream(day: date) -> Generator[Order, None, None]:
    yield Order(1)


async def astream(day: date) -> AsyncIterator[Order]:
    yield Order(1)


def collected(day: date) -> Iterator[Order]:
    return iter([])


def bare_stream():
    yield 1


ORDER = {"$ref": "#/$defs/Order"}
ORDERS = {"type": "array", "items": ORDER}
DAY = {"type": "string", "format": "date"}


@pytest.mark.parametrize(
    ("function", "properties", "required", "result"),
    [
        (stream, {"day": DAY}, ["day"], ORDER),
        (astream, {"day": DAY}, ["day"], ORDER),
        (bare_stream, {}, None, {}),
        (collected, {"day": DAY}, ["day"], ORDERS),
        (Loader("x").method, {"day": DAY, "limit": {"type": "integer", "default": 3}}, ["day"], ORDER),
        (Loader("x"), {"day": INTEGER}, ["day"], INTEGER),
        (
            Loader,
            {"folder": STRING, "limit": {"type": "integer", "default": 3}},
            ["folder"],
            unknown("Loader", f"{__name__}.Loader"),
        ),
        (functools.partial(stream, day=date(2026, 1, 2)), {"day": {**DAY, "default": "2026-01-02"}}, None, ORDER),
        (
            functools.partial(Loader("x").method, limit=5),
            {"day": DAY, "limit": {**INTEGER, "default": 5}},
            ["day"],
            ORDER,
        ),
        (Order, {"id": INTEGER, "lines": ORDERS, "note": {"anyOf": [STRING, NULL], "default": None}}, ["id"], ORDER),
    ],
    ids=lambda value: getattr(value, "__qualname__", None),
)
def test_whatever_is_a_task_has_schemas(function, properties, required, result):
    found = schema(function)
    assert found.problems == ()
    parameters, given = found.parameters_json_schema(), found.result_json_schema()
    for document in (parameters, given):
        jsonschema.Draft202012Validator.check_schema(document)
    if "lines" in properties:  # its default is made by a call
        parameters["properties"]["lines"].pop("default", None)
    assert (parameters["properties"], parameters.get("required")) == (properties, required)
    assert {key: value for key, value in given.items() if key not in ("$schema", "$defs")} == result


def test_one_bad_hint_loses_only_itself():
    def load(a: Nowhere, b: int, c: list[Nowhere] = ()) -> Nowhere: ...

    found = schema(load)
    assert len(found.problems) == 3
    assert found.parameters_json_schema()["properties"] == {"a": {}, "b": INTEGER, "c": {"default": []}}
    assert set(found.result_json_schema()) == {"$schema"}


def test_a_local_class_is_known_where_the_closure_has_it():
    class Local:
        pass

    def used(a: Local) -> Local:
        return Local()

    assert schema(used).parameters_json_schema()["properties"]["a"]["title"] == "Local"


new_syntax = pytest.mark.skipif(sys.version_info < (3, 12), reason="the syntax of PEP 695 is new in Python 3.12")

ALIASES = """
from typing import Annotated
import msgspec
type Number = int | float
type Pair[T] = tuple[T, T]
type Json = dict[str, Json] | list[Json] | str | int | None
type Positive = Annotated[int, msgspec.Meta(gt=0)]
type Loop = Loop
type Mutual = Other
type Other = Mutual
type Widening[T] = list[Widening[list[T]]]
type Growing[T] = Growing[list[T]]
type Broken = list[Nowhere]
def first[T: float](items: list[T], pair: Pair[int]) -> T: ...
class Box[T]: ...
"""


@new_syntax
def test_aliases_are_definitions_which_may_hold_themselves():
    module = types.ModuleType("aliases")
    exec(ALIASES, vars(module))
    assert described(module.Number) == {
        "$ref": "#/$defs/Number",
        "$defs": {"Number": {"anyOf": [INTEGER, {"type": "number"}]}},
    }
    assert described(module.Positive)["$defs"]["Positive"] == {"type": "integer", "exclusiveMinimum": 0}
    json = described(module.Json)
    jsonschema.validate({"a": [{"b": None}, 1, "x"]}, json)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"a": [{"b": 1.5}]}, json)
    assert described(module.Pair[int])["$defs"]["Pair_int"]["prefixItems"] == [INTEGER, INTEGER]
    for endless in (module.Loop, module.Mutual, module.Growing[int], module.Broken):
        assert set(described(endless)) <= {"title", "$comment"}, "any value is right"
    jsonschema.validate([[[]]], described(module.Widening[int]))
    assert described(module.Box[int])["title"] == "Box[int]"
    found = schema(module.first)
    assert found.parameters_json_schema()["properties"]["items"] == {"type": "array", "items": {"type": "number"}}
    assert found.result_json_schema()["type"] == "number"


# ---------------------------------------------------------------- true of every value

# What Python takes for something that JSON has another word for is left out: a bool for an int, a str for a Sequence.
SCALARS = [
    (st.integers(), int), (st.floats(allow_nan=False, allow_infinity=False), float), (st.booleans(), bool),
    (st.text(), str), (st.none(), None), (st.binary(max_size=9), bytes), (st.dates(), date), (st.uuids(), UUID),
    (st.datetimes(), datetime), (st.datetimes(timezones=st.just(UTC)), datetime), (st.times(), time),
    (st.timedeltas(), timedelta), (st.decimals(allow_nan=False, allow_infinity=False), Decimal),
    (st.sampled_from(Color), Color), (st.sampled_from(["a", 1]), Literal["a", 1]), (st.integers(), UserId),
    (st.builds(Order, st.integers(), note=st.none() | st.text()), Order),
    (st.builds(Odd, st.lists(st.integers())), Odd),
    (st.builds(Paid, order_id=st.integers(), paid_at=st.none()), Paid),
    (st.builds(Point, st.integers(), st.integers()), Point),
    (st.fixed_dictionaries({"title": st.text()}, optional={"year": st.integers()}), Movie),
    (st.integers(), Any), (st.integers(), T), (st.floats(0, 9), Number),
]  # fmt: skip
HASHED = [row for row in SCALARS if row[1] in (int, str, date, UUID, Decimal)]


@st.composite
def rows(draw: st.DrawFn, depth: int = 2) -> tuple[st.SearchStrategy[Any], Any]:
    """A strategy of values, and the hint that they have."""
    kind = draw(st.sampled_from(["scalar", "list", "tuple", "pair", "dict", "set", "union"] if depth else ["scalar"]))
    if kind == "scalar":
        return draw(st.sampled_from(SCALARS))
    if kind == "set":
        values, hint = draw(st.sampled_from(HASHED))
        return st.sets(values, max_size=3), set[hint]
    values, hint = draw(rows(depth - 1))
    others, other = draw(rows(depth - 1))
    return {
        "list": (st.lists(values, max_size=3), list[hint]),
        "tuple": (st.lists(values, max_size=3).map(tuple), tuple[hint, ...]),
        "pair": (st.tuples(values, others), tuple[hint, other]),
        "dict": (st.dictionaries(st.text(), values, max_size=3), dict[str, hint]),
        "union": (values | others, Union[hint, other]),
    }[kind]


@settings(deadline=None)
@given(st.data())
def test_a_value_that_converts_validates_in_the_form_it_has_as_json(data):
    values, hint = data.draw(rows())
    made = convert(data.draw(values), hint)
    document = described(hint)
    jsonschema.validate(msgspec.json.decode(msgspec.json.encode(made)), document)


TEXTS = st.sampled_from(["1", "a", "1,2", "[1, 2]", '{"id": 1}', "2026-01-02", "true", "none", "r", "", "1.5"])


@settings(deadline=None)
@given(st.data())
def test_a_text_that_converts_validates_as_what_it_became(data):
    _, hint = data.draw(rows())
    try:
        made = convert(data.draw(TEXTS), hint)
    except ValueError:
        return
    jsonschema.validate(msgspec.json.decode(msgspec.json.encode(made)), described(hint))


def test_what_does_not_convert_does_not_validate():
    for value, hint in [
        ("x", int),
        ([1, "x"], list[int]),
        ({}, Order),
        ([1, 2, 3], Point),
        ("g", Color),
        (3, Literal["a", 1]),
    ]:
        with pytest.raises(ValueError, match="is not"):
            convert(value, hint)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(value, described(hint))


def test_a_document_is_json():
    document = schema(kinds).parameters_json_schema()
    assert json.loads(json.dumps(document)) == document


def test_reading_a_schema_imports_what_documents_need_only_when_they_are_asked_for():
    code = "import sys, dpcore; print('dpcore.hints.documents' in sys.modules, 'pydantic' in sys.modules)"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout == "False False\n"
