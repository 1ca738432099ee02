"""What it costs to be shown a run in a terminal, beside the same run that says nothing; each in a process of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TASKS = """
from dpcore import task
for number in range({size}):
    task(name=f"t{{number}}")(lambda: None)
"""
COMMAND = "from dpcore.cli import main; main()"


def python(folder: Path, *arguments: str, out: int = subprocess.DEVNULL) -> int:
    """Run Python with its caches of byte code, as they are once something has been used before."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DPCORE_", "PYTHON"))}
    environ = kept | {"PYTHONPYCACHEPREFIX": str(folder / "cache"), "TERM": "xterm-256color"}
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=environ, stdout=out, check=False).returncode


@pytest.fixture
def terminal() -> Iterator[int]:
    """Give a terminal whose other end is read, and forgotten."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    reading = threading.Thread(target=read_all, args=(ours,))
    reading.start()
    yield theirs
    os.close(theirs)
    reading.join()
    os.close(ours)


def test_a_run_that_is_shown_ends_as_a_quiet_one(terminal: int, tmp_path: Path, side_by_side: Any) -> None:
    size = side_by_side.size(10_000, 20)
    (tmp_path / "many.py").write_text(TASKS.format(size=size))
    adapters = ["--executor", "inline", "--io", "memory", "--store", "memory"]
    call = ["-c", COMMAND, "run", "many.py", *adapters]
    ours, theirs = side_by_side.time(
        f"dpcore run, {size:,} tasks, shown, per task",
        lambda: python(tmp_path, *call, out=terminal), lambda: python(tmp_path, *call, "--quiet", out=terminal),
        than="--quiet", per=size, clock="wall",
    )  # fmt: skip
    assert (ours, theirs) == (0, 0)


def read_all(descriptor: int) -> None:
    try:
        while os.read(descriptor, 1 << 16):
            pass
    except OSError:  # nobody has the other end any more
        return
