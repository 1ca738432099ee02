"""Flags that any process and thread of a test can raise, and wait for without looking again and again."""

from __future__ import annotations

import os
import select
from pathlib import Path

import anyio


class Flag:
    """A pipe with a name: it is up once there is something in it, and nobody ever takes it out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        if not path.exists():
            os.mkfifo(path)
        self._file = os.open(path, os.O_RDWR | os.O_NONBLOCK)  # held, so that what is in it stays

    def __reduce__(self):
        return Flag, (self._path,)

    def __del__(self) -> None:
        os.close(self._file)

    def set(self) -> None:
        """Raise it."""
        if not self.is_set():
            os.write(self._file, b"!")

    def is_set(self) -> bool:
        """Tell whether it is up."""
        return self.wait(0)

    def wait(self, seconds: float = 10) -> bool:
        """Wait in a thread until it is up; tell whether it is."""
        return bool(select.select([self._file], [], [], seconds)[0])

    async def up(self) -> None:
        """Wait on an event loop."""
        await anyio.wait_readable(self._file)
