"""Plans: selection, wiring, order, identity, and every fault at once."""

from __future__ import annotations

import pickle
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dpcore
from dpcore import plan
from dpcore.errors import (
    CycleError,
    GivenTaskError,
    InputMismatchError,
    MissingHintError,
    MissingInputError,
    ParamError,
    PlanningError,
    SelectionError,
    TaskNotFoundError,
    UnreadStreamError,
)


def faults(tasks, *selection, **arguments) -> list[Exception]:
    with pytest.raises(PlanningError) as caught:
        plan(*selection, registry=tasks, **arguments)
    text = str(caught.value)
    for fault in caught.value.exceptions:
        assert f"  - {fault}" in text
        assert str(pickle.loads(pickle.dumps(fault))) == str(fault)
    return list(caught.value.exceptions)


def edges(plan) -> set[tuple]:
    return {tuple(edge) for edge in plan.edges}


@pytest.fixture
def shop(tasks):
    """orders -> total -> report, audit after total, and prices apart."""

    @tasks.task(tags=["etl"])
    def orders() -> list[int]:
        return [30, 10, 2]

    @tasks.task(tags=["etl", "sums"])
    def total(orders: list[int]) -> int:
        return sum(orders)

    @tasks.task(tags=["out"])
    def report(total: int, title: str = "shop") -> str:
        return f"{title}: {total}"

    @tasks.task(dependencies=["total"])
    def audit() -> None:
        pass

    @tasks.task
    def prices() -> dict[str, float]:
        return {}

    return tasks


# ---------------------------------------------------------------- wiring


def test_a_an_input_named_in_inputs_is_fed_by_that_task(tasks):
    @tasks.task
    def orders() -> list[int]: ...

    @tasks.task(inputs={"rows": "orders"})
    def total(rows: list[int]) -> int: ...

    assert edges(plan(registry=tasks)) == {("orders", "total", "rows", False)}


def test_b_a_parameter_named_like_a_dependency_is_fed_by_it_even_if_it_has_a_default(tasks):
    @tasks.task
    def orders() -> int: ...

    @tasks.task(dependencies=[orders])
    def total(orders: int = 5) -> int: ...

    assert edges(plan(registry=tasks)) == {("orders", "total", "orders", False)}


def test_c_a_required_parameter_named_like_a_task_is_fed_by_it_and_marked_as_inferred(tasks):
    @tasks.task
    def orders() -> int: ...

    @tasks.task
    def total(orders: int) -> int: ...

    @tasks.task
    def optional(orders: int = 5) -> int: ...

    assert edges(plan(registry=tasks)) == {("orders", "total", "orders", True)}


def test_d_the_only_parameter_left_takes_the_only_dependency_left(tasks):
    @tasks.task
    def extract() -> list[int]: ...

    @tasks.task
    def log() -> None: ...

    @tasks.task(dependencies=["extract"])
    def transform(data: list[int], factor: int = 2) -> int: ...

    @tasks.task(dependencies=["log"])
    def after_log() -> int: ...

    assert edges(plan(registry=tasks)) == {
        ("extract", "transform", "data", True),
        ("log", "after_log", None, False),
    }


def test_d_does_not_take_a_dependency_that_returns_nothing(tasks):
    @tasks.task
    def setup() -> None: ...

    @tasks.task(dependencies=["setup"])
    def work(data: int) -> int: ...

    (fault,) = faults(tasks)
    assert isinstance(fault, MissingInputError)
    assert edges(plan(registry=tasks, params=["data"])) == {("setup", "work", None, False)}


def test_d_does_not_guess_between_two_dependencies(tasks):
    for name in ("one", "two"):

        @tasks.task(name=name)
        def make() -> int: ...

    @tasks.task(dependencies=["one", "two"])
    def work(data: int) -> int: ...

    (fault,) = faults(tasks)
    assert "task 'work' needs 'data', which is no task, has no default and is not given" in str(fault)
    assert "inputs={'data': ...}" in str(fault)
    assert "--param data=..." in str(fault)


def test_d_that_does_not_fit_is_an_error_that_offers_both_cures(tasks):
    @tasks.task
    def extract() -> list[int]: ...

    @tasks.task(dependencies=["extract"])
    def transform(day: str) -> int: ...

    (fault,) = faults(tasks)
    assert isinstance(fault, InputMismatchError)
    assert "task 'extract' returns list[int], but 'transform' wants str for 'day'" in str(fault)
    assert "inputs={'day': ...}, or give the parameter a default" in str(fault)
    assert edges(plan(registry=tasks, params={"day": "x"})) == {("extract", "transform", None, False)}


def test_a_task_does_not_feed_itself(tasks):
    @tasks.task
    def orders(orders: int) -> int: ...

    (fault,) = faults(tasks)
    assert isinstance(fault, MissingInputError)


def test_a_mapped_task_needs_a_stream_and_a_parameter_for_its_items(tasks):
    @tasks.task
    def days() -> Iterator[str]:
        yield ""

    @tasks.task
    def one() -> int: ...

    @tasks.task(each="days")
    def good(day: str) -> int: ...

    @tasks.task(each="one")
    def no_stream(value: int) -> int: ...

    @tasks.task(each="days")
    def unread() -> int: ...

    @tasks.task(each="days")
    def misfit(day: int) -> int: ...

    found = faults(tasks)
    assert [type(fault) for fault in found] == [InputMismatchError, UnreadStreamError, InputMismatchError]
    assert "wants each item of a stream" in str(found[0])
    assert "task 'unread' is mapped over each item of 'days', but no parameter receives an item" in str(found[1])
    assert "task 'days' returns str, but 'misfit' wants int" in str(found[2])
    assert edges(plan("good", registry=tasks)) == {("days", "good", "day", True)}


# ---------------------------------------------------------------- run parameters


def test_what_no_task_supplies_is_a_run_parameter_converted_by_its_hint(tasks):
    @tasks.task
    def load(day: int, limit: int = 10) -> int: ...

    made = plan(registry=tasks, params={"day": "5"})
    assert made.arguments == {"load": {"day": 5}}
    assert plan(registry=tasks, params=["day", "limit"]).arguments == {"load": {}}


def test_a_run_parameter_beats_what_is_inferred_and_gives_a_tasks_result(tasks):
    @tasks.task
    def orders() -> list[int]: ...

    @tasks.task(inputs={"rows": "orders"})
    def total(rows: list[int]) -> int: ...

    @tasks.task
    def most(orders: list[int]) -> int: ...

    made = plan(registry=tasks, params={"orders": [1]})
    assert list(made.tasks) == ["total", "most"]
    assert made.arguments == {"total": {"rows": [1]}, "most": {"orders": [1]}}
    assert edges(made) == set()


def test_text_in_the_place_of_a_tasks_result_is_converted_by_the_hint_of_who_takes_it(tasks):
    @tasks.task
    def day() -> int: ...

    @tasks.task
    def hours() -> Iterator[int]: ...

    @tasks.task
    def total(day: int) -> int: ...

    @tasks.task
    def unhinted(day, hours): ...

    made = plan("total", "unhinted", registry=tasks, params={"day": "21", "hours": "1,2"})
    assert made.arguments == {"total": {"day": 21}, "unhinted": {"day": 21, "hours": [1, 2]}}
    (fault,) = faults(tasks, "total", params={"day": "noon"})
    assert isinstance(fault, ParamError)
    assert str(fault).startswith("run parameter 'day' does not fit 'day' of task 'total': 'noon' is not an int")


def test_any_other_value_in_the_place_of_a_tasks_result_is_taken_as_it_is(tasks):
    @tasks.task
    def rows() -> list[int]: ...

    @tasks.task
    def total(rows: list[int]) -> int: ...

    fake = object()
    assert plan("total", registry=tasks, params={"rows": fake}).arguments["total"]["rows"] is fake


def test_a_task_whose_result_is_given_cannot_be_selected(shop):
    (fault,) = faults(shop, "orders", "total", params={"orders": [1]})
    assert isinstance(fault, GivenTaskError)
    assert "task 'orders' is selected, but params= gives its result" in str(fault)


def test_a_run_parameter_that_nobody_takes_is_told_with_the_nearest_one(tasks):
    @tasks.task
    def load(day: int) -> int: ...

    found = faults(tasks, params={"dya": 1})
    assert any(
        isinstance(fault, ParamError)
        and "run parameter 'dya' is taken by no selected task (taken: 'day'); did you mean 'day'?" in str(fault)
        for fault in found
    )


def test_a_run_parameter_that_does_not_convert_is_told_with_the_task(tasks):
    @tasks.task
    def load(day: int) -> int: ...

    (fault,) = faults(tasks, params={"day": "x"})
    assert str(fault).startswith("run parameter 'day' does not fit 'day' of task 'load': 'x' is not an int")


# ---------------------------------------------------------------- selection


@pytest.mark.parametrize(
    ("selection", "arguments", "wanted"),
    [
        ((), {}, "orders prices total report audit"),
        (("total",), {}, "orders total"),
        (("audit",), {}, "audit"),
        (("+audit",), {}, "orders total audit"),
        (("total+",), {}, "orders total report audit"),
        (("+total+",), {}, "orders total report audit"),
        (("tag:sums",), {}, "orders total"),
        (("tag:sums+",), {}, "orders total report audit"),
        (("prices", "audit"), {}, "audit prices"),
        ((), {"tags": ["out"]}, "orders total report"),
        (("prices",), {"tags": ["sums"]}, "orders prices total"),
        ((), {"exclude": ["report"]}, "orders prices total audit"),
        (("total+",), {"exclude": ["audit", "tag:out"]}, "orders total"),
        ((), {"exclude": ["report+", "prices"]}, "orders total audit"),
        ((), {"root_tasks": ["total"], "params": {"orders": [1]}}, "total report audit"),
        ((), {"root_tasks": ["total"], "include_upstream": True}, "orders total report audit"),
        ((), {"root_tasks": ["total"], "from_run": "r1"}, "total report audit"),
    ],
)
def test_a_selection_stands_for_these_tasks(shop, selection, arguments, wanted):
    assert " ".join(plan(*selection, registry=shop, **arguments).order) == wanted


def test_functions_select_too(shop):
    assert plan(shop["total"].call, registry=shop).order == ("orders", "total")


def test_root_tasks_are_exact_and_each_missing_input_is_named_with_both_cures(shop):
    (fault,) = faults(shop, root_tasks=["total"])
    assert isinstance(fault, MissingInputError)
    text = str(fault)
    assert "task 'total' needs 'orders', the result of 'orders', which is not selected" in text
    assert "from_run=" in text
    assert "params={'orders': ...}" in text


def test_the_cure_for_a_missing_input_names_the_task_where_the_parameter_has_another_name(tasks):
    @tasks.task
    def orders() -> int: ...

    @tasks.task(inputs={"rows": "orders"})
    def total(rows: int) -> int: ...

    (fault,) = faults(tasks, root_tasks=["total"])
    assert str(fault).endswith("or give it (params={'orders': ...}, --param orders=...)")
    assert plan(registry=tasks, root_tasks=["total"], params={"orders": 1}).order == ("total",)


def test_upstream_of_every_task_below_a_root_is_included(tasks):
    @tasks.task
    def root() -> int: ...

    @tasks.task
    def side() -> int: ...

    @tasks.task
    def join(root: int, side: int) -> int: ...

    assert plan(registry=tasks, root_tasks=["root"], include_upstream=True).order == ("root", "side", "join")


def test_an_order_only_dependency_outside_the_selection_is_left_out_and_listed(shop):
    made = plan("audit", registry=shop)
    assert made.left_out == (("audit", "total"),)
    assert made.needs["audit"] == ()


def test_data_from_an_earlier_run_is_kept_apart(shop):
    made = plan(registry=shop, root_tasks=["report"], from_run="r1")
    assert made.earlier == {"report": {"total": "total"}}
    assert made.needs["report"] == ()


@pytest.mark.parametrize(
    ("selection", "arguments", "kind", "words"),
    [
        (("ordrs",), {}, TaskNotFoundError, "there is no task 'ordrs'"),
        (("ordrs",), {}, TaskNotFoundError, "did you mean 'orders'?"),
        (("tag:sms",), {}, SelectionError, "no task has the tag 'sms'"),
        (("tag:sms",), {}, SelectionError, "did you mean 'tag:sums'?"),
        (("a b",), {}, SelectionError, "a selection is name, +name, name+, +name+ or tag:word"),
        (("",), {}, SelectionError, "a selection is name"),
        (("++total",), {}, SelectionError, "a selection is name"),
        ((), {"tags": "etl"}, SelectionError, "tags= takes a list"),
        ((), {"tags": []}, SelectionError, "is empty"),
        ((), {"root_tasks": []}, SelectionError, "is empty"),
        ((), {"root_tasks": ["nope"]}, TaskNotFoundError, "there is no task 'nope'"),
        ((), {"exclude": ["nope"]}, TaskNotFoundError, "there is no task 'nope'"),
        ((), {"exclude": "orders"}, SelectionError, "exclude= takes a list"),
        ((5,), {}, SelectionError, "it is no name and no function"),
        ((print,), {}, SelectionError, "that function is not a task of the registry"),
    ],
)
def test_a_selection_that_stands_for_nothing_is_told(shop, selection, arguments, kind, words):
    assert any(isinstance(fault, kind) and words in str(fault) for fault in faults(shop, *selection, **arguments))


def test_a_selection_that_is_empty_does_not_blame_the_registry(shop):
    for arguments in ({"tags": []}, {"root_tasks": []}, {"exclude": ["orders+", "prices"]}):
        (fault,) = faults(shop, **arguments)
        assert "the selection is empty" in str(fault)


def test_a_task_whose_result_is_given_may_be_excluded(shop):
    assert plan("total", registry=shop, exclude=["orders"], params={"orders": [1]}).order == ("total",)


def test_an_empty_registry_is_told(tasks):
    (fault,) = faults(tasks)
    assert "the registry is empty" in str(fault)


# ---------------------------------------------------------------- faults


def test_every_fault_is_found_and_reported_together(tasks):
    @tasks.task(dependencies=["gone"])
    def one() -> int: ...

    @tasks.task
    def two(nowhere: int) -> int: ...

    @tasks.task
    def three(one: str) -> int: ...

    @tasks.task(dependencies=["five"])
    def four() -> int: ...

    @tasks.task(dependencies=["four"])
    def five() -> int: ...

    @tasks.task(dependencies=["seven"])
    def six() -> int: ...

    @tasks.task(dependencies=["six"])
    def seven() -> int: ...

    found = faults(tasks, params={"unused": 1})
    assert sorted(type(fault).__name__ for fault in found) == [
        "CycleError", "CycleError", "InputMismatchError", "MissingInputError", "ParamError", "TaskNotFoundError",
    ]  # fmt: skip
    cycles = [fault.path for fault in found if isinstance(fault, CycleError)]
    assert cycles == [("five", "four", "five"), ("seven", "six", "seven")]


def test_a_cycle_is_told_with_its_path(tasks):
    @tasks.task
    def a(c: int) -> int: ...

    @tasks.task
    def b(a: int) -> int: ...

    @tasks.task
    def c(b: int) -> int: ...

    (fault,) = faults(tasks)
    assert str(fault) == "tasks wait for each other: a -> b -> c -> a; drop one of these dependencies"


def test_a_mismatch_is_told_with_both_hints_in_full_and_both_places(tasks):
    @tasks.task
    def rows() -> list[int]: ...

    @tasks.task
    def names(rows: list[str]) -> int: ...

    (fault,) = faults(tasks)
    text = str(fault)
    assert "task 'rows' returns list[int], but 'names' wants list[str] for 'rows'" in text
    assert text.count("test_plans.py:") == 2


def test_strict_asks_for_hints_on_data_edges_only(tasks):
    @tasks.task
    def rows(): ...

    @tasks.task
    def names(rows, other=None): ...

    @tasks.task(dependencies=["names"])
    def after(): ...

    assert len(plan(registry=tasks)) == 3
    (fault,) = faults(tasks, strict=True)
    assert isinstance(fault, MissingHintError)
    assert "task 'names' has no type hint for parameter 'rows', which strict=True asks for" in str(fault)


@pytest.mark.parametrize(
    ("wants", "fits"),
    [
        (Iterator[int], True),
        (AsyncIterator[int], True),
        (list[int], True),
        (list[str], False),
        (int, False),
    ],
)
def test_a_stream_fits_what_reads_it(tasks, wants, fits):
    @tasks.task
    def numbers() -> Iterator[int]:
        yield 1

    def read(numbers): ...

    read.__annotations__["numbers"] = wants
    tasks.task(read)
    if fits:
        assert edges(plan(registry=tasks)) == {("numbers", "read", "numbers", True)}
    else:
        (fault,) = faults(tasks)
        assert "task 'numbers' returns a stream of int" in str(fault)


# ---------------------------------------------------------------- order and identity


def test_levels_are_what_can_run_at_once_in_the_order_of_registration(shop):
    made = plan(registry=shop)
    assert made.levels == (("orders", "prices"), ("total",), ("report", "audit"))
    assert made.order == ("orders", "prices", "total", "report", "audit")
    assert made.ready([]) == ["orders", "prices"]
    assert made.ready({"orders"}) == ["prices", "total"]
    assert made.dependents["total"] == ("report", "audit")


def registry_of(graph: dict[str, list[str]], order: list[str]) -> dpcore.Registry:
    registry = dpcore.Registry()
    for name in order:
        registry.task(name=name, dependencies=graph[name])(lambda: None)
    return registry


@st.composite
def graphs(draw) -> dict[str, list[str]]:
    size = draw(st.integers(1, 12))
    names = [f"t{number}" for number in range(size)]
    return {
        name: draw(st.lists(st.sampled_from(names[:at]), unique=True, max_size=3)) if at else []
        for at, name in enumerate(names)
    }


@given(graphs(), st.randoms(use_true_random=False))
@settings(deadline=None, derandomize=True, max_examples=200)
def test_the_order_respects_every_edge_and_the_id_does_not_know_who_came_first(graph, rng):
    names = list(graph)
    made = plan(registry=registry_of(graph, names))
    rng.shuffle(names)
    other = plan(registry=registry_of(graph, names))
    assert made.id == other.id
    for one in (made, other):
        place = {name: at for at, name in enumerate(one.order)}
        assert all(place[up] < place[name] for name, ups in graph.items() for up in ups)
        done: set[str] = set()
        for level in one.levels:
            assert one.ready(done) == list(level)
            done.update(level)
        assert done == set(graph)


@given(graphs(), st.data())
@settings(deadline=None, derandomize=True, max_examples=200)
def test_the_id_changes_with_every_edge(graph, data):
    names = list(graph)
    made = plan(registry=registry_of(graph, names))
    pairs = [(up, name) for at, name in enumerate(names) for up in names[:at]]
    if pairs:
        up, name = data.draw(st.sampled_from(pairs))
        changed = {**graph, name: sorted({*graph[name]} ^ {up})}
        assert plan(registry=registry_of(changed, names)).id != made.id


def test_the_fingerprint_covers_code_and_the_id_does_not(tasks):
    def one(tasks, version):
        @tasks.task(version=version)
        def work() -> int:
            return 1

        return plan(registry=tasks)

    first, second = one(dpcore.Registry(), "1"), one(dpcore.Registry(), "2")
    assert first.id == second.id
    assert first.fingerprint != second.fingerprint
    assert first.fingerprint == one(dpcore.Registry(), "1").fingerprint


def chain(length: int) -> dpcore.Registry:
    registry = dpcore.Registry()
    for number in range(length):
        registry.task(name=f"t{number}", dependencies=[f"t{number - 1}"] if number else [])(lambda: None)
    return registry


def test_a_chain_of_100_000_tasks_plans_without_recursion():
    made = plan("+t99999", registry=chain(100_000))
    assert len(made) == len(made.levels) == 100_000
    assert made.order[-1] == "t99999"
    assert len(made.edges) == 99_999


def test_a_cycle_through_50_000_tasks_is_told_without_recursion():
    registry = chain(50_000)
    registry.remove("t0")
    registry.task(name="t0", dependencies=["t49999"])(lambda: None)
    (fault,) = faults(registry)
    assert isinstance(fault, CycleError)
    assert len(fault.path) == 50_001


def test_the_fingerprint_of_a_task_covers_its_code_and_what_feeds_it():
    def made(version: str, *, after: list[str], fed: str = "a") -> dpcore.Plan:
        shop = dpcore.Registry()
        shop.task(name="a", version=version)(lambda: 1)
        shop.task(name="b")(lambda: 1)
        shop.task(name="c", inputs={"x": fed}, dependencies=after)(lambda x: x)
        return plan(registry=shop)

    def prints(found: dpcore.Plan) -> list[str]:
        return [found.fingerprint_of(name) for name in "abc"]

    first = prints(made("1", after=[]))
    assert first == prints(made("1", after=[]))
    for other, differ in (
        (made("2", after=[]), "a"),
        (made("1", after=["b"]), "c"),
        (made("1", after=[], fed="b"), "c"),
    ):
        assert [name for name, one, two in zip("abc", first, prints(other), strict=True) if one != two] == [differ]
