"""What becomes of an event that a group has delivered: acked, delivered again, or a dead letter."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import pytest

from dpcore.errors import ArgumentError, DeliveryError, SubscriptionError, UnsupportedError
from dpcore.events import Event
from dpcore.groups import Overflow
from dpcore.ports import Broker, Subscription
from dpcore.testing.broker.common import Promises, Trouble, attempts, data, patient, read_to

__all__ = ("Settling",)


@dataclass
class _Order:
    number: int


@dataclass
class _Picky:
    number: int

    def __post_init__(self) -> None:
        if self.number == 7:
            raise ValueError("no caf\udce9")


async def _with_a_break(events: Subscription) -> None:
    async for event in events:
        if event.data == 2:
            break


async def _with_an_exception(events: Subscription) -> None:
    async for event in events:
        if event.data == 2:
            raise Trouble


async def _cancelled(events: Subscription) -> None:
    with anyio.CancelScope() as scope:
        async for event in events:
            if event.data == 2:
                scope.cancel()
                await anyio.sleep_forever()
    if scope.cancelled_caught:
        raise Trouble  # the block is left as a cancelled one is


async def _a_list_with_a_break(events: Subscription) -> None:
    async for _ in events.batches(limit=3):
        break


async def _a_list_with_an_exception(events: Subscription) -> None:
    async for _ in events.batches(limit=3):
        raise Trouble


# How a subscription to five events is left, and which attempt each of them is after that; what is not there was acked.
_LEAVING: dict[str, tuple[Callable[[Subscription], Awaitable[None]], dict[int, int]]] = {
    "with a break": (_with_a_break, {3: 1, 4: 1}),
    "with an exception": (_with_an_exception, {2: 2, 3: 1, 4: 1}),
    "cancelled": (_cancelled, {2: 2, 3: 1, 4: 1}),
    "a list, with a break": (_a_list_with_a_break, {3: 1, 4: 1}),
    "a list, with an exception": (_a_list_with_an_exception, {0: 2, 1: 2, 2: 2, 3: 1, 4: 1}),
}


class Settling(Promises, suite=True):
    """Acks, nacks and dead letters."""

    # ---------------------------------------------------------------- by itself

    @pytest.mark.parametrize("how", _LEAVING)
    async def test_what_is_in_hand_is_settled_by_how_the_subscription_is_left(self, tmp_path: Path, how: str) -> None:
        """A break acks it; an exception or cancellation has it delivered again; what was not begun goes back as it was."""
        leave, left = _LEAVING[how]
        async with self.running(tmp_path, "groups") as broker:
            await broker.declare("t", groups=["default"])
            await broker.publish_many("t", range(5))
            try:
                async with broker.consume("t") as events:
                    await leave(events)
            except Trouble:
                pass
            async with broker.consume("t", ack="manual") as again:
                assert await attempts(again, len(left)) == left
                await broker.publish("t", "last")
                assert await attempts(again, 1) == {"last": 1}

    async def test_a_member_that_is_cancelled_gives_back_what_it_has_in_hand(self, tmp_path: Path) -> None:
        """To those that wait already, as the next attempt."""
        async with self.running(tmp_path, "groups") as broker, broker.consume("t", ack="manual") as other:
            got: dict[Any, int] = {}

            async def wait() -> None:
                got.update(await attempts(other, 2))

            async with anyio.create_task_group() as tasks:
                with anyio.CancelScope() as scope:
                    async with broker.consume("t") as events:
                        await broker.publish("t", 0)
                        assert await data(events, 1) == [0]
                        tasks.start_soon(wait)
                        await broker.publish("t", 1)
                        scope.cancel()
                        await anyio.sleep_forever()
            assert got == {0: 2, 1: 1}

    async def test_what_was_acked_is_not_delivered_again(self, tmp_path: Path) -> None:
        """Not to the same member, to a new one, or after others were nacked."""
        async with self.running(tmp_path, "groups") as broker:
            async with broker.consume("t") as events:
                await broker.publish_many("t", range(10))
                assert await data(events, 10) == [*range(10)]
            async with broker.consume("t", ack="manual") as events:
                await broker.publish("t", 10)
                delivery = await anext(events.deliveries())
                assert delivery.event.data == 10
                await delivery.nack()
                assert await attempts(events, 1) == {10: 2}
                await broker.publish("t", "last")
                assert await attempts(events, 1) == {"last": 1}

    # ---------------------------------------------------------------- by hand

    async def test_what_is_nacked_is_delivered_again_as_the_next_attempt(self, tmp_path: Path) -> None:
        """The same event, with its id, whichever member gets it."""
        async with (
            self.running(tmp_path, "groups") as broker,
            broker.consume("t", ack="manual") as one,
            broker.consume("t", ack="manual") as two,
        ):
            published = await broker.publish("t", {"n": 1}, headers={"a": "b"})
            first = await anext(one.deliveries())
            assert (first.event, first.attempt, first.settled) == (published, 1, False)
            await first.nack()
            assert first.settled
            second = await anext(two.deliveries())
            assert (second.event, second.attempt) == (published, 2)
            await second.ack()

    async def test_each_delivery_is_settled_by_itself(self, tmp_path: Path) -> None:
        """In any order; only those that were nacked, or not settled when the subscription was left, come again."""
        async with self.running(tmp_path, "groups") as broker:
            async with broker.consume("t", ack="manual") as events:
                await broker.publish_many("t", range(6))
                deliveries = events.deliveries()
                held = [await anext(deliveries) for _ in range(6)]
                await held[4].ack()
                await held[1].ack()
                await held[3].nack()
            async with broker.consume("t", ack="manual") as events:
                assert await attempts(events, 4) == {0: 2, 2: 2, 3: 2, 5: 2}

    async def test_a_delivery_is_settled_once(self, tmp_path: Path) -> None:
        """Once more is a DeliveryError, as it is when its subscription was left."""
        async with self.running(tmp_path, "groups") as broker:
            async with broker.consume("t", ack="manual") as events:
                await broker.publish_many("t", range(2))
                deliveries = events.deliveries()
                first, second = await anext(deliveries), await anext(deliveries)
                await first.ack()
                for again in (first.ack, first.nack, first.reject):
                    with pytest.raises(DeliveryError, match="was acked before"):
                        await again()
            with pytest.raises(DeliveryError, match=r"went back|was nacked|given back"):
                await second.ack()
            async with broker.consume("t", ack="manual") as events:
                assert await attempts(events, 1) == {1: 2}

    async def test_by_hand_there_are_deliveries_only(self, tmp_path: Path) -> None:
        """Asking a subscription with ack='manual' for events, which nobody could ack, is a SubscriptionError."""
        async with self.running(tmp_path, "groups") as broker, broker.consume("t", ack="manual") as events:
            with pytest.raises(SubscriptionError, match=r"use \.deliveries"):
                aiter(events)
            with pytest.raises(SubscriptionError, match=r"use \.deliveries"):
                events.batches()

    async def test_without_a_group_there_is_nothing_to_give_back(self, tmp_path: Path) -> None:
        """Each delivery is the first attempt, an ack changes nothing, and the rest raises UnsupportedError."""
        async with self.running(tmp_path) as broker, broker.subscribe("t") as events:
            await broker.publish_many("t", range(2))
            deliveries = events.deliveries()
            first, second = await anext(deliveries), await anext(deliveries)
            assert (first.attempt, second.attempt) == (1, 1)
            await first.ack()
            for refused in (second.nack, second.reject):
                with pytest.raises(UnsupportedError, match="groups"):
                    await refused()

    async def test_a_reason_or_a_delay_that_is_none_is_refused_and_the_delivery_goes_on(self, tmp_path: Path) -> None:
        """As an ArgumentError, before anything is said to the broker; a reason that no file takes is escaped."""
        async with (
            self.running(tmp_path, "groups") as broker,
            broker.subscribe("$dead.**") as dead,
            broker.consume("t", ack="manual") as events,
        ):
            await broker.publish_many("t", range(2))
            delivery = await anext(events.deliveries())
            for reason in (None, 7, b"no", ValueError("no")):
                with pytest.raises(ArgumentError, match=r"^reason=.* must be a str"):
                    await delivery.reject(reason)  # type: ignore[arg-type]
            for delay in (-1, math.inf, math.nan, 10**400, "1", True, Decimal(1)):
                with pytest.raises(ArgumentError, match=r"^delay=.* must be a finite number of seconds, at least 0"):
                    await delivery.nack(delay)  # type: ignore[arg-type]
            assert not delivery.settled
            await delivery.reject("caf\udce9")
            letter = await anext(dead)
            assert letter.headers is not None
            assert letter.headers["dead-letter-reason"] == "caf\\udce9"
            assert await attempts(events, 1) == {1: 1}

    # ---------------------------------------------------------------- delays

    async def test_what_is_nacked_with_a_delay_comes_no_sooner(self, tmp_path: Path) -> None:
        """Others come meanwhile; of two, that with the shorter delay comes first; where it cannot, it is told."""
        async with self.running(tmp_path, "groups") as broker, broker.consume("t", ack="manual") as events:
            deliveries = events.deliveries()
            await broker.publish_many("t", ["long", "short", "none"])
            for delay in (0.2, 0.1):
                delivery = await anext(deliveries)
                if "delay" not in broker.capabilities:
                    with pytest.raises(UnsupportedError, match="delay"):
                        await delivery.nack(delay=delay)
                    await delivery.ack()
                    continue
                await delivery.nack(delay=delay)
            since = time.monotonic()
            assert await attempts(events, 1) == {"none": 1}
            if "delay" in broker.capabilities:
                assert await attempts(events, 1) == {"short": 2}
                assert time.monotonic() - since > 0.09  # some of it has passed when the clock is asked first
                assert await attempts(events, 1) == {"long": 2}
                assert time.monotonic() - since > 0.19

    # ---------------------------------------------------------------- dead letters

    async def test_what_is_rejected_is_a_dead_letter(self, tmp_path: Path) -> None:
        """On $dead.GROUP.TOPIC, with its payload, its headers, the reason and where it came from; it comes no more."""
        async with (
            self.running(tmp_path, "groups") as broker,
            broker.subscribe("$dead.**") as dead,
            broker.consume("orders.eu", group="billing", ack="manual") as events,
        ):
            key = "eu" if "keys" in broker.capabilities else None
            published = await broker.publish("orders.eu", {"n": 1}, headers={"a": "b"}, key=key, type="Paid")
            await (await anext(events.deliveries())).reject("no such customer")
            letter = await anext(dead)
            assert letter.topic == "$dead.billing.orders.eu"
            assert (letter.data, letter.key, letter.type) == (published.data, key, "Paid")
            assert letter.headers == {
                "a": "b",
                "dead-letter-reason": "no such customer",
                "dead-letter-group": "billing",
                "dead-letter-topic": "orders.eu",
                "dead-letter-attempts": "1",
            }
            await broker.publish("orders.eu", "last")
            assert await attempts(events, 1) == {"last": 1}

    async def test_what_is_delivered_too_often_is_a_dead_letter(self, tmp_path: Path) -> None:
        """After so many attempts, one after the other; the letter says how many, and that this is why."""
        async with (
            self.running(tmp_path, "groups") as broker,
            broker.subscribe("$dead.default.*") as dead,
            broker.consume("t", ack="manual") as events,
        ):
            tried: list[int] = []
            await broker.publish("t", 1)
            async with anyio.create_task_group() as tasks:

                async def try_again() -> None:
                    async for delivery in events.deliveries():
                        tried.append(delivery.attempt)
                        assert len(tried) < 1000, "it is delivered for ever"
                        await delivery.nack()

                tasks.start_soon(try_again)
                letter = await anext(dead)
                tasks.cancel_scope.cancel()
            assert tried == [*range(1, len(tried) + 1)]
            assert letter.data == 1
            assert letter.headers is not None
            assert letter.headers["dead-letter-attempts"] == str(len(tried))
            assert "too often" in letter.headers["dead-letter-reason"]
            await broker.publish("t", "last")
            assert await attempts(events, 1) == {"last": 1}

    async def test_dead_letters_are_events_like_others(self, tmp_path: Path) -> None:
        """A group may read them, and each group that gives up an event has its own; a topic may be as long as any."""
        long = "x" * 245 + "." + "y" * 250
        async with (
            self.running(tmp_path, "groups") as broker,
            broker.consume("$dead.**", group="morgue") as dead,
            broker.consume("t", long, group="red", ack="manual") as red,
            broker.consume("t", group="blue", ack="manual") as blue,
        ):
            await broker.publish("t", 1)
            await broker.publish(long, 2)
            for delivery in [await anext(red.deliveries()), await anext(blue.deliveries())]:
                await delivery.reject()
            await (await anext(red.deliveries())).reject()
            letters = [await anext(dead) for _ in range(3)]
            assert Counter((letter.data, (letter.headers or {})["dead-letter-topic"]) for letter in letters) == {
                (1, "t"): 2,
                (2, long): 1,
            }
            assert {letter.topic for letter in letters} >= {"$dead.red.t", "$dead.blue.t"}
            assert len({letter.id for letter in letters}) == 3

    async def test_a_dead_letter_is_buried_once(self, tmp_path: Path) -> None:
        """One that is rejected is gone, so that a group that reads all of them comes to an end."""
        async with (
            self.running(tmp_path, "groups") as broker,
            broker.consume("t", ack="manual") as events,
            broker.consume("$dead.**", group="morgue", ack="manual") as dead,
        ):
            deliveries, letters = events.deliveries(), dead.deliveries()
            for number in range(3):
                await broker.publish("t", number)
                await (await anext(deliveries)).reject("it is odd")
                letter = await anext(letters)
                assert (letter.event.topic, letter.event.data) == ("$dead.default.t", number)
                await letter.reject("nobody wants it")
            await broker.publish("$dead.last", "last")
            assert await attempts(dead, 1) == {"last": 1}

    @pytest.mark.parametrize("overflow", ["block", "error", "drop_oldest"])
    async def test_dead_letters_keep_to_the_room_of_who_reads_them(self, tmp_path: Path, overflow: Overflow) -> None:
        """Since nobody can be made to wait, the oldest is dropped, and counted; a broker may have one more on its way."""
        needs = ("groups",) if overflow == "drop_oldest" else ("groups", "blocks")
        async with (
            self.running(tmp_path, *needs) as broker,
            broker.subscribe("$dead.**", buffer=5, overflow=overflow) as dead,
            broker.subscribe("$dead.**") as all_of_them,
            broker.consume("t", ack="manual") as events,
        ):
            await broker.publish_many("t", range(30))
            deliveries = events.deliveries()
            for _ in range(30):
                await (await anext(deliveries)).reject()
            assert await data(all_of_them, 30) == [*range(30)]
            found = [*await read_to(dead, 29), 29]
            assert found == sorted(found)
            assert len(found) <= 6
            await self.until(lambda: dead.dropped == 30 - len(found))

    async def test_a_payload_of_another_type_is_a_dead_letter(self, tmp_path: Path) -> None:
        """Where a group asks for a type; the reason says what is wrong, and the member gets the next one that fits."""
        async with (
            self.running(tmp_path, "groups") as broker,
            broker.subscribe("$dead.**") as dead,
            broker.consume("t", type=_Order) as orders,
        ):
            for payload in ({"number": 1}, {"number": "many"}, {"number": 2}, None):
                await broker.publish("t", payload)
            assert await data(orders, 2) == [_Order(1), _Order(2)]
            await broker.publish("t", {"number": 3})
            (batch,) = [await anext(orders.batches())]
            assert [event.data for event in batch] == [_Order(3)]
            assert orders.unfit == 2
            letters = [await anext(dead) for _ in range(2)]
            assert [letter.data for letter in letters] == [{"number": "many"}, None]
            assert "number" in (letters[0].headers or {})["dead-letter-reason"]

    async def test_the_words_of_a_type_that_refuses_a_payload_are_escaped_where_no_file_takes_them(
        self, tmp_path: Path
    ) -> None:
        """As those that are given with a rejection; the next event comes all the same."""
        async with (
            self.running(tmp_path, "groups") as broker,
            broker.subscribe("$dead.**") as dead,
            broker.consume("t", type=_Picky) as events,
        ):
            await broker.publish_many("t", [{"number": 7}, {"number": 1}])
            assert await data(events, 1) == [_Picky(1)]
            assert "no caf\\udce9" in ((await anext(dead)).headers or {})["dead-letter-reason"]

    # ---------------------------------------------------------------- observers

    async def test_whoever_observes_is_told_of_each_settled_delivery_once(self, tmp_path: Path) -> None:
        """Which event, of which group, and how: by itself, by hand, in lists, and when a subscription is left."""
        broker = self.able(tmp_path, "groups")
        seen: list[tuple[Any, str, str]] = []

        def note(event: Event, group: str, how: str) -> None:
            seen.append((event.data, group, how))

        broker.on_settled = [note]
        with patient(self.patience):
            async with broker:
                await self._settle_in_all_ways(broker)
        assert Counter(seen) == {
            (0, "a", "ack"): 1,
            (1, "a", "ack"): 1,
            (0, "b", "ack"): 1,
            (1, "b", "reject"): 1,
            (0, "c", "nack"): 2,
            (1, "c", "nack"): 1,
        }

    async def _settle_in_all_ways(self, broker: Broker) -> None:
        await broker.declare("t", groups=["a", "b", "c"])
        async with broker.subscribe("t"):
            await broker.publish_many("t", range(2))
        async with broker.consume("t", group="a") as events:
            await data(events, 2)
        async with broker.consume("t", group="b", ack="manual") as events:
            deliveries = events.deliveries()
            await (await anext(deliveries)).ack()
            await (await anext(deliveries)).reject("no")
        async with broker.consume("t", group="c", ack="manual") as events:
            deliveries = events.deliveries()
            await (await anext(deliveries)).nack()
            again = [await anext(deliveries), await anext(deliveries)]
            assert sorted(delivery.event.data for delivery in again) == [0, 1]
