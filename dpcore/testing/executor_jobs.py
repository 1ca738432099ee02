"""How the suite of executors has jobs done: where their results go, who listens, and how long anybody waits."""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest

from dpcore.errors import UnsupportedError
from dpcore.events import Event
from dpcore.functions import Function
from dpcore.jobs import Job, Message, Outcome, Ref, State
from dpcore.ports import Executor, IOManager
from dpcore.testing.suite import AsyncConformance

__all__ = ("FolderIO", "JobSuite", "Recorder", "until", "who")


_SHORT_ONES = 40  # jobs, after which an executor that sends short ones ahead has noticed


class FolderIO(IOManager):
    """Results as files that every process of the machine reads: the least that a suite needs."""

    capabilities = frozenset({"copies", "shared"})

    def __init__(self, path: Path) -> None:
        self.path = path

    def _file(self, ref: Ref) -> Path:
        return self.path / f"{ref.task}@{ref.result_id}"

    def write(self, ref: Ref, value: Any) -> str:
        """Store a pickle, whole or not at all."""
        torso = self.path / f".{ref.task}@{ref.result_id}.{os.getpid()}.{threading.get_ident()}"
        torso.write_bytes(pickle.dumps(value))
        torso.replace(self._file(ref))
        return str(self._file(ref))

    def read(self, ref: Ref) -> Any:
        """Load a pickle."""
        return pickle.loads(self._file(ref).read_bytes())

    def has(self, ref: Ref) -> bool:
        """Tell whether the file is there."""
        return self._file(ref).exists()

    def remove(self, ref: Ref) -> bool:
        """Delete the file."""
        there = self.has(ref)
        self._file(ref).unlink(missing_ok=True)
        return there

    def refs(self, run_id: str | None, task: str | None) -> Iterable[Ref]:
        """Read the names of the files; all are of one run."""
        names = (name.rpartition("@") for name in os.listdir(self.path) if not name.startswith("."))  # noqa: PTH208
        return (Ref(run_id or "r1", of, result) for of, _, result in names if task in (None, of))


class Recorder:
    """The runner's side of one job, which only remembers what it was told."""

    def __init__(self) -> None:
        self.output = ""
        self.times = 0
        self.over = False
        self.ended = False
        self.late = False

    def started(self) -> None:
        """Count how often it was told, and whether the job had ended by then."""
        self.times += 1
        self.late = self.late or self.ended

    def publish(self, event: Event) -> None:
        """Refuse: these jobs do not publish."""
        raise UnsupportedError("this runner", "publish", f"publish on {event.topic!r}")

    def send(self, message: Message) -> None:
        """Refuse: these jobs do not talk."""
        raise UnsupportedError("this runner", "streams", f"take {message!r}")

    async def receive(self) -> Message:
        """Refuse: these jobs do not talk."""
        raise UnsupportedError("this runner", "streams", "say anything")

    def receive_sync(self, *, wait: bool = True) -> Message | None:
        """Refuse: these jobs do not talk."""
        raise UnsupportedError("this runner", "streams", f"say anything, {wait=}")


def who() -> tuple[int, int]:
    """Return the process and the thread."""
    return os.getpid(), threading.get_ident()


def until(condition: Callable[[], bool], patience: float) -> None:
    """Wait for a condition that another job brings about."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("it never happened")
        time.sleep(0.001)


class JobSuite(AsyncConformance, suite=True):
    """What the promises of an executor are told with."""

    patience: ClassVar[float] = 30.0
    """Seconds after which something that should happen is said never to."""

    def make(self, tmp_path: Path) -> Executor:
        """Return a new executor, not entered."""
        raise NotImplementedError(f"{type(self).__name__} must say in make(self, tmp_path) how its executor is made")

    # ---------------------------------------------------------------- doing jobs

    def job(self, tmp_path: Path, call: Callable[..., Any], task: str = "t", **fields: Any) -> Job:
        """Return a job whose results go to a folder that every process reads."""
        results = tmp_path / "results"
        results.mkdir(exist_ok=True)
        io = fields.pop("io", None) or FolderIO(results)
        is_async = fields.pop("is_async", call.__name__.endswith("_async"))
        return Job(run_id="r1", task=task, function=Function(call), io=io, is_async=is_async, **fields)

    async def do(self, executor: Executor, job: Job) -> Outcome:
        """Have a job done, within bounds."""
        line = Recorder()
        with anyio.fail_after(self.patience):
            outcome = await executor.run(job, line)
        line.ended = True
        assert line.times <= 1, "line.started() was called more than once"
        assert not line.late
        return outcome

    async def blocks_the_loop(self, executor: Executor, tmp_path: Path) -> bool:
        """Tell whether plain jobs run in the very thread of the event loop."""
        outcome = await self.do(executor, self.job(tmp_path, who, "who"))
        assert isinstance(outcome.result, Ref)
        return bool(FolderIO(tmp_path / "results").load(outcome.result) == who())

    def loaded(self, tmp_path: Path, outcome: Outcome) -> Any:
        """Return the value, or the list of items, that an outcome names."""
        assert outcome.state is State.SUCCEEDED, (outcome.error, outcome.traceback)
        io = FolderIO(tmp_path / "results")
        assert outcome.result is not None
        return io.load(outcome.result) if isinstance(outcome.result, Ref) else [io.load(ref) for ref in outcome.result]

    async def seen(self, file: Path) -> None:
        """Wait until a file is there."""
        with anyio.fail_after(self.patience):
            while not await anyio.Path(file).exists():  # noqa: ASYNC110  (another process makes it)
                await anyio.sleep(0.001)

    async def must_succeed(self, executor: Executor, job: Job) -> None:
        """Do a job that must go well."""
        outcome = await self.do(executor, job)
        assert outcome.state is State.SUCCEEDED, (job.task, outcome.error)

    async def cancelled(self, executor: Executor, job: Job, begun: Path) -> None:
        """Give a job, wait until it has begun, and cancel it."""
        with anyio.fail_after(self.patience):
            async with anyio.create_task_group() as group:
                group.start_soon(executor.run, job, Recorder())
                await self.seen(begun)
                group.cancel_scope.cancel()

    def needs(self, executor: Executor, capability: str) -> None:
        """Skip what is promised only with *capability*."""
        if capability not in executor.capabilities:
            pytest.skip(f"the executor lacks the capability {capability!r}")

    async def widest(self, executor: Executor, tmp_path: Path) -> int:
        """Return the most jobs that the window has allowed after some short ones: it may be more than at first."""
        widths = [executor.window]
        for number in range(_SHORT_ONES):
            await self.do(executor, self.job(tmp_path, who, f"short{number}"))
            widths.append(executor.window)
        return max(widths)

    async def side_by_side(
        self, executor: Executor, tmp_path: Path, doing: Callable[[int], Awaitable[object]], many: int
    ) -> None:
        """Do it for each number below *many*, as many at once as the window has ever allowed."""
        numbers = iter(range(many))

        async def lane() -> None:
            for number in numbers:
                await doing(number)

        at_once = min(many, await self.widest(executor, tmp_path))
        async with anyio.create_task_group() as group:
            for _ in range(at_once):
                group.start_soon(lane)
