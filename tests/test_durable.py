"""Durable runs: who drives one holds its lease, and what had not finished is resumed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime

import anyio
import pytest

from dpcore import App, Registry, State, current_job
from dpcore.clock import SystemClock
from dpcore.errors import (
    ArgumentError,
    LeaseLostError,
    ParamsLostError,
    PlanningError,
    RunEndedError,
    RunExistsError,
    RunFailedError,
    RunHeldError,
    RunNotFoundError,
    StoreError,
    TaskNotFoundError,
)
from dpcore.plans import plan
from dpcore.ports.runstore import RunRecord
from dpcore.processes import this_process
from dpcore.runner import Runner
from dpcore.runs import Run
from dpcore.testing import FakeClock
from dpcore_plugins import InlineExecutor, MemoryIO, MemoryRunStore

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.fixture(params=["memory", "sqlite"])
def durable(request, tasks, plugins, tmp_path):
    """Make Apps that share what they keep, as programs do that are started one after the other."""
    store = MemoryRunStore() if request.param == "memory" else f"sqlite:{tmp_path}/runs.db"
    io = f"filesystem:{tmp_path}/runs"
    return lambda: App(tasks, executor="inline", plugins=plugins, io=io, store=store)


# ---------------------------------------------------------------- leases


async def test_a_run_that_runs_holds_its_lease_and_gives_it_back(tasks, durable):
    started, release = anyio.Event(), anyio.Event()

    @tasks.task
    async def waits() -> int:
        started.set()
        await release.wait()
        return 1

    with anyio.fail_after(20):
        async with durable() as app, anyio.create_task_group() as group:
            store = await app.store()
            group.start_soon(lambda: app.run(run_id="r1"))
            await started.wait()
            who, until = await store.holder("run/r1")
            assert who == this_process()
            assert until > app.clock.now().timestamp() + 20
            assert await store.lease("run/r1", 10) is None
            release.set()
        async with durable() as app:
            store = await app.store()
            assert await store.holder("run/r1") is None
            assert (await store.lease("run/r1", 10)).token > 1


async def test_a_run_that_broke_gives_its_lease_back(tasks, durable):
    @tasks.task
    def wrong() -> int:
        raise ValueError("no")

    async with durable() as app:
        await app.run(run_id="r1", check=False)
        assert await (await app.store()).holder("run/r1") is None


async def test_a_run_of_that_id_that_exists_is_left_as_it_is(tasks, durable):
    tasks.task(name="one")(lambda: 1)
    async with durable() as app:
        await app.run(run_id="r1")
        with pytest.raises(RunExistsError):
            await app.run(run_id="r1")


async def driven(tasks, store, ttl):
    """Return what drives a run under a lease of so many seconds."""
    run = Run(plan(registry=tasks), "r1", io=MemoryIO())
    record = RunRecord(run_id="r1", state=State.RUNNING)
    await store.begin(record)
    lease = await store.lease("run/r1", ttl)
    return Runner(run, InlineExecutor(), store, run.io, record, SystemClock(), lease=lease), lease


async def test_who_drives_a_run_renews_its_lease_as_long_as_that_takes(tasks):
    release = anyio.Event()

    @tasks.task
    async def waits() -> int:
        await release.wait()
        return 1

    with anyio.fail_after(20):
        async with MemoryRunStore() as store:
            store.clock = FakeClock()  # which stands still: however late a renewal comes, the lease is held
            runner, lease = await driven(tasks, store, 0.03)
            async with anyio.create_task_group() as group:
                group.start_soon(runner.drive)
                while (renewed := await store.fetch("lease-until/run/r1")) is None or renewed.version < 5:
                    await anyio.lowlevel.checkpoint()
                assert await lease.held()
                release.set()
        assert runner.run.state is State.SUCCEEDED


async def test_who_lost_the_lease_records_nothing_more_and_breaks_off(tasks):
    started, stopped, release = anyio.Event(), anyio.Event(), anyio.Event()

    @tasks.task
    async def first() -> int:
        started.set()
        await release.wait()
        return 1

    @tasks.task
    async def other() -> int:
        try:
            await anyio.sleep_forever()
        finally:
            stopped.set()

    with anyio.fail_after(20):
        async with MemoryRunStore() as store:
            store.clock = FakeClock()
            runner, lease = await driven(tasks, store, 30)
            ends = []

            async def drive():
                with pytest.raises(LeaseLostError, match="no longer ours") as error:
                    await runner.drive()
                ends.append(error.value)

            async with anyio.create_task_group() as group:
                group.start_soon(drive)
                await started.wait()
                await store.clock.advance(31)
                taken = await store.lease("run/r1", 30)
                assert taken.token > lease.token
                before = await store.get("r1")
                release.set()
            assert ends
            assert stopped.is_set()
            assert await store.get("r1") == before
            assert before.tasks.get("first") is None or before.tasks["first"].state is State.RUNNING


# ---------------------------------------------------------------- resuming


class BreakingStore(MemoryRunStore):
    """Fails from the commit to a run with number *fails_at* on, as if the program had been killed there."""

    capabilities = frozenset({"durable"})  # it stands for one, and so is told of everything at once

    def __init__(self) -> None:
        super().__init__()
        self.fails_at = self.commits = 0

    async def commit(self, key, **fields):
        if key.startswith("run/"):
            self.commits += 1
            if 0 < self.fails_at <= self.commits:
                raise StoreError("breaking", "the disk is full")
        return await super().commit(key, **fields)

    def heal(self):
        self.fails_at = self.commits = 0


@pytest.fixture
def ran():
    """What ran: the task, and the item of a mapped one."""
    return []


def shop(ran):
    """Return the tasks of one program, which says in *ran* what runs; so what still runs of another one does not count."""
    tasks = Registry()

    def begin():
        job = current_job()
        ran.append((job.task, job.index, job.attempt))

    @tasks.task
    def orders() -> int:
        begin()
        return 3

    @tasks.task
    def numbers(orders: int) -> Iterator[int]:
        begin()
        yield from range(orders)

    @tasks.task(each="numbers")
    def doubled(number: int) -> int:
        begin()
        return number * 2

    @tasks.task(fail_safe=True)
    def broken(orders: int) -> int:
        begin()
        raise ValueError("no")

    @tasks.task
    async def total(doubled: list[int], broken: int | None) -> int:
        begin()
        return sum(doubled) + (broken or 0)

    return tasks


JOBS = {("orders", None), ("numbers", None), ("broken", None), ("total", None), *(("doubled", at) for at in range(3))}


@pytest.mark.parametrize("executor", ["inline", "threads"])
async def test_wherever_a_run_is_broken_off_it_is_resumed_to_the_same_end(plugins, executor):
    """An item that had ended is run again only if the attempt was lost that made what it was given."""
    cut, io = 1, MemoryIO()
    while True:
        run_id, store = f"r{cut}", BreakingStore()
        store.fails_at = cut
        arguments = {"executor": executor, "io": io, "store": store, "plugins": plugins}
        ran, again = [], []
        try:
            async with App(shop(ran), **arguments) as app:
                await app.run(run_id=run_id)
            break
        except StoreError:
            store.heal()
        async with App(shop(again), **arguments) as app, store:
            if not await store.list():
                assert cut == 1
                assert ran == []
                cut += 1
                continue
            history = await store.get(run_id)
            result = await app.resume(run_id)
            found = await store.get(run_id)
        assert (result["total"], result["doubled"], result.state) == (6, [0, 2, 4], State.SUCCEEDED)
        assert str(result.outcomes["broken"].error) in ("no", "task 'broken' raised ValueError: no")
        ended = [(change.task, change.index, change.attempt) for change in history.changes if change.state.ended]
        is_whole = ("numbers", None, 1) in ended
        lost = {one for one in ended if one[1] is not None and not is_whole}
        stays = {one[:2] for one in ended if one not in lost}
        assert not stays & {one[:2] for one in again}
        assert stays | {one[:2] for one in again} >= JOBS
        assert len({one[:2] for one in again}) == len(again)
        assert not lost & set(again), "an attempt that was recorded has had its number"
        assert found.record.counts == {"succeeded": 4, "failed": 1}
        ends = [(change.task, change.index, change.attempt) for change in found.changes if change.state.ended]
        assert len(set(ends)) == len(ends)
        assert {one[:2] for one in ends} == {*JOBS, ("doubled", None)}
        assert len(ends) == 8 + len(lost)
        cut += 1
    assert cut > 5


@pytest.fixture
def fragile(tasks, ran):
    """Three tasks one after the other, of which the second fails, three times in all; and one beside."""
    wrong = [True]

    @tasks.task
    def first() -> int:
        ran.append("first")
        return 1

    @tasks.task(max_retries=2)
    def second(first: int) -> int:
        ran.append(f"second {current_job().attempt}")
        if wrong:
            raise ValueError("no")
        return first + 1

    @tasks.task
    def third(second: int) -> int:
        ran.append("third")
        return second + 1

    @tasks.task
    def beside() -> int:
        ran.append("beside")
        return 1

    return wrong


async def test_of_a_run_that_failed_what_failed_is_run_again_with_all_its_retries(fragile, ran, durable):
    async with durable() as app:
        assert (await app.run(run_id="r1", check=False)).state is State.FAILED
        assert sorted(ran) == ["beside", "first", "second 1", "second 2", "second 3"]
    ran.clear()
    async with durable() as app:
        with pytest.raises(RunFailedError):
            await app.resume("r1")
        assert ran == ["second 4", "second 5", "second 6"]
    ran.clear()
    fragile.clear()
    async with durable() as app:
        result = await app.resume("r1")
        found = await app.history("r1")
    assert ran == ["second 7", "third"]
    assert dict(result) == {"first": 1, "second": 2, "third": 3, "beside": 1}
    assert (found.record.state, found.record.counts, found.record.reason) == (State.SUCCEEDED, {"succeeded": 4}, "")
    assert found.record.ended is not None


async def test_a_run_that_was_cancelled_is_resumed(tasks, ran, durable):
    started = [anyio.Event()]

    @tasks.task
    def first() -> int:
        ran.append("first")
        return 1

    @tasks.task
    async def second(first: int) -> int:
        ran.append("second")
        if started:
            started[0].set()
            await anyio.sleep_forever()
        return first + 1

    @tasks.task
    def third(second: int) -> int:
        return second + 1

    with anyio.fail_after(20):
        async with durable() as app, anyio.create_task_group() as group:
            group.start_soon(lambda: app.run(run_id="r1", check=False))
            await started[0].wait()
            app.cancel("r1")
        started.clear()
        async with durable() as app:
            assert (await app.history("r1")).record.state is State.CANCELLED
            assert (await app.resume("r1"))["third"] == 3
    assert ran == ["first", "second", "second"]


async def test_what_cannot_be_resumed_is_said(tasks, durable):
    started, release = anyio.Event(), anyio.Event()

    @tasks.task
    async def one() -> int:
        started.set()
        await release.wait()
        return 1

    with anyio.fail_after(20):
        async with durable() as app, durable() as other, anyio.create_task_group() as group:
            with pytest.raises(RunNotFoundError, match=r"there is no run 'nope' in .* \(latest: none\)"):
                await app.resume("nope")
            assert await (await app.store()).holder("run/nope") is None
            group.start_soon(lambda: app.run(run_id="r1"))
            await started.wait()
            with pytest.raises(RunHeldError, match="run 'r1' is being run by this App; cancel it, or wait until"):
                await app.resume("r1")
            words = rf"run 'r1' is being run by process {os.getpid()} on .*; cancel it there, or, if .* after \d\d:\d\d"
            with pytest.raises(RunHeldError, match=words):
                await other.resume("r1")
            release.set()
            while app._runners:
                await anyio.lowlevel.checkpoint()
            with pytest.raises(RunEndedError, match=r"run 'r1' has succeeded, and nothing of it is left; .*--from"):
                await app.resume("r1")
            with pytest.raises(TaskNotFoundError, match="there is no task 'two'"):
                await app.resume("r1", from_="two")
            with pytest.raises(TaskNotFoundError, match="there is no task"):
                await app.resume("r1", from_=[print])
            with pytest.raises(ArgumentError, match="changed=1 must be True or False"):
                await app.resume("r1", changed=1)
            assert await (await app.store()).holder("run/r1") is None


@pytest.mark.parametrize("durable", ["sqlite"], indirect=True)
async def test_of_many_that_resume_a_run_at_once_one_does(fragile, ran, durable):
    async with durable() as app:
        await app.run(run_id="r1", check=False)
    fragile.clear()
    ran.clear()
    ends = []

    async def resume():
        async with durable() as app:
            try:
                ends.append((await app.resume("r1"))["third"])
            except (RunHeldError, RunEndedError) as error:
                ends.append(type(error))

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(resume)
    assert ran == ["second 4", "third"]
    assert ends.count(3) == 1
    assert len(ends) == 10


async def test_a_task_to_begin_at_is_run_again_with_all_that_waits_for_it(fragile, ran, durable):
    fragile.clear()
    async with durable() as app:
        await app.run(run_id="r1")
        ran.clear()
        assert dict(await app.resume("r1", from_=["second"])) == {"first": 1, "second": 2, "third": 3, "beside": 1}
        assert ran == ["second 2", "third"]
        found = await app.history("r1")
        assert found.tasks["third"].attempt == 2
        assert found.tasks["first"].attempt == 1


async def test_a_run_that_breaks_while_it_runs_a_part_again_goes_on_with_that_part(fragile, ran, tasks, plugins):
    fragile.clear()
    store, io = BreakingStore(), MemoryIO()
    arguments = {"executor": "inline", "io": io, "store": store, "plugins": plugins}
    async with App(tasks, **arguments) as app:
        await app.run(run_id="r1")
    ran.clear()
    store.commits, store.fails_at = 0, 2
    with pytest.raises(StoreError):
        async with App(tasks, **arguments) as app:
            await app.resume("r1", from_="first")
    assert ran == ["first"]
    store.heal()
    async with App(tasks, **arguments) as app:
        await app.resume("r1")
    assert ran == ["first", "first", "second 2", "third"]


def version(number, tasks, ran):
    tasks = type(tasks)()

    if number == 1:

        @tasks.task
        def load() -> int:
            ran.append("load")
            return 1

    else:

        @tasks.task
        def load() -> int:
            ran.append("load")
            return 10

    @tasks.task
    def beside() -> int:
        ran.append("beside")
        return 5

    @tasks.task
    def total(load: int) -> int:
        ran.append("total")
        return load + 1

    return tasks


async def test_a_task_that_changed_is_told_and_run_again_if_that_is_asked_for(tasks, ran, plugins, tmp_path, caplog):
    arguments = {
        "plugins": plugins, "executor": "inline", "io": f"filesystem:{tmp_path}/runs", "store": f"sqlite:{tmp_path}/db"
    }  # fmt: skip
    async with App(version(1, tasks, ran), **arguments) as app:
        assert (await app.run(run_id="r1"))["total"] == 2
    ran.clear()
    async with App(version(2, tasks, ran), **arguments) as app:
        with pytest.raises(RunEndedError, match=r"nothing of it is left; 'load' changed since: .*--changed"):
            await app.resume("r1")
        assert (await app.resume("r1", from_="total"))["total"] == 2
        assert "'load' changed since run r1, and will not be run again" in caplog.text
        assert ran == ["total"]
        assert (await app.resume("r1", changed=True))["total"] == 11
        assert ran == ["total", "load", "total"]
        with pytest.raises(RunEndedError, match="name the task to begin at"):
            await app.resume("r1", changed=True)


async def test_what_a_run_was_given_is_given_again(tasks, durable):
    wrong, seen = [True], []

    @tasks.task
    def load(day: str, limit: int = 1) -> str:
        job = current_job()
        seen.append((day, limit, job.params, job.metadata, job.nominal))
        if wrong:
            raise ValueError("no")
        return day

    nominal = datetime(2026, 11, 22, 3, tzinfo=UTC)
    async with durable() as app:
        await app.run(
            run_id="r1", params={"day": "monday", "limit": 5}, metadata={"who": "me"}, nominal=nominal, check=False
        )
        wrong.clear()
    async with durable() as app:
        assert (await app.resume("r1"))["load"] == "monday"
        assert seen[0] == seen[1] == ("monday", 5, {"day": "monday", "limit": 5}, {"who": "me"}, nominal)
        assert (await app.resume("r1", from_="load", params={"day": "tuesday"}))["load"] == "tuesday"
        assert seen[-1][3] == {"who": "me"}
        assert (await app.history("r1")).record.params == {"day": "'tuesday'"}


async def test_parameters_that_do_not_pickle_are_given_again(tasks, durable):
    @tasks.task
    def load(source: object) -> int:
        return source()

    async with durable() as app:
        await app.run(run_id="r1", params={"source": lambda: 1 / 0}, check=False)
        words = r"the parameters of run 'r1' \('source'\) are not recorded whole: they do not pickle; give them again"
        with pytest.raises(ParamsLostError, match=words):
            await app.resume("r1")
        assert (await app.resume("r1", params={"source": lambda: 7}))["load"] == 7


async def test_a_result_that_is_gone_is_said_and_made_again_if_that_is_asked_for(fragile, ran, tasks, durable):
    async with durable() as app:
        await app.run(run_id="r1", check=False)
        fragile.clear()
        (await app.io()).clear("r1")
        with pytest.raises(PlanningError, match=r"cannot resume run 'r1'") as error:
            await app.resume("r1")
        assert re.search(r"holds no whole result r1/first/1; have it made again \(.*--from first\)", str(error.value))
        assert await (await app.store()).holder("run/r1") is None
        assert (await app.resume("r1", from_=tasks["first"].call))["third"] == 3


async def test_a_task_that_is_gone_since_is_said(fragile, tasks, durable):
    async with durable() as app:
        await app.run("third", run_id="r1", check=False)
        tasks.remove("third")
        with pytest.raises(PlanningError) as error:
            await app.resume("r1")
        assert "there is no task 'third'" in str(error.value)
        assert (await app.history("r1")).record.state is State.FAILED


async def test_of_a_mapped_task_that_failed_only_its_failed_items_are_run_again(tasks, ran, durable):
    wrong = [True]

    @tasks.task
    def numbers() -> Iterator[int]:
        yield from range(4)

    @tasks.task(each="numbers")
    def doubled(number: int) -> int:
        ran.append(number)
        if number == 2 and wrong:
            raise ValueError("no")
        return number * 2

    async with durable() as app:
        assert (await app.run(run_id="r1", check=False)).state is State.FAILED
        assert ran == [0, 1, 2]
        wrong.clear()
        assert (await app.resume("r1"))["doubled"] == [0, 2, 4, 6]
        assert ran == [0, 1, 2, 2, 3]


async def test_a_resumed_run_keeps_its_ways(fragile, ran, durable, tasks):
    async with durable() as app:
        await app.run(run_id="r1", fail_fast=True, keep="leaves", check=False)
        fragile.clear()
        with pytest.raises(PlanningError) as error:
            await app.resume("r1")
        assert "from_=['first']" in str(error.value)  # which went when its only reader had failed
        result = await app.resume("r1", from_="first")
        assert set(result) == {"third", "beside"}
        record = (await app.history("r1")).record
        assert (record.fail_fast, record.keep) == (True, "leaves")
        assert {ref.task for ref in (await app.io()).list("r1")} == {"third", "beside"}


async def test_a_part_that_took_data_from_an_earlier_run_still_does(fragile, ran, durable):
    async with durable() as app:
        await app.run(run_id="r1", check=False)
        with pytest.raises(RunFailedError):
            await app.run(run_id="r2", root_tasks=["second"], from_run="r1")
        fragile.clear()
        assert (await app.resume("r2"))["third"] == 3
        assert ran.count("first") == 1
