"""Talks: what a job says and is told, while it runs, of the streams that it feeds and reads live."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from dpcore.errors import UnsupportedError
from dpcore.jobs import Enough, Items, Job, Left, Message, Reading, Room, Stored, Stream, There
from dpcore.ports import Line

__all__ = ("Talk", "opened")


def opened(job: Job, stream: Stream, talk: Talk | None) -> Any:
    """Return what a task receives whose parameter reads *stream*; as it is made if that is live."""
    if stream.live:
        if talk is None:
            raise UnsupportedError("perform() without a line", "streams", f"read {stream.items.task!r} while it runs")
        talk.begin(stream.items.task)
        return _live_items(job, stream.items, talk) if stream.how == "iterator" else AsyncItems(job, stream.items, talk)
    if stream.how == "list":
        return [job.io.load(ref) for ref in stream.items]
    return _items(job, stream.items) if stream.how == "iterator" else AsyncItems(job, stream.items)


def _items(job: Job, items: Items) -> Iterator[Any]:
    for ref in items:
        yield job.io.load(ref)


class AsyncItems(AsyncIterator[Any]):
    """The items of a stream on an event loop, as they are made if there is a *talk*.

    No generator: trio warns of one that is left before its end, and readers may do that.
    """

    __slots__ = ("_index", "_items", "_job", "_refs", "_talk")

    def __init__(self, job: Job, items: Items, talk: Talk | None = None) -> None:
        self._job, self._items, self._talk = job, items, talk
        self._refs = iter(items)
        self._index = 0

    async def __anext__(self) -> Any:
        await checkpoint()  # a long stream leaves the loop to others between items
        if self._talk is None:
            ref = next(self._refs, None)
        else:
            is_there = await self._talk.wait_for_item_async(self._items.task, self._index)
            ref = self._items.at(self._index) if is_there else None
        if ref is None:
            raise StopAsyncIteration
        self._index += 1
        return self._job.io.load(ref)

    async def aclose(self) -> None:
        """Read no more."""
        self._refs = iter(())
        if self._talk is not None:
            self._talk.leave(self._items.task)

    def __del__(self) -> None:
        if self._talk is not None:
            self._talk.leave(self._items.task)


def _live_items(job: Job, items: Items, talk: Talk) -> Iterator[Any]:
    index = 0
    try:
        while talk.wait_for_item(items.task, index):
            yield job.io.load(items.at(index))
            index += 1
    finally:
        talk.leave(items.task)


class Talk:
    """What one job says and is told of the streams that it feeds and reads live.

    Whoever waits for something takes in whatever comes, also what another part of the
    job waits for, and lets that one know.
    """

    def __init__(self, job: Job, line: Line) -> None:
        self._line = line
        self._room = job.room
        self._enough = False
        self._there: dict[str, There] = {}
        self._changed = threading.Condition()
        self._changed_async = anyio.Event() if job.is_async else None
        self._receives = False

    def begin(self, task: str) -> None:
        """Say that the stream of *task* is going to be read from its first item."""
        self._there[task] = There(task, 0)
        self._line.send(Reading(task, 0))

    def leave(self, task: str) -> None:
        """Say that the stream of *task* is not read any more."""
        there = self._there[task]
        if not there.ended:
            self._there[task] = There(task, 0, ended=True)
            self._line.send(Left(task))

    def stored(self, count: int) -> None:
        """Say that the items before *count* are stored."""
        if self._room is not None:
            self._line.send(Stored(count))

    def wait_for_room(self, count: int) -> bool:
        """Wait until item *count* may be made; tell whether anybody wants it."""
        if self._room is None:
            return True
        with self._changed:
            self._hear()
        if not self._has_room(count):
            self._wait(lambda: self._has_room(count))
        return not self._enough

    async def wait_for_room_async(self, count: int) -> bool:
        """Do the same on an event loop."""
        if self._room is None:
            return True
        self._hear()
        if not self._has_room(count):
            await self._wait_async(lambda: self._has_room(count))
        return not self._enough

    def _hear(self) -> None:
        """Take in what was said already, unless another part of the job does."""
        while not self._receives and (message := self._line.receive_sync(wait=False)) is not None:
            self._take(message)

    def wait_for_item(self, task: str, index: int) -> bool:
        """Wait until item *index* of *task* can be loaded; False if there is none."""
        if not self._is_known(task, index):
            self._line.send(Reading(task, index, waits=True))
            self._wait(lambda: self._is_known(task, index))
        return index < self._there[task].count

    async def wait_for_item_async(self, task: str, index: int) -> bool:
        """Do the same on an event loop."""
        if not self._is_known(task, index):
            self._line.send(Reading(task, index, waits=True))
            await self._wait_async(lambda: self._is_known(task, index))
        return index < self._there[task].count

    def _has_room(self, count: int) -> bool:
        return self._enough or self._room is None or count < self._room

    def _is_known(self, task: str, index: int) -> bool:
        there = self._there[task]
        return index < there.count or there.ended

    def _take(self, message: Message) -> None:
        if isinstance(message, There):
            self._there[message.task] = message
        elif isinstance(message, Room):
            self._room = message.count
        elif isinstance(message, Enough):
            self._enough = True

    def _wait(self, is_so: Callable[[], bool]) -> None:
        with self._changed:
            while not is_so():
                if self._receives:  # in another thread of the job
                    self._changed.wait()
                    continue
                self._receives = True
                self._changed.release()
                try:
                    message = self._line.receive_sync()
                finally:
                    self._changed.acquire()
                    self._receives = False
                    self._changed.notify_all()
                if message is not None:
                    self._take(message)

    async def _wait_async(self, is_so: Callable[[], bool]) -> None:
        assert self._changed_async is not None
        while not is_so():
            if self._receives:
                await self._changed_async.wait()
                continue
            self._receives = True
            try:
                self._take(await self._line.receive())
            finally:
                self._receives = False
                self._changed_async.set()
                self._changed_async = anyio.Event()
