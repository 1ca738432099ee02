"""A queue between the processes of one machine, which no process can break by dying.

All of it is shared memory without a name, so that nothing is left when the last process that
has it open is gone, however it went.  Four rules make it hold:

- **The kernel keeps the locks.**  One is for those who put, one for those who get, so that they
  seldom wait for each other.  Both are ``flock``: what a process holds is free when it is dead.
- **One store commits.**  A put or get prepares all it has to, and then changes one number of eight
  bytes, the count of items put or got.  Whoever dies before has done nothing; after, everything.
- **Signs are raised early and lowered late.**  There is a descriptor (eventfd) for those who wait
  for items, one for room, one for the end of all work.  It can be read whenever there *may* be what they wait for:
  who makes it true raises it before; only who is about to sleep lowers it, holding both locks and
  having looked.  So no wake-up can be lost with the process that was woken.
- **Members are known to be alive.**  Each process holds the lock on a byte of its own.  What a process has got
  and not done is counted in its cell, and counts no more when that lock is free.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import pickle
import select
import struct
import threading
from array import array
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from fcntl import LOCK_EX, LOCK_UN, flock
from multiprocessing import reduction
from multiprocessing.context import get_spawning_popen
from typing import Any, Self
from weakref import WeakKeyDictionary, WeakSet

import anyio
from anyio.lowlevel import checkpoint, current_token

from dpcore import Queue, Tally
from dpcore.errors import (
    ItemNotSentError,
    QueueClosedError,
    QueueEmptyError,
    QueueFullError,
    QueueNotSentError,
    TooManyDoneError,
    UnsupportedError,
)

__all__ = ("MultiprocessQueue",)

# The shared memory, in words of eight bytes: what those who get write, and what those who put write, apart from each
# other, so that a core does not lose one's line because of the other.
_GOT, _ROOM, _CELLS, _CLOSED = 0, 1, 2, 3
_PUT, _ITEMS, _DONE, _END, _BULK = 16, 17, 18, 19, 20
_HEAD = 32
_MEMBERS = 1024  # processes that have it open at once
_CELL = 2  # process id, items got and not done
_ENTRY = 3  # where in the ring it begins, or would; how long it is; at what byte its own pages begin
_SMALL = 1 << 16  # bytes of the largest item that goes into the ring; others have pages, freed when they were read
_LARGE = 1 << 62  # the bit in an entry's length that says so

_FLOCK = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux
_YIELDS = 10  # times that a thread lets others run before it sleeps: to be woken costs more than most waits take
_DAY = 86_400.0  # seconds; longer than that poll() is not asked to wait at once
_LIFE = 1 << 20  # the byte whose lock says that the first member lives


class MultiprocessQueue(Queue):
    """Shares items between processes, on Linux; sent in the arguments of a process that is started by ``multiprocessing``.

    ``Process(target=work, args=(queue,))``, with ``spawn``, ``forkserver`` or ``fork``, or ``initargs`` of a pool.
    When a put returns, the item is in shared memory, and no longer this process's to lose.  An item that was
    got by a process that is killed is gone with it, and counts as done.  ``task_done()`` is for the process that got the item.

    It opens nothing until it is first used, entered or sent; then it holds eight file
    descriptors in each process, until that process has forgotten it.  Where a process is killed while it
    writes or reads an item of more than 64 KiB, the memory of that item is free when the queue is gone.
    A process that is *stopped* (SIGSTOP) while it puts or gets makes the others wait.
    """

    capabilities = frozenset({"processes"})

    def __init__(self, *, size: int = 1024) -> None:
        super().__init__(size=size)
        if not hasattr(os, "memfd_create") or not hasattr(os, "pidfd_open"):
            raise UnsupportedError(str(self), "processes", "share items here, which takes Linux 5.3 or later")
        self._opening = threading.Lock()
        self._opened: _Shared | None = None
        _made.add(self)

    def __reduce__(self) -> tuple[Any, ...]:
        if get_spawning_popen() is None:
            raise QueueNotSentError(
                str(self),
                "send it to a process when that is started: Process(target=..., args=(queue,)), or initargs of a pool",
            )
        return _received, (type(self), self.size, [reduction.DupFd(sent) for sent in self.open().sent])

    async def __aenter__(self) -> Self:
        self.open()
        return self

    def __enter__(self) -> Self:
        self.open()
        return self

    def open(self) -> _Shared:
        """Make the shared memory, unless it is there."""
        with self._opening:
            if self._opened is None:
                self._opened = _Shared.new(self.size)
        return self._opened

    def forked(self) -> None:
        """Be a queue of the process that was forked."""
        self._opening = threading.Lock()  # another thread, which is not here, may have held it
        self.open().lock_again()

    def put_nowait(self, item: Any) -> None:
        """Put *item* now, or raise; see :meth:`dpcore.Queue.put_nowait`."""
        shared = self._opened or self.open()
        data = None
        if shared.has_room():  # or else it would be pickled at each try
            try:
                data = pickle.dumps(item, 5)
            except Exception as error:
                raise ItemNotSentError(str(self), item, str(error) or type(error).__name__) from error
        if data is None or not shared.put(data):
            raise QueueClosedError(str(self), "put") if shared.is_closed() else QueueFullError(str(self), self.size)

    def get_nowait(self) -> Any:
        """Return the oldest item now, or raise; see :meth:`dpcore.Queue.get_nowait`.

        An item that does not let itself be unpickled raises what it raises, is gone, and counts as done.
        """
        shared = self._opened or self.open()
        found = shared.get()
        if found is None:
            # It may be closed since; then this is worth another try.
            raise QueueClosedError(str(self), "get") if shared.is_over() else QueueEmptyError(str(self))
        try:
            return pickle.loads(found) if isinstance(found, bytes) else shared.large(found)
        except BaseException:
            shared.tally(done=True)
            raise

    def tally(self, *, done: bool = False, close: bool = False) -> Tally:
        """Tell what is so among all processes, after having changed it."""
        tally = self.open().tally(done=done, close=close)
        if tally is None:
            raise TooManyDoneError(str(self))
        return tally

    async def ready(self, end: str) -> None:
        """Watch the sign of that end; of the tasks of one event loop the first does, and the others stand behind it."""
        shared = self._opened or self.open()
        async with shared.turn(end):
            if end != "join":
                await checkpoint()  # what others do meanwhile often is all that was to be waited for
                if shared.may_be_ready(end):
                    return
            if not shared.lower(end):
                return
            if end == "join":
                await shared.watch_others(shared.signs[end])
            else:
                await anyio.wait_readable(shared.signs[end])

    def ready_sync(self, end: str, timeout: float | None) -> None:
        """Watch the same sign with a thread."""
        shared = self._opened or self.open()
        for _ in range(_YIELDS):
            os.sched_yield()
            if shared.may_be_ready(end):
                return
        if shared.lower(end):
            watch = select.poll()
            watch.register(shared.signs[end], select.POLLIN)
            watch.poll(None if timeout is None else min(max(timeout, 0), _DAY) * 1000)


def _received(kind: type[MultiprocessQueue], size: int, sent: list[Any]) -> MultiprocessQueue:
    queue = kind(size=size)
    queue._opened = _Shared(size, [descriptor.detach() for descriptor in sent])
    return queue


# ---------------------------------------------------------------- what the processes share


class _Shared:
    """One process's hold on the shared memory of a queue."""

    def __init__(self, size: int, descriptors: list[int]) -> None:
        self.size = size
        self.sent = descriptors
        self._locks: list[int] = []
        self._cell = 0  # none yet
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)  # noqa: FBT003  (it has no name)
        state, self._bulk, *signs = descriptors
        self.signs = dict(zip(("put", "get", "join"), signs, strict=True))
        self._flags = {"put": _ROOM, "get": _ITEMS, "join": _DONE}
        self._entries = _HEAD + _MEMBERS * _CELL
        self._ring, self._round = _sizes(size)
        self._map = mmap.mmap(state, self._ring + self._round)
        self._bytes = memoryview(self._map)
        self._words = self._bytes[: self._ring].cast("Q")
        self.lock_again()

    @classmethod
    def new(cls, size: int) -> _Shared:
        """Make the memory of a new queue."""
        descriptors: list[int] = []
        try:
            descriptors += (os.memfd_create(f"dpcore-queue-{name}") for name in ("state", "bulk"))
            os.ftruncate(descriptors[0], sum(_sizes(size)))
            descriptors += (os.eventfd(raised, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for raised in (1, 0, 0))
            shared = cls(size, descriptors)
        except BaseException:
            _close(descriptors)
            raise
        shared._words[_ROOM] = 1
        return shared

    def __del__(self) -> None:
        with suppress(Exception):  # at the end of the interpreter much is gone already; the kernel does the same
            if self._cell and self._words[self._cell + 1]:
                with self._both():  # what was got here is nobody's any more, and somebody may wait for that
                    self._raise("join")
                    self._words[self._cell + 1] = 0
        with suppress(Exception):
            _close(self._locks)
            _close(self.sent)

    def lock_again(self) -> None:
        """Open what this process locks by: locks belong to what was opened, so that each process opens for itself.

        What is sent is never locked, and its copies in other processes hold nothing.
        """
        old, self._locks = self._locks, []
        _close(old)
        for descriptor in (self._bulk, self.sent[0]):
            self._locks.append(os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC))
        self._putting, self._getting = self._locks
        self._put_lock, self._get_lock = threading.Lock(), threading.Lock()
        # Letting go of one of these and taking it again lets no store or load pass it, which processors other than x86 do.
        self._put_fence, self._get_fence = _held_lock(), _held_lock()
        self._cell = 0
        self._turns: WeakKeyDictionary[Any, dict[str, anyio.Lock]] = WeakKeyDictionary()

    # ------------------------------------------------------------ putting

    # put() and get() are written out, and look each thing up once: beside the two calls of the system
    # that lock, it is function calls that they would take their time with.

    def put(self, data: bytes) -> bool:
        """Put a pickled item; False, and nothing happens, if there is no room or it is closed."""
        words, length = self._words, len(data)
        with self._put_lock:
            try:
                flock(self._putting, LOCK_EX)
                put, got = words[_PUT], words[_GOT]
                if put - got >= self.size or words[_CLOSED]:
                    return False
                start = self._ring_start(got, length) if put != got else 0
                if length <= _SMALL and start is not None:
                    place = self._ring + start % self._round
                    self._bytes[place : place + length] = data
                    words[_END] = start + length
                    entry = self._entries + put % self.size * _ENTRY
                    words[entry], words[entry + 1] = start, length
                    if not words[_ITEMS]:
                        self._raise("get")
                    self._put_fence.release()
                    self._put_fence.acquire()
                    words[_PUT] = put + 1
                    return True
            finally:
                flock(self._putting, LOCK_UN)
        return self._put_large(data)

    def _ring_start(self, got: int, length: int) -> int | None:
        """Return where in the ring *length* bytes are free in one piece, behind the last item and before the oldest."""
        words, size = self._words, self._round
        start = words[_END]
        if start % size + length > size:
            start += size - start % size
        return start if start + length - words[self._entries + got % self.size * _ENTRY] <= size else None

    def _put_large(self, data: bytes) -> bool:
        """Put an item into pages of its own, which are written while nobody waits."""
        words, length = self._words, len(data)
        with self._locked(self._put_lock, self._putting):
            page = words[_BULK]
            words[_BULK] = page + -(-length // mmap.PAGESIZE) * mmap.PAGESIZE
        written, is_put = 0, False
        try:
            while written < length:
                written += os.pwrite(self._bulk, memoryview(data)[written:], page + written)
            with self._locked(self._put_lock, self._putting):
                put = words[_PUT]
                if put - words[_GOT] < self.size and not words[_CLOSED]:
                    entry = self._entries + put % self.size * _ENTRY
                    words[entry : entry + _ENTRY] = array("Q", (words[_END], length | _LARGE, page))
                    if not words[_ITEMS]:
                        self._raise("get")
                    self._put_fence.release()
                    self._put_fence.acquire()
                    words[_PUT] = put + 1
                    is_put = True
        finally:
            if not is_put and written:
                with mmap.mmap(self._bulk, written, offset=page) as pages:
                    pages.madvise(mmap.MADV_REMOVE)
        return is_put

    # ------------------------------------------------------------ getting

    def get(self) -> bytes | tuple[int, int] | None:
        """Take the oldest item: its bytes, or where they are and how many; None if there is none."""
        words = self._words
        if words[_PUT] == words[_GOT]:
            return None
        with self._get_lock:
            try:
                flock(self._getting, LOCK_EX)
                got = words[_GOT]
                if got == words[_PUT]:
                    return None
                self._get_fence.release()
                self._get_fence.acquire()
                entry = self._entries + got % self.size * _ENTRY
                length = words[entry + 1]
                found: bytes | tuple[int, int]
                if length <= _SMALL:
                    place = self._ring + words[entry] % self._round
                    found = self._map[place : place + length]
                else:
                    found = words[entry + 2], length & ~_LARGE
                if not words[_ROOM]:
                    self._raise("put")
                cell = self._cell or self._enrol()
                self._get_fence.release()
                self._get_fence.acquire()
                words[cell + 1] += 1  # no signal comes between this and the next line, only death, which undoes it
                words[_GOT] = got + 1
                return found
            finally:
                flock(self._getting, LOCK_UN)

    def large(self, found: tuple[int, int]) -> Any:
        """Return the value of an item that has pages of its own, and free them."""
        start, length = found
        with mmap.mmap(self._bulk, length, offset=start) as pages:
            try:
                return pickle.loads(pages)
            finally:
                pages.madvise(mmap.MADV_REMOVE)

    # ------------------------------------------------------------ all of it

    def is_closed(self) -> bool:
        """Tell whether nothing may be put any more."""
        return bool(self._words[_CLOSED])

    def is_over(self) -> bool:
        """Tell whether it is closed and nothing is in it: then nothing ever will be."""
        with self._both():
            return bool(self._words[_CLOSED]) and self._words[_PUT] == self._words[_GOT]

    def has_room(self) -> bool:
        """Tell whether there was room a moment ago, and it was not closed."""
        words = self._words
        return words[_PUT] - words[_GOT] < self.size and not words[_CLOSED]

    def tally(self, *, done: bool = False, close: bool = False) -> Tally | None:
        """Tell what is so, after having changed it; None, and nothing happens, if nothing is to be done."""
        words = self._words
        with self._both():
            if done:
                held = words[self._cell + 1] if self._cell else 0
                if not held:
                    return None
                if held == 1:
                    self._raise("join")
                words[self._cell + 1] = held - 1
            if close and not words[_CLOSED]:
                for end in ("put", "get"):
                    self._raise(end)
                words[_CLOSED] = 1
            items = words[_PUT] - words[_GOT]
            return Tally(items, items + self._held(), bool(words[_CLOSED]))

    def may_be_ready(self, end: str) -> bool:
        """Tell what :meth:`lower` would, without waiting for a lock, and as it was a moment ago."""
        words = self._words
        if words[_CLOSED]:
            return True
        items = words[_PUT] - words[_GOT]
        return items < self.size if end == "put" else bool(items)

    def lower(self, end: str) -> bool:
        """Lower the sign of *end*, since nothing is there to wake anybody for; False if there is."""
        words = self._words
        with self._both():
            items = words[_PUT] - words[_GOT]
            if end == "join":
                is_ready = not items and not self._held()
            else:
                is_ready = bool(words[_CLOSED]) or (items < self.size if end == "put" else bool(items))
            if is_ready:
                return False
            words[self._flags[end]] = 0
            with suppress(BlockingIOError):
                os.eventfd_read(self.signs[end])
            return True

    def _raise(self, end: str) -> None:
        """Raise the sign of *end*, before what it says becomes true."""
        os.eventfd_write(self.signs[end], 1)
        self._words[self._flags[end]] = 1

    def turn(self, end: str) -> anyio.Lock:
        """Return what one task of the running event loop holds while it watches *end*."""
        loop: Any = current_token().native_token
        turns = self._turns.get(loop)
        if turns is None:
            turns = self._turns[loop] = {}
        return turns.setdefault(end, anyio.Lock(fast_acquire=True))

    @contextmanager
    def _locked(self, lock: threading.Lock, descriptor: int) -> Iterator[None]:
        with lock:
            try:
                flock(descriptor, LOCK_EX)
                yield
            finally:
                flock(descriptor, LOCK_UN)

    @contextmanager
    def _both(self) -> Iterator[None]:
        with self._locked(self._put_lock, self._putting), self._locked(self._get_lock, self._getting):
            yield

    # ------------------------------------------------------------ members

    def _enrol(self) -> int:
        """Take a cell for this process, and return its place; to be called with the lock for getting."""
        words = self._words
        for number in range(_MEMBERS):
            with suppress(BlockingIOError, PermissionError):  # somebody else lives there
                fcntl.fcntl(self._getting, fcntl.F_OFD_SETLK, _life(fcntl.F_WRLCK, number))
                cell = _HEAD + number * _CELL
                self._raise("join")  # who joins has one more member to watch
                words[cell], words[cell + 1] = os.getpid(), 0
                words[_CELLS] = max(words[_CELLS], number + 1)
                self._cell = cell
                return cell
        raise OSError(errno.EUSERS, f"more than {_MEMBERS} processes get from one queue")

    def _lives(self, cell: int) -> bool:
        number = (cell - _HEAD) // _CELL
        said = fcntl.fcntl(self._getting, fcntl.F_OFD_GETLK, _life(fcntl.F_WRLCK, number))
        return bool(_FLOCK.unpack(said)[0] != fcntl.F_UNLCK)

    def _cells(self) -> Iterator[int]:
        """Yield the cells that were ever used, but for this process's."""
        cells = range(_HEAD, _HEAD + self._words[_CELLS] * _CELL, _CELL)
        return (cell for cell in cells if cell != self._cell)

    def _held(self) -> int:
        """Count the items that members have got and not done; to be called with both locks."""
        words = self._words
        own = words[self._cell + 1] if self._cell else 0
        return own + sum(words[cell + 1] for cell in self._cells() if words[cell + 1] and self._lives(cell))

    async def watch_others(self, sign: int) -> None:
        """Wait until *sign* is raised, or another member dies, who may be the last that held something."""
        with ExitStack() as opened:
            cells = [cell for cell in self._cells() if self._lives(cell)]
            watched = [sign]
            for cell in cells:
                try:
                    watched.append(os.pidfd_open(self._words[cell]))
                except ProcessLookupError:
                    return
                opened.callback(os.close, watched[-1])
            if all(map(self._lives, cells)):  # or else what was opened may be a later process of the same number
                await _any_readable(watched)


async def _any_readable(descriptors: list[int]) -> None:
    async with anyio.create_task_group() as group:

        async def watch(descriptor: int) -> None:
            await anyio.wait_readable(descriptor)
            group.cancel_scope.cancel()

        for descriptor in descriptors:
            group.start_soon(watch, descriptor)


def _life(kind: int, number: int) -> bytes:
    return _FLOCK.pack(kind, os.SEEK_SET, _LIFE + number, 1, 0)


def _sizes(size: int) -> tuple[int, int]:
    """Return at which byte the ring begins, and how many it has: a kilobyte an item, of which those never used take none."""
    return 8 * (_HEAD + _MEMBERS * _CELL + size * _ENTRY), min(max(size << 10, 2 * _SMALL), 1 << 26)


def _held_lock() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


def _close(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())


# A process that is forked has what this one has.  So it must be there before, or each would make a queue of its own; and
# the child must not lock by what its parent locks by, or neither would keep the other out.
_made: WeakSet[MultiprocessQueue] = WeakSet()


def _before_fork() -> None:
    for queue in [*_made]:
        queue.open()


def _in_child() -> None:
    for queue in [*_made]:
        queue.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_in_child)
