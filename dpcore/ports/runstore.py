"""RunStore: what is remembered of runs, and small documents that several processes agree on."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Sequence
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar, final

import msgspec

from dpcore.clock import Clock, SystemClock
from dpcore.errors import LeaseLostError, RunNotFoundError, StoreError
from dpcore.jobs import State, check_id
from dpcore.ports.adapter import Adapter
from dpcore.processes import is_gone, this_process

__all__ = ("EXISTING", "Document", "Fence", "Lease", "RunHistory", "RunRecord", "RunStore", "TaskChange")


T = TypeVar("T")

EXISTING = -1
"""As the version that a commit expects: any, of a document that exists."""


class RunRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is known of a run as a whole; all that it takes to run the rest of it again.

    Times are seconds since the epoch.  *source* is the file or module the tasks
    came from; *selection* the arguments of ``plan()``; *settings* the adapter
    strings, without secrets; *params* and *metadata* as they print, and both as
    they are in *carried* (pickled), where they pickle.  *nominal* is in ISO 8601.
    """

    run_id: str
    state: State = State.PENDING
    began: float = 0.0
    ended: float | None = None
    source: str = ""
    selection: dict[str, Any] = {}
    params: dict[str, str] = {}
    metadata: dict[str, str] = {}
    carried: bytes | None = None
    settings: dict[str, str] = {}
    plan_id: str = ""
    fingerprint: str = ""
    fail_fast: bool = False
    keep: str = "all"
    priority: int = 0
    nominal: str | None = None
    tasks: int = 0
    counts: dict[str, int] = {}
    reason: str = ""


class TaskChange(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One change of one task, or of item *index* of a mapped task, in the order they happened.

    *result* is the result id of a value; a stream has *count* items, those of
    *attempts* stored by another attempt, those in *missing* left out.  The *fingerprint*
    is of what ran and of what fed it (:meth:`Plan.fingerprint_of`), where runs are durable.
    *output* is the end of what the attempt has printed and logged, in a process of its own.

    When a run is resumed, ``pending`` says that all of the task begins anew, and
    ``retrying`` without an error that an attempt ended with its program.
    """

    task: str
    state: State
    at: float
    attempt: int = 1
    index: int | None = None
    duration: float = 0.0
    result: str | None = None
    count: int | None = None
    attempts: dict[int, int] = {}
    missing: list[int] = []
    error: str = ""
    traceback: str = ""
    reason: str = ""
    worker: str = ""
    fingerprint: str = ""
    output: str = ""


class RunHistory(msgspec.Struct, frozen=True):
    """A run's record and all its changes, oldest first."""

    record: RunRecord
    changes: list[TaskChange]

    @property
    def tasks(self) -> dict[str, TaskChange]:
        """The last change of each task as a whole, in the order in which they first changed."""
        return {change.task: change for change in self.changes if change.index is None}


class Document(msgspec.Struct, frozen=True):
    """What a store holds under a key: a value, how often it was written, and what was appended to it."""

    value: bytes
    version: int
    entries: list[bytes] = []


class Fence(msgspec.Struct, frozen=True):
    """A condition of a commit: the document *key* still has this *version*."""

    key: str
    version: int


class RunStore(Adapter):
    """Remembers runs as records to which changes are appended, and small documents with versions.

    An adapter writes four methods on documents: :meth:`commit`, :meth:`fetch`,
    :meth:`scan` and :meth:`drop`.  Everything else, what a run, a lease or a
    schedule is, is said here once.  All are async; what they promise:

    - a commit happens whole or not at all, and when it has returned, everybody sees it;
    - of several commits that expect one version, one at most happens;
    - a commit that is cancelled has happened whole or not at all.

    Capabilities:

    - ``durable``: what a commit returned for outlives the program's death by SIGKILL;
    - ``shared``: other processes that open it by the same settings see the same.

    A store is an async context manager.  It is used between entering and leaving it;
    before and after, an adapter raises :class:`~dpcore.errors.StoreError`, and an
    :class:`OSError` of the system may pass: it is said as one.  Leaving it
    twice does nothing, and it may be entered again.
    """

    capabilities: ClassVar[frozenset[str]] = frozenset()
    clock: Clock = SystemClock()
    """Who is asked for the time when a lease ends; an App puts its own here."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what is open, on every way out."""

    # ------------------------------------------------------------ for the adapter

    @abstractmethod
    async def commit(
        self,
        key: str,
        *,
        value: bytes | None = None,
        expected: int | None = None,
        entries: Sequence[bytes] = (),
        fence: Fence | None = None,
    ) -> int | None:
        """Write *value* and append *entries* under *key*, in one piece; return the version, or None if refused.

        A document that does not exist has version 0; each *value* that is written
        adds 1, entries do not.  It is refused, and nothing happens, if *expected* is
        given and is not the version (:data:`EXISTING` expects any but 0), if *fence* is
        given and the document it names has another version, or if *value* is None and
        the document does not exist.
        """

    @abstractmethod
    async def fetch(self, key: str, *, entries: bool = False) -> Document | None:
        """Return the document under *key*, with all its entries in order if asked; None if there is none."""

    @abstractmethod
    async def scan(self, prefix: str, limit: int | None = None) -> list[tuple[str, Document]]:
        """Return the documents whose keys begin with *prefix*, without entries, the last created first."""

    @abstractmethod
    async def drop(self, key: str) -> bool:
        """Forget the document under *key* and its entries; tell whether there was one."""

    # ------------------------------------------------------------ runs

    @final
    async def begin(self, record: RunRecord) -> bool:
        """Record a new run; False, and nothing happens, if there is one of that id."""
        check_id(record.run_id, "run id")
        return await _asked(self, self.commit(f"run/{record.run_id}", value=_encode(record), expected=0)) is not None

    @final
    async def append(
        self, run_id: str, changes: Sequence[TaskChange], *, record: RunRecord | None = None, lease: Lease | None = None
    ) -> None:
        """Append *changes* to a run, in one piece, and replace its *record* if one is given.

        Raises :class:`~dpcore.errors.LeaseLostError` if *lease* is not held any more
        and :class:`~dpcore.errors.RunNotFoundError` if there is no such run; nothing is
        written then.
        """
        done = await _asked(
            self,
            self.commit(
                f"run/{check_id(run_id, 'run id')}",
                value=_encode(record) if record is not None else None,
                expected=EXISTING,
                entries=[_encode(change) for change in changes],
                fence=lease.fence if lease is not None else None,
            ),
        )
        if done is None:
            if lease is not None and not await lease.held():
                raise LeaseLostError(lease.key, lease.token)
            raise RunNotFoundError(run_id, str(self), await self._latest())

    @final
    async def record(self, run_id: str) -> RunRecord | None:
        """Return the record of a run without its changes; None if there is no such run."""
        found = await _asked(self, self.fetch(f"run/{check_id(run_id, 'run id')}"))
        return None if found is None else _RECORD.decode(found.value)

    @final
    async def get(self, run_id: str) -> RunHistory:
        """Return all that is known of a run; :class:`~dpcore.errors.RunNotFoundError` if nothing is."""
        found = await _asked(self, self.fetch(f"run/{check_id(run_id, 'run id')}", entries=True))
        if found is None:
            raise RunNotFoundError(run_id, str(self), await self._latest())
        return RunHistory(_RECORD.decode(found.value), [_CHANGE.decode(entry) for entry in found.entries])

    @final
    async def list(self, limit: int | None = None) -> list[RunRecord]:
        """Return the records of the runs, the last begun first."""
        return [_RECORD.decode(document.value) for _, document in await _asked(self, self.scan("run/", limit))]

    @final
    async def remove(self, run_id: str) -> bool:
        """Forget a run; tell whether there was one.  Its results are the I/O manager's."""
        return await _asked(self, self.drop(f"run/{check_id(run_id, 'run id')}"))

    async def _latest(self) -> list[str]:  # type: ignore[valid-type]  # `list` is also the method above
        return [record.run_id for record in await self.list(5)]

    # ------------------------------------------------------------ documents and leases

    @final
    async def read(self, key: str) -> tuple[Any, int]:
        """Return the small document under *key* and its version; ``(None, 0)`` if there is none."""
        found = await _asked(self, self.fetch(f"document/{key}"))
        return (None, 0) if found is None else (msgspec.json.decode(found.value), found.version)

    @final
    async def write(self, key: str, value: Any, *, expected: int | None = None) -> int | None:
        """Write a small document of JSON's types; return its version, None if its version is not the *expected* one."""
        return await _asked(self, self.commit(f"document/{key}", value=_encode(value), expected=expected))

    @final
    async def documents(self, prefix: str) -> Sequence[tuple[str, Any, int]]:
        """Return the small documents whose keys begin with *prefix*: the rest of each key, its value and its version."""
        found = await _asked(self, self.scan(f"document/{prefix}"))
        cut = len("document/") + len(prefix)
        return [(key[cut:], msgspec.json.decode(document.value), document.version) for key, document in found]

    @final
    async def forget(self, key: str) -> bool:
        """Forget the small document under *key*; tell whether there was one."""
        return await _asked(self, self.drop(f"document/{key}"))

    @final
    async def lease(self, key: str, ttl: float) -> Lease | None:
        """Take the lease on *key* for *ttl* seconds, or return None while somebody else holds it.

        Its ``token`` grows with every holder; :meth:`append` with an old one is refused.  It
        also ends with the process that took it, where it can be known that this has ended:
        on the same machine.
        """
        version, until, who = await self._leased(key)
        now = self.clock.now().timestamp()
        if now < until and not is_gone(who):
            return None
        value = _encode((now + ttl, this_process()))
        token = await _asked(self, self.commit(f"lease/{key}", value=value, expected=version))
        return None if token is None else Lease(self, key, token, ttl)

    @final
    async def holder(self, key: str) -> tuple[str, float] | None:
        """Return the name of the process that holds the lease on *key*, and until when; None if nobody does.

        The name is :func:`dpcore.processes.this_process` of it, the time seconds since the epoch.
        """
        _, until, who = await self._leased(key)
        return (who, until) if self.clock.now().timestamp() < until and not is_gone(who) else None

    async def _leased(self, key: str) -> tuple[int, float, str]:
        """Return the version of a lease, when it ends, and which process has it."""
        found = await _asked(self, self.fetch(f"lease/{key}"))
        if found is None:
            return 0, 0.0, ""
        until, who = _HELD.decode(found.value)
        return found.version, max(until, await self._renewed(key, found.version)) if until else 0.0, who

    async def _renewed(self, key: str, token: int) -> float:
        found = await _asked(self, self.fetch(f"lease-until/{key}"))
        until, of = _RENEWAL.decode(found.value) if found is not None else (0.0, 0)
        return until if of == token else 0.0


async def _asked(store: RunStore, answer: Awaitable[T]) -> T:
    """Wait for what an adapter answers; an error of the system names the store that it happened to."""
    try:
        return await answer
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(str(store), str(error) or type(error).__name__) from error


class Lease:
    """The right to act for *key* that one holder has at a time; *token* grows with every holder.

    It was taken for *ttl* seconds.
    """

    def __init__(self, store: RunStore, key: str, token: int, ttl: float) -> None:
        self.store, self.key, self.token, self.ttl = store, key, token, ttl

    @property
    def fence(self) -> Fence:
        """The condition under which a commit is still ours to make."""
        return Fence(f"lease/{self.key}", self.token)

    async def held(self) -> bool:
        """Tell whether nobody has taken the lease since."""
        found = await _asked(self.store, self.store.fetch(f"lease/{self.key}"))
        return found is not None and found.version == self.token

    async def renew(self, ttl: float) -> None:
        """Hold it for *ttl* seconds from now; :class:`~dpcore.errors.LeaseLostError` if somebody else has it."""
        await self._until(self.store.clock.now().timestamp() + ttl)

    async def release(self) -> None:
        """Let others have it at once; nothing happens if they have it already."""
        value = _encode((0.0, ""))
        await _asked(self.store, self.store.commit(f"lease/{self.key}", value=value, expected=self.token))

    async def drop(self) -> None:
        """Let others have it, and leave nothing of it in the store; only of what is gone itself: tokens begin anew."""
        await _asked(self.store, self.store.drop(f"lease-until/{self.key}"))
        await _asked(self.store, self.store.drop(f"lease/{self.key}"))

    async def _until(self, until: float) -> None:
        commit = self.store.commit(f"lease-until/{self.key}", value=_encode((until, self.token)), fence=self.fence)
        done = await _asked(self.store, commit)
        if done is None:
            raise LeaseLostError(self.key, self.token)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.release()


_encode = msgspec.json.encode
_RECORD = msgspec.json.Decoder(RunRecord)
_CHANGE = msgspec.json.Decoder(TaskChange)
_HELD = msgspec.json.Decoder(tuple[float, str])
_RENEWAL = msgspec.json.Decoder(tuple[float, int])
