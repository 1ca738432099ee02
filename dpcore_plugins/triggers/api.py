"""Fires when a request asks for it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from dpcore import TimeTrigger

__all__ = ("ApiTrigger",)


class ApiTrigger(TimeTrigger):
    """Never fires by itself: a request fires its schedule, with a body of the type *body*.

    Without *body*, what a schedule runs says what fits: the run parameters that its tasks
    have left open.  ``create_trigger_router`` and ``dpcore serve`` take the requests.
    """

    overlap = "queue"

    def __init__(self, *, body: Any = None) -> None:
        self.body = body

    def __str__(self) -> str:
        name = self.body.__qualname__ if isinstance(self.body, type) else self.body
        return "by request" if self.body is None else f"by request with {name}"

    def __repr__(self) -> str:
        return f"ApiTrigger(body={self.body!r})" if self.body is not None else "ApiTrigger()"

    def next_fire(self, after: datetime) -> datetime | None:  # noqa: ARG002  (there is none, whatever it is)
        """Return None."""
        return None
