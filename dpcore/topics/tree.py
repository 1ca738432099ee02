"""The tree of the segments of patterns: a topic walks it, and meets those that select it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Generic, TypeVar

from dpcore.topics.patterns import Alternative, in_between

__all__ = ("Tree", "count_down")

T = TypeVar("T", bound=Hashable)


class Place(Generic[T]):
    """Where the alternatives have come to that begin with the same segments."""

    __slots__ = ("below", "ends", "held")

    def __init__(self) -> None:
        self.below: dict[str, Place[T]] = {}
        """The next places, by the segment that leads there as it is written."""
        self.ends: dict[tuple[int, int], dict[str, dict[str, tuple[str, ...]]]] = {}
        """The pieces of those segments in part of which is a ``*``, so that few are looked at for a given segment:
        by how long their two ends are, and by the ends themselves."""
        self.held: dict[T, int] = {}
        """The values of the alternatives that end here, and of how many patterns each is."""

    def beyond(self, segment: str) -> Place[T]:
        """Return the place that *segment* leads to; make it if it is not there."""
        if (found := self.below.get(segment)) is not None:
            return found
        if _is_partial(segment):
            pieces = tuple(segment.split("*"))
            size, ends = _ends(pieces)
            self.ends.setdefault(size, {}).setdefault(ends, {})[segment] = pieces
        made = self.below[segment] = Place()
        return made

    def drop(self, segment: str) -> None:
        """Forget the place that *segment* leads to."""
        del self.below[segment]
        if _is_partial(segment):
            size, ends = _ends(segment.split("*"))
            del self.ends[size][ends][segment]
            if not self.ends[size][ends]:
                del self.ends[size][ends]
            if not self.ends[size]:
                del self.ends[size]

    def partly(self, segment: str) -> list[Place[T]]:
        """Return the places that a topic's *segment* leads to by a ``*`` in part of one."""
        found = []
        for (head, tail), groups in self.ends.items():
            if (rest := len(segment) - tail) >= head:
                for text, pieces in groups.get(f"{segment[:head]}*{segment[rest:]}", {}).items():
                    if in_between(pieces, segment):
                        found.append(self.below[text])
        return found


def _is_partial(segment: str) -> bool:
    return "*" in segment and segment not in ("*", "**")


def _ends(pieces: Sequence[str]) -> tuple[tuple[int, int], str]:
    return (len(pieces[0]), len(pieces[-1])), f"{pieces[0]}*{pieces[-1]}"


class Tree(Generic[T]):
    """The values by alternative, in a tree of their segments; they are given in the order in which each came first."""

    __slots__ = ("_literals", "_own", "_rest", "order")

    def __init__(self) -> None:
        self._literals: dict[str, dict[T, int]] = {}
        self._own: Place[T] = Place()
        self._rest: Place[T] = Place()
        self.order: dict[T, int] = {}

    def _root(self, text: str) -> Place[T]:
        """Return where a topic, or an alternative, begins: the platform's own ones are apart from the rest."""
        return self._own if text[0] == "$" else self._rest

    def hold(self, alternative: Alternative, value: T) -> None:
        """Hold *value* under *alternative*, for one pattern more."""
        if alternative.literal:
            held = self._literals.setdefault(alternative.text, {})
        else:
            place = self._root(alternative.text)
            for segment in alternative.segments:
                place = place.beyond(segment)
            held = place.held
        held[value] = held.get(value, 0) + 1

    def release(self, alternative: Alternative, value: T) -> None:
        """Hold *value* under *alternative* for one pattern less, and keep no place that leads nowhere."""
        if alternative.literal:
            count_down(held := self._literals[alternative.text], value)
            if not held:
                del self._literals[alternative.text]
            return
        way = [self._root(alternative.text)]
        for segment in alternative.segments:
            way.append(way[-1].below[segment])
        count_down(way[-1].held, value)
        for segment in reversed(alternative.segments):
            place = way.pop()
            if place.held or place.below:
                break
            way[-1].drop(segment)

    def select(self, topic: str) -> tuple[T, ...]:
        """Return the values whose alternatives select *topic*."""
        found = [self._literals[topic]] if topic in self._literals else []
        found += [place.held for place in self._reached(topic) if place.held]
        if not found:
            return ()
        values = {value: None for held in found for value in held}
        return tuple(sorted(values, key=self.order.__getitem__) if len(values) > 1 else values)

    def _reached(self, topic: str) -> Iterable[Place[T]]:
        """Return the places where *topic* ends.

        One way leads to a place, so that it is live at most once; those behind a ``**`` stay live
        to the end, and are held apart because that way may be gone again.
        """
        live = [self._root(topic)]
        many: dict[Place[T], None] = {}
        _open(live, many)
        for segment in topic.split("."):
            reached = []
            for place in (*live, *many):
                below = place.below
                if segment in below:
                    reached.append(below[segment])
                if "*" in below:
                    reached.append(below["*"])
                if place.ends:
                    reached += place.partly(segment)
            live = reached
            _open(live, many)
            if not live and not many:
                break
        return (*live, *many)


def _open(live: Iterable[Place[T]], many: dict[Place[T], None]) -> None:
    """Add to *many* the places behind a ``**`` that the *live* ones lead to: it may take no segment at all."""
    for place in live:
        if "**" in place.below:
            many[place.below["**"]] = None


def count_down(held: dict[T, int], value: T) -> None:
    """Count *value* once less; what is counted no more is gone."""
    held[value] -= 1
    if not held[value]:
        del held[value]
