"""Subscriptions as the hub has them: what may be sent to whom, and when."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from dpcore import Exchange, Group, Member, Reader, Settlement
from dpcore_plugins.brokers.multiprocess.sheaves import bodies, fitting, opened, weight
from dpcore_plugins.brokers.multiprocess.wire import Given, Kind, NonsenseError, Outcomes, packed

__all__ = ("GroupOutlets", "MemberOutlet", "Peer", "ReaderOutlet", "Turns")

_BATCH = 1024  # events in one frame
_PORTION = 1 << 18  # bytes of events that are sent before it is seen whether the peer reads them
_STEP = 16  # events that are taken before it is seen how many bytes they are
_IDLE = 0.005  # seconds that a member is idle before others give back what they have not begun


class Alarm(Protocol):
    """What rings at a time."""

    def when(self) -> float:
        """Tell when."""

    def cancel(self) -> None:
        """Have it not ring."""


class Turns(Protocol):
    """What outlets need of the hub: when something is done."""

    def touch(self, changed: Any) -> None:
        """Have ``changed.pump()`` called when this turn of the loop ends."""

    def now(self) -> float:
        """Tell the time of the loop."""

    def later(self, seconds: float, changed: Any) -> None:
        """Have it touched in some seconds."""

    def at(self, when: float, ring: Callable[[], None]) -> Alarm:
        """Have *ring* called at *when*."""


class Peer(Protocol):
    """What outlets need of the connection to a peer."""

    is_stuck: bool

    def has_room(self, one: Any) -> bool:
        """Tell whether events may be sent now; if not, *one* is touched when there is room again."""

    def say(self, kind: int, number: int = 0, count: int = 0, body: bytes = b"") -> None:
        """Send a frame when this turn of the loop ends."""


class ReaderOutlet:
    """A subscription without a group: what was sent ahead counts as waiting until the peer says that it was read."""

    def __init__(self, hub: Turns, peer: Peer, number: int, reader: Reader) -> None:
        self.hub, self.peer, self.number, self.reader = hub, peer, number, reader
        self.is_done = False  # whether the peer knows that nothing more comes
        self.is_leaving = False
        self._allowed = 0
        self._ahead = 0
        self._told = 0
        self._least = 1 if reader.interest.overflow == "drop_oldest" else 0
        self._is_bound = reader.limit == reader.capacity
        self._is_tight = False
        reader.wake = self.touched

    def touched(self) -> None:
        """Have what has come sent soon."""
        self.hub.touch(self)

    def ask(self, events: int) -> None:
        """Take it that *events* more may be sent; 0 takes back what was allowed."""
        self._allowed = self._allowed + events if events else 0
        self.hub.touch(self)

    def read(self, events: int) -> None:
        """Take it that *events* take no room any more."""
        self._count(-min(events, self._ahead))
        self.reader.release(events)
        self.hub.touch(self)

    def _count(self, events: int) -> None:
        self._ahead += events
        reader = self.reader
        reader.capacity = max(self._least, reader.interest.buffer - self._ahead)
        if self._is_bound:
            reader.limit = reader.capacity

    def tighten(self) -> None:
        """Have the peer say at once what it reads, because a publisher waits for it."""
        if not self._is_tight:
            self._is_tight = True
            self.peer.say(Kind.TIGHT, self.number)

    def pump(self) -> None:
        """Send what may be sent."""
        reader, peer = self.reader, self.peer
        if reader.dropped != self._told:
            self._told = reader.dropped
            peer.say(Kind.DROPPED, self.number, 0, packed(reader.dropped))
        queue = reader.queue
        while queue and self._allowed and peer.has_room(self):
            many = min(len(queue), self._allowed, _BATCH)
            if many == len(queue):
                events = list(queue)
                queue.clear()
            else:
                events = [queue.popleft() for _ in range(many)]
            if (fit := fitting(events, _PORTION)) < many:
                queue.extendleft(reversed(events[fit:]))
                events, many = events[:fit], fit
            self._allowed -= many
            self._count(many)
            for some, body in bodies(events):
                peer.say(Kind.EVENTS, self.number, some, body)
        if not reader.ended or queue:
            reader.wake = self.touched
        elif not self.is_done:
            self.is_done = True
            peer.say(Kind.ENDED, self.number, int(self.is_leaving))

    def wind_up(self, exchange: Exchange) -> None:
        """Have nothing come any more but what waits already."""
        reader = self.reader
        left, reader.queue = reader.queue, deque()  # who leaves forgets what waits
        exchange.leave(reader)
        reader.queue = left
        self.touched()

    def settled(self) -> bool:
        """Tell whether nothing is owed."""
        return self.is_done


class MemberOutlet:
    """A member of a group; what it was given and has not begun can go to others."""

    def __init__(self, group: GroupOutlets, peer: Peer, number: int, member: Member) -> None:
        self.group, self.peer, self.number, self.member = group, peer, number, member
        self.is_done = False
        self.is_leaving = False
        self.allowed = 0
        self.unbegun: deque[int] = deque()
        self.is_recalled = False
        self.is_dry = False  # whether there was nothing more to take
        self._step = _STEP
        self._told = 0
        group.outlets[self] = None

    def touched(self) -> None:
        """Have what has come sent soon."""
        self.group.hub.touch(self.group)

    def ask(self, events: int) -> None:
        """Take it that *events* more may be sent; 0 takes back what was allowed."""
        self.allowed = self.allowed + events if events else 0
        self.touched()

    def settle(self, begun: int, settled: Outcomes) -> None:
        """Take it that *begun* more of what was sent are in hand, and what became of which."""
        for _ in range(min(begun, len(self.unbegun))):
            self.unbegun.popleft()
        out = self.member.out
        said = [Settlement(entry) for number in settled.acks if (entry := out.get(number)) is not None]
        for number, how, delay, reason in settled.others:
            if not 0 <= delay < math.inf:
                raise NonsenseError(f"a delay of {delay!r} seconds")
            if (other := out.get(number)) is not None:
                other.event = opened(other.event)  # type: ignore[assignment]
                said.append(Settlement(other, how, delay, reason))
                if how == "release":
                    self.is_recalled = False
                    if number in self.unbegun:
                        self.unbegun.remove(number)
        if self.group.careful:
            self.group.careful.difference_update(settled.acks, (other[0] for other in settled.others))
        self.member.settle(said, self.group.hub.now())
        self.touched()

    def is_idle(self) -> bool:
        """Tell whether it waits for work and would get it."""
        return bool(self.allowed) and not (self.is_done or self.member.out or self.peer.is_stuck)

    def fill(self, most: int) -> int:
        """Send up to *most* events, and return how many that were."""
        many = min(most, self.allowed, _BATCH)
        if self.group.careful:
            many = 0 if self.unbegun else 1
        if many <= 0 or self.is_done:
            return 0
        if not self.peer.has_room(self.group):
            self.is_dry = False
            return 0
        entries = self._take(many)
        if not entries:
            return 0
        self.allowed = max(0, self.allowed - len(entries))
        at = 0
        for some, body in bodies([entry.event for entry in entries]):
            chunk = entries[at : at + some]
            at += some
            numbers = [entry.seq for entry in chunk]
            self.unbegun.extend(numbers)
            given = Given(numbers, [entry.attempt for entry in chunk], msgspec.Raw(body))
            self.peer.say(Kind.GIVEN, self.number, some, packed(given))
        return len(entries)

    def _take(self, most: int) -> list[Any]:
        """Take up to *most* events, as many as are a portion."""
        entries: list[Any] = []
        size = 0
        while len(entries) < most and size < _PORTION:
            step = min(self._step, most - len(entries))
            some = self.member.take(step)
            entries += some
            if len(some) < step:
                self.is_dry = True
                return entries
            size += sum([weight(entry.event) for entry in some])
            self._step = 1 if size * _STEP > len(entries) * _PORTION else _STEP
        self.is_dry = False
        return entries

    def say_state(self) -> None:
        """Tell the peer what has changed beside events."""
        if self.member.group.dropped != self._told:
            self._told = self.member.group.dropped
            self.peer.say(Kind.DROPPED, self.number, 0, packed(self._told))
        if self.member.ended and self.is_dry and not self.is_done:
            self.end()

    def end(self) -> None:
        """Tell the peer that nothing more comes."""
        self.is_done = True
        self.member.waits(None)
        self.peer.say(Kind.ENDED, self.number, int(self.is_leaving))

    def wind_up(self) -> None:
        """Have nothing come any more, also nothing of what was asked for."""
        self.allowed = 0
        self.end()

    def die(self) -> None:
        """Give back what a peer had that died: what was in hand counts as a delivery, the rest does not."""
        now = self.group.hub.now()
        unbegun = set(self.unbegun)
        if len(unbegun) == 1 and unbegun <= self.group.careful:
            unbegun.clear()  # it went out alone, since it was with another that died: now it counts as begun
        for entry in self.member.out.values():
            entry.event = opened(entry.event)  # type: ignore[assignment]
        begun = [entry for number, entry in self.member.out.items() if number not in unbegun]
        self.group.careful |= unbegun
        self.member.settle(
            [Settlement(entry, "nack", 0.0, "the process that worked on it died") for entry in begun], now
        )
        self.leave()

    def leave(self) -> None:
        """Leave the group; what was not settled goes back."""
        self.group.outlets.pop(self, None)
        self.member.leave(self.group.hub.now())
        self.touched()

    def settled(self) -> bool:
        """Tell whether nothing is owed."""
        return self.is_done and not self.member.out


class GroupOutlets:
    """The members of a group, and how what waits is shared among them."""

    def __init__(self, hub: Turns, group: Group) -> None:
        self.hub, self.group = hub, group
        self.outlets: dict[MemberOutlet, None] = {}
        self.careful: set[int] = set()
        """What was sent ahead to a peer that died: it goes out one by one, so that the next death says which it was."""
        self._idle_since: float | None = None
        self._alarm: Alarm | None = None  # rings when the first delayed event is to be delivered again
        self._told = 0

    def has_dropped(self) -> bool:
        """Tell whether events were dropped since the members were told how many."""
        return self.group.dropped != self._told

    def pump(self) -> None:
        """Give what waits to those who asked, first to those who have the least, in equal parts."""
        waiting = sum(len(shard.queue) + len(shard.returned) for shard in self.group.shards.values())
        hungry = [
            outlet for outlet in self.outlets if outlet.allowed and not outlet.is_done and not outlet.peer.is_stuck
        ]
        if hungry:
            if len(hungry) > 1:
                hungry.sort(key=_in_hand)
            share = max(1, -(-waiting // len(hungry)))
            for outlet in hungry:
                outlet.fill(share)
            if waiting and len(hungry) > 1:  # what others could not take, since they read something else
                for outlet in hungry:
                    if outlet.allowed and not outlet.is_dry:
                        outlet.fill(_BATCH)
        self._told = self.group.dropped
        for outlet in [*self.outlets]:
            outlet.say_state()
            outlet.member.waits(outlet.touched if outlet.allowed and not outlet.is_done else None)
        self._recall()
        self._set_alarm()

    def _set_alarm(self) -> None:
        due, alarm = self.group.due(), self._alarm
        if due is None or (alarm is not None and alarm.when() <= due):
            return
        if alarm is not None:
            alarm.cancel()
        self._alarm = self.hub.at(due, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self.group.wake_due(self.hub.now() + 0.001)  # timers of the loop come up to their resolution early
        self.hub.touch(self)

    def _recall(self) -> None:
        """Have busy members give back what they have not begun, once another has had nothing to do for a moment."""
        idle = [outlet for outlet in self.outlets if outlet.is_idle()]
        busy = [outlet for outlet in self.outlets if outlet.unbegun and not outlet.is_recalled] if idle else []
        if not busy or self.careful:
            self._idle_since = None
            return
        now = self.hub.now()
        if self._idle_since is None:
            self._idle_since = now
            self.hub.later(_IDLE, self)
        elif now - self._idle_since >= _IDLE * 0.9:
            self._idle_since = None
            for outlet in busy:
                if any(_suits(one, outlet) for one in idle):
                    outlet.is_recalled = True
                    outlet.peer.say(Kind.RECALL, outlet.number, -(-len(outlet.unbegun) * len(idle) // (len(idle) + 1)))


def _in_hand(outlet: MemberOutlet) -> int:
    return len(outlet.member.out)


def _suits(idle: MemberOutlet, busy: MemberOutlet) -> bool:
    """Tell whether *idle* could take something that *busy* has not begun."""
    shards = idle.member.shards
    return any(entry.shard in shards for number in busy.unbegun if (entry := busy.member.out.get(number)) is not None)
