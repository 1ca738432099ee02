"""What all suites share: promises that cannot be overridden, and writers that are killed."""

from __future__ import annotations

import gc
import os
import pickle
import random
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from signal import SIGKILL
from time import monotonic, sleep
from typing import IO, Any, ClassVar, NamedTuple

import pytest

from dpcore.functions import Function
from dpcore.ports import Adapter

__all__ = ("AsyncConformance", "Conformance", "Writers", "descendants", "leftovers", "lives", "moments", "serve")

_PATIENCE = 2.0  # seconds in which what has been told to end does so


class Conformance:
    """Tests of one port's contract; a subclass says how its adapter is made.

    Each test is one promise, and its docstring is the sentence.  A promise that an
    adapter does not keep yet is marked, not deleted::

        @pytest.mark.xfail(reason="the server has no transactions, see issue 7")
        def test_a_failed_save_keeps_what_was_there(self, tmp_path):
            super().test_a_failed_save_keeps_what_was_there(tmp_path)

    Overriding a test in any other way is a TypeError when the class is made.
    """

    version: ClassVar[int] = 1
    """Grows when promises are added, so that an adapter can say which suite it passed."""

    def __init_subclass__(cls, *, suite: bool = False) -> None:
        super().__init_subclass__()
        if suite:
            return
        for name, promise in _promises(cls).items():
            found = getattr(cls, name, None)
            if found is not promise and not _expected_to_fail(found):
                raise TypeError(
                    f"{cls.__name__} overrides {name}, a promise of the suite; "
                    "if the adapter cannot keep it yet, mark the test with pytest.mark.xfail(reason=...) and call super()"
                )

    def make(self, tmp_path: Path) -> Any:
        """Return a new adapter whose settings depend on *tmp_path* only."""
        raise NotImplementedError(f"{type(self).__name__} must say in make(self, tmp_path) how its adapter is made")

    def check_capabilities(self, adapter: Adapter, known: set[str]) -> None:
        """Assert that the adapter's capabilities are data, and are those of its port."""
        assert isinstance(adapter.capabilities, frozenset)
        assert adapter.capabilities == type(adapter).capabilities
        assert adapter.capabilities <= known, f"the port knows no {adapter.capabilities - known}"


class AsyncConformance(Conformance, suite=True):
    """Tests of a contract that holds on every event loop."""

    backends: ClassVar[tuple[str, ...]] = ("asyncio", "trio")

    pytestmark = pytest.mark.anyio

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Run each async promise on every backend."""
        if "backend" in metafunc.fixturenames:
            metafunc.parametrize("backend", self.backends)

    @pytest.fixture
    def anyio_backend(self, backend: str) -> str:
        return backend


def _promises(cls: type) -> dict[str, Any]:
    suites = [kind for kind in cls.__mro__ if kind.__module__.startswith("dpcore.testing.")]
    return {name: test for kind in suites for name, test in vars(kind).items() if name.startswith("test_")}


def _expected_to_fail(test: object) -> bool:
    marks = getattr(test, "pytestmark", [])
    return any(mark.name == "xfail" and mark.kwargs.get("reason") for mark in marks)


class Leftovers(NamedTuple):
    """How many file descriptors are open, threads run, and child processes live."""

    descriptors: int
    threads: int
    children: int

    def no_more_than(self, before: Leftovers) -> bool:
        """Whether none of the numbers has grown."""
        return all(now <= then for now, then in zip(self, before, strict=True))


def leftovers(since: Leftovers | None = None) -> Leftovers:
    """Count what an adapter may leave behind.

    With *since*, of an earlier count, it is counted anew until it is no more than that, for two seconds: after an
    event loop has ended, a thread that served it is there for a moment longer.
    """
    deadline = monotonic() + _PATIENCE
    while True:
        gc.collect()
        descriptors = len(os.listdir("/dev/fd"))  # noqa: PTH208  (iterating would hold one open)
        found = Leftovers(descriptors, threading.active_count(), len(_children(os.getpid())))
        if since is None or found.no_more_than(since) or monotonic() > deadline:
            return found
        sleep(0.01)


def descendants(process: int | None = None) -> set[int]:
    """Return whom this process, or another, has started, and whom they have, where the system tells in /proc."""
    found: set[int] = set()
    waiting = _children(process or os.getpid())
    while waiting:
        child = waiting.pop()
        found.add(child)
        waiting += _children(child)
    return found


def _children(process: int) -> list[int]:
    found: list[int] = []
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):  # it has ended meanwhile
            found += map(int, file.read_text().split())
    return found


def lives(process: int) -> bool:
    """Tell whether a process lives that is not only waiting to be reaped, where the system tells in /proc."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


# ---------------------------------------------------------------- writers that are killed


class Writers:
    """Runs ``work(*arguments, say)`` in processes of its own, one after another.

    Each is forked from one that has imported everything already, so that twenty of
    them take a second.  What they ``say``, numbers, is read here.
    """

    def __init__(self, parent: subprocess.Popen[bytes]) -> None:
        self._parent = parent

    @classmethod
    @contextmanager
    def of(cls, work: Callable[..., None], *arguments: Any) -> Iterator[Writers]:
        """Start the process from which the writers are forked; end it on leaving."""
        paths = os.pathsep.join(path for path in sys.path if path)
        command = [sys.executable, "-c", "from dpcore.testing.suite import serve; serve()"]
        carried = [Function(value) if isinstance(value, type) else value for value in arguments]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": paths}
        ) as parent:
            writers = cls(parent)
            pickle.dump((Function(work), carried), writers._into)
            try:
                yield writers
            finally:
                writers._into.close()

    @property
    def _into(self) -> IO[bytes]:
        assert self._parent.stdin is not None
        return self._parent.stdin

    @property
    def _out_of(self) -> IO[bytes]:
        assert self._parent.stdout is not None
        return self._parent.stdout

    def start(self) -> int:
        """Fork one, and return its process id."""
        self._into.write(b"\n")
        self._into.flush()
        return self._read("pid")[-1]

    def start_and_hear(self, said: int) -> list[int]:
        """Fork one, and return what it says first, so many numbers."""
        self.start()
        return self.hear(said)

    def hear(self, said: int) -> list[int]:
        """Return what the one that runs says next, so many numbers."""
        return [self._read("said")[-1] for _ in range(said)]

    def run(self) -> list[int]:
        """Fork one, let it end, and return what it said."""
        self.start()
        return self.rest()

    def kill_after(self, said: int, seconds: float) -> list[int]:
        """Fork one; kill it some *seconds* after it has said so much; return all it said."""
        process = self.start()
        heard = [self._read("said")[-1] for _ in range(said)]
        select.select([], [], [], seconds)  # not for something to happen: this is the moment that was drawn
        os.kill(process, SIGKILL)
        return heard + self.rest()

    def rest(self) -> list[int]:
        """Return what the one that runs says until it has ended."""
        return self._read("ended")[:-1]

    def _read(self, until: str) -> list[int]:
        numbers = []
        for line in iter(self._out_of.readline, b""):
            word, number = line.split()
            numbers.append(int(number))
            if word.decode() == until:
                return numbers
        raise AssertionError("the process that writes could not be started; it says why above")


def serve() -> None:
    """Be the process that writers are forked from: one for each line of stdin."""
    work, carried = pickle.load(sys.stdin.buffer)
    arguments = [value.call if isinstance(value, Function) else value for value in carried]
    for _ in sys.stdin.buffer:
        process = os.fork()
        if not process:
            _say("pid", os.getpid())  # not by its parent, which may come to it when all has been said
            _write(work.call, arguments)
        _say("ended", os.waitpid(process, 0)[1])


def _write(work: Callable[..., None], arguments: list[Any]) -> None:
    status = 1
    try:
        work(*arguments, lambda number: _say("said", number))
        status = 0
    except BaseException:  # noqa: BLE001  (it is shown; whoever waits for what it says learns that it has ended)
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def _say(word: str, number: int) -> None:
    os.write(1, f"{word} {number}\n".encode())  # one piece, also when two processes write


def leave_no_room(size: int) -> None:
    """Have this process, which ends soon, find every disk full for a file of more than *size* bytes."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def moments(seed: int, times: int, most: float) -> Iterator[tuple[int, float]]:
    """Draw when to kill: after how many steps, and how many seconds later.

    >>> [*moments(1, 2, 0.01)] == [*moments(1, 2, 0.01)]
    True
    """
    chance = random.Random(seed)
    return ((chance.randint(0, 3), chance.uniform(0, most)) for _ in range(times))
