"""Subscription: one reader of events, and what its broker opens for it."""

from __future__ import annotations

import logging
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence, Sized
from sys import float_info
from types import TracebackType
from typing import Any, Literal, Self
from weakref import ref

import anyio
from anyio.lowlevel import checkpoint

from dpcore.errors import (
    ArgumentError,
    DeliveryError,
    PayloadError,
    SubscriptionError,
    UnsupportedError,
    check_argument,
)
from dpcore.events import Event, PayloadReader
from dpcore.groups import Held, Interest, Settled, Settlement
from dpcore.jobs import writable

__all__ = ("Acknowledge", "Delivery", "Feed", "Subscription", "this_task")

Acknowledge = Literal["auto", "manual"]
Watch = Callable[[Event, str, str], None]

TURN = 256  # events that a reader takes before others on the loop have their turn
_LEAVING = 5.0  # seconds that a broker may take to end a subscription

_log = logging.getLogger("dpcore.broker")


class Feed(ABC):
    """What a broker opens for one subscription: where its events come from, and where it is said what became of them.

    An adapter writes :meth:`receive`, :meth:`settle` and :meth:`close`.  One call of
    :meth:`receive` runs at a time.
    """

    ready: deque[Event]
    """Without a group: what has come and was not read yet.

    A broker may fill it, and take from its left, by itself; it counts as waiting, for the
    interest's buffer.  One that does not, and writes no :meth:`wait`, finds no more in it
    than the reader has asked for.
    """
    waiting: Sized = ()
    """While it holds anything, :meth:`freed` is called for each event that is read."""

    def __init__(self) -> None:
        self.ready = deque()

    @abstractmethod
    async def receive(self, limit: int) -> Sequence[Held]:
        """Wait for events, and return one to *limit* of them; none says that no more will come.

        What waits here until it is asked for is bounded by the interest's buffer, and its
        overflow says what is done with more.  A call that is cancelled has taken nothing:
        what came meanwhile is returned by the next.
        """

    @abstractmethod
    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Say what became of events that :meth:`receive` gave; only for a group.

        What was settled before, or has gone to another member meanwhile, is left alone.
        """

    @abstractmethod
    async def close(self) -> None:
        """End the subscription; what was received and not settled goes back to its group as the same attempt."""

    @property
    def dropped(self) -> int:
        """How many events the policy for overflow has dropped, here or in the group as a whole."""
        return 0

    async def wait(self, limit: int) -> bool:
        """Wait until something is :attr:`ready`, *limit* events if that many have come; False if no more will come.

        Others on the loop are seen to: this need not wait where something has come.
        """
        self.ready.extend(held.event for held in await self.receive(limit))
        return bool(self.ready)

    def swap(self, done: Held | None) -> Held | None:  # noqa: ARG002
        """Ack *done* and take the next event, both without waiting; None, and nothing has happened, if that cannot be."""
        return None

    def read_by(self, task: object) -> None:  # noqa: B027  (most brokers need not know)
        """Hear which task reads now, as :meth:`Broker.this_task` has it; for a broker that tells who waits for itself."""

    def freed(self) -> None:  # noqa: B027  (as above)
        """Hear that an event of :attr:`ready` was read."""


class Delivery:
    """An event that was delivered to a member of a group, to be settled once."""

    __slots__ = ("_held", "_settle", "_settled", "event")

    def __init__(self, event: Event, held: Held | None, settle: Callable[[Settlement], Awaitable[None]]) -> None:
        self.event = event
        """What was delivered."""
        self._held, self._settle = held, settle
        self._settled = ""

    def __repr__(self) -> str:
        return f"<Delivery of {self.event.id} on {self.event.topic!r}, attempt {self.attempt}{', ' * bool(self._settled)}{self._settled}>"

    @property
    def attempt(self) -> int:
        """How many times the event has been delivered, this time included."""
        return 1 if self._held is None else self._held.attempt

    @property
    def settled(self) -> bool:
        """Whether it was said what became of it."""
        return bool(self._settled)

    async def ack(self) -> None:
        """Say that the event is done with."""
        await self._say("ack", "acked")

    async def nack(self, delay: float | None = None) -> None:
        """Have the event delivered again, after *delay* seconds, or to the dead letters if it was too often.

        Raises :class:`~dpcore.errors.UnsupportedError` for a delay where the broker lacks the capability ``delay``.
        """
        await self._say("nack", "nacked", delay=_delay(delay))

    async def reject(self, reason: str = "") -> None:
        """Send the event to the dead letters, with *reason*; it is not delivered again."""
        check_argument("reason", reason, str, "a str")
        await self._say("reject", "rejected", reason=writable(reason))

    async def _say(self, how: Settled, done: str, *, delay: float = 0.0, reason: str = "") -> None:
        if self._settled:
            raise DeliveryError(self.event.id, self.event.topic, f"was {self._settled} before")
        if self._held is None:
            if how != "ack":
                raise UnsupportedError("a subscription without a group", "groups", f"{how} an event")
            self._settled = done
            return
        await self._settle(Settlement(self._held, how, delay, reason))
        self._settled = done

    def _end(self, done: str) -> None:
        self._settled = self._settled or done


class Subscription:
    """One reader of events, from entering its context to leaving it: an async iterator of events.

    - ``async for event in subscription`` gives one after the other; ``.batches()`` lists; ``.deliveries()``
      each with its attempt and the means to settle it.
    - In a group, with ``ack="auto"``, an event is acked when the next is asked for, or when the context is
      left without an exception.  Left with one, or by cancellation, what is in hand is nacked.  With
      ``ack="manual"`` what was not settled when the context is left is nacked.
    - The iteration ends when every topic it reads is completed and nothing is left, or when the broker is left.

    Cancelling the wait for an event loses nothing.  One task reads at a time.
    """

    def __init__(
        self,
        find: Callable[[], Awaitable[Any]],
        interest: Interest,
        *,
        ack: Acknowledge = "auto",
        fit: PayloadReader | None = None,
    ) -> None:
        self.interest = interest
        """What it reads, and how."""
        self._find, self._ack, self._fit = find, ack, fit
        self._feed: Feed | None = None
        self._watch: Sequence[Watch] = ()
        self._ready: deque[Event] = deque()
        self._waiting: Sized = ()
        self._turns = 0
        self._swap: Callable[[Held | None], Held | None] | None = None
        self._current: Held | None = None  # the event that was given last, one by one
        self._hand: dict[
            int, tuple[Held, Delivery | None]
        ] = {}  # those of a list, and those to be settled by the reader
        self._come: list[tuple[Held, Event | None, str]] = []  # received and not given yet; or why it is not to be
        self._unfit, self._misfit = 0, ""
        self._left = False

    def __repr__(self) -> str:
        group = f" in group {self.interest.group!r}" if self.interest.group is not None else ""
        return f"<Subscription to {' | '.join(self.interest.patterns)!r}{group}>"

    async def __aenter__(self) -> Self:
        if self._feed is not None:
            raise SubscriptionError(self.interest.patterns, "is entered already", "subscribe once more")
        broker = await self._find()
        self._feed = feed = await broker.open_feed(self.interest)
        self._require = broker.require
        self._watch = broker.on_settled
        self._ready, self._waiting = feed.ready, feed.waiting
        if self.interest.group is not None and self._ack == "auto" and self._fit is None:
            self._swap = feed.swap
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        feed = self._opened()
        self._left = True
        self._turns, self._ready = 0, deque()
        how: Settled = "ack" if kind is None and self._ack == "auto" else "nack"
        with anyio.move_on_after(_LEAVING, shield=True) as scope:
            try:
                if self._hand or self._current is not None:
                    await self._settle_hand(how, "given back when its subscription was left")
            finally:
                await feed.close()
        if scope.cancelled_caught:
            _log.warning("%r was not ended by its broker within %g seconds", self, _LEAVING)

    @property
    def dropped(self) -> int:
        """How many events were dropped because there was no room for them; in a group, by the group as a whole."""
        return self._opened(left=True).dropped

    @property
    def unfit(self) -> int:
        """How many events were left out because their payload is not of the type that was asked for."""
        return self._unfit

    # ------------------------------------------------------------ reading

    def __aiter__(self) -> Self:
        self._read_alone("events")
        return self

    async def __anext__(self) -> Event:
        if self._turns > 0 and self._ready:  # the hot path: nothing to wait for, nobody to wake
            self._turns -= 1
            event = self._ready.popleft()
            if self._waiting:
                self._opened().freed()
            if self._fit is None:
                return event
            if (fitted := self._fitted(event)) is not None:
                return fitted
        elif self._swap is not None and self._turns > 0 and not (self._hand or self._watch):
            held = self._swap(self._current)
            if held is not None:
                self._turns -= 1
                self._current = held
                return held.event
        return await (self._next() if self.interest.group is None else self._next_held())

    async def _next(self) -> Event:
        while await self._some():
            event = self._ready.popleft()
            self._turns -= 1
            if self._waiting:
                self._opened().freed()
            if (fitted := self._fitted(event)) is not None:
                return fitted
        raise StopAsyncIteration

    async def _some(self, limit: int = 1) -> bool:
        """Wait until something is ready, and for the others' turn when it has come; False if no more will come."""
        feed = self._opened()
        feed.read_by(this_task())
        if self._turns <= 0:
            await checkpoint()
            self._turns = TURN
        return bool(self._ready) or await feed.wait(limit)

    async def _next_held(self) -> Event:
        for held, event in await self._given(1):
            self._current = held
            return event
        raise StopAsyncIteration

    def batches(self, limit: int = 256) -> AsyncIterator[list[Event]]:
        """Iterate over lists of one to *limit* events: what is there when it is asked for.

        In a group the events of a list are acked together, when the next list is asked for.
        """
        if not isinstance(limit, int) or limit < 1:
            raise ValueError(f"limit={limit!r} must be at least 1")
        self._read_alone("batches")
        return _Batches(self, limit)

    async def _batch(self, limit: int) -> list[Event]:
        if self.interest.group is None:
            while await self._some(limit):
                if events := self._all_fitted(self._taken(limit)):
                    return events
            raise StopAsyncIteration
        given = await self._given(limit)
        if not given:
            raise StopAsyncIteration
        for held, _ in given:
            self._hand[id(held)] = (held, None)
        return [event for _, event in given]

    def _all_fitted(self, events: list[Event]) -> list[Event]:
        if self._fit is None:
            return events
        return [fitted for fitted in map(self._fitted, events) if fitted is not None]

    def _taken(self, limit: int) -> list[Event]:
        ready = self._ready
        if len(ready) <= limit:
            events = list(ready)
            ready.clear()
            self._turns -= len(events)
        else:
            events = [ready.popleft() for _ in range(limit)]
            self._turns = 0  # the next list comes after the others' turn
        for _ in range(min(len(events), len(self._waiting))):
            self._opened().freed()
        return events

    def deliveries(self) -> AsyncIterator[Delivery]:
        """Iterate over deliveries: each event with its attempt, to be acked, nacked or rejected."""
        self._opened()
        return _Deliveries(self)

    async def _delivery(self) -> Delivery:
        if self.interest.group is None:
            return Delivery(await self._next(), None, self._settle_one)
        for held, event in await self._given(1):
            delivery = Delivery(event, held, self._settle_one)
            self._hand[id(held)] = (held, delivery)
            return delivery
        raise StopAsyncIteration

    async def _given(self, limit: int) -> list[tuple[Held, Event]]:
        """Return what the reader is given next, one to *limit* events that fit; none if no more will come."""
        feed = self._opened()
        if self._ack == "auto" and (self._current is not None or self._hand):
            await self._settle_hand("ack", "acked when the next was asked for")
        if self._turns <= 0:
            await checkpoint()
            self._turns = TURN
        self._turns -= limit
        feed.read_by(this_task())
        if self._fit is None:
            return [(held, held.event) for held in await feed.receive(limit)]
        while not (fitting := await self._fitting()):
            come = await feed.receive(limit)
            if not come:
                return []
            for held in come:
                event = self._fitted(held.event)
                self._come.append((held, event, self._misfit))
        given, self._come = fitting[:limit], self._come[limit:]
        return given

    async def _fitting(self) -> list[tuple[Held, Event]]:
        """Return what was received, once what does not fit was rejected; until it is given it is not in hand."""
        fitting = [(held, event) for held, event, _ in self._come if event is not None]
        if len(fitting) < len(self._come):
            await self._settle(
                [Settlement(held, "reject", 0.0, misfit) for held, event, misfit in self._come if event is None]
            )
            self._come = [one for one in self._come if one[1] is not None]
        return fitting

    # ------------------------------------------------------------ settling

    async def _settle_one(self, settlement: Settlement) -> None:
        held = settlement.held
        if settlement.delay:
            self._require("delay", f"deliver an event again after {settlement.delay:g} seconds")
        if id(held) not in self._hand:
            raise DeliveryError(held.event.id, held.event.topic, "went back when its subscription was left")
        await self._settle([settlement])
        self._hand.pop(id(held), None)

    async def _settle_hand(self, how: Settled, done: str) -> None:
        hand = self._hand
        current = () if self._current is None else (Settlement(self._current, how),)
        await self._settle([*current, *(Settlement(held, how) for held, _ in hand.values())])
        self._current = None
        for _, delivery in hand.values():
            if delivery is not None:
                delivery._end(done)
        self._hand = {}

    async def _settle(self, settlements: Sequence[Settlement]) -> None:
        await self._opened(left=True).settle(settlements)
        if self._watch:
            for one in settlements:
                for see in self._watch:
                    see(one.held.event, self.interest.group or "", one.how)

    def _fitted(self, event: Event) -> Event | None:
        """Return *event* with the payload as it was asked for; None, counted and logged, if it is something else."""
        if self._fit is None:
            return event
        try:
            return self._fit.event(event)
        except PayloadError as error:
            self._unfit += 1
            self._misfit = writable(str(error))  # it may have words of the user's
            level = logging.WARNING if self._unfit == 1 else logging.DEBUG
            _log.log(level, "%r leaves out event %s: %s", self, event.id, self._misfit)
            return None

    # ------------------------------------------------------------ states

    def _opened(self, *, left: bool = False) -> Feed:
        if self._feed is None:
            raise SubscriptionError(self.interest.patterns, "is not entered", "write: async with ... as events")
        if self._left and not left:
            raise SubscriptionError(self.interest.patterns, "was left", "subscribe once more")
        return self._feed

    def _read_alone(self, what: str) -> None:
        feed = self._opened()
        if self._ack == "manual":
            raise SubscriptionError(
                self.interest.patterns, f"was made with ack='manual', and {what} cannot be acked", "use .deliveries()"
            )
        feed.read_by(this_task())


class _Batches(AsyncIterator[list[Event]]):
    """The lists of a subscription; ending it early takes nothing from the subscription."""

    __slots__ = ("_limit", "_subscription")

    def __init__(self, subscription: Subscription, limit: int) -> None:
        self._subscription, self._limit = subscription, limit

    async def __anext__(self) -> list[Event]:
        return await self._subscription._batch(self._limit)


class _Deliveries(AsyncIterator[Delivery]):
    """The deliveries of a subscription."""

    __slots__ = ("_subscription",)

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    async def __anext__(self) -> Delivery:
        return await self._subscription._delivery()


def _delay(delay: float | None) -> float:
    if delay is None:
        return 0.0
    if isinstance(delay, bool) or not isinstance(delay, int | float) or not 0 <= delay <= float_info.max:
        raise ArgumentError("delay", delay, "a finite number of seconds, at least 0")
    return float(delay)


def this_task() -> object:
    """Return what stands for the current task, for as long as it lives, and equals itself only; keeps nothing alive."""
    if (asyncio := sys.modules.get("asyncio")) is not None and (loop := asyncio._get_running_loop()) is not None:
        task = asyncio.current_task()
        return loop if task is None else ref(task)
    return ref(sys.modules["trio"].lowlevel.current_task())
