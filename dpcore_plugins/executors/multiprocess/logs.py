"""Logging in workers: records go to the program, whose loggers decide what becomes of them."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from contextlib import suppress
from logging.handlers import QueueHandler
from typing import TextIO

__all__ = ("give_back", "handled", "levels", "take_over")

_log = logging.getLogger("dpcore.executors.multiprocess")


class _ToProgram(QueueHandler):
    """Sends records; what cannot be sent is text already."""

    def __init__(self, send: Callable[[bytes], object]) -> None:
        super().__init__(None)  # type: ignore[arg-type]  # nothing is queued here
        self._send = send

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            said = pickle.dumps(record.__dict__)
        except Exception:  # noqa: BLE001  (whatever an extra's own pickling raises)
            plain = {name: value for name, value in record.__dict__.items() if name in _PLAIN}
            said = pickle.dumps(plain)
        self._send(said)


_PLAIN = frozenset(logging.LogRecord("", 0, "", 0, "", None, None).__dict__) | {"message"}


def take_over(level: int, send: Callable[[bytes], object]) -> None:
    """Have all records of *level* and above sent."""
    root = logging.getLogger()
    root.handlers = [_ToProgram(send)]
    root.setLevel(level)


def give_back(stream: TextIO) -> None:
    """Have what would be sent written, in a process that must not send."""
    root = logging.getLogger()
    plain = logging.StreamHandler(stream)
    plain.setFormatter(logging.Formatter(logging.BASIC_FORMAT))
    root.handlers = [plain if isinstance(one, _ToProgram) else one for one in root.handlers]


def levels() -> int:
    """Return the least level that anybody in this program wants to see."""
    return logging.getLogger().getEffectiveLevel()


def handled(said: bytes) -> str:
    """Have the program's loggers handle a record of a worker; return it as a line."""
    try:
        record = logging.makeLogRecord(pickle.loads(said))
        logger = logging.getLogger(record.name)
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)
        return f"{record.levelname}:{record.name}:{record.getMessage()}"
    except Exception as error:  # noqa: BLE001  (an extra that does not load, a filter that raises: no job ends by it)
        with suppress(Exception):  # the same filter may raise for this record, too
            _log.exception("what a task has logged in a worker process cannot be handled here")
        return f"ERROR:dpcore:a record that was logged here could not be handled: {error!r}"
