"""Durations as people write them: seconds, a timedelta, or a text such as ``"1h30m"``."""

from __future__ import annotations

import re
from datetime import timedelta

from dpcore.errors import ArgumentError

__all__ = ("Duration", "duration")

Duration = float | str | timedelta
"""Seconds, a timedelta, or a text such as ``"90s"``, ``"5m"``, ``"1h30m"``, ``"2d"`` or ``"250ms"``."""

_UNITS = {"w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1, "ms": 0.001}
_PART = re.compile(r"(\d+(?:\.\d+)?) *(ms|[wdhms])")
_WHOLE = re.compile(rf"(?:{_PART.pattern} *)+")


def duration(argument: str, given: Duration, least: timedelta = timedelta(milliseconds=1)) -> timedelta:
    """Return how long *given* is, which is at least *least*; *argument* is named if it is not.

    Raises :class:`~dpcore.errors.ArgumentError`.

    >>> duration("every", "1h30m"), duration("every", 0.5)
    (datetime.timedelta(seconds=5400), datetime.timedelta(microseconds=500000))
    >>> duration("every", "soon")
    Traceback (most recent call last):
    ...
    dpcore.errors.ArgumentError: every='soon' must be seconds, a timedelta or a text such as '90s' or '1h30m', at least 0.001 seconds
    """
    try:
        found = given if isinstance(given, timedelta) else timedelta(seconds=_seconds(given))
    except (TypeError, ValueError, OverflowError):
        found = None
    if found is None or found < least:
        wanted = f"seconds, a timedelta or a text such as '90s' or '1h30m', at least {least.total_seconds():g} seconds"
        raise ArgumentError(argument, given, wanted)
    return found


def _seconds(given: float | str) -> float:
    if isinstance(given, bool | bytes | bytearray):
        raise TypeError
    if isinstance(given, str) and _WHOLE.fullmatch(given.strip()):
        return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(given))
    return float(given)
