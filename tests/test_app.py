"""The whole way: tasks in, results out, on asyncio and on trio, inline and on threads."""

from __future__ import annotations

import asyncio
import dataclasses
import pickle
import threading
import time
import traceback
from collections.abc import AsyncIterator, Iterator

import anyio
import pytest

import dpcore
import dpcore_plugins
from dpcore import App, Executor, Outcome, State, current_job
from dpcore.config import Config
from dpcore.errors import (
    AdapterNotFoundError,
    AppStateError,
    NoCurrentJobError,
    NotSharedError,
    NoValueError,
    PlanningError,
    RunCancelledError,
    RunExistsError,
    RunFailedError,
    RunningLoopError,
    RunNotFoundError,
    SettingError,
    TaskError,
    TaskNotFoundError,
    TaskTimeoutError,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.fixture(params=["inline", "threads"])
def executor(request):
    return request.param


@pytest.fixture(params=["memory", "durable"])
def app(request, tasks, plugins, executor, tmp_path):
    if request.param == "memory":
        return App(tasks, executor=executor, plugins=plugins)
    return App(
        tasks, executor=executor, plugins=plugins, io=f"filesystem:{tmp_path}/runs", store=f"sqlite:{tmp_path}/runs.db"
    )


@pytest.fixture
def quick(tasks, plugins, executor):
    return App(tasks, executor=executor, plugins=plugins)


async def test_sync_async_and_generator_tasks_run_together(tasks, app):
    @tasks.task
    def numbers() -> Iterator[int]:
        yield from [1, 2, 3]

    @tasks.task
    async def words() -> AsyncIterator[str]:
        for word in ["a", "b"]:
            await anyio.lowlevel.checkpoint()
            yield word

    @tasks.task
    async def total(numbers: list[int]) -> int:
        await anyio.lowlevel.checkpoint()
        return sum(numbers)

    @tasks.task
    def joined(words: Iterator[str], numbers: Iterator[int]) -> str:
        assert not isinstance(words, list)
        return "".join(words) + "".join(map(str, numbers))

    @tasks.task
    async def counted(words: AsyncIterator[str]) -> int:
        return len([word async for word in words])

    @tasks.task(each="numbers")
    def doubled(number: int) -> int:
        return number * 2

    @tasks.task(stream_output=False)
    def collected() -> Iterator[int]:
        yield from [7, 8]

    @tasks.task(stream_output=True)
    def listed() -> list[int]:
        return [4, 5]

    @tasks.task
    def nothing() -> None:
        pass

    @tasks.task
    def positional(total: int, /, extra: int = 1) -> int:
        return total + extra

    async with app:
        result = await app.run(metadata={"who": "me"})
        assert dict(result) == {
            "numbers": [1, 2, 3], "words": ["a", "b"], "total": 6, "joined": "ab123", "counted": 2,
            "doubled": [2, 4, 6], "collected": [7, 8], "listed": [4, 5], "nothing": None, "positional": 7,
        }  # fmt: skip
        history = await app.history(result.run_id)
    assert result.state is State.SUCCEEDED
    assert history.record.state is State.SUCCEEDED
    assert history.record.counts == {"succeeded": 10}
    assert history.record.metadata == {"who": "'me'"}
    assert pickle.loads(history.record.carried) == ({}, {"who": "me"})
    assert {name: change.state for name, change in history.tasks.items()} == dict.fromkeys(result, State.SUCCEEDED)
    assert history.tasks["numbers"].count == 3


async def test_current_job_knows_run_attempt_params_and_metadata(tasks, quick):
    seen = []

    @tasks.task(max_retries=1)
    def once(day: int) -> str:
        job = current_job()
        seen.append((job.task, job.attempt, dict(job.params), dict(job.metadata), job.nominal, job.index))
        job.log.info("seen")
        if job.attempt == 1:
            raise ValueError("again")
        return job.run_id

    @tasks.task
    async def other() -> str:
        await anyio.lowlevel.checkpoint()
        return current_job().task

    async with quick as app:
        result = await app.run(params={"day": "3"}, metadata={"a": 1}, run_id="mine")
    assert seen == [("once", attempt, {"day": "3"}, {"a": 1}, None, None) for attempt in (1, 2)]
    assert result["once"] == result.run_id == "mine"
    assert result["other"] == "other"
    assert result.outcomes["once"].attempt == 2


def test_outside_a_task_there_is_no_job():
    with pytest.raises(NoCurrentJobError, match="answers only inside a task"):
        current_job()


async def test_a_failed_run_raises_what_its_tasks_raised_with_where_it_was(tasks, app):
    @tasks.task
    def bad() -> int:
        raise KeyError("row 7")

    @tasks.task
    async def worse() -> int:
        raise SystemExit(3)

    @tasks.task
    def after(bad: int) -> int:
        return bad

    @tasks.task
    def apart() -> int:
        return 1

    async with app:
        with pytest.raises(RunFailedError) as caught:
            await app.run()
        result = await app.run(check=False)
        history = await app.history(result.run_id)
    first, second = caught.value.exceptions
    assert type(first) is KeyError
    assert "in task 'bad', attempt 1 of run" in first.__notes__[0]
    assert isinstance(second, TaskError)
    assert "task 'worse' raised SystemExit: 3" in str(second)
    assert result.state is State.FAILED
    assert dict(result) == {"apart": 1}
    assert set(result.errors) == {"bad", "worse"}
    assert result.outcomes["after"].reason == "'bad' failed"
    assert "raise KeyError" in result.outcomes["bad"].traceback
    assert "worker.py" not in result.outcomes["bad"].traceback
    assert history.tasks["bad"].error == "KeyError: 'row 7'"
    assert history.record.counts == {"failed": 2, "skipped": 1, "succeeded": 1}
    with pytest.raises(NoValueError, match=r"task 'bad' has no value in this result: it failed: KeyError\('row 7'\)"):
        result["bad"]
    with pytest.raises(NoValueError, match="it skipped: 'bad' failed"):
        result["after"]
    with pytest.raises(TaskNotFoundError, match="did you mean 'apart'"):
        result["aprt"]


def test_a_failed_run_shows_the_users_frames_and_not_how_they_came_to_be_called(tasks, plugins, executor):
    def bad() -> int:
        try:
            return 1 // 0
        except ZeroDivisionError as error:
            raise ValueError("no rows") from error

    async def worse() -> int:
        await anyio.lowlevel.checkpoint()
        raise FrozenError(7)

    tasks.task(bad)
    tasks.task(worse)
    result = dpcore.run(registry=tasks, plugins=plugins, executor=executor, check=False)
    for name, error in result.errors.items():
        frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        assert frames == [name]
    assert [frame.name for frame in traceback.extract_tb(result.errors["bad"].__cause__.__traceback__)] == ["bad"]


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    row: int


@pytest.mark.parametrize(
    "error", [StopIteration, StopAsyncIteration, GeneratorExit, SystemExit, asyncio.CancelledError, MemoryError]
)
async def test_whatever_a_body_raises_is_a_failed_attempt_and_nothing_hangs(tasks, quick, error):
    @tasks.task
    def plain() -> int:
        raise error

    @tasks.task
    def stream() -> Iterator[int]:
        yield 1
        raise error

    with anyio.fail_after(10):
        async with quick as app:
            result = await app.run(check=False)
    assert {outcome.state for outcome in result.outcomes.values()} == {State.FAILED}
    io = await_free_io(result)
    assert io.list(result.run_id) == [], "what a failed stream had stored is freed"


def await_free_io(result):
    return result._io


@pytest.mark.parametrize("error", [StopIteration, SystemExit, asyncio.CancelledError])
async def test_whatever_a_coroutine_raises_is_a_failed_attempt_and_nothing_hangs(tasks, quick, error):
    @tasks.task
    async def body() -> int:
        await anyio.lowlevel.checkpoint()
        raise error

    with anyio.fail_after(10):
        async with quick as app:
            result = await app.run(check=False)
    assert result.outcomes["body"].state is State.FAILED


async def test_a_plain_function_that_returns_an_awaitable_is_told(tasks, quick):
    async def work():
        return 1

    tasks.task(name="wrapped")(lambda: work())
    async with quick as app:
        result = await app.run(check=False)
    assert "return an awaitable from a plain function" in str(result.errors["wrapped"])


async def test_a_stream_of_what_has_no_items_is_told(tasks, quick):
    @tasks.task(stream_output=True)
    def number() -> int:
        return 5

    async with quick as app:
        result = await app.run(check=False)
    assert "task 'number' streams its output, but returned 5, which has no items" in str(result.errors["number"])


async def test_a_task_is_tried_again_and_its_retry_waits_on_the_apps_clock(tasks, plugins, executor):
    from dpcore.testing import FakeClock

    attempts = []

    @tasks.task(max_retries=3, retry_delay=3600, backoff=2)
    def flaky() -> int:
        attempts.append(current_job().attempt)
        if len(attempts) < 3:
            raise OSError("no")
        return len(attempts)

    clock = FakeClock(autojump=True)
    began = clock.monotonic()
    with anyio.fail_after(10):
        async with App(tasks, executor=executor, plugins=plugins, clock=clock) as app:
            result = await app.run()
    assert result["flaky"] == 3
    assert attempts == [1, 2, 3]
    assert clock.monotonic() - began == pytest.approx(3 * 3600, abs=1)


async def test_an_async_task_is_stopped_exactly_at_its_timeout(tasks, quick):
    cleaned = []

    @tasks.task(timeout=0.05)
    async def slow() -> int:
        try:
            await anyio.sleep(60)
        finally:
            cleaned.append(True)
        return 1

    with anyio.fail_after(10):
        async with quick as app:
            result = await app.run(check=False)
    outcome = result.outcomes["slow"]
    assert outcome.state is State.TIMED_OUT
    assert isinstance(outcome.error, TaskTimeoutError)
    assert str(outcome.error) == "task 'slow' took longer than its timeout of 0.05 s; it was stopped"
    assert not outcome.still_running
    assert cleaned == [True]


async def test_a_plain_task_on_a_thread_is_given_up_at_its_timeout_and_said_to_run_on(tasks, plugins):
    release = threading.Event()

    @tasks.task(timeout=0.05)
    def stuck() -> int:
        release.wait(30)
        return 1

    with anyio.fail_after(10):
        async with App(tasks, executor="threads", plugins=plugins) as app:
            result = await app.run(check=False)
            release.set()
    outcome = result.outcomes["stuck"]
    assert outcome.state is State.TIMED_OUT
    assert outcome.still_running
    assert "this executor cannot stop it, so its code may still be running" in str(outcome.error)


async def test_a_plain_task_inline_that_ends_late_has_timed_out(tasks, plugins):
    @tasks.task(timeout=0.01)
    def late() -> int:
        deadline = time.perf_counter() + 0.03
        while time.perf_counter() < deadline:
            pass
        return 1

    async with App(tasks, executor="inline", plugins=plugins) as app:
        result = await app.run(check=False)
    assert result.outcomes["late"].state is State.TIMED_OUT
    assert "its result is discarded" in str(result.errors["late"])


async def test_a_timeout_may_be_retried(tasks, quick):
    @tasks.task(timeout=0.05, max_retries=1)
    async def slow() -> int:
        if current_job().attempt == 1:
            await anyio.sleep(60)
        return 1

    with anyio.fail_after(10):
        async with quick as app:
            assert (await app.run())["slow"] == 1


async def test_threads_really_run_at_once(tasks, plugins):
    barrier = threading.Barrier(4, timeout=20)
    for number in range(4):

        @tasks.task(name=f"t{number}")
        def meet() -> int:
            return barrier.wait()

    async with App(tasks, executor="threads?slots=4", plugins=plugins) as app:
        result = await app.run()
    assert sorted(result.values()) == [0, 1, 2, 3]


async def test_no_more_jobs_run_than_there_are_slots(tasks, plugins):
    running, most = [0], [0]
    lock = threading.Lock()
    for number in range(12):

        @tasks.task(name=f"t{number}")
        def count() -> None:
            with lock:
                running[0] += 1
                most[0] = max(most[0], running[0])
            time.sleep(0.002)
            with lock:
                running[0] -= 1

    async with App(tasks, executor="threads?slots=3", plugins=plugins) as app:
        await app.run()
    assert 1 <= most[0] <= 3


async def test_cancelling_the_call_cancels_the_run_and_records_it(tasks, app):
    started = anyio.Event()
    cleaned = []

    @tasks.task
    async def endless() -> int:
        started.set()
        try:
            await anyio.sleep_forever()
        finally:
            cleaned.append(True)

    @tasks.task(dependencies=["endless"])
    def after() -> int:
        return 1

    with anyio.fail_after(10):
        async with app:
            async with anyio.create_task_group() as group:

                async def run() -> None:
                    await app.run(run_id="r1")

                group.start_soon(run)
                await started.wait()
                group.cancel_scope.cancel()
            history = await app.history("r1")
    assert cleaned == [True]
    assert history.record.state is State.CANCELLED
    assert history.record.reason == "the program was interrupted"
    assert {name: change.state for name, change in history.tasks.items()} == dict.fromkeys(
        ["endless", "after"], State.CANCELLED
    )


async def test_a_run_is_cancelled_by_its_id(tasks, quick):
    started = anyio.Event()

    @tasks.task
    async def endless() -> int:
        started.set()
        await anyio.sleep_forever()

    caught: list[RunCancelledError] = []
    with anyio.fail_after(10):
        async with quick as app, anyio.create_task_group() as group:

            async def run() -> None:
                try:
                    await app.run(run_id="r1")
                except RunCancelledError as error:
                    caught.append(error)

            group.start_soon(run)
            await started.wait()
            with pytest.raises(RunNotFoundError, match=r"there is no run 'r2' .*latest: 'r1'"):
                app.cancel("r2")
            app.cancel("r1", "the day is over")
    assert str(caught[0]) == "run 'r1' was cancelled: the day is over"


async def test_leaving_the_app_cancels_what_still_runs(tasks, quick):
    started = anyio.Event()
    states = []

    @tasks.task
    async def endless() -> int:
        started.set()
        await anyio.sleep_forever()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group, quick as app:

            async def run() -> None:
                states.append((await app.run(check=False)).state)

            group.start_soon(run)
            await started.wait()
    assert states == [State.CANCELLED]


async def test_fail_fast_stops_what_runs(tasks, plugins):
    started = anyio.Event()

    @tasks.task
    async def endless() -> int:
        started.set()
        await anyio.sleep_forever()

    @tasks.task
    async def bad() -> int:
        await started.wait()
        raise ValueError("no")

    with anyio.fail_after(10):
        async with App(tasks, executor="threads", plugins=plugins) as app:
            result = await app.run(fail_fast=True, check=False)
    assert result.state is State.FAILED
    assert result.outcomes["endless"].state is State.CANCELLED


async def test_many_runs_at_once_share_one_app(tasks, app):
    @tasks.task
    def number(seed: int) -> int:
        return seed

    @tasks.task
    async def double(number: int) -> int:
        await anyio.lowlevel.checkpoint()
        return number * 2

    results = {}
    with anyio.fail_after(60):
        async with app:

            async def one(seed: int) -> None:
                results[seed] = (await app.run(params={"seed": seed}))["double"]

            async with anyio.create_task_group() as group:
                for seed in range(20):
                    group.start_soon(one, seed)
            records = await (await app.store()).list()
    assert results == {seed: seed * 2 for seed in range(20)}
    assert len({record.run_id for record in records}) == 20


async def test_a_run_id_is_used_once(tasks, app):
    tasks.task(name="one")(lambda: 1)
    async with app:
        await app.run(run_id="r1")
        with pytest.raises(RunExistsError, match="a run 'r1' is already recorded"):
            await app.run(run_id="r1")


async def test_data_of_an_earlier_run_feeds_a_partial_one(tasks, app):
    counts = {"orders": 0, "days": 0}

    @tasks.task
    def orders() -> list[int]:
        counts["orders"] += 1
        return [30, 12]

    @tasks.task
    def days() -> Iterator[int]:
        counts["days"] += 1
        yield from [1, 2]

    @tasks.task
    def total(orders: list[int], days: list[int]) -> int:
        return sum(orders) + len(days)

    async with app:
        first = await app.run()
        again = await app.run(root_tasks=["total"], from_run=first.run_id)
        assert again["total"] == first["total"] == 44
        assert counts == {"orders": 1, "days": 1}
        with pytest.raises(RunNotFoundError, match="there is no run 'nope'"):
            await app.run(root_tasks=["total"], from_run="nope")
        other = await app.run("orders")
        with pytest.raises(PlanningError) as caught:
            await app.run(root_tasks=["total"], from_run=other.run_id)
    assert f"run {other.run_id!r} cannot give it: it is not in it" in str(caught.value)


async def test_only_leaves_are_kept_if_asked(tasks, app):
    @tasks.task
    def numbers() -> Iterator[int]:
        yield from [1, 2]

    @tasks.task
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    async with app:
        result = await app.run(keep="leaves")
        io = await app.io()
        assert [ref.task for ref in io.list(result.run_id)] == ["total"]
    assert dict(result) == {"total": 3}
    with pytest.raises(NoValueError, match="it was freed after its last reader, because keep='leaves'"):
        result["numbers"]


async def test_a_memory_value_is_the_object_itself(tasks, plugins):
    value = object()
    tasks.task(name="one")(lambda: value)
    async with App(tasks, plugins=plugins) as app:
        assert (await app.run())["one"] is value


class Watcher:
    """A plugin that writes down what it is told, and one whose hooks always fail."""

    def __init__(self) -> None:
        self.told = []

    def dpcore_run_changed(self, run, old, new):
        self.told.append(f"run {old}>{new}")

    def dpcore_task_changed(self, task, attempt, old, new, outcome):
        self.told.append(f"{task.name} {attempt} {old}>{new} {'' if outcome is None else outcome.state}".strip())

    def dpcore_started(self):
        self.told.append("started")

    def dpcore_stopping(self):
        self.told.append("stopping")


class Broken:
    def dpcore_run_changed(self, run):
        raise RuntimeError("watching is hard")

    def dpcore_task_changed(self, task):
        raise RuntimeError("watching is hard")


async def test_observers_are_told_everything_once_and_one_that_fails_breaks_nothing(tasks, executor, caplog):
    @tasks.task(max_retries=1)
    def flaky() -> int:
        if current_job().attempt == 1:
            raise ValueError("no")
        return 1

    watcher = Watcher()
    plugins = dpcore.Plugins(Broken(), watcher, installed=False)
    async with App(tasks, executor=executor, plugins=plugins) as app:
        await app.run()
    assert watcher.told == [
        "started",
        "run pending>running",
        "flaky 1 pending>running",
        "flaky 1 running>retrying failed",
        "flaky 2 retrying>running",
        "flaky 2 running>succeeded succeeded",
        "run running>succeeded",
        "stopping",
    ]
    assert "Broken" in caplog.text
    assert "watching is hard" in caplog.text


async def test_a_plugin_may_reshape_the_plan(tasks, executor):
    tasks.task(name="one")(lambda: 1)
    tasks.task(name="two")(lambda: 2)

    class OnlyOne:
        def dpcore_plan(self, plan):
            return dpcore.plan("one", registry=tasks)

    async with App(tasks, executor=executor, plugins=dpcore.Plugins(OnlyOne(), installed=False)) as app:
        assert dict(await app.run()) == {"one": 1}


async def test_an_executor_that_breaks_is_a_failed_attempt(tasks, plugins):
    class Lost(Executor):
        slots = 2

        async def run(self, job, line):
            raise ConnectionError("the cluster is gone")

    tasks.task(name="one")(lambda: 1)
    tasks.task(name="two")(lambda: 1)
    with anyio.fail_after(10):
        async with App(tasks, executor=Lost(), plugins=plugins) as app:
            result = await app.run(check=False)
    assert [str(error) for error in result.errors.values()] == ["the cluster is gone"] * 2


class Processes(Executor):
    """As simple as an executor in other processes can be: what design.md calls one line."""

    capabilities = frozenset({"isolates"})
    slots = 2

    async def run(self, job, line) -> Outcome:
        from anyio import to_process

        return await to_process.run_sync(dpcore.perform, job, cancellable=True)


def in_process() -> int:
    import os

    return os.getpid()


def raises() -> int:
    raise KeyError("over there")


async def test_an_executor_in_other_processes_gets_a_folder_that_both_reach(tasks, plugins):
    import os

    tasks.task(in_process)
    tasks.task(raises)
    tasks.task(name="closure", dependencies=["in_process"])(lambda in_process: in_process + 1)
    with anyio.fail_after(60):
        async with App(tasks, executor=Processes(), plugins=plugins) as app:
            result = await app.run(check=False)
            folder = result._folder.path
    assert result["in_process"] != os.getpid()
    assert result["closure"] == result["in_process"] + 1
    assert type(result.errors["raises"]) is KeyError
    assert "raises" in result.errors["raises"].__notes__[0]
    assert folder.exists()
    del result, app
    import gc

    gc.collect()
    assert not folder.exists()


async def test_an_executor_in_other_processes_with_memory_is_a_planning_error_that_names_both(tasks, plugins):
    tasks.task(in_process)
    async with App(tasks, executor=Processes(), io="memory", plugins=plugins) as app:
        with pytest.raises(PlanningError) as caught:
            await app.run()
    (fault,) = caught.value.exceptions
    assert isinstance(fault, NotSharedError)
    assert "executor Processes runs tasks in other processes" in str(fault)
    assert "MemoryIO" in str(fault)


async def test_an_unknown_adapter_is_told_when_it_is_used(tasks, plugins):
    tasks.task(name="one")(lambda: 1)
    async with App(tasks, executor="thread", plugins=plugins) as app:
        with pytest.raises(AdapterNotFoundError, match="did you mean 'threads'"):
            await app.run()


async def test_an_app_is_entered_once_and_before_it_is_used(tasks, plugins):
    tasks.task(name="one")(lambda: 1)
    app = App(tasks, plugins=plugins)
    with pytest.raises(
        AppStateError, match=r"^this App is not entered; enter it first: async with App\(\.\.\.\) as app$"
    ):
        await app.run()
    async with app:
        with pytest.raises(AppStateError, match=r"^this App is entered already; make another one$"):
            await app.__aenter__()


async def test_an_app_tells_whether_it_is_entered(tasks, plugins):
    app = App(tasks, plugins=plugins)
    assert not app.entered
    async with app:
        assert app.entered
    assert not app.entered


async def test_a_broker_that_is_named_must_be_offered_when_the_app_is_entered(tasks, plugins):
    tasks.task(name="one")(lambda: 1)
    with pytest.raises(AdapterNotFoundError, match="no plugin offers the broker 'nope'"):
        async with App(tasks, broker="nope://x", plugins=plugins):
            pytest.fail("it was entered")
    config = Config(environ={"DPCORE_BROKER": "nonsense"})
    with pytest.raises(AdapterNotFoundError, match="no plugin offers the broker 'nonsense'"):
        async with App(tasks, config=config, plugins=plugins):
            pytest.fail("it was entered")
    async with App(tasks, broker="memory", plugins=plugins) as app:
        assert (await app.run())["one"] == 1


async def test_an_earlier_run_must_be_there_though_nothing_is_taken_from_it(tasks, app):
    tasks.task(name="one")(lambda: 1)
    async with app:
        with pytest.raises(RunNotFoundError, match="there is no run 'no-such-run'"):
            await app.run("one", from_run="no-such-run")


def test_an_unknown_argument_of_run_is_told_with_the_nearest_one(tasks):
    with pytest.raises(TypeError, match=r"^run\(\) takes no 'executer'; did you mean 'executor'\?$"):
        dpcore.run(registry=tasks, executer="inline")
    with pytest.raises(TypeError, match=r"^run\(\) takes no 'fail_fats'; did you mean 'fail_fast'\?$"):
        dpcore.run(registry=tasks, fail_fats=True)


async def test_run_inside_a_running_loop_says_what_to_write_instead():
    with pytest.raises(RunningLoopError) as caught:
        dpcore.run()
    assert "async with dpcore.App() as app:" in str(caught.value)
    assert "result = await app.run()" in str(caught.value)
    assert isinstance(caught.value, RuntimeError)


def test_run_is_the_whole_in_one_call(tasks, plugins, executor):
    @tasks.task(tags=["demo"])
    def orders() -> list[int]:
        return [30, 10, 2]

    @tasks.task(tags=["demo"])
    def total(orders: list[int]) -> int:
        return sum(orders)

    result = dpcore.run(tags=["demo"], registry=tasks, executor=executor, plugins=plugins)
    assert result["total"] == 42
    assert len(result) == 2
    assert "orders" in result
    assert result.duration > 0
    assert "succeeded, 2 values" in repr(result)


def test_settings_of_the_environment_choose_adapters_and_the_call_beats_them(tasks, monkeypatch, tmp_path):
    tasks.task(name="one")(lambda: 1)
    monkeypatch.setenv("DPCORE_IO", f"filesystem:{tmp_path}/runs")
    monkeypatch.setenv("DPCORE_EXECUTOR", "nope")
    plugins = dpcore.Plugins(installed=False)
    result = dpcore.run(registry=tasks, executor="inline", plugins=plugins)
    assert (tmp_path / "runs" / result.run_id / "one" / "1.pkl").is_file()
    with pytest.raises(AdapterNotFoundError, match="'nope'"):
        dpcore.run(registry=tasks, plugins=plugins)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"keep": "some"}, "keep='some' must be 'all' or 'leaves'"),
        ({"params": ["day"]}, r"params=\['day'\] must be a mapping"),
        ({"run_id": "../x"}, "cannot be a run id"),
        ({"run_id": ""}, "it is empty"),
    ],
)
async def test_an_argument_of_run_that_makes_no_sense_is_told(tasks, plugins, arguments, words):
    tasks.task(name="one")(lambda: 1)
    async with App(tasks, plugins=plugins) as app:
        with pytest.raises((ValueError, TypeError), match=words):
            await app.run(**arguments)
        assert await (await app.store()).list() == []


async def test_functions_select_the_tasks_they_are_whatever_their_names(tasks, plugins):
    @tasks.task(name="load")
    def other() -> str:
        return "wrong"

    @tasks.task(name="etl.load")
    def load() -> str:
        return "right"

    async with App(tasks, plugins=plugins) as app:
        assert dict(await app.run(root_tasks=[load])) == {"etl.load": "right"}
        assert dict(await app.run(exclude=[other])) == {"etl.load": "right"}
        result = await app.run(load)
        assert (await app.history(result.run_id)).record.selection["selection"] == ["etl.load"]


async def test_an_exception_that_cannot_be_written_down_fails_its_task_and_no_more(tasks, app):
    @dataclasses.dataclass(frozen=True)
    class Frozen(Exception):
        code: int

    class Mute(Exception):
        def __str__(self):
            raise RuntimeError

    errors = {"surrogate": ValueError("caf\udce9.csv"), "frozen": Frozen(7), "mute": Mute()}
    for name, error in errors.items():

        @tasks.task(name=name)
        def bad(error=error):
            raise error

    @tasks.task
    def good() -> int:
        return 1

    async with app:
        result = await app.run(check=False, metadata={"file": "caf\udce9.csv"})
        history = await app.history(result.run_id)
        with pytest.raises(RunFailedError):
            result.raise_for_failure()
    assert result["good"] == 1
    assert {name: type(error) for name, error in result.errors.items()} == {
        name: type(error) for name, error in errors.items()
    }
    assert history.tasks["surrogate"].error == "ValueError: caf\\udce9.csv"
    assert history.record.state is State.FAILED


async def test_an_abandoned_thread_keeps_its_slot_until_it_ends(tasks, plugins):
    running, most, lock, release = [0], [0], threading.Lock(), threading.Event()

    @tasks.task(timeout=0.02, max_retries=5, fail_safe=True)
    def stuck() -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        release.wait(0.15)
        with lock:
            running[0] -= 1

    with anyio.fail_after(20):
        async with App(tasks, executor="threads?slots=1", plugins=plugins) as app:
            result = await app.run()
    assert result.outcomes["stuck"].state is State.TIMED_OUT
    assert result.outcomes["stuck"].attempt == 6
    assert most[0] == 1


@pytest.mark.parametrize(("adapter", "slots"), [("inline", 1), ("threads?slots=2", 2)])
async def test_runs_of_one_app_share_its_slots(tasks, plugins, adapter, slots):
    running, most = [0], [0]

    @tasks.task
    async def work() -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        for _ in range(1000):  # until as many are here as there may be, and then long enough for one too many
            await anyio.lowlevel.checkpoint()
            if most[0] >= slots:
                break
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        running[0] -= 1

    async with App(tasks, executor=adapter, plugins=plugins) as app, anyio.create_task_group() as group:
        for _ in range(6):
            group.start_soon(app.run)
    assert most[0] == slots


async def test_a_generator_is_closed_when_an_item_of_it_cannot_be_stored(tasks, plugins, executor, tmp_path):
    closed = []

    @tasks.task
    def items() -> Iterator[object]:
        try:
            yield 1
            yield threading.Lock()
        finally:
            closed.append(True)

    async with App(tasks, executor=executor, io=f"filesystem:{tmp_path}/runs", plugins=plugins) as app:
        result = await app.run(check=False)
        assert closed == [True]
        assert result.state is State.FAILED
        assert (await app.io()).list(result.run_id) == []


async def test_a_stream_that_timed_out_leaves_no_item_behind(tasks, quick):
    @tasks.task(timeout=0.05)
    async def endless() -> AsyncIterator[int]:
        number = 0
        while True:
            yield (number := number + 1)
            await anyio.sleep(0.001)

    with anyio.fail_after(10):
        async with quick as app:
            result = await app.run(check=False)
            assert (await app.io()).list(result.run_id) == []
    assert result.outcomes["endless"].state is State.TIMED_OUT


async def test_a_positional_parameter_that_is_left_out_keeps_its_default(tasks, quick):
    @tasks.task
    def pair(a: int = 1, b: int = 2, /) -> tuple[int, int]:
        return a, b

    async with quick as app:
        assert (await app.run(params={"b": 5}))["pair"] == (1, 5)


async def test_a_result_that_cannot_be_deleted_disturbs_nothing(tasks, executor, caplog):
    class Sticky(dpcore_plugins.MemoryIO):
        def remove(self, ref):
            raise OSError("read-only")

    tasks.task(name="one")(lambda: 1)
    tasks.task(name="two", dependencies=["one"])(lambda one: one + 1)
    async with App(tasks, executor=executor, io=Sticky(), plugins=dpcore.Plugins(installed=False)) as app:
        assert (await app.run(keep="leaves"))["two"] == 2
    assert "which nobody reads any more, cannot be deleted" in caplog.text


async def test_an_executor_without_a_slot_is_told_before_anything_runs(tasks, plugins):
    class Slotless(Executor):
        slots = 0

        async def run(self, job, line): ...

    tasks.task(name="one")(lambda: 1)
    async with App(tasks, executor=Slotless(), plugins=plugins) as app:
        with pytest.raises(SettingError, match="executor Slotless: setting 'slots' is 0 with a window of 0"):
            await app.run()
        assert await (await app.store()).list() == []


def test_a_keyboard_interrupt_in_a_body_cancels_the_run_records_it_and_goes_on(tasks, plugins, tmp_path):
    def interrupted() -> None:
        raise KeyboardInterrupt

    tasks.task(interrupted)
    store = f"sqlite:{tmp_path}/runs.db"
    with pytest.raises(KeyboardInterrupt):
        dpcore.run(registry=tasks, executor="inline", store=store, plugins=plugins)

    async def look():
        async with App(tasks, store=store, plugins=plugins) as app:
            return await (await app.store()).list()

    (record,) = anyio.run(look)
    assert record.state is State.CANCELLED


@pytest.mark.parametrize(
    "make", [dpcore_plugins.InlineExecutor, dpcore_plugins.ThreadsExecutor, lambda: "threads", lambda: "inline"]
)
def test_an_app_is_entered_again_on_another_event_loop(tasks, plugins, make):
    @tasks.task
    def plain() -> int:
        return 1

    @tasks.task
    async def waits(plain: int) -> int:
        await anyio.lowlevel.checkpoint()
        return plain + 1

    app = App(tasks, executor=make(), plugins=plugins)

    async def main() -> int:
        async with app:
            return (await app.run())["waits"]

    assert [anyio.run(main, backend=backend) for backend in ("asyncio", "trio", "asyncio")] == [2, 2, 2]


class SlowToEnter(dpcore_plugins.InlineExecutor):
    """Waits at its entrance until *gate* is set; counts how often it was entered."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = anyio.Event()
        self.entered = 0

    async def __aenter__(self):
        self.entered += 1
        await self.gate.wait()
        return self


async def test_an_adapter_is_made_for_the_app_although_who_asked_first_was_cancelled(tasks, plugins):
    @tasks.task
    def one() -> int:
        return 1

    executor = SlowToEnter()
    async with App(tasks, executor=executor, plugins=plugins) as app:
        with anyio.move_on_after(0.01) as first:
            await app.run()
        assert first.cancelled_caught
        executor.gate.set()
        with anyio.fail_after(10):
            assert (await app.run())["one"] == 1
    assert executor.entered == 1


async def test_an_adapter_that_fails_to_be_entered_fails_each_that_asks_and_nothing_else(tasks, plugins):
    class Refuses(dpcore_plugins.InlineExecutor):
        async def __aenter__(self):
            raise OSError("the cluster is gone")

    @tasks.task
    def one() -> int:
        return 1

    async with App(tasks, executor=Refuses(), plugins=plugins) as app:
        for _ in range(2):
            with pytest.raises(OSError, match="the cluster is gone"):
                await app.run()
        assert await app.store()


@pytest.mark.parametrize("held_up", [0.3, 0.6])
async def test_a_job_that_ended_in_time_has_succeeded_though_the_event_loop_was_held_up(tasks, plugins, held_up):
    begun = threading.Event()

    @tasks.task(timeout=0.4)
    def quick() -> str:
        begun.set()
        threading.Event().wait(0.05)
        return "done"

    @tasks.task
    async def rude() -> None:
        while not begun.is_set():
            await anyio.sleep(0.001)
        threading.Event().wait(held_up)

    async with App(tasks, executor="threads", plugins=plugins) as app:
        assert (await app.run())["quick"] == "done"


class OneLine(Executor):
    """The shortest there is: nobody is told when a job begins."""

    slots = 2

    async def run(self, job, line):
        return await anyio.to_thread.run_sync(dpcore.perform, job, abandon_on_cancel=True)


async def test_where_nobody_says_when_a_job_begins_it_began_when_it_was_given(tasks, plugins):
    ending, begun = threading.Event(), threading.Event()

    @tasks.task(timeout=0.05)
    def slow() -> None:
        ending.wait(20)

    @tasks.task(dependencies=["slow"])
    def after() -> None: ...

    @tasks.task
    def waits() -> None:
        begun.set()
        ending.wait(20)

    async with App(tasks, executor=OneLine(), plugins=plugins) as app:
        with anyio.fail_after(10):
            result = await app.run("slow", "after", check=False)
        outcome = result.outcomes["slow"]
        assert (outcome.state, outcome.still_running) == (State.TIMED_OUT, True)
        assert outcome.duration >= 0.05
        async with anyio.create_task_group() as group:

            async def cancelled() -> None:
                outcome = (await app.run("waits", run_id="r2", check=False)).outcomes["waits"]
                assert (outcome.state, outcome.still_running) == (State.CANCELLED, True)

            group.start_soon(cancelled)
            while not begun.is_set():
                await anyio.sleep(0.001)
            app.cancel("r2")
        ending.set()


async def test_what_a_job_makes_after_it_was_given_up_is_not_stored(tasks, plugins):
    going_on, ended = threading.Event(), threading.Event()

    @tasks.task(timeout=0.05, stream_output=True)
    def stream() -> Iterator[int]:
        try:
            yield 1
            going_on.wait(20)
            yield 2
        finally:
            ended.set()

    @tasks.task(timeout=0.05)
    def value() -> int:
        going_on.wait(20)
        return 3

    io = dpcore_plugins.MemoryIO()
    async with App(tasks, executor="threads", io=io, plugins=plugins) as app:
        result = await app.run(check=False)
        assert {outcome.state for outcome in result.outcomes.values()} == {State.TIMED_OUT}
        going_on.set()
        await anyio.to_thread.run_sync(ended.wait, 20)
    while any(thread.name.startswith("threads-") for thread in threading.enumerate()):
        await anyio.sleep(0.001)
    assert io.runs() == []


async def test_what_was_given_up_and_cannot_be_found_again_disturbs_nothing(tasks, plugins, caplog):
    class Forgetful(dpcore_plugins.MemoryIO):
        def refs(self, run_id, task):
            raise OSError("no listing today")

    @tasks.task(timeout=0.05)
    async def stream() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep_forever()

    @tasks.task
    def other() -> int:
        return 2

    async with App(tasks, io=Forgetful(), plugins=plugins) as app:
        result = await app.run(check=False)
    assert result.outcomes["stream"].state is State.TIMED_OUT
    assert result.outcomes["other"].state is State.SUCCEEDED
    assert "cannot be found" in caplog.text
