"""The memory broker under the suite of its port, and what is particular to it."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from dpcore.errors import BrokerStateError
from dpcore.testing import FakeClock
from dpcore_plugins import MemoryBroker

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


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
