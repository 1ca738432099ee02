"""When a cron expression fires, said from the written rule alone and as plainly as it can be said.

:func:`fires` walks real time, minute by minute, looks at what the clocks on the wall show, and takes
what matches; where the clocks jump ahead it walks through the wall times that they left out.
:func:`fires_by_wall_times` says the same the other way round, for what fires seldom: it walks wall times
and asks which instants show them.  Neither knows how dpcore, or any library, computes it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache, lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)

ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
NAMES_OF_MONTHS = "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"
MONTHS = {name: number for number, name in enumerate(NAMES_OF_MONTHS, 1)}
WEEKDAYS = {name: number for number, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"))}

Shown = list[tuple[datetime, datetime]]
"""Instants in UTC, each with the wall time that it shows."""


# ---------------------------------------------------------------- what an expression says


@dataclass(frozen=True)
class Schedule:
    """The values that an expression allows, field by field."""

    seconds: frozenset[int]
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    last_day: bool
    months: frozenset[int]
    weekdays: frozenset[int]  # Sunday is 0
    nth_weekdays: frozenset[tuple[int, int]]  # (5, 2): the second Friday
    last_weekdays: frozenset[int]
    years: frozenset[int] | None  # None: every year
    both_restrict: bool  # neither day field starts with `*`: one of them is enough
    interval_like: bool


@cache
def schedule_of(expression: str) -> Schedule:
    fields = ALIASES.get(expression, expression).upper().split()
    if len(fields) == 5:
        fields = ["0", *fields]
    if len(fields) == 6:
        fields = [*fields, "*"]
    second, minute, hour, day, month, weekday, year = fields
    days, weekdays = day.split(","), weekday.split(",")
    return Schedule(
        seconds=numbers([second], 0, 59),
        minutes=numbers([minute], 0, 59),
        hours=numbers([hour], 0, 23),
        days=numbers([part for part in days if part != "L"], 1, 31),
        last_day="L" in days,
        months=numbers([month], 1, 12, MONTHS),
        weekdays=frozenset(n % 7 for n in numbers([part for part in weekdays if is_plain(part)], 0, 6, WEEKDAYS)),
        nth_weekdays=frozenset(nth_weekday(part) for part in weekdays if "#" in part),
        last_weekdays=frozenset(number(part[1:], WEEKDAYS) % 7 for part in weekdays if part.startswith("L")),
        years=None if year in ("*", "?") else numbers([year], 1970, 2099),
        both_restrict=day[0] not in "*?" and weekday[0] not in "*?",
        interval_like=any(field.startswith("*") for field in (second, minute, hour)),
    )


def is_interval_like(expression: str) -> bool:
    return schedule_of(expression).interval_like


def numbers(fields: list[str], lowest: int, highest: int, names: dict[str, int] | None = None) -> frozenset[int]:
    """Read lists of ``*``, ``3``, ``1-5``, each perhaps with ``/step``; ``3/step`` goes on to the *highest*."""
    found: set[int] = set()
    for part in ",".join(fields).split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        if not span:
            continue
        if span in ("*", "?"):
            begin, end = lowest, highest
        elif last:
            begin, end = number(first, names), number(last, names)
        else:
            begin = number(first, names)
            end = highest if step else begin
        found.update(range(begin, end + 1, int(step or 1)))
    return frozenset(found)


def number(word: str, names: dict[str, int] | None) -> int:
    return names[word] if names and word in names else int(word)


def nth_weekday(part: str) -> tuple[int, int]:
    weekday, _, nth = part.partition("#")
    return number(weekday, WEEKDAYS) % 7, int(nth)


def is_plain(part: str) -> bool:
    return "#" not in part and not part.startswith("L")


# ---------------------------------------------------------------- which wall times match


def matches(expression: str, wall: datetime, day_or: bool = True) -> bool:
    """Say whether *expression* names the wall time *wall*, which may exist or not, in whole seconds."""
    schedule = schedule_of(expression)
    return minute_matches(schedule, wall, day_or) and wall.second in schedule.seconds


def minute_matches(schedule: Schedule, wall: datetime, day_or: bool) -> bool:
    return (
        wall.minute in schedule.minutes and wall.hour in schedule.hours and date_matches(schedule, wall.date(), day_or)
    )


@lru_cache(100_000)
def date_matches(schedule: Schedule, day: date, day_or: bool) -> bool:
    if day.month not in schedule.months or (schedule.years is not None and day.year not in schedule.years):
        return False
    in_month, in_week = day_of_month_matches(schedule, day), day_of_week_matches(schedule, day)
    return (in_month or in_week) if schedule.both_restrict and day_or else (in_month and in_week)


def day_of_month_matches(schedule: Schedule, day: date) -> bool:
    return day.day in schedule.days or (schedule.last_day and (day + DAY).day == 1)


def day_of_week_matches(schedule: Schedule, day: date) -> bool:
    weekday = day.isoweekday() % 7
    return (
        weekday in schedule.weekdays
        or (weekday, (day.day - 1) // 7 + 1) in schedule.nth_weekdays
        or (weekday in schedule.last_weekdays and (day + 7 * DAY).month != day.month)
    )


# ---------------------------------------------------------------- walking real time


@dataclass(frozen=True)
class Walk:
    """A stretch of real time, step by step, and the wall times that it leaves out."""

    step: timedelta
    shown: dict[int, Shown]  # by the minute of the hour that is on the wall: most expressions name few
    gaps: list[tuple[datetime, list[datetime]]]  # where the clocks go on, and what they left out before


def fires(
    expression: str,
    timezone: str,
    start: datetime,
    end: datetime,
    *,
    gap: str = "shift",
    overlap: str = "first",
    day_or: bool = True,
) -> list[datetime]:
    """Every fire from *start* to before *end*, in UTC."""
    found, after_gaps = named(expression, timezone, start, end, day_or)
    if is_interval_like(expression):
        instants = {instant for instant, _ in found}
    else:
        instants = set(once_each(found, overlap)) | set(after_gaps if gap == "shift" else [])
    return sorted(instant for instant in instants if start <= instant < end)


@lru_cache(12)
def named(expression: str, timezone: str, start: datetime, end: datetime, day_or: bool) -> tuple[Shown, list[datetime]]:
    """Every instant that shows a wall time which *expression* names, and the first after every gap that hides one."""
    schedule, around = schedule_of(expression), walk(timezone, start, end)
    return showings(schedule, around, day_or), ends_of_gaps(schedule, around, day_or)


@lru_cache(12)
def walk(timezone: str, start: datetime, end: datetime) -> Walk:
    """Step from a good day before *start* to a good day after *end*, so that no pair of equal wall times is cut."""
    first, last = start.replace(second=0, microsecond=0) - 25 * HOUR, end + 25 * HOUR
    step, shown = MINUTE, steps(timezone, first, last, MINUTE)
    if any(wall.second for _, wall in shown):  # such as Monrovia's UTC-0:44:30, until 1972
        step, shown = SECOND, steps(timezone, first, last, SECOND)
    gaps = [
        (after, left_out(wall + step, resumed, step))
        for (_, wall), (after, resumed) in pairwise(shown)
        if resumed - wall > step
    ]
    by_minute = defaultdict(list)
    for instant, wall in shown:
        by_minute[wall.minute].append((instant, wall))
    return Walk(step, by_minute, gaps)


def steps(timezone: str, first: datetime, last: datetime, step: timedelta) -> Shown:
    zone, instant, found = ZoneInfo(timezone), first.astimezone(UTC), []
    while instant < last:
        found.append((instant, instant.astimezone(zone).replace(tzinfo=None)))
        instant += step
    return found


def left_out(first: datetime, end: datetime, step: timedelta) -> list[datetime]:
    found = []
    while first < end:
        found.append(first)
        first += step
    return found


def showings(schedule: Schedule, around: Walk, day_or: bool) -> Shown:
    """Every instant whose wall time matches, with that wall time.

    Clocks change on the minute there, so whoever walks by minutes may take the seconds of each as they come.
    """
    found = [
        (instant, wall)
        for minute in schedule.minutes
        for instant, wall in around.shown.get(minute, ())
        if wall.hour in schedule.hours and date_matches(schedule, wall.date(), day_or)
    ]
    found.sort()
    if around.step == SECOND:
        return [(instant, wall) for instant, wall in found if wall.second in schedule.seconds]
    seconds = [second * SECOND for second in sorted(schedule.seconds)]
    return [(instant + second, wall + second) for instant, wall in found for second in seconds]


def once_each(found: Shown, overlap: str) -> list[datetime]:
    """Of two instants with the same wall time, keep what *overlap* says."""
    by_wall: dict[datetime, list[datetime]] = defaultdict(list)
    for instant, wall in found:
        by_wall[wall].append(instant)
    kept = {"first": slice(0, 1), "second": slice(-1, None), "both": slice(None)}[overlap]
    return [instant for instants in by_wall.values() for instant in instants[kept]]


def ends_of_gaps(schedule: Schedule, around: Walk, day_or: bool) -> list[datetime]:
    """The first instant after each gap in which a wall time matches.

    A whole minute matches when one of its seconds does, and of these there is always one.
    """
    by_minutes = around.step == MINUTE
    return [
        after
        for after, walls in around.gaps
        if any(
            minute_matches(schedule, wall, day_or) and (by_minutes or wall.second in schedule.seconds) for wall in walls
        )
    ]


# ---------------------------------------------------------------- walking wall times, for what fires seldom


def fires_by_wall_times(
    expression: str,
    timezone: str,
    start: datetime,
    end: datetime,
    *,
    gap: str = "shift",
    overlap: str = "first",
    day_or: bool = True,
) -> list[datetime]:
    """Every fire from *start* to before *end*, in UTC, as :func:`fires` has them."""
    schedule = schedule_of(expression)
    found: set[datetime] = set()
    for wall in named_wall_times(schedule, start.date() - DAY, end.date() + DAY, day_or):
        instants = showing(timezone, wall)
        if schedule.interval_like or overlap == "both":
            found.update(instants)
        elif instants:
            found.add(instants[0] if overlap == "first" else instants[-1])
        if not instants and not schedule.interval_like and gap == "shift":
            found.add(first_after_gap(timezone, wall))
    return sorted(instant for instant in found if start <= instant < end)


def named_wall_times(schedule: Schedule, first: date, last: date, day_or: bool) -> Iterator[datetime]:
    for day in (first + n * DAY for n in range((last - first).days + 1)):
        if date_matches(schedule, day, day_or):
            for hour in sorted(schedule.hours):
                for minute in sorted(schedule.minutes):
                    for second in sorted(schedule.seconds):
                        yield datetime(day.year, day.month, day.day, hour, minute, second)


def showing(timezone: str, wall: datetime) -> list[datetime]:
    """The instants at which the clocks show *wall*: it is less than a day from UTC, by an offset that the zone has."""
    zone = ZoneInfo(timezone)
    instants = sorted(wall.replace(tzinfo=UTC) - offset for offset in offsets(timezone, wall.year))
    return [instant for instant in instants if instant.astimezone(zone).replace(tzinfo=None) == wall]


@cache
def offsets(timezone: str, year: int) -> frozenset[timedelta]:
    """Every offset that the zone has in *year* or a day off it; none is in force for less than six hours."""
    zone, first = ZoneInfo(timezone), datetime(year, 1, 1, tzinfo=UTC) - DAY
    instants = (first + quarter * 6 * HOUR for quarter in range(368 * 4))
    return frozenset(instant.astimezone(zone).utcoffset() or 0 * HOUR for instant in instants)


def first_after_gap(timezone: str, wall: datetime) -> datetime:
    """Where the clocks go on after *wall*, which they leave out, and which they do on the minute."""
    wall = wall.replace(second=0)
    while not showing(timezone, wall):
        wall += MINUTE
    return showing(timezone, wall)[0]


# ---------------------------------------------------------------- where the clocks change


@cache
def transitions(timezone: str, first_year: int, last_year: int) -> tuple[datetime, ...]:
    """The first instant of each new offset in these years."""
    hourly = steps(timezone, datetime(first_year, 1, 1, tzinfo=UTC), datetime(last_year + 1, 1, 1, tzinfo=UTC), HOUR)
    return tuple(
        exact
        for (before, wall), (after, later) in pairwise(hourly)
        if later - wall != HOUR
        for exact in changes(steps(timezone, before, after + MINUTE, MINUTE))
    )


def changes(minutes: Iterable[tuple[datetime, datetime]]) -> Iterator[datetime]:
    for (before, wall), (after, later) in pairwise(minutes):
        if later - wall != after - before:
            yield after
