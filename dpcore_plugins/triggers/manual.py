"""Fires when somebody fires it."""

from __future__ import annotations

from datetime import datetime

from dpcore import TimeTrigger

__all__ = ("ManualTrigger",)


class ManualTrigger(TimeTrigger):
    """Never fires by itself: its schedule is fired by hand, with ``app.fire(name)`` or a request."""

    overlap = "queue"

    def __str__(self) -> str:
        return "by hand"

    def __repr__(self) -> str:
        return "ManualTrigger()"

    def next_fire(self, after: datetime) -> datetime | None:  # noqa: ARG002  (there is none, whatever it is)
        """Return None."""
        return None
