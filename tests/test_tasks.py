"""Tasks: what may be registered, and what is said when it may not."""

from __future__ import annotations

import functools
import importlib
import os
import pickle
import subprocess
import sys
import types
import warnings

import pytest

import dpcore
from dpcore.errors import DuplicateTaskError, HintWarning, TaskDefinitionError, TaskNotFoundError, UsedOutsideError


def test_a_bare_decorator_registers_and_returns_the_function_itself(tasks):
    def orders() -> int:
        return 1

    assert tasks.task(orders) is orders
    assert list(tasks) == ["orders"]
    assert tasks["orders"].call is orders


def test_a_called_decorator_keeps_every_setting(tasks):
    @tasks.task
    def first() -> list[int]:
        return [1]

    @tasks.task(
        name="etl.load-all",
        tags=["etl", "nightly"],
        dependencies=["later", first],
        description="loads",
        max_retries=3,
        retry_delay=0.5,
        backoff=2,
        max_delay=8,
        jitter=0.1,
        retry_on=OSError,
        timeout=2.5,
        fail_safe=True,
        stream_output=True,
        lead=5,
        drain=True,
        inputs={"rows": first},
        version="2",
    )
    def load(rows):
        yield from rows

    task = tasks["etl.load-all"]
    assert task.tags == ("etl", "nightly")
    assert task.dependencies == ("later", "first")
    assert (task.description, task.max_retries, task.retry_delay, task.backoff) == ("loads", 3, 0.5, 2)
    assert (task.max_delay, task.jitter, task.retry_on, task.timeout) == (8, 0.1, (OSError,), 2.5)
    assert (task.fail_safe, task.stream_output, task.streams, task.version) == (True, True, True, "2")
    assert (task.lead, task.drain) == (5, True)
    assert task.inputs == {"rows": "first"}


def test_the_description_is_the_docstring_by_default(tasks):
    @tasks.task
    def documented():
        """Say what it does."""

    assert tasks["documented"].description == "Say what it does."


def plain(rows=None):
    return rows


WRONG = [
    ("name", {"name": ""}, "identifiers joined by"),
    ("name", {"name": "a/b"}, "identifiers joined by"),
    ("name", {"name": "../x"}, "identifiers joined by"),
    ("name", {"name": "a+"}, "identifiers joined by"),
    ("name", {"name": "a:b"}, "identifiers joined by"),
    ("name", {"name": "a b"}, "identifiers joined by"),
    ("name", {"name": "a\n"}, "identifiers joined by"),
    ("name", {"name": "1a"}, "identifiers joined by"),
    ("name", {"name": "é" * 101}, "200 bytes"),
    ("name", {"name": 5}, "identifiers joined by"),
    ("tags", {"tags": "etl"}, "a list of words"),
    ("tags", {"tags": 5}, "a list of words"),
    ("tags", {"tags": ["a b"]}, "words"),
    ("tags", {"tags": ["a", "a"]}, "without repetition"),
    ("dependencies", {"dependencies": "abc"}, "a list of task names or functions"),
    ("dependencies", {"dependencies": ["a", "a"]}, "without repetition"),
    ("dependencies", {"dependencies": ["plain"]}, "another task"),
    ("dependencies", {"dependencies": [5]}, "a task name, or a function that is a task"),
    ("dependencies", {"dependencies": ["a+"]}, "a task name, or a function that is a task"),
    ("dependencies", {"dependencies": [None]}, "a task name, or a function that is a task"),
    ("description", {"description": 5}, "a text"),
    ("max_retries", {"max_retries": -1}, "a whole number, 0 or more"),
    ("max_retries", {"max_retries": "3"}, "a whole number, 0 or more"),
    ("max_retries", {"max_retries": True}, "a whole number, 0 or more"),
    ("max_retries", {"max_retries": 1.0}, "a whole number, 0 or more"),
    ("retry_delay", {"retry_delay": -1}, "a number of seconds, 0 or more"),
    ("retry_delay", {"retry_delay": float("nan")}, "a number of seconds, 0 or more"),
    ("retry_delay", {"retry_delay": float("inf")}, "a number of seconds, 0 or more"),
    ("backoff", {"backoff": 0.5}, "a number of at least 1"),
    ("max_delay", {"max_delay": "1"}, "a number of seconds, 0 or more"),
    ("jitter", {"jitter": 2}, "a number from 0 to 1"),
    ("retry_on", {"retry_on": "OSError"}, "an exception class, or a tuple of them"),
    ("retry_on", {"retry_on": (OSError, 5)}, "an exception class, or a tuple of them"),
    ("timeout", {"timeout": 0}, "a number of seconds above 0, or None"),
    ("timeout", {"timeout": -5}, "a number of seconds, 0 or more|above 0"),
    ("timeout", {"timeout": "x"}, "a number of seconds"),
    ("fail_safe", {"fail_safe": 1}, "True or False"),
    ("stream_output", {"stream_output": "yes"}, "True or False"),
    ("lead", {"lead": 0}, "a whole number, 1 or more"),
    ("lead", {"lead": 2.5}, "a whole number, 1 or more"),
    ("drain", {"drain": "yes"}, "True or False"),
    ("each", {"each": 5}, "a task name, or a function that is a task"),
    ("each", {"each": "plain"}, "another task"),
    ("inputs", {"inputs": ["rows"]}, "a mapping from parameter to task"),
    ("inputs", {"inputs": {"nope": "orders"}}, "parameters of the function: rows"),
    ("inputs", {"inputs": {"rows": None}}, "a task name, or a function that is a task"),
    ("version", {"version": 2}, "a text"),
]


@pytest.mark.parametrize(("argument", "settings", "wanted"), WRONG, ids=lambda value: str(value)[:40])
def test_an_argument_that_makes_no_sense_is_told_with_the_task_and_nothing_is_registered(
    tasks, argument, settings, wanted
):
    with pytest.raises(TaskDefinitionError) as caught:
        tasks.task(**settings)(plain)
    text = str(caught.value)
    assert f"{argument}=" in text
    assert any(part in text for part in wanted.split("|")), text
    assert len(tasks) == 0
    assert str(pickle.loads(pickle.dumps(caught.value))) == text


def test_an_unknown_argument_is_told_with_the_nearest_one(tasks):
    with pytest.raises(TypeError, match="task\\(\\) takes no 'retries'; did you mean 'max_retries'"):
        tasks.task(retries=3)(plain)


def test_a_function_and_settings_do_not_go_together(tasks):
    with pytest.raises(TypeError, match="a function and settings do not go together"):
        tasks.task(plain, tags=["x"])


def test_what_is_not_callable_is_no_task(tasks):
    with pytest.raises(TaskDefinitionError, match="settings are given by keyword"):
        tasks.task("orders")
    with pytest.raises(TaskDefinitionError, match="callable"):
        tasks.task(name="x")(5)


def test_a_lambda_needs_a_name(tasks):
    with pytest.raises(TaskDefinitionError, match="name=None must be given"):
        tasks.task(lambda: 1)
    tasks.task(name="one")(lambda: 1)
    assert tasks["one"].call() == 1


def test_a_name_that_is_taken_is_told_with_both_places(tasks):
    @tasks.task(name="same")
    def one():
        pass

    with pytest.raises(DuplicateTaskError) as caught:

        @tasks.task(name="same")
        def two():
            pass

    text = str(caught.value)
    assert "task 'same' is defined twice" in text
    assert text.count("test_tasks.py:") == 2
    assert tasks["same"].call is one
    assert str(pickle.loads(pickle.dumps(caught.value))) == text


def test_a_module_that_is_reloaded_defines_its_tasks_again(tasks, tmp_path, monkeypatch):
    (tmp_path / "reloaded_tasks.py").write_text(
        "import builtins\nREGISTRY = builtins.dpcore_test_registry\n@REGISTRY.task\ndef again():\n    return 1\n"
    )
    monkeypatch.setattr("builtins.dpcore_test_registry", tasks, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("reloaded_tasks")
    before = tasks["again"].call
    importlib.reload(module)
    assert tasks["again"].call is module.again is not before
    sys.modules.pop("reloaded_tasks")


def test_a_cell_of_a_notebook_may_be_run_again(tasks):
    namespace = {"__name__": "__main__", "task": tasks.task}
    exec(compile("@task\ndef cell():\n    return 1\n", "<cell 1>", "exec"), namespace)
    exec(compile("\n\n@task\ndef cell():\n    return 2\n", "<cell 2>", "exec"), namespace)
    assert tasks["cell"].call() == 2


def test_a_function_that_is_no_task_is_no_dependency(tasks):
    with pytest.raises(UsedOutsideError, match=r"task 'late' depends on the function .*\.plain, which is not a task"):

        @tasks.task(dependencies=[plain])
        def late():
            pass


def test_a_function_under_two_names_must_be_named(tasks):
    tasks.task(name="a")(plain)
    tasks.task(name="b")(plain)
    with pytest.raises(TaskDefinitionError, match="it is several tasks \\(a, b\\)"):

        @tasks.task(dependencies=[plain])
        def late():
            pass


def test_an_unknown_task_is_a_key_error_with_the_nearest_name(tasks):
    tasks.task(name="orders")(plain)
    assert "ordrs" not in tasks
    assert tasks.get("ordrs") is None
    with pytest.raises(TaskNotFoundError) as caught:
        tasks["ordrs"]
    assert isinstance(caught.value, KeyError)
    assert str(caught.value) == "there is no task 'ordrs' (tasks: 'orders'); did you mean 'orders'?"


def test_tagged_and_tags_keep_the_order_of_registration(tasks):
    for name in ["c", "a", "b"]:
        tasks.task(name=name, tags=["x", name])(functools.partial(plain, name))
    assert [task.name for task in tasks.tagged("x")] == ["c", "a", "b"]
    assert tasks.tagged("none") == []
    assert tasks.tags == ("x", "c", "a", "b")


def test_a_removed_task_is_gone_and_may_be_defined_anew(tasks):
    tasks.task(name="a")(plain)
    tasks.remove("a")
    assert len(tasks) == 0
    tasks.task(name="a")(plain)
    with pytest.raises(TaskNotFoundError):
        tasks.remove("b")


def test_a_registry_without_problems_says_so(tasks):
    @tasks.task(dependencies=["later"])
    def first(a: int) -> str:
        return ""

    @tasks.task
    def later() -> None: ...

    assert tasks.problems() == []


@pytest.mark.parametrize(
    "settings",
    [{"dependencies": ["ordrs"]}, {"inputs": {"rows": "ordrs"}}, {"each": "ordrs"}],
    ids=lambda one: next(iter(one)),
)
def test_a_problem_is_a_task_that_is_not_there_with_the_nearest_name(tasks, settings):
    tasks.task(name="orders")(lambda: 1)
    tasks.task(name="total", **settings)(lambda rows: 1)
    [problem] = tasks.problems()
    assert problem.startswith("task 'total' depends on 'ordrs', but there is no such task")
    assert problem.endswith("did you mean 'orders'?")


def test_a_task_that_is_not_there_is_one_problem_however_often_it_is_named(tasks):
    tasks.task(name="total", dependencies=["gone"], inputs={"rows": "gone"}, each="gone")(lambda rows: 1)
    assert len(tasks.problems()) == 1


@pytest.mark.parametrize(
    ("hint", "problem"),
    [
        ("Nowhere", "the hint 'Nowhere' of {place} does not resolve: NameError: name 'Nowhere' is not defined"),
        (
            "list[Nowhere]",
            "the hint 'list[Nowhere]' of {place} does not resolve: NameError: name 'Nowhere' is not defined",
        ),
        ("1 / 0", "the hint '1 / 0' of {place} does not resolve: ZeroDivisionError: division by zero"),
        (
            "int.missing",
            "the hint 'int.missing' of {place} does not resolve: AttributeError: type object 'int' has no attribute 'missing'",
        ),
        (3.5, "the hint '3.5' of {place} is a value, not a type"),
        (["x"], "the hint '[x]' of {place} is a value, not a type"),
    ],
    ids=str,
)
def test_a_problem_is_a_hint_that_does_not_resolve_with_its_place(tasks, hint, problem):
    def load(a, b: int) -> str:
        return ""

    load.__annotations__ |= {"a": hint}
    tasks.task(load)

    def total(a: int) -> str:
        return ""

    total.__annotations__ |= {"return": hint}
    tasks.task(total)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # they are told, so nobody has to be warned as well
        assert tasks.problems() == [
            "task 'load': " + problem.format(place="parameter 'a'"),
            "task 'total': " + problem.format(place="the result"),
        ]


def test_a_problem_is_a_hint_that_is_no_expression(tasks):
    def load(a) -> str:
        return ""

    load.__annotations__["a"] = "int["
    tasks.task(load)
    [problem] = tasks.problems()
    assert problem.startswith("task 'load': the hint 'int[' of parameter 'a' does not resolve: SyntaxError: ")


def test_a_problem_is_a_function_that_does_not_say_what_it_takes(tasks):
    tasks.task(name="pairs")(dict)
    [problem] = tasks.problems()
    assert problem.startswith("task 'pairs': the parameters of <class 'dict'> cannot be read: no signature found")


def test_problems_are_in_the_order_of_the_tasks_and_all_of_them(tasks):
    @tasks.task(dependencies=["gone"])
    def bad(a: Nowhere, b: int) -> str:  # noqa: F821
        return ""

    tasks.task(name="worse", dependencies=["lost"])(lambda: 1)
    problems = tasks.problems()
    assert [problem.partition(":")[0] for problem in problems[1:2]] == ["task 'bad'"]
    assert [word in problem for word, problem in zip(["gone", "Nowhere", "lost"], problems, strict=True)] == [True] * 3


def test_the_settings_of_a_task_register_it_like_that_again(tasks):
    tasks.task(name="orders")(lambda: 1)
    tasks.task(name="total", dependencies=["orders"], inputs={"rows": "orders"}, max_retries=2, version="3")(
        lambda rows: 1
    )
    again = dpcore.Registry()
    again.task(**tasks["total"].settings)(tasks["total"].call)
    assert again["total"].settings == tasks["total"].settings
    assert again["total"].fingerprint == tasks["total"].fingerprint


def test_a_bad_hint_loses_only_itself_with_a_warning_that_names_it(tasks):
    @tasks.task
    def bad(a: Nowhere, b: int) -> str:  # noqa: F821
        return ""

    with pytest.warns(HintWarning, match="task 'bad': .*Nowhere") as caught:
        schema = tasks["bad"].schema
    assert [f"{warning.filename}:{warning.lineno}" for warning in caught] == [tasks["bad"].place]
    assert str(caught[0].message) == (
        "task 'bad': the hint 'Nowhere' of parameter 'a' does not resolve: NameError: name 'Nowhere' is not defined; "
        "it is left unchecked"
    )
    assert str(pickle.loads(pickle.dumps(caught[0].message))) == str(caught[0].message)
    assert schema.parameters["b"].hint is int
    assert schema.result is str


def test_the_default_registry_is_what_task_fills():
    assert isinstance(dpcore.registry, dpcore.Registry)
    assert dpcore.task.__self__ is dpcore.registry


def fingerprint_of(source: str, **settings) -> str:
    """Define ``f`` by *source* in a module of its own, with its source where inspect finds it, and return its fingerprint."""
    import linecache

    name = f"<fingerprint {hash(source)}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    module = types.ModuleType("fingerprinted")
    exec(compile(source, name, "exec"), module.__dict__)
    registry = dpcore.Registry()
    registry.task(**settings)(module.f)
    return registry["f"].fingerprint


def test_a_fingerprint_ignores_layout_comments_docstring_and_settings_that_are_not_the_code():
    one = fingerprint_of("def f(a=1):\n    return a + 1\n")
    assert one == fingerprint_of('def f(a=1):\n    """Say."""\n\n    # why\n    return (a +\n        1)\n')
    assert one == fingerprint_of("def f(a=1):\n    return a + 1\n", max_retries=3, timeout=1, tags=["x"])
    assert len(one) == 16


@pytest.mark.parametrize(
    ("source", "settings"),
    [
        ("def f(a=1):\n    return a + 2\n", {}),
        ("def f(a=2):\n    return a + 1\n", {}),
        ("def f(a=1):\n    return a + 1\n", {"version": "2"}),
    ],
)
def test_a_fingerprint_changes_with_code_defaults_and_version(source, settings):
    assert fingerprint_of(source, **settings) != fingerprint_of("def f(a=1):\n    return a + 1\n")


def test_a_function_that_makes_tasks_of_one_name_is_told_the_second_time(tasks):
    def make(number):
        @tasks.task
        def load():
            return number

    make(1)
    with pytest.raises(DuplicateTaskError, match="task 'load' is defined twice"):
        make(2)


def test_a_method_is_the_same_task_at_each_look(tasks):
    class Shop:
        def orders(self):
            return [1]

        def total(self, orders):
            return sum(orders)

    shop = Shop()
    tasks.task(shop.orders)
    tasks.task(dependencies=[shop.orders])(shop.total)
    assert tasks["total"].dependencies == ("orders",)
    assert dpcore.plan(shop.total, registry=tasks).order == ("orders", "total")
    assert tasks.named(Shop().orders) == ()


def test_a_fingerprint_covers_what_a_partial_binds_and_no_address(tasks):
    def add(a, b=object()):  # noqa: B008  (it prints with its address)
        return a

    for name, call in [
        ("one", functools.partial(add, 1)),
        ("two", functools.partial(add, 2)),
        ("same", functools.partial(add, 1)),
    ]:
        tasks.task(name=name)(call)
    assert tasks["one"].fingerprint == tasks["same"].fingerprint != tasks["two"].fingerprint
    assert " at 0x" not in repr(tasks["one"].fingerprint)


SOURCELESS = """
import dpcore

tasks = dpcore.Registry()
made = {}
exec("def f(rows=frozenset('abcdef')):\\n    return sorted((r for r in rows if r in {'a', 'b', 'c'}), key=lambda r: -ord(r))", made)
exec("def g(rows=frozenset('abcdef')):\\n    return sorted((r for r in rows if r in {'a', 'b', 'c'}), key=lambda r: +ord(r))", made)
for name in "fg":
    tasks.task(made[name])
    print(tasks[name].fingerprint)
"""


def test_a_function_without_source_has_one_fingerprint_in_every_process():
    def printed(seed: str) -> list[str]:
        environ = {**os.environ, "PYTHONHASHSEED": seed}
        return subprocess.check_output([sys.executable, "-c", SOURCELESS], env=environ, text=True).split()

    one, other = printed("1"), printed("2")
    assert one == other
    assert one[0] != one[1]  # they differ in what stands in a lambda of theirs
