"""Refusals: what cannot be done as it was asked, said in one message, without a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Any

import click

__all__ = ("Refusal", "complain", "described", "refusal_of", "users_traceback")


class Refusal(click.ClickException):
    """What was asked cannot be done; the exit code is 2."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the message to stderr."""
        if file is None:
            complain(self.message)
        else:
            click.echo(f"dpcore: {self.message}", file=file)


def complain(message: str) -> None:
    """Say on stderr what is wrong, also if the user's code has closed ``sys.stderr``; a terminal obeys nothing of it."""
    from dpcore.words import printable

    message = "\n".join(printable(line, keep="\t") for line in message.splitlines())
    with suppress(OSError):  # the terminal is gone: nobody is there to be told
        try:
            click.echo(f"dpcore: {message}", err=True)
        except ValueError:
            if not sys.stderr.closed:
                raise
            os.write(2, f"dpcore: {message}\n".encode(errors="backslashreplace"))


def refusal_of(error: BaseException) -> Refusal | None:
    """Return the refusal that *error* stands for; None if somebody has to look at its traceback.

    It stands for one if dpcore raised it on purpose, or a plugin in a hook.  A task group
    wraps what is raised in it, so that must be so of every error of a group.
    """
    if isinstance(error, Refusal):
        return error
    sentences = [_sentence(one) for one in _leaves(error)]
    told = [sentence for sentence in sentences if sentence is not None]
    return Refusal("\n".join(dict.fromkeys(told))) if len(told) == len(sentences) else None


def _leaves(error: BaseException) -> Iterator[BaseException]:
    from dpcore.errors import DpcoreError

    if isinstance(error, BaseExceptionGroup) and not isinstance(error, DpcoreError):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error


def _sentence(error: BaseException) -> str | None:
    from dpcore.errors import DpcoreError
    from dpcore.plugins import blame

    if isinstance(error, Refusal):
        return error.message
    if isinstance(error, DpcoreError):
        return "\n".join([str(error), *getattr(error, "__notes__", ())])
    return blame(error)


def described(error: BaseException) -> str:
    """Say what *error* is: its sentence if it is dpcore's own, else its traceback with the frames of others only."""
    refusal = refusal_of(error)
    return users_traceback(error) if refusal is None else refusal.message


def users_traceback(error: BaseException) -> str:
    """Format *error* with the frames of the user's code only: not how it came to be imported.

    What dpcore itself raised is said in its sentence and the user's line.
    """
    from dpcore.tracebacks import users_text

    return users_text(error).rstrip()
