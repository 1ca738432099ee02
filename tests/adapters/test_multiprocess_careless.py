"""Worker processes whose jobs are careless with them, and those that stand still."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import anyio
import pytest

from dpcore import App, Plugins, Registry, State
from dpcore.errors import ExecutorLeftError, WorkerLostError
from dpcore_plugins import MultiprocessExecutor
from tests.adapters import careless, dying
from tests.adapters.bench import PATIENCE, Bench

pytestmark = pytest.mark.anyio
BOTH = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])


@pytest.fixture
async def bench(anyio_backend, tmp_path):
    async with MultiprocessExecutor(workers=1) as executor:
        yield Bench(executor, tmp_path)


# ---------------------------------------------------------------- what a job leaves behind


@pytest.mark.parametrize(
    "leave",
    [
        careless.close_streams,
        careless.close_files,
        careless.replace_streams,
        careless.print_elsewhere,
        careless.leave_it_so,
        careless.fill_what_does_not_block,
    ],
    ids=lambda leave: leave.__name__,
)
async def test_the_next_job_prints_whatever_one_has_done_to_the_streams(bench, leave):
    before = await bench.value(dying.pid)
    await bench.value(leave)
    outcome = await bench.outcome(careless.say, text="heard")
    assert outcome.output == "heard\nheard\nheard\n"
    assert (outcome.state, bench.io.load(outcome.result)) == (State.SUCCEEDED, 0)
    assert await bench.value(dying.pid) == before


async def test_what_a_signal_logs_in_the_middle_of_another_record_is_a_record(bench, caplog):
    ticks = await bench.value(careless.log_from_a_signal)
    said = [record.getMessage() for record in caplog.records if record.name == "careless"]
    assert ticks > 0
    assert said.count("tick") == ticks
    assert [len(text) for text in said if text != "tick"] == [2_000_000] * 20


async def test_what_a_job_starts_has_no_part_in_the_talk_of_its_worker(bench):
    listed = await bench.value(careless.open_in_a_child)
    assert "socket:" not in listed
    assert {line.split(" -> ")[0].split()[-1] for line in listed.splitlines() if "pipe:" in line} <= {"0", "1", "2"}


@BOTH
async def test_a_large_order_after_one_that_was_taken_back_is_waited_for(anyio_backend, tmp_path):
    """When the worker takes its token, all of it that it has read is that the one before is no more."""
    async with MultiprocessExecutor(workers=1) as executor, anyio.create_task_group() as group:
        bench, folder = Bench(executor, tmp_path), str(tmp_path)
        await bench.warm_up()
        for name in ("first", "second"):
            group.start_soon(partial(bench.outcome, dying.stay_until, folder=folder, name=name))
            await anyio.wait_all_tasks_blocked()
        async with anyio.create_task_group() as dropped:
            dropped.start_soon(partial(bench.outcome, dying.pid))
            await anyio.wait_all_tasks_blocked()
            dying.touch(folder, "first")
            while not (tmp_path / "second begun").exists():
                await anyio.sleep(0.001)
            dropped.cancel_scope.cancel()
        found = []

        async def large() -> None:
            found.append(await bench.value(careless.length, data=b"x" * 100_000))

        group.start_soon(large)
        await anyio.wait_all_tasks_blocked()
        dying.touch(folder, "second")
    assert found == [100_000]


@pytest.mark.parametrize("executor", ["threads", "multiprocess?workers=2"])
async def test_a_thread_publishes_while_another_waits_for_a_stream_that_is_still(tmp_path, executor):
    tasks = Registry()
    tasks.task(name="numbers")(careless.one_and_then_another_when_it_is_published)
    tasks.task(name="reads")(careless.publish_on_a_thread)
    async with App(tasks, executor=executor) as app, app.subscribe("careless") as events:
        with anyio.fail_after(PATIENCE):
            result = await app.run(params={"folder": str(tmp_path)})
            assert result["reads"] == 2
            assert [(await anext(events)).data for _ in range(5)] == [*range(5)]


HARMLESS = """
import os, sys
import dpcore

def work() -> int:
    return 7

if __name__ == "__main__":
    tasks = dpcore.Registry()
    tasks.task(work)
    print(dpcore.run(registry=tasks, executor="multiprocess?workers=1")["work"])
"""


def test_what_lies_in_the_programs_folder_is_not_taken_for_what_workers_import(tmp_path):
    script, folder = tmp_path / "harmless.py", tmp_path / "folder"
    script.write_text(HARMLESS)
    folder.mkdir()
    for name in ("selectors", "struct", "heapq", "faulthandler"):
        (folder / f"{name}.py").write_text("raise RuntimeError('mine')")
    ended = subprocess.run([sys.executable, script], cwd=folder, capture_output=True, text=True, timeout=PATIENCE)
    assert (ended.stdout, ended.stderr) == ("7\n", "")


# ---------------------------------------------------------------- who stands still


@BOTH
async def test_a_worker_that_takes_no_job_is_replaced_and_costs_nobody_anything(anyio_backend, tmp_path, caplog):
    async with MultiprocessExecutor(workers=1, start_timeout=2) as executor:
        bench = Bench(executor, tmp_path)
        stopped = await bench.value(dying.pid)
        os.kill(stopped, signal.SIGSTOP)
        assert await bench.value(dying.pid) != stopped
    assert f"worker process {stopped} stands still, and takes no job; it is replaced" in caplog.messages


def computed(pid: int) -> float:
    """The seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # from the third on: proc(5)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_one_that_a_thread_of_an_earlier_job_holds_up_is_replaced_too(tmp_path):
    async with MultiprocessExecutor(workers=1, start_timeout=2) as executor:
        bench = Bench(executor, tmp_path)
        held = await bench.value(dying.pid)
        await bench.value(careless.hold_the_interpreter)
        idle = computed(held)
        with anyio.fail_after(PATIENCE):
            while computed(held) < idle + 0.1:  # what it has to do besides takes less
                await anyio.sleep(0.001)
        assert await bench.value(dying.pid) != held


@BOTH
async def test_a_template_that_forks_no_worker_is_replaced(anyio_backend, tmp_path, caplog):
    async with MultiprocessExecutor(workers=1, start_timeout=2) as executor:
        bench = Bench(executor, tmp_path)
        first = await bench.value(dying.pid)
        os.kill(parent_of(first), signal.SIGSTOP)
        os.kill(first, signal.SIGKILL)
        second = await bench.value(dying.pid)
        assert parent_of(second) != parent_of(os.getpid())
    assert "the process that forks workers does nothing that it is asked, and is replaced with them" in caplog.messages


@BOTH
async def test_leaving_beside_a_template_that_stands_still_answers_everybody(anyio_backend, tmp_path):
    outcomes = []
    async with anyio.create_task_group() as group, MultiprocessExecutor(workers=1, grace=0) as executor:
        bench = Bench(executor, tmp_path)

        async def stay() -> None:
            outcomes.append(await bench.outcome(dying.stay, folder=str(tmp_path)))

        group.start_soon(stay)
        (worker,) = await bench.begun()
        os.kill(parent_of(worker), signal.SIGSTOP)
    assert [type(outcome.error) for outcome in outcomes] == [ExecutorLeftError]


HANGS = """
import os, time
from pathlib import Path
if "WORKER" in os.environ:
    Path(os.environ["WORKER"]).joinpath(f"import {os.getpid()}").touch()
    time.sleep(600)
def work() -> int:
    return 1
"""


async def test_an_import_that_never_ends_is_one_failed_attempt(tmp_path, monkeypatch):
    (tmp_path / "hangs_in_workers.py").write_text(HANGS)
    monkeypatch.syspath_prepend(tmp_path)
    import hangs_in_workers

    tasks = Registry()
    tasks.task(timeout=0.1, max_retries=1)(hangs_in_workers.work)
    executor = MultiprocessExecutor(workers=1, start_timeout=2, environment={"WORKER": str(tmp_path)})
    with anyio.fail_after(PATIENCE):
        async with App(tasks, executor=executor) as app:
            result = await app.run(check=False)
    outcome = result.outcomes["work"]
    assert (outcome.state, outcome.attempt) == (State.FAILED, 2)
    assert isinstance(outcome.error, WorkerLostError)
    said = "had not begun it after 2 seconds, since it was still importing, and was killed"
    assert said in str(outcome.error)
    assert len([*tmp_path.glob("import *")]) == 2


class Sleepy:
    def dpcore_worker_started(self, worker):
        signal.pause()


async def test_a_plugin_that_never_lets_a_worker_start_is_said_in_the_end(caplog):
    tasks = Registry()
    tasks.task(dying.pid)
    executor = MultiprocessExecutor(workers=1, start_timeout=1)
    with anyio.fail_after(PATIENCE):
        async with App(tasks, executor=executor, plugins=Plugins(Sleepy(), installed=False)) as app:
            result = await app.run(check=False)
    said = str(result.outcomes["pid"].error)
    assert "no worker process can be started: a worker was not ready after 1 seconds, and was killed" in said


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
