"""Who stands still: a worker that does not take what it is given, or the template that does not do what it is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum

from dpcore_plugins.executors.multiprocess.loops import Loop
from dpcore_plugins.executors.multiprocess.worker import Worker

__all__ = ("Awaited", "Watch")

_PATIENCE = 10.0  # seconds for what takes a moment
_LOOKS = 4  # in the time that is the least to wait


class Awaited(Enum):
    """What is to come next from a worker, or from the template about it."""

    FORK = "the template forks it"
    END = "the template stops it"
    START = "it is ready"
    TAKE = "it takes the first of its jobs"
    BEGIN = "it begins a job that has a timeout, when it has imported what that needs"


class Watch:
    """Looks at *workers* some times while anything is awaited of them, and calls *late* with who took too long.

    To fork, to stop and to take a job take a moment, and may take ten seconds, or *patience* if that is less; to
    stop takes *grace* before.  To be ready, and to import what a job needs, may take *patience* seconds.
    """

    def __init__(
        self,
        loop: Loop,
        workers: Callable[[], Iterable[Worker]],
        late: Callable[[Worker, Awaited], object],
        *,
        patience: float,
        grace: float,
    ) -> None:
        self._loop, self._workers, self._late = loop, workers, late
        moment = min(_PATIENCE, patience)
        self._every = moment / _LOOKS
        self._limits = {
            Awaited.FORK: moment,
            Awaited.END: grace + moment,
            Awaited.START: patience,
            Awaited.TAKE: moment,
            Awaited.BEGIN: patience,
        }
        self._unlook: Callable[[], object] | None = None

    def begin(self) -> None:
        """Look from now on, until nothing is awaited."""
        if self._unlook is None:
            self._unlook = self._loop.later(self._every, self._look)

    def end(self) -> None:
        """Look no more."""
        if self._unlook is not None:
            self._unlook()
            self._unlook = None

    def _look(self) -> None:
        self._unlook = None
        is_awaited = False
        for worker in [*self._workers()]:
            awaited = _awaited(worker)
            if awaited is None:
                worker.awaited = None
                is_awaited = is_awaited or bool(worker.calls)
                continue
            is_awaited = True
            if worker.awaited != awaited:
                worker.awaited, worker.looks = awaited, 0
            worker.looks += 1
            if worker.looks * self._every > self._limits[awaited[0]]:
                worker.looks = 0
                self._late(worker, awaited[0])
        if is_awaited:
            self.begin()


def _awaited(worker: Worker) -> tuple[Awaited, object] | None:
    """Return what is awaited of a worker, and what would change if it had gone on meanwhile."""
    first = worker.calls[0] if worker.calls else None
    if not worker.is_forked:
        return Awaited.FORK, None
    if worker.is_doomed:
        return Awaited.END, None
    if not worker.is_ready:
        return Awaited.START, None
    if first is None:
        return None
    if not worker.has_taken:
        return Awaited.TAKE, (first, worker.unsent)
    if first.job.timeout is not None and not first.has_begun:
        return Awaited.BEGIN, first
    return None
