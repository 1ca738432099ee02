"""How times and tables are written for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from dpcore.timelines import columns, padded
from dpcore.words import printable

__all__ = ("local_time", "table")


def local_time(timestamp: float) -> str:
    """Write seconds since the epoch as the local time of this machine."""
    return datetime.fromtimestamp(timestamp).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def table(rows: Iterable[Sequence[str]], indent: str = "") -> list[str]:
    """Write rows of cells as lines, each column as wide as its widest cell.

    What a terminal would obey is escaped.

    >>> table([("state", "run"), ("failed", "r1")])
    ['state   run', 'failed  r1']
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(columns, column)) for column in zip(*cells, strict=True)]
    return [
        (indent + "  ".join(padded(cell, width) for cell, width in zip(row, widths, strict=True))).rstrip()
        for row in cells
    ]
