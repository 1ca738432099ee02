"""What is written to stdout, and what becomes of it when stdout is full, closed, or read by nobody.

A reader who has gone away has seen enough: that is no failure.  What cannot be
written for any other reason is one, where it was what the command is for.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from io import TextIOWrapper
from typing import TextIO

from dpcore.cli.refusal import Refusal, complain
from dpcore.words import printable

__all__ = ("CLOSED", "flush_output", "lose", "not_written", "open_streams", "reader_is_gone", "reserved_stdout", "tell")

CLOSED = "the code that was run has closed the stream"
"""Why nothing can be written where nothing is wrong with the file behind it."""


def tell(text: str, out: TextIO | None = None) -> bool:
    """Write what the command is for, to stdout unless *out* is given; False if nobody reads it any more.

    What a terminal would obey is escaped.  Raises :class:`~dpcore.cli.refusal.Refusal` if it cannot be written.
    """
    stream = sys.stdout if out is None else out
    try:
        print(printable(text, keep="\n\t"), file=stream, flush=True)
    except OSError as error:
        lose(stream)
        if not isinstance(error, BrokenPipeError):
            raise not_written(error) from error
        return False
    except ValueError as error:
        if not stream.closed:
            raise
        raise Refusal(f"the output cannot be written: {CLOSED}") from error
    return True


def not_written(error: OSError) -> Refusal:
    """Return the refusal for output that cannot be written."""
    return Refusal(f"the output cannot be written: {error.strerror}")


def lose(stream: TextIO) -> None:
    """Have what *stream* still holds, and all that comes, go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, stream.fileno())
    finally:
        os.close(nowhere)


def reader_is_gone() -> bool:
    """Tell whether stdout is a pipe or a socket that nobody reads any more."""
    poll = select.poll()
    poll.register(1, select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def open_streams() -> None:
    """Give the process the streams that whoever started it had closed, so that no file takes their numbers."""
    for number in range(3):  # in this order, since the lowest free number is what a file takes
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            stream = open(number, "w" if number else "r", encoding="utf-8", closefd=False)  # noqa: SIM115  (for good)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
    for out in (sys.stdout, sys.stderr):
        if isinstance(out, TextIOWrapper):  # a terminal that lacks a letter must not end a run
            out.reconfigure(errors="backslashreplace")


def flush_output() -> None:
    """Write out what was printed beside the command's own words; what is lost of it is said, and no failure."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and not isinstance(error, BrokenPipeError) and stream is sys.stdout:
                with suppress(OSError):
                    complain(f"some of the output is lost: {error.strerror}")
            with suppress(OSError, ValueError):
                lose(stream)


@contextmanager
def reserved_stdout() -> Iterator[TextIO]:
    """Keep stdout for what is written to the value of this ``with`` block.

    Whatever else prints, the user's file, a task, a program that a task calls, prints
    to stderr.
    """
    stdout = sys.stdout
    stdout.flush()
    with redirect_stdout(sys.stderr):
        if sys.__stdout__ is None or stdout is not sys.__stdout__:  # a caller has put something else in its place
            yield stdout
            return
        copy = os.dup(1)
        os.dup2(2, 1)
        try:
            with open(copy, "w", encoding=stdout.encoding, errors=stdout.errors, closefd=False) as out:
                yield out
        finally:
            os.dup2(copy, 1)
            os.close(copy)
