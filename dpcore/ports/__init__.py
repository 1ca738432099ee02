"""The ports: what an adapter implements, one file each.

Every port is two layers.  The abstract methods, five at the most, are what an
adapter writes; the final public methods are built on them here, once, so that no
adapter checks an id, orders a list or words an error again.  Three rules:

- what the event loop calls is async (:class:`Broker`, :class:`Executor`, :class:`Queue`,
  :class:`RunStore`);
- what runs beside the task is plain (:class:`IOManager`);
- hooks never wait.

A port is imported when it is first asked for: who writes an I/O manager, or does the
work of a job, does not load what carries events.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "Adapter": "adapter",
    "Broker": "broker",
    "Delivery": "subscription",
    "Executor": "executor",
    "Feed": "subscription",
    "Firing": "trigger",
    "IOManager": "io",
    "Lease": "runstore",
    "Line": "executor",
    "Platform": "trigger",
    "Queue": "queue",
    "RunStore": "runstore",
    "StreamTrigger": "trigger",
    "Subscription": "subscription",
    "Tally": "queue",
    "TimeTrigger": "trigger",
    "Trigger": "trigger",
    "WorkerInfo": "platform",
}

__all__ = tuple(_HOMES)


def __getattr__(name: str) -> Any:
    if (home := _HOMES.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
