"""Ctrl-C and SIGTERM: the first cancels the run, a second ends the process at once.

A run that is cancelled is recorded as that, so it has to go on for a moment; what
cannot be stopped must not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

import click

from dpcore.worker import perform, perform_async

__all__ = ("CANCELLED", "Interrupts", "await_threads")

CANCELLED = 130
"""The exit code of what Ctrl-C or SIGTERM has ended: 128 and the number of SIGINT, as shells have it."""

_SIGNALS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
_PATIENCE = 0.5  # seconds for the event loop to take note, and for threads to end
_BODIES = (perform.__code__, perform_async.__code__)


class Interrupted(BaseException):
    """Raised in the body of a task that keeps the event loop from taking note of a signal.

    It is not a KeyboardInterrupt, which would break the loop itself, so that the run
    goes on to its end and is recorded.
    """


class Interrupts:
    """Has Ctrl-C and SIGTERM cancel a run, for the length of a ``with`` block.

    Before there is a run they raise KeyboardInterrupt, and after it they end the
    process, which may be waiting for threads that nothing can stop.  Only the main thread can
    receive signals; in another one nothing is changed.
    """

    def __init__(self) -> None:
        self.reason = ""
        """What has been received; empty while nothing has."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._cancel: Callable[[str], None] | None = None
        self._before: dict[int, Any] = {}
        self._received, self._noted = threading.Event(), threading.Event()
        self._insists = self._is_over = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def calling(self, cancel: Callable[[str], None]) -> Iterator[None]:
        """Have the first signal call *cancel* with its name, on the event loop that is running."""
        self._loop, self._cancel = asyncio.get_running_loop(), cancel
        # Made beforehand: a handler must not start a thread, as it may have interrupted just that.
        threading.Thread(target=self._watch, daemon=True, name="dpcore interrupts").start()
        try:
            yield
        finally:
            self._loop = self._cancel = None
            self._is_over = True
            self._noted.set()
            self._received.set()  # lets the watching thread go

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._insists:
            self._insists = False
            if _is_in_body(frame):
                raise Interrupted(f"interrupted by {self.reason}")
            return
        if self.reason or self._is_over:
            end_process(f"ended at once; {'the run is recorded' if self._is_over else 'what was not recorded is lost'}")
        self.reason = _SIGNALS[signal.Signals(number)]
        if self._loop is None:
            raise KeyboardInterrupt
        self._loop.call_soon_threadsafe(self._note)
        self._received.set()

    def _note(self) -> None:
        self._noted.set()
        if self._cancel is not None:
            self._cancel(self.reason)

    def _watch(self) -> None:
        """Interrupt a body that runs on the event loop itself and does not let it take note."""
        self._received.wait()
        if not self._noted.wait(_PATIENCE):
            self._insists = True
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def _is_in_body(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code not in _BODIES:
        frame = frame.f_back
    return frame is not None


def await_threads(tasks: Collection[str], *, cancelled: bool) -> None:
    """See to it that the process can end although the code of *tasks* may still be running on threads.

    Python cannot stop a thread, and waits for it before it ends.  After a cancellation
    nobody wants to wait: then the process is ended here, with everything flushed.
    """
    if not (tasks or cancelled):
        return
    patience = threading.Event()
    for _ in range(int(_PATIENCE / 0.01)):
        if not (left := _threads()):
            return
        patience.wait(0.01)
    whose = f"the code of {', '.join(map(repr, tasks))}" if tasks else f"code on {left[0].name!r}"
    if cancelled:
        end_process(f"{whose} is still running on a thread and cannot be stopped; ending the process")
    click.echo(f"dpcore: waiting for {whose}, which is still running on a thread; Ctrl-C ends it", err=True)
    while _threads():
        patience.wait(0.1)


def _threads() -> list[threading.Thread]:
    main = threading.main_thread()
    return [one for one in threading.enumerate() if one is not main and not one.daemon and one.is_alive()]


def end_process(why: str) -> None:
    """End the process now, with the exit code of what was cancelled, and nothing but output flushed."""
    # From a signal handler: what was interrupted may hold the lock of a stream, so nothing waits for one.
    os.write(2, f"dpcore: {why}\n".encode(errors="backslashreplace"))
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, RuntimeError, ValueError):  # closed, or interrupted while it was written to
            continue
    logging.shutdown()
    os._exit(CANCELLED)
