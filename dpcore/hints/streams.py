"""What hints say of streams and of None: how a task's items are read, and by whom."""

from __future__ import annotations

import types
import typing
from collections import abc as c
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union

from dpcore.hints.apart import MISSING, members_of, parts_of, seen_as, union_of
from dpcore.hints.fitting import fits

__all__ = (
    "STREAMS",
    "accepts_none",
    "item_hint",
    "stream_fits",
    "stream_kind",
)


STREAMS: Mapping[Any, Literal["iterator", "async"]] = {
    c.Iterator: "iterator",
    c.Generator: "iterator",
    c.AsyncIterator: "async",
    c.AsyncIterable: "async",
    c.AsyncGenerator: "async",
}


def item_hint(result: Any, *, is_async: bool = False) -> Any:
    """Give the T of a task that streams, from its return hint; MISSING where the hint does not say.

    *is_async* decides for a class that can be iterated over in both ways.

    >>> item_hint(c.Iterator[int]), item_hint(c.Iterator), item_hint(MISSING)
    (<class 'int'>, MISSING, MISSING)
    """
    ways = (c.AsyncIterable, c.Iterable) if is_async else (c.Iterable, c.AsyncIterable)
    items = []
    for member in members_of(result, newtypes=True):
        kind = parts_of(member)[0]
        if member is MISSING or not isinstance(kind, type):
            return MISSING
        way = next((way for way in ways if issubclass(kind, way)), None)
        if way is None:
            continue  # the None of Iterator[int] | None
        arguments = seen_as(member, way)
        if not arguments:
            return MISSING
        items.append(arguments[0])
    return union_of(items) if items else MISSING


def stream_fits(item: Any, into: Any) -> bool:
    """Tell whether a parameter hinted *into* can take a stream of *item*, in the way :func:`stream_kind` says.

    >>> stream_fits(bool, c.Iterator[int]), stream_fits(str, list[int]), stream_fits(int, int)
    (True, False, False)
    """
    live = _live_member(into)
    if live is None:
        return fits(list[item], into)
    kind, arguments = parts_of(live)
    # A reader gets an iterator: nobody is there to take what it might send into a generator.
    return kind not in (c.Generator, c.AsyncGenerator) and (not arguments or fits(item, arguments[0]))


def stream_kind(into: Any) -> Literal["iterator", "async", "list"]:
    """Say how a parameter hinted *into* wants a stream: as it comes, in either colour, or whole.

    >>> stream_kind(c.Iterator[int]), stream_kind(c.AsyncIterable[int] | None), stream_kind(c.Iterable[int])
    ('iterator', 'async', 'list')
    """
    live = _live_member(into)
    return "list" if live is None else STREAMS[parts_of(live)[0]]


def _live_member(into: Any) -> Any:
    return next((member for member in members_of(into, newtypes=True) if parts_of(member)[0] in STREAMS), None)


def accepts_none(hint: Any) -> bool:
    """Tell whether *hint* admits None in so many words; MISSING does not.

    >>> accepts_none(int | None), accepts_none(Any), accepts_none(int), accepts_none(MISSING)
    (True, True, False, False)
    """
    if hint is Any:
        return True
    if typing.get_origin(hint) in (Union, types.UnionType, Annotated):
        arguments = hint.__args__
        return any(map(accepts_none, arguments))
    return any(member is types.NoneType or member is object for member in members_of(hint, newtypes=True))
