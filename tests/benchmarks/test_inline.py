"""What a task costs: 1,000 that do nothing, called in a loop and run ``inline``.

``tox -e bench`` shows both side by side; the difference, divided by 1,000, is what a
task costs.  A run is measured whole: planning, the app, the event loop and the run.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from dpcore import Registry, Result, run

TASKS = 1_000


def nothing() -> int:
    return 1


@pytest.fixture(scope="module")
def calls() -> dict[str, Callable[[], int]]:
    return {f"task{number}": nothing for number in range(TASKS)}


@pytest.fixture(scope="module")
def tasks(calls: dict[str, Callable[[], int]]) -> Registry:
    registry = Registry()
    for name, call in calls.items():
        registry.task(name=name)(call)
    return registry


@pytest.mark.benchmark(group="1,000 tasks that do nothing")
def test_called_in_a_loop(benchmark: BenchmarkFixture, calls: dict[str, Callable[[], int]]) -> None:
    results = benchmark(lambda: {name: call() for name, call in calls.items()})
    assert len(results) == TASKS


@pytest.mark.benchmark(group="1,000 tasks that do nothing")
def test_run_inline(benchmark: BenchmarkFixture, tasks: Registry) -> None:
    result: Result = benchmark(run, registry=tasks, executor="inline")
    assert len(result) == TASKS
