"""Queues that break one promise each, for test_queue_suite.py: not collected by itself."""

from __future__ import annotations

from collections import deque

from anyio.lowlevel import checkpoint

from dpcore.errors import QueueClosedError, QueueEmptyError, QueueFullError
from dpcore.ports import Tally
from dpcore.testing import QueueConformance
from dpcore_plugins import MemoryQueue, MultiprocessQueue


class Good(MemoryQueue):
    """Keeps every promise; each of the others changes one thing."""


class LosesTheItemOfACancelledGet(MemoryQueue):
    """Hands an item to who waits: who is cancelled just then takes it along."""

    def __init__(self, **settings) -> None:
        super().__init__(**settings)
        self.handed = deque()

    async def ready(self, end):
        await super().ready(end)
        if end == "get":
            try:
                item = super().get_nowait()
            except (QueueEmptyError, QueueClosedError):
                return
            await checkpoint()
            self.handed.append(item)

    def get_nowait(self):
        return self.handed.popleft() if self.handed else super().get_nowait()


class LastInFirstOut(MemoryQueue):
    def get_nowait(self):
        if len(self._items) == self.size > 1:
            self._items.rotate(1)
        return super().get_nowait()


class HoldsOneMore(MemoryQueue):
    def __init__(self, **settings) -> None:
        super().__init__(**settings)
        self._room += 1


class HangsThoseWhoWaitWhenItIsClosed(MemoryQueue):
    def tally(self, *, done=False, close=False):
        if close:
            self._closed, self._room = True, 0
        return super().tally(done=done)


class ForgetsWhatIsDone(MemoryQueue):
    def tally(self, *, done=False, close=False):
        held, tally = self._held, super().tally(done=done, close=close)
        self._held = held
        return tally


class JoinsWhenAllWasGot(MemoryQueue):
    def tally(self, *, done=False, close=False):
        tally = super().tally(done=done, close=close)
        return Tally(tally.items, tally.items, tally.closed)


class KeepsTheWakeUpOfWhoWasCancelled(MemoryQueue):
    def _leave(self, line, sleeper):
        line.pop(sleeper, None)


class WakesEverybody(MemoryQueue):
    """As many as wait, and the last first."""

    def get_nowait(self):
        self._getters = type(self._getters)(reversed(self._getters.items()))
        return super().get_nowait()

    def put_nowait(self, item):
        for sleeper in [*reversed(self._getters)]:
            self._getters.move_to_end(sleeper)
        super().put_nowait(item)


class KeepsThoseWhoWereCancelled(MemoryQueue):
    def _leave(self, line, sleeper):
        super()._leave(line, sleeper)
        self.left = [*getattr(self, "left", ()), (sleeper, bytearray(1000))]


class DropsWhatIsLeftWhenItIsClosed(MemoryQueue):
    def tally(self, *, done=False, close=False):
        if close:
            self._items.clear()
        return super().tally(done=done, close=close)


class PutsAgainWhenItWasFull(MemoryQueue):
    """Keeps what it refuses, and puts it in later."""

    refused = None

    def put_nowait(self, item):
        try:
            super().put_nowait(item)
        except QueueFullError:
            self.refused = (item,)
            raise

    def get_nowait(self):
        item = super().get_nowait()
        if self.refused:
            (refused,), self.refused = self.refused, None
            super().put_nowait(refused)
        return item


class SaysThatItCrosses(MemoryQueue):
    capabilities = frozenset({"processes"})


class LosesWhatAProcessLeaves(MultiprocessQueue):
    """Puts with a thread, when it comes to it."""

    def put_nowait(self, item):
        import threading

        self.open()
        threading.Timer(0.05, super().put_nowait, [item]).start()


for kind in [value for value in [*globals().values()] if isinstance(value, type) and value.__module__ == __name__]:

    def make(self, tmp_path, size=16, kind=kind):
        return kind(size=size)

    name = f"Test{kind.__name__}"
    globals()[name] = type(name, (QueueConformance,), {"make": make, "patience": 3.0, "cancellations": 200})
