"""How numbers, durations and tables are written for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from dpcore.timelines import seconds

__all__ = ("counted", "local_time", "seconds", "table")


def counted(number: int, word: str) -> str:
    """Write a number with its word.

    >>> counted(1, "task"), counted(1200, "task")
    ('1 task', '1,200 tasks')
    """
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def local_time(timestamp: float) -> str:
    """Write seconds since the epoch as the local time of this machine."""
    return datetime.fromtimestamp(timestamp).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def table(rows: Iterable[Sequence[str]], indent: str = "") -> list[str]:
    """Write rows of cells as lines, each column as wide as its widest cell.

    >>> table([("state", "run"), ("failed", "r1")])
    ['state   run', 'failed  r1']
    """
    cells = [*rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        (indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()
        for row in cells
    ]
