"""Logging in workers: records go to the program, whose loggers decide what becomes of them."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from logging.handlers import QueueHandler
from typing import TextIO

__all__ = ("give_back", "handled", "levels", "take_over")


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
    record = logging.makeLogRecord(pickle.loads(said))
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)
    return f"{record.levelname}:{record.name}:{record.getMessage()}"
