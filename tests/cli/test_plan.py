"""``dpcore plan``: the tree, the data and the graphs of a plan."""

import json
import re

import pytest

SHOP = '''
from collections.abc import Iterator
from dpcore import task

@task(tags=["etl"])
def setup() -> None: ...

@task(name="load.orders-eu", tags=["etl", "slow"], dependencies=["setup"], max_retries=2, timeout=5)
def load(day: str) -> list[int]:
    """Load the orders of a day."""
    print("never printed")
    return [1]

@task(name="bestellungen.über", inputs={"rows": "load.orders-eu"})
def items(rows: list[int]) -> Iterator[int]:
    yield from rows

@task(each="bestellungen.über", inputs={"item": "bestellungen.über"})
def double(item: int) -> int: return 2 * item

@task(dependencies=["double"])
def report(values, limit: int = 3) -> None: ...

@task
def end(report) -> int: return 1
'''
ORDER = ["setup", "load.orders-eu", "bestellungen.über", "double", "report", "end"]


@pytest.fixture
def shop(write):
    return write("shop.py", SHOP)


@pytest.fixture
def show(command, shop):
    def show(*options):
        return command("plan", "shop.py", "--param", "day", *options).stdout

    return show


def test_the_tree_shows_what_each_task_needs_and_what_receives_it(show):
    head, *lines = show("--param", "limit=5").splitlines()
    assert re.fullmatch(r"plan [0-9a-f]{16}: 6 tasks in 6 levels", head)
    assert [line for line in lines if line] == [
        "level 1",
        "  setup  [etl]",
        "level 2",
        "  load.orders-eu  [etl, slow]",
        "    after setup",
        "    day <- run parameter",
        "level 3",
        "  bestellungen.über  [streams]",
        "    rows <- load.orders-eu",
        "level 4",
        "  double  [each bestellungen.über]",
        "    item <- bestellungen.über",
        "level 5",
        "  report",
        "    values <- double  (inferred)",
        "    limit <- run parameter",
        "level 6",
        "  end",
        "    report <- report  (inferred)",
        "run parameters: day, limit",
    ]


def test_the_tree_names_what_is_left_out_and_what_comes_from_an_earlier_run(show, command):
    said = show("load.orders-eu")
    assert "left out: load.orders-eu does not wait for 'setup', which is not selected" in said
    said = command("plan", "shop.py", "--root-task", "end", "--from-run", "r1").stdout
    assert "\n  end\n    report <- report of run r1" in said


def test_planning_runs_nothing_and_keeps_nothing(show, folder):
    assert "never printed" not in show()
    assert not (folder / ".dpcore").exists()


def test_json_is_complete_and_stable(show, shop):
    text = show("--format", "json")
    assert text == show("--format", "json")
    found = json.loads(text)
    assert found["order"] == list(found["tasks"]) == ORDER
    assert found["levels"] == [[name] for name in ORDER]
    assert (len(found["id"]), len(found["fingerprint"]), found["from_run"]) == (16, 16, None)
    assert {"upstream": "double", "task": "report", "parameter": "values", "inferred": True} in found["edges"]
    assert {"upstream": "setup", "task": "load.orders-eu", "parameter": None, "inferred": False} in found["edges"]
    load = found["tasks"]["load.orders-eu"]
    assert load["place"].startswith(f"{shop}:")
    assert load["tags"] == ["etl", "slow"]
    assert load["description"] == "Load the orders of a day."
    assert (load["after"], load["params"], load["inputs"]) == (["setup"], ["day"], {})
    assert load["settings"] | {"max_retries": 2, "timeout": 5, "retry_on": ["Exception"]} == load["settings"]
    assert found["tasks"]["report"]["inputs"] == {"values": "double"}
    assert found["tasks"]["double"]["each"] == "bestellungen.über"


def test_json_names_what_is_left_out(show):
    left_out = json.loads(show("load.orders-eu", "--format", "json"))["left_out"]
    assert left_out == [{"task": "load.orders-eu", "dependency": "setup"}]


# ---------------------------------------------------------------- graphs

EDGES = [
    ("setup", "load.orders-eu", None),
    ("load.orders-eu", "bestellungen.über", "rows"),
    ("bestellungen.über", "double", "item"),
    ("double", "report", "values (inferred)"),
    ("report", "end", "report (inferred)"),
]


def mermaid(text):
    """Read a flowchart: its tasks in order, and its edges as (upstream, task, label)."""
    head, *lines = text.splitlines()
    assert head == "flowchart TD"
    names, edges = {}, []
    for line in lines:
        if box := re.fullmatch(r' {4}([a-z]\d+)\["([^"]*)"\]', line):
            names[box[1]] = box[2]
        else:
            arrow = re.fullmatch(r' {4}(\w+) (?:-->\|"([^"]*)"\||-\.->) (\w+)', line)
            edges.append((names[arrow[1]], names[arrow[3]], arrow[2]))
    return [*names.values()], edges


def dot(text):
    """Read a graph of the part of Graphviz's grammar that is used: quoted ids, and one attribute."""
    quoted = r'"((?:[^"\\]|\\.)*)"'
    first, shape, *lines, last = text.splitlines()
    assert (first, shape, last) == ("digraph plan {", "    node [shape=box];", "}")
    names, edges = [], []
    for line in lines:
        if one := re.fullmatch(rf" {{4}}{quoted};", line):
            names.append(one[1])
        else:
            arrow = re.fullmatch(rf" {{4}}{quoted} -> {quoted} \[(?:label={quoted}|style=dashed)\];", line)
            edges.append(arrow.groups())
    return names, edges


@pytest.mark.parametrize(("form", "read"), [("mermaid", mermaid), ("dot", dot)])
def test_a_graph_reads_back_with_names_of_any_kind(show, form, read):
    assert read(show("--format", form)) == (ORDER, EDGES)


# ---------------------------------------------------------------- check


def test_check_says_only_that_it_can_be_planned(show):
    assert show("--check") == "ok: 6 tasks\n"


def test_check_is_a_document_where_that_is_asked_for(show):
    assert json.loads(show("--check", "--format", "json"))["ok"] is True


def test_check_says_every_fault(command, shop):
    said = command("plan", "shop.py", "nope", "load.orders-eu", "--check", code=2)
    assert said.stdout == ""
    assert "there is no task 'nope'" in said.stderr
    assert "task 'load.orders-eu' needs 'day', which is no task, has no default and is not given" in said.stderr


def test_a_parameter_that_is_given_is_converted_and_its_fault_told(command, shop):
    said = command("plan", "shop.py", "--param", "day", "--param", "limit=many", code=2).stderr
    assert "run parameter 'limit' does not fit 'limit' of task 'report'" in said
    assert "'=3' is not written name=value" in command("plan", "shop.py", "--param", "=3", code=2).stderr


def test_a_parameter_that_no_selected_task_takes_is_not_offered_again(command, shop):
    said = command("plan", "shop.py", "--root-task", "end", "--from-run", "r1", "--param", "day", code=2).stderr
    assert said.endswith("run parameter 'day' is taken by no selected task\n")


def test_strict_asks_for_hints(command, shop):
    assert "has no type hint for" in command("plan", "shop.py", "--param", "day", "--strict", code=2).stderr
