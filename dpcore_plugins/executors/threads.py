"""Jobs on threads of this process."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from itertools import count
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any

import anyio

from dpcore import Executor, Job, Line, Outcome, perform, perform_async

__all__ = ("ThreadsExecutor",)

_log = logging.getLogger("dpcore.executors.threads")

_WATCH = 1.0  # seconds after which an idle thread looks whether the program is about to end


class ThreadsExecutor(Executor):
    """Runs plain functions on threads, and coroutine functions on the app's event loop.

    *slots* jobs run at once; by default as many as the machine has cores, and 4 more,
    since most threads wait for something.  Python cannot stop a thread: a job that
    is cancelled or takes too long is given up at once, but its code runs on to its
    end, keeps its slot until then, and keeps the process from ending.
    """

    capabilities = frozenset({"streams"})

    def __init__(self, *, slots: int = min(32, (os.cpu_count() or 1) + 4)) -> None:
        if slots < 1:
            raise ValueError(f"slots={slots!r} must be at least 1")
        self._slots = slots
        self._pool: _Pool | None = None

    @property
    def slots(self) -> int:
        """How many jobs run at once."""
        return self._slots

    async def run(self, job: Job, line: Line) -> Outcome:
        """Do *job*: what would block the event loop on a thread, what awaits on the loop."""
        if self._pool is None:  # made here, because it belongs to the loop that runs
            self._pool = _Pool(self._slots)
        slot = await self._pool.slot()
        try:
            if job.is_async:
                return await perform_async(job, line, in_thread=slot.call)
            outcome: Outcome = await slot.call(perform, job, line)
            return outcome
        finally:
            slot.let_go()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the threads; one whose job was given up ends with its code."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None


class _Pool:
    """Threads that are started as they are needed, and the slots of those who use them.

    Not anyio's, whose way to a thread and back costs several times as much: here a
    thread tells the loop at most once a turn that there is something to fetch.
    """

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._waiting: deque[anyio.Event] = deque()
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._done: deque[_Call] = deque()
        self._is_told = False  # that there is something in _done
        self._tell = _teller()
        self._threads: list[threading.Thread] = []
        self._busy = 0
        self._number = count(1)

    async def slot(self) -> _Slot:
        """Wait for a slot, and take it; first come, first served."""
        if self._free:
            self._free -= 1
            return _Slot(self)
        turn = anyio.Event()
        self._waiting.append(turn)
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():
                self.give_back()
            else:
                self._waiting.remove(turn)
            raise
        return _Slot(self)

    def give_back(self) -> None:
        """Give a slot to who waits for it longest."""
        if self._waiting:
            self._waiting.popleft().set()
        else:
            self._free += 1

    def give(self, call: _Call) -> None:
        """Have *call* done by a thread; where no further one can be started, by the next of those there are.

        Raises :class:`RuntimeError`, as Python does, if there is none.
        """
        if self._busy >= len(self._threads):
            thread = threading.Thread(target=self._work, name=f"threads-{next(self._number)}")
            try:
                thread.start()
            except RuntimeError:
                if not self._threads:
                    raise
                _log.warning("no further thread can be started; jobs wait for the %d there are", len(self._threads))
            else:
                self._threads.append(thread)
        self._busy += 1
        self._calls.put(call)

    def close(self) -> None:
        """End the threads that are idle now, and the others when they are."""
        for _ in self._threads:
            self._calls.put(None)
        if not self._busy:
            for thread in self._threads:
                thread.join()

    def _fetch(self) -> None:
        self._is_told = False  # first: what is done from here on is told again
        while self._done:
            call = self._done.popleft()
            self._busy -= 1
            call.ended.set()
            call.slot.let_go()

    # ---------------------------------------------------------------- on the threads

    def _work(self) -> None:
        while (call := self._next()) is not None:
            call.do()
            self._done.append(call)
            del call  # and with it what it gave, which nobody may want any more
            if not self._is_told:
                self._is_told = True
                with suppress(Exception):  # the loop is gone, and with it everybody who waits
                    self._tell(self._fetch)

    def _next(self) -> _Call | None:
        """Wait for something to do; None if there will be nothing more, or the program ends without having said so."""
        while True:
            try:
                return self._calls.get(timeout=_WATCH)
            except Empty:
                if not threading.main_thread().is_alive():
                    return None


class _Slot:
    """The place of one job, which is free again when the job is over and no thread of it runs any more."""

    __slots__ = ("_holders", "_pool")

    def __init__(self, pool: _Pool) -> None:
        self._pool = pool
        self._holders = 1  # the job, and each thread that runs for it; counted on the event loop only

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run *function* on a thread; a cancellation returns at once and leaves it running, if it has begun."""
        call = _Call(self, function, arguments)
        self._pool.give(call)
        self._holders += 1
        try:
            await call.ended.wait()
        except BaseException:
            call.give_up()
            raise
        if call.error is not None:
            raise call.error
        return call.value

    def let_go(self) -> None:
        """Say that the job, or a thread of it, needs the place no longer."""
        self._holders -= 1
        if not self._holders:
            self._pool.give_back()


class _Call:
    """Something that a thread is to do, unless it is given up before."""

    __slots__ = ("_arguments", "_claim", "_context", "_function", "ended", "error", "slot", "value")

    def __init__(self, slot: _Slot, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.slot, self._function, self._arguments = slot, function, arguments
        self._context = copy_context()
        if (sniffio := sys.modules.get("sniffio")) is not None:  # no event loop runs where this goes
            self._context.run(sniffio.current_async_library_cvar.set, None)
        self._claim = [True]  # who takes it out decides: the thread that begins, or the loop that gives up
        self.ended = anyio.Event()
        self.value: Any = None
        self.error: BaseException | None = None

    def do(self) -> None:
        """Do it, on a thread; what it raises is kept for who waits."""
        try:
            self._claim.pop()
        except IndexError:  # it was given up before its thread came to it
            return
        try:
            self.value = self._context.run(self._function, *self._arguments)
        except BaseException as error:  # noqa: BLE001  (whatever it is, it belongs to who called)
            self.error = error

    def give_up(self) -> None:
        """Have it not done, if it has not begun."""
        with suppress(IndexError):
            self._claim.pop()


def _teller() -> Callable[[Callable[[], None]], object]:
    """Return what has the running event loop call something soon, told from any thread and without waiting."""
    if "trio" in sys.modules:
        import trio

        with suppress(RuntimeError):  # it is loaded, and another loop runs
            return trio.lowlevel.current_trio_token().run_sync_soon
    import asyncio

    return asyncio.get_running_loop().call_soon_threadsafe
