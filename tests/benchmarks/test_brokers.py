"""What an event costs from who publishes it to who reads it, within one process: beside queues, and beside other buses.

Every event is built, given its id, time and source, routed, and touched by each reader; where nothing else is said a
reader has room for 1,024 events, and whoever publishes more waits.  What the others pass is there before: the same
object each time, or an event that was built when nobody measured.  Making brokers and loops is not timed.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest

from dpcore import App, Event, Plugins, Registry
from dpcore_plugins import MemoryBroker

ROOM = 1_024
BATCH = 256
TOPIC = "orders.eu.paid"
TOPICS = [f"orders.{country}.paid" for country in ("at", "be", "de", "dk", "es", "fi", "fr", "ie", "it", "nl")]

Publish = Callable[[Any], Awaitable[Any]]
Read = Callable[[Any], Awaitable[int]]


def total(count: int) -> int:
    return count * (count - 1) // 2


def ready(count: int) -> list[Event]:
    """Return events that are as they would be read."""
    return [Event(TOPIC, number, str(number), 1.0, "shop") for number in range(count)]


@pytest.fixture
def on(watch: Any) -> Callable[..., Any]:
    """Run a coroutine function on an event loop; it is told the clock, which goes only where it says."""

    def run(backend: str, main: Callable[..., Awaitable[Any]], *arguments: Any, **named: Any) -> Any:
        return anyio.run(partial(main, watch, *arguments, **named), backend=backend)

    return run


# ---------------------------------------------------------------- dpcore's side


async def carried(
    watch: Any, publish: Publish, read: Read, *patterns: str, readers: int = 1, through: Any = None, **reading: Any
) -> int:
    """Publish while *readers* read; return the sum of what they have read."""
    sums = []
    async with AsyncExitStack() as entered:
        broker = await entered.enter_async_context((through or MemoryBroker)())
        settings = {"buffer": ROOM, "overflow": "block", **reading}
        subscriptions = [
            await entered.enter_async_context(broker.subscribe(*(patterns or [TOPIC]), **settings))
            for _ in range(readers)
        ]

        async def add(subscription: Any) -> None:
            sums.append(await read(subscription))

        with watch.going():
            async with anyio.create_task_group() as group:
                for subscription in subscriptions:
                    group.start_soon(add, subscription)
                await publish(broker)
    return sum(sums)


def one_by_one(count: int) -> Publish:
    async def publishing(broker: Any) -> None:
        publish = broker.publish
        for number in range(count):
            await publish(TOPIC, number)
        await broker.complete(TOPIC)

    return publishing


def in_batches_of(size: int, count: int) -> Publish:
    async def publishing(broker: Any) -> None:
        for first in range(0, count, size):
            await broker.publish_many(TOPIC, range(first, min(first + size, count)))
        await broker.complete(TOPIC)

    return publishing


async def as_stream(events: Any) -> int:
    found = 0
    async for event in events:
        found += event.data
    return found


async def as_batches(events: Any) -> int:
    found = 0
    async for some in events.batches(BATCH):
        for event in some:
            found += event.data
    return found


@asynccontextmanager
async def open_app() -> AsyncIterator[App]:
    async with App(Registry(), plugins=Plugins(installed=False)) as app:
        await app.broker()
        yield app


# ---------------------------------------------------------------- queues' side


async def through_queue(watch: Any, events: list[Event]) -> int:
    queue: asyncio.Queue[Event] = asyncio.Queue(ROOM)
    return await put_and_got(watch, events, queue.put, queue.get)


async def through_stream(watch: Any, events: list[Event]) -> int:
    send, receive = anyio.create_memory_object_stream[Event](ROOM)
    with send, receive:
        return await put_and_got(watch, events, send.send, receive.receive)


async def put_and_got(
    watch: Any, events: list[Event], put: Callable[[Event], Awaitable[Any]], get: Callable[[], Awaitable[Event]]
) -> int:
    async def produce() -> None:
        for event in events:
            await put(event)

    found = 0
    with watch.going():
        async with anyio.create_task_group() as group:
            group.start_soon(produce)
            for _ in range(len(events)):
                event = await get()
                found += event.data
    return found


async def through_queues(watch: Any, events: list[Event], readers: int) -> int:
    """Put each event into the queue of each reader, as one would write it."""
    queues: list[asyncio.Queue[Event]] = [asyncio.Queue(ROOM) for _ in range(readers)]
    sums = []

    async def read(queue: asyncio.Queue[Event]) -> None:
        found = 0
        for _ in range(len(events)):
            event = await queue.get()
            found += event.data
        sums.append(found)

    with watch.going():
        async with anyio.create_task_group() as group:
            for queue in queues:
                group.start_soon(read, queue)
            for event in events:
                for queue in queues:
                    await queue.put(event)
    return sum(sums)


async def shared_queue(watch: Any, events: list[Event], members: int) -> int:
    """Have *members* get from one queue, and say that each item is done."""
    queue: asyncio.Queue[Event | None] = asyncio.Queue(ROOM)
    sums = []

    async def work() -> None:
        found = 0
        while (event := await queue.get()) is not None:
            found += event.data
            queue.task_done()
        sums.append(found)

    with watch.going():
        async with anyio.create_task_group() as group:
            for _ in range(members):
                group.start_soon(work)
            for event in (*events, *[None] * members):
                await queue.put(event)
    return sum(sums)


# ---------------------------------------------------------------- one publishes, one reads


@pytest.mark.parametrize("way", ["a broker", "an App"])
def test_a_stream_of_events_is_as_fast_as_a_queue_of_ready_objects(way: str, on: Any, side_by_side: Any) -> None:
    count = side_by_side.size(20_000, 600)
    events, through = ready(count), open_app if way == "an App" else None
    ours, theirs = side_by_side.time(
        f"an event published and read, through {way}",
        lambda: on("asyncio", carried, one_by_one(count), as_stream, through=through),
        lambda: on("asyncio", through_queue, events),
        than="asyncio.Queue, ready objects", budget=1.0, per=count, partly=True,
    )  # fmt: skip
    assert ours == theirs == total(count)


def test_batches_of_events_are_faster_than_a_queue_of_ready_objects(on: Any, side_by_side: Any) -> None:
    count = side_by_side.size(50_000, 600)
    events = ready(count)
    ours, theirs = side_by_side.time(
        f"an event published and read, in batches of {BATCH}",
        lambda: on("asyncio", carried, in_batches_of(BATCH, count), as_batches),
        lambda: on("asyncio", through_queue, events),
        than="asyncio.Queue, ready objects", budget=1 / 3.5, per=count, partly=True,
    )  # fmt: skip
    assert ours == theirs == total(count)


@pytest.mark.parametrize("way", ["one by one", f"in batches of {BATCH}"])
def test_trio_takes_at_most_twice_as_long_as_asyncio(way: str, on: Any, side_by_side: Any) -> None:
    count = side_by_side.size(20_000, 600)
    publish, read = (one_by_one(count), as_stream) if way == "one by one" else (in_batches_of(BATCH, count), as_batches)
    ours, theirs = side_by_side.time(
        f"an event published and read, {way}, trio",
        lambda: on("trio", carried, publish, read), lambda: on("asyncio", carried, publish, read),
        than="dpcore, asyncio", budget=2.0, per=count, partly=True,
    )  # fmt: skip
    assert ours == theirs == total(count)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_stream_of_events_beside_a_stream_of_ready_objects(backend: str, on: Any, side_by_side: Any) -> None:
    count = side_by_side.size(10_000, 600)
    events = ready(count)
    ours, theirs = side_by_side.time(
        f"an event published and read, {backend}",
        lambda: on(backend, carried, one_by_one(count), as_stream), lambda: on(backend, through_stream, events),
        than="anyio memory stream, ready objects", per=count, partly=True,
    )  # fmt: skip
    assert ours == theirs == total(count)


# ---------------------------------------------------------------- beside other buses


def blinker_signals(readers: int) -> tuple[Any, list[int]]:
    """Return a signal that calls *readers* functions, and where they add what they are told."""
    blinker = pytest.importorskip("blinker", reason="blinker is not installed")
    signal, sums = blinker.Signal(), [0] * readers

    def reader(place: int) -> Callable[[Any, int], None]:
        def add(sender: Any, number: int) -> None:
            sums[place] += number

        return add

    for place in range(readers):
        signal.connect(reader(place), weak=False)
    return signal, sums


@pytest.mark.parametrize("readers", [1, 10])
def test_beside_blinker_which_calls_functions(readers: int, watch: Any, on: Any, side_by_side: Any) -> None:
    """It waits for nothing and keeps nothing: who publishes calls who is told."""
    count = side_by_side.size(10_000, 600)

    def theirs() -> int:
        signal, sums = blinker_signals(readers)
        with watch.going():
            for number in range(count):
                signal.send(TOPIC, number=number)
        return sum(sums)

    one, other = side_by_side.time(
        f"an event published, {readers} read it",
        lambda: on("asyncio", carried, one_by_one(count), as_stream, readers=readers), theirs,
        than="blinker, functions called", per=count * readers, partly=True,
    )  # fmt: skip
    assert one == other == readers * total(count)


def over_topics(count: int) -> Publish:
    async def publishing(broker: Any) -> None:
        for number in range(0, count, len(TOPICS)):
            for place, topic in enumerate(TOPICS):
                await broker.publish(topic, number + place)

    return publishing


def until(last: int) -> Read:
    """Read until the event that is known to be the last: what is read by a wildcard is never complete."""

    async def reading(events: Any) -> int:
        found = 0
        async for event in events:
            found += event.data
            if event.data == last:
                break
        return found

    return reading


def test_ten_topics_and_a_reader_by_wildcard_beside_aiopubsub(on: Any, side_by_side: Any) -> None:
    aiopubsub = pytest.importorskip("aiopubsub", reason="aiopubsub is not installed")
    count = side_by_side.size(10_000, 600)

    async def theirs(watch: Any) -> int:
        hub = aiopubsub.Hub()
        subscriber = aiopubsub.Subscriber(hub, "reader")
        subscriber.subscribe(aiopubsub.Key("orders", "*", "paid"))
        publisher = aiopubsub.Publisher(hub, prefix=aiopubsub.Key("orders"))
        keys = [aiopubsub.Key(*topic.split(".")[1:]) for topic in TOPICS]
        found = 0
        with watch.going():
            for number in range(0, count, len(keys)):
                for place, key in enumerate(keys):
                    publisher.publish(key, number + place)
            for _ in range(count):
                _, number = await subscriber.consume()
                found += number
        return found

    one, other = side_by_side.time(
        "10 topics, one reader by a wildcard",
        lambda: on("asyncio", carried, over_topics(count), until(count - 1), "orders.*.paid"),
        lambda: on("asyncio", theirs),
        than="aiopubsub, unbounded", per=count, partly=True,
    )  # fmt: skip
    assert one == other == total(count)


def test_ten_topics_and_a_reader_by_wildcard_beside_a_queue(on: Any, side_by_side: Any) -> None:
    count = side_by_side.size(20_000, 600)
    events = ready(count)
    ours, theirs = side_by_side.time(
        "10 topics, one reader by a wildcard",
        lambda: on("asyncio", carried, over_topics(count), until(count - 1), "orders.*.paid"),
        lambda: on("asyncio", through_queue, events),
        than="asyncio.Queue, ready objects", per=count, partly=True,
    )  # fmt: skip
    assert ours == theirs == total(count)


def test_beside_bubus(on: Any, side_by_side: Any) -> None:
    bubus = pytest.importorskip("bubus", reason="bubus is not installed")
    count, fewer = side_by_side.size(10_000, 100), side_by_side.size(100, 10)
    order_paid = type("OrderPaid", (bubus.BaseEvent,), {"__annotations__": {"number": int}})

    async def theirs(watch: Any) -> int:
        bus, numbers = bubus.EventBus(max_history_size=None), []
        bus.on(order_paid, lambda event: numbers.append(event.number))
        with watch.going():
            for number in range(fewer):
                bus.dispatch(order_paid(number=number))
            await bus.wait_until_idle()
        await bus.stop()
        return sum(numbers)

    one, other = side_by_side.time(
        "an event published and read",
        lambda: on("asyncio", carried, one_by_one(count), as_stream), lambda: on("asyncio", theirs),
        than="bubus, functions called", per=count, per_theirs=fewer, partly=True,
    )  # fmt: skip
    assert (one, other) == (total(count), total(fewer))


# ---------------------------------------------------------------- one publishes, many read


@pytest.mark.parametrize("readers", [10, 100])
@pytest.mark.parametrize("way", ["one by one", "read in batches", "in batches"])
def test_all_readers_get_each_event(way: str, readers: int, on: Any, side_by_side: Any) -> None:
    count = side_by_side.size(20_000, 600) * 10 // readers // 4
    events = ready(count)
    publish = in_batches_of(BATCH, count) if way == "in batches" else one_by_one(count)
    read = as_stream if way == "one by one" else as_batches
    budget = {"one by one": 1 / 4, "read in batches": 1 / 6, "in batches": 1 / 6}[way]
    ours, theirs = side_by_side.time(
        f"{readers} readers of one topic, {way}",
        lambda: on("asyncio", carried, publish, read, readers=readers),
        lambda: on("asyncio", through_queues, events, readers),
        than="an asyncio.Queue each, ready objects", budget=budget if readers == 10 else None,
        per=count * readers, partly=True,
    )  # fmt: skip
    assert ours == theirs == readers * total(count)


# ---------------------------------------------------------------- groups


@pytest.mark.parametrize("members", [1, 10])
@pytest.mark.parametrize("way", ["one by one", "in batches"])
def test_a_group_shares_the_events(way: str, members: int, on: Any, side_by_side: Any) -> None:
    """Each event is kept until it is acked."""
    count = side_by_side.size(20_000, 600)
    events = ready(count)
    publish, read = (one_by_one(count), as_stream) if way == "one by one" else (in_batches_of(BATCH, count), as_batches)
    ours, theirs = side_by_side.time(
        f"a group of {members}, {way}, acked",
        lambda: on("asyncio", carried, publish, read, readers=members, group="work"),
        lambda: on("asyncio", shared_queue, events, members),
        than="asyncio.Queue and task_done", per=count, partly=True,
    )  # fmt: skip
    assert ours == theirs == total(count)


def test_a_group_keeps_the_order_of_each_key(on: Any, side_by_side: Any) -> None:
    """Beside one queue for each member, to which a key always goes: there a slow member holds up others' keys."""
    count, members = side_by_side.size(20_000, 600), 10
    keys = [f"customer-{number}" for number in range(100)]

    async def publish(broker: Any) -> None:
        for number in range(count):
            await broker.publish(TOPIC, number, key=keys[number % 100])
        await broker.complete(TOPIC)

    async def theirs(watch: Any) -> int:
        queues: list[asyncio.Queue[int | None]] = [asyncio.Queue(ROOM) for _ in range(members)]
        sums = []

        async def work(queue: asyncio.Queue[int | None]) -> None:
            found = 0
            while (number := await queue.get()) is not None:
                found += number
                queue.task_done()
            sums.append(found)

        with watch.going():
            async with anyio.create_task_group() as group:
                for queue in queues:
                    group.start_soon(work, queue)
                for number in range(count):
                    await queues[hash(keys[number % 100]) % members].put(number)
                for queue in queues:
                    await queue.put(None)
        return sum(sums)

    one, other = side_by_side.time(
        f"a group of {members}, 100 keys in order, acked",
        lambda: on("asyncio", carried, publish, as_stream, readers=members, group="work"),
        lambda: on("asyncio", theirs),
        than="an asyncio.Queue each, by key", per=count, partly=True,
    )  # fmt: skip
    assert one == other == total(count)


# ---------------------------------------------------------------- from threads


def test_a_thread_publishes_and_a_task_reads(on: Any, side_by_side: Any) -> None:
    """Beside an unbounded queue, as one would write it: call_soon_threadsafe does not wait."""
    count = side_by_side.size(20_000, 600)

    async def publish(broker: Any) -> None:
        def fill() -> None:
            for number in range(count):
                broker.publish_from_thread(TOPIC, number)

        thread = threading.Thread(target=fill)
        thread.start()
        await anyio.to_thread.run_sync(thread.join)

    async def theirs(watch: Any) -> int:
        queue: asyncio.Queue[int] = asyncio.Queue()
        loop, found = asyncio.get_running_loop(), 0

        def fill() -> None:
            for number in range(count):
                loop.call_soon_threadsafe(queue.put_nowait, number)

        with watch.going():
            thread = threading.Thread(target=fill)
            thread.start()
            for _ in range(count):
                found += await queue.get()
            thread.join()
        return found

    one, other = side_by_side.time(
        "a thread publishes, a task reads",
        lambda: on("asyncio", carried, publish, until(count - 1)), lambda: on("asyncio", theirs),
        than="call_soon_threadsafe, asyncio.Queue", per=count, partly=True, clock="wall",
    )  # fmt: skip
    assert one == other == total(count)
