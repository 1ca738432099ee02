"""Other processes that a suite starts, talks to and kills, and what they do meanwhile."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any

import anyio

from dpcore.errors import QueueClosedError
from dpcore.ports import Queue

__all__ = (
    "Others",
    "echo",
    "echo_async",
    "get_and_tell",
    "get_async_and_tell",
    "heard",
    "kill",
    "listen",
    "put_and_tell",
    "put_and_vanish",
    "put_async_and_tell",
)

# ---------------------------------------------------------------- what they do


def echo(queue: Queue, back: Queue) -> None:
    """Put what is got into the other queue, and close that at the end."""
    with back:
        while True:
            try:
                item = queue.get_sync()
            except QueueClosedError:
                return
            back.put_sync(item)
            queue.task_done()


def echo_async(queue: Queue, back: Queue) -> None:
    """Do the same on an event loop."""

    async def main() -> None:
        async with back:
            async for item in queue:
                await back.put(item)
                queue.task_done()

    anyio.run(main)


def put_and_vanish(queue: Queue, numbers: range) -> None:
    """Put, and end without another word."""
    for number in numbers:
        queue.put_sync(number)
    os._exit(0)


def get_and_tell(queue: Queue, tell: Connection) -> None:
    """Tell what was got, until killed."""
    tell.send("ready")
    while True:
        tell.send(queue.get_sync())


def get_async_and_tell(queue: Queue, tell: Connection) -> None:
    """Do the same on an event loop."""

    async def main() -> None:
        tell.send("ready")
        while True:
            tell.send(await queue.get())

    anyio.run(main)


def put_and_tell(queue: Queue, tell: Connection) -> None:
    """Put pairs of the process's id and a number, some of them large, and tell what was put, until killed."""
    tell.send("ready")
    for number in range(1_000_000):
        queue.put_sync((os.getpid(), number, b"x" * (100_000 if number % 50 == 7 else 7)))
        tell.send((os.getpid(), number))


def put_async_and_tell(queue: Queue, tell: Connection) -> None:
    """Put numbers on an event loop."""

    async def main() -> None:
        tell.send("ready")
        for number in range(1_000_000):
            await queue.put(number)
            tell.send(number)

    anyio.run(main)


# ---------------------------------------------------------------- starting and killing them


class Others:
    """Processes that are started afresh, and killed."""

    def __init__(self, method: str) -> None:
        self._processes: Any = multiprocessing.get_context(method)
        self._started: list[Any] = []

    @classmethod
    @contextmanager
    def started(cls, method: str = "spawn") -> Iterator[Others]:
        """Give a way to start them; none is left at the end."""
        others = cls(method)
        try:
            yield others
        finally:
            for process in others._started:
                process.kill()
                process.join()
                process.close()

    def run(self, work: Callable[..., None], *arguments: Any) -> Any:
        """Start one."""
        process = self._processes.Process(target=work, args=arguments, daemon=True)
        process.start()
        self._started.append(process)
        return process

    def talking(self, work: Callable[..., None], queue: Queue) -> tuple[Any, Connection]:
        """Start one that tells what it does; return it, and where it is heard."""
        hear, tell = self._processes.Pipe(duplex=False)
        process = self.run(work, queue, tell)
        tell.close()
        return process, hear


def kill(process: Any) -> None:
    """Kill it, and wait until it is dead."""
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def heard(hear: Connection, patience: float) -> Any:
    """Return what is told next."""
    assert hear.poll(patience), "the process tells nothing"
    return hear.recv()


def listen(getters: list[Connection], putters: list[Connection]) -> tuple[list[Any], list[Any]]:
    """Return what all of them tell until the last is dead: what was got, and what was put."""
    got: list[Any] = []
    put: list[Any] = []
    into = {**dict.fromkeys(getters, got), **dict.fromkeys(putters, put)}
    while into:
        for hear in wait([*into]):
            assert isinstance(hear, Connection)
            try:
                into[hear].append(hear.recv()[:2])
            except (EOFError, OSError):
                del into[hear]
                hear.close()
    return got, put
