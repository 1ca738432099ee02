"""Mapped tasks: how far a task is that has one job for each item of a stream.

Pure.  A :class:`Mapped` knows the items, which of them were taken, and what became of
them.  What that means for the task is decided by :class:`~dpcore.runs.Run`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpcore.errors import TaskError
from dpcore.jobs import Items, Outcome, Ref, State

__all__ = ("Mapped",)

_NONE: Mapping[int, Any] = {}


class Mapped:
    """How far a mapped task is: items are taken in order, and retried one by one.

    While its stream is *open* there may be further items.  The attempts at an item are
    counted from *first*: 1, unless the task had to begin again.
    """

    __slots__ = (
        "attempts",
        "count",
        "duration",
        "ended",
        "failed",
        "first",
        "highest",
        "inflight",
        "items",
        "next",
        "open",
        "positions",
        "queued",
        "stopped",
        "todo",
    )

    def __init__(
        self,
        items: Items,
        before: Mapping[int, Outcome] = _NONE,
        *,
        fail_safe: bool = False,
        first: int = 1,
        is_open: bool = False,
    ) -> None:
        self.items, self.first, self.highest, self.open = items, first, first, is_open
        self.queued = False  # whether the next item is among what is ready
        self.count = len(items)
        # Where the producer left items out, ours are counted without them.
        self.positions = [at for at in range(items.count) if at not in items.missing] if items.missing else None
        self.todo = [at for at in range(self.count) if at not in before] if before else range(self.count)
        self.next = 0  # the first of these that was never taken
        self.inflight = 0  # taken, or waiting for a retry
        self.ended = self.count - len(self.todo)
        self.attempts: dict[int, int] = {}  # of the items that needed more than one
        self.failed: dict[int, BaseException] = {}
        self.stopped: Outcome | None = None  # the outcome that ends the task before its items have ended
        self.duration = 0.0
        for index, outcome in before.items():
            self.duration += outcome.duration
            if outcome.attempt > 1:
                self.attempts[index] = outcome.attempt
            if outcome.state is not State.SUCCEEDED and fail_safe:
                self.failed[index] = outcome.error or TaskError(items.task, "failure", outcome.reason)
            elif outcome.state is not State.SUCCEEDED:
                self.stopped = outcome

    @property
    def left(self) -> int:
        """How many items were never taken."""
        return len(self.todo) - self.next

    def ref(self, index: int) -> Ref:
        """Return the ref of the item that job *index* receives."""
        return self.items.at(index if self.positions is None else self.positions[index])
