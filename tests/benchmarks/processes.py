"""What runs in other processes while something is measured between them: the hub, its readers, and how they are begun and ended."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import anyio

from dpcore_plugins import MultiprocessBroker

BATCH = 256
SPAWN = multiprocessing.get_context("spawn")
TOPIC = "orders.eu.paid"
DATA = {"id": 7, "country": "eu", "paid": True, "amount": 12.5}
"""With the rest of its event, about 100 bytes."""


@contextmanager
def another(work: Callable[..., None], *arguments: Any) -> Iterator[Any]:
    """Have another process do *work*; give the pipe to it once it is ready."""
    here, there = SPAWN.Pipe()
    process = SPAWN.Process(target=work, args=(there, *arguments), daemon=True)
    process.start()
    there.close()
    here.recv()
    try:
        yield here
    finally:
        with suppress(OSError):
            here.send(None)
        process.join(5)
        process.kill()
        process.join()
        here.close()


def serve(told: Any, path: str) -> None:
    async def stay() -> None:
        async with MultiprocessBroker(path, serve=True, drain=0):
            told.send(None)
            await anyio.to_thread.run_sync(told.recv)

    anyio.run(stay)


def read(told: Any, path: str, group: str | None) -> None:
    """Read as many events as it is told, and say so, until it is told None."""

    async def work() -> None:
        async with (
            MultiprocessBroker(path, serve=False, drain=0) as broker,
            broker.subscribe("orders.**", group=group, buffer=8192, overflow="block") as events,
        ):
            batches = events.batches(1024)
            told.send(None)
            while (wanted := await anyio.to_thread.run_sync(told.recv)) is not None:
                while wanted > 0:
                    wanted -= len(await anext(batches))
                told.send(None)

    anyio.run(work)


def ordered(told: Any, wanted: int, publish: Callable[[], Any]) -> int:
    """Publish, and wait until the reader that is *told* has read as many as are *wanted*."""
    told.send(wanted)
    publish()
    told.recv()
    return wanted
