"""Queue: items on their way from whoever has them to whoever takes them, in order and never too many."""

from __future__ import annotations

from abc import abstractmethod
from itertools import cycle
from types import TracebackType
from typing import Any, ClassVar, Literal, NamedTuple, Self, final

from anyio.lowlevel import checkpoint

from dpcore.clock import SystemClock
from dpcore.errors import ArgumentError, QueueClosedError, QueueEmptyError, QueueFullError
from dpcore.ports.adapter import Adapter

__all__ = ("Queue", "Tally")

# A put or get that need not wait lets the event loop go on once in so many calls: each time would cost ten times as much.
_CALLS_A_TURN = 256
_EVER = 1e9  # seconds

_now = SystemClock().monotonic


class Tally(NamedTuple):
    """What is so of a queue at one moment."""

    items: int
    """How many items are in it."""
    unfinished: int
    """How many items were put and are not done: those in it, and those that were got and not reported by task_done()."""
    closed: bool


class Queue(Adapter):
    """Items, first in, first out, at most *size* of them at a time; for many who put and many who get.

    An adapter writes :meth:`put_nowait`, :meth:`get_nowait`, :meth:`tally`,
    :meth:`ready` and :meth:`ready_sync`; it calls ``super().__init__(size=size)``.
    What is here holds of every queue:

    - **Order.** Items come out in the order in which they went in; what one task or thread puts
      stays in order, whoever else puts.
    - **Once.** Each item is got once.  Cancelling :meth:`get` at any moment, also by
      ``asyncio.wait_for``, loses none; a :meth:`put` that was cancelled has put nothing.
    - **Waiting.** An item wakes one of those who wait for one, the first first; whoever is woken and
      cancelled wakes the next.  Who comes at that moment and need not wait may be before them.
    - **Closing.** After :meth:`close` putting raises :class:`~dpcore.errors.QueueClosedError`, at once
      also for those who wait for room.  Getting gives what is left, and then raises it too.
    - **Any colour.** :meth:`put`, :meth:`get` and :meth:`join` wait on the event loop, asyncio's or
      trio's; :meth:`put_sync` and :meth:`get_sync` make a thread wait, which must not be a
      loop's.  All ends may be used at once, in several threads and loops.

    A put or get that need not wait does not let other tasks go on each time, but
    once in some hundreds of calls, so that a loop of them starves nobody for long.

    ``async for item in queue`` gets items until the queue is closed and empty.
    ``async with queue`` and ``with queue`` close it at the end; it may be used
    without either.

    Capabilities:

    - ``processes``: it pickles into a process that is being started, and there it is the same
      queue: items, order, bound, closing and joining are shared.  Items must pickle, and
      each is got as a copy.  A process that is killed, whatever it is doing, stops nobody
      else and loses nothing but the items that it had got, which count as done.
    """

    capabilities: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, *, size: int = 1024) -> None:
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ArgumentError("size", size, "at least 1: a queue without a bound only hides that nobody keeps up")
        self.size = size
        self._is_turn = cycle([False] * _CALLS_A_TURN + [True]).__next__

    def __str__(self) -> str:
        return f"{type(self).__name__}(size={self.size})"

    # ------------------------------------------------------------ for the adapter, the first two for everybody

    @abstractmethod
    def put_nowait(self, item: Any) -> None:
        """Put *item* now.

        Raises :class:`~dpcore.errors.QueueFullError` (a :class:`queue.Full`) if there is no room,
        :class:`~dpcore.errors.QueueClosedError` (a :class:`ValueError`) if the queue is closed, whether full or
        not, and :class:`~dpcore.errors.ItemNotSentError` if the item cannot be sent; then nothing
        was put.  When it returns, the item is in the queue, whatever becomes of who put it.
        """

    @abstractmethod
    def get_nowait(self) -> Any:
        """Return the oldest item now, and take it out.

        Raises :class:`~dpcore.errors.QueueEmptyError` (a :class:`queue.Empty`) if there is none, and
        :class:`~dpcore.errors.QueueClosedError` if there is none and the queue is closed.
        """

    @abstractmethod
    def tally(self, *, done: bool = False, close: bool = False) -> Tally:
        """Tell what is so, after having counted an item as *done* or having closed, if that is asked.

        All at one moment.  An item too many is a :class:`~dpcore.errors.TooManyDoneError`, and
        changes nothing.  Closing wakes all who wait for items and room; what makes
        ``unfinished`` 0 wakes all who wait for that.
        """

    @abstractmethod
    async def ready(self, end: Literal["put", "get", "join"]) -> None:
        """Wait until it is worth trying again: for room, for an item, or for nothing being unfinished.

        A closed queue is worth trying.  It may return too early, never too late, and never
        not at all; it takes nothing, so that cancelling it loses nothing but its place.
        """

    @abstractmethod
    def ready_sync(self, end: Literal["put", "get"], timeout: float | None) -> None:
        """Make the thread wait as :meth:`ready` does, for *timeout* seconds at the most."""

    # ------------------------------------------------------------ putting and getting

    @final
    async def put(self, item: Any) -> None:
        """Put *item*, waiting for room; if this is cancelled, it is not in the queue.

        Raises what :meth:`put_nowait` does, but for QueueFullError.
        """
        if self._is_turn():
            await checkpoint()
        while True:
            try:
                return self.put_nowait(item)
            except QueueFullError:
                pass
            await self.ready("put")

    @final
    async def get(self) -> Any:
        """Return the oldest item, waiting for one; if this is cancelled, none is lost.

        Raises :class:`~dpcore.errors.QueueClosedError` once the queue is closed and empty.
        """
        if self._is_turn():
            await checkpoint()
        while True:
            try:
                return self.get_nowait()
            except QueueEmptyError:
                pass
            await self.ready("get")

    @final
    def put_sync(self, item: Any, timeout: float | None = None) -> None:
        """Put *item* from code that is not async; QueueFullError if there is no room for *timeout* seconds."""
        if timeout is not None:
            _check_timeout(timeout)
        until = None
        while True:
            try:
                return self.put_nowait(item)
            except QueueFullError:
                until = until or _Until(timeout)
                if until.is_over():
                    raise
            self.ready_sync("put", until.left())

    @final
    def get_sync(self, timeout: float | None = None) -> Any:
        """Return the oldest item in code that is not async; QueueEmptyError if there is none for *timeout* seconds."""
        if timeout is not None:
            _check_timeout(timeout)
        until = None
        while True:
            try:
                return self.get_nowait()
            except QueueEmptyError:
                until = until or _Until(timeout)
                if until.is_over():
                    raise
            self.ready_sync("get", until.left())

    @final
    def __aiter__(self) -> Self:
        return self

    @final
    async def __anext__(self) -> Any:
        try:
            return await self.get()
        except QueueClosedError:
            raise StopAsyncIteration from None

    # ------------------------------------------------------------ how it is

    @final
    def qsize(self) -> int:
        """Tell how many items are in it; where others use it, that was so a moment ago."""
        return self.tally().items

    @final
    def empty(self) -> bool:
        """Tell whether no item is in it."""
        return not self.tally().items

    @final
    def full(self) -> bool:
        """Tell whether there is no room in it."""
        return self.tally().items >= self.size

    @final
    def task_done(self) -> None:
        """Say that what was to be done with an item that was got is done; once for each, in the process that got it.

        Once too often is a :class:`~dpcore.errors.TooManyDoneError` (a :class:`ValueError`).
        """
        self.tally(done=True)

    @final
    async def join(self) -> None:
        """Wait until every item that was put was got and reported by :meth:`task_done`.

        Closing changes nothing of that: what is left is waited for.
        """
        await checkpoint()
        while self.tally().unfinished:
            await self.ready("join")

    # ------------------------------------------------------------ the end

    @final
    def close(self) -> None:
        """End it, for all who use it: no item goes in any more, what is in it can be got; twice does nothing."""
        self.tally(close=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _check_timeout(timeout: float) -> None:
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout != timeout:
        raise ArgumentError("timeout", timeout, "a number of seconds, or None to wait as long as it takes")


class _Until:
    """How long somebody still waits."""

    __slots__ = ("_end", "_was_last")

    def __init__(self, timeout: float | None) -> None:
        self._end = None if timeout is None else _now() + min(timeout, _EVER)
        self._was_last = timeout is not None and timeout <= 0

    def is_over(self) -> bool:
        """Tell whether there was a try after the time was over."""
        return self._was_last

    def left(self) -> float | None:
        """Return the seconds that are left."""
        if self._end is None:
            return None
        left = self._end - _now()
        self._was_last = left <= 0
        return max(left, 0)
