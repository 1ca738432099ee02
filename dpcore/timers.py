"""Timers: what is to be called later, on one clock."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any

import anyio
from anyio.abc import TaskGroup

from dpcore.clock import Clock

__all__ = ("Timers",)


class Timers:
    """What is to be called later, on one clock, with one sleeper for the earliest of them."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.group: TaskGroup | None = None
        self._due: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = count()
        self._sleeper: anyio.CancelScope | None = None
        self._until = float("inf")
        self._stopped = False

    def add(self, delay: float, call: Callable[..., None], *arguments: Any) -> None:
        """Have ``call(*arguments)`` called in *delay* seconds; at once if that is not in the future."""
        if delay <= 0:
            call(*arguments)
            return
        due = self.clock.monotonic() + delay
        heapq.heappush(self._due, (due, next(self._number), call, arguments))
        if due < self._until and not self._stopped and self.group is not None:
            self._until = due
            if self._sleeper is not None:
                self._sleeper.cancel()
            self._sleeper = anyio.CancelScope()
            self.group.start_soon(self._sleep, self._sleeper)

    def stop(self) -> None:
        """Forget everything."""
        self._stopped = True
        self._due.clear()
        if self._sleeper is not None:
            self._sleeper.cancel()

    async def _sleep(self, scope: anyio.CancelScope) -> None:
        with scope:
            while self._due:
                self._until = self._due[0][0]
                await self.clock.sleep(max(0.0, self._until - self.clock.monotonic()))
                while self._due and self._due[0][0] <= self.clock.monotonic():
                    _, _, call, arguments = heapq.heappop(self._due)
                    call(*arguments)
                    if scope.cancel_called:
                        return
            self._until, self._sleeper = float("inf"), None
