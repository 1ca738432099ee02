"""A damaged database gets another name, and nothing of it is lost, whoever else finds it at the same time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

try:
    from fcntl import LOCK_EX, LOCK_SH, flock
except ImportError:  # not on Windows, where an open file cannot be renamed anyway
    flock = None  # type: ignore[assignment]

__all__ = ("folder_locked", "set_aside")

_BESIDE = ("-wal", "-shm")  # what SQLite keeps next to a database


@contextmanager
def folder_locked(folder: Path, *, alone: bool = False) -> Iterator[None]:
    """Hold the folder of a database while it is opened, together with others who open theirs, or *alone* to rename it.

    Whoever opened it in the middle of a renaming would give the next database a log that is not its own.
    It is the folder, because closing the file itself would let go of the locks that SQLite has on it.
    """
    if flock is None:
        yield
        return
    held = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # there are file systems that know no such locks
            flock(held, LOCK_EX if alone else LOCK_SH)
        yield
    finally:
        os.close(held)


def set_aside(path: Path, now: datetime) -> Path:
    """Rename a database to ``NAME.corrupt-TIME``, with what belongs to it; return where it is now.

    The file goes last: a log that outlived its database would be taken for the next one's.
    """
    stem = f"{path.name}.corrupt-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    kept, number = path.with_name(stem), 1
    while kept.exists():
        number += 1
        kept = path.with_name(f"{stem}-{number}")
    for end in (*_BESIDE, ""):
        there = path.with_name(path.name + end)
        if there.exists():
            there.rename(kept.with_name(kept.name + end))
    return kept
