"""For whoever tests: fixtures for pipelines, a clock that is told the time, and the suites that adapters must pass.

Every run of pytest has the fixtures ``dp_app``, ``dp_clock`` and ``run_tasks``
(:mod:`dpcore.testing.plugin`), and what failed with them shows its runs.

A suite is a class of tests, one promise of the contract each.  Subclass it in a
test module of yours, and say in one method how an adapter is made::

    from dpcore.testing import IOManagerConformance

    class TestMyIO(IOManagerConformance):
        def make(self, tmp_path):
            return MyIO(path=tmp_path / "results")

The suites need ``dpcore[testing]``.  They are imported when they are first asked
for, because every run of pytest in the environment imports this package.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = (
    "BrokerConformance",
    "ExecutorConformance",
    "FakeClock",
    "IOManagerConformance",
    "QueueConformance",
    "RunStoreConformance",
    "RunTasks",
)

_HOMES = {
    "BrokerConformance": "broker",
    "ExecutorConformance": "executor",
    "FakeClock": "clock",
    "IOManagerConformance": "io",
    "QueueConformance": "queue",
    "RunStoreConformance": "runstore",
    "RunTasks": "fixtures",
}


def __getattr__(name: str) -> Any:
    if (home := _HOMES.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
