"""A schedule: triggers, what their firings start, and what one can ask of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from dpcore.clock import Clock
from dpcore.errors import ArgumentError
from dpcore.events import CORRELATION_ID, Event
from dpcore.ports import Firing, StreamTrigger, TimeTrigger, Trigger
from dpcore.ports.trigger import aware
from dpcore.results import Running
from dpcore.scheduler.policies import Policy, Standing, Times

__all__ = ("Fired", "Schedule", "Starts")


_NAME = re.compile(r"[^\W\d]\w*([.\-]\w+)*\Z")
_LONGEST_NAME = 120  # bytes, as a part of run ids


def check_name(name: object) -> str:
    """Return *name* if a schedule may be called so; otherwise raise :class:`~dpcore.errors.ArgumentError`."""
    if not isinstance(name, str) or not _NAME.match(name) or len(name.encode()) > _LONGEST_NAME:
        raise ArgumentError("name", name, f"identifiers joined by . or -, {_LONGEST_NAME} bytes at the most")
    return name


class Starts(msgspec.Struct, frozen=True, kw_only=True):
    """What a firing starts: an event, a run, or both."""

    topic: str | None = None
    data: Any = None
    selection: Sequence[Any] | None = None
    """What is run, if something is."""
    params: Any = None
    metadata: Mapping[str, Any] | None = None
    arguments: Mapping[str, Any] = {}
    """What else :meth:`dpcore.App.submit` is given."""

    def __str__(self) -> str:
        event = [] if self.topic is None else [f"event {self.topic}"]
        words = [*(self.selection or ()), *(f"tag:{tag}" for tag in self.arguments.get("tags") or ())]
        run = [] if self.selection is None else [f"run {' '.join(getattr(one, '__name__', str(one)) for one in words)}"]
        return ", ".join([*event, *run])

    def event(self, firing: Firing) -> Event:
        """Return the event of a firing, always with the same id."""
        assert self.topic is not None
        data = self.data(firing) if callable(self.data) else self.data
        if data is None:
            data = _data_of(firing)
        headers = None if firing.event is None else {CORRELATION_ID: _correlation(firing)}
        return Event(self.topic, data, id=firing.id, source=f"schedule/{firing.schedule}", headers=headers)

    def run(self, firing: Firing) -> dict[str, Any]:
        """Return the arguments of the run of a firing."""
        if callable(self.params):
            params = dict(self.params(firing))
        else:
            params = {**(self.params or {}), **(firing.body if isinstance(firing.body, Mapping) else {})}
        about = {"schedule": firing.schedule, "correlation_id": _correlation(firing)}
        return {
            **self.arguments,
            "params": params,
            "metadata": {**about, **(self.metadata or {})},
            "run_id": firing.id,
            "nominal": firing.nominal,
        }


def _data_of(firing: Firing) -> Any:
    if firing.body is not None:
        return firing.body
    if firing.events:
        return firing.events[0].data if len(firing.events) == 1 else [event.data for event in firing.events]
    return {"schedule": firing.schedule, "nominal": firing.nominal.isoformat()}


def _correlation(firing: Firing) -> str:
    if firing.event is None:
        return firing.id
    return (firing.event.headers or {}).get(CORRELATION_ID, firing.event.id)


class Fired(NamedTuple):
    """What became of one firing."""

    firing: Firing
    state: Literal["fired", "waiting", "known", "skipped", "full"]
    """Whether it has been fired, waits for its turn, had been fired before, was left out, or could not even wait."""

    running: Running | None = None
    """Its run, where it was begun here and now."""

    @property
    def id(self) -> str:
        """The id of its run and of its event."""
        return self.firing.id


class Keeper(Protocol):
    """What a schedule asks of the scheduler that it belongs to."""

    clock: Clock

    def standing(self, name: str) -> Standing:
        """Return what is known of a schedule."""

    async def pause(self, schedule: Schedule, note: str) -> None:
        """Let it not fire by itself."""

    async def resume(self, schedule: Schedule) -> None:
        """Let it fire by itself again."""

    async def fire(self, schedule: Schedule, body: Any, key: str) -> Fired:
        """Fire it now."""

    async def backfill(self, schedule: Schedule, start: datetime, end: datetime) -> list[Fired]:
        """Fire it for times that have passed."""


class Schedule:
    """A trigger, or several, and what their firings start; made by :meth:`dpcore.App.schedule`."""

    def __init__(
        self,
        keeper: Keeper,
        name: str,
        triggers: Sequence[Trigger],
        policy: Policy,
        starts: Starts,
    ) -> None:
        self.name = name
        self.triggers = tuple(triggers)
        self.policy = policy
        self.starts = starts
        self.error = ""
        """What is wrong with it at present, if something is."""
        self.source = f"schedule/{name}"
        """The source of its events."""
        self.failures = 0
        """How often in a row something of it has failed that is tried again."""
        self.times = Times([one for one in triggers if isinstance(one, TimeTrigger)])
        """When its time triggers fire."""
        self.streams = [one for one in triggers if isinstance(one, StreamTrigger)]
        self._keeper = keeper

    def __repr__(self) -> str:
        return f"<Schedule {self.name!r}: {self.described}>"

    @property
    def described(self) -> str:
        """What its triggers do, in one line."""
        return "; ".join(map(str, self.triggers))

    @property
    def paused(self) -> bool:
        """Whether it does not fire by itself at present."""
        return self._standing.paused

    @property
    def note(self) -> str:
        """Why it was paused."""
        return self._standing.note

    @property
    def last(self) -> datetime | None:
        """The last nominal time that was dealt with, in UTC."""
        return self._standing.last

    @property
    def next(self) -> datetime | None:
        """Its next nominal time, in the local time of its trigger; None while it is paused, and where there is none."""
        found = None if self.paused else self.times.following(self.last or self._keeper.clock.now())
        return None if found is None else self.times.local(found)

    @property
    def runs(self) -> list[str]:
        """The ids of its runs that go on, as far as it is known here."""
        return [*self._standing.runs]

    @property
    def waiting(self) -> list[str]:
        """The ids of firings that wait for their turn."""
        return [*self._standing.waiting]

    @property
    def _standing(self) -> Standing:
        return self._keeper.standing(self.name)

    def upcoming(self, count: int, after: datetime | None = None) -> list[datetime]:
        """Return its next *count* nominal times after *after*, or from now on, in the local time of its trigger."""
        moment = self._keeper.clock.now() if after is None else aware("after", after)
        found: list[datetime] = []
        while len(found) < count and (later := self.times.following(moment)) is not None:
            found.append(self.times.local(later))
            moment = later
        return found

    def between(self, start: datetime, end: datetime) -> Iterator[datetime]:
        """Yield its nominal times from *start* on and before *end*, in the local time of its trigger."""
        aware("end", end)
        moment = aware("start", start).astimezone(UTC) - datetime.resolution
        while (later := self.times.following(moment)) is not None and later < end:
            yield self.times.local(later)
            moment = later

    async def pause(self, note: str = "") -> None:
        """Let it not fire by itself until :meth:`resume`, here and in every other scheduler; *note* says why.

        Runs that go on do so, and it can be fired by hand.  What would have fired meanwhile is not made up for.
        """
        await self._keeper.pause(self, note)

    async def resume(self) -> None:
        """Let it fire again, from now on."""
        await self._keeper.resume(self)

    async def fire(self, body: Any = None, *, key: str = "") -> Fired:
        """Fire it now, by hand: :meth:`dpcore.App.fire`."""
        return await self._keeper.fire(self, body, key)

    async def backfill(self, start: datetime, end: datetime) -> list[Fired]:
        """Fire it for nominal times that have passed: :meth:`dpcore.App.backfill`."""
        return await self._keeper.backfill(self, start, end)
