"""``dpcore run``: what it prints, what it returns, and where its settings come from."""

import json
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

FAILING = """
from dpcore import task

@task
def load() -> int:
    return 1 // 0

@task
def clean(load: int) -> int:
    return load

@task
def report(clean: int) -> None: ...

@task(fail_safe=True)
def extra() -> int:
    raise KeyError("extra")

@task
def apart() -> int:
    return 1
"""

DOUBLED = """
@task
def doubled(day: int) -> int:
    assert day * 2 == 42
    return day * 2
"""


# ---------------------------------------------------------------- for people


def test_each_task_is_told_as_it_ends_and_then_the_whole(command, orders):
    lines = command("run", "orders.py").stdout.splitlines()
    assert re.fullmatch(r"run [\w-]+: 2 tasks of orders\.py", lines[0])
    assert re.fullmatch(r"succeeded  orders  \d\.\d{3} s", lines[1])
    assert re.fullmatch(r"succeeded  total   \d\.\d{3} s", lines[2])
    assert re.fullmatch(r"succeeded: 2 tasks in \d\.\d+ s, run [\w-]+", lines[3])
    assert len(lines) == 4
    assert lines[3].split()[-1] == lines[0].split()[1].rstrip(":")


def test_an_error_of_megabytes_is_shown_with_its_beginning_and_its_end(command, write):
    """In the lines of its attempts, at the end, and for each item that was left out."""
    write(
        "loud.py",
        """
        from collections.abc import Iterator
        from dpcore import task

        @task(max_retries=1)
        def loud() -> int:
            raise ValueError("y" * 3_000_000 + "z")

        @task
        def days() -> Iterator[int]:
            yield 1

        @task(each="days", fail_safe=True)
        def one(days: int) -> int:
            raise ValueError("y" * 3_000_000 + "z")
        """,
    )
    said = command("run", "loud.py", code=1).stdout
    long = [line for line in said.splitlines() if len(line) > 1000]
    assert len(long) == 3
    for line in long:
        assert re.search(r"ValueError: y+ \[\.\.\. [\d,]+ characters are left out \.\.\.\] y+z\)?$", line)
        assert len(line) < 66_000


def test_a_worker_that_has_printed_and_died_is_told_in_one_line_here_and_later(command, write):
    write(
        "crash.py",
        """
        import os
        from dpcore import task

        @task
        def crash() -> int:
            print("at row 7", flush=True)
            os._exit(5)
        """,
    )
    sentence = "WorkerLostError: the worker process of task 'crash' exited with code 5"
    assert sentence in map(str.strip, command("run", "crash.py", code=1).stdout.splitlines())
    shown = [line.strip() for line in command("runs", "show", "latest").stdout.splitlines()]
    assert sentence in shown
    assert "at row 7" in shown
    assert "the last that it printed" not in "".join(shown)


def test_text_that_is_given_in_the_place_of_a_task_is_converted_or_refused(command, write):
    write("days.py", "from dpcore import task\n\n@task\ndef day() -> int:\n    return 1\n\n" + DOUBLED)
    command("run", "days.py", "doubled", "--param", "day=21")
    said = command("run", "days.py", "doubled", "--param", "day=noon", code=2).stderr
    assert "run parameter 'day' does not fit 'day' of task 'doubled': 'noon' is not an int" in said


def test_a_failure_is_told_with_the_users_frames_and_what_was_skipped(command, write):
    file = write("failing.py", FAILING)
    said = command("run", "failing.py", code=1).stdout
    assert (
        "load failed:\n"
        "    Traceback (most recent call last):\n"
        f'      File "{file}", line 6, in load\n'
        "        return 1 // 0\n"
    ) in said
    assert "ZeroDivisionError: integer division or modulo by zero" in said
    assert "extra failed (fail-safe):" in said
    assert "dpcore/" not in said.replace("dpcore/runs", "")
    assert "skipped  clean, because 'load' failed\nskipped  report, because 'clean' was skipped\n" in said
    assert re.search(r"^failed: 1 of 5 tasks succeeded, 2 failed, 2 skipped in .* s, run [\w-]+$", said, re.MULTILINE)


def test_no_terminal_obeys_what_an_error_says(command, write):
    write(
        "loud.py",
        r"""
        from dpcore import task
        BELL = "\x1b]0;mine\x07"
        @task(max_retries=1)
        def loud(): raise ValueError(f"cleared \x1b[2J\n\tand {BELL}")
        @task
        def items():
            yield 1
        @task(each="items", fail_safe=True)
        def each(items): raise ValueError(BELL)
        """,
    )
    said = command("run", "loud.py", code=1)
    assert not {*"\x1b\x07"} & {*said.output}
    assert said.stdout.count("(attempt 1 of 2 failed: ValueError: cleared \\x1b[2J)") == 1
    assert "    ValueError: cleared \\x1b[2J\n    \tand \\x1b]0;mine\\x07\n" in said.stdout
    write("refused.py", r"raise ValueError('\x1b[2J')")
    said = command("run", "refused.py", code=2)
    assert said.stderr.endswith("ValueError: \\x1b[2J\n")
    shown = command("runs", "show").output
    assert "\\x1b[2J" in shown
    assert "\x1b" not in shown


def test_a_run_succeeds_although_a_fail_safe_task_fails(command, write):
    write("failing.py", FAILING)
    assert "succeeded: 1 of 2 tasks succeeded, 1 failed in" in command("run", "failing.py", "extra", "apart").stdout


def test_of_many_skipped_tasks_the_first_are_listed(command, write):
    write(
        "wide.py",
        """
        from dpcore import task
        @task
        def first(): raise ValueError("no")
        for number in range(50):
            task(name=f"t{number}", dependencies=["first"])(lambda: None)
        """,
    )
    said = command("run", "wide.py", code=1).stdout
    assert said.count("because 'first' failed") == 20
    assert "skipped  30 more tasks\nfailed: 0 of 51 tasks succeeded, 1 failed, 50 skipped" in said


def test_a_retry_is_told_and_the_attempt_that_succeeded(command, write):
    write(
        "flaky.py",
        """
        from dpcore import current_job, task
        @task(max_retries=2)
        def flaky() -> int:
            if current_job().attempt == 1:
                raise ConnectionError("down")
            return 1
        """,
    )
    said = command("run", "flaky.py").stdout
    assert re.search(r"^retrying   flaky  .* s  \(attempt 1 of 3 failed: ConnectionError: down\)$", said, re.MULTILINE)
    assert re.search(r"^succeeded  flaky  .* s  \(attempt 2\)$", said, re.MULTILINE)


def test_what_is_left_out_is_told(command, write):
    write(
        "order.py",
        """
        from dpcore import task
        @task
        def setup() -> None: ...
        @task(dependencies=["setup"])
        def work() -> int: return 1
        """,
    )
    words = "left out: work does not wait for 'setup', which is not selected"
    assert words in command("run", "order.py", "work").stdout
    assert words in command("plan", "order.py", "work").stdout


def test_nothing_is_coloured(command, orders, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in command("run", "orders.py").stdout


def test_quiet_says_nothing_of_what_goes_well(command, orders, write):
    said = command("run", "orders.py", "--quiet")
    assert (said.stdout, said.stderr) == ("", "")
    assert json.loads(command("run", "orders.py", "-q", "--json").stdout)["state"] == "succeeded"
    write("failing.py", FAILING)
    said = command("run", "failing.py", "-q", code=1).stdout
    assert said.startswith("\nload failed:\n")
    assert "skipped  report, because 'clean' was skipped\nfailed: 1 of 5" in said
    assert "succeeded  apart" not in said
    assert "extra failed (fail-safe):" in command("run", "failing.py", "extra", "-q").stdout


def test_of_many_failed_tasks_the_first_are_told(command, write):
    write(
        "wide.py",
        """
        from dpcore import task
        def fails(): raise ValueError("no")
        for number in range(30):
            task(name=f"t{number}")(fails)
        """,
    )
    said = command("run", "wide.py", "-q", code=1).stdout
    assert said.count("Traceback") == 20
    assert "\nand 10 more tasks failed\n" in said


LOGGING = """
import logging
from dpcore import current_job, task
logging.getLogger("mine").info("at import")
@task
def logs() -> None:
    current_job().log.info("a detail")
    current_job().log.debug("a small one")
    try:
        1 / 0
    except ArithmeticError:
        logging.getLogger("mine").warning("careful", exc_info=True)
"""


@pytest.mark.parametrize(
    ("options", "seen", "unseen"),
    [
        ([], ["warning  mine: careful", "ZeroDivisionError"], ["a detail", "at import"]),
        (["-v"], ["info     mine: at import", "info     task logs: a detail", "careful"], ["a small one"]),
        (["-vv"], ["debug    task logs: a small one", "a detail"], []),
    ],
)
def test_warnings_that_are_logged_are_seen_and_more_if_that_is_asked_for(start, write, options, seen, unseen):
    write("logs.py", LOGGING)
    out, err = start("run", "logs.py", *options).communicate(timeout=60)
    assert "succeeded  logs" in out
    for words in seen:
        assert words in err
    for words in unseen:
        assert words not in err


def test_whoever_sets_up_logging_has_the_say(start, write):
    write("logs.py", "import logging\nlogging.basicConfig(format='MINE %(message)s', level='INFO')\n" + LOGGING)
    for executor in ("threads", "multiprocess"):  # a worker imports the file too, so that is told of it once more
        _, err = start("run", "logs.py", "--executor", executor).communicate(timeout=60)
        assert [*dict.fromkeys(err.splitlines())][:2] == ["MINE at import", "MINE a detail"]
        assert "warning  " not in err


# ---------------------------------------------------------------- for programs


def test_json_is_one_document(command, orders):
    said = command("run", "orders.py", "--param", "factor=3", "--json")
    found = json.loads(said.stdout)
    assert (found["state"], found["reason"]) == ("succeeded", None)
    assert found["duration"] > 0
    assert list(found["tasks"]) == ["orders", "total"]
    total = found["tasks"]["total"]
    assert (total["state"], total["attempts"], total["error"]) == ("succeeded", 1, None)
    assert total["where"].endswith(f".dpcore/runs/{found['run_id']}/total/1.pkl")
    assert "succeeded: 2 tasks" in said.stderr


def test_json_of_a_failed_run_has_its_errors(command, write):
    write("failing.py", FAILING)
    tasks = json.loads(command("run", "failing.py", "--json", code=1).stdout)["tasks"]
    assert tasks["load"]["error"] == "ZeroDivisionError: integer division or modulo by zero"
    assert (tasks["clean"]["state"], tasks["clean"]["attempts"]) == ("skipped", 0)
    assert tasks["clean"]["reason"] == "'load' failed"


def test_nothing_else_gets_onto_stdout_beside_json(start, write):
    write(
        "loud.py",
        """
        import os, subprocess, sys
        from sys import stdout
        from dpcore import task
        print("at import")
        @task
        def loud() -> None:
            print("printed")
            stdout.write("written\\n"); stdout.flush()
            os.write(1, b"raw\\n")
            subprocess.run(["echo", "echoed"], check=True)
        """,
    )
    out, err = start("run", "loud.py", "--json").communicate(timeout=60)
    assert json.loads(out)["state"] == "succeeded"
    for word in ("at import", "printed", "written", "raw", "echoed", "succeeded: 1 task"):
        assert f"{word}" in err
    out, err = start("plan", "loud.py", "--format", "json").communicate(timeout=60)
    assert json.loads(out)["order"] == ["loud"]


def test_what_a_task_prints_on_a_worker_is_beside_the_report_and_not_in_it(start, write):
    write("prints.py", "from dpcore import task\n@task\ndef prints():\n    print('printed')\n")
    out, err = start("run", "prints.py").communicate(timeout=60)
    assert ("succeeded  prints" in out, err) == (True, "printed\n")
    out, err = start("run", "prints.py", "--executor", "threads").communicate(timeout=60)
    assert ("printed\n" in out, err) == (True, "")


def test_a_reader_who_goes_away_does_not_disturb_the_run(start, write, command):
    write(
        "wide.py",
        """
        from dpcore import task
        for number in range(300):
            task(name=f"t{number}")(lambda: None)
        """,
    )
    process = start("run", "wide.py", "--executor", "inline")
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 0
    assert process.stderr.read() == ""
    assert "300/300" in command("runs").stdout


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_run_without_a_stdout_runs(folder, orders, options):
    code = "import os, sys; os.close(1); sys.stdout = None\nfrom dpcore.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "run", "orders.py", *options], stderr=subprocess.PIPE, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)


# ---------------------------------------------------------------- selection and parameters


def test_a_text_is_converted_by_the_hint_that_takes_it(command, orders):
    command("run", "orders.py", "--param", "factor=3", "--store", "sqlite:r.db")
    said = command("run", "orders.py", "--param", "factor=three", code=2).stderr
    assert "run parameter 'factor' does not fit 'factor' of task 'orders'" in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--param", "factor"], "'factor' is not written name=value"),
        (["--param", "=1"], "'=1' is not written name=value"),
        (["--param", "factor=1", "--param", "factor=2"], "'factor' is given twice"),
        (["--param", "fctor=1"], "run parameter 'fctor' is taken by no selected task"),
        (["ordrs"], "there is no task 'ordrs' (tasks: 'orders', 'total'); did you mean 'orders'?"),
        (["--tag", "dmo"], "no task has the tag 'dmo' (there are: 'tag:demo'); did you mean 'tag:demo'?"),
        (["--keep", "some"], "'some' is not one of 'all', 'leaves'"),
        (["--root-task", "total"], "task 'total' needs 'orders', the result of 'orders', which is not selected"),
    ],
)
def test_what_cannot_be_planned_is_one_message(command, orders, options, words):
    said = command("run", "orders.py", *options, code=2)
    assert words in said.stderr
    assert (said.stdout, "Traceback" in said.stderr) == ("", False)


def test_every_fault_is_reported_at_once(command, orders):
    said = command("run", "orders.py", "nope", "--tag", "none", "--json", code=2)
    assert "dpcore: cannot plan:\n  - there is no task 'nope'" in said.stderr
    assert "\n  - cannot select 'tag:none'" in said.stderr
    assert said.stdout == ""


def test_selections_tags_and_exclusions_are_those_of_planning(command, orders):
    def ran(*options):
        return list(json.loads(command("run", "orders.py", "--json", *options).stdout)["tasks"])

    assert ran("orders") == ["orders"]
    assert ran("+total") == ["orders", "total"]
    assert ran("--tag", "demo", "--exclude", "total") == ["orders"]
    assert ran("--root-task", "total", "--include-upstream") == ["orders", "total"]


def test_data_of_an_earlier_run_is_taken_by_a_part_of_its_id(command, orders):
    first = json.loads(command("run", "orders.py", "orders", "--param", "factor=2", "--json").stdout)["run_id"]
    for name in ("latest", first, first[:-1]):
        command("run", "orders.py", "--root-task", "total", "--from-run", name)
        assert f"from_run {first}" in command("runs", "show", "latest").stdout
    said = command("run", "orders.py", "--root-task", "total", "--from-run", "nope", code=2).stderr
    assert "there is no run 'nope' in sqlite:" in said


def test_fail_fast_and_keep_are_passed_on(command, write, orders, folder):
    write("failing.py", FAILING)
    said = command("run", "failing.py", "--fail-fast", "--executor", "inline", code=1).stdout
    assert "cancelled" in said
    command("run", "orders.py", "--keep", "leaves")
    assert [*folder.glob(".dpcore/runs/*/total/1.pkl")]
    assert not [*folder.glob(".dpcore/runs/*/orders/*.pkl")]


ALONE = """
import threading
from dpcore import task

busy = threading.Lock()

def alone() -> None:
    assert busy.acquire(blocking=False), "another one runs"
    with open(__file__) as file:
        file.read()
    busy.release()

for number in range(40):
    task(name=f"load{number}", tags=["db"])(alone)
"""


def test_limits_are_those_of_the_options_and_else_of_the_project_file(command, write, folder):
    write("alone.py", ALONE)
    assert "succeeded: 40 tasks" in command("run", "alone.py", "--limit", "db=1", "--executor", "threads").stdout
    misspelt = command("run", "alone.py", "--limit", "bd=1", code=2).stderr
    assert "--limit bd=1: no task of alone.py has the tag 'bd' (tags: 'db')" in misspelt
    write("dpcore.toml", "[limits]\ndb = 1\n")
    assert "succeeded: 40 tasks" in command("run", "alone.py", "--executor", "threads").stdout


@pytest.mark.parametrize("text", ["db", "db=0", "=1", "db=x", "db=-1"])
def test_a_limit_that_is_none_is_refused_in_words(command, orders, text):
    said = command("run", "orders.py", "--limit", text, code=2).stderr
    assert "must be a tag and a whole number from 1 on, such as db=2" in " ".join(said.split())


# ---------------------------------------------------------------- adapters


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--executor", "thread"],
            "no plugin offers the executor 'thread' (there are: 'inline', 'threads', 'multiprocess'); did you mean",
        ),
        (["--executor", "threads?slot=2"], "executor 'threads': setting 'slot' is unknown"),
        (["--executor", "threads?slots=many"], "setting 'slots' = 'many', from --executor, does not convert"),
        (["--executor", "threads?slots=0"], "slots=0 must be at least 1, while making the executor 'threads'"),
        (
            ["--executor", "multiprocess?workers=0"],
            "workers=0 must be at least 1, while making the executor 'multiprocess'",
        ),
        (["--io", "File System"], "write 'name', 'name?setting=value', 'name:path' or 'name://host/...'"),
        (["--broker", "redis"], "no plugin offers the broker 'redis'"),
        (["--store", "sqlite:orders.py"], "orders.py cannot be used: the file is not a database"),
        (["-p", "nobody"], "plugin 'nobody' (asked for by -p nobody) is neither an installed plugin nor a module"),
        (["-p", "failing"], "plugin 'failing' (asked for by -p failing) does not import: ValueError: no"),
        (["-p", "misspelt"], "implements dpcore_brokres, which is no hook; did you mean 'dpcore_brokers'?"),
    ],
)
def test_an_adapter_or_plugin_that_cannot_be_had_is_one_message(command, orders, write, options, words):
    write("failing.py", "raise ValueError('no')")
    write("misspelt.py", "def dpcore_brokres(): ...")
    said = command("run", "orders.py", *options, code=2)
    assert words in said.stderr
    assert (said.stdout, "Traceback" in said.stderr) == ("", False)


def test_a_broker_that_the_environment_names_must_be_there_too(command, orders, monkeypatch):
    monkeypatch.setenv("DPCORE_BROKER", "redis://localhost")
    assert "no plugin offers the broker 'redis'" in command("run", "orders.py", code=2).stderr


def test_by_default_everything_is_kept_below_one_folder(command, orders, folder):
    command("run", "orders.py")
    assert (folder / ".dpcore" / "runs.db").is_file()
    assert [*folder.glob(".dpcore/runs/*/total/1.pkl")]


def test_an_option_beats_the_environment_that_the_file_and_that_the_default(
    command, orders, write, folder, monkeypatch
):
    def stores():
        return {str(file.relative_to(folder)) for file in folder.rglob("*.db")}

    command("run", "orders.py")
    assert stores() == {".dpcore/runs.db"}
    write("pyproject.toml", "[tool.dpcore]\nstore = 'sqlite:file.db'\nexecutor = 'inline'\n")
    command("run", "orders.py")
    assert stores() == {".dpcore/runs.db", "file.db"}
    monkeypatch.setenv("DPCORE_STORE", "sqlite:environment.db")
    command("run", "orders.py")
    assert "environment.db" in stores()
    command("run", "orders.py", "--store", "sqlite:option.db")
    assert stores() == {".dpcore/runs.db", "file.db", "environment.db", "option.db"}
    assert "inline" in command("runs", "show", "latest").stdout
    for name in stores():
        with closing(sqlite3.connect(folder / name)) as db:
            assert db.execute("SELECT count(*) FROM document WHERE key LIKE 'run/%'").fetchone() == (1,)


def test_the_project_file_is_found_upward_and_its_settings_reach_the_adapter(command, write, folder, monkeypatch):
    write("dpcore.toml", "io = 'filesystem'\n[io_managers.filesystem]\npath = './results'\n")
    write("flows/flow.py", "from dpcore import task\n@task\ndef one() -> int: return 1")
    monkeypatch.chdir(folder / "flows")
    command("run", "flow.py")
    assert [*folder.glob("results/*/one/1.pkl")]  # beside the file that says so
    monkeypatch.setenv("DPCORE_IO_FILESYSTEM_PATH", "./results")
    command("run", "flow.py")
    assert [*folder.glob("flows/results/*/one/1.pkl")]  # in the folder of whoever said so


# ---------------------------------------------------------------- plugins

WATCH = """
import sys
def dpcore_run_changed(run, new):
    print(f"{__name__[:12]} saw {new}", file=sys.stderr)
def dpcore_brokers():
    from dpcore import Provider
    return [Provider(name="loud", target="acme_adapter:Broker")]
"""


def test_the_projects_own_plugin_is_loaded_from_beside_its_file(command, orders, write):
    write("dpcore_conf.py", WATCH)
    assert "saw" not in command("run", "orders.py").stderr  # there is no project file beside it
    write("pyproject.toml", "[project]\nname = 'x'\n")
    assert "_dpcore_conf saw succeeded" in command("run", "orders.py").stderr
    assert "saw" not in command("run", "orders.py", "-p", "no:dpcore_conf.py").stderr


@pytest.mark.parametrize("arguments", [["-p", "watching", "run", "orders.py"], ["run", "orders.py", "-p", "watching"]])
def test_a_plugin_is_named_before_the_command_or_after_it(command, orders, write, arguments):
    write("watching.py", WATCH)
    assert "watching saw succeeded" in command(*arguments).stderr
    assert "saw" not in command(*arguments, "-p", "no:watching").stderr
    said = command(*arguments, "--broker", "loud", code=2).stderr  # which is told before anything has run
    assert "the broker 'loud' of watching cannot be imported" in said
    assert "saw" not in said


@pytest.mark.parametrize("who", ["file", "environment", "option"])
@pytest.mark.parametrize("where", [".", "below/deep"])
def test_a_plugin_beside_the_project_file_is_found_whoever_names_it(
    start, orders, write, folder, monkeypatch, who, where
):
    write("watching.py", WATCH)
    write("dpcore.toml", "plugins = ['watching']" if who == "file" else "")
    (folder / where).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(folder / where)
    options = ["-p", "watching"] if who == "option" else []
    environ = {"DPCORE_PLUGINS": "watching"} if who == "environment" else {}
    process = start("run", orders, "-q", *options, **environ)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "watching saw running\nwatching saw succeeded\n")


def test_a_plugin_in_the_current_folder_is_found_that_the_environment_names(start, orders, write):
    write("watching.py", WATCH)
    assert (
        start("run", "orders.py", DPCORE_PLUGINS="watching").communicate(timeout=60)[1]
        == "watching saw running\nwatching saw succeeded\n"
    )


def test_a_plugin_that_fails_while_it_observes_breaks_nothing(command, orders, write):
    write("watching.py", "def dpcore_run_changed(run): raise ValueError('no')")
    assert "succeeded: 2 tasks" in command("run", "orders.py", "-p", "watching").stdout


@pytest.mark.parametrize("hook", ["dpcore_started(app)", "dpcore_plan(plan)"])
def test_a_plugin_that_fails_where_that_ends_everything_is_one_message(command, orders, write, hook):
    file = write("failing.py", f"def {hook}:\n    raise ValueError('no server')")
    said = command("run", "orders.py", "-p", "failing", code=2)
    name = hook.partition("(")[0]
    assert said.stderr == f"dpcore: ValueError: no server ({file}:2), in {name} of plugin 'failing'\n"
    assert said.stdout == ""


STORE = """
from dpcore import Provider
from dpcore.errors import StoreError
from dpcore_plugins import SqliteRunStore
class Breaking(SqliteRunStore):
    def __init__(self, *, own: bool, **settings) -> None:
        super().__init__(**settings)
        self.own, self.count = own, 0
    async def commit(self, key, **arguments):
        self.count += 1
        if self.count > 2:
            raise StoreError("breaking:", "the disk is full") if self.own else OSError(28, "No space left on device")
        return await super().commit(key, **arguments)
def dpcore_run_stores():
    return [Provider(name="breaking", target=Breaking)]
"""


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ("yes", "the run store breaking: cannot be used: the disk is full"),
        ("no", ".db cannot be used: [Errno 28] No space left on device"),
    ],
)
def test_a_run_store_that_fails_in_the_middle_is_one_message_that_names_the_run(command, orders, write, own, words):
    write("breaking.py", STORE)
    said = command("run", "orders.py", "-p", "breaking", "--store", f"breaking?own={own}", code=2)
    run_id = re.search(r"run ([\w-]+): 2 tasks", said.stdout)[1]
    assert f"dpcore: run {run_id} was broken off, and is recorded only as far as it had come: " in said.stderr
    assert words in said.stderr
    assert "/dpcore/" not in said.stderr
    found = json.loads(command("runs", "show", "latest", "--json").stdout)
    assert (found["run_id"], found["state"]) == (run_id, "running")


def test_a_plugin_may_reshape_what_is_run_and_what_is_shown(command, orders, write):
    write("shaping.py", "import dpcore\ndef dpcore_plan(plan): return dpcore.plan('orders')")
    assert "1 task of orders.py" in command("run", "orders.py", "-p", "shaping").stdout
    assert "1 task in 1 level" in command("plan", "orders.py", "-p", "shaping").stdout


def test_the_installed_command_is_this_one(folder):
    assert (
        "run"
        in subprocess.run(
            [Path(sys.executable).with_name("dpcore"), "--help"], capture_output=True, text=True, check=True
        ).stdout
    )
