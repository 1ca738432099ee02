"""The memory broker under the suite of its port, and what is particular to it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import anyio
import pytest
from anyio.lowlevel import checkpoint

from dpcore.errors import BrokerStateError, BufferFullError, DeadlockError, PublishTimeoutError, SubscriptionError
from dpcore.testing import BrokerConformance, FakeClock
from dpcore.testing.broker.common import elsewhere
from dpcore_plugins import MemoryBroker


class TestMemoryBroker(BrokerConformance):
    def make(self, tmp_path):
        return MemoryBroker()


class TestMemoryBrokerWithLittle(BrokerConformance):
    """With other settings than its own every promise is the same."""

    backends = ("asyncio",)
    retained = 50
    examples = 10
    cancellations = 100

    def make(self, tmp_path):
        return MemoryBroker(retain=50, total=200, max_deliveries=2)


pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


async def data(events, count):
    return [(await anext(events)).data for _ in range(count)]


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"retain": -1}, "retain=-1 must be at least 0"),
        ({"total": 0}, "total=0 must be at least 1"),
        ({"max_deliveries": 0}, "max_deliveries=0 must be at least 1"),
        ({"drain": -0.5}, "drain=-0.5 must be at least 0 seconds"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        MemoryBroker(**settings)


async def test_it_retains_as_much_as_it_is_told():
    async with MemoryBroker(retain=3, total=8) as broker:
        for topic in "abc":
            await broker.publish_many(topic, range(5))
        async with broker.subscribe("*", start="earliest") as events:
            found = [await anext(events) for _ in range(8)]
            assert [(event.topic, event.data) for event in found] == [
                *[("a", 3), ("a", 4)], *[("b", number) for number in (2, 3, 4)], *[("c", number) for number in (2, 3, 4)]
            ]  # fmt: skip


async def test_it_retains_nothing_where_it_is_told_so():
    async with MemoryBroker(retain=0) as broker:
        await broker.publish("t", 0)
        async with broker.subscribe("t", start="earliest") as events:
            await broker.publish("t", 1)
            assert await data(events, 1) == [1]


async def test_a_dead_letter_that_is_given_up_is_logged(caplog):
    async with MemoryBroker(max_deliveries=1) as broker, broker.consume("$dead.**", ack="manual") as dead:
        letter = await broker.publish("$dead.g.t", 1)
        await (await anext(dead.deliveries())).nack()
        await broker.publish("$dead.g.t", "last")
        last = await anext(dead.deliveries())
        assert last.event.data == "last"
        await last.ack()
    assert caplog.messages == [
        f"group 'default' has given up event {letter.id} of '$dead.g.t', a dead letter: it was delivered too often"
    ]


@pytest.mark.parametrize("most", [1, 2, 7])
async def test_an_event_is_delivered_as_often_as_it_is_told(most):
    async with (
        MemoryBroker(max_deliveries=most) as broker,
        broker.subscribe("$dead.**") as dead,
        broker.consume("t", ack="manual") as events,
    ):
        await broker.publish("t", 0)
        for attempt in range(1, most + 1):
            delivery = await anext(events.deliveries())
            assert delivery.attempt == attempt
            await delivery.nack()
        assert (await anext(dead)).headers["dead-letter-attempts"] == str(most)


# ---------------------------------------------------------------- what it passes on


async def test_it_passes_the_object_itself_and_a_copy_where_it_is_strict():
    for strict in (False, True):
        broker, payload = MemoryBroker(), {"list": [1]}
        broker.strict = strict
        async with broker, broker.subscribe("t") as events:
            await broker.publish("t", payload)
            (found,) = await data(events, 1)
            assert found == payload
            assert (found is payload) is not strict


async def test_events_have_the_time_of_its_clock():
    broker, clock = MemoryBroker(), FakeClock()
    broker.clock = clock
    async with broker:
        first = await broker.publish("t", 1)
        await clock.advance(90)
        second = await broker.publish("t", 2)
        assert first.when == clock.now() - timedelta(seconds=90)
        assert second.time - first.time == 90


@pytest.mark.parametrize(("overflow", "kept"), [("drop_oldest", [2, 3, 4]), ("drop_newest", [0, 1, 2])])
async def test_it_drops_exactly_the_oldest_or_the_newest(overflow, kept):
    async with (
        MemoryBroker() as broker,
        broker.subscribe("t", buffer=3, overflow=overflow) as alone,
        broker.consume("t", buffer=3, overflow=overflow) as member,
    ):
        await broker.publish_many("t", range(5))
        assert await data(alone, 3) == await data(member, 3) == kept
        assert alone.dropped == member.dropped == 2


async def test_what_is_nacked_comes_again_before_what_came_later():
    async with MemoryBroker() as broker, broker.consume("t", ack="manual") as events:
        await broker.publish_many("t", range(3))
        await (await anext(events.deliveries())).nack()
        assert [(await anext(events.deliveries())).event.data for _ in range(3)] == [0, 1, 2]


# ---------------------------------------------------------------- words


async def test_who_has_no_room_is_named():
    async with (
        MemoryBroker() as broker,
        broker.subscribe("t", "u", buffer=1, overflow="error"),
        broker.consume("work", group="billing", buffer=2, overflow="error"),
    ):
        await broker.publish("t", 0)
        with pytest.raises(BufferFullError) as alone:
            await broker.publish("t", 1)
        assert str(alone.value) == (
            "the event on 't' was not published: a subscription to 't | u' has no room for more than 1 event; "
            "read faster, give it a larger buffer=, or another overflow="
        )
        await broker.publish_many("work", range(2))
        with pytest.raises(BufferFullError, match="group 'billing' has no room for more than 2 events"):
            await broker.publish("work", 2)


@pytest.mark.parametrize(
    ("number", "note"),
    [
        (0, "of 10 events the first 3 were published, and none of those that follow"),
        (3, "none of 10 events was published"),
    ],
)
async def test_of_many_events_it_is_told_how_many_were_published(number, note):
    broker, seen = MemoryBroker(), []
    broker.on_published = [lambda event: seen.append(event.data)]
    async with broker, broker.subscribe("t", buffer=3, overflow="error") as events:
        await broker.publish_many("t", range(number))
        with pytest.raises(BufferFullError) as refused:
            await broker.publish_many("t", range(number, number + 10))
        assert refused.value.__notes__ == [note]
        assert await data(events, 3) == seen == [0, 1, 2]


async def test_those_who_watch_are_told_of_what_was_published_before_a_publisher_gave_up():
    broker, seen = MemoryBroker(), []
    broker.on_published = [lambda event: seen.append(event.data)]
    async with broker, broker.subscribe("t", buffer=3, overflow="block") as events:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(broker.publish_many, "t", range(10))
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        assert await data(events, 3) == seen == [0, 1, 2]
        with pytest.raises(PublishTimeoutError) as late:
            await elsewhere(broker.publish_many, "t", range(3, 10), timeout=0.01)
        assert late.value.__notes__ == ["of 7 events the first 3 were published, and none of those that follow"]
        assert seen == [0, 1, 2, 3, 4, 5]


async def test_a_deadlock_says_who_waits_for_whom_and_what_to_do():
    async with MemoryBroker() as broker, broker.subscribe("t", buffer=2, overflow="block") as events:
        await broker.publish_many("t", range(2))
        aiter(events)
        with pytest.raises(DeadlockError) as told:
            await broker.publish("t", 2)
        assert str(told.value) == (
            "publishing on 't' would wait for ever: a subscription to 't' holds 2 events, its most, and only the task that "
            "publishes reads there; publish from another task, give it a larger buffer=, or another overflow="
        )


async def test_two_tasks_that_wait_at_one_subscription_are_told():
    async with MemoryBroker() as broker:
        for events in (broker.subscribe("t"), broker.consume("t")):
            async with events, anyio.create_task_group() as tasks:
                tasks.start_soon(anext, events)
                await anyio.wait_all_tasks_blocked()
                with pytest.raises(SubscriptionError, match="is being read by another task; subscribe in each"):
                    await anext(events)
                tasks.cancel_scope.cancel()


# ---------------------------------------------------------------- event loops


def test_one_object_serves_one_event_loop_after_another_and_begins_with_nothing_each_time():
    broker = MemoryBroker()

    async def use(number):
        async with broker, broker.subscribe("t", start="earliest") as events:
            await broker.publish("t", number)
            return await data(events, 1)

    assert [anyio.run(use, number, backend=backend) for number, backend in enumerate(["asyncio", "trio"])] == [[0], [1]]


async def test_a_thread_with_an_event_loop_of_its_own_publishes_as_other_threads_do():
    async with MemoryBroker() as broker, broker.subscribe("t") as events:

        async def elsewhere():
            return broker.publish_from_thread("t", 1)

        with ThreadPoolExecutor(1) as thread:
            published = thread.submit(anyio.run, elsewhere)
            assert await anext(events) == published.result()


# ---------------------------------------------------------------- delays


async def test_a_shorter_delay_after_a_longer_one_is_heeded_though_nothing_has_waited_yet():
    broker, clock = MemoryBroker(), FakeClock()
    broker.clock = clock
    async with broker, broker.consume("t", ack="manual") as events:
        await broker.publish_many("t", ["long", "short"])
        deliveries = events.deliveries()
        await (await anext(deliveries)).nack(delay=3600)
        await (await anext(deliveries)).nack(delay=60)
        await clock.advance(60)
        delivery = await anext(deliveries)
        assert (delivery.event.data, delivery.attempt) == ("short", 2)
        await clock.advance(3540)
        delivery = await anext(deliveries)
        assert (delivery.event.data, delivery.attempt) == ("long", 2)


# ---------------------------------------------------------------- publishers that wait


async def test_a_publisher_that_finds_room_here_and_none_there_lets_the_next_one_have_it():
    async with (
        MemoryBroker() as broker,
        broker.subscribe("both", "one", buffer=1, overflow="block") as one,
        broker.subscribe("both", buffer=1, overflow="block"),
        anyio.create_task_group() as tasks,
    ):
        await broker.publish("both", 0)
        for topic in ("both", "one"):
            tasks.start_soon(broker.publish, topic, topic)
            await checkpoint()
        with anyio.fail_after(5):
            assert [(await anext(one)).data, (await anext(one)).data] == [0, "one"]
        tasks.cancel_scope.cancel()


# ---------------------------------------------------------------- before and after


async def test_its_topics_are_asked_for_while_it_is_entered():
    broker = MemoryBroker()
    for _ in range(2):
        with pytest.raises(BrokerStateError, match="MemoryBroker is not entered, or was left"):
            await broker.topics()
        async with broker:
            assert await broker.topics() == []
