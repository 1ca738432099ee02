"""The program's end of one worker: what it was given, and what it says."""

from __future__ import annotations

import os
import pickle
import socket
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress

import anyio

from dpcore import Job, Line, Outcome
from dpcore_plugins.executors.multiprocess.loops import Loop
from dpcore_plugins.executors.multiprocess.orders import MOST_KNOWN
from dpcore_plugins.executors.multiprocess.printed import Printed
from dpcore_plugins.executors.multiprocess.wire import DEFINE, DROP, HELLO, HUNG_UP, JOB, READ, Cut, frame
from dpcore_plugins.executors.multiprocess.working import Hello

__all__ = ("Call", "Worker")


class Call:
    """A job that was given to the executor, and who waits for it."""

    __slots__ = ("ended", "error", "has_begun", "job", "line", "needs", "number", "order", "outcome", "worker")

    def __init__(self, job: Job, line: Line, number: int, order: bytes, needs: tuple[tuple[int, bytes], ...]) -> None:
        self.job, self.line = job, line
        self.number, self.order, self.needs = number, order, needs
        self.ended = anyio.Event()
        self.worker: Worker | None = None
        self.outcome: Outcome | None = None
        self.error: Exception | None = None
        self.has_begun = False

    def begin(self) -> None:
        """Say that its code begins, once."""
        if not self.has_begun:
            self.has_begun = True
            self.line.started()

    def end(self, outcome: Outcome | None, error: Exception | None = None) -> None:
        """Say how it went, or that it could not be done."""
        self.outcome, self.error, self.worker = outcome, error, None
        self.ended.set()


class Worker:
    """A worker process, and the jobs that it has: the first is what it is at, the others wait there.

    A token lies in its pipe for each job that it has not begun.
    """

    def __init__(
        self,
        number: int,
        loop: Loop,
        hear: Callable[[Worker, int, int, bytes], object],
        mark: bytes,
        echo: Callable[[str], object] | None,
    ) -> None:
        self.number = number
        self.pid = 0
        self.calls: deque[Call] = deque()
        self.is_ready = False
        self.is_doomed = False  # it is about to end, and gets nothing more
        self.is_told = False  # to end, by us
        self.why = ""  # it was killed, unless it was told to end
        self.dead = anyio.Event()
        self._loop, self._heard = loop, hear
        self._cut = Cut()
        self._known: OrderedDict[int, None] = OrderedDict()
        self.path: list[str] = []  # of the program, as it was told last
        self._dropped = 0
        self._out = bytearray()  # what the channel had no room for
        self._due = b""  # tokens of jobs among that
        self._is_open = True
        self._channel, self._there = socket.socketpair()
        self._channel.settimeout(0)
        self._tokens, self._into = os.pipe()
        self._output, self._printing = os.pipe()
        for end in (self._tokens, self._into, self._output):
            os.set_blocking(end, False)
        self.printed = Printed(self._output, mark, echo)
        self._unroom: Callable[[], object] | None = None
        self._unwatch = loop.reading(self._channel.fileno(), self.read)
        self._unwatch_output: Callable[[], object] | None = None
        self._prints = True  # until its end of the pipe is closed everywhere

    @property
    def files(self) -> list[int]:
        """What the process itself gets."""
        return [self._there.fileno(), self._tokens, self._printing]

    def leave_files(self) -> None:
        """Close what the process has got by now."""
        if self._printing >= 0:
            self._there.close()
            os.close(self._printing)
            self._printing = -1

    # ---------------------------------------------------------------- giving and taking back

    def greet(self, hello: Hello) -> None:
        """Say how to be as the program is."""
        self.path = hello.path
        self._send(frame(HELLO, 0, pickle.dumps(hello)), b"")

    def give(self, call: Call) -> None:
        """Send a job; it is the worker's once that reads the token."""
        said = b"".join(frame(DEFINE, number, body) for number, body in call.needs if self._learns(number))
        call.worker = self
        self.calls.append(call)
        self._send(said + frame(JOB, call.number, call.order), bytes((self._dropped & 0xFF,)))

    def take_back(self) -> Call | None:
        """Take back the job that was given last, unless the worker has begun it already."""
        if not self.calls:
            return None
        if self._due:
            self._due = self._due[:-1]
        elif not self._token():
            return None
        call = self.calls.pop()
        call.worker = None
        self._dropped += 1
        self._send(frame(DROP, call.number), b"")
        return call

    def unbegun(self) -> list[Call]:
        """Take back all that the worker has not begun, in order."""
        calls: list[Call] = []
        while (call := self.take_back()) is not None:
            calls.insert(0, call)
        return calls

    def _token(self) -> bool:
        try:
            return bool(os.read(self._tokens, 1))
        except OSError:
            return False

    def _learns(self, number: int) -> bool:
        if not number or number in self._known:
            return False
        self._known[number] = None
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        return True

    # ---------------------------------------------------------------- the channel

    def _send(self, said: bytes, token: bytes) -> None:
        if not self._is_open:
            self._due += token
            return
        if not self._out:
            try:
                sent = self._channel.send(said)
            except BlockingIOError:
                sent = 0
            except OSError:  # it is dead, which is heard in a moment; what was given is taken back then
                self._due += token
                return
            if sent == len(said):
                if token:
                    os.write(self._into, token)
                return
            said = said[sent:]
            self._unroom = self._loop.writing(self._channel.fileno(), self._go_on)
        self._out += said
        self._due += token

    def _go_on(self) -> None:
        try:
            del self._out[: self._channel.send(self._out)]
        except BlockingIOError:
            return
        except OSError:
            self._out.clear()
            self._no_more_room()
            return
        if not self._out:
            self._no_more_room()
            if self._due:
                os.write(self._into, self._due)
                self._due = b""

    def _no_more_room(self) -> None:
        if self._unroom is not None:
            self._unroom()
            self._unroom = None

    def read(self) -> None:
        """Take in what it says."""
        try:
            data = self._channel.recv(READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._deafen()
            self._heard(self, HUNG_UP, 0, b"")
        for kind, number, body in self._cut.cut(data):
            self._heard(self, kind, number, body)

    def drain(self) -> None:
        """Take in all that it has said before it died."""
        while self._is_open:
            before = self._channel
            try:
                data = before.recv(READ)
            except OSError:
                return
            if not data:
                return
            for kind, number, body in self._cut.cut(data):
                self._heard(self, kind, number, body)

    def _read_output(self) -> None:
        if not self.printed.read():
            self._prints = False
            self.look_away()

    def watch_output(self) -> None:
        """Take in what it prints as it comes; else what a job has printed is read when it has ended."""
        if self._unwatch_output is None and self._prints:
            self._unwatch_output = self._loop.reading(self._output, self._read_output)

    def look_away(self) -> None:
        """Watch its output no longer: a job has begun, which may end before anybody could look."""
        if self._unwatch_output is not None:
            self._unwatch_output()
            self._unwatch_output = None

    def _deafen(self) -> None:
        if self._is_open:
            self._is_open = False
            self._unwatch()
            self._no_more_room()

    def dismiss(self) -> None:
        """Let it end by itself, now that it has nothing to do."""
        self.is_doomed = True
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close what is open here; the process is dead."""
        self._deafen()
        self.look_away()
        self.leave_files()
        self._channel.close()
        for end in (self._tokens, self._into, self._output):
            os.close(end)
        self.dead.set()
