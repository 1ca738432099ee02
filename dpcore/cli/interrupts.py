"""Ctrl-C, SIGTERM and SIGHUP: the first cancels the run, a second ends the process at once.

A run that is cancelled is recorded as that, so it has to go on for a moment; what
cannot be stopped must not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from time import monotonic
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

from dpcore.cli.refusal import complain
from dpcore.worker import perform, perform_async

__all__ = ("CANCELLED", "Interrupts", "await_threads")

CANCELLED = 130
"""The exit code of what one of these signals has ended: 128 and the number of SIGINT, as shells have it."""

_SIGNALS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}
_STOP = 0  # among the numbers of signals, of which it is none
_PATIENCE = 0.5  # seconds for the event loop to take note, for threads to end, and for output to be flushed
_BODIES = (perform.__code__, perform_async.__code__)


class Interrupted(BaseException):
    """Raised in the body of a task that keeps the event loop from taking note of a signal.

    It is not a KeyboardInterrupt, which would break the loop itself, so that the run
    goes on to its end and is recorded.
    """


class Interrupts:
    """Has Ctrl-C, SIGTERM and SIGHUP, which a terminal sends that is closed, cancel a run, for the length of a ``with`` block.

    Before there is a run they raise KeyboardInterrupt, and after it they end the
    process, which may be waiting for threads that nothing can stop.  One that was
    ignored already stays ignored.  Only the main thread can change what signals do;
    in another one nothing is changed.

    A thread watches for them.  A handler alone would not do: it runs in the main
    thread, which stays in whatever it waits for if the system gives the signal to
    another one.
    """

    def __init__(self) -> None:
        self.reason = ""
        """What has been received; empty while nothing has."""
        self.before_end: Callable[[], object] | None = None
        """Called before a second signal ends the process."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._cancel: Callable[[str], None] | None = None
        self._turn = threading.Lock()  # between a signal and the beginning of a run
        self._noted = threading.Event()
        self._nudges = 0  # signals of the watcher's own that are on their way
        self._insists = self._has_raised = self._is_over = False
        self._before: dict[int, Any] = {}
        self._watcher: threading.Thread | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {one: old for one in _SIGNALS if (old := signal.getsignal(one)) is not signal.SIG_IGN}
            self._read, self._write = os.pipe()
            os.set_blocking(self._write, False)
            self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
            self._watcher = threading.Thread(target=self._watch, daemon=True, name="dpcore interrupts")
            self._watcher.start()
            for number in self._before:
                signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watcher is not None:
            os.write(self._write, bytes([_STOP]))
            self._watcher.join()  # first, as what it sends to this thread must still be ours to handle
            for number, handler in self._before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(self._wakeup)
            os.close(self._read)
            os.close(self._write)
        if self._has_raised and isinstance(error, Exception):
            raise KeyboardInterrupt from error  # what was being imported has made another error of it

    @contextmanager
    def calling(self, cancel: Callable[[str], None]) -> Iterator[None]:
        """Have the first signal call *cancel* with its name, on the event loop that is running."""
        with self._turn:
            if self.reason or self._has_raised:  # and what was being imported has swallowed it
                self._has_raised = True
                raise KeyboardInterrupt
            self._loop, self._cancel, self._context = asyncio.get_running_loop(), cancel, copy_context()
        try:
            yield
        finally:
            self._is_over = True
            self._loop = self._cancel = None
            self._noted.set()

    # ---------------------------------------------------------------- in the main thread

    def _handle(self, _: int, frame: FrameType | None) -> None:
        """Interrupt what the main thread does, where it has to be; all else is the watcher's."""
        if self._insists:
            self._insists = False
            if _is_in_body(frame):
                raise Interrupted(f"interrupted by {self.reason}")
        elif self._loop is None and not (self._is_over or self._has_raised):
            self._has_raised = True
            raise KeyboardInterrupt

    def _note(self) -> None:
        self._noted.set()
        if self._cancel is not None:
            self._cancel(self.reason)

    # ---------------------------------------------------------------- in the thread that watches

    def _watch(self) -> None:
        number, patience = 0, None
        while True:
            until = None if patience is None else monotonic() + patience
            received = self._next(until)
            if received is None:
                patience = self._insist(number)
            elif received == _STOP:
                return
            elif received in self._before:
                number, patience = received, self._take_in(received)

    def _next(self, until: float | None) -> int | None:
        """Return the next signal that is not the watcher's own; None when it is *until*."""
        while select.select([self._read], [], [], None if until is None else max(0.0, until - monotonic()))[0]:
            received = os.read(self._read, 1)[0]
            if received not in self._before or not self._nudges:
                return received
            self._nudges -= 1
        return None

    def _take_in(self, number: int) -> float | None:
        """Act on a signal; return for how long the event loop may take to do so, if it has to."""
        if self.reason or self._is_over:
            if self.before_end is not None:
                self.before_end()
            end_process(f"ended at once; {'the run is recorded' if self._is_over else 'what was not recorded is lost'}")
        with self._turn:
            self.reason, loop = _SIGNALS[signal.Signals(number)], self._loop
        if loop is None:
            self._nudge(number)
            return _PATIENCE
        with suppress(RuntimeError):  # it has just been closed
            loop.call_soon_threadsafe(self._note, context=self._context)
        return _PATIENCE

    def _insist(self, number: int) -> float | None:
        """Nudge the main thread again, which has done nothing; return for how long to wait then, if at all."""
        if self._loop is None and not (self._has_raised or self._is_over):
            self._nudge(number)  # the last one met it just before it began to wait, and was slept through
            return _PATIENCE
        if not self._noted.is_set() and self._loop is not None:
            self._insists = True  # a body runs on the event loop itself, and does not let it take note
            self._nudge(number)
        return None

    def _nudge(self, number: int) -> None:
        """Have the main thread call its handler, whatever it waits for."""
        self._nudges += 1
        signal.pthread_kill(threading.main_thread().ident or 0, number)


def _is_in_body(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code not in _BODIES:
        frame = frame.f_back
    return frame is not None


# ---------------------------------------------------------------- the end of the process


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
    complain(f"waiting for {whose}, which is still running on a thread; Ctrl-C ends it")
    while _threads():
        patience.wait(0.1)


def _threads() -> list[threading.Thread]:
    main = threading.main_thread()
    return [one for one in threading.enumerate() if one is not main and not one.daemon and one.is_alive()]


def end_process(why: str) -> NoReturn:
    """End the process now, with the exit code of what was cancelled, and nothing but output flushed."""
    os.write(2, f"dpcore: {why}\n".encode(errors="backslashreplace"))
    # Whoever cannot go on may hold the lock of a stream; nobody waits for that.
    flushing = threading.Thread(target=_flush, daemon=True)
    flushing.start()
    flushing.join(_PATIENCE)
    os._exit(CANCELLED)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # there is none, its reader has gone, it is closed
            stream.flush()
    logging.shutdown()
