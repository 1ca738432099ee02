"""The last rows of a terminal, kept for what goes on now, while all else scrolls above them.

The terminal itself does it, by its scrolling region.  So whatever prints may print
as it always does: a task, a program that it calls, another process, or a logger.
Should the process be killed, the region stays as it was; the shell's ``reset``
cures that.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self, TextIO

__all__ = ("Screen", "is_screen")

_EVERY = 0.125  # seconds between two looks at what goes on
_PATIENCE = 0.5  # seconds to wait for a terminal that takes nothing
_LEAST = (20, 8)  # columns and rows below which there is no room to keep

_SAVE, _RESTORE, _NO_WRAP, _WRAP = "\x1b7", "\x1b8", "\x1b[?7l", "\x1b[?7h"
_DOWN = "\x1bD"  # as a line feed does, but in the same column
_WHOLE, _ERASE_LINE, _ERASE_BELOW = "\x1b[r", "\x1b[2K", "\x1b[J"


def is_screen(out: TextIO) -> bool:
    """Tell whether *out* is a terminal that can keep some rows, and has room for it."""
    if out.closed or not out.isatty() or os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
        return False
    return _size(out) is not None


class Screen:
    """Shows what *rows* returns in the last *height* rows of the terminal *out*, for the length of a ``with`` block.

    *rows* is called with the width some times a second, on a thread, and returns at
    most *height* lines.
    """

    def __init__(self, out: TextIO, height: int, rows: Callable[[int], Sequence[str]]) -> None:
        self._out, self._rows, self._wanted = out, rows, height
        self._size: tuple[int, int] | None = None  # columns and rows for which the region is set
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._refresh, daemon=True, name="dpcore screen")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the rows back, from whichever thread; twice does nothing."""
        self._ended.set()
        self._thread.join(_PATIENCE)
        if self._lock.acquire(timeout=_PATIENCE):
            try:
                if self._size is not None:
                    self._write(_SAVE + _WHOLE + _RESTORE + self._cleared(self._size))
                    self._size = None
            finally:
                self._lock.release()

    def _refresh(self) -> None:
        while not self._ended.wait(_EVERY):
            with self._lock:
                self._draw()

    def _draw(self) -> None:
        size = _size(self._out)
        if size is None:
            return
        made_room = self._made_room(size) if size != self._size else ""
        height = self._height(size)
        lines = [*self._rows(size[0])][-height:]
        lines = [""] * (height - len(lines)) + lines
        first = size[1] - height + 1
        drawn = [f"\x1b[{first + at};1H{_ERASE_LINE}{line}" for at, line in enumerate(lines)]
        self._write(made_room + _SAVE + _NO_WRAP + "".join(drawn) + _WRAP + _RESTORE)

    def _made_room(self, size: tuple[int, int]) -> str:
        """Return what sets the region; what is on the last rows scrolls up before, and so does the cursor."""
        height = self._height(size)
        before = "" if self._size is None else _SAVE + _WHOLE + _RESTORE + self._cleared(self._size)
        self._size = size
        return f"{before}{_DOWN * height}\x1b[{height}A{_SAVE}\x1b[1;{size[1] - height}r{_RESTORE}"

    def _height(self, size: tuple[int, int]) -> int:
        return min(self._wanted, size[1] // 2)

    def _cleared(self, size: tuple[int, int]) -> str:
        return f"{_SAVE}\x1b[{size[1] - self._height(size) + 1};1H{_ERASE_BELOW}{_RESTORE}"

    def _write(self, text: str) -> None:
        """Write in one piece past all buffers, so that nothing of anybody else's gets in between."""
        with suppress(OSError, ValueError):  # it has been closed, or is gone
            os.write(self._out.fileno(), text.encode(self._out.encoding or "utf-8", errors="replace"))


def _size(out: TextIO) -> tuple[int, int] | None:
    """Return the columns and rows of a terminal; None if it has none, or no room to keep some."""
    try:
        width, height = os.get_terminal_size(out.fileno())
    except (OSError, ValueError):
        return None
    return (width, height) if width >= _LEAST[0] and height >= _LEAST[1] else None
