"""What it costs to keep results as files and runs in SQLite, beside the same by hand.

By hand means: the same pickle, written to a temporary file that is renamed; and the
same rows, inserted with ``executemany`` in a transaction of the same kind.
"""

from __future__ import annotations

import os
import pickle
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest

from dpcore import Ref, State
from dpcore.ports.runstore import RunRecord, TaskChange
from dpcore_plugins.io.filesystem import FilesystemIO
from dpcore_plugins.runstores.sqlite import SqliteRunStore

MEMORY = Path("/dev/shm")
SMALL = {"orders": [30, 10, 2], "day": "2026-11-22"}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Give a folder in memory where there is one: what is compared is the work, not the disk."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="dpcore-") as made:
        yield Path(made)


class ByHand:
    """Pickles in files, as one would write it."""

    def __init__(self, folder: Path, *, sync: bool = False) -> None:
        self.folder, self.sync = folder, sync
        folder.mkdir()

    def save(self, name: str, value: Any) -> str:
        final, growing = f"{self.folder}/{name}.pkl", f"{self.folder}/.{name}.tmp"
        with open(growing, "wb") as file:  # noqa: PTH123
            file.write(pickle.dumps(value, protocol=5))
            if self.sync:
                file.flush()
                os.fsync(file.fileno())
        os.rename(growing, final)  # noqa: PTH104
        if self.sync:
            self._sync_folder()
        return final

    def _sync_folder(self) -> None:
        opened = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)

    def load(self, name: str) -> Any:
        with open(f"{self.folder}/{name}.pkl", "rb") as file:  # noqa: PTH123
            return pickle.load(file)


def array(megabytes: int) -> Any:
    numpy = pytest.importorskip("numpy", reason="numpy is not installed")
    return numpy.random.default_rng(0).random(megabytes * 131_072)


def same(one: Any, other: Any) -> bool:
    return bool((one == other).all()) if hasattr(one, "all") else bool(one == other)


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("what", ["a small value", "a 1 MB array"])
def test_what_is_saved_is_what_was_pickled(what: str, folder: Path, side_by_side: Any) -> None:
    value = SMALL if what == "a small value" else array(1)
    io, by_hand = FilesystemIO(path=folder / "io"), ByHand(folder / "by-hand")
    times = side_by_side.size(100 if value is SMALL else 10, 2)
    numbers = [str(number) for number in range(times)]  # from the second round on, each replaces one
    side_by_side.time(
        f"filesystem, save {what}",
        lambda: [io.save(Ref("run", "task", number), value) for number in numbers],
        lambda: [by_hand.save(number, value) for number in numbers],
        than="pickle, write, rename", per=times, clock="wall",
    )  # fmt: skip
    assert same(io.load(Ref("run", "task", "0")), by_hand.load("0"))


def test_a_first_save_is_what_was_pickled(folder: Path, side_by_side: Any) -> None:
    """As in a run: each result has a folder of its own, which has to be made."""
    io, by_hand, number = FilesystemIO(path=folder / "io"), ByHand(folder / "by-hand"), count()
    times = side_by_side.size(100, 2)
    where, by_hand_where = side_by_side.time(
        "filesystem, save a small value of another task",
        lambda: [io.save(Ref("run", f"t{next(number)}", "1"), SMALL) for _ in range(times)],
        lambda: [by_hand.save(f"t{next(number)}", SMALL) for _ in range(times)],
        than="pickle, write, rename", per=times, clock="wall",
    )  # fmt: skip
    assert [Path(path).is_file() for path in where + by_hand_where] == [True] * times * 2


def test_what_is_saved_for_good_is_what_was_pickled(tmp_path: Path, side_by_side: Any) -> None:
    """On a disk: to outlive a power failure, both wait for the file and for its folder."""
    io, by_hand = FilesystemIO(path=tmp_path / "io", sync=True), ByHand(tmp_path / "by-hand", sync=True)
    times = side_by_side.size(10, 2)
    numbers = [str(number) for number in range(times)]
    side_by_side.time(
        "filesystem?sync=true, save a small value",
        lambda: [io.save(Ref("run", "task", number), SMALL) for number in numbers],
        lambda: [by_hand.save(number, SMALL) for number in numbers],
        than="with fsync of file and folder", per=times, clock="wall",
    )  # fmt: skip
    assert io.load(Ref("run", "task", "0")) == by_hand.load("0")


@pytest.mark.parametrize("what", ["a small value", "a 1 MB array", "a 100 MB array"])
def test_what_is_loaded_is_what_was_pickled(what: str, folder: Path, side_by_side: Any) -> None:
    megabytes = {"a 1 MB array": 1, "a 100 MB array": side_by_side.size(100, 1)}
    value = array(megabytes[what]) if what in megabytes else SMALL
    io, by_hand = FilesystemIO(path=folder / "io"), ByHand(folder / "by-hand")
    ref = Ref("run", "task", "1")
    io.save(ref, value)
    by_hand.save("1", value)
    times = 1 if "100" in what else side_by_side.size(20, 2)
    ours, theirs = side_by_side.time(
        f"filesystem, load {what}",
        lambda: [io.load(ref) for _ in range(times)][-1], lambda: [by_hand.load("1") for _ in range(times)][-1],
        than="open, pickle.load", per=times, clock="wall",
    )  # fmt: skip
    assert same(ours, theirs)


def test_what_is_loaded_and_read_is_what_was_pickled(folder: Path, side_by_side: Any) -> None:
    """A map is read when its bytes are: here all of them are."""
    value = array(side_by_side.size(100, 1))
    io, by_hand = FilesystemIO(path=folder / "io"), ByHand(folder / "by-hand")
    ref = Ref("run", "task", "1")
    io.save(ref, value)
    by_hand.save("1", value)
    ours, theirs = side_by_side.time(
        "filesystem, load a 100 MB array and sum it", lambda: io.load(ref).sum(), lambda: by_hand.load("1").sum(),
        than="open, pickle.load", clock="wall",
    )  # fmt: skip
    assert ours == theirs == value.sum()


# ---------------------------------------------------------------- SQLite


class BareSqlite:
    """The same tables, the same pragmas, and nothing else."""

    def __init__(self, path: Path) -> None:
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = NORMAL")
        self.db.execute("CREATE TABLE entry (id INTEGER PRIMARY KEY, document INTEGER NOT NULL, value BLOB NOT NULL)")
        self.db.execute("CREATE INDEX entry_document ON entry (document)")

    def append(self, entries: list[bytes]) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        self.db.executemany("INSERT INTO entry (document, value) VALUES (1, ?)", [(entry,) for entry in entries])
        self.db.execute("COMMIT")


@pytest.mark.parametrize("batch", [1, 200])
def test_what_is_recorded_is_what_was_inserted(batch: int, folder: Path, watch: Any, side_by_side: Any) -> None:
    changes = [TaskChange(task=f"t{number}", state=State.SUCCEEDED, at=1.0, result="1") for number in range(batch)]
    times, number = side_by_side.size(max(10, 200 // batch), 2), count()

    async def recorded() -> int:
        async with SqliteRunStore(path=folder / "ours.db") as store:
            run_id = f"r{next(number)}"
            await store.begin(RunRecord(run_id=run_id))
            await store.append(run_id, changes)
            with watch.going():
                for _ in range(times):
                    await store.append(run_id, changes)
            return len((await store.get(run_id)).changes)

    def inserted() -> int:
        path = folder / f"theirs{next(number)}.db"
        bare = BareSqlite(path)
        with closing(bare.db):
            bare.append([b"x" * 70] * batch)
            with watch.going():
                for _ in range(times):
                    bare.append([b"x" * 70] * batch)
            found: int = bare.db.execute("SELECT count(*) FROM entry").fetchone()[0]
        for left in folder.glob("theirs*"):
            left.unlink()
        return found

    ours, theirs = side_by_side.time(
        f"sqlite, record changes {batch} at a time, per change", lambda: anyio.run(recorded), inserted,
        than="sqlite3, executemany", per=batch * times, partly=True, clock="wall",
    )  # fmt: skip
    assert ours == theirs == batch * (times + 1)
