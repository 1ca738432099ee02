"""What holds between processes, also where one of them is killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from anyio import to_thread

from dpcore.config import Config
from dpcore.errors import BrokerLostError
from dpcore.plugins import Plugins
from dpcore.ports import Broker
from dpcore.testing.broker.common import Promises, data, patient
from dpcore.testing.suite import Writers, moments

__all__ = ("CrossingProcesses",)


class CrossingProcesses(Promises, suite=True):
    """Other processes, which find the broker by its address.  (With ``processes``.)"""

    async def test_other_processes_publish_and_read(self, tmp_path: Path) -> None:
        """What one publishes all read, in order, as it was."""
        async with self.running(tmp_path, "processes") as broker, broker.subscribe("there") as events:
            with (
                Writers.of(_publish, broker.address, "there", 100) as there,
                Writers.of(_read, broker.address, "here", 100) as here,
            ):
                await to_thread.run_sync(there.start)
                await to_thread.run_sync(here.start_and_hear, 1)  # it has subscribed
                await broker.publish_many("here", range(50))
                for number in range(50, 100):
                    await broker.publish("here", number)
                assert await data(events, 100) == [*range(100)]
                assert await to_thread.run_sync(there.rest) == [*range(100)]
                assert await to_thread.run_sync(here.rest) == [*range(100)]

    async def test_a_group_is_shared_between_processes(self, tmp_path: Path) -> None:
        """Each event goes to one member, wherever it is."""
        async with self.running(tmp_path, "processes", "groups") as broker, broker.consume("t") as events:
            with Writers.of(_work, broker.address, "t") as there:
                await to_thread.run_sync(there.start_and_hear, 1)
                mine: list[int] = []

                async def read() -> None:
                    async for event in events:
                        mine.append(event.data)
                        await anyio.sleep(0.0005)  # so that the other has its share

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(read)
                    for number in range(300):
                        await broker.publish("t", number)
                    await broker.publish_many("t", [-1, -1])  # each of the two ends at the one that it gets
                    await self.until(lambda: -1 in mine)
                    tasks.cancel_scope.cancel()
                theirs = await to_thread.run_sync(there.rest)
            assert sorted([*mine, *theirs]) == [-1, -1, *range(300)]

    async def test_a_member_that_is_killed_gives_its_events_to_the_others(self, tmp_path: Path) -> None:
        """At once, at whatever moment it dies: what it had acked comes no more, what it had not begun as it was."""
        unsure = set[int]()  # it was killed after it had begun to ack them, and before it could say that it had
        async with self.running(tmp_path, "processes", "groups") as broker:
            await broker.declare("t", groups=["default"])
            with Writers.of(_work_and_say, broker.address, "t") as there:
                for turn, (said, seconds) in enumerate(moments(seed=11, times=self.kills, most=0.01)):
                    numbers = {*range(turn * 60, turn * 60 + 60)}
                    await broker.publish_many("t", sorted(numbers))
                    heard = await to_thread.run_sync(there.kill_after, said, seconds)
                    begun = {number // 2 for number in heard if number % 2 == 0}
                    acked = {number // 2 for number in heard if number % 2}
                    unsure |= begun - acked
                    found = dict[int, int]()
                    async with broker.consume("t", ack="manual") as events:
                        while not found.keys() >= numbers - acked - unsure:
                            delivery = await anext(events.deliveries())
                            found[delivery.event.data] = delivery.attempt
                            await delivery.ack()
                    assert found.keys() <= (numbers - acked) | unsure
                    again = [found[number] for number in found.keys() - unsure if found[number] > 1]
                    assert again in ([], [2])  # it may have been killed before it could say that it began one

    async def test_a_publisher_that_is_killed_has_published_what_publish_returned_for(self, tmp_path: Path) -> None:
        """And at the most the one that it was at, whole; the order is kept, and others go on."""
        async with self.running(tmp_path, "processes") as broker, broker.subscribe("t", buffer=1_000_000) as events:
            with Writers.of(_publish, broker.address, "t", 1_000_000) as there:
                for said, seconds in moments(seed=12, times=self.kills, most=0.01):
                    heard = await to_thread.run_sync(there.kill_after, said, seconds)
                    await broker.publish("t", -1)
                    found = []
                    while (number := (await anext(events)).data) >= 0:
                        found.append(number)
                    assert found == [*range(len(found))]
                    assert len(found) - len(heard) in (0, 1)

    async def test_other_processes_are_told_when_the_broker_is_gone(self, tmp_path: Path) -> None:
        """Their iteration ends or raises BrokerLostError, and publishing raises; nobody waits for ever."""
        broker = self.able(tmp_path, "processes")
        with patient(self.patience):
            async with broker:
                there = Writers.of(_read_until_lost, broker.address, "t")
                writers = there.__enter__()
                try:
                    await to_thread.run_sync(writers.start_and_hear, 1)
                except BaseException:
                    there.__exit__(None, None, None)
                    raise
            try:
                assert (await to_thread.run_sync(writers.rest))[-1] == 2
            finally:
                there.__exit__(None, None, None)


# ---------------------------------------------------------------- what the other processes do


def _at(address: str) -> Broker:
    config = Config(environ={})
    found: Broker = Plugins(config=config).make("broker", address)
    return found


def _publish(address: str, topic: str, count: int, say: Callable[[int], None]) -> None:
    async def work() -> None:
        async with _at(address) as broker:
            for number in range(count):
                await broker.publish(topic, number)
                say(number)

    anyio.run(work)


def _read(address: str, topic: str, count: int, say: Callable[[int], None]) -> None:
    async def work() -> None:
        async with _at(address) as broker, broker.subscribe(topic) as events:
            say(-1)
            for _ in range(count):
                say((await anext(events)).data)

    anyio.run(work)


def _work(address: str, topic: str, say: Callable[[int], None]) -> None:
    async def work() -> None:
        async with _at(address) as broker, broker.consume(topic) as events:
            say(-2)
            async for event in events:
                say(event.data)
                if event.data == -1:
                    break

    anyio.run(work)


def _work_and_say(address: str, topic: str, say: Callable[[int], None]) -> None:
    async def work() -> None:
        async with _at(address) as broker, broker.consume(topic, ack="manual") as events:
            async for delivery in events.deliveries():
                say(2 * delivery.event.data)
                await delivery.ack()
                say(2 * delivery.event.data + 1)

    anyio.run(work)


def _read_until_lost(address: str, topic: str, say: Callable[[int], None]) -> None:
    async def work() -> None:
        async with _at(address) as broker:
            async with broker.subscribe(topic) as events:
                say(1)
                try:
                    async for _ in events:
                        pass
                except BrokerLostError:
                    pass
            with pytest.raises(BrokerLostError):
                await broker.publish(topic, 1)
            say(2)

    anyio.run(work)
