"""Groups: readers that share the work; each event goes to one member, and is kept until it is settled."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from typing import Any, Literal

import msgspec

from dpcore.errors import TopicError
from dpcore.events import Event
from dpcore.topics import check_topic, is_literal, matches

__all__ = ("Group", "Held", "Interest", "Member", "Overflow", "Settled", "Settlement", "Shard", "Start")

Overflow = Literal["block", "drop_oldest", "drop_newest", "error"]
Start = Literal["new", "earliest"]
Settled = Literal["ack", "nack", "reject", "release"]

_DEAD = "$dead."


class Interest(msgspec.Struct, frozen=True, kw_only=True):
    """What a subscription asks of a broker.

    *patterns* have no alternatives: what ``a | b`` says are two of them.
    *buffer* is how many events wait for it at the most, *overflow* what is done
    with more; a group takes both from whoever made it.  What is retained when it begins is
    replayed whole, even if that is more than the buffer.  *said* names those of the two
    that were asked for, which a group that exists must have.
    """

    patterns: tuple[str, ...]
    group: str | None = None
    start: Start = "new"
    buffer: int = 1024
    overflow: Overflow = "drop_oldest"
    said: tuple[str, ...] = ()


class Held(msgspec.Struct):
    """An event that a group holds for one of its members until it is settled.

    *attempt* counts its deliveries, from 1; *tag* is the broker's, to know it again.
    """

    event: Event
    attempt: int = 1
    tag: Any = None


class Settlement(msgspec.Struct, frozen=True):
    """What became of an event that was delivered.

    ``ack``: it is done with.  ``nack``: it is delivered again, after *delay* seconds,
    as the next attempt.  ``reject``: it goes to the dead letters with *reason*.
    ``release``: nobody has seen it, so it goes back as the same attempt.
    """

    held: Held
    how: Settled = "ack"
    delay: float = 0.0
    reason: str = ""


class Entry(Held):
    """A held event where its group keeps it."""

    seq: int = 0
    shard: Any = None
    member: Any = None

    def __lt__(self, other: Entry) -> bool:
        return self.seq < other.seq


class Shard:
    """What a group holds of the topics that the same ones of its interests match; bounded by itself.

    Members that read different patterns do not hold each other up: what only one of
    them wants is counted apart.
    """

    __slots__ = ("capacity", "count", "group", "interests", "limit", "queue", "returned", "waiting")

    def __init__(self, group: Group, interests: tuple[tuple[str, ...], ...]) -> None:
        self.group, self.interests = group, interests
        self.capacity = group.buffer
        self.limit = group.buffer if group.overflow in ("block", "error") else 1 << 60
        self.count = 0  # waiting, delivered and not settled, and delayed
        self.queue: deque[Entry] = deque()
        self.returned: list[Entry] = []  # a heap: what goes back keeps its place in the order
        self.waiting: deque[Callable[[], None]] = deque()  # publishers that wait for room

    def __str__(self) -> str:
        return f"group {self.group.name!r}"

    @property
    def buffer(self) -> int:
        """How many events it has room for."""
        return self.group.buffer

    @property
    def overflow(self) -> Overflow:
        """What is done with more than it has room for."""
        return self.group.overflow

    def readers(self) -> list[Member]:
        """Return the members that read from here."""
        return [member for member in self.group.members if member.patterns in self.interests]

    def first(self) -> Entry | None:
        """Return the oldest event that waits here, and leave it."""
        if self.returned and (not self.queue or self.returned[0].seq < self.queue[0].seq):
            return self.returned[0]
        return self.queue[0] if self.queue else None

    def pop(self) -> Entry:
        """Take the oldest event that waits here."""
        if self.returned and (not self.queue or self.returned[0].seq < self.queue[0].seq):
            return heappop(self.returned)
        return self.queue.popleft()

    def put(self, event: Event) -> None:
        """Hold *event*; where there is no room, by the group's policy."""
        group = self.group
        if self.count >= self.capacity and group.overflow in ("drop_oldest", "drop_newest"):
            group.dropped += 1
            if group.overflow == "drop_newest" or not self._drop_oldest():
                return
        self.count += 1
        group.seq += 1
        self.queue.append(Entry(event, 1, None, group.seq, self))
        if group.idle:
            group.rouse(self)

    def press(self, event: Event) -> None:
        """Hold *event*, where nobody can be made to wait: without room the oldest goes, unless it is the newest that does."""
        if self.count < self.limit:  # or it is the policy to drop something
            self.put(event)
            return
        self.group.dropped += 1
        if self._drop_oldest():
            self.hold(event)

    def _drop_oldest(self) -> bool:
        """Drop the oldest event that waits here; False if none does, since all are in hand."""
        if self.first() is None:
            return False
        self.group.forget(self.pop())
        self.count -= 1
        return True

    def hold(self, event: Event) -> None:
        """Hold *event* whether there is room or not: what is retained when a group begins to read it."""
        group = self.group
        self.count += 1
        group.seq += 1
        self.queue.append(Entry(event, 1, None, group.seq, self))
        if group.idle:
            group.rouse(self)

    def release(self, places: int) -> None:
        """Give *places* back, and wake as many publishers that wait for one, if there is room at all."""
        self.count -= places
        if self.count < self.limit:
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


class Lane:
    """The order of one key within a group: one member has its events in hand, the others wait."""

    __slots__ = ("delayed", "member", "out", "parked", "turn")

    def __init__(self) -> None:
        self.member: Member | None = None
        self.out = 0
        self.delayed = 0
        self.parked: list[Entry] = []
        self.turn: Entry | None = None  # which may be taken, of several that were parked


class Member:
    """One of the readers of a group."""

    __slots__ = ("ended", "gone", "group", "open", "opener", "out", "patterns", "shards", "task", "wake")

    def __init__(self, group: Group, patterns: tuple[str, ...], literals: Iterable[str] | None) -> None:
        self.group, self.patterns = group, patterns
        self.shards: list[Shard] = []
        self.out: dict[int, Entry] = {}
        self.open: set[str] | None = None if literals is None else set(literals)
        """Topics that are not completed yet; None if it reads by wildcards, which never end."""
        self.wake: Callable[[], None] | None = None
        self.task: Any = None  # who read last
        self.opener: Any = None  # who subscribed
        self.ended = False
        self.gone = False

    def take(self, limit: int) -> list[Entry]:
        """Take up to *limit* events, the oldest first; an event whose key another member has in hand waits."""
        taken: list[Entry] = []
        while len(taken) < limit and not self.gone and (shard := self._oldest()) is not None:
            entry = shard.pop()
            if entry.event.key is not None and not self.group.claim(entry, self):
                continue
            entry.member = self
            self.out[entry.seq] = entry
            taken.append(entry)
        return taken

    def _oldest(self) -> Shard | None:
        shards = self.shards
        if len(shards) == 1:
            shard = shards[0]
            return shard if shard.queue or shard.returned else None
        found, seq = None, 0
        for shard in shards:
            first = shard.first()
            if first is not None and (found is None or first.seq < seq):
                found, seq = shard, first.seq
        return found

    def swap(self, done: Held | None) -> Entry | None:
        """Ack *done* and take the next event, if that is simple; None, and nothing has happened, if it is not."""
        if len(self.shards) != 1 or self.gone:
            return None
        shard = self.shards[0]
        if shard.returned or not shard.queue or shard.queue[0].event.key is not None:
            return None
        if done is not None:
            assert isinstance(done, Entry)
            if done.event.key is not None or done.shard is not shard or self.out.pop(done.seq, None) is None:
                return None
            if shard.waiting:
                shard.release(1)
            else:
                shard.count -= 1
        entry = shard.queue.popleft()
        entry.member = self
        self.out[entry.seq] = entry
        return entry

    def waits(self, wake: Callable[[], None] | None) -> None:
        """Have *wake* called, once, when there may be something to take; None takes it back."""
        self.wake = wake
        if wake is None:
            self.group.idle.pop(self, None)
        else:
            self.group.idle[self] = None

    def pass_on(self) -> None:
        """Wake somebody else, because this member was woken and does not take anything."""
        for shard in self.shards:
            if shard.first() is not None:
                self.group.rouse(shard)

    def end(self) -> None:
        """Let nothing more come."""
        self.ended = True
        wake, self.wake = self.wake, None
        self.group.idle.pop(self, None)
        if wake is not None:
            wake()

    def settle(self, settlements: Sequence[Settlement], now: float) -> None:
        """Say what became of events that were taken; what this member does not have in hand is left alone."""
        for settlement in settlements:
            entry = settlement.held
            assert isinstance(entry, Entry)
            if self.out.get(entry.seq) is entry:  # not a later delivery of the same event
                del self.out[entry.seq]
                self.group.settled(entry, settlement, now)

    def leave(self, now: float) -> None:
        """Give back what is in hand, as the same attempt, and take no part any more."""
        if self.gone:
            return
        self.gone = True
        self.settle([Settlement(entry, "release") for entry in list(self.out.values())], now)
        self.waits(None)
        self.group.members.remove(self)
        self.group.rouse_all()


class Group:
    """Readers that share the work: what waits for them, in which order, and what is tried again."""

    def __init__(
        self,
        name: str,
        buffer: int,
        overflow: Overflow,
        max_deliveries: int,
        bury: Callable[[Event], None],
        lose: Callable[[Event, str, str], None],
    ) -> None:
        self.name, self.buffer, self.overflow, self.max_deliveries = name, buffer, overflow, max_deliveries
        self._bury, self._lose = bury, lose
        self.seq = 0
        self.dropped = 0
        self.members: list[Member] = []
        self.idle: dict[Member, None] = {}
        self.interests: dict[tuple[str, ...], int] = {}
        self._literals: dict[str, list[tuple[str, ...]]] = {}  # those of no wildcard, by topic
        self._wildcards: list[tuple[str, ...]] = []
        self._ending = False  # whether some member has nothing more to come
        self.one_by_one = False
        """Whether a member has one event of a key at a time: for a broker that sends events ahead, and so could not
        keep a member from working on the next one when it gives one back."""
        self.shards: dict[tuple[tuple[str, ...], ...], Shard] = {}
        self._lanes: dict[str, Lane] = {}
        self._delayed: list[tuple[float, int, Entry]] = []

    def shard(self, interests: tuple[tuple[str, ...], ...]) -> Shard:
        """Return where the events go that exactly these *interests* match."""
        found = self.shards.get(interests)
        if found is None:
            found = self.shards[interests] = Shard(self, interests)
            for member in self.members:
                if member.patterns in interests:
                    member.shards.append(found)
        return found

    def join(self, patterns: tuple[str, ...], literals: Iterable[str] | None) -> Member:
        """Return a new member that reads *patterns*."""
        member = Member(self, patterns, literals)
        member.shards = [shard for interests, shard in self.shards.items() if patterns in interests]
        self.members.append(member)
        return member

    def rearrange(self, shard_of: Callable[[str], Shard]) -> None:
        """Put everything where *shard_of* a topic says, because what the group reads has changed."""
        moved: list[Entry] = []
        old = list(self.shards.values())
        for shard in old:
            moved += [*shard.queue, *shard.returned]
            shard.queue.clear()
            shard.returned.clear()
        kept = [entry for lane in self._lanes.values() for entry in lane.parked]
        kept += [entry for _, _, entry in self._delayed]
        kept += [entry for member in self.members for entry in member.out.values()]
        for entry in (*moved, *kept):
            new = shard_of(entry.event.topic)
            if new is not entry.shard:
                entry.shard.release(1)
                new.count += 1
                entry.shard = new
        for entry in sorted(moved):
            entry.shard.queue.append(entry)
        for shard in [shard for shard in old if not shard.count]:
            del self.shards[shard.interests]
            shard.release_all()
        for member in self.members:
            member.shards = [shard for shard in self.shards.values() if member.patterns in shard.interests]

    def widen(self, patterns: tuple[str, ...]) -> None:
        """Have the group read *patterns* too."""
        self.interests[patterns] = len(self.interests)
        if all(map(is_literal, patterns)):
            for topic in patterns:
                self._literals.setdefault(topic, []).append(patterns)
        else:
            self._wildcards.append(patterns)

    def interested(self, topic: str) -> tuple[tuple[str, ...], ...]:
        """Return which of its interests match *topic*, in the order in which they came."""
        found = [patterns for patterns in self._wildcards if any(matches(one, topic) for one in patterns)]
        if literal := self._literals.get(topic):
            found = sorted([*literal, *found], key=self.interests.__getitem__)
        return tuple(found)

    def reads(self, topic: str) -> bool:
        """Tell whether the group reads *topic*."""
        return bool(self.interested(topic))

    # ------------------------------------------------------------ ends

    def complete(self, topic: str) -> None:
        """Take it that nothing more comes of *topic*."""
        for member in self.members:
            if member.open is not None:
                member.open.discard(topic)
        self.check_ends()

    def check_ends(self) -> None:
        """End the members whose topics are all completed, once the group has settled what they could get."""
        for member in self.members:
            if member.ended or member.open is None or member.open:
                continue
            self._ending = True
            if not any(shard.count for shard in member.shards):
                member.ended = True
                self.rouse_all()

    # ------------------------------------------------------------ keys

    def claim(self, entry: Entry, member: Member) -> bool:
        """Tell whether *member* may have *entry* now; if not, it waits until its key is free."""
        key = entry.event.key
        assert key is not None
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane()
        may = self._may(lane, entry, member)
        if lane.turn is entry:
            lane.turn = None
        if not may:
            heappush(lane.parked, entry)
            return False
        lane.member = member
        lane.out += 1
        return True

    def _may(self, lane: Lane, entry: Entry, member: Member) -> bool:
        if lane.delayed or (lane.out and (self.one_by_one or lane.member is not member)):
            return False
        if not self.one_by_one:
            return not lane.parked
        return not (lane.turn and lane.turn < entry) and not (lane.parked and lane.parked[0] < entry)

    def forget(self, entry: Entry) -> None:
        """Let the next of its key have its turn, because *entry* was dropped."""
        key = entry.event.key
        if key is not None and (lane := self._lanes.get(key)) is not None and lane.turn is entry:
            lane.turn = None
            self._free(key, lane)

    def _let_go(self, entry: Entry, *, delayed: bool) -> None:
        key = entry.event.key
        if key is None:
            return
        lane = self._lanes[key]
        lane.out -= 1
        lane.delayed += delayed
        self._free(key, lane)

    def _free(self, key: str, lane: Lane) -> None:
        if lane.out or lane.delayed:
            return
        if self.one_by_one and (lane.turn or lane.parked):  # to put all of them back for each one would take n * n
            if lane.turn is None:
                lane.turn = entry = heappop(lane.parked)
                heappush(entry.shard.returned, entry)
                self.rouse(entry.shard)
            return
        del self._lanes[key]
        for entry in lane.parked:
            heappush(entry.shard.returned, entry)
            self.rouse(entry.shard)

    # ------------------------------------------------------------ settling

    def settled(self, entry: Entry, settlement: Settlement, now: float) -> None:
        """Do what *settlement* asks for with an event that no member has in hand any more."""
        how, entry.member = settlement.how, None
        is_dead = how == "reject" or (how == "nack" and entry.attempt >= self.max_deliveries)
        if is_dead or how == "ack":
            self._let_go(entry, delayed=False)
            if is_dead:
                reason = settlement.reason or ("it was rejected" if how == "reject" else "it was delivered too often")
                if entry.event.topic.startswith(_DEAD):  # of those that nobody can take there would be no end
                    self._lose(entry.event, self.name, reason)
                else:
                    self._bury(_dead(entry, self.name, reason))
            entry.shard.release(1)
            if self._ending and not entry.shard.count:
                self.check_ends()
            return
        entry = self._renewed(entry, how == "nack")
        if settlement.delay > 0 and how == "nack":
            heappush(self._delayed, (now + settlement.delay, entry.seq, entry))
            self._let_go(entry, delayed=True)
            return
        heappush(entry.shard.returned, entry)
        self._let_go(entry, delayed=False)
        self.rouse(entry.shard)

    def _renewed(self, entry: Entry, again: bool) -> Entry:
        # A new one: who still holds the old one, and settles it late, means the old delivery.
        return Entry(entry.event, entry.attempt + again, None, entry.seq, entry.shard)

    def due(self) -> float | None:
        """Return when the first delayed event is to be delivered; None if there is none."""
        return self._delayed[0][0] if self._delayed else None

    def wake_due(self, now: float) -> None:
        """Put back every delayed event whose time has come."""
        while self._delayed and self._delayed[0][0] <= now:
            entry = heappop(self._delayed)[2]
            heappush(entry.shard.returned, entry)
            if entry.event.key is not None:
                lane = self._lanes[entry.event.key]
                lane.delayed -= 1
                self._free(entry.event.key, lane)
            self.rouse(entry.shard)

    # ------------------------------------------------------------ waking

    def rouse(self, shard: Shard) -> None:
        """Wake the member that has been idle the longest, of those that read from *shard*."""
        for member in self.idle:
            if member.patterns in shard.interests:
                del self.idle[member]
                wake, member.wake = member.wake, None
                if wake is not None:
                    wake()
                return

    def rouse_all(self) -> None:
        """Wake everybody, because what there is to wait for has changed."""
        for member in list(self.idle):
            del self.idle[member]
            wake, member.wake = member.wake, None
            if wake is not None:
                wake()


def _dead(entry: Entry, group: str, reason: str) -> Event:
    event = entry.event
    headers = {
        **(event.headers or {}),
        "dead-letter-reason": reason,
        "dead-letter-group": group,
        "dead-letter-topic": event.topic,
        "dead-letter-attempts": str(entry.attempt),
    }
    return msgspec.structs.replace(
        event, topic=_dead_topic(group, event.topic), id=f"{event.id}-dead-{group}", headers=headers
    )


def _dead_topic(group: str, topic: str) -> str:
    try:
        return check_topic(f"{_DEAD}{group}.{topic}")
    except TopicError:  # it is too long with what is put before it; a header has it whole
        return f"{_DEAD}{group}"
