"""Many runs on one executor: shares, limits by tag, priorities; decided without waiting, and through an app."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpcore import App, Registry, State, current_job, hookimpl, plan
from dpcore.config import Config
from dpcore.errors import ArgumentError, TaskDefinitionError
from dpcore.jobs import Items
from dpcore.runs import Run, Start
from dpcore.slots import Limits, shares
from dpcore_plugins import ThreadsExecutor
from tests.test_runs import NoIO, succeeded

# ---------------------------------------------------------------- shares

WANTS = st.lists(st.tuples(st.integers(-2, 2), st.integers(0, 40)), min_size=1, max_size=12)


@given(st.integers(1, 30), WANTS)
def test_everybody_gets_a_place_and_none_is_left_over_that_somebody_wants(places, wants):
    given = shares(places, wants)
    assert all(1 <= got <= max(1, wanted) for got, (_, wanted) in zip(given, wants, strict=True))
    assert sum(given) <= max(places, len(wants))
    if any(got < wanted for got, (_, wanted) in zip(given, wants, strict=True)):
        assert sum(given) >= places


@given(st.integers(1, 30), WANTS)
def test_nobody_has_more_than_another_of_its_priority_that_wants_more_or_than_one_of_a_higher(places, wants):
    given = shares(places, wants)
    for got, (priority, _) in zip(given, wants, strict=True):
        for other, (its, wanted) in zip(given, wants, strict=True):
            if other < wanted and its == priority:
                assert got <= other + 1
            elif other < wanted and its > priority:
                assert got == 1


# ---------------------------------------------------------------- limits


@st.composite
def tagged(draw):
    """Runs of tasks with tags, of which some have a limit."""
    most = draw(st.dictionaries(st.sampled_from("abc"), st.integers(1, 3), min_size=1))
    sizes = draw(st.lists(st.lists(st.sets(st.sampled_from("abcd")), min_size=1, max_size=12), min_size=1, max_size=3))
    return most, sizes


@given(tagged(), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_a_limit_is_never_passed_over_all_runs_and_nothing_waits_that_may_run(program, rng):
    most, sizes = program
    limits = Limits(most)
    runs = []
    for at, tags in enumerate(sizes):
        registry = Registry()
        for number, its in enumerate(tags):
            registry.task(name=f"t{number}", tags=sorted(its))(lambda: None)
        runs.append(Run(plan(registry=registry), f"r{at}", io=NoIO(), limits=limits))
    running: list[tuple[Run, Start]] = []
    while not all(run.ended for run in runs):
        for run in rng.sample(runs, len(runs)):
            while (start := run.take()) is not None:
                running.append((run, start))
        used = Counter(tag for run, start in running for tag in run.plan.tasks[start.task].tags)
        assert all(used[tag] <= limit for tag, limit in most.items())
        began = {(run.run_id, start.task) for run, start in running}
        for run in runs:
            for name, task in run.plan.tasks.items():
                if name not in run.outcomes and (run.run_id, name) not in began:
                    assert any(used[tag] == most[tag] for tag in task.tags if tag in most)
        run, start = running.pop(rng.randrange(len(running)))
        run.record(start, succeeded(run, start))
        run.release()
    assert all(limits.used(tag) == 0 for tag in most)
    assert all(run.state is State.SUCCEEDED and run.available == 0 for run in runs)


def days(count: int):
    def days() -> Iterator[int]:
        yield from range(count)

    return days


def load(day: int) -> None:
    pass


@given(
    st.dictionaries(st.sampled_from("ab"), st.integers(1, 3)),
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
)
@settings(deadline=None)
def test_so_many_attempts_are_available_as_can_be_taken(most, sizes, rng):
    """Of tasks with one tag each, every other one mapped."""
    registry = Registry()
    for number, (tag, count) in enumerate(sizes):
        if number % 2:
            registry.task(name=f"days{number}")(days(count))
            registry.task(name=f"m{number}", each=f"days{number}", inputs={"day": f"days{number}"}, tags=[tag])(load)
        else:
            registry.task(name=f"t{number}", tags=[tag])(lambda: None)
    limits = Limits(most)
    run = Run(plan(registry=registry), "r1", io=NoIO(), limits=limits)
    running: list[Start] = []
    while not run.ended:
        for left in range(run.available, 0, -1):
            assert run.available == left
            running.append(run.take())
            if rng.random() < 0.3:
                break
        else:
            assert run.take() is None
        start = running.pop(rng.randrange(len(running)))
        outcome = succeeded(run, start)
        if start.task.startswith("days"):
            items = Items("r1", start.task, sizes[int(start.task.removeprefix("days"))][1])
            outcome = msgspec.structs.replace(outcome, result=items)
        run.record(start, outcome)
        run.release()
    assert run.available == 0


def test_a_run_that_is_left_gives_back_what_its_jobs_had(tasks):
    tasks.task(name="load", tags=["db"])(lambda: None)
    limits = Limits({"db": 1})
    run = Run(plan(registry=tasks), "r1", io=NoIO(), limits=limits)
    assert run.take() is not None
    assert limits.used("db") == 1
    run.let_go()
    assert limits.used("db") == 0


def test_of_what_is_ready_the_higher_priority_starts_first(tasks):
    for name, priority in (("late", -1), ("plain", 0), ("first", 5)):
        tasks.task(name=name, priority=priority)(lambda: None)
    run = Run(plan(registry=tasks), "r1", io=NoIO())
    assert [run.take().task for _ in range(3)] == ["first", "plain", "late"]


def test_a_priority_is_a_whole_number(tasks):
    with pytest.raises(TaskDefinitionError, match="whole number"):
        tasks.task(name="a", priority="high")(lambda: None)


# ---------------------------------------------------------------- through an app

in_app = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.mark.parametrize("limits", [{"db": 0}, {"db": True}, {"": 1}, {1: 1}, ["db"], {"db": "2"}])
def test_limits_that_are_none_are_refused_in_words(limits):
    with pytest.raises(ArgumentError, match="from tag to how many jobs"):
        App(limits=limits)


def test_limits_of_the_project_file_hold_where_the_call_gives_none(tmp_path):
    (tmp_path / "dpcore.toml").write_text("[limits]\ndb = 2\n'two words' = 1\n")
    config = Config(tmp_path / "dpcore.toml", environ={})
    assert App(config=config)._slots.limits.most == {"db": 2, "two words": 1}
    assert App(config=config, limits={"api": 3})._slots.limits.most == {"api": 3}
    assert App(config=config, limits={})._slots.limits is None


@in_app
async def test_a_run_that_is_resumed_keeps_its_priority(tasks, plugins):
    wrong = [True]

    @tasks.task
    def load() -> int:
        return 1 // len(wrong[1:])

    async with App(tasks, executor="inline", plugins=plugins) as app:
        await app.run(run_id="r1", priority=3, check=False)
        wrong.append(True)
        await app.resume("r1")
        assert (await app.history("r1")).record.priority == 3


@in_app
async def test_a_priority_of_a_run_that_is_no_number_is_refused(tasks, plugins):
    async with App(tasks, plugins=plugins) as app:
        with pytest.raises(ArgumentError, match="whole number"):
            await app.run(priority=1.5)


@in_app
@pytest.mark.parametrize("executor", ["threads", "inline"])
async def test_no_more_jobs_of_a_tag_run_at_once_than_its_limit_in_all_runs_together(tasks, plugins, executor):
    lock, now, seen = threading.Lock(), Counter(), []

    def load() -> None:
        with lock:
            now["db"] += 1
            seen.append(now["db"])
        with lock:
            now["db"] -= 1

    for number in range(40):
        tasks.task(name=f"load{number}", tags=["db"])(load)
        tasks.task(name=f"free{number}")(lambda: None)
    with anyio.fail_after(30):
        async with App(tasks, executor=executor, limits={"db": 2}, plugins=plugins) as app:
            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(app.run)
            assert app._slots.limits.used("db") == 0
    assert len(seen) == 120
    assert max(seen) <= 2


@in_app
async def test_two_runs_that_may_have_one_job_between_them_take_turns(tasks, plugins):
    order: list[str] = []

    def load() -> None:
        order.append(current_job().run_id)

    for number in range(10):
        tasks.task(name=f"load{number}", tags=["db"])(load)
    with anyio.fail_after(30):
        app = App(tasks, executor="threads", limits={"db": 1}, plugins=plugins)
        async with app, anyio.create_task_group() as group:
            for name in ("one", "two", "three"):
                group.start_soon(lambda name=name: app.run(run_id=name))
    assert Counter(order) == {"one": 10, "two": 10, "three": 10}
    ends = {name: 29 - order[::-1].index(name) for name in ("one", "two", "three")}
    assert min(ends.values()) >= 24, order


@in_app
async def test_a_large_run_does_not_keep_a_small_one_waiting(tasks, plugins):
    """The large one cannot end before the small one has."""
    small_has_ended, begun = threading.Event(), threading.Event()
    for number in range(300):

        @tasks.task(name=f"many{number}", tags=["many"])
        def many(number: int = number) -> None:
            begun.set()
            if number == 299:
                assert small_has_ended.wait(10)

    for number in range(3):
        tasks.task(name=f"few{number}", tags=["few"])(lambda: None)

    async def few(app: App) -> None:
        await anyio.to_thread.run_sync(begun.wait)
        await app.run(tags=["few"])
        small_has_ended.set()

    with anyio.fail_after(30):
        async with (
            App(tasks, executor=ThreadsExecutor(slots=2), plugins=plugins) as app,
            anyio.create_task_group() as group,
        ):
            group.start_soon(few, app)
            result = await app.run(tags=["many"])
    assert result.state is State.SUCCEEDED


@in_app
@pytest.mark.parametrize("is_mapped", [True, False])
async def test_what_waits_for_a_limit_leaves_the_places_to_other_runs(tasks, plugins, is_mapped):
    """The seven tasks of the small run wait for each other, and all that the large one has but one waits for a limit."""
    begun, small_has_ended, together = threading.Event(), threading.Event(), threading.Barrier(7, timeout=10)

    def one(**given: int) -> None:
        begun.set()
        assert small_has_ended.wait(30)

    if is_mapped:
        tasks.task(name="days", lead=400, tags=["large"])(days(400))

        @tasks.task(each="days", tags=["large", "db"])
        def load(days: int) -> None:
            one()

    else:
        for number in range(400):
            tasks.task(name=f"load{number}", tags=["large", "db"])(lambda: one())
    for number in range(7):
        tasks.task(name=f"small{number}", tags=["small"])(lambda: together.wait() and None)

    async def small(app: App) -> None:
        await anyio.to_thread.run_sync(begun.wait)
        result = await app.run(tags=["small"], check=False)
        small_has_ended.set()
        result.raise_for_failure()

    with anyio.fail_after(60):
        async with (
            App(tasks, executor=ThreadsExecutor(slots=8), limits={"db": 1}, plugins=plugins) as app,
            anyio.create_task_group() as group,
        ):
            group.start_soon(small, app)
            assert (await app.run(tags=["large"])).state is State.SUCCEEDED


@in_app
@pytest.mark.parametrize("slots", [1, 4])
async def test_live_streams_end_though_a_limit_lets_one_of_their_tasks_run_at_a_time(tasks, plugins, slots):
    @tasks.task(lead=2, tags=["db"])
    def days() -> Iterator[int]:
        yield from range(50)

    @tasks.task(lead=2, tags=["db"])
    def doubled(days: Iterator[int]) -> Iterator[int]:
        for day in days:
            yield 2 * day

    @tasks.task(each="doubled", tags=["db"])
    def load(doubled: int) -> int:
        return doubled

    @tasks.task(tags=["db"])
    def total(days: Iterator[int], doubled: Iterator[int]) -> int:
        return sum(a + b for a, b in zip(days, doubled, strict=True))

    with anyio.fail_after(30):
        async with App(tasks, executor=ThreadsExecutor(slots=slots), limits={"db": 1}, plugins=plugins) as app:
            result = await app.run()
    assert result["total"] == 3 * sum(range(50))
    assert len(result["load"]) == 50


@in_app
async def test_a_run_that_is_cancelled_gives_back_what_it_had(tasks, plugins):
    started = anyio.Event()

    @tasks.task(tags=["db", "slow"])
    async def slow() -> None:
        started.set()
        await anyio.sleep_forever()

    @tasks.task(tags=["db"])
    def quick() -> int:
        return 1

    with anyio.fail_after(30):
        async with App(tasks, executor="threads", limits={"db": 1}, plugins=plugins) as app:
            async with anyio.create_task_group() as group:
                group.start_soon(lambda: app.run("slow"))
                await started.wait()
                group.cancel_scope.cancel()
            assert (await app.run("quick"))["quick"] == 1


# ---------------------------------------------------------------- on worker processes, while tasks take their time


def take_time() -> None:
    time.sleep(0.1)


def take_none() -> None:
    pass


def meet(folder: str) -> None:
    """Wait until two processes are here."""
    (Path(folder) / str(os.getpid())).touch()
    while len([*Path(folder).iterdir()]) < 2:
        time.sleep(0.001)


class Watching:
    """An observer that notes what begins and ends, in order, and lets a test wait for it."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.ended: list[str] = []
        self.most = 0
        self.changed = anyio.Event()

    @hookimpl
    def dpcore_task_changed(self, task, new) -> None:
        if new is State.RUNNING:
            self.began.append(task.name)
        elif new.ended:
            self.ended.append(task.name)
        self.most = max(self.most, len(self.began) - len(self.ended))
        self.changed.set()
        self.changed = anyio.Event()

    async def until(self, ended: int) -> None:
        """Wait until so many tasks have ended."""
        while len(self.ended) < ended:
            await self.changed.wait()


@pytest.fixture
def watching(anyio_backend, plugins):
    """What is told of tasks, by an observer among the plugins."""
    observer = Watching()
    plugins.register(observer, "watching")
    return observer


@asynccontextmanager
async def two_workers(tasks, plugins, **settings):
    """An app with two worker processes, and a task group for its runs."""
    with anyio.fail_after(60):
        app = App(tasks, executor="multiprocess?workers=2", plugins=plugins, **settings)
        async with app, anyio.create_task_group() as group:
            yield app, group


@in_app
async def test_no_more_tasks_are_told_as_running_than_there_are_workers(tasks, plugins, watching):
    for number in range(8):
        tasks.task(name=f"long{number}")(take_time)
    async with two_workers(tasks, plugins) as (app, _):
        await app.run()
    assert len(watching.ended) == 8
    assert watching.most == 2


@in_app
async def test_a_run_with_a_higher_priority_is_served_before_the_rest_of_a_large_one(tasks, plugins, watching):
    for number in range(20):
        tasks.task(name=f"long{number}", tags=["many"])(take_time)
    tasks.task(name="urgent")(take_none)
    async with two_workers(tasks, plugins) as (app, group):
        group.start_soon(lambda: app.run(tags=["many"]))
        await watching.until(ended=2)
        await app.run("urgent", priority=9)
        assert len(watching.ended) <= 14  # those that were running, and what was done while that was told
    assert len(watching.ended) == 21


@in_app
async def test_two_runs_on_worker_processes_share_them_alike(tasks, plugins, watching):
    for number in range(12):
        tasks.task(name=f"many{number}", tags=["many"])(take_time)
    for number in range(3):
        tasks.task(name=f"few{number}", tags=["few"])(take_time)
    async with two_workers(tasks, plugins) as (app, group):
        group.start_soon(lambda: app.run(tags=["many"]))
        await watching.until(ended=2)
        await app.run(tags=["few"])
        assert len([name for name in watching.ended if name.startswith("many")]) < 12
    assert len(watching.ended) == 15


@in_app
async def test_the_priority_of_tasks_decides_what_a_worker_process_does_next(tasks, plugins, watching, tmp_path):
    """The urgent one is not ready before another has ended, and then goes before all that were ready long ago."""
    tasks.task(name="first", priority=5)(take_time)
    tasks.task(name="urgent", priority=9, dependencies=["first"])(take_none)
    for number in range(12):
        tasks.task(name=f"long{number}")(take_time)
    for number in range(2):
        tasks.task(name=f"warm{number}", tags=["warm"])(meet)
    async with two_workers(tasks, plugins) as (app, _):
        await app.run(tags=["warm"], params={"folder": str(tmp_path)})
        watching.began.clear()
        watching.ended.clear()
        await app.run(exclude=["tag:warm"])
    assert watching.began[0] == "first"
    assert watching.ended.index("urgent") <= 9, watching.ended  # however slow one of the workers is


@in_app
async def test_what_waits_for_a_worker_process_has_no_place_of_a_limit(tasks, plugins, watching):
    for number in range(12):
        tasks.task(name=f"long{number}", tags=["one"])(take_time)
    tasks.task(name="last", priority=-1, tags=["one", "db"])(take_none)
    tasks.task(name="other", tags=["db"])(take_none)
    async with two_workers(tasks, plugins, limits={"db": 1}) as (app, group):
        group.start_soon(lambda: app.run(tags=["one"]))
        await watching.until(ended=2)
        await app.run("other")
        assert "last" not in watching.began
    assert len(watching.ended) == 14


@in_app
async def test_short_tasks_are_sent_ahead_once_it_is_seen_that_they_are(tasks, plugins, watching):
    """More are given than there are workers; and none is when long ones have followed."""
    for number in range(300):
        tasks.task(name=f"short{number}", tags=["short"])(take_none)
    for number in range(16):
        tasks.task(name=f"long{number}")(take_time)
    async with two_workers(tasks, plugins) as (app, _):
        await app.run(tags=["short"])
        assert watching.most > 4
        executor = await app.executor()
        assert executor.window > 4
        await app.run(*[f"long{number}" for number in range(8)])
        assert executor.window == 2
        watching.most = 0
        await app.run(*[f"long{number}" for number in range(8, 16)])
        assert watching.most == 2
