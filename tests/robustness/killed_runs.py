"""A program that kills programs while they run a DAG, and resumes it until it is done: run by test_kill.py.

One warm interpreter forks a program that runs, or resumes, a DAG of seeded random shape,
kills its whole process group with SIGKILL at a random instant, waits for its worker processes
to be gone, which nobody tells to end, and looks at what is recorded.
Each body says in a file that it begins.  So it is known what ran how often, and compared with
what is recorded: whatever had ended at a kill does not run after it, and what runs twice was
at work, or not recorded yet, when its program was killed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import anyio

from dpcore import App, Plugins, Registry, State, current_job
from dpcore.errors import RunEndedError, RunNotFoundError
from dpcore.ports.runstore import RunHistory
from dpcore.testing.suite import descendants, lives
from dpcore_plugins import FilesystemIO, SqliteRunStore

ENDED = frozenset({State.SUCCEEDED, State.FAILED, State.TIMED_OUT, State.SKIPPED, State.CANCELLED})
RUN = "run"
PATIENCE = 10.0
MOST_KILLS = 15  # of one run, which is then left to end: so that runs end on a slow machine, too


def digest(name: str, *inputs: object) -> int:
    return zlib.crc32(repr((name, inputs)).encode())


def work() -> None:
    until = perf_counter() + 0.0003
    while perf_counter() < until:
        pass


class Log:
    """Where each body, in whatever process, says in one piece that it begins."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        path.touch()

    def begin(self, name: str) -> None:
        job = current_job()
        index = "" if job.index is None else job.index
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        os.write(file, f"{name} {index} {job.attempt} {os.getpid()}\n".encode())
        os.close(file)


class Dag:
    """Tasks of a random shape, each of which says that it begins; and what each must give."""

    def __init__(self, seed: int, log: Path) -> None:
        self.random = random.Random(seed)
        self.registry = Registry()
        self.truth: dict[str, Any] = {}
        self.ends: dict[str, State] = {}
        self.begin = Log(log).begin  # bodies hold this, and not the whole of the DAG: they travel
        streams: list[str] = []
        for number in range(self.random.randint(12, 30)):
            name = f"t{number}"
            kind = self.random.choice(
                ["plain", "plain", "plain", "async", "stream", "each", "reads", "shaky", "broken"]
            )
            if kind in ("each", "reads") and not streams:
                kind = "stream"
            known = sorted(self.truth)
            ups = self.random.sample(known, min(len(known), self.random.randint(0, 3)))
            if kind in ("each", "reads"):
                ups = [self.random.choice(streams)]
            getattr(self, kind)(name, ups)
            if kind in ("stream", "each"):
                streams.append(name)

    def add(self, name: str, function: Callable[..., Any], ups: list[str], value: object, **settings: Any) -> None:
        """Add a task that receives the results of *ups* in order."""
        parameters = ", ".join(f"p{at}" for at in range(len(ups)))
        scope: dict[str, Any] = {"function": function}
        code = "async def task({0}):\n return await function({0})" if settings.pop("is_async", False) else None
        exec((code or "def task({0}):\n return function({0})").format(parameters), scope)
        scope["task"].__qualname__ = "<locals>." + name
        inputs = {f"p{at}": up for at, up in enumerate(ups)}
        self.registry.task(name=name, inputs=inputs, **settings)(scope["task"])
        self.truth[name] = value
        is_fed = all(self.ends[up] is State.SUCCEEDED for up in ups)
        self.ends[name] = State.SUCCEEDED if is_fed else State.SKIPPED

    def given(self, ups: list[str]) -> list[Any]:
        return [self.truth[up] for up in ups]

    def plain(self, name: str, ups: list[str], **settings: Any) -> None:
        begin = self.begin

        def body(*inputs: object) -> int:
            begin(name)
            work()
            return digest(name, *inputs)

        self.add(name, body, ups, digest(name, *self.given(ups)), **settings)

    def async_(self, name: str, ups: list[str]) -> None:
        begin = self.begin

        async def body(*inputs: object) -> int:
            begin(name)
            await anyio.sleep(0.001)
            return digest(name, *inputs)

        self.add(name, body, ups, digest(name, *self.given(ups)), is_async=True)

    def stream(self, name: str, ups: list[str]) -> None:
        begin = self.begin
        count = self.random.randint(0, 6)

        def body(*inputs: object) -> Iterator[int]:
            begin(name)
            for number in range(count):
                work()
                yield digest(name, number, *inputs)

        items = [digest(name, number, *self.given(ups)) for number in range(count)]
        self.add(name, body, ups, items, stream_output=True)

    def each(self, name: str, ups: list[str]) -> None:
        begin = self.begin

        def body(item: object) -> int:
            begin(name)
            work()
            return digest(name, item)

        items = [digest(name, item) for item in self.truth[ups[0]]]
        self.add(name, body, ups, items, each=ups[0])

    def reads(self, name: str, ups: list[str]) -> None:
        begin = self.begin

        def body(items: list[int]) -> int:
            begin(name)
            return digest(name, *items)

        self.add(name, body, ups, digest(name, *self.truth[ups[0]]))

    def shaky(self, name: str, ups: list[str]) -> None:
        begin = self.begin

        def body(*inputs: object) -> int:
            begin(name)
            if current_job().attempt == 1:
                raise ValueError(name)
            return digest(name, *inputs)

        self.add(name, body, ups, digest(name, *self.given(ups)), max_retries=1, retry_delay=0.001)

    def broken(self, name: str, ups: list[str]) -> None:
        """Fails for good, and what comes after it goes on."""

        begin = self.begin

        def body(*inputs: object) -> int:
            begin(name)
            raise ValueError(name)

        self.add(name, body, ups, None, fail_safe=True)
        if self.ends[name] is State.SUCCEEDED:
            self.ends[name] = State.FAILED


setattr(Dag, "async", Dag.async_)


def drive(dag: Dag, folder: Path, executor: str, loop: str) -> None:
    """Run what is left, as a program of its own would."""

    async def main() -> None:
        async with App(
            dag.registry,
            executor=executor,
            io=f"filesystem:{folder}/results",
            store=f"sqlite:{folder}/runs.db",
            plugins=Plugins(installed=False),
        ) as app:
            try:
                await app.resume(RUN)
            except RunNotFoundError:
                await app.run(run_id=RUN)
            except RunEndedError:
                pass

    anyio.run(main, backend=loop)


def history(folder: Path) -> RunHistory | None:
    async def look() -> RunHistory | None:
        async with SqliteRunStore(path=folder / "runs.db") as store:
            try:
                return await store.get(RUN)
            except RunNotFoundError:
                return None

    return anyio.run(look)


Executed = tuple[str, int | None, int, int]  # task, item, attempt, process


def executed(log: Path) -> list[Executed]:
    lines = (line.split(" ") for line in log.read_text().splitlines())
    return [(task, int(index) if index else None, int(attempt), int(pid)) for task, index, attempt, pid in lines]


def ended(found: RunHistory | None) -> Counter[tuple[str, int | None]]:
    changes = found.changes if found is not None else []
    return Counter((change.task, change.index) for change in changes if change.state in ENDED)


def finished(dag: Dag, found: RunHistory | None) -> set[tuple[str, int | None]]:
    """Return what has ended for good: an item of a stream has when the attempt has that made what it is mapped over."""
    done: set[tuple[str, int | None]] = set()
    for change in found.changes if found is not None else []:
        if change.state in ENDED:
            done.add((change.task, change.index))
        elif change.index is None:  # it begins, or is to begin: what was made of an attempt before is void
            done = {(name, at) for name, at in done if at is None or dag.registry[name].each != change.task}
    return {(name, at) for name, at in done if at is None or (dag.registry[name].each, None) in done}


def waiting(found: RunHistory | None) -> set[tuple[str, int | None]]:
    """Return what has failed, which is recorded, and is to be tried again."""
    last = {(change.task, change.index): change for change in (found.changes if found is not None else [])}
    return {one for one, change in last.items() if change.state is State.RETRYING}


def killed(program: Callable[[], None], after: float, has_begun: Callable[[], bool]) -> tuple[int, bool]:
    """Run *program* as the leader of a process group; kill that if it has not ended so long after it has begun."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setsid()
            program()
            code = 0
        except BaseException:  # noqa: BLE001  (whatever it is: the parent sees the exit code)
            traceback.print_exc()
        finally:
            os._exit(code)
    until = None
    while until is None or perf_counter() < until:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            assert status == 0, f"the program ended by itself: {status}"
            return child, False
        if until is None and has_begun():
            until = perf_counter() + after
    workers = descendants(child)
    for kill in (os.killpg, os.kill):  # it has no group before it has made one
        try:
            kill(child, signal.SIGKILL)
            break
        except ProcessLookupError:
            continue
    _, status = os.waitpid(child, 0)
    wait_for_the_end_of(workers)
    return child, os.WIFSIGNALED(status)


def wait_for_the_end_of(processes: set[int]) -> None:
    """Wait, not for long, until none of them lives: nobody has told them to end but the death of their program."""
    until = perf_counter() + PATIENCE
    while left := [*filter(lives, processes)]:
        assert perf_counter() < until, f"the program is dead, and these live: {left}"


class Tally:
    """What was seen."""

    def __init__(self) -> None:
        self.kills = 0
        self.runs = 0
        self.sessions = 0
        self.executions = 0
        self.twice = 0  # tasks and items that began in a second program, or a third
        self.most = 0  # of these, for one kill


def one_run(folder: Path, seed: int, executor: str, tally: Tally, times: int) -> None:
    folder.mkdir()
    log = folder / "log"
    dag = Dag(seed, log)
    instant = random.Random(seed)
    done: set[tuple[str, int | None]] = set()
    begun: set[tuple[str, int | None]] = set()
    before = 0
    before_now: set[int] = set()  # processes of the programs before
    sessions = 0
    while True:
        is_left = tally.kills >= times or sessions >= MOST_KILLS
        after = 60.0 if is_left else instant.random() * instant.choice([0.02, 0.06, 0.15])
        loop = instant.choice(["asyncio", "trio"])
        # Worker processes take their time to be there: the instant is counted from when so many tasks have begun.
        size = log.stat().st_size + (instant.randint(-5, 100) if executor.startswith("multiprocess") else 0)
        child, was_killed = killed(
            lambda loop=loop: drive(dag, folder, executor, loop), after, lambda size=size: log.stat().st_size >= size
        )
        sessions += 1
        wait_for_the_end_of({pid for *_, pid in executed(log)[before:]} - {child})
        ran = executed(log)
        now = ran[before:]
        before = len(ran)
        found = history(folder)
        began = {(task, index) for task, index, _, _ in now}
        assert not began & done, f"what had ended ran again: {began & done}"
        assert not {pid for *_, pid in now} & before_now, "somebody was still at work"
        before_now |= {pid for *_, pid in now}
        assert max(Counter(now).values(), default=1) == 1, "an attempt ran twice in one program"
        done = finished(dag, found)
        tally.twice += len(began & begun)
        begun |= began
        if was_killed:
            tally.kills += 1
            lost = began - done - waiting(found)
            tally.most = max(tally.most, len(lost))
        elif found is not None:
            break
    check(dag, found, ran, folder)
    tally.runs += 1
    tally.sessions += sessions
    tally.executions += len(ran)


def check(dag: Dag, found: RunHistory, ran: list[Executed], folder: Path) -> None:
    """Compare what is recorded, and the results, with the truth."""
    assert found.record.state is State.SUCCEEDED, found.record
    twice = {name: count for (name, index), count in ended(found).items() if index is None and count > 1}
    assert twice == {}, "ended twice"
    assert {name: change.state for name, change in found.tasks.items()} == dag.ends
    assert found.record.counts == Counter(map(str, dag.ends.values()))
    io = FilesystemIO(path=folder / "results")
    for name, change in found.tasks.items():
        if change.state is State.SUCCEEDED:
            assert loaded(io, change) == dag.truth[name], f"{name} gave something else"
    must = {name for name, state in dag.ends.items() if state is not State.SKIPPED}
    assert {task for task, *_ in ran} == {
        name for name in must if found.tasks[name].count != 0 or not is_mapped(dag, name)
    }


def is_mapped(dag: Dag, name: str) -> bool:
    return dag.registry[name].each is not None


def loaded(io: FilesystemIO, change: Any) -> object:
    from dpcore.resuming import result_of

    result = result_of(RUN, change)
    return [io.load(ref) for ref in result] if change.count is not None else io.load(result)


if __name__ == "__main__":
    place, executor, times, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    place.mkdir(parents=True, exist_ok=True)
    import trio  # noqa: F401  (loaded once, before the forks)

    tally = Tally()
    for backend in ("asyncio", "trio"):  # what is imported now, no fork has to
        one_warm = place / backend
        one_warm.mkdir()
        drive(Dag(seed, one_warm / "log"), one_warm, executor, backend)
    turn = 0
    while tally.kills < times:
        one_run(place / str(turn), seed * 1_000 + turn, executor, tally, times)
        turn += 1
    print(json.dumps(vars(tally)))
