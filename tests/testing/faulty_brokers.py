"""Brokers that break one promise each, for test_broker_suite.py: not collected by itself."""

from __future__ import annotations

import threading

import anyio
import msgspec
from anyio.lowlevel import checkpoint

from dpcore import Feed
from dpcore.errors import DeadlockError
from dpcore.testing import BrokerConformance
from dpcore_plugins import MemoryBroker


class Faulty(MemoryBroker):
    """Keeps every promise; each of the others changes one thing."""

    async def open(self, interest):
        feed = await super().open(self.interest(interest))
        self.spoil(feed)
        return feed

    def interest(self, interest):
        return interest

    def spoil(self, feed):
        pass


class ChangesWhatIsSaid(Faulty):
    """Has another settlement in the place of each."""

    def spoil(self, feed):
        settle = feed.settle

        async def changed(settlements):
            await settle([new for old in settlements if (new := self.said(old)) is not None])

        feed.settle = changed
        feed.swap = lambda done: None

    def said(self, settlement):
        return settlement


class LosesOnNack(ChangesWhatIsSaid):
    def said(self, settlement):
        return msgspec.structs.replace(settlement, how="ack") if settlement.how == "nack" else settlement


class IgnoresAck(ChangesWhatIsSaid):
    def said(self, settlement):
        return None if settlement.how == "ack" else settlement


class IgnoresDelay(ChangesWhatIsSaid):
    def said(self, settlement):
        return msgspec.structs.replace(settlement, delay=0.0)


class ForgetsTheReason(ChangesWhatIsSaid):
    def said(self, settlement):
        return msgspec.structs.replace(settlement, reason="")


class CountsNoAttempts(ChangesWhatIsSaid):
    def said(self, settlement):
        return msgspec.structs.replace(settlement, how="release") if settlement.how == "nack" else settlement


class ChangesWhatIsPublished(Faulty):
    """Has other events in the place of each; one by one, so that every one is seen."""

    async def start(self):
        await super().start()
        self.number = 0
        self.offer = self.give

    def give(self, event):
        self.number += 1
        for instead in self.published(event):
            if (full := self._exchange.offer(instead)) is not None:
                return full
        return None

    async def send(self, events):
        for event in events:
            self.number += 1
            for instead in self.published(event):
                await super().send([instead])


class DropsTheSeventh(ChangesWhatIsPublished):
    def published(self, event):
        return [event] if self.number % 7 else []


class RepeatsTheSeventh(ChangesWhatIsPublished):
    def published(self, event):
        return [event] if self.number % 7 else [event, event]


class SwapsTheSeventhWithTheEighth(ChangesWhatIsPublished):
    kept = None

    def published(self, event):
        if self.number % 8 == 7:
            self.kept = event
            return []
        kept, self.kept = self.kept, None
        return [event] if kept is None else [event, kept]


class ForgetsHeaders(ChangesWhatIsPublished):
    def published(self, event):
        return [msgspec.structs.replace(event, headers=None)]


class ForgetsKeys(Faulty):
    """Lets every member have every event, whatever its key."""

    def spoil(self, feed):
        if hasattr(feed.reader, "shards"):
            feed.reader.group.claim = lambda entry, member: True
            feed.reader.group._let_go = lambda entry, *, delayed: None


class LeaksSubscriptions(Faulty):
    def spoil(self, feed):
        async def close():
            self._feeds.pop(feed, None)

        feed.close = close


class HangsWhenASubscriptionEnds(Faulty):
    def spoil(self, feed):
        feed.close = anyio.sleep_forever


class HangsWhenLeft(Faulty):
    async def stop(self, drain):
        await anyio.sleep_forever()


class ServesTheFirstMemberOnly(Faulty):
    def spoil(self, feed):
        receive = feed.receive

        async def first_only(limit):
            while feed.reader.group.members[0] is not feed.reader:
                await anyio.sleep(0.001)
            return await receive(limit)

        feed.receive = first_only
        feed.swap = lambda done: None


class TakesTenAtATime(Faulty):
    """Its members hold what they have not begun."""

    def spoil(self, feed):
        receive, ahead = feed.receive, []

        async def hoard(limit):
            if not ahead:
                ahead.extend(await receive(10))
            return [ahead.pop(0)] if ahead else ()

        feed.receive = hoard
        feed.swap = lambda done: None


class SubscribesWhenFirstRead(MemoryBroker):
    async def open(self, interest):
        return Late(self, interest)


class Late(Feed):
    def __init__(self, broker, interest):
        super().__init__()
        self.broker, self.interest, self.feed = broker, interest, None

    async def receive(self, limit):
        if self.feed is None:
            self.feed = await MemoryBroker.open(self.broker, self.interest)
        return await self.feed.receive(limit)

    async def settle(self, settlements):
        await self.feed.settle(settlements)

    async def close(self):
        if self.feed is not None:
            await self.feed.close()


class ShowsThePast(Faulty):
    def interest(self, interest):
        return msgspec.structs.replace(interest, start="earliest")


class StartsAnew(Faulty):
    def interest(self, interest):
        return msgspec.structs.replace(interest, start="new")


class HasNoBounds(Faulty):
    def interest(self, interest):
        return msgspec.structs.replace(interest, buffer=10**9, said=())


class CountsNoDrops(Faulty):
    def spoil(self, feed):
        feed.__class__ = type("Feed", (type(feed),), {"dropped": 0})


class DropsTheOther(Faulty):
    """Drops the newest where the oldest should go."""

    def interest(self, interest):
        other = {"drop_oldest": "drop_newest", "drop_newest": "drop_oldest"}.get(interest.overflow, interest.overflow)
        return msgspec.structs.replace(interest, overflow=other)


class TakesAStarForTwoSegments(Faulty):
    def interest(self, interest):
        more = [pattern.replace("a.*", "a.*.*") for pattern in interest.patterns]
        return msgspec.structs.replace(interest, patterns=tuple(dict.fromkeys([*interest.patterns, *more])))


class SeesCapitalsAsSmall(ChangesWhatIsPublished):
    def published(self, event):
        return [msgspec.structs.replace(event, topic=event.topic.lower())]


class CompletesAtOnce(Faulty):
    """Forgets what was not read yet when a topic is completed."""

    async def end(self, topic):
        await super().end(topic)
        for reader in self._exchange.readers:
            if reader.ended:
                reader.queue.clear()


class EndsGroupsAtOnce(Faulty):
    """Ends members while one of them has something in hand."""

    async def end(self, topic):
        await super().end(topic)
        for group in self._exchange.groups.values():
            for member in group.members:
                member.end()


class LosesWhatCancelledReadersWereToGet(Faulty):
    def spoil(self, feed):
        wait = feed.wait

        async def wait_and_dawdle():
            there = await wait()
            events = [*feed.ready]
            feed.ready.clear()
            await checkpoint()
            feed.ready.extendleft(reversed(events))
            return there

        feed.wait = wait_and_dawdle


class LosesWhatCancelledMembersWereToGet(Faulty):
    def spoil(self, feed):
        receive = feed.receive

        async def receive_and_dawdle(limit):
            taken = await receive(limit)
            await checkpoint()
            return taken

        feed.receive = receive_and_dawdle
        feed.swap = lambda done: None


class PublishesWhatWasCancelled(Faulty):
    async def send(self, events):
        try:
            await super().send(events)
        except BaseException:
            for event in events:
                self._exchange.bury(event)
            raise


class WaitsForItself(Faulty):
    async def _room(self, full, topic, again):
        room = anyio.Event()
        full.waiting.append(room.set)
        await room.wait()


class SeesDeadlocksEverywhere(Faulty):
    async def _room(self, full, topic, again):
        raise DeadlockError(topic, str(full), full.capacity)


class TriesForEver(Faulty):
    async def start(self):
        await super().start()
        self._exchange.max_deliveries = 10**9


class LosesWhatIsLeft(Faulty):
    async def stop(self, drain):
        for reader in [*self._exchange.readers]:
            self._exchange.leave(reader)
        await super().stop(drain)


class LeaksAThread(Faulty):
    async def start(self):
        await super().start()
        threading.Thread(target=threading.Event().wait, daemon=True).start()


class KeepsGroups(Faulty):
    async def dissolve(self, group):
        return group in self._exchange.groups


class DisbandsUnderMembers(Faulty):
    async def dissolve(self, group):
        self._exchange.groups[group].members.clear()
        return await super().dissolve(group)


class SaysItCrossesProcesses(Faulty):
    capabilities = MemoryBroker.capabilities | {"processes"}


class SaysItLacksGroups(Faulty):
    """Has them all the same, and gives them to whoever asks."""

    capabilities = MemoryBroker.capabilities - {"groups"}

    def require(self, capability, asked):
        pass


def suite_of(kind, name, seconds):
    class Suite(BrokerConformance):
        backends = ("asyncio",)
        patience = seconds
        cancellations = 200
        examples = 10

        def make(self, tmp_path):
            return kind()

    Suite.__name__ = Suite.__qualname__ = f"{name}{kind.__name__}"
    return Suite


KINDS = [kind for kind in [*globals().values()] if isinstance(kind, type) and issubclass(kind, MemoryBroker)]
for kind in [kind for kind in KINDS if kind is not MemoryBroker]:
    # What is faulty mostly hangs, so nobody waits long for it; where memory is traced, or nothing is wrong, all takes longer.
    suite = suite_of(kind, "Test", 10.0 if kind in (Faulty, LeaksSubscriptions) else 1.0)
    globals()[suite.__name__] = suite
del kind, suite

# What hypothesis has found it tries again and again, to tell the shortest: with little patience each time.
TestHastyShowsThePast = suite_of(ShowsThePast, "TestHasty", 0.3)
