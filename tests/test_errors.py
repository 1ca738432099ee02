"""Every error says what is wrong, what there is and what to do; it pickles; it is what existing idioms catch."""

from __future__ import annotations

import copy
import inspect
import pickle
import queue
from threading import Lock

import pytest

from dpcore import errors, words
from dpcore.errors import *  # noqa: F403

EXAMPLES = [
    (
        errors.TriggerError("tides", "gives None"),
        ValueError,
        "trigger tides gives None",
    ),
    (
        errors.CronError("61 * * * *", "minute '61' is not understood (minute: 0-59)"),
        ValueError,
        "cron expression '61 * * * *': minute '61' is not understood (minute: 0-59)",
    ),
    (
        errors.ZoneError("Europe/Berln", ["Europe/Berlin", "UTC"]),
        LookupError,
        "there is no time zone 'Europe/Berln'; give the name of an IANA zone, such as 'Europe/Berlin', or a tzinfo; did you mean 'Europe/Berlin'?",
    ),
    (
        errors.ScheduleExistsError("nightly", "cron '0 3 * * *' in UTC"),
        ValueError,
        "there is a schedule 'nightly' already (cron '0 3 * * *' in UTC); give another name, or unschedule it first",
    ),
    (
        errors.ScheduleNotFoundError("nightl", ["nightly"]),
        KeyError,
        "there is no schedule 'nightl' (there are: 'nightly'); did you mean 'nightly'?",
    ),
    (
        errors.ScheduleFullError("nightly", ["nightly-1"], "skip"),
        RuntimeError,
        "schedule 'nightly' was not fired, because it still runs ('nightly-1'); wait, or schedule it with overlap='queue'",
    ),
    (
        errors.NaiveDatetimeError("start", 3),
        ValueError,
        "start=3 must be an aware datetime, one with a time zone: datetime(2026, 3, 29, 3, tzinfo=ZoneInfo('Europe/Berlin')), or datetime.now(UTC)",
    ),
    (
        errors.BrokerStateError("MemoryBroker", "was left"),
        RuntimeError,
        "broker MemoryBroker was left; it is used inside of: async with App(...) or async with broker",
    ),
    (
        errors.BrokerLostError("MultiprocessBroker", "its hub has ended"),
        ConnectionError,
        "broker MultiprocessBroker is gone: its hub has ended; enter the App or the broker again, and subscribe again; what was on its way, an event or an ack, may or may not have arrived, so expect repetitions, and publish again where one does no harm",
    ),
    (
        errors.BrokerRefusedError("multiprocess:/run/hub", "there is no hub", "enter the one that is the hub first"),
        ConnectionRefusedError,
        "broker multiprocess:/run/hub cannot be entered: there is no hub; enter the one that is the hub first",
    ),
    (
        errors.TopicCompletedError("orders.eu"),
        ValueError,
        "topic 'orders.eu' was completed, so the event was not published; publish on another, or complete it later",
    ),
    (
        errors.BufferFullError("orders.eu", "group 'billing'", 10),
        BufferError,
        "the event on 'orders.eu' was not published: group 'billing' has no room for more than 10 events; read faster, give it a larger buffer=, or another overflow=",
    ),
    (
        errors.DeadlockError("orders.eu", "a subscription to 'orders.*'", 1),
        RuntimeError,
        "publishing on 'orders.eu' would wait for ever: a subscription to 'orders.*' holds 1 event, its most, and only the task that publishes reads there; publish from another task, give it a larger buffer=, or another overflow=",
    ),
    (
        errors.DeadlockError("orders.eu", "group 'billing'", 10, 5.0),
        RuntimeError,
        "publishing on 'orders.eu' was given up: group 'billing' holds 10 events, its most, and for 5 seconds nobody but the task that publishes has had to do with it; begin to read in another task, give it a larger buffer=, or another overflow=",
    ),
    (
        errors.PublishTimeoutError("orders.eu", 2.5),
        TimeoutError,
        "the event on 'orders.eu' was not published within 2.5 seconds, because a reader has no room; read faster, or give a longer timeout=",
    ),
    (
        errors.SubscriptionError(("orders.*", "mail"), "was left", "subscribe once more"),
        RuntimeError,
        "the subscription to 'orders.* | mail' was left; subscribe once more",
    ),
    (
        errors.DeliveryError("1f-7", "orders.eu", "was acked before"),
        RuntimeError,
        "the delivery of event 1f-7 on 'orders.eu' was acked before; settle each delivery once, in time",
    ),
    (
        errors.GroupMembersError("billing", 2),
        RuntimeError,
        "group 'billing' has 2 members and cannot be disbanded; end all subscriptions in it first",
    ),
    (
        errors.GroupMembersError("billing", 1),
        RuntimeError,
        "group 'billing' has 1 member and cannot be disbanded; end all subscriptions in it first",
    ),
    (
        errors.GroupSettingsError("billing", 10, "block", 20, "error"),
        ValueError,
        "group 'billing' has buffer=10 and overflow='block' already, and was asked for with buffer=20 and overflow='error'; all of its members give the same, or none",
    ),
    (
        errors.ArgumentError("keep", "x", "'all' or 'leaves'"),
        ValueError,
        "keep='x' must be 'all' or 'leaves'",
    ),
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
        errors.SelectionError(words.Shown("every task"), "the registry is empty"),
        ValueError,
        "cannot select every task: the registry is empty",
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
            "task 't' needs 'up', the result of 'up', which is not selected; select it too (include_upstream=True, --include-upstream), "
            "take it from an earlier run (from_run=..., --from-run), or give it (params={'up': ...}, --param up=...)"
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
    (
        errors.TopicError("topic", "a..b", "is not valid: segment 2 is empty"),
        ValueError,
        "the topic 'a..b' is not valid: segment 2 is empty",
    ),
    (
        errors.RouteNotFoundError("a.*", "me", ["a.**"]),
        KeyError,
        (
            "'me' is not under the pattern 'a.*' (its patterns: 'a.**'); "
            "remove it as often as it was added, and with the same pattern"
        ),
    ),
    (errors.TaskError("t", "x.Bad", "no"), RuntimeError, "task 't' raised x.Bad: no"),
    (
        errors.TaskTimeoutError("t", 1.5, "stopped"),
        TimeoutError,
        "task 't' took longer than its timeout of 1.5 s; it was stopped",
    ),
    (
        errors.WorkerLostError("t", "was killed by SIGKILL", "at row 7\n", for_memory=True),
        RuntimeError,
        (
            "the worker process of task 't' was killed by SIGKILL because the machine or its cgroup was out of memory\n"
            "the last that it printed:\nat row 7"
        ),
    ),
    (
        errors.WorkerLostError("t", "exited with code 7"),
        RuntimeError,
        "the worker process of task 't' exited with code 7",
    ),
    (
        errors.ExecutorLeftError("t"),
        RuntimeError,
        "task 't' was not run: the executor was left before its turn came",
    ),
    (
        errors.ExecutorLeftError("t", has_begun=True),
        RuntimeError,
        "task 't' was stopped: the executor was left while it ran",
    ),
    (
        errors.WorkersNotStartedError("ImportError: no module named 'dpcore'"),
        RuntimeError,
        "no worker process can be started: ImportError: no module named 'dpcore'",
    ),
    (errors.RunFailedError("run r failed", [ValueError("x")]), ExceptionGroup, "run r failed (1 sub-exception)"),
    (errors.RunCancelledError("r", "it was asked for"), RuntimeError, "run 'r' was cancelled: it was asked for"),
    (
        errors.NoValueError("t", "it failed"),
        KeyError,
        "task 't' has no value in this result: it failed",
    ),
    (
        errors.AppStateError("is not entered", "enter it first"),
        RuntimeError,
        "this App is not entered; enter it first",
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
        errors.UnguardedScriptError("/home/me/orders.py"),
        RuntimeError,
        (
            "/home/me/orders.py starts a run when it is only loaded for its tasks, as every worker process does; "
            'put what starts it under: if __name__ == "__main__":'
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
        errors.RunHeldError("r1", "this App"),
        RuntimeError,
        "run 'r1' is being run by this App; cancel it, or wait until it has ended",
    ),
    (
        errors.RunHeldError("r1", "process 7 on laptop", "12:00:30"),
        RuntimeError,
        "run 'r1' is being run by process 7 on laptop; cancel it there, or, if that was killed, try again after 12:00:30",
    ),
    (
        errors.RunEndedError("r1"),
        ValueError,
        (
            "run 'r1' has succeeded, and nothing of it is left; "
            "to run a part of it again, name the task to begin at (from_=, --from)"
        ),
    ),
    (
        errors.RunEndedError("r1", ["load"]),
        ValueError,
        (
            "run 'r1' has succeeded, and nothing of it is left; "
            "'load' changed since: to run that again, ask for it (changed=True, --changed)"
        ),
    ),
    (
        errors.ParamsLostError("r1", ["day"], "they do not pickle"),
        ValueError,
        (
            "the parameters of run 'r1' ('day') are not recorded whole: they do not pickle; "
            "give them again: app.resume(..., params=..., metadata=...)"
        ),
    ),
    (
        errors.LeaseLostError("k", 3),
        RuntimeError,
        "the lease on 'k' with token 3 is no longer ours; nothing was written",
    ),
    (errors.StoreError("sqlite", "it is newer"), OSError, "the run store sqlite cannot be used: it is newer"),
    (
        errors.PayloadError("a.b", "['n']", "is an int beyond 64 bits", "send it as text"),
        TypeError,
        "event on 'a.b': data['n'] is an int beyond 64 bits; send it as text",
    ),
    (
        errors.PayloadError("", "", "holds itself", "send what is flat"),
        TypeError,
        "an event: data holds itself; send what is flat",
    ),
    (
        errors.WireError("it is cut off"),
        ValueError,
        "these bytes are no event: it is cut off; only what encode() or encode_many() of dpcore wrote can be read",
    ),
    (
        errors.WireError("they are of tomorrow", "wait"),
        ValueError,
        "these bytes are no event: they are of tomorrow; wait",
    ),
    (errors.CloudEventError("read", "it has no 'id'"), ValueError, "cannot read this CloudEvent: it has no 'id'"),
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
        errors.AdapterNotFoundError("broker", "redis", ["memory"]),
        LookupError,
        (
            "no plugin offers the broker 'redis' (there are: 'memory'); install a plugin that does, or pass the adapter itself"
        ),
    ),
    (
        errors.AdapterNotMadeError("executor 'threads'", "slots=0 must be at least 1"),
        ValueError,
        "slots=0 must be at least 1, while making the executor 'threads'",
    ),
    (
        errors.ProviderError("provider 'Redis'", "name", "Redis", "lower case"),
        TypeError,
        "provider 'Redis': name='Redis' must be lower case",
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
        errors.QueueFullError("MemoryQueue(size=1)", 1),
        queue.Full,
        "MemoryQueue(size=1) is full: it holds no more than 1 item; get some, or wait for room with put() or put_sync()",
    ),
    (
        errors.QueueEmptyError("MemoryQueue(size=1)"),
        queue.Empty,
        "MemoryQueue(size=1) is empty; wait for an item with get() or get_sync()",
    ),
    (
        errors.QueueClosedError("MemoryQueue(size=1)", "put"),
        ValueError,
        "cannot put into MemoryQueue(size=1): it was closed; put before close() is called, or make another queue",
    ),
    (
        errors.QueueClosedError("MemoryQueue(size=1)", "get"),
        ValueError,
        "cannot get from MemoryQueue(size=1): it was closed and nothing is left in it; stop here, as `async for` does",
    ),
    (
        errors.TooManyDoneError("MemoryQueue(size=1)"),
        ValueError,
        (
            "task_done() of MemoryQueue(size=1) was called too many times: every item that this process got from it is done; "
            "call it once for each"
        ),
    ),
    (
        errors.ItemNotSentError("MultiprocessQueue(size=1)", words.Shown("<lock>"), "cannot pickle it"),
        TypeError,
        "cannot put <lock> into MultiprocessQueue(size=1): cannot pickle it; put what pickles",
    ),
    (
        errors.QueueNotSentError("MemoryQueue(size=1)", "use another"),
        RuntimeError,
        "MemoryQueue(size=1) cannot be pickled here; use another",
    ),
    (
        errors.UnsupportedError("threads", "kills", "stop a job"),
        NotImplementedError,
        "threads cannot stop a job: it lacks the capability 'kills'",
    ),
    (errors.HintWarning("task 't': no"), UserWarning, "task 't': no"),
]


WAYS = {
    "pickled": lambda error: pickle.loads(pickle.dumps(error)),
    "copied": copy.copy,
    "copied deeply": copy.deepcopy,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("error", "kind", "words"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_an_error_has_its_words_and_its_kind_and_is_the_same_when_it_has_travelled(error, kind, words, way):
    assert str(error) == words
    assert isinstance(error, kind)
    error = copy.copy(error)
    error.add_note("in task 't'")
    again = WAYS[way](error)
    assert type(again) is type(error)
    assert str(again) == words
    assert again.__notes__ == ["in task 't'"]
    assert _facts(again) == _facts(error)


def _facts(error):
    """What an error carries, as it prints; the faults of a group are not equal to themselves, but print the same."""
    facts = {name: value for name, value in vars(error).items() if name != "__notes__"}
    return repr(error.args), repr(facts)


def test_every_error_has_an_example():
    classes = {value for _, value in inspect.getmembers(errors, inspect.isclass) if value.__module__ == errors.__name__}
    public = {value for value in classes if issubclass(value, BaseException)}
    missing = public - {type(error) for error, _, _ in EXAMPLES} - {errors.DpcoreError}
    assert not missing
    assert {value.__name__ for value in public} <= set(errors.__all__)


class Unprintable:
    """Neither prints nor pickles."""

    def __init__(self):
        self.lock = Lock()

    def __repr__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda value: errors.ArgumentError("store", value, "a store"), "store={} must be a store"),
        (lambda value: errors.TaskDefinitionError("t", "tags", value, "words"), "task 't': tags={} must be words"),
        (
            lambda value: errors.ProviderError("provider 'p'", "name", value, "a name"),
            "provider 'p': name={} must be a name",
        ),
        (lambda value: errors.InvalidIdError("run id", value, "it is no str"), "{} cannot be a run id: it is no str"),
        (lambda value: errors.TopicError("topic", value, "is no str"), "the topic {} is no str"),
        (
            lambda value: errors.RouteNotFoundError("a", value),
            "{} is not under the pattern 'a' (its patterns: none); remove it as often as it was added, and with the same pattern",
        ),
        (lambda value: errors.ItemNotSentError("q", value, "no"), "cannot put {} into q: no; put what pickles"),
    ],
)
def test_a_value_that_neither_prints_nor_pickles_is_told_all_the_same(make, words):
    for value, shown in [
        (Unprintable(), "<Unprintable that cannot be printed>"),
        (test_every_error_has_an_example, repr(test_every_error_has_an_example)),
    ]:
        error = make(value)
        if len(shown) > 80 and isinstance(error, errors.InvalidIdError):
            shown = f"{shown[:80]}... ({len(shown)} characters)"
        assert str(error) == words.format(shown)
        assert repr(error).startswith(f"{type(error).__name__}(")
        assert str(pickle.loads(pickle.dumps(error))) == words.format(shown)


def test_a_long_value_is_cut_and_stays_so_when_it_travels():
    error = errors.TaskDefinitionError("t", "tags", "x" * 1000, "short")
    assert str(error) == f"task 't': tags='{'x' * 199}... (1002 characters) must be short"
    assert str(pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(error))))) == str(error)


def test_what_was_probably_meant_is_found_among_very_many():
    known = [f"load_table_{number}" for number in range(20_000)]
    assert words.nearest("lod_table_7", known) == "; did you mean 'load_table_7'?"
    assert words.nearest("load_table_19999x", known) == "; did you mean 'load_table_19999'?"


def test_a_name_of_another_type_or_without_end_has_no_nearest():
    assert words.nearest(3, ["3"]) == words.nearest(None, ["None"]) == words.nearest("x" * 10_000, ["x" * 9_999]) == ""
    assert words.nearest("ordrs", [3, None, "orders"]) == "; did you mean 'orders'?"


def test_of_very_many_faults_the_first_are_told_and_all_are_there():
    group = errors.PlanningError("cannot plan", [errors.GivenTaskError(f"t{number}") for number in range(1000)])
    lines = str(group).splitlines()
    assert len(lines) == 27
    assert (lines[0], lines[-1]) == ("cannot plan:", "  - and 975 more")
    assert len(group.exceptions) == 1000


@pytest.mark.parametrize("error", [error for error, _, _ in EXAMPLES], ids=lambda value: type(value).__name__)
def test_every_error_is_dpcores_own(error):
    assert isinstance(error, errors.DpcoreError | Warning)


def test_a_group_keeps_its_kind_when_it_is_split():
    group = errors.PlanningError("cannot plan", [errors.CycleError(["a"]), errors.GivenTaskError("b")])
    some, rest = group.split(errors.CycleError)
    assert type(some) is type(rest) is errors.PlanningError
    group = errors.RunFailedError("run r failed", [ValueError("x"), KeyError("y")])
    assert type(group.subgroup(KeyError)) is errors.RunFailedError
