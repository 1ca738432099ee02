"""Sheaves: events that were published together and may be sent on together, as the bytes they came in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any, ClassVar

import msgspec

from dpcore.errors import WireError
from dpcore.events import Packed, decode_packed_many, encode_many

__all__ = ("NO_PAYLOAD", "Sheaf", "Slip", "alone", "bodies", "fitting", "opened", "slips", "weight")

NO_PAYLOAD = b"\xa1\xff"
"""A payload that is one whole value and yet none: text that is no UTF-8."""

_BYTES = 1 << 20  # in one piece, where more than one event is in it
_ENVELOPE = 128  # bytes of an event beside its payload and its headers


class Sheaf:
    """Events of one topic and without keys, none of which has been looked at."""

    __slots__ = ("_events", "body", "count", "topic")

    def __init__(self, topic: str, count: int, body: bytes) -> None:
        self.topic, self.count, self.body = topic, count, body
        self._events: list[Packed] | None = None

    @property
    def events(self) -> list[Packed]:
        """The events apart; if they make no sense, others in their place that say so when they are read."""
        if self._events is None:
            try:
                self._events = decode_packed_many(self.body)
            except WireError:
                self._events = []
            self._events += [Packed(self.topic, msgspec.Raw(NO_PAYLOAD))] * (self.count - len(self._events))
        return self._events


class Slip(msgspec.Struct, gc=False):
    """One event of a sheaf, wherever one can do without the rest of it."""

    key: ClassVar[None] = None

    topic: str
    sheaf: Sheaf
    index: int

    @property
    def time(self) -> float:
        """When it was published."""
        return self.sheaf.events[self.index].time


def slips(sheaf: Sheaf) -> list[Any]:
    """Return a slip for each event of *sheaf*."""
    return list(map(Slip, repeat(sheaf.topic), repeat(sheaf), range(sheaf.count)))


def opened(event: Any) -> Packed:
    """Return *event* itself, which keeps nothing in memory but itself."""
    if type(event) is not Slip:
        return event  # type: ignore[no-any-return]
    return alone(event.sheaf.events[event.index])


def alone(event: Packed) -> Packed:
    """Return *event* without the bytes that it came in."""
    return Packed(
        event.topic, event.data.copy(), event.id, event.time, event.source, event.type, event.key, event.headers
    )


def weight(event: Any) -> int:
    """Return about how many bytes *event* takes when it is sent."""
    if type(event) is Slip:
        return len(event.sheaf.body) // event.sheaf.count
    size = len(event.data) + _ENVELOPE
    if event.headers:
        size += sum(len(name) + len(value) for name, value in event.headers.items())
    return size


def fitting(events: Sequence[Any], most: int) -> int:
    """Return how many of *events*, from the first, take about *most* bytes; at least one, and no sheaf is cut for it."""
    at, end, size = 0, len(events), 0
    while at < end:
        event, many = events[at], 1
        if type(event) is Slip and _is_whole(events, at):
            many = event.sheaf.count
            size += len(event.sheaf.body)
        else:
            size += weight(event)
        if at and size > most:
            return at
        at += many
    return end


def _is_whole(events: Sequence[Any], at: int) -> bool:
    """Tell whether all of the sheaf of the slip at *at* is there."""
    sheaf = events[at].sheaf
    last = at + sheaf.count - 1
    return not events[at].index and last < len(events) and type(events[last]) is Slip and events[last].sheaf is sheaf


def bodies(events: Sequence[Any]) -> Iterator[tuple[int, bytes]]:
    """Encode *events*, in as few pieces as their size allows; whole sheaves go as they came."""
    at, end = 0, len(events)
    loose: list[Packed] = []
    while at < end:
        event = events[at]
        if type(event) is Slip:
            sheaf = event.sheaf
            if _is_whole(events, at):
                if loose:
                    yield from _pieces(loose)
                    loose = []
                yield sheaf.count, sheaf.body
                at += sheaf.count
                continue
            event = sheaf.events[event.index]
        loose.append(event)
        at += 1
    if loose:
        yield from _pieces(loose)


def _pieces(events: Sequence[Packed]) -> Iterator[tuple[int, bytes]]:
    body = encode_many(events)
    if len(body) <= _BYTES or len(events) == 1:
        yield len(events), body
        return
    half = len(events) // 2
    yield from _pieces(events[:half])
    yield from _pieces(events[half:])
