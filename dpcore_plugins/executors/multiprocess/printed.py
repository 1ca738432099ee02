"""What a worker prints, as the program reads it: which job it is of, and the end of it."""

from __future__ import annotations

import codecs
import os
from collections import deque
from collections.abc import Callable

__all__ = ("Printed",)

_MOST = 64 * 1024  # bytes of what one job prints that are kept: the last
_READ = 64 * 1024


class Printed:
    """Reads *file*, in which the worker writes *mark* at the end of each job.

    >>> into = Printed(-1, b"<mark>", print)
    >>> into.take_in(b"one<ma")
    one
    >>> into.take_in(b"rk>two")
    two
    >>> into.note("logged")  # which goes another way, and is heard before the job's end
    >>> into.ended(), into.rest()
    ('onelogged\\n', 'two')
    """

    def __init__(self, file: int, mark: bytes, echo: Callable[[str], object] | None) -> None:
        self._file, self._mark, self._echo = file, mark, echo
        self._held = b""  # what may be the beginning of a mark
        self._tail = bytearray()
        self._done: deque[bytearray] = deque()  # of jobs that have not been heard to have ended
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def read(self) -> bool:
        """Take in what is there; False if there never will be more."""
        try:
            data = os.read(self._file, _READ)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.take_in(data)
        return bool(data)

    def take_in(self, data: bytes) -> None:
        """Take in what was printed."""
        *ended, going_on = (self._held + data).split(self._mark)
        for part in ended:
            self._keep(part)
            self._done.append(self._tail)
            self._tail = bytearray()
        if not going_on:
            self._held = b""
            return
        held = next((n for n in range(len(self._mark) - 1, 0, -1) if going_on.endswith(self._mark[:n])), 0)
        self._held = going_on[len(going_on) - held :]
        self._keep(going_on[: len(going_on) - held])

    def _keep(self, part: bytes) -> None:
        if part:
            _add(self._tail, part)
            if self._echo is not None and (text := self._decoder.decode(part)):
                self._echo(text)

    def ended(self) -> str:
        """Return what the job printed that has ended now: all of it was printed before it said so."""
        while not self._done:
            try:
                data = os.read(self._file, _READ)
            except OSError:
                break
            if not data:
                break
            self.take_in(data)
        return _text(self._done.popleft()) if self._done else self.rest()

    def note(self, line: str) -> None:
        """Keep a line that was not printed but logged, by the job that is heard to end next."""
        _add(self._done[0] if self._done else self._tail, line.encode(errors="backslashreplace") + b"\n")

    def rest(self) -> str:
        """Return what the job has printed that is going on, and forget it."""
        tail, self._tail = self._tail, bytearray()
        return _text(tail)


def _add(tail: bytearray, part: bytes) -> None:
    tail += part
    if len(tail) > 2 * _MOST:
        del tail[:-_MOST]


def _text(tail: bytearray) -> str:
    return tail[-_MOST:].decode(errors="replace") if tail else ""
