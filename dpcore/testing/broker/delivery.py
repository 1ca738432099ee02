"""What everybody who subscribes may rely on: what comes, in which order, and of which topics."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from dpcore.errors import ArgumentError, PayloadError, TopicError
from dpcore.events import Event
from dpcore.ports import Broker
from dpcore.testing.broker.common import Promises, Trouble, data, patient, read_to

__all__ = ("Delivering",)

_PAYLOADS: Mapping[str, Callable[[], Any]] = {
    "None": lambda: None,
    "a truth": lambda: False,
    "a number": lambda: -(2**62),
    "a fraction": lambda: 0.1,
    "text": lambda: "größer\n\0\u2028 🜁",
    "no text": lambda: "",
    "bytes": lambda: b"\x80\x05\0 raw",
    "1 MiB": lambda: bytes(range(256)) * 4096,
    "a list": lambda: [1, [2.5, None], [], "x", [b"y"]],
    "a table": lambda: {"a": {"b": [1, {"c": None}]}, "": {}},
}

_TOPICS = ("a", "b", "A", "a.b", "a.c", "a.b.c", "a.b.c.d", "b.a", "data-1", "data-x.y", "größe.売上", "$s", "$s.a")

_PATTERNS: Mapping[tuple[str, ...], str] = {
    ("a",): "a",
    ("A",): "A",
    ("c",): "",
    ("a.b",): "a.b",
    ("*",): "a b A data-1",
    ("a.*",): "a.b a.c",
    ("*.*",): "a.b a.c b.a data-x.y größe.売上",
    ("*.b",): "a.b",
    ("**",): "a b A a.b a.c a.b.c a.b.c.d b.a data-1 data-x.y größe.売上",
    ("a.**",): "a a.b a.c a.b.c a.b.c.d",
    ("**.c",): "a.c a.b.c",
    ("a.**.b",): "a.b",
    ("a.**.d",): "a.b.c.d",
    ("**.b.**",): "b a.b a.b.c a.b.c.d b.a",
    ("a.*.c",): "a.b.c",
    ("a.*.*",): "a.b.c",
    ("a.*.**",): "a.b a.c a.b.c a.b.c.d",
    ("data-*",): "data-1",
    ("data-*.**",): "data-1 data-x.y",
    ("*-1",): "data-1",
    ("d*a-*.y",): "data-x.y",
    ("größe.*",): "größe.売上",
    ("a|b",): "a b",
    ("a.b | b.* | $s",): "a.b b.a $s",
    ("$s",): "$s",
    ("$*",): "$s",
    ("$s.*",): "$s.a",
    ("$s.**",): "$s $s.a",
    ("$*.**",): "$s $s.a",
    ("a.*", "*.b", "a.b", "**.c"): "a.b a.c a.b.c",
    ("**", "$s.**"): " ".join(_TOPICS),
}


@dataclass
class _Order:
    number: int
    name: str = ""


class Delivering(Promises, suite=True):
    """Publishing and reading without a group."""

    # ---------------------------------------------------------------- events

    async def test_events_come_in_the_order_in_which_they_were_published(self, tmp_path: Path) -> None:
        """One by one and many at once; each is the very event that publish returned."""
        async with self.running(tmp_path) as broker, broker.subscribe("t") as events:
            published: list[Event] = []
            for turn in range(8):
                published += [await broker.publish("t", (turn * 100) + number) for number in range(50)]
                published += await broker.publish_many("t", [(turn * 100) + number for number in range(50, 100)])
            assert [await anext(events) for _ in published] == published
            assert [event.data for event in published] == [*range(800)]

    @pytest.mark.parametrize("payload", _PAYLOADS)
    async def test_a_payload_comes_as_it_was_published(self, tmp_path: Path, payload: str) -> None:
        """None, text of any script, bytes, a megabyte, nested: equal, and of the same type."""
        async with self.running(tmp_path) as broker, broker.subscribe("t") as events:
            await broker.publish("t", _PAYLOADS[payload]())
            await broker.publish_many("t", [_PAYLOADS[payload]()])
            for found in await data(events, 2):
                assert type(found) is type(_PAYLOADS[payload]())
                assert found == _PAYLOADS[payload]()

    async def test_key_type_and_headers_come_as_they_were(self, tmp_path: Path) -> None:
        """And are what they were when publish was called, whatever becomes of the caller's own dict."""
        headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "größe": "\n 🜁", "": ""}
        async with self.running(tmp_path) as broker, broker.subscribe("t") as events:
            key = "eu" if "keys" in broker.capabilities else None
            published = await broker.publish("t", 1, key=key, type="Paid", headers=headers)
            wanted = dict(headers)
            headers["later"] = "no"
            (found,) = [await anext(events)]
            assert found == published
            assert (found.key, found.type, dict(found.headers or {})) == (key, "Paid", wanted)
            (many,) = await broker.publish_many("t", [2], key=key, type="Paid", headers=wanted)
            assert await anext(events) == many
            assert (many.key, many.type, dict(many.headers or {})) == (key, "Paid", wanted)

    async def test_what_is_published_is_stamped(self, tmp_path: Path) -> None:
        """With the source of the broker, the time, and an id that nobody else has and that is greater than the last."""
        async with self.running(tmp_path) as broker, broker.subscribe("**") as events:
            before = time.time()
            published = [await broker.publish("a", number) for number in range(20)]
            published += await broker.publish_many("b", range(20))
            published += [await broker.publish("a", None)]
            after = time.time()
            ids = [event.id for event in published]
            assert ids == sorted(set(ids))
            assert all(before - 0.001 <= event.time <= after + 0.001 for event in published)
            assert {event.source for event in published} == {broker.source}
            assert broker.source
            assert {event.id for event in [await anext(events) for _ in published]} == set(ids)

    async def test_ids_increase_within_a_source(self, tmp_path: Path) -> None:
        """Also where a broker is entered again, or another one in the same process: that is another source."""
        broker, found = self.make(tmp_path), dict[str, list[str]]()
        with patient(self.patience):
            for _ in range(8):
                async with broker:
                    for event in await broker.publish_many("t", range(3)):
                        found.setdefault(event.source, []).append(event.id)
            broker.source = "urn:shop"
            async with broker:
                assert (await broker.publish("t", 1)).source == "urn:shop"
                broker.source = "urn:other"
                assert {event.source for event in await broker.publish_many("t", [2])} == {"urn:other"}
        assert all(ids == sorted(ids) for ids in found.values())

    async def test_an_event_of_ones_own_keeps_what_it_has(self, tmp_path: Path) -> None:
        """Its id, time and source; what it lacks is stamped."""
        async with self.running(tmp_path) as broker, broker.subscribe("t") as events:
            mine = Event("t", [1], id="mine-1", time=5.5, source="shop", type="Paid", headers={"a": "b"})
            assert await broker.publish(mine) == mine
            other = await broker.publish(Event("t", [2], id="mine-2"))
            assert (other.id, other.source) == ("mine-2", broker.source)
            assert other.time > 0
            many = await broker.publish_many([mine, Event("t", [3])])
            assert many[0] == mine
            assert many[1].id
            assert [await anext(events) for _ in range(4)] == [mine, other, *many]

    async def test_what_cannot_be_published_is_refused_and_nothing_is_sent(self, tmp_path: Path) -> None:
        """A topic that is a pattern or none at all, arguments of the wrong type; the broker goes on."""
        async with self.running(tmp_path) as broker, broker.subscribe("**") as events:
            for topic in ("a.*", "a..b", "", ".a", "a|b", "a b"):
                with pytest.raises(TopicError, match="the topic "):
                    await broker.publish(topic, 1)
                with pytest.raises(TopicError):
                    await broker.publish_many(topic, [1])
            with pytest.raises(ArgumentError, match="headers="):
                await broker.publish("t", 1, headers={"a": 1})  # type: ignore[dict-item]
            with pytest.raises(ArgumentError, match="data="):
                await broker.publish_many("t", "text")
            with pytest.raises(TopicError, match="the pattern "):
                broker.subscribe("a.b**")
            with pytest.raises(ArgumentError, match="patterns="):
                broker.subscribe()
            await broker.publish("t", "last")
            assert await read_to(events, "last") == []

    async def test_a_payload_that_cannot_travel_is_refused_by_publish(self, tmp_path: Path) -> None:
        """Where it is asked to be strict, or has to, because it crosses processes; and nothing is sent."""
        broker = self.make(tmp_path)
        broker.strict = "processes" not in broker.capabilities
        with patient(self.patience):
            async with broker, broker.subscribe("t") as events:
                with pytest.raises(PayloadError):
                    await broker.publish("t", {"lock": object()})
                with pytest.raises(PayloadError):
                    await broker.publish_many("t", [1, object()])
                await broker.publish("t", "last")
                assert await read_to(events, "last") in ([], [1])

    # ---------------------------------------------------------------- who sees what

    async def test_every_subscription_sees_every_event(self, tmp_path: Path) -> None:
        """Ten of them, each in order, whatever the others do; also one whose reader comes late."""
        async with self.running(tmp_path) as broker, AsyncExitStack() as stack:
            readers = [await stack.enter_async_context(broker.subscribe("t", "u")) for _ in range(10)]
            for number in range(100):
                await broker.publish("t", number)
            for reader in readers:
                assert await data(reader, 100) == [*range(100)]
                assert reader.dropped == 0

    async def test_patterns_select_topics(self, tmp_path: Path) -> None:
        """Wildcards of one and of any number of segments, alternatives, topics of the platform's own; each event once."""
        async with self.running(tmp_path) as broker, AsyncExitStack() as stack:
            readers = {
                patterns: await stack.enter_async_context(broker.subscribe(*patterns, "the.end"))
                for patterns in _PATTERNS
            }
            for topic in _TOPICS:
                await broker.publish(topic, topic)
            await broker.publish("the.end", "the.end")
            for patterns, reader in readers.items():
                wanted = [*_PATTERNS[patterns].split(), "the.end"]
                found = Counter(await data(reader, len(wanted)))
                assert found == Counter(wanted), f"{patterns} gave {sorted(found)}"
            await broker.publish("the.end", "nothing between")
            for patterns, reader in readers.items():
                assert await data(reader, 1) == ["nothing between"], f"{patterns} gave something twice"

    async def test_a_subscription_is_active_when_it_is_entered(self, tmp_path: Path) -> None:
        """What is published right then is seen, every time, and nothing from before or after."""
        async with self.running(tmp_path) as broker:
            for number in range(100):
                subscription = broker.subscribe("t", "u.*")
                await broker.publish("t", ("before", number))
                async with subscription as events:
                    await broker.publish("u.x" if number % 2 else "t", ("in", number))
                    assert [tuple(found) for found in await data(events, 1)] == [("in", number)]
                await broker.publish("t", ("after", number))

    async def test_one_that_was_left_early_takes_nothing_from_the_others(self, tmp_path: Path) -> None:
        """Neither with a break, nor with an exception that nobody handled in it."""
        async with self.running(tmp_path) as broker, broker.subscribe("t") as events:
            async with broker.subscribe("t") as other:
                await broker.publish_many("t", range(10))
                async for event in other:
                    if event.data == 3:
                        break
                assert await data(other, 2) == [4, 5]
            with pytest.raises(Trouble):
                await self._read_and_raise(broker)
            await broker.publish("t", 11)
            assert await data(events, 12) == [*range(12)]

    async def test_lists_of_events_come_in_order_and_no_longer_than_asked(self, tmp_path: Path) -> None:
        """Each has at least one; what a list left is in the next; ending the iteration takes nothing away."""
        async with self.running(tmp_path) as broker, broker.subscribe("t") as events:
            await broker.publish_many("t", range(100))
            found: list[int] = []
            async for batch in events.batches(limit=7):
                assert 1 <= len(batch) <= 7
                found += [event.data for event in batch]
                if len(found) >= 50:
                    break
            found += await data(events, 3)
            async for batch in events.batches():
                found += [event.data for event in batch]
                if len(found) >= 100:
                    break
            assert found == [*range(100)]

    async def _read_and_raise(self, broker: Broker) -> None:
        async with broker.subscribe("t") as other:
            await broker.publish("t", 10)
            async for _ in other:
                raise Trouble

    # ---------------------------------------------------------------- payloads of a type

    async def test_payloads_come_as_the_type_that_is_asked_for(self, tmp_path: Path) -> None:
        """What does not fit is left out and counted; others get it as it is."""
        async with (
            self.running(tmp_path) as broker,
            broker.subscribe("t", type=_Order) as orders,
            broker.subscribe("t") as raw,
        ):
            await broker.publish("t", {"number": 1, "name": "bolt"})
            await broker.publish("t", {"number": "many"})
            await broker.publish("t", "no order")
            await broker.publish("t", {"number": 2})
            assert await data(orders, 2) == [_Order(1, "bolt"), _Order(2)]
            assert orders.unfit == 2
            assert len(await data(raw, 4)) == 4
            await broker.publish_many("t", [None, {"number": 3}])
            (batch,) = [await anext(orders.batches())]
            assert [event.data for event in batch] == [_Order(3)]
            assert (orders.unfit, orders.dropped) == (3, 0)

    # ---------------------------------------------------------------- what is kept

    async def test_earliest_begins_with_what_is_retained(self, tmp_path: Path) -> None:
        """And goes on with what comes, without a gap and without a repetition; each topic in its order."""
        async with self.running(tmp_path, "retains") as broker:
            for number in range(20):
                await broker.publish(f"t.{number % 2}", number)
            async with broker.subscribe("t.*", start="earliest") as events, broker.subscribe("t.*") as new:
                for number in range(20, 40):
                    await broker.publish(f"t.{number % 2}", number)
                found = await data(events, 40)
                assert [number for number in found if number % 2] == [*range(1, 40, 2)]
                assert [number for number in found if not number % 2] == [*range(0, 40, 2)]
                assert sorted(await data(new, 20)) == [*range(20, 40)]

    async def test_what_is_retained_of_a_topic_is_the_latest(self, tmp_path: Path) -> None:
        """The end of what was published, without a gap, and no more than it retains."""
        async with self.running(tmp_path, "retains") as broker:
            count = self.retained + 500
            await broker.publish_many("t", range(count))
            async with broker.subscribe("t", start="earliest", buffer=count) as events:
                await broker.publish("t", "last")
                found = await read_to(events, "last")
                assert 1 <= len(found) <= self.retained
                assert found == [*range(count - len(found), count)]
                assert events.dropped == 0

    # ---------------------------------------------------------------- topics

    async def test_topics_are_those_that_were_declared_or_published_to(self, tmp_path: Path) -> None:
        """Not those that somebody only reads."""
        async with self.running(tmp_path, "groups") as broker, broker.subscribe("read.only", "any.*"):
            assert await broker.topics() == []
            await broker.publish("any.thing", 1)
            await broker.declare("orders.eu")
            await broker.declare("any.thing")
            assert sorted(await broker.topics()) == ["any.thing", "orders.eu"]

    async def test_publishing_to_a_pattern_reaches_each_topic_that_is_known(self, tmp_path: Path) -> None:
        """Each gets an event of its own; where there is no such topic, none."""
        async with self.running(tmp_path) as broker, broker.subscribe("**", "$s") as events:
            for topic in ("a.x", "a.y", "b.x", "$s"):
                await broker.publish(topic, "first")
            assert await broker.publish_matching("c.*", 1) == []
            assert await broker.publish_matching("*", 1) == []
            published = await broker.publish_matching("a.*", "both", headers={"k": "v"})
            assert sorted(event.topic for event in published) == ["a.x", "a.y"]
            assert len({event.id for event in published}) == 2
            found = [await anext(events) for _ in range(6)]
            assert [event.topic for event in found if event.data == "both"] == [event.topic for event in published]
            assert all(event.headers == {"k": "v"} for event in published)

    async def test_publishing_to_a_pattern_leaves_out_topics_that_are_completed(self, tmp_path: Path) -> None:
        """The others get it, those after them too; where all are completed, none does."""
        async with self.running(tmp_path, "completes") as broker, broker.subscribe("t.*") as events:
            for name in "abc":
                await broker.publish(f"t.{name}", name)
            await broker.complete("t.b")
            published = await broker.publish_matching("t.*", "more")
            assert sorted(event.topic for event in published) == ["t.a", "t.c"]
            assert await data(events, 5) == ["a", "b", "c", "more", "more"]
            assert await broker.publish_matching("t.b", "refused") == []

    # ---------------------------------------------------------------- observers

    async def test_whoever_observes_is_told_of_each_published_event_once(self, tmp_path: Path) -> None:
        """By whichever way it was published; not of what was refused."""
        broker = self.make(tmp_path)
        seen: list[Event] = []
        broker.on_published = [seen.append]
        with patient(self.patience):
            async with broker, broker.subscribe("t", "u") as events:
                published = [await broker.publish("t", 0), await broker.publish("u", 1)]
                published += await broker.publish_many("t", [2, 3])
                published += await broker.publish_matching("*", 4)
                published += [await anyio.to_thread.run_sync(broker.publish_from_thread, "t", 5)]
                with pytest.raises(TopicError):
                    await broker.publish("*", 6)
                assert len([await anext(events) for _ in published]) == 7
                await self.until(lambda: len(seen) >= 7)
        assert sorted(event.id for event in seen) == sorted(event.id for event in published)
