"""The executor on worker processes: the promises of its port, and what is particular to it."""

from __future__ import annotations

import logging
import os
import random
import re
import resource
import signal
import socket
import subprocess
import sys
import time
import zipapp
from contextlib import suppress
from functools import partial
from pathlib import Path

import anyio
import pytest
import sniffio

from dpcore import App, Plugins, State
from dpcore.errors import ExecutorLeftError, ResultNotStoredError, TaskTimeoutError, WorkerLostError
from dpcore.testing import ExecutorConformance
from dpcore.testing.executor import Recorder
from dpcore_plugins import MultiprocessExecutor
from dpcore_plugins.executors.multiprocess.loops import running_loop
from dpcore_plugins.executors.multiprocess.machine import cores, group_folders
from dpcore_plugins.executors.multiprocess.pool import AHEAD
from dpcore_plugins.executors.multiprocess.template import Template
from tests.adapters import dying, worker_plugin
from tests.adapters.bench import PATIENCE, Bench
from tests.flags import Flag

pytestmark = pytest.mark.anyio
BOTH = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
MOST_AT_ONCE = 2 * (1 + AHEAD)  # jobs that two workers are given while they are short


class TestMultiprocess(ExecutorConformance):
    def make(self, tmp_path):
        return MultiprocessExecutor(workers=3)


@pytest.fixture
async def bench(anyio_backend, tmp_path):
    async with MultiprocessExecutor(workers=2) as executor:
        yield Bench(executor, tmp_path)


@pytest.fixture
async def patient(anyio_backend, tmp_path):
    """A bench that kills nothing that still cleans up, however busy the machine is."""
    async with MultiprocessExecutor(workers=2, grace=PATIENCE) as executor:
        yield Bench(executor, tmp_path)


def open_files() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


def lives(pid: int) -> bool:
    """Tell whether a process lives that is not only waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def gone(pids: list[int], seconds: float = PATIENCE) -> bool:
    deadline = time.monotonic() + seconds
    while any(map(lives, pids)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


# ---------------------------------------------------------------- death

DEATHS = {
    "SIGKILL": "was killed by SIGKILL",
    "SIGTERM": "was killed by SIGTERM",  # after the body has cleaned up
    "SIGUSR1": "was killed by SIGUSR1",
    "segfault": "was killed by SIGSEGV",
    "abort": "was killed by SIGABRT",
    "exit": "exited with code 7",
    "nothing": "exited with code 0",
    "files": "closed its connection to the program, and was killed",
    "files, and returns": "exited with code 1",
}


@BOTH
@pytest.mark.parametrize("how", DEATHS)
async def test_a_death_in_any_way_is_one_failed_attempt_with_its_cause(bench, how):
    lost = await bench.outcome(dying.end, how=how)
    assert lost.state is State.FAILED
    assert isinstance(lost.error, WorkerLostError)
    said = str(lost.error).removesuffix(f"\nthe last that it printed:\n{lost.output.rstrip()}")
    assert said == f"the worker process of task 't1' {DEATHS[how]}"
    assert ("Fatal Python error" in lost.output) is (how in ("segfault", "abort"))
    assert await bench.value(dying.pid) not in (os.getpid(), int(lost.worker.partition("/")[0]))


@BOTH
async def test_a_worker_that_somebody_tells_to_end_cleans_up_and_is_said_to_have_been_killed(bench):
    """Whether it is at plain code or at a coroutine."""
    for call in (dying.stay, dying.wait_async):
        for file in bench.folder.iterdir():
            if file.is_file():
                file.unlink()
        outcomes = []

        async def stay(call=call, outcomes=outcomes) -> None:
            outcomes.append(await bench.outcome(call, folder=str(bench.folder)))

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as group:
                group.start_soon(stay)
                [pid] = await bench.begun()
                os.kill(pid, signal.SIGTERM)
        assert str(outcomes[0].error).endswith("was killed by SIGTERM"), outcomes[0].error
        assert (bench.folder / f"{pid}.cleaned").exists()


@BOTH
async def test_a_thread_of_the_body_that_ends_the_process_is_a_death_too(bench):
    assert "exited with code 3" in str((await bench.outcome(dying.end_of_thread)).error)


@BOTH
async def test_a_death_is_not_the_siblings(bench):
    async with anyio.create_task_group() as group:
        group.start_soon(bench.outcome, dying.pid)
        lost = await bench.outcome(dying.end, how="SIGKILL")
        pids = {await bench.value(dying.pid) for _ in range(5)}
    assert isinstance(lost.error, WorkerLostError)
    assert len(pids) <= 2


@BOTH
async def test_a_worker_that_dies_while_it_is_idle_costs_nobody_anything(bench):
    """Also when nobody has noticed yet, and the next job is given to it."""
    for _ in range(5):
        pid = await bench.value(dying.pid)
        os.kill(pid, signal.SIGKILL)
        assert await bench.value(dying.pid) != pid


@BOTH
async def test_the_death_of_the_template_is_survived(bench):
    """It takes all workers along: what they were at has failed, and others come."""
    template = parent(await bench.value(dying.pid))
    async with anyio.create_task_group() as group:
        outcomes = []

        async def stay() -> None:
            outcomes.append(await bench.outcome(dying.stay, folder=str(bench.folder)))

        group.start_soon(stay)
        pids = await bench.begun()
        os.kill(template, signal.SIGKILL)
    assert isinstance(outcomes[0].error, WorkerLostError)
    assert gone(pids)
    assert await bench.value(dying.pid) not in pids


@BOTH
async def test_a_task_that_kills_its_worker_is_not_retried_beyond_its_retries(tasks, plugins, tmp_path):
    @tasks.task(max_retries=3)
    def crashes() -> None:
        with (tmp_path / "ran").open("a") as file:
            file.write("x")
        os._exit(9)

    @tasks.task
    def is_well() -> int:
        return 1

    async with App(tasks, executor="multiprocess?workers=1", plugins=plugins) as app:
        with anyio.fail_after(PATIENCE):
            result = await app.run(check=False)
    assert (tmp_path / "ran").read_text() == "xxxx"
    assert result.outcomes["crashes"].attempt == 4
    assert result.state is State.FAILED
    assert result["is_well"] == 1


# ---------------------------------------------------------------- timeouts and cancelling


@BOTH
@pytest.mark.parametrize("call", [dying.stay, dying.stay_async, dying.stay_generating, dying.stay_in_c])
async def test_a_timeout_stops_whatever_runs(tasks, plugins, tmp_path, call):
    """Plain code, a coroutine that blocks, a generator, code in C: its process is gone, and nobody else's is."""
    tasks.task(name="stays", timeout=1.0)(call)
    tasks.task(name="sibling")(dying.pid_when_one_has_begun)  # so that it is on the other worker

    async with App(tasks, executor="multiprocess?workers=2&grace=0.2", plugins=plugins) as app:
        with anyio.fail_after(PATIENCE):
            result = await app.run(params={"folder": str(tmp_path)}, check=False)
            again = await app.run("sibling", params={"folder": str(tmp_path)})
    outcome = result.outcomes["stays"]
    assert outcome.state is State.TIMED_OUT
    assert isinstance(outcome.error, TaskTimeoutError)
    assert str(outcome.error).endswith("it was stopped")
    assert not outcome.still_running
    pids = [int(file.stem) for file in tmp_path.glob("*.begun")]
    assert pids
    assert not any(map(lives, pids))
    assert again["sibling"] == result["sibling"]


@BOTH
@pytest.mark.parametrize("why", ["cancelled", "timed out"])
async def test_what_a_job_had_printed_before_it_was_stopped_is_kept(tasks, plugins, tmp_path, why):
    said = Flag(tmp_path / "said")
    tasks.task(name="stays", timeout=0.5 if why == "timed out" else None)(partial(dying.print_and_stay, said))

    async with App(tasks, executor="multiprocess?workers=1&grace=0.2", plugins=plugins) as app:
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as group:

                async def cancel() -> None:
                    await said.up()
                    app.cancel("r1")

                if why == "cancelled":
                    group.start_soon(cancel)
                result = await app.run(run_id="r1", check=False)
    outcome = result.outcomes["stays"]
    assert str(outcome.state).replace("_", " ") == why
    assert outcome.output == "at row 7\n"


@BOTH
async def test_want_of_memory_is_a_failure_like_any_other(bench):
    outcome = await bench.outcome(dying.take_all_memory)
    assert isinstance(outcome.error, MemoryError)
    assert await bench.value(dying.pid) == int(outcome.worker.partition("/")[0])


STARVED = """
import os, sys
from pathlib import Path
import dpcore

@dpcore.task(max_retries=1)
def greedy() -> int:
    pages = []
    while True:
        pages.append(b"x" * 10_000_000)

@dpcore.task
def sibling() -> int:
    return 1

if __name__ == "__main__":
    Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
    outcomes = dpcore.run(executor="multiprocess?workers=2", check=False).outcomes
    print(outcomes["greedy"].state, outcomes["greedy"].attempt, outcomes["greedy"].error, outcomes["sibling"].state, sep="\\n")
"""


def limited(group: Path, size: int) -> bool:
    """Make a cgroup whose processes have *size* bytes together, where this process may."""
    with suppress(OSError):
        group.mkdir()
        for limit in ("memory.limit_in_bytes", "memory.max"):
            if (group / limit).exists():
                (group / limit).write_text(str(size))
                return True
        group.rmdir()
    return False


@pytest.fixture
def starved():
    """The folder of a cgroup whose processes have 120 MB together."""
    name = f"dpcore-test-{os.getpid()}"
    group = next((folder / name for folder in group_folders() if limited(folder / name, 120_000_000)), None)
    if group is None:
        pytest.skip("this process may make no cgroup whose memory is limited")
    yield group
    deadline = time.monotonic() + PATIENCE
    while (group / "cgroup.procs").read_text():  # of the program, which end with it
        assert time.monotonic() < deadline
        time.sleep(0.005)
    group.rmdir()


def test_a_worker_that_the_system_kills_for_memory_is_said_to_have_been(starved, tmp_path):
    script = tmp_path / "starved.py"
    script.write_text(STARVED)
    done = subprocess.run([sys.executable, script, starved], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == [
        "failed",
        "2",
        "the worker process of task 'greedy' was killed by SIGKILL because the machine or its cgroup was out of memory",
        "succeeded",
    ], done.stderr


@BOTH
async def test_a_result_that_does_not_pickle_is_a_failure_that_says_so(bench):
    outcome = await bench.outcome(dying.does_not_pickle)
    assert isinstance(outcome.error, ResultNotStoredError)
    assert "lock" in str(outcome.error)


@BOTH
async def test_code_that_is_stopped_cleans_up_first(patient):
    await cancelled(patient, dying.stay)
    assert [*patient.folder.glob("*.cleaned")]


@BOTH
async def test_code_that_will_not_end_is_killed_after_the_grace(bench):
    pids = await cancelled(bench, dying.stay_in_spite_of_all)
    assert [*bench.folder.glob("*.cleaned")]
    assert not any(map(lives, pids))


@BOTH
async def test_what_a_task_has_started_ends_with_it(bench):
    await cancelled(bench, dying.stay_with_a_child)
    assert gone([int(file.stem) for file in bench.folder.glob("*.child")])


async def cancelled(bench, call) -> list[int]:
    """Have a job begin, and cancel it; return its process, which is dead."""
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            group.start_soon(bench.executor.run, bench.job(call, folder=str(bench.folder)), Recorder())
            pids = await bench.begun()
            group.cancel_scope.cancel()
    assert not any(map(lives, pids))
    assert await bench.value(dying.pid) not in pids
    return pids


@BOTH
async def test_leaving_it_stops_what_runs(anyio_backend, tmp_path):
    outcomes = []
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group, MultiprocessExecutor(workers=2) as executor:
            bench = Bench(executor, tmp_path)

            async def stay() -> None:
                try:
                    outcomes.append(str((await bench.outcome(dying.stay, folder=str(tmp_path))).error))
                except ExecutorLeftError as error:
                    outcomes.append(str(error))

            for _ in range(3):
                group.start_soon(stay)
            pids = await bench.begun(2)
    assert not any(map(lives, pids))
    assert sorted(outcomes) == [
        "task 't1' was stopped: the executor was left while it ran",
        "task 't2' was stopped: the executor was left while it ran",
        "task 't3' was not run: the executor was left before its turn came",
    ]


KILLED = """
import anyio, sys
from functools import partial
from pathlib import Path
import dpcore
from tests.adapters import dying

tasks = dpcore.Registry()
for name in "ab":
    tasks.task(name=name)(dying.stay)

if __name__ == "__main__":
    dpcore.run(registry=tasks, executor="multiprocess?workers=2", params={"folder": sys.argv[1]})
"""


def test_workers_and_template_end_when_the_program_is_killed(tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    with subprocess.Popen([sys.executable, script, tmp_path], env={**os.environ, "PYTHONPATH": str(ROOT)}) as program:
        deadline = time.monotonic() + PATIENCE
        while len(found := [*tmp_path.glob("*.begun")]) < 2:
            assert program.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        workers = [int(file.stem) for file in found]
        template = parent(workers[0])
        assert template != program.pid
        program.kill()
    assert gone([*workers, template], 1.0), "none outlives it by more than a second"


ROOT = Path(__file__).parents[2]


# ---------------------------------------------------------------- what it is given

NO_WORKERS = """
import sys
import dpcore
tasks = dpcore.Registry()
tasks.task(name="one")(print)
if __name__ == "__main__":
    sys.executable = sys.argv[1]
    try:
        dpcore.run(registry=tasks, executor="multiprocess")
    except ExceptionGroup as error:
        raise SystemExit(f"{error.exceptions[0]}")
"""


@pytest.mark.parametrize("executable", ["/bin/false", "/nowhere/python"])
def test_where_no_worker_can_be_started_an_error_says_so(tmp_path, executable):
    script = tmp_path / "alone.py"
    script.write_text(NO_WORKERS)
    ended = subprocess.run([sys.executable, script, executable], capture_output=True, text=True, timeout=PATIENCE)
    assert "no worker process can be started: " in ended.stderr


@BOTH
async def test_fewer_workers_do_it_all_where_so_many_files_cannot_be_open(anyio_backend, tmp_path, caplog):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with MultiprocessExecutor(workers=100) as executor:
        bench = Bench(executor, tmp_path)
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_files() + 40, hard))
        try:
            async with anyio.create_task_group() as group:
                for _ in range(100):
                    group.start_soon(partial(bench.outcome, dying.take, seconds=0.02))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1
    assert re.fullmatch(r"there are \d worker processes, and cannot be more: .*Too many open files", warnings[0])


@BOTH
async def test_what_the_template_is_asked_while_it_stands_still_is_done_when_it_goes_on(anyio_backend):
    forked: list[int] = []
    channel, there = socket.socketpair()
    tokens, into = os.pipe()
    template = Template(running_loop(), forked.append, print, print, print)
    os.kill(template.pid, signal.SIGSTOP)
    for number in range(5000):
        template.stop(number, 0)
    template.fork(5000, [there.fileno(), tokens, into])
    os.kill(template.pid, signal.SIGCONT)
    with anyio.fail_after(PATIENCE):
        while forked != [5000]:
            await anyio.sleep(0.001)
    await template.end()
    for end in (channel, there):
        end.close()
    for file in (tokens, into):
        os.close(file)


@pytest.mark.parametrize("workers", [0, -1])
def test_no_workers_are_refused(workers):
    with pytest.raises(ValueError, match=f"workers={workers} must be at least 1"):
        MultiprocessExecutor(workers=workers)


@pytest.mark.parametrize("grace", [-1, -0.001, 86_400.5, 1e7, float("inf"), float("nan"), True, None, "1"])
def test_a_grace_that_cannot_be_waited_for_is_refused(grace):
    with pytest.raises(
        ValueError, match=f"^grace={grace!r} must be a number of seconds from 0 to 86,400$".replace("+", r"\+")
    ):
        MultiprocessExecutor(grace=grace)


@pytest.mark.parametrize("seconds", [0, 0.5, 86_400.5, float("inf"), True, None, "1"])
def test_a_start_that_cannot_be_waited_for_is_refused(seconds):
    with pytest.raises(ValueError, match=f"^start_timeout={seconds!r} must be a number of seconds from 1 to 86,400$"):
        MultiprocessExecutor(start_timeout=seconds)


@pytest.mark.parametrize("echo", ["no", 0, None])
def test_whether_to_echo_is_true_or_false(echo):
    with pytest.raises(TypeError, match=f"^echo={echo!r} must be True or False$"):
        MultiprocessExecutor(echo=echo)


@BOTH
@pytest.mark.parametrize("grace", [86_400, 86_400.0])
async def test_code_is_stopped_with_the_longest_grace_too(anyio_backend, tmp_path, grace):
    async with MultiprocessExecutor(workers=1, grace=grace) as executor:
        bench = Bench(executor, tmp_path)
        async with anyio.create_task_group() as group:
            group.start_soon(partial(bench.outcome, dying.stay, folder=str(tmp_path)))
            (pid,) = await bench.begun()
            group.cancel_scope.cancel()
        assert gone([pid])


def test_there_are_as_many_workers_as_this_process_may_use_cores():
    assert 1 <= MultiprocessExecutor().slots == cores() <= len(os.sched_getaffinity(0))


# ---------------------------------------------------------------- the program's script

SCRIPT = """
import os, pickle, sys
from dataclasses import dataclass
from enum import Enum
from dpcore import Registry, run, task

tasks = Registry()
loads = open("loads", "a")
loads.write(f"{__name__}\\n")
loads.close()

class Colour(Enum):
    RED = 1

class Mine(Exception):
    def __init__(self, code, why):
        super().__init__(why)
        self.code = code

    def __reduce__(self):
        return Mine, (self.code, self.args[0])

@dataclass
class Point:
    x: int
    class Inner:
        pass

    def __eq__(self, other):
        return isinstance(other, Point) and other.x == self.x

@tasks.task
def make() -> Point:
    return Point(1)

@tasks.task
def move(make: Point) -> tuple[Point, Colour, Point.Inner]:
    assert isinstance(make, Point), type(make)
    return Point(make.x + 1), Colour.RED, Point.Inner()

@tasks.task
def compare(move, given) -> int:
    assert isinstance(given, Point) and isinstance(move[0], Point)
    return os.getpid()

by = 10
carried = Registry()
carried.task(name="carried")(lambda: (Point(by), Point))

@tasks.task(max_retries=1, retry_on=[Mine])
def fails() -> None:
    raise Mine(7, "no")

if __name__ == "__main__":
    result = run(registry=tasks, executor="multiprocess?workers=2", io="filesystem:results", params={"given": Point(5)}, check=False)
    point, colour, inner = result["move"]
    assert isinstance(point, Point) and point == Point(2), point
    assert colour is Colour.RED and type(inner) is Point.Inner
    assert result["compare"] != os.getpid()
    error = result.outcomes["fails"].error
    assert type(error) is Mine and error.code == 7, repr(error)
    assert result.outcomes["fails"].attempt == 2
    value, kind = run(registry=carried, executor="multiprocess")["carried"]
    assert kind is Point and value == Point(10), (value, kind)
    print("all is well")
"""


def started(folder: Path, *arguments: str | Path, **fields) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=2 * PATIENCE, cwd=folder, **fields
    )


def test_the_classes_of_a_script_are_the_same_on_both_sides(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    ended = started(tmp_path, "script.py")
    assert ended.stdout == "all is well\n", ended.stderr
    assert (tmp_path / "loads").read_text().split()[0] == "__main__"
    assert set((tmp_path / "loads").read_text().split()[1:]) == {"__mp_main__"}


def test_what_a_script_has_stored_is_read_by_its_next_run_too(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    ended = started(tmp_path, "script.py")
    assert ended.stdout == "all is well\n", ended.stderr
    stored = [*(tmp_path / "results").rglob("*.pkl")]
    assert stored
    assert not [file for file in stored if b"__mp_main__" in file.read_bytes()]


def test_a_script_that_was_started_as_a_module_finds_its_siblings(tmp_path):
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "prices.py").write_text("PRICE = 7\n")
    (package / "flow.py").write_text(
        "import dpcore\n"
        "from .prices import PRICE\n"
        "@dpcore.task\n"
        "def price() -> int:\n"
        "    return PRICE\n"
        "if __name__ == '__main__':\n"
        "    print(dict(dpcore.run(executor='multiprocess')))\n"
    )
    ended = started(tmp_path, "-m", "shop.flow")
    assert ended.stdout == "{'price': 7}\n", ended.stderr


INNER_PROCESSES = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
import dpcore

class Number(int):
    pass

def square(x):
    return Number(x * x)

def pool(context) -> list:
    with context.Pool(1) as pool:
        return [*pool.map(abs, [-1, -2]), *pool.map(square, [3])]

@dpcore.task
def spawns() -> list:
    made = pool(multiprocessing.get_context("spawn"))
    assert type(made[-1]) is Number
    return made

@dpcore.task
def serves(spawns) -> list:
    assert type(spawns[-1]) is Number
    return pool(multiprocessing.get_context("forkserver"))

@dpcore.task
def executes(serves) -> list:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("forkserver")) as executor:
        return [executor.submit(square, 4).result(), multiprocessing.current_process().name]

if __name__ == "__main__":
    result = dpcore.run(executor="multiprocess?workers=1")
    assert all(type(made[-1]) is Number for made in (result["spawns"], result["serves"]))
    print(dict(result))
"""


@pytest.mark.parametrize("arguments", [["flow.py"], ["-m", "flow"], ["-m", "shop.flow"]], ids=" ".join)
def test_a_task_of_a_script_may_start_processes_of_multiprocessing(tmp_path, arguments):
    """Which load the script for themselves: they find it by its file, or by its name where it was started as a module."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    relative = INNER_PROCESSES.replace("import dpcore\n", "import dpcore\nfrom . import inner\n")
    (tmp_path / "shop" / "inner.py").touch()
    (tmp_path / "shop" / "flow.py").write_text(relative)
    (tmp_path / "flow.py").write_text(INNER_PROCESSES)
    ended = started(tmp_path, *arguments)
    assert ended.stdout == "{'spawns': [1, 2, 9], 'serves': [1, 2, 9], 'executes': [16, 'MainProcess']}\n", ended.stderr


SOLD = """
import dpcore
from prices import PRICE

class Price(int):
    pass

@dpcore.task
def price() -> Price:
    return Price(PRICE)

if __name__ == "__main__":
    result = dpcore.run(executor="multiprocess")
    print(dict(result), type(result["price"]) is Price)
"""


@pytest.mark.parametrize("name", ["shop", "shop.txt", "app", "app.pyz"])
def test_a_script_of_any_name_is_found_by_workers(tmp_path, name):
    """A file that does not end in .py, a folder and an archive with a __main__.py."""
    folder = tmp_path / "app" if name.startswith("app") else tmp_path
    folder.mkdir(exist_ok=True)
    (folder / ("__main__.py" if name.startswith("app") else name)).write_text(SOLD)
    (folder / "prices.py").write_text("PRICE = 7\n")
    if name == "app.pyz":
        zipapp.create_archive(folder, tmp_path / name)
    ended = started(tmp_path, name)
    assert ended.stdout == "{'price': 7} True\n", ended.stderr


def test_a_script_that_workers_cannot_read_again_says_what_to_do(tmp_path):
    (tmp_path / "prices.py").write_text("PRICE = 7\n")
    (tmp_path / "script.py").write_text(SOLD.replace("    result", "    __import__('os').unlink(__file__)\n    result"))
    ended = started(tmp_path, "script.py")
    problem = "is not a file that another process can read; put the program in one that ends in .py"
    assert f"{tmp_path / 'script.py'} {problem}" in ended.stderr


def test_a_script_without_a_guard_is_told_to_have_one(tmp_path):
    (tmp_path / "bare.py").write_text(
        "import dpcore\n@dpcore.task\ndef one() -> int:\n    return 1\ndpcore.run(executor='multiprocess')\n"
    )
    ended = started(tmp_path, "bare.py")
    assert ended.returncode == 1
    assert 'put what starts it under: if __name__ == "__main__":' in ended.stderr


def test_what_has_no_file_is_carried(tmp_path):
    lines = (
        "import dpcore\nclass Point:\n    x = 3\n\n"
        "def make() -> Point:\n    return Point()\n\n"
        "def look(make) -> int:\n    assert type(make) is Point\n    return make.x\n\n"
        "tasks = dpcore.Registry()\n_ = tasks.task(make); _ = tasks.task(look)\n"
        "result = dpcore.run(registry=tasks, executor='multiprocess')\n"
        "print(result['look'], type(result['make']) is Point)\n"
    )
    ended = started(tmp_path, "-c", lines)
    assert ended.stdout == "3 True\n", ended.stderr


# ---------------------------------------------------------------- how a worker is as the program is


def test_path_and_folder_of_the_program_hold_in_workers(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "found_later.py").write_text("def two() -> int:\n    return 2\n")
    (tmp_path / "script.py").write_text(
        "import os, sys, anyio, dpcore\n"
        "tasks = dpcore.Registry()\n"
        "@tasks.task\n"
        "def where() -> str:\n"
        "    return os.getcwd()\n"
        "async def main():\n"
        "    async with dpcore.App(tasks, executor='multiprocess?workers=1') as app:\n"
        "        os.chdir('elsewhere')\n"
        "        print((await app.run())['where'] == os.getcwd())\n"
        "        sys.path.insert(0, '../later')\n"
        "        sys.path[0] = os.path.abspath(sys.path[0])\n"
        "        @tasks.task\n"
        "        def two() -> int:\n"
        "            import found_later\n"
        "            return found_later.two()\n"
        "        print((await app.run('two'))['two'])\n"
        "if __name__ == '__main__':\n"
        "    anyio.run(main)\n"
    )
    ended = started(tmp_path, "script.py")
    assert ended.stdout == "True\n2\n", ended.stderr


def test_a_module_that_workers_cannot_import_is_a_failed_attempt_that_says_which(tmp_path):
    (tmp_path / "script.py").write_text(
        "import sys, types, dpcore\n"
        "made = types.ModuleType('made_up')\n"
        "made.__file__ = '/nowhere/made_up.py'\n"
        "exec('def one() -> int: return 1', vars(made))\n"
        "sys.modules['made_up'] = made\n"
        "tasks = dpcore.Registry()\n"
        "tasks.task(made.one)\n"
        "if __name__ == '__main__':\n"
        "    result = dpcore.run(registry=tasks, executor='multiprocess', check=False)\n"
        "    print(result.outcomes['one'].state, result.outcomes['one'].error)\n"
    )
    ended = started(tmp_path, "script.py")
    assert ended.stdout.startswith("failed "), ended.stderr
    assert "made_up" in ended.stdout
    assert "/nowhere" in ended.stdout


@BOTH
async def test_a_result_that_does_not_load_is_said_by_who_reads_it(tasks, plugins):
    tasks.task(name="broken")(dying.does_not_load)

    @tasks.task
    def reads(broken) -> None:
        raise AssertionError("it never comes to this")

    async with App(tasks, executor="multiprocess?workers=1", plugins=plugins) as app:
        with anyio.fail_after(PATIENCE):
            result = await app.run(check=False)
    assert result.outcomes["broken"].state is State.SUCCEEDED
    assert "it was well when it was stored" in str(result.outcomes["reads"].error)


@BOTH
async def test_a_task_that_is_registered_when_the_workers_run_already_is_known_to_them(tasks, plugins):
    """D-X16."""
    tasks.task(name="first")(dying.pid)
    async with App(tasks, executor="multiprocess?workers=1", plugins=plugins) as app:
        first = (await app.run())["first"]
        tasks.task(name="second")(dying.pid)
        tasks.task(name="third")(lambda: os.getpid())
        assert dict(await app.run("second", "third")) == {"second": first, "third": first}


@BOTH
async def test_a_coroutine_finds_the_loop_of_the_one_before(bench):
    """It is made once per worker; on trio, whose loops end with what they run, once per job."""
    kinds, loops = zip(*[await bench.value(dying.loop_async) for _ in range(3)], strict=True)
    assert {*kinds} == {sniffio.current_async_library()}
    assert kinds[0] == "trio" or len({*loops}) == 1


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_coroutine_that_leaves_tasks_behind_leaves_none(bench):
    first = await bench.value(dying.leave_task_async)
    assert first == 2
    assert await bench.value(dying.leave_task_async) == 2


# ---------------------------------------------------------------- what tasks print and log


@BOTH
async def test_what_a_job_prints_is_kept_with_its_outcome(bench, capsys):
    """By Python, by a process of its own, and to a file descriptor; in both streams; of this job only."""
    for number in range(3):
        outcome = await bench.outcome(dying.print_in_every_way, text=f"number {number}")
        assert sorted(outcome.output.split("\n")) == ["", *[f"{way} number {number}" for way in "abcd"]]
    assert (await bench.outcome(dying.pid)).output == ""
    assert "c number 1" in capsys.readouterr().err


UNREAD = """
import sys
import time
import anyio
import dpcore

tasks = dpcore.Registry()

@tasks.task
def loud() -> None:
    for number in range(int(sys.argv[1])):
        print("x" * 999)

@tasks.task(timeout=0.2)
def stuck() -> None:
    time.sleep(60)

async def main() -> None:
    async with dpcore.App(tasks, executor="multiprocess?workers=2") as app:
        result = await app.run(check=False)
        print(*(outcome.state for outcome in result.outcomes.values()), flush=True)

if __name__ == "__main__":
    anyio.run(main, backend=sys.argv[2])
"""


@pytest.mark.parametrize("encoding", ["utf-8", "ascii:backslashreplace"])
def test_a_letter_that_stderr_does_not_have_holds_up_nothing_either(tmp_path, encoding):
    script = tmp_path / "unread.py"
    script.write_text(UNREAD.replace('"x" * 999', '"\U0001f600" * 999'))
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    command = [sys.executable, script, "300", "asyncio"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as program:
        assert program.stdout.readline() == b"succeeded timed_out\n"
        said = program.stderr.read()
    assert said.count("\U0001f600".encode() if encoding == "utf-8" else rb"\U0001f600") == 300 * 999


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("lines", [500, 3000])
def test_who_does_not_read_what_tasks_print_holds_up_no_timeout(tmp_path, lines, backend):
    script = tmp_path / "unread.py"
    script.write_text(UNREAD)
    command = [sys.executable, script, str(lines), backend]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stdout.readline() == "succeeded timed_out\n"  # before anybody has read a line
        said = program.stderr.read()
    assert program.returncode == 0
    notice = re.search(r"\n\.\.\. (\d+) characters that tasks have printed are left out: nobody read them\n", said)
    assert (notice is None) == (lines == 500)
    if notice is None:
        assert said == ("x" * 999 + "\n") * lines
    else:  # nothing else is lost, and the last that was printed is there
        assert len(said) - len(notice[0]) == lines * 1000 - int(notice[1])
        assert said.endswith("x" * 999 + "\n")


@BOTH
async def test_of_much_the_end_is_kept(bench):
    outcome = await bench.outcome(dying.print_much, lines=50_000)
    assert outcome.output.endswith("line 49999\n")
    assert len(outcome.output) == 64 * 1024


@BOTH
async def test_the_last_words_of_a_worker_are_in_its_error(bench):
    lost = await bench.outcome(dying.say_and_die)
    assert str(lost.error).endswith("exited with code 7\nthe last that it printed:\nat row 7")


@BOTH
async def test_what_a_task_logs_goes_to_the_programs_loggers(bench, caplog):
    with caplog.at_level("INFO"):
        outcome = await bench.outcome(dying.log_some)
    assert [(r.name, r.levelname, r.getMessage()) for r in caplog.records if r.name == "shop"] == [
        ("shop", "INFO", "7 sold"),
        ("shop", "ERROR", "none left"),
    ]
    assert outcome.output == "INFO:shop:7 sold\nERROR:shop:none left\n"


@BOTH
async def test_a_record_that_the_program_cannot_load_ends_no_job(bench, caplog):
    outcome = await bench.outcome(dying.log_what_does_not_load)
    assert (outcome.state, bench.io.load(outcome.result)) == (State.SUCCEEDED, 7)
    assert outcome.output.count("could not be handled: ValueError(") == 20
    assert "what a task has logged in a worker process cannot be handled here" in caplog.text


class NeedsUser(logging.Filter):
    def filter(self, record):
        return bool(record.user)


@BOTH
async def test_a_filter_of_the_program_that_raises_ends_no_job(bench, caplog):
    """Whatever it does not know: the end of the job, which comes with it, is heard all the same."""
    needs_user = NeedsUser()
    logging.getLogger("shop").addFilter(needs_user)
    try:
        assert await bench.value(dying.log_for, user="me") == 7
    finally:
        logging.getLogger("shop").removeFilter(needs_user)
    assert "AttributeError: 'LogRecord' object has no attribute 'user'" in caplog.text
    assert [record.user for record in caplog.records if record.name == "shop"] == ["me"] * 20


@BOTH
async def test_a_worker_that_cannot_be_understood_is_one_failed_attempt(bench, caplog):
    outcome = await bench.outcome(dying.say_nonsense)
    assert isinstance(outcome.error, WorkerLostError)
    assert "said what cannot be understood, and was killed" in str(outcome.error)
    assert "speaks of job 12345, and is at" in caplog.text
    assert await bench.value(dying.pid) != int(outcome.worker.partition("/")[0])


# ---------------------------------------------------------------- jobs that are sent ahead


@BOTH
async def test_more_jobs_are_wanted_than_there_are_workers_only_while_they_are_short(bench):
    assert bench.executor.window == 2
    await bench.warm_up()
    assert bench.executor.window == MOST_AT_ONCE
    await bench.outcome(dying.take, seconds=0.2)
    assert bench.executor.window == 2


@BOTH
async def test_a_few_short_jobs_promise_little_of_those_that_follow(bench):
    for _ in range(3):
        await bench.outcome(dying.pid)
    assert bench.executor.window == 2


@BOTH
async def test_jobs_that_fail_at_once_promise_nothing(bench):
    for _ in range(40):
        await bench.outcome(dying.take, seconds=0, fail=True)
    assert bench.executor.window == 2


@BOTH
async def test_no_job_waits_behind_a_long_one_while_a_worker_is_idle(bench):
    """Short ones have it that jobs are sent ahead; what lies behind the long one goes to the other worker."""
    await bench.warm_up()
    for _ in range(3):
        done = []

        async def short(done=done) -> None:
            done.append(await bench.value(dying.pid))

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as group:
                for _ in range(4):
                    group.start_soon(short)
                job = bench.job(dying.stay, folder=str(bench.folder))
                group.start_soon(bench.executor.run, job, Recorder())
                for _ in range(MOST_AT_ONCE):
                    group.start_soon(short)
                while len(done) < 4 + MOST_AT_ONCE:
                    await anyio.sleep(0.001)
                group.cancel_scope.cancel()


@BOTH
@pytest.mark.parametrize("seed", range(3))
async def test_whatever_is_cancelled_when_each_job_is_done_once_at_most(bench, seed):
    """Waiting, sent ahead, running or done: those that nobody cancels are done exactly once."""
    drawn = random.Random(seed)
    cancelled, ended = set(), set()

    async def one(number: int, patience: float | None) -> None:
        with anyio.move_on_after(patience):
            outcome = await bench.outcome(dying.count_up, folder=str(bench.folder), name=f"{number}")
            assert outcome.state is State.SUCCEEDED, outcome.error
            ended.add(number)
            return
        cancelled.add(number)

    numbers = iter(range(120))

    async def lane() -> None:
        for number in numbers:
            await one(number, drawn.uniform(0, 0.01) if drawn.random() < 0.2 else None)

    with anyio.fail_after(2 * PATIENCE):
        async with anyio.create_task_group() as group:
            for _ in range(MOST_AT_ONCE):
                group.start_soon(lane)
    assert len(cancelled) + len(ended) == 120
    counts = {int(file.stem): file.stat().st_size for file in bench.folder.glob("*.count")}
    assert all(counts.get(number) == 1 for number in ended)
    assert all(counts.get(number, 0) <= 1 for number in cancelled)
    assert await bench.value(dying.pid)


@BOTH
@pytest.mark.parametrize("many", [9, 17])
async def test_however_often_jobs_are_taken_back_and_sent_again_each_is_done_once(anyio_backend, tmp_path, many):
    """Each time that one is cancelled, those behind it are taken back, too, while the worker hears nothing of it."""
    async with MultiprocessExecutor(workers=1) as executor, anyio.create_task_group() as group:
        bench, folder = Bench(executor, tmp_path), str(tmp_path)
        await bench.warm_up()
        for name in ("first", "second"):
            group.start_soon(partial(bench.outcome, dying.stay_until, folder=folder, name=name))
            await anyio.wait_all_tasks_blocked()
        scopes, ended = [anyio.CancelScope() for _ in range(many + AHEAD + 4)], []

        async def one(number: int) -> None:
            with scopes[number]:
                outcome = await bench.outcome(dying.count_up, folder=folder, name=f"{number}")
                assert outcome.state is State.SUCCEEDED, outcome.error
                ended.append(number)

        for number in range(len(scopes)):
            group.start_soon(one, number)
        await anyio.wait_all_tasks_blocked()
        dying.touch(folder, "first")
        while not (tmp_path / "second begun").exists():  # some of those behind it have arrived by then
            await anyio.sleep(0.001)
        for scope in scopes[:many]:
            scope.cancel()
            await anyio.wait_all_tasks_blocked()
        dying.touch(folder, "second")
    assert sorted(ended) == [*range(many, len(scopes))]
    assert {int(file.stem): file.stat().st_size for file in tmp_path.glob("*.count")} == dict.fromkeys(ended, 1)


@BOTH
async def test_what_lies_ahead_of_a_worker_that_dies_is_done_by_others(bench):
    await bench.warm_up()
    outcomes = []

    async def one(call, **arguments) -> None:
        outcomes.append((await bench.outcome(call, **arguments)).state)

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            for number in range(size := MOST_AT_ONCE * 2):
                if number % 5 == 2:
                    group.start_soon(partial(one, dying.end, how="SIGKILL"))
                else:
                    group.start_soon(one, dying.pid)
    deaths = len(range(2, size, 5))
    assert outcomes.count(State.FAILED) == deaths
    assert outcomes.count(State.SUCCEEDED) == size - deaths


# ---------------------------------------------------------------- new workers for old, and how each begins


@BOTH
async def test_a_worker_is_replaced_after_so_many_jobs(anyio_backend, tmp_path):
    async with MultiprocessExecutor(workers=2, max_tasks_per_worker=3) as executor:
        bench = Bench(executor, tmp_path)
        pids: list[int] = []

        async def do() -> None:
            pids.append(await bench.value(dying.pid))

        async with anyio.create_task_group() as group:
            for _ in range(30):
                group.start_soon(do)
        counts = [pids.count(pid) for pid in {*pids}]
    assert len(pids) == 30
    assert max(counts) == 3
    assert gone(pids)


@BOTH
async def test_one_job_a_worker_is_possible(anyio_backend, tmp_path):
    async with MultiprocessExecutor(workers=1, max_tasks_per_worker=1) as executor:
        bench = Bench(executor, tmp_path)
        assert len({await bench.value(dying.pid) for _ in range(4)}) == 4


@pytest.mark.parametrize("name", ["workers", "max_tasks_per_worker"])
@pytest.mark.parametrize("number", [1.5, 2.0, float("inf"), float("nan"), True, "2"])
def test_what_counts_is_a_whole_number(name, number):
    with pytest.raises(TypeError, match=f"^{name}={number!r} must be a whole number, not of type "):
        MultiprocessExecutor(**{name: number})


@pytest.mark.parametrize("number", [0, -1])
def test_no_jobs_a_worker_are_refused(number):
    with pytest.raises(ValueError, match=f"^max_tasks_per_worker={number} must be at least 1, or None for any number$"):
        MultiprocessExecutor(max_tasks_per_worker=number)


@BOTH
async def test_the_environment_of_workers_is_that_of_the_program_and_what_they_are_given(anyio_backend, tmp_path):
    async with MultiprocessExecutor(workers=1, environment={"COLOUR": "blau", "HOME": ""}) as executor:
        bench = Bench(executor, tmp_path)
        found = [await bench.value(dying.variable, name=name) for name in ("COLOUR", "HOME", "PATH")]
    assert found == ["blau", "", os.environ["PATH"]]


@pytest.mark.parametrize(
    ("environment", "kind", "said"),
    [
        (
            "A=1",
            TypeError,
            r"^environment='A=1' must map names of variables to texts, such as \{'OMP_NUM_THREADS': '1'\}$",
        ),
        ({"A": 1}, TypeError, r"^environment=\{'A': 1\} must map names to texts; 'A': 1 are not both texts$"),
        ({"A=B": "1"}, ValueError, r"'A=B': '1' can be no variable of a process$"),
        ({"": "1"}, ValueError, r"'': '1' can be no variable of a process$"),
        ({"A": "\0"}, ValueError, r"can be no variable of a process$"),
        ({"A": "\ud800"}, ValueError, r"can be no variable of a process$"),
    ],
)
def test_an_environment_that_no_process_can_have_is_refused(environment, kind, said):
    with pytest.raises(kind, match=said):
        MultiprocessExecutor(environment=environment)


def test_settings_of_workers_can_be_written_in_a_string():
    executor = Plugins().make("executor", "multiprocess?workers=3&max_tasks_per_worker=7")
    assert (executor.workers, executor.max_tasks_per_worker, executor.environment) == (3, 7, {})


@BOTH
@pytest.mark.parametrize("how", ["object", "option"])
async def test_plugins_of_the_program_are_told_of_workers_in_them_and_none_is_looked_for(tasks, tmp_path, how):
    tasks.task(dying.modules)
    if how == "object":
        plugins = Plugins(worker_plugin, installed=False)
    else:
        plugins = Plugins(load=["tests.adapters.worker_plugin"], installed=False)
    executor = MultiprocessExecutor(workers=1, environment={"NOTES": str(tmp_path), "COLOUR": "blau"})
    with anyio.fail_after(PATIENCE):
        async with App(tasks, executor=executor, plugins=plugins) as app:
            modules = (await app.run())["modules"]
    assert "dpcore.plugins" in modules
    assert not {"importlib_metadata", "importlib.metadata"} & {*modules}, "nothing looks for entry points"
    assert (tmp_path / "notes").read_text().splitlines() == ["started 1 True blau True", "stopping 1 True blau True"]


class Failing:
    def dpcore_worker_started(self, worker):
        raise ValueError("no")


class Leaving:
    def dpcore_worker_started(self, worker):
        raise SystemExit(3)


class Unsendable(Failing):
    def __reduce__(self):
        raise TypeError("no")


@BOTH
async def test_a_plugin_that_fails_in_a_worker_is_logged_and_the_worker_works(tasks, caplog):
    tasks.task(dying.pid)
    plugins = Plugins(Failing(), Leaving(), Unsendable(), installed=False)
    with anyio.fail_after(PATIENCE):
        async with App(tasks, executor=MultiprocessExecutor(workers=1), plugins=plugins) as app:
            assert (await app.run())["pid"] != os.getpid()
    assert "plugin 'Failing' failed in dpcore_worker_started" in caplog.text
    assert "a plugin that is told that a worker process has started cannot end it" in caplog.text
    assert "plugin 'Unsendable' is not to be had in this process: PluginError" in caplog.text
