"""Broker: what carries events from those who publish to those who read."""

from __future__ import annotations

import logging
import os
import re
import socket
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from time import time
from types import TracebackType
from typing import Any, ClassVar, Self, final, get_args
from urllib.parse import quote
from weakref import WeakValueDictionary

import anyio
import msgspec
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from dpcore.clock import Clock, SystemClock
from dpcore.errors import ArgumentError, BrokerStateError, DpcoreError, PublishTimeoutError, TopicCompletedError
from dpcore.events import Event, Ids, PayloadReader, check_event, strict
from dpcore.groups import Interest, Overflow, Start
from dpcore.ports.adapter import Adapter
from dpcore.ports.inbox import Inbox
from dpcore.ports.subscription import Acknowledge, Feed, Subscription, this_task
from dpcore.topics import Pattern, check_topic
from dpcore.words import listed

__all__ = ("Broker", "subscription")

_TURN = 256  # events that are published before others on the loop have their turn
_BUFFER, _GROUP_BUFFER = 1024, 10_000
_LEAVING = 5.0  # seconds that a broker may take to end, beside those in which it drains
_GROUP = re.compile(r"[\w-]{1,64}")

_log = logging.getLogger("dpcore.broker")


class Broker(Adapter):
    """Carries events: topics, subscriptions with patterns, and groups that share the work.

    An adapter writes :meth:`send`, :meth:`open` and :meth:`topics`, and where it can
    :meth:`arrange`, :meth:`dissolve`, :meth:`end` and :meth:`stop`.  Everything else is said here once.

    - Without a group every subscription sees every matching event from the moment its context is entered.
    - With a group each event goes to one member and is kept until it is settled or the group is disbanded; it is
      delivered again when a member dies, leaves or nacks, and goes to the topic ``$dead.GROUP.TOPIC`` after
      ``max_deliveries``, or where it is on such a topic already, is logged and gone.
    - For dead letters nobody waits: a reader or a group that has no room for one loses the oldest that waits there,
      counted in ``dropped``, also with ``"block"`` and ``"error"``.
    - :meth:`publish` returns when the broker has the event; what it raises for was not published, but for
      :class:`~dpcore.errors.BrokerLostError`, after which it may have been.
    - Events of one publisher on one topic are read in the order in which they were published.

    Capabilities:

    - ``groups``: subscriptions that share the work, with ack, nack and dead letters;
    - ``delay``: a nack may name the seconds after which the event is delivered again;
    - ``keys``: within a group, events of one key are worked on one after the other; without, no event has a key;
    - ``retains``: events are kept for those who subscribe later (``start="earliest"``);
    - ``completes``: a topic may be completed;
    - ``blocks``: a publisher waits for room (overflow ``"block"``), or is told that there is none (``"error"``);
    - ``processes``: other processes may connect by its address;
    - ``durable``: what was published outlives the death of every process that uses it;
    - ``remote``: so may other machines.

    A broker is an async context manager, used between entering and leaving it.
    """

    capabilities: ClassVar[frozenset[str]] = frozenset()
    clock: Clock = SystemClock()
    """Who is asked for the time; an App puts its own here."""
    strict: bool = False
    """Whether every payload goes through the wire form, as it would between processes."""
    drain: float = 5.0
    """Seconds that readers have to read what is left when the broker is left without an exception."""

    grace: float = 5.0
    """Seconds for which who publishes waits for another task to begin to read what only its own has subscribed to.

    After that it is a :class:`~dpcore.errors.DeadlockError`."""

    may_host: bool = True
    """Whether it may be itself the place where events are kept, for other processes; or else it only connects to one."""

    on_published: Sequence[Callable[[Event], None]] = ()
    """Called with each event that was published here."""
    on_settled: Sequence[Callable[[Event, str, str], None]] = ()
    """Called with each event that was settled here, its group, and how."""

    address: str | None = None
    """The string by which other processes select this very broker, once it is entered; with ``processes``."""

    # ------------------------------------------------------------ for the adapter

    @abstractmethod
    async def send(self, events: Sequence[Event]) -> None:
        """Take *events*, in order; wait where a reader's policy says so, and let others have their turn among many.

        They have an id, a time and a source, and their topics are valid.  If it is
        cancelled or raises, the first of them may have been taken and the others
        not; a single event is taken whole or not at all.  A broker that knows how
        many were says so with :meth:`took`.
        """

    @final
    def took(self, events: Sequence[Event], number: int) -> None:
        """Hear of a :meth:`send` that does not take all of *events* that it took the first *number* of them."""
        if len(events) > 1:
            self._taken[id(events)] = number

    @abstractmethod
    async def open(self, interest: Interest) -> Feed:
        """Begin a subscription: from the moment this returns, events are for it."""

    @abstractmethod
    async def topics(self) -> list[str]:
        """Return the topics that were declared or published to, as far as they are known."""

    async def arrange(self, topic: str, interests: Sequence[Interest]) -> None:  # noqa: ARG002
        """Make *topic* known, and the groups that *interests* name; for :meth:`declare`."""
        self.require("groups", f"declare {topic!r}")

    async def end(self, topic: str) -> None:
        """Complete *topic*; for :meth:`complete`."""
        self.require("completes", f"complete {topic!r}")

    async def start(self) -> None:
        """Connect; called when the broker is entered, with :attr:`tasks` to start what runs beside it."""

    async def stop(self, drain: float) -> None:
        """Give readers *drain* seconds to read what is left, and disconnect; called once when it is left."""

    offer: Callable[[Event], object] | None = None
    """Takes an event without waiting, and returns None; anything else says that it was not taken.

    A broker that can sets it in :meth:`start`.  What is no topic it refuses
    (:func:`dpcore.topics.check_topic`), which is not looked at before.
    """

    def wanted(self, topic: str) -> bool:  # noqa: ARG002
        """Tell whether anybody may be reading *topic*; what nobody wants need not be made."""
        return True

    async def dissolve(self, group: str) -> bool:
        """Forget *group* and all that it holds, and tell whether there was one; for :meth:`disband`.

        Raises :class:`~dpcore.errors.GroupMembersError` where it has members.
        """
        self.require("groups", f"disband group {group!r}")
        return False

    def lost(self, event: Event, group: str, reason: str) -> None:
        """Log that *group* has given up a dead letter: adapters call this, since it is not buried again."""
        _log.error("group %r has given up event %s of %r, a dead letter: %s", group, event.id, event.topic, reason)

    this_task = staticmethod(this_task)

    # ------------------------------------------------------------ its life

    _tasks: TaskGroup | None = None
    _leaving = False
    _turns = 0
    _source: str | None = None
    _own_source = ""

    @property
    def source(self) -> str:
        """What the events that are published here name as their source; it may be set, best to a URI.

        Until it is set, it is another one each time the broker is entered, and in a process
        that was forked since: ids increase within it.
        """
        return self._own_source if self._source is None else self._source

    @source.setter
    def source(self, source: str) -> None:
        if not isinstance(source, str):
            raise ArgumentError("source", source, "a str, best a URI")
        self._source = source
        if self._tasks is not None:
            self._renew()

    @final
    async def __aenter__(self) -> Self:
        if self._tasks is not None:
            raise BrokerStateError(str(self), "is entered already")
        self._tasks = await anyio.create_task_group().__aenter__()
        try:
            await self.start()
        except BaseException:
            tasks, self._tasks = self._tasks, None
            tasks.cancel_scope.cancel()
            await tasks.__aexit__(None, None, None)
            raise
        self._renew()
        _ENTERED[id(self)] = self
        self._taken: dict[int, int] = {}
        self._inbox = Inbox(self)
        self._tasks.start_soon(self._inbox.publish)
        return self

    @final
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take no more, let readers read what is left for :attr:`drain` seconds, and disconnect."""
        tasks = self._tasks
        self._turns = 0
        if tasks is None or self._leaving:
            return
        drain = self.drain if kind is None else 0.0
        self._leaving = True
        try:
            await self._inbox.close(drain)
        finally:
            self._tasks, self._leaving = None, False
            _ENTERED.pop(id(self), None)
            with anyio.move_on_after(drain + _LEAVING, shield=True) as scope:
                await self.stop(drain)
            if scope.cancelled_caught:
                _log.warning("broker %s was not left within %g seconds, and is given up", self, drain + _LEAVING)
            tasks.cancel_scope.cancel()
            await tasks.__aexit__(None, None, None)

    def _renew(self) -> None:
        """Have what is published from now on be of a source, and have ids, that nobody has had before."""
        self._own_source = f"dpcore://{quote(socket.gethostname())}/{os.getpid()}/{os.urandom(4).hex()}"
        now = time if type(self.clock) is SystemClock else self._clock_time
        self._hot = (not self.strict, self.offer, self.on_published, self.source, Ids().next, now)

    def _clock_time(self) -> float:
        return self.clock.now().timestamp()

    @property
    def tasks(self) -> TaskGroup:
        """Where an adapter may start what runs as long as the broker does; raises if it is not entered."""
        if self._tasks is None:
            raise BrokerStateError(str(self), "is not entered, or was left")
        return self._tasks

    def _check(self) -> None:
        """Raise unless it is entered, and nobody is about to leave it."""
        if self._tasks is None or self._leaving:
            raise BrokerStateError(str(self), "is not entered, or was left")

    # ------------------------------------------------------------ publishing

    @final
    async def publish(
        self,
        topic: str | Event,
        data: Any = None,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        type: str = "",
        timeout: float | None = None,
    ) -> Event:
        """Publish *data* on *topic*, or an event as it is, and return the event with its id, time and source.

        It has been taken when this returns, and not at all when it raises or is
        cancelled.  Where a reader has no room and its policy is ``"block"``, this
        waits, *timeout* seconds at the most:
        :class:`~dpcore.errors.PublishTimeoutError`.
        """
        if turns := self._turns:
            self._turns = turns - 1
        else:
            await self._turn()
        plain, offer, watch, source, next_id, time = self._hot
        if plain and key is None and headers is None and not type and topic.__class__ is str:
            event = Event(topic if offer is not None else check_topic(topic), data, next_id(), time(), source)
        else:
            event = self._stamped(topic, data, key, headers, type)
        if offer is None or offer(event) is not None:
            await self._send((event,), timeout)
        if watch:
            for see in watch:
                see(event)
        return event

    async def _turn(self) -> None:
        """Let others on the loop have their turn, and see that the broker may be used."""
        self._check()
        await checkpoint()
        self._check()
        self._turns = _TURN

    @final
    async def publish_many(
        self,
        topic: str | Iterable[Event],
        data: Iterable[Any] | None = None,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        type: str = "",
        timeout: float | None = None,
    ) -> list[Event]:
        """Publish each of *data* on *topic*, or each of some events, in order; return the events.

        If it raises or is cancelled, the first of them may have been published, and
        none of those that follow: a note on the exception says how many, as far as that
        is known.  *timeout* is for all of them together.
        """
        events = self._stamped_many(topic, data, key, headers, type)
        if len(events) < self._turns:
            self._turns -= len(events)
        else:
            await self._turn()
        try:
            await self._send(events, timeout)
        except BaseException as error:
            taken = self._taken.pop(id(events), None)
            self._told(events[: taken or 0])
            if isinstance(error, DpcoreError) and len(events) > 1:
                error.add_note(_how_far(len(events), taken))
            raise
        self._told(events)
        return events

    @final
    async def publish_made(self, events: Sequence[Event], *, timeout: float) -> int:
        """Publish events that the platform has made itself, whole and checked; return how many were taken, in order.

        For what has thousands of them at once.  It ends before the first that is refused, or that nobody has room
        for within *timeout* seconds for all of them.
        """
        self._check()
        if not self._hot[0]:
            events = [strict(event) for event in events]
        if len(events) < self._turns:
            self._turns -= len(events)
        else:
            await self._turn()
        taken = len(events)
        try:
            await self._send(events, timeout)
        except (DpcoreError, OSError):
            taken = self._taken.pop(id(events), 0)
        except BaseException:
            self._told(events[: self._taken.pop(id(events), 0)])
            raise
        self._told(events[:taken])
        return taken

    def _told(self, events: Sequence[Event]) -> None:
        if self.on_published:
            for event in events:
                for see in self.on_published:
                    see(event)

    @final
    async def publish_matching(self, pattern: str, data: Any = None, **arguments: Any) -> list[Event]:
        """Publish *data* on every topic that *pattern* matches and that was declared or published to before.

        Each gets an event of its own, but for those that were completed; the list is empty
        if there is no such topic.
        """
        self._check()
        matching = Pattern(pattern)
        published: list[Event] = []
        for topic in await self.topics():
            if matching.matches(topic):
                with suppress(TopicCompletedError):
                    published.append(await self.publish(topic, data, **arguments))
        return published

    @final
    def publish_from_thread(
        self,
        topic: str | Event,
        data: Any = None,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        type: str = "",
        timeout: float | None = None,
    ) -> Event:
        """Publish from a thread that has no event loop, or from a plain function on the loop; return the event.

        It goes to the broker soon, in the order of the calls of one thread, and before
        the broker is left.  While 1,024 events wait, a thread waits for room, *timeout*
        seconds at the most; a function on the loop itself, which cannot wait, gets
        :class:`~dpcore.errors.BufferFullError`.  What the broker refuses later, because the
        topic was completed meanwhile or by the policy ``"error"``, is logged.
        """
        self._check()
        event = self._stamped(topic, data, key, headers, type)
        self._inbox.put(event, timeout)
        return event

    def _stamped(
        self, topic: str | Event, data: Any, key: str | None, headers: Mapping[str, str] | None, kind: str
    ) -> Event:
        self._check()
        if isinstance(topic, Event):
            return self._completed(topic, data)
        plain, _, _, source, next_id, time = self._hot
        event = Event(check_topic(topic), data, next_id(), time(), source, kind, key, headers)
        if key is not None or headers is not None or kind:
            event = self._checked(event)
        return event if plain else strict(event)

    def _completed(self, event: Event, data: Any) -> Event:
        """Return an event that was made by the user with what it lacks."""
        if data is not None:
            raise ArgumentError("data", data, "left out, because the event has its own")
        check_topic(event.topic)
        plain, _, _, source, next_id, time = self._hot
        event = msgspec.structs.replace(
            self._checked(event),
            id=event.id or next_id(),
            time=event.time or time(),
            source=event.source or source,
        )
        return event if plain else strict(event)

    def _stamped_many(
        self,
        topic: str | Iterable[Event],
        data: Iterable[Any] | None,
        key: str | None,
        headers: Mapping[str, str] | None,
        kind: str,
    ) -> list[Event]:
        self._check()
        if not isinstance(topic, str):
            if isinstance(topic, Event):
                raise ArgumentError("topic", topic, "a topic, or a list of events")
            return [self._completed(event, data) for event in topic]
        if data is None or isinstance(data, str | bytes | Mapping):
            raise ArgumentError("data", data, "a list of payloads, one for each event")
        plain, _, _, source, next_id, time = self._hot
        now = time()
        if key is not None or headers is not None or kind:
            headers = self._checked(Event(topic, None, "", now, source, kind, key, headers)).headers
        check_topic(topic)
        events = [Event(topic, one, next_id(), now, source, kind, key, headers) for one in data]
        return events if plain else [strict(event) for event in events]

    def _checked(self, event: Event) -> Event:
        """Return *event* with headers of its own, if what the caller gave is right and can be had here."""
        check_event(event)
        if event.key is not None:
            self.require("keys", f"keep the events of key {event.key!r} in order")
        return event if event.headers is None else msgspec.structs.replace(event, headers=dict(event.headers))

    async def _send(self, events: Sequence[Event], timeout: float | None) -> None:
        if timeout is None:
            await self.send(events)
            return
        with anyio.move_on_after(_seconds(timeout)) as scope:
            await self.send(events)
        if scope.cancelled_caught:
            raise PublishTimeoutError(events[0].topic, timeout)

    # ------------------------------------------------------------ topics

    @final
    async def declare(
        self,
        topic: str,
        groups: Iterable[str] = (),
        *,
        buffer: int | None = None,
        overflow: Overflow | None = None,
    ) -> None:
        """Make *topic* known, and make *groups* that read it, before anybody has published or reads.

        From now on nothing that such a group has not acked is dropped: where *buffer*
        events wait, 10,000 by default, *overflow* says what is done, by default ``"block"``.
        A group that exists keeps its own; asking for others is a
        :class:`~dpcore.errors.GroupSettingsError`.
        """
        check_topic(topic)
        if isinstance(groups, str):
            raise ArgumentError("groups", groups, f"a list of names, such as [{groups!r}]")
        interests = [_interest((topic,), group, "earliest", buffer, overflow) for group in groups]
        self._check()
        await self.arrange(topic, interests)

    @final
    async def complete(self, topic: str) -> None:
        """Say that nothing more will be published on *topic*; publishing to it raises from now on.

        A subscription whose patterns are all literal, completed topics ends when
        nothing is left for it.  Whoever subscribes later gets what is retained, and ends.
        """
        self.require("completes", f"complete {topic!r}")
        self._check()
        await self.end(check_topic(topic))

    @final
    async def disband(self, group: str) -> bool:
        """Forget *group*, with everything that it holds; return whether there was one.

        Publishers that wait for room there go on.  While it has members, this is a
        :class:`~dpcore.errors.GroupMembersError`.  Whoever asks for the group later makes
        a new one.
        """
        self.require("groups", f"disband group {group!r}")
        self._check()
        return await self.dissolve(_group(group))

    # ------------------------------------------------------------ reading

    @final
    def subscribe(
        self,
        *patterns: str,
        group: str | None = None,
        start: Start | None = None,
        ack: Acknowledge = "auto",
        buffer: int | None = None,
        overflow: Overflow | None = None,
        type: Any = None,
    ) -> Subscription:
        """Return a subscription to the topics that *patterns* match; it begins when its context is entered.

        *start* is ``"new"`` or ``"earliest"``, what is retained first: the default of a
        group that nobody has joined before.  *buffer* events wait for it at the most,
        1,024 by default and 10,000 of a group, of whatever size; with more, *overflow* is ``"drop_oldest"``,
        the default, ``"block"``, the default of a group, ``"drop_newest"`` or ``"error"``.
        What is retained is replayed whole, even if that is more than the buffer; until less
        waits than that, ``"block"`` and ``"error"`` take nothing new, and the others drop an
        event for each that comes.
        A member that says neither *buffer* nor *overflow* takes what its group has.
        With *type* payloads are converted to it, and events whose payload does not fit are
        left out and counted; in a group they go to the dead letters.
        """
        return subscription(
            self._itself,
            *patterns,
            group=group,
            start=start,
            ack=ack,
            buffer=buffer,
            overflow=overflow,
            type=type,
        )

    @final
    def consume(
        self,
        *patterns: str,
        group: str = "default",
        start: Start | None = None,
        ack: Acknowledge = "auto",
        buffer: int | None = None,
        overflow: Overflow | None = None,
        type: Any = None,
    ) -> Subscription:
        """Return a subscription that shares the work with all others of its group: a work queue."""
        return self.subscribe(*patterns, group=group, start=start, ack=ack, buffer=buffer, overflow=overflow, type=type)

    @final
    async def open_feed(self, interest: Interest) -> Feed:
        """Begin what *interest* asks for, if this broker can; subscriptions call this."""
        self._check()
        asked = f"subscribe to {' | '.join(interest.patterns)!r}"
        if interest.group is not None:
            self.require("groups", f"{asked} in group {interest.group!r}")
        elif interest.start == "earliest":
            self.require("retains", f"{asked} from the earliest event")
        if interest.overflow in ("block", "error") and (interest.group is None or "overflow" in interest.said):
            self.require("blocks", f"{asked} with overflow={interest.overflow!r}")
        return await self.open(interest)

    async def _itself(self) -> Self:
        return self


# By id, since a broker need not have a hash.  Those of a forked process go on where it has copies of them, as trio lets it.
_ENTERED: WeakValueDictionary[int, Broker] = WeakValueDictionary()


def _renew_all() -> None:
    for broker in [*_ENTERED.values()]:
        broker._renew()


if hasattr(os, "register_at_fork"):  # where a process can fork at all
    os.register_at_fork(after_in_child=_renew_all)


def subscription(
    find: Callable[[], Awaitable[Broker]],
    *patterns: str,
    group: str | None = None,
    start: Start | None = None,
    ack: Acknowledge = "auto",
    buffer: int | None = None,
    overflow: Overflow | None = None,
    type: Any = None,
) -> Subscription:
    """Return what :meth:`Broker.subscribe` does, of a broker that is found when the subscription is entered."""
    if not patterns:
        raise ArgumentError("patterns", patterns, "at least one pattern; '**' is every topic")
    alternatives = tuple(dict.fromkeys(one for pattern in patterns for one in Pattern(pattern).alternatives))
    if ack not in get_args(Acknowledge):
        raise ArgumentError("ack", ack, "'auto' or 'manual'")
    if ack == "manual" and group is None:
        raise ArgumentError("ack", ack, "'auto' without a group, where nothing is kept until it is acked; give group=")
    interest = _interest(
        alternatives,
        group,
        start or ("new" if group is None else "earliest"),
        buffer,
        overflow,
    )
    return Subscription(find, interest, ack=ack, fit=None if type is None else PayloadReader(type))


def _interest(
    patterns: tuple[str, ...], group: str | None, start: Start, buffer: int | None, overflow: Overflow | None
) -> Interest:
    if group is not None:
        _group(group)
    said = tuple(name for name, value in (("buffer", buffer), ("overflow", overflow)) if value is not None)
    if buffer is None:
        buffer = _BUFFER if group is None else _GROUP_BUFFER
    if overflow is None:
        overflow = "drop_oldest" if group is None else "block"
    if isinstance(buffer, bool) or not isinstance(buffer, int) or buffer < 1:
        raise ArgumentError("buffer", buffer, "a number of events, at least 1")
    for name, value, known in (("start", start, Start), ("overflow", overflow, Overflow)):
        if value not in get_args(known):
            raise ArgumentError(name, value, f"one of {listed(get_args(known))}")
    return Interest(patterns=patterns, group=group, start=start, buffer=buffer, overflow=overflow, said=said)


def _group(name: str) -> str:
    if not isinstance(name, str) or not _GROUP.fullmatch(name):
        raise ArgumentError("group", name, "letters, digits, '-' and '_', such as 'billing'")
    return name


def _how_far(number: int, taken: int | None) -> str:
    if taken == 0:
        return f"none of {number} events was published"
    first = "the first may have been" if taken is None else f"the first {taken} were"
    return f"of {number} events {first} published, and none of those that follow"


def _seconds(timeout: float) -> float:
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout >= 0:
        raise ArgumentError("timeout", timeout, "a number of seconds, or None to wait as long as it takes")
    return timeout
