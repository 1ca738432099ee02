"""The executor as an App has it."""

from __future__ import annotations

from contextlib import suppress
from contextvars import copy_context
from types import TracebackType
from typing import ClassVar, Self

import anyio

from dpcore import Executor, Job, Line, Outcome
from dpcore.errors import WorkersNotStartedError
from dpcore_plugins.executors.multiprocess.machine import cores
from dpcore_plugins.executors.multiprocess.pool import AHEAD, Pool
from dpcore_plugins.executors.multiprocess.worker import Call

__all__ = ("MultiprocessExecutor",)


class MultiprocessExecutor(Executor):
    """Runs jobs on worker processes, which are started when they are needed and stay.

    *workers* jobs run at once; by default as many as there are cores that this process
    may use.  A job that is cancelled or takes too long is stopped whatever it is doing:
    its worker gets a SIGTERM, so that ``finally`` runs, is killed if it lives after
    *grace* seconds, and is replaced.  A worker that dies in any other way is one failed
    attempt of the task that it was at.

    What a task prints is kept with its outcome, the last 64 KiB of it, and goes to the
    program's stderr as it comes, unless *echo* is False; what it logs, from the level of
    the root logger on, goes to the program's loggers, too.
    """

    capabilities: ClassVar[frozenset[str]] = frozenset({"isolates", "kills", "streams"})

    def __init__(self, *, workers: int | None = None, grace: float = 0.5, echo: bool = True) -> None:
        if workers is not None and workers < 1:
            raise ValueError(f"workers={workers!r} must be at least 1")
        if not grace >= 0:
            raise ValueError(f"grace={grace!r} must be a number of seconds, 0 or more")
        self.workers = cores() if workers is None else workers
        self.grace, self.echo = grace, echo
        self._pool: Pool | None = None

    @property
    def slots(self) -> int:
        """How many workers there may be."""
        return self.workers

    @property
    def window(self) -> int:
        """More than there are workers: while jobs are short, each has some ahead."""
        return self.workers * (1 + AHEAD)

    async def run(self, job: Job, line: Line) -> Outcome:
        """Have a worker do *job*."""
        if self._pool is None:  # made here, because it belongs to the loop that runs
            self._pool = Pool(self.workers, self.grace, echo=self.echo)
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
            raise
        if call.outcome is None:
            assert call.error is not None
            raise call.error
        return call.outcome

    async def __aenter__(self) -> Self:
        self._pool = Pool(self.workers, self.grace, echo=self.echo)
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


async def _talked(call: Call) -> None:
    """Wait for the end of a job that talks, and pass on what it is told."""
    async with anyio.create_task_group() as group:
        group.start_soon(call.pass_on)
        await call.ended()
        group.cancel_scope.cancel()
