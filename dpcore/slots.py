"""Slots: how several runs share one executor, and which tasks may not run beside each other.

Pure.  :func:`shares` says how many jobs each of several runs may have at once;
:class:`Limits` counts the jobs of tagged tasks over all of them; :class:`Slots` tells
the runs of one app of both whenever that changes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

__all__ = ("Limits", "Sharer", "Slots", "shares")


def shares(places: int, wants: Sequence[tuple[int, int]]) -> list[int]:
    """Return how many of an executor's *places* each run gets, of which is given its priority and how many it wants.

    A higher priority goes first; those of one priority get the same, but none more than
    it wants, and what one leaves is for the others.  Everybody gets one place at least,
    so that nobody starves: where there are more runs than places, that is more than there are.

    >>> shares(8, [(0, 10_000), (0, 3)])
    [5, 3]
    >>> shares(8, [(0, 10_000), (0, 10_000), (1, 4)])
    [2, 2, 4]
    """
    given = [1] * len(wants)
    left = places - len(wants)
    for priority in sorted({priority for priority, _ in wants}, reverse=True):
        hungry = [at for at, (its, wanted) in enumerate(wants) if its == priority and wanted > 1]
        while hungry and left > 0:
            each = max(1, left // len(hungry))
            for at in hungry[:left]:
                more = min(each, wants[at][1] - given[at])
                given[at] += more
                left -= more
            hungry = [at for at in hungry if given[at] < wants[at][1]]
    return given


class Limits:
    """How many jobs of tasks with a tag run at once, and may.

    >>> limits = Limits({"db": 2})
    >>> limits.of({"db", "nightly"})
    ('db',)
    >>> [limits.take(("db",)) for _ in range(3)]
    [True, True, False]
    >>> limits.give_back(("db",))
    >>> limits.free(("db",))
    1
    """

    __slots__ = ("_left", "most")

    def __init__(self, most: Mapping[str, int]) -> None:
        self.most = dict(most)
        self._left = dict(most)

    def __repr__(self) -> str:
        return f"<Limits: {', '.join(f'{tag} {self.used(tag)} of {most}' for tag, most in self.most.items())}>"

    def of(self, tags: Collection[str]) -> tuple[str, ...]:
        """Return those of *tags* that have a limit."""
        return tuple(tag for tag in self.most if tag in tags)

    def used(self, tag: str) -> int:
        """Return how many jobs run of tasks with that tag."""
        return self.most[tag] - self._left[tag]

    def free(self, tags: tuple[str, ...]) -> int:
        """Return how many further jobs with all these *tags* may run."""
        return min(self._left[tag] for tag in tags)

    def take(self, tags: tuple[str, ...]) -> bool:
        """Count one job more with these *tags*, if it may run; all of them, or none."""
        if not self.free(tags):
            return False
        for tag in tags:
            self._left[tag] -= 1
        return True

    def give_back(self, tags: tuple[str, ...]) -> None:
        """Count one job less with these *tags*."""
        for tag in tags:
            self._left[tag] += 1


class Sharer(Protocol):
    """A run that is being driven, as those see it that share an executor with it."""

    allowed: int
    """How many jobs it may have at once."""

    @property
    def priority(self) -> int:
        """Those with a higher one are served first."""

    @property
    def places(self) -> int:
        """How many jobs its executor may be given."""

    @property
    def wants(self) -> int:
        """How many jobs it has, and how many more it could have now."""

    def offer(self) -> None:
        """Have it start what it may and can."""


class Slots:
    """The runs of one app that share an executor; one alone has all of it, and asks nobody."""

    __slots__ = ("_is_sharing", "_sharers", "limits", "places")

    def __init__(self, limits: Mapping[str, int] | None = None) -> None:
        self.limits = Limits(limits) if limits else None
        self.places = 0  # how many there were when they were shared last
        self._sharers: list[Sharer] = []
        self._is_sharing = False

    @property
    def crowded(self) -> bool:
        """Whether there is more than one run."""
        return len(self._sharers) > 1

    def join(self, sharer: Sharer) -> None:
        """Take in a run that begins."""
        self._sharers.append(sharer)
        self.share(sharer)

    def leave(self, sharer: Sharer) -> None:
        """Forget a run that has ended; what it had is for the others."""
        if sharer in self._sharers:
            self._sharers.remove(sharer)
        self._share_among(self._sharers)
        for other in list(self._sharers):
            other.offer()

    def share(self, sharer: Sharer) -> None:
        """Share anew, since *sharer* wants more or less than before; it goes on by itself, and the others are offered."""
        if not self._is_sharing:
            self._is_sharing = True
            try:
                self._share_among(self._sharers)
                self.offer(sharer)
            finally:
                self._is_sharing = False

    def _share_among(self, sharers: Sequence[Sharer]) -> None:
        """Tell each of *sharers* what it may have."""
        if sharers:
            self.places = max(one.places for one in sharers)
            given = shares(self.places, [(one.priority, one.wants) for one in sharers])
            for one, allowed in zip(sharers, given, strict=True):
                one.allowed = allowed if len(sharers) > 1 else one.places

    def offer(self, sharer: Sharer) -> None:
        """Have all others start what they may, in turn: the one first that has joined after *sharer*."""
        at = self._sharers.index(sharer)
        for other in [*self._sharers[at + 1 :], *self._sharers[:at]]:
            other.offer()
