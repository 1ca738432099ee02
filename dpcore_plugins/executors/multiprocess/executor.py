"""The executor as an App has it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from contextvars import copy_context
from operator import index
from types import TracebackType
from typing import Any, ClassVar, Self

import anyio

from dpcore import Executor, Job, Line, Outcome
from dpcore.errors import WorkersNotStartedError
from dpcore_plugins.executors.multiprocess.machine import cores
from dpcore_plugins.executors.multiprocess.pool import AHEAD, Pool
from dpcore_plugins.executors.multiprocess.worker import Call

__all__ = ("MultiprocessExecutor",)

_LONGEST = 86_400  # seconds
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

    A worker that is not ready after *start_timeout* seconds, or has not begun a job with a
    timeout because it still imports what that needs, is killed; so is one that takes no job at all
    for ten seconds, or *start_timeout* if that is less.  A job's own timeout counts from the call of its function.

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
        start_timeout: float = 60.0,
    ) -> None:
        self.workers = _count("workers", workers, "must be at least 1") or cores()
        self.grace = _seconds("grace", grace, 0)
        self.start_timeout = _seconds("start_timeout", start_timeout, 1)
        if not isinstance(echo, bool):
            raise TypeError(f"echo={echo!r} must be True or False")
        self.echo = echo
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
            start_timeout=self.start_timeout,
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


def _seconds(name: str, seconds: Any, least: int) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not least <= seconds <= _LONGEST:
        raise ValueError(f"{name}={seconds!r} must be a number of seconds from {least} to {_LONGEST:,}")
    return seconds


def _count(name: str, number: Any, said: str) -> int | None:
    if number is None:
        return None
    if isinstance(number, bool) or not hasattr(number, "__index__"):
        raise TypeError(f"{name}={number!r} must be a whole number, not of type {type(number).__name__}")
    if number < 1:
        raise ValueError(f"{name}={number!r} {said}")
    return index(number)


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
        if not name or "=" in name or "\0" in name + text or not _is_encodable(name + text):
            raise ValueError(f"environment={environment!r}: {name!r}: {text!r} can be no variable of a process")
    return dict(environment)


def _is_encodable(text: str) -> bool:
    try:
        return bool(os.fsencode(text))
    except UnicodeEncodeError:
        return False


async def _talked(call: Call) -> None:
    """Wait for the end of a job that talks, and pass on what it is told."""
    async with anyio.create_task_group() as group:
        group.start_soon(call.pass_on)
        await call.ended()
        group.cancel_scope.cancel()
