"""The private folder of results goes with the program, and with a later one if the program was killed."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from dpcore.folders import PrivateFolder, sweep

ROOT = Path(__file__).parents[1]

MAKES = """
import os, sys
from dpcore.folders import PrivateFolder
folder = PrivateFolder()
(folder.path / "result").write_text("1")
"""
STAYS = "print(folder.path, flush=True); sys.stdin.read()"
FORKS = """
child = os.fork()
if child == 0:
    sys.exit()                     # all that is done at the end of a program is done here, too
os.waitpid(child, 0)
"""
LEAVES_A_CHILD = """
import signal
if os.fork() == 0:
    sys.stdin.read()
    os._exit(0)
"""
LEAVES_A_PROGRAM = """
import subprocess
subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], close_fds=False)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    gc.collect()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield tmp_path
    gc.collect()


@pytest.fixture
def program():
    begun = []

    def begin(code):
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore::DeprecationWarning", "-c", f"{MAKES}{code}\n{STAYS}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        begun.append(process)
        return process, Path(process.stdout.readline().strip())

    yield begin
    for process in begun:
        process.kill()
        process.stdin.close()
        process.stdout.close()
        process.wait(30)


def killed(process):
    process.send_signal(signal.SIGKILL)
    process.wait(30)


@pytest.mark.parametrize("more", ["", FORKS, LEAVES_A_PROGRAM])
def test_the_folder_of_a_program_that_was_killed_is_removed_and_not_before(program, more, temporary):
    process, folder = program(more)
    sweep()
    assert (folder / "result").exists()
    killed(process)
    assert (folder / "result").exists()
    sweep()
    assert list(temporary.iterdir()) == []


def test_the_folder_stays_while_a_forked_child_lives_and_goes_after_it(program, temporary):
    process, folder = program(LEAVES_A_CHILD)
    killed(process)
    sweep()
    assert (folder / "result").exists()
    process.stdin.close()
    process.stdout.read()  # the child has it, too: this ends when that has ended
    sweep()
    assert list(temporary.iterdir()) == []


def test_a_program_that_ends_leaves_no_folder(program, temporary):
    process, _ = program("")
    process.stdin.close()
    process.wait(30)
    assert list(temporary.iterdir()) == []


LATER = """
import os, sys
from dpcore import run, task

@task
def one() -> int:
    return 1

if __name__ == "__main__":
    result = run(executor="multiprocess?workers=1")
    print(result["one"], os.path.exists(sys.argv[1]))
"""


def test_a_run_on_worker_processes_removes_the_folders_of_dead_programs(program, temporary):
    process, folder = program("")
    killed(process)
    script = temporary / "later.py"
    script.write_text(LATER)
    later = subprocess.run(
        [sys.executable, script, folder],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert later.stdout == "1 False\n", later.stderr
    assert list(temporary.glob("dpcore-*")) == []


def test_what_is_no_folder_of_a_dead_program_stays(temporary):
    owned = temporary / "dpcore-copied"
    owned.mkdir()
    (owned / ".dpcore-owner").write_text("dpcore-original")
    making = temporary / "dpcore-making"
    making.mkdir()
    (making / ".dpcore-owner.new").touch()
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".dpcore-owner").write_text("dpcore-link")
    (temporary / "dpcore-link").symlink_to(elsewhere)
    (temporary / "dpcore-file").touch()
    os.mkfifo(making / ".dpcore-owner")
    linked = temporary / "dpcore-linked"
    linked.mkdir()
    (linked / ".dpcore-owner").symlink_to(elsewhere / ".dpcore-owner")
    before = sorted(temporary.rglob("*"))
    sweep()
    assert sorted(temporary.rglob("*")) == before


def test_links_in_a_dead_folder_are_removed_and_not_followed(temporary):
    precious = temporary / "precious"
    precious.mkdir()
    (precious / "file").touch()
    dead = temporary / "dpcore-dead"
    (dead / "run").mkdir(parents=True)
    (dead / "run" / "link").symlink_to(precious)
    (dead / "link").symlink_to(precious)
    (dead / ".dpcore-owner").write_text("dpcore-dead")
    sweep()
    assert sorted(path.name for path in temporary.rglob("*")) == ["file", "precious"]


def test_many_folders_of_a_process_take_one_open_file(temporary):
    first = PrivateFolder()
    before = len(list(Path("/proc/self/fd").iterdir()))
    more = [PrivateFolder() for _ in range(50)]
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert len(list(temporary.iterdir())) == 1
    del more, first
    gc.collect()
    assert list(temporary.iterdir()) == []


def test_a_folder_of_temporary_files_that_is_gone_fails_nobody(monkeypatch, temporary):
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "gone"))
    sweep()
