"""Random histories of a broker, compared with lists: hypothesis draws them and shrinks what fails."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from anyio.from_thread import start_blocking_portal
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from dpcore.events import Event
from dpcore.ports import Broker, Delivery, Subscription
from dpcore.testing.broker.common import patient

__all__ = ("compare_broker",)

T = TypeVar("T")

# The same histories every time: a red suite is red for everybody.  To explain a failure takes longer than to find it.
_SETTINGS = settings(
    derandomize=True,
    deadline=None,
    database=None,
    stateful_step_count=40,
    report_multiple_bugs=False,
    phases=[Phase.generate, Phase.shrink],
)

_TOPICS = st.sampled_from(["a", "a.b", "a.b.c", "b", "$s"])
_SELECTED = {"a": "a", "a.*": "a.b", "a.**": "a.b.c", "**": "b", "b | a.b": "b", "$s": "$s", "$dead.**": "$dead.x"}
_READ = st.sampled_from([*_SELECTED])
_GROUP_READS = {"g": "a.**", "h": "**"}
_GROUPS = st.sampled_from([*_GROUP_READS])
_ANY = st.integers(0, 9)


def _selects(pattern: str, topic: str) -> bool:
    """Tell whether *pattern* selects *topic*, in the plainest way."""
    return any(
        alternative.startswith("$") == topic.startswith("$") and _fits(alternative.split("."), topic.split("."))
        for alternative in map(str.strip, pattern.split("|"))
    )


def _fits(wanted: list[str], found: list[str]) -> bool:
    if not wanted:
        return not found
    if wanted[0] == "**":
        return any(_fits(wanted[1:], found[skip:]) for skip in range(len(found) + 1))
    return bool(found) and fnmatchcase(found[0], wanted[0]) and _fits(wanted[1:], found[1:])


@dataclass
class _Reader:
    """A subscription, and what it must still get of each topic, in order."""

    pattern: str
    real: Subscription
    due: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    @property
    def count(self) -> int:
        return sum(map(len, self.due.values()))

    def got(self, topic: str, number: int) -> None:
        assert self.due[topic], f"{number} on {topic} came to {self.pattern}, to which nothing of it was due"
        assert self.due[topic].pop(0) == number, f"{number} on {topic} came to {self.pattern} out of its order"


@dataclass
class _Entry:
    """An event that a group has not settled."""

    topic: str
    number: int
    attempt: int = 1


@dataclass
class _Member:
    real: Subscription
    deliveries: AsyncIterator[Delivery]
    hand: list[tuple[_Entry, Delivery]] = field(default_factory=list)


@dataclass
class _Group:
    name: str
    waiting: list[_Entry] = field(default_factory=list)
    members: list[_Member] = field(default_factory=list)
    is_shared: bool = False
    """Whether it has ever had several members: a broker may send events to each before it asks, so that they overtake
    each other."""

    def got(self, delivery: Delivery) -> _Entry:
        """Return what was delivered, and take it from what waits."""
        number = delivery.event.data
        found = [one for one in self.waiting if one.number == number]
        assert found, f"{delivery} of {number} came to {self.name}, for which it does not wait"
        entry = found[0]
        assert delivery.attempt == entry.attempt
        assert delivery.event.topic == entry.topic
        if entry.attempt == 1 and not self.is_shared:
            sooner = [one.number for one in self.waiting if (one.topic, one.attempt) == (entry.topic, 1)]
            assert number == sooner[0], f"{number} came to {self.name} before {sooner[0]}"
        self.waiting.remove(entry)
        return entry


def compare_broker(
    capabilities: frozenset[str],
    make: Callable[[Path], Broker],
    tmp_path: Path,
    *,
    examples: int,
    backend: str,
    patience: float,
) -> None:
    """Assert that what comes to readers and groups is what lists would hold, whatever is done."""
    with start_blocking_portal(backend) as portal:

        class History(_History):
            can = capabilities

            def enter(self) -> Broker:
                self.entered = portal.wrap_async_context_manager(make(Path(tempfile.mkdtemp(dir=tmp_path))))
                return self.entered.__enter__()

            def wait(self, work: Callable[..., Awaitable[T]], *arguments: Any, **named: Any) -> T:
                async def patiently() -> T:
                    with patient(patience):
                        return await work(*arguments, **named)

                return portal.call(patiently)

        run_state_machine_as_test(History, settings=settings(_SETTINGS, max_examples=examples))


class _History(RuleBasedStateMachine):
    can: frozenset[str] = frozenset()

    def enter(self) -> Broker:
        raise NotImplementedError

    def wait(self, work: Callable[..., Awaitable[T]], *arguments: Any, **named: Any) -> T:
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        self.broker = self.enter()
        self.log: list[tuple[str, int]] = []
        self.readers: list[_Reader] = []
        self.groups: dict[str, _Group] = {}
        self.number = 0

    # ---------------------------------------------------------------- publishing

    @rule(topic=_TOPICS, many=st.integers(1, 4))
    def publish(self, topic: str, many: int) -> None:
        self._publish(topic, many)

    def _publish(self, topic: str, many: int) -> None:
        numbers = [self.number + one for one in range(many)]
        self.number += many
        if many == 1:
            self.wait(self.broker.publish, topic, numbers[0])
        else:
            self.wait(self.broker.publish_many, topic, numbers)
        for number in numbers:
            self._published(topic, number)

    def _published(self, topic: str, number: int) -> None:
        self.log.append((topic, number))
        for reader in self.readers:
            if _selects(reader.pattern, topic):
                reader.due[topic].append(number)
        for name, group in self.groups.items():
            if _selects(_GROUP_READS[name], topic):
                group.waiting.append(_Entry(topic, number))

    # ---------------------------------------------------------------- readers

    @rule(pattern=_READ, earliest=st.booleans())
    def subscribe(self, pattern: str, earliest: bool) -> None:
        earliest = earliest and "retains" in self.can
        subscription = self.broker.subscribe(pattern, start="earliest" if earliest else "new")
        self.wait(subscription.__aenter__)
        reader = _Reader(pattern, subscription)
        for topic, number in self.log if earliest else ():
            if _selects(pattern, topic):
                reader.due[topic].append(number)
        self.readers.append(reader)

    @precondition(lambda self: any(reader.count for reader in self.readers))
    @rule(which=_ANY, many=st.integers(1, 5))
    def read(self, which: int, many: int) -> None:
        behind = [reader for reader in self.readers if reader.count]
        reader = behind[which % len(behind)]
        for _ in range(min(many, reader.count)):
            event = self.wait(partial(anext, reader.real))
            reader.got(event.topic, event.data)

    @precondition(lambda self: any(reader.count for reader in self.readers))
    @rule(which=_ANY, limit=st.integers(1, 4))
    def read_a_list(self, which: int, limit: int) -> None:
        behind = [reader for reader in self.readers if reader.count]
        reader = behind[which % len(behind)]
        batch = self.wait(self._next_batch, reader.real, limit)
        assert 1 <= len(batch) <= limit
        for event in batch:
            reader.got(event.topic, event.data)

    async def _next_batch(self, events: Subscription, limit: int) -> list[Event]:
        return await anext(events.batches(limit))

    @precondition(lambda self: self.readers)
    @rule(which=_ANY)
    def read_all_and_leave(self, which: int) -> None:
        reader = self.readers[which % len(self.readers)]
        self._publish(_SELECTED[reader.pattern], 1)  # what should not be there comes before it
        while reader.count:
            event = self.wait(partial(anext, reader.real))
            reader.got(event.topic, event.data)
        self.wait(reader.real.__aexit__, None, None, None)
        self.readers.remove(reader)

    # ---------------------------------------------------------------- groups

    @precondition(lambda self: "groups" in self.can)
    @rule(name=_GROUPS)
    def join(self, name: str) -> None:
        subscription = self.broker.consume(_GROUP_READS[name], group=name, ack="manual")
        self.wait(subscription.__aenter__)
        if name not in self.groups:
            past = self.log if "retains" in self.can else []
            entries = [_Entry(*one) for one in past if _selects(_GROUP_READS[name], one[0])]
            self.groups[name] = _Group(name, entries)
        group = self.groups[name]
        group.members.append(_Member(subscription, subscription.deliveries()))
        group.is_shared |= len(group.members) > 1

    @precondition(lambda self: self._ready())
    @rule(which=_ANY, member=_ANY)
    def take(self, which: int, member: int) -> None:
        ready = self._ready()
        group = ready[which % len(ready)]
        reader = group.members[member % len(group.members)]
        delivery = self.wait(partial(anext, reader.deliveries))
        reader.hand.append((group.got(delivery), delivery))

    def _ready(self) -> list[_Group]:
        return [group for group in self.groups.values() if group.waiting and group.members]

    def _holding(self) -> list[tuple[_Group, _Member]]:
        return [(group, member) for group in self.groups.values() for member in group.members if member.hand]

    @precondition(lambda self: self._holding())
    @rule(which=_ANY, place=_ANY, how=st.sampled_from(["ack", "ack", "nack", "reject"]))
    def settle(self, which: int, place: int, how: str) -> None:
        holding = self._holding()
        group, member = holding[which % len(holding)]
        entry, delivery = member.hand.pop(place % len(member.hand))
        self._settle(group, entry, delivery, how)

    def _settle(self, group: _Group, entry: _Entry, delivery: Delivery, how: str) -> None:
        if how == "nack" and entry.attempt == 1:  # more often, and it might be too often
            self.wait(delivery.nack)
            self._again(group, entry)
        elif how == "reject":
            self.wait(delivery.reject, "no")
            self._published(f"$dead.{group.name}.{entry.topic}", entry.number)
        else:
            self.wait(delivery.ack)

    def _again(self, group: _Group, entry: _Entry) -> None:
        entry.attempt += 1
        group.waiting.append(entry)

    @precondition(lambda self: any(group.members for group in self.groups.values()))
    @rule(which=_ANY)
    def leave(self, which: int) -> None:
        members = [(group, member) for group in self.groups.values() for member in group.members]
        group, member = members[which % len(members)]
        for entry, delivery in [one for one in member.hand if one[0].attempt > 1]:
            member.hand.remove((entry, delivery))
            self._settle(group, entry, delivery, "ack")
        self.wait(member.real.__aexit__, None, None, None)
        group.members.remove(member)
        for entry, _ in member.hand:
            self._again(group, entry)

    @precondition(lambda self: self._ready())
    @rule(which=_ANY)
    def work_on_all(self, which: int) -> None:
        ready = self._ready()
        group = ready[which % len(ready)]
        self._publish(_SELECTED[_GROUP_READS[group.name]], 1)
        while group.waiting:
            delivery = self.wait(partial(anext, group.members[-1].deliveries))
            self._settle(group, group.got(delivery), delivery, "ack")

    def teardown(self) -> None:
        if not hasattr(self, "broker"):
            return
        for reader in self.readers:
            self.wait(reader.real.__aexit__, None, None, None)
        for group in self.groups.values():
            for member in group.members:
                self.wait(member.real.__aexit__, None, None, None)
        self.entered.__exit__(None, None, None)  # type: ignore[attr-defined]
