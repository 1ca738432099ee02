"""Jobs: one attempt at one task, how it went, and where its result lives.

Pure values.  A :class:`Job` holds all that a worker needs, a :class:`Outcome` all
that the platform needs to know afterwards; both pickle, so an executor may send
them wherever it likes.
"""

from __future__ import annotations

import pickle
import re
import traceback as tracebacks
from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, Protocol

import msgspec

from dpcore.errors import InvalidIdError, TaskError
from dpcore.functions import Function, qualified
from dpcore.words import LONGEST_TEXT, excerpt

__all__ = (
    "Enough",
    "Items",
    "Job",
    "Left",
    "Message",
    "Outcome",
    "Reading",
    "Ref",
    "Results",
    "Room",
    "State",
    "Stored",
    "Stream",
    "There",
    "check_id",
    "described",
    "message",
    "writable",
)


class State(StrEnum):
    """How far a run or a task is."""

    PENDING = "pending"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing follows this state any more.

        >>> State.TIMED_OUT.ended, State.RETRYING.ended
        (True, False)
        """
        return self not in _UNFINISHED


_UNFINISHED = frozenset({State.PENDING, State.RUNNING, State.RETRYING})


# ---------------------------------------------------------------- where a result lives

# An id becomes part of a path and of a key: word characters of any script, and . - between them.
# No separator, no leading dot, no blank and no control character, on any system.
_ID = re.compile(r"\w[\w\-]*(?:\.[\w\-]+)*\Z")
_LONGEST_ID = 200  # bytes; a character has four at the most


def check_id(value: object, kind: str) -> str:
    """Return *value* if it may become part of a path; otherwise say why not.

    >>> check_id("2026-11-22.first", "run id")
    '2026-11-22.first'
    >>> check_id("../x", "run id")
    Traceback (most recent call last):
    ...
    dpcore.errors.InvalidIdError: '../x' cannot be a run id: it must begin with a letter, digit or _ and hold only these, - and single dots between
    """
    if not isinstance(value, str):
        raise InvalidIdError(kind, value, f"it is of type {type(value).__name__}, not str")
    is_sound = _ID.match(value)
    if is_sound and len(value) <= _LONGEST_ID // 4:
        return value
    if not value:
        raise InvalidIdError(kind, value, "it is empty")
    if len(value.encode("utf-8", "surrogatepass")) > _LONGEST_ID:
        raise InvalidIdError(kind, value, f"it is longer than {_LONGEST_ID} bytes")
    if not is_sound:
        raise InvalidIdError(
            kind, value, "it must begin with a letter, digit or _ and hold only these, - and single dots between"
        )
    return value


class Ref(msgspec.Struct, frozen=True, order=True):
    """Where a result lives: run id, task name, result id.

    Result ids that the runner makes are ``{attempt}`` for a value and
    ``{attempt}-{index:08d}`` for an item of a stream.

    >>> str(Ref("r1", "total", "1"))
    'r1/total/1'
    """

    run_id: str
    task: str
    result_id: str

    def __str__(self) -> str:
        return f"{self.run_id}/{self.task}/{self.result_id}"

    def check(self) -> Ref:
        """Return this ref if each of its ids may become part of a path (:func:`check_id`)."""
        check_id(self.run_id, "run id")
        check_id(self.task, "task name")
        check_id(self.result_id, "result id")
        return self


class Items(msgspec.Struct, frozen=True):
    """The refs of a stream's items, in order, without holding one object an item.

    Item *i* was stored by *attempt*, or by ``attempts[i]`` where that differs;
    the items in *missing* failed and are left out.

    >>> items = Items("r1", "days", count=3, attempts={1: 2}, missing=frozenset({2}))
    >>> len(items), [str(ref) for ref in items]
    (2, ['r1/days/1-00000000', 'r1/days/2-00000001'])
    """

    run_id: str
    task: str
    count: int
    attempt: int = 1
    attempts: dict[int, int] = {}
    missing: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return self.count - len(self.missing)

    def __iter__(self) -> Iterator[Ref]:
        return (self.at(index) for index in range(self.count) if index not in self.missing)

    def at(self, index: int) -> Ref:
        """Return the ref of item *index*, counted in the producer's order from 0."""
        return Ref(self.run_id, self.task, f"{self.attempts.get(index, self.attempt)}-{index:08d}")


class Stream(msgspec.Struct, frozen=True):
    """The items of a stream as an input: *how* the parameter wants them.

    Of a *live* one, which its producer is still making, *items* say only whose they
    are: the line tells how many there are (:class:`There`).
    """

    items: Items
    how: Literal["list", "iterator", "async"] = "list"
    live: bool = False


# ---------------------------------------------------------------- what goes over the line of a running job


class Stored(msgspec.Struct, frozen=True, tag=True):
    """Said by a job that streams: its items before *count* are stored."""

    count: int


class Reading(msgspec.Struct, frozen=True, tag=True):
    """Said by a job that reads the stream of *task* live: it has read the items before *index*.

    If it *waits*, it goes on only when it is told that there is item *index*, or that
    there is none.
    """

    task: str
    index: int
    waits: bool = False


class Left(msgspec.Struct, frozen=True, tag=True):
    """Said by a job that was reading the stream of *task* live, and reads no more of it."""

    task: str


class Room(msgspec.Struct, frozen=True, tag=True):
    """Said to a job that streams: it may store its items before *count*, and waits before it makes further ones."""

    count: int


class Enough(msgspec.Struct, frozen=True, tag=True):
    """Said to a job that streams: nobody wants further items, so it ends here, and well."""


class There(msgspec.Struct, frozen=True, tag=True):
    """Said to a job that reads the stream of *task* live: the items before *count* can be loaded.

    If it has *ended*, there are no others.
    """

    task: str
    count: int
    ended: bool = False


Message = Stored | Reading | Left | Room | Enough | There
"""Each pickles, and packs with msgspec: a few bytes."""


class Results(Protocol):
    """What a job does with an I/O manager."""

    def save(self, ref: Ref, value: object) -> str:
        """Store *value* under *ref*; return where."""

    def load(self, ref: Ref) -> Any:
        """Return the value stored under *ref*."""


# ---------------------------------------------------------------- a job, and how it went


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at one task, or at one item of a mapped task, as sent to an executor.

    *inputs* are loaded from *io* by the worker, *arguments* are values as they are;
    both are keyed by parameter.  Names in *positional* are passed by position.
    A job that *streams* stores each item of its output under a ref of its own; where
    *room* is a number it says so, item by item, and at first may store that many.
    One that *is_async* is a coroutine function, or reads a stream with ``async for``:
    it runs on an event loop.
    """

    run_id: str
    task: str
    function: Function
    io: Results
    attempt: int = 1
    index: int | None = None
    inputs: dict[str, Ref | Stream] = {}
    arguments: dict[str, Any] = {}
    positional: tuple[str, ...] = ()
    streams: bool = False
    room: int | None = None
    is_async: bool = False
    timeout: float | None = None
    params: Mapping[str, Any] = {}
    metadata: Mapping[str, Any] = {}
    nominal: datetime | None = None

    @property
    def ref(self) -> Ref:
        """Where the value of this job is stored."""
        item = "" if self.index is None else f"-{self.index:08d}"
        return Ref(self.run_id, self.task, f"{self.attempt}{item}")

    @property
    def talks(self) -> bool:
        """Whether it reads or feeds a live stream, and so needs a line."""
        if self.room is not None:
            return True
        for source in self.inputs.values():  # noqa: SIM110  (asked of every job, and any() costs more)
            if type(source) is Stream and source.live:
                return True
        return False

    def __str__(self) -> str:
        item = "" if self.index is None else f"[{self.index}]"
        return f"{self.task}{item}, attempt {self.attempt} of run {self.run_id}"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a job went; of a task, how its last attempt did.

    *result* is where the value lives (a :class:`Ref`, or the :class:`Items` of a
    stream), *duration* is in seconds.  *error* is what the body raised: the
    original where it pickles, otherwise a :class:`~dpcore.errors.TaskError`; its
    *traceback* is a text, with at most 65,536 characters.  *still_running* says that the code could not be stopped.
    *failed_items* are the indexes and errors of the items that a fail-safe mapped
    task left out.  *reason* says why a task was skipped or cancelled.  *events* are what
    the body has published, which is sent when the attempt has succeeded.  *output* is the end of what the job has
    printed and logged, where it runs in a process of its own.
    """

    state: State
    result: Ref | Items | None = None
    error: BaseException | None = None
    traceback: str = ""
    duration: float = 0.0
    attempt: int = 1
    where: str = ""
    worker: str = ""
    still_running: bool = False
    reason: str = ""
    failed_items: tuple[tuple[int, BaseException], ...] = ()
    task: str = ""
    events: tuple[Any, ...] = ()
    output: str = ""

    def __reduce__(self) -> tuple[object, ...]:
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        error = fields.pop("error")
        failed = fields.pop("failed_items")
        text = fields["traceback"]
        return (
            _outcome,
            (fields, error and _packed(error, text), tuple((index, _packed(e, _text(e))) for index, e in failed)),
        )


# An exception travels with what stands for it if it cannot be made again over there.
_Packed = tuple[bytes | None, str, str, str, tuple[str, ...]]


def _packed(error: BaseException, text: str) -> _Packed:
    try:
        pickled: bytes | None = pickle.dumps(error)
        pickle.loads(pickled or b"")
    except Exception:  # noqa: BLE001  (whatever an exception's own pickling raises)
        pickled = None
    bases = tuple(qualified(kind) for kind in type(error).__mro__[:-1])
    return (pickled, qualified(type(error)), message(error), text, bases)


def _unpacked(packed: _Packed, task: str) -> BaseException:
    pickled, kind, shown, text, bases = packed
    error: BaseException
    try:
        error = pickle.loads(pickled) if pickled is not None else TaskError(task, kind, shown, bases)
    except Exception:  # noqa: BLE001  (it pickled there and does not unpickle here)
        error = TaskError(task, kind, shown, bases)
    if text and error.__traceback__ is None:
        error.add_note(f"\nin the worker:\n{text.rstrip()}")
    return error


def _outcome(fields: dict[str, Any], error: _Packed | None, failed: tuple[tuple[int, _Packed], ...]) -> Outcome:
    task = fields["task"]
    return Outcome(
        **fields,
        error=error and _unpacked(error, task),
        failed_items=tuple((index, _unpacked(packed, task)) for index, packed in failed),
    )


def message(error: BaseException, most: int = LONGEST_TEXT) -> str:
    """Return what *error* says, so that it can be stored and shown: at most so many characters, also if it cannot say it.

    >>> message(ValueError("no")), len(message(ValueError("no" * 5_000_000))) <= 65_536
    ('no', True)
    """
    try:
        return excerpt(writable(str(error)), most)
    except Exception:  # noqa: BLE001  (a broken __str__ must not hide that the task failed)
        return f"<{type(error).__name__} whose __str__ fails>"


def writable(text: str) -> str:
    """Return *text* as any file or store takes it: a lone surrogate, as in a name that is not UTF-8, is escaped.

    >>> writable("caf\\udce9")
    'caf\\\\udce9'
    """
    return text.encode("utf-8", "backslashreplace").decode()


def described(error: BaseException, most: int = LONGEST_TEXT) -> str:
    """Say what was raised as a text that can be stored, also if the exception itself cannot say it: :func:`message`.

    >>> described(ValueError("no"))
    'ValueError: no'
    """
    return f"{type(error).__name__}: {message(error, most)}"


def _text(error: BaseException) -> str:
    return excerpt("".join(tracebacks.format_exception(error)))
