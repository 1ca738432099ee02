"""What an event costs before anybody has it: to build, to name, to write and to read, one by one and in batches."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from dpcore.events import (
    Event,
    Ids,
    PayloadReader,
    decode,
    decode_many,
    decode_packed_many,
    encode,
    encode_many,
    pack,
    unpack,
)

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()
ORDER = {"id": 7, "customer": "ada", "paid": True, "amount": 12.5}
BATCH = 256


@dataclass(slots=True)
class Plain:
    """What one would write without a library."""

    topic: str
    data: Any = None
    id: str = ""
    time: float = 0.0
    source: str = ""
    type: str = ""
    key: str | None = None
    headers: dict[str, str] | None = None


class Order(msgspec.Struct):
    id: int
    customer: str
    paid: bool
    amount: float


def as_dict(number: int = 0) -> dict[str, Any]:
    return {
        "topic": "orders.eu.paid", "data": {**ORDER, "id": number}, "id": f"0123456789abcdef-{10**14 + number}", "time": NOON,
        "source": "shop", "type": "", "key": None, "headers": None,
    }  # fmt: skip


EVENT = Event(**as_dict())


def test_an_event_is_built(side_by_side: Any) -> None:
    times = side_by_side.size(20_000, 5)

    def ours() -> Event:
        for _ in range(times):
            one = Event("orders.eu.paid", ORDER, "1", NOON, "shop", "", None, None)
        return one

    def theirs() -> dict[str, Any]:
        for _ in range(times):
            one = {
                "topic": "orders.eu.paid", "data": ORDER, "id": "1", "time": NOON, "source": "shop", "type": "", "key": None,
                "headers": None,
            }  # fmt: skip
        return one

    event, same = side_by_side.time("an event built", ours, theirs, than="a dict literal", budget=1.0, per=times)
    assert msgspec.structs.asdict(event) == same


def test_an_event_is_built_as_a_dataclass_is(side_by_side: Any) -> None:
    times = side_by_side.size(20_000, 5)

    def built(kind: Any) -> Any:
        for _ in range(times):
            one = kind("orders.eu.paid", ORDER, "1", NOON, "shop", "", None, None)
        return one

    event, same = side_by_side.time(
        "an event built",
        lambda: built(Event),
        lambda: built(Plain),
        than="a dataclass with slots",
        budget=0.5,
        per=times,
    )
    assert event.data is same.data


def test_an_id_is_made(side_by_side: Any) -> None:
    times, ids = side_by_side.size(20_000, 5), Ids()

    def ours() -> set[str]:
        return {ids.next() for _ in range(times)}

    def theirs() -> set[str]:
        return {str(uuid4()) for _ in range(times)}

    made, others = side_by_side.time("an id made", ours, theirs, than="str(uuid4())", budget=0.25, per=times)
    assert len(made) == len(others) == times


def test_an_event_is_written_and_read(side_by_side: Any) -> None:
    times, plain = side_by_side.size(5_000, 5), Plain(**as_dict())

    def ours() -> Event:
        for _ in range(times):
            one = decode(encode(EVENT))
        return one

    def theirs() -> Plain:
        for _ in range(times):
            one = pickle.loads(pickle.dumps(plain, 5))
        return one

    event, same = side_by_side.time("an event written and read", ours, theirs, than="pickle", budget=0.5, per=times)
    assert event.data == same.data


def test_an_event_is_written_and_read_as_a_dict_is(side_by_side: Any) -> None:
    times, plain = side_by_side.size(5_000, 5), as_dict()
    write, read = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode

    def ours() -> Event:
        for _ in range(times):
            one = decode(encode(EVENT))
        return one

    def theirs() -> dict[str, Any]:
        for _ in range(times):
            one = read(write(plain))
        return one

    event, same = side_by_side.time(
        "an event written and read", ours, theirs, than="bare msgspec, a dict", budget=1.0, per=times
    )
    assert msgspec.structs.asdict(event) == same


@pytest.mark.parametrize("other", ["pickle", "bare msgspec"])
def test_batches_are_written_and_read(other: str, side_by_side: Any) -> None:
    plain = [as_dict(number) for number in range(BATCH)]
    events, times = [Event(**one) for one in plain], side_by_side.size(40, 2)
    write: Any = msgspec.msgpack.Encoder().encode
    read: Any = msgspec.msgpack.Decoder().decode
    if other == "pickle":
        write, read = lambda batch: pickle.dumps(batch, 5), pickle.loads

    def ours() -> list[Event]:
        for _ in range(times):
            some = decode_many(encode_many(events))
        return some

    def theirs() -> list[dict[str, Any]]:
        for _ in range(times):
            some = read(write(plain))
        return some

    found, same = side_by_side.time(
        f"an event written and read, in {BATCH}", ours, theirs, than=f"{other}, dicts", budget=0.8, per=times * BATCH
    )
    assert [msgspec.structs.asdict(one) for one in found] == same


def test_batches_are_passed_on_without_their_payloads(side_by_side: Any) -> None:
    raw, times = encode_many([Event(**as_dict(number)) for number in range(BATCH)]), side_by_side.size(40, 2)

    def ours() -> bytes:
        for _ in range(times):
            same = encode_many(decode_packed_many(raw))
        return same

    def theirs() -> bytes:
        for _ in range(times):
            same = encode_many(decode_many(raw))
        return same

    passed, same = side_by_side.time(
        f"an event passed on, in {BATCH}", ours, theirs, than="with its payload decoded", budget=0.9, per=times * BATCH
    )
    assert passed == same == raw


def test_a_typed_payload_is_read(side_by_side: Any) -> None:
    packed, reader, times = pack(EVENT), PayloadReader(Order), side_by_side.size(10_000, 5)
    bare = msgspec.msgpack.Decoder(Order).decode

    def ours() -> Order:
        for _ in range(times):
            event = unpack(packed, reader)
        order: Order = event.data
        return order

    def theirs() -> Order:
        for _ in range(times):
            order = bare(packed.data)
        return order

    order, same = side_by_side.time(
        "a packed event read as a type", ours, theirs, than="msgspec, the payload alone", budget=4.0, per=times
    )
    assert order == same


def test_a_payload_that_is_one_already_is_looked_at(side_by_side: Any) -> None:
    event, reader, times = Event("a", Order(7, "ada", True, 1.0)), PayloadReader(Order), side_by_side.size(10_000, 5)

    def ours() -> Event:
        for _ in range(times):
            same = reader.event(event)
        return same

    def theirs() -> Order:
        for _ in range(times):
            order = msgspec.convert(event.data, Order)
        return order

    same, order = side_by_side.time(
        "an event whose payload is of the type", ours, theirs, than="msgspec.convert", per=times
    )
    assert same is event
    assert order is event.data
