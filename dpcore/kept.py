"""Kept runs: which of those that have ended are forgotten next, and who may still ask for their results."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from weakref import ref

__all__ = ("Hold", "Kept")


class Hold:
    """While somebody has this, the results of a run stay."""

    __slots__ = ("__weakref__",)


class Kept:
    """The runs that have ended: the latest *most* of them stay, all if it is None, and so does each that is held.

    What it costs to add a run and to ask for those that go does not grow with how many
    stay or are held: a run that is held is looked at again when it is let go.
    """

    def __init__(self, most: int | None) -> None:
        self.most = most
        self.going: set[str] = set()
        """The runs that are just being forgotten."""
        self._latest: dict[str, None] = {}
        self._older: set[str] = set()  # not among the latest, and held when it was asked for them
        self._holds: dict[str, ref[Hold]] = {}
        self._let_go: deque[str] = deque()  # a hold may end in any thread, in the middle of anything

    def hold(self, run_id: str | None) -> Hold | None:
        """Return what keeps a run's results there, one for all who ask while somebody has it; None for no run."""
        if run_id is None:
            return None
        known = self._holds.get(run_id)
        hold = known() if known is not None else None
        if hold is None:
            hold = Hold()
            let_go = self._let_go
            self._holds[run_id] = ref(hold, lambda _: let_go.append(run_id))
        return hold

    def add(self, run_id: str) -> None:
        """Take in that a run has ended; it is the latest, also if it has ended before and was resumed."""
        if self.most is not None:
            self._latest.pop(run_id, None)
            self._older.discard(run_id)
            self._latest[run_id] = None

    def discard(self, run_id: str) -> None:
        """Take in that there is no such run any more."""
        self._latest.pop(run_id, None)
        self._older.discard(run_id)

    def clear(self) -> None:
        """Forget what has ended, but not who holds what."""
        self._latest.clear()
        self._older.clear()

    def due(self) -> Iterator[str]:
        """Yield the runs that go, each once; :meth:`add` those that cannot go just now."""
        for run_id in self._no_more_held():
            if run_id in self._older:
                self._older.discard(run_id)
                yield run_id
        while self.most is not None and len(self._latest) > self.most:
            run_id = next(iter(self._latest))
            del self._latest[run_id]
            if run_id in self._holds:
                self._older.add(run_id)
            else:
                yield run_id

    def _no_more_held(self) -> Iterator[str]:
        while self._let_go:
            run_id = self._let_go.popleft()
            known = self._holds.get(run_id)
            if known is not None and known() is None:  # nobody has taken hold of it again
                del self._holds[run_id]
                yield run_id
