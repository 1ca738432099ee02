"""What a person reads who gets something wrong at ``plan``, ``run`` or ``App``: the whole sentence, and nothing is lost."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import anyio
import pytest

import dpcore
from dpcore import App, Ref, plan, run
from dpcore.errors import ArgumentError, DpcoreError, PlanningError
from dpcore_plugins import FilesystemIO, MemoryIO, SqliteRunStore


@pytest.fixture
def tasks(tasks: dpcore.Registry) -> dpcore.Registry:
    """Two tasks that would run."""

    @tasks.task(tags=["demo"])
    def orders(factor: int = 1) -> list[int]:
        return [30 * factor, 10, 2]

    @tasks.task(tags=["demo"])
    def total(orders: list[int]) -> int:
        return sum(orders)

    return tasks


PLANNING = [
    (("totl",), {}, "there is no task 'totl' (tasks: 'orders', 'total'); did you mean 'total'?"),
    (("+totl",), {}, "there is no task 'totl' (tasks: 'orders', 'total'); did you mean 'total'?"),
    (("tag:dmo",), {}, "cannot select 'tag:dmo': no task has the tag 'dmo' (there are: 'tag:demo'); did you mean 'tag:demo'?"),
    ((), {"tags": ["dmo"]}, "cannot select 'tag:dmo': no task has the tag 'dmo' (there are: 'tag:demo'); did you mean 'tag:demo'?"),
    ((), {"tags": "demo"}, "cannot select 'demo': tags= takes a list; write tags=['demo']"),
    ((), {"tags": 3}, "cannot select 3: tags= takes a list"),
    ((), {"root_tasks": "total"}, "cannot select 'total': root_tasks= takes a list; write root_tasks=['total']"),
    ((), {"exclude": "total"}, "cannot select 'total': exclude= takes a list; write exclude=['total']"),
    (("a b",), {}, "cannot select 'a b': a selection is name, +name, name+, +name+ or tag:word"),
    (("",), {}, "cannot select '': a selection is name, +name, name+, +name+ or tag:word"),
    ((3,), {}, "cannot select 3: it is no name and no function (there are: 'orders', 'total')"),
    ((["total"],), {}, "cannot select ['total']: tasks are given one by one, as in run('a', 'b') (there are: 'orders', 'total')"),
    (
        (len,),
        {},
        "cannot select <built-in function len>: that function is not a task of the registry (there are: 'orders', 'total')",
    ),
    (("total",), {"exclude": ["demo", "orders", "total"]}, "there is no task 'demo' (tasks: 'orders', 'total')"),
    (("total",), {"exclude": ["total", "orders"]}, "cannot select 'total': the selection is empty (there are: 'orders', 'total')"),
    ((), {"params": {"factr": 1}}, "run parameter 'factr' is taken by no selected task (taken: 'factor'); did you mean 'factor'?"),
    ((), {"params": {3: 1}}, "run parameter 3 is taken by no selected task (taken: 'factor')"),
    ((), {"params": {"factor": "x"}}, "run parameter 'factor' does not fit 'factor' of task 'orders': 'x' is not an int"),
    (
        (),
        {"root_tasks": ["total"]},
        (
            "task 'total' needs 'orders', the result of 'orders', which is not selected; select it too "
            "(include_upstream=True, --include-upstream), take it from an earlier run (from_run=..., --from-run), or give it "
            "(params={'orders': ...}, --param orders=...)"
        ),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("selection", "arguments", "sentence"), PLANNING)
@pytest.mark.parametrize("entry", [plan, run])
def test_what_cannot_be_planned_is_told_in_one_sentence(entry, selection, arguments, sentence, tasks, plugins):
    extra = {"plugins": plugins} if entry is run else {}
    with pytest.raises(PlanningError) as caught:
        entry(*selection, registry=tasks, **arguments, **extra)
    assert str(caught.value) == f"cannot plan:\n  - {sentence}"
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_an_empty_registry_is_told_what_to_do():
    with pytest.raises(PlanningError) as caught:
        run(registry=dpcore.Registry())
    assert str(caught.value) == (
        "cannot plan:\n  - cannot select every task: the registry is empty; decorate a function with @task, "
        "or pass the registry that has them (registry=...)"
    )


WRONG_OF_PLAN = [
    ({"registry": []}, "registry=[] must be a Registry"),
    ({"params": 3}, "params=3 must be a mapping from parameter to value, or a list of parameters"),
    ({"params": "day"}, "params='day' must be a mapping from parameter to value, or a list of parameters"),
    ({"params": [["day"]]}, "params=['day'] must be the name of a parameter, each of them"),
    ({"strict": "no"}, "strict='no' must be True or False"),
    ({"include_upstream": 1}, "include_upstream=1 must be True or False"),
    ({"from_run": 3}, "from_run=3 must be the id of a run, or None"),
]


@pytest.mark.parametrize(("arguments", "sentence"), WRONG_OF_PLAN)
def test_a_wrong_object_for_an_argument_of_plan_is_told_at_once(arguments, sentence, tasks):
    with pytest.raises(DpcoreError) as caught:
        plan(**{"registry": tasks} | arguments)
    assert str(caught.value) == sentence
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, ValueError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == sentence


ADAPTER = "the name of an adapter with what it is told, in one string"
WRONG_OF_APP = [
    ({"registry": []}, "registry=[] must be a Registry"),
    ({"plugins": []}, "plugins=[] must be a Plugins"),
    ({"config": {}}, "config={} must be a Config"),
    ({"clock": 3}, "clock=3 must be a Clock"),
    ({"executor": 3}, f"executor=3 must be {ADAPTER}, or an object of class Executor"),
    ({"executor": {}}, f"executor={{}} must be {ADAPTER}, or an object of class Executor"),
    ({"executor": int}, f"executor=<class 'int'> must be {ADAPTER}, or an object of class Executor"),
    ({"store": ...}, f"store=Ellipsis must be {ADAPTER}, or an object of class RunStore"),
    (
        {"io": PurePosixPath("runs")},
        f"io=PurePosixPath('runs') must be {ADAPTER}, such as 'filesystem:runs', or an object of class IOManager",
    ),
]
WRONG_OF_RUN = [
    ({"params": ["day"]}, "params=['day'] must be a mapping from parameter to value"),
    ({"params": 3}, "params=3 must be a mapping from parameter to value"),
    ({"metadata": 3}, "metadata=3 must be a mapping"),
    ({"metadata": ["a"]}, "metadata=['a'] must be a mapping"),
    ({"keep": "x"}, "keep='x' must be 'all' or 'leaves'"),
    ({"keep": ["all"]}, "keep=['all'] must be 'all' or 'leaves'"),
    ({"fail_fast": "no"}, "fail_fast='no' must be True or False"),
    ({"strict": "no"}, "strict='no' must be True or False"),
]


@pytest.mark.parametrize(("arguments", "sentence"), WRONG_OF_APP)
def test_a_wrong_object_for_an_argument_of_app_is_told_when_it_is_made(arguments, sentence, tasks):
    for make in (App, run):
        with pytest.raises(ArgumentError) as caught:
            make(**{"registry": tasks} | arguments)
        assert str(caught.value) == sentence
        assert isinstance(caught.value, TypeError)
        assert str(pickle.loads(pickle.dumps(caught.value))) == sentence


@pytest.mark.parametrize(("arguments", "sentence"), WRONG_OF_RUN)
def test_a_wrong_object_for_an_argument_of_run_is_told_before_anything_runs(
    arguments, sentence, tasks, plugins, tmp_path
):
    with pytest.raises(ArgumentError) as caught:
        run(registry=tasks, plugins=plugins, store=f"sqlite:{tmp_path}/runs.db", **arguments)
    assert str(caught.value) == sentence
    assert list(tmp_path.iterdir()) == []


def test_what_can_be_no_broker_is_told_too(tasks):
    with pytest.raises(ArgumentError, match=r"^broker=3 must be the name of an adapter"):
        App(tasks, broker=3)


def test_an_adapter_of_another_port_is_told_too(tasks):
    with pytest.raises(ArgumentError, match="or an object of class Executor"):
        App(tasks, executor=MemoryIO())
    with pytest.raises(ArgumentError, match="or an object of class IOManager"):
        App(tasks, io=SqliteRunStore)


def test_a_run_that_does_not_run_cannot_be_cancelled(tasks, plugins):
    async def main() -> None:
        async with App(tasks, plugins=plugins) as app:
            app.cancel("gone")

    with pytest.raises(dpcore.errors.RunNotFoundError) as caught:
        anyio.run(main)
    assert str(caught.value) == "there is no run 'gone' in what this App is running (latest: none)"


def test_a_thousand_faults_are_told_without_a_long_wait(tasks):
    for number in range(1000):
        tasks.task(name=f"load_{number}")(_needs(f"laod_{number}_x"))
    with pytest.raises(PlanningError) as caught:
        plan(registry=tasks)
    assert len(caught.value.exceptions) == 1000
    assert len({id(fault.known) for fault in caught.value.exceptions}) == 1  # not a list of all names for each
    assert len(str(caught.value).splitlines()) == 27
    assert len(pickle.dumps(caught.value)) < 1_000_000


def _needs(parameter: str) -> Callable[..., Any]:
    scope: dict[str, Any] = {}
    exec(f"def made({parameter}): ...", scope)
    made: Callable[..., Any] = scope["made"]
    return made


# ---------------------------------------------------------------- ids


OUTSIDE = ["../x", "/etc/x", "", ".", "..", "a/../b", "a/b", "a\0b", "x" * 300, "a\nb", "a\\b", "x.", "\ud800", 3, None, b"x", ["x"]]  # fmt: skip


@pytest.mark.parametrize("value", OUTSIDE, ids=lambda value: ascii(value)[:12])
@pytest.mark.parametrize("part", ["run id", "task name", "result id"])
def test_an_id_that_would_leave_the_folder_is_refused_by_every_door_and_nothing_is_made(value, part, tmp_path):
    parts = {"run id": "r", "task name": "t", "result id": "1"} | {part: value}
    ref = Ref(*parts.values())
    for io in (FilesystemIO(path=tmp_path / "results"), MemoryIO()):
        doors: list[Callable[[], object]] = [
            lambda io=io: io.save(ref, 1),
            lambda io=io: io.load(ref),
            lambda io=io: io.exists(ref),
            lambda io=io: io.delete(ref),
        ]
        if part == "run id":
            doors += [lambda io=io: io.list(value), lambda io=io: io.clear(value)]
        if part == "task name" and value is not None:
            doors.append(lambda io=io: io.list("r", value))
        for door in doors:
            _refused(door, part)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "value", [value for value in OUTSIDE if value is not None], ids=lambda value: ascii(value)[:12]
)
def test_a_run_of_such_an_id_neither_begins_nor_is_looked_for(value, tasks, plugins, tmp_path):
    async def main() -> None:
        store = SqliteRunStore(path=tmp_path / "runs.db")
        async with App(tasks, plugins=plugins, io=FilesystemIO(path=tmp_path / "io"), store=store) as app:
            for ask in (lambda: app.run(run_id=value), lambda: app.history(value)):
                with pytest.raises(dpcore.errors.InvalidIdError):
                    await ask()
            with pytest.raises(ValueError, match=r"cannot be a run id|from_run=.* must be the id of a run"):
                await app.run(root_tasks=["total"], from_run=value)
            assert await (await app.store()).list() == []

    anyio.run(main)
    assert {path.name for path in tmp_path.iterdir()} <= {"runs.db", "runs.db-wal", "runs.db-shm"}


def _refused(door: Callable[[], object], part: str) -> None:
    with pytest.raises(dpcore.errors.InvalidIdError) as caught:
        door()
    assert f" cannot be a {part}: " in str(caught.value)
    assert len(str(caught.value)) < 250
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
