"""Trigger: what decides when something is to happen."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, tzinfo
from itertools import islice
from typing import Any, ClassVar, Literal, Protocol, final

import msgspec

from dpcore.clock import Clock
from dpcore.errors import NaiveDatetimeError, TriggerError
from dpcore.events import Event
from dpcore.ports.adapter import Adapter
from dpcore.ports.subscription import Subscription

__all__ = ("Firing", "Overlap", "Platform", "StreamTrigger", "TimeTrigger", "Trigger")

Overlap = Literal["skip", "queue", "allow"]
"""What happens to a firing whose schedule is still running: it is left out, waits for its turn, or runs beside."""


class Firing(msgspec.Struct, frozen=True, kw_only=True):
    """One decision of a trigger that something is to happen.

    A trigger fills in what it knows; the scheduler adds the name of the schedule.

    >>> Firing(schedule="nightly", nominal=datetime(2026, 3, 29, 1, tzinfo=UTC)).id
    'nightly-20260329T010000Z'
    """

    nominal: datetime
    """When it was meant to be, aware; of a time trigger in the local time of its zone, with a fixed offset.

    So it compares and subtracts as the instant that it is, and its date is the date there.
    """

    schedule: str = ""
    """The name of the schedule."""

    events: tuple[Event, ...] = ()
    """The events that it answers, oldest first; of those that were joined into one, the last."""

    body: Any = None
    """What it was given along by who fired it, such as the body of a request."""

    key: str = ""
    """What tells it from others of its schedule: with the same key nothing happens twice.  Without one, its nominal time."""

    @property
    def event(self) -> Event | None:
        """The event that it answers; of several, the last."""
        return self.events[-1] if self.events else None

    @property
    def id(self) -> str:
        """The id of the run that it starts, and of the event that it publishes: always the same for one firing."""
        if self.key:
            return f"{self.schedule}-{hashlib.sha256(self.key.encode()).hexdigest()[:20]}"
        return f"{self.schedule}-{stamp(self.nominal)}"


def stamp(moment: datetime) -> str:
    """Write an instant so that it can be a part of an id: ISO 8601's basic form, in UTC.

    >>> stamp(datetime(2026, 3, 29, 1, 0, 0, 250000, tzinfo=UTC))
    '20260329T010000.250000Z'
    """
    moment = moment.astimezone(UTC)
    fraction = f".{moment.microsecond:06}" if moment.microsecond else ""
    return f"{moment.year:04}{moment:%m%dT%H%M%S}{fraction}Z"


class Platform(Protocol):
    """What a trigger that listens may ask of the platform; an :class:`~dpcore.App` is one."""

    @property
    def clock(self) -> Clock:
        """Who is asked what time it is, and who waits."""

    @property
    def subscribe(self) -> Callable[..., Subscription]:
        """Return a subscription to the topics that patterns match: :meth:`Broker.subscribe`."""

    @property
    def publish(self) -> Callable[..., Awaitable[Event]]:
        """Publish data on a topic: :meth:`Broker.publish`."""

    @property
    def run(self) -> Callable[..., Awaitable[Any]]:
        """Run tasks to their end: :meth:`dpcore.App.run`."""


class Trigger(Adapter):
    """Decides when something is to happen: a :class:`TimeTrigger` or a :class:`StreamTrigger`.

    In a project file it is a table: its name with the one thing that it is made of, if
    there is one, and its settings, the keyword-only parameters of its constructor::

        {cron = "0 3 * * *", timezone = "Europe/Berlin"}

    Its ``str`` says what it does, in one line, changes when that does, and is the same in every process:
    a schedule whose triggers are described otherwise than before begins anew.

    One trigger may be that of several schedules; what it remembers must not be of one of them.
    """

    overlap: ClassVar[Overlap] = "skip"
    """What its schedules do where they do not say it themselves."""

    body: Any = None
    """The type of what somebody who fires its schedules gives along, where the trigger says one."""


class TimeTrigger(Trigger):
    """Knows beforehand when it fires: a pure function of time.

    An adapter writes :meth:`next_fire`.  Because that waits for nothing and remembers
    nothing, the scheduler can say what comes, find what was missed, and agree with other
    schedulers on each time, without asking who was there.
    """

    timezone: tzinfo = UTC
    """In whose local time its firings are shown."""

    @abstractmethod
    def next_fire(self, after: datetime) -> datetime | None:
        """Return the first time later than *after*, aware and in UTC; None if there is none any more.

        It is always the same for the same *after*, in this process and in others, at any time and from any thread;
        and never earlier for a later one.  So it asks no clock, draws no lots and does no work that waits.

        *after* is aware, in whatever zone, and may be as early or late as a datetime can be.  For a naive one it
        raises :class:`~dpcore.errors.NaiveDatetimeError`, unless it returns None whatever it is given.
        """

    def begins(self, now: datetime) -> datetime:
        """Return the time after which a schedule that is new at *now* begins to fire; *now* itself, if not overridden."""
        return now

    @final
    def following(self, after: datetime) -> datetime | None:
        """Return :meth:`next_fire`, checked: :class:`~dpcore.errors.TriggerError` for what is no later, aware time.

        And :class:`~dpcore.errors.NaiveDatetimeError` for an *after* that is naive.
        """
        found = self.next_fire(aware("after", after))
        if found is None:
            return None
        if not isinstance(found, datetime) or found.tzinfo is None:
            raise TriggerError(str(self), f"gives {found!r} as its next time, which is no aware datetime")
        found = found.astimezone(UTC)
        if found <= after.astimezone(UTC):
            raise TriggerError(str(self), f"gives {found} as its next time after {after}, which is not later")
        return found

    @final
    def between(self, start: datetime, end: datetime) -> Iterator[datetime]:
        """Yield its times from *start* on and before *end*, both aware."""
        aware("end", end)
        end, moment = end.astimezone(UTC), _just_before(aware("start", start))
        while (found := self.following(moment)) is not None and found < end:
            yield found
            moment = found

    @final
    def upcoming(self, count: int, after: datetime) -> list[datetime]:
        """Return its next *count* times after *after*, fewer if there are no more."""
        return list(islice(self._from(aware("after", after)), count))

    def _from(self, moment: datetime) -> Iterator[datetime]:
        while (found := self.following(moment)) is not None:
            yield found
            moment = found


class StreamTrigger(Trigger):
    """Fires when something happens: it listens.

    An adapter writes :meth:`listen`.  Of several schedulers that share a run store,
    one listens for a schedule at a time; another takes over when that one has ended.
    """

    overlap: ClassVar[Overlap] = "queue"

    @abstractmethod
    def listen(self, platform: Platform, schedule: str) -> AbstractAsyncContextManager[AsyncIterator[Firing]]:
        """Return an async context manager of the firings, in their order; entering it is beginning to listen.

        The iterator is asked for the next one when the one before has been dealt with:
        what it fires has been published, and its run has been recorded.  So who reads
        events acknowledges then.  What must not be missed meanwhile waits, within bounds.
        *schedule* is the name of the schedule, by which it can name a group of readers; it may have dots, and 120 bytes.

        Two firings are told apart by their keys, or else by their nominal times, in microseconds: the second of a pair
        that has both in common does not happen.  What has happened once has the same key each time that it is
        delivered, as it is when a listener died before it had been dealt with, or between that and being asked
        for the next.

        Listening ends with leaving the context, at any moment by cancellation: nothing of it goes on then, and what was
        not dealt with is delivered again, to who listens next, wherever what is listened to can do so.
        Schedules may listen to one trigger at once, and each hears everything.

        An exception is reported and the schedule shown as failing; it is listened again after a while.
        """


def aware(argument: str, moment: datetime) -> datetime:
    """Return *moment* if it is an aware datetime; otherwise raise :class:`~dpcore.errors.NaiveDatetimeError`."""
    if not isinstance(moment, datetime) or moment.tzinfo is None or moment.utcoffset() is None:
        raise NaiveDatetimeError(argument, moment)
    return moment


def _just_before(moment: datetime) -> datetime:
    moment = moment.astimezone(UTC)
    return moment - moment.resolution if moment > datetime.min.replace(tzinfo=UTC) else moment
