"""Events in the memory of this process."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import anyio
from anyio.lowlevel import checkpoint

from dpcore import Broker, Event, Exchange, Feed, Held, Interest, Member, Reader, Settlement, Shard
from dpcore.errors import DeadlockError, SubscriptionError

__all__ = ("MemoryBroker",)

_TURN = 256  # events that are taken before others on the loop have their turn


class MemoryBroker(Broker):
    """Carries events within one process and one event loop, as the objects they are.

    The last *retain* events of each topic are kept for those who come later, *total*
    at the most of all topics together.  An event that was delivered *max_deliveries*
    times and not acked goes to the dead letters.  When the broker is left, readers have
    *drain* seconds to read what is left.
    """

    capabilities = frozenset({"blocks", "completes", "delay", "groups", "keys", "retains"})

    def __init__(
        self, *, retain: int = 10_000, total: int = 100_000, max_deliveries: int = 5, drain: float = 5.0
    ) -> None:
        for name, value, least in (("retain", retain, 0), ("total", total, 1), ("max_deliveries", max_deliveries, 1)):
            if value < least:
                raise ValueError(f"{name}={value!r} must be at least {least}")
        if drain < 0:
            raise ValueError(f"drain={drain!r} must be at least 0 seconds")
        self.drain = drain
        self._settings = {"retain": retain, "total": total, "max_deliveries": max_deliveries}

    async def start(self) -> None:
        """Begin with nothing."""
        self._exchange = Exchange(**self._settings, lost=self.lost)
        self._feeds: dict[_ReaderFeed | _MemberFeed, None] = {}
        self._left: anyio.Event | None = None
        self._alarm: float | None = None
        self._asleep = anyio.CancelScope()
        self.offer = self._exchange.offer
        self.wanted = self._exchange.wanted  # type: ignore[method-assign]

    async def stop(self, drain: float) -> None:
        """End every subscription when what is left was read, or after *drain* seconds."""
        self._exchange.close()
        if drain and self._feeds:
            self._left = anyio.Event()
            with anyio.move_on_after(drain):
                await self._left.wait()
        for feed in list(self._feeds):
            feed.end()

    # ------------------------------------------------------------ publishing

    async def send(self, events: Sequence[Event]) -> None:
        """Take *events*; wait for room where a reader's policy says so."""
        sent = turn = 0
        try:
            while sent < len(events):
                if sent - turn >= _TURN:
                    turn = sent
                    await checkpoint()
                taken = self._exchange.offer_many(events[sent : sent + _TURN]) if len(events) > sent + 1 else 0
                if not taken:
                    taken = await self._give(events[sent])
                sent += taken
        except BaseException:
            self.took(events, sent)
            raise

    async def _give(self, event: Event) -> int:
        waited: Reader | Shard | None = None
        try:
            while (full := self._exchange.offer(event)) is not None:
                if waited is not None and full is not waited:
                    waited.pass_on()  # whoever waits behind this one may have room there
                await self._room(full, event.topic, full is waited)
                self.tasks  # noqa: B018  (raises if the broker was left meanwhile)
                waited = full
        except BaseException:
            if waited is not None:
                waited.pass_on()
            raise
        return 1

    async def _room(self, full: Reader | Shard, topic: str, again: bool) -> None:
        """Wait until *full* may have room; raise if only the task that asks could make some."""
        room = anyio.Event()
        (full.waiting.appendleft if again else full.waiting.append)(room.set)
        try:
            me = self.this_task()
            alone = _reads_alone(full, me)
            if alone is not None:
                grace = 0.0 if alone else self.grace
                await checkpoint()  # whoever was just started to read has the chance to begin
                with anyio.move_on_after(grace):
                    await room.wait()
                if not room.is_set() and _reads_alone(full, me) is not None:
                    raise DeadlockError(topic, str(full), full.capacity, grace)
            await room.wait()
        except BaseException:
            if room.is_set():
                full.pass_on()
            raise
        finally:
            with suppress(ValueError):
                full.waiting.remove(room.set)

    # ------------------------------------------------------------ topics and subscriptions

    async def topics(self) -> list[str]:
        """Return the topics that were declared or published to."""
        self.tasks  # noqa: B018  (raises if it is not entered)
        return list(self._exchange.topics)

    async def arrange(self, topic: str, interests: Sequence[Interest]) -> None:
        """Make *topic* known, and groups that read it."""
        self.tasks  # noqa: B018  (raises if it is not entered)
        self._exchange.declare(topic, interests)

    async def dissolve(self, group: str) -> bool:
        """Forget *group* and all that it holds."""
        self.tasks  # noqa: B018  (raises if it is not entered)
        return self._exchange.disband(group)

    async def end(self, topic: str) -> None:
        """Complete *topic*."""
        self.tasks  # noqa: B018  (raises if it is not entered)
        self._exchange.complete(topic)

    async def open(self, interest: Interest) -> Feed:
        """Begin a subscription."""
        feed: _ReaderFeed | _MemberFeed
        if interest.group is None:
            feed = _ReaderFeed(self, self._exchange.read(interest))
        else:
            feed = _MemberFeed(self, self._exchange.join(interest))
        feed.reader.opener = self.this_task()
        self._feeds[feed] = None
        return feed

    def _closed(self, feed: _ReaderFeed | _MemberFeed) -> None:
        self._feeds.pop(feed, None)
        if self._left is not None and not self._feeds:
            self._left.set()

    # ------------------------------------------------------------ delays

    def _delayed(self) -> None:
        """See to it that somebody wakes when the next delayed event is due."""
        due = self._exchange.due()
        if due is None or self._tasks is None or (self._alarm is not None and self._alarm <= due):
            return
        first, self._alarm = self._alarm is None, due
        if first:
            self.tasks.start_soon(self._ring)
        else:
            self._asleep.cancel()

    async def _ring(self) -> None:
        while (due := self._exchange.due()) is not None:
            self._alarm = due
            with anyio.CancelScope() as self._asleep:
                await self.clock.sleep(max(0.0, due - self.clock.monotonic()))
            self._exchange.wake_due(self.clock.monotonic())
        self._alarm = None


class _ReaderFeed(Feed):
    """A subscription without a group, and the sleep of who reads it."""

    def __init__(self, broker: MemoryBroker, reader: Reader) -> None:
        self._broker, self.reader = broker, reader
        self.ready, self.waiting = reader.queue, reader.waiting

    async def receive(self, limit: int) -> Sequence[Held]:
        """Wait for events; subscriptions take them from ``ready`` themselves."""
        if not await self.wait():
            return ()
        taken = [Held(self.ready.popleft()) for _ in range(min(limit, len(self.ready)))]
        self.reader.release(len(taken))
        return taken

    async def wait(self, limit: int = 1) -> bool:  # noqa: ARG002  (all there is becomes ready)
        """Wait until something is ready; False if no more will come."""
        reader = self.reader
        while not reader.queue:
            if reader.ended:
                return False
            if reader.wake is not None:
                raise SubscriptionError(reader.interest.patterns, "is being read by another task", "subscribe in each")
            wake = anyio.Event()
            reader.wake = wake.set
            try:
                await wake.wait()
            finally:
                reader.wake = None
        return True

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Do nothing: without a group nothing is kept."""

    async def close(self) -> None:
        """End the subscription; what waits for it is forgotten."""
        self._broker._exchange.leave(self.reader)
        self._broker._closed(self)

    def end(self) -> None:
        """Let nothing more be read."""
        self._broker._exchange.leave(self.reader)

    @property
    def dropped(self) -> int:
        """How many events were dropped."""
        return self.reader.dropped

    def read_by(self, task: object) -> None:
        """Remember who reads."""
        self.reader.task = task

    def freed(self) -> None:
        """Let a publisher that waits go on."""
        self.reader.release(1)


class _MemberFeed(Feed):
    """A member of a group, and its sleep."""

    def __init__(self, broker: MemoryBroker, member: Member) -> None:
        super().__init__()
        self._broker, self.reader = broker, member

    async def receive(self, limit: int) -> Sequence[Held]:
        """Wait for events that are free, and take one to *limit* of them."""
        member = self.reader
        while not (taken := member.take(limit)):
            if member.ended:
                return ()
            if member.wake is not None:
                raise SubscriptionError(member.patterns, "is being read by another task", "subscribe in each")
            wake = anyio.Event()
            member.waits(wake.set)
            try:
                await wake.wait()
            except BaseException:
                if wake.is_set():
                    member.pass_on()
                raise
            finally:
                member.waits(None)
        return taken

    def swap(self, done: Held | None) -> Held | None:
        """Ack *done* and take the next event, if neither asks for more than that."""
        return self.reader.swap(done)

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Say what became of events."""
        self.reader.settle(settlements, self._broker.clock.monotonic())
        if any(settlement.delay for settlement in settlements):
            self._broker._delayed()

    async def close(self) -> None:
        """Leave the group; what was not settled goes back."""
        self.reader.leave(self._broker.clock.monotonic())
        self._broker._closed(self)

    def end(self) -> None:
        """Let nothing more be read."""
        self.reader.end()

    @property
    def dropped(self) -> int:
        """How many events the group has dropped."""
        return self.reader.group.dropped

    def read_by(self, task: object) -> None:
        """Remember who reads."""
        self.reader.task = task


def _reads_alone(full: Reader | Shard, me: object) -> bool | None:
    """Tell whether only this task reads there: True, False if nobody has read yet and it subscribed, None if not."""
    readers = full.readers()
    if not readers or any((reader.task or reader.opener) != me for reader in readers):
        return None
    return all(reader.task is not None for reader in readers)
