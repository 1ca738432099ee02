"""What it costs that subscriptions come and go, and what waits for one takes of memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from time import time
from typing import Any
from uuid import uuid4

import anyio
import pytest

from dpcore_plugins import MemoryBroker

TOPIC = "orders.eu.paid"
PATTERN = "orders.*.paid"


@pytest.fixture
def on_asyncio(watch: Any) -> Callable[..., Any]:
    """Run a coroutine function; it is told the clock, which goes only where it says."""

    def run(main: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        return anyio.run(main, watch, *arguments)

    return run


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize("group", [None, "work"])
def test_an_event_that_waits_takes_memory(group: str | None, side_by_side: Any) -> None:
    """The payload is not counted: one for all.  What is retained are the same events."""
    count, order = side_by_side.size(20_000, 600), {"id": 7, "amount": 12.5}

    async def ours() -> int:
        async with MemoryBroker(drain=0) as broker, broker.subscribe(TOPIC, group=group, buffer=count) as events:
            for _ in range(count):
                await broker.publish(TOPIC, order)
            return count - events.dropped

    async def theirs() -> int:
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for _ in range(count):
            queue.put_nowait({"topic": TOPIC, "data": order, "id": str(uuid4()), "time": time(), "source": "shop"})
        return queue.qsize()

    one, other = side_by_side.memory(
        f"memory of an event that waits{' in a group' if group else ''}",
        lambda: anyio.run(ours), lambda: anyio.run(theirs), than="a dict in an asyncio.Queue", per=count,
    )  # fmt: skip
    assert one == other == count


# ---------------------------------------------------------------- subscriptions that come and go


async def comes_and_goes(watch: Any, times: int, others: int) -> int:
    """Subscribe and leave, again and again, where *others* stay and as many topics are known."""
    async with MemoryBroker() as broker, AsyncExitStack() as entered:
        for number in range(others):
            await entered.enter_async_context(broker.subscribe(f"others.{number}.*"))
            await broker.publish(f"others.{number}.paid")
        with watch.going():
            for _ in range(times):
                async with broker.subscribe(PATTERN):
                    pass
    return times


def test_a_subscription_comes_and_goes_among_many_as_among_few(on_asyncio: Any, side_by_side: Any) -> None:
    times = side_by_side.size(1_000, 10)
    one, other = side_by_side.time(
        "a subscription comes and goes, 1,000 others",
        lambda: on_asyncio(comes_and_goes, times, 1_000), lambda: on_asyncio(comes_and_goes, times, 1),
        than="1 other", per=times, partly=True,
    )  # fmt: skip
    assert one == other == times


def test_a_subscription_comes_and_goes_beside_blinker(on_asyncio: Any, watch: Any, side_by_side: Any) -> None:
    blinker = pytest.importorskip("blinker", reason="blinker is not installed")
    times, others = side_by_side.size(1_000, 10), 100

    def theirs() -> int:
        signal, told = blinker.Signal(), []
        for _ in range(others):
            signal.connect(lambda sender: None, weak=False)
        with watch.going():
            for _ in range(times):
                signal.connect(told.append, weak=False)
                signal.disconnect(told.append)
        return times

    one, other = side_by_side.time(
        f"a subscription comes and goes, {others} others",
        lambda: on_asyncio(comes_and_goes, times, others), theirs, than="blinker", per=times, partly=True,
    )  # fmt: skip
    assert one == other == times


def test_a_subscription_comes_and_goes_beside_aiopubsub(on_asyncio: Any, side_by_side: Any) -> None:
    aiopubsub = pytest.importorskip("aiopubsub", reason="aiopubsub is not installed")
    times, others = side_by_side.size(1_000, 10), 100

    async def theirs(watch: Any) -> int:
        hub, key = aiopubsub.Hub(), aiopubsub.Key("orders", "*", "paid")
        for number in range(others):
            aiopubsub.Subscriber(hub, "other").subscribe(aiopubsub.Key("others", str(number), "*"))
            hub.publish(aiopubsub.Key("others", str(number), "paid"), None)
        with watch.going():
            for _ in range(times):
                subscriber = aiopubsub.Subscriber(hub, "reader")
                subscriber.subscribe(key)
                subscriber.unsubscribe(key)
        return times

    one, other = side_by_side.time(
        f"a subscription comes and goes, {others} others",
        lambda: on_asyncio(comes_and_goes, times, others), lambda: on_asyncio(theirs),
        than="aiopubsub", per=times, partly=True,
    )  # fmt: skip
    assert one == other == times


def test_events_are_published_while_subscriptions_come_and_go(on_asyncio: Any, side_by_side: Any) -> None:
    times = side_by_side.size(1_000, 10)

    async def published(watch: Any, *, churn: bool) -> int:
        async with MemoryBroker() as broker, AsyncExitStack() as entered:
            for number in range(1_000):
                await entered.enter_async_context(broker.subscribe(f"others.{number}.*"))
            with watch.going():
                for number in range(times):
                    if churn:
                        async with broker.subscribe(PATTERN):
                            pass
                    for _ in range(10):
                        await broker.publish(f"others.{number % 1_000}.paid")
        return times

    one, other = side_by_side.time(
        "an event published among 1,000 readers, one comes and goes with each tenth",
        lambda: on_asyncio(partial(published, churn=True)), lambda: on_asyncio(partial(published, churn=False)),
        than="none comes or goes", per=times * 10, partly=True,
    )  # fmt: skip
    assert one == other == times
