"""Jobs on threads of this process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio
from anyio import CapacityLimiter, from_thread, to_thread
from anyio.lowlevel import EventLoopToken, current_token

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
        self._free: CapacityLimiter | None = None
        self._threads: CapacityLimiter | None = None

    @property
    def slots(self) -> int:
        """How many jobs run at once."""
        return self._slots

    async def run(self, job: Job, line: Line) -> Outcome:
        """Do *job*: what would block the event loop on a thread, what awaits on the loop."""
        if self._free is None or self._threads is None:  # made here, because they belong to the loop that runs
            self._free, self._threads = CapacityLimiter(self._slots), CapacityLimiter(float("inf"))
        slot = _Slot(self._free, self._threads, current_token())
        await self._free.acquire_on_behalf_of(slot)
        try:
            return await perform_async(job, line, in_thread=slot.on_thread)
        finally:
            slot.leave()


class _Slot:
    """The place of one job, which is free again when the call is over and no thread of it runs any more."""

    def __init__(self, free: CapacityLimiter, threads: CapacityLimiter, token: EventLoopToken) -> None:
        self._free, self._threads, self._token = free, threads, token
        self._lock = threading.Lock()
        self._holders = 1  # the call, and each thread that runs

    async def on_thread(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Run *call* on a thread; a cancellation returns at once and leaves it running."""
        return await to_thread.run_sync(self._body, call, arguments, abandon_on_cancel=True, limiter=self._threads)

    def leave(self) -> None:
        """Say on the event loop that the call is over."""
        if self._let_go():
            self._free.release_on_behalf_of(self)

    def _body(self, call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        with self._lock:
            if not self._holders:
                return None  # it was cancelled before its thread came to it
            self._holders += 1
        try:
            return call(*arguments)
        finally:
            if self._let_go():  # the call was given up meanwhile: nobody waits for what is returned
                with suppress(RuntimeError, anyio.RunFinishedError):  # the event loop is gone, and the slots with it
                    from_thread.run_sync(self._free.release_on_behalf_of, self, token=self._token)

    def _let_go(self) -> bool:
        with self._lock:
            self._holders -= 1
            return not self._holders
