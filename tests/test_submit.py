"""Runs that are begun by one and go on by themselves: whoever began them, waits for them, or is cancelled meanwhile."""

from __future__ import annotations

from functools import partial

import anyio
import pytest

from dpcore import App, State
from dpcore.errors import AppStateError
from dpcore_plugins import MemoryRunStore

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
