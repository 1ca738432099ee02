"""A queue in the memory of this process, between its tasks and its threads."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from typing import Any, Never

import anyio
from anyio.lowlevel import current_token

from dpcore import Queue, Tally
from dpcore.errors import QueueClosedError, QueueEmptyError, QueueFullError, QueueNotSentError, TooManyDoneError

__all__ = ("MemoryQueue",)


class MemoryQueue(Queue):
    """Hands the very objects on, within this process; for any number of tasks, event loops and threads at once."""

    # The lock is held for a few operations on containers, never while anybody waits.  It is one that its holder may
    # take again, because anything in there may make Python collect garbage: a coroutine that was forgotten while it waited
    # takes its place out of the line then, in the same thread.

    def __init__(self, *, size: int = 1024) -> None:
        super().__init__(size=size)
        self._items: deque[Any] = deque()
        self._held = 0  # items that were got and are not done
        self._closed = False
        self._room = size  # none, once it is closed
        self._lock = threading.RLock()
        self._acquire, self._release = self._lock.acquire, self._lock.release
        self._putters, self._getters, self._joiners = _Line(), _Line(), _Line()

    def __reduce__(self) -> Never:
        raise QueueNotSentError(str(self), "it is in the memory of this process; MultiprocessQueue goes to others")

    def put_nowait(self, item: Any) -> None:
        """Put *item* now, or raise; see :meth:`dpcore.Queue.put_nowait`."""
        # Half the price of `with`; inside of `try`, so that a signal just after it leaves the lock to nobody.
        try:
            self._acquire()
            if len(self._items) >= self._room:
                raise QueueClosedError(str(self), "put") if self._closed else QueueFullError(str(self), self.size)
            self._items.append(item)
            if self._getters:
                self._getters.wake_one()
        finally:
            self._release()

    def get_nowait(self) -> Any:
        """Return the oldest item now, or raise; see :meth:`dpcore.Queue.get_nowait`."""
        try:
            self._acquire()
            if not self._items:
                raise QueueClosedError(str(self), "get") if self._closed else QueueEmptyError(str(self))
            self._held += 1
            item = self._items.popleft()
            if self._putters:
                self._putters.wake_one()
            return item
        finally:
            self._release()

    def tally(self, *, done: bool = False, close: bool = False) -> Tally:
        """Tell what is so, after having changed it."""
        with self._lock:
            if done:
                if not self._held:
                    raise TooManyDoneError(str(self))
                self._held -= 1
            if close:
                self._closed, self._room = True, 0
                self._putters.wake_all()
                self._getters.wake_all()
            tally = Tally(len(self._items), len(self._items) + self._held, self._closed)
            if not tally.unfinished:
                self._joiners.wake_all()
            return tally

    async def ready(self, end: str) -> None:
        """Stand in line until one is woken."""
        line, sleeper = self._line(end), _Task()
        if not self._stand(line, sleeper):
            return
        try:
            await sleeper.event.wait()
        except BaseException:
            self._leave(line, sleeper)
            raise

    def ready_sync(self, end: str, timeout: float | None) -> None:
        """Stand in the same line with a thread."""
        line, sleeper = self._line(end), _Thread()
        if not self._stand(line, sleeper):
            return
        try:
            woken = sleeper.wait(timeout)
        except BaseException:  # a signal: KeyboardInterrupt
            self._leave(line, sleeper)
            raise
        if (
            not woken
        ):  # whoever waited tries once more, and then raises: if it was woken just now, another takes its turn
            self._leave(line, sleeper)

    def _line(self, end: str) -> _Line:
        return {"put": self._putters, "get": self._getters, "join": self._joiners}[end]

    def _stand(self, line: _Line, sleeper: _Task | _Thread) -> bool:
        """Stand at the end of *line*; False, and nothing happens, if there is nothing to wait for."""
        with self._lock:
            if self._is_ready(line):
                return False
            line[sleeper] = None
            return True

    def _leave(self, line: _Line, sleeper: _Task | _Thread) -> None:
        """Leave *line*; who was woken already wakes the next in its place."""
        with self._lock:
            if line.pop(sleeper, line) is line and self._is_ready(line):
                line.wake_one()

    def _is_ready(self, line: _Line) -> bool:
        if line is self._joiners:
            return not self._items and not self._held
        return self._closed or (bool(self._items) if line is self._getters else len(self._items) < self.size)


class _Line(OrderedDict["_Task | _Thread", None]):
    """Those who wait for one thing, the first first; to be touched with the lock of the queue."""

    def wake_one(self) -> None:
        """Wake the first, or the next where that one's event loop is gone."""
        while self:
            try:
                sleeper, _ = self.popitem(last=False)
            except KeyError:  # the last one has been collected as garbage between the two lines
                return
            if sleeper.wake():
                return

    def wake_all(self) -> None:
        """Wake everybody."""
        while self:
            self.wake_one()


class _Task:
    """One that waits on an event loop, and can be woken from anywhere."""

    __slots__ = ("_loop", "event")

    def __init__(self) -> None:
        self.event = anyio.Event()
        self._loop: Any = current_token().native_token

    def wake(self) -> bool:
        """Have it go on; False if its event loop is closed."""
        if _running_loop() is self._loop:
            self.event.set()
            return True
        tell = getattr(self._loop, "call_soon_threadsafe", None) or self._loop.run_sync_soon
        try:
            tell(self.event.set)
        except RuntimeError:
            return False
        return True


class _Thread:
    """One that waits with its thread."""

    __slots__ = ("_gate",)

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._gate.acquire()

    def wake(self) -> bool:
        """Have it go on."""
        self._gate.release()
        return True

    def wait(self, timeout: float | None) -> bool:
        """Wait until it is woken, which is True, or *timeout* seconds are over."""
        most = -1 if timeout is None else min(max(timeout, 0), threading.TIMEOUT_MAX)
        return self._gate.acquire(timeout=most)


def _running_loop() -> object:
    """Return the event loop that runs in this thread; None if there is none."""
    try:
        return current_token().native_token
    except anyio.NoEventLoopError:
        return None
