"""Everything dpcore raises on purpose.

Each error says what is wrong (values by repr), what there is, and what to do.
Its ``args`` are the arguments of its constructor and the sentence is made in
``__str__``, so every error pickles and carries facts rather than prose.  Each
inherits, beside :class:`DpcoreError`, the built-in that existing idioms catch.
Several faults at once are one :class:`ExceptionGroup`.
"""

from __future__ import annotations

import queue
from collections.abc import Iterable, Sequence
from typing import Any

from dpcore.words import Shown, counted, listed, nearest, printed

__all__ = (
    "AdapterImportError",
    "AdapterNotFoundError",
    "AdapterNotMadeError",
    "AppStateError",
    "ArgumentError",
    "BrokerLostError",
    "BrokerRefusedError",
    "BrokerStateError",
    "BufferFullError",
    "CloudEventError",
    "ConfigError",
    "ConflictError",
    "CronError",
    "CycleError",
    "DamagedResultError",
    "DeadlockError",
    "DeliveryError",
    "DpcoreError",
    "DuplicateTaskError",
    "ExecutorLeftError",
    "FunctionNotFoundError",
    "GivenTaskError",
    "GroupMembersError",
    "GroupSettingsError",
    "HintWarning",
    "InputMismatchError",
    "InvalidIdError",
    "ItemNotSentError",
    "LeaseLostError",
    "MissingHintError",
    "MissingInputError",
    "NaiveDatetimeError",
    "NoCurrentJobError",
    "NoValueError",
    "NotSharedError",
    "ParamError",
    "ParamsLostError",
    "PayloadError",
    "PlanningError",
    "PluginError",
    "PluginNotFoundError",
    "ProviderError",
    "PublishTimeoutError",
    "QueueClosedError",
    "QueueEmptyError",
    "QueueFullError",
    "QueueNotSentError",
    "ResultNotFoundError",
    "ResultNotStoredError",
    "RouteNotFoundError",
    "RunCancelledError",
    "RunEndedError",
    "RunExistsError",
    "RunFailedError",
    "RunHeldError",
    "RunNotFoundError",
    "RunningLoopError",
    "ScheduleExistsError",
    "ScheduleFullError",
    "ScheduleNotFoundError",
    "SelectionError",
    "SettingError",
    "StoreError",
    "SubscriptionError",
    "TaskDefinitionError",
    "TaskError",
    "TaskNotFoundError",
    "TaskTimeoutError",
    "TooManyDoneError",
    "TopicCompletedError",
    "TopicError",
    "TriggerError",
    "UnguardedScriptError",
    "UnreadStreamError",
    "UnsupportedError",
    "UsedOutsideError",
    "WireError",
    "WorkerLostError",
    "WorkersNotStartedError",
    "ZoneError",
)


_MOST_FAULTS = 25


class DpcoreError(Exception):
    """Whatever dpcore raises on purpose is one of these."""

    def __repr__(self) -> str:
        # Event loops print the exceptions of their tasks, and must not stumble over what these tell of.
        return f"{type(self).__name__}({', '.join(map(printed, self.args))})"


# ---------------------------------------------------------------- what a call is given


def _carried(error: Exception, *args: object) -> tuple[object, ...]:
    """Say how *error* pickles with *args* instead of its own, one of which may be anything; its notes stay with it."""
    notes = getattr(error, "__notes__", None)
    return (type(error), args, {"__notes__": notes} if notes else None)


class ArgumentError(DpcoreError, ValueError, TypeError):
    """An argument of a call, such as ``plan()`` or ``App()``, or a field of an event, makes no sense; nothing was done."""

    def __init__(self, argument: str, value: object, wanted: str) -> None:
        super().__init__(argument, value, wanted)
        self.argument, self.value, self.wanted = argument, value, wanted

    def __str__(self) -> str:
        return f"{self.argument}={printed(self.value)} must be {self.wanted}"

    def __reduce__(self) -> tuple[object, ...]:
        return _carried(self, self.argument, Shown(printed(self.value)), self.wanted)


def check_argument(argument: str, value: object, kind: Any, wanted: str) -> None:
    """Raise :class:`ArgumentError` unless *value* is an instance of *kind*, a class or a union of them."""
    if not isinstance(value, kind):
        raise ArgumentError(argument, value, wanted)


# ---------------------------------------------------------------- what decides when


class TriggerError(DpcoreError, ValueError):
    """A trigger gives what cannot be the time of a firing, or no firing at all."""

    def __init__(self, trigger: str, problem: str) -> None:
        super().__init__(trigger, problem)
        self.trigger, self.problem = trigger, problem

    def __str__(self) -> str:
        return f"trigger {self.trigger} {self.problem}"


class CronError(DpcoreError, ValueError):
    """A cron expression makes no sense, or means days that never come."""

    def __init__(self, expression: object, problem: str) -> None:
        super().__init__(expression, problem)
        self.expression, self.problem = expression, problem

    def __str__(self) -> str:
        return f"cron expression {printed(self.expression)}: {self.problem}"

    def __reduce__(self) -> tuple[object, ...]:
        return _carried(self, Shown(printed(self.expression)), self.problem)


class ZoneError(DpcoreError, LookupError, ValueError):
    """There is no such time zone here."""

    def __init__(self, zone: object, known: Iterable[str] = ()) -> None:
        super().__init__(zone, sorted(known))
        self.zone, self.known = zone, self.args[1]

    def __str__(self) -> str:
        cure = "give the name of an IANA zone, such as 'Europe/Berlin', or a tzinfo"
        return f"there is no time zone {printed(self.zone)}; {cure}{nearest(self.zone, self.known)}"

    def __reduce__(self) -> tuple[object, ...]:
        return _carried(self, self.zone if isinstance(self.zone, str) else Shown(printed(self.zone)), self.known)


class NaiveDatetimeError(DpcoreError, ValueError, TypeError):
    """A datetime has no time zone, and so does not say which instant it is."""

    def __init__(self, argument: str, value: object) -> None:
        super().__init__(argument, value)
        self.argument, self.value = argument, value

    def __str__(self) -> str:
        cure = "datetime(2026, 3, 29, 3, tzinfo=ZoneInfo('Europe/Berlin')), or datetime.now(UTC)"
        return f"{self.argument}={printed(self.value)} must be an aware datetime, one with a time zone: {cure}"

    def __reduce__(self) -> tuple[object, ...]:
        return _carried(self, self.argument, Shown(printed(self.value)))


class ScheduleExistsError(DpcoreError, ValueError):
    """There is a schedule of that name already."""

    def __init__(self, name: str, triggers: str) -> None:
        super().__init__(name, triggers)
        self.name, self.triggers = name, triggers

    def __str__(self) -> str:
        return f"there is a schedule {self.name!r} already ({self.triggers}); give another name, or unschedule it first"


class ScheduleNotFoundError(DpcoreError, KeyError):
    """There is no schedule of that name."""

    def __init__(self, name: object, known: Iterable[str] = ()) -> None:
        super().__init__(name, sorted(known))
        self.name, self.known = name, self.args[1]

    def __str__(self) -> str:
        return f"there is no schedule {printed(self.name)} (there are: {listed(self.known)}){nearest(self.name, self.known)}"

    def __reduce__(self) -> tuple[object, ...]:
        return _carried(self, self.name if isinstance(self.name, str) else Shown(printed(self.name)), self.known)


class ScheduleFullError(DpcoreError, RuntimeError):
    """A schedule cannot be fired, because as many of its runs go on as there may be."""

    def __init__(self, name: str, runs: Sequence[str], overlap: str) -> None:
        super().__init__(name, list(runs), overlap)
        self.name, self.runs, self.overlap = name, self.args[1], overlap

    def __str__(self) -> str:
        cure = "wait, or schedule it with overlap='queue'" if self.overlap == "skip" else "wait until they have ended"
        return f"schedule {self.name!r} was not fired, because it still runs ({listed(self.runs, 3)}); {cure}"


# ---------------------------------------------------------------- describing work


class TaskDefinitionError(DpcoreError, ValueError, TypeError):
    """An argument of ``task()`` makes no sense; nothing was registered."""

    def __init__(self, task: str, argument: str, value: object, wanted: str) -> None:
        super().__init__(task, argument, value, wanted)
        self.task, self.argument, self.value, self.wanted = task, argument, value, wanted

    def __str__(self) -> str:
        return f"task {printed(self.task)}: {self.argument}={printed(self.value)} must be {self.wanted}"

    def __reduce__(self) -> tuple[object, ...]:
        # The value may be anything, also what does not pickle: what travels is what is printed of it.
        return _carried(self, self.task, self.argument, Shown(printed(self.value)), self.wanted)


class DuplicateTaskError(DpcoreError, ValueError):
    """Two functions want one name in one registry."""

    def __init__(self, task: str, first: str, second: str) -> None:
        super().__init__(task, first, second)
        self.task, self.first, self.second = task, first, second

    def __str__(self) -> str:
        return (
            f"task {self.task!r} is defined twice: at {self.first} and at {self.second}; "
            "give one of them another name with @task(name=...)"
        )


class TaskNotFoundError(DpcoreError, KeyError):
    """No task has that name in the registry."""

    def __init__(self, task: object, known: Iterable[str] = (), wanted_by: str | None = None) -> None:
        super().__init__(task, tuple(known), wanted_by)
        self.task, self.known, self.wanted_by = task, self.args[1], wanted_by

    def __str__(self) -> str:
        who = (
            f"task {self.wanted_by!r} depends on {self.task!r}, but there is no such task"
            if self.wanted_by
            else (f"there is no task {self.task!r}")
        )
        return f"{who} (tasks: {listed(self.known)}){nearest(self.task, self.known)}"


class UsedOutsideError(DpcoreError, ValueError):
    """A function is named as a dependency, but is not a task of this registry."""

    def __init__(self, task: str, function: str) -> None:
        super().__init__(task, function)
        self.task, self.function = task, function

    def __str__(self) -> str:
        return (
            f"task {self.task!r} depends on the function {self.function}, which is not a task of the same registry; "
            "decorate it with @task first, or name the dependency by its task name"
        )


class HintWarning(UserWarning):
    """A type hint could not be resolved; only that hint is left unchecked."""


# ---------------------------------------------------------------- planning


class PlanningError(DpcoreError, ExceptionGroup[Exception], ValueError):
    """Every fault that was found while planning, together; nothing was run."""

    def __new__(cls, message: str, faults: Sequence[Exception]) -> PlanningError:  # noqa: D102
        return super().__new__(cls, message, faults)

    def __init__(self, message: str, faults: Sequence[Exception]) -> None:
        super().__init__(message, faults)

    def derive(self, faults: Sequence[Exception]) -> PlanningError:  # type: ignore[override]
        """Keep the kind and the message for a part of the faults."""
        return PlanningError(self.message, faults)

    def __str__(self) -> str:
        first = [f"  - {fault}" for fault in self.exceptions[:_MOST_FAULTS]]
        rest = len(self.exceptions) - len(first)
        return "\n".join([f"{self.message}:", *first, *([f"  - and {rest} more"] if rest else [])])


class SelectionError(DpcoreError, ValueError):
    """A selection names nothing, or is not written in the grammar of selections.

    What is no text is given as :class:`Shown`.
    """

    def __init__(self, selector: str, problem: str, known: Iterable[str] = ()) -> None:
        super().__init__(selector, problem, tuple(known))
        self.selector, self.problem, self.known = selector, problem, self.args[2]

    def __str__(self) -> str:
        have = f" (there are: {listed(self.known)})" if self.known else ""
        return f"cannot select {printed(self.selector)}: {self.problem}{have}{nearest(self.selector, self.known)}"


class CycleError(DpcoreError, ValueError):
    """Tasks wait for each other."""

    def __init__(self, path: Sequence[str]) -> None:
        super().__init__(tuple(path))
        self.path: tuple[str, ...] = self.args[0]

    def __str__(self) -> str:
        return f"tasks wait for each other: {' -> '.join(self.path)}; drop one of these dependencies"


class MissingInputError(DpcoreError, ValueError):
    """Nothing supplies a parameter that has no default."""

    def __init__(
        self, task: str, parameter: str, upstream: str | None, known: Iterable[str] = (), problem: str = ""
    ) -> None:
        super().__init__(task, parameter, upstream, tuple(known), problem)
        self.task, self.parameter, self.upstream, self.known = task, parameter, upstream, self.args[3]
        self.problem = problem

    def __str__(self) -> str:
        where = f"task {self.task!r} needs {self.parameter!r}"
        if self.problem:
            return f"{where}, the result of {self.upstream!r}; {self.problem}"
        if self.upstream is not None:
            return (
                f"{where}, the result of {self.upstream!r}, which is not selected; select it too (include_upstream=True, --include-upstream), "
                f"take it from an earlier run (from_run=..., --from-run), or give it (params={{{self.upstream!r}: ...}}, --param {self.upstream}=...)"
            )
        near = nearest(self.parameter, self.known) or ";"
        return (
            f"{where}, which is no task, has no default and is not given{near} name a task that makes it (inputs={{{self.parameter!r}: ...}}), "
            f"or give it with params={{{self.parameter!r}: ...}} (--param {self.parameter}=...)"
        )


class InputMismatchError(DpcoreError, TypeError):
    """What a task returns does not fit the parameter that receives it."""

    def __init__(
        self,
        task: str,
        parameter: str,
        wants: str,
        upstream: str,
        gives: str,
        places: Sequence[str] = (),
        guessed: bool = False,
    ) -> None:
        super().__init__(task, parameter, wants, upstream, gives, tuple(places), guessed)
        self.task, self.parameter, self.wants = task, parameter, wants
        self.upstream, self.gives, self.places, self.guessed = upstream, gives, self.args[5], guessed

    def __str__(self) -> str:
        places = f" ({', '.join(self.places)})" if self.places else ""
        cure = (
            f"; {self.upstream!r} was taken because it is the only dependency left: "
            f"name the right one with inputs={{{self.parameter!r}: ...}}, or give the parameter a default"
            if self.guessed
            else ""
        )
        return (
            f"task {self.upstream!r} returns {self.gives}, but {self.task!r} wants {self.wants} "
            f"for {self.parameter!r}{places}{cure}"
        )


class MissingHintError(DpcoreError, TypeError):
    """A strict plan was asked for, and a task's output or input has no type hint."""

    def __init__(self, task: str, parameter: str | None) -> None:
        super().__init__(task, parameter)
        self.task, self.parameter = task, parameter

    def __str__(self) -> str:
        what = "its return value" if self.parameter is None else f"parameter {self.parameter!r}"
        return f"task {self.task!r} has no type hint for {what}, which strict=True asks for on every data edge"


class UnreadStreamError(DpcoreError, ValueError):
    """A task is mapped over a stream, and no parameter of it receives the items."""

    def __init__(self, task: str, stream: str) -> None:
        super().__init__(task, stream)
        self.task, self.stream = task, stream

    def __str__(self) -> str:
        return (
            f"task {self.task!r} is mapped over each item of {self.stream!r}, but no parameter receives an item; "
            f"name one with inputs={{'...': {self.stream!r}}}"
        )


class GivenTaskError(DpcoreError, ValueError):
    """A task's result is given by params=, and the task is asked for by name all the same."""

    def __init__(self, task: str) -> None:
        super().__init__(task)
        self.task = task

    def __str__(self) -> str:
        return f"task {self.task!r} is selected, but params= gives its result, so it would not run; drop one of the two"


class ParamError(DpcoreError, ValueError):
    """A run parameter is unknown, or its value does not fit the hint of who takes it."""

    def __init__(self, param: object, problem: str, known: Iterable[str] = ()) -> None:
        super().__init__(param, problem, tuple(known))
        self.param, self.problem, self.known = param, problem, self.args[2]

    def __str__(self) -> str:
        have = f" (taken: {listed(self.known)})" if self.known else ""
        return f"run parameter {printed(self.param)} {self.problem}{have}{nearest(self.param, self.known)}"


class NotSharedError(DpcoreError, ValueError):
    """The executor's processes cannot reach what the I/O manager stores."""

    def __init__(self, executor: str, io: str) -> None:
        super().__init__(executor, io)
        self.executor, self.io = executor, io

    def __str__(self) -> str:
        return (
            f"executor {self.executor} runs tasks in other processes, which cannot reach what the I/O manager {self.io} "
            "keeps in this one; choose one that they share, such as io='filesystem:PATH'"
        )


# ---------------------------------------------------------------- topics


class TopicError(DpcoreError, ValueError):
    """What was given is no topic, or no pattern; nothing was done."""

    def __init__(self, kind: str, text: object, problem: str) -> None:
        super().__init__(kind, text, problem)
        self.kind, self.text, self.problem = kind, text, problem

    def __str__(self) -> str:
        return f"the {self.kind} {printed(self.text)} {self.problem}"

    def __reduce__(self) -> tuple[object, ...]:
        return _carried(self, self.kind, Shown(printed(self.text)), self.problem)


class RouteNotFoundError(DpcoreError, KeyError):
    """A value was to be removed that is not there under that pattern."""

    def __init__(self, pattern: object, value: object, known: Iterable[str] = ()) -> None:
        super().__init__(pattern, value, tuple(known))
        self.pattern, self.value, self.known = pattern, value, self.args[2]

    def __str__(self) -> str:
        return (
            f"{printed(self.value)} is not under the pattern {printed(self.pattern)} (its patterns: {listed(self.known)}); "
            "remove it as often as it was added, and with the same pattern"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return _carried(self, Shown(printed(self.pattern)), Shown(printed(self.value)), self.known)


# ---------------------------------------------------------------- running


class TaskError(DpcoreError, RuntimeError):
    """A task raised something that cannot be carried to here; this says what it was.

    *bases* are the full names of the exception's class and of its bases, nearest
    first: what ``retry_on`` is compared with.
    """

    def __init__(self, task: str, kind: str, text: str, bases: Sequence[str] = ()) -> None:
        super().__init__(task, kind, text, tuple(bases))
        self.task, self.kind, self.text, self.bases = task, kind, text, self.args[3]

    def __str__(self) -> str:
        return f"task {self.task!r} raised {self.kind}: {self.text}"


class TaskTimeoutError(DpcoreError, TimeoutError):
    """A task took longer than its ``timeout``."""

    def __init__(self, task: str, timeout: float, ending: str) -> None:
        super().__init__()
        self.args = (task, timeout, ending)  # OSError's own constructor would take three for an errno
        self.task, self.timeout, self.ending = task, timeout, ending

    def __str__(self) -> str:
        rest = {
            "stopped": "it was stopped",
            "ended": "it could not be stopped; it has ended since, and its result is discarded",
            "running": "this executor cannot stop it, so its code may still be running; one that 'kills' can",
        }[self.ending]
        return f"task {self.task!r} took longer than its timeout of {self.timeout:g} s; {rest}"


class WorkerLostError(DpcoreError, RuntimeError):
    """The process that ran a task has died; *said* is the end of what it had printed, which stands on lines of its own."""

    def __init__(self, task: str, how: str, said: str = "", for_memory: bool = False) -> None:
        super().__init__(task, how, said, for_memory)
        self.task, self.how, self.said, self.for_memory = task, how, said, for_memory

    def __str__(self) -> str:
        why = " because the machine or its cgroup was out of memory" if self.for_memory else ""
        last = f"\nthe last that it printed:\n{self.said.rstrip()}" if self.said.strip() else ""
        return f"the worker process of task {self.task!r} {self.how}{why}{last}"


class WorkersNotStartedError(DpcoreError, RuntimeError):
    """No worker process can be started, so no job can be done."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"no worker process can be started: {self.problem}"


class ExecutorLeftError(DpcoreError, RuntimeError):
    """The executor of a job was left before the job had ended."""

    def __init__(self, task: str, has_begun: bool = False) -> None:
        super().__init__(task, has_begun)
        self.task, self.has_begun = task, has_begun

    def __str__(self) -> str:
        if self.has_begun:
            return f"task {self.task!r} was stopped: the executor was left while it ran"
        return f"task {self.task!r} was not run: the executor was left before its turn came"


class RunFailedError(DpcoreError, ExceptionGroup[Exception]):
    """A run failed; holds what its failed tasks raised, in the order of the plan."""

    def __new__(cls, message: str, errors: Sequence[Exception]) -> RunFailedError:  # noqa: D102
        return super().__new__(cls, message, errors)

    def __init__(self, message: str, errors: Sequence[Exception]) -> None:
        super().__init__(message, errors)

    def derive(self, errors: Sequence[Exception]) -> RunFailedError:  # type: ignore[override]
        """Keep the kind and the message for a part of the errors."""
        return RunFailedError(self.message, errors)


class RunCancelledError(DpcoreError, RuntimeError):
    """A run was cancelled before all its tasks had ended."""

    def __init__(self, run_id: str, reason: str) -> None:
        super().__init__(run_id, reason)
        self.run_id, self.reason = run_id, reason

    def __str__(self) -> str:
        return f"run {self.run_id!r} was cancelled: {self.reason}"


class NoValueError(DpcoreError, KeyError):
    """A task of the run has left no value."""

    def __init__(self, task: str, problem: str) -> None:
        super().__init__(task, problem)
        self.task, self.problem = task, problem

    def __str__(self) -> str:
        return f"task {self.task!r} has no value in this result: {self.problem}"


class RunningLoopError(DpcoreError, RuntimeError):
    """``run()`` was called where an event loop is running already."""

    def __str__(self) -> str:
        return (
            "run() cannot be called where an event loop is running (a notebook, a coroutine); write instead:\n"
            "    async with dpcore.App() as app:\n"
            "        result = await app.run()"
        )


class AppStateError(DpcoreError, RuntimeError):
    """An App is used before it is entered or after it is left, or is entered twice."""

    def __init__(self, problem: str, cure: str) -> None:
        super().__init__(problem, cure)
        self.problem, self.cure = problem, cure

    def __str__(self) -> str:
        return f"this App {self.problem}; {self.cure}"


class UnguardedScriptError(DpcoreError, RuntimeError):
    """A file that the command line, or another process, loads for its tasks starts a run instead."""

    def __init__(self, script: str) -> None:
        super().__init__(script)
        self.script = script

    def __str__(self) -> str:
        return (
            f"{self.script} starts a run when it is only loaded for its tasks, as every worker process does; "
            'put what starts it under: if __name__ == "__main__":'
        )


class NoCurrentJobError(DpcoreError, LookupError):
    """``current_job()`` was called outside a task."""

    def __str__(self) -> str:
        return "current_job() answers only inside a task while it runs; outside of one there is no job"


class FunctionNotFoundError(DpcoreError, LookupError):
    """The function of a task cannot be found again where it shall run."""

    def __init__(self, function: str, problem: str) -> None:
        super().__init__(function, problem)
        self.function, self.problem = function, problem

    def __str__(self) -> str:
        return f"cannot find the function {self.function}: {self.problem}"


# ---------------------------------------------------------------- results


class InvalidIdError(DpcoreError, ValueError):
    """A run id, task name or result id that must not become part of a path or a key."""

    def __init__(self, kind: str, value: object, problem: str) -> None:
        super().__init__(kind, value, problem)
        self.kind, self.value, self.problem = kind, value, problem

    def __str__(self) -> str:
        return f"{printed(self.value, 80)} cannot be a {self.kind}: {self.problem}"

    def __reduce__(self) -> tuple[object, ...]:
        value = self.value if isinstance(self.value, str) else Shown(printed(self.value, 80))
        return _carried(self, self.kind, value, self.problem)


class ResultNotFoundError(DpcoreError, FileNotFoundError, KeyError):
    """There is no result under that ref."""

    def __init__(self, ref: object, where: str, known: Iterable[str] = ()) -> None:
        super().__init__()
        self.args = (ref, where, tuple(known))  # OSError's own constructor would take three for an errno
        self.ref, self.where, self.known = self.args

    def __str__(self) -> str:
        return f"there is no result {self.ref} in {self.where} (results of that task in that run: {listed(self.known)})"


class ResultNotStoredError(DpcoreError, ValueError):
    """A result could not be stored; what was stored under its ref before is still there."""

    def __init__(self, ref: object, problem: str) -> None:
        super().__init__(ref, problem)
        self.ref, self.problem = ref, problem

    def __str__(self) -> str:
        return f"cannot store the result {self.ref}: {self.problem}"


class DamagedResultError(DpcoreError, ValueError):
    """What is stored under a ref is not a whole value."""

    def __init__(self, ref: object, where: str, problem: str) -> None:
        super().__init__(ref, where, problem)
        self.ref, self.where, self.problem = ref, where, problem

    def __str__(self) -> str:
        return f"the result {self.ref} cannot be read from {self.where}: {self.problem}"


# ---------------------------------------------------------------- records of runs


class RunNotFoundError(DpcoreError, LookupError):
    """The run store has no such run."""

    def __init__(self, run_id: object, store: str, known: Iterable[str] = ()) -> None:
        super().__init__(run_id, store, tuple(known))
        self.run_id, self.store, self.known = run_id, store, self.args[2]

    def __str__(self) -> str:
        return f"there is no run {printed(self.run_id)} in {self.store} (latest: {listed(self.known, 5)}){nearest(self.run_id, self.known)}"


class RunExistsError(DpcoreError, ValueError):
    """A run of that id has begun already."""

    def __init__(self, run_id: str, store: str) -> None:
        super().__init__(run_id, store)
        self.run_id, self.store = run_id, store

    def __str__(self) -> str:
        return f"a run {self.run_id!r} is already recorded in {self.store}; leave the run id out to get a new one"


class RunHeldError(DpcoreError, RuntimeError):
    """A run cannot be touched, because somebody drives it: *holder*, which has it until *until*."""

    def __init__(self, run_id: str, holder: str, until: str = "") -> None:
        super().__init__(run_id, holder, until)
        self.run_id, self.holder, self.until = run_id, holder, until

    def __str__(self) -> str:
        held = f"run {self.run_id!r} is being run by {self.holder}"
        if not self.until:
            return f"{held}; cancel it, or wait until it has ended"
        return f"{held}; cancel it there, or, if that was killed, try again after {self.until}"


class RunEndedError(DpcoreError, ValueError):
    """A run has succeeded, so nothing of it is left to be run; the tasks *changed* have changed since."""

    def __init__(self, run_id: str, changed: Iterable[str] = ()) -> None:
        super().__init__(run_id, tuple(changed))
        self.run_id, self.changed = run_id, self.args[1]

    def __str__(self) -> str:
        cure = "to run a part of it again, name the task to begin at (from_=, --from)"
        if self.changed:
            cure = f"{listed(self.changed, 5)} changed since: to run that again, ask for it (changed=True, --changed)"
        return f"run {self.run_id!r} has succeeded, and nothing of it is left; {cure}"


class ParamsLostError(DpcoreError, ValueError):
    """The parameters of a run could not be recorded whole, so they must be given again."""

    def __init__(self, run_id: str, params: Iterable[str], problem: str) -> None:
        super().__init__(run_id, tuple(params), problem)
        self.run_id, self.params, self.problem = run_id, self.args[1], problem

    def __str__(self) -> str:
        return (
            f"the parameters of run {self.run_id!r} ({listed(self.params, 5)}) are not recorded whole: {self.problem}; "
            "give them again: app.resume(..., params=..., metadata=...)"
        )


class LeaseLostError(DpcoreError, RuntimeError):
    """Somebody else holds the lease by now; nothing was written."""

    def __init__(self, key: str, token: int) -> None:
        super().__init__(key, token)
        self.key, self.token = key, token

    def __str__(self) -> str:
        return f"the lease on {self.key!r} with token {self.token} is no longer ours; nothing was written"


class StoreError(DpcoreError, OSError):
    """A run store cannot be used as it is; it was left untouched."""

    def __init__(self, store: str, problem: str) -> None:
        super().__init__()
        self.args = (store, problem)  # OSError's own constructor would take two for an errno
        self.store, self.problem = store, problem

    def __str__(self) -> str:
        return f"the run store {self.store} cannot be used: {self.problem}"


# ---------------------------------------------------------------- events


class PayloadError(DpcoreError, TypeError):
    """What an event carries does not travel, or is not what its reader wants."""

    def __init__(self, topic: object, path: str, problem: str, cure: str) -> None:
        super().__init__(topic, path, problem, cure)
        self.topic, self.path, self.problem, self.cure = topic, path, problem, cure

    def __str__(self) -> str:
        where = f"event on {printed(self.topic)}" if self.topic else "an event"
        return f"{where}: data{self.path} {self.problem}; {self.cure}"


class WireError(DpcoreError, ValueError):
    """Bytes that should be an event, or several, are not."""

    def __init__(self, problem: str, cure: str = "") -> None:
        super().__init__(problem, cure)
        self.problem, self.cure = problem, cure

    def __str__(self) -> str:
        cure = self.cure or "only what encode() or encode_many() of dpcore wrote can be read"
        return f"these bytes are no event: {self.problem}; {cure}"


class CloudEventError(DpcoreError, ValueError):
    """A message is no CloudEvent that dpcore can read, or an event cannot be told as one."""

    def __init__(self, action: str, problem: str) -> None:
        super().__init__(action, problem)
        self.action, self.problem = action, problem

    def __str__(self) -> str:
        return f"cannot {self.action} this CloudEvent: {self.problem}"


# ---------------------------------------------------------------- queues


class QueueFullError(DpcoreError, queue.Full):
    """There is no room in a queue, now or until the time was over."""

    def __init__(self, queue: str, size: int) -> None:
        super().__init__(queue, size)
        self.queue, self.size = queue, size

    def __str__(self) -> str:
        return (
            f"{self.queue} is full: it holds no more than {counted(self.size, 'item')}; "
            "get some, or wait for room with put() or put_sync()"
        )


class QueueEmptyError(DpcoreError, queue.Empty):
    """There is no item in a queue, now or until the time was over."""

    def __init__(self, queue: str) -> None:
        super().__init__(queue)
        self.queue = queue

    def __str__(self) -> str:
        return f"{self.queue} is empty; wait for an item with get() or get_sync()"


class QueueClosedError(DpcoreError, ValueError):
    """A queue was closed: nothing is put any more, and all that was put was got."""

    def __init__(self, queue: str, asked: str) -> None:
        super().__init__(queue, asked)
        self.queue, self.asked = queue, asked

    def __str__(self) -> str:
        if self.asked == "put":
            return f"cannot put into {self.queue}: it was closed; put before close() is called, or make another queue"
        return f"cannot get from {self.queue}: it was closed and nothing is left in it; stop here, as `async for` does"


class TooManyDoneError(DpcoreError, ValueError):
    """``task_done()`` was called once more than items were got."""

    def __init__(self, queue: str) -> None:
        super().__init__(queue)
        self.queue = queue

    def __str__(self) -> str:
        return (
            f"task_done() of {self.queue} was called too many times: every item that this process got from it is done; "
            "call it once for each"
        )


class ItemNotSentError(DpcoreError, ValueError, TypeError):
    """An item cannot be sent to another process; nothing of it was put."""

    def __init__(self, queue: str, item: object, problem: str) -> None:
        super().__init__(queue, item, problem)
        self.queue, self.item, self.problem = queue, item, problem

    def __str__(self) -> str:
        return f"cannot put {printed(self.item)} into {self.queue}: {self.problem}; put what pickles"

    def __reduce__(self) -> tuple[object, ...]:
        return _carried(self, self.queue, Shown(printed(self.item)), self.problem)


class QueueNotSentError(DpcoreError, RuntimeError, TypeError):
    """A queue itself was to be pickled where that gives nobody a way to it."""

    def __init__(self, queue: str, cure: str) -> None:
        super().__init__(queue, cure)
        self.queue, self.cure = queue, cure

    def __str__(self) -> str:
        return f"{self.queue} cannot be pickled here; {self.cure}"


# ---------------------------------------------------------------- plugins and settings


class ProviderError(DpcoreError, ValueError, TypeError):
    """A field of a record by which a plugin offers something makes no sense."""

    def __init__(self, record: str, field: str, value: object, wanted: str) -> None:
        super().__init__(record, field, value, wanted)
        self.record, self.field, self.value, self.wanted = record, field, value, wanted

    def __str__(self) -> str:
        return f"{self.record}: {self.field}={printed(self.value)} must be {self.wanted}"

    def __reduce__(self) -> tuple[object, ...]:
        return _carried(self, self.record, self.field, Shown(printed(self.value)), self.wanted)


class PluginError(DpcoreError):
    """A plugin says something that dpcore cannot take: found when it is registered."""

    def __init__(self, plugin: str, problem: str) -> None:
        super().__init__(plugin, problem)
        self.plugin, self.problem = plugin, problem

    def __str__(self) -> str:
        return f"plugin {self.plugin!r} {self.problem}"


class PluginNotFoundError(DpcoreError, LookupError):
    """A plugin that was asked for by name is not there, or does not import."""

    def __init__(self, plugin: str, problem: str, known: Iterable[str] = ()) -> None:
        super().__init__(plugin, problem, tuple(known))
        self.plugin, self.problem, self.known = plugin, problem, self.args[2]

    def __str__(self) -> str:
        have = f" (installed: {listed(self.known)})" if self.known else ""
        return f"plugin {self.plugin!r} {self.problem}{have}{nearest(self.plugin, self.known)}"


class AdapterNotFoundError(DpcoreError, LookupError):
    """No plugin offers an adapter of that kind under that name."""

    def __init__(
        self,
        kind: str,
        name: str,
        known: Iterable[str] = (),
        broken: Iterable[str] = (),
        extra: str | None = None,
        blocked: Iterable[str] = (),
    ) -> None:
        super().__init__(kind, name, tuple(known), tuple(broken), extra, tuple(blocked))
        self.kind, self.name, self.known, self.broken, self.extra = kind, name, self.args[2], self.args[3], extra
        self.blocked = self.args[5]

    def __str__(self) -> str:
        parts = [
            f"no plugin offers the {self.kind} {self.name!r} (there are: {listed(self.known)}){nearest(self.name, self.known)}"
        ]
        if self.broken:
            parts.append(f"these plugins are broken and might offer it: {'; '.join(self.broken)}")
        if self.blocked:
            parts.append(f"these plugins are blocked and might offer it: {', '.join(self.blocked)}")
        if self.extra:
            parts.append(f"it comes with: pip install {self.extra!r}")
        if len(parts) == 1 and not parts[0].endswith("?"):
            parts.append("install a plugin that does, or pass the adapter itself")
        return "; ".join(parts).replace("?;", "?")


class AdapterImportError(DpcoreError, ImportError):
    """An adapter is offered, but what it needs is not installed, or it fails to import."""

    def __init__(self, kind: str, name: str, source: str, cause: str, extra: str | None = None) -> None:
        super().__init__(kind, name, source, cause, extra)
        self.kind, self.adapter, self.source, self.cause, self.extra = kind, name, source, cause, extra

    def __str__(self) -> str:
        cure = f"; what it needs comes with: pip install {self.extra!r}" if self.extra else ""
        return f"the {self.kind} {self.adapter!r} of {self.source} cannot be imported: {self.cause}{cure}"


class AdapterNotMadeError(DpcoreError, ValueError):
    """The constructor of an adapter refuses its settings."""

    def __init__(self, adapter: str, problem: str) -> None:
        super().__init__(adapter, problem)
        self.adapter, self.problem = adapter, problem

    def __str__(self) -> str:
        return f"{self.problem}, while making the {self.adapter}"


class ConflictError(DpcoreError, LookupError):
    """Several plugins offer one name; which of them is meant must be said."""

    def __init__(self, kind: str, name: str, sources: Sequence[str]) -> None:
        super().__init__(kind, name, tuple(sources))
        self.kind, self.name, self.sources = kind, name, self.args[2]

    def __str__(self) -> str:
        choice = " or ".join(f"{self.name}@{source}" for source in self.sources)
        return (
            f"the {self.kind} {self.name!r} is offered by {' and by '.join(self.sources)}; "
            f"say which is meant with {choice}, or block one of the plugins"
        )


class SettingError(DpcoreError, ValueError, TypeError):
    """A setting of an adapter is unknown, missing, or does not convert."""

    def __init__(self, owner: str, setting: str, problem: str, known: Iterable[str] = ()) -> None:
        super().__init__(owner, setting, problem, tuple(known))
        self.owner, self.setting, self.problem, self.known = owner, setting, problem, self.args[3]

    def __str__(self) -> str:
        have = f" (it takes: {listed(self.known)})" if self.known else ""
        return f"{self.owner}: setting {self.setting!r} {self.problem}{have}{nearest(self.setting, self.known)}"


class ConfigError(DpcoreError, ValueError):
    """A settings file, an environment variable or an adapter string cannot be understood."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(where, problem)
        self.where, self.problem = where, problem

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}"


class UnsupportedError(DpcoreError, NotImplementedError):
    """An adapter was asked for what it does not have."""

    def __init__(self, adapter: str, capability: str, asked: str) -> None:
        super().__init__(adapter, capability, asked)
        self.adapter, self.capability, self.asked = adapter, capability, asked

    def __str__(self) -> str:
        return f"{self.adapter} cannot {self.asked}: it lacks the capability {self.capability!r}"


# ---------------------------------------------------------------- events


class BrokerStateError(DpcoreError, RuntimeError):
    """A broker was used before it was entered, or after it was left; nothing was published."""

    def __init__(self, broker: str, state: str) -> None:
        super().__init__(broker, state)
        self.broker, self.state = broker, state

    def __str__(self) -> str:
        return f"broker {self.broker} {self.state}; it is used inside of: async with App(...) or async with broker"


class BrokerLostError(DpcoreError, ConnectionError):
    """The broker, or the connection to it, is gone; what was on its way may or may not have arrived."""

    def __init__(self, broker: str, cause: str) -> None:
        super().__init__(broker, cause)
        self.broker, self.cause = broker, cause

    def __str__(self) -> str:
        return (
            f"broker {self.broker} is gone: {self.cause}; enter the App or the broker again, and subscribe again; "
            "what was on its way, an event or an ack, may or may not have arrived, so expect repetitions, "
            "and publish again where one does no harm"
        )


class BrokerRefusedError(DpcoreError, ConnectionRefusedError):
    """A broker that others share cannot be entered."""

    def __init__(self, broker: str, problem: str, cure: str) -> None:
        super().__init__(broker, problem)
        self.args = broker, problem, cure  # of three OSError would take the last for a file
        self.broker, self.problem, self.cure = broker, problem, cure

    def __str__(self) -> str:
        return f"broker {self.broker} cannot be entered: {self.problem}; {self.cure}"


class TopicCompletedError(DpcoreError, ValueError):
    """A topic was completed, so nothing can be published on it; the event was not."""

    def __init__(self, topic: str) -> None:
        super().__init__(topic)
        self.topic = topic

    def __str__(self) -> str:
        return f"topic {self.topic!r} was completed, so the event was not published; publish on another, or complete it later"


class BufferFullError(DpcoreError, BufferError):
    """Where an event should wait there is no room, and the policy is to say so; the event was not published."""

    def __init__(self, topic: str, reader: str, capacity: int) -> None:
        super().__init__(topic, reader, capacity)
        self.topic, self.reader, self.capacity = topic, reader, capacity

    def __str__(self) -> str:
        return (
            f"the event on {self.topic!r} was not published: {self.reader} has no room for more than {counted(self.capacity, 'event')}; "
            "read faster, give it a larger buffer=, or another overflow="
        )


class DeadlockError(DpcoreError, RuntimeError):
    """A task waits for room that only itself could make; the event was not published."""

    def __init__(self, topic: str, reader: str, capacity: int, waited: float = 0.0) -> None:
        super().__init__(topic, reader, capacity, waited)
        self.topic, self.reader, self.capacity, self.waited = topic, reader, capacity, waited

    def __str__(self) -> str:
        holds = f"{self.reader} holds {counted(self.capacity, 'event')}, its most"
        if self.waited:
            return (
                f"publishing on {self.topic!r} was given up: {holds}, and for {self.waited:g} seconds nobody but the task that "
                "publishes has had to do with it; begin to read in another task, give it a larger buffer=, or another overflow="
            )
        return (
            f"publishing on {self.topic!r} would wait for ever: {holds}, and only the task that publishes reads there; "
            "publish from another task, give it a larger buffer=, or another overflow="
        )


class PublishTimeoutError(DpcoreError, TimeoutError):
    """There was no room for an event in time."""

    def __init__(self, topic: str, timeout: float) -> None:
        super().__init__(topic, timeout)
        self.topic, self.timeout = topic, timeout

    def __str__(self) -> str:
        return (
            f"the event on {self.topic!r} was not published within {self.timeout:g} seconds, because a reader has no room; "
            "read faster, or give a longer timeout="
        )


class SubscriptionError(DpcoreError, RuntimeError):
    """A subscription was used in a way that its state does not allow."""

    def __init__(self, patterns: Sequence[str], problem: str, cure: str) -> None:
        super().__init__(patterns, problem, cure)
        self.patterns, self.problem, self.cure = patterns, problem, cure

    def __str__(self) -> str:
        return f"the subscription to {' | '.join(self.patterns)!r} {self.problem}; {self.cure}"


class DeliveryError(DpcoreError, RuntimeError):
    """A delivery was settled that cannot be settled any more."""

    def __init__(self, event: str, topic: str, problem: str) -> None:
        super().__init__(event, topic, problem)
        self.event, self.topic, self.problem = event, topic, problem

    def __str__(self) -> str:
        return (
            f"the delivery of event {self.event} on {self.topic!r} {self.problem}; settle each delivery once, in time"
        )


class GroupMembersError(DpcoreError, RuntimeError):
    """A group was to be disbanded while somebody reads in it."""

    def __init__(self, group: str, members: int) -> None:
        super().__init__(group, members)
        self.group, self.members = group, members

    def __str__(self) -> str:
        members = "1 member" if self.members == 1 else f"{self.members} members"
        return f"group {self.group!r} has {members} and cannot be disbanded; end all subscriptions in it first"


class GroupSettingsError(DpcoreError, ValueError):
    """A group that exists was asked for with another buffer or policy."""

    def __init__(self, group: str, buffer: int, overflow: str, asked_buffer: int, asked_overflow: str) -> None:
        super().__init__(group, buffer, overflow, asked_buffer, asked_overflow)
        self.group, self.buffer, self.overflow = group, buffer, overflow
        self.asked_buffer, self.asked_overflow = asked_buffer, asked_overflow

    def __str__(self) -> str:
        return (
            f"group {self.group!r} has buffer={self.buffer} and overflow={self.overflow!r} already, and was asked for with "
            f"buffer={self.asked_buffer} and overflow={self.asked_overflow!r}; all of its members give the same, or none"
        )
