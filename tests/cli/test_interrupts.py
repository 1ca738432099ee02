"""Ctrl-C, SIGTERM, SIGHUP and SIGKILL, to processes that run tasks."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dpcore.cli.interrupts import await_threads

WAITING = """
import os, threading, time
import anyio
from dpcore import task

@task
async def quick() -> int:
    return 1

@task
async def waits(quick: int) -> None:
    print("body runs", flush=True)
    await anyio.sleep_forever()

@task
def after(waits: None) -> None: ...
"""

STUCK = """
import threading
from dpcore import task

@task
def stuck() -> None:
    print("body runs", flush=True)
    threading.Event().wait()
"""

BLOCKING = """
import threading
from dpcore import task

@task(max_retries=3)
{}def blocks() -> None:
    print("body runs", flush=True)
    try:
        threading.Event().wait()
    except Exception:
        pass
"""

each = pytest.mark.parametrize(
    ("number", "reason"),
    [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM"), (signal.SIGHUP, "SIGHUP")],
    ids=["SIGINT", "SIGTERM", "SIGHUP"],
)


each_executor = pytest.mark.parametrize(
    ("executor", "stream"),
    [("threads", "stdout"), ("multiprocess?grace=60", "stderr")],  # which shows the output of workers
    ids=["threads", "multiprocess"],
)


def wait_for(process, line, stream="stdout"):
    """Read what the process prints until *line*."""
    read = []
    for text in getattr(process, stream):
        read.append(text)
        if line in text:
            return read
    pytest.fail(f"it ended without saying {line!r}, but {read}: {process.stderr.read()}")


@pytest.fixture
def started():
    """What has come of a process: a handle of each, which can be read when it has ended."""
    handles = []

    def started(pid):
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in map(int, children.read_text().split()):
                handles.append(os.pidfd_open(child))
                started(child)
        return handles

    yield started
    for handle in handles:
        os.close(handle)


def all_end(handles):
    """Wait until all have ended, for some seconds at the most."""
    return all(select.select([one], [], [], 10)[0] for one in handles)


@each
@each_executor
def test_a_signal_cancels_an_async_task_and_is_recorded(start, command, write, number, reason, executor, stream):
    write("waiting.py", WAITING)
    process = start("run", "waiting.py", "--executor", executor)
    wait_for(process, "body runs", stream)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "")
    assert f"cancelled ({reason}): 1 of 3 tasks succeeded, 2 cancelled in" in out
    shown = json.loads(command("runs", "show", "latest", "--json").stdout)
    assert (shown["state"], shown["reason"]) == ("cancelled", reason)
    assert {name: one["state"] for name, one in shown["tasks"].items()} == {
        "quick": "succeeded", "waits": "cancelled", "after": "cancelled",
    }  # fmt: skip


@each
def test_a_task_that_is_stuck_on_a_thread_does_not_keep_the_process(start, command, write, number, reason):
    write("stuck.py", STUCK)
    process = start("run", "stuck.py", "--json", "--executor", "threads")
    wait_for(process, "body runs", "stderr")
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "the code of 'stuck' is still running on a thread and cannot be stopped; ending the process" in err
    assert json.loads(out)["reason"] == reason
    assert "cancelled" in command("runs").stdout


@each
def test_a_task_that_is_stuck_on_a_worker_is_stopped_and_no_process_is_left(
    start, started, command, write, number, reason
):
    write("stuck.py", STUCK)
    process = start("run", "stuck.py", "--json")
    wait_for(process, "body runs", "stderr")
    handles = started(process.pid)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, json.loads(out)["reason"]) == (130, reason)
    assert "still running" not in err
    assert len(handles) >= 2, "a worker, and the process that has forked it"
    assert all_end(handles)
    assert "cancelled" in command("runs").stdout


@each
@pytest.mark.parametrize(("executor", "colour"), [("inline", ""), ("threads", "async ")])
def test_a_body_that_blocks_the_event_loop_is_interrupted(start, command, write, number, reason, executor, colour):
    write("blocking.py", BLOCKING.format(colour))
    process = start("run", "blocking.py", "--executor", executor)
    wait_for(process, "body runs")
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "")
    assert out.splitlines()[-2].startswith("cancelled  ")  # the task, and not as one that failed
    assert f"cancelled ({reason}): 0 of 1 task succeeded, 1 cancelled" in out
    assert "Traceback" not in out
    assert "cancelled" in command("runs").stdout


def test_a_signal_that_the_system_gives_to_another_thread_counts_as_well(start, write):
    write(
        "elsewhere.py",
        """
        import signal, threading, time
        from dpcore import task
        @task
        def blocks() -> None:
            send = lambda: signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
            threading.Thread(target=send, daemon=True).start()
            time.sleep(1000)
        """,
    )
    out, err = start("run", "elsewhere.py", "--executor", "inline").communicate(timeout=30)
    assert ("cancelled (SIGTERM)" in out, err) == (True, "")


SESSION = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from dpcore.cli import main
main()
"""


def test_a_terminal_that_is_closed_cancels_the_run_and_that_is_recorded(command, write, folder):
    os.mkfifo(folder / "there")
    write(
        "waiting.py",
        """
        import anyio
        from pathlib import Path
        from dpcore import task
        @task
        async def waits() -> None:
            Path("there").write_text("body runs")
            await anyio.sleep_forever()
        """,
    )
    ours, theirs = pty.openpty()
    environ = os.environ | {"TERM": "xterm-256color"}
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", SESSION, "run", "waiting.py"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environ,
    )
    os.close(theirs)
    try:
        assert (folder / "there").read_text() == "body runs"  # not on the terminal: it may go while that is written
        os.close(ours)
        assert process.wait(60) == 130
    finally:
        process.kill()
    shown = json.loads(command("runs", "show", "--json").stdout)
    assert (shown["state"], shown["reason"]) == ("cancelled", "SIGHUP")


@each_executor
def test_a_second_signal_ends_the_process_at_once(start, started, command, write, executor, stream):
    write(
        "stubborn.py",
        """
        import anyio
        from dpcore import task
        @task
        async def stubborn() -> None:
            print("body runs", flush=True)
            try:
                await anyio.sleep_forever()
            finally:
                print("cleaning up", flush=True)
                with anyio.CancelScope(shield=True):
                    await anyio.sleep_forever()
        """,
    )
    process = start("run", "stubborn.py", "--executor", executor)
    wait_for(process, "body runs", stream)
    handles = started(process.pid)
    process.send_signal(signal.SIGINT)
    wait_for(process, "cleaning up", stream)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "dpcore: ended at once; what was not recorded is lost\n")
    assert all_end(handles)
    assert "running" in command("runs").stdout


@each
def test_a_signal_before_anything_runs_leaves_no_record(start, command, write, folder, number, reason):
    write("slow.py", "import threading\nprint('importing', flush=True)\nthreading.Event().wait()\n")
    process = start("run", "slow.py")
    wait_for(process, "importing")
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "dpcore: cancelled\n")
    assert not (folder / ".dpcore").exists()


@pytest.mark.parametrize("swallowed", ["pass", "raise ValueError('something else')"])
def test_a_signal_on_import_counts_whatever_the_file_makes_of_it(start, write, folder, swallowed):
    write(
        "slow.py",
        f"""
        import threading
        from dpcore import task
        @task
        def work(): ...
        try:
            print('importing', flush=True)
            threading.Event().wait()
        except BaseException:
            {swallowed}
        """,
    )
    process = start("run", "slow.py")
    wait_for(process, "importing")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "dpcore: cancelled\n")
    assert not (folder / ".dpcore" / "runs").exists()


def test_a_signal_that_was_to_be_ignored_is_ignored(folder, write):
    write("waiting.py", WAITING)
    write(
        "both.py",
        """
        import os, signal
        def dpcore_started(app):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
        """,
    )
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"  # as for a job in the background of a script
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"  # as nohup does
        "from dpcore.cli import main; main()"
    )
    command = [sys.executable, "-P", "-W", "error", "-c", code, "run", "waiting.py", "-p", "both"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "")
    assert "cancelled (SIGTERM): 0 of 3 tasks" in done.stdout


def test_a_signal_while_a_run_begins_cancels_it_and_is_recorded(start, command, write):
    write("waiting.py", WAITING)
    write(
        "early.py",
        """
        import os, signal
        def dpcore_started(app):  # the run has not begun
            os.kill(os.getpid(), signal.SIGTERM)
        """,
    )
    process = start("run", "waiting.py", "-p", "early")
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "")
    assert "cancelled (SIGTERM): 0 of 3 tasks succeeded, 3 cancelled" in out
    assert "cancelled  0/3" in command("runs").stdout


@each_executor
def test_a_run_that_was_killed_keeps_what_it_had_recorded(start, command, write, executor, stream):
    write("waiting.py", WAITING)
    process = start("run", "waiting.py", "--executor", executor)
    wait_for(process, "body runs", stream)
    process.kill()
    process.wait(30)
    assert "running  1/3" in command("runs").stdout
    said = command("runs", "show", "latest").stdout
    assert "tasks     1 of 3 succeeded" in said
    assert "that had not begun" in said


def test_a_task_that_took_too_long_is_waited_for_and_named(start, write, folder):
    os.mkfifo(folder / "go")
    write(
        "late.py",
        """
        from dpcore import task
        @task(timeout=0.05)
        def late() -> None:
            open("go").read()
        """,
    )
    process = start("run", "late.py", "--executor", "threads")
    wait_for(process, "waiting for the code of 'late', which is still running on a thread; Ctrl-C ends it", "stderr")
    assert process.poll() is None
    (folder / "go").write_text("")
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, "timed out" in out) == (1, True)


def test_ctrl_c_ends_the_waiting_for_such_a_task(start, write):
    write("late.py", STUCK.replace("@task", "@task(timeout=0.05)"))
    process = start("run", "late.py", "--executor", "threads")
    wait_for(process, "Ctrl-C ends it", "stderr")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "dpcore: ended at once; the run is recorded\n")


def test_nothing_is_waited_for_where_nothing_is_left(capsys):
    await_threads((), cancelled=False)
    assert capsys.readouterr() == ("", "")


def test_in_another_thread_signals_are_left_alone(command, orders):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    said = []
    thread = threading.Thread(target=lambda: said.append(command("run", "orders.py").stdout))
    thread.start()
    thread.join()
    assert "succeeded: 2 tasks" in said[0]
    command("run", "orders.py")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_while_the_command_line_itself_is_imported_is_one_line(start, write, folder):
    write("click.py", "import threading\nprint('importing', flush=True)\nthreading.Event().wait()\n")
    process = start("--help", PYTHONPATH=str(folder))
    wait_for(process, "importing")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "dpcore: cancelled\n")
