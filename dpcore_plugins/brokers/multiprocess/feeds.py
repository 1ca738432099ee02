"""Subscriptions as a peer has them: what the hub has sent ahead, and what it is told."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from time import perf_counter

import anyio
from msgspec import Raw

from dpcore import Feed, Held, Interest, Settlement
from dpcore.errors import ArgumentError, BrokerLostError, BrokerStateError, SubscriptionError, WireError
from dpcore.events import Event, Packed, decode_many, decode_packed_many, unpack
from dpcore_plugins.brokers.multiprocess.link import Link
from dpcore_plugins.brokers.multiprocess.sheaves import NO_PAYLOAD
from dpcore_plugins.brokers.multiprocess.wire import Given, Kind, NonsenseError, Outcome, Outcomes, packed, unpacked

__all__ = ("MemberFeed", "PeerFeed", "ReaderFeed")

_AHEAD = 0.002  # seconds of work that a member may have before it
_MOST_AHEAD = 512  # events, whatever they take
_GOOD_BYE = 1.0  # seconds in which the hub answers that a subscription ends
_SMALL = 64  # up to this buffer a reader that drops the oldest has nothing sent ahead

_log = logging.getLogger("dpcore.broker")


class PeerFeed(Feed):
    """What both kinds of subscriptions share."""

    def __init__(self, link: Link, number: int, interest: Interest, opener: object) -> None:
        super().__init__()
        self.link, self.number, self.interest, self.opener = link, number, interest, opener
        self.task: object = None
        self._wake: anyio.Event | None = None
        self._is_ended = self._is_lost = self._hub_goes = False
        self._dropped = 0
        link.hearers[number] = self

    @property
    def dropped(self) -> int:
        """How many events were dropped, as of the last that came from the hub: an event, or an answer to this process."""
        return self._dropped

    def read_by(self, task: object) -> None:
        """Remember who reads."""
        self.task = task

    def hear(self, kind: int, count: int, body: bytes) -> None:
        """Take what the hub said of this subscription."""
        if kind == Kind.ENDED:
            self._is_ended, self._hub_goes = True, bool(count) and not self.link.is_own
            self.rouse()
        elif kind == Kind.DROPPED:
            self._dropped = unpacked(body, int)

    def lose(self) -> None:
        """Take it that nothing more comes, because the hub is gone or is about to be left."""
        self._is_lost = True
        self.rouse()

    def rouse(self) -> None:
        """Wake who waits."""
        if self._wake is not None:
            self._wake.set()

    def _is_over(self) -> bool:
        """Tell whether nothing more will come; raise if that is because the hub is gone."""
        if self._hub_goes and not self.link.is_leaving:
            raise BrokerLostError(str(self.link.place), "the App that it lives with is leaving")
        if self._is_lost and not self.link.is_leaving:
            self.link.check()
        return self._is_ended or self._is_lost

    async def _sleep(self) -> None:
        if self._wake is not None:
            raise SubscriptionError(self.interest.patterns, "is being read by another task", "subscribe in each")
        self._wake = anyio.Event()
        try:
            await self._wake.wait()
        finally:
            self._wake = None

    def report(self) -> None:
        """Tell the hub what it does not know yet."""
        raise NotImplementedError

    async def close(self) -> None:
        """End the subscription."""
        self.report()
        if not self._is_lost:
            with (
                suppress(ConnectionError, BrokerStateError),
                anyio.move_on_after(_GOOD_BYE),
            ):  # then it has ended as well
                await self.link.ask(Kind.CLOSE, self.number)
        self.link.forget(self.number, closed=True)


class ReaderFeed(PeerFeed):
    """A subscription without a group.

    The hub counts what was sent ahead as waiting until it hears that it was read, so
    that no more than the buffer waits in all.  Where the oldest is dropped nothing is sent
    before it is asked for, since what was sent cannot be dropped; elsewhere the whole
    buffer may be on its way.
    """

    def __init__(self, link: Link, number: int, interest: Interest, opener: object) -> None:
        super().__init__(link, number, interest, opener)
        self._batches: deque[tuple[int, bytes]] = deque()  # what has come and was not decoded yet
        self._coming = 0  # asked for and not here yet
        self._waiting_here = 0  # events in batches
        self._decoded = 0  # events that were put into ready, in all
        self._told = 0  # of these, how many the hub knows to be read
        self._asks_first = interest.overflow == "drop_oldest"
        self._looks_ahead = not self._asks_first or interest.buffer > _SMALL
        self._window = max(1, interest.buffer // 4) if self._asks_first and self._looks_ahead else interest.buffer
        self._window = 1 if not self._looks_ahead else min(self._window, 8192)
        self._is_lazy = interest.overflow == "block"  # nothing is lost while the hub does not know what was read
        self._tight: list[None] = []
        if interest.buffer <= 4 * _SMALL or interest.overflow in ("error", "drop_newest"):
            self._tight.append(None)
        self.waiting = self._tight

    def begin(self) -> None:
        """Ask for the first events, where that may be done before anybody reads."""
        if not self._asks_first:
            self._ask(self._window)

    def _ask(self, events: int) -> None:
        self._coming += events
        self.link.say(Kind.ASK, self.number, events)

    def hear(self, kind: int, count: int, body: bytes) -> None:
        """Take events, or what else the hub said."""
        if kind == Kind.EVENTS:
            self._batches.append((count, body))
            self._coming = max(0, self._coming - count)
            self._waiting_here += count
            self.rouse()
        elif kind == Kind.TIGHT:
            if not self._tight:
                self._tight.append(None)
            self.link.report_soon(self)
        else:
            super().hear(kind, count, body)

    async def receive(self, limit: int) -> Sequence[Held]:
        """Wait for events; subscriptions take them from ``ready`` themselves."""
        if not await self.wait():
            return ()
        taken = [Held(self.ready.popleft()) for _ in range(min(limit, len(self.ready)))]
        if self._tight:
            self.freed()
        return taken

    async def wait(self, limit: int = 1) -> bool:  # noqa: ARG002  (all there is becomes ready)
        """Wait until something is ready; False if no more will come."""
        while not self.ready:
            if self._batches:
                self._decode()
            elif self._is_over():
                return False
            else:
                await self._some()
        return True

    async def _some(self) -> None:
        self._replenish()
        self._report()
        try:
            await self._sleep()
        except BaseException:
            if self._asks_first and not self._batches and not self._is_lost:
                self._coming = 0
                self.link.say(Kind.ASK, self.number, 0)
            raise

    def _decode(self) -> None:
        count, raw = self._batches.popleft()
        self._waiting_here -= count
        try:
            events = decode_many(raw)
        except WireError:
            events = _salvaged(raw)
        self._decoded += count
        self.ready.extend(events)
        if self._looks_ahead:
            self._replenish()
        if not self._tight:
            self._report()

    def _report(self) -> None:
        """Have the hub told soon what was read; where a publisher that waits asks for it, not for a little."""
        if self._tight or not self._is_lazy or 4 * self._unreported() >= self._window:
            self.link.report_soon(self)

    def _unreported(self) -> int:
        return self._decoded - self._told - len(self.ready)

    def _replenish(self) -> None:
        """Ask for as many as are missing from the window."""
        missing = self._window - self._coming - self._waiting_here
        if missing * 2 >= self._window:
            self._ask(missing)

    def freed(self) -> None:
        """Have the hub told soon that there is room."""
        self.link.report_soon(self)

    def report(self) -> None:
        """Tell the hub how many were read, and ask for as many more."""
        read = self._unreported()
        if read > 0:
            self._told += read
            self.link.say(Kind.READ, self.number, read)
            if not self._asks_first:
                self._replenish()

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Do nothing: without a group nothing is kept."""


class MemberFeed(PeerFeed):
    """A member of a group, with as much work before it as it does in a moment."""

    def __init__(self, link: Link, number: int, interest: Interest, opener: object) -> None:
        super().__init__(link, number, interest, opener)
        self._batches: deque[Given] = deque()
        self._waiting_here = 0  # events in batches
        self._held: deque[Held] = deque()  # decoded and not begun
        self._coming = 0
        self._begun = 0  # since the last report
        self._settled = Outcomes()
        self._ahead = 0
        self._took = _AHEAD * 2  # seconds for one event, as far as is known
        self._since: tuple[float, int] | None = None

    def hear(self, kind: int, count: int, body: bytes) -> None:
        """Take events, or what else the hub said."""
        if kind == Kind.GIVEN:
            self._batches.append(unpacked(body, Given))
            self._waiting_here += count
            self._coming = max(0, self._coming - count)
            self.rouse()
        elif kind == Kind.RECALL:
            self._give_back(count)
        else:
            super().hear(kind, count, body)

    async def receive(self, limit: int) -> Sequence[Held]:
        """Wait for events, and return one to *limit* of them."""
        self._learn()
        while not self._has_some(limit):
            if self._is_over():
                return ()
            self._ask(limit)
            try:
                await self._sleep()
            except BaseException:
                if not self._batches and not self._is_lost:
                    self._unask()
                raise
        held = self._held
        taken = [held.popleft() for _ in range(min(limit, len(held)))]
        self._begun += len(taken)
        if self._ahead and len(held) <= self._ahead // 2:
            self._ask(limit)
        self._since = (perf_counter(), len(taken))
        self.link.report_now(self)  # before anybody works on it: if that kills this process, it counts
        return taken

    def swap(self, done: Held | None) -> Held | None:
        """Ack *done* and take the next event, if one is here."""
        if not self._held or self._is_lost:
            return None
        self._learn()
        if done is not None:
            self._settled.acks.append(done.tag)
        taken = self._held.popleft()
        self._begun += 1
        if len(self._held) <= self._ahead // 2:
            self._ask(1)
        self._since = (perf_counter(), 1)
        self.link.report_now(self)
        return taken

    def _learn(self) -> None:
        """See how long the last events took, and how many are a moment's work."""
        if self._since is None:
            return
        began, events = self._since
        self._since = None
        took = (perf_counter() - began) / events
        self._took = took if took > self._took else (3 * self._took + took) / 4
        self._ahead = 0 if self._took > _AHEAD else min(_MOST_AHEAD, int(_AHEAD / max(self._took, 1e-6)))

    def _ask(self, limit: int) -> None:
        missing = limit + self._ahead - self._coming - self._waiting_here - len(self._held)
        if missing > 0:
            self._coming += missing
            self.link.say(Kind.ASK, self.number, missing)

    def _unask(self) -> None:
        """Take back what was asked for, since nobody waits any more; what is on its way is kept for who comes next."""
        self._coming = 0
        self.link.say(Kind.ASK, self.number, 0)

    def _has_some(self, limit: int) -> bool:
        """Tell whether something is here that can be worked on; what makes no sense is rejected."""
        if self._is_lost:  # who could not say what became of it had better not begin
            return False
        self._decode(limit)
        return bool(self._held)

    def _decode(self, limit: int) -> None:
        while self._batches and len(self._held) < limit:
            given = self._batches.popleft()
            self._waiting_here -= len(given.numbers)
            try:
                events = decode_many(given.events)
            except WireError:
                self._reject_senseless(given)
                continue
            self._held.extend(map(Held, events, given.attempts, given.numbers))

    def _reject_senseless(self, given: Given) -> None:
        for event, attempt, number in zip(_apart(given), given.attempts, given.numbers, strict=True):
            try:
                self._held.append(Held(unpack(event), attempt, number))
            except WireError as error:
                if event.topic.startswith("$dead."):  # who reads the dead letters would get it for ever
                    _log.error("event %s on %r was left out: %s", event.id, event.topic, error)
                    self._settled.acks.append(number)
                else:
                    self._settled.others.append((number, "reject", 0.0, str(error)))
                self.link.report_soon(self)

    def _give_back(self, events: int) -> None:
        """Give the newest of what is not begun back, for others that have nothing to do."""
        self._decode(_MOST_AHEAD * 2)
        for _ in range(min(events, len(self._held))):
            self._settled.others.append((self._held.pop().tag, "release", 0.0, ""))
        self._ahead = 0
        self._took = _AHEAD * 2
        self.link.report_soon(self)

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Say what became of events; raises if what was acked cannot be said any more."""
        if self._is_lost:
            if not self.link.is_leaving and any(one.how in ("ack", "reject") for one in settlements):
                self.link.check()
            return
        others = [_sayable(one) for one in settlements if one.how != "ack"]
        self._settled.acks += [one.held.tag for one in settlements if one.how == "ack"]
        self._settled.others += others
        self.link.report_now(self)  # if this process dies now, what was acked comes no more

    def report(self) -> None:
        """Tell the hub what was begun, and what became of what."""
        if self._begun or self._settled.acks or self._settled.others:
            begun, self._begun = self._begun, 0
            settled, self._settled = self._settled, Outcomes()
            self.link.say(Kind.SETTLE, self.number, begun, packed(settled))

    def release(self) -> None:
        """Give back everything that is not begun, and take no more."""
        self._is_ended, self._hub_goes = True, False
        self._give_back(len(self._held) + _MOST_AHEAD * 2)
        self.rouse()


def _sayable(settlement: Settlement) -> Outcome:
    """Return what the hub is told; raises here, where somebody is to blame, for what cannot be said."""
    said = (settlement.held.tag, settlement.how, settlement.delay, settlement.reason)
    try:
        read: Outcome = unpacked(packed(said), Outcome)
    except UnicodeEncodeError as error:
        raise ArgumentError("reason", settlement.reason, "text that has no lone surrogates") from error
    except (NonsenseError, TypeError, OverflowError) as error:
        delay, reason = settlement.delay, settlement.reason
        name, value = ("delay", delay) if isinstance(reason, str) else ("reason", reason)
        raise ArgumentError(name, value, "a number of seconds" if name == "delay" else "text") from error
    if not 0 <= read[2] < math.inf:
        raise ArgumentError("delay", settlement.delay, "a number of seconds, 0 or more")
    return read


def _salvaged(raw: bytes) -> list[Event]:
    """Return those of some events that make sense."""
    events = []
    try:
        for one in decode_packed_many(raw):
            try:
                events.append(unpack(one))
            except WireError as error:
                _log.error("event %s on %r was left out: %s", one.id, one.topic, error)
    except WireError as error:
        _log.error("events were left out: %s", error)
    return events


def _apart(given: Given) -> list[Packed]:
    """Return events of which some make no sense, each of these as one that does not either."""
    try:
        events = decode_packed_many(given.events)
    except WireError:
        events = []
    return events + [Packed("", Raw(NO_PAYLOAD))] * (len(given.numbers) - len(events))
