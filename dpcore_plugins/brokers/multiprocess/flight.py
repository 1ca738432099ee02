"""What a peer publishes at the same time: no more than the hub takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import anyio

__all__ = ("Flight",)

_BYTES = 32 << 20  # of publications that the hub has not answered
_OF_TOPIC = 4_000  # publications on one topic; the hub does not answer those that wait for room
_ALL = 9_000  # publications; the hub drops a peer that has more than 10,000 of them waiting


class Flight:
    """Publications that the hub has not answered; who finds no room among them waits here.

    Those on one topic have room of their own, so that what waits for a slow
    reader does not hold up what is for others.
    """

    def __init__(self) -> None:
        self._bytes = self._count = 0
        self._topics: dict[str, int] = {}
        self._waiting: deque[anyio.Event] = deque()
        self._waiting_for: dict[str, deque[anyio.Event]] = {}

    async def board(self, topic: str, size: int, check: Callable[[], None]) -> None:
        """Wait for room; *check* raises where there is nobody any more for whom to wait."""
        if (
            (self._bytes and self._bytes + size > _BYTES)
            or self._count >= _ALL
            or self._topics.get(topic, 0) >= _OF_TOPIC
        ):
            await self._wait(topic, size, check)
        self._bytes += size
        self._count += 1
        self._topics[topic] = self._topics.get(topic, 0) + 1

    def land(self, topic: str, size: int) -> None:
        """Make room, because the hub has answered."""
        self._bytes -= size
        self._count -= 1
        left = self._topics[topic] - 1
        if left:
            self._topics[topic] = left
        else:
            del self._topics[topic]
        self._rouse(topic)

    def end(self) -> None:
        """Wake everybody, because the connection has ended."""
        for queue in (self._waiting, *self._waiting_for.values()):
            for turn in queue:
                turn.set()

    async def _wait(self, topic: str, size: int, check: Callable[[], None]) -> None:
        before: deque[anyio.Event] | None = None
        while (queue := self._queue_for(topic, size)) is not None:
            if before is not None and queue is not before:
                self._rouse(topic)  # what this one waits for now is not what the next one waits for
            turn = anyio.Event()
            (queue.appendleft if queue is before else queue.append)(turn)
            try:
                await turn.wait()
            except BaseException:
                self._leave(queue, turn, topic)
                if turn.is_set():
                    self._rouse(topic)
                raise
            self._leave(queue, turn, topic)
            check()
            before = queue
        self._rouse(topic)  # there may be room for the next one as well

    def _leave(self, queue: deque[anyio.Event], turn: anyio.Event, topic: str) -> None:
        queue.remove(turn)
        if not self._waiting_for.get(topic, True):
            del self._waiting_for[topic]

    def _queue_for(self, topic: str, size: int) -> deque[anyio.Event] | None:
        """Return where to wait; None if there is room."""
        if self._topics.get(topic, 0) >= _OF_TOPIC:
            return self._waiting_for.setdefault(topic, deque())
        return self._waiting if self._count >= _ALL or (self._bytes and self._bytes + size > _BYTES) else None

    def _rouse(self, topic: str) -> None:
        if self._waiting:
            self._waiting[0].set()
        if queue := self._waiting_for.get(topic):
            queue[0].set()
