"""Hooks: what a plugin may implement; the table of contents of the framework.

There are four kinds.  To *offer* is to return records of what the plugin has.
To *shape* is to change what dpcore is about to do.  To *observe* is to be told
what happened.  *Live* hooks begin and end with the platform.  Hooks never wait:
what has to wait belongs into an adapter.

A plugin is a module, or any object, with functions named like the ones below;
:data:`hookimpl` marks them for people, and takes pluggy's ``tryfirst`` and
``trylast``, but the name is enough.  A function takes the arguments that it
wants by their names and leaves out the others.  Plugins are called in the order
of ``dpcore plugins``: the bundle, installed ones by distribution and name, those
named by an option, the project's own, and objects as they were passed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import pluggy

from dpcore.errors import PluginError
from dpcore.providers import Command, Provider
from dpcore.words import nearest

__all__ = ("PREFIX", "SPECS", "Spec", "check", "hookimpl", "hookspec")

PREFIX = "dpcore_"

hookspec = pluggy.HookspecMarker("dpcore")
hookimpl = pluggy.HookimplMarker("dpcore")

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Spec:
    """What is known of a hook, for validation, for the manual and for ``dpcore plugins``."""

    name: str
    kind: Literal["offer", "shape", "observe", "live"]
    arguments: tuple[str, ...]
    isolated: bool
    """Whether an exception stays with the plugin that raised it; otherwise it reaches the caller."""
    doc: str


SPECS: dict[str, Spec] = {}
"""Every hook there is, by its name."""


def _hook(kind: Literal["offer", "shape", "observe", "live"], *, isolated: bool) -> Callable[[F], F]:
    def specify(function: F) -> F:
        name, arguments = function.__name__, tuple(inspect.signature(function).parameters)
        SPECS[name] = Spec(name, kind, arguments, isolated, inspect.getdoc(function) or "")
        return hookspec(function)

    return specify


# Offers are collected once per kind and plugin, the first time that somebody
# asks for an adapter of that kind.  They return data, and are never asked for
# one item: a plugin that answers "is this yours?" cannot be listed.


@_hook("offer", isolated=True)
def dpcore_brokers() -> Iterable[Provider[Any]]:
    """Offer brokers.

    Called once, in the process of the app, when a broker is first asked for or
    listed; workers receive the records.  An exception marks the plugin as broken,
    and the offers of the others stand.
    """


@_hook("offer", isolated=True)
def dpcore_queues() -> Iterable[Provider[Any]]:
    """Offer queues.

    Called once, in the process of the app, when a queue is first asked for or
    listed; workers receive the records.  An exception marks the plugin as broken,
    and the offers of the others stand.
    """


@_hook("offer", isolated=True)
def dpcore_triggers() -> Iterable[Provider[Any]]:
    """Offer triggers.

    Called once, in the process of the app, when a trigger is first asked for or
    listed; workers receive the records.  An exception marks the plugin as broken,
    and the offers of the others stand.
    """


@_hook("offer", isolated=True)
def dpcore_io_managers() -> Iterable[Provider[Any]]:
    """Offer I/O managers.

    Called once, in the process of the app, when an I/O manager is first asked for
    or listed; workers receive the records.  An exception marks the plugin as
    broken, and the offers of the others stand.
    """


@_hook("offer", isolated=True)
def dpcore_executors() -> Iterable[Provider[Any]]:
    """Offer executors.

    Called once, in the process of the app, when an executor is first asked for or
    listed; workers receive the records.  An exception marks the plugin as broken,
    and the offers of the others stand.
    """


@_hook("offer", isolated=True)
def dpcore_run_stores() -> Iterable[Provider[Any]]:
    """Offer run stores.

    Called once, in the process of the app, when a run store is first asked for or
    listed; workers receive the records.  An exception marks the plugin as broken,
    and the offers of the others stand.
    """


@_hook("shape", isolated=False)
def dpcore_plan(plan: Any) -> Any:
    """Change a plan before it is used: return another plan, or None to leave it.

    Called once per planning, in the process of the app, before the plan is checked.
    The plugins form a chain: each receives the plan that the one before it left, so
    the last one has the last word.  An exception, or a result that is no plan, ends
    the planning; a note on it names the plugin.
    """


@_hook("shape", isolated=True)
def dpcore_commands() -> Iterable[Command]:
    """Offer commands for the command line.

    Called when ``dpcore`` builds its list of commands, in the process of the command
    line.  What a command names is imported when that command is called.  An
    exception marks the plugin as broken, and the commands of the others stand.
    """


@_hook("observe", isolated=True)
def dpcore_run_changed(run: Any, old: Any, new: Any) -> None:
    """See that a run went from the state *old* (None when it begins) to *new*.

    Called at every such change, in the process of the app, in its event loop: do
    little, and hand longer work to a thread of your own.  The result is ignored.  An
    exception is logged with the plugin's name, the first as a warning and those after it
    at debug level, and nothing else comes of it.
    """


@_hook("observe", isolated=True)
def dpcore_task_changed(run: Any, task: Any, attempt: int, old: Any, new: Any, outcome: Any) -> None:
    """See that a task of a run went from the state *old* to *new*.

    *attempt* counts from 1, and *outcome* is None while the task has not ended.
    Called at every such change, after it was recorded, in the process of the app, in
    its event loop: this is the hot path, so do little.  The result is ignored.  An
    exception is logged with the plugin's name, the first as a warning and those after it
    at debug level, and nothing else comes of it.
    """


@_hook("observe", isolated=True)
def dpcore_event_published(event: Any) -> None:
    """See that this app has published *event*, as its broker has it: with id, time and source.

    Called for every event, in the process of the app that published it, in its event
    loop: this is the hot path, so do little.  Dead letters are the broker's own, and not
    told.  The result is ignored.  An exception is logged with the plugin's name, the first
    as a warning and those after it at debug level, and nothing else comes of it.
    """


@_hook("observe", isolated=True)
def dpcore_event_settled(event: Any, group: str, settled: str) -> None:
    """See what became of *event* in a *group*: *settled* is ``ack``, ``nack`` or ``reject``.

    Called for every event that a member in this app has settled, in the process of the
    app, in its event loop: this is the hot path, so do little.  The result is ignored.  An exception is logged with the
    plugin's name, the first as a warning and those after it at debug level, and nothing
    else comes of it.
    """


@_hook("observe", isolated=True)
def dpcore_schedule_fired(schedule: Any, firing: Any) -> None:
    """See that *schedule* has fired: what its *firing* starts was published, and its run was begun.

    Called for every firing, also one by hand, in the process of the app that has fired, in its event loop: do
    little.  The result is ignored.  An exception is logged with the plugin's name, the first as a
    warning and those after it at debug level, and nothing else comes of it.
    """


@_hook("live", isolated=False)
def dpcore_started(app: Any) -> None:
    """Begin: the app has started, and nothing has run on it yet.

    Called once per app, in its process.  An exception ends the start of the app; a
    note on it names the plugin.
    """


@_hook("live", isolated=False)
def dpcore_add_schedules(app: Any) -> None:
    """Add schedules, with ``app.schedule(...)``: the app is about to serve, or somebody wants to know what it would fire.

    Called once per app that serves, in its process, after ``dpcore_started``; and where
    schedules are only looked at, on an app that is never entered.  An exception ends the start; a
    note on it names the plugin.
    """


@_hook("live", isolated=True)
def dpcore_stopping(app: Any) -> None:
    """End: the app is about to stop, and its adapters are still open.

    Called once per app that started, in its process, in the reverse of the order of
    ``dpcore_started``.  An exception is logged with the plugin's name, and the other
    plugins are called all the same.
    """


@_hook("live", isolated=True)
def dpcore_worker_started(worker: Any) -> None:
    """Begin in a worker process: *worker* is a :class:`~dpcore.ports.WorkerInfo`, and no job has run there yet.

    Called once in each worker process of an executor that has some, and nowhere else.
    The plugins are those of the app: what their names are imported from is imported here,
    plugins that were passed as objects have been pickled, and are left out where they
    do not pickle.  An exception is logged with the plugin's name, and the worker works all the same.
    """


@_hook("live", isolated=True)
def dpcore_worker_stopping(worker: Any) -> None:
    """End in a worker process: its last job is done, and *worker* is what ``dpcore_worker_started`` was given.

    Called once in each worker that ends by itself or is told to, in the reverse of the
    order of ``dpcore_worker_started``; not in one that is killed.  An exception is logged
    with the plugin's name, and the other plugins are called all the same.
    """


def check(plugin: str, hook: str, function: Callable[..., Any], *, wrapper: bool = False) -> tuple[str, ...]:
    """Return the arguments that an implementation of *hook* asks for, in its own order.

    Raises :class:`~dpcore.errors.PluginError` when the hook is not one of ours or
    its implementation could not be called as written; *plugin* is who is named.
    """
    spec = SPECS.get(hook)
    if spec is None:
        raise PluginError(plugin, f"implements {hook}, which is no hook{nearest(hook, SPECS)}")
    problem = _colour_problem(spec, function, wrapper)
    if problem:
        raise PluginError(plugin, f"implements {hook} {problem}")
    return tuple(_argument(plugin, spec, one) for one in inspect.signature(function).parameters.values())


def _colour_problem(spec: Spec, function: Callable[..., Any], wrapper: bool) -> str:
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return "with 'async def', but hooks never wait; make it a plain 'def', and do what has to wait in an adapter"
    if wrapper:
        return f"as a hook wrapper, but there is nothing to wrap around: {_PURPOSES[spec.kind]}"
    if spec.kind in ("observe", "live") and inspect.isgeneratorfunction(function):
        return "with a 'yield', so its body would never run; make it a plain function"
    return ""


_PURPOSES = {
    "offer": "it returns what this plugin offers",
    "shape": "it is one link of a chain, or returns what this plugin offers",
    "observe": "it is told what happened",
    "live": "it is told that the platform begins or ends",
}


def _argument(plugin: str, spec: Spec, parameter: inspect.Parameter) -> str:
    name, takes = parameter.name, ", ".join(spec.arguments) or "no arguments"
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        problem = f"with {parameter}, but a hook names the arguments it wants ({takes})"
    elif name not in spec.arguments:
        problem = f"with the unknown argument {name!r} (it takes: {takes}){nearest(name, spec.arguments)}"
        problem += "; the plugin is a class: pass an object of it" if name == "self" else ""
    elif parameter.default is not parameter.empty:
        problem = f"with a default for {name!r}, which would never be used; drop it"
    elif parameter.kind is parameter.KEYWORD_ONLY:
        problem = f"with the keyword-only argument {name!r}; drop the '*' before it"
    else:
        return name
    raise PluginError(plugin, f"implements {spec.name} {problem}")
