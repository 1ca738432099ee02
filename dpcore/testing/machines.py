"""Random histories, compared with a model: hypothesis draws them and shrinks what fails."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from dpcore.errors import QueueClosedError, QueueEmptyError, QueueFullError, ResultNotFoundError, TooManyDoneError
from dpcore.jobs import Ref
from dpcore.ports import IOManager, Queue, RunStore, Tally
from dpcore.ports.runstore import EXISTING, Document, Fence

__all__ = ("compare_io", "compare_queue", "compare_store")

T = TypeVar("T")

# The same histories every time: a red suite is red for everybody.
_SETTINGS = settings(derandomize=True, deadline=None, database=None, stateful_step_count=30)

_RUNS = st.sampled_from(["r1", "r2", "r1.x"])
_TASKS = st.sampled_from(["total", "total.x"])
_REFS = st.builds(Ref, _RUNS, _TASKS, st.sampled_from(["1", "1-00000000"]))
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def compare_io(make: Callable[[Path], IOManager], tmp_path: Path, examples: int) -> None:
    """Assert that the manager holds what a dictionary would, whatever is done to it."""

    class History(_IOHistory):
        def make(self) -> IOManager:
            return make(Path(tempfile.mkdtemp(dir=tmp_path)))

    run_state_machine_as_test(History, settings=settings(_SETTINGS, max_examples=examples))


class _IOHistory(RuleBasedStateMachine):
    def make(self) -> IOManager:
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        self.io, self.model = self.make(), dict[Ref, Any]()

    @rule(ref=_REFS, value=_VALUES)
    def save(self, ref: Ref, value: Any) -> None:
        self.io.save(ref, value)
        self.model[ref] = value

    @rule(ref=_REFS)
    def load(self, ref: Ref) -> None:
        if ref in self.model:
            assert self.io.load(ref) == self.model[ref]
        else:
            with pytest.raises(ResultNotFoundError):
                self.io.load(ref)

    @rule(ref=_REFS)
    def delete(self, ref: Ref) -> None:
        assert self.io.delete(ref) == (ref in self.model)
        self.model.pop(ref, None)

    @rule(run=_RUNS)
    def clear(self, run: str) -> None:
        gone = [ref for ref in self.model if ref.run_id == run]
        assert self.io.clear(run) == len(gone)
        for ref in gone:
            del self.model[ref]

    @rule(run=_RUNS, task=_TASKS)
    def list_of_a_task(self, run: str, task: str) -> None:
        assert self.io.list(run, task) == sorted(ref for ref in self.model if (ref.run_id, ref.task) == (run, task))

    @rule(ref=_REFS)
    def exists(self, ref: Ref) -> None:
        assert self.io.exists(ref) == (ref in self.model)

    @invariant()
    def all_is_there(self) -> None:
        runs = sorted({ref.run_id for ref in self.model})
        assert self.io.runs() == runs
        for run in runs:
            assert self.io.list(run) == sorted(ref for ref in self.model if ref.run_id == run)
        for ref, value in self.model.items():
            assert self.io.load(ref) == value


# ---------------------------------------------------------------- run stores

_KEYS = st.sampled_from(["run/a", "run/a_", "run/ab", "x"])
_EXPECTED = st.sampled_from([None, None, None, None, EXISTING, 0, 1, 2])
_FENCES = st.sampled_from([*[None] * 5, Fence("run/a", 0), Fence("run/a", 1), Fence("x", 2)])
_BYTES = st.binary(max_size=4)
_ENTRIES = st.lists(_BYTES, max_size=3)


def compare_store(make: Callable[[Path], RunStore], tmp_path: Path, examples: int) -> None:
    """Assert that the store holds what a dictionary would, whatever is done to it."""
    with start_blocking_portal() as portal:

        class History(_StoreHistory):
            def make(self) -> RunStore:
                return make(Path(tempfile.mkdtemp(dir=tmp_path)))

            def wait(self, work: Callable[..., Awaitable[T]], *arguments: Any, **named: Any) -> T:
                return portal.call(partial(work, *arguments, **named))

        run_state_machine_as_test(History, settings=settings(_SETTINGS, max_examples=examples))


class _StoreHistory(RuleBasedStateMachine):
    def make(self) -> RunStore:
        raise NotImplementedError

    def wait(self, work: Callable[..., Awaitable[T]], *arguments: Any, **named: Any) -> T:
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        self.store = self.make()
        self.wait(self.store.__aenter__)
        self.model: dict[str, Document] = {}

    @rule(
        key=_KEYS,
        value=_BYTES | st.none(),
        entries=_ENTRIES,
        expected=_EXPECTED,
        fence=_FENCES,
    )
    def any_commit(
        self, key: str, value: bytes | None, entries: list[bytes], expected: int | None, fence: Fence | None
    ) -> None:
        self.commit(key, value, entries, expected, fence)

    def commit(
        self, key: str, value: bytes | None, entries: list[bytes], expected: int | None, fence: Fence | None
    ) -> None:
        old = self.model.get(key, Document(b"", 0))
        refused = (
            (value is None and not old.version)
            or (expected == EXISTING and not old.version)
            or (expected not in (None, EXISTING, old.version))
            or (fence is not None and fence.version != self.model.get(fence.key, Document(b"", 0)).version)
        )
        if not refused:
            written = value is not None
            self.model[key] = Document(
                value if value is not None else old.value, old.version + written, [*old.entries, *entries]
            )
        found = self.wait(self.store.commit, key, value=value, entries=entries, expected=expected, fence=fence)
        assert found == (None if refused else self.model[key].version)

    # A history of refusals tells nothing: these two are accepted, the first always.
    @rule(key=_KEYS, value=_BYTES, entries=_ENTRIES)
    def write(self, key: str, value: bytes, entries: list[bytes]) -> None:
        self.commit(key, value, entries, None, None)

    @rule(key=_KEYS, entries=_ENTRIES)
    def append(self, key: str, entries: list[bytes]) -> None:
        self.commit(key, None, entries, EXISTING, None)

    @rule(key=_KEYS)
    def drop(self, key: str) -> None:
        assert self.wait(self.store.drop, key) == (self.model.pop(key, None) is not None)

    @rule(
        prefix=st.sampled_from(["", "run/", "run/a", "run/a_", "document/", "y"]), limit=st.none() | st.integers(0, 3)
    )
    def scan(self, prefix: str, limit: int | None) -> None:
        newest = [
            (key, Document(d.value, d.version)) for key, d in reversed(self.model.items()) if key.startswith(prefix)
        ]
        assert self.wait(self.store.scan, prefix, limit) == newest[:limit]

    @rule()
    def reopen(self) -> None:
        self.wait(self.store.__aexit__, None, None, None)
        self.wait(self.store.__aenter__)

    @invariant()
    def all_is_there(self) -> None:
        for key, document in self.model.items():
            assert self.wait(self.store.fetch, key, entries=True) == document
            assert self.wait(self.store.fetch, key) == Document(document.value, document.version)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.wait(self.store.__aexit__, None, None, None)


# ---------------------------------------------------------------- queues

_ITEMS = st.none() | st.integers() | st.binary(max_size=20) | st.integers(1, 30).map(lambda n: b"x" * (n * 10_000))
_BY = st.sampled_from(["nowait", "sync", "async"])


def compare_queue(make: Callable[[Path, int], Queue], tmp_path: Path, examples: int) -> None:
    """Assert that the queue does what a deque would, whatever is done to it."""
    with start_blocking_portal() as portal:

        class History(_QueueHistory):
            def make(self, size: int) -> Queue:
                return make(Path(tempfile.mkdtemp(dir=tmp_path)), size)

            def wait(self, work: Callable[..., Awaitable[T]], *arguments: Any) -> T:
                return portal.call(work, *arguments)

        run_state_machine_as_test(History, settings=settings(_SETTINGS, max_examples=examples))


class _QueueHistory(RuleBasedStateMachine):
    def make(self, size: int) -> Queue:
        raise NotImplementedError

    def wait(self, work: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        raise NotImplementedError

    @initialize(size=st.sampled_from([1, 2, 5]))
    def begin(self, size: int) -> None:
        self.queue, self.model = self.make(size), deque[Any]()
        self.held, self.closed = 0, False

    @rule(item=_ITEMS, by=_BY)
    def put(self, item: Any, by: str) -> None:
        if not self.closed and len(self.model) >= self.queue.size:
            with pytest.raises(QueueFullError):
                self.queue.put_sync(item, timeout=0)
        elif self.closed:
            with pytest.raises(QueueClosedError):
                self.put_by(by, item)
        else:
            self.put_by(by, item)
            self.model.append(item)

    def put_by(self, by: str, item: Any) -> None:
        if by == "async":
            self.wait(self.queue.put, item)
        else:
            {"nowait": self.queue.put_nowait, "sync": self.queue.put_sync}[by](item)

    @rule(by=_BY)
    def get(self, by: str) -> None:
        if self.model:
            assert self.get_by(by) == self.model.popleft()
            self.held += 1
        elif self.closed:
            with pytest.raises(QueueClosedError):
                self.get_by(by)
        else:
            with pytest.raises(QueueEmptyError):
                self.queue.get_nowait()

    def get_by(self, by: str) -> Any:
        if by == "async":
            return self.wait(self.queue.get)
        return {"nowait": self.queue.get_nowait, "sync": self.queue.get_sync}[by]()

    @rule()
    def done(self) -> None:
        if self.held:
            self.queue.task_done()
            self.held -= 1
        else:
            with pytest.raises(TooManyDoneError):
                self.queue.task_done()

    @rule(really=st.integers(0, 9))
    def close(self, really: int) -> None:
        if not really:  # or else most histories would be over when they have hardly begun
            self.queue.close()
            self.closed = True

    @invariant()
    def all_is_counted(self) -> None:
        items = len(self.model)
        assert self.queue.tally() == Tally(items, items + self.held, self.closed)
        assert (self.queue.qsize(), self.queue.empty()) == (items, not items)
        assert self.queue.full() == (items >= self.queue.size)

    def teardown(self) -> None:
        if hasattr(self, "queue"):
            self.queue.close()
