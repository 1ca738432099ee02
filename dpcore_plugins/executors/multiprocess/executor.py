"""The executor as an App has it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from contextvars import copy_context
from types import TracebackType
from typing import Any, ClassVar, Self

import anyio

from dpcore import Executor, Job, Line, Outcome
from dpcore.errors import WorkersNotStartedError
from dpcore_plugins.executors.multiprocess.machine import cores
from dpcore_plugins.executors.multiprocess.pool import AHEAD, Pool
from dpcore_plugins.executors.multiprocess.worker import Call

__all__ = ("MultiprocessExecutor",)

_LONGEST_GRACE = 86_400  # seconds
_MOMENT = 0.016  # seconds of work that a worker is given ahead at most: an urgent job waits no longer for others


class MultiprocessExecutor(Executor):
    """Runs jobs on worker processes, which are started when they are needed and stay.

    *workers* jobs run at once; by default as many as there are cores that this process
    may use.  A job that is cancelled or takes too long is stopped whatever it is doing:
    its worker gets a SIGTERM, so that ``finally`` runs, is killed if it lives after
    *grace* seconds (a day at most), and is replaced.  A worker that dies in any other way is one failed
    attempt of the task that it was at.

    What a task prints is kept with its outcome, the last 64 KiB of it, and goes to the
    program's stderr as it comes, unless *echo* is False; what it logs, from the level of
    the root logger on, goes to the program's loggers, too.

    A worker that has done *max_tasks_per_worker* jobs is replaced by a new one.  Each has
    the variables of *environment*, beside those of the program, before any code of yours is imported.
    """

    capabilities: ClassVar[frozenset[str]] = frozenset({"isolates", "kills", "streams"})
    tells = True  # from the first job on: no timeout counts while its worker is being started

    def __init__(
        self,
        *,
        workers: int | None = None,
        grace: float = 0.5,
        echo: bool = True,
        max_tasks_per_worker: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.workers = _count("workers", workers, "must be at least 1") or cores()
        if isinstance(grace, bool) or not isinstance(grace, int | float) or not 0 <= grace <= _LONGEST_GRACE:
            raise ValueError(f"grace={grace!r} must be a number of seconds from 0 to {_LONGEST_GRACE:,}")
        self.grace, self.echo = grace, echo
        self.max_tasks_per_worker = _count(
            "max_tasks_per_worker", max_tasks_per_worker, "must be at least 1, or None for any number"
        )
        self.environment = _checked(environment)
        self._pool: Pool | None = None

    @property
    def slots(self) -> int:
        """How many workers there may be."""
        return self.workers

    @property
    def window(self) -> int:
        """As many as there are workers, and while jobs are short some for each of them ahead: what is done in a moment."""
        if self._pool is None:
            return self.workers
        pace = self._pool.pace
        return self.workers * (1 + (AHEAD if pace * AHEAD <= _MOMENT else int(_MOMENT / pace)))

    async def run(self, job: Job, line: Line) -> Outcome:
        """Have a worker do *job*."""
        if self._pool is None:  # made here, because it belongs to the loop that runs
            self._pool = self._made()
        pool = self._pool
        talks = job.talks
        call = pool.give(job, line, copy_context() if talks else None)
        try:
            if talks:
                await _talked(call)
            else:
                await call.ended()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await pool.withdraw(call)
            if call.outcome is not None:
                line.output = call.outcome.output
            raise
        outcome = call.outcome
        if outcome is None:
            assert call.error is not None
            raise call.error
        return outcome

    def _made(self) -> Pool:
        return Pool(
            self.workers,
            self.grace,
            echo=self.echo,
            most_jobs=self.max_tasks_per_worker,
            environment=self.environment,
            plugins=self.plugins,
        )

    async def __aenter__(self) -> Self:
        self._pool = self._made()
        with suppress(WorkersNotStartedError):  # said when there is something to do
            self._pool.prepare()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop what runs, and leave no process behind."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            await pool.close()


def _count(name: str, number: Any, said: str) -> int | None:
    if number is None:
        return None
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"{name}={number!r} must be a whole number, not of type {type(number).__name__}")
    if number < 1:
        raise ValueError(f"{name}={number!r} {said}")
    return number


def _checked(environment: Any) -> dict[str, str]:
    """Return what may be in the environment of a process."""
    if environment is None:
        return {}
    if not isinstance(environment, Mapping):
        raise TypeError(
            f"environment={environment!r} must map names of variables to texts, such as {{'OMP_NUM_THREADS': '1'}}"
        )
    for name, text in environment.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise TypeError(
                f"environment={environment!r} must map names to texts; {name!r}: {text!r} are not both texts"
            )
        if not name or "=" in name or "\0" in name + text:
            raise ValueError(f"environment={environment!r}: {name!r}: {text!r} can be no variable of a process")
    return dict(environment)


async def _talked(call: Call) -> None:
    """Wait for the end of a job that talks, and pass on what it is told."""
    async with anyio.create_task_group() as group:
        group.start_soon(call.pass_on)
        await call.ended()
        group.cancel_scope.cancel()
