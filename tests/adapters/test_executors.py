"""The executors that ship, and one in other processes, under the suite of their port."""

from __future__ import annotations

import random
import subprocess
import sys
import threading

import anyio
import pytest

import dpcore
from dpcore import App
from dpcore.testing import ExecutorConformance
from dpcore_plugins import InlineExecutor, ThreadsExecutor
from tests.adapters.processes import Processes


class TestInline(ExecutorConformance):
    def make(self, tmp_path):
        return InlineExecutor()


class TestThreads(ExecutorConformance):
    def make(self, tmp_path):
        return ThreadsExecutor(slots=3)


class TestProcesses(ExecutorConformance):
    backends = ("asyncio",)
    examples = 2  # each starts processes of its own, and so does each job
    many = 300

    def make(self, tmp_path):
        return Processes()


@pytest.mark.parametrize("slots", [0, -1])
def test_threads_without_a_slot_are_refused(slots):
    with pytest.raises(ValueError, match=f"slots={slots} must be at least 1"):
        ThreadsExecutor(slots=slots)


def test_the_default_number_of_threads_is_bounded():
    assert 5 <= ThreadsExecutor().slots <= 32


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
@pytest.mark.parametrize("seed", range(5))
async def test_jobs_that_are_cancelled_at_any_moment_give_their_slots_back(tasks, plugins, seed):
    """Waiting for a slot, about to begin, running, done and not fetched: whatever they were at."""
    together = threading.Barrier(3)

    @tasks.task
    def short() -> None:
        threading.Event().wait(0.0005)

    @tasks.task
    async def awaiting() -> None:
        await anyio.sleep(0.0005)

    for name in "abc":
        tasks.task(name=name, tags=["together"])(lambda: together.wait(10) and None)

    drawn = random.Random(seed)
    executor = ThreadsExecutor(slots=3)

    async def cancelled(app: App) -> None:
        with anyio.move_on_after(drawn.uniform(0, 0.01)):
            await app.run("short", "awaiting")

    async with App(tasks, executor=executor, plugins=plugins) as app:
        for _ in range(10):
            async with anyio.create_task_group() as group:
                for _ in range(8):
                    group.start_soon(cancelled, app)
        with anyio.fail_after(20):
            assert (await app.run(tags=["together"])).state is dpcore.State.SUCCEEDED


def test_no_thread_is_left_when_the_executor_is(tasks, plugins):
    @tasks.task
    def work() -> str:
        return threading.current_thread().name

    before = {*threading.enumerate()}
    result = dpcore.run(registry=tasks, executor="threads", plugins=plugins)
    assert result["work"].startswith("threads-")
    assert not {*threading.enumerate()} - before


def test_a_program_that_does_not_leave_its_executor_ends_all_the_same(tmp_path):
    script = tmp_path / "left.py"
    script.write_text(
        "import asyncio, dpcore\n"
        "from dpcore_plugins import ThreadsExecutor, MemoryIO\n"
        "from dpcore.functions import Function\n"
        "class Line:\n"
        "    over = False\n"
        "    def started(self): pass\n"
        "job = dpcore.Job(run_id='r', task='t', function=Function(len), io=MemoryIO(), arguments={'obj': ()}, positional=('obj',))\n"
        "print(asyncio.run(ThreadsExecutor().run(job, Line())).state)\n"
    )
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stdout.strip()) == (0, "succeeded"), ended.stderr


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_a_plain_task_on_a_thread_may_run_an_event_loop_of_its_own(tasks, plugins):
    async def answer() -> int:
        await anyio.lowlevel.checkpoint()
        return 42

    @tasks.task
    def alone() -> int:
        return anyio.run(answer)

    @tasks.task
    def nested() -> int:
        inner = dpcore.Registry()
        inner.task(name="one")(lambda: 1)
        return dpcore.run(registry=inner, plugins=dpcore.Plugins(installed=False))["one"]

    async with App(tasks, executor="threads", plugins=plugins) as app:
        assert dict(await app.run()) == {"alone": 42, "nested": 1}


NO_THREADS = """
import resource, sys, threading
import dpcore
from dpcore_plugins import ThreadsExecutor
tasks = dpcore.Registry()
for number in range(5):
    tasks.task(name=f"t{number}")(lambda: 1)
threading.stack_size(512 * 1024 * 1024)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
room = int(sys.argv[1]) * 700 * 1024 * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + room + 300 * 1024 * 1024, resource.RLIM_INFINITY))
result = dpcore.run(registry=tasks, executor=ThreadsExecutor(slots=4), check=False)
print(result.state, {str(outcome.error) for outcome in result.outcomes.values()})
"""


@pytest.mark.parametrize(("room", "said"), [("0", 'failed {"can\'t start new thread"}'), ("1", "succeeded {'None'}")])
def test_where_threads_cannot_be_started_nothing_hangs(tmp_path, room, said):
    """The stack of each is larger than what memory is left."""
    script = tmp_path / "crowded.py"
    script.write_text(NO_THREADS)
    ended = subprocess.run([sys.executable, script, room], capture_output=True, text=True, timeout=60)
    assert ended.stdout.strip() == said, ended.stderr
