"""Inbox: events of other threads on their way to the event loop."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import anyio
from anyio.lowlevel import checkpoint, current_token

from dpcore.errors import BrokerStateError, BufferFullError, PublishTimeoutError
from dpcore.events import Event
from dpcore.ports.subscription import TURN

__all__ = ("Inbox",)

_INBOX = 1024  # events that wait to be published
_LAST = 1.0  # seconds that a broker may take to give a publication up

_log = logging.getLogger("dpcore.broker")


class Inbox:
    """Events of other threads on their way to the loop; bounded, and one wake-up for many."""

    def __init__(self, broker: Any) -> None:
        self._broker = broker
        self._events: deque[Event] = deque()
        self._room = threading.Condition()
        self._ring = _ringer()
        self._thread = threading.get_ident()
        self._armed = False
        self._closed = False
        self._rung = anyio.Event()
        self._idle = anyio.Event()
        self._scope = anyio.CancelScope()

    def put(self, event: Event, timeout: float | None) -> None:
        """Have *event* published soon; wait for room."""
        with self._room:
            if len(self._events) >= _INBOX and not self._closed:
                self._wait(event, timeout)
            if self._closed:
                raise BrokerStateError(str(self._broker), "was left")
            self._events.append(event)
            ring, self._armed = not self._armed, True
        if ring:
            self._ring(self._wake)

    def _wait(self, event: Event, timeout: float | None) -> None:
        if threading.get_ident() == self._thread:
            raise BufferFullError(event.topic, "what plain functions on the event loop publish", _INBOX)
        there = self._room.wait_for(lambda: len(self._events) < _INBOX or self._closed, timeout)
        if not there:
            raise PublishTimeoutError(event.topic, timeout or 0.0)

    def _wake(self) -> None:
        self._rung.set()

    async def publish(self) -> None:
        """Publish what comes, for as long as the broker lives."""
        try:
            with self._scope:
                await self._publish_all()
        finally:
            self._idle.set()

    async def _publish_all(self) -> None:
        published = 0
        while True:
            await self._rung.wait()
            self._rung = anyio.Event()
            while self._events:
                await self._publish(self._events[0])
                with self._room:
                    self._events.popleft()
                    self._armed = bool(self._events)
                    self._room.notify()
                published += 1
                if published % TURN == 0:
                    await checkpoint()
            if self._closed:
                return

    async def _publish(self, event: Event) -> None:
        broker = self._broker
        try:
            if broker.offer is None or broker.offer(event) is not None:
                await broker.send((event,))
        except Exception:  # noqa: BLE001  (whatever a broker raises: there is nobody to raise it to)
            _log.exception("event %s of another thread was not published on %r", event.id, event.topic)
            return
        for see in broker.on_published:
            see(event)

    async def close(self, drain: float) -> None:
        """Take no more, and publish what is there; what is left of it after *drain* seconds is logged."""
        with self._room:
            self._closed = True
            self._room.notify_all()
        self._rung.set()
        try:
            with anyio.move_on_after(drain):
                await self._idle.wait()
        finally:
            self._scope.cancel()  # in the middle of a publish: what comes after the one that waits stays behind it
            with anyio.move_on_after(_LAST, shield=True):
                await self._idle.wait()
            if self._events:
                _log.error(
                    "%d events of other threads were not published, because %r was left",
                    len(self._events),
                    self._broker,
                )


def _ringer() -> Callable[[Callable[[], None]], object]:
    """Return what has the running event loop call something soon, told from any thread and without waiting."""
    loop: Any = current_token().native_token
    ring: Callable[[Callable[[], None]], object] = getattr(loop, "run_sync_soon", None) or loop.call_soon_threadsafe
    return ring
