"""What an event may carry comes back: as the type that the reader says, or as the docstring's table has it."""

from __future__ import annotations

import collections
import dataclasses
import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict
from uuid import UUID

import msgspec
import numpy as np
import pandas as pd
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpcore.errors import ArgumentError, PayloadError
from dpcore.events import Event, PayloadReader, decode, encode, fit, pack
from dpcore.jobs import Ref

ID = UUID(int=7)
NOON = datetime(2026, 11, 22, 12, 0, 0, 5, tzinfo=UTC)


class Colour(StrEnum):
    RED = "red"


class Size(IntEnum):
    BIG = 3


class Kind(Enum):
    NEW = "new"


@dataclasses.dataclass
class Line:
    sku: str
    price: Decimal = Decimal("1.20")


@dataclasses.dataclass(slots=True, frozen=True)
class Order:
    id: UUID
    lines: list[Line]
    at: datetime | None = None


class Paid(msgspec.Struct, frozen=True):
    order: UUID
    amount: Decimal
    kind: Kind = Kind.NEW


class Card(msgspec.Struct, tag="card"):
    number: int


class Cash(msgspec.Struct, tag="cash"):
    coins: tuple[int, ...]


class Shipped(TypedDict):
    order: UUID
    on: date
    note: NotRequired[str]


class Point(NamedTuple):
    x: int
    y: float


class Customer(pydantic.BaseModel):
    name: str = pydantic.Field(alias="fullName")
    born: date
    friends: list[Customer] = []
    photo: bytes = b""


class Basket(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    prices: list[Decimal]
    options: pydantic.Json[dict[str, int]]

    @pydantic.computed_field
    def total(self) -> Decimal:
        return sum(self.prices, Decimal())


class StrictCustomer(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)
    id: UUID
    visits: int
    seen: datetime


TYPED = [
    (None, type(None)),
    (True, bool),
    (2**64 - 1, int),
    (-(2**63), int),
    (1.5, float),
    ("é\0", str),
    (b"\xff", bytes),
    ([1, 2], list[int]),
    ((1, "x"), tuple[int, str]),
    ({1, 2}, set[int]),
    (frozenset({1}), frozenset[int]),
    ({"a": 1}, dict[str, int]),
    ({1: "a"}, dict[int, str]),
    ({ID: 1}, dict[UUID, int]),
    ({(1, 2): 3}, dict[tuple[int, int], int]),
    (NOON, datetime),
    (datetime(2026, 1, 1, 12), datetime),
    (date(2026, 1, 1), date),
    (time(12, 30, 1, 5), time),
    (time(12, 30, tzinfo=UTC), time),
    (timedelta(days=-1, microseconds=1), timedelta),
    (ID, UUID),
    (Decimal("1.200"), Decimal),
    (Colour.RED, Colour),
    (Size.BIG, Size),
    (Kind.NEW, Kind),
    (Path("a/b"), Path),
    (PurePosixPath("a/b"), PurePosixPath),
    (Order(ID, [Line("x"), Line("y", Decimal("NaN").copy_abs())][:1], NOON), Order),
    ([Order(ID, [])], list[Order]),
    ({"a": Line("x")}, dict[str, Line]),
    (Paid(ID, Decimal("0.1")), Paid),
    ([Card(1), Cash((1, 2))], list[Card | Cash]),
    ({"order": ID, "on": date(2026, 1, 1)}, Shipped),
    (Point(1, 2.5), Point),
    ([Point(1, 2.5)], list[Point]),
    (Ref("r", "t", "1"), Ref),
    ("x", Literal["x", "y"]),
    (None, Order | None),
    (Event("inner", {"a": 1}, time=NOON.timestamp()), Event),
    (Customer(fullName="Ada", born=date(1815, 12, 10), photo=b"\xff"), Customer),
    ([Customer(fullName="Ada", born=date(1815, 12, 10))], list[Customer]),
    (Customer(fullName="A", born=NOON.date(), friends=[Customer(fullName="B", born=NOON.date())]), Customer | None),
    (Basket(prices=[Decimal("1.20")], options='{"a": 1}'), Basket),
    (pydantic.RootModel[list[UUID]]([ID]), pydantic.RootModel[list[UUID]]),
    (StrictCustomer(id=ID, visits=3, seen=NOON), StrictCustomer),
    ({"anything": [1, b"x", None]}, Any),
    ([1, {"a": b"x"}], object),
]  # fmt: skip


@pytest.mark.parametrize(("value", "kind"), TYPED, ids=lambda one: str(one)[:40])
def test_a_typed_reader_gets_what_was_published_from_another_process(value, kind):
    read = decode(encode(Event("a", value)), PayloadReader(kind)).data
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(("value", "kind"), TYPED, ids=lambda one: str(one)[:40])
def test_a_typed_reader_gets_what_was_published_in_this_process(value, kind):
    read = PayloadReader(kind).value(value)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(("value", "kind"), TYPED, ids=lambda one: str(one)[:40])
def test_a_typed_reader_gets_what_was_published_after_an_untyped_one_has_read_it(value, kind):
    read = PayloadReader(kind).value(decode(encode(Event("a", value))).data)
    assert read == value


UNTYPED = [
    ((1, "x"), [1, "x"]),
    ({1}, [1]),
    (frozenset({1}), [1]),
    (bytearray(b"x"), b"x"),
    (memoryview(b"x"), b"x"),
    ({1: 2, None: 3, 1.5: 4, (1, 2): 5, b"k": 6}, {1: 2, None: 3, 1.5: 4, (1, 2): 5, b"k": 6}),
    (NOON.astimezone(timezone(timedelta(hours=2))), NOON),
    (datetime(2026, 1, 1, 12), "2026-01-01T12:00:00"),
    (date(2026, 1, 1), "2026-01-01"),
    (time(12, 30), "12:30:00"),
    (timedelta(days=1, seconds=2), "P1DT2S"),
    (ID, "00000000-0000-0000-0000-000000000007"),
    (Decimal("1.20"), "1.20"),
    (Path("a/b"), "a/b"),
    (Size.BIG, 3),
    (Kind.NEW, "new"),
    (Line("x"), {"sku": "x", "price": "1.20"}),
    (Paid(ID, Decimal("1")), {"order": str(ID), "amount": "1", "kind": "new"}),
    (Card(1), {"type": "card", "number": 1}),
    (Point(1, 2.5), [1, 2.5]),
    (Ref("r", "t", "1"), {"run_id": "r", "task": "t", "result_id": "1"}),
    (
        Customer(fullName="Ada", born=date(1815, 12, 10), photo=b"\xff"),
        {"fullName": "Ada", "born": "1815-12-10", "friends": [], "photo": b"\xff"},
    ),
    (collections.OrderedDict(a=1), {"a": 1}),
]


@pytest.mark.parametrize(("value", "read"), UNTYPED, ids=lambda one: str(one).partition(" at 0x")[0][:40])
def test_an_untyped_reader_gets_what_the_table_says(value, read):
    found = decode(encode(Event("a", value))).data
    assert found == read
    assert type(found) is type(read)


# ---------------------------------------------------------------- what does not travel

HOLDS_ITSELF: list[Any] = []
HOLDS_ITSELF.append(HOLDS_ITSELF)
DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]


class Broken(pydantic.BaseModel):
    @pydantic.model_serializer
    def broken(self) -> dict[str, int]:
        raise RuntimeError("no")


REFUSED = [
    (np.float64(1), " is of type numpy.float64, which does not travel; send .item() of it"),
    ({"a": [1, np.int64(2)]}, "['a'][1] is of type numpy.int64, which does not travel; send .item() of it"),
    (
        Order(ID, [Line("x", np.arange(3))]),
        (
            ".lines[0].price is of type numpy.ndarray, which does not travel; "
            "store it with an I/O manager and send its ref, or send .tolist() of it"
        ),
    ),
    (Paid(ID, np.str_("x")), ".amount is of type numpy.str_, which does not travel; send .item() of it"),
    (
        Customer.model_construct(name=np.bool_(True), born=NOON),
        ".name is of type numpy.bool, which does not travel; send .item() of it",
    ),
    (
        (pd.DataFrame({"a": [1]}),),
        "[0] is of type pandas.DataFrame, which does not travel; store it with an I/O manager and send its ref",
    ),
    (
        pd.Series([1]),
        (
            " is of type pandas.Series, which does not travel; "
            "store it with an I/O manager and send its ref, or send .tolist() of it"
        ),
    ),
    (
        pd.Timestamp("2026"),
        " is of type pandas.Timestamp, which does not travel; send .to_pydatetime() of it",
    ),
    (
        {1j},
        (
            "{} is of type complex, which does not travel; send a dict, a dataclass, a msgspec.Struct or a model of "
            "pydantic's, or store it with an I/O manager and send its ref"
        ),
    ),
    (collections.deque(), " is of type collections.deque, which does not travel; send a list of it"),
    (type("Sku", (str,), {"__module__": "shop"})("x"), " is of type shop.Sku, which does not travel; send str() of it"),
    (2**64, " is an int beyond 64 bits; send it as text"),
    ([{2**64: 1}], f"[0] key {2**64} is an int beyond 64 bits; send it as text"),
    ({"a": "x\ud800"}, "['a'] is text with half a character in it, a lone surrogate; send it as bytes"),
    (
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=2))),
        " is 0001-01-01 00:00:00+02:00, which is no year of UTC's calendar; send a time within the years 1 to 9999",
    ),
    (HOLDS_ITSELF, " holds itself, or is nested too deeply; send what is flat"),
    (DEEP, " holds itself, or is nested too deeply; send what is flat"),
]


@pytest.mark.parametrize("write", [encode, pack])
@pytest.mark.parametrize(("value", "words"), REFUSED, ids=lambda one: str(type(one)))
def test_what_does_not_travel_is_found_where_it_is_and_has_a_cure(value, words, write):
    with pytest.raises(PayloadError) as raised:
        write(Event("orders.paid", value))
    assert str(raised.value) == f"event on 'orders.paid': data{words}"


def test_a_model_that_cannot_be_written_says_why():
    with pytest.raises(PayloadError, match=r"data\[0\] is of type .*Broken and cannot be written: .*no; send a dict"):
        encode(Event("a", [Broken()]))


def test_what_is_wrong_very_deep_inside_is_still_told():
    value: Any = object()
    for _ in range(100):
        value = {"in": value}
    with pytest.raises(PayloadError, match=r"data\['in'\]\['in'\]"):
        encode(Event("a", value))


# ---------------------------------------------------------------- reading as a type


@pytest.mark.parametrize("kind", [Order, Paid, Customer, Point, list, dict, str, object, Any])
def test_an_instance_is_given_back_itself(kind):
    value = {
        Order: Order(ID, []), Paid: Paid(ID, Decimal(1)), Point: Point(1, 2), list: [1], dict: {}, str: "x",
        Customer: Customer(fullName="A", born=NOON.date()),
    }.get(kind, object())  # fmt: skip
    event = Event("a", value)
    assert PayloadReader(kind).value(value) is value
    assert PayloadReader(kind).event(event) is event


def test_an_event_whose_payload_is_made_keeps_all_else():
    event = Event("a", {"sku": "x"}, "1", NOON.timestamp(), "s", "t", "k", {"h": "v"})
    read = PayloadReader(Line).event(event)
    assert read == msgspec.structs.replace(event, data=Line("x"))


@pytest.mark.parametrize(
    ("value", "kind", "read"),
    [
        (Line("x", Decimal(2)), dict[str, Any], {"sku": "x", "price": "2"}),
        (Paid(ID, Decimal(2)), TypedDict("Seen", {"order": UUID}), {"order": ID}),
        (Order(ID, []), Customer | None, None),
        (ID, str, str(ID)),
        (Kind.NEW, str, "new"),
        (Point(1, 2.0), list[float], [1.0, 2.0]),
    ],
    ids=str,
)
def test_one_type_is_read_as_another_in_this_process_if_it_is_from_another_process(value, kind, read):
    reader = PayloadReader(kind)
    if read is None:
        with pytest.raises(PayloadError):
            reader.value(value)
        with pytest.raises(PayloadError):
            decode(encode(Event("a", value)), reader)
    else:
        assert reader.value(value) == decode(encode(Event("a", value)), reader).data == read


@pytest.mark.parametrize(
    ("value", "kind", "read"),
    [
        ("aGk=", bytes, b"hi"),
        ({"1": "aGk="}, dict[int, bytes], {1: b"hi"}),
        ("2026-11-22T12:00:00.000005Z", datetime, NOON),
        ([str(ID)], list[UUID], [ID]),
        ({"fullName": "Ada", "born": "1815-12-10"}, Customer, Customer(fullName="Ada", born=date(1815, 12, 10))),
    ],
    ids=str,
)
def test_what_json_writes_as_text_is_read_as_the_type_in_this_process_and_from_another(value, kind, read):
    assert fit(value, kind) == decode(encode(Event("a", value)), PayloadReader(kind)).data == read


@pytest.mark.parametrize(("value", "kind"), [(True, int), ("7", int), (7, str), (1.5, int), ("yes", bool), ([1], dict)])
def test_what_is_of_another_type_is_not_guessed_at(value, kind):
    for read in (PayloadReader(kind).value, lambda value: decode(encode(Event("a", value)), PayloadReader(kind))):
        with pytest.raises(PayloadError):
            read(value)


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["sku", "price"]), inner),
        max_leaves=6,
    ),
    st.sampled_from(
        [int, float, str, bool, Line, list[int], list[Line], dict[str, float], Point, Line | None, int | str]
    ),
)
def test_a_payload_fits_in_this_process_if_and_only_if_it_fits_from_another(value, kind):
    reader = PayloadReader(kind)
    try:
        here: Any = reader.value(value)
    except PayloadError:
        with pytest.raises(PayloadError):
            decode(encode(Event("a", value)), reader)
    else:
        assert decode(encode(Event("a", value)), reader).data == here


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        (
            {"sku": 1},
            Line,
            (
                "event on 'orders': data.sku does not fit Line: Expected `str`, got `int`; the payload is {'sku': 1}; "
                "publish what fits, or subscribe with another type="
            ),
        ),
        (
            [{"sku": "x"}, {}],
            list[Line],
            (
                "event on 'orders': data[1] does not fit list[Line]: Object missing required field `sku`; "
                "the payload is [{'sku': 'x'}, {}]; publish what fits, or subscribe with another type="
            ),
        ),
        (
            {"fullName": 3},
            Customer,
            (
                "event on 'orders': data does not fit Customer: fullName: Input should be a valid string, born: Field required; "
                "the payload is {'fullName': 3}; publish what fits, or subscribe with another type="
            ),
        ),
        (
            {"id": "x", "visits": "1", "seen": NOON},
            StrictCustomer,
            "visits: Input should be a valid integer",
        ),
        (3, Path, "data does not fit Path: Expected `Path`, got `int`; the payload is 3"),
        (HOLDS_ITSELF, list[int], "data[0] does not fit list[int]"),
        ({"id": "x", "visits": b"1"}, StrictCustomer, "a strict model reads what is JSON, and b'1' is not"),
    ],
    ids=lambda one: str(one)[:30],
)
def test_what_does_not_fit_is_told_with_its_place(value, kind, words):
    with pytest.raises(PayloadError) as raised:
        fit(value, kind, "orders")
    assert words in str(raised.value)


class Odd:
    def __init__(self, price: int) -> None:
        raise RuntimeError("odd")


@dataclasses.dataclass
class Checked:
    price: int

    def __post_init__(self):
        if self.price < 0:
            raise RuntimeError("below 0")


def test_whatever_a_types_own_check_raises_is_a_payload_that_does_not_fit():
    reader = PayloadReader(Checked)
    assert reader.value({"price": 1}) == Checked(1)
    for read in (reader.value, lambda value: decode(encode(Event("a", value)), reader)):
        with pytest.raises(PayloadError, match="below 0"):
            read({"price": -1})


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Odd, "which .*Odd is not; use a dataclass"),
        (list[Odd], "which .*Odd is not"),
        (dict[str, tuple[Odd | None, int]], "which .*Odd is not"),
        (TypedDict("Holds", {"odd": Odd}), "which .*Odd is not"),
        (complex, "which complex is not"),
        (Paid | Line, "is not supported"),
        (Customer | Line, "is not supported"),
        ("Line", "is not supported"),
        (3, "is not supported"),
        (lambda: 0, "is not supported"),
    ],
    ids=lambda one: str(one).partition(" at 0x")[0],
)
def test_a_type_that_no_payload_can_be_read_as_is_refused_at_once(kind, words):
    with pytest.raises(ArgumentError, match=f"type=.* must be .*{words}"):
        PayloadReader(kind)


def test_a_type_may_speak_of_itself():
    customer = {"fullName": "A", "born": "2000-01-01", "friends": [{"fullName": "B", "born": "2000-01-01"}]}
    assert fit(customer, Customer).friends[0].name == "B"
    assert fit({"left": {"left": None}}, Tree) == Tree(Tree(None))


@dataclasses.dataclass
class Tree:
    left: Tree | None


def test_a_reader_says_what_it_reads():
    assert repr(PayloadReader(list[Line])) == "PayloadReader(list[Line])"


def test_pydantic_numpy_and_pandas_are_not_imported_for_events():
    code = (
        "import sys, dpcore.events as e; e.PayloadReader(dict); e.encode(e.Event('a'));"
        "print(*{'pydantic', 'numpy', 'pandas', 'asyncio', 'cloudpickle', 'beartype'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == ""
