"""What happens where events come faster than they are read: bounds, policies, and whose turn it is."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread
from anyio.lowlevel import checkpoint

from dpcore.errors import BufferFullError, DeadlockError, PublishTimeoutError
from dpcore.groups import Overflow
from dpcore.ports import Broker, Subscription
from dpcore.testing.broker.common import Promises, attempts, data, elsewhere, patient, read_to

__all__ = ("Pressing",)


class Pressing(Promises, suite=True):
    """Buffers and what is done with more than they hold."""

    # ---------------------------------------------------------------- policies

    @pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
    @pytest.mark.parametrize("many", [False, True], ids=["one by one", "many at once"])
    async def test_what_is_dropped_is_counted(self, tmp_path: Path, overflow: Any, many: bool) -> None:
        """What was published was read, or was dropped, or waits: the numbers add up at every moment."""
        async with self.running(tmp_path) as broker, broker.subscribe("t", buffer=10, overflow=overflow) as events:
            found: list[int] = []
            for turn in range(3):
                numbers = range(turn * 25, turn * 25 + 25)
                if many:
                    await broker.publish_many("t", numbers)
                else:
                    for number in numbers:
                        await broker.publish("t", number)
                await self._dropped(events, (turn + 1) * 25 - 10 - len(found))
                found += await data(events, 3)
            found += await data(events, 7)
            assert len(found) + events.dropped == 75
            assert found == sorted(set(found)), "not in order"
            assert (found[-1] == 74) is (overflow == "drop_oldest")
            assert (found[0] == 0) is (overflow == "drop_newest")
            await broker.publish("t", "last")
            assert await read_to(events, "last") == []

    async def _dropped(self, events: Subscription, count: int) -> None:
        await self.until(lambda: events.dropped == count)

    @pytest.mark.parametrize("group", [None, "default"])
    @pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest", "block", "error"])
    async def test_what_is_retained_is_replayed_whole(self, tmp_path: Path, overflow: Any, group: str | None) -> None:
        """Nothing of it is dropped for want of room, whatever the policy, before something new comes."""
        if group is not None:
            self.able(tmp_path, "groups")
        if overflow in ("block", "error"):
            self.able(tmp_path, "blocks")
        async with self.running(tmp_path, "retains") as broker:
            count = min(100, self.retained)
            await broker.publish_many("t", range(count))
            async with broker.subscribe("t", start="earliest", buffer=10, overflow=overflow, group=group) as events:
                found = await data(events, 1)
                assert events.dropped == 0
                found += await data(events, count - 1)
                assert found == [*range(count)]
                assert events.dropped == 0
                await broker.publish("t", "last")
                assert await data(events, 1) == ["last"]

    @pytest.mark.parametrize("group", [None, "default"])
    async def test_what_comes_during_a_replay_finds_no_room_until_less_waits_than_the_buffer(
        self, tmp_path: Path, group: str | None
    ) -> None:
        """The publisher waits, is told, or one event is dropped for each that comes."""
        if group is not None:
            self.able(tmp_path, "groups")
        count = min(100, self.retained)
        async with self.running(tmp_path, "retains", "blocks") as broker:
            await broker.publish_many("t", range(count))
            arguments: Any = {"start": "earliest", "buffer": 10}
            policies: list[tuple[Overflow, type[Exception]]] = [
                ("block", PublishTimeoutError),
                ("error", BufferFullError),
            ]
            for overflow, error in policies:
                name = group and f"{group}-{overflow}"
                async with broker.subscribe("t", **arguments, overflow=overflow, group=name) as events:
                    with pytest.raises(error):
                        await elsewhere(broker.publish, "t", "late", timeout=0.01)
                    assert await data(events, count) == [*range(count)]
            async with broker.subscribe("t", **arguments, overflow="drop_newest", group=group) as events:
                await broker.publish("t", "late")
                await self._dropped(events, 1)
                assert await data(events, count) == [*range(count)]

    @pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
    async def test_what_a_group_drops_is_counted(self, tmp_path: Path, overflow: Any) -> None:
        """By the group as a whole; what a member has in hand is not dropped, and has a place until it is acked."""
        async with (
            self.running(tmp_path, "groups") as broker,
            broker.consume("t", buffer=10, overflow=overflow, ack="manual") as events,
        ):
            await broker.publish("t", 0)
            held = await anext(events.deliveries())
            for number in range(1, 25):
                await broker.publish("t", number)
            await self.until(lambda: events.dropped == 15)
            await held.ack()
            rest = await attempts(events, 9)
            assert set(rest.values()) == {1}
            assert (24 in rest) is (overflow == "drop_oldest")
            assert (1 in rest) is (overflow == "drop_newest")
            await broker.publish("t", "last")
            assert await attempts(events, 1) == {"last": 1}

    @pytest.mark.parametrize("group", [None, "default"])
    async def test_a_publisher_is_told_that_there_is_no_room(self, tmp_path: Path, group: str | None) -> None:
        """With the policy "error": BufferFullError, and nobody got the event; with room it goes on."""
        async with (
            self.running(tmp_path, *self._needed(group)) as broker,
            broker.subscribe("t", group=group, buffer=10, overflow="error") as events,
            broker.subscribe("t") as others,
        ):
            for number in range(10):
                await broker.publish("t", number)
            for _ in range(3):
                with pytest.raises(BufferFullError, match="no room for more than 10 events"):
                    await broker.publish("t", "refused")
            with pytest.raises(BufferFullError):
                await broker.publish_many("t", ["refused"])
            assert await data(events, 2) == [0, 1]  # in a group the first is acked by asking for the second
            await broker.publish("t", 10)
            assert await data(events, 9) == [*range(2, 11)]
            assert await data(others, 11) == [*range(11)]
            assert events.dropped == 0

    @pytest.mark.parametrize("group", [None, "default"])
    async def test_a_publisher_waits_for_room(self, tmp_path: Path, group: str | None) -> None:
        """With the policy "block": no more than the buffer is taken, nothing is lost, and the order is kept."""
        published: list[int] = []

        async def publish(broker: Broker) -> None:
            for number in range(40):
                await broker.publish("t", number)
                published.append(number)

        async with (
            self.running(tmp_path, *self._needed(group)) as broker,
            broker.subscribe("t", group=group, buffer=10, overflow="block") as events,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(publish, broker)
            await self.until(lambda: len(published) == 10)
            await self._turns()
            assert len(published) == 10
            assert await data(events, 4) == [0, 1, 2, 3]
            left = 1 if group else 0  # what is in hand has a place until it is acked
            await self.until(lambda: len(published) == 14 - left)
            await self._turns()
            assert len(published) == 14 - left
            assert await data(events, 36) == [*range(4, 40)]
            assert events.dropped == 0

    async def test_what_is_in_hand_has_its_place_until_it_is_acked(self, tmp_path: Path) -> None:
        """A group counts what waits, what is being worked on, and what is to be tried again."""
        async with (
            self.running(tmp_path, "groups", "blocks") as broker,
            broker.consume("t", buffer=3, overflow="error", ack="manual") as events,
        ):
            await broker.publish_many("t", range(3))
            deliveries = events.deliveries()
            held = [await anext(deliveries) for _ in range(3)]
            with pytest.raises(BufferFullError):
                await broker.publish("t", "refused")
            await held[1].nack()
            with pytest.raises(BufferFullError):
                await broker.publish("t", "refused")
            await held[0].ack()
            await broker.publish("t", 3)
            with pytest.raises(BufferFullError):
                await broker.publish("t", "refused")
            await held[2].reject()
            assert await attempts(events, 2) == {1: 2, 3: 1}

    async def test_many_publishers_that_wait_all_get_their_turn(self, tmp_path: Path) -> None:
        """Each event of twenty publishers is read once, those of one publisher in order, whatever the buffer."""
        async with self.running(tmp_path, "blocks") as broker:
            for buffer in (1, 3):
                async with broker.subscribe("t", buffer=buffer, overflow="block") as events:

                    async def publish(who: int) -> None:
                        for number in range(10):
                            await broker.publish("t", [who, number])

                    async with anyio.create_task_group() as tasks:
                        for who in range(20):
                            tasks.start_soon(publish, who)
                        found = await data(events, 200)
                    for who in range(20):
                        assert [number for by, number in found if by == who] == [*range(10)]

    async def test_room_is_not_lost_on_who_then_waits_elsewhere(self, tmp_path: Path) -> None:
        """A publisher whose event finds room with one reader and not with another lets those behind it go on."""
        async with (
            self.running(tmp_path, "blocks") as broker,
            broker.subscribe("both", "one", buffer=1, overflow="block") as one,
            broker.subscribe("both", buffer=1, overflow="block") as other,
        ):
            await broker.publish("both", 0)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(broker.publish, "both", 1)
                await self._turns()
                tasks.start_soon(broker.publish, "one", 2)
                await self._turns()
                assert await data(one, 2) == [0, 2]  # there is room for 2, and none with the other for 1
                assert await data(other, 2) == [0, 1]
                assert await data(one, 1) == [1]

    async def test_a_topic_without_groups_makes_no_publisher_wait(self, tmp_path: Path) -> None:
        """However slow its readers are: by default they lose the oldest, and know how many."""
        async with self.running(tmp_path) as broker, broker.subscribe("t") as slow:
            for number in range(1500):
                await broker.publish("t", number)
            await self.until(lambda: slow.dropped == 1500 - 1024)
            found = await data(slow, 1024)
            assert found[-1] == 1499
            assert found == sorted(set(found))

    def _needed(self, group: str | None) -> tuple[str, ...]:
        return ("blocks",) if group is None else ("blocks", "groups")

    async def _turns(self) -> None:
        """Give everybody the chance to do what they should not."""
        for _ in range(20):
            await checkpoint()

    # ---------------------------------------------------------------- waiting no longer

    async def test_a_publisher_waits_no_longer_than_it_says(self, tmp_path: Path) -> None:
        """PublishTimeoutError, and the event was not published, to nobody; of many, the first ones may have been."""
        async with (
            self.running(tmp_path, "blocks") as broker,
            broker.subscribe("t", buffer=3, overflow="block") as events,
            broker.subscribe("t") as others,
        ):
            await broker.publish_many("t", range(3), timeout=self.patience)
            with pytest.raises(PublishTimeoutError, match=r"within 0\.01 seconds"):
                await elsewhere(broker.publish, "t", "late", timeout=0.01)
            assert await data(events, 2) == [0, 1]
            with pytest.raises(PublishTimeoutError) as late:
                await elsewhere(broker.publish_many, "t", range(3, 8), timeout=0.01)
            assert "of 5 events the first" in "".join(late.value.__notes__)
            assert await data(events, 3) == [2, 3, 4]
            await broker.publish("t", "last", timeout=self.patience)
            assert await read_to(events, "last") == []
            assert await read_to(others, "last") == [*range(5)]

    async def test_a_publisher_that_is_cancelled_while_it_waits_has_published_nothing(self, tmp_path: Path) -> None:
        """And its place in the line is free for the next."""
        async with (
            self.running(tmp_path, "blocks") as broker,
            broker.subscribe("t", buffer=1, overflow="block") as events,
            broker.subscribe("t") as others,
        ):
            await broker.publish("t", 0)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(broker.publish, "t", "cancelled")
                await self._turns()
                tasks.cancel_scope.cancel()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(broker.publish, "t", 1)
                await self._turns()
                assert await data(events, 2) == [0, 1]
            assert await data(others, 2) == [0, 1]

    async def test_who_waits_for_itself_is_told(self, tmp_path: Path) -> None:
        """Where only the task that publishes reads what is full: DeadlockError, nothing published, and it goes on."""
        async with (
            self.running(tmp_path, "blocks") as broker,
            broker.subscribe("t", buffer=5, overflow="block") as events,
            broker.subscribe("t") as others,
        ):
            await broker.publish("t", 0)
            assert await data(events, 1) == [0]
            for number in range(1, 6):
                await broker.publish("t", number)
            with pytest.raises(DeadlockError, match="only the task that publishes reads there"):
                await broker.publish("t", "refused")
            assert await data(events, 2) == [1, 2]
            await broker.publish("t", 6)
            assert await data(events, 4) == [3, 4, 5, 6]
            assert await data(others, 7) == [*range(7)]

    async def test_a_member_that_publishes_what_only_itself_reads_is_told(self, tmp_path: Path) -> None:
        """While it works on an event, too; with a second member there is somebody else, and nothing is raised."""
        async with (
            self.running(tmp_path, "blocks", "groups") as broker,
            broker.consume("t", buffer=2, overflow="block") as events,
        ):
            await broker.publish("t", 0)
            assert await data(events, 1) == [0]
            await broker.publish("t", 1)
            with pytest.raises(DeadlockError):
                await broker.publish("t", "refused")
            async with (
                broker.consume("t", buffer=2, overflow="block") as second,
                anyio.create_task_group() as tasks,
            ):

                async def help_out() -> None:
                    assert await data(second, 5) == [1, 2, 3, 4, 5]

                tasks.start_soon(help_out)
                for number in range(2, 6):
                    await broker.publish("t", number)

    async def test_another_task_has_some_time_to_begin_to_read(self, tmp_path: Path) -> None:
        """Where nobody has read yet and only the publisher's task subscribed; after that it is told how long it was."""
        broker = self.able(tmp_path, "blocks")
        with patient(self.patience):
            broker.grace = self.patience
            async with broker, broker.subscribe("t", buffer=1, overflow="block") as events:
                await broker.publish("t", 0)
                async with anyio.create_task_group() as tasks:

                    async def begin_late() -> None:
                        await anyio.wait_all_tasks_blocked()
                        assert await data(events, 2) == [0, 1]

                    tasks.start_soon(begin_late)
                    await broker.publish("t", 1)
            broker.grace = 0.05
            async with broker, broker.subscribe("t", buffer=1, overflow="block") as events:
                await broker.publish("t", 0)
                with pytest.raises(DeadlockError, match=r"for 0.05 seconds nobody but the task that publishes"):
                    await broker.publish("t", "refused")
                assert await data(events, 1) == [0]

    async def test_a_task_is_not_taken_for_one_that_has_ended(self, tmp_path: Path) -> None:
        """Though it may have its address: a publisher is not told of a deadlock with a reader that is no more."""
        async with (
            self.running(tmp_path, "blocks") as broker,
            broker.subscribe("t", buffer=1, overflow="block") as events,
        ):
            await broker.publish("t", 0)
            assert await elsewhere(data, events, 1) == [0]
            await broker.publish("t", 1)
            for _ in range(30):
                with pytest.raises(PublishTimeoutError):
                    await elsewhere(broker.publish, "t", "refused", timeout=0.01)
            assert await data(events, 1) == [1]

    async def test_no_deadlock_is_seen_where_another_task_reads(self, tmp_path: Path) -> None:
        """A slow one, or one that was just started, though the publisher has subscribed, and has read before."""
        async with (
            self.running(tmp_path, "blocks") as broker,
            broker.subscribe("t", buffer=2, overflow="block") as events,
        ):
            found: list[int] = []

            async def read() -> None:
                async for event in events:
                    found.append(event.data)
                    for _ in range(5):
                        await checkpoint()
                    if len(found) == 100:
                        return

            await broker.publish("t", 0)
            found += await data(events, 1)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                for number in range(1, 100):
                    await broker.publish("t", number)
            assert found == [*range(100)]

    # ---------------------------------------------------------------- memory

    @pytest.mark.parametrize("group", [None, "default"])
    @pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest", "error"])
    async def test_a_reader_that_does_not_read_costs_a_bounded_amount_of_memory(
        self, tmp_path: Path, overflow: Any, group: str | None
    ) -> None:
        """Beyond its buffer and what the broker retains, nothing of what is published is kept."""
        needed = [*["groups"] * (group is not None), *["blocks"] * (overflow == "error")]
        async with (
            self.running(tmp_path, *needed) as broker,
            broker.subscribe("t", group=group, buffer=100, overflow=overflow),
        ):
            await self._flood(broker, self.retained + 1000)
            gc.collect()
            tracemalloc.start()
            try:
                await self._flood(broker, 1000)
                gc.collect()
                before, _ = tracemalloc.get_traced_memory()
                await self._flood(broker, 6000)
                gc.collect()
                after, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            # What is retained is replaced by what is traced, one for one: a payload and its event, at the most 6,000 times.
            allowed = min(6000, self.retained) * 900 if self._retains(broker, overflow) else 0
            assert after - before < allowed + 1_000_000, f"{(after - before) / 6000:.0f} bytes for each event published"

    def _retains(self, broker: Broker, overflow: str) -> bool:
        return "retains" in broker.capabilities and overflow != "error"

    async def _flood(self, broker: Broker, count: int) -> None:
        for number in range(0, count, 500):
            with suppress(BufferFullError):
                await broker.publish_many("t", [bytes(500) + bytes([one % 256]) for one in range(number, number + 500)])

    # ---------------------------------------------------------------- whose turn it is

    async def test_whoever_publishes_or_reads_much_lets_others_have_their_turn(self, tmp_path: Path) -> None:
        """Also where nothing makes it wait."""
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                await checkpoint()
                turns += 1

        async with (
            self.running(tmp_path) as broker,
            broker.subscribe("t", buffer=6000) as events,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(other)
            counts = []
            for number in range(3000):
                await broker.publish("t", number)
            counts.append(turns)
            for _ in range(3):
                await broker.publish_many("t", range(1000))
            counts.append(turns)
            assert len(await data(events, 3000)) == 3000
            counts.append(turns)
            batches = events.batches(limit=100)
            for _ in range(30):
                await anext(batches)
            counts.append(turns)
            tasks.cancel_scope.cancel()
        one_by_one, many_at_once, read, in_lists = (now - then for then, now in zip([0, *counts], counts, strict=False))
        assert min(one_by_one, read, in_lists) >= 3, "others hardly have a turn"
        assert many_at_once >= 1, "others have no turn"

    # ---------------------------------------------------------------- threads

    async def test_threads_publish_and_each_keeps_its_order(self, tmp_path: Path) -> None:
        """Four at once; what they get back is the event that is read, and all of it comes."""
        returned: dict[str, int] = {}

        def publish(broker: Broker, who: int) -> None:
            for number in range(100):
                event = broker.publish_from_thread("t", [who, number], headers={"who": str(who)})
                returned[event.id] = number

        async with self.running(tmp_path) as broker, broker.subscribe("t") as events:
            async with anyio.create_task_group() as tasks:
                for who in range(4):
                    tasks.start_soon(to_thread.run_sync, publish, broker, who)
                found = [await anext(events) for _ in range(400)]
            assert {event.id: event.data[1] for event in found} == returned
            for who in range(4):
                assert [event.data[1] for event in found if event.data[0] == who] == [*range(100)]

    async def test_a_thread_waits_for_room_no_longer_than_it_says(self, tmp_path: Path) -> None:
        """What it could not hand over is a PublishTimeoutError, and was not published; all the rest is, in order."""
        accepted: list[int] = []

        def publish(broker: Broker) -> None:
            for number in range(10_000):
                broker.publish_from_thread("t", number, timeout=0.01)
                accepted.append(number)

        async with (
            self.running(tmp_path, "blocks") as broker,
            broker.subscribe("t", buffer=10, overflow="block") as events,
        ):
            with pytest.raises(PublishTimeoutError):
                await to_thread.run_sync(publish, broker)
            assert 10 <= len(accepted) < 5000
            assert await data(events, len(accepted)) == accepted
            await to_thread.run_sync(broker.publish_from_thread, "t", "last")
            assert await read_to(events, "last") == []

    async def test_a_plain_function_on_the_loop_publishes_and_never_waits(self, tmp_path: Path) -> None:
        """Where too much waits to be published, it gets BufferFullError; what was accepted is published, in order."""
        async with self.running(tmp_path) as broker, broker.subscribe("t", buffer=10_000) as events:
            accepted: list[int] = []

            def publish() -> None:
                for number in range(10_000):
                    broker.publish_from_thread("t", number)
                    accepted.append(number)

            with pytest.raises(BufferFullError):
                publish()
            assert await data(events, len(accepted)) == accepted
            broker.publish_from_thread("t", "last")
            assert await read_to(events, "last") == []

    async def test_what_threads_published_is_there_when_the_broker_is_left(self, tmp_path: Path) -> None:
        """Also what had only just been handed over; threads that come later are told."""
        broker = self.make(tmp_path)
        found: list[int] = []
        ready = threading.Event()

        async def read(events: Subscription) -> None:
            async with AsyncExitStack() as stack:
                reader = await stack.enter_async_context(events)
                ready.set()
                found.extend([event.data async for event in reader])

        with patient(self.patience):
            async with anyio.create_task_group() as tasks, broker:
                tasks.start_soon(read, broker.subscribe("t"))
                await to_thread.run_sync(ready.wait)
                for number in range(500):
                    broker.publish_from_thread("t", number)
            assert found == [*range(500)]
            with pytest.raises(RuntimeError, match="was left"):
                await to_thread.run_sync(broker.publish_from_thread, "t", 1)

    async def test_what_threads_published_waits_for_room_when_the_broker_is_left(self, tmp_path: Path) -> None:
        """A reader that makes it wait gets it all the same, in order, as long as it reads."""
        broker = self.able(tmp_path, "blocks")
        found: list[int] = []
        ready = anyio.Event()

        async def read(events: Subscription) -> None:
            async with events:
                ready.set()
                async for event in events:
                    found.append(event.data)
                    await checkpoint()

        with patient(self.patience):
            async with anyio.create_task_group() as tasks, broker:
                tasks.start_soon(read, broker.subscribe("t", buffer=1, overflow="block"))
                await ready.wait()
                for number in range(20):
                    broker.publish_from_thread("t", number)
        assert found == [*range(20)]

    async def test_what_threads_published_and_has_no_room_is_given_up_when_the_broker_is_left(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Where nobody reads, it is logged how many that are after the time for the last words."""
        broker = self.able(tmp_path, "blocks")
        broker.drain = 0.05
        events = broker.subscribe("t", buffer=1, overflow="block")
        with patient(self.patience), caplog.at_level("ERROR", "dpcore.broker"):
            async with broker:
                await events.__aenter__()
                await broker.publish("t", 0)
                for number in range(3):
                    broker.publish_from_thread("t", number)
            await events.__aexit__(None, None, None)
        assert [record.getMessage() for record in caplog.records if "were not published" in record.getMessage()] == [
            f"3 events of other threads were not published, because {broker!r} was left"
        ]
