"""What the pytest fixtures hand out: an App of one's own, tasks that run by themselves, and the runs that were seen."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import anyio

from dpcore.app import App, loop_is_running
from dpcore.clock import Clock
from dpcore.config import Config
from dpcore.errors import ArgumentError
from dpcore.jobs import Outcome, State, described
from dpcore.plugins import Plugins
from dpcore.ports.runstore import RunHistory, RunRecord, TaskChange
from dpcore.results import Result
from dpcore.runs import Keep, Run
from dpcore.tasks import Registry, Task
from dpcore.tasks import registry as default_registry
from dpcore.testing.clock import FakeClock
from dpcore.timelines import timeline

__all__ = ("RunTasks", "Seen", "isolated_app")


class Seen:
    """The runs that a test's apps have made, as far as they came; a plugin to each of these apps."""

    def __init__(self) -> None:
        self.histories: list[RunHistory] = []

    def sections(self) -> list[tuple[str, str]]:
        """Return a title and a text for each run, as a report of pytest has them."""
        lines = [
            (found.title, found.lines(shutil.get_terminal_size().columns)) for found in map(timeline, self.histories)
        ]
        return [(f"dpcore {title}", "\n".join(text)) for title, text in lines]


class _Observer:
    """Writes down the runs of one app, with the times of its clock."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen
        self.app: App | None = None
        self.histories: dict[Run, RunHistory] = {}

    def at(self) -> float:
        assert self.app is not None
        return self.app.clock.now().timestamp()

    def dpcore_run_changed(self, run: Run, new: State) -> None:
        if run not in self.histories:
            record = RunRecord(run_id=run.run_id, began=self.at(), tasks=len(run.plan))
            self.histories[run] = RunHistory(record, [])
            self.seen.histories.append(self.histories[run])
        record = self.histories[run].record
        record.state, record.reason, record.ended = new, run.reason, self.at() if new.ended else None

    def dpcore_task_changed(self, run: Run, task: Task, attempt: int, new: State, outcome: Outcome | None) -> None:
        change = TaskChange(task=task.name, state=new, at=self.at(), attempt=attempt)
        if outcome is not None:
            # Not its duration, which is of the machine's clock: a bar says how long it was on the app's.
            change.attempt, change.reason = outcome.attempt, outcome.reason
            change.error = "" if outcome.error is None else described(outcome.error)
        self.histories[run].changes.append(change)


def isolated_app(seen: Seen, registry: Registry | None = None, clock: Clock | None = None) -> App:
    """Make an App that neither installed plugins, nor the environment, nor any file can change."""
    config = Config(environ={})
    observer = _Observer(seen)
    app = observer.app = App(
        Registry() if registry is None else registry,
        broker="memory",
        io="memory",
        executor="inline",
        store="memory",
        plugins=Plugins(observer, installed=False, config=config),
        config=config,
        clock=clock,
        strict_events=True,
    )
    return app


class RunTasks:
    """Runs tasks by themselves, inline and in isolation, and returns what they gave.

    Its arguments are functions, with ``@task`` or without, :class:`~dpcore.Task`
    objects, and whole registries.  A function that is a task of ``dpcore.registry``
    keeps its settings.  Only what is given runs: what a task would receive from others
    is a run parameter, under its name in the function or that of the other task, and a
    mapped task whose stream is not given runs once.

    On ``dp_clock``, where the test asks for that too, time jumps to whatever is
    waited for, so that a retry in an hour takes none.  In an async test the run has a
    loop of its own, on a thread, and the test waits for it.
    """

    def __init__(self, seen: Seen, clock: FakeClock | None = None) -> None:
        self._seen, self._clock = seen, clock

    def __call__(
        self,
        *tasks: Callable[..., Any] | Task | Registry,
        params: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        fail_fast: bool = False,
        keep: Keep = "all",
        check: bool = True,
    ) -> Result:
        """Run *tasks*; a failed run raises what :func:`dpcore.run` would, unless *check* is False."""
        __tracebackhide__ = True  # a failed test shows its own line
        app = isolated_app(self._seen, _alone(tasks, params or {}), self._clock)

        async def main() -> Result:
            async with app:
                return await app.run(params=params, metadata=metadata, fail_fast=fail_fast, keep=keep, check=False)

        with _jumping(self._clock):
            result = _on_a_thread(main) if loop_is_running() else anyio.run(main)
        return result.raise_for_failure() if check else result


def _alone(given: tuple[Callable[..., Any] | Task | Registry, ...], params: Mapping[str, Any]) -> Registry:
    """Register what is *given* anew, without what it says of tasks that neither are nor have a value in *params*."""
    __tracebackhide__ = True
    if not given:
        raise TypeError("run_tasks() needs something to run: functions, tasks or registries")
    found: list[Task | Callable[..., Any]] = []
    for one in given:
        if not callable(one) and not isinstance(one, Task | Registry):
            raise ArgumentError("tasks", one, "functions, Task objects or registries, each that run_tasks() is given")
        found += one.values() if isinstance(one, Registry) else [one if isinstance(one, Task) else _known(one)]
    names = {one.name for one in found if isinstance(one, Task)} | {
        str(getattr(one, "__name__", "")) for one in found if not isinstance(one, Task)
    }
    known = names | set(params)
    alone = Registry()
    for one in found:
        if not isinstance(one, Task):
            alone.task(one)
            continue
        settings = one.settings
        settings["dependencies"] = [name for name in one.dependencies if name in known]
        settings["inputs"] = {parameter: name for parameter, name in one.inputs.items() if name in known}
        settings["each"] = one.each if one.each in names else None
        alone.task(**settings)(one.call)
    return alone


def _known(function: Callable[..., Any]) -> Task | Callable[..., Any]:
    names = default_registry.named(function)
    if len(names) > 1:
        raise ValueError(f"{function!r} is several tasks ({', '.join(names)}); give one: dpcore.registry[{names[0]!r}]")
    return default_registry[names[0]] if names else function


@contextmanager
def _jumping(clock: FakeClock | None) -> Iterator[None]:
    """Have *clock* go on by itself for the length of a ``with`` block."""
    if clock is None:
        yield
        return
    before, clock.autojump = clock.autojump, True
    try:
        yield
    finally:
        clock.autojump = before


def _on_a_thread(main: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(anyio.run, main).result()
