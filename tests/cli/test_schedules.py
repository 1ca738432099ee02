"""``dpcore schedules``: what fires by itself, as the project has it and as the run store knows it."""

import json

import anyio
import pytest

from dpcore import App, Registry
from dpcore_plugins import IntervalTrigger, SqliteRunStore

PROJECT = """
[schedules.nightly]
trigger = [{cron = "30 2 * * *", timezone = "America/New_York"}, {once = 2030-01-01T00:00:00Z}]
run = ["load"]

[schedules.often]
trigger = {interval = "15m"}
publish = "tick"
"""


@pytest.fixture(autouse=True)
def _in_utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")


def served(folder, name="often"):
    """Have something served an hour in this folder, as far as the run store is concerned."""

    async def serve():
        (folder / ".dpcore").mkdir()
        async with App(Registry(), store=SqliteRunStore(path=folder / ".dpcore/runs.db"), broker="memory") as app:
            schedule = app.schedule(name, IntervalTrigger("15m"), publish="tick")
            await app.schedules.begun()
            await schedule.pause("holidays")

    anyio.run(serve)


def test_schedules_of_the_project_are_listed_with_their_next_times(command, write):
    write("dpcore.toml", PROJECT)
    head, nightly, often = command("schedules").stdout.splitlines()
    assert head.split() == ["schedule", "next", "last", "state", "trigger"]
    assert nightly.startswith("nightly   2")
    assert nightly.endswith(
        "waits for its time  cron '30 2 * * *' in America/New_York; once at 2030-01-01 00:00:00+00:00"
    )
    assert often.endswith("every 0:15:00")


def test_schedules_that_only_the_run_store_knows_are_listed(command, folder):
    served(folder)
    assert command("schedules").stdout.splitlines()[1].endswith("paused: holidays  every 0:15:00")
    [often] = json.loads(command("schedules", "--json").stdout)
    assert (often["name"], often["paused"], often["note"], often["next"]) == ("often", True, "holidays", None)


def test_without_schedules_it_says_how_to_have_some(command):
    assert command("schedules").stdout.startswith("there are no schedules; write one into the project file")
    assert json.loads(command("schedules", "--json").stdout) == []


def test_next_times_are_shown_in_local_time_and_in_that_of_the_trigger(command, write):
    write("dpcore.toml", PROJECT)
    shown = command("schedules", "next", "nightly", "-n", "3", "--after", "2026-03-07T00:00+00:00").stdout
    assert [line.split("  ") for line in shown.splitlines()[1:]] == [
        ["2026-03-07 07:30:00 UTC", "2026-03-07 02:30:00 EST"],
        ["2026-03-08 07:00:00 UTC", "2026-03-08 03:00:00 EDT"],
        ["2026-03-09 06:30:00 UTC", "2026-03-09 02:30:00 EDT"],
    ]
    found = json.loads(command("schedules", "next", "often", "-n", "2", "--after", "2026-03-07", "--json").stdout)
    assert found == ["2026-03-07T00:15:00+00:00", "2026-03-07T00:30:00+00:00"]


def test_a_file_adds_its_schedules(command, write):
    write("jobs.py", """
        from dpcore import task
        @task
        def load() -> None: ...
        def dpcore_add_schedules(app):
            app.schedule("mine", {"cron": "0 0 1 1 *"}, run="load")
    """)  # fmt: skip
    assert command("schedules", "-f", "jobs.py").stdout.splitlines()[1].startswith("mine ")
    assert "01-01 00:00:00" in command("schedules", "next", "mine", "-f", "jobs.py").stdout
    assert "there is no schedule 'mine'" in command("schedules", "next", "mine", code=2).stderr


def test_a_schedule_is_paused_and_resumed_for_whoever_serves_it(command, folder):
    served(folder)
    assert command("schedules", "resume", "often").stdout == "often fires again\n"
    assert command("schedules", "resume", "often").stdout == "often was not paused\n"
    assert command("schedules", "pause", "often", "--note", "the source is down").stdout == "often is paused\n"
    [often] = json.loads(command("schedules", "--json").stdout)
    assert (often["paused"], often["note"]) == (True, "the source is down")


def test_what_is_not_there_is_refused_with_what_there_is(command, folder, write):
    assert (
        "there is no schedule 'a': nothing has been served here yet"
        in command("schedules", "pause", "a", code=2).stderr
    )
    served(folder)
    assert (
        "there is no schedule 'oftn' (there are: 'often'); did you mean 'often'?"
        in command("schedules", "pause", "oftn", code=2).stderr
    )
    write("dpcore.toml", PROJECT)
    assert "did you mean 'nightly'?" in command("schedules", "next", "nightl", code=2).stderr
    said = command("schedules", "next", "nightly", "--after", "soon", code=2).stderr
    assert "--after 'soon' must be a time in ISO 8601, such as 2026-03-28" in said
    write("dpcore.toml", "schedules = 3")
    assert "schedules = 3 must hold a table per schedule: [schedules.NAME]" in command("schedules", code=2).stderr


def test_a_schedule_without_times_says_so(command, write):
    write("dpcore.toml", "[schedules.a]\ntrigger = {manual = true}\npublish = 'tick'")
    assert command("schedules", "next", "a").stdout == "a does not fire by itself any more (by hand)\n"
