"""The adapters that ship with dpcore: a manifest of what there is, which imports none of it.

Each is offered through the same hooks as anybody's, and its class is public here:
``from dpcore_plugins import FilesystemIO`` imports that one module.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from dpcore.hookspecs import hookimpl
from dpcore.providers import Provider

_BROKERS = (
    Provider[Any](
        name="memory",
        target="dpcore_plugins.brokers.memory:MemoryBroker",
        summary="events as they are, in this process",
        capabilities=frozenset({"blocks", "completes", "delay", "groups", "keys", "retains"}),
    ),
    Provider[Any](
        name="multiprocess",
        target="dpcore_plugins.brokers.multiprocess:MultiprocessBroker",
        summary="events between the processes of one machine",
        capabilities=frozenset({"blocks", "completes", "delay", "groups", "keys", "processes", "retains"}),
    ),
)

_IO = (
    Provider[Any](
        name="memory",
        target="dpcore_plugins.io.memory:MemoryIO",
        summary="results as they are, in this process",
    ),
    Provider[Any](
        name="filesystem",
        target="dpcore_plugins.io.filesystem:FilesystemIO",
        summary="results as pickles below a folder",
        schemes=("file",),
        capabilities=frozenset({"copies", "shared"}),
    ),
)

_QUEUES = (
    Provider[Any](
        name="memory",
        target="dpcore_plugins.queues.memory:MemoryQueue",
        summary="items between the tasks and threads of this process",
    ),
    Provider[Any](
        name="multiprocess",
        target="dpcore_plugins.queues.multiprocess:MultiprocessQueue",
        summary="items between the processes of this machine",
        capabilities=frozenset({"processes"}),
    ),
)

_EXECUTORS = (
    Provider[Any](
        name="inline",
        target="dpcore_plugins.executors.inline:InlineExecutor",
        summary="one job after the other, on the event loop",
    ),
    Provider[Any](
        name="threads",
        target="dpcore_plugins.executors.threads:ThreadsExecutor",
        summary="jobs on threads of this process",
        capabilities=frozenset({"streams"}),
    ),
    Provider[Any](
        name="multiprocess",
        target="dpcore_plugins.executors.multiprocess:MultiprocessExecutor",
        summary="jobs on worker processes of this machine",
        capabilities=frozenset({"isolates", "kills", "streams"}),
    ),
)

_TRIGGERS = (
    Provider[Any](
        name="cron",
        target="dpcore_plugins.triggers.cron:CronTrigger",
        summary="at the times of a cron expression, in a time zone",
    ),
    Provider[Any](
        name="interval",
        target="dpcore_plugins.triggers.interval:IntervalTrigger",
        summary="every so often, without drift",
    ),
    Provider[Any](
        name="once",
        target="dpcore_plugins.triggers.once:OnceTrigger",
        summary="at one moment",
    ),
    Provider[Any](
        name="event",
        target="dpcore_plugins.triggers.event:EventTrigger",
        summary="for events: each, in batches, when they pause, or once in a while",
    ),
    Provider[Any](
        name="manual",
        target="dpcore_plugins.triggers.manual:ManualTrigger",
        summary="when it is fired by hand, and never by itself",
    ),
    Provider[Any](
        name="api",
        target="dpcore_plugins.triggers.api:ApiTrigger",
        summary="when it is fired by a request, with a typed body",
    ),
)

_RUN_STORES = (
    Provider[Any](
        name="memory",
        target="dpcore_plugins.runstores.memory:MemoryRunStore",
        summary="records of runs in this process",
    ),
    Provider[Any](
        name="sqlite",
        target="dpcore_plugins.runstores.sqlite:SqliteRunStore",
        summary="records of runs in one file, shared by the processes of a machine",
        capabilities=frozenset({"durable", "shared"}),
    ),
)

_TARGETS = {
    target.partition(":")[2]: target
    for target in (
        str(provider.target) for provider in (*_BROKERS, *_QUEUES, *_TRIGGERS, *_IO, *_EXECUTORS, *_RUN_STORES)
    )
}

__all__ = tuple(sorted(_TARGETS))


@hookimpl
def dpcore_brokers() -> tuple[Provider[Any], ...]:
    """Offer the brokers that ship."""
    return _BROKERS


@hookimpl
def dpcore_io_managers() -> tuple[Provider[Any], ...]:
    """Offer the I/O managers that ship."""
    return _IO


@hookimpl
def dpcore_queues() -> tuple[Provider[Any], ...]:
    """Offer the queues that ship."""
    return _QUEUES


@hookimpl
def dpcore_triggers() -> tuple[Provider[Any], ...]:
    """Offer the triggers that ship."""
    return _TRIGGERS


@hookimpl
def dpcore_executors() -> tuple[Provider[Any], ...]:
    """Offer the executors that ship."""
    return _EXECUTORS


@hookimpl
def dpcore_run_stores() -> tuple[Provider[Any], ...]:
    """Offer the run stores that ship."""
    return _RUN_STORES


def __getattr__(name: str) -> Any:
    if name not in _TARGETS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _TARGETS[name].partition(":")
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *_TARGETS})
