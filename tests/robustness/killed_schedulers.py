"""A program that kills schedulers while they fire, and starts others: run by test_kill.py.

One warm interpreter forks four processes, each with an app on one run store, whose schedules have ticks that are due
since a while, so that all of them race for each.  It kills one of them with SIGKILL at random instants and
forks another in its place, until it has killed as many as asked; then it waits until every tick has been dealt with.
Bodies of tasks, and whoever sees an event published, say so in a file, in one piece.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio

from dpcore import App, Plugins, Registry, State, TimeTrigger, current_job
from dpcore_plugins import FilesystemIO, SqliteRunStore

START = datetime(2026, 1, 1, tzinfo=UTC)
PROCESSES = 4
RUNS, EVENTS = 4, 2  # schedules that start runs, and schedules that publish


class Ticks(TimeTrigger):
    """Fires each second, so many times; the first schedule of it begins before all of them."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __str__(self) -> str:
        return f"{self.count} ticks"

    def begins(self, now: datetime) -> datetime:
        return START

    def next_fire(self, after: datetime) -> datetime | None:
        tick = START + timedelta(seconds=(after - START) // timedelta(seconds=1) + 1)
        return tick if tick <= START + timedelta(seconds=self.count) else None


class Log:
    """Where all processes say what they do."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        path.touch()

    def say(self, what: str, which: str) -> None:
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        os.write(file, f"{what} {which} {os.getpid()}\n".encode())
        os.close(file)

    def dpcore_event_published(self, event) -> None:
        if event.topic == "tick":
            self.say("event", event.id)


def registry(log: Log) -> Registry:
    tasks = Registry()

    @tasks.task
    def extract() -> int:
        log.say("begin", current_job().run_id)
        return 1

    @tasks.task
    def load(extract: int) -> int:
        return extract

    return tasks


async def schedule(folder: Path, count: int) -> None:
    """Be a scheduler, until somebody kills this, or who has started it."""
    starter = os.getppid()
    log = Log(folder / "log")
    plugins = Plugins(installed=False)
    plugins.register(log)
    store, io = SqliteRunStore(path=folder / "runs.db"), FilesystemIO(path=folder / "io")
    async with App(registry(log), plugins=plugins, store=store, io=io, executor="inline") as app:
        await app.broker()
        for number in range(RUNS):
            app.schedule(f"run{number}", Ticks(count), run="load", misfire="all", overlap="queue")
        for number in range(EVENTS):
            app.schedule(f"event{number}", Ticks(count), publish="tick", misfire="all")
        while os.getppid() == starter:
            await anyio.sleep(0.2)


def forked(folder: Path, count: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        anyio.run(schedule, folder, count)
    except BaseException:  # noqa: BLE001  (whatever it is, this process must not go on as the one that has forked it)
        traceback.print_exc()
    os._exit(1)


async def undone(store: SqliteRunStore, count: int) -> int:
    """Count the ticks that have not been dealt with, and the runs that go on."""
    async with store:
        found = {name: value for name, value, _ in await store.documents("schedule/")}
    left = (RUNS + EVENTS - len(found)) * count
    for standing in found.values():
        last = datetime.fromisoformat(standing["last"])
        left += count - int((last - START).total_seconds())
        left += len(standing.get("runs", ())) + len(standing.get("waiting", ()))
    return left


def chase(folder: Path, count: int, kills: int, chance: random.Random) -> list[int]:
    """Kill schedulers until every tick has been dealt with; return whom."""
    alive = [forked(folder, count) for _ in range(PROCESSES)]
    killed: list[int] = []
    store = SqliteRunStore(path=folder / "runs.db")
    deadline = time.monotonic() + 120
    try:
        while (left := anyio.run(undone, store, count)) or len(killed) < kills:
            assert time.monotonic() < deadline, f"{left} ticks or runs are left after {len(killed)} kills"
            time.sleep(chance.uniform(0.02, 0.25))
            if len(killed) < kills and left:
                pid = alive.pop(chance.randrange(PROCESSES))
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                killed.append(pid)
                alive.append(forked(folder, count))
            elif not left:
                break
    finally:
        for pid in alive:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return killed


async def check(folder: Path, count: int, killed: set[int]) -> dict[str, int]:
    """Compare what was done with what had to be."""
    ticks = [f"{START + timedelta(seconds=1 + tick):%Y%m%dT%H%M%S}Z" for tick in range(count)]
    begun: dict[str, list[int]] = defaultdict(list)
    published: dict[str, list[int]] = defaultdict(list)
    for line in (folder / "log").read_text().splitlines():
        what, which, pid = line.split()
        (begun if what == "begin" else published)[which].append(int(pid))
    runs = {f"run{number}-{tick}" for number in range(RUNS) for tick in ticks}
    events = {f"event{number}-{tick}" for number in range(EVENTS) for tick in ticks}
    assert set(begun) == runs, f"{len(runs - set(begun))} never began, {sorted(set(begun) - runs)[:3]} should not have"
    assert set(published) == events, f"{len(events - set(published))} never published"
    async with SqliteRunStore(path=folder / "runs.db") as store:
        records = await store.list()
    assert Counter(record.run_id for record in records) == Counter(runs)
    states = Counter(record.state for record in records)
    assert states == {State.SUCCEEDED: len(runs)}, states
    for where in (begun, published):
        for which, pids in where.items():
            again = set(pids[:-1])
            assert len(pids) == len(set(pids)), f"{which} twice by one process: {pids}"
            assert again <= killed, f"{which} again, though {again - killed} was not killed: {pids}"
    repeated = sum(len(pids) - 1 for pids in (*begun.values(), *published.values()))
    return {"runs": len(runs), "events": len(events), "kills": len(killed), "repeated": repeated}


def main() -> None:
    folder, (count, kills, seed) = Path(sys.argv[1]), map(int, sys.argv[2:])
    folder.mkdir()
    Log(folder / "log")
    killed = chase(folder, count, kills, random.Random(seed))
    print(json.dumps(anyio.run(check, folder, count, set(killed))))


if __name__ == "__main__":
    main()
