"""Exchange: who gets which event, what is still owed, and what is kept of the past; waits for nothing.

A broker that keeps its events in the memory of one process, its own or a server's,
is an :class:`Exchange` and whatever waits for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from heapq import heapify, heappop, heapreplace, merge
from itertools import islice, repeat
from typing import Any

from dpcore.errors import BufferFullError, GroupMembersError, GroupSettingsError, TopicCompletedError
from dpcore.events import Event
from dpcore.groups import Group, Interest, Member, Overflow, Shard
from dpcore.topics import Routes, check_topic, is_literal, matches

__all__ = ("Exchange", "Reader")

_NO_LIMIT = 1 << 60
_MOST_TOPICS = 100_000


class Reader:
    """A subscription without a group: every event that it matches waits in *queue*, up to its capacity.

    What is retained waits there whole when it begins, even if that is more: it takes no
    room from what comes later until there is less again.
    """

    __slots__ = (
        "buffer",
        "capacity",
        "dropped",
        "ended",
        "interest",
        "limit",
        "open",
        "opener",
        "queue",
        "task",
        "waiting",
        "wake",
    )

    def __init__(self, interest: Interest, literals: Iterable[str] | None) -> None:
        self.interest = interest
        self.buffer = interest.buffer
        self.capacity = interest.buffer  # less than the buffer where some of it is on its way to another process
        self.limit = interest.buffer if interest.overflow in ("block", "error") else _NO_LIMIT
        self.queue: deque[Event] = deque()
        self.dropped = 0
        self.open: set[str] | None = None if literals is None else set(literals)
        self.wake: Callable[[], None] | None = None
        self.waiting: deque[Callable[[], None]] = deque()
        self.task: Any = None  # who read last
        self.opener: Any = None  # who subscribed
        self.ended = False

    def __str__(self) -> str:
        return f"a subscription to {' | '.join(self.interest.patterns)!r}"

    @property
    def overflow(self) -> Overflow:
        """What is done with more than it has room for."""
        return self.interest.overflow

    def readers(self) -> list[Reader]:
        """Return who reads from here: itself."""
        return [self]

    def put(self, event: Event) -> None:
        """Have *event* wait; where there is no room, by the policy."""
        if len(self.queue) >= self.capacity and self.limit == _NO_LIMIT:
            self.dropped += 1
            if self.interest.overflow == "drop_newest":
                return
            self.queue.popleft()
        self.queue.append(event)

    def put_many(self, events: Sequence[Event]) -> None:
        """Have *events* wait, in order."""
        if len(self.queue) + len(events) > self.capacity:
            for event in events:
                self.put(event)
        else:
            self.queue.extend(events)

    def press(self, event: Event) -> None:
        """Have *event* wait, where nobody can be made to: without room the oldest goes, unless it is the newest that does."""
        if len(self.queue) >= max(1, self.capacity) and self.limit < _NO_LIMIT:
            self.dropped += 1
            self.queue.popleft()
            self.queue.append(event)
        else:
            self.put(event)

    def rouse(self) -> None:
        """Wake who waits for an event."""
        wake, self.wake = self.wake, None
        if wake is not None:
            wake()

    def release(self, places: int) -> None:
        """Wake as many waiting publishers as there are *places* free again, if there is room at all."""
        if len(self.queue) < self.limit:
            while places and self.waiting:
                self.waiting.popleft()()
                places -= 1

    def pass_on(self) -> None:
        """Wake the next publisher, because one that was woken does not go on."""
        if self.waiting:
            self.waiting.popleft()()

    def release_all(self) -> None:
        """Wake every publisher that waits here, because it need not any more."""
        while self.waiting:
            self.waiting.popleft()()


def _ignore(event: Event, group: str, reason: str) -> None:
    """Do nothing about an event that is lost."""


class Topic:
    """One topic that was published to or declared."""

    __slots__ = ("completed", "guarded", "log", "name", "readers", "shards", "sole", "targets", "version")

    def __init__(self, name: str, retain: int) -> None:
        self.name = name
        self.log: deque[Event] = deque(maxlen=retain)
        self.completed = False
        self.version = -1
        self.readers: tuple[Reader, ...] = ()
        self.shards: tuple[Shard, ...] = ()
        self.targets: tuple[Reader | Shard, ...] = ()
        self.sole: Reader | None = None  # its only reader
        self.guarded = False  # whether there is anything to look at before an event is taken


class Exchange:
    """Topics, who reads them, and what is kept.

    *retain* events of each topic are kept for those who come later, *total* at the
    most of all topics together; an event of a group that is not acked after
    *max_deliveries* goes to the dead letters, topic ``$dead.GROUP.TOPIC``; but *lost* is told
    of a dead letter, its group, and the reason, which is gone then.  Of the topics that nobody declared 100,000 are known at the most; beyond that those that were seen
    first are forgotten, with what was retained of them, and that they were completed.
    """

    def __init__(
        self,
        *,
        retain: int = 10_000,
        total: int = 100_000,
        max_deliveries: int = 5,
        lost: Callable[[Event, str, str], None] = _ignore,
    ) -> None:
        self.retain, self.total, self.max_deliveries, self.lost = retain, total, max_deliveries, lost
        self.topics: dict[str, Topic] = {}
        self._passing: dict[str, None] = {}  # those that nobody declared, the first seen first
        self._logged: dict[Topic, None] = {}  # those of which something is retained
        self._completed: dict[str, Topic] = {}
        self.groups: dict[str, Group] = {}
        self.readers: dict[Reader, None] = {}
        self._routes: Routes[Reader | Group] = Routes()
        self._version = 0
        self._kept = 0

    # ------------------------------------------------------------ publishing

    def offer(self, event: Event) -> Reader | Shard | None:
        """Give *event* to everybody it is for, or to nobody: then return who has no room for it.

        Raises :class:`~dpcore.errors.BufferFullError` where that is the policy, and
        :class:`~dpcore.errors.TopicCompletedError`; nothing has happened then.
        """
        topic = self.topics.get(event.topic)
        if topic is None or topic.version != self._version:
            topic = self._current(event.topic)
        if (sole := topic.sole) is not None and len(queue := sole.queue) < sole.capacity:  # most topics have one reader
            log = topic.log
            if len(log) < self.retain:
                self._count(topic)
            log.append(event)
            queue.append(event)
            if sole.wake is not None:
                sole.rouse()
            return None
        if topic.guarded and (full := self._full(topic, 1)) is not None:
            return full
        log = topic.log
        if len(log) < self.retain:
            self._count(topic)
        log.append(event)
        for reader in topic.readers:
            queue = reader.queue
            if len(queue) < reader.capacity:
                queue.append(event)
            else:
                reader.put(event)
            if reader.wake is not None:
                reader.rouse()
        for shard in topic.shards:
            shard.put(event)
        return None

    def _count(self, topic: Topic) -> None:
        """Make room for one more event of *topic* that is to be retained."""
        self._kept += 1
        if self._kept > self.total:
            self._trim()
        if not topic.log:
            self._logged[topic] = None

    def offer_many(self, events: Sequence[Event]) -> int:
        """Give as many of *events* as are of one topic and everybody has room for; return how many that were."""
        name = events[0].topic
        room = _run(events, name)
        topic = self._current(name)
        if topic.guarded:
            if topic.completed:
                raise TopicCompletedError(name)
            room = min(room, *(self._room(target) for target in topic.targets))
            if room <= 0:
                return 0
        if room < len(events):
            events = events[:room]
        self._kept += max(0, min(room, self.retain - len(topic.log)))
        topic.log.extend(events)
        if self.retain:
            self._logged[topic] = None
        if self._kept > self.total:
            self._trim()
        for reader in topic.readers:
            reader.put_many(events)
            if reader.wake is not None:
                reader.rouse()
        for shard in topic.shards:
            for event in events:
                shard.put(event)
        return room

    def wanted(self, topic: str) -> bool:
        """Tell whether anybody reads *topic*."""
        return bool(self._routes.match(topic))

    def _room(self, target: Reader | Shard) -> int:
        held = len(target.queue) if isinstance(target, Reader) else target.count
        return target.limit - held

    def _full(self, topic: Topic, places: int) -> Reader | Shard | None:
        if topic.completed:
            raise TopicCompletedError(topic.name)
        full: Reader | Shard | None = None
        for target in topic.targets:
            if self._room(target) < places:
                if target.overflow == "error":
                    raise BufferFullError(topic.name, str(target), target.buffer)
                full = full or target
        return full

    def _current(self, name: str) -> Topic:
        topic = self.topics.get(name)
        if topic is None:
            topic = self._found(name)
        if topic.version != self._version:
            targets = self._routes.match(name)
            topic.readers = tuple(target for target in targets if isinstance(target, Reader))
            topic.shards = tuple(self._shard(target, name) for target in targets if isinstance(target, Group))
            topic.targets = (*topic.readers, *topic.shards)
            guarded = any(target.limit < _NO_LIMIT for target in topic.targets)
            topic.guarded = guarded or topic.completed
            sole = len(targets) == 1 and topic.readers and not topic.completed
            topic.sole = topic.readers[0] if sole else None
            topic.version = self._version
        return topic

    def _found(self, name: str) -> Topic:
        check_topic(name)
        if len(self._passing) >= _MOST_TOPICS:
            self._forget_topics()
        self._passing[name] = None
        topic = self.topics[name] = Topic(name, self.retain)
        return topic

    def _forget_topics(self) -> None:
        """Forget a tenth of the topics that nobody declared, so that each new one pays for one of them."""
        for name in [*islice(self._passing, _MOST_TOPICS // 10)]:
            del self._passing[name]
            topic = self.topics.pop(name)
            self._kept -= len(topic.log)
            self._logged.pop(topic, None)
            self._completed.pop(name, None)

    def _trim(self) -> None:
        """Forget the oldest tenth of what is retained, whatever its topic."""
        logs = [topic.log for topic in self._logged]
        heads = [(log[0].time, place) for place, log in enumerate(logs)]
        heapify(heads)
        excess = self._kept - self.total + self.total // 10
        self._kept -= excess
        for _ in range(excess):
            place = heads[0][1]
            log = logs[place]
            log.popleft()
            if log:
                heapreplace(heads, (log[0].time, place))
            else:
                heappop(heads)
        self._logged = {topic: None for topic in self._logged if topic.log}

    # ------------------------------------------------------------ reading

    def read(self, interest: Interest) -> Reader:
        """Begin a subscription without a group."""
        literals = _literals(interest.patterns)
        reader = Reader(interest, literals)
        if literals is not None and (done := {name for name in literals if name in self._completed}):
            assert reader.open is not None
            reader.open -= done
        reader.queue.extend(self._past(interest.patterns, completed_only=interest.start == "new"))
        reader.ended = reader.open is not None and not reader.open
        for pattern in interest.patterns:
            self._routes.add(pattern, reader)
        self.readers[reader] = None
        self._version += 1
        return reader

    def leave(self, reader: Reader) -> None:
        """End a subscription without a group; what waits for it is forgotten."""
        if reader not in self.readers:
            return
        del self.readers[reader]
        for pattern in reader.interest.patterns:
            self._routes.remove(pattern, reader)
        self._version += 1
        reader.queue.clear()
        reader.ended = True
        reader.rouse()
        reader.release_all()

    def join(self, interest: Interest) -> Member:
        """Begin a subscription that shares the work of its group, which is made if it is the first."""
        group = self._group(interest)
        literals = _literals(interest.patterns)
        member = group.join(interest.patterns, literals)
        if literals is not None and member.open is not None:
            member.open -= {name for name in literals if name in self._completed}
        group.check_ends()
        return member

    def declare(self, name: str, interests: Iterable[Interest]) -> None:
        """Make a topic known, and groups that read it from now on, before any member has come."""
        self._current(name)
        self._passing.pop(name, None)
        for interest in interests:
            self._group(interest)

    def _group(self, interest: Interest) -> Group:
        assert interest.group is not None
        name, patterns = interest.group, interest.patterns
        group = self.groups.get(name)
        if group is None:
            group = Group(name, interest.buffer, interest.overflow, self.max_deliveries, self.bury, self.lost)
            self.groups[name] = group
        elif any(getattr(group, setting) != getattr(interest, setting) for setting in interest.said):
            raise GroupSettingsError(name, group.buffer, group.overflow, interest.buffer, interest.overflow)
        if patterns not in group.interests:
            self._widen(group, patterns, interest.start)
        return group

    def disband(self, name: str) -> bool:
        """Forget a group that has no members, with all that it holds; False if there is none."""
        group = self.groups.get(name)
        if group is None:
            return False
        if group.members:
            raise GroupMembersError(name, len(group.members))
        del self.groups[name]
        for patterns in group.interests:
            for pattern in patterns:
                self._routes.remove(pattern, group)
        self._version += 1
        for shard in group.shards.values():  # who waits for room there finds that it need not
            shard.release_all()
        return True

    def _widen(self, group: Group, patterns: tuple[str, ...], start: str) -> None:
        """Have *group* read *patterns* too, from what is retained of topics that it has not read before."""
        past = [event for event in self._past(patterns, completed_only=start == "new") if not group.reads(event.topic)]
        group.widen(patterns)
        for pattern in patterns:
            self._routes.add(pattern, group)
        group.rearrange(lambda topic: self._shard(group, topic))
        self._version += 1
        for event in past:
            self._shard(group, event.topic).hold(event)

    def _shard(self, group: Group, topic: str) -> Shard:
        if len(group.interests) == 1:
            return group.shard(tuple(group.interests))
        return group.shard(group.interested(topic))

    def _past(self, patterns: Sequence[str], *, completed_only: bool = False) -> list[Event]:
        """Return what is retained of the topics that *patterns* match, in the order in which it came."""
        known = self._completed if completed_only else self.topics
        if (literals := _literals(patterns)) is not None:
            logs = [known[name].log for name in literals if name in known]
        else:
            logs = [topic.log for name, topic in known.items() if any(matches(one, name) for one in patterns)]
        return [event for _, event in _oldest_first(logs)]

    # ------------------------------------------------------------ ends

    def complete(self, name: str) -> None:
        """Say that nothing more will be published to topic *name*."""
        topic = self._current(name)
        topic.completed = topic.guarded = True
        self._completed[name] = topic
        topic.sole = None
        for reader in topic.readers:
            if reader.open is not None:
                reader.open.discard(name)
                reader.ended = not reader.open
                if reader.ended:
                    reader.rouse()
            reader.release_all()  # whoever waits there to publish to this topic is told
        for shard in topic.shards:
            shard.group.complete(name)
            shard.release_all()

    def bury(self, event: Event) -> None:
        """Publish a dead letter, for which nobody waits: whoever has no room for it loses the oldest that waits there."""
        topic = self._current(event.topic)
        if len(topic.log) < self.retain:
            self._count(topic)
        topic.log.append(event)
        for reader in topic.readers:
            reader.press(event)
            reader.rouse()
        for shard in topic.shards:
            shard.press(event)

    def close(self) -> None:
        """Let every subscription end when it has read what is left."""
        for reader in self.readers:
            reader.ended = True
            reader.rouse()
            reader.release_all()
        for group in self.groups.values():
            for member in group.members:
                member.end()
            for shard in group.shards.values():
                shard.release_all()

    # ------------------------------------------------------------ time

    def due(self) -> float | None:
        """Return when the first delayed event is to be delivered again; None if there is none."""
        return min((due for group in self.groups.values() if (due := group.due()) is not None), default=None)

    def wake_due(self, now: float) -> None:
        """Put back every delayed event whose time has come."""
        for group in self.groups.values():
            group.wake_due(now)


def _run(events: Sequence[Event], name: str) -> int:
    """Return how many events in a row are of topic *name*."""
    if events[-1].topic is name:  # of one call of publish_many
        for event in events:
            if event.topic is not name:
                break
        else:
            return len(events)
    if [event.topic for event in events].count(name) == len(events):  # of another process, whose topics are equal only
        return len(events)
    return next((place for place, event in enumerate(events) if event.topic != name), len(events))


def _literals(patterns: Sequence[str]) -> list[str] | None:
    return list(patterns) if all(map(is_literal, patterns)) else None


def _oldest_first(logs: Sequence[deque[Event]]) -> Iterable[tuple[deque[Event], Event]]:
    """Go through all of *logs* by the time of the events; within one topic in the order in which they came."""
    return merge(*(zip(repeat(log), tuple(log)) for log in logs), key=_moment)


def _moment(pair: tuple[deque[Event], Event]) -> float:
    return pair[1].time
