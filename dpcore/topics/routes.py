"""Routing: the values that a topic reaches, remembered for the latest topics."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from itertools import count, islice
from typing import Generic, TypeVar

from dpcore.errors import ArgumentError, RouteNotFoundError
from dpcore.topics.patterns import MOST_REMEMBERED, Alternative, check_topic, read, selects
from dpcore.topics.tree import Tree, count_down

__all__ = ("Routes",)

T = TypeVar("T", bound=Hashable)

_LONGEST_MENDED = 64  # a longer tuple is made anew when its topic is next asked for, which costs as much as using it


class _Cache(dict[str, tuple[T, ...]]):
    """The latest topics and whom they reach; whoever asks for another topic is answered by the tree.

    Which of them have a given segment is written down when it is first asked for, and kept
    up until topics are dropped: where patterns do not change, it costs nothing.
    """

    __slots__ = ("_having", "_most", "_tree")

    def __init__(self, tree: Tree[T], most: int) -> None:
        self._tree, self._most = tree, most
        self._having: dict[str, dict[str, None]] | None = None

    def __missing__(self, topic: str) -> tuple[T, ...]:
        found = self._tree.select(check_topic(topic))
        if self._most:
            if len(self) >= self._most:
                self._make_room()
            self[topic] = found
            if self._having is not None:
                self._note(self._having, topic)
        return found

    def _make_room(self) -> None:
        """Drop the oldest quarter at once, so that each new topic pays for one of them."""
        for topic in [*islice(self, -(-self._most // 4))]:
            del self[topic]
        self._having = None

    @staticmethod
    def _note(having: dict[str, dict[str, None]], topic: str) -> None:
        for segment in topic.split("."):
            having.setdefault(segment, {})[topic] = None

    def forget(self, topic: str) -> None:
        """Drop *topic*."""
        del self[topic]
        if self._having is not None:
            for segment in {*topic.split(".")}:
                del self._having[segment][topic]
                if not self._having[segment]:
                    del self._having[segment]

    def selected(self, alternative: Alternative) -> list[str]:
        """Return the topics that *alternative* selects."""
        if alternative.literal:
            return [alternative.text] if alternative.text in self else []
        return [topic for topic in self._candidates(alternative) if selects(alternative, topic.split("."))]

    def _candidates(self, alternative: Alternative) -> Iterable[str]:
        """Return the topics that have the rarest of the segments that *alternative* names, or all."""
        if self._having is None:
            self._having = {}
            for topic in self:
                self._note(self._having, topic)
        named = [segment for segment in alternative.segments if "*" not in segment]
        return min((self._having.get(segment, {}) for segment in named), key=len, default=self)


class Routes(Generic[T]):
    """A tree that routes a topic to the values whose patterns select it.

    Values are told apart by equality and hash, as the keys of a dict are.  A value may be
    added under several patterns, and several times under one; it is removed as often.

    What a topic costs does not depend on how many patterns there are.  One that was routed lately is
    one look-up in a dict.  For another the tree is walked, in time proportional to the segments of the
    topic times the beginnings of patterns that it fits.  A segment such as ``data-*`` or ``*-eu`` is found by
    its two ends, with one look-up for each pair of lengths that these have; only segments with several ``*`` and
    the same ends (``a*x*z``, ``a*y*z``, and all of the sort ``*x*``) are looked at one by one.

    Adding and removing mend the remembered topics that the pattern selects, and never forget
    the others.  For a literal that is one look-up; otherwise the topics are looked at that have the rarest of
    the whole segments that the pattern names, or all where it names none (``**``, ``*.data-*``).

    A Routes belongs to one thread.  As a collection it holds its patterns.

    >>> routes = Routes()
    >>> routes.add("orders.**", "audit")
    >>> routes.add("orders.*.paid", "invoices")
    >>> routes.match("orders.eu.paid")
    ('audit', 'invoices')
    >>> routes.remove("orders.**", "audit")
    >>> routes.match("orders.eu.paid")
    ('invoices',)
    """

    __slots__ = ("_cache", "_numbers", "_patterns", "_tree", "_uses", "match")

    match: Callable[[str], tuple[T, ...]]
    """Return the values whose patterns select a topic, each once, in the order in which they were first added.

    Raises :class:`~dpcore.errors.TopicError` for what is no topic, so that whoever routes need not check it.
    """

    def __init__(self, *, cache: int = MOST_REMEMBERED) -> None:
        """Remember the latest *cache* topics; with 0, none."""
        if type(cache) is not int or cache < 0:
            raise ArgumentError("cache", cache, "a whole number of topics from 0 on")
        self._patterns: dict[str, dict[T, int]] = {}
        self._uses: dict[T, int] = {}  # of how many patterns each value is
        self._numbers = count()
        self._tree: Tree[T] = Tree()
        self._cache = _Cache(self._tree, cache)
        self.match = self._cache.__getitem__  # no function of ours stands between a caller and the dict

    def __len__(self) -> int:
        return len(self._patterns)

    def __iter__(self) -> Iterator[str]:
        return iter(self._patterns)

    def __contains__(self, pattern: object) -> bool:
        return pattern in self._patterns

    def add(self, pattern: str, value: T) -> None:
        """Have the topics that *pattern* selects reach *value* from now on."""
        alternatives = read(pattern)
        known = value in self._uses
        held = self._patterns.setdefault(pattern, {})
        held[value] = held.get(value, 0) + 1
        if held[value] > 1:
            return
        self._uses[value] = self._uses.get(value, 0) + 1
        if not known:
            self._tree.order[value] = next(self._numbers)
        for alternative in alternatives:
            self._tree.hold(alternative, value)
        self._mend(alternatives, lambda topic, found: self._tree.select(topic) if known else (*found, value))

    def remove(self, pattern: str, value: T) -> None:
        """Undo one :meth:`add` of the same *pattern* and *value*.

        Raises :class:`~dpcore.errors.RouteNotFoundError`, a KeyError, if there is none.
        """
        held = self._patterns.get(pattern, {})
        if value not in held:
            raise RouteNotFoundError(pattern, value, [one for one, values in self._patterns.items() if value in values])
        count_down(held, value)
        if value in held:
            return
        if not held:
            del self._patterns[pattern]
        count_down(self._uses, value)
        if not (known := value in self._uses):
            del self._tree.order[value]
        alternatives = read(pattern)
        for alternative in alternatives:
            self._tree.release(alternative, value)
        left = self._tree.order.__contains__
        self._mend(alternatives, lambda topic, found: self._tree.select(topic) if known else (*filter(left, found),))

    def _mend(self, alternatives: Iterable[Alternative], mended: Callable[[str, tuple[T, ...]], tuple[T, ...]]) -> None:
        """Put right the topics that are remembered and that *alternatives* select."""
        cache = self._cache
        for topic in {topic: None for alternative in alternatives for topic in cache.selected(alternative)}:
            found = cache[topic]
            if len(found) > _LONGEST_MENDED:
                cache.forget(topic)
            else:
                cache[topic] = mended(topic, found)
