"""dpcore: the core of an event-driven data platform, made of plugins the way pytest is.

A name is imported when it is first asked for: a worker that only looks for ``@task``
does not load what drives runs.  The modules are floors; each stands only on those
below it:

====================  ===========================================================
``testing``, ``cli``  conformance suites for adapters; the ``dpcore`` command
``app``               a registry joined to the adapters that run it; ``run()``
``runners``           those of an app: how its runs begin, end, go on, and are forgotten
``adapters``          those of an app: made when first asked for, and left with it
``reactions``         events that start runs, and events that tell of runs
``runner``            drives one run on one executor
``worker``            the worker's side: does one job, and never raises
``plugins``           finding plugins, and adapters in them
``config``            settings: call > environment > project file > default
``hookspecs``         what a plugin may implement
``timelines``         a run as rows of bars, and as lines of text
``results``           what a run gave, or will give
``records``           what is written down of a run; what others take of it
``resuming``          what is left of a run that was broken off
``journal``           what a run has come to, on its way into the run store
``outbox``            what one job publishes while it runs, in order
``posts``, ``talks``  what a running job says and is told: here, and in the worker
``timers``            what is to be called later
``ports``             what an adapter implements
``providers``         the record by which an adapter is offered
``live``              the same where tasks read streams while these are made
``runs``              what to start next, and what an outcome means
``exchange``          who gets which event, and what is kept of the past
``plans``             which tasks a run needs, and in what order
``groups``            readers that share the work: order, redelivery, dead letters
``tasks``             functions registered under a name
``streams``           how far a stream is, and how far those are that read it
``mapped``            how far a task is that has a job for each item of a stream
``events``            what happened, its wire form, its CloudEvents form
``jobs``              one attempt at one task, how it went, where its result lives
``slots``             how runs share an executor, and what may not run at once
``functions``         how another process finds a function, or loads a script
``hints``             the schema of a function; does this output fit that input
``topics``            the grammar of patterns; the tree that routes a topic
``tracebacks``        tracebacks with the frames of the user's code
``durations``         how long ``"1h30m"`` is
``errors``, ``clock`` what is raised on purpose; what time it is
``words``             how values are named in a sentence
====================  ===========================================================
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "App": "app",
    "Broker": "ports.broker",
    "Clock": "clock",
    "Command": "providers",
    "Delivery": "ports.subscription",
    "Document": "ports.runstore",
    "DpcoreError": "errors",
    "EXISTING": "ports.runstore",
    "Event": "events.envelope",
    "Exchange": "exchange",
    "Executor": "ports.executor",
    "Feed": "ports.subscription",
    "Firing": "ports.trigger",
    "Fence": "ports.runstore",
    "Group": "groups",
    "Held": "groups",
    "IOManager": "ports.io",
    "Interest": "groups",
    "Items": "jobs",
    "Job": "jobs",
    "Lease": "ports.runstore",
    "Line": "ports.executor",
    "Member": "groups",
    "Outcome": "jobs",
    "Plan": "plans",
    "Platform": "ports.trigger",
    "Plugins": "plugins",
    "Provider": "providers",
    "Queue": "ports.queue",
    "Reader": "exchange",
    "Ref": "jobs",
    "Registry": "tasks",
    "Result": "results",
    "Run": "runs",
    "RunRequest": "reactions",
    "RunStore": "ports.runstore",
    "Running": "results",
    "Settlement": "groups",
    "Shard": "groups",
    "State": "jobs",
    "StreamTrigger": "ports.trigger",
    "Subscription": "ports.subscription",
    "Tally": "ports.queue",
    "Task": "tasks",
    "TimeTrigger": "ports.trigger",
    "Trigger": "ports.trigger",
    "WorkerInfo": "ports.platform",
    "current_job": "worker",
    "from_cloudevent": "events.cloudevents",
    "hookimpl": "hookspecs",
    "perform": "worker",
    "perform_async": "worker",
    "plan": "plans",
    "registry": "tasks",
    "run": "app",
    "task": "tasks",
    "to_cloudevent": "events.cloudevents",
}

__all__ = tuple(_HOMES)


def __getattr__(name: str) -> Any:
    if name == "errors":  # so that `except dpcore.errors.PlanningError` needs no import of its own
        return import_module(f"{__name__}.errors")
    if (home := _HOMES.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
