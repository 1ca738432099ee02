"""What members of a group may rely on: who gets what, in which order, and that nothing is lost between them."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest

from dpcore.errors import ArgumentError, GroupMembersError, GroupSettingsError
from dpcore.ports import Broker, Subscription
from dpcore.testing.broker.common import Promises, Trouble, a_moment, attempts, data

__all__ = ("Sharing",)


class Sharing(Promises, suite=True):
    """Groups: readers that share the work."""

    # ---------------------------------------------------------------- each event once

    async def test_a_group_gets_each_event_once(self, tmp_path: Path) -> None:
        """However many members it has, one of them gets it; two groups and a reader without one each get all."""
        found: dict[str, list[Any]] = defaultdict(list)
        done = anyio.Event()

        async def read(group: str, events: Subscription) -> None:
            async for event in events:
                found[group].append(event.data)
                if sum(map(len, found.values())) == 600:
                    done.set()

        async with self.running(tmp_path, "groups") as broker, AsyncExitStack() as stack:
            alone = await stack.enter_async_context(broker.subscribe("t"))
            tasks = await stack.enter_async_context(anyio.create_task_group())
            for group in ("red", "blue"):
                for _ in range(3):
                    tasks.start_soon(read, group, await stack.enter_async_context(broker.consume("t", group=group)))
            for number in range(300):
                await broker.publish("t", number)
            await done.wait()
            for numbers in found.values():
                assert sorted(numbers) == [*range(300)]
            assert await data(alone, 300) == [*range(300)]
            tasks.cancel_scope.cancel()

    async def test_one_member_gets_events_in_the_order_in_which_they_were_published(self, tmp_path: Path) -> None:
        """Whether it asks for one after the other or for lists."""
        async with self.running(tmp_path, "groups") as broker, broker.consume("t") as events:
            await broker.publish_many("t", range(300))
            found = await data(events, 100)
            async for batch in events.batches(9):
                assert 1 <= len(batch) <= 9
                found += [event.data for event in batch]
                if len(found) == 300:
                    break
            assert found == [*range(300)]

    async def test_everyone_who_waits_gets_something_to_do(self, tmp_path: Path) -> None:
        """Four members that keep what they have got get one event each; none waits while another has two."""
        async with self.running(tmp_path, "groups") as broker:
            for turn in range(5):
                got: list[int] = []
                all_got = anyio.Event()

                async def take(number: int, events: Subscription, got: list[int], done: anyio.Event) -> None:
                    await anext(events)
                    got.append(number)
                    if len(got) == 4:
                        done.set()
                    await done.wait()

                async with AsyncExitStack() as stack:
                    members = [await stack.enter_async_context(broker.consume("t")) for _ in range(4)]
                    async with anyio.create_task_group() as tasks:
                        for number, member in enumerate(members):
                            tasks.start_soon(take, number, member, got, all_got)
                        if turn % 2:  # some wait already, or nobody does
                            await anyio.wait_all_tasks_blocked()
                        await broker.publish_many("t", range(4))
                assert sorted(got) == [0, 1, 2, 3]

    async def test_a_member_that_is_busy_holds_up_nobody(self, tmp_path: Path) -> None:
        """What it has not begun goes to the others."""
        async with (
            self.running(tmp_path, "groups") as broker,
            broker.consume("t", ack="manual") as busy,
            broker.consume("t", ack="manual") as other,
        ):
            await broker.publish_many("t", range(50))
            held = await anext(busy.deliveries())
            rest = await attempts(other, 49)
            assert rest == {number: 1 for number in range(50) if number != held.event.data}
            await held.ack()

    async def test_members_come_and_go_and_every_event_is_worked_on_once(self, tmp_path: Path) -> None:
        """While events are being published; each member leaves with a break after some of them."""
        chance, count = random.Random(1), 1000
        found: list[int] = []

        async def read_some(broker: Broker) -> None:
            while len(found) < count:
                async with broker.consume("t") as events:
                    many = chance.randint(1, 30)
                    with anyio.move_on_after(0.05):  # nothing may be left for this one
                        async for event in events:
                            found.append(event.data)
                            await a_moment(chance)
                            many -= 1
                            if not many:
                                break

        async with self.running(tmp_path, "groups") as broker:
            await broker.declare("t", groups=["default"])
            async with anyio.create_task_group() as tasks:
                for _ in range(4):
                    tasks.start_soon(read_some, broker)
                for number in range(count):
                    await broker.publish("t", number)
                    if number % 10 == 0:
                        await a_moment(chance)
            assert sorted(found) == [*range(count)]

    async def test_what_one_reader_raises_stops_no_other(self, tmp_path: Path) -> None:
        """Its own subscription ends; those beside it, of the same group and of none, go on."""
        async with (
            self.running(tmp_path, "groups") as broker,
            broker.subscribe("t") as alone,
            broker.consume("t") as member,
        ):
            with pytest.raises(Trouble):
                async with broker.consume("t"), broker.subscribe("t"):
                    raise Trouble
            await broker.publish_many("t", range(10))
            assert await data(alone, 10) == await data(member, 10) == [*range(10)]

    # ---------------------------------------------------------------- before, between and after members

    async def test_a_declared_group_keeps_what_comes_before_its_first_member(self, tmp_path: Path) -> None:
        """All of it, also for a member that asks for what is new."""
        async with self.running(tmp_path, "groups") as broker:
            await broker.declare("t", groups=["default", "late"])
            await broker.publish_many("t", range(20))
            for group in ("default", "late"):
                async with broker.consume("t", group=group, start="new") as events:
                    assert await data(events, 20) == [*range(20)]

    async def test_a_group_keeps_its_events_while_it_has_no_members(self, tmp_path: Path) -> None:
        """And is the same group for who comes then."""
        async with self.running(tmp_path, "groups") as broker:
            async with broker.consume("t") as events:
                await broker.publish_many("t", range(3))
                assert await data(events, 1) == [0]
            await broker.publish_many("t", range(3, 6))
            async with broker.consume("t") as events:
                assert await data(events, 5) == [*range(1, 6)]

    async def test_a_new_group_begins_at_the_oldest_retained_or_at_what_is_new(self, tmp_path: Path) -> None:
        """The oldest is its default; what one group has read is there for another."""
        async with self.running(tmp_path, "groups", "retains") as broker:
            await broker.publish_many("t", range(5))
            async with broker.consume("t") as events, broker.consume("t", group="new", start="new") as new:
                await broker.publish("t", 5)
                assert await data(events, 6) == [*range(6)]
                assert await data(new, 1) == [5]
            async with broker.consume("t", group="later", start="earliest") as later:
                assert await data(later, 6) == [*range(6)]

    async def test_a_group_has_one_buffer_and_one_policy(self, tmp_path: Path) -> None:
        """Those of whoever made it, for members that say neither; what differs is refused, and the group goes on."""
        async with self.running(tmp_path, "groups") as broker:
            await broker.declare("t", groups=["default"], buffer=7)
            async with broker.consume("t", buffer=7) as one, broker.consume("t") as two:
                for other in (broker.consume("t", buffer=8), broker.consume("t", overflow="drop_oldest")):
                    with pytest.raises(GroupSettingsError, match="'default' has buffer=7"):
                        await other.__aenter__()
                await broker.publish_many("t", range(2))
                assert [await data(one, 1), await data(two, 1)] == [[0], [1]]

    # ---------------------------------------------------------------- groups that are disbanded

    async def test_what_a_disbanded_group_held_is_gone(self, tmp_path: Path) -> None:
        """What waited, and what was nacked; other groups keep theirs, and who asks for the group makes a new one."""
        async with self.running(tmp_path, "groups") as broker:
            await broker.declare("t", groups=["default", "other"], buffer=5)
            await broker.publish_many("t", range(3))
            async with broker.consume("t", ack="manual") as events:
                await (await anext(events.deliveries())).nack(delay=0.01 if "delay" in broker.capabilities else None)
            assert await broker.disband("default") is True
            assert await broker.disband("default") is False
            async with (
                broker.consume("t", "u", start="new", buffer=7, ack="manual") as again,
                broker.consume("t", group="other", ack="manual") as other,
            ):
                await broker.publish("t", "new")
                assert await attempts(again, 1) == {"new": 1}
                assert await attempts(other, 4) == {0: 1, 1: 1, 2: 1, "new": 1}
                await broker.publish("u", "last")
                assert await attempts(again, 1) == {"last": 1}

    async def test_publishers_that_wait_for_a_disbanded_group_go_on(self, tmp_path: Path) -> None:
        """As soon as it is disbanded, and whoever publishes later waits for nobody."""
        async with self.running(tmp_path, "groups", "blocks") as broker, broker.subscribe("t") as events:
            await broker.declare("t", groups=["nobody"], buffer=2)
            await broker.publish_many("t", range(2))
            async with anyio.create_task_group() as tasks:
                for number in (2, 3):
                    tasks.start_soon(broker.publish, "t", number)
                await anyio.wait_all_tasks_blocked()
                assert await data(events, 2) == [0, 1]
                assert await broker.disband("nobody")
            await broker.publish("t", 4)
            assert sorted(await data(events, 3)) == [2, 3, 4]

    async def test_a_group_with_members_is_not_disbanded(self, tmp_path: Path) -> None:
        """GroupMembersError says how many it has, and it goes on; what is no name is refused."""
        async with self.running(tmp_path, "groups") as broker:
            async with broker.consume("t") as one, broker.consume("t"):
                await broker.publish("t", 1)
                with pytest.raises(GroupMembersError, match="'default' has 2 members") as refused:
                    await broker.disband("default")
                assert (refused.value.group, refused.value.members) == ("default", 2)
                assert await data(one, 1) == [1]
            for name in ("a.b", "", None):
                with pytest.raises(ArgumentError, match="group="):
                    await broker.disband(name)  # type: ignore[arg-type]
            assert await broker.disband("default")
            assert not await broker.disband("never-seen")

    async def test_members_may_read_by_different_patterns(self, tmp_path: Path) -> None:
        """Each gets what it asked for; what several asked for goes to one of them."""
        async with (
            self.running(tmp_path, "groups") as broker,
            broker.consume("a.*", ack="manual") as some,
            broker.consume("a.x", "b", ack="manual") as others,
        ):
            for topic in ("a.x", "a.y", "b", "a.x", "c"):
                await broker.publish(topic, topic)
            found: list[str] = []
            first = [await anext(some.deliveries()), await anext(others.deliveries())]
            found += [delivery.event.data for delivery in first]
            assert found[0] in ("a.x", "a.y")
            assert found[1] in ("a.x", "b")
            for delivery in first:
                await delivery.ack()
            async with anyio.create_task_group() as tasks:

                async def rest(events: Subscription) -> None:
                    async for delivery in events.deliveries():
                        found.append(delivery.event.data)
                        await delivery.ack()
                        if len(found) == 4:
                            tasks.cancel_scope.cancel()

                tasks.start_soon(rest, some)
                tasks.start_soon(rest, others)
            assert Counter(found) == {"a.x": 2, "a.y": 1, "b": 1}

    # ---------------------------------------------------------------- keys

    async def test_events_of_one_key_are_worked_on_one_after_the_other(self, tmp_path: Path) -> None:
        """Sixteen keys, four members: no two events of a key at once, and all of a key in their order."""
        chance, count = random.Random(2), 320
        busy: set[str] = set()
        done: dict[str, list[int]] = defaultdict(list)
        async with self.running(tmp_path, "groups", "keys") as broker, AsyncExitStack() as stack:
            members = [await stack.enter_async_context(broker.consume("t.*")) for _ in range(4)]
            async with anyio.create_task_group() as tasks:

                async def work(events: Subscription) -> None:
                    async for event in events:
                        assert event.key is not None
                        assert event.key not in busy, f"two events of {event.key} at once"
                        busy.add(event.key)
                        await a_moment(chance)
                        busy.remove(event.key)
                        done[event.key].append(event.data)
                        if sum(map(len, done.values())) == count:
                            tasks.cancel_scope.cancel()

                for member in members:
                    tasks.start_soon(work, member)
                for number in range(count):
                    await broker.publish(f"t.{number % 3}", number, key=f"key-{chance.randint(0, 15)}")
        assert sorted(number for numbers in done.values() for number in numbers) == [*range(count)]
        for numbers in done.values():
            assert numbers == sorted(numbers)

    @pytest.mark.parametrize("delayed", [False, True], ids=["at once", "delayed"])
    async def test_what_is_tried_again_keeps_its_place_among_those_of_its_key(
        self, tmp_path: Path, delayed: bool
    ) -> None:
        """A nacked event of a key is done before the later ones of it, also when it is delivered again after a delay."""
        chance, count = random.Random(3), 60
        done: dict[str, list[int]] = defaultdict(list)
        needs = ("groups", "keys", "delay") if delayed else ("groups", "keys")
        async with self.running(tmp_path, *needs) as broker, AsyncExitStack() as stack:
            members = [await stack.enter_async_context(broker.consume("t", ack="manual")) for _ in range(3)]
            async with anyio.create_task_group() as tasks:

                async def work(events: Subscription) -> None:
                    async for delivery in events.deliveries():
                        event = delivery.event
                        await a_moment(chance)
                        if delivery.attempt == 1 and event.data % 3 == 0:
                            await delivery.nack(delay=0.002 if delayed else None)
                            continue
                        done[str(event.key)].append(event.data)
                        await delivery.ack()
                        if sum(map(len, done.values())) == count:
                            tasks.cancel_scope.cancel()

                for member in members:
                    tasks.start_soon(work, member)
                for number in range(count):
                    await broker.publish("t", number, key=f"key-{chance.randint(0, 3)}")
        assert sorted(number for numbers in done.values() for number in numbers) == [*range(count)]
        for numbers in done.values():
            assert numbers == sorted(numbers)

    async def test_a_key_that_is_held_holds_up_no_other_key(self, tmp_path: Path) -> None:
        """While one member works on an event of a key, the other gets the events of all others, and no more of it."""
        async with (
            self.running(tmp_path, "groups", "keys") as broker,
            broker.consume("t", ack="manual") as slow,
            broker.consume("t", ack="manual") as other,
        ):
            await broker.publish("t", 0, key="slow")
            held = await anext(slow.deliveries())
            for number in range(1, 21):
                await broker.publish("t", number, key="slow" if number % 2 else "quick")
            assert await attempts(other, 10) == dict.fromkeys(range(2, 21, 2), 1)
            await held.ack()
            assert await attempts(other, 10) == dict.fromkeys(range(1, 21, 2), 1)
