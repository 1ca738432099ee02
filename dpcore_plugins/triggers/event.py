"""Fires for events: for each, in batches, when they pause, or once in a while."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Literal

import anyio

from dpcore import Clock, Delivery, Event, Firing, Platform, StreamTrigger
from dpcore.durations import Duration, duration
from dpcore.errors import ArgumentError
from dpcore.topics import check_pattern

__all__ = ("EventTrigger",)

_log = logging.getLogger("dpcore.triggers.event")

_MOST = 10_000  # events of one batch, which are kept until they have been answered
_GROUP = re.compile(r"[\w-]{1,64}")  # what a group may be called
_NOT_IN_GROUPS = re.compile(r"[^\w-]")


class EventTrigger(StreamTrigger):
    """Fires for events on the topics that *pattern* matches, also topics that come later.

    It reads as a group of its own, so it takes no event from other readers, and none is lost while one
    scheduler takes over from another.  *filter* is a function of the event; those for which it is false
    do not count, and one that it fails on goes to the dead letters.

    By itself it fires for each event.  One of these joins several:

    - *batch*: fires for that many events together, or for those that are there *within* so much time since the first;
    - *debounce*: fires when no event has come for so long, with the last one;
    - *throttle*: fires for the first, and then not again for so long; for what comes
      meanwhile it fires once, with the last one.

    *start* says where a schedule that is new begins: at ``"new"`` events, or at the ``"earliest"`` that
    the broker has kept.

    Raises :class:`~dpcore.errors.ArgumentError` and :class:`~dpcore.errors.TopicError`.
    """

    def __init__(
        self,
        pattern: str,
        *,
        filter: Callable[[Event], object] | None = None,  # noqa: A002  (what it is called everywhere)
        batch: int | None = None,
        within: Duration | None = None,
        debounce: Duration | None = None,
        throttle: Duration | None = None,
        start: Literal["new", "earliest"] = "new",
    ) -> None:
        self.pattern = check_pattern(pattern)
        if filter is not None and not callable(filter):
            raise ArgumentError("filter", filter, "a function of the event")
        if batch is not None and (type(batch) is not int or not 1 <= batch <= _MOST):
            raise ArgumentError("batch", batch, f"a number of events, from 1 to {_MOST:,}")
        if within is not None and batch is None:
            raise ArgumentError("within", within, "left out without batch=: it says how long a batch is waited for")
        joins = [("batch", batch), ("debounce", debounce), ("throttle", throttle)]
        said = [(name, value) for name, value in joins if value is not None]
        if len(said) > 1:
            raise ArgumentError(*said[-1], f"left out beside {said[0][0]}=: only one of batch, debounce and throttle")
        if start not in ("new", "earliest"):
            raise ArgumentError("start", start, "'new' or 'earliest'")
        self.filter, self.batch, self.start = filter, batch, start
        self.within = None if within is None else duration("within", within)
        self.debounce = None if debounce is None else duration("debounce", debounce)
        self.throttle = None if throttle is None else duration("throttle", throttle)

    def __str__(self) -> str:
        joined = [f"{name} {value}" for name, value in self._joining() if value is not None]
        return ", ".join([f"event {self.pattern!r}", *joined])

    def __repr__(self) -> str:
        joined = "".join(f", {name}={value!r}" for name, value in self._joining() if value is not None)
        return f"EventTrigger({self.pattern!r}{joined})"

    def _joining(self) -> tuple[tuple[str, object], ...]:
        return (
            ("filter", self._filter_name()),
            ("batch", self.batch),
            ("within", self.within),
            ("debounce", self.debounce),
            ("throttle", self.throttle),
            ("start", None if self.start == "new" else self.start),
        )

    def _filter_name(self) -> str | None:
        """Return what the filter is called, in every process alike, which a repr may not be."""
        return None if self.filter is None else getattr(self.filter, "__qualname__", type(self.filter).__qualname__)

    @asynccontextmanager
    async def listen(self, platform: Platform, schedule: str) -> AsyncIterator[AsyncIterator[Firing]]:
        """Read as a group named after the schedule; events that were not answered are delivered again."""
        reading = platform.subscribe(self.pattern, group=_group(schedule), start=self.start, ack="manual")
        async with reading as events:
            wanted = self._wanted(events.deliveries())
            if self.batch is None and self.debounce is None and self.throttle is None:
                yield self._each(wanted)
                return
            held = _Held(platform.clock, self.batch, keeps_first=self.throttle is not None)
            async with anyio.create_task_group() as group:
                group.start_soon(held.read, wanted)
                yield self._joined(held)
                group.cancel_scope.cancel()

    async def _wanted(self, deliveries: AsyncIterator[Delivery]) -> AsyncIterator[Delivery]:
        async for delivery in deliveries:
            try:
                passes = self.filter is None or self.filter(delivery.event)
            except Exception as error:  # noqa: BLE001  (whatever the user's function raises)
                event = delivery.event
                _log.exception("the filter of %s fails on event %s on %r", self, event.id, event.topic)
                await delivery.reject(f"the filter of {self} fails on it: {type(error).__name__}: {error}")
                continue
            if passes:
                yield delivery
            else:
                await delivery.ack()

    async def _each(self, deliveries: AsyncIterator[Delivery]) -> AsyncIterator[Firing]:
        async for delivery in deliveries:
            yield _firing([delivery])
            await delivery.ack()

    async def _joined(self, held: _Held) -> AsyncIterator[Firing]:
        while await held.some():
            if self.batch is not None:
                await held.full(self.batch, self.within)
            elif self.debounce is not None:
                await held.quiet(self.debounce)
            taken = held.take()
            yield _firing(taken)
            for delivery in taken:
                await delivery.ack()
            if self.throttle is not None:
                await held.clock.sleep(self.throttle.total_seconds())


class _Held:
    """Events that wait to be joined: all of a batch, or else the last one."""

    def __init__(self, clock: Clock, batch: int | None, *, keeps_first: bool) -> None:
        self.clock = clock
        self._batch, self._keeps_first = batch, keeps_first
        self._held: list[Delivery] = []
        self._since = self._until = 0.0
        self._changed = anyio.Event()
        self._awaited = True
        self._ended = False
        self._error: Exception | None = None

    async def read(self, deliveries: AsyncIterator[Delivery]) -> None:
        """Hold what comes; where only the last one counts, those before it are done with."""
        try:
            async for delivery in deliveries:
                while self._full():
                    await self._changed.wait()
                before = self._held.pop() if self._batch is None and self._held else None
                self._until = self.clock.monotonic()
                if not self._held:
                    self._since = self._until
                self._held.append(delivery)
                self._tell()
                if before is not None:
                    await before.ack()
        except Exception as error:  # noqa: BLE001  (it is raised to who asks for firings)
            self._error = error
        self._ended = True
        self._tell()

    def _full(self) -> bool:
        """Whether what comes has to wait until what is held has been taken."""
        if self._batch is not None:
            return len(self._held) >= self._batch
        return self._keeps_first and self._awaited and bool(self._held)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def some(self) -> bool:
        """Wait until there is one; False if no more will come."""
        while not self._held and not self._ended:
            self._awaited = True
            await self._changed.wait()
        return bool(self._held) or self._error is not None

    async def full(self, most: int, within: timedelta | None) -> None:
        """Wait until there are *most*, or for so long since the first came."""
        while len(self._held) < most and not self._ended:
            left = None if within is None else self._since + within.total_seconds() - self.clock.monotonic()
            if left is not None and left <= 0:
                return
            await self._change(left)

    async def quiet(self, pause: timedelta) -> None:
        """Wait until none has come for so long."""
        while (left := self._until + pause.total_seconds() - self.clock.monotonic()) > 0 and not self._ended:
            await self._change(left)

    async def _change(self, seconds: float | None) -> None:
        """Wait until something changes, *seconds* at the most."""
        async with anyio.create_task_group() as group:
            if seconds is not None:
                group.start_soon(self._wake, seconds, group.cancel_scope)
            await self._changed.wait()
            group.cancel_scope.cancel()

    async def _wake(self, seconds: float, scope: anyio.CancelScope) -> None:
        await self.clock.sleep(seconds)
        scope.cancel()

    def take(self) -> list[Delivery]:
        """Return what is held, which is not held any more; or raise what reading has ended with."""
        if self._error is not None:
            raise self._error
        taken, self._held, self._awaited = self._held, [], False
        self._tell()
        return taken


def _group(schedule: str) -> str:
    """Return what the readers of a schedule are called; its name may have dots, and be longer than theirs."""
    if _GROUP.fullmatch(group := f"schedule-{schedule}"):
        return group
    digest = hashlib.sha256(schedule.encode()).hexdigest()[:12]
    return f"schedule-{_NOT_IN_GROUPS.sub('-', schedule)[:40]}-{digest}"


def _firing(deliveries: Sequence[Delivery]) -> Firing:
    """Answer some events: the same ones give the same firing, also when they are delivered again."""
    events = tuple(delivery.event for delivery in deliveries)
    told = "\0".join(f"{event.source}\0{event.id}" for event in events)
    key = told if len(events) == 1 else hashlib.sha256(told.encode()).hexdigest()
    return Firing(nominal=events[-1].when or datetime.fromtimestamp(0, UTC), events=events, key=key)
