"""What is told of schedules: events on ``$schedule.*``, where somebody wants to know."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec
from anyio.abc import TaskGroup

from dpcore.clock import Clock
from dpcore.events import Event
from dpcore.jobs import described
from dpcore.ports import Broker, Firing
from dpcore.scheduler.schedule import Schedule

__all__ = ("ScheduleChanged", "ScheduleFired", "Teller")

_log = logging.getLogger("dpcore.scheduler")

_PATIENCE = 20.0  # seconds in which a broker takes an event
_LONGEST_RETRY = 300.0  # seconds
_MOST_UNTOLD = 10_000


class ScheduleFired(msgspec.Struct, kw_only=True):
    """What an event on ``$schedule.fired`` carries; *id* is that of the run and of the event."""

    schedule: str
    nominal: datetime
    id: str
    late: float
    """Seconds between the nominal time, with jitter, and the dispatch."""


class ScheduleChanged(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What an event on ``$schedule.missed``, ``.skipped``, ``.waiting``, ``.failed``, ``.paused`` or ``.resumed`` carries.

    *nominal* is the time that was missed or left out; *reason* says why, or what is wrong.
    """

    schedule: str
    nominal: datetime | None = None
    reason: str = ""


class Teller:
    """Publishes what happens to schedules, beside what they do; and logs what goes wrong.

    *publish* and *made* are the app's: how it publishes, and the adapters that it has made.
    """

    def __init__(self, clock: Clock, publish: Callable[..., Awaitable[Event]], made: Mapping[str, Any]) -> None:
        self._clock, self._publish, self._made = clock, publish, made
        self._untold: deque[tuple[str, msgspec.Struct]] = deque(maxlen=_MOST_UNTOLD)
        self._group: TaskGroup | None = None
        self._telling = False

    def open(self, group: TaskGroup | None) -> None:
        """Publish in *group*; without one, nothing any more."""
        self._group = group

    @property
    def hears(self) -> bool:
        """Whether anybody wants to know of each firing."""
        return self._wanted("$schedule.fired")

    def fired(self, schedule: Schedule, firing: Firing) -> None:
        """Tell that a schedule has fired."""
        if self._wanted("$schedule.fired"):
            late = (self._clock.now() - firing.nominal).total_seconds()
            told = ScheduleFired(schedule=schedule.name, nominal=firing.nominal, id=firing.id, late=late)
            self._add("$schedule.fired", told)

    def tell(self, what: str, schedule: Schedule, nominal: datetime | None = None, reason: str = "") -> None:
        """Tell something else of a schedule."""
        topic = f"$schedule.{what}"
        if self._wanted(topic):
            self._add(topic, ScheduleChanged(schedule=schedule.name, nominal=nominal, reason=reason))

    def fails(self, schedule: Schedule, error: Exception) -> datetime:
        """Tell that something of a schedule fails, and return when it is to be tried again."""
        schedule.failures += 1
        schedule.error = described(error)
        _log.error("schedule %r fails, and is tried again: %s", schedule.name, schedule.error)
        self.tell("failed", schedule, reason=schedule.error)
        wait = min(2.0 ** min(schedule.failures - 1, 30), _LONGEST_RETRY)
        return self._clock.now() + timedelta(seconds=wait)

    def works(self, schedule: Schedule) -> None:
        """Note that nothing of a schedule fails any more."""
        schedule.error, schedule.failures = "", 0

    def gives_up(self, schedule: Schedule, firing: Firing, error: Exception) -> None:
        """Tell that a firing cannot be, whatever one does."""
        schedule.error = described(error)
        _log.error("schedule %r cannot fire %s: %s", schedule.name, firing.id, schedule.error)
        self.tell("failed", schedule, firing.nominal, schedule.error)

    def _wanted(self, topic: str) -> bool:
        broker: Broker | None = self._made.get("broker")
        return broker is not None and broker.wanted(topic)

    def _add(self, topic: str, told: msgspec.Struct) -> None:
        if len(self._untold) == _MOST_UNTOLD:
            _log.warning("the broker took too long, and is not told of %s", self._untold[0][0])
        self._untold.append((topic, told))
        if not self._telling and self._group is not None:
            self._telling = True
            self._group.start_soon(self._publish_all)

    async def _publish_all(self) -> None:
        try:
            while self._untold:
                topic, told = self._untold.popleft()
                try:
                    kind = type(told).__name__
                    await self._publish(topic, msgspec.to_builtins(told), type=kind, timeout=_PATIENCE)
                except Exception:  # noqa: BLE001  (a broker's)
                    _log.exception("%s was not published", topic)
        finally:
            self._telling = False
