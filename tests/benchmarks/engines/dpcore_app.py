"""dpcore itself, on worker processes, with results stored and runs recorded."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from anyio.from_thread import BlockingPortal, start_blocking_portal

from dpcore import App, Plugins, Registry
from tests.benchmarks.engines import work


def wide(size: int) -> Registry:
    tasks = Registry()
    for number in range(size):
        tasks.task(name=f"t{number}")(work.ONE[number % work.MOST])
    tasks.task(name="joined", dependencies=[f"t{number}" for number in range(size)])(work.one)
    return tasks


def chain(size: int) -> Registry:
    tasks = Registry()
    tasks.task(name="t0")(work.ONE[0])
    for number in range(1, size):
        tasks.task(name=f"t{number}", inputs={"x": f"t{number - 1}"})(work.SAME[number])
    return tasks


def arrays(size: int) -> Registry:
    tasks = Registry()
    for number in range(size // 2):
        tasks.task(name=f"a{number}")(work.ARRAY[number])
        tasks.task(name=f"b{number}", inputs={"x": f"a{number}"})(work.FIRST[number])
    return tasks


def stream(size: int) -> Registry:
    tasks = Registry()
    tasks.task(name="items")(work.items)
    tasks.task(name="counted", inputs={"items": "items"})(work.counted)
    return tasks


SHAPES = {"wide": wide, "chain": chain, "arrays": arrays, "stream": stream}


class Dpcore:
    """An open App in a thread of its own; a run is planned, driven and recorded each time."""

    name = "dpcore"

    def __init__(self, workers: int, folder: Path) -> None:
        self._options: dict[str, Any] = {
            "executor": f"multiprocess?workers={workers}",
            "io": f"filesystem:{folder}/results",
            "store": f"sqlite:{folder}/runs.db",
            "plugins": Plugins(installed=False),
        }
        self._threads = start_blocking_portal()
        self._portal: BlockingPortal
        self._apps: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._portal = self._threads.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for opened in self._apps.values():
            opened[0].__exit__(kind, error, trace)
        self._threads.__exit__(kind, error, trace)

    def prepare(self, shape: str, size: int, *, warm: bool = True) -> None:
        """Register the tasks, open an App of them, and have its workers there, if it is to be *warm*."""
        app = App(SHAPES[shape](size), **self._options)
        context = self._portal.wrap_async_context_manager(app)
        context.__enter__()
        self._apps[shape] = context, app
        if warm:
            self._run(shape, size)

    def _run(self, shape: str, size: int) -> Any:
        app = self._apps[shape][1]
        if shape == "stream":
            return self._portal.call(partial(app.run, params={"count": size}))
        return self._portal.call(app.run)

    def wide(self, size: int) -> int:
        return int(self._run("wide", size)["joined"])

    def chain(self, size: int) -> int:
        return int(self._run("chain", size)[f"t{size - 1}"])

    def arrays(self, size: int) -> int:
        result = self._run("arrays", size)
        return sum(result[f"b{number}"] == 0.0 for number in range(size // 2))

    def stream(self, size: int) -> int:
        return int(self._run("stream", size)["counted"])
