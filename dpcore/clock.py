"""The only place that asks what time it is, and that sleeps.

Everything that waits is handed a :class:`Clock`, so that a test drives years in
milliseconds with :class:`dpcore.testing.FakeClock`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from datetime import UTC, datetime

import anyio

__all__ = ("Clock", "SystemClock")


class Clock(ABC):
    """What the platform knows of time: a wall, a stopwatch, and a way to wait."""

    @abstractmethod
    def now(self) -> datetime:
        """Tell the time of day, aware and in UTC."""

    @abstractmethod
    def monotonic(self) -> float:
        """Tell seconds that never go back; only differences mean something."""

    @abstractmethod
    async def sleep(self, seconds: float) -> None:
        """Wait that many seconds of :meth:`monotonic`; cancelling it has no effect on others."""

    longest_sleep: float = 30.0
    """Seconds after which :meth:`sleep_until` looks at the wall again."""

    async def sleep_until(self, moment: datetime) -> None:
        """Wait until :meth:`now` is *moment* at least, which is aware; not at all if it is already.

        Somebody may set the wall while this waits, or the machine may sleep, in which time
        :meth:`monotonic` need not go on; that is noticed after :attr:`longest_sleep`.
        """
        while (left := (moment - self.now()).total_seconds()) > 0:
            await self.sleep(min(left, self.longest_sleep))


class SystemClock(Clock):
    """The clock of the machine."""

    def now(self) -> datetime:
        """Tell the machine's time of day, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Tell seconds of the machine's monotonic clock."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait on the running event loop, asyncio's or trio's."""
        await anyio.sleep(seconds)
