"""How numbers, durations and tables are written for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

__all__ = ("counted", "local_time", "seconds", "table")


def counted(number: int, word: str) -> str:
    """Write a number with its word.

    >>> counted(1, "task"), counted(1200, "task")
    ('1 task', '1,200 tasks')
    """
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def seconds(duration: float) -> str:
    """Write a duration in seconds so that it is read at a glance.

    >>> seconds(0.0042), seconds(1.239), seconds(125), seconds(7260)
    ('0.004 s', '1.24 s', '2 min 5 s', '2 h 1 min')
    """
    if duration < 0.1:
        return f"{duration:.3f} s"
    if duration < 60:
        return f"{duration:.2f} s"
    whole = round(duration)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


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
