"""Jobs on threads of this process."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from anyio import CapacityLimiter, to_thread

from dpcore import Executor, Job, Line, Outcome, perform_async

__all__ = ("ThreadsExecutor",)


class ThreadsExecutor(Executor):
    """Runs plain functions on threads, and coroutine functions on the app's event loop.

    *slots* jobs run at once; by default as many as the machine has cores, and 4 more,
    since most threads wait for something.  Python cannot stop a thread: a job that
    is cancelled or takes too long is given up at once, but its code runs on to its
    end, keeps its slot until then, and keeps the process from ending.
    """

    def __init__(self, *, slots: int = min(32, (os.cpu_count() or 1) + 4)) -> None:
        if slots < 1:
            raise ValueError(f"slots={slots!r} must be at least 1")
        self._slots = slots
        self._limiter: CapacityLimiter | None = None

    @property
    def slots(self) -> int:
        """How many jobs run at once."""
        return self._slots

    async def run(self, job: Job, line: Line) -> Outcome:
        """Do *job*: what would block the event loop on a thread, what awaits on the loop."""
        if self._limiter is None:  # made here, because it belongs to the loop that runs
            self._limiter = CapacityLimiter(self._slots)
        return await perform_async(job, line, in_thread=partial(_on_thread, self._limiter))


async def _on_thread(limiter: CapacityLimiter, call: Callable[..., Any], *arguments: Any) -> Any:
    return await to_thread.run_sync(call, *arguments, abandon_on_cancel=True, limiter=limiter)
