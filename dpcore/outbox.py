"""Outboxes: what one job publishes while it runs, in the order in which it asks for that."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import anyio
from anyio.abc import TaskGroup

from dpcore.events import Event

__all__ = ("Outbox", "Publish")

_log = logging.getLogger("dpcore.outbox")

Publish = Callable[[Sequence[Event]], Coroutine[Any, Any, None]]


class Outbox:
    """Publishes the events of one job, one after the other; one task at most is at it."""

    __slots__ = ("_idle", "_publish", "_run_id", "_waiting")

    def __init__(self, publish: Publish, run_id: str) -> None:
        self._publish, self._run_id = publish, run_id
        self._waiting: deque[Event] = deque()
        self._idle: anyio.Event | None = None  # set, and forgotten, when all has been published

    def put(self, event: Event, group: TaskGroup) -> None:
        """Have *event* published by a task of *group* when those before it are; what the broker raises is logged."""
        self._waiting.append(event)
        if self._idle is None:
            self._idle = anyio.Event()
            group.start_soon(self._empty, self._idle)

    async def publish(self, event: Event) -> None:
        """Publish *event* when those before it are; what the broker raises is the caller's."""
        while self._idle is not None:
            await self._idle.wait()
        await self._publish((event,))

    async def _empty(self, idle: anyio.Event) -> None:
        try:
            while self._waiting:
                event = self._waiting.popleft()
                try:
                    await self._publish((event,))
                except Exception:  # noqa: BLE001  (whatever a broker raises: the task has gone on)
                    words = "what a task of run %s wanted to publish on %r was not"
                    _log.exception(words, self._run_id, event.topic)
        finally:
            self._idle = None
            idle.set()
