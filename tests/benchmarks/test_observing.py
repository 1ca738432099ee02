"""What it costs to be watched: the call of a hook beside pluggy's own, and a run beside one that nobody watches."""

from __future__ import annotations

from typing import Any

import anyio
import pluggy
import pytest

from dpcore import App, Plugins, Registry, Result
from dpcore.hookspecs import hookspec

WATCHED = {"run": "run", "task": "task", "attempt": 1, "old": "running", "new": "succeeded", "outcome": None}


class Observer:
    """A plugin that counts."""

    def __init__(self) -> None:
        self.seen = 0

    def dpcore_task_changed(self, run: Any, task: Any, attempt: int, old: Any, new: Any, outcome: Any) -> None:
        self.seen += 1


class PluggyObserver:
    """The same, as pluggy knows it."""

    def __init__(self) -> None:
        self.seen = 0

    @pluggy.HookimplMarker("dpcore")
    def dpcore_task_changed(self, run: Any, task: Any, attempt: int, old: Any, new: Any, outcome: Any) -> None:
        self.seen += 1


class Specs:
    @hookspec
    def dpcore_task_changed(self, run: Any, task: Any, attempt: int, old: Any, new: Any, outcome: Any) -> None: ...


def pluggy_with(observers: list[PluggyObserver]) -> pluggy.PluginManager:
    plugins = pluggy.PluginManager("dpcore")
    plugins.add_hookspecs(Specs)
    for observer in observers:
        plugins.register(observer)
    return plugins


@pytest.mark.parametrize("number", [0, 1, 10])
def test_observers_are_called_as_often_as_by_pluggy(number: int, side_by_side: Any) -> None:
    ours, theirs = [Observer() for _ in range(number)], [PluggyObserver() for _ in range(number)]
    observers = Plugins(*ours, installed=False, bundle=False).observers("dpcore_task_changed")
    hook = pluggy_with(theirs).hook
    times, given = side_by_side.size(1_000, 5), tuple(WATCHED.values())

    def observed() -> int:
        for _ in range(times):
            if observers:  # as the runner does it
                for observe in observers:
                    observe(*given)
        return sum(one.seen for one in ours)

    def called() -> int:
        for _ in range(times):
            hook.dpcore_task_changed(**WATCHED)
        return sum(one.seen for one in theirs)

    seen, seen_by_pluggy = side_by_side.time(
        f"a change of a task told to {number} observers", observed, called, than="pluggy's hook call", per=times
    )
    assert seen == seen_by_pluggy
    assert seen >= number * times


@pytest.mark.parametrize("number", [1, 10])
def test_a_watched_run_gives_what_an_unwatched_one_gives(number: int, watch: Any, side_by_side: Any) -> None:
    size = side_by_side.size(1_000, 20)
    tasks = Registry()
    for name in range(size):
        tasks.task(name=f"t{name}")(nothing)
    observers = [Observer() for _ in range(number)]

    async def driven(plugins: Plugins) -> Result:
        async with App(tasks, executor="inline", plugins=plugins) as app:
            await app.executor(), await app.io(), await app.store()
            with watch.going():
                return await app.run()

    watched, unwatched = Plugins(*observers, installed=False), Plugins(installed=False)
    ours, theirs = side_by_side.time(
        f"inline, wide, {size:,} tasks, {number} observers, per task",
        lambda: anyio.run(driven, watched), lambda: anyio.run(driven, unwatched),
        than="nobody watching", per=size, partly=True,
    )  # fmt: skip
    assert dict(ours) == dict(theirs)
    assert min(one.seen for one in observers) >= 2 * size


def nothing() -> int:
    return 1
