"""What an event costs between processes: beside a socket and msgspec as one would write it by hand, and beside queues.

The publisher is this process, the hub one of its own, and each reader one more; events are of about 100 bytes, built,
stamped and encoded here, and decoded there.  Making processes is not timed.
"""

from __future__ import annotations

import multiprocessing
import socket
import struct
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from time import time
from typing import Any

import anyio
import msgspec
import pytest
from anyio.from_thread import BlockingPortal

from dpcore import Event
from dpcore_plugins import MultiprocessBroker
from tests.benchmarks.processes import BATCH, DATA, SPAWN, TOPIC, another, ordered, read, serve

# ---------------------------------------------------------------- other processes


def share(told: Any, path: str) -> None:
    """Read as a member of a group, and say how many each list has, until it is told to end."""

    async def tell(events: Any) -> None:
        told.send(0)
        async for batch in events.batches(BATCH):
            told.send(len(batch))

    async def work() -> None:
        async with (
            MultiprocessBroker(path, serve=False, drain=0) as broker,
            broker.consume("orders.**") as events,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(tell, events)
            await anyio.to_thread.run_sync(told.recv)
            tasks.cancel_scope.cancel()

    anyio.run(work)


def read_by_hand(told: Any, connection: socket.socket) -> None:
    decode = msgspec.msgpack.Decoder(list[Event]).decode
    with connection, connection.makefile("rb", 1 << 18) as stream:
        told.send(None)
        while (wanted := told.recv()) is not None:
            while wanted > 0:
                (size,) = struct.unpack(">I", stream.read(4))
                wanted -= len(decode(stream.read(size)))
            told.send(None)


def answer(told: Any, connection: socket.socket) -> None:
    with connection:
        told.send(None)
        while said := connection.recv(1000):
            connection.sendall(said)


def take(told: Any, queue: Any) -> None:
    told.send(None)
    while (wanted := told.recv()) is not None:
        for _ in range(wanted):
            queue.get()
        told.send(None)


# ---------------------------------------------------------------- what is measured


@pytest.mark.parametrize(("than", "budget"), [("socketpair, batches of 256", 2.0), ("multiprocessing.Queue", 0.2)])
@pytest.mark.parametrize("group", [None, "default"])
def test_batches_from_one_process_to_another(
    group: str | None, than: str, budget: float, portal: BlockingPortal, broker: MultiprocessBroker, side_by_side: Any
) -> None:
    batches = side_by_side.size(100, 4)
    events = batches * BATCH
    numbers = count()

    async def publish() -> None:
        for _ in range(batches):
            await broker.publish_many(TOPIC, [DATA] * BATCH)

    def write_by_hand(connection: socket.socket) -> None:
        encode = msgspec.msgpack.Encoder().encode
        for _ in range(batches):
            made = [Event(TOPIC, DATA, str(next(numbers)), time(), broker.source) for _ in range(BATCH)]
            body = encode(made)
            connection.sendall(struct.pack(">I", len(body)) + body)

    def put(queue: Any) -> None:
        for _ in range(batches * BATCH // 16):
            queue.put(DATA)

    with ExitStack() as stack:
        ours = stack.enter_context(another(read, broker._path, group))
        if "Queue" in than:
            queue = SPAWN.Queue(1024)
            theirs = stack.enter_context(another(take, queue))
            fewer = batches * BATCH // 16
            other = lambda: ordered(theirs, fewer, lambda: put(queue))  # noqa: E731
        else:
            mine, given = socket.socketpair()
            stack.enter_context(mine)
            theirs = stack.enter_context(another(read_by_hand, given))
            given.close()
            fewer = events
            other = lambda: ordered(theirs, events, lambda: write_by_hand(mine))  # noqa: E731
        one, _ = side_by_side.time(
            f"to another process, batches of 256{', in a group' if group else ''}",
            lambda: ordered(ours, events, lambda: portal.call(publish)), other,
            than=than, per=events, per_theirs=fewer, budget=budget if group is None else None, clock="wall",
        )  # fmt: skip
    assert one == events


def test_one_publish_that_is_confirmed(portal: BlockingPortal, broker: MultiprocessBroker, side_by_side: Any) -> None:
    times = side_by_side.size(300, 5)

    async def publish() -> int:
        for _ in range(times):
            await broker.publish(TOPIC, DATA)
        return times

    mine, given = socket.socketpair()
    with mine, another(answer, given):
        given.close()

        def there_and_back() -> int:
            for _ in range(times):
                mine.sendall(msgspec.msgpack.encode(DATA))
                mine.recv(1000)
            return times

        one, other = side_by_side.time(
            "to another process, one publish confirmed", lambda: portal.call(publish), there_and_back,
            than="socketpair there and back", per=times, clock="wall",
        )  # fmt: skip
        mine.shutdown(socket.SHUT_RDWR)
    assert one == other == times


def test_one_publish_that_is_confirmed_beside_groups_that_it_is_not_for(
    portal: BlockingPortal, broker: MultiprocessBroker, side_by_side: Any, tmp_path: Path
) -> None:
    times = side_by_side.size(300, 5)
    groups = side_by_side.size(1000, 5)

    async def declare() -> None:
        for number in range(groups):
            await broker.declare(f"queues.{number}", groups=[f"group-{number}"])

    async def publish(where: MultiprocessBroker) -> int:
        for _ in range(times):
            await where.publish(TOPIC, DATA)
        return times

    portal.call(declare)
    path = str(tmp_path / "empty")
    with (
        another(serve, path),
        portal.wrap_async_context_manager(MultiprocessBroker(path, serve=False)) as empty,
    ):
        one, other = side_by_side.time(
            f"to another process, one publish confirmed, beside {groups:,} groups",
            lambda: portal.call(publish, broker), lambda: portal.call(publish, empty),
            than="no groups", per=times, budget=1.3, clock="wall",
        )  # fmt: skip
    assert one == other == times


def test_four_processes_share_the_work(portal: BlockingPortal, broker: MultiprocessBroker, side_by_side: Any) -> None:
    events = side_by_side.size(10_000, 200)
    fewer = events // 5

    async def publish() -> None:
        for _ in range(events // 200):
            await broker.publish_many(TOPIC, [DATA] * 200)

    with ExitStack() as stack:
        ours = [stack.enter_context(another(share, broker._path)) for _ in range(4)]
        queue = SPAWN.Queue(1024)
        theirs = [stack.enter_context(another(take, queue)) for _ in range(4)]

        def shared() -> int:
            portal.call(publish)
            read = 0
            while read < events:
                read += sum(told.recv() for told in multiprocessing.connection.wait(ours))
            return read

        def taken() -> int:
            for told in theirs:
                told.send(fewer // 4)
            for _ in range(fewer // 4 * 4):
                queue.put(DATA)
            for told in theirs:
                told.recv()
            return fewer

        one, _ = side_by_side.time(
            "to a group of four processes, batches of 200", shared, taken,
            than="multiprocessing.Queue", per=events, per_theirs=fewer, clock="wall",
        )  # fmt: skip
    assert one == events
