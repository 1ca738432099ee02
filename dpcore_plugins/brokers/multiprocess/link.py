"""A peer's end of its connection to the hub: what it asks, what it waits for, and how it hears."""

from __future__ import annotations

import logging
import math
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any, Protocol

import anyio
from anyio.lowlevel import current_token

from dpcore.errors import (
    BrokerLostError,
    BrokerStateError,
    BufferFullError,
    DeadlockError,
    DpcoreError,
    GroupSettingsError,
    TopicCompletedError,
    TopicError,
)
from dpcore.topics import matches
from dpcore_plugins.brokers.multiprocess.flight import Flight
from dpcore_plugins.brokers.multiprocess.places import Place, forkless
from dpcore_plugins.brokers.multiprocess.wire import (
    Cut,
    Kind,
    NonsenseError,
    Welcome,
    frame,
    unpacked,
)

__all__ = ("Hearer", "Link")

_log = logging.getLogger("dpcore.broker")

_READ = 1 << 18  # bytes that are read at once
_LAST_WORD = 1.0  # seconds in which the hub says whether it had taken what is to be taken back


class Hearer(Protocol):
    """A subscription as the link sees it."""

    def hear(self, kind: int, count: int, body: bytes) -> None:
        """Take what the hub said of this subscription."""

    def report(self) -> None:
        """Write what the hub is to know, because something is about to be sent."""

    def lose(self) -> None:
        """Take it that nothing more comes."""

    @property
    def task(self) -> object:
        """Who reads, or None if nobody has begun."""

    @property
    def opener(self) -> object:
        """Who subscribed."""


class Asked:
    """A request that the hub has not answered."""

    __slots__ = ("blocked", "changed", "error", "is_answered", "is_taken", "value")

    def __init__(self) -> None:
        self.changed = anyio.Event()
        self.is_answered = False
        self.is_taken = False
        self.error: DpcoreError | None = None
        self.value: bytes = b""
        self.blocked: tuple[list[int], str, int] | None = None

    def answer(self, *, taken: bool, value: bytes = b"", error: DpcoreError | None = None) -> None:
        self.is_answered, self.is_taken, self.value, self.error = True, taken, value, error
        self.changed.set()


class Link:
    """A connection to the hub that has let us in; many may ask at once."""

    def __init__(self, place: Place, connection: socket.socket, welcome: Welcome, cut: Cut) -> None:
        self.place = place
        self.max_payload = welcome.max_payload
        self.hub_pid = welcome.pid
        self.is_leaving = False  # whether this side is about to end it
        self.is_own = False  # whether the hub lives with this very broker
        self.grace = 5.0  # seconds in which another task may begin to read what nobody has read yet
        self.hearers: dict[int, Hearer] = {}
        self._alone = anyio.Event()
        self._socket = connection
        self._cut = cut
        self._numbers = count(1)
        self._asked: dict[int, Asked] = {}
        self._out: list[bytes] = []
        self._reporting: dict[Hearer, None] = {}
        self._armed = False
        self._stuck: memoryview | None = None
        self._unstick = anyio.Event()
        self._sent = anyio.Event()
        self._flight = Flight()
        self._wanted = list(welcome.wanted)
        self._wants: dict[str, bool] = {}
        self._lost: Callable[[], DpcoreError] | None = None
        self._left = False
        loop: Any = current_token().native_token
        self._loop = loop
        self._is_eager = hasattr(loop, "run_sync_soon")  # of trio, which takes longer than to send
        self._soon: Callable[[Callable[[], None]], object] = getattr(loop, "run_sync_soon", None) or loop.call_soon
        forkless.add(self)

    # ------------------------------------------------------------ saying

    def say(self, kind: int, number: int = 0, count: int = 0, body: bytes = b"") -> None:
        """Have a frame sent when this turn of the loop ends."""
        self._out.append(frame(kind, number, count, body))
        if not self._armed:
            self._armed = True
            self._soon(self.flush)

    def request(self, kind: int, number: int, count: int, body: bytes) -> None:
        """Have a frame sent for which an answer is awaited."""
        if self._is_eager:
            self._out.append(frame(kind, number, count, body))
            self.flush()
        else:
            self.say(kind, number, count, body)

    def report_soon(self, hearer: Hearer) -> None:
        """Have *hearer* report when this turn of the loop ends, or before anything else is sent."""
        self._reporting[hearer] = None
        if not self._armed:
            self._armed = True
            self._soon(self.flush)

    def report_now(self, hearer: Hearer) -> None:
        """Have *hearer* report at once."""
        self._reporting[hearer] = None
        self.flush()

    def flush(self) -> None:
        """Send everything that waits, in one piece."""
        self._armed = True  # whoever reports now need not arm
        if self._reporting:
            said, self._out = self._out, []
            hearers, self._reporting = self._reporting, {}
            for hearer in hearers:
                try:
                    hearer.report()
                except Exception:  # noqa: BLE001  (one of many must not keep the others, and what they say, from the hub)
                    _log.exception("what became of events of broker %s could not be said", self.place)
            self._out += said
        self._armed = False
        if self._stuck is not None or not self._out or self._lost is not None or self._left:
            return
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            while self._hear_some():  # it may have said why
                pass
            self._lose(f"the connection broke ({error.strerror})")
            return
        if sent < len(data):
            self._stuck = memoryview(data)[sent:]
            self._unstick.set()

    async def write(self) -> None:
        """Send what the socket had no room for, for as long as the connection lasts."""
        with anyio.CancelScope(shield=True):
            while not self._over:
                await self._unstick.wait()
                self._unstick = anyio.Event()
                await self._write_on()
                self._sent.set()
                self.flush()
            self._close()

    async def _write_on(self) -> None:
        while self._stuck is not None and not self._over:
            with suppress(OSError, ValueError, anyio.ClosedResourceError):  # who listens will see that it is gone
                await anyio.wait_writable(self._socket)
                self._stuck = self._stuck[self._socket.send(self._stuck) :] or None

    # ------------------------------------------------------------ hearing

    async def listen(self) -> None:
        """Hear what the hub says, for as long as the connection lasts."""
        if self._hears_by_itself():
            return
        with anyio.CancelScope(shield=True):  # who is cancelled waits for the hub's last word
            while not self._over:
                with suppress(OSError, ValueError, anyio.ClosedResourceError):  # closed by this side meanwhile
                    await anyio.wait_readable(self._socket)
                self._hear_some()

    def _hears_by_itself(self) -> bool:
        """Have the loop of asyncio call as soon as there is something, without a task that would have to be woken."""
        try:
            self._loop.add_reader(self._socket, self._hear_some)
        except (AttributeError, NotImplementedError):  # trio, or a loop that cannot
            return False
        return True

    def _hear_some(self) -> bool:
        """Hear what is there; False if there was nothing."""
        if self._over:
            return False
        try:
            data = self._socket.recv(_READ)
        except BlockingIOError:
            return False
        except OSError as error:
            self._lose(f"the connection broke ({error.strerror})")
            return False
        if not data:
            self._lose(
                f"process {self.hub_pid}, in which it was, closed the connection: it died, or dropped this peer, and then its log says why"
            )
            return False
        try:
            for heard in self._cut.cut(data):
                self.hear(*heard)
        except NonsenseError as error:
            self._lose(f"it spoke nonsense: {error}")
        return True

    def hear(self, kind: int, number: int, count: int, body: bytes) -> None:
        """Take one thing that the hub said."""
        if Kind.EVENTS <= kind <= Kind.RECALL:
            hearer = self.hearers.get(number)
            if hearer is not None:
                hearer.hear(kind, count, body)
        elif kind == Kind.WANTED:
            self._wanted = unpacked(body, list[str])
            self._wants.clear()
        elif kind == Kind.BYE:
            self._lose(unpacked(body, str))
        elif kind == Kind.BLOCKED:
            if (asked := self._asked.get(number)) is not None:
                asked.blocked = unpacked(body, tuple[list[int], str, int])
                asked.changed.set()
        elif (asked := self._asked.pop(number, None)) is not None:
            if kind == Kind.REFUSE:
                asked.answer(taken=False, error=_error(body))
            else:
                asked.answer(taken=kind == Kind.ANSWER, value=body)

    def wanted(self, topic: str) -> bool:
        """Tell whether anybody may be reading *topic*: of the platform's own, who reads is known here."""
        if topic[:1] != "$":
            return True
        if (known := self._wants.get(topic)) is None:
            known = self._wants[topic] = any(matches(pattern, topic) for pattern in self._wanted)
            if len(self._wants) > 10_000:
                self._wants.clear()
        return known

    # ------------------------------------------------------------ asking

    async def ask(self, kind: int, count: int = 0, body: bytes = b"") -> bytes:
        """Ask the hub, and return what it answers; raises what it refuses with."""
        self.check()
        number = next(self._numbers) & 0xFFFFFFFF
        asked = self._asked[number] = Asked()
        self.request(kind, number, count, body)
        try:
            await asked.changed.wait()
        finally:
            self._asked.pop(number, None)
        self._raise(asked.error)
        return asked.value

    async def publish(self, kind: int, count: int, body: bytes, topic: str, me: object) -> None:
        """Have the hub take *count* events; if it is cancelled it takes them back, where it still can."""
        self.check()
        size = len(body)
        await self._flight.board(topic, size, self.check)
        number = next(self._numbers) & 0xFFFFFFFF
        asked = self._asked[number] = Asked()
        self.request(kind, number, count, body)
        try:
            await self._taken(asked, topic, me)
        except BaseException as error:  # noqa: BLE001  (raised again, unless it was taken all the same)
            await self._withdraw(asked, number, error)
        else:
            self._raise(asked.error)
            if not asked.is_taken:
                raise self._was_left()
        finally:
            self._flight.land(topic, size)

    def _raise(self, error: DpcoreError | None) -> None:
        if error is not None:
            if self.is_leaving and isinstance(error, BrokerLostError):
                raise self._was_left() from None
            raise error

    async def _taken(self, asked: Asked, topic: str, me: object) -> None:
        while not asked.is_answered:
            await asked.changed.wait()
            if asked.is_answered or asked.blocked is None:
                return
            asked.changed = anyio.Event()
            feeds, reader, capacity = asked.blocked
            alone = self._reads_alone(feeds, me)
            if alone is None:
                continue
            grace = 0.0 if alone else self.grace
            with anyio.move_on_after(grace):
                await asked.changed.wait()
            if not asked.is_answered and self._reads_alone(feeds, me) is not None:
                raise DeadlockError(topic, reader, capacity, grace)

    def _reads_alone(self, feeds: list[int], me: object) -> bool | None:
        """Tell whether only this task reads there: True, False if nobody has read yet and it subscribed, None if not."""
        readers = [hearer for feed in feeds if (hearer := self.hearers.get(feed)) is not None]
        if not readers or any((reader.task or reader.opener) != me for reader in readers):
            return None
        return all(reader.task is not None for reader in readers)

    async def _withdraw(self, asked: Asked, number: int, why: BaseException) -> None:
        """Take a publication back; raise *why* if that worked, and return if the hub had taken it before.

        A hub that says neither in time, since its process is stopped, may have taken it.
        """
        if not asked.is_answered:
            asked.changed = anyio.Event()
            self.say(Kind.WITHDRAW, number)
            with anyio.move_on_after(_LAST_WORD, shield=True):
                while not asked.is_answered:
                    await asked.changed.wait()
                    if not asked.is_answered:
                        asked.changed = anyio.Event()
        if not asked.is_taken or not _may_go_on(why):
            raise why

    # ------------------------------------------------------------ subscriptions

    def forget(self, number: int, *, closed: bool) -> None:
        """Have nothing to do with a subscription any more; where it was not closed, the hub does."""
        self.hearers.pop(number, None)
        if not closed and not self._over:
            self.say(Kind.CLOSE, 0, number)
        if not self.hearers:
            self._alone.set()

    async def idle(self) -> None:
        """Wait until no subscription is left."""
        while self.hearers and not self._over:
            self._alone = anyio.Event()
            await self._alone.wait()

    # ------------------------------------------------------------ its end

    @property
    def _over(self) -> bool:
        return self._left or self._lost is not None

    def check(self) -> None:
        """Raise if there is nobody to ask any more."""
        if self._left:
            raise self._was_left()
        if self._lost is not None:
            raise self._lost()

    def _was_left(self) -> BrokerStateError:
        return BrokerStateError(str(self.place), "was left")

    def forked(self) -> None:
        """Let go of the parent's connection in a forked process."""
        pid = os.getppid()
        self._lost = lambda: BrokerStateError(
            str(self.place),
            f"is that of process {pid}, from which this one was forked; enter a broker of its own here, by broker.address",
        )
        self._socket.close()

    def _lose(self, cause: str) -> None:
        if self._over:
            return
        self._lost = lambda: BrokerLostError(str(self.place), cause)
        self._end()

    def _end(self) -> None:
        asked, self._asked = self._asked, {}
        for one in asked.values():
            one.answer(taken=False, error=self._was_left() if self._lost is None else self._lost())
        for hearer in [*self.hearers.values()]:
            hearer.lose()
        self._flight.end()
        self._alone.set()
        self._unstick.set()
        with suppress(AttributeError, NotImplementedError):
            self._loop.remove_reader(self._socket)

    def _close(self) -> None:
        """Close the socket; only a task can tell others that wait for it."""
        if self._socket.fileno() >= 0:
            anyio.notify_closing(self._socket)
            self._socket.close()
            forkless.discard(self)

    async def leave(self) -> None:
        """Send what is left, hear what was said until now, and end the connection."""
        with anyio.move_on_after(1):
            self.flush()
            while self._stuck is not None and not self._over:
                self._sent = anyio.Event()
                await self._sent.wait()
        while not self._over and self._hear_some():  # whoever was answered need not be told that it is uncertain
            pass
        if not self._over:
            self._left = True
            self._end()
        self._left = True
        self._close()


def _error(body: bytes) -> DpcoreError:
    name, args = unpacked(body, tuple[str, list[Any]])
    if name not in _REFUSALS:
        raise NonsenseError(f"it refuses with {name!r}")
    return _REFUSALS[name](*args)


_REFUSALS: dict[str, type[DpcoreError]] = {
    one.__name__: one for one in (BrokerLostError, BufferFullError, GroupSettingsError, TopicCompletedError, TopicError)
}


def _may_go_on(why: BaseException) -> bool:
    """Tell whether what was cancelled may return all the same: a cancel scope of anyio's cancels again where it matters.

    ``Task.cancel()`` of asyncio comes only once, and who did not raise would have swallowed it.
    """
    if isinstance(why, DeadlockError):
        return True
    return isinstance(why, anyio.get_cancelled_exc_class()) and anyio.current_effective_deadline() == -math.inf
