"""What is said, and what is kept, when the place where results and records go fails in the middle of a run."""

from __future__ import annotations

import pickle
import re
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

import dpcore
from dpcore import App, Ref, State, run
from dpcore.errors import PlanningError, ResultNotStoredError, RunFailedError, StoreError
from dpcore_plugins import FilesystemIO, MemoryRunStore, SqliteRunStore

CAUSES = [OSError(28, "No space left on device"), TimeoutError("the server does not answer"), ConnectionResetError()]


class Failing(MemoryRunStore):
    """A store of somebody else's, which lets an error of the system out at its third commit and ever after."""

    def __init__(self, cause: OSError) -> None:
        super().__init__()
        self.cause, self.left = cause, 2

    def __str__(self) -> str:
        return "failing"

    async def commit(self, key: str, **asked: Any) -> int | None:
        self.left -= 1
        if self.left < 0:
            raise self.cause
        return await super().commit(key, **asked)


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: type(cause).__name__)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_store_that_fails_in_the_middle_of_a_run_is_named_and_its_record_says_no_more_than_is_true(
    cause, backend, tasks, plugins
):
    ran = []

    @tasks.task
    def first() -> int:
        ran.append("first")
        return 1

    @tasks.task
    def second(first: int) -> int:
        ran.append("second")
        return first

    store = Failing(cause)
    store.capabilities = frozenset({"shared"})  # so that changes are written before what depends on them starts

    async def main() -> dpcore.ports.runstore.RunHistory:
        async with App(tasks, plugins=plugins, store=store, executor="inline") as app:
            with pytest.raises(StoreError) as caught:
                await app.run(run_id="r")
            said = str(cause) or type(cause).__name__
            assert str(caught.value) == f"the run store failing cannot be used: {said}"
            assert caught.value.__cause__ is cause
            assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
            return await app.history("r")

    history = anyio.run(main, backend=backend)
    assert history.record.state is State.RUNNING  # nobody has said that it ended
    assert history.record.ended is None
    assert set(history.tasks) <= {"first"}
    assert "second" not in ran or "first" in history.tasks


class Deep:
    """Holds what cannot be stored some way down."""

    __slots__ = ("rows",)

    def __init__(self) -> None:
        self.rows = {"k": [1, threading.Lock()]}


def test_a_result_that_cannot_be_stored_is_named_with_its_task_and_the_way_to_it_and_the_old_value_stays(
    tasks, tmp_path
):
    @tasks.task
    def made() -> Deep:
        return Deep()

    io = FilesystemIO(path=tmp_path)
    io.save(Ref("r", "made", "1"), "old")

    async def main() -> None:
        async with App(tasks, plugins=dpcore.Plugins(installed=False), io=io) as app:
            await app.run(run_id="r")

    with pytest.raises(RunFailedError) as caught:
        anyio.run(main)
    (error,) = caught.value.exceptions
    assert isinstance(error, ResultNotStoredError)
    assert str(error) == (
        f"cannot store the result r/made/1: its type is {__name__}.Deep, and value.rows['k'][1]: "
        "cannot pickle '_thread.lock' object; return what pickles, or leave that part out"
    )
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert io.load(Ref("r", "made", "1")) == "old"


class Awkward:
    def __getstate__(self):
        raise ValueError("not today")


def test_of_what_could_not_be_stored_the_sentence_is_the_traceback_unless_the_users_code_had_a_part_in_it(
    tasks, plugins, tmp_path
):
    @tasks.task
    def deep() -> Deep:
        return Deep()

    @tasks.task
    def awkward() -> Awkward:
        return Awkward()

    result = run(registry=tasks, plugins=plugins, io=f"filesystem:{tmp_path}", check=False)
    error = result.errors["deep"]
    assert result.outcomes["deep"].traceback == f"dpcore.errors.ResultNotStoredError: {error}\n"
    told = result.outcomes["awkward"].traceback
    assert "in __getstate__" in told
    assert re.findall(r'File "(.*)"', told) == [__file__]
    assert told.count("Traceback") == 1
    assert told.endswith(f"\ndpcore.errors.ResultNotStoredError: {result.errors['awkward']}\n")


def test_a_full_disk_fails_the_task_in_the_words_of_the_system_and_is_recorded(tasks, plugins, tiny_disk, tmp_path):
    @tasks.task
    def small() -> int:
        return 1

    @tasks.task
    def large(small: int) -> bytes:
        return b"x" * 3_000_000

    arguments = {"io": f"filesystem:{tiny_disk}/io", "store": f"sqlite:{tmp_path}/runs.db"}
    result = run(registry=tasks, plugins=plugins, check=False, **arguments)
    assert result["small"] == 1
    error = result.errors["large"]
    assert str(error) == (
        f"cannot store the result {result.run_id}/large/1: filesystem:{tiny_disk}/io: [Errno 28] No space left on device; "
        "make room there, or choose another folder: filesystem:PATH"
    )
    assert not [*Path(tiny_disk).rglob("*large*/*")]

    async def look() -> None:
        async with SqliteRunStore(path=tmp_path / "runs.db") as store:
            history = await store.get(result.run_id)
            assert {task: change.state for task, change in history.tasks.items()} == {
                "small": State.SUCCEEDED,
                "large": State.FAILED,
            }

    anyio.run(look)


def test_a_full_disk_under_the_records_names_the_store_and_loses_none_that_was_written(tasks, plugins, tiny_disk):
    def noisy() -> None:
        raise ValueError("x" * 2_000_000)  # of which 64 Ki characters are recorded, and as many of the traceback

    for number in range(40):
        tasks.task(name=f"noisy{number}")(noisy)
    store = SqliteRunStore(path=tiny_disk / "runs.db")

    async def main() -> None:
        async with App(tasks, plugins=plugins, store=store) as app:
            with pytest.raises(
                StoreError, match=r"^the run store sqlite:.*runs\.db cannot be used: database or disk is full"
            ):
                await app.run(run_id="r")
            assert (await app.history("r")).record.ended is None

    anyio.run(main)


def test_a_folder_that_cannot_be_written_is_said_in_the_words_of_the_system(tasks, plugins):
    @tasks.task
    def one() -> int:
        return 1

    result = run(registry=tasks, plugins=plugins, io="filesystem:/proc/no/folder", check=False)
    assert str(result.errors["one"]) == (
        f"cannot store the result {result.run_id}/one/1: filesystem:/proc/no/folder: "
        "[Errno 2] No such file or directory: '/proc/no'; choose another folder: filesystem:PATH"
    )


@pytest.mark.parametrize("left", [Path.touch, Path.mkdir], ids=["empty", "folder"])
def test_an_earlier_result_that_is_not_whole_says_what_to_do(tasks, plugins, tmp_path, left):
    @tasks.task
    def one() -> int:
        return 1

    @tasks.task
    def two(one: int) -> int:
        return one

    adapters = {"plugins": plugins, "io": f"filesystem:{tmp_path}", "store": f"sqlite:{tmp_path}/runs.db"}
    first = run(registry=tasks, **adapters)
    file = tmp_path / first.run_id / "one" / "1.pkl"
    file.unlink()
    left(file)
    with pytest.raises(PlanningError) as caught:
        run(root_tasks=["two"], from_run=first.run_id, registry=tasks, **adapters)
    assert f"holds no whole result {first.run_id}/one/1; run 'one' too, or give its result" in str(caught.value)
    with pytest.raises(StoreError) as caught:
        run(registry=tasks, plugins=plugins, store="sqlite:/proc/no/runs.db")
    assert str(caught.value) == (
        "the run store sqlite:/proc/no/runs.db cannot be used: [Errno 2] No such file or directory: '/proc/no'; "
        "choose another path"
    )
