"""Whatever is given as a name, a hint, a selection or a setting: it is taken, or refused in a sentence of dpcore's own."""

from __future__ import annotations

import math
import pickle
import warnings
from threading import Lock
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

import dpcore
from dpcore import Plan, Ref, plan, run
from dpcore.config import Config
from dpcore.errors import DpcoreError, HintWarning, PlanningError, TaskDefinitionError
from dpcore.hints import MISSING

quick = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])


class Prickly:
    """Neither compares, nor hashes, nor pickles, and is neither true nor false."""

    __hash__ = None

    def __init__(self):
        self.lock = Lock()

    def __eq__(self, other):
        raise RuntimeError("it does not compare")

    def __bool__(self):
        raise RuntimeError("it is neither true nor false")


class Hostile(Prickly):
    """Does not even print; hypothesis could not show one."""

    def __repr__(self):
        raise RuntimeError("it does not print")


def deep() -> list[Any]:
    """A list deeper than any stack."""
    made: list[Any] = []
    for _ in range(200_000):
        made = [made]
    return made


DEEP = deep()  # kept for good: to take one apart at the end of a test costs more than the test
LONG = "x" * 3000

TEXTS = st.one_of(
    st.text(max_size=20),
    st.from_regex(r"[+]?(tag:)?[a-d.+:|/\[-]{0,6}[+]?", fullmatch=True),
    st.sampled_from(
        ["", " ", "\0", "\n", "../x", "/etc/passwd", ".", "..", "\ud800", "a\u0301", "١", LONG, "[" * 3000]
    ),
)
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.sampled_from([10**400, math.nan, math.inf, -math.inf, 1e308, ..., len, int, OSError, b"\xff"]),
        st.floats(),
        TEXTS,
        st.builds(Prickly),
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)
ARGUMENTS = [
    "tags", "dependencies", "description", "max_retries", "retry_delay", "backoff", "max_delay", "jitter", "retry_on",
    "timeout", "fail_safe", "stream_output", "lead", "drain", "each", "inputs",
    "version",
]  # fmt: skip


def told(error: BaseException) -> None:
    """An error of dpcore's own says so in a sentence of bounded length, and travels."""
    assert isinstance(error, DpcoreError)
    assert 0 < len(str(error)) < 20_000
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


# ---------------------------------------------------------------- names and arguments of tasks


@quick
@given(VALUES)
@example("a" * 200)
@example("a" * 201)
@example("é" * 100)
@example("a..b")
@example("con")
def test_any_name_is_refused_or_can_become_part_of_a_path_and_be_selected(name):
    tasks = dpcore.Registry()
    assume(name is not None)  # which means the function's own

    def one() -> int:
        return 1

    try:
        tasks.task(name=name)(one)
    except DpcoreError as error:
        told(error)
        assert len(tasks) == 0
    else:
        assert Ref("run", name, "1").check().task == name
        assert plan(name, registry=tasks).order == (name,)
        assert plan(f"+{name}+", registry=tasks).order == (name,)


@quick
@given(st.dictionaries(st.sampled_from(ARGUMENTS), VALUES, max_size=3))
def test_any_argument_of_a_task_is_taken_or_told_and_what_was_taken_can_be_planned(arguments):
    tasks = dpcore.Registry()

    def one(rows=()):
        return 1

    try:
        tasks.task(**arguments)(one)
    except DpcoreError as error:
        told(error)
        assert len(tasks) == 0
        return
    try:
        assert isinstance(plan(registry=tasks), Plan)
    except PlanningError as error:  # it depends on what is not there
        told(error)


VERY_MANY = 10**400
SENSIBLE = {"description": "a b", "version": "a b", "max_retries": VERY_MANY, "lead": VERY_MANY}


@pytest.mark.parametrize("argument", ARGUMENTS)
@pytest.mark.parametrize(
    "value",
    [
        object(),
        Hostile(),
        [Hostile()],
        {3: Hostile()},
        DEEP,
        -1,
        b"x",
        ...,
        "a b",
        VERY_MANY,
        -(10**5000),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_argument_of_a_task_refuses_what_makes_no_sense(argument, value, tasks):
    if value is SENSIBLE.get(argument):
        return

    def one(rows=()):
        return 1

    with pytest.raises(DpcoreError) as caught:
        tasks.task(**{argument: value})(one)
    told(caught.value)
    assert isinstance(caught.value, TaskDefinitionError | dpcore.errors.UsedOutsideError)
    assert len(tasks) == 0


# ---------------------------------------------------------------- selections and run parameters


def three() -> dpcore.Registry:
    tasks = dpcore.Registry()

    @tasks.task(tags=["a"])
    def a(day: int = 1) -> int:
        return day

    @tasks.task(tags=["a", "b"])
    def b(a: int, rows: list[list[int]] = []) -> int:  # noqa: B006
        return a

    @tasks.task(dependencies=["a"])
    def c() -> None: ...

    return tasks


THREE = three()


@quick
@given(
    st.lists(TEXTS | VALUES, max_size=2),
    st.none() | st.lists(TEXTS, max_size=2) | VALUES,
    st.none() | st.lists(TEXTS, max_size=2) | VALUES,
    st.lists(TEXTS, max_size=2) | VALUES,
)
def test_any_selection_is_a_plan_or_is_told(selection, tags, root_tasks, exclude):
    try:
        made = plan(*selection, registry=THREE, tags=tags, root_tasks=root_tasks, exclude=exclude)
    except DpcoreError as error:
        told(error)
    else:
        assert set(made.order) <= set(THREE)


@quick
@given(st.dictionaries(st.sampled_from(["day", "rows", "dya", ""]), VALUES, max_size=2) | VALUES)
@example({"rows": "[" * 100_000})
@example({"rows": "[" * 100_000 + "]" * 100_000})
@example({"day": "9" * 100_000})
def test_any_run_parameter_is_taken_or_told(params):
    try:
        plan(registry=THREE, params=params)
    except DpcoreError as error:
        told(error)


@quick
@given(
    st.dictionaries(
        st.sampled_from(["tags", "root_tasks", "strict", "include_upstream", "from_run", "registry"]), VALUES
    )
)
def test_any_argument_of_plan_is_taken_or_told(arguments):
    try:
        plan(**{"registry": THREE} | arguments)
    except DpcoreError as error:
        told(error)


UNPRINTABLE = {"hostile": Hostile(), "deep": DEEP, "big": 10**5000}


@pytest.mark.parametrize("name", UNPRINTABLE)
@pytest.mark.parametrize(
    "argument", ["tags", "root_tasks", "strict", "include_upstream", "from_run", "registry", "exclude"]
)
@pytest.mark.parametrize("form", [lambda value: value, lambda value: [value]], ids=["itself", "in a list"])
def test_what_does_not_print_is_told_by_its_type(argument, name, form):
    with pytest.raises(DpcoreError) as caught:
        plan(**{"registry": THREE} | {argument: form(UNPRINTABLE[name])})
    told(caught.value)
    with pytest.raises(DpcoreError) as caught:
        plan(form(UNPRINTABLE[name]), registry=THREE)
    told(caught.value)


@pytest.mark.parametrize("name", UNPRINTABLE)
@pytest.mark.parametrize("parameter", ["day", "rows", "dya"])
def test_a_run_parameter_that_does_not_print_is_taken_or_told(parameter, name):
    if (parameter, name) == ("day", "big"):
        assert plan(registry=THREE, params={"day": 10**5000}).order == ("a", "b", "c")
        return
    with pytest.raises(DpcoreError) as caught:
        plan(registry=THREE, params={parameter: UNPRINTABLE[name]})
    told(caught.value)


# ---------------------------------------------------------------- hints


WORDS = st.sampled_from(
    [
        "int",
        "list[int]",
        "Nope",
        "list[Nope]",
        "1 +",
        "int | 3",
        "tuple[()]",
        "None",
        "__import__('os').nope",
        "[",
        "a.b.c",
        "",
    ]
)
HINTS = st.one_of(WORDS, VALUES, st.sampled_from([int, str, list[int], None, Any, MISSING]))


@quick
@given(HINTS, HINTS)
def test_any_hint_is_checked_or_left_unchecked_with_a_warning(gives, takes):
    tasks = dpcore.Registry()

    def up() -> int:
        return 1

    def down(up, day=1):
        return up

    up.__annotations__["return"] = gives
    down.__annotations__.update(up=takes, day=takes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HintWarning)
        tasks.task(up)
        tasks.task(down)
        try:
            assert plan(registry=tasks).order == ("up", "down")
        except DpcoreError as error:
            told(error)
        assert all(isinstance(problem, str) for problem in tasks.problems())


# ---------------------------------------------------------------- settings


SETTINGS = st.one_of(
    st.text(max_size=30),
    st.from_regex(
        r"(threads|inline|memory|filesystem|sqlite|redis)(@[a-z_]{1,6})?(:|://|\?)?[a-z0-9=&%/.:-]{0,20}",
        fullmatch=True,
    ),
    st.builds(
        "{}?{}={}".format,
        st.sampled_from(["threads", "filesystem", "sqlite", "memory"]),
        st.sampled_from(["slots", "path", "sync", "slot"]),
        st.integers().map(str)
        | st.text(max_size=10)
        | st.sampled_from(["9" * 5000, "nan", "1e400", "[" * 5000, "%ff", "true"]),
    ),
    st.just(LONG),
)
KINDS = st.sampled_from(["broker", "executor", "io", "store"])
PLUGINS = dpcore.Plugins(installed=False)


@quick
@given(KINDS, SETTINGS)
def test_any_adapter_string_makes_an_adapter_or_is_told(kind, text):
    try:
        PLUGINS.make(kind, text)
    except DpcoreError as error:
        told(error)


@quick
@given(KINDS, SETTINGS, st.dictionaries(st.sampled_from(["SLOTS", "PATH", "SYNC", "SLOT", ""]), st.text(max_size=8)))
def test_any_environment_makes_an_adapter_or_is_told(kind, text, variables):
    names = ["THREADS", "FILESYSTEM", "SQLITE"]
    environ = {f"DPCORE_{kind}_{name}_{key}".upper(): value for name in names for key, value in variables.items()}
    try:
        config = Config(environ=environ | {f"DPCORE_{kind.upper()}": text})
        PLUGINS.make(kind, config.choice(kind), config)
    except DpcoreError as error:
        told(error)


@quick
@given(
    st.text(max_size=60)
    | st.from_regex(r"\[?(tool\.dpcore|io|store)?\]?\n?[a-z.]{0,9} ?= ?['\"0-9\[{a-z]{0,9}", fullmatch=True)
)
@example("[tool.dpcore]\nio = " + "[" * 3000 + "]" * 3000)
@example("io = " + "[" * 3000 + "]" * 3000)
def test_any_project_file_is_read_or_told(tmp_path_factory, text):
    for name in ("dpcore.toml", "pyproject.toml"):
        file = tmp_path_factory.mktemp("project") / name
        file.write_text(text, encoding="utf-8", errors="surrogatepass")
        try:
            Config(file, environ={})
        except DpcoreError as error:
            told(error)


# ---------------------------------------------------------------- running


@pytest.mark.parametrize("name", UNPRINTABLE)
@pytest.mark.parametrize(
    "argument", ["executor", "io", "store", "params", "metadata", "keep", "plugins", "clock", "config"]
)
def test_what_is_no_argument_of_run_is_told_and_the_next_run_runs(argument, name, tasks, plugins):
    @tasks.task
    def one() -> int:
        return 1

    with pytest.raises(DpcoreError) as caught:
        run(**{"registry": tasks, "plugins": plugins} | {argument: UNPRINTABLE[name]})
    told(caught.value)
    assert run(registry=tasks, plugins=plugins)["one"] == 1


@pytest.mark.parametrize(
    "value", [DEEP, Hostile(), 10**5000, "\ud800", LONG], ids=["deep", "hostile", "big", "lone", "long"]
)
@pytest.mark.parametrize("argument", ["params", "metadata"])
def test_a_run_takes_any_value_as_a_parameter_and_as_metadata(argument, value, tasks, plugins, tmp_path):
    @tasks.task
    def told_of(value=None):
        job = dpcore.current_job()
        return type(value if value is not None else job.metadata["value"]).__name__

    store = f"sqlite:{tmp_path}/runs.db"
    result = run(registry=tasks, plugins=plugins, executor="inline", store=store, **{argument: {"value": value}})
    assert result["told_of"] == type(value).__name__
