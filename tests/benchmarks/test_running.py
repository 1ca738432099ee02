"""What a task costs in a run, beside bare calls, a thread pool, Hamilton, and the same run with more tasks.

Results and records are kept in memory.  A run *in an open app* is planned and driven
each time; a *whole* one also makes the app and the event loop, as ``dpcore.run()`` does.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import FunctionType
from typing import Any

import anyio
import pytest

from dpcore import App, Plugins, Registry, Result, plan, run

SHAPES = ["wide", "chain"]
SLOTS = 4

Call = Callable[..., Any]


def calls(shape: str, size: int) -> dict[str, Call]:
    """Return functions that do nothing: none takes anything, or each takes what the one before gave."""

    def one() -> int:
        return 1

    def nothing(x: int) -> int:
        return x

    takes = shape == "chain"
    return {f"t{number}": named(nothing if takes and number else one, f"t{number}") for number in range(size)}


def named(function: Call, name: str) -> Call:
    """Return a function of its own that does the same."""
    assert isinstance(function, FunctionType)
    own = FunctionType(function.__code__, function.__globals__, name, None, function.__closure__)
    own.__annotations__ = dict(function.__annotations__)
    return own


def registered(functions: dict[str, Call]) -> Registry:
    tasks, before = Registry(), ""
    for name, function in functions.items():
        takes_one = function.__code__.co_argcount
        tasks.task(name=name, inputs={"x": before} if takes_one else None)(function)
        before = name
    return tasks


def call_all(functions: dict[str, Call]) -> dict[str, Any]:
    """Call one after the other, keeping the results in a dict: what a run does without being one."""
    results: dict[str, Any] = {}
    before = ""
    for name, function in functions.items():
        results[name] = function(results[before]) if function.__code__.co_argcount else function()
        before = name
    return results


def call_wide(functions: dict[str, Call]) -> dict[str, Any]:
    return {name: function() for name, function in functions.items()}


BARE = {"wide": call_wide, "chain": call_all}


def in_pool(pool: ThreadPoolExecutor, functions: dict[str, Call]) -> dict[str, Any]:
    """Submit what can be submitted, and wait for all of it."""
    if any(function.__code__.co_argcount for function in functions.values()):
        return call_all({name: submitted(pool, function) for name, function in functions.items()})
    return {name: future.result() for name, future in [(n, pool.submit(f)) for n, f in functions.items()]}


def submitted(pool: ThreadPoolExecutor, function: Call) -> Call:
    if function.__code__.co_argcount:
        return lambda x: pool.submit(function, x).result()
    return lambda: pool.submit(function).result()


@pytest.fixture
def in_open_app(watch: Any) -> Callable[..., Result]:
    """Give a call that runs tasks in an app that is open already; only the run is timed."""

    async def main(tasks: Registry, options: dict[str, Any]) -> Result:
        async with App(tasks, **options) as app:
            await app.executor(), await app.io(), await app.store()
            with watch.going():
                return await app.run()

    def opened(tasks: Registry, **options: Any) -> Result:
        return anyio.run(main, tasks, {"plugins": Plugins(installed=False), **options})

    return opened


@pytest.fixture
def timed(watch: Any) -> Callable[..., Any]:
    def call(function: Call, *arguments: Any) -> Any:
        with watch.going():
            return function(*arguments)

    return call


# ---------------------------------------------------------------- beside bare calls and thread pools


@pytest.mark.parametrize("shape", SHAPES)
def test_inline_gives_what_bare_calls_give(shape: str, in_open_app: Any, timed: Any, side_by_side: Any) -> None:
    size = side_by_side.size(1_000, 20)
    functions = calls(shape, size)
    tasks = registered(functions)
    ours, theirs = side_by_side.time(
        f"inline, {shape}, {size:,} tasks, per task",
        lambda: in_open_app(tasks, executor="inline"), lambda: timed(BARE[shape], functions),
        than="bare calls, results in a dict", budget=4, per=size, partly=True,
    )  # fmt: skip
    assert dict(ours) == theirs


def test_a_whole_run_gives_what_bare_calls_give(side_by_side: Any) -> None:
    size = side_by_side.size(1_000, 20)
    functions = calls("wide", size)
    tasks = registered(functions)
    ours, theirs = side_by_side.time(
        f"inline, wide, {size:,} tasks, whole, per task",
        lambda: run(registry=tasks, executor="inline"), lambda: call_wide(functions),
        than="bare calls, results in a dict", budget=4, per=size,
    )  # fmt: skip
    assert dict(ours) == theirs


@pytest.mark.parametrize("shape", SHAPES)
def test_threads_give_what_a_pool_gives(shape: str, in_open_app: Any, timed: Any, side_by_side: Any) -> None:
    size = side_by_side.size(1_000, 20)
    functions = calls(shape, size)
    tasks = registered(functions)
    with ThreadPoolExecutor(SLOTS) as pool:
        ours, theirs = side_by_side.time(
            f"threads, {shape}, {size:,} tasks, per task",
            lambda: in_open_app(tasks, executor=f"threads?slots={SLOTS}"), lambda: timed(in_pool, pool, functions),
            than="ThreadPoolExecutor", per=size, partly=True, clock="wall",
        )  # fmt: skip
    assert dict(ours) == theirs


# ---------------------------------------------------------------- beside Hamilton

HAMILTON = {"wide": 1_000, "chain": 200}  # it follows a chain by recursion


def hamilton_driver(functions: dict[str, Call]) -> Any:
    ad_hoc = pytest.importorskip("hamilton.ad_hoc_utils", reason="sf-hamilton is not installed")
    driver = pytest.importorskip("hamilton.driver", reason="sf-hamilton is not installed")
    return driver.Builder().with_modules(ad_hoc.create_temporary_module(*functions.values())).build()


def hamilton_calls(shape: str, size: int) -> dict[str, Call]:
    """Return the same functions as Hamilton wants them: a parameter has the name of what it takes."""
    functions = calls(shape, size)
    if shape == "chain":
        for number, (name, function) in enumerate(functions.items()):
            if number:
                code = function.__code__.replace(co_varnames=(f"t{number - 1}",))
                own = FunctionType(code, function.__globals__, name)
                own.__annotations__ = {f"t{number - 1}": "int", "return": "int"}
                functions[name] = own
    return functions


def hinted(functions: dict[str, Call]) -> dict[str, Call]:
    """Resolve the hints, as they are in a module that does not postpone them."""
    for function in functions.values():
        function.__annotations__ = dict.fromkeys(function.__annotations__, int)
    return functions


@pytest.mark.parametrize("shape", SHAPES)
def test_inline_gives_what_hamilton_gives(shape: str, in_open_app: Any, timed: Any, side_by_side: Any) -> None:
    size = side_by_side.size(HAMILTON[shape], 20)
    functions = hinted(hamilton_calls(shape, size))
    driver, tasks, wanted = hamilton_driver(functions), Registry(), list(functions)
    for name, function in functions.items():
        tasks.task(name=name)(function)
    ours, theirs = side_by_side.time(
        f"inline, {shape}, {size:,} tasks, planned and run, per task",
        lambda: in_open_app(tasks, executor="inline"), lambda: timed(driver.execute, wanted),
        than="Hamilton, built before, executed", per=size, partly=True,
    )  # fmt: skip
    assert dict(ours) == theirs


@pytest.mark.parametrize("shape", SHAPES)
def test_a_whole_run_gives_what_hamilton_gives(shape: str, side_by_side: Any) -> None:
    size = side_by_side.size(HAMILTON[shape], 20)
    functions = hinted(hamilton_calls(shape, size))
    hamilton_driver(functions)
    wanted = list(functions)

    def ours() -> Result:
        tasks = Registry()
        for name, function in functions.items():
            tasks.task(name=name)(function)
        return run(registry=tasks, executor="inline")

    mine, theirs = side_by_side.time(
        f"inline, {shape}, {size:,} tasks, registered, whole, per task",
        ours, lambda: hamilton_driver(functions).execute(wanted), than="Hamilton, built and executed", per=size,
    )  # fmt: skip
    assert dict(mine) == theirs


# ---------------------------------------------------------------- with more tasks


@pytest.mark.parametrize("size", [10_000, 100_000])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_task_of_many_gives_what_one_of_few_does(shape: str, size: int, in_open_app: Any, side_by_side: Any) -> None:
    few, many = side_by_side.size(1_000, 20), side_by_side.size(size, 200)
    some, every = registered(calls(shape, few)), registered(calls(shape, many))
    plan(registry=some), plan(registry=every)  # reads the signatures
    rounds = side_by_side.size(10, 1)  # so that a round of the other side is not too short beside ours

    ours, theirs = side_by_side.time(
        f"inline, {shape}, {many:,} tasks, per task",
        lambda: in_open_app(every, executor="inline"),
        lambda: [in_open_app(some, executor="inline") for _ in range(rounds)][-1],
        than=f"{few:,} tasks", budget=1.3, per=many, per_theirs=few * rounds, partly=True,
    )  # fmt: skip
    assert (len(ours), len(theirs)) == (many, few)


@pytest.mark.parametrize("size", [1_000, 10_000, 100_000])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_run_in_memory_gives_all_results(shape: str, size: int, in_open_app: Any, side_by_side: Any) -> None:
    size = side_by_side.size(size, 200)
    tasks = registered(calls(shape, size))
    plan(registry=tasks)
    ours, _ = side_by_side.memory(
        f"memory, {shape}, {size:,} tasks, per task", lambda: in_open_app(tasks, executor="inline"),
        budget=2048, per=size,
    )  # fmt: skip
    assert len(ours) == size


# ---------------------------------------------------------------- with something to carry


@pytest.mark.parametrize("executor", ["inline", "threads"])
def test_arrays_arrive_as_they_are(executor: str, in_open_app: Any, timed: Any, side_by_side: Any) -> None:
    numpy = pytest.importorskip("numpy", reason="numpy is not installed")
    size = side_by_side.size(50, 5)

    def first() -> Any:
        return numpy.zeros(131_072)  # 1 MB

    def following(x: Any) -> Any:
        return x + 1

    functions = {f"t{number}": named(following if number else first, f"t{number}") for number in range(size)}
    tasks = registered(functions)
    with ThreadPoolExecutor(SLOTS) as pool:
        sides = {"inline": lambda: call_all(functions), "threads": lambda: in_pool(pool, functions)}
        ours, theirs = side_by_side.time(
            f"{executor}, 1 MB array from task to task", lambda: in_open_app(tasks, executor=executor),
            lambda: timed(sides[executor]), than={"inline": "bare calls", "threads": "ThreadPoolExecutor"}[executor],
            per=size, partly=True, clock="cpu" if executor == "inline" else "wall",
        )  # fmt: skip
    last = f"t{size - 1}"
    assert numpy.array_equal(ours[last], theirs[last])
