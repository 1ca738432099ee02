"""Fires every so often, counted from one moment, so that it never drifts."""

from __future__ import annotations

from datetime import UTC, datetime

from dpcore import TimeTrigger
from dpcore.durations import Duration, duration
from dpcore.errors import NaiveDatetimeError

__all__ = ("IntervalTrigger",)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class IntervalTrigger(TimeTrigger):
    """Fires at *anchor*, and *every* so much time before and after it, for ever.

    *every* is seconds, a timedelta, or a text such as ``"1h30m"``.  The *anchor*, aware, is 1970 in UTC
    if none is given, so that all schedulers have the same times, whenever they start:
    ``"15m"`` fires at the quarters of each hour.  A day is 24 hours here; for a time
    of the day, where clocks are changed, take a cron trigger.

    Raises :class:`~dpcore.errors.ArgumentError` and :class:`~dpcore.errors.NaiveDatetimeError`.
    """

    def __init__(self, every: Duration, *, anchor: datetime | None = None) -> None:
        self.every = duration("every", every)
        if anchor is not None and (not isinstance(anchor, datetime) or anchor.tzinfo is None):
            raise NaiveDatetimeError("anchor", anchor)
        self.anchor = _EPOCH if anchor is None else anchor.astimezone(UTC)

    def __str__(self) -> str:
        anchor = "" if self.anchor == _EPOCH else f" from {self.anchor.isoformat(' ')}"
        return f"every {self.every}{anchor}"

    def __repr__(self) -> str:
        return f"IntervalTrigger({self.every!r}, anchor={self.anchor!r})"

    def next_fire(self, after: datetime) -> datetime | None:
        """Return the first time later than *after*."""
        if after.tzinfo is None:
            raise NaiveDatetimeError("after", after)
        passed = (after.astimezone(UTC) - self.anchor) // self.every
        try:
            return self.anchor + (passed + 1) * self.every
        except OverflowError:
            return None
