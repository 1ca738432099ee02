"""What a task costs on worker processes, its result stored and its run recorded, beside a pool that stores nothing."""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import FunctionType
from typing import Any

import anyio
import pytest

from dpcore import App, Plugins, Registry

WORKERS = 2
MOST = 500


def one() -> int:
    return 1


def nothing(x: int) -> int:
    return x


def array() -> Any:
    import numpy

    return numpy.zeros(131_072)  # 1 MB


def first(x: Any) -> float:
    return float(x[0])


def _named(function: Callable[..., Any], number: int) -> Callable[..., Any]:
    """Return a function of its own that does the same, and that another process finds in this module."""
    assert isinstance(function, FunctionType)
    name = f"{function.__name__}{number}"
    own = FunctionType(function.__code__, globals(), name)
    own.__qualname__ = name
    own.__annotations__ = dict(function.__annotations__)
    vars(sys.modules[__name__])[name] = own
    return own


MANY = {function: [_named(function, number) for number in range(MOST)] for function in (one, nothing, array, first)}


def wide(size: int) -> Registry:
    tasks = Registry()
    for number in range(size):
        tasks.task(name=f"t{number}")(MANY[one][number])
    return tasks


def chain(size: int) -> Registry:
    tasks = Registry()
    tasks.task(name="t0")(MANY[one][0])
    for number in range(1, size):
        tasks.task(name=f"t{number}", inputs={"x": f"t{number - 1}"})(MANY[nothing][number])
    return tasks


def arrays(size: int) -> Registry:
    tasks = Registry()
    for number in range(size // 2):
        tasks.task(name=f"a{number}")(MANY[array][number])
        tasks.task(name=f"b{number}", inputs={"x": f"a{number}"})(MANY[first][number])
    return tasks


def wide_in(pool: ProcessPoolExecutor, size: int) -> Any:
    return [future.result() for future in [pool.submit(MANY[one][number]) for number in range(size)]][-1]


def chain_in(pool: ProcessPoolExecutor, size: int) -> Any:
    value = pool.submit(MANY[one][0]).result()
    for number in range(1, size):
        value = pool.submit(MANY[nothing][number], value).result()
    return value


def arrays_in(pool: ProcessPoolExecutor, size: int) -> Any:
    made = [pool.submit(MANY[array][number]) for number in range(size // 2)]
    read = [pool.submit(MANY[first][number], future.result()) for number, future in enumerate(made)]
    return [future.result() for future in read][-1]


SHAPES = {
    "no-op tasks, wide": (wide, wide_in, MOST, 0.6),
    "no-op tasks, a chain": (chain, chain_in, 200, 1.0),
    "1 MB arrays to a child": (arrays, arrays_in, 400, 0.5),
}


@pytest.fixture
def memory_disk() -> Iterator[Path]:
    """A folder in memory where the machine has one."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture
def pool() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("forkserver")) as pool:
        yield pool


@pytest.mark.parametrize("shape", SHAPES)
def test_workers_give_what_a_pool_gives(
    shape: str, memory_disk: Path, pool: ProcessPoolExecutor, watch: Any, side_by_side: Any
) -> None:
    if "arrays" in shape:
        pytest.importorskip("numpy", reason="numpy is not installed")
    registered, in_pool, whole, budget = SHAPES[shape]
    size = side_by_side.size(whole, 10)
    tasks = registered(size)
    options = {"io": f"filesystem:{memory_disk}/results", "store": f"sqlite:{memory_disk}/runs.db"}

    async def in_open_app() -> Any:
        async with App(
            tasks, executor=f"multiprocess?workers={WORKERS}", plugins=Plugins(installed=False), **options
        ) as app:
            await app.run()  # the workers are there, and have imported what they need
            with watch.going():
                result = await app.run()
            return [*result.values()][-1]

    def in_open_pool() -> Any:
        with watch.going():
            return in_pool(pool, size)

    in_pool(pool, size)
    ours, theirs = side_by_side.time(
        f"{WORKERS} workers, {shape}, {size:,} of them, per task",
        lambda: anyio.run(in_open_app), in_open_pool,
        than="ProcessPoolExecutor, nothing stored", budget=budget, per=size, partly=True, clock="wall",
    )  # fmt: skip
    assert ours == theirs
