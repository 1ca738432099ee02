"""The program's end of one worker: what it was given, and what it says."""

from __future__ import annotations

import fcntl
import logging
import os
import pickle
import socket
import sys
import termios
from array import array
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from contextvars import Context
from weakref import KeyedRef

import anyio
import anyio.to_thread

from dpcore import Job, Line, Outcome
from dpcore.jobs import described
from dpcore_plugins.executors.multiprocess.line import packed, unpacked
from dpcore_plugins.executors.multiprocess.loops import Loop
from dpcore_plugins.executors.multiprocess.orders import Thing
from dpcore_plugins.executors.multiprocess.printed import Printed
from dpcore_plugins.executors.multiprocess.wire import (
    DEFINE,
    DROP,
    FORGET,
    HELLO,
    HUNG_UP,
    JOB,
    MESSAGE,
    PUBLISHED,
    READ,
    TOKEN,
    Cut,
    frame,
)
from dpcore_plugins.executors.multiprocess.working import Hello

__all__ = ("Call", "Worker")

_log = logging.getLogger("dpcore.executors.multiprocess")


class Call:
    """A job that was given to the executor, and who waits for it."""

    __slots__ = (
        "_loop",
        "asked",
        "error",
        "has_begun",
        "is_over",
        "job",
        "line",
        "needs",
        "number",
        "order",
        "outcome",
        "publishing",
        "talk",
        "turn",
        "worker",
    )

    def __init__(self, job: Job, line: Line, number: int, order: bytes, needs: tuple[Thing, ...], loop: Loop) -> None:
        self.job, self.line, self._loop = job, line, loop
        self.number, self.order, self.needs = number, order, needs
        self.turn = loop.turn()  # it is over, or asks for something
        self.is_over = False
        self.worker: Worker | None = None
        self.outcome: Outcome | None = None
        self.error: Exception | None = None
        self.has_begun = False
        self.talk: Context | None = None  # in which its line hears what a job that talks says
        self.asked: list[bytes] = []  # to be published
        self.publishing: anyio.CancelScope | None = None

    def begin(self) -> None:
        """Say that its code begins, once."""
        if not self.has_begun:
            self.has_begun = True
            self.line.started()

    def end(self, outcome: Outcome | None, error: Exception | None = None) -> None:
        """Say how it went, or that it could not be done."""
        self.outcome, self.error, self.worker = outcome, error, None
        self.is_over = True
        if self.publishing is not None:  # the job that wanted to hear of it is dead
            self.publishing.cancel()
        self.turn.set()

    async def ended(self) -> None:
        """Wait for its end; publish meanwhile what it wants to have published at once."""
        while True:
            await self.turn.wait()
            asked, self.asked = self.asked, []
            for one in asked:
                await self._publish(one)
            if self.is_over and not self.asked:
                return
            self.turn = self._loop.turn()
            if self.is_over or self.asked:
                self.turn.set()

    def ask(self, body: bytes) -> None:
        """Have something published, in the context of who waits for the job."""
        self.asked.append(body)
        self.turn.set()

    async def _publish(self, body: bytes) -> None:
        answer: Exception | None = None
        question = 0
        try:
            question, event = pickle.loads(body)
            if not question:
                self.line.publish(event)
                return
            if self.is_over:  # its worker is dead
                return
            # In a thread the line waits for the broker, and raises what it raises.
            with anyio.CancelScope() as self.publishing:
                await anyio.to_thread.run_sync(self.line.publish, event, abandon_on_cancel=True)
        except Exception as error:  # noqa: BLE001  (whatever a broker raises is the task's to handle)
            answer = error
            if not question:
                _log.warning("what job %s wanted to publish was not", self.job, exc_info=True)
        finally:
            self.publishing = None
        if self.worker is not None:
            self.worker.tell(frame(PUBLISHED, self.number, _answer(question, answer)))

    async def pass_on(self) -> None:
        """Pass on what the runner says to a job that talks."""
        while True:
            message = await self.line.receive()
            if self.worker is not None:
                self.worker.tell(frame(MESSAGE, self.number, packed(message)))

    def hear(self, body: bytes) -> None:
        """Pass on what the job says."""
        if self.talk is not None:
            self.talk.run(self.line.send, unpacked(body))


def _answer(question: int, error: Exception | None) -> bytes:
    try:
        said = pickle.dumps((question, error))
        pickle.loads(said)
    except Exception:  # noqa: BLE001  (whatever an exception's own pickling raises)
        said = pickle.dumps((question, RuntimeError(error and described(error))))
    return said


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
        self.pid = 0  # not known before it is ready
        self.calls: deque[Call] = deque()
        self.left = sys.maxsize  # how many jobs it may still be given
        self.is_ready = False
        self.is_doomed = False  # it is about to end, and gets nothing more
        self.is_told = False  # to end, by us
        self.why = ""  # it was killed, unless it was told to end
        self.awaited: object = None  # of it, when it was looked at last,
        self.looks = 0  # and how often in a row
        self.dead = anyio.Event()
        self._loop, self._heard = loop, hear
        self._cut = Cut()
        self._known: dict[int, KeyedRef[int, Thing]] = {}  # what it was sent and has not forgotten
        self._unneeded: deque[KeyedRef[int, Thing]] = deque()  # what of that nobody here holds any more
        self.path: list[str] = []  # of the program, as it was told last
        self._dropped = 0
        self._out = bytearray()  # what the channel had no room for
        self._due = b""  # tokens of jobs among that
        self._is_open = True
        with ExitStack() as opened:
            self._channel, self._there = (opened.enter_context(end) for end in socket.socketpair())
            self._tokens, self._into = _pipe(opened)
            self._output, self._printing = _pipe(opened)
            opened.pop_all()
        self._channel.settimeout(0)
        for end in (self._tokens, self._into, self._output):
            os.set_blocking(end, False)
        self.printed = Printed(self._output, mark, echo)
        self._unroom: Callable[[], object] | None = None
        self._unwatch = loop.reading(self._channel.fileno(), self.read)
        self._unwatch_output: Callable[[], object] | None = None
        self._prints = True  # until its end of the pipe is closed everywhere

    @property
    def takes_more(self) -> bool:
        """Whether a job may be sent ahead: not behind one that talks, which may take long and wait for others."""
        if not self.is_ready or self.is_doomed or not self.left:
            return False
        return not self.calls or self.calls[-1].talk is None

    @property
    def has_taken(self) -> bool:
        """Whether it has taken its first job: then fewer tokens are left than it has jobs."""
        left = array("i", [0])
        fcntl.ioctl(self._tokens, termios.FIONREAD, left)
        return left[0] + len(self._due) < TOKEN.size * len(self.calls)

    @property
    def unsent(self) -> int:
        """How many bytes wait until it reads."""
        return len(self._out)

    @property
    def is_forked(self) -> bool:
        """Whether the process is known to be there."""
        return self._printing < 0

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
        said = b""
        while self._unneeded:  # no job here needs it, or that would hold it
            gone = self._unneeded.popleft().key
            del self._known[gone]
            said += frame(FORGET, gone)
        said += b"".join(frame(DEFINE, thing.number, thing.sent) for thing in call.needs if self._learns(thing))
        call.worker = self
        self.left -= 1
        self.calls.append(call)
        said += frame(JOB, call.number, call.order)
        self._send(said, TOKEN.pack(self._dropped), soon=len(self.calls) > 1)

    def take_back(self) -> Call | None:
        """Take back the job that was given last, unless the worker has begun it already."""
        if not self.calls:
            return None
        if self._due:
            self._due = self._due[: -TOKEN.size]
        elif not self._token():
            return None
        call = self.calls.pop()
        call.worker = None
        self.left += 1
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
            return bool(os.read(self._tokens, TOKEN.size))
        except OSError:
            return False

    def _learns(self, thing: Thing) -> bool:
        if not thing.number or thing.number in self._known:
            return False
        self._known[thing.number] = KeyedRef(thing, self._unneeded.append, thing.number)
        return True

    # ---------------------------------------------------------------- the channel

    def tell(self, said: bytes) -> None:
        """Send something that is no job."""
        self._send(said, b"")

    def _send(self, said: bytes, token: bytes, *, soon: bool = False) -> None:
        """Send it now, or soon, together with what else is sent by then."""
        if not self._is_open:
            self._due += token
            return
        if soon and not self._out:
            self._loop.soon(self._flush)
        elif not self._out:
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

    def _flush(self) -> None:
        if self._out and self._is_open and self._unroom is None:
            self._go_on()
            if self._out:
                self._unroom = self._loop.writing(self._channel.fileno(), self._go_on)

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
        self._take_in(data)

    def _take_in(self, data: bytes) -> None:
        """Hear frame by frame; a worker of which one cannot be heard is ended, since its others have no meaning then."""
        try:
            for kind, number, body in self._cut.cut(data):
                self._heard(self, kind, number, body)
        except Exception:  # noqa: BLE001  (whatever it is, what this worker is at would never end)
            with suppress(Exception):  # a filter of the program's may raise for this record, too
                _log.exception("what worker process %s says cannot be understood, so it is ended", self.pid)
            self.why = "said what cannot be understood, and was killed"
            self._deafen()
            self._heard(self, HUNG_UP, 0, b"")

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
            self._take_in(data)

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


def _pipe(opened: ExitStack) -> tuple[int, int]:
    ends = os.pipe()
    for end in ends:
        opened.callback(os.close, end)
    return ends
