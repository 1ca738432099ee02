"""The worker's side: do one job, and never raise.

:func:`perform` is plain and runs wherever an executor has a thread or a process;
:func:`perform_async` runs coroutine functions on the loop that is running.  Both
load the inputs, call the function, store the result, and say how it went.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback as tracebacks
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from datetime import datetime
from time import perf_counter
from types import coroutine
from typing import Any, NoReturn, cast

import anyio
import msgspec

from dpcore.errors import DpcoreError, NoCurrentJobError, UnsupportedError
from dpcore.events import CORRELATION_ID, Event, check_event
from dpcore.jobs import Items, Job, Outcome, Ref, State, Stream
from dpcore.ports import Line
from dpcore.talks import Talk, opened
from dpcore.topics import check_topic
from dpcore.tracebacks import cut, users_text
from dpcore.words import excerpt

__all__ = ("CurrentJob", "current_job", "perform", "perform_async")

_NOT_THE_USERS = frozenset({"dpcore", "dpcore_plugins", "cloudpickle", "anyio"})
_LONGEST_CHAIN = 100  # of causes; it may be a circle

InThread = Callable[..., Awaitable[Any]]


class CurrentJob:
    """What a task may know of the job that runs it; :func:`current_job` returns it."""

    __slots__ = ("_events", "_job", "_line", "_log")

    def __init__(self, job: Job, line: Line | None = None) -> None:
        self._job, self._line = job, line
        self._events: tuple[Event, ...] = ()
        self._log: logging.LoggerAdapter[logging.Logger] | None = None

    def __repr__(self) -> str:
        return f"<CurrentJob {self._job}>"

    @property
    def run_id(self) -> str:
        """The id of the run."""
        return self._job.run_id

    @property
    def task(self) -> str:
        """The name of the task."""
        return self._job.task

    @property
    def attempt(self) -> int:
        """Which attempt this is, counted from 1."""
        return self._job.attempt

    @property
    def index(self) -> int | None:
        """Which item of a mapped task this is, counted from 0; None elsewhere."""
        return self._job.index

    @property
    def params(self) -> Mapping[str, Any]:
        """The run parameters, as they were given."""
        return self._job.params

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What was handed to the run as ``metadata=``."""
        return self._job.metadata

    @property
    def nominal(self) -> datetime | None:
        """The time for which a schedule fired; None if the run was started otherwise."""
        return self._job.nominal

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """The logger ``dpcore.task.NAME``, which adds run id and attempt to each record."""
        if self._log is None:
            extra = {"run_id": self.run_id, "task": self.task, "attempt": self.attempt}
            self._log = logging.LoggerAdapter(logging.getLogger(f"dpcore.task.{self.task}"), extra)
        return self._log

    def publish(
        self,
        topic: str,
        data: Any = None,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        type: str = "",
        now: bool = False,
    ) -> None:
        """Publish *data* on *topic* when this attempt has succeeded; with *now*, at once.

        What a failed attempt wanted to publish is forgotten.  The ids come from run, task
        and place in the order of these calls, so that a task that runs again, because the
        program died before its end was recorded, publishes the same again.  A run that was
        started by an event passes its correlation id on.

        With *now*, a plain function waits until the broker has the event, and gets what
        it raises; in a coroutine function, which must not wait here, it is published soon, and
        before the run ends.  One job's are published in the order of these calls.
        """
        event = Event(check_topic(topic), data, key=key, headers=self._headers(headers), type=type)
        check_event(event)
        if not now:
            at = "" if self.index is None else f"/{self.index}"
            event_id = f"{self.run_id}/{self.task}{at}/{len(self._events)}"
            self._events = (*self._events, msgspec.structs.replace(event, id=event_id))
        elif self._line is None:
            raise UnsupportedError("this executor", "streams", "publish before the attempt has ended")
        else:
            self._line.publish(event)

    def _headers(self, headers: Mapping[str, str] | None) -> Mapping[str, str] | None:
        correlation = self.metadata.get("correlation_id")
        if not isinstance(correlation, str):
            return headers
        return {CORRELATION_ID: correlation, **(headers or {})}


_current: ContextVar[CurrentJob] = ContextVar("dpcore_current_job")


def current_job() -> CurrentJob:
    """Return what is known of the job that runs this code, in any process.

    Raises :class:`~dpcore.errors.NoCurrentJobError` outside a task.
    """
    try:
        return _current.get()
    except LookupError:
        raise NoCurrentJobError from None


def perform(job: Job, line: Line | None = None) -> Outcome:
    """Do *job* here and now, and say how it went; whatever the body raises is an outcome.

    A job that is async gets an event loop of its own (asyncio).  What the body forks
    never comes back from here: it ends as a program would that had run the body.
    """
    if job.is_async:
        return anyio.run(perform_async, job, line)
    if line is not None:
        line.started()
    store = _Store(job, line)
    view = CurrentJob(job, line)
    current = _current.set(view)
    began = perf_counter()
    try:
        if job.inputs or job.arguments:
            positional, named = _arguments(job, store.talk)
            value = job.function.call(*positional, **named)
        else:
            value = job.function.call()
        if hasattr(type(value), "__await__"):
            raise _misses_async(job, value)
        result = store.all(value) if job.streams else store.one(value)
    except BaseException as error:  # noqa: BLE001  (SystemExit and the like fail the attempt, not the worker)
        store.check_process(error)
        return _failed(job, error, began, store.stored)
    finally:
        _current.reset(current)
    return _succeeded(job, result, began, store.where, view._events)


async def perform_async(job: Job, line: Line | None = None, *, in_thread: InThread | None = None) -> Outcome:
    """Do *job* on the running event loop; a coroutine function is awaited on it.

    *in_thread*, such as :func:`anyio.to_thread.run_sync`, takes off the loop what
    would block it: a plain body, loading and storing.  Cancelling this call cancels
    a coroutine function and passes on.
    """
    if not job.is_async:
        return cast(Outcome, await in_thread(perform, job, line)) if in_thread is not None else perform(job, line)
    if line is not None:
        line.started()
    store = _Store(job, line)
    view = CurrentJob(job, line)
    current = _current.set(view)
    began = perf_counter()
    try:
        result = await _in_one_process(_result(job, store, in_thread), store)
    except BaseException as error:
        store.check_process(error)
        if _being_cancelled(error):
            raise
        return _failed(job, error, began, store.stored)
    finally:
        _current.reset(current)
    return _succeeded(job, result, began, store.where, view._events)


async def _result(job: Job, store: _Store, in_thread: InThread | None) -> Ref | Items:
    positional, named = await _in(in_thread, _arguments, job, store.talk)
    value = job.function.call(*positional, **named)
    if hasattr(type(value), "__await__"):
        value = await value
    store.check_process()
    if hasattr(type(value), "__aiter__"):
        return await _drained(store, value, in_thread)
    return cast(Ref | Items, await _in(in_thread, store.all if job.streams else store.one, value))


async def _in(in_thread: InThread | None, call: Callable[..., Any], *arguments: Any) -> Any:
    return call(*arguments) if in_thread is None else await in_thread(call, *arguments)


# ---------------------------------------------------------------- inputs


def _arguments(job: Job, talk: Talk | None) -> tuple[list[Any], dict[str, Any]]:
    named = dict(job.arguments)
    for parameter, source in job.inputs.items():
        named[parameter] = job.io.load(source) if type(source) is Ref else opened(job, cast(Stream, source), talk)
    positional = [named.pop(parameter) for parameter in job.positional if parameter in named]
    return positional, named


# ---------------------------------------------------------------- results


class _Store:
    """Stores what one job makes, and remembers what it has stored; nothing any more once the job was given up."""

    __slots__ = ("count", "job", "line", "process", "talk", "where")

    def __init__(self, job: Job, line: Line | None) -> None:
        self.process = os.getpid()
        self.job, self.line = job, line
        self.talk = Talk(job, line) if line is not None and job.talks else None
        self.count = 0
        self.where = ""

    @property
    def stored(self) -> Items | None:
        """The items that were stored so far; None if there are none."""
        return Items(self.job.run_id, self.job.task, self.count, self.job.attempt) if self.count else None

    def one(self, value: Any) -> Ref:
        """Store a value as it is; a generator that shall not be stored item by item, as a list."""
        if hasattr(type(value), "__next__") and isinstance(value, Generator):
            value = list(value)
        ref = self.job.ref
        self.save(ref, value)
        return ref

    def item(self, value: Any) -> None:
        """Store the next item of a stream under a ref of its own."""
        self.save(Ref(self.job.run_id, self.job.task, f"{self.job.attempt}-{self.count:08d}"), value)
        self.count += 1
        if self.talk is not None:
            self.talk.stored(self.count)

    def save(self, ref: Ref, value: Any) -> None:
        self.check_process()
        if self.line is not None and self.line.over:  # nobody would ever forget it
            raise RuntimeError(f"job {self.job} was given up, so what it makes is not stored")
        self.where = self.job.io.save(ref, value)

    def check_process(self, error: BaseException | None = None) -> None:
        """End this process if the body has forked it, as a program ends that comes to its end or to *error*."""
        if os.getpid() != self.process:
            _end(error)

    def all(self, value: Any) -> Items:
        """Store each item of an iterable."""
        if not isinstance(value, Iterable) or isinstance(value, str | bytes):
            raise TypeError(f"task {self.job.task!r} streams its output, but returned {value!r}, which has no items")
        try:
            for item in value:
                self.item(item)
                if self.talk is not None and not self.talk.wait_for_room(self.count):
                    break
            self.check_process()
        finally:  # what it holds is let go now, also when an item cannot be stored
            if (close := getattr(value, "close", None)) is not None and isinstance(value, Generator):
                close()
        return Items(self.job.run_id, self.job.task, self.count, self.job.attempt)


async def _drained(store: _Store, value: AsyncIterator[Any], in_thread: InThread | None) -> Ref | Items:
    """Store the items of an async iterator as they come; all in one value if the job does not stream."""
    kept: list[Any] = []
    try:
        async for item in value:
            store.check_process()
            if store.job.streams:
                await _in(in_thread, store.item, item)
                if store.talk is not None and not await store.talk.wait_for_room_async(store.count):
                    break
            else:
                kept.append(item)
        store.check_process()
    except BaseException as error:
        store.check_process(error)
        raise
    finally:
        if (close := getattr(value, "aclose", None)) is not None:
            with anyio.CancelScope(shield=True):
                await close()
    if store.job.streams:
        return Items(store.job.run_id, store.job.task, store.count, store.job.attempt)
    return cast(Ref, await _in(in_thread, store.one, kept))


# ---------------------------------------------------------------- what the body has forked


@coroutine
def _in_one_process(body: Coroutine[Any, Any, Ref | Items], store: _Store) -> Generator[Any, Any, Ref | Items]:
    """Await *body*, but not in a process that it forks: the loop is the parent's, and so is what else runs on it."""
    go_on: Callable[[Any], Any] = body.send
    given: Any = None
    while True:
        try:
            asked = go_on(given)
        except StopIteration as end:
            return cast(Ref | Items, end.value)
        finally:
            given = None  # an error holds its frames, and this one must not hold the error
        if os.getpid() != store.process:
            _end(RuntimeError("a process that a coroutine has forked cannot wait: the event loop is its parent's"))
        try:
            given = yield asked
            go_on = body.send
        except BaseException as error:  # noqa: BLE001  (cancellation too is for the body)
            go_on, given = body.throw, error


def _end(error: BaseException | None) -> NoReturn:
    code, said = 0, ""
    if isinstance(error, SystemExit):
        code, said = _exit_code(error.code)
    elif error is not None:
        code, said = 1, _users_traceback(error)
    try:
        if said and sys.stderr is not None:
            sys.stderr.write(said)
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # the body has closed it, or put something else there
                stream.flush()
    finally:
        os._exit(code)


def _exit_code(given: object) -> tuple[int, str]:
    if given is None or isinstance(given, int):
        return (given or 0) & 0xFF, ""
    return 1, f"{given}\n"


# ---------------------------------------------------------------- outcomes


class _Place(threading.local):
    """The name of the thread that asks, made up once for each; it costs as much as a small task."""

    def __init__(self) -> None:
        self.name = f"{os.getpid()}/{threading.current_thread().name}"


_here = _Place()


def _moved() -> None:
    global _here
    _here = _Place()


os.register_at_fork(after_in_child=_moved)


def _succeeded(job: Job, result: Ref | Items, began: float, where: str, events: tuple[Event, ...]) -> Outcome:
    return Outcome(
        state=State.SUCCEEDED,
        result=result,
        duration=perf_counter() - began,
        attempt=job.attempt,
        where=where,
        worker=_here.name,
        events=events,
    )


def _failed(job: Job, error: BaseException, began: float, stored: Items | None) -> Outcome:
    traceback = _users_traceback(error)
    cut(error)  # where a program raises it again, too
    return Outcome(
        state=State.FAILED,
        result=stored,
        error=error,
        traceback=traceback,
        duration=perf_counter() - began,
        attempt=job.attempt,
        worker=_here.name,
        task=job.task,
    )


def _users_traceback(error: BaseException) -> str:
    if isinstance(error, DpcoreError) and not _has_users_frame(error):
        return excerpt(
            "".join(tracebacks.format_exception_only(error))
        )  # what could not be stored, say: its sentence is all
    return users_text(error)


def _has_users_frame(error: BaseException) -> bool:
    """Tell whether *error*, or what caused it, was raised by or through code that is neither dpcore's nor Python's."""
    one: BaseException | None = error
    for _ in range(_LONGEST_CHAIN):
        if one is None:
            return False
        for frame, _ in tracebacks.walk_tb(one.__traceback__):
            package = str(frame.f_globals.get("__name__")).partition(".")[0]
            if package not in _NOT_THE_USERS and package not in sys.stdlib_module_names:
                return True
        one = one.__cause__
    return True


def _misses_async(job: Job, value: Any) -> UnsupportedError:
    if (close := getattr(value, "close", None)) is not None:
        close()
    return UnsupportedError(f"task {job.task!r}", "async def", "return an awaitable from a plain function")


def _being_cancelled(error: BaseException) -> bool:
    """Tell whether *error* is a cancellation that was asked for, and not one that the body made up."""
    if not isinstance(error, anyio.get_cancelled_exc_class()):
        return isinstance(error, KeyboardInterrupt)
    if anyio.current_effective_deadline() == float("-inf"):
        return True
    asyncio = sys.modules.get("asyncio")
    task = asyncio.current_task() if asyncio is not None and asyncio._get_running_loop() is not None else None
    return task is None or task.cancelling() > 0
