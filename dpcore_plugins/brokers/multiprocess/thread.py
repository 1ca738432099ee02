"""The hub in a thread of its own."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress

from dpcore import Exchange
from dpcore_plugins.brokers.multiprocess.hub import FLUSH, Hub
from dpcore_plugins.brokers.multiprocess.peers import Connected
from dpcore_plugins.brokers.multiprocess.places import Claim

__all__ = ("HubThread",)

_log = logging.getLogger("dpcore.broker")


class HubThread:
    """A hub in a thread of its own, so that nothing that the App's loop does stops it; plain calls from any thread."""

    def __init__(self, claim: Claim, *, max_payload: int, exchange: Exchange) -> None:
        self._claim = claim
        self._key = claim.listen()
        self._hub: Hub | None = None
        self._pid = os.getpid()
        self._loop = asyncio.SelectorEventLoop()
        self._settings = max_payload, exchange
        self._thread = threading.Thread(target=self._run, name="dpcore hub", daemon=True)
        self._done: Callable[[], object] | None = None
        self._is_over = False
        self._ending = threading.Lock()
        atexit.register(self.kill)
        self._thread.start()

    def _run(self) -> None:
        max_payload, exchange = self._settings
        asyncio.set_event_loop(self._loop)
        try:
            hub = self._hub = Hub(self._loop, self._claim, self._key, max_payload, exchange, Connected)
            self._loop.run_until_complete(hub.serve())
        except Exception:  # noqa: BLE001  (whatever it is: peers must not wait for ever)
            _log.exception("the hub at %s failed, so its peers lose it", self._claim.place)
        finally:
            asyncio.set_event_loop(None)
            self._loop.close()
            self._claim.release()
            with self._ending:
                self._is_over, done = True, self._done
            if done is not None:
                done()

    def leave(self, drain: float, ring: Callable[[Callable[[], None]], object], ended: Callable[[], None]) -> None:
        """Give readers *drain* seconds to read what is left, then end, and have *ring* call *ended*."""
        with self._ending:
            self._done = lambda: ring(ended)
            is_over = self._is_over
        if is_over:  # it failed before, and nobody else will tell
            ended()
        else:
            self._tell(drain)

    def _tell(self, drain: float) -> None:
        def close() -> None:
            if self._hub is not None:
                self._hub.close(drain)

        with suppress(RuntimeError):  # its loop is closed
            self._loop.call_soon_threadsafe(close)

    def join(self) -> None:
        """Wait until nothing of it is left, which is soon once it was told to leave."""
        self._thread.join()
        atexit.unregister(self.kill)

    def kill(self) -> None:
        """End at once, because the interpreter does."""
        if os.getpid() == self._pid:
            self._tell(0.0)
            self._thread.join(2 * FLUSH)
