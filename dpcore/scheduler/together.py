"""Schedules that are due at one instant, publish, and do nothing else: all of their events at once.

Thousands of schedules may be due when a minute begins.  What is the same for all of them is done once here: the
time in each zone, its text, the ids' common part.  Whatever is out of the ordinary is left to :mod:`dpcore.scheduler.dispatch`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, tzinfo
from typing import NamedTuple

from dpcore.events import Event
from dpcore.ports import Firing
from dpcore.ports.trigger import stamp
from dpcore.scheduler.policies import local
from dpcore.scheduler.schedule import Schedule

__all__ = ("Made", "made_together", "publishes_only")


class Made(NamedTuple):
    """The event of a schedule."""

    schedule: Schedule
    event: Event


def publishes_only(schedule: Schedule) -> bool:
    """Tell whether what a schedule fires by time is known to be one event, in the local time of one zone."""
    return schedule.starts.selection is None and len(schedule.triggers) == len(schedule.times.triggers) == 1


def made_together(schedules: Iterable[Schedule], nominal: datetime, time: float) -> list[Made]:
    """Make the events of schedules that fire at *nominal*, but for those whose data cannot be made."""
    made: list[Made] = []
    suffix = f"-{stamp(nominal)}"
    zones: dict[tzinfo, tuple[datetime, str]] = {UTC: (nominal, nominal.isoformat())}
    for schedule in schedules:
        name, starts = schedule.name, schedule.starts
        zone = schedule.times.triggers[0].timezone
        if (there := zones.get(zone)) is None:
            moment = local(nominal, zone)
            there = zones[zone] = (moment, moment.isoformat())
        data = starts.data
        if callable(data):
            try:
                data = data(Firing(nominal=there[0], schedule=name))
            except Exception:  # noqa: BLE001  (whatever it is: it is called again, one by one, and reported)
                continue
        if data is None:
            data = {"schedule": name, "nominal": there[1]}
        made.append(Made(schedule, Event(starts.topic or "", data, name + suffix, time, schedule.source)))
    return made
