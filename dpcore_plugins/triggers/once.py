"""Fires at one moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from dpcore import TimeTrigger
from dpcore.errors import NaiveDatetimeError

__all__ = ("OnceTrigger",)

_JUST_NOW = timedelta(minutes=1)


class OnceTrigger(TimeTrigger):
    """Fires at *at*, an aware datetime, and never again.

    A schedule that is new when *at* is past, by more than a minute, does not fire; one that was there
    and could not fire then does what its misfire policy says.

    Raises :class:`~dpcore.errors.NaiveDatetimeError`.
    """

    def __init__(self, at: datetime) -> None:
        if not isinstance(at, datetime) or at.tzinfo is None:
            raise NaiveDatetimeError("at", at)
        self.at = at.astimezone(UTC)
        self.timezone = at.tzinfo

    def __str__(self) -> str:
        return f"once at {self.at.astimezone(self.timezone).isoformat(' ')}"

    def __repr__(self) -> str:
        return f"OnceTrigger({self.at.astimezone(self.timezone)!r})"

    def next_fire(self, after: datetime) -> datetime | None:
        """Return the moment, if it is later than *after*."""
        if after.tzinfo is None:
            raise NaiveDatetimeError("after", after)
        return self.at if self.at > after.astimezone(UTC) else None

    def begins(self, now: datetime) -> datetime:
        """Return a moment ago: what was meant for now is not lost while the schedule is made."""
        return now - _JUST_NOW
