"""Tasks and threads that use a queue, many at once, and are cancelled at any moment."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from dpcore.errors import QueueClosedError, QueueEmptyError
from dpcore.ports import Queue

__all__ = ("Attempts", "Crowd", "in_order", "release", "several_turns", "until")


class Attempts:
    """Puts and gets that are cancelled at a random moment, in each way that there is."""

    def __init__(self, backend: str) -> None:
        self._drawn = random.Random(backend)
        self._ways = ["scope", "wait_for", "task"] if backend == "asyncio" else ["scope"]
        self.cancelled = 0

    async def make(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin *work*, and cancel it soon, if it has not ended by then."""
        way, patience = self._drawn.choice(self._ways), self._drawn.choice([0, 0.0001, 0.0005])
        try:
            if way == "wait_for":
                await asyncio.wait_for(work(), patience)
            elif way == "task":
                task = asyncio.ensure_future(work())
                for _ in range(self._drawn.randrange(4)):
                    await asyncio.sleep(0)
                task.cancel()
                await task
            else:
                with anyio.fail_after(patience):
                    await work()
        except (TimeoutError, asyncio.CancelledError):
            self.cancelled += 1


class Crowd:
    """Tasks and threads that put and get, and remember what they got."""

    def __init__(self, queue: Queue, each: int, patience: float) -> None:
        self.queue, self.each, self.patience = queue, each, patience
        self.got: list[list[tuple[str, int]]] = []

    async def produce(self, name: str) -> None:
        """Put, in a task."""
        for number in range(self.each):
            await self.queue.put((name, number))

    def produce_in_thread(self, name: str) -> None:
        """Put, in a thread."""
        for number in range(self.each):
            self.queue.put_sync((name, number), timeout=self.patience)

    async def consume(self) -> None:
        """Get, in a task."""
        mine: list[tuple[str, int]] = []
        self.got.append(mine)
        async for item in self.queue:
            mine.append(item)
            self.queue.task_done()

    def consume_in_thread(self) -> None:
        """Get, in a thread."""
        mine: list[tuple[str, int]] = []
        self.got.append(mine)
        with contextlib.suppress(QueueClosedError):
            while True:
                mine.append(self.queue.get_sync(timeout=self.patience))
                self.queue.task_done()


def in_order(items: list[Any]) -> None:
    """Assert that the numbers of each producer grow."""
    for name in {name for name, _ in items}:
        numbers = [number for of, number in items if of == name]
        assert numbers == sorted(numbers)


async def several_turns() -> None:
    """Let the others come to where they wait."""
    for _ in range(6):
        await checkpoint()
    await anyio.wait_all_tasks_blocked()


async def until(condition: Callable[[], bool]) -> None:
    """Let the others go on until it is so, which who calls this bounds."""
    while not condition():  # noqa: ASYNC110  (what others do sets no event)
        await anyio.sleep(0.001)


def release(queue: Queue, threads: ThreadPoolExecutor) -> None:
    """Have no thread wait for ever where a promise was broken: the test must end to say so."""
    queue.close()
    with contextlib.suppress(QueueClosedError, QueueEmptyError):
        while True:
            queue.get_nowait()
    threads.shutdown(wait=False)
