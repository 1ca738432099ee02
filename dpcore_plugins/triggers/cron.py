"""Fires at the times of a cron expression, in a time zone, also where clocks are changed.

croniter reads the expression and says which days it means.  What happens within a day is
said here, since no two libraries agree on it where clocks are changed.  The rule is that of
Debian's cron, for every form of expression and any size of change:

- An expression whose hour, minute or second begins with ``*`` is like an interval: it fires
  at each real instant whose local time fits, in both passes of an hour that is repeated,
  and nothing is made up for an hour that is left out.
- Any other has fixed times.  Those that are left out fire once, at the first instant after
  the change; those that are repeated fire the first time.  *gap* and *overlap* change that.

All of it is done in whole seconds since the epoch: wall seconds are those plus the zone's offset.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from threading import Lock
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from croniter import CroniterBadCronError, CroniterBadDateError, croniter

from dpcore import TimeTrigger
from dpcore.errors import ArgumentError, CronError, NaiveDatetimeError, ZoneError

__all__ = ("CronTrigger",)

Gap = Literal["shift", "skip"]
Repeated = Literal["first", "second", "both"]

_DAY = 86_400  # seconds
_NAIVE = datetime(1970, 1, 1)  # for dates alone, which croniter counts faster without a zone
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_LAST = int((datetime(9998, 12, 31, tzinfo=UTC) - _EPOCH) / _SECOND)  # a zone cannot be asked for what is much later
_YEARS = 50  # in which a date comes, or never
_ALL_YEARS = 2100  # in which one comes whose year is said, from whenever it is looked for
_FIRST_DAY = (datetime(1, 1, 2) - _NAIVE).days  # before it there is no day from which croniter could look
_UNKNOWN = _FIRST_DAY - 1


class CronTrigger(TimeTrigger):
    """Fires at the times of a cron *expression*.

    Five fields are minute, hour, day of the month, month and day of the week; six have the
    seconds first; seven have the seconds first and the year last.  Fields hold ``*``, numbers, names
    (``JAN``, ``MON``), lists, ranges and steps; days of the month also ``L`` (the last)
    and ``15W`` (the weekday nearest to the 15th), days of the week also ``5#2`` (the second Friday) and ``L5``
    (the last Friday).  Sunday is 0 and 7.  ``@hourly``, ``@daily``, ``@midnight``, ``@weekly``,
    ``@monthly``, ``@yearly`` and ``@annually`` stand for what they say.

    Where both days are restricted, that is, neither begins with ``*``, either will do, as in
    crontab(5); with ``day_or=False`` both must fit.

    *timezone* is the name of an IANA zone, or a tzinfo.  *gap* says what becomes of fixed times
    that clocks leave out: ``"shift"`` fires once at the first instant after, ``"skip"`` does not.
    *overlap* says which of repeated fixed times fires: ``"first"``, ``"second"`` or ``"both"``.
    What counts as fixed is said at the top of this module.

    Raises :class:`~dpcore.errors.CronError`, which names the field, also for dates that never come, and
    :class:`~dpcore.errors.ZoneError`.
    """

    def __init__(
        self,
        expression: str,
        *,
        timezone: str | tzinfo = "UTC",
        gap: Gap = "shift",
        overlap: Repeated = "first",
        day_or: bool = True,
    ) -> None:
        if not isinstance(expression, str):
            raise CronError(expression, "it is no text")
        _check_choice("gap", gap, ("shift", "skip"))
        _check_choice("overlap", overlap, ("first", "second", "both"))
        _check_choice("day_or", day_or, (True, False))
        self.expression = " ".join(expression.split())
        self.timezone = _zone_named(timezone)
        self.gap, self.repeated, self.day_or = gap, overlap, day_or
        self._after = _calendar(self.expression, self.timezone, gap, overlap, day_or).after

    def __str__(self) -> str:
        more = [f"{name} {value}" for name, value, usual in self._policies() if value != usual]
        return ", ".join([f"cron {self.expression!r} in {self.timezone}", *more])

    def __repr__(self) -> str:
        more = "".join(f", {name}={value!r}" for name, value, usual in self._policies() if value != usual)
        return f"CronTrigger({self.expression!r}, timezone={str(self.timezone)!r}{more})"

    def __reduce__(self) -> tuple[object, ...]:
        # What it has found out of its expression stays here; where it comes to, the same is shared again.
        return (_made, (self.expression, self.timezone, self.gap, self.repeated, self.day_or))

    def _policies(self) -> tuple[tuple[str, object, object], ...]:
        return ("gap", self.gap, "shift"), ("overlap", self.repeated, "first"), ("day_or", self.day_or, True)

    def next_fire(self, after: datetime) -> datetime | None:
        """Return the first time later than *after*."""
        if after.tzinfo is None:
            raise NaiveDatetimeError("after", after)
        found = self._after((after - _EPOCH) // _SECOND if after.tzinfo is UTC else _seconds(after))
        return None if found is None else _EPOCH + timedelta(seconds=found)


def _made(expression: str, zone: tzinfo, gap: Gap, overlap: Repeated, day_or: bool) -> CronTrigger:
    return CronTrigger(expression, timezone=zone, gap=gap, overlap=overlap, day_or=day_or)


def _seconds(moment: datetime) -> int:
    # Two times of one zone are compared and subtracted by their wall in Python; so not before they are in UTC.
    return (moment.astimezone(UTC) - _EPOCH) // _SECOND


def _check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    if value not in choices or type(value) is not type(choices[0]):
        raise ArgumentError(name, value, " or ".join(map(repr, choices)))


def _zone_named(zone: str | tzinfo) -> tzinfo:
    if isinstance(zone, tzinfo):
        return zone
    if isinstance(zone, str) and zone.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(zone)
    except (LookupError, ValueError, OSError, TypeError):
        raise ZoneError(zone, available_timezones()) from None


# ---------------------------------------------------------------- which days, and which seconds of a day


_FIELDS = {
    "second": "0-59",
    "minute": "0-59",
    "hour": "0-23",
    "day of month": "1-31 or L",
    "month": "1-12 or JAN-DEC",
    "day of week": "0-7 or SUN-SAT, 0 and 7 are Sunday",
    "year": "1970-2099",
}
_NAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FORMS = {
    5: ["minute", "hour", "day of month", "month", "day of week"],
    6: ["second", "minute", "hour", "day of month", "month", "day of week"],
    7: ["second", "minute", "hour", "day of month", "month", "day of week", "year"],
}
# Jenkins' hashes and random numbers, which croniter knows, would give other times in each process.
_DRAWN = re.compile(r"(?<![A-Za-z])[hr](?![A-Za-z])", re.IGNORECASE)


def _fields(expression: str) -> dict[str, str]:
    """Part an expression into its fields by name, each of which makes sense by itself."""
    if expression.startswith("@"):
        if expression.lower() not in _NAMES:
            raise CronError(expression, f"{expression!r} is none of {', '.join(_NAMES)}")
        expression = _NAMES[expression.lower()]
    texts = expression.split(" ") if expression else []
    if len(texts) not in _FORMS:
        raise CronError(
            expression,
            f"it has {len(texts)} fields, and must have 5 (minute hour day-of-month month day-of-week), "
            "6 with seconds first, or 7 with seconds first and the year last",
        )
    fields = dict(zip(_FORMS[len(texts)], map(_plain, texts), strict=True))
    for name, text in fields.items():
        alone = " ".join(text if one == name else "*" for one in _FORMS[7])
        try:
            if _DRAWN.search(text):
                raise CroniterBadCronError("hashed and random values are not known here")
            croniter.expand(alone, second_at_beginning=True)
        except (CroniterBadCronError, ValueError, KeyError) as error:
            raise CronError(expression, f"{name} {text!r} is not understood ({name}: {_FIELDS[name]})") from error
    return fields


_RANGE = re.compile(r"(\w+)-(\w+)(?:/\d+)?", re.ASCII)
_NUMBERS = {
    name: str(number)
    for names, first in (("sun mon tue wed thu fri sat", 0), ("jan feb mar apr may jun jul aug sep oct nov dec", 1))
    for number, name in enumerate(names.split(), first)
}


def _plain(text: str) -> str:
    """Write a range from one value to the same as that value, since croniter takes it for all there are.

    >>> _plain("5-5,MON-MON/2,1-5")
    '5,MON,1-5'
    """
    return ",".join(
        one[1] if (one := _RANGE.fullmatch(part)) and _is_one(*one.group(1, 2)) else part for part in text.split(",")
    )


def _is_one(low: str, high: str) -> bool:
    low, high = (_NUMBERS.get(value.lower(), value).lstrip("0") for value in (low, high))
    return low == high


class _Days:
    """Which days an expression means, counted from the epoch; croniter decides, and is asked once for each."""

    def __init__(self, expression: str, fields: dict[str, str], *, day_or: bool) -> None:
        day, month, weekday = (fields[name] for name in ("day of month", "month", "day of week"))
        year = fields.get("year", "*")
        self._every = {day, month, weekday, year} <= {"*", "?"}
        self._found: dict[int, int | None] = {}
        self._lock = Lock()  # a croniter moves on when it is asked
        if self._every:
            return
        # crontab(5): a day is restricted unless it begins with *.  croniter is not asked for either of two, because
        # with # and L it takes both.
        either = day_or and not day.startswith(("*", "?")) and not weekday.startswith(("*", "?"))
        days = [(day, "*"), ("*", weekday)] if either else [(day, weekday)]
        self._dates = [_dates(f"0 0 0 {one} {month} {other} {year}") for one, other in days]
        if self.first(0) is None:
            of_year = "" if year == "*" else f" of year {year!r}"
            raise CronError(expression, f"day of month {day!r} never comes in month {month!r}{of_year}")

    def first(self, day: int) -> int | None:
        """Return the first of them from *day* on."""
        if self._every:
            return day
        day = max(day, _FIRST_DAY)
        if (found := self._found.get(day, _UNKNOWN)) != _UNKNOWN:
            return found
        with self._lock:
            if len(self._found) >= 4096:
                self._found.clear()
            found = self._found[day] = self._ask(day)
            if found is not None:
                self._found[found] = found
        return found

    def _ask(self, day: int) -> int | None:
        found: list[int] = []
        for dates in self._dates:
            dates.set_current(_NAIVE + timedelta(days=day, seconds=-1), force=True)
            with suppress(CroniterBadDateError, ValueError, OverflowError):  # the others, where years have five digits
                found.append((dates.get_next() - _NAIVE).days)
        return min(found, default=None)


def _dates(expression: str) -> croniter[datetime]:
    return croniter(
        expression,
        _NAIVE,
        ret_type=datetime,
        day_or=False,
        max_years_between_matches=_YEARS if expression.endswith("*") else _ALL_YEARS,
        second_at_beginning=True,
    )


class _Walls:
    """The times of an expression as a wall shows them, in whatever zone: seconds since 1970 there."""

    def __init__(self, expression: str, *, day_or: bool) -> None:
        fields = _fields(expression)
        self._days = _Days(expression, fields, day_or=day_or)
        clock = (fields[name] for name in ("minute", "hour"))
        seconds = fields.get("second", "0")
        minutes, hours, *_, self._seconds = _expanded(" ".join([seconds, *clock, "* * *"]))
        self._minutes = [hour * 60 + minute for hour in hours for minute in minutes]
        self._first = self._minutes[0] * 60 + self._seconds[0]
        self.fixed = not any(fields.get(name, "").startswith("*") for name in ("second", "minute", "hour"))

    def first(self, wall: int) -> int | None:
        """Return the first of them from *wall* on; None if there is none any more."""
        day, second = divmod(wall, _DAY)
        found = self._days.first(day)
        if found == day:
            if (late := self._in_day(second)) is not None:
                return day * _DAY + late
            found = self._days.first(day + 1)
        return None if found is None else found * _DAY + self._first

    def _in_day(self, second: int) -> int | None:
        minute, rest = divmod(second, 60)
        at = bisect_left(self._minutes, minute)
        if at == len(self._minutes):
            return None
        if self._minutes[at] > minute:
            return self._minutes[at] * 60 + self._seconds[0]
        if rest <= self._seconds[-1]:
            return minute * 60 + self._seconds[bisect_left(self._seconds, rest)]
        return self._minutes[at + 1] * 60 + self._seconds[0] if at + 1 < len(self._minutes) else None


def _expanded(expression: str) -> list[list[int]]:
    """Return the numbers that each field of *expression* stands for; its seconds are the last."""
    lists, _ = croniter.expand(expression, second_at_beginning=True)
    every = [range(60), range(24), [], [], [], range(60)]
    return [
        list(all_of) if "*" in found else sorted(map(int, found)) if all_of else []
        for found, all_of in zip(lists, every, strict=True)
    ]


# ---------------------------------------------------------------- the offsets of a zone


class _Stretch(NamedTuple):
    """Seconds since the epoch, from *start* on and before *end*, in which a zone has one offset."""

    start: int
    end: int
    offset: int
    before: int
    """The offset until *start*."""
    after: int
    """The offset from *end* on."""


_BLOCK = 366 * _DAY
_APART = 2 * _DAY  # more than two walls of one instant are apart, and more than a change of a zone repeats
_LOOK = _DAY // 2  # seconds; no zone has changed its offset and changed it back within half a day


class _Zone:
    """The stretches of a zone, found by asking it for its offset; a year at a time, when first asked for."""

    def __init__(self, zone: tzinfo) -> None:
        self._zone = zone
        self._blocks: dict[int, list[_Stretch]] = {}

    def stretch(self, moment: int) -> _Stretch:
        """Return the stretch that *moment* is in."""
        block = moment // _BLOCK
        if (found := self._blocks.get(block)) is None:
            if len(self._blocks) >= 256:
                self._blocks.clear()
            found = self._blocks[block] = self._look(block * _BLOCK)
        for one in found:
            if moment < one.end:
                return one
        raise AssertionError(moment)

    def _look(self, start: int) -> list[_Stretch]:
        end = start + _BLOCK
        changes = [start]
        offset = self._offset(start)
        for moment in range(start, end, _LOOK):
            later = min(moment + _LOOK, end - 1)
            if self._offset(later) != offset:
                changes.append(self._change(moment, later))
                offset = self._offset(later)
        ends = [*changes[1:], end]
        return [
            _Stretch(begin, until, self._offset(begin), self._offset(begin - 1), self._offset(until))
            for begin, until in zip(changes, ends, strict=True)
        ]

    def _change(self, low: int, high: int) -> int:
        """Return the first second between *low* and *high* that has the offset of *high*."""
        offset = self._offset(low)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._offset(middle) == offset else (low, middle)
        return high

    def _offset(self, moment: int) -> int:
        moment = min(max(moment, -_LAST // 5), _LAST)
        found = (_EPOCH + timedelta(seconds=moment)).astimezone(self._zone).utcoffset()
        return int(found.total_seconds()) if found is not None else 0


# ---------------------------------------------------------------- when it fires


class _Calendar:
    """The times of an expression in a zone."""

    def __init__(self, walls: _Walls, zone: _Zone, gap: Gap, overlap: Repeated) -> None:
        self._walls, self._zone = walls, zone
        self._shifts = walls.fixed and gap == "shift"
        self._once: Repeated = overlap if walls.fixed else "both"

    def after(self, moment: int) -> int | None:
        """Return the first second later than *moment*, since the epoch, at which it fires."""
        moment += 1
        while moment < _LAST:
            stretch = self._zone.stretch(moment)
            wall = self._first_in(stretch, moment)
            if wall is None:
                return None
            if wall - stretch.offset < stretch.end and not self._comes_again(stretch, wall):
                return wall - stretch.offset
            # Nothing fires long before that wall, unless the walls since moment are about to be repeated.
            moment = max(stretch.end, wall - _APART) if stretch.end - moment > _APART else stretch.end
        return None

    def _first_in(self, stretch: _Stretch, moment: int) -> int | None:
        """Return the first wall time from *moment* on that fires in this stretch, or one that is later than it."""
        start, offset, before = stretch.start, stretch.offset, stretch.before
        wall = moment + offset
        if before > offset and self._once == "first":
            return self._walls.first(max(wall, start + before))  # what has been there already is not repeated
        if before < offset and self._shifts and moment == start:
            left_out = self._walls.first(start + before)
            if left_out is not None and left_out < start + offset:
                return wall
        return self._walls.first(wall)

    def _comes_again(self, stretch: _Stretch, wall: int) -> bool:
        return self._once == "second" and wall >= stretch.end + stretch.after


@lru_cache(maxsize=256)
def _zone(zone: tzinfo) -> _Zone:
    return _Zone(zone)


@lru_cache(maxsize=1024)  # thousands of schedules have a few expressions among them
def _calendar(expression: str, zone: tzinfo, gap: Gap, overlap: Repeated, day_or: bool) -> _Calendar:
    return _Calendar(_Walls(expression, day_or=day_or), _zone(zone), gap, overlap)
