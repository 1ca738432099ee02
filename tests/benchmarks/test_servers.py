"""What an event costs between processes beside the servers that one would run instead: Redis pub/sub and NATS core.

The publisher is this process, the hub or the server one of its own, and the reader one more.  Events are of about 100
bytes, built, stamped and encoded here, and decoded there; each end of the others is written as its client is fastest.
Neither server keeps what it carries, and both drop what a slow reader leaves; the hub keeps the last 10,000, and the
publisher waits.  The hub listens on a Unix socket and the servers on the loopback, as each does unless it is told otherwise.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from time import time
from typing import Any

import anyio
import msgspec
import pytest
from anyio.from_thread import BlockingPortal

from dpcore import Event
from dpcore_plugins import MultiprocessBroker
from tests.benchmarks.processes import BATCH, DATA, TOPIC, another, ordered, read

Publish = Callable[[list[bytes]], Awaitable[None]]

# ---------------------------------------------------------------- their two ends


@asynccontextmanager
async def to_redis(port: int) -> AsyncIterator[Publish]:
    from redis.asyncio import Redis

    async with Redis(port=port) as client:

        async def publish(bodies: list[bytes]) -> None:
            if len(bodies) == 1:
                await client.publish(TOPIC, bodies[0])
                return
            pipeline = client.pipeline(transaction=False)
            for body in bodies:
                pipeline.publish(TOPIC, body)
            await pipeline.execute()

        yield publish


def read_redis(told: Any, port: int) -> None:
    from redis.asyncio import Redis

    decode = msgspec.msgpack.Decoder(Event).decode

    async def work() -> None:
        async with Redis(port=port) as client, client.pubsub() as subscription:
            await subscription.subscribe(TOPIC)
            messages = subscription.listen()
            assert (await anext(messages))["type"] == "subscribe"
            told.send(None)
            while (wanted := await anyio.to_thread.run_sync(told.recv)) is not None:
                for _ in range(wanted):
                    decode((await anext(messages))["data"])
                told.send(None)

    anyio.run(work)


@asynccontextmanager
async def to_nats(port: int) -> AsyncIterator[Publish]:
    import nats

    client = await nats.connect(f"nats://127.0.0.1:{port}")

    async def publish(bodies: list[bytes]) -> None:
        for body in bodies:
            await client.publish(TOPIC, body)
        await client.flush()

    yield publish
    await client.close()


def read_nats(told: Any, port: int) -> None:
    import nats

    decode = msgspec.msgpack.Decoder(Event).decode
    left = 0  # below zero while more has come than was asked for

    async def hear(message: Any) -> None:
        decode(message.data)
        less(1)

    def less(some: int) -> None:
        nonlocal left
        left -= some
        if left == 0:
            told.send(None)

    async def work() -> None:
        client = await nats.connect(f"nats://127.0.0.1:{port}")
        await client.subscribe(TOPIC, cb=hear)
        await client.flush()
        told.send(None)
        while (wanted := await anyio.to_thread.run_sync(told.recv)) is not None:
            less(-wanted)
        await client.close()

    anyio.run(work)


# ---------------------------------------------------------------- what is measured


@dataclass(frozen=True)
class Server:
    name: str
    reader: Any
    publish: Publish


@pytest.fixture(params=["redis-server", "nats-server"])
def server(request: pytest.FixtureRequest, portal: BlockingPortal, service: Any) -> Iterator[Server]:
    """A server, who reads from it in another process, and how this one publishes to it."""
    client, name, to, reading = {
        "redis-server": ("redis", "Redis pub/sub", to_redis, read_redis),
        "nats-server": ("nats", "NATS core", to_nats, read_nats),
    }[request.param]
    pytest.importorskip(client, reason=f"{client} is not installed")
    with (
        service(request.param) as port,
        another(reading, port) as reader,
        portal.wrap_async_context_manager(to(port)) as publish,
    ):
        yield Server(name, reader, publish)


@pytest.mark.parametrize("many", [BATCH, 1])
def test_beside_a_server(
    many: int, server: Server, portal: BlockingPortal, broker: MultiprocessBroker, side_by_side: Any
) -> None:
    times = side_by_side.size(100 if many == BATCH else 500, 3)
    events = times * many
    encode = msgspec.msgpack.Encoder().encode
    numbers = count()

    async def ours() -> None:
        for _ in range(times):
            if many == 1:
                await broker.publish(TOPIC, DATA)
            else:
                await broker.publish_many(TOPIC, [DATA] * many)

    async def theirs() -> None:
        for _ in range(times):
            made = [Event(TOPIC, DATA, str(next(numbers)), time(), broker.source) for _ in range(many)]
            await server.publish([encode(event) for event in made])

    with another(read, broker._path, None) as reader:
        one, other = side_by_side.time(
            f"to a reader in another process, {'each confirmed' if many == 1 else 'batches of 256'}",
            lambda: ordered(reader, events, lambda: portal.call(ours)),
            lambda: ordered(server.reader, events, lambda: portal.call(theirs)),
            than=server.name, per=events, clock="wall",
        )  # fmt: skip
    assert one == other == events
