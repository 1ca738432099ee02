"""What loggers say while a command runs, dpcore's and everybody's: warnings, and more if that is asked for.

Whoever sets up logging in a file of tasks or in a plugin has the say instead.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ("told_log",)

_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)
_TASKS = "dpcore.task."


@contextmanager
def told_log(verbose: int = 0) -> Iterator[None]:
    """Have stderr tell what is logged, from the level on that *verbose* stands for: 0 warnings, 1 info, 2 everything."""
    root, before, last = logging.getLogger(), logging.getLogger().level, logging.lastResort
    told = _Told(level=_LEVELS[min(verbose, 2)])
    told.setFormatter(_Line())
    # The handler of last resort is asked only while nobody has set up any other.
    logging.lastResort = told
    if verbose:
        root.setLevel(told.level)
    try:
        yield
    finally:
        logging.lastResort = last
        root.setLevel(before)


class _Told(logging.Handler):
    """Writes to the stderr of the moment."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = f"{self.format(record)}\n"
            if sys.stderr.closed:  # by the user's code; nothing has to be wrong with the file behind it
                os.write(2, line.encode(errors="backslashreplace"))
                return
            sys.stderr.write(line)
            sys.stderr.flush()
        except Exception:  # noqa: BLE001  (what a record raises as it is written is for logging to tell)
            self.handleError(record)


class _Line(logging.Formatter):
    """``warning  task load: words``, and what was raised below it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's own name)
        name = record.name
        said = f"task {name.removeprefix(_TASKS)}" if name.startswith(_TASKS) else name
        return f"{record.levelname.lower():7}  {said}: {record.message}"
