"""A clock that is told what time it is, so that years pass in milliseconds."""

from __future__ import annotations

import asyncio
from bisect import insort
from datetime import UTC, datetime, timedelta
from math import inf

import anyio
from anyio.lowlevel import checkpoint

from dpcore.clock import Clock

__all__ = ("FakeClock",)


class FakeClock(Clock):
    """Stands still until somebody calls :meth:`advance`.

    With *autojump* it also goes on by itself: whenever every task of the loop
    waits, and one of them for this clock, it jumps to the next deadline.  Work in
    threads and other processes is not seen: a task that waits for that counts as
    waiting, so leave *autojump* off where a timeout watches over such work.

    Because nobody sets its wall, :meth:`sleep_until` sleeps once; with a *longest_sleep* in seconds
    it looks at the wall as often as on a real clock.

    One clock belongs to one event loop at a time.
    """

    def __init__(
        self,
        start: datetime = datetime(2026, 1, 1, tzinfo=UTC),
        *,
        autojump: bool = False,
        longest_sleep: float = inf,
    ) -> None:
        self._start = start.astimezone(UTC)
        self._elapsed = 0.0
        self.longest_sleep = longest_sleep
        self._sleepers: list[_Sleeper] = []
        self.autojump = autojump
        self._jumping = False

    def now(self) -> datetime:
        """Tell the start, plus all that has been advanced."""
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        """Tell the seconds that have been advanced."""
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock has advanced that far."""
        if seconds <= 0:
            await checkpoint()
            return
        sleeper = _Sleeper(self._elapsed + seconds)
        insort(self._sleepers, sleeper)
        try:
            while not sleeper.due:
                await (self._jump() if self.autojump and not self._jumping else sleeper.stir())
        finally:
            if not sleeper.due:
                self._sleepers.remove(sleeper)
            if self._sleepers and not self._jumping:
                self._sleepers[0].stirred.set()  # it watches from now on

    async def advance(self, seconds: float) -> None:
        """Let that much time pass, and return when everybody has done what there was to do.

        Sleepers wake in the order of their deadlines, each at its own; before the
        next one does, all tasks have gone on until they wait again.  So a task that
        sleeps in a loop wakes as often as it would have.
        """
        end = self._elapsed + seconds
        await _settled()
        while self._sleepers and self._sleepers[0].deadline <= end:
            self._wake_next()
            await _settled()
        self._elapsed = end
        await _settled()

    def set_wall(self, seconds: float) -> None:
        """Set the wall forward by so many seconds, back if they are negative, while :meth:`monotonic` stands still.

        As somebody does who corrects the time of a machine.  Who waits with :meth:`sleep_until` notices it
        as with a real clock if this one was made with ``longest_sleep=30``.
        """
        self._start += timedelta(seconds=seconds)

    async def _jump(self) -> None:
        self._jumping = True
        try:
            await _settled()
            if self._sleepers:
                self._wake_next()
        finally:
            self._jumping = False

    def _wake_next(self) -> None:
        sleeper = self._sleepers.pop(0)
        self._elapsed = max(self._elapsed, sleeper.deadline)
        sleeper.due = True
        sleeper.stirred.set()


class _Sleeper:
    __slots__ = ("deadline", "due", "stirred")

    def __init__(self, deadline: float) -> None:
        self.deadline, self.due, self.stirred = deadline, False, anyio.Event()

    def __lt__(self, other: _Sleeper) -> bool:
        return self.deadline < other.deadline

    async def stir(self) -> None:
        await self.stirred.wait()
        self.stirred = anyio.Event()


async def _settled() -> None:
    """Return when every other task of the loop waits for something."""
    try:
        this = asyncio.current_task()
    except RuntimeError:  # trio, which knows when that is
        await anyio.wait_all_tasks_blocked()
        return
    # anyio has this for asyncio too, but looks only once in a tenth of a second.
    # Twice in a row: the end of a task wakes who waits for it one turn later.
    settled = 0
    while settled < 2:
        await checkpoint()
        settled = settled + 1 if all(task is this or _waits(task) for task in asyncio.all_tasks()) else 0


def _waits(task: asyncio.Task[object]) -> bool:
    waiter = task._fut_waiter  # type: ignore[attr-defined]
    return waiter is not None and not waiter.done()
