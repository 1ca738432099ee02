"""The program's end of the template."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import anyio
import anyio.to_thread

from dpcore.errors import WorkersNotStartedError
from dpcore_plugins.executors.multiprocess.forking import ASK, BURY, DIED, FORK, FORKED, KILLED, STOP, TELL
from dpcore_plugins.executors.multiprocess.loops import Loop

__all__ = ("Template",)

# What it imports is what the program would, and not what lies in its folder (-P).  What goes wrong is told.
_BEGIN = """
import sys, socket, pickle
control = socket.socket(fileno=int(sys.argv[1]))
sys.path[:], names = pickle.loads(control.recv(int(sys.argv[2]), socket.MSG_WAITALL))
try:
    from dpcore_plugins.executors.multiprocess.forking import serve
    import dpcore
    for name in names:
        getattr(dpcore, name)
except BaseException as error:
    control.sendall(f"!{type(error).__name__}: {error}".encode(errors="replace"))
    raise SystemExit(1)
serve(control, int(sys.argv[3]))
"""
_BURY = 250  # milliseconds from the end of a worker's channel to its own
_PATIENCE = 5.0  # seconds in which it ends when it is told so


class Template:
    """A process that forks workers; *forked*, *killed*, *died* and *lost* are called with what it says."""

    def __init__(
        self,
        loop: Loop,
        forked: Callable[[int], object],
        killed: Callable[[int], object],
        died: Callable[[int, int | None], object],
        lost: Callable[[str], object],
    ) -> None:
        self._forked, self._killed, self._died, self._lost = forked, killed, died, lost
        self._said = b""
        self._asked: deque[tuple[bytes, list[int]]] = deque()  # what there was no room for
        self._unroom: Callable[[], object] | None = None
        self._loop = loop
        self._control, there = socket.socketpair()
        surroundings = pickle.dumps(([entry for entry in sys.path if isinstance(entry, str)], _imported_by_script()))
        command = [sys.executable, "-P", *subprocess._args_from_interpreter_flags(), "-c", _BEGIN]  # type: ignore[attr-defined]
        try:
            self._process = subprocess.Popen(
                [*command, str(there.fileno()), str(len(surroundings)), str(os.getpid())],
                pass_fds=(there.fileno(),),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # so that Ctrl-C is the program's alone
            )
        except OSError as error:
            self._control.close()
            raise WorkersNotStartedError(str(error)) from error
        finally:
            there.close()
        with suppress(OSError):  # it is gone already, and that is heard in a moment
            self._control.sendall(surroundings)
        self._control.settimeout(0)
        self._unwatch = loop.reading(self._control.fileno(), self._hear)
        self.pid = self._process.pid
        self.is_gone = False

    def fork(self, number: int, files: list[int]) -> None:
        """Have it fork worker *number*, which gets *files*."""
        self._ask(FORK, number, 0, files)

    def stop(self, number: int, grace: float) -> None:
        """Have it stop a worker, and kill it if it lives after *grace* seconds; at once if that is 0."""
        self._ask(STOP, number, int(grace * 1000), [])

    def bury(self, number: int, patience: int = _BURY) -> None:
        """Have it kill a worker that has not ended by itself in *patience* milliseconds; *killed* tells that."""
        self._ask(BURY, number, patience, [])

    def _ask(self, what: int, number: int, grace: int, files: list[int]) -> None:
        self._asked.append((ASK.pack(what, number, grace), files))
        if self._unroom is None:
            self._go_on()

    def _go_on(self) -> None:
        while self._asked:
            said, files = self._asked[0]
            try:
                socket.send_fds(self._control, [said], files)
            except BlockingIOError:
                if self._unroom is None:
                    self._unroom = self._loop.writing(self._control.fileno(), self._go_on)
                return
            except OSError:  # it is gone, and that is heard in a moment
                self._asked.clear()
                break
            self._asked.popleft()
        self._no_more_room()

    def _no_more_room(self) -> None:
        if self._unroom is not None:
            self._unroom()
            self._unroom = None

    def _hear(self) -> None:
        try:
            data = self._control.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._said += data
        while len(self._said) >= TELL.size and not self._said.startswith(b"!"):
            what, number, value = TELL.unpack_from(self._said)
            self._said = self._said[TELL.size :]
            if what == FORKED:
                self._forked(number)
            elif what == DIED:
                self._died(number, value)
            elif what == KILLED:
                self._killed(number)
            else:
                self._died(number, None)
        if not data and not self.is_gone:
            said = self._said[1:].decode(errors="replace")
            self.kill()
            self._lost(said)

    async def end(self) -> None:
        """Have it end, with the workers that are left, and wait for that."""
        if self._close():
            with anyio.CancelScope(shield=True), anyio.move_on_after(_PATIENCE):
                await self._ended()
            self._reap()

    async def _ended(self) -> None:
        if not hasattr(os, "pidfd_open"):
            await anyio.to_thread.run_sync(self._process.wait, _PATIENCE)
            return
        process = os.pidfd_open(self._process.pid)
        try:
            await anyio.wait_readable(process)
        finally:
            os.close(process)

    def kill(self) -> None:
        """End it at once, whatever it is at, and what is left of its workers: the system kills them with it."""
        if self._close():
            self._reap()

    def _close(self) -> bool:
        if self.is_gone:
            return False
        self.is_gone = True
        self._asked.clear()
        self._no_more_room()
        self._unwatch()
        self._control.close()
        return True

    def _reap(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()  # a moment: it has been killed


def _imported_by_script() -> list[str]:
    """Return what the program's script has imported of dpcore: workers that load it find that loaded already."""
    names = vars(sys.modules["__main__"])
    return [name for name in sys.modules["dpcore"].__all__ if name in names]
