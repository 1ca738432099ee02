"""What many jobs need is sent to a worker once, and neither side keeps it for ever."""

from __future__ import annotations

import importlib
import os
import random
import subprocess
import sys
from functools import partial
from hashlib import sha256
from itertools import count
from pathlib import Path

import anyio
import pytest

from dpcore import App, Job, Registry, State
from dpcore.functions import Function
from dpcore.testing.executor import Recorder
from dpcore_plugins import FilesystemIO, MultiprocessExecutor
from tests.adapters import sharing

pytestmark = pytest.mark.anyio
BOTH = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
PATIENCE = 60.0
MEGABYTE = 1 << 20


class Runs:
    """Gives an executor jobs of many runs."""

    def __init__(self, executor: MultiprocessExecutor, folder: Path) -> None:
        self.executor, self.io = executor, FilesystemIO(path=folder / "results")
        self.count = 0

    async def value(self, call, **fields):
        self.count += 1
        job = Job(run_id="r", task=f"t{self.count}", function=Function(call), io=self.io, **fields)
        outcome = await self.executor.run(job, Recorder())
        assert outcome.state is State.SUCCEEDED, outcome.error
        return self.io.load(outcome.result)


# ---------------------------------------------------------------- how much is kept

MANY_RUNS = """
import os, sys
import anyio
from dpcore import App, Plugins, Registry, current_job

tasks = Registry()

def used(pid="self"):
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) // 1024 for line in file if line.startswith("VmRSS:"))

@tasks.task
def size(data: bytes) -> tuple[int, int]:
    assert current_job().params["data"] == data
    return os.getpid(), len(data)

async def main():
    async with App(tasks, executor="multiprocess?workers=1", io="filesystem:results", store="sqlite:runs.db",
                   plugins=Plugins(installed=False)) as app:
        for number in range(17):
            worker, length = (await app.run(params={"data": bytes([number]) * (10 << 20)}))["size"]
            assert length == 10 << 20
            if number == 0:
                before = used(), used(worker)
        print(used() - before[0], used(worker) - before[1])

if __name__ == "__main__":
    anyio.run(main)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="nothing says here how much memory is used")
def test_large_parameters_of_runs_that_have_ended_are_kept_nowhere(tmp_path):
    (tmp_path / "many_runs.py").write_text(MANY_RUNS)
    ended = subprocess.run(
        [sys.executable, "many_runs.py"], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE
    )
    assert ended.returncode == 0, ended.stderr
    program, worker = map(int, ended.stdout.split())
    assert program < 150, "megabytes more than after the first run"
    assert worker < 150, "megabytes more than after the first run"


@BOTH
async def test_small_parameters_are_kept_up_to_some_megabytes_whatever_their_number(anyio_backend, tmp_path):
    """What was sent as the first is sent again after so much else, and not before."""
    first = {"data": sharing.Counted(b"x")}
    async with MultiprocessExecutor(workers=1) as executor:
        runs = Runs(executor, tmp_path)
        loaded = []
        with anyio.fail_after(PATIENCE):
            for many in (500, 20):
                _, count = await runs.value(sharing.times_loaded, params=first)
                loaded.append(count)
                for number in range(many):
                    params = {"run": f"{number}", "more": b"x" * (MEGABYTE if many == 20 else 1000)}
                    assert await runs.value(sharing.seen, params=params) == f"{number}"
            _, count = await runs.value(sharing.times_loaded, params=first)
            loaded.append(count)
    assert loaded == [1, 1, 2]


# ---------------------------------------------------------------- how often it is sent


@BOTH
async def test_a_large_parameter_is_sent_once_to_each_worker_for_all_jobs_of_its_run(anyio_backend, tmp_path):
    before = sharing.Counted.pickled
    params = {"data": sharing.Counted(b"x" * (10 * MEGABYTE))}
    small = {"run": "another"}
    async with MultiprocessExecutor(workers=2) as executor:
        runs = Runs(executor, tmp_path)
        found: list[tuple[int, int]] = []
        lots = anyio.CapacityLimiter(executor.window)

        async def do(number: int) -> None:
            async with lots:
                if number % 10:
                    found.append(await runs.value(sharing.times_loaded, params=params))
                else:  # another run goes on meanwhile
                    assert await runs.value(sharing.seen, params=small) == "another"

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as group:
                for number in range(1000):
                    group.start_soon(do, number)
    assert len(found) == 900
    assert len({pid for pid, _ in found}) <= 2
    assert {count for _, count in found} == {1}
    assert sharing.Counted.pickled - before == 1


@BOTH
async def test_a_large_parameter_is_sent_once_to_tasks_that_follow_each_other(anyio_backend, tmp_path):
    params = {"data": sharing.Counted(b"x" * (10 * MEGABYTE))}
    async with MultiprocessExecutor(workers=1) as executor:
        runs = Runs(executor, tmp_path)
        with anyio.fail_after(PATIENCE):
            found = [await runs.value(sharing.times_loaded, params=params) for _ in range(50)]
    assert {count for _, count in found} == {1}


@BOTH
@pytest.mark.parametrize("seed", range(3))
async def test_each_job_gets_its_own_whatever_the_sizes_and_the_order(anyio_backend, tmp_path, seed):
    dice = random.Random(seed)
    sizes = (0, 10, 10, 10_000, 10_000, MEGABYTE, 3 * MEGABYTE, 9 * MEGABYTE)
    of_runs = [
        {kind: {"data": dice.randbytes(dice.choice(sizes))} for kind in ("params", "metadata")} for _ in range(30)
    ]
    async with MultiprocessExecutor(workers=2, max_tasks_per_worker=40) as executor:
        runs = Runs(executor, tmp_path)
        lots = anyio.CapacityLimiter(dice.choice([1, 4, executor.window]))

        async def do(run: dict) -> None:
            async with lots:
                if dice.random() < 0.05:  # one that is taken back, or stopped
                    with anyio.move_on_after(0):
                        await runs.value(sharing.digests, **run)
                found = await runs.value(sharing.digests, **run)
            assert found == tuple(sha256(run[kind]["data"]).hexdigest() for kind in ("params", "metadata"))

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as group:
                for _ in range(120):
                    group.start_soon(do, dice.choice(of_runs))


# ---------------------------------------------------------------- what is loaded anew


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module that can be written, and loaded anew."""

    saved = count(1)  # seconds, since Python tells by whole ones whether what it has compiled is of this text

    def load(text: str):
        file = tmp_path / "loaded_anew.py"
        file.write_text(text)
        os.utime(file, (next(saved),) * 2)
        importlib.invalidate_caches()
        if (before := sys.modules.get("loaded_anew")) is not None:
            return importlib.reload(before)
        return importlib.import_module("loaded_anew")

    monkeypatch.syspath_prepend(str(tmp_path))
    yield load
    sys.modules.pop("loaded_anew", None)


TWO = "import os\ndef version():\n    return {}, os.getpid()\ndef other():\n    return {}, os.getpid()\n"


@BOTH
async def test_a_module_that_is_loaded_anew_in_the_program_is_so_in_workers(anyio_backend, tmp_path, module):
    async with MultiprocessExecutor(workers=2) as executor:
        runs = Runs(executor, tmp_path)
        found = []
        with anyio.fail_after(PATIENCE):
            for version in range(3):
                loaded = module(TWO.format(version, version * 100))
                for _ in range(3):
                    found.append(await runs.value(loaded.version))
                    found.append(await runs.value(loaded.other))
    versions = [value for value, _ in found]
    assert versions == [0, 0] * 3 + [1, 100] * 3 + [2, 200] * 3
    assert len({pid for _, pid in found}) <= 6, "workers are replaced only when something was loaded anew"


@BOTH
async def test_a_function_of_a_module_loaded_anew_is_the_new_one_though_only_another_was_sent(
    anyio_backend, tmp_path, module
):
    async with MultiprocessExecutor(workers=1) as executor:
        runs = Runs(executor, tmp_path)
        with anyio.fail_after(PATIENCE):
            assert (await runs.value(module(TWO.format(1, 1)).version))[0] == 1
            assert (await runs.value(module(TWO.format(2, 2)).other))[0] == 2


@BOTH
async def test_a_module_that_is_imported_once_more_is_loaded_anew(anyio_backend, tmp_path, module):
    async with MultiprocessExecutor(workers=1) as executor:
        runs = Runs(executor, tmp_path)
        with anyio.fail_after(PATIENCE):
            assert (await runs.value(module(TWO.format(1, 1)).version))[0] == 1
            del sys.modules["loaded_anew"]
            assert (await runs.value(module(TWO.format(2, 2)).version))[0] == 2


@BOTH
async def test_the_function_from_before_is_still_itself(anyio_backend, tmp_path, module):
    async with MultiprocessExecutor(workers=1) as executor:
        runs = Runs(executor, tmp_path)
        with anyio.fail_after(PATIENCE):
            before = module(TWO.format(1, 1)).version
            assert (await runs.value(before))[0] == 1
            after = module(TWO.format(2, 2)).version
            found = [await runs.value(call) for call in (before, after, before, after)]
    assert [value for value, _ in found] == [1, 2, 1, 2]
    assert len({pid for _, pid in found[1:]}) == 1


WAITS = """
import time
from pathlib import Path

def version(folder, number):
    Path(folder, f"{{number}}.begun").touch()
    while not Path(folder, "go").exists():
        time.sleep(0.001)
    return {}
"""


@BOTH
async def test_what_has_begun_when_a_module_is_loaded_anew_ends_and_what_waits_is_what_it_was(
    anyio_backend, tmp_path, module
):
    async with MultiprocessExecutor(workers=1) as executor:
        runs = Runs(executor, tmp_path)
        found: dict[int, int] = {}

        async def do(call, number: int) -> None:
            found[number] = await runs.value(call, arguments={"folder": str(tmp_path), "number": number})

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as group:
                loaded = module(WAITS.format(1))
                for number in range(3):
                    group.start_soon(do, loaded.version, number)
                while not [*tmp_path.glob("*.begun")]:
                    await anyio.sleep(0.001)
                group.start_soon(do, module(WAITS.format(22)).version, 3)
                await anyio.wait_all_tasks_blocked()
                (tmp_path / "go").touch()
    assert found == {0: 1, 1: 1, 2: 1, 3: 22}


@BOTH
async def test_tasks_of_an_app_that_are_loaded_anew_are_so_in_its_workers(anyio_backend, tmp_path, module, plugins):
    text = "from tests.adapters.sharing import tasks\n@tasks.task\ndef version() -> int:\n    return {}\n"
    sharing.tasks = Registry()
    executor = MultiprocessExecutor(workers=1)
    async with App(sharing.tasks, executor=executor, plugins=plugins) as app:
        with anyio.fail_after(PATIENCE):
            module(text.format(1))
            assert (await app.run("version"))["version"] == 1
            module(text.format(22))
            assert (await app.run("version"))["version"] == 22


class Bound:
    def pid(self) -> int:
        return os.getpid()


@BOTH
@pytest.mark.parametrize("kind", ["partial", "method", "lambda", "closure", "decorated anew", "defined anew"])
async def test_no_worker_is_replaced_for_what_is_only_made_anew(anyio_backend, tmp_path, kind):
    def made():
        def closure():
            return os.getpid()

        return closure

    ways = {
        "partial": lambda: partial(os.getpid),
        "method": lambda: Bound().pid,
        "lambda": lambda: lambda: os.getpid(),
        "closure": made,
        "decorated anew": sharing.decorated_anew,
        "defined anew": sharing.defined_anew,
    }
    async with MultiprocessExecutor(workers=1) as executor:
        runs = Runs(executor, tmp_path)
        with anyio.fail_after(PATIENCE):
            pids = {await runs.value(ways[kind]()) for _ in range(5)}
    assert len(pids) == 1
