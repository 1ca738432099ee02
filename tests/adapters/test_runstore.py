"""The run stores that ship, under their suite, and what is special to each."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import sys
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import anyio
import pytest

from dpcore.errors import StoreError
from dpcore.ports.runstore import Document
from dpcore.testing import RunStoreConformance
from dpcore_plugins.runstores.memory import MemoryRunStore
from dpcore_plugins.runstores.sqlite import SqliteRunStore
from dpcore_plugins.runstores.sqlite import store as sqlite


class TestMemoryRunStore(RunStoreConformance):
    def make(self, tmp_path):
        return MemoryRunStore()


class TestSqliteRunStore(RunStoreConformance):
    def make(self, tmp_path):
        return SqliteRunStore(path=tmp_path / "runs.db")


class TestSqliteRunStoreWithSync(RunStoreConformance):
    kills = 5
    examples = 10

    def make(self, tmp_path):
        return SqliteRunStore(path=tmp_path / "runs.db", sync=True)


# ---------------------------------------------------------------- SQLite


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.db"


async def use(path):
    async with SqliteRunStore(path=path) as store:
        await store.commit("k", value=b"x")


async def test_nothing_is_made_before_it_is_entered(tmp_path, monkeypatch):
    store = SqliteRunStore(path=tmp_path / "a/b/runs.db")
    assert list(tmp_path.iterdir()) == []
    async with store:
        assert store.path.exists()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert SqliteRunStore().path == tmp_path / ".dpcore/runs.db"
    assert SqliteRunStore(path="~/runs.db").path == Path("/home/somebody/runs.db")


@pytest.mark.parametrize("content", [b"x", b"name,age\nAda,36\n", b"\0" * 5000, b"SQLite format 2\0" * 300])
async def test_a_file_that_is_no_database_is_left_as_it_is(path, content):
    path.write_bytes(content)
    with pytest.raises(StoreError, match="the file is not a database; move it away"):
        await use(path)
    assert path.read_bytes() == content
    assert [file.name for file in path.parent.iterdir()] == ["runs.db"]


async def test_a_database_of_another_program_is_left_as_it_is(path):
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE document (name)")
        other.commit()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="it is a database of another program"):
        await use(path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["runs.db"]


async def test_a_database_of_a_newer_dpcore_is_left_as_it_is(path):
    await use(path)
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"a newer dpcore wrote it \(version 99, this one knows 1\); upgrade"):
        await use(path)
    assert path.read_bytes() == before


async def test_a_newer_version_that_is_still_in_the_log_is_seen_too(path):
    await use(path)
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA user_version = 99")
        with pytest.raises(StoreError, match="version 99"):
            await use(path)


async def test_an_empty_file_becomes_a_database(path):
    path.touch()
    await use(path)
    assert path.read_bytes().startswith(b"SQLite format 3")


async def filled(path):
    """Make a database of many pages; return what is in the file."""
    async with SqliteRunStore(path=path) as store:
        for number in range(50):
            await store.commit(f"k{number}", value=b"x" * 500, entries=[b"y" * 500])
    return path.read_bytes()


def damage(path, first, last):
    """Overwrite pages, of which page 1 holds what the others are."""
    whole = path.read_bytes()
    path.write_bytes(whole[: (first - 1) * 4096] + b"\xff" * ((last - first + 1) * 4096) + whole[last * 4096 :])


def beside(path):
    return sorted(file for file in path.parent.iterdir() if file != path)


async def test_a_damaged_database_is_kept_aside_and_a_new_one_is_begun(path, caplog):
    whole = await filled(path)
    damage(path, 2, len(whole) // 4096)
    damaged = path.read_bytes()
    async with SqliteRunStore(path=path) as store:
        assert await store.scan("") == []
        await store.commit("k", value=b"new")
    (kept,) = beside(path)
    assert re.fullmatch(r"runs\.db\.corrupt-\d{8}T\d{6}Z", kept.name)
    assert kept.read_bytes() == damaged
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"{path}: database disk image is malformed; it is kept as {kept}, and a new one begun")
    async with SqliteRunStore(path=path) as store:
        assert (await store.fetch("k")).value == b"new"
    assert beside(path) == [kept]


async def test_each_damaged_database_is_kept(path):
    for number in range(3):
        whole = await filled(path)
        damage(path, 2, len(whole) // 4096)
        await use(path)
        assert len(beside(path)) == number + 1


async def test_who_has_a_damaged_database_open_keeps_it_and_touches_nothing_of_the_new_one(path):
    whole = await filled(path)
    damage(path, 2, len(whole) // 4096)
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] > 0
        assert path.with_name("runs.db-wal").exists()
        async with SqliteRunStore(path=path) as store:
            await store.commit("k", value=b"new")
            assert len([file for file in beside(path) if ".corrupt-" in file.name]) == 3  # with its log
            other.close()
            await store.commit("l", value=b"new")
    async with SqliteRunStore(path=path) as store:
        assert [key for key, _ in await store.scan("")] == ["l", "k"]


async def test_of_several_who_find_it_damaged_one_keeps_it_aside(path):
    whole = await filled(path)
    damage(path, 2, len(whole) // 4096)
    stores = [SqliteRunStore(path=path) for _ in range(8)]

    async def write(number: int) -> None:
        async with stores[number] as store:
            await store.commit(f"new{number}", value=b"x")

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(write, number)
    async with SqliteRunStore(path=path) as store:
        assert len(await store.scan("new")) == 8
    assert len(beside(path)) == 1


async def test_damage_in_the_middle_is_an_error_that_says_what_to_do(path):
    """Where nobody has looked when it was opened: it is told, and nothing is written over."""
    whole = await filled(path)
    said = []
    for page in range(2, len(whole) // 4096 + 1):
        path.write_bytes(whole)
        damage(path, page, page)
        before = path.read_bytes()
        try:
            async with SqliteRunStore(path=path) as store:
                for key, _ in await store.scan("k"):
                    await store.fetch(key, entries=True)
        except StoreError as error:
            said.append(str(error))
            assert path.read_bytes() == before
    assert len(said) > 1
    assert all("malformed; move the file away, or restore a copy" in each for each in said)


async def test_a_damaged_database_of_another_program_is_left_as_it_is(path):
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE name (name)")
        other.commit()
    damaged = path.read_bytes()[:100] + b"\xff" * 8092
    path.write_bytes(damaged)
    with pytest.raises(StoreError, match="malformed; move the file away"):
        await use(path)
    assert path.read_bytes() == damaged
    assert beside(path) == []


async def test_a_folder_that_cannot_be_made_is_said_in_the_words_of_the_system(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"Not a directory.*; choose another path") as error:
        await use(tmp_path / "file" / "folder" / "runs.db")
    assert isinstance(error.value.__cause__, NotADirectoryError)
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="Is a directory"):
        await use(tmp_path / "folder")


@pytest.mark.parametrize("asked", ["drop", "commit", "large commit"])
async def test_whatever_is_asked_after_a_small_commit_waits_for_another_process(path, asked):
    async def ask() -> object:
        if asked == "drop":
            return await store.drop("k")
        return await store.commit("k", value=b"x" * (100_000 if asked == "large commit" else 1))

    async with SqliteRunStore(path=path) as store:
        await store.commit("k", value=b"")  # which waits for nobody
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with anyio.move_on_after(0.5) as scope:
                await ask()
            assert scope.cancelled_caught, "it was to wait, and did not"
        assert await ask()


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_database_that_is_deleted_while_it_is_open_takes_no_record(path, replaced):
    async with SqliteRunStore(path=path) as store:
        await store.commit("k", value=b"1")
        path.rename(path.with_name("elsewhere"))
        if replaced:
            async with SqliteRunStore(path=path) as other:
                assert await other.fetch("k") is None
        with pytest.raises(
            StoreError, match="was deleted or replaced while it was open; what was recorded in it is lost"
        ):
            await store.commit("k", value=b"2")


WRITES = """
import os, sys, anyio
from dpcore_plugins import SqliteRunStore
async def main():
    async with SqliteRunStore(path=sys.argv[1]) as store:
        await store.commit("k", value=b"")
        for _ in range(50):
            await store.commit("k", entries=[bytes(60_000)])
        os._exit(0)  # as if it were killed: nothing is closed
anyio.run(main)
"""


async def test_the_log_stays_small_whoever_is_killed(path):
    log = path.with_name(path.name + "-wal")
    for _ in range(5):  # 3 MB each
        await anyio.run_process([sys.executable, "-c", WRITES, str(path)])
    assert log.stat().st_size < 8_000_000
    async with SqliteRunStore(path=path) as store:
        for _ in range(250):
            await store.commit("k", entries=[bytes(60_000)])
        assert log.stat().st_size < 8_000_000
        found = await store.fetch("k", entries=True)
        assert len(found.entries) == 500


async def test_entering_twice_at_once_is_an_error(path):
    async with SqliteRunStore(path=path) as store:
        with pytest.raises(StoreError, match="open already"):
            await store.__aenter__()
        assert await store.commit("k", value=b"") == 1


async def test_a_database_that_cannot_be_written_says_what_to_do(tiny_disk):
    path = tiny_disk / "runs.db"
    async with SqliteRunStore(path=path):
        pass
    await anyio.run_process(["mount", "-o", "remount,ro", str(tiny_disk)])
    with pytest.raises(StoreError, match=r"; let it be written, or choose another path: sqlite:PATH$"):
        async with SqliteRunStore(path=path) as store:
            await store.commit("k", value=b"new")


async def test_a_full_disk_loses_nothing_that_was_committed(tiny_disk):
    async with SqliteRunStore(path=tiny_disk / "runs.db") as store:
        await store.commit("k", value=b"old", entries=[b"x"])
        with pytest.raises(StoreError, match=r"database or disk is full; make room there, or choose another path"):
            await store.commit("k", value=b"new", entries=[b"y" * 3_000_000])
        assert await store.fetch("k", entries=True) == Document(b"old", 1, [b"x"])
    async with SqliteRunStore(path=tiny_disk / "runs.db") as store:
        assert await store.commit("k", entries=[b"z"]) == 1


async def test_a_commit_that_fails_fails_alone(path):
    async with SqliteRunStore(path=path) as store:
        await store.commit("k", value=b"")
        answers = {}

        async def commit(name, entry):
            try:
                answers[name] = await store.commit("k", entries=[b"first", entry])
            except StoreError as error:
                answers[name] = error

        async with anyio.create_task_group() as tasks:
            for name, entry in (("before", b"1"), ("wrong", object()), ("after", b"2")):
                tasks.start_soon(commit, name, entry)
        assert isinstance(answers.pop("wrong"), StoreError)
        assert answers == {"before": 1, "after": 1}
        found = await store.fetch("k", entries=True)
        assert sorted(found.entries) == [b"1", b"2", b"first", b"first"]


async def test_it_waits_for_another_process_and_can_be_cancelled_meanwhile(path):
    async with SqliteRunStore(path=path) as store:
        await store.commit("k", value=b"")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with anyio.move_on_after(0.25) as scope:
                await store.commit("k", entries=[b"cancelled"])
            assert scope.cancelled_caught
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(store.commit, "k", entries=[b"patient"]))
                await anyio.wait_all_tasks_blocked()
                other.execute("COMMIT")
        assert (await store.fetch("k", entries=True)).entries == [b"patient"]


async def test_a_lock_that_is_never_given_up_is_an_error_for_all_that_wait(path, monkeypatch):
    monkeypatch.setattr(sqlite, "_TRIES", 2)
    errors = []

    async def commit():
        with pytest.raises(StoreError, match=r"another process has kept it locked for 0\.2 s") as error:
            await store.commit("k", entries=[b"x"])
        errors.append(error)

    async with SqliteRunStore(path=path) as store:
        await store.commit("k", value=b"")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            async with anyio.create_task_group() as tasks:
                for _ in range(20):
                    tasks.start_soon(commit)
            other.execute("COMMIT")
        assert len(errors) == 20
        assert await store.fetch("k", entries=True) == Document(b"", 1)


def test_a_task_that_asyncio_cancels_itself_leaves_the_store_in_order(path):
    """anyio's shields do not hold against Task.cancel(): the thread goes on alone."""

    async def work():
        async with SqliteRunStore(path=path) as store:
            await store.commit("k", value=b"")
            for turn in range(50):
                tasks = [asyncio.create_task(store.commit("k", entries=[b"%d" % turn, b"-"])) for _ in range(3)]
                for _ in range(turn % 8):
                    await asyncio.sleep(0)
                tasks[turn % 3].cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                assert [task.cancelled() for task in tasks].count(True) <= 1
                assert await store.commit("k") == 1
            found = await store.fetch("k", entries=True)
            assert set(found.entries[1::2]) == {b"-"}
            assert all(found.entries.count(b"%d" % turn) in (2, 3) for turn in range(50))

    asyncio.run(work())


async def test_twenty_thousand_entries_in_batches_are_quick(path):
    async with SqliteRunStore(path=path) as store:
        await store.commit("k", value=b"")
        began = time.perf_counter()
        for _ in range(100):
            await store.commit("k", entries=[b"x" * 150] * 200)
        assert time.perf_counter() - began < 5  # a hope is 0.2: this is only the order of magnitude
