"""How a broker begins and ends, what it can do, and what it leaves behind."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from dpcore.errors import BrokerStateError, SubscriptionError, TopicCompletedError, UnsupportedError
from dpcore.groups import Start
from dpcore.ports import Broker, Subscription
from dpcore.testing.broker.common import Promises, Trouble, data, patient, read_to
from dpcore.testing.suite import leftovers

__all__ = ("Living",)

_KNOWN = {"groups", "delay", "keys", "retains", "completes", "blocks", "processes", "durable", "remote"}
_SOON = 4.0  # seconds; the port itself gives up on a broker, or a subscription, after five


class Living(Promises, suite=True):
    """Entering, leaving, and all that ends."""

    # ---------------------------------------------------------------- capabilities

    async def test_capabilities_are_data(self, tmp_path: Path) -> None:
        """They are those that the port names, the same on the class and on the object; the others can be asked for in vain."""
        broker = self.make(tmp_path)
        self.check_capabilities(broker, _KNOWN)
        for capability in _KNOWN - broker.capabilities:
            with pytest.raises(UnsupportedError, match=capability):
                broker.require(capability, "do that")

    async def test_what_a_broker_lacks_is_refused_by_name(self, tmp_path: Path) -> None:
        """Whoever asks for it gets UnsupportedError with the capability, before anything happens."""
        async with self.running(tmp_path) as broker:
            asked: dict[str, list[Callable[[], Awaitable[Any]]]] = {
                "groups": [
                    lambda: broker.consume("t").__aenter__(),
                    lambda: broker.subscribe("t", group="g").__aenter__(),
                    lambda: broker.declare("t", groups=["g"]),
                    lambda: broker.disband("g"),
                ],
                "keys": [
                    lambda: broker.publish("t", 1, key="k"),
                    lambda: broker.publish_many("t", [1], key="k"),
                ],
                "retains": [lambda: broker.subscribe("t", start="earliest").__aenter__()],
                "completes": [lambda: broker.complete("t")],
                "blocks": [
                    lambda: broker.subscribe("t", overflow="block").__aenter__(),
                    lambda: broker.subscribe("t", overflow="error").__aenter__(),
                ],
            }
            async with broker.subscribe("t") as events:
                for capability in asked.keys() - broker.capabilities:
                    for ask in asked[capability]:
                        with pytest.raises(UnsupportedError, match=capability):
                            await ask()
                await broker.publish("t", "last")
                assert await read_to(events, "last") == []

    async def test_only_who_says_so_has_an_address(self, tmp_path: Path) -> None:
        """With ``processes`` it is a text by which other processes select the same broker, from entering on."""
        async with self.running(tmp_path) as broker:
            address = getattr(broker, "address", None)
            if "processes" in broker.capabilities:
                assert isinstance(address, str)
                assert address
            else:
                assert address is None

    # ---------------------------------------------------------------- before and after

    async def test_it_is_used_between_entering_and_leaving(self, tmp_path: Path) -> None:
        """Before and after, whatever is asked of it is a BrokerStateError, and nothing was published."""
        broker = self.make(tmp_path)
        with patient(self.patience):
            await self._refuses_all(broker)
            async with broker, broker.subscribe("t") as events:
                await broker.publish("t", "last")
                assert await read_to(events, "last") == []
            await self._refuses_all(broker)

    async def _refuses_all(self, broker: Broker) -> None:
        asked: list[Callable[[], Awaitable[Any]]] = [
            lambda: broker.publish("t", 1),
            lambda: broker.publish_many("t", [1]),
            lambda: broker.publish_matching("t", 1),
            lambda: broker.subscribe("t").__aenter__(),
        ]
        if "groups" in broker.capabilities:
            asked += [lambda: broker.declare("t", groups=["g"]), lambda: broker.consume("t").__aenter__()]
            asked += [lambda: broker.disband("g")]
        if "completes" in broker.capabilities:
            asked += [lambda: broker.complete("t")]
        for ask in asked:
            with pytest.raises(BrokerStateError, match="is used inside of"):
                await ask()
        with pytest.raises(BrokerStateError):
            broker.publish_from_thread("t", 1)

    async def test_it_is_entered_once_and_left_as_often_as_one_likes(self, tmp_path: Path) -> None:
        """Entering it again while it is entered is a BrokerStateError, and does no harm; after leaving it may be."""
        broker = self.make(tmp_path)
        with patient(self.patience):
            for turn in range(3):
                async with broker:
                    with pytest.raises(BrokerStateError, match="is entered already"):
                        await broker.__aenter__()
                    async with broker.subscribe("t") as events:
                        await broker.publish("t", turn)
                        assert await data(events, 1) == [turn]
                await broker.__aexit__(None, None, None)

    async def test_leaving_it_unused_is_no_trouble(self, tmp_path: Path) -> None:
        """It may be entered and left with nothing in between."""
        async with self.running(tmp_path):
            pass

    async def test_a_subscription_is_used_between_entering_and_leaving_it(self, tmp_path: Path) -> None:
        """Otherwise it is a SubscriptionError, as is entering one twice."""
        async with self.running(tmp_path) as broker:
            subscription = broker.subscribe("t")
            with pytest.raises(SubscriptionError, match="is not entered"):
                await anext(subscription)
            async with subscription as events:
                with pytest.raises(SubscriptionError, match="is entered already"):
                    await events.__aenter__()
                await broker.publish("t", 1)
                assert await data(events, 1) == [1]
            with pytest.raises(SubscriptionError, match="was left"):
                await anext(subscription)
            with pytest.raises(SubscriptionError, match="was left"):
                await anext(subscription.batches())
            with pytest.raises(SubscriptionError, match="is entered already"):
                await subscription.__aenter__()

    # ---------------------------------------------------------------- ends

    async def test_readers_read_what_is_left_when_the_broker_is_left(self, tmp_path: Path) -> None:
        """All that was published; then each iteration ends, also in a group."""
        broker = self.make(tmp_path)
        found: dict[str, list[int]] = {"alone": [], "group": []}
        with patient(self.patience):
            async with anyio.create_task_group() as tasks, broker:
                await tasks.start(self._read_slowly, broker.subscribe("t"), found["alone"])
                if "groups" in broker.capabilities:
                    await tasks.start(self._read_slowly, broker.consume("t"), found["group"])
                await broker.publish_many("t", range(50))
                for number in range(50, 100):
                    await broker.publish("t", number)
        assert found["alone"] == [*range(100)]
        assert found["group"] == ([*range(100)] if "groups" in broker.capabilities else [])

    async def _read_slowly(
        self, subscription: Subscription, found: list[int], *, task_status: anyio.abc.TaskStatus[None]
    ) -> None:
        async with subscription as events:
            task_status.started()
            async for event in events:
                found.append(event.data)
                await checkpoint()
                await checkpoint()

    async def test_a_reader_that_does_not_read_holds_up_the_end_for_a_while_only(self, tmp_path: Path) -> None:
        """As long as ``drain`` says; not at all when the broker is left by an exception.  Then it ends."""
        for fails in (False, True):
            broker = self.make(tmp_path)
            broker.drain = 0.05 if not fails else 1000.0
            subscription = broker.subscribe("t")
            with patient(self.patience):
                try:
                    async with broker:
                        await subscription.__aenter__()
                        await broker.publish("t", 1)
                        if fails:
                            raise Trouble
                except Trouble:
                    pass
                assert len([event async for event in subscription]) <= 1
                await subscription.__aexit__(None, None, None)

    async def test_who_waits_when_the_broker_is_left_is_told(self, tmp_path: Path) -> None:
        """A reader's iteration ends; a publisher that waits for room gets BrokerStateError."""
        broker = self.able(tmp_path, "blocks")
        broker.drain = 0.05
        refused: list[int] = []

        async def publish(number: int) -> None:
            try:
                await broker.publish("full", number)
            except BrokerStateError:
                refused.append(number)

        async def read(events: Subscription) -> None:
            assert [event async for event in events] == []

        with patient(self.patience):
            async with anyio.create_task_group() as tasks, broker:
                full = await broker.subscribe("full", buffer=1, overflow="block").__aenter__()
                idle = await broker.subscribe("nothing").__aenter__()
                await broker.publish("full", 0)
                tasks.start_soon(read, idle)
                for number in (1, 2):
                    tasks.start_soon(publish, number)
                await anyio.wait_all_tasks_blocked()
            assert sorted(refused) == [1, 2]
            await full.__aexit__(None, None, None)
            await idle.__aexit__(None, None, None)

    async def test_it_is_left_while_others_publish(self, tmp_path: Path) -> None:
        """What publish returned for was delivered, and nothing else; whoever comes too late gets BrokerStateError."""
        published: list[list[int]] = []
        found: list[list[int]] = []

        async def publish(broker: Broker, who: int) -> None:
            with suppress(BrokerStateError):
                for number in count():
                    await broker.publish("t", [who, number])
                    published.append([who, number])
                    await checkpoint()

        for _ in range(5):
            broker = self.make(tmp_path)
            found.clear()
            published.clear()
            with patient(self.patience):
                async with anyio.create_task_group() as tasks, broker:
                    await tasks.start(self._read_slowly, broker.subscribe("t", buffer=100_000), found)
                    for who in range(3):
                        tasks.start_soon(publish, broker, who)
                    await self.until(lambda: len(published) > 100)
            assert sorted(found) == sorted(published)

    async def test_it_is_left_while_it_is_cancelled(self, tmp_path: Path) -> None:
        """At once, with readers and publishers in it; what it holds is given back on that way out, too."""
        broker = self.make(tmp_path)
        broker.drain = 1000.0
        with patient(self.patience), anyio.CancelScope() as scope:
            async with broker, broker.subscribe("t") as events, anyio.create_task_group() as tasks:
                tasks.start_soon(data, events, 5)
                await broker.publish("t", 1)
                await checkpoint()
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        with pytest.raises(BrokerStateError):
            await broker.publish("t", 1)

    async def test_leaving_does_not_hang(self, tmp_path: Path) -> None:
        """Neither with a reader that reads no more, nor afterwards where that reader leaves."""
        broker = self.make(tmp_path)
        broker.drain = 0.05
        events = broker.subscribe("t")
        with anyio.move_on_after(_SOON) as scope:
            async with broker:
                await events.__aenter__()
                await broker.publish_many("t", range(2))
                assert await data(events, 1) == [0]
            await events.__aexit__(None, None, None)
            await checkpoint()
        assert not scope.cancelled_caught, f"it took longer than {_SOON:g} seconds"

    # ---------------------------------------------------------------- topics that end

    async def test_a_subscription_ends_when_all_its_topics_are_completed(self, tmp_path: Path) -> None:
        """And what is left was read: not sooner, and not where one of its patterns is a wildcard."""
        async with (
            self.running(tmp_path, "completes") as broker,
            broker.subscribe("a", "b") as both,
            broker.subscribe("a | b", "b|a") as joined,
            broker.subscribe("a") as one,
            broker.subscribe("*", "a") as any_topic,
        ):
            await broker.publish_many("a", range(3))
            await broker.complete("a")
            assert [event.data async for event in one] == [0, 1, 2]
            with pytest.raises(StopAsyncIteration):
                await anext(one)
            await broker.publish("b", 3)
            assert await data(both, 4) == [0, 1, 2, 3]
            async with anyio.create_task_group() as tasks:

                async def end() -> None:
                    assert [event async for event in both] == []
                    assert [event.data async for event in joined] == [0, 1, 2, 3]

                tasks.start_soon(end)
                await broker.complete("b")
            await broker.publish("c", 4)
            assert await data(any_topic, 5) == [0, 1, 2, 3, 4]

    async def test_nothing_is_published_to_a_completed_topic(self, tmp_path: Path) -> None:
        """TopicCompletedError, for one and for many; other topics go on, and completing it again changes nothing."""
        async with self.running(tmp_path, "completes") as broker, broker.subscribe("**") as events:
            await broker.publish("a", 1)
            for _ in range(2):
                await broker.complete("a")
                with pytest.raises(TopicCompletedError, match="'a' was completed"):
                    await broker.publish("a", "refused")
                with pytest.raises(TopicCompletedError):
                    await broker.publish_many("a", ["refused"])
            await broker.complete("never.used")
            with pytest.raises(TopicCompletedError):
                await broker.publish("never.used", "refused")
            await broker.publish("a.b", "last")
            assert await read_to(events, "last") == [1]

    async def test_a_publisher_that_waits_is_told_of_the_end_of_its_topic(self, tmp_path: Path) -> None:
        """TopicCompletedError; its event was not published."""
        async with (
            self.running(tmp_path, "completes", "blocks") as broker,
            broker.subscribe("a", buffer=1, overflow="block") as events,
        ):
            await broker.publish("a", 0)
            async with anyio.create_task_group() as tasks:

                async def publish() -> None:
                    with pytest.raises(TopicCompletedError):
                        await broker.publish("a", "refused")

                tasks.start_soon(publish)
                await anyio.wait_all_tasks_blocked()
                await broker.complete("a")
            assert [event.data async for event in events] == [0]

    async def test_a_group_ends_when_nothing_is_left_to_settle(self, tmp_path: Path) -> None:
        """Those who wait stay until what another has in hand is acked, and get it if it is nacked."""
        async with (
            self.running(tmp_path, "completes", "groups") as broker,
            broker.consume("t", ack="manual") as one,
            broker.consume("t", ack="manual") as two,
        ):
            await broker.publish("t", 1)
            held = await anext(one.deliveries())
            await broker.complete("t")
            seen: list[tuple[int, int]] = []

            async def read() -> None:
                async for delivery in two.deliveries():
                    seen.append((delivery.event.data, delivery.attempt))
                    await delivery.ack()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                await anyio.wait_all_tasks_blocked()
                assert seen == []
                await held.nack()
            assert seen == [(1, 2)]
            assert [delivery async for delivery in one.deliveries()] == []

    async def test_who_comes_later_gets_what_is_retained_and_ends(self, tmp_path: Path) -> None:
        """Of a completed topic, also without asking for the earliest."""
        async with self.running(tmp_path, "completes", "retains") as broker:
            await broker.publish_many("t", range(3))
            await broker.complete("t")
            starts: tuple[Start, ...] = ("earliest", "new")
            for start in starts:
                async with broker.subscribe("t", start=start) as events:
                    assert [event.data async for event in events] == [0, 1, 2]
            if "groups" in broker.capabilities:
                for _ in range(2):
                    async with broker.consume("t") as events:
                        found = [event.data async for event in events]
                    assert found in ([0, 1, 2], [])
                async with broker.consume("t", group="other") as events:
                    assert [event.data async for event in events] == [0, 1, 2]

    # ---------------------------------------------------------------- what is left behind

    async def test_subscriptions_leave_nothing_behind(self, tmp_path: Path) -> None:
        """A thousand that come, read and go, in groups and out of them: no task, thread, file, nor memory."""
        async with self.running(tmp_path) as broker:
            await self._come_and_go(broker, 200)
            gc.collect()
            tasks, before = len(anyio.get_running_tasks()), leftovers()
            tracemalloc.start()
            try:
                await self._come_and_go(broker, 200)
                gc.collect()
                sooner, _ = tracemalloc.get_traced_memory()
                await self._come_and_go(broker, 1000)
                gc.collect()
                later, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert len(anyio.get_running_tasks()) <= tasks
            assert leftovers().no_more_than(before)
            # 1,000 events of 200 bytes or so each may be retained.
            allowed = 600_000 if "retains" in broker.capabilities else 100_000
            assert later - sooner < allowed, f"{(later - sooner) / 1000:.0f} bytes for each subscription"

    async def _come_and_go(self, broker: Broker, times: int) -> None:
        for number in range(times):
            grouped = number % 2 and "groups" in broker.capabilities
            topic = "work" if grouped else f"t.{number % 50}"
            async with broker.subscribe(topic, group="g" if grouped else None) as events:
                await broker.publish(topic, number)
                assert await data(events, 1) == [number]

    def test_a_broker_leaves_nothing_behind(self, tmp_path: Path, backend: str) -> None:
        """No thread, no process and no open file: the second use leaves no more than the first."""

        async def use() -> None:
            async with self.running(tmp_path) as broker, broker.subscribe("t") as events:
                await broker.publish_many("t", range(10))
                assert len(await data(events, 10)) == 10
                await anyio.to_thread.run_sync(broker.publish_from_thread, "t", 1)

        anyio.run(use, backend=backend)
        before = leftovers()
        anyio.run(use, backend=backend)
        assert leftovers(since=before).no_more_than(before)
