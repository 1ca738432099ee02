"""Connections to the hub: strangers, who must show the key, and peers, who publish and read."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from typing import Any

from dpcore import Interest, Shard
from dpcore.errors import BrokerLostError, DpcoreError, TopicError, WireError
from dpcore.events import decode_packed_many
from dpcore.topics import check_pattern
from dpcore_plugins.brokers.multiprocess.hub import FLUSH, INTRODUCTION, Connection, Hub
from dpcore_plugins.brokers.multiprocess.outlets import MemberOutlet, ReaderOutlet
from dpcore_plugins.brokers.multiprocess.sheaves import Sheaf, alone, slips
from dpcore_plugins.brokers.multiprocess.wire import (
    PROOF,
    Cut,
    Kind,
    NonsenseError,
    Outcomes,
    frame,
    greeting,
    packed,
    read_alike,
    read_proof,
    unpacked,
    verdict,
)

__all__ = ("Connected",)

_UNREAD = 64 << 20  # bytes of answers that a peer leaves unread before it is dropped
_HIGH = 1 << 20  # bytes that wait to be read by a peer before no more events are sent
_PORTION = 1 << 18  # bytes of events that are sent before it is seen whether they are read
_SMALL = 1 << 16  # bytes of a publication whose events may keep all of it in memory
_FLIGHT = 10_000, 128 << 20  # publications of one peer that wait for room, and their bytes
_HEADERS = 1 << 20  # bytes that a frame may have beyond the payload
_TURN = 256  # events that are offered at once

_log = logging.getLogger("dpcore.broker")


class Publication:
    """Events on their way into the exchange; they wait here for room, and hold up nobody else's."""

    __slots__ = ("at", "events", "full", "is_awake", "number", "peer", "size")

    def __init__(self, peer: Connected, number: int, events: list[Any], size: int) -> None:
        self.peer, self.number, self.events, self.size = peer, number, events, size
        self.at = 0
        self.full: Any = None
        self.is_awake = False

    def go(self, *, again: bool = False) -> None:
        """Have the exchange take what it has room for; wait for the rest."""
        peer, events = self.peer, self.events
        if again and peer.waiting.get(self.number) is not self:
            return
        hub = peer.hub
        exchange = hub.exchange
        try:
            while self.at < len(events):
                if hub.is_closing:
                    raise BrokerLostError(str(hub.claim.place), "the App that it lives with is leaving")
                rest = len(events) - self.at
                taken = 0
                if rest > 1:
                    part = events if not self.at and rest <= _TURN else events[self.at : self.at + _TURN]
                    taken = exchange.offer_many(part)
                if not taken:
                    full = exchange.offer(events[self.at])
                    if full is not None:
                        self._wait(full, again)
                        return
                    taken = 1
                self.at += taken
        except DpcoreError as error:
            peer.finished(self)
            peer.refuse(self.number, error)
            return
        peer.finished(self)
        peer.say(Kind.ANSWER, self.number)

    def _wait(self, full: Any, again: bool) -> None:
        if self.is_awake and self.full is not full:
            self.full.pass_on()  # the room there is of no use to this one
        self.full, self.is_awake = full, False
        (full.waiting.appendleft if again else full.waiting.append)(self.resume)
        self.peer.waits(self, full, again=again)

    def resume(self) -> None:
        """Go on when this turn ends, because there may be room."""
        self.is_awake = True
        hub = self.peer.hub
        hub.resumed.append(self)
        hub.arm()

    def withdraw(self) -> None:
        """Wait no longer; who is next may have the room."""
        if self.is_awake:
            self.full.pass_on()
        elif self.resume in self.full.waiting:
            self.full.waiting.remove(self.resume)


class Connected(Connection):
    """One connection: a stranger until it has shown the key, then a peer."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.is_stuck = False
        self.outlets: dict[int, ReaderOutlet | MemberOutlet] = {}
        self.waiting: dict[int, Publication] = {}
        self.gone: asyncio.Future[None] = hub.loop.create_future()
        self._bytes_waiting = 0
        self._is_known = False
        self._nonce = b""
        self._said = b""
        self._cut = Cut(hub.max_payload + _HEADERS)
        self._out: list[bytes] = []
        self._answers = self._ahead = 0  # bytes of what waits to be sent, and of events that wait for this turn's end
        self._held_up: dict[Any, None] = {}  # what has events to send, and waits for room
        self._last: Any = None  # what sent some last
        self._transport: asyncio.Transport | None = None
        self._hears: dict[int, Callable[[int, int, bytes], None]] = {
            Kind.PUBLISH: self._publish,
            Kind.ALIKE: self._publish_alike,
            Kind.WITHDRAW: self._withdraw,
            Kind.OPEN: self._open,
            Kind.CLOSE: self._close,
            Kind.ASK: self._ask,
            Kind.READ: self._read,
            Kind.SETTLE: self._settle,
            Kind.DECLARE: self._declare,
            Kind.COMPLETE: self._complete,
            Kind.TOPICS: self._topics,
            Kind.DISBAND: self._disband,
            Kind.LEAVE: self._leave,
        }

    # ------------------------------------------------------------ the connection

    def connection_made(self, transport: Any) -> None:
        """Greet a stranger."""
        self._transport = transport
        transport.set_write_buffer_limits(high=_HIGH)
        if self.hub.is_closing:
            transport.abort()
            return
        self._nonce = secrets.token_bytes(32)
        transport.write(greeting(self._nonce))
        self.hub.meet(self)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002  (whatever it was)
        """Give back everything that the peer had, because it left or died."""
        self.hub.strangers.pop(self, None)
        self.hub.peers.pop(self, None)
        for publication in [*self.waiting.values()]:
            publication.withdraw()
        self.waiting.clear()
        for number in [*self.outlets]:
            self._end_outlet(number, died=True)
        if not self.gone.done():
            self.gone.set_result(None)
        if self.hub.is_closing:
            self.hub.arm()

    def data_received(self, data: bytes) -> None:
        """Hear what the other side says; who speaks nonsense is dropped."""
        try:
            if not self._is_known:
                data = self._introduce(data)
            if data:
                for kind, number, count, body in self._cut.cut(data):
                    hear = self._hears.get(kind)
                    if hear is None:
                        raise NonsenseError(f"a frame of kind {kind}")
                    hear(number, count, body)
                    if self._transport is None:
                        return
        except (NonsenseError, WireError) as error:
            self.drop(str(error))
        except Exception:  # noqa: BLE001  (one peer must not take the others along)
            _log.exception("the hub at %s failed at what a peer said", self.hub.claim.place)
            self.drop("the hub failed at what it said, and its log says at what")

    def pause_writing(self) -> None:
        """Send no more events, because the peer does not read."""
        self.is_stuck = True

    def resume_writing(self) -> None:
        """Send what has come meanwhile."""
        self.is_stuck, self._answers = False, 0
        self._go_on()

    def has_room(self, one: Any) -> bool:
        """Tell whether events may be sent now; if not, *one* is touched when there is room again."""
        if self.is_stuck or self._ahead >= _PORTION:
            self._held_up[one] = None
            return False
        self._last = one
        return True

    def _go_on(self) -> None:
        """Have those send that wait for room, in turn: who did so last is the last."""
        held_up, self._held_up = self._held_up, {}
        if self._last in held_up:
            del held_up[self._last]
            held_up[self._last] = None
        for one in held_up:
            self.hub.touch(one)

    def _introduce(self, data: bytes) -> bytes:
        """Let the stranger in if it knows the key; return what it said after that."""
        self._said += data
        if len(self._said) < PROOF:
            return b""
        said, rest = self._said[:PROOF], self._said[PROOF:]
        _, nonce, is_friend = read_proof(self.hub.key, self._nonce, said)
        assert self._transport is not None
        self._transport.write(verdict(self.hub.key, self._nonce, nonce, welcome=is_friend))
        if not is_friend:
            _log.warning("the hub at %s turned away somebody with another key", self.hub.claim.place)
            self._transport.close()
            self._transport = None
            return b""
        self._is_known, self._said = True, b""
        self.hub.strangers.pop(self, None)
        self.hub.peers[self] = None
        self._transport.write(frame(Kind.WELCOME, body=self.hub.welcome()))
        return rest

    def too_late(self) -> None:
        """Drop who has not shown the key in time."""
        if not self._is_known and self._transport is not None:
            self.drop(f"it did not show the key within {INTRODUCTION:g} seconds")

    def drop(self, why: str) -> None:
        """Have no more to do with the other side; if it is a peer that reads, tell it why."""
        _log.warning("the hub at %s drops a connection: %s", self.hub.claim.place, why)
        transport = self._transport
        if transport is None or not self._is_known or self.is_stuck:
            self.abort()
            return
        self._transport, self.is_stuck = None, True  # whatever is said from now on goes nowhere
        transport.write(frame(Kind.BYE, body=packed(f"it dropped this peer: {why}")))
        transport.close()
        self.hub.loop.call_later(FLUSH, transport.abort)

    def abort(self) -> None:
        """End the connection at once."""
        transport, self._transport = self._transport, None
        self.hub.strangers.pop(self, None)
        if transport is not None:
            transport.abort()

    def hang_up(self) -> None:
        """Say good-bye, and end the connection when that is sent."""
        if self._transport is None:
            return
        if self._is_known:
            self.say(Kind.BYE, body=packed("the App that it lived with has left"))
            self.flush()
        if self._transport is not None:
            self._transport.close()

    def say(self, kind: int, number: int = 0, count: int = 0, body: bytes = b"") -> None:
        """Send a frame when this turn of the loop ends."""
        said = frame(kind, number, count, body)
        if kind == Kind.EVENTS or kind == Kind.GIVEN:
            self._ahead += len(said)
        else:
            self._answers += len(said)
        self._out.append(said)
        self.hub.said(self)

    def flush(self) -> None:
        """Send everything that waits, in one piece."""
        out, self._out, self._ahead = self._out, [], 0
        transport = self._transport
        if transport is None or not out:
            return
        transport.write(out[0] if len(out) == 1 else b"".join(out))
        unread = transport.get_write_buffer_size()
        if not unread:
            self._answers = 0
        elif unread > _UNREAD and self._answers > _UNREAD:
            self.drop(f"it leaves more than {_UNREAD} bytes of answers unread")
            return
        if self._held_up and not self.is_stuck:
            self._go_on()

    # ------------------------------------------------------------ publishing

    def _publish(self, number: int, count: int, body: bytes) -> None:
        events: list[Any] = list(decode_packed_many(body))
        if len(events) != count:
            raise NonsenseError(f"{len(events)} events that were said to be {count}")
        if len(body) > _SMALL or count == 1:  # one event that is kept for long would keep the whole frame
            events = [alone(event) for event in events]
        Publication(self, number, events, len(body)).go()

    def _publish_alike(self, number: int, count: int, body: bytes) -> None:
        topic, events = read_alike(body)
        known = self.hub.exchange.topics.get(topic)
        sheaf = Sheaf(topic if known is None else known.name, count, events)
        if not 0 < count <= len(events):
            raise NonsenseError(f"{count} events in {len(events)} bytes")
        Publication(self, number, slips(sheaf), len(body)).go()

    def waits(self, publication: Publication, full: Any, *, again: bool) -> None:
        """Remember what waits for room, and have those who could make some know."""
        if not again:
            self.waiting[publication.number] = publication
            self._bytes_waiting += publication.size
            if len(self.waiting) > _FLIGHT[0] or self._bytes_waiting > _FLIGHT[1]:
                self.drop("it publishes more than may wait for room")
                return
        readers = full.readers()
        outlets = [one for one in self.outlets.values() if _read_by(one) in readers]
        if not isinstance(full, Shard):
            for peer in self.hub.peers:
                for outlet in peer.outlets.values():
                    if isinstance(outlet, ReaderOutlet) and outlet.reader is full:
                        outlet.tighten()
        if outlets and len(outlets) == len(readers) and not again:
            feeds = [outlet.number for outlet in outlets]
            self.say(Kind.BLOCKED, publication.number, 0, packed((feeds, str(full), full.buffer)))

    def finished(self, publication: Publication) -> None:
        """Forget a publication, because it is answered."""
        if self.waiting.pop(publication.number, None) is not None:
            self._bytes_waiting -= publication.size

    def _withdraw(self, number: int, _: int, __: bytes) -> None:
        publication = self.waiting.get(number)
        if publication is not None:  # otherwise the answer is on its way
            self._take_back(publication)

    def _take_back(self, publication: Publication) -> None:
        publication.withdraw()
        self.finished(publication)
        self.say(Kind.WITHDRAWN, publication.number, publication.at)

    def refuse(self, number: int, error: DpcoreError) -> None:
        """Answer a request with an error."""
        self.say(Kind.REFUSE, number, 0, packed((type(error).__name__, error.args)))

    # ------------------------------------------------------------ reading

    def _open(self, number: int, feed: int, body: bytes) -> None:
        interest: Interest = _sensible(unpacked(body, Interest))
        hub = self.hub
        if feed in self.outlets:
            raise NonsenseError(f"subscription {feed} is there already")
        try:
            if hub.is_closing:
                raise BrokerLostError(str(hub.claim.place), "the App that it lives with is leaving")
            if interest.group is None:
                self.outlets[feed] = outlet = ReaderOutlet(hub, self, feed, hub.exchange.read(interest))
                hub.touch(outlet)
            else:
                is_new = hub.is_new(interest)
                member = hub.exchange.join(interest)
                group = hub.group(interest)
                self.outlets[feed] = MemberOutlet(group, self, feed, member)
                hub.touch(group)
        except DpcoreError as error:
            self.refuse(number, error)
            return
        if interest.group is None or is_new:  # a group reads until it is disbanded
            hub.want(interest.patterns, 1)
        self.say(Kind.ANSWER, number)

    def _close(self, number: int, feed: int, _: bytes) -> None:
        if feed in self.outlets:
            self._end_outlet(feed, died=False)
        self.say(Kind.ANSWER, number)

    def _end_outlet(self, feed: int, *, died: bool) -> None:
        outlet = self.outlets.pop(feed)
        if isinstance(outlet, ReaderOutlet):
            self.hub.exchange.leave(outlet.reader)
            outlet.is_done = True
            self.hub.want(outlet.reader.interest.patterns, -1)
        elif died:
            outlet.die()
        else:
            outlet.leave()

    def _ask(self, feed: int, events: int, _: bytes) -> None:
        if (outlet := self.outlets.get(feed)) is not None:
            outlet.ask(events)

    def _read(self, feed: int, events: int, _: bytes) -> None:
        outlet = self.outlets.get(feed)
        if isinstance(outlet, ReaderOutlet):
            outlet.read(events)

    def _settle(self, feed: int, begun: int, body: bytes) -> None:
        outlet = self.outlets.get(feed)
        if isinstance(outlet, MemberOutlet):
            outlet.settle(begun, unpacked(body, Outcomes))

    # ------------------------------------------------------------ topics

    def _declare(self, number: int, _: int, body: bytes) -> None:
        topic, interests = unpacked(body, tuple[str, list[Interest]])
        for one in interests:
            if _sensible(one).group is None:
                raise NonsenseError("a topic is declared for what is no group")
        try:
            fresh = [one for one in interests if self.hub.is_new(one)]
            self.hub.exchange.declare(topic, interests)
        except DpcoreError as error:
            self.refuse(number, error)
            return
        for interest in fresh:
            self.hub.want(interest.patterns, 1)
        for interest in interests:
            self.hub.touch(self.hub.group(interest))
        self.say(Kind.ANSWER, number)

    def _complete(self, number: int, _: int, body: bytes) -> None:
        try:
            self.hub.exchange.complete(unpacked(body, str))
        except DpcoreError as error:
            self.refuse(number, error)
            return
        self.say(Kind.ANSWER, number)

    def _disband(self, number: int, _: int, body: bytes) -> None:
        try:
            there_was = self.hub.disband(unpacked(body, str))
        except DpcoreError as error:
            self.refuse(number, error)
            return
        self.say(Kind.ANSWER, number, 0, packed(there_was))

    def _topics(self, number: int, _: int, __: bytes) -> None:
        self.say(Kind.ANSWER, number, 0, packed(list(self.hub.exchange.topics)))

    def _leave(self, number: int, _: int, __: bytes) -> None:
        """Wait no longer for room, and let the subscriptions of this peer end: readers when they have read what is left."""
        for publication in [*self.waiting.values()]:
            self._take_back(publication)
        for outlet in self.outlets.values():
            if isinstance(outlet, ReaderOutlet):
                outlet.wind_up(self.hub.exchange)
            else:
                outlet.wind_up()
        self.say(Kind.ANSWER, number)


def _sensible(interest: Interest) -> Interest:
    """Return *interest* if it is one that a broker asks for."""
    if not interest.patterns or interest.buffer < 1 or interest.group == "":
        raise NonsenseError(f"a subscription that cannot be: {interest!r}")
    try:
        for pattern in interest.patterns:
            check_pattern(pattern)
    except TopicError as error:
        raise NonsenseError(str(error)) from error
    return interest


def _read_by(outlet: ReaderOutlet | MemberOutlet) -> Any:
    return outlet.reader if isinstance(outlet, ReaderOutlet) else outlet.member
