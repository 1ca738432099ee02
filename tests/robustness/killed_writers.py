"""A program that kills writers of its own at random instants and counts what it finds: run by test_kill.py.

One warm interpreter forks a writer, hears from it what it has stored, kills it with
SIGKILL somewhere in the middle of the next thing, looks at what is left, and forks the
next one.  What a writer was told to be stored must be there, whole, and nothing older.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from pickle import PickleBuffer
from struct import iter_unpack
from time import perf_counter

import anyio

from dpcore import Ref
from dpcore.jobs import State
from dpcore.ports.runstore import RunRecord, TaskChange
from dpcore_plugins import FilesystemIO, SqliteRunStore

REFS = [Ref("run", "small", "1"), Ref("run", "large", "1"), Ref("run", "other", "1")]
LARGE = 300_000


class Rows:
    """Numbers in a buffer that lies beside the pickle, as an array's does."""

    def __init__(self, buffer: object) -> None:
        self.buffer = buffer

    def __reduce_ex__(self, protocol: object) -> tuple[object, ...]:
        return (Rows, (PickleBuffer(self.buffer),))

    def __iter__(self) -> Iterator[int]:
        return (number for (number,) in iter_unpack(">q", self.buffer))


def value(ref: Ref, version: int) -> object:
    if ref.task == "large":
        return {"version": version, "rows": Rows(version.to_bytes(8, "big") * (LARGE // 8)), "end": version}
    return {"version": version, "rows": [version] * 500, "end": version}


def version_of(found: dict[str, object]) -> int:
    version = found["version"]
    assert set(map(int, found["rows"])) == {version}, "a torso"
    assert found["end"] == version, "a torso"
    return version


def killed(write: Callable[[Callable[[int], None]], None], instant: random.Random) -> int:
    """Have a child *write* and say what is stored; kill it, and return the last that it said."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        write(lambda version: os.write(writer, version.to_bytes(8, "big")) and None)
        os._exit(0)
    os.close(writer)
    said = b""
    for _ in range(instant.randrange(4)):
        said += os.read(reader, 8)
    until = perf_counter() + instant.random() * 0.004
    while perf_counter() < until:
        pass
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"the writer ended by itself: {status}"
    while more := os.read(reader, 65536):
        said += more
    os.close(reader)
    return int.from_bytes(said[-8:], "big") if said else 0


def results(folder: Path, times: int, instant: random.Random) -> dict[str, int]:
    io = FilesystemIO(path=folder)
    least = dict.fromkeys(REFS, 0)
    seen = in_the_middle = 0
    for _ in range(times):
        ref = instant.choice(REFS)
        begin = least[ref]

        def write(say: Callable[[int], None], ref: Ref = ref, begin: int = begin) -> None:
            for version in range(begin + 1, begin + 1_000_000):
                io.save(ref, value(ref, version))
                say(version)

        said = max(killed(write, instant), begin)
        for one in io.list("run"):
            found = version_of(io.load(one))
            at_least = said if one == ref else least[one]
            assert found >= at_least, f"{one}: version {found} is there, and {at_least} was stored"
            assert found <= at_least + 1, f"{one}: version {found} was never begun"
            in_the_middle += found > at_least
            least[one] = found
            seen += 1
        assert said == 0 or io.exists(ref)
    return {"kills": times, "looked at": seen, "stored and not said": in_the_middle, "left over": leftovers(folder)}


def leftovers(folder: Path) -> int:
    """Count what killed writers left of unfinished work, and let a clearing take it away."""
    count = sum(path.name.startswith(".") or path.suffix == ".buf" for path in folder.rglob("*") if path.is_file())
    io = FilesystemIO(path=folder)
    assert io.clear("run") == len(REFS)
    assert [*folder.rglob("*")] == [], "something was left"
    return count


def records(file: Path, times: int, instant: random.Random) -> dict[str, int]:
    last = 0

    async def begin() -> None:
        async with SqliteRunStore(path=file) as store:
            await store.begin(RunRecord(run_id="run"))

    anyio.run(begin)
    for _ in range(times):

        def write(say: Callable[[int], None], first: int = last + 1) -> None:
            async def main() -> None:
                async with SqliteRunStore(path=file) as store:
                    for version in range(first, first + 1_000_000):
                        change = TaskChange(task="t", state=State.RUNNING, at=float(version))
                        end = TaskChange(task="t", state=State.SUCCEEDED, at=float(version))
                        await store.append("run", [change, end])
                        say(version)

            anyio.run(main)

        said = max(killed(write, instant), last)

        async def look() -> list[TaskChange]:
            async with SqliteRunStore(path=file) as store:
                return (await store.get("run")).changes

        changes = anyio.run(look)
        assert [change.at for change in changes[::2]] == [change.at for change in changes[1::2]], "half a commit"
        assert [change.at for change in changes[::2]] == [*map(float, range(1, len(changes) // 2 + 1))], "not in order"
        last = len(changes) // 2
        assert last in (said, said + 1), f"{last} are there, and {said} were said to be"
    return {"kills": times, "commits": last}


if __name__ == "__main__":
    what, place, times, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    done = {"results": results, "records": records}[what](place, times, random.Random(seed))
    print(json.dumps(done))
