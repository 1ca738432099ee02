"""``dpcore serve``: schedules of the project and of the file, fired by a process that ends well when it is told to."""

import json
import signal

import pytest

JOBS = """
from pathlib import Path
import anyio
from dpcore import current_job, task

@task
async def note(day: str = "", wait: float = 0) -> str:
    print("body runs", flush=True)
    await anyio.sleep(wait)
    return f"{day} {current_job().nominal:%H:%M:%S}"

def dpcore_add_schedules(app):
    app.schedule("mine", {"manual": True}, run="note")
"""

EACH_SECOND = """
[schedules.tick]
trigger = {cron = "* * * * * *", timezone = "Europe/Berlin"}
run = ["note"]
params = {day = "{nominal:%Y-%m-%d}"}
"""


def until(process, words):
    """Read what the process says until *words* come."""
    for line in process.stdout:
        if words in line:
            return line
    pytest.fail(f"it ended without saying {words!r}: {process.stderr.read()}")


def ended(process, number=signal.SIGTERM, code=0):
    """Send a signal and return what has been said until the process has ended."""
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    return out + err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_schedules_fire_until_it_is_told_to_stop(start, command, write, number):
    write("jobs.py", JOBS)
    write("dpcore.toml", EACH_SECOND)
    process = start("serve", "jobs.py", "--executor", "threads", "--no-api")
    assert until(process, "serving") == "serving jobs.py: 2 schedules; Ctrl-C stops it\n"
    first = until(process, "tick fires tick-2").split()[-1]
    until(process, f"run {first} succeeded")
    until(process, "tick fires tick-2")
    ended(process, number)
    runs = json.loads(command("runs", "--json").stdout)
    assert {run["state"] for run in runs} == {"succeeded"}
    shown = json.loads(command("runs", "show", first, "--json").stdout)
    assert len(shown["params"]["day"]) == len("'2026-01-01'")
    [tick, mine] = json.loads(command("schedules", "--json").stdout)
    assert (tick["name"], mine["name"], mine["trigger"]) == ("tick", "mine", "by hand")
    assert tick["last"] < tick["next"]


def test_a_run_may_end_in_the_grace_and_nothing_new_begins(start, command, write):
    write("jobs.py", JOBS.replace("wait: float = 0", "wait: float = 2"))
    write("dpcore.toml", EACH_SECOND)
    process = start("serve", "jobs.py", "--executor", "threads", "--no-api", "--grace", "30")
    until(process, "body runs")
    said = ended(process)
    assert "succeeded" in said
    assert "fires" not in said
    [run] = json.loads(command("runs", "--json").stdout)
    assert run["state"] == "succeeded"


def test_a_run_that_does_not_end_in_the_grace_is_gone_on_with_by_the_next(start, command, write):
    write("jobs.py", JOBS.replace("wait: float = 0", "wait: float = 60"))
    write("dpcore.toml", EACH_SECOND)
    process = start("serve", "jobs.py", "--executor", "threads", "--no-api", "--grace", "0.2")
    run = until(process, "tick fires").split()[-1]
    until(process, "body runs")
    assert "runs that have not ended are gone on with when it is started again" in ended(process)
    write("jobs.py", JOBS)
    again = start("serve", "jobs.py", "--executor", "threads", "--no-api")
    until(again, f"run {run} succeeded")
    assert f"schedule 'tick' goes on with run {run}, which was broken off" in ended(again)


def test_a_run_whose_process_was_killed_is_gone_on_with_by_the_next(start, write):
    write("jobs.py", JOBS.replace("wait: float = 0", "wait: float = 60"))
    write("dpcore.toml", EACH_SECOND)
    process = start("serve", "jobs.py", "--executor", "threads", "--no-api")
    run = until(process, "tick fires").split()[-1]
    until(process, "body runs")
    process.kill()
    process.wait()
    write("jobs.py", JOBS)
    again = start("serve", "jobs.py", "--executor", "threads", "--no-api")
    until(again, f"run {run} succeeded")
    ended(again)


def test_a_dry_run_shows_what_would_fire_and_fires_nothing(command, write, folder):
    write("jobs.py", JOBS)
    write("dpcore.toml", '[schedules.hourly]\ntrigger = {interval = "1h"}\npublish = "tick"\nrun = "note"')
    rows = command("serve", "jobs.py", "--dry-run", "3h").stdout.splitlines()
    assert len(rows) == 4
    assert rows[0].split() == ["local", "time", "schedule", "starts"]
    assert rows[1].endswith("hourly    event tick, run note")
    assert not (folder / ".dpcore").exists()
    write("dpcore.toml", '[schedules.often]\ntrigger = {interval = 1}\npublish = "tick"')
    assert command("serve", "jobs.py", "--dry-run", "1d").stdout.endswith("and more; only the first 1,000 are shown\n")
    write("dpcore.toml", "")
    assert command("serve", "jobs.py", "--dry-run", "1d").stdout == "nothing would fire\n"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (
            'trigger = {cron = "61 * * * *"}',
            "cron expression '61 * * * *': minute '61' is not understood (minute: 0-59)",
        ),
        ('trigger = {cron = "0 3 * * *", timezone = "Europe/Berln"}', "did you mean 'Europe/Berlin'?"),
        ('trigger = {corn = "0 3 * * *"}', "did you mean 'cron'?"),
        ('trigger = {cron = "0 3 * * *", timezon = "UTC"}', "setting 'timezon' is unknown"),
        ("trigger = {manual = 3}", "trigger 'manual': setting 'manual' = 3 says nothing; write manual = true"),
        ("trigger = {once = 2026-01-01T00:00:00}", "at=datetime.datetime(2026, 1, 1, 0, 0) must be an aware datetime"),
        ('trigger = {interval = "soon"}', "every='soon' must be seconds, a timedelta or a text"),
        ("run = 'note'", "it has no trigger; write for instance: trigger = {cron ="),
        ("trigger = {manual = true}\ncolour = 1", "unknown key 'colour'"),
        (
            'trigger = {manual = true}\nparams = {day = "{nominl}"}',
            "has {nominl}, and there are only {nominal} and {schedule}",
        ),
        ('trigger = {manual = true}\nparams = {day = "{"}', "write {{ and }} for braces themselves"),
        ('trigger = {manual = true}\nmisfire = "never"', "misfire='never' must be one of 'latest', 'skip', 'all'"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused_with_its_place(command, write, table, words):
    write("jobs.py", JOBS)
    write("dpcore.toml", f"[schedules.a]\npublish = 'tick'\n{table}\n")
    said = command("serve", "jobs.py", "--dry-run", "1d", code=2).stderr
    assert said.startswith("dpcore: dpcore.toml (schedules.a): ")
    assert words in said


def test_a_selection_that_cannot_be_planned_is_refused_before_it_serves(command, write):
    write("jobs.py", JOBS)
    write("dpcore.toml", '[schedules.a]\ntrigger = {manual = true}\nrun = ["nte"]\n')
    assert "did you mean 'note'?" in command("serve", "jobs.py", "--dry-run", "1d", code=2).stderr


def test_bad_options_are_refused(command, write):
    write("jobs.py", JOBS)
    assert "--dry-run='soon' must be seconds" in command("serve", "jobs.py", "--dry-run", "soon", code=2).stderr
