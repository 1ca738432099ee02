"""``dpcore tasks``: what a file has, without running it."""

import json
import re

FLOW = """
from collections.abc import Iterator
from dpcore import task
print("imported")

@task(tags=["nightly", "etl"])
def days(month: int, year: int = 2026) -> Iterator[str]:
    \'\'\'Give the days of a month.

    One by one.
    \'\'\'
    yield "1"

@task(each=days)
def load(days: str) -> float: ...

@task(dependencies=[load])
def clean(untyped) -> None: ...

@task
def bare(): ...
"""


def test_each_task_is_a_row_with_what_it_takes_gives_and_does(command, write):
    write("flow.py", FLOW)
    said = command("tasks", "flow.py")
    rows = [re.split("  +", line) for line in said.stdout.splitlines()]
    assert rows == [
        ["task", "tags", "takes", "gives", "does"],
        ["days", "nightly, etl", "month: int, [year: int]", "str, many", "Give the days of a month."],
        ["load", "-", "days: str", "float, many", "-"],
        ["clean", "-", "untyped", "nothing", "-"],
        ["bare", "-", "-", "?", "-"],
    ]
    assert said.stderr == "imported\n"


def test_columns_are_as_wide_as_a_terminal_shows_them(command, write):
    write(
        "wide.py",
        """
        from dpcore import task
        @task
        def 集計(): "合計を数える\u3000毎日 \x1b[2J"
        @task
        def ok(集計): "x"
        """,
    )
    said = command("tasks", "wide.py").stdout.splitlines()
    assert [line.partition("-")[0] for line in said[1:]] == ["集計  ", "ok    "]
    assert said[1].endswith("合計を数える\u3000毎日 \\x1b[2J")
    told = command("run", "wide.py").stdout.splitlines()
    assert [line.rpartition("  ")[0] for line in told[1:3]] == ["succeeded  集計", "succeeded  ok  "]


def test_tasks_are_picked_by_their_tags(command, write):
    write("flow.py", FLOW)
    assert [line.split()[0] for line in command("tasks", "flow.py", "--tag", "etl").stdout.splitlines()] == [
        "task",
        "days",
    ]
    assert command("tasks", "flow.py", "--tag", "none").stdout == "no task has such a tag\n"


def test_json_has_the_schemas(command, write):
    file = write("flow.py", FLOW)
    found = {one["name"]: one for one in json.loads(command("tasks", "flow.py", "--json").stdout)}
    days = found["days"]
    assert (days["place"], days["tags"], days["streams"]) == (f"{file}:6", ["nightly", "etl"], True)
    assert days["parameters"]["year"] == {"hint": "int", "required": False}
    assert days["parameters_schema"]["properties"]["year"] == {"type": "integer", "default": 2026}
    assert days["result_schema"]["type"] == "string"
    assert (found["load"]["each"], found["clean"]["dependencies"]) == ("days", ["load"])
    assert found["clean"]["parameters"]["untyped"] == {"hint": None, "required": True}
    assert found["bare"]["result"] is None


def test_a_file_that_is_not_there_is_one_message(command, write):
    assert "there is no file 'flwo.py'" in command("tasks", "flwo.py", code=2).stderr
