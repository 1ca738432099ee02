"""Many at once: programs on one store, and runs in one App."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

import dpcore
from dpcore import App, State
from dpcore_plugins import FilesystemIO, SqliteRunStore


def test_two_programs_on_one_store_lose_nothing_and_never_hear_of_each_other(programs, tmp_path):
    printed = programs("one_of_two.py", ["left", tmp_path, 25], ["right", tmp_path, 25])
    wanted = {f"{name}-{number}": 5 * (11 + number) + 10 + number for name in ("left", "right") for number in range(25)}
    assert printed[0] | printed[1] == wanted

    async def look() -> None:
        async with SqliteRunStore(path=tmp_path / "runs.db") as store:
            records = {record.run_id: record for record in await store.list()}
            assert set(records) == set(wanted)
            for run_id, record in records.items():
                history = await store.get(run_id)
                assert record.state is State.SUCCEEDED
                assert {task: change.state for task, change in history.tasks.items()} == dict.fromkeys(
                    ["rows", "days", "each_day", "total"], State.SUCCEEDED
                )
            assert (await store.read("turns"))[1] == 50  # each of them counted once

    anyio.run(look)
    io = FilesystemIO(path=tmp_path / "results")
    assert io.runs() == sorted(wanted)
    assert all(len(io.list(run_id)) == 1 + 5 + 5 + 1 for run_id in wanted)


def fill(tasks: dpcore.Registry) -> None:
    """Tasks of every colour, one that fails once for each number, and one that fails for every tenth."""

    @tasks.task
    def first(number: int) -> int:
        return number

    @tasks.task
    async def second(first: int) -> list[int]:
        await anyio.lowlevel.checkpoint()
        return [first] * 3

    @tasks.task
    def items(second: list[int]):
        yield from second

    failed = set()

    @tasks.task(max_retries=1)
    def third(items: list[int]) -> int:
        if items[0] not in failed:
            failed.add(items[0])
            raise ValueError("once more")
        return sum(items)

    @tasks.task
    def bad(number: int) -> None:
        if number % 10 == 0:
            raise ValueError(f"no {number}")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("adapters", ["memory", "on disk"])
def test_50_runs_at_once_in_one_app_are_as_if_each_were_alone(backend, adapters, tasks, plugins, tmp_path):
    fill(tasks)
    io, store = ("memory", "memory") if adapters == "memory" else (f"filesystem:{tmp_path}/io", f"sqlite:{tmp_path}/db")
    results = {}

    async def one(app: App, number: int) -> None:
        results[number] = await app.run(params={"number": number}, run_id=f"r{number}", check=False)

    async def main() -> None:
        async with App(tasks, plugins=plugins, io=io, store=store, executor="threads?slots=8") as app:
            async with anyio.create_task_group() as group:
                for number in range(50):
                    group.start_soon(one, app, number)
            for number, result in results.items():
                history = await app.history(f"r{number}")
                assert history.record.state is result.state
                assert {name: change.state for name, change in history.tasks.items()} == {
                    name: outcome.state for name, outcome in result.outcomes.items()
                }
                assert history.tasks["third"].attempt == 2

    anyio.run(main, backend=backend)
    assert sorted(results) == list(range(50))
    for number, result in results.items():
        assert (result["first"], result["items"], result["third"]) == (number, [number] * 3, 3 * number)
        assert result.state is (State.FAILED if number % 10 == 0 else State.SUCCEEDED)
