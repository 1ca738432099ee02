"""What the port says once for all brokers: what one lacks is refused, and leaving one ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import deque

import anyio
import pytest

from dpcore import Broker, Event, Feed, Held
from dpcore.errors import ArgumentError, BrokerStateError, GroupSettingsError, UnsupportedError
from dpcore.events import to_cloudevent
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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"overflow": "x"}, "overflow='x' must be one of 'block', 'drop_oldest', 'drop_newest', 'error'"),
        ({"start": "x"}, "start='x' must be one of 'new', 'earliest'"),
    ],
)
async def test_what_is_none_of_several_words_is_told_what_they_are(arguments, words):
    with pytest.raises(ArgumentError) as refused:
        MemoryBroker().subscribe("t", **arguments)
    assert str(refused.value) == words


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


# ---------------------------------------------------------------- sources


async def test_each_entered_broker_is_a_source_until_one_is_named():
    async with MemoryBroker() as one, MemoryBroker() as two:
        sources = {(await broker.publish("t")).source for broker in (one, two)}
        assert sources == {one.source, two.source}
        assert len(sources) == 2
        assert all(re.fullmatch(rf"dpcore://[^/\s]+/{os.getpid()}/[0-9a-f]{{8}}", source) for source in sources)
        one.source = "urn:shop"
        made = await one.publish("t")
        assert made.source == "urn:shop"
        assert json.loads(to_cloudevent(made)[1])["source"] == "urn:shop"
        with pytest.raises(ArgumentError, match="source=7 must be a str, best a URI"):
            one.source = 7
    first = two.source
    async with two:
        assert two.source != first


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes do not fork here")
def test_a_forked_process_that_goes_on_publishing_is_another_source_with_ids_of_its_own():
    code = (
        "import os, sys, trio\n"
        "from dpcore_plugins import MemoryBroker\n"
        "async def main():\n"
        "    async with MemoryBroker() as broker:\n"
        "        await broker.publish('t')\n"
        "        child = os.fork()\n"
        "        if child: os.waitpid(child, 0)\n"
        "        event = await broker.publish('t')\n"
        "        os.write(1, f'{event.id} {event.source} {os.getpid()}\\n'.encode())\n"
        "        if not child: os._exit(0)\n"
        "trio.run(main)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len({line[0] for line in lines}) == len({line[1] for line in lines}) == 2
    assert all(f"/{pid}/" in source for _, source, pid in lines)


# ---------------------------------------------------------------- leaving


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


class Slow(Broker):
    """As an adapter for a server is: it writes the three methods, and settling takes until it is answered."""

    capabilities = frozenset({"groups"})

    def __init__(self):
        self.queue, self.said = deque(), []
        self.asked, self.answered = anyio.Event(), anyio.Event()

    async def send(self, events):
        self.queue.extend(map(Held, events))

    async def open(self, interest):
        return SlowFeed(self)

    async def topics(self):
        return []


class SlowFeed(Feed):
    def __init__(self, broker):
        super().__init__()
        self.broker, self.out = broker, {}

    async def receive(self, limit):
        queue = self.broker.queue
        taken = [queue.popleft() for _ in range(min(limit, len(queue)))]
        self.out.update((id(held), held) for held in taken)
        return taken

    async def settle(self, settlements):
        self.broker.asked.set()
        await self.broker.answered.wait()
        for one in settlements:
            if self.out.pop(id(one.held), None):
                self.broker.said.append((one.how, one.held.event.data))

    async def close(self):
        self.broker.queue.extendleft(reversed(self.out.values()))


async def stop_asking(read, asked):
    """Cancel *read* as soon as it waits for what it has *asked* of its broker."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await asked.wait()
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("form", ["batches", "events", "deliveries"])
async def test_what_was_received_and_not_given_is_neither_acked_nor_lost(form):
    published = [1, "misfit", 3, 4] if form == "batches" else ["misfit", 1, 3, 4]
    async with Slow() as broker, broker.consume("t", type=int) as events:
        await broker.publish_many("t", published)
        read = {"batches": events.batches, "events": events.__aiter__, "deliveries": events.deliveries}[form]()
        await stop_asking(lambda: anext(read), broker.asked)
        assert broker.said == []
        broker.answered.set()
        found = await anext(read)
        if form == "batches":
            assert [event.data for event in found] == [1, 3, 4]
        else:
            assert getattr(found, "event", found).data == 1
        assert broker.said == [("reject", "misfit")]
        assert events.unfit == 1


async def test_what_was_received_and_not_given_goes_back_when_the_subscription_is_left():
    async with Slow() as broker:
        async with broker.consume("t", type=int) as events:
            await broker.publish_many("t", [1, "misfit", 3])
            await stop_asking(lambda: anext(events.batches()), broker.asked)
        assert (broker.said, [held.event.data for held in broker.queue]) == ([], [1, "misfit", 3])
