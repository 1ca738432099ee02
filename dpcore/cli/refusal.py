"""Refusals: what cannot be done as it was asked, said in one message, without a traceback."""

from __future__ import annotations

import os
from collections.abc import Iterator
from os.path import dirname
from typing import IO, Any

import click

import dpcore

__all__ = ("Refusal", "refusal_of", "users_traceback")

_INTERNAL = ("<frozen importlib", f"{dirname(dpcore.__file__)}{os.sep}")


class Refusal(click.ClickException):
    """What was asked cannot be done; the exit code is 2."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the message to stderr."""
        click.echo(f"dpcore: {self.message}", file=file, err=file is None)


def refusal_of(error: BaseException) -> Refusal | None:
    """Return the refusal that *error* stands for; None if somebody has to look at its traceback.

    A task group wraps what is raised in it, so every error of a group must be one that
    dpcore raises on purpose.
    """
    from dpcore.errors import DpcoreError

    errors = [*_leaves(error)]
    if all(isinstance(one, DpcoreError) for one in errors):
        return Refusal("\n".join(dict.fromkeys(map(_sentence, errors))))
    return None


def _leaves(error: BaseException) -> Iterator[BaseException]:
    from dpcore.errors import DpcoreError

    if isinstance(error, BaseExceptionGroup) and not isinstance(error, DpcoreError):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error


def _sentence(error: BaseException) -> str:
    return "\n".join([str(error), *getattr(error, "__notes__", ())])


def users_traceback(error: BaseException) -> str:
    """Format *error* with the frames of the user's code only: not how it came to be imported.

    What dpcore itself raised is said in its sentence and the user's line.
    """
    import traceback

    told = traceback.TracebackException.from_exception(error)
    waiting: list[Any] = [told]
    while waiting:
        one = waiting.pop()
        if one is not None:
            kept = [frame for frame in one.stack if not frame.filename.startswith(_INTERNAL) and not _imports(frame)]
            one.stack = traceback.StackSummary.from_list(kept)
            waiting += [one.__cause__, one.__context__, *(one.exceptions or ())]
    return "".join(told.format()).rstrip()


def _imports(frame: Any) -> bool:
    return bool(frame.name == "import_module") and frame.filename.endswith("importlib/__init__.py")
