"""What hooks receive of the platform: plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ("WorkerInfo",)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """A worker process, as ``dpcore_worker_started`` and ``dpcore_worker_stopping`` see it, in that process."""

    executor: str
    """The name of the executor whose worker it is."""

    number: int
    """Which of its workers this is, counted from 1 and never used again."""

    pid: int

    plugins: Any
    """The :class:`~dpcore.Plugins` of the app, with all that they offer; nothing was looked for here."""
