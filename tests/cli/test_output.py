"""Output that is closed, full, or read by nobody."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")

DATA = [
    ["run", "orders.py", "--json"],
    ["plan", "orders.py", "--format", "json"],
    ["plugins"],
    ["plugins", "--json"],
    ["runs"],
    ["--help"],
    ["run", "--help"],
    ["--version"],
]

FAILING = """
from dpcore import task
@task
def fails(): raise ValueError("no")
"""


@pytest.fixture
def shell(folder, orders):
    """Call the command in a shell, with its streams as *redirection* says."""

    def shell(arguments, redirection):
        line = f'"$@" {redirection}'
        code = "from dpcore.cli import main; main()"
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line, "bash", sys.executable, "-P", "-W", "error", "-c", code, *arguments],
            capture_output=True,
            text=True,
            env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        )
        assert "/dpcore/" not in done.stderr  # no frame of ours
        assert "Exception ignored" not in done.stderr
        return done

    return shell


@pytest.mark.parametrize("arguments", DATA, ids=" ".join)
def test_a_closed_stdout_or_one_that_nobody_reads_is_no_failure(shell, arguments):
    assert shell(arguments, ">&-").returncode == 0
    assert shell(arguments, "| true").returncode == 0
    assert shell(arguments, ">&- 2>&- <&-").returncode == 0


@needs_full
@pytest.mark.parametrize("arguments", DATA, ids=" ".join)
def test_what_cannot_be_written_is_one_line_and_the_exit_code_2(shell, arguments):
    done = shell(arguments, ">/dev/full")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "dpcore: the output cannot be written: No space left on device"


@needs_full
def test_a_run_goes_on_where_it_cannot_be_told(shell, write, command):
    done = shell(["run", "orders.py"], ">/dev/full")
    words = "dpcore: no more is shown of the run, which goes on: No space left on device\n"
    assert (done.returncode, done.stderr) == (0, words)
    assert "2/2" in command("runs").stdout
    write("failing.py", FAILING)
    assert shell(["run", "failing.py"], ">/dev/full").returncode == 1
    assert shell(["run", "failing.py"], ">&-").returncode == 1
    assert shell(["run", "failing.py", "--json"], "| true").returncode == 1


@needs_full
def test_what_a_task_prints_and_is_lost_is_said(shell, write):
    write("prints.py", "from dpcore import task\n@task\ndef prints(): print('x', end='')\n")
    done = shell(["run", "prints.py", "--quiet", "--executor", "threads"], ">/dev/full")
    assert (done.returncode, done.stderr) == (0, "dpcore: some of the output is lost: No space left on device\n")


def test_without_a_stderr_the_document_is_still_alone_on_stdout(shell):
    assert json.loads(shell(["run", "orders.py", "--json"], "2>&-").stdout)["state"] == "succeeded"


@pytest.mark.parametrize("options", [[], ["--quiet"], ["--json"], ["-v"]], ids=" ".join)
@pytest.mark.parametrize("where", ["on import", "in a task"])
@pytest.mark.parametrize("name", ["stdout", "stderr"])
@pytest.mark.parametrize("executor", ["threads", "multiprocess"])
def test_a_stream_that_the_users_code_closes_changes_nothing_of_how_a_run_went(
    shell, write, options, where, name, executor
):
    closing = f"sys.{name}.close()"
    write(
        "closes.py",
        f"""
        import logging, sys
        from dpcore import task
        {closing if where == "on import" else ""}
        @task
        def closes():
            {closing if where == "in a task" else ""}
            logging.getLogger("mine").warning("still heard")
        """,
    )
    write("fails.py", "from closes import *\n@task\ndef fails(closes: None): raise ValueError('no')\n")
    done = shell(["run", "closes.py", *options, "--executor", executor], "")
    assert done.returncode == 0
    assert "warning  mine: still heard" in done.stderr
    assert shell(["run", "fails.py", *options, "--executor", executor], "").returncode == 1
    if options == ["--json"]:
        assert json.loads(done.stdout)["state"] == "succeeded"
    elif name == "stderr":
        assert ("succeeded: 1 task" in done.stdout) == (not options or options == ["-v"])
    elif not options and (executor, where) != ("multiprocess", "in a task"):  # which closes that of its worker
        words = "no more is shown of the run, which goes on: the code that was run has closed the stream\n"
        assert done.stderr.count(words) == 1


def test_a_refusal_is_one_line_although_the_users_code_has_closed_stderr(shell, write):
    write("closes.py", "import sys\nsys.stderr.close()\n")
    done = shell(["run", "closes.py"], "")
    assert (done.returncode, done.stderr) == (
        2, "dpcore: closes.py has no tasks; decorate a function with @task (from dpcore import task)\n"
    )  # fmt: skip


def test_a_plugin_that_closes_stdout_is_one_line_where_that_was_what_the_command_is_for(shell, write):
    write("closing.py", "import sys\nsys.stdout.close()\n")
    done = shell(["plugins", "-p", "closing"], "")
    words = "dpcore: the output cannot be written: the code that was run has closed the stream\n"
    assert (done.returncode, done.stderr) == (2, words)
