"""``dpcore runs``: what was recorded, as a table and as data."""

import json
import re
from datetime import datetime

import pytest

from dpcore_plugins import SqliteRunStore

FLOW = """
from dpcore import task
@task(max_retries=1)
def load(day: str = "today") -> str:
    if day == "bad":
        raise ValueError("no such day")
    return day
@task
def report(load: str) -> None: ...
"""


@pytest.fixture
def recorded(command, write):
    """Three runs, of which the second failed; return their ids, oldest first."""
    write("flow.py", FLOW)
    days = [("good", 0), ("bad", 1), ("better", 0)]
    said = [command("run", "flow.py", "--param", f"day={day}", "--json", code=code).stdout for day, code in days]
    return [json.loads(one)["run_id"] for one in said]


def test_the_table_has_the_newest_run_first(command, recorded):
    head, *rows = command("runs").stdout.splitlines()
    assert head.split() == ["state", "tasks", "began", "duration", "run"]
    cells = [re.split(r"  +", row) for row in rows]
    assert [(row[0], row[1], row[4]) for row in cells] == [
        ("succeeded", "2/2", recorded[2]),
        ("failed", "0/2", recorded[1]),
        ("succeeded", "2/2", recorded[0]),
    ]
    began = datetime.strptime(cells[0][2], "%Y-%m-%d %H:%M:%S").astimezone()
    assert abs((datetime.now().astimezone() - began).total_seconds()) < 600
    assert re.fullmatch(r"\d+\.\d+ s", cells[0][3])


def test_the_table_is_as_long_as_it_is_asked_to_be(command, recorded):
    assert len(command("runs", "--limit", 2).stdout.splitlines()) == 3
    assert "0 is not in the range" in command("runs", "--limit", 0, code=2).stderr


def test_json_has_the_records_without_what_is_pickled_in_them(command, recorded):
    found = json.loads(command("runs", "--json").stdout)
    assert [one["run_id"] for one in found] == recorded[::-1]
    assert found[1]["counts"] == {"failed": 1, "skipped": 1}
    assert (found[0]["done"], found[0]["params"]) == (2, {"day": "'better'"})
    assert "carried" not in found[0]


@pytest.mark.parametrize("option", [[], ["--store", "sqlite:not/there.db"]], ids=" ".join)
def test_to_look_makes_nothing(command, folder, option):
    assert command("runs", *option).stdout == "no runs were recorded here yet\n"
    assert command("runs", "--json", *option).stdout == "[]\n"
    assert "there is no run 'latest'" in command("runs", "show", "latest", *option, code=2).stderr
    assert [*folder.iterdir()] == []


def test_a_run_that_no_store_in_memory_has_is_told_with_the_name_of_the_store(command):
    assert (
        "there is no run 'r1' in memory (latest: none)"
        in command("runs", "show", "r1", "--store", "memory", code=2).stderr
    )


def test_one_run_is_shown_task_by_task(command, recorded):
    said = command("runs", "show", recorded[1]).stdout
    lines = [re.split(r"  +", line) for line in said.splitlines()]
    fields = dict(line for line in lines if len(line) == 2)
    assert (fields["run"], fields["state"], fields["tasks"]) == (recorded[1], "failed", "0 of 2 succeeded")
    assert (fields["params"], fields["executor"]) == ("day='bad'", "multiprocess")
    assert fields["source"].endswith("flow.py")
    assert fields["selected"] == "every task"
    drawn = said.partition("\n\n")[2].splitlines()
    assert re.fullmatch(r"load    [ ▒]+  failed     \d\.\d+ s  x2", drawn[1])
    assert "▒" in drawn[1]
    assert drawn[2].strip() == "ValueError: no such day"
    assert re.fullmatch(r"report  'load' failed +skipped", drawn[3])


def test_one_run_as_json_has_its_tasks(command, recorded):
    found = json.loads(command("runs", "show", recorded[1], "--json").stdout)
    assert (found["run_id"], found["state"]) == (recorded[1], "failed")
    load = found["tasks"]["load"]
    assert (load["state"], load["attempts"], load["error"]) == ("failed", 2, "ValueError: no such day")
    assert "no such day" in load["traceback"]


def test_a_run_is_selected_by_the_beginning_of_its_id_or_as_the_latest(command, recorded):
    assert recorded[2] in command("runs", "show").stdout
    assert recorded[0] in command("runs", "show", recorded[0][:-1]).stdout
    said = command("runs", "show", "2", code=2).stderr
    assert f"several runs begin with '2': '{recorded[2]}', '{recorded[1]}', '{recorded[0]}'; write more" in said


@pytest.mark.parametrize("name", ["nope", "../x", "", "latest2"])
def test_a_run_that_is_not_there_is_told_the_nearest(command, recorded, name):
    said = command("runs", "show", name, code=2).stderr
    assert f"dpcore: there is no run {name!r} in sqlite:" in said
    assert f"latest: '{recorded[2]}'" in said
    near = command("runs", "show", f"x{recorded[0]}", code=2).stderr
    assert f"did you mean '{recorded[0]}'?" in near


PRINTS = """
from dpcore import current_job, task
@task(max_retries=1)
def load() -> int:
    for number in range(15):
        print("row", number, "of attempt", current_job().attempt)
    if current_job().attempt == 1:
        raise ValueError("no")
    print("\\x1b[31mred")
    return 1
@task
def quiet(load: int) -> None: ...
"""


def test_what_tasks_have_printed_on_worker_processes_is_shown_with_their_run(command, write):
    write("flow.py", PRINTS)
    command("run", "flow.py", "--executor", "multiprocess?workers=1", code=0)
    shown = command("runs", "show").stdout.splitlines()
    at = shown.index("printed by load, attempt 2:")
    assert shown[at - 1] == ""
    assert shown[at + 1 :] == [
        "  (6 lines before; --all shows them)",
        *[f"  row {number} of attempt 2" for number in range(6, 15)],
        "  \\x1b[31mred",
    ]
    everything = command("runs", "show", "--all").stdout.splitlines()
    assert everything[-16:-1] == [f"  row {number} of attempt 2" for number in range(15)]
    assert "quiet" not in "".join(everything[everything.index("printed by load, attempt 2:") :])
    tasks = json.loads(command("runs", "show", "--json").stdout)["tasks"]
    assert tasks["load"]["output"].endswith("row 14 of attempt 2\n\x1b[31mred\n")
    assert tasks["quiet"]["output"] is None


def test_the_store_can_be_chosen_before_show_and_after_it(command, write):
    write("flow.py", FLOW)
    command("run", "flow.py", "--store", "sqlite:other.db")
    for arguments in (
        ["--store", "sqlite:other.db", "show", "latest"],
        ["show", "latest", "--store", "sqlite:other.db"],
    ):
        assert "2 of 2 succeeded" in command("runs", *arguments).stdout
    assert "there is no run 'latest'" in command("runs", "show", "latest", code=2).stderr


def test_a_store_that_cannot_be_used_is_one_message(command, write):
    write("text.db", "no database" * 20)
    said = command("runs", "--store", "sqlite:text.db", code=2).stderr
    assert said.startswith("dpcore: the run store sqlite:")
    assert said.count("\n") == 1


def test_it_is_read_through_the_port(recorded, folder):
    import anyio

    async def ids():
        async with SqliteRunStore(path=folder / ".dpcore" / "runs.db") as store:
            return [record.run_id for record in await store.list()]

    assert anyio.run(ids) == recorded[::-1]


def test_of_a_run_that_never_ended_it_is_said_when_it_was_last_heard_of(start, command, write):
    write(
        "dies.py",
        "import os\nfrom dpcore import task\n@task\ndef one() -> int: return 1\n@task\ndef dies(one: int): os._exit(9)",
    )
    start("run", "dies.py", "--executor", "threads").communicate(timeout=60)
    assert re.search(r"^running +1/2 .* last heard of \d+\.\d+ s ago", command("runs").stdout, re.MULTILINE)
    said = command("runs", "show", "latest").stdout
    assert re.search(r"^heard of +\d{4}-.*, .* s ago; nothing more will come if its program was killed$", said, re.M)
    found = json.loads(command("runs", "--json").stdout)[0]
    assert found["last_heard_of"] >= found["began"]
    assert found["ended"] is None


def test_a_run_that_has_ended_is_not_listened_for(command, recorded):
    assert json.loads(command("runs", "--json").stdout)[0]["last_heard_of"] is None
    assert "last heard" not in command("runs").stdout


WIDE = """
from dpcore import task
for number in range(60):
    task(name=f"t{number}")(lambda: None)
@task(dependencies=["t59"])
def fails(): raise ValueError("no")
"""


def test_of_many_tasks_some_are_drawn_with_those_in_trouble_unless_all_are_asked_for(command, write):
    write("wide.py", WIDE)
    command("run", "wide.py", code=1)
    said = command("runs", "show", "latest").stdout
    assert said.count("█") >= 49
    assert re.search(r"^fails .*failed", said, re.MULTILINE)
    assert said.endswith("and 11 more: 11 succeeded\n")
    assert "more:" not in command("runs", "show", "latest", "--all").stdout


def test_bars_are_as_wide_as_the_terminal_and_of_letters_that_it_has(start, command, write, recorded):
    out, _ = start("runs", "show", "latest", COLUMNS="60", PYTHONIOENCODING="ascii").communicate(timeout=60)
    drawn = out.partition("\n\n")[2].splitlines()
    assert max(map(len, drawn)) <= 60
    assert "#" in drawn[1]
    assert out.isascii()
