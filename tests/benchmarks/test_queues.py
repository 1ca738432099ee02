"""What a queue costs: beside asyncio's and anyio's in one process, beside multiprocessing's between two."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest

from dpcore_plugins import MemoryQueue, MultiprocessQueue

SIZE = 1024
ITEM = {"id": 7, "topic": "orders.eu.paid", "amount": 12.5}


async def through(put: Callable[[Any], Awaitable[Any]], get: Callable[[], Awaitable[Any]], count: int) -> int:
    """Put from one task, get in another; return how many were got."""
    got = 0

    async def produce() -> None:
        for number in range(count):
            await put(number)

    async with anyio.create_task_group() as group:
        group.start_soon(produce)
        for _ in range(count):
            await get()
            got += 1
    return got


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("than", ["asyncio.Queue", "anyio memory stream"])
def test_one_task_puts_and_another_gets(backend: str, than: str, side_by_side: Any) -> None:
    # Of asyncio.Queue there is no other: that row says how far apart the loops are.
    than_runs_on = "asyncio" if than == "asyncio.Queue" else backend
    count = side_by_side.size(20_000, 100)

    async def ours() -> int:
        queue = MemoryQueue(size=SIZE)
        return await through(queue.put, queue.get, count)

    async def theirs() -> int:
        if than == "asyncio.Queue":
            queue: asyncio.Queue[int] = asyncio.Queue(SIZE)
            return await through(queue.put, queue.get, count)
        send, receive = anyio.create_memory_object_stream[int](SIZE)
        with send, receive:
            return await through(send.send, receive.receive, count)

    budget = 1.0 if backend == "asyncio" else None
    one, other = side_by_side.time(
        f"memory queue, a put and a get, {backend}",
        lambda: anyio.run(ours, backend=backend), lambda: anyio.run(theirs, backend=than_runs_on),
        than=than, per=count, budget=budget,
    )  # fmt: skip
    assert one == other == count


def test_a_thread_puts_and_a_task_gets(side_by_side: Any) -> None:
    """Beside an unbounded asyncio.Queue that a thread fills by call_soon_threadsafe, as one would write it."""
    count = side_by_side.size(20_000, 100)

    async def ours() -> int:
        queue = MemoryQueue(size=SIZE)

        def fill() -> None:
            for number in range(count):
                queue.put_sync(number)

        return await got_from(fill, queue.get)

    async def theirs() -> int:
        queue: asyncio.Queue[int] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def fill() -> None:
            for number in range(count):
                loop.call_soon_threadsafe(queue.put_nowait, number)

        return await got_from(fill, queue.get)

    async def got_from(fill: Callable[[], None], get: Callable[[], Awaitable[int]]) -> int:
        thread = threading.Thread(target=fill)
        thread.start()
        numbers = [await get() for _ in range(count)]
        thread.join()
        return len(numbers)

    one, other = side_by_side.time(
        "memory queue, a thread puts and a task gets", lambda: asyncio.run(ours()), lambda: asyncio.run(theirs()),
        than="call_soon_threadsafe", per=count, clock="wall",
    )  # fmt: skip
    assert one == other == count


# ---------------------------------------------------------------- between processes


def feed(queue: Any, orders: Any) -> None:
    put = getattr(queue, "put_sync", queue.put)
    while (count := orders.recv()) is not None:
        for _ in range(count):
            put(ITEM)


@contextmanager
def fed(queue: Any) -> Iterator[Callable[[int], int]]:
    """Have another process put as many items as it is told; give what tells it, and gets them."""
    spawn = multiprocessing.get_context("spawn")
    hear, tell = spawn.Pipe(duplex=False)
    process = spawn.Process(target=feed, args=(queue, hear), daemon=True)
    process.start()
    get = getattr(queue, "get_sync", queue.get)

    def got(count: int) -> int:
        tell.send(count)
        return len([get() for _ in range(count)])

    got(1)  # it has started
    try:
        yield got
    finally:
        tell.send(None)
        process.join()
        hear.close()
        tell.close()


def test_another_process_puts_one_by_one(side_by_side: Any) -> None:
    count = side_by_side.size(20_000, 100)
    theirs = multiprocessing.get_context("spawn").Queue(SIZE)
    with fed(MultiprocessQueue(size=SIZE)) as ours_got, fed(theirs) as theirs_got:
        one, other = side_by_side.time(
            "multiprocess queue, put there and got here", lambda: ours_got(count), lambda: theirs_got(count),
            than="multiprocessing.Queue", per=count, budget=0.5, clock="wall",
        )  # fmt: skip
    theirs.close()
    theirs.join_thread()
    assert one == other == count


def test_an_item_there_and_back(side_by_side: Any) -> None:
    """One at a time: what it takes to wake the other side, twice."""
    count = side_by_side.size(1000, 20)
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = [MultiprocessQueue(size=SIZE) for _ in range(2)], [spawn.Queue(SIZE) for _ in range(2)]
    processes = [spawn.Process(target=answer, args=pair, daemon=True) for pair in (ours, theirs)]
    for process in processes:
        process.start()

    def asked(there: Any, back: Any) -> int:
        put, get = getattr(there, "put_sync", there.put), getattr(back, "get_sync", back.get)
        for number in range(count):
            put(number)
            assert get() == number
        return count

    asked(*ours)
    asked(*theirs)
    side_by_side.time(
        "multiprocess queue, there and back", lambda: asked(*ours), lambda: asked(*theirs),
        than="multiprocessing.Queue", per=count, clock="wall",
    )  # fmt: skip
    for pair, process in zip((ours, theirs), processes, strict=True):
        getattr(pair[0], "put_sync", pair[0].put)(None)
        process.join()
    for queue in theirs:
        queue.close()
        queue.join_thread()


def answer(there: Any, back: Any) -> None:
    get, put = getattr(there, "get_sync", there.get), getattr(back, "put_sync", back.put)
    while (item := get()) is not None:
        put(item)
