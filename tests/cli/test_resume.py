"""``dpcore resume`` and ``dpcore runs rm``: runs that were killed, that failed, and that nobody wants any more."""

import json
import signal
import sqlite3
from contextlib import closing

import anyio
import pytest

from dpcore import App, Plugins, Registry
from dpcore_plugins import FilesystemIO, SqliteRunStore

FLOW = """
import pathlib, threading
from dpcore import task

def begin(name):
    with open("log", "a") as log:
        log.write(name + "\\n")

@task
def first(day: str = "today") -> str:
    begin("first")
    return day

@task
def second(first: str) -> str:
    begin("second")
    {}
    return first + "!"

@task
def third(second: str) -> None:
    begin("third")
"""
FAILS, STICKS, WORKS = "raise ValueError('no')", "print('stuck', flush=True); threading.Event().wait()", "pass"


@pytest.fixture
def flow(write):
    def flow(body):
        return write("flow.py", FLOW.format(body))

    return flow


@pytest.fixture
def ran(folder):
    """What has run since this was last asked."""

    def ran():
        log = folder / "log"
        names = log.read_text().split() if log.exists() else []
        log.write_text("")
        return names

    return ran


@pytest.fixture
def stuck(flow, start):
    """A run that is stuck in its second task, in a process of its own."""
    flow(STICKS)
    process = start("run", "flow.py", "--param", "day=monday")
    for line in process.stderr:  # which shows what workers print
        if "stuck" in line:
            break
    return process


def latest(command):
    return json.loads(command("runs", "show", "--json").stdout)


def test_a_run_that_was_killed_is_resumed_where_it_was(command, flow, stuck, ran):
    stuck.send_signal(signal.SIGKILL)
    stuck.wait()
    before = latest(command)
    assert (before["state"], ran()) == ("running", ["first", "second"])
    flow(WORKS)
    said = command("resume", "latest").stdout
    assert f"run {before['run_id']}: 3 tasks of " in said
    assert "1 task had ended before" in said
    assert "succeeded: 3 tasks" in said
    assert ran() == ["second", "third"]
    after = latest(command)
    assert (after["state"], after["params"], after["settings"]) == ("succeeded", before["params"], before["settings"])
    assert (after["run_id"], after["source"]) == (before["run_id"], before["source"])
    assert FilesystemIO(path=".dpcore/runs").list(after["run_id"], "second")


def test_a_run_that_runs_is_neither_resumed_nor_removed(command, stuck, ran):
    words = f"is being run by process {stuck.pid} on "
    assert words in command("resume", "latest", code=2).stderr
    assert words in command("runs", "rm", "latest", code=2).stderr
    assert ran() == ["first", "second"]
    stuck.send_signal(signal.SIGKILL)
    stuck.wait()
    assert "removed run" in command("runs", "rm", "latest").stdout


def test_a_run_that_failed_is_resumed_from_the_file_as_it_is_now(command, flow, ran):
    flow(FAILS)
    command("run", "flow.py", code=1)
    assert ran() == ["first", "second"]
    command("resume", "latest", code=1)
    assert ran() == ["second"]
    flow(WORKS)
    found = json.loads(command("resume", "latest", "--json").stdout)
    assert (found["state"], ran()) == ("succeeded", ["second", "third"])


def test_what_changed_is_told_and_run_again_if_that_is_asked_for(command, start, flow, ran):
    flow(WORKS)
    command("run", "flow.py")
    ran()
    flow("first = first.upper()")
    assert "'second' changed since: to run that again, ask for it" in command("resume", "latest", code=2).stderr
    _, told = start("resume", "latest", "--from", "third").communicate()
    assert "'second' changed since run " in told
    assert ran() == ["third"]
    assert command("resume", "latest", "--changed", "--quiet").stdout == ""
    assert ran() == ["second", "third"]
    command("resume", "latest", "--from", "first", "--from", "third")
    assert ran() == ["first", "second", "third"]


@pytest.mark.parametrize("said", [[], ["--io", "filesystem:results"], ["--io", "filesystem?path=results"]])
def test_a_run_is_resumed_from_any_folder(command, flow, folder, ran, monkeypatch, said):
    flow(WORKS)
    command("run", "flow.py", *said)
    ran()
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    done = command("resume", "latest", "--from", "second", "--store", f"sqlite:{folder / '.dpcore/runs.db'}").stdout
    assert "1 task had ended before" in done
    assert [file.name for file in elsewhere.iterdir()] == ["log"]  # which its tasks write there
    assert (elsewhere / "log").read_text().split() == ["second", "third"]


def test_a_run_whose_record_is_deleted_meanwhile_says_so(command, flow):
    flow("import shutil; shutil.rmtree('.dpcore')")
    said = command("run", "flow.py", "--executor", "threads", code=2).stderr
    assert "runs.db cannot be used: the file was deleted or replaced while it was open" in said


def test_what_cannot_be_resumed_is_said(command, flow, folder):
    assert "there is no run 'latest': no runs were recorded here yet" in command("resume", "latest", code=2).stderr
    flow(WORKS)
    command("run", "flow.py")
    assert "there is no run 'nope' in sqlite:" in command("resume", "nope", code=2).stderr
    assert "has succeeded, and nothing of it is left" in command("resume", "latest", code=2).stderr
    assert "there is no task 'thrid'" in command("resume", "latest", "--from", "thrid", code=2).stderr
    command("run", "flow.py", "--exclude", "third", "--param", "first=x", code=0)
    (folder / "flow.py").unlink()
    assert "there is no file" in command("resume", "latest", "--from", "second", code=2).stderr


def test_a_store_that_is_damaged_or_newer_is_left_as_it_is(command, flow, folder):
    flow(WORKS)
    command("run", "flow.py")
    file = folder / ".dpcore/runs.db"
    with closing(sqlite3.connect(file)) as newer:
        newer.execute("PRAGMA user_version = 99")
    before = file.read_bytes()
    assert "a newer dpcore wrote it (version 99, this one knows 1); upgrade" in command("resume", "x", code=2).stderr
    assert "a newer dpcore wrote it" in command("runs", "rm", "x", code=2).stderr
    assert file.read_bytes() == before
    file.write_bytes(b"\xff" * 5000)
    words = "the file is not a database; move it away, or choose another path"
    assert words in command("resume", "x", code=2).stderr
    assert words in command("run", "flow.py", code=2).stderr
    assert file.read_bytes() == b"\xff" * 5000


def test_a_damaged_store_is_kept_aside_and_the_next_run_goes_on(command, flow, folder, caplog):
    flow(WORKS)
    command("run", "flow.py")
    file = folder / ".dpcore/runs.db"
    damaged = file.read_bytes()[:4096] + b"\xff" * (file.stat().st_size - 4096)
    file.write_bytes(damaged)
    command("run", "flow.py", code=0)
    (kept,) = file.parent.glob("runs.db.corrupt-*")
    assert f"malformed; it is kept as {kept}, and a new one begun" in caplog.text
    assert kept.read_bytes() == damaged
    assert len(command("runs", "--json").stdout.split('"run_id"')) == 2


def test_a_run_of_a_program_is_resumed_by_that(command, folder):
    async def run():
        shop = Registry()
        shop.task(name="one")(lambda: 1)
        async with App(shop, store=SqliteRunStore(path=".dpcore/runs.db"), plugins=Plugins(installed=False)) as app:
            await app.run(run_id="r1")

    anyio.run(run)
    assert "run r1 was started by a program" in command("resume", "r1", code=2).stderr
    assert "await app.resume('r1')" in command("resume", "r1", code=2).stderr


def test_runs_are_removed_with_their_results(command, flow, folder):
    flow(WORKS)
    ids = [json.loads(command("run", "flow.py", "--json").stdout)["run_id"] for _ in range(3)]
    results = FilesystemIO(path=".dpcore/runs")
    assert command("runs", "rm", ids[0], ids[1]).stdout == (
        f"removed run {ids[0]}, and 3 results\nremoved run {ids[1]}, and 3 results\n"
    )
    assert results.runs() == [ids[2]]
    assert [one["run_id"] for one in json.loads(command("runs", "--json").stdout)] == [ids[2]]
    assert "there is no run" in command("runs", "rm", ids[0], code=2).stderr
    assert command("runs", "rm", "latest", "--keep-results").stdout == f"removed run {ids[2]}\n"
    assert results.runs() == [ids[2]]
    assert "no runs were recorded" in command("runs", "rm", "--store", "sqlite:no/where.db", "x", code=2).stderr
