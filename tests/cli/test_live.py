"""What a person sees of a run in a terminal."""

import io
import json
import os
import re
import signal
from pathlib import Path

import pytest

from dpcore import Outcome, Registry, Run, State, plan
from dpcore.cli.live import LiveReport
from dpcore_plugins import MemoryIO

REGION, WHOLE = re.compile(r"\x1b\[1;\d+r"), "\x1b[r"

WAITING = """
from dpcore import current_job, task

@task(max_retries=1)
def waits_for_a_word() -> str:
    if current_job().attempt == 1:
        raise ValueError("not yet")
    return open("word").read()

@task
def fails(waits_for_a_word: str):
    raise ValueError("for good")

@task
def follows(fails: int): ...
"""


@pytest.fixture
def waiting(write, folder):
    """A task whose second attempt waits until a word is given; returns what gives it."""
    write("waiting.py", WAITING)
    os.mkfifo(folder / "word")
    return lambda: (folder / "word").write_text("go")


def rows(written):
    """Return what was written into the rows that are kept."""
    found = re.findall(r"\x1b\[\d+;1H\x1b\[2K(.*?)(?=\x1b\[\d+;1H|\x1b\[\?7h)", written, re.DOTALL)
    return [re.sub(r"\x1b\[[\d;]*m", "", row) for row in found]


def test_what_runs_is_shown_with_its_attempt_and_then_how_it_all_went(terminal, waiting):
    shown = terminal("run", "waiting.py")
    shown.until("(attempt 2)")
    waiting()
    code, said = shown.end()
    assert code == 1
    assert [row for row in rows(said) if re.fullmatch(r"running +waits_for_a_word +\d.* s +\(attempt 2\)", row)]
    assert [row for row in rows(said) if re.search(r"━ 0/3, \d", row)]
    assert (len(REGION.findall(said)), said.count(WHOLE)) == (1, 1)
    after = said.rpartition(WHOLE)[2]
    assert 'waiting.py", line 12, in fails' in after
    assert "skipped  follows, because 'fails' failed" in after
    assert "1 of 3 tasks succeeded, 1 failed, 1 skipped in" in after
    assert re.search(r"retrying.* \(attempt 1 of 2 failed: ValueError: not yet\)\r\n", said)


def test_colours_are_there_unless_they_are_not_wanted(terminal, orders):
    assert "\x1b[32msucceeded" in terminal("run", "orders.py").end()[1]
    code, said = terminal("run", "orders.py", NO_COLOR="1").end()
    assert (code, re.search(r"\x1b\[3\d", said)) == (0, None)


def test_a_terminal_that_can_do_nothing_gets_plain_lines(terminal, orders):
    for options in ({"TERM": "dumb"}, {"rows": 4}, {"columns": 10}):
        code, said = terminal("run", "orders.py", **options).end()
        assert (code, "\x1b" in said) == (0, False)
        assert "succeeded  orders" in said


def test_no_row_is_longer_than_a_narrow_terminal(terminal, waiting):
    shown = terminal("run", "waiting.py", columns=24, rows=10)
    shown.until("0/3")
    waiting()
    found = rows(shown.end()[1])
    assert [row for row in found if row.startswith("running    waits_f…")]
    assert max(map(len, found)) <= 24


@pytest.mark.parametrize(
    ("times", "executor"), [(1, "threads"), (2, "threads"), (1, "multiprocess"), (2, "multiprocess?grace=60")]
)
def test_ctrl_c_gives_the_terminal_back(terminal, write, times, executor):
    write(
        "stubborn.py",
        f"""
        import anyio
        from dpcore import task
        @task
        async def stubborn():
            print("body runs", flush=True)
            try:
                await anyio.sleep_forever()
            finally:
                print("cleaning up", flush=True)
                with anyio.CancelScope(shield={times == 2}):
                    await anyio.sleep_forever()
        """,
    )
    shown = terminal("run", "stubborn.py", "--executor", executor)
    shown.until("body runs")
    shown.until("running")
    shown.process.send_signal(signal.SIGINT)
    if times == 2:
        shown.until("cleaning up")
        shown.process.send_signal(signal.SIGINT)
    code, said = shown.end()
    assert (code, said.count(WHOLE)) == (130, 1)
    assert ("ended at once" if times == 2 else "0 of 1 task succeeded, 1 cancelled") in said.rpartition(WHOLE)[2]


def test_a_terminal_that_changes_its_size_is_followed(terminal, waiting):
    shown = terminal("run", "waiting.py", rows=24)
    shown.until("\x1b[21;1H")  # the first of the rows that are kept
    shown.resize(columns=60, rows=30)
    shown.until("\x1b[1;26r")
    waiting()
    code, said = shown.end()
    assert (code, "\x1b[27;1H" in said) == (1, True)
    assert said.rpartition(WHOLE)[2].startswith("\x1b8\x1b7\x1b[27;1H\x1b[J")


def test_of_many_tasks_those_that_go_wrong_get_a_line_and_the_rest_are_counted(terminal, write):
    write(
        "many.py",
        """
        from dpcore import task
        for number in range(2000):
            task(name=f"t{number}")(lambda: None)
        @task
        def fails(): raise ValueError("no")
        """,
    )
    code, said = terminal("run", "many.py", "--executor", "inline", "--store", "memory", "--io", "memory").end()
    assert code == 1
    lines = re.sub(r"\x1b\[[\d;]*m", "", said)
    assert re.findall(r"(?:succeeded|failed) +(\w+)  \d", lines) == ["fails"]
    assert "2,000 of 2,001 tasks succeeded, 1 failed" in said
    assert said.count("\n") < 60


def test_what_tasks_and_their_programs_print_is_all_there(terminal, write):
    write(
        "prints.py",
        """
        import os, subprocess
        from dpcore import current_job, task
        @task
        def prints():
            for number in range(200):
                print(f"line {number}")
            subprocess.run(["echo", "from a program"], check=True)
            os.write(2, b"raw\\n")
            current_job().log.warning("careful")
            open("word").read()
        """,
    )
    os.mkfifo("word")
    shown = terminal("run", "prints.py")
    shown.until("0/1")
    Path("word").write_text("")
    _, said = shown.end()
    assert re.findall(r"line (\d+)\r\n", said) == [str(number) for number in range(200)]
    for words in ("from a program\r\n", "raw\r\n", "warning  task prints: careful\r\n"):
        assert words in said


def test_beside_json_it_is_shown_on_stderr(terminal, orders, folder):
    with (folder / "out.json").open("w") as out:
        shown = terminal("run", "orders.py", "--json", out=out)
        code, said = shown.end()
    assert (code, json.loads((folder / "out.json").read_text())["state"]) == (0, "succeeded")
    assert "\x1b[32msucceeded" in said


# ---------------------------------------------------------------- the rows themselves


def watched(tasks=3):
    """A report that sees *tasks* running, and the time it takes them to be."""
    registry, now = Registry(), [100.0]
    for number in range(tasks):
        registry.task(name=f"task{number}", max_retries=2)(lambda: None)
    report = LiveReport(io.StringIO(), "here", now=lambda: now[0])
    run = Run(plan(registry=registry), "r1", io=MemoryIO())
    report.dpcore_run_changed(run, State.RUNNING)
    report.close()
    for task in registry.values():
        report.dpcore_task_changed(task, 1, State.RUNNING, None)
    return report, registry, now


def test_a_row_has_state_name_time_and_attempt():
    report, tasks, now = watched()
    report.dpcore_task_changed(tasks["task1"], 1, State.RETRYING, Outcome(state=State.FAILED, error=ValueError("no")))
    report.dpcore_task_changed(tasks["task2"], 2, State.RUNNING, None)
    now[0] += 61
    assert report.rows(60)[:3] == [
        "running    task0  1 min 1 s",
        "retrying   task1  (attempt 1 failed)",
        "running    task2  1 min 1 s  (attempt 2)",
    ]
    assert report.rows(60)[3].endswith(" 0/3, 1 min 1 s")
    assert [row[11:16] for row in report.rows(24)[:3]] == ["task0", "task1", "task2"]


def test_of_more_than_there_is_room_for_the_rest_is_counted():
    report, tasks, _ = watched(100)
    found = report.rows(60)
    assert len(found) == 9
    assert found[7] == "and 93 more"
    for name in [*tasks][:98]:
        state = State.FAILED if name == "task3" else State.SUCCEEDED
        report.dpcore_task_changed(tasks[name], 1, state, Outcome(state=state))
    assert [row.split()[1] for row in report.rows(60)[:2]] == ["task98", "task99"]
    assert "98/100, 1 failed, " in report.rows(60)[2]
    assert "task3" in report.out.getvalue()
    assert "task4" not in report.out.getvalue()
