"""The template: a process that has imported dpcore and forks workers when it is asked.

No code of the user's ever runs in it, so it has one thread and no secrets from its
children.  It does what must be done even while the program's event loop is held up,
or when the program is dead: it stops workers, kills those that do not stop, and reaps.
"""

from __future__ import annotations

import gc
import heapq
import os
import select
import signal
import socket
import struct
from contextlib import suppress
from time import monotonic
from typing import NoReturn

from dpcore_plugins.executors.multiprocess.machine import die_with_parent
from dpcore_plugins.executors.multiprocess.working import work

__all__ = ("ASK", "BURY", "DIED", "FORK", "FORKED", "KILLED", "REFUSED", "STOP", "TELL", "serve")

ASK = struct.Struct("!BII")  # what, which worker, milliseconds of grace
FORK, STOP, BURY = 1, 2, 3  # to bury is to kill what does not end by itself
TELL = struct.Struct("!BIi")  # what, which worker, process id or status or errno
FORKED, DIED, REFUSED, KILLED = 1, 2, 3, 4
_FILES = 8  # at most, that come with a request


def serve(control: socket.socket, parent: int) -> NoReturn:
    """Fork workers until the program is gone, or says that it is enough."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    forking = _Forking(control)
    die_with_parent(signal.SIGTERM, parent)
    gc.collect()
    gc.freeze()  # what is here is shared with the workers, for as long as nobody touches it
    forking.serve()


class _Forking:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._processes: dict[int, int] = {}  # by number
        self._numbers: dict[int, int] = {}  # by process id
        self._due: list[tuple[float, int, int]] = []  # when which worker is to be killed, and why
        self._is_over = False
        self._woken, waker = os.pipe()
        for end in (self._woken, waker):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        self._waker = waker
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._end)

    def _end(self, *_: object) -> None:
        self._is_over = True

    def serve(self) -> NoReturn:
        ready = select.poll()
        ready.register(self._control, select.POLLIN)
        ready.register(self._woken, select.POLLIN)
        while not self._is_over:
            wait = None if not self._due else max(0.0, self._due[0][0] - monotonic()) * 1000
            for file, _ in ready.poll(wait):
                if file == self._woken:
                    os.read(self._woken, 512)
                elif not self._hear():
                    self._is_over = True
            self._reap()
            while self._due and self._due[0][0] <= monotonic():
                _, number, what = heapq.heappop(self._due)
                if what == BURY and not self._is_dead(number):
                    self._tell(KILLED, number, 0)
                self._signal(number, signal.SIGKILL)
        for number in [*self._processes]:
            self._signal(number, signal.SIGKILL)
        os._exit(0)

    def _hear(self) -> bool:
        """Do what the program asks; False if it is gone."""
        try:
            said, files, _, _ = socket.recv_fds(self._control, ASK.size, _FILES)
            for file in files:
                os.set_inheritable(file, False)  # noqa: FBT003  (what a task starts has nothing to do with them)
        except OSError:
            return False
        if len(said) < ASK.size:
            return False
        what, number, grace = ASK.unpack(said)
        if what == FORK:
            self._fork(number, files)
        elif number in self._processes:
            if what == STOP and grace:
                self._signal(number, signal.SIGTERM)
            heapq.heappush(self._due, (monotonic() + grace / 1000, number, what))
        return True

    def _fork(self, number: int, files: list[int]) -> None:
        mine = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGCHLD))
        try:
            process = os.fork()
        except OSError as error:
            process = -1
            self._tell(REFUSED, number, error.errno or 0)
        if process == 0:
            self._become_worker(mine, files)
        for file in files:
            os.close(file)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGCHLD))
        if process > 0:
            self._processes[number], self._numbers[process] = process, number
            self._tell(FORKED, number, 0)

    def _become_worker(self, parent: int, files: list[int]) -> NoReturn:
        code = 1
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # Not SIG_IGN, which processes that a task starts would inherit.
            signal.signal(signal.SIGINT, lambda *_: None)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGCHLD))
            die_with_parent(signal.SIGKILL, parent)
            for end in (self._woken, self._waker):
                os.close(end)
            self._control.close()
            gc.unfreeze()
            code = work(files)
        finally:
            os._exit(code)

    def _signal(self, number: int, which: int) -> None:
        """Send a signal to a worker and all that its tasks have started; it is not reaped, so the id is its own."""
        process = self._processes.get(number)
        if process is None:
            return
        try:
            os.killpg(process, which)
        except (ProcessLookupError, PermissionError):
            with suppress(ProcessLookupError):  # it has no group yet
                os.kill(process, which)

    def _is_dead(self, number: int) -> bool:
        try:
            return os.waitid(os.P_PID, self._processes[number], os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    def _reap(self) -> None:
        while self._processes:
            try:
                gone = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if gone is None:
                return
            number = self._numbers.get(gone.si_pid)
            if number is not None:
                self._signal(number, signal.SIGKILL)  # what its tasks have started goes with it
            _, status = os.waitpid(gone.si_pid, 0)
            if number is not None:
                del self._processes[number], self._numbers[gone.si_pid]
                self._due = [entry for entry in self._due if entry[1] != number]
                heapq.heapify(self._due)
                self._tell(DIED, number, status)

    def _tell(self, what: int, number: int, value: int) -> None:
        with suppress(OSError):  # the program is gone, which is heard next
            self._control.sendall(TELL.pack(what, number, value))
