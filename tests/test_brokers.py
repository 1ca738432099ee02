"""What the port says once for all brokers: what one lacks is refused, and leaving one ends."""

from __future__ import annotations

import anyio
import pytest

from dpcore import Event
from dpcore.errors import BrokerStateError, GroupSettingsError, UnsupportedError
from dpcore_plugins import MemoryBroker

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


class WithoutDelay(MemoryBroker):
    """Has groups, and neither delays, keys nor publishers that wait."""

    capabilities = frozenset({"groups", "retains"})


async def test_what_a_broker_lacks_is_refused_in_words():
    async with WithoutDelay() as broker, broker.consume("t", ack="manual") as events:
        for publish in (
            lambda: broker.publish("t", 1, key="eu"),
            lambda: broker.publish_many("t", [1], key="eu"),
            lambda: broker.publish(Event("t", 1, key="eu")),
        ):
            with pytest.raises(UnsupportedError) as refused:
                await publish()
            assert str(refused.value) == (
                "WithoutDelay cannot keep the events of key 'eu' in order: it lacks the capability 'keys'"
            )
        await broker.publish("t", 1)
        delivery = await anext(events.deliveries())
        with pytest.raises(UnsupportedError) as refused:
            await delivery.nack(delay=1.5)
        assert str(refused.value) == (
            "WithoutDelay cannot deliver an event again after 1.5 seconds: it lacks the capability 'delay'"
        )
        assert not delivery.settled
        with pytest.raises(UnsupportedError, match="with overflow='error': it lacks the capability 'blocks'"):
            await broker.consume("t", group="other", overflow="error").__aenter__()


async def test_members_that_say_nothing_of_buffer_and_policy_take_those_of_their_group():
    async with MemoryBroker() as broker:
        await broker.declare("t", groups=["default"], buffer=7, overflow="error")
        await broker.declare("t", groups=["default"])
        async with broker.consume("t"), broker.consume("t", buffer=7), broker.consume("t", overflow="error"):
            with pytest.raises(GroupSettingsError) as refused:
                await broker.consume("t", buffer=8).__aenter__()
        assert "has buffer=7 and overflow='error' already, and was asked for with buffer=8" in str(refused.value)
        with pytest.raises(GroupSettingsError):
            await broker.declare("t", groups=["default"], overflow="block")


class HangsWhenLeft(MemoryBroker):
    async def stop(self, drain):
        await anyio.sleep_forever()


def test_a_broker_that_does_not_end_is_given_up(caplog):
    async def use():
        with anyio.fail_after(20):
            async with broker:
                pass
        with pytest.raises(BrokerStateError):
            await broker.publish("t", 1)

    broker = HangsWhenLeft(drain=0.0)
    anyio.run(use)
    assert "broker HangsWhenLeft was not left within 5 seconds, and is given up" in caplog.text


async def test_only_a_broker_of_several_processes_has_an_address():
    async with MemoryBroker() as broker:
        assert broker.address is None
