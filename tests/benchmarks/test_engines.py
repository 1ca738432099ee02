"""What a task costs on two worker processes, beside what one would take instead of dpcore.

dpcore's results are files and its runs are recorded, both in memory where the machine has a
folder there.  Most others store nothing; each row says what it is.  Engines that
need seconds for a task are given fewer of them: all figures are for one task.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from tests.benchmarks.engines import work
from tests.benchmarks.engines.dpcore_app import Dpcore

WORKERS = 2
SIZES = {"wide": 500, "chain": 200, "arrays": 200}
SAID = {"wide": "no-op tasks, wide and a join", "chain": "no-op tasks, a chain", "arrays": "1 MB arrays to a child"}
BUDGETS = {
    ("ConcurrentFutures", "wide"): 0.6,
    ("ConcurrentFutures", "chain"): 1.0,
    ("ConcurrentFutures", "arrays"): 0.5,
}
# Where the engine is, what it needs to be installed, and how many tasks it is given of each hundred.
ENGINES = {
    "ConcurrentFutures": ("pools", "concurrent.futures", 100),
    "Loky": ("pools", "loky", 100),
    "Joblib": ("graphs", "joblib", 100),
    "Dask": ("graphs", "distributed", 100),
    "Ray": ("graphs", "ray", 100),
    "Hamilton": ("graphs", "hamilton", 100),
    "Prefect": ("orchestrators", "prefect", 10),
    "Dagster": ("orchestrators", "dagster", 20),
    "Luigi": ("orchestrators", "luigi", 20),
}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory where the machine has one."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        yield Path(folder)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.filterwarnings("default")  # they have their own
def test_another_engine_does_the_same_work(
    shape: str, engine: str, folder: Path, watch: Any, side_by_side: Any
) -> None:
    module, package, percent = ENGINES[engine]
    pytest.importorskip(package, reason=f"{package} is not installed: `tox -e engines` has it")
    if shape == "arrays":
        pytest.importorskip("numpy", reason="numpy is not installed")
    kind = getattr(importlib.import_module(f"tests.benchmarks.engines.{module}"), engine)
    size = side_by_side.size(SIZES[shape], 10)
    fewer = max(10, size * percent // 100)

    def timed(opened: Any, size: int) -> Any:
        with watch.going():
            return getattr(opened, shape)(size)

    with kind(WORKERS) as other, Dpcore(WORKERS, folder) as ours:
        other.prepare(shape, fewer)
        ours.prepare(shape, size)
        gave, given = side_by_side.time(
            f"{WORKERS} workers, {SAID[shape]}, per task", lambda: timed(ours, size), lambda: timed(other, fewer),
            than=kind.name, budget=BUDGETS.get((engine, shape)), per=size, per_theirs=fewer, partly=True, clock="wall",
        )  # fmt: skip
    expected = {"wide": (1, 1), "chain": (1, 1), "arrays": (size // 2, fewer // 2)}[shape]
    assert (gave, given) == expected


# ---------------------------------------------------------------- streams


def _put(count: int, queue: Any) -> None:
    for item in range(count):
        queue.put(item)
    queue.put(None)


def _taken(queue: Any, counted: Any) -> None:
    counted.put(sum(1 for _ in iter(queue.get, None)))


class BareQueue:
    """Two processes and a queue between them, of as many items as dpcore's producer may be ahead; nothing is stored."""

    name = "multiprocessing.Queue, nothing stored"

    def __enter__(self) -> BareQueue:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def stream(self, size: int) -> int:
        context = multiprocessing.get_context("fork")
        queue, counted = context.Queue(64), context.Queue()
        both = [context.Process(target=_put, args=(size, queue)), context.Process(target=_taken, args=(queue, counted))]
        for process in both:
            process.start()
        count = int(counted.get())
        for process in both:
            process.join()
        return count


class RayStream:
    """A generator whose items are read by another task through the program, since references to it cannot be handed on."""

    name = "Ray, a streaming generator"

    def __enter__(self) -> RayStream:
        import ray

        ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, configure_logging=False)
        self._items = ray.remote(num_returns="streaming")(work.items)
        return self

    def __exit__(self, *error: object) -> None:
        import ray

        ray.shutdown()

    def stream(self, size: int) -> int:
        import ray

        return sum(1 for item in self._items.remote(size) if ray.get(item) is not None)


@pytest.mark.parametrize("engine", ["BareQueue", "RayStream"])
@pytest.mark.filterwarnings("default")
def test_a_stream_reaches_its_reader(engine: str, folder: Path, watch: Any, side_by_side: Any) -> None:
    if engine == "RayStream":
        pytest.importorskip("ray", reason="ray is not installed: `tox -e engines` has it")
    size = side_by_side.size(10_000, 100)

    def timed(opened: Any) -> Any:
        with watch.going():
            return opened.stream(size)

    kind: Any = globals()[engine]
    with kind() as other, Dpcore(WORKERS, folder) as ours:
        ours.prepare("stream", size)
        gave, given = side_by_side.time(
            "a stream of 10,000 items to another worker, per item", lambda: timed(ours), lambda: timed(other),
            than=kind.name, per=size, partly=True, clock="wall",
        )  # fmt: skip
    assert gave == given == size


# ---------------------------------------------------------------- starting

# Programs that have one task done by a worker process, and say when it is.
FIRST = {
    "dpcore": """
from dpcore import run, task
@task
def one() -> int:
    return 1
MAIN
assert run(one, executor="multiprocess?workers=2", io="filesystem:results", store="sqlite:runs.db")["one"] == 1
""",
    "concurrent.futures": """
from concurrent.futures import ProcessPoolExecutor
import multiprocessing, operator
MAIN
pool = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("forkserver"))
assert pool.submit(operator.add, 0, 1).result() == 1
""",
    "loky": """
import loky, operator
MAIN
assert loky.ProcessPoolExecutor(2).submit(operator.add, 0, 1).result() == 1
""",
    "joblib": """
from joblib import Parallel, delayed
import operator
MAIN
assert Parallel(2)([delayed(operator.add)(0, 1)]) == [1]
""",
    "distributed": """
from distributed import Client, LocalCluster
import operator
MAIN
client = Client(LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None))
assert client.submit(operator.add, 0, 1).result() == 1
""",
    "ray": """
import ray, operator
MAIN
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
assert ray.get(ray.remote(lambda: 1).remote()) == 1
""",
    "hamilton": """
from hamilton import ad_hoc_utils, driver
def one() -> int:
    return 1
MAIN
module = ad_hoc_utils.create_temporary_module(one)
assert driver.Builder().with_modules(module).build().execute(["one"])["one"] == 1
""",
    "prefect": """
from prefect import flow, task
@task
def one() -> int:
    return 1
@flow
def whole() -> int:
    return one.submit().result()
MAIN
assert whole() == 1
""",
    "dagster": """
from dagster import job, op
@op
def one():
    return 1
@job
def whole():
    one()
MAIN
assert whole.execute_in_process().output_for_node("one") == 1
""",
    "luigi": """
import luigi
class One(luigi.Task):
    def output(self):
        return luigi.LocalTarget("one")
    def run(self):
        with self.output().open("w") as file:
            file.write("1")
MAIN
assert luigi.build([One()], local_scheduler=True, log_level="ERROR")
""",
}


def _program(package: str) -> str:
    """Return a program that is written as one should be: what workers import comes first, and starts nothing."""
    imported, _, done = FIRST[package].partition("MAIN\n")
    said = 'import time\nprint("done", time.monotonic(), flush=True)\n'
    lines = "".join(f"    {line}\n" for line in (done + said).splitlines())
    return f"{imported}if __name__ == '__main__':\n{lines}"


def _started(program: str, watch: Any) -> Callable[[], bool]:
    def side() -> bool:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("DPCORE_", "PYTHON"))}
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "first.py").write_text(program)
            clean |= {"PREFECT_HOME": folder, "PREFECT_LOGGING_LEVEL": "ERROR", "DO_NOT_TRACK": "1"}
            began = monotonic()
            done = subprocess.run(
                [sys.executable, "first.py"], cwd=folder, env=clean, capture_output=True, text=True, timeout=180,
                check=False,
            )  # fmt: skip
        said = [line.split() for line in done.stdout.splitlines() if line.startswith("done ")]
        assert said, done.stderr
        watch.add(float(said[0][1]) - began)
        return True

    return side


@pytest.mark.parametrize("package", [package for package in FIRST if package != "dpcore"])
def test_the_first_task_of_a_program_is_done(package: str, watch: Any, side_by_side: Any) -> None:
    pytest.importorskip(package, reason=f"{package} is not installed: `tox -e engines` has it")
    assert side_by_side.time(
        "from the start of a program to its first task done",
        _started(_program("dpcore"), watch), _started(_program(package), watch), than=package, partly=True, clock="wall",
    ) == (True, True)  # fmt: skip


# ---------------------------------------------------------------- many tasks


@pytest.mark.parametrize(("many", "few"), [(10_000, 1_000), (100_000, 10_000)])
def test_a_task_costs_the_same_among_many(many: int, few: int, folder: Path, watch: Any, side_by_side: Any) -> None:
    many, few = side_by_side.size(many, 40), side_by_side.size(few, 20)

    def timed(opened: Any, size: int) -> Any:
        with watch.going():
            return opened.wide(size)

    with ExitStack() as stack:
        ours, theirs = (stack.enter_context(Dpcore(WORKERS, folder / side)) for side in ("many", "few"))
        ours.prepare("wide", many)
        theirs.prepare("wide", few)
        assert side_by_side.time(
            f"{WORKERS} workers, a no-op task among {many:,}", lambda: timed(ours, many), lambda: timed(theirs, few),
            than=f"among {few:,}", budget=1.3, per=many, per_theirs=few, partly=True, clock="wall",
        ) == (1, 1)  # fmt: skip


def test_the_memory_of_the_program_is_small(folder: Path, side_by_side: Any) -> None:
    size = side_by_side.size(100_000, 40)
    with Dpcore(WORKERS, folder) as ours:
        ours.prepare("wide", size, warm=False)
        side_by_side.memory(
            f"{WORKERS} workers, the program's memory for a task among {size:,}", lambda: ours.wide(size),
            per=size, budget=2048,
        )  # fmt: skip
