"""Readiness of files and moments to come, told by calls, on asyncio and trio alike."""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol

__all__ = ("Loop", "Turn", "running_loop")

_log = logging.getLogger("dpcore.executors.multiprocess")

Call = Callable[[], object]


class Turn(Protocol):
    """What somebody waits for, once."""

    def wait(self) -> Awaitable[object]:
        """Return when it is set."""

    def set(self) -> None:
        """End the wait."""


class Loop(Protocol):
    """The event loop that runs; each method returns what ends the watch, to be called before the file is closed."""

    is_trio: bool

    def reading(self, file: int, call: Call) -> Call:
        """Call whenever *file* can be read."""

    def writing(self, file: int, call: Call) -> Call:
        """Call whenever *file* can be written."""

    def later(self, seconds: float, call: Call) -> Call:
        """Call once, in *seconds*."""

    def soon(self, call: Call) -> None:
        """Call once, when what goes on in this turn of the loop has been done."""

    def turn(self) -> Turn:
        """Return something to wait for, which costs less than an event that any loop would have."""


def running_loop() -> Loop:
    """Return the loop that runs here."""
    if "trio" in sys.modules:
        with suppress(RuntimeError):  # it is loaded, and another loop runs
            return _Trio()
    return _Asyncio()


class _Asyncio:
    is_trio = False

    def __init__(self) -> None:
        import asyncio

        self._loop = asyncio.get_running_loop()

    def reading(self, file: int, call: Call) -> Call:
        self._loop.add_reader(file, call)
        return lambda: self._loop.is_closed() or self._loop.remove_reader(file)

    def writing(self, file: int, call: Call) -> Call:
        self._loop.add_writer(file, call)
        return lambda: self._loop.is_closed() or self._loop.remove_writer(file)

    def later(self, seconds: float, call: Call) -> Call:
        return self._loop.call_later(seconds, call).cancel

    def soon(self, call: Call) -> None:
        self._loop.call_soon(call)

    def turn(self) -> Turn:
        return _Future(self._loop.create_future())


class _Future:
    __slots__ = ("_future",)

    def __init__(self, future: Any) -> None:
        self._future = future

    def wait(self) -> Awaitable[object]:
        return self._future  # type: ignore[no-any-return]

    def set(self) -> None:
        if not self._future.done():  # else it is set, or nobody waits for it any more
            self._future.set_result(None)


class _Trio:
    is_trio = True

    def __init__(self) -> None:
        import trio

        self._trio: Any = trio
        self._soon: Any = trio.lowlevel.current_trio_token().run_sync_soon  # RuntimeError where it does not run

    def reading(self, file: int, call: Call) -> Call:
        return self._watching(self._trio.lowlevel.wait_readable, file, call)

    def writing(self, file: int, call: Call) -> Call:
        return self._watching(self._trio.lowlevel.wait_writable, file, call)

    def _watching(self, wait: Callable[[int], Any], file: int, call: Call) -> Call:
        trio, scope = self._trio, self._trio.CancelScope()

        async def watch() -> None:
            with scope, suppress(trio.ClosedResourceError):
                while not scope.cancel_called:
                    await wait(file)
                    if not scope.cancel_called:
                        _called(call)

        def stop() -> None:
            scope.cancel()
            if wait is trio.lowlevel.wait_readable:  # not when all is written: who reads the same file goes on
                with suppress(RuntimeError):  # the loop has ended, and this with it
                    trio.lowlevel.notify_closing(file)

        trio.lowlevel.spawn_system_task(watch)
        return stop

    def later(self, seconds: float, call: Call) -> Call:
        trio, scope = self._trio, self._trio.CancelScope()

        async def wait() -> None:
            with scope:
                await trio.sleep(seconds)
                _called(call)

        trio.lowlevel.spawn_system_task(wait)
        return lambda: scope.cancel()

    def soon(self, call: Call) -> None:
        self._soon(_called, call)

    def turn(self) -> Turn:
        made: Turn = self._trio.Event()
        return made


def _called(call: Call) -> None:
    """Call, as asyncio does: what goes wrong is logged, and does not end the loop."""
    try:
        call()
    except Exception:  # noqa: BLE001  (logged)
        _log.exception("what watches the worker processes has failed")
