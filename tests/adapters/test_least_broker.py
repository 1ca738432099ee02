"""The least that is a broker, as a stranger would write it in an afternoon: it passes the suite, and what it lacks is refused."""

from __future__ import annotations

from collections import deque

import anyio

from dpcore import Broker, Event, Feed, Held
from dpcore.testing import BrokerConformance
from dpcore.topics import matches
from dpcore_plugins import MemoryBroker


class LeastBroker(Broker):
    """Fan-out within one process, and nothing else."""

    async def start(self):
        self.feeds: list[LeastFeed] = []
        self.known: dict[str, None] = {}
        self.empty = anyio.Event()

    async def stop(self, drain):
        for feed in self.feeds:
            feed.ended = True
            feed.come.set()
        if self.feeds:
            with anyio.move_on_after(drain):
                await self.empty.wait()
        for feed in self.feeds:
            feed.queue.clear()

    async def send(self, events):
        for event in events:
            self.known[event.topic] = None
            for feed in self.feeds:
                feed.put(event)
        await anyio.lowlevel.checkpoint_if_cancelled()

    async def open(self, interest):
        feed = LeastFeed(self, interest)
        self.feeds.append(feed)
        return feed

    async def topics(self):
        return list(self.known)


class LeastFeed(Feed):
    def __init__(self, broker, interest):
        super().__init__()
        self.broker, self.interest = broker, interest
        self.queue: deque[Event] = deque()
        self.come = anyio.Event()
        self.count, self.ended = 0, False

    def put(self, event):
        if not any(matches(pattern, event.topic) for pattern in self.interest.patterns):
            return
        if len(self.queue) >= self.interest.buffer:
            self.count += 1
            if self.interest.overflow == "drop_newest":
                return
            self.queue.popleft()
        self.queue.append(event)
        self.come.set()

    async def receive(self, limit):
        while not self.queue and not self.ended:
            self.come = anyio.Event()
            await self.come.wait()
        return [Held(self.queue.popleft()) for _ in range(min(limit, len(self.queue)))]

    async def settle(self, settlements):
        raise AssertionError("without groups nothing is settled")

    async def close(self):
        self.broker.feeds.remove(self)
        if not self.broker.feeds:
            self.broker.empty.set()

    @property
    def dropped(self):
        return self.count


class TestLeastBroker(BrokerConformance):
    examples = 10

    def make(self, tmp_path):
        return LeastBroker()


class WithoutDelay(MemoryBroker):
    """Has groups, and neither delays, keys nor waiting publishers."""

    capabilities = frozenset({"groups", "retains"})


class TestWithoutDelay(BrokerConformance):
    examples = 10

    def make(self, tmp_path):
        return WithoutDelay()
