"""What planning costs, beside the standard library's sorter on the same graph, and what a look-up in a registry costs.

The graphs are layered: layers of 100 tasks, each of which takes the results of two
tasks of the layer before, with types that are checked.  Every task is a function of
its own, so that every signature is read.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from graphlib import TopologicalSorter
from typing import Any

import pytest

from dpcore import Plan, Registry, Task, plan

WIDTH = 100

Graph = dict[str, list[str]]


def source() -> Callable[..., int]:
    def one() -> int:
        return 1

    return one


def joined() -> Callable[..., int]:
    def both(left: int, right: int) -> int:
        return left + right

    return both


def upstream(number: int) -> list[str]:
    """Return what the task of that number takes: its own column of the layer before, and the next one."""
    layer, column = divmod(number, WIDTH)
    before = (layer - 1) * WIDTH
    return [f"t{before + column}", f"t{before + (column + 1) % WIDTH}"] if layer else []


def layered(size: int) -> tuple[Registry, Graph]:
    tasks, graph = Registry(), {}
    for number in range(size):
        name = f"t{number}"
        graph[name] = upstream(number)
        if graph[name]:
            tasks.task(name=name, inputs=dict(zip(("left", "right"), graph[name], strict=True)))(joined())
        else:
            tasks.task(name=name)(source())
    return tasks, graph


def levels(graph: Graph) -> list[tuple[str, ...]]:
    """Sort with graphlib, level by level."""
    sorter = TopologicalSorter(graph)
    sorter.prepare()
    found = []
    while sorter.is_active():
        ready = sorter.get_ready()
        found.append(ready)
        sorter.done(*ready)
    return found


def same(planned: Plan, found: list[tuple[str, ...]]) -> bool:
    return [set(level) for level in planned.levels] == [set(level) for level in found]


@pytest.fixture(scope="module")
def built() -> Callable[[int], tuple[Registry, Graph]]:
    """Give layered tasks of any number whose signatures have been read: they belong to the registry."""

    @cache
    def build(size: int) -> tuple[Registry, Graph]:
        tasks, graph = layered(size)
        plan(registry=tasks)
        return tasks, graph

    return build


# ---------------------------------------------------------------- planning


@pytest.mark.parametrize("size", [1_000, 10_000, 100_000])
def test_a_first_plan_has_the_levels_that_graphlib_finds(size: int, side_by_side: Any, watch: Any) -> None:
    """First means that every signature is read for it."""
    size = side_by_side.size(size, 300)
    graph = layered(size)[1]

    def planned() -> Plan:
        tasks = layered(size)[0]
        with watch.going():
            return plan(registry=tasks)

    def sorted_() -> list[tuple[str, ...]]:
        with watch.going():
            return levels(graph)

    what, budget = f"plan {size:,} layered tasks, per task", 3 if size == 10_000 else None
    ours, theirs = side_by_side.time(what, planned, sorted_, than="graphlib", budget=budget, per=size, partly=True)
    assert same(ours, theirs)


def test_a_second_plan_of_the_same_tasks_has_the_same_levels(built: Any, side_by_side: Any) -> None:
    size = side_by_side.size(10_000, 300)
    tasks, graph = built(size)
    ours, theirs = side_by_side.time(
        f"plan {size:,} again, signatures read, per task", lambda: plan(registry=tasks), lambda: levels(graph),
        than="graphlib", budget=3, per=size,
    )  # fmt: skip
    assert same(ours, theirs)


def test_ten_times_the_tasks_plan_as_well(built: Any, side_by_side: Any) -> None:
    few, many = side_by_side.size(10_000, 300), side_by_side.size(100_000, 2_000)
    some, every = built(few)[0], built(many)[0]
    ours, theirs = side_by_side.time(
        f"plan {many:,} again, per task",
        lambda: plan(registry=every), lambda: [plan(registry=some) for _ in range(10)][-1],
        than=f"{few:,} tasks", budget=1.2, per=many, per_theirs=10 * few,
    )  # fmt: skip
    assert (len(ours), len(theirs)) == (many, few)


@pytest.mark.parametrize("size", [1_000, 10_000, 100_000])
def test_a_plan_in_memory_has_the_levels_that_graphlib_finds(size: int, built: Any, side_by_side: Any) -> None:
    size = side_by_side.size(size, 300)
    tasks, graph = built(size)
    ours, theirs = side_by_side.memory(
        f"memory to plan {size:,}, per task", lambda: plan(registry=tasks), lambda: levels(graph),
        than="graphlib", per=size,
    )  # fmt: skip
    assert same(ours, theirs)


def test_ten_times_the_tasks_plan_in_memory_as_well(built: Any, side_by_side: Any) -> None:
    few, many = side_by_side.size(10_000, 300), side_by_side.size(100_000, 2_000)
    some, every = built(few)[0], built(many)[0]
    ours, theirs = side_by_side.memory(
        f"memory to plan {many:,}, per task", lambda: plan(registry=every), lambda: plan(registry=some),
        than=f"{few:,} tasks", budget=1.2, per=many, per_theirs=few,
    )  # fmt: skip
    assert (len(ours), len(theirs)) == (many, few)


# ---------------------------------------------------------------- registries


@pytest.fixture(scope="module")
def words() -> Registry:
    """A thousand tasks, of which each tenth has the same tag."""
    tasks = Registry()
    for number in range(1_000):
        tasks.task(name=f"t{number}", tags=[f"tag{number % 10}"])(source())
    return tasks


def test_a_task_is_found_by_its_name(words: Registry, side_by_side: Any) -> None:
    known = dict(words)
    ours, theirs = side_by_side.time(
        "registry[name]", lambda: [words[name] for name in known], lambda: [known[name] for name in known],
        than="a dict", per=len(known),
    )  # fmt: skip
    assert ours == theirs


def test_a_name_is_known(words: Registry, side_by_side: Any) -> None:
    known = dict(words)
    ours, theirs = side_by_side.time(
        "name in registry", lambda: [name in words for name in known], lambda: [name in known for name in known],
        than="a dict", per=len(known),
    )  # fmt: skip
    assert ours == theirs


def test_a_function_has_its_name(words: Registry, side_by_side: Any) -> None:
    names = {task.call: (task.name,) for task in words.values()}
    ours, theirs = side_by_side.time(
        "registry.named(function)",
        lambda: [words.named(function) for function in names], lambda: [names[function] for function in names],
        than="a dict", per=len(names),
    )  # fmt: skip
    assert ours == theirs


def test_tasks_are_found_by_their_tag(words: Registry, side_by_side: Any) -> None:
    tagged: dict[str, list[Task]] = {}
    for task in words.values():
        tagged.setdefault(task.tags[0], []).append(task)
    ours, theirs = side_by_side.time(
        "registry.tagged(tag), 100 of 1,000",
        lambda: [words.tagged(tag) for tag in tagged], lambda: [list(tagged[tag]) for tag in tagged],
        than="a dict of lists", per=len(tagged),
    )  # fmt: skip
    assert ours == theirs
