"""The promises of an executor."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpcore.errors import UnsupportedError
from dpcore.jobs import Items, Ref, State, Stream
from dpcore.testing.executor_faults import Failing
from dpcore.testing.executor_jobs import Recorder, until, who
from dpcore.testing.executor_streams import Streaming
from dpcore.testing.suite import leftovers
from dpcore.worker import current_job

__all__ = ("ExecutorConformance", "Recorder")


# ---------------------------------------------------------------- what the jobs do; every process can import it


def add(a: int, b: int = 10) -> int:
    """Return the sum."""
    return a + b


async def add_async(a: int, b: int = 10) -> int:
    """Return the sum, after having let others go on."""
    await anyio.lowlevel.checkpoint()
    return a + b


def only_by_position(a: int, /, b: int) -> int:
    """Return the difference."""
    return a - b


def count(n: int) -> Iterator[int]:
    """Yield the numbers below *n*."""
    yield from range(n)


async def count_async(n: int) -> AsyncIterator[int]:
    """Yield the numbers below *n*, letting others go on before each."""
    for number in range(n):
        await anyio.lowlevel.checkpoint()
        yield number


async def total_async(numbers: AsyncIterator[int]) -> int:
    """Return the sum of an async stream."""
    return sum([number async for number in numbers])


def total(numbers: Iterable[int]) -> int:
    """Return the sum of a stream."""
    return sum(numbers)


class Unexpected(Exception):
    """An exception that does not pickle as it is made."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def fail(kind: str) -> None:
    """Raise."""
    if kind == "unpicklable":
        raise Unexpected(7, "no")
    raise {"value": ValueError, "stop": StopIteration, "exit": SystemExit, "memory": MemoryError}[kind]("no")


async def fail_async(kind: str) -> None:
    """Raise, after having let others go on."""
    await anyio.lowlevel.checkpoint()
    fail(kind)


def unstorable() -> Any:
    """Return what no file holds."""
    return threading.Lock()


def about() -> tuple[Any, ...]:
    """Return what the job knows of itself."""
    job = current_job()
    return (job.run_id, job.task, job.attempt, job.index, dict(job.params), dict(job.metadata))


def wait_for(folder: str, name: str, patience: float = 60) -> None:
    """Say that it begins, wait for the file *go*, and say that it ends."""
    place = Path(folder)
    (place / f"{name}.begun").touch()
    until((place / "go").exists, patience)
    (place / f"{name}.ended").touch()


async def wait_for_async(folder: str, name: str, patience: float = 60) -> None:
    """Say that it begins, wait longer than anybody has patience, and say that it was stopped."""
    place = Path(folder)
    (place / f"{name}.begun").touch()
    try:
        await anyio.sleep(patience)
    finally:
        (place / f"{name}.stopped").touch()


def meet(folder: str, name: str, others: int, patience: float) -> None:
    """Wait until so many are here at once."""
    place = Path(folder)
    (place / f"{name}.here").touch()
    until(lambda: len([*place.glob("*.here")]) >= others, patience)


def crowd(folder: str, name: str) -> int:
    """Return how many are here while this one is."""
    here = Path(folder) / f"{name}.here"
    here.touch()
    seen = []
    for _ in range(3):
        seen.append(len([*here.parent.glob("*.here")]))
        time.sleep(0.002)
    here.unlink()
    return max(seen)


def mark(folder: str, name: str) -> None:
    """Write down that it ran once more."""
    with (Path(folder) / f"{name}.ran").open("a") as file:
        file.write("x")


# ---------------------------------------------------------------- the suite


class ExecutorConformance(Failing, Streaming, suite=True):
    """What an executor promises: subclass it, and say how one is made.

    Every promise is kept on asyncio and on trio; an executor that runs on one of
    them only narrows ``backends``, with the reason in a comment beside it.
    """

    examples: ClassVar[int] = 20
    """How many random mixtures of jobs are compared with what they must give."""

    # ---------------------------------------------------------------- jobs

    async def test_a_value_is_stored_where_the_job_says(self, tmp_path: Path) -> None:
        """Plain and coroutine functions alike; the outcome names the ref, the attempt and the seconds."""
        async with self.make(tmp_path) as executor:
            for call in (add, add_async):
                job = self.job(tmp_path, call, call.__name__, arguments={"a": 1}, attempt=3)
                outcome = await self.do(executor, job)
                assert self.loaded(tmp_path, outcome) == 11
                assert outcome.result == job.ref == Ref("r1", call.__name__, "3")
                assert outcome.attempt == 3
                assert 0 <= outcome.duration < self.patience
                assert outcome.error is None

    async def test_inputs_are_loaded_where_the_job_runs(self, tmp_path: Path) -> None:
        """Values, streams as lists and as iterators, by position and by name."""
        async with self.make(tmp_path) as executor:
            io = self.job(tmp_path, add).io
            io.save(Ref("r1", "up", "1"), 5)
            for index in range(3):
                io.save(Ref("r1", "many", f"1-{index:08d}"), index)
            items = Items("r1", "many", 3)
            cases: list[tuple[Callable[..., Any], dict[str, Any], int]] = [
                (add, {"inputs": {"a": Ref("r1", "up", "1")}, "arguments": {"b": 1}}, 6),
                (only_by_position, {"arguments": {"b": 1, "a": 5}, "positional": ("a",)}, 4),
                (total, {"inputs": {"numbers": Stream(items, "list")}}, 3),
                (total, {"inputs": {"numbers": Stream(items, "iterator")}}, 3),
                (total_async, {"inputs": {"numbers": Stream(items, "async")}}, 3),
            ]
            for number, (call, fields, wanted) in enumerate(cases):
                outcome = await self.do(executor, self.job(tmp_path, call, f"t{number}", **fields))
                assert self.loaded(tmp_path, outcome) == wanted

    async def test_items_of_a_stream_are_stored_one_by_one(self, tmp_path: Path) -> None:
        """Each under a ref of its own, in order; none is a stream too."""
        async with self.make(tmp_path) as executor:
            for n in (3, 0):
                for call in (count, count_async):
                    task = f"{call.__name__}{n}"
                    outcome = await self.do(
                        executor, self.job(tmp_path, call, task, arguments={"n": n}, streams=True, attempt=2)
                    )
                    assert outcome.result == Items("r1", task, n, attempt=2)
                    assert self.loaded(tmp_path, outcome) == [*range(n)]

    @pytest.mark.parametrize("kind", ["value", "stop", "exit", "memory", "unpicklable"])
    async def test_whatever_a_body_raises_is_a_failed_outcome(self, tmp_path: Path, kind: str) -> None:
        """The error comes home, or what stands for it, with its traceback; the executor goes on."""
        async with self.make(tmp_path) as executor:
            for call in (fail, fail_async):
                outcome = await self.do(executor, self.job(tmp_path, call, arguments={"kind": kind}))
                assert outcome.state is State.FAILED
                assert outcome.result is None
                assert outcome.error is not None
                assert "no" in str(outcome.error) or kind == "stop"
                assert f"in {call.__name__}" in outcome.traceback
            assert self.loaded(tmp_path, await self.do(executor, self.job(tmp_path, add, arguments={"a": 1}))) == 11

    async def test_a_value_that_cannot_be_stored_is_a_failed_outcome(self, tmp_path: Path) -> None:
        """Nothing is lost but the value."""
        async with self.make(tmp_path) as executor:
            outcome = await self.do(executor, self.job(tmp_path, unstorable))
            assert outcome.state is State.FAILED
            assert isinstance(outcome.error, TypeError)

    async def test_an_input_that_is_gone_is_a_failed_outcome(self, tmp_path: Path) -> None:
        """It says which."""
        async with self.make(tmp_path) as executor:
            job = self.job(tmp_path, add, inputs={"a": Ref("r1", "gone", "1")})
            outcome = await self.do(executor, job)
            assert outcome.state is State.FAILED
            assert "r1/gone/1" in str(outcome.error)

    async def test_a_task_knows_its_job(self, tmp_path: Path) -> None:
        """By current_job(): run, task, attempt, item, params and metadata, wherever it runs."""
        async with self.make(tmp_path) as executor:
            job = self.job(tmp_path, about, attempt=2, index=4, params={"day": 1}, metadata={"by": "me"})
            outcome = await self.do(executor, job)
            assert self.loaded(tmp_path, outcome) == ("r1", "t", 2, 4, {"day": 1}, {"by": "me"})

    async def test_a_function_without_a_name_runs_too(self, tmp_path: Path) -> None:
        """A closure is carried to wherever jobs run."""
        async with self.make(tmp_path) as executor:
            much = 5

            def closure(a: int) -> int:
                return a + much

            outcome = await self.do(executor, self.job(tmp_path, closure, arguments={"a": 1}))
            assert self.loaded(tmp_path, outcome) == 6

    async def test_the_line_is_told_once_that_a_job_starts(self, tmp_path: Path) -> None:
        """Exactly once, and before its outcome is there."""
        async with self.make(tmp_path) as executor:
            for call, arguments in ((add, {"a": 1}), (add_async, {"a": 1}), (fail, {"kind": "value"})):
                line = Recorder()
                with anyio.fail_after(self.patience):
                    await executor.run(self.job(tmp_path, call, arguments=arguments), line)
                assert line.times == 1

    # ---------------------------------------------------------------- many at once

    async def test_it_has_slots_and_a_window_that_is_not_smaller(self, tmp_path: Path) -> None:
        """Both are whole numbers of at least 1."""
        async with self.make(tmp_path) as executor:
            assert isinstance(executor.slots, int)
            assert 1 <= executor.slots <= executor.window

    async def test_as_many_jobs_as_slots_really_run_at_once(self, tmp_path: Path) -> None:
        """They can wait for each other."""
        async with self.make(tmp_path) as executor, anyio.create_task_group() as group:
            for number in range(executor.slots):
                arguments = {
                    "folder": str(tmp_path),
                    "name": str(number),
                    "others": executor.slots,
                    "patience": self.patience,
                }
                group.start_soon(
                    self.must_succeed, executor, self.job(tmp_path, meet, f"t{number}", arguments=arguments)
                )

    async def test_no_more_jobs_run_at_once_than_slots(self, tmp_path: Path) -> None:
        """However many it is given, up to its window."""
        seen: list[int] = []
        async with self.make(tmp_path) as executor:
            at_once = await self.widest(executor, tmp_path)
            jobs = [
                self.job(tmp_path, crowd, f"t{number}", arguments={"folder": str(tmp_path), "name": str(number)})
                for number in range(at_once * 3)
            ]

            async def lane() -> None:
                while jobs:
                    seen.append(self.loaded(tmp_path, await self.do(executor, jobs.pop())))

            async with anyio.create_task_group() as group:
                for _ in range(at_once):
                    group.start_soon(lane)
            assert 1 <= max(seen) <= executor.slots

    async def test_every_job_runs_once_and_its_outcome_is_its_own(self, tmp_path: Path) -> None:
        """Of a hundred jobs, given as fast as the window allows."""
        async with self.make(tmp_path) as executor:
            at_once = await self.widest(executor, tmp_path)
            numbers = [*range(100)]
            wrong: list[int] = []

            async def lane() -> None:
                while numbers:
                    number = numbers.pop()
                    await self.must_succeed(
                        executor,
                        self.job(
                            tmp_path, mark, f"m{number}", arguments={"folder": str(tmp_path), "name": str(number)}
                        ),
                    )
                    outcome = await self.do(executor, self.job(tmp_path, add, f"t{number}", arguments={"a": number}))
                    if self.loaded(tmp_path, outcome) != number + 10 or outcome.result != Ref("r1", f"t{number}", "1"):
                        wrong.append(number)

            async with anyio.create_task_group() as group:
                for _ in range(at_once):
                    group.start_soon(lane)
            assert wrong == []
            assert [(tmp_path / f"{number}.ran").read_text() for number in range(100)] == ["x"] * 100

    # ---------------------------------------------------------------- cancelling

    async def test_cancelling_a_coroutine_function_stops_it(self, tmp_path: Path) -> None:
        """The call returns at once; where it runs in this process, its cleaning up is done by then."""
        async with self.make(tmp_path) as executor:
            job = self.job(tmp_path, wait_for_async, arguments={"folder": str(tmp_path), "name": "a"})
            await self.cancelled(executor, job, tmp_path / "a.begun")
            if executor.in_process:
                assert (tmp_path / "a.stopped").exists()
            await self.must_succeed(executor, self.job(tmp_path, add, "after", arguments={"a": 1}))

    async def test_cancelling_a_plain_function_returns_at_once_and_kills_only_where_it_says_so(
        self, tmp_path: Path
    ) -> None:
        """With ``kills`` the code never ends; without, it runs on to its end, and the executor goes on after it."""
        async with self.make(tmp_path) as executor:
            if await self.blocks_the_loop(executor, tmp_path):
                assert executor.slots == 1, "jobs on the event loop's own thread cannot run at once"
                assert "kills" not in executor.capabilities
                return
            job = self.job(tmp_path, wait_for, arguments={"folder": str(tmp_path), "name": "a"})
            await self.cancelled(executor, job, tmp_path / "a.begun")
            (tmp_path / "go").touch()
            if "kills" in executor.capabilities:
                await self.must_succeed(executor, self.job(tmp_path, add, "after", arguments={"a": 1}))
                await anyio.sleep(0.5)  # not for something to happen: code that lives looks every millisecond
                assert not (tmp_path / "a.ended").exists()
            else:
                await self.seen(tmp_path / "a.ended")
                await self.must_succeed(executor, self.job(tmp_path, add, "after", arguments={"a": 1}))

    async def test_a_job_that_is_cancelled_before_it_starts_never_runs(self, tmp_path: Path) -> None:
        """Where the window is larger than the slots; the jobs that run are left alone."""
        async with self.make(tmp_path) as executor:
            if await self.widest(executor, tmp_path) == executor.slots:
                return  # it is never given a job that it does not start
            async with anyio.create_task_group() as group:
                for number in range(executor.slots):
                    arguments = {"folder": str(tmp_path), "name": f"b{number}"}
                    group.start_soon(
                        self.must_succeed, executor, self.job(tmp_path, wait_for, f"b{number}", arguments=arguments)
                    )
                for number in range(executor.slots):
                    await self.seen(tmp_path / f"b{number}.begun")
                waiting = Recorder()
                with anyio.move_on_after(0.05) as scope:
                    arguments = {"folder": str(tmp_path), "name": "late"}
                    await executor.run(self.job(tmp_path, mark, "late", arguments=arguments), waiting)
                assert scope.cancelled_caught
                assert waiting.times == 0
                (tmp_path / "go").touch()
            await self.must_succeed(executor, self.job(tmp_path, add, "after", arguments={"a": 1}))
            assert not (tmp_path / "late.ran").exists()

    # ---------------------------------------------------------------- capabilities

    async def test_capabilities_are_what_is_so(self, tmp_path: Path) -> None:
        """They are data, of those that the port knows; what is off raises when it is required."""
        known = {"kills", "isolates", "streams", "remote"}
        async with self.make(tmp_path) as executor:
            self.check_capabilities(executor, known)
            for capability in known - executor.capabilities:
                with pytest.raises(UnsupportedError, match=capability):
                    executor.require(capability, "be asked")
            outcome = await self.do(executor, self.job(tmp_path, who))
            here = self.loaded(tmp_path, outcome)[0] == os.getpid()
            assert here is executor.in_process, (
                f"jobs run in {'this process' if here else 'other processes'}, and in_process says "
                f"{executor.in_process}: it follows from the capabilities isolates and remote"
            )

    # ---------------------------------------------------------------- coming and going

    def test_nothing_is_left_behind(self, tmp_path: Path) -> None:
        """No thread, no process and no open file: the second use leaves no more than the first."""

        async def use() -> None:
            async with self.make(tmp_path) as executor:
                for call in (add, add_async):
                    await self.must_succeed(executor, self.job(tmp_path, call, arguments={"a": 1}))

        for backend in self.backends:
            anyio.run(use, backend=backend)
            before = leftovers()
            anyio.run(use, backend=backend)
            assert leftovers(since=before).no_more_than(before)

    async def test_leaving_it_unused_is_no_trouble(self, tmp_path: Path) -> None:
        """It may be entered and left without a job."""
        with anyio.fail_after(self.patience):
            async with self.make(tmp_path):
                pass

    # ---------------------------------------------------------------- any mixture of jobs

    def test_any_mixture_of_jobs_gives_what_each_must(self, tmp_path: Path) -> None:
        """Compared with what the functions give by themselves, in any order and number at once."""
        kinds = st.sampled_from(["value", "async", "stream", "async stream", "fail", "async fail"])

        @settings(
            max_examples=self.examples, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
        )
        @given(jobs=st.lists(st.tuples(kinds, st.integers(0, 3)), max_size=12), at_once=st.integers(1, 4))
        def mixture(jobs: list[tuple[str, int]], at_once: int) -> None:
            anyio.run(self._mixture, tmp_path, jobs, at_once, backend=self.backends[0])

        mixture()

    async def _mixture(self, tmp_path: Path, jobs: list[tuple[str, int]], at_once: int) -> None:
        waiting = [*enumerate(jobs)]
        async with self.make(tmp_path) as executor:

            async def lane() -> None:
                while waiting:
                    number, (kind, n) = waiting.pop()
                    call, arguments, streams, wanted = _EXPECTED[kind](n)
                    job = self.job(tmp_path, call, f"t{number}", arguments=arguments, streams=streams)
                    outcome = await self.do(executor, job)
                    if wanted is None:
                        assert outcome.state is State.FAILED
                    else:
                        assert self.loaded(tmp_path, outcome) == wanted

            async with anyio.create_task_group() as group:
                for _ in range(at_once):
                    group.start_soon(lane)


_EXPECTED: dict[str, Callable[[int], tuple[Callable[..., Any], dict[str, Any], bool, Any]]] = {
    "value": lambda n: (add, {"a": n}, False, n + 10),
    "async": lambda n: (add_async, {"a": n}, False, n + 10),
    "stream": lambda n: (count, {"n": n}, True, [*range(n)]),
    "async stream": lambda n: (count_async, {"n": n}, True, [*range(n)]),
    "fail": lambda n: (fail, {"kind": "value"}, False, None),  # noqa: ARG005
    "async fail": lambda n: (fail_async, {"kind": "value"}, False, None),  # noqa: ARG005
}
