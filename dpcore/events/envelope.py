"""The event itself, and ids for events."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import chain, count, repeat
from operator import attrgetter
from typing import Any
from weakref import WeakSet

import msgspec

from dpcore.errors import ArgumentError
from dpcore.words import printed

__all__ = ("CAUSATION_ID", "CORRELATION_ID", "TRACEPARENT", "TRACESTATE", "Event", "Ids", "Packed", "check_event")

TRACEPARENT = "traceparent"
"""The header with the trace that an event belongs to, as the W3C's Trace Context writes it."""
TRACESTATE = "tracestate"
"""The header with what vendors add to that trace."""
CORRELATION_ID = "correlation-id"
"""The header that all events of one matter share."""
CAUSATION_ID = "causation-id"
"""The header with the id of the event that this one follows from."""

VERSION = 1  # of the wire form; it is the first item of the array that an event is there


# The garbage collector looks at events too (no gc=False): who raises what an event carries, or puts an event into the
# payload, makes a circle that goes through it, and the circle would never be freed.  What it costs is that a full
# collection takes 0.15 us longer for each event that waits somewhere; building one costs the same.
class Event(msgspec.Struct, frozen=True, array_like=True, tag=VERSION, tag_field="version"):
    """Something that happened: its topic, and what is to be known of it.

    *data* is the payload, read-only by contract; *id*, *time* (seconds since the epoch; as
    a datetime :attr:`when`) and *source* are stamped by whoever publishes.  *type* says what kind of payload it
    is, *key* which events stay in order among themselves.  *headers* are str to
    str; names of common meaning are :data:`TRACEPARENT`, :data:`TRACESTATE`,
    :data:`CORRELATION_ID` and :data:`CAUSATION_ID`.

    Nothing is checked here, since a broker builds one per publish (see
    :func:`check_event`).  Events are equal if all their fields are, and hash by
    source and id, whatever they carry.  ``msgspec.structs.replace`` changes a field.

    >>> Event("orders.eu.paid", {"id": 7}, key="eu")
    Event('orders.eu.paid', {'id': 7}, key='eu')
    """

    topic: str
    data: Any = None
    id: str = ""
    time: float = 0.0
    source: str = ""
    type: str = ""
    key: str | None = None
    headers: Mapping[str, str] | None = None

    @property
    def when(self) -> datetime | None:
        """The time as a datetime, aware and in UTC, to the microsecond; None if it was not stamped."""
        return datetime.fromtimestamp(self.time, UTC) if self.time else None

    def __hash__(self) -> int:
        return hash((self.source, self.id))

    def __repr__(self) -> str:
        more = [
            f"{field.name}={printed(value)}"
            for field in msgspec.structs.fields(self)[2:]
            if (value := getattr(self, field.name)) != field.default
        ]
        return f"Event({', '.join([printed(self.topic), printed(self.data), *more])})"


_NEVER = datetime.max.replace(tzinfo=UTC).timestamp()
_NOTHING = msgspec.Raw(b"\xc0")  # None, as msgpack writes it


# No gc: what it holds is text and bytes, with which no circle can be made.
class Packed(msgspec.Struct, frozen=True, array_like=True, tag=VERSION, tag_field="version", gc=False):
    """An event whose payload is still encoded: for who only passes it on.

    Its fields are those of :class:`Event`, in their order; *data* is a
    ``msgspec.Raw``.  One that was decoded looks into the bytes that it came in and keeps
    all of them in memory; ``data.copy()`` does not.
    """

    topic: str
    data: msgspec.Raw = _NOTHING
    id: str = ""
    time: float = 0.0
    source: str = ""
    type: str = ""
    key: str | None = None
    headers: Mapping[str, str] | None = None


def check_event(event: Event) -> Event:
    """Return *event* if everything about it but its payload is of the right type; otherwise say what is not.

    A broker needs it for what a caller gives (key, headers, a whole event), not for
    what it stamps itself.  Whether the topic is one is not looked at.

    >>> check_event(Event("a", key=7))
    Traceback (most recent call last):
    ...
    dpcore.errors.ArgumentError: key=7 must be a str, or None
    """
    for name in ("topic", "id", "source", "type"):
        if not isinstance(value := getattr(event, name), str):
            raise ArgumentError(name, value, "a str")
    if not (event.key is None or isinstance(event.key, str)):
        raise ArgumentError("key", event.key, "a str, or None")
    if isinstance(event.time, bool) or not isinstance(event.time, int | float) or not 0 <= event.time < _NEVER:
        raise ArgumentError("time", event.time, "seconds since the epoch, or 0 to have it stamped")
    if event.headers is not None and not _are_headers(event.headers):
        raise ArgumentError("headers", event.headers, "a mapping of str to str, or None")
    return event


def _are_headers(headers: object) -> bool:
    return isinstance(headers, Mapping) and all(
        isinstance(name, str) and isinstance(value, str) for name, value in headers.items()
    )


class Ids:
    """Ids that nobody else makes, each greater than the one before it: ``ids.next()``.

    An id is a random prefix of 64 bits, this object's own, and a number of always 15
    digits; so text that is compared comes in the order of making, within one
    object and from whichever of its threads.  In a forked process there is another
    prefix: ask for ``ids.next`` each time, do not keep it.

    >>> ids = Ids()
    >>> first, second = ids.next(), ids.next()
    >>> first < second, first[:17] == second[:17], first[17:]
    (True, True, '100000000000000')
    """

    __slots__ = ("__weakref__", "next")

    next: Callable[[], str]
    """Return the next id."""

    def __init__(self) -> None:
        self.renew()
        _ALIVE.add(self)

    def renew(self) -> None:
        """Begin again under another prefix."""
        # All of it runs in C, and a thousand ids have their beginning made once: a fifth of the time that a method takes,
        # and no thread comes in between.
        blocks = map(f"{os.urandom(8).hex()}-".__add__, map(str, count(_FIRST_BLOCK)))
        self.next = chain.from_iterable(map(map, map(attrgetter("__add__"), blocks), repeat(_ENDINGS))).__next__


_FIRST_BLOCK = 10**11  # with three digits more, as many as the last of 900 million million
_ENDINGS = tuple(f"{number:03}" for number in range(1000))

_ALIVE: WeakSet[Ids] = WeakSet()


def _renew_all() -> None:
    for ids in [*_ALIVE]:
        ids.renew()


if hasattr(os, "register_at_fork"):  # where a process can fork at all
    os.register_at_fork(after_in_child=_renew_all)
