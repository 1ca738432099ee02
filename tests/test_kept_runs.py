"""An app that lives long keeps the latest runs, what somebody still holds, and what it is not told to forget."""

from __future__ import annotations

import gc
from collections import deque

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpcore import App
from dpcore.errors import (
    ArgumentError,
    InvalidIdError,
    PlanningError,
    ResultNotFoundError,
    RunHeldError,
    RunNotFoundError,
)
from dpcore.kept import Kept
from dpcore_plugins import FilesystemIO, MemoryIO, MemoryRunStore

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


def same(i: int) -> int:
    return i


@pytest.fixture
def made(tasks, plugins):
    """Make an app with the task ``same``."""
    tasks.task(same)
    return lambda **given: App(tasks, plugins=plugins, **{"executor": "inline", **given})


async def known(app):
    """Return the runs that have a record, and those that have results."""
    return {one.run_id for one in await (await app.store()).list()}, set((await app.io()).runs())


async def numbered(app, *numbers, **given):
    for number in numbers:
        await app.run("same", params={"i": number}, run_id=f"r{number}", **given)


# ---------------------------------------------------------------- by themselves


async def test_runs_beyond_the_latest_are_forgotten_with_their_results(made):
    async with made(keep_runs=3) as app:
        for number in range(30):
            await numbered(app, number)
            records, results = await known(app)
            assert len(records) <= 4
            assert records == results
        assert {"r27", "r28", "r29"} <= records
        assert len(app._kept._holds) <= 2, "who holds what is forgotten, too"


async def test_a_hundred_are_kept_unless_something_else_is_said(made):
    async with made() as app:
        await numbered(app, *range(103))
        assert 100 <= len((await known(app))[0]) <= 101
    async with made(keep_runs=None) as app:
        await numbered(app, *range(103))
        assert len((await known(app))[0]) == 103


async def test_nothing_of_a_forgotten_run_stays_in_the_store(made):
    store = MemoryRunStore()
    async with made(keep_runs=1, store=store) as app:
        await numbered(app, *range(10))
        assert len(store._rows) <= 4, "two records, each with a lease"


async def test_results_that_somebody_holds_stay_until_they_are_let_go(made):
    async with made(keep_runs=1) as app:
        held = [await app.run("same", params={"i": number}) for number in range(5)]
        await numbered(app, 10, 11)
        assert [result["same"] for result in held] == [0, 1, 2, 3, 4]
        del held[:]
        gc.collect()
        await numbered(app, 12, 13)
        records, results = await known(app)
        assert len(records) <= 2
        assert records == results


async def test_a_result_of_a_resumed_run_is_held_by_each_that_was_given(made, tasks):
    fails = [True]

    @tasks.task
    def sometimes(same: int) -> int:
        if fails[0]:
            raise ValueError("not yet")
        return same

    async with made(keep_runs=0) as app:
        before = await app.run("sometimes", params={"i": 7}, run_id="r", check=False)
        fails[0] = False
        after = await app.resume("r")
        del after
        gc.collect()
        await numbered(app, 1, 2)
        assert before["same"] == 7
        del before
        gc.collect()
        await numbered(app, 3)
        assert "r" not in (await known(app))[0]


async def test_a_kept_run_is_resumed_and_taken_from_and_a_forgotten_one_is_said_to_be_gone(made, tasks):
    tasks.task(name="next")(lambda same: same + 1)
    async with made(keep_runs=2) as app:
        await numbered(app, 1, 2, 3, 4, 5)
        assert (await app.run(root_tasks=["next"], from_run="r5"))["next"] == 6
        assert (await app.resume("r5", from_=["same"]))["same"] == 5
        with pytest.raises(RunNotFoundError, match="there is no run 'r1' in memory"):
            await app.run(root_tasks=["next"], from_run="r1")
        with pytest.raises(RunNotFoundError, match="there is no run 'r1' in memory"):
            await app.resume("r1")


async def test_what_a_run_takes_data_from_stays_while_it_runs(made, tasks):
    begun, go = anyio.Event(), anyio.Event()

    @tasks.task
    async def waits() -> int:
        begun.set()
        await go.wait()
        return 1

    tasks.task(name="sum", dependencies=["waits"])(lambda same, waits: same + waits)
    with anyio.fail_after(60):
        async with made(keep_runs=0, executor="threads") as app, anyio.create_task_group() as group:
            held = [await app.run("same", params={"i": 41}, run_id="r")]
            given = []

            async def take():
                given.append((await app.run(root_tasks=["waits", "sum"], from_run="r"))["sum"])

            group.start_soon(take)
            await begun.wait()
            held.clear()
            gc.collect()
            await numbered(app, 1, 2)
            with pytest.raises(RunHeldError, match="takes data from run 'r'; cancel it, or wait until it has ended"):
                await app.forget("r")
            go.set()
    assert given == [42]


async def test_runs_at_once_are_kept_as_one_after_the_other(made):
    async with made(executor="threads", keep_runs=5) as app:
        async with anyio.create_task_group() as group:
            for number in range(60):
                group.start_soon(numbered, app, number)
        await numbered(app, 100, 101)
        records, results = await known(app)
        assert 5 <= len(records) <= 6
        assert records == results


async def test_the_private_folder_of_results_does_not_grow(tasks, plugins):
    tasks.task(same)
    with anyio.fail_after(60):
        async with App(tasks, plugins=plugins, executor="multiprocess?workers=1", keep_runs=2) as app:
            await numbered(app, *range(8))
            records, results = await known(app)
    assert {"r6", "r7"} <= records == results
    assert len(records) <= 3


async def test_a_store_that_lasts_and_results_of_somebody_else_are_left_alone(made, tmp_path):
    async with made(keep_runs=1, store=f"sqlite:{tmp_path}/runs.db") as app:
        await numbered(app, 1, 2, 3)
        assert tuple(map(len, await known(app))) == (3, 3)
    for io in (FilesystemIO(path=tmp_path / "runs"), f"filesystem:{tmp_path}/others", MemoryIO()):
        async with made(keep_runs=1, io=io) as app:
            await numbered(app, 1, 2, 3)
            assert tuple(map(len, await known(app))) in [(1, 3), (2, 3)]


class Stuck(MemoryIO):
    def remove_run(self, run_id):
        raise OSError("the disk is on fire")


async def test_a_run_that_cannot_be_forgotten_is_no_fault_of_the_one_that_has_ended(made, caplog):
    async with made(keep_runs=0, io="memory") as app:
        app._adapters.made["io"] = Stuck()
        await numbered(app, 1, 2, 3)
        assert "run r1 could not be forgotten, and is kept for now: the disk is on fire" in caplog.text
        assert (await app.history("r1")).record.run_id == "r1"


@pytest.mark.parametrize("wrong", [-1, True, 1.5, "3"])
def test_a_number_of_runs_that_is_none_is_refused(wrong):
    with pytest.raises(ArgumentError, match=r"keep_runs=.* must be a whole number of runs, at least 0, or None"):
        App(keep_runs=wrong)


@given(st.lists(st.tuples(st.sampled_from(["end", "hold", "let go", "ask"]), st.integers(0, 5))), st.integers(0, 3))
def test_what_goes_is_what_is_neither_held_nor_among_the_latest(steps, most):
    kept, there, holds = Kept(most), deque(), {}
    for step, number in steps:
        run_id = str(number)
        if step == "end":
            kept.add(run_id)
            if run_id in there:
                there.remove(run_id)
            there.append(run_id)
        elif step == "hold":
            holds.setdefault(run_id, kept.hold(run_id))
            assert holds[run_id] is kept.hold(run_id)
        elif step == "let go":
            holds.pop(run_id, None)
        else:
            latest = list(there)[max(0, len(there) - most) :]
            gone = [one for one in there if one not in latest and one not in holds]
            assert sorted(kept.due()) == sorted(gone)
            there = deque(one for one in there if one not in gone)


# ---------------------------------------------------------------- when told


@pytest.fixture(params=["memory", "durable"])
def app(request, made, tmp_path):
    if request.param == "memory":
        return made()
    return made(store=f"sqlite:{tmp_path}/runs.db", io=f"filesystem:{tmp_path}/runs")


async def test_a_run_is_forgotten_with_its_results(app):
    async with app:
        await numbered(app, 1, 2, 3)
        held = await app.run("same", params={"i": 4}, run_id="r4")
        assert await app.forget("r1", "r4", "r1") == 2
        assert await known(app) == ({"r2", "r3"}, {"r2", "r3"})
        with pytest.raises(ResultNotFoundError):
            held["same"]
        await numbered(app, 1)
        assert (await known(app))[0] == {"r1", "r2", "r3"}, "its id is free again"
        assert await app.forget() == 0


async def test_what_cannot_be_forgotten_is_refused_before_anything_is(app, tasks):
    running = anyio.Event()

    @tasks.task
    async def endless() -> None:
        running.set()
        await anyio.sleep_forever()

    with anyio.fail_after(30):
        async with app, anyio.create_task_group() as group:
            await numbered(app, 1)
            group.start_soon(lambda: app.run("endless", run_id="e", check=False))
            await running.wait()
            with pytest.raises(RunHeldError, match="run 'e' is being run by this App; cancel it"):
                await app.forget("r1", "e")
            with pytest.raises(RunNotFoundError, match=r"there is no run 'r2' in .* \(latest: 'e', 'r1'\)"):
                await app.forget("r1", "r2")
            with pytest.raises(InvalidIdError):
                await app.forget("r1", "../r1")
            assert "r1" in (await known(app))[1]
            app.cancel("e")


async def test_a_run_that_another_app_runs_is_refused(made, tmp_path):
    given = {"store": f"sqlite:{tmp_path}/runs.db", "io": f"filesystem:{tmp_path}/runs"}
    async with made(**given) as app, made(**given) as other:
        await numbered(app, 1)
        async with await (await other.store()).lease("run/r1", 30):
            with pytest.raises(RunHeldError, match="run 'r1' is being run by process "):
                await app.forget("r1")
        assert await app.forget("r1") == 1


async def test_a_forget_that_is_cancelled_leaves_nothing_half(app):
    async with app:
        for number in range(20):
            await numbered(app, number)
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(app.forget, f"r{number}")
                    for _ in range(number):
                        await anyio.lowlevel.checkpoint()
                    scope.cancel()
            records, results = await known(app)
            assert records == results
            if records:
                assert await app.forget(*records) == 1


async def test_results_go_before_the_record_so_that_it_can_be_done_again(made):
    io = Stuck()
    async with made(io=io) as app:
        await numbered(app, 1)
        with pytest.raises(OSError, match="on fire"):
            await app.forget("r1")
        assert await known(app) == ({"r1"}, {"r1"})
        io.__class__ = MemoryIO
        assert await app.forget("r1") == 1
        with pytest.raises(PlanningError):
            await app.run("nothing")
