"""What is written is what is read; and what is not an event is told as that, whatever it is."""

from __future__ import annotations

import math
import pickle
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpcore.errors import ArgumentError, PayloadError, WireError
from dpcore.events import (
    Event,
    Packed,
    PayloadReader,
    check_event,
    decode,
    decode_many,
    decode_packed,
    decode_packed_many,
    encode,
    encode_many,
    pack,
    strict,
    unpack,
)

NOON = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
FULL = Event(
    "orders.eu.paid", {"id": 7, "when": NOON}, "1-1", NOON.timestamp(), "shop", "Paid", "eu", {"traceparent": "00"}
)

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1), timezones=st.just(UTC))
)
PAYLOADS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(-(2**63), 2**64 - 1), inner),
    max_leaves=20,
)
TIMES = st.integers(0, 4 * 10**15).map(lambda microseconds: microseconds / 1e6)
EVENTS = st.builds(
    Event, st.text(), PAYLOADS, st.text(), TIMES, st.text(), st.text(), st.none() | st.text(),
    st.none() | st.dictionaries(st.text(), st.text()),
)  # fmt: skip
READERS = [PayloadReader(kind) for kind in (int, str, list[int], dict[str, float], datetime, Event)]


@settings(deadline=None)
@given(EVENTS)
def test_an_event_is_read_as_it_was_written(event):
    assert decode(encode(event)) == event == strict(event)
    assert decode(memoryview(b"x" + encode(event))[1:]) == event


@settings(deadline=None)
@given(st.lists(EVENTS, max_size=5))
def test_many_are_read_as_they_were_written_in_their_order(events):
    assert decode_many(encode_many(events)) == events


@settings(deadline=None)
@given(st.lists(EVENTS, max_size=5))
def test_who_passes_events_on_without_their_payloads_changes_no_byte(events):
    raw = encode_many(events)
    assert encode_many(decode_packed_many(raw)) == raw
    for event in events:
        packed = decode_packed(encode(event))
        assert encode(packed) == encode(event) == encode(pack(event))
        assert unpack(packed) == unpack(pack(event)) == event


def test_what_is_around_the_payload_is_known_without_it():
    packed = decode_packed(encode(FULL))
    assert isinstance(packed, Packed)
    assert isinstance(packed.data, msgspec.Raw)
    for name in ("topic", "id", "time", "source", "type", "key", "headers"):
        assert getattr(packed, name) == getattr(FULL, name)


def test_a_batch_may_be_of_events_and_of_packed_ones():
    assert decode_many(encode_many([FULL, pack(FULL)])) == [FULL, FULL]


def test_a_reader_makes_of_a_payload_what_it_reads():
    reader = PayloadReader(list[float])
    event = Event("a", (1, 2.5))
    for read in (
        decode(encode(event), reader),
        decode_many(encode_many([event]), reader)[0],
        unpack(pack(event), reader),
    ):
        assert read == Event("a", [1.0, 2.5])
        assert isinstance(read.data[0], float)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_travel(number):
    assert repr(decode(encode(Event("a", number))).data) == repr(number)


def test_the_time_travels_to_the_microsecond():
    assert decode(encode(FULL)).when == NOON


def test_strict_events_come_out_as_from_another_process():
    assert strict(Event("a", ({1}, "x"))) == Event("a", [[1], "x"])


def test_a_strict_event_that_would_fail_over_there_fails_here():
    with pytest.raises(PayloadError):
        strict(Event("a", object()))
    with pytest.raises(ArgumentError):
        strict(Event("a", headers={"n": 1}))


def test_of_many_that_is_named_which_does_not_travel():
    with pytest.raises(PayloadError, match=r"event on 'b': data\['x'\] is of type object"):
        encode_many([Event("a", 1), Event("b", {"x": object()}), Event("c", object())])


@pytest.mark.parametrize("write", [encode, pack, strict])
def test_a_payload_that_does_not_travel_is_refused_by_whoever_writes_it(write):
    with pytest.raises(PayloadError, match="event on 'b': data is of type object"):
        write(Event("b", object()))


def test_what_is_wrong_around_the_payload_is_named_where_it_cannot_be_written():
    with pytest.raises(ArgumentError, match=r"headers=.* must be a mapping of str to str"):
        encode(Event("a", 1, headers={"n": object()}))
    with pytest.raises(PayloadError, match=r"event on .*: data cannot be written: .*surrogates"):
        encode(Event("a\ud800", 1))


# ---------------------------------------------------------------- bytes that are no events

READ = [decode, decode_many, decode_packed, decode_packed_many]


def read_all(raw):
    """Read *raw* in every way there is; return what came out."""
    found, told = [], []
    for read in READ:
        try:
            one = read(raw)
        except WireError as error:
            told.append(str(error))
            continue
        found.append(one)
        for packed in one if isinstance(one, list) else [one]:
            if isinstance(packed, Packed):
                for reader in (None, *READERS):
                    try:
                        unpack(packed, reader)
                    except (WireError, PayloadError) as error:
                        told.append(str(error))
    assert all(words.startswith(("these bytes are no event: ", "event on ", "an event: ")) for words in told)
    return found


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_are_an_event_or_a_wire_error(raw):
    read_all(raw)


@settings(deadline=None, max_examples=300)
@given(EVENTS, st.data())
def test_an_event_with_any_bytes_changed_is_an_event_or_a_wire_error(event, data):
    raw = bytearray(encode(event))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    read_all(bytes(raw))
    read_all(b"\x91" + bytes(raw))


@settings(deadline=None)
@given(PAYLOADS)
def test_any_msgpack_is_an_event_or_a_wire_error(data):
    raw = msgspec.msgpack.encode(data)
    for found in read_all(raw):
        for one in found if isinstance(found, list) else [found]:
            if isinstance(one, Event):
                check_event(one)


def test_a_part_of_an_event_is_none():
    raw = encode(FULL)
    for end in range(len(raw)):
        assert not read_all(raw[:end])
    assert not read_all(raw + b"\0")


@pytest.mark.parametrize(
    "raw",
    [
        b"\x91" * 100_000 + b"\x90",
        b"\x92\x01\xa1a" + b"\x91" * 100_000,
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff\x01",
        b"\x93\x01\xa1a\xdd\xff\xff\xff\xff",
        b"\xc1",
        pickle.dumps(FULL),
        b"GET / HTTP/1.1\r\n\r\n",
        msgspec.json.encode(FULL),
        b"\xde\x00\x01\xd4\x00\x00\x00",
        "text",
        None,
    ],
    ids=[
        "deep",
        "deep payload",
        "long list",
        "long dict",
        "long payload",
        "no msgpack",
        "pickle",
        "HTTP",
        "JSON",
        "no key",
        "str",
        "None",
    ],
)
def test_what_means_harm_is_no_event(raw):
    assert not read_all(raw)


def test_a_payload_that_makes_no_sense_is_found_when_it_is_read():
    raw = encode(Event("a", "xx")).replace(b"\xa2xx", b"\xa2\xff\xff")
    packed = decode_packed(raw)
    assert packed.topic == "a"
    for reader in (None, PayloadReader(str)):
        with pytest.raises(WireError):
            unpack(packed, reader)
    with pytest.raises(WireError):
        decode(raw)


@pytest.mark.parametrize("read", [decode, decode_packed])
def test_another_version_is_told_as_that(read):
    raw = b"\x99\x02" + encode(FULL)[2:]
    words = (
        "these bytes are no event: they are written in version 2 of the wire form, and this dpcore reads version 1; "
        "have the same release of dpcore on both sides"
    )
    with pytest.raises(WireError) as raised:
        read(raw)
    assert str(raised.value) == words


@pytest.mark.parametrize("read", [decode_many, decode_packed_many])
def test_another_version_is_told_as_that_of_many(read):
    with pytest.raises(WireError, match=r"version 2 .* reads version 1"):
        read(b"\x91\x99\x02" + encode(FULL)[2:])


def test_the_second_byte_is_the_version():
    assert encode(FULL)[1] == 1


def test_fields_that_a_later_release_adds_are_left_out():
    assert decode(b"\x9a" + encode(FULL)[1:] + b"\xa3new") == FULL


def test_fields_that_are_not_there_have_their_defaults():
    assert decode(b"\x92\x01\xa1a") == Event("a")
    assert unpack(decode_packed(b"\x92\x01\xa1a")) == Event("a")


def test_a_time_that_is_no_number_is_not_read():
    with pytest.raises(WireError, match="float"):
        decode(encode(Event("a", time="noon")))
