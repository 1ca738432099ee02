"""What the command line costs: its help beside what it cannot do without, and a run that is shown beside a quiet one.

``tox -e bench`` shows them side by side, each as a process of its own.
"""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

TASKS = """
from dpcore import task
for number in range(10_000):
    task(name=f"t{number}")(lambda: None)
"""
COMMAND = "from dpcore.cli import main; main()"


def python(folder: Path, *arguments: str, out: int = subprocess.DEVNULL) -> int:
    """Run Python with its caches of byte code, as they are once something has been used before."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DPCORE_", "PYTHON"))}
    environ = kept | {"PYTHONPYCACHEPREFIX": str(folder / "cache"), "TERM": "xterm-256color"}
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=environ, stdout=out, check=False).returncode


@pytest.mark.benchmark(group="dpcore --help")
@pytest.mark.parametrize("code", ["import click, rich", COMMAND], ids=["import click, rich", "dpcore --help"])
def test_help(benchmark: BenchmarkFixture, tmp_path: Path, code: str) -> None:
    assert benchmark.pedantic(python, (tmp_path, "-c", code, "--help"), rounds=10, warmup_rounds=2) == 0


@pytest.mark.benchmark(group="10,000 tasks that do nothing, in a terminal")
@pytest.mark.parametrize("options", [["--quiet"], []], ids=["quiet", "shown"])
def test_shown(benchmark: BenchmarkFixture, tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "many.py").write_text(TASKS)
    adapters = ["--executor", "inline", "--io", "memory", "--store", "memory"]
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    reading = threading.Thread(target=read_all, args=(ours,))
    reading.start()
    call = (tmp_path, "-c", COMMAND, "run", "many.py", *adapters, *options)
    code = benchmark.pedantic(python, call, {"out": theirs}, rounds=5, warmup_rounds=1)
    os.close(theirs)
    reading.join()
    os.close(ours)
    assert code == 0


def read_all(descriptor: int) -> None:
    try:
        while os.read(descriptor, 1 << 16):
            pass
    except OSError:  # nobody has the other end any more
        return
