"""Tracebacks with the frames of the user's code: how dpcore came to call it is of no use to them.  Pure."""

from __future__ import annotations

import os
import traceback as tracebacks
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType

from dpcore.errors import DpcoreError
from dpcore.words import excerpt

__all__ = ("cut", "users_text")

_LONGEST_CHAIN = 100  # of causes, and of errors in groups; the causes may be a circle
_LEADING = frozenset({"dpcore", "dpcore_plugins", "cloudpickle", "anyio", "asyncio", "concurrent"})
_HERE = str(Path(__file__).parent)
_TESTING = f"{_HERE}{os.sep}testing{os.sep}"  # the tasks of the suites are somebody's
_INTERNAL = ("<frozen importlib", f"{_HERE}{os.sep}", f"{_HERE}_plugins{os.sep}")


def cut(error: BaseException) -> None:
    """Take from *error*, and from what caused it, the frames before the user's first one.

    What never came to the user's code keeps its frames, unless dpcore raised it on
    purpose: then its sentence is all.
    """
    for one in _chain(error):
        left = _from_users(one.__traceback__)
        if left is not None or isinstance(one, DpcoreError):
            # Not by assignment, which an exception that is a frozen dataclass refuses.
            BaseException.with_traceback(one, left)


def users_text(error: BaseException) -> str:
    """Format *error* and what caused it with the frames of the user's code only; one without any is its last line.

    Of what is very long, beginning and end are kept (:func:`~dpcore.words.excerpt`).
    """
    try:
        return excerpt(_users_text(error))
    except Exception:  # noqa: BLE001  (an exception that cannot be printed still has frames)
        return "".join(tracebacks.format_tb(error.__traceback__)) + type(error).__name__


def _users_text(error: BaseException) -> str:
    told = tracebacks.TracebackException.from_exception(error)
    waiting = [told]
    while waiting:
        one = waiting.pop()
        kept = [frame for frame in one.stack if not _is_internal(frame)]
        # Without a stack there is no "Traceback (most recent call last):" over nothing.
        one.stack = tracebacks.StackSummary.from_list(kept) if kept else None  # type: ignore[assignment]
        waiting += [each for each in (one.__cause__, one.__context__, *(one.exceptions or ())) if each is not None]
    return "".join(told.format())


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: dict[int, BaseException] = {}
    waiting: list[BaseException] = [error]
    while waiting and len(seen) < _LONGEST_CHAIN:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen[id(one)] = one
        yield one
        inner = one.exceptions if isinstance(one, BaseExceptionGroup) else ()
        waiting += [each for each in (one.__cause__, one.__context__, *inner) if each is not None]


def _from_users(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and _leads(trace.tb_frame):
        trace = trace.tb_next
    return trace


def _leads(frame: FrameType) -> bool:
    package = str(frame.f_globals.get("__name__")).partition(".")[0]
    return package in _LEADING and not frame.f_code.co_filename.startswith(_TESTING)


def _is_internal(frame: tracebacks.FrameSummary) -> bool:
    if frame.name == "import_module" and frame.filename.endswith(f"importlib{os.sep}__init__.py"):
        return True
    return frame.filename.startswith(_INTERNAL) and not frame.filename.startswith(_TESTING)
