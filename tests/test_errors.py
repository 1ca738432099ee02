"""Every error says what is wrong, what there is and what to do; it pickles; it is what existing idioms catch."""

from __future__ import annotations

import inspect
import pickle

import pytest

from dpcore import errors
from dpcore.errors import *  # noqa: F403

EXAMPLES = [
    (errors.TaskDefinitionError("t", "timeout", -1, "above 0"), ValueError, "task 't': timeout=-1 must be above 0"),
    (
        errors.DuplicateTaskError("t", "a.py:1", "b.py:2"),
        ValueError,
        "task 't' is defined twice: at a.py:1 and at b.py:2; give one of them another name with @task(name=...)",
    ),
    (
        errors.TaskNotFoundError("ordrs", ["orders"]),
        KeyError,
        "there is no task 'ordrs' (tasks: 'orders'); did you mean 'orders'?",
    ),
    (
        errors.TaskNotFoundError("gone", [], "late"),
        KeyError,
        "task 'late' depends on 'gone', but there is no such task (tasks: none)",
    ),
    (
        errors.UsedOutsideError("t", "m.f"),
        ValueError,
        (
            "task 't' depends on the function m.f, which is not a task of the same registry; decorate it with @task first, "
            "or name the dependency by its task name"
        ),
    ),
    (
        errors.PlanningError("cannot plan", [errors.CycleError(["a", "a"]), errors.GivenTaskError("b")]),
        ValueError,
        (
            "cannot plan:\n  - tasks wait for each other: a -> a; drop one of these dependencies\n"
            "  - task 'b' is selected, but params= gives its result, so it would not run; drop one of the two"
        ),
    ),
    (
        errors.SelectionError("tag:x", "no task has the tag 'x'", ["tag:y"]),
        ValueError,
        "cannot select 'tag:x': no task has the tag 'x' (there are: 'tag:y'); did you mean 'tag:y'?",
    ),
    (
        errors.CycleError(["a", "b", "a"]),
        ValueError,
        "tasks wait for each other: a -> b -> a; drop one of these dependencies",
    ),
    (
        errors.MissingInputError("t", "dya", None, ["day"]),
        ValueError,
        (
            "task 't' needs 'dya', which is no task, has no default and is not given; did you mean 'day'? name a task that "
            "makes it (inputs={'dya': ...}), or give it with params={'dya': ...} (--param dya=...)"
        ),
    ),
    (
        errors.MissingInputError("t", "up", "up"),
        ValueError,
        (
            "task 't' needs 'up', the result of 'up', which is not selected; select it too (include_upstream=True), "
            "take it from an earlier run (from_run=...), or give it (params={'up': ...})"
        ),
    ),
    (
        errors.MissingInputError("t", "up", "up", (), "run 'r' cannot give it: it failed in it"),
        ValueError,
        "task 't' needs 'up', the result of 'up'; run 'r' cannot give it: it failed in it",
    ),
    (
        errors.MissingHintError("t", None),
        TypeError,
        "task 't' has no type hint for its return value, which strict=True asks for on every data edge",
    ),
    (
        errors.InputMismatchError("b", "a", "str", "a", "int", ["a at x.py:1"]),
        TypeError,
        "task 'a' returns int, but 'b' wants str for 'a' (a at x.py:1)",
    ),
    (
        errors.UnreadStreamError("t", "days"),
        ValueError,
        (
            "task 't' is mapped over each item of 'days', but no parameter receives an item; name one with "
            "inputs={'...': 'days'}"
        ),
    ),
    (
        errors.GivenTaskError("t"),
        ValueError,
        "task 't' is selected, but params= gives its result, so it would not run; drop one of the two",
    ),
    (
        errors.ParamError("dya", "is taken by no selected task", ["day"]),
        ValueError,
        "run parameter 'dya' is taken by no selected task (taken: 'day'); did you mean 'day'?",
    ),
    (
        errors.NotSharedError("multiprocess", "memory"),
        ValueError,
        (
            "executor multiprocess runs tasks in other processes, which cannot reach what the I/O manager memory keeps in "
            "this one; choose one that they share, such as io='filesystem:PATH'"
        ),
    ),
    (errors.TaskError("t", "x.Bad", "no"), RuntimeError, "task 't' raised x.Bad: no"),
    (
        errors.TaskTimeoutError("t", 1.5, "stopped"),
        TimeoutError,
        "task 't' took longer than its timeout of 1.5 s; it was stopped",
    ),
    (errors.RunFailedError("run r failed", [ValueError("x")]), ExceptionGroup, "run r failed (1 sub-exception)"),
    (errors.RunCancelledError("r", "it was asked for"), RuntimeError, "run 'r' was cancelled: it was asked for"),
    (
        errors.NoValueError("t", "it failed"),
        KeyError,
        "task 't' has no value in this result: it failed",
    ),
    (
        errors.RunningLoopError(),
        RuntimeError,
        (
            "run() cannot be called where an event loop is running (a notebook, a coroutine); write instead:\n"
            "    async with dpcore.App() as app:\n        result = await app.run()"
        ),
    ),
    (
        errors.NoCurrentJobError(),
        LookupError,
        "current_job() answers only inside a task while it runs; outside of one there is no job",
    ),
    (
        errors.FunctionNotFoundError("m.f", "the module has no 'f'"),
        LookupError,
        "cannot find the function m.f: the module has no 'f'",
    ),
    (errors.InvalidIdError("run id", "../x", "no"), ValueError, "'../x' cannot be a run id: no"),
    (
        errors.ResultNotFoundError("r/t/1", "memory", ["2"]),
        KeyError,
        "there is no result r/t/1 in memory (results of that task in that run: '2')",
    ),
    (errors.ResultNotStoredError("r/t/1", "no space"), ValueError, "cannot store the result r/t/1: no space"),
    (
        errors.DamagedResultError("r/t/1", "x.pkl", "it is empty"),
        ValueError,
        "the result r/t/1 cannot be read from x.pkl: it is empty",
    ),
    (
        errors.RunNotFoundError("r1", "memory", ["r2"]),
        LookupError,
        "there is no run 'r1' in memory (latest: 'r2')",
    ),
    (
        errors.RunExistsError("r1", "memory"),
        ValueError,
        "a run 'r1' is already recorded in memory; leave the run id out to get a new one",
    ),
    (
        errors.LeaseLostError("k", 3),
        RuntimeError,
        "the lease on 'k' with token 3 is no longer ours; nothing was written",
    ),
    (errors.StoreError("sqlite", "it is newer"), OSError, "the run store sqlite cannot be used: it is newer"),
    (errors.PluginError("p", "has no hook 'x'"), Exception, "plugin 'p' has no hook 'x'"),
    (
        errors.PluginNotFoundError("p", "is not installed", ["q"]),
        LookupError,
        "plugin 'p' is not installed (installed: 'q')",
    ),
    (
        errors.AdapterNotFoundError("executor", "thread", ["threads"], ["b: no module"], "dpcore[x]", ["c"]),
        LookupError,
        (
            "no plugin offers the executor 'thread' (there are: 'threads'); did you mean 'threads'? these plugins are "
            "broken and might offer it: b: no module; these plugins are blocked and might offer it: c; "
            "it comes with: pip install 'dpcore[x]'"
        ),
    ),
    (
        errors.AdapterImportError("broker", "redis", "dpcore", "No module named 'redis'", "dpcore[redis]"),
        ImportError,
        (
            "the broker 'redis' of dpcore cannot be imported: No module named 'redis'; what it needs comes with: "
            "pip install 'dpcore[redis]'"
        ),
    ),
    (
        errors.ConflictError("broker", "redis", ["a", "b"]),
        LookupError,
        (
            "the broker 'redis' is offered by a and by b; say which is meant with redis@a or redis@b, "
            "or block one of the plugins"
        ),
    ),
    (
        errors.SettingError("executor 'threads'", "slot", "is unknown", ["slots"]),
        ValueError,
        "executor 'threads': setting 'slot' is unknown (it takes: 'slots'); did you mean 'slots'?",
    ),
    (errors.ConfigError("x.toml", "line 3: no"), ValueError, "x.toml: line 3: no"),
    (
        errors.UnsupportedError("threads", "kills", "stop a job"),
        NotImplementedError,
        "threads cannot stop a job: it lacks the capability 'kills'",
    ),
    (errors.HintWarning("task 't': no"), UserWarning, "task 't': no"),
]


@pytest.mark.parametrize(("error", "kind", "words"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_an_error_has_its_words_its_kind_and_pickles(error, kind, words):
    assert str(error) == words
    assert isinstance(error, kind)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == words
    if not isinstance(error, ExceptionGroup):
        assert repr(again.args) == repr(error.args)


def test_every_error_has_an_example():
    classes = {value for _, value in inspect.getmembers(errors, inspect.isclass) if value.__module__ == errors.__name__}
    public = {value for value in classes if not value.__name__.startswith("_")}
    missing = public - {type(error) for error, _, _ in EXAMPLES} - {errors.DpcoreError, errors.ProviderError}
    assert not missing
    assert {value.__name__ for value in public} <= set(errors.__all__)


@pytest.mark.parametrize("error", [error for error, _, _ in EXAMPLES], ids=lambda value: type(value).__name__)
def test_every_error_is_dpcores_own(error):
    assert isinstance(error, errors.DpcoreError | Warning)


def test_a_group_keeps_its_kind_when_it_is_split():
    group = errors.PlanningError("cannot plan", [errors.CycleError(["a"]), errors.GivenTaskError("b")])
    some, rest = group.split(errors.CycleError)
    assert type(some) is type(rest) is errors.PlanningError
    group = errors.RunFailedError("run r failed", [ValueError("x"), KeyError("y")])
    assert type(group.subgroup(KeyError)) is errors.RunFailedError
