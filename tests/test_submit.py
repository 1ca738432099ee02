"""Runs that are begun by one and go on by themselves: whoever began them, waits for them, or is cancelled meanwhile."""

from __future__ import annotations

import gc
import logging
import sys
from functools import partial

import anyio
import pytest

from dpcore import App, Running, State
from dpcore.errors import (
    AppStateError,
    ArgumentError,
    LeaseLostError,
    PlanningError,
    RunCancelledError,
    RunExistsError,
    RunFailedError,
    RunHeldError,
    RunNotFoundError,
    StoreError,
    TaskNotFoundError,
)
from dpcore.testing import FakeClock
from dpcore_plugins import MemoryIO, MemoryRunStore

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.fixture
def made(tasks, plugins):
    """Make an app; what is not given is in memory."""
    return lambda **given: App(tasks, plugins=plugins, **given)


@pytest.fixture
def gate(tasks):
    """A task ``gated`` that has begun when ``gate.begun`` is set, and ends when ``gate.go`` is."""

    class Gate:
        begun, go = anyio.Event(), anyio.Event()

    @tasks.task
    async def gated() -> int:
        Gate.begun.set()
        await Gate.go.wait()
        return 7

    return Gate


@pytest.fixture
def lasting(made, tmp_path):
    """Make an app whose runs and results last."""
    return lambda: made(store=f"sqlite:{tmp_path}/runs.db", io=f"filesystem:{tmp_path}/runs")


# ---------------------------------------------------------------- by itself


async def test_a_run_goes_on_by_itself_and_gives_its_result_to_as_many_as_ask_as_often_as_they_do(gate, made):
    results = []

    async def ask(running):
        results.append(await running.result())

    with anyio.fail_after(20):
        async with made() as app, anyio.create_task_group() as group:
            running = await app.submit("gated", run_id="r1", metadata={"who": "me"})
            assert isinstance(running, Running)
            assert (running.run_id, running.plan.order, running.ended) == ("r1", ("gated",), False)
            assert repr(running) == "<Running 'r1': goes on>"
            for _ in range(3):
                group.start_soon(ask, running)
            await gate.begun.wait()
            assert not running.ended
            gate.go.set()
            results += [await running, await running.result(check=False), await running]
            assert running.ended
            assert repr(running) == "<Running 'r1': ended>"
            assert (await app.history("r1")).record.state is State.SUCCEEDED
    assert len(results) == 6
    assert all(one is results[0] for one in results)
    assert results[0]["gated"] == 7


async def test_it_returns_before_anything_has_run_and_the_run_is_there_for_all_who_name_it(gate, made):
    with anyio.fail_after(20):
        async with made(executor="inline") as app:
            running = await app.submit(run_id="r1")
            assert not gate.begun.is_set()
            with pytest.raises(RunHeldError, match="run 'r1' is being run by this App"):
                await app.forget("r1")
            assert (await app.history("r1")).record.state is State.RUNNING
            app.cancel("r1", "no more")
            with pytest.raises(RunCancelledError, match="run 'r1' was cancelled: no more"):
                await running.result()
            assert not gate.begun.is_set()
            assert (await app.history("r1")).record.reason == "no more"
            with pytest.raises(RunNotFoundError):
                app.cancel("r1")


async def test_who_waits_or_has_begun_it_is_cancelled_and_the_run_goes_on(gate, made):
    runs = []

    async def begin_and_wait(app):
        runs.append(await app.submit())
        await runs[0].result()

    with anyio.fail_after(20):
        async with made() as app:
            async with anyio.create_task_group() as group:
                group.start_soon(begin_and_wait, app)
                await gate.begun.wait()
                with anyio.move_on_after(0) as scope:
                    await runs[0]
                assert scope.cancelled_caught
                group.cancel_scope.cancel()
            assert not runs[0].ended
            gate.go.set()
            assert (await runs[0])["gated"] == 7


async def test_it_is_cancelled_by_who_has_it_and_what_has_ended_is_not(gate, made):
    with anyio.fail_after(20):
        async with made() as app:
            first, second = [await app.submit(run_id=name) for name in ("r1", "r2")]
            await gate.begun.wait()
            first.cancel("it rains")
            result = await first.result(check=False)
            assert (result.state, result.reason) == (State.CANCELLED, "it rains")
            gate.go.set()
            assert (await second)["gated"] == 7
            again = await app.submit_resumed("r1")
            first.cancel()
            second.cancel()
            assert (await again)["gated"] == 7
            assert (await app.history("r2")).record.state is State.SUCCEEDED


async def test_a_run_that_fails_raises_what_its_tasks_raised_for_each_who_asks(tasks, made):
    @tasks.task
    def wrong() -> int:
        raise KeyError("row 7")

    async with made() as app:
        running = await app.submit()
        for _ in range(2):
            with pytest.raises(RunFailedError) as error:
                await running
            assert [type(one) for one in error.value.exceptions] == [KeyError]
        assert (await running.result(check=False)).state is State.FAILED
        with pytest.raises(ArgumentError, match="check=1 must be True or False"):
            await running.result(check=1)


async def test_what_is_wrong_with_a_run_is_said_when_it_is_submitted(gate, made):
    async with made() as app:
        with pytest.raises(PlanningError) as error:
            await app.submit("gate")
        assert error.group_contains(TaskNotFoundError, match="there is no task 'gate'")
        for name, wrong in {"params": 1, "keep": "some", "priority": True, "fail_fast": 0}.items():
            with pytest.raises(ArgumentError, match=f"{name}="):
                await app.submit(**{name: wrong})
        with pytest.raises(TypeError, match="check"):
            await app.submit(check=False)
        assert await (await app.store()).list() == []
        gate.go.set()
        await app.run(run_id="r1")
        with pytest.raises(RunExistsError, match="a run 'r1' is already recorded in memory"):
            await app.submit(run_id="r1")
        running = await app.submit(run_id="r2")
        with pytest.raises(RunExistsError):
            await app.submit(run_id="r2")
        assert (await running)["gated"] == 7
    with pytest.raises(AppStateError, match="is not entered"):
        await app.submit()


async def test_many_runs_are_submitted_and_each_gives_its_own(tasks, made):
    tasks.task(name="same")(lambda i: i)
    with anyio.fail_after(60):
        async with made(executor="threads") as app:
            runs = [await app.submit("same", params={"i": number}) for number in range(50)]
            assert [(await running)["same"] for running in runs] == list(range(50))
        assert len(app._runners) == 0


# ---------------------------------------------------------------- the app is left


async def test_when_its_app_is_left_it_is_cancelled_and_who_waits_gets_that(gate, made):
    results = []

    async def ask(running):
        results.append(await running.result(check=False))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            async with made() as app:
                running = await app.submit()
                group.start_soon(ask, running)
                await gate.begun.wait()
            assert running.ended
            results.append(await running.result(check=False))
            with pytest.raises(RunCancelledError, match="its App was left"):
                await running
    assert [result.state for result in results] == [State.CANCELLED] * 2


async def test_when_its_app_is_left_at_once_it_is_cancelled_before_anything_has_run(gate, made):
    with anyio.fail_after(20):
        async with made() as app:
            running = await app.submit()
        result = await running.result(check=False)
        assert (result.state, result.reason) == (State.CANCELLED, "its App was left")
        assert not gate.begun.is_set()


@pytest.mark.parametrize("turns", [0, 1, 2, 5, 50])
async def test_when_what_its_app_lives_in_is_cancelled_or_fails_nobody_is_left_waiting(gate, made, turns):
    results = []

    async def ask(running):
        results.append(await running.result(check=False))

    async def fail():
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        raise OSError("the network is gone")

    async def live(group):
        async with anyio.create_task_group() as failing, made() as app:
            running = await app.submit()
            group.start_soon(ask, running)
            failing.start_soon(fail)
            await running

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            with pytest.raises(ExceptionGroup) as error:
                await live(group)
            assert error.group_contains(OSError, match="the network is gone")
    assert [(result.state, result.reason) for result in results] == [(State.CANCELLED, "its App was left")]


class Failing(MemoryRunStore):
    """A store that fails from the first outcome on, until it is healed."""

    capabilities = frozenset({"durable"})  # it stands for one, and so is told of everything at once
    fails = True

    async def commit(self, key, **fields):
        if self.fails and key.startswith("run/") and fields.get("entries"):
            raise StoreError("failing", "the disk is full")
        return await super().commit(key, **fields)


async def test_a_store_that_fails_is_told_to_who_asks_and_is_no_affair_of_the_app(gate, made, caplog):
    store, io = Failing(), MemoryIO()
    gate.go.set()
    with anyio.fail_after(20):
        async with made(store=store, io=io) as app:
            running = await app.submit(run_id="r1")
            for check in (True, False, True):
                with pytest.raises(StoreError, match="the disk is full"):
                    await running.result(check=check)
            assert running.ended
            store.fails = False
            assert (await app.run())["gated"] == 7
            assert (await (await app.submit_resumed("r1")))["gated"] == 7
        del running
        gc.collect()
    assert "nobody has asked" not in caplog.text


async def test_an_error_of_the_store_is_itself_also_where_events_tell_of_runs(gate, made):
    gate.go.set()
    with anyio.fail_after(20):
        async with made(store=Failing()) as app, app.subscribe("$run.*"):
            with pytest.raises(StoreError):
                await app.run()
            with pytest.raises(StoreError):
                await (await app.submit())


async def test_what_many_are_told_shows_the_frames_of_one_each(gate, made):
    gate.go.set()
    async with made(store=Failing()) as app:
        running = await app.submit()
        lengths = []
        for _ in range(3):
            with pytest.raises(StoreError) as error:
                await running
            lengths.append(len(error.traceback))
        assert len(set(lengths)) == 1


@pytest.mark.parametrize("held", ["until it has ended", "not at all", "until the app is left"])
async def test_an_error_that_nobody_asks_for_is_logged_once_with_its_run(gate, made, caplog, held):
    gate.go.set()
    with anyio.fail_after(20):
        async with made(store=Failing()) as app:
            running = await app.submit(run_id="r1")
            if held == "not at all":
                del running
            while len(app._runners):
                await anyio.lowlevel.checkpoint()
            await anyio.wait_all_tasks_blocked()
            if held == "until it has ended":
                assert running.ended
                del running
        if held == "until the app is left":
            assert caplog.text == ""
            del running
    (record,) = [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert record.getMessage() == "run r1 was broken off, and nobody has asked for its result"
    assert isinstance(record.exc_info[1], StoreError)


async def test_a_run_that_another_one_has_taken_over_is_broken_off_and_says_so(gate, made):
    with anyio.fail_after(20):
        async with made(clock=FakeClock(), io="memory") as app:
            running = await app.submit(run_id="r1")
            await gate.begun.wait()
            await app.clock.advance(31)
            assert await (await app.store()).lease("run/r1", 30)
            gate.go.set()
            with pytest.raises(LeaseLostError, match="no longer ours"):
                await running
            assert (await app.run())["gated"] == 7


# ---------------------------------------------------------------- what lasts, and what is kept


async def test_what_was_submitted_is_recorded_when_that_returns_and_another_app_can_go_on_with_it(gate, lasting):
    with anyio.fail_after(20):
        async with lasting() as app, lasting() as other:
            running = await app.submit("gated", run_id="r1")
            found = await (await other.store()).get("r1")
            assert found.record.state is State.RUNNING
            assert found.record.selection["selection"] == ["gated"]
            with pytest.raises(RunHeldError, match="run 'r1' is being run by process"):
                await other.submit_resumed("r1")
            with pytest.raises(RunExistsError):
                await other.submit(run_id="r1")
            running.cancel()
            assert (await running.result(check=False)).state is State.CANCELLED
            resumed = await other.submit_resumed("r1")
            gate.go.set()
            assert (await resumed)["gated"] == 7


DIES = """
import os, anyio
from dpcore import App, Registry

tasks = Registry()
tasks.task(name="one")(lambda: 1)

async def main() -> None:
    async with App(tasks, store="sqlite:runs.db", io="filesystem:runs") as app:
        await app.submit(run_id="r1")
        os._exit(3)

anyio.run(main)
"""


async def test_a_program_that_dies_when_it_has_submitted_a_run_leaves_one_that_can_be_resumed(tasks, lasting, tmp_path):
    tasks.task(name="one")(lambda: 1)
    with anyio.fail_after(60):
        died = await anyio.run_process([sys.executable, "-c", DIES], cwd=tmp_path, check=False)
        assert (died.returncode, died.stderr) == (3, b"")
        async with lasting() as app:
            assert dict(await (await app.submit_resumed("r1"))) == {"one": 1}


async def test_a_result_stays_while_who_has_its_run_may_ask_for_it_and_no_longer(tasks, made):
    tasks.task(name="same")(lambda i: i)
    with anyio.fail_after(20):
        async with made(keep_runs=0, executor="inline") as app:
            held = [await app.submit("same", params={"i": number}, run_id=f"r{number}") for number in range(3)]
            dropped = await app.submit("same", params={"i": 3}, run_id="r3")
            await dropped
            del dropped
            for number in range(10, 15):
                await app.run("same", params={"i": number})
            known = {one.run_id for one in await (await app.store()).list()}
            assert {"r0", "r1", "r2"} <= known
            assert "r3" not in known
            assert [(await running)["same"] for running in held] == [0, 1, 2]
            held.clear()
            for number in range(20, 23):
                await app.run("same", params={"i": number})
            assert len(await (await app.store()).list()) <= 1


# ---------------------------------------------------------------- going on


async def test_what_is_left_of_a_run_goes_on_by_itself(tasks, lasting):
    fails, ran = [True], []

    @tasks.task
    def first() -> int:
        ran.append("first")
        return 1

    @tasks.task
    def second(first: int) -> int:
        ran.append("second")
        if fails:
            raise ValueError("not yet")
        return first + 1

    with anyio.fail_after(20):
        async with lasting() as app:
            with pytest.raises(RunFailedError):
                await (await app.submit(run_id="r1"))
            running = await app.submit_resumed("r1")
            with pytest.raises(RunHeldError, match="this App"):
                await app.resume("r1")
            with pytest.raises(RunFailedError):
                await running
        fails.clear()
        async with lasting() as app:
            running = await app.submit_resumed("r1")
            assert (running.run_id, running.plan.order) == ("r1", ("first", "second"))
            assert dict(await running) == {"first": 1, "second": 2}
            assert dict(await (await app.submit_resumed("r1", from_=first))) == {"first": 1, "second": 2}
            with pytest.raises(RunNotFoundError, match="there is no run 'r2'"):
                await app.submit_resumed("r2")
            with pytest.raises(ArgumentError, match="changed=1 must be True or False"):
                await app.submit_resumed("r1", changed=1)
    assert ran == ["first", "second", "second", "second", "first", "second"]


# ---------------------------------------------------------------- beginning and leaving


async def test_a_run_that_is_cancelled_while_it_begins_is_there_as_a_whole_or_not_at_all(gate, lasting):
    async with lasting() as app:
        store = await app.store()
        for turns in range(40):
            async with anyio.create_task_group() as group:
                group.start_soon(partial(app.run, run_id=f"r{turns}"))
                for _ in range(turns):
                    await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()
            assert await store.holder(f"run/r{turns}") is None
        found = await store.list()
    assert {record.state for record in found} <= {State.CANCELLED}


class Watched(MemoryRunStore):
    """Lets a test in before it records that a run begins."""

    def __init__(self):
        super().__init__()
        self.asked, self.go = anyio.Event(), anyio.Event()

    async def commit(self, key, **fields):
        if key.startswith("run/") and fields.get("expected") == 0:
            self.asked.set()
            await self.go.wait()
        return await super().commit(key, **fields)


async def test_a_run_that_is_being_begun_when_its_app_is_left_is_cancelled_and_then_none_begins(gate, made):
    store, ends = Watched(), []

    async def run(app):
        ends.append((await app.run(run_id="r1", check=False)).reason)

    async def run_too_late(app):
        while app._runners._is_open:
            await anyio.lowlevel.checkpoint()
        with pytest.raises(AppStateError, match="is being left; stay in it until its runs have ended"):
            await app.run(run_id="r2")
        store.go.set()

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group, made(store=store) as app:
            group.start_soon(run, app)
            group.start_soon(run_too_late, app)
            await store.asked.wait()
        assert ends == ["its App was left"]
        assert not gate.begun.is_set()
        async with made(store=store) as app:
            found = await (await app.store()).list()
        assert [(record.run_id, record.state) for record in found] == [("r1", State.CANCELLED)]


async def test_runs_that_go_on_when_their_app_is_left_have_given_their_leases_back(gate, lasting):
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group, lasting() as app:
            for number in range(5):
                group.start_soon(partial(app.run, run_id=f"r{number}", check=False))
            while len(app._runners) < 5:
                await anyio.lowlevel.checkpoint()
        async with lasting() as app:
            store = await app.store()
            assert [await store.holder(f"run/r{number}") for number in range(5)] == [None] * 5
            ends = {(record.state, record.reason) for record in await store.list()}
            assert ends == {(State.CANCELLED, "its App was left")}
