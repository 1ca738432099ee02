"""A worker process: does one job after the other, and says how each went."""

from __future__ import annotations

import faulthandler
import logging
import os
import pickle
import select
import signal
import socket
import struct
import sys
import threading
import traceback as tracebacks
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from typing import Any

import msgspec

from dpcore import Job, Outcome, Ref, State, WorkerInfo, perform, perform_async
from dpcore.functions import Function
from dpcore_plugins.executors.multiprocess.line import JobLine
from dpcore_plugins.executors.multiprocess.logs import give_back, take_over
from dpcore_plugins.executors.multiprocess.orders import Order, Orders
from dpcore_plugins.executors.multiprocess.output import Output
from dpcore_plugins.executors.multiprocess.script import Script
from dpcore_plugins.executors.multiprocess.wire import (
    DEFINE,
    DONE,
    DROP,
    FORGET,
    HELLO,
    JOB,
    LOG,
    MESSAGE,
    OUTCOME,
    PUBLISHED,
    READ,
    READY,
    TOKEN,
    Cut,
    frame,
)

__all__ = ("Hello", "done", "work")

_log = logging.getLogger("dpcore.executors.multiprocess")
_done = struct.Struct("!d")


class Hello(msgspec.Struct):
    """How a worker is to be as the program is; all of it is there before any code of the user's runs."""

    path: list[str]
    arguments: list[str]
    folder: str
    mark: bytes
    level: int
    script: str | None = None
    name: str | None = None  # of the script, where it was started as a module
    environment: dict[str, str] = {}
    number: int = 0
    plugins: bytes = b""  # where one of them wants to know of workers


def work(files: list[int]) -> int:
    """Do jobs until the program wants no more, and return the exit code."""
    try:
        return _work(files)
    except BaseException:  # noqa: BLE001  (the end of a process; nobody else is there to see it)
        tracebacks.print_exc()
        return 1


def _work(files: list[int]) -> int:
    channel = socket.socket(fileno=files[0])
    channel.settimeout(None)
    output = Output(files[2])
    output.restore()
    faulthandler.enable(2)
    worker = _Worker(channel, files[1], output)
    signal.signal(signal.SIGTERM, worker.stop)
    _part_from_forks(worker)
    try:
        worker.serve()
    except (_Stopped, BrokenPipeError, ConnectionResetError):
        pass  # the program has gone, or wants no more of this worker
    finally:
        with suppress(Exception):
            if not worker.is_forked:
                worker.close()
    if worker.is_told:
        # The program knows whether it was it that told; if somebody else did, this is how it learns of it.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    return 0


class _Stopped(BaseException):
    """Raised in the body of a task that is to end, and wherever the program has gone."""


class _Worker:
    def __init__(self, channel: socket.socket, tokens: int, output: Output) -> None:
        self.channel, self._tokens, self._output = channel, tokens, output
        self._saying = threading.RLock()  # a thread of a task may log, and a signal or a finalizer come in between
        self._unsaid: deque[bytes] = deque()
        self._is_saying = False
        self._is_dumb = False  # half a frame was sent: nothing that follows could be understood
        self._heard = threading.Condition()
        self._is_listening = False
        self._cut = Cut()
        self._jobs: deque[tuple[int, bytes]] = deque()
        self._dropped = 0
        self._orders = Orders()
        self._hello: Hello | None = None
        self._line: JobLine | None = None  # of the job that it is at
        self._info: WorkerInfo | None = None
        self.is_stopping = False
        self.is_told = False  # to stop, by a SIGTERM
        self.is_forked = False  # this is no worker, but a process that a job has forked
        self._loops: Any = None
        self._cancel: Any = None  # what cancels the coroutine that runs
        self._ready = select.poll()
        for file in (channel.fileno(), tokens):
            self._ready.register(file, select.POLLIN)

    # ---------------------------------------------------------------- being told

    def serve(self) -> None:
        while True:
            number, body = self._next()
            self._output.restore()
            said = self._do(number, self._orders.read(body))
            if self.is_stopping or self.is_forked:  # it came back from what is no body: a module that was imported
                return
            assert self._hello is not None
            self._output.end(self._hello.mark)
            self.say(said)

    def _next(self) -> tuple[int, bytes]:
        """Wait for a job, and take it: it is ours once its token is."""
        while True:
            if not self._jobs:
                self.wait_for(self._has_job)
            try:
                token = os.read(self._tokens, TOKEN.size)
            except BlockingIOError:  # the program has taken it back, and says so
                self._ready.poll()
                self.read()
                continue
            if not token:
                raise _Stopped
            (dropped,) = TOKEN.unpack(token)
            if dropped > self._dropped:  # what was said before it was written must have been heard
                self.wait_for(partial(self._has_heard, dropped))
            self.wait_for(self._has_job)  # what was here may be among what was taken back
            return self._jobs.popleft()

    def _has_job(self) -> bool:
        return bool(self._jobs)

    def _has_heard(self, dropped: int) -> bool:
        return self._dropped >= dropped

    def wait_for(self, is_there: Callable[[], object]) -> None:
        """Take in what comes until that is so; one thread listens, and the others look each time what it has heard."""
        self._check_process()
        while not is_there():
            with self._heard:
                while self._is_listening and not is_there():
                    self._heard.wait()
                if is_there():
                    return
                self._is_listening = True
            self._listen()

    def read(self) -> None:
        """Take in what is there, unless another thread does."""
        self._check_process()
        with self._heard:
            if self._is_listening:
                return
            self._is_listening = True
        with suppress(BlockingIOError):
            self._listen(socket.MSG_DONTWAIT)

    def _listen(self, flags: int = 0) -> None:
        try:
            self._take_in(self.channel.recv(READ, flags))
        finally:
            with self._heard:
                self._is_listening = False
                self._heard.notify_all()

    def _take_in(self, data: bytes) -> None:
        if not data:
            self.is_stopping = True
            raise _Stopped
        for kind, number, body in self._cut.cut(data):
            if kind == JOB:
                self._jobs.append((number, body))
            elif kind == DEFINE:
                self._orders.define(number, body)
            elif kind == FORGET:
                self._orders.forget(number)
            elif kind == DROP:
                self._dropped += 1
                self._drop(number)
            elif kind == HELLO:
                self._begin(pickle.loads(body))
            elif kind == MESSAGE and self._line is not None:
                self._line.tell(number, body)
            elif kind == PUBLISHED and self._line is not None:
                self._line.answer(number, body)

    def _drop(self, number: int) -> None:
        for at, (one, _) in enumerate(self._jobs):
            if one == number:
                del self._jobs[at]
                return

    def say(self, said: bytes) -> None:
        """Send a frame, whole or not at all: where an exception comes in between, nothing more is said.

        What a signal's own code, or a finalizer, says in the middle of another frame is sent after that.
        """
        self._check_process()
        with self._saying:
            self._unsaid.append(said)
            if self._is_saying or self._is_dumb:
                return
            self._is_saying = True
            try:
                while self._unsaid:
                    self.channel.sendall(self._unsaid.popleft())
            except BaseException:
                self._is_dumb = True
                raise
            finally:
                self._is_saying = False

    def _check_process(self) -> None:
        if self.is_forked:
            raise RuntimeError("this process was forked by a job, and cannot speak to the program in its place")

    def leave(self) -> None:
        """Be a worker no more, in a process that was forked: its channel and its tokens are its parent's."""
        self.is_forked = True
        self.channel.close()
        with suppress(OSError):  # the body has closed it
            os.close(self._tokens)
        give_back(sys.stderr)

    def _begin(self, hello: Hello) -> None:
        if self._hello is None:
            os.environ.update(hello.environment)
            with suppress(OSError):  # the program's folder is gone; what needs one says so
                os.chdir(hello.folder)
            take_over(hello.level, lambda said: self.say(frame(LOG, 0, said)))
        sys.path[:], sys.argv[:] = hello.path, hello.arguments
        if hello.script is not None and self._hello is None:
            sys.modules["__main__"] = Script(hello.script, hello.name)
        if self._hello is None:
            if hello.plugins:
                self._tell_plugins_first(hello)
            self.say(frame(READY, os.getpid()))
        self._hello = hello

    def _tell_plugins_first(self, hello: Hello) -> None:
        try:
            plugins = pickle.loads(hello.plugins)
        except Exception:  # noqa: BLE001  (whatever the class of a plugin that is an object raises)
            _log.exception("the plugins of the program cannot be loaded in a worker process, and are not told of it")
            return
        self._info = WorkerInfo(executor="multiprocess", number=hello.number, pid=os.getpid(), plugins=plugins)
        try:
            plugins.live("dpcore_worker_started", self._info)
        except (SystemExit, KeyboardInterrupt):
            _log.exception("a plugin that is told that a worker process has started cannot end it")

    # ---------------------------------------------------------------- doing

    def _do(self, number: int, order: Order) -> bytes:
        try:
            job = self._orders.job(order)
        except BaseException as error:  # noqa: BLE001  (whatever the user's module raises when it is imported)
            return _told(number, order, _failed(order, error))
        line = self._line = JobLine(self, number, job)
        try:
            outcome = self._perform(job, line, order)
        finally:
            self._line = None
            line.end()
        if outcome.state is State.SUCCEEDED and not outcome.events and outcome.result == job.ref:
            where = outcome.where.encode("utf-8", "surrogatepass")
            return frame(DONE, number, _done.pack(outcome.duration) + where)
        return _told(number, order, outcome)

    def _perform(self, job: Job, line: JobLine, order: Order) -> Outcome:
        if not job.is_async:
            return _fresh().run(perform, job, line)
        if order.on_trio:
            return _fresh().run(self._on_trio, job, line)
        return self._on_asyncio(job, line, order)

    def _on_asyncio(self, job: Job, line: JobLine, order: Order) -> Outcome:
        import asyncio

        if self._loops is None:
            self._loops = asyncio.Runner()
        loop = self._loops.get_loop()
        task = loop.create_task(perform_async(job, line), context=_fresh())
        self._cancel = lambda: loop.call_soon_threadsafe(task.cancel)
        try:
            outcome: Outcome = loop.run_until_complete(task)
        except asyncio.CancelledError as error:
            if self.is_stopping:
                raise _Stopped from None
            return _failed(order, error)  # the body has awaited what was cancelled
        finally:
            self._cancel = None
            if left := asyncio.all_tasks(loop):  # what the body has begun and not awaited
                for one in left:
                    one.cancel()
                loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        return outcome

    def _on_trio(self, job: Job, line: JobLine) -> Outcome:
        import trio

        async def main() -> Outcome:
            token = trio.lowlevel.current_trio_token()
            with trio.CancelScope() as scope:
                self._cancel = lambda: token.run_sync_soon(scope.cancel)
                return await perform_async(job, line)
            raise _Stopped

        try:
            return trio.run(main)
        finally:
            self._cancel = None

    # ---------------------------------------------------------------- ending

    def stop(self, *_: object) -> None:
        """End the job that runs, which may clean up, and then this process: what SIGTERM means here."""
        if self.is_stopping:
            return
        self.is_stopping = self.is_told = True
        if self._cancel is not None:
            self._cancel()
        else:
            raise _Stopped

    def close(self) -> None:
        """Do what a program does at its end."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if self._info is not None:
            self._info.plugins.live("dpcore_worker_stopping", self._info)
        if self._loops is not None:
            self._loops.close()
        import atexit

        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()


def _part_from_forks(worker: _Worker) -> None:
    """Have what jobs fork be as if no worker had forked it; a SIGTERM that comes meanwhile waits until it is."""
    before = threading.local()

    def hold() -> None:
        before.mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))

    def go_on() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before.mask)

    def part() -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        worker.leave()
        go_on()

    os.register_at_fork(before=hold, after_in_parent=go_on, after_in_child=part)


def done(body: bytes) -> tuple[float, str]:
    """Return the seconds that a job took that has succeeded, and where its value is."""
    return _done.unpack_from(body)[0], body[_done.size :].decode("utf-8", "surrogatepass")


def _told(number: int, order: Order, outcome: Outcome) -> bytes:
    try:
        return frame(OUTCOME, number, pickle.dumps(outcome))
    except Exception as error:  # noqa: BLE001  (an event that the body has published may hold anything)
        return frame(OUTCOME, number, pickle.dumps(_failed(order, error)))


def _failed(order: Order, error: BaseException) -> Outcome:
    """Return the outcome of a job whose body is that *error*."""

    def fail() -> None:
        raise error

    return perform(
        Job(run_id=order.run_id, task=order.task, function=Function(fail), io=_Nothing(), attempt=order.attempt)
    )


class _Nothing:
    """What a job that fails has to do with I/O."""

    def save(self, ref: Ref, value: object) -> str:
        raise NotImplementedError

    def load(self, ref: Ref) -> Any:
        raise NotImplementedError


def _fresh() -> Context:
    return copy_context()
