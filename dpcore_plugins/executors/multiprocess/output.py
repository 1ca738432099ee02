"""Where a worker prints: a pipe that the program reads."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any, TextIO

__all__ = ("Output",)


class Output:
    """Has this process print into the file *printed*, and read nothing."""

    def __init__(self, printed: int) -> None:
        self._printed = printed
        self._nothing = os.open(os.devnull, os.O_RDONLY)
        self._streams: dict[str, TextIO] = {}

    def restore(self) -> None:
        """Have it so whatever was done to the three streams before: closed, replaced, or made non-blocking."""
        os.set_blocking(self._printed, True)
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            os.dup2(self._printed if number else self._nothing, number)
            stream = self._streams.get(name)
            if stream is None or stream.closed:
                stream = self._streams[name] = _opened(number)
            if getattr(sys, name) is not stream:
                setattr(sys, name, stream)
                setattr(sys, f"__{name}__", stream)

    def end(self, mark: bytes) -> None:
        """Have all that was printed in the pipe, and *mark* behind it."""
        streams: list[Any] = [sys.stdout, sys.stderr, *self._streams.values()]
        for stream in streams:
            with suppress(Exception):  # a job has closed it, or put something else there
                stream.flush()
        try:
            os.write(self._printed, mark)
        except BlockingIOError:  # a job has made it so, or what it has started
            os.set_blocking(self._printed, True)
            os.write(self._printed, mark)


def _opened(number: int) -> TextIO:
    """Return a stream on a file that is open for as long as the process lives; it prints line by line."""
    if not number:
        return open(number, closefd=False)
    return open(number, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
