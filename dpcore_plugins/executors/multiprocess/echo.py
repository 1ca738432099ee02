"""What workers print, on its way to the program's stderr, whose reader may take its time."""

from __future__ import annotations

import select
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from dpcore_plugins.executors.multiprocess.loops import Loop

__all__ = ("Echo",)

_PIECE = 4096  # bytes at once, for which a pipe that can be written has room
_WIDEST = 10  # bytes at most that a character becomes: an escape, where stderr has no letter for it
_AGAIN = 0.05  # seconds after which to look whether somebody has read
_MOST = 1024 * 1024  # characters that wait, at the most


class Echo:
    """Writes to stderr what can be written without waiting; the rest waits here, the oldest of more than a megabyte is lost.

    So a reader that stands still, a pager say, holds up no timeout, and no other run.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._held: deque[str] = deque()
        self._size = self._lost = 0
        self._unwait: Callable[[], object] | None = None

    def __call__(self, text: str) -> None:
        """Write *text* after all that was to be written before."""
        size = _PIECE if text.isascii() else _PIECE // _WIDEST
        for start in range(0, len(text), size):
            self._held.append(text[start : start + size])
        self._size += len(text)
        self._go_on()

    def _go_on(self) -> None:
        self._unwait = None
        while self._held and _is_writable():
            self._write_next()
        while self._size > _MOST:
            lost = len(self._held.popleft())
            self._size -= lost
            self._lost += lost
        if self._held and self._unwait is None:
            self._unwait = self._loop.later(_AGAIN, self._go_on)

    def _write_next(self) -> None:
        if self._lost:
            self._held.appendleft(
                f"\n... {self._lost} characters that tasks have printed are left out: nobody read them\n"
            )
            self._lost = 0
            self._size += len(self._held[0])
        text = self._held.popleft()
        self._size -= len(text)
        with suppress(Exception):  # nobody reads it, or it is closed
            sys.stderr.write(text)
            sys.stderr.flush()

    def close(self) -> None:
        """Write all that waits, however long that takes."""
        if self._unwait is not None:
            self._unwait()
            self._unwait = None
        while self._held:
            self._write_next()


def _is_writable() -> bool:
    """Tell whether stderr takes something at once; what is no file does."""
    try:
        file = sys.stderr.fileno()
    except Exception:  # noqa: BLE001  (whatever stands in its place)
        return True
    poll = select.poll()
    poll.register(file, select.POLLOUT)
    return bool(poll.poll(0))
