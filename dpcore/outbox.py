"""Outboxes: what one job publishes while it runs, in the order in which it asks for that."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from math import inf
from typing import Any

import anyio
from anyio.abc import TaskGroup

from dpcore.events import Event

__all__ = ("Outbox", "Publish")

_log = logging.getLogger("dpcore.outbox")

Publish = Callable[[Sequence[Event]], Coroutine[Any, Any, None]]


class Outbox:
    """Publishes the events of one job, one after the other; one task at most is at it.

    While it is, its scope is in *scopes*: who cancels that has what waits not published, which is logged.
    """

    __slots__ = ("_idle", "_publish", "_run_id", "_scopes", "_waiting")

    def __init__(self, publish: Publish, run_id: str, scopes: set[anyio.CancelScope]) -> None:
        self._publish, self._run_id, self._scopes = publish, run_id, scopes
        self._waiting: deque[Event] = deque()
        self._idle: anyio.Event | None = None  # set, and forgotten, when all has been published

    def put(self, event: Event, group: TaskGroup, patience: float = inf) -> None:
        """Have *event* published by a task of *group* when those before it are; what the broker raises is logged.

        A task that is started for it is given up after *patience* seconds.
        """
        self._waiting.append(event)
        if self._idle is None:
            self._idle = anyio.Event()
            group.start_soon(self._empty, self._idle, patience)

    async def publish(self, event: Event) -> None:
        """Publish *event* when those before it are; what the broker raises is the caller's."""
        while self._idle is not None:
            await self._idle.wait()
        await self._publish((event,))

    async def _empty(self, idle: anyio.Event, patience: float) -> None:
        with anyio.move_on_after(patience) as scope:
            self._scopes.add(scope)
            try:
                while self._waiting:
                    await self._publish_next()
            finally:
                self._scopes.discard(scope)
                if self._waiting:
                    words = "run %s was cancelled, so %d events that a task wanted to publish were not"
                    _log.warning(words, self._run_id, len(self._waiting))
                    self._waiting.clear()
                self._idle = None
                idle.set()

    async def _publish_next(self) -> None:
        event = self._waiting[0]
        try:
            await self._publish((event,))
        except Exception:  # noqa: BLE001  (whatever a broker raises: the task has gone on)
            _log.exception("what a task of run %s wanted to publish on %r was not", self._run_id, event.topic)
        self._waiting.popleft()
