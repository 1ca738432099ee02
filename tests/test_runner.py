"""The driver: what is recorded before what, in groups, and what happens when recording fails."""

from __future__ import annotations

import random
import threading
from contextlib import suppress

import anyio
import pytest

import dpcore
from dpcore import App, State, current_job
from dpcore.errors import RunNotFoundError, StoreError
from dpcore_plugins import MemoryRunStore

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


class WatchedStore(MemoryRunStore):
    """Remembers each commit to a run; holds each up until *gate* is set, or fails from commit number *fails_at* on."""

    capabilities = frozenset({"durable"})  # it stands for one, and so is told of everything at once

    def __init__(self, fails_at: int | None = None) -> None:
        super().__init__()
        self.commits: list[list[bytes]] = []
        self.log: list[str] = []
        self.gate: anyio.Event | None = None
        self.fails_at = fails_at

    async def commit(self, key, *, entries=(), **fields):
        if not key.startswith("run/"):
            return await super().commit(key, entries=entries, **fields)
        if self.gate is not None:
            await self.gate.wait()
        self.commits.append(list(entries))
        if self.fails_at is not None and len(self.commits) >= self.fails_at:
            raise StoreError("watched", "the disk is full")
        version = await super().commit(key, entries=entries, **fields)
        self.log += [f"recorded {entry.decode()}" for entry in entries]
        return version


async def test_nothing_depends_on_an_outcome_that_is_not_recorded(tasks, plugins):
    store = WatchedStore()
    log = store.log

    @tasks.task
    def first() -> int:
        log.append("first runs")
        return 1

    @tasks.task
    def second(first: int) -> int:
        log.append("second runs")
        return first

    class Watcher:
        def dpcore_task_changed(self, task, new):
            log.append(f"told {task.name} {new}")

    plugins.register(Watcher())
    async with App(tasks, executor="inline", store=store, plugins=plugins) as app:
        await app.run()
    recorded = next(
        at for at, line in enumerate(log) if "recorded" in line and '"first"' in line and "succeeded" in line
    )
    assert log.index("first runs") < recorded < log.index("second runs")
    assert recorded < log.index("told first succeeded")


async def test_outcomes_that_arrive_while_the_store_is_busy_are_recorded_in_one_go(tasks, plugins):
    store = WatchedStore()
    done = [0]
    lock = threading.Lock()
    for number in range(8):

        @tasks.task(name=f"t{number}")
        def work() -> None:
            with lock:
                done[0] += 1

    async with App(tasks, executor="threads?slots=8", store=store, plugins=plugins) as app:
        first_commit_over = anyio.Event()
        async with anyio.create_task_group() as group:

            async def run() -> None:
                await app.run()

            # The run is begun, and then the store is held up until all eight outcomes have arrived.
            original = store.commit

            async def commit(key, **fields):
                version = await original(key, **fields)
                if store.gate is None:
                    store.gate = anyio.Event()
                    first_commit_over.set()
                return version

            store.commit = commit
            group.start_soon(run)
            await first_commit_over.wait()
            with anyio.fail_after(10):
                while done[0] < 8:
                    await anyio.sleep(0.001)
                for _ in range(20):
                    await anyio.lowlevel.checkpoint()
                await anyio.sleep(0.05)
            store.gate.set()
    ended = [sum(b'"succeeded"' in entry for entry in entries) for entries in store.commits]
    assert sum(ended) == 8
    assert len([number for number in ended if number]) <= 3


@pytest.mark.parametrize("fails_at", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("executor", ["inline", "threads"])
async def test_a_store_that_fails_ends_the_run_with_its_own_error_and_nothing_hangs(tasks, plugins, executor, fails_at):
    @tasks.task
    def first() -> int:
        return 1

    @tasks.task
    def second(first: int) -> int:
        return first

    @tasks.task
    async def endless(first: int) -> int:
        await anyio.sleep_forever()

    @tasks.task
    def third(second: int) -> int:
        return second

    if executor == "inline" or fails_at == 5:  # the fifth is the end of the run
        tasks.remove("endless")
    with anyio.fail_after(10), pytest.raises(StoreError, match="the disk is full"):
        async with App(tasks, executor=executor, store=WatchedStore(fails_at), plugins=plugins) as app:
            await app.run()


class LazyStore(WatchedStore):
    """One that ends with the program and that nobody else reads."""

    capabilities = frozenset()


@pytest.mark.parametrize("executor", ["inline", "threads"])
async def test_a_store_that_ends_with_the_program_gets_the_changes_in_large_groups(tasks, plugins, executor):
    for number in range(300):

        @tasks.task(name=f"t{number}")
        def work() -> int:
            return 1

    store = LazyStore()
    async with App(tasks, executor=executor, store=store, plugins=plugins) as app:
        history = await app.history((await app.run()).run_id)
    assert [change.state for change in history.changes].count(State.RUNNING) == 300
    assert [change.state for change in history.changes].count(State.SUCCEEDED) == 300
    assert len(store.commits) < 100


async def test_who_asks_the_app_is_told_what_was_not_recorded_yet(tasks, plugins):
    asked = anyio.Event()
    told = []

    @tasks.task
    def first() -> int:
        return 1

    @tasks.task
    async def second(first: int) -> None:
        asked.set()
        await anyio.sleep_forever()

    async with App(tasks, store=LazyStore(), plugins=plugins) as app, anyio.create_task_group() as group:

        async def ask() -> None:
            with anyio.fail_after(10):
                await asked.wait()
            told.extend((await app.history("r1")).tasks.values())
            app.cancel("r1")

        group.start_soon(ask)
        await app.run(run_id="r1", check=False)
    assert {change.task: change.state for change in told} == {"first": State.SUCCEEDED, "second": State.RUNNING}


class SlowStore(WatchedStore):
    """One that takes its time for each commit, as one on a server does."""

    async def commit(self, key, **fields):
        await anyio.sleep(0.02)
        return await super().commit(key, **fields)


@pytest.mark.parametrize("seed", range(8))
async def test_a_run_that_is_cancelled_while_it_is_recorded_is_recorded_once(tasks, plugins, seed):
    drawn = random.Random(seed)
    for number in range(20):

        @tasks.task(name=f"t{number}")
        async def work() -> None:
            await anyio.sleep(drawn.uniform(0, 0.02))

    store = SlowStore()
    async with App(tasks, executor="threads?slots=4", store=store, plugins=plugins) as app:
        async with anyio.create_task_group() as group:

            async def cancel() -> None:
                await anyio.sleep(drawn.uniform(0.02, 0.08))
                with suppress(RunNotFoundError):  # it has ended
                    app.cancel("r1")

            group.start_soon(cancel)
            with anyio.fail_after(10):
                result = await app.run(run_id="r1", check=False)
        changes = (await app.history("r1")).changes
    told = [(change.task, change.state) for change in changes]
    assert len(told) == len(set(told)), "nothing is written down twice"
    ended = {change.task: change.state for change in changes if change.state.ended}
    assert ended == {name: outcome.state for name, outcome in result.outcomes.items()}


async def test_who_asks_for_the_history_and_gives_up_takes_nothing_from_the_run(tasks, plugins):
    begun, going_on = anyio.Event(), anyio.Event()

    @tasks.task
    async def first() -> int:
        begun.set()
        await going_on.wait()
        return 1

    @tasks.task
    def second(first: int) -> int:
        return first

    store = SlowStore()
    async with App(tasks, store=store, plugins=plugins) as app, anyio.create_task_group() as group:

        async def ask(seconds: float) -> None:
            with anyio.move_on_after(seconds):
                await app.history("r1")

        async def run() -> None:
            with anyio.fail_after(10):
                results.append(await app.run(run_id="r1"))

        results: list[dpcore.Result] = []
        group.start_soon(run)
        await begun.wait()
        for number in range(20):
            group.start_soon(ask, number / 400)
        going_on.set()
    assert [dict(result) for result in results] == [{"first": 1, "second": 1}]
    states = [line for line in store.log if '"second"' in line]
    assert len(states) == 2, "begun and succeeded, each once"


async def test_a_store_that_fails_while_the_history_is_asked_for_ends_the_run_with_its_error(tasks, plugins):
    begun = anyio.Event()

    @tasks.task
    async def endless() -> None:
        begun.set()
        await anyio.sleep_forever()

    store = LazyStore()
    async with App(tasks, store=store, plugins=plugins) as app, anyio.create_task_group() as group:

        async def run() -> None:
            with anyio.fail_after(10), pytest.raises(StoreError, match="the disk is full"):
                await app.run(run_id="r1")

        group.start_soon(run)
        await begun.wait()
        store.fails_at = 0
        await app.history("r1")


async def test_what_runs_for_long_is_recorded_meanwhile_also_in_a_store_that_ends_with_the_program(tasks, plugins):
    store = LazyStore()

    @tasks.task
    async def waits() -> None:
        with anyio.fail_after(10):
            while not any('"waits"' in line for line in store.log):
                await anyio.sleep(0.01)

    async with App(tasks, store=store, plugins=plugins) as app:
        assert (await app.run()).state is State.SUCCEEDED


@pytest.mark.parametrize("executor", ["inline", "threads"])
async def test_a_store_that_fails_when_it_is_told_late_ends_the_run_with_its_own_error(tasks, plugins, executor):
    @tasks.task
    def first() -> int:
        return 1

    with anyio.fail_after(10), pytest.raises(StoreError, match="the disk is full"):
        async with App(tasks, executor=executor, store=LazyStore(fails_at=2), plugins=plugins) as app:
            await app.run()


async def test_a_failing_store_leaves_no_job_running(tasks, plugins):
    stopped = []

    @tasks.task
    async def endless() -> int:
        try:
            await anyio.sleep_forever()
        finally:
            stopped.append(current_job().task)

    @tasks.task
    async def quick() -> int:
        await anyio.lowlevel.checkpoint()
        return 1

    with anyio.fail_after(10), pytest.raises(StoreError):
        async with App(tasks, executor="threads", store=WatchedStore(fails_at=2), plugins=plugins) as app:
            await app.run()
    assert stopped == ["endless"]


async def test_what_runs_is_recorded_while_it_runs_where_others_can_see_it(tasks, plugins, tmp_path):
    started, release = anyio.Event(), anyio.Event()

    @tasks.task
    async def long() -> int:
        started.set()
        await release.wait()
        return 1

    with anyio.fail_after(20):
        async with (
            App(tasks, executor="threads", store=f"sqlite:{tmp_path}/runs.db", plugins=plugins) as app,
            anyio.create_task_group() as group,
        ):
            group.start_soon(lambda: app.run(run_id="r1"))
            await started.wait()
            store = await app.store()
            while (await store.get("r1")).tasks.get("long") is None:
                await anyio.sleep(0.01)
            assert (await store.get("r1")).tasks["long"].state is State.RUNNING
            release.set()
    async with App(tasks, store=f"sqlite:{tmp_path}/runs.db", plugins=dpcore.Plugins(installed=False)) as other:
        assert (await other.history("r1")).record.state is State.SUCCEEDED


async def test_a_run_of_2000_tasks_on_threads_loses_none(tasks, plugins):
    for number in range(2000):
        ups = [f"t{number - 7}"] if number % 3 and number >= 7 else []
        tasks.task(name=f"t{number}", dependencies=ups)(lambda: None)
    with anyio.fail_after(60):
        async with App(tasks, executor="threads", plugins=plugins) as app:
            result = await app.run()
            history = await app.history(result.run_id)
    assert len(result) == 2000
    assert history.record.counts == {"succeeded": 2000}
