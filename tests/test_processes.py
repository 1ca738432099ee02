"""The name of a process, by which others know whether it has ended."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dpcore.processes import is_gone, shown_process, this_process

SAYS = "import sys; from dpcore.processes import this_process; print(this_process(), flush=True); sys.stdin.read()"


@pytest.fixture
def other():
    with subprocess.Popen([sys.executable, "-c", SAYS], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().decode().strip()
        process.kill()


def test_a_process_keeps_its_name_and_is_there():
    assert this_process() == this_process()
    assert not is_gone(this_process())


def test_a_process_that_lives_is_not_gone_and_one_that_was_killed_is_at_once(other):
    process, name = other
    assert name != this_process()
    assert not is_gone(name)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has taken note of that
    assert is_gone(name)
    process.wait()
    assert is_gone(name)


def test_another_process_of_the_same_number_is_not_taken_for_it():
    here, pid, began = this_process().rsplit("/", 2)
    assert is_gone(f"{here}/{pid}/{int(began) + 1}")


@pytest.mark.parametrize("name", ["", "x", "elsewhere/1c2d.4026/1/5", "a/b/c/d/e", "/", "//", "///"])
def test_of_a_process_elsewhere_and_of_a_name_that_is_none_nothing_is_known(name):
    assert not is_gone(name)
    here, pid, began = this_process().rsplit("/", 2)
    assert not is_gone(f"{here}/{pid}/")
    assert not is_gone(f"{here}/-/{began}")
    assert not is_gone(f"other-{here}/{pid}/1")


def test_people_read_its_number_and_machine():
    assert shown_process(this_process()).startswith(f"process {os.getpid()} on ")
    assert shown_process("") == "a process that left no name"
