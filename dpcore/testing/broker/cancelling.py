"""Cancellation at any moment, many at once, and any history at all."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from dpcore.ports import Broker, Delivery, Subscription
from dpcore.testing.broker.common import Promises, a_moment, read_to

__all__ = ("Cancelling",)

_AMPLE = 1_000_000  # a buffer that never overflows here


class Cancelling(Promises, suite=True):
    """What holds whatever is cancelled, and whoever works beside each other."""

    # ---------------------------------------------------------------- cancellation

    @pytest.mark.parametrize("form", ["events", "batches", "deliveries"])
    async def test_cancelling_the_wait_for_an_event_loses_nothing(self, tmp_path: Path, form: str) -> None:
        """At whatever moment, also that in which one arrives: each event comes once, in order."""
        chance, found, published = random.Random(4), list[int](), 0
        async with self.running(tmp_path) as broker, broker.subscribe("t", buffer=_AMPLE) as events:

            async def receive() -> None:
                if form == "batches":
                    found.extend([event.data for event in await anext(events.batches(3))])
                elif form == "deliveries":
                    found.append((await anext(events.deliveries())).event.data)
                else:
                    found.append((await anext(events)).data)

            for _ in range(self.cancellations):
                async with self._interrupting(chance, receive):
                    if chance.random() < 0.5:  # so that it mostly has to wait
                        await broker.publish("t", published)
                        published += 1
            await broker.publish("t", "last")
            found += await read_to(events, "last")
        assert found == [*range(published)]

    async def test_cancelling_the_wait_of_a_member_loses_and_repeats_nothing(self, tmp_path: Path) -> None:
        """Of two members that are cancelled all the time each event goes to one, as its first attempt."""
        chance, found, published = random.Random(5), list[int](), 0

        async def receive(events: Subscription) -> None:
            delivery = await anext(events.deliveries())
            assert delivery.attempt == 1
            found.append(delivery.event.data)

        async def go_on(events: Subscription) -> None:
            while True:
                await receive(events)

        async with (
            self.running(tmp_path, "groups") as broker,
            broker.consume("t") as one,
            broker.consume("t") as two,
        ):
            for _ in range(self.cancellations // 2):
                async with self._interrupting(chance, lambda: receive(one), lambda: receive(two)):
                    if chance.random() < 0.7:
                        await broker.publish("t", published)
                        published += 1
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(go_on, one)
                tasks.start_soon(go_on, two)
                await self.until(lambda: len(found) >= published)
                tasks.cancel_scope.cancel()
        assert sorted(found) == [*range(published)]

    def test_a_timeout_of_asyncio_loses_nothing(self, tmp_path: Path) -> None:
        """Of wait_for and of timeout, whose cancellation is not anyio's: each event comes once, in order."""
        if "asyncio" not in self.backends:
            pytest.skip("the broker does not run on asyncio")
        found: list[int] = []

        async def main() -> None:
            chance = random.Random(6)
            async with self.running(tmp_path) as broker, broker.subscribe("t", buffer=_AMPLE) as events:
                async with self._publishing(broker) as published:
                    for number in range(self.cancellations):
                        seconds = chance.choice([0.0, 0.0002, 0.0005])
                        with suppress(TimeoutError):
                            if number % 2:
                                async with asyncio.timeout(seconds):
                                    found.append((await anext(events)).data)
                            else:
                                found.append((await asyncio.wait_for(anext(events), seconds)).data)
                await broker.publish("t", "last")
                found.extend(await read_to(events, "last"))
                assert found == [*range(published[0])]

        asyncio.run(main())

    async def test_a_cancelled_publish_has_published_nothing(self, tmp_path: Path) -> None:
        """At whatever moment, with room and without; what it returned for is read once, in order."""
        chance, returned, found = random.Random(7), list[int](), list[int]()
        async with (
            self.running(tmp_path, "blocks") as broker,
            broker.subscribe("t", buffer=2, overflow="block") as events,
            anyio.create_task_group() as tasks,
        ):
            numbers = iter(range(10 * self.cancellations))

            async def publish() -> None:
                number = next(numbers)
                await broker.publish("t", number)
                returned.append(number)

            async def read() -> None:
                async for event in events:
                    if event.data == "last":
                        return
                    found.append(event.data)
                    await a_moment(chance)

            tasks.start_soon(read)
            for _ in range(self.cancellations):
                async with self._interrupting(chance, publish):
                    pass
            await broker.publish("t", "last")
        assert found == returned

    async def test_cancelled_settling_loses_nothing(self, tmp_path: Path) -> None:
        """An ack, a nack or a reject has happened or not; what was neither acked nor rejected comes again."""
        chance, count = random.Random(8), max(10, self.cancellations // 5)
        acked, letters, unsure = set[int](), set[int](), set[int]()

        async def settle(delivery: Delivery) -> None:
            number = delivery.event.data
            unsure.add(number)
            how = chance.choice([delivery.ack, delivery.ack, delivery.nack, delivery.reject])
            await how()
            unsure.discard(number)
            if how == delivery.ack:
                acked.add(number)

        async def note(events: Subscription, numbers: set[int]) -> None:
            async for event in events:
                numbers.add(event.data)

        async with (
            self.running(tmp_path, "groups") as broker,
            broker.subscribe("$dead.**", buffer=10 * count) as dead,
            anyio.create_task_group() as tasks,
        ):
            await broker.declare("t", groups=["default"])
            await broker.publish_many("t", range(count))
            for _ in range(self.cancellations // 10):
                async with broker.consume("t", ack="manual") as events:
                    deliveries = events.deliveries()
                    for _ in range(10):
                        with anyio.move_on_after(0.02) as nothing_left:
                            delivery = await anext(deliveries)
                        if nothing_left.cancelled_caught:
                            break
                        assert delivery.event.data not in acked, f"{delivery} was acked before"
                        async with self._interrupting(chance, partial(settle, delivery)):
                            pass

            async with broker.consume("t") as events:
                tasks.start_soon(note, dead, letters)
                tasks.start_soon(note, events, acked)
                await self.until(lambda: acked | letters | unsure == {*range(count)})
                tasks.cancel_scope.cancel()
        assert not (acked & letters) - unsure

    @asynccontextmanager
    async def _publishing(self, broker: Broker) -> AsyncIterator[list[int]]:
        """Publish numbers all the time, about as often as a reader gives up; the list holds how many it were."""
        chance, count = random.Random(9), [0]

        enough = anyio.Event()  # not a cancellation: one that comes too late would leave the last one uncounted

        async def publish() -> None:
            while not enough.is_set():
                await broker.publish("t", count[0])
                count[0] += 1
                await anyio.sleep(chance.uniform(0, 0.0008))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(publish)
            yield count
            enough.set()

    @asynccontextmanager
    async def _interrupting(
        self, chance: random.Random, *calls: Callable[[], Coroutine[Any, Any, None]]
    ) -> AsyncIterator[None]:
        """Run *calls* at once, what stands in the block a moment later, and cancel them after another."""
        async with anyio.create_task_group() as tasks:
            for call in calls:
                tasks.start_soon(call)
            await a_moment(chance)
            yield
            await a_moment(chance)
            tasks.cancel_scope.cancel()

    # ---------------------------------------------------------------- many at once

    async def test_many_publishers_and_readers_lose_repeat_and_reorder_nothing(self, tmp_path: Path) -> None:
        """Each reader sees the events of each publisher and topic in order; a group gets each once, keys in order."""
        each, chance = 200, random.Random(10)
        seen: dict[str, list[tuple[int, str, int]]] = defaultdict(list)
        async with self.running(tmp_path) as broker, AsyncExitStack() as stack:
            grouped, keyed = "groups" in broker.capabilities, "keys" in broker.capabilities
            readers = {f"reader {n}": broker.subscribe("t.*", buffer=_AMPLE) for n in range(3)}
            if grouped:
                readers |= {f"member {n}": broker.consume("t.*") for n in range(4)}
            tasks = await stack.enter_async_context(anyio.create_task_group())

            async def read(name: str, events: Subscription) -> None:
                async for event in events:
                    await a_moment(chance)
                    seen[name].append((event.data[0], event.topic, event.data[1]))

            async def publish(who: int) -> None:
                for number in range(each):
                    key = f"by-{who}" if keyed else None
                    await broker.publish(f"t.{number % 3}", [who, number], key=key)
                    await a_moment(chance)

            for name, reader in readers.items():
                tasks.start_soon(read, name, await stack.enter_async_context(reader))
            for who in range(5):
                tasks.start_soon(publish, who)
            await self.until(lambda: sum(map(len, seen.values())) >= 5 * each * (3 + grouped))
            tasks.cancel_scope.cancel()
        everything = sorted((who, f"t.{number % 3}", number) for who in range(5) for number in range(each))
        for name in [name for name in readers if name.startswith("reader")]:
            assert sorted(seen[name]) == everything
            for who, topic in {(who, topic) for who, topic, _ in everything}:
                of_one = [number for by, on, number in seen[name] if (by, on) == (who, topic)]
                assert of_one == sorted(of_one), f"{name} got events of publisher {who} on {topic} out of order"
        shared = [one for name in readers if name.startswith("member") for one in seen[name]]
        assert sorted(shared) == (everything if grouped else [])

    def test_any_history_is_that_of_a_plain_model(self, tmp_path: Path, backend: str) -> None:
        """Whoever subscribes, publishes, settles and leaves, in whatever order: all get what lists would give them."""
        from dpcore.testing.broker.model import compare_broker

        can = self.make(tmp_path).capabilities
        compare_broker(can, self.make, tmp_path, examples=self.examples, backend=backend, patience=self.patience)
