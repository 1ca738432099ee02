"""A folder with files of tasks, and the command called in it: here, or as a process of its own."""

from __future__ import annotations

import fcntl
import importlib
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from click.testing import CliRunner, Result

import dpcore
from dpcore.cli.commands import cli

Write = Callable[[str, str], Path]
Command = Callable[..., Result]
Start = Callable[..., "subprocess.Popen[str]"]

ORDERS = """
from dpcore import task

@task(tags=["demo"])
def orders(factor: int = 1) -> list[int]:
    return [30 * factor, 10, 2]

@task(tags=["demo"])
def total(orders: list[int]) -> int:
    return sum(orders)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to be in; what is imported there is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DPCORE_PLUGIN_AUTOLOAD", "0")  # what is installed on the machine is not seen
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    forget(tmp_path)


def forget(folder: Path) -> None:
    """Make as if nothing in *folder* had been imported, as it is for a new process."""
    names = [name for name, one in sys.modules.items() if str(getattr(one, "__file__", "")).startswith(f"{folder}/")]
    for task in [*dpcore.registry.values()]:
        if task.call.__module__ in names:
            dpcore.registry.remove(task.name)
    for name in names:
        del sys.modules[name]
    importlib.invalidate_caches()  # a file that was written within this second is seen, too


@pytest.fixture
def write(folder: Path) -> Write:
    """Write a file into the folder."""

    def write(name: str, text: str) -> Path:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text), encoding="utf-8")
        return file

    return write


@pytest.fixture
def orders(write: Write) -> Path:
    return write("orders.py", ORDERS)


@pytest.fixture
def command(folder: Path) -> Command:
    """Call the command here."""

    def call(*arguments: object, code: int = 0, input: str | None = None) -> Result:  # noqa: A002
        forget(folder)
        result = CliRunner().invoke(cli, [*map(str, arguments)], input, prog_name="dpcore", catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result

    return call


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Call the command as a process of its own, which does not outlive the test."""
    started: list[subprocess.Popen[str]] = []

    def start(
        *arguments: object,
        stdin: int | IO[Any] = subprocess.DEVNULL,
        stdout: int | IO[Any] = subprocess.PIPE,
        **environ: str,
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-P", "-W", "error", "-c", "from dpcore.cli import main; main()", *map(str, arguments)],
            stdout=stdout,
            stderr=subprocess.PIPE,
            stdin=stdin,
            text=True,
            env=os.environ | environ,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


class Terminal:
    """Calls the command in a pseudo-terminal, and reads what it would show."""

    def __init__(
        self, *arguments: object, columns: int = 80, rows: int = 24, out: IO[str] | None = None, **environ: str
    ) -> None:
        self.read = b""
        self._fd, there = pty.openpty()
        self.resize(columns, rows)
        kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-W", "error", "-c", "from dpcore.cli import main; main()", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=there if out is None else out,
            stderr=there,
            env=kept | {"TERM": "xterm-256color"} | environ,
        )
        os.close(there)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def until(self, words: bytes | str, timeout: float = 60) -> bytes:
        """Read on until *words* have been written."""
        wanted = words.encode() if isinstance(words, str) else words
        while wanted not in self.read:
            assert select.select([self._fd], [], [], timeout)[0], f"nothing more comes after {self.read!r}"
            assert self._more(), f"it ended without {wanted!r}: {self.read!r}"
        return self.read

    def end(self) -> tuple[int, str]:
        """Read to the end; return the exit code, and all that was written."""
        while self._more():
            pass
        return self.process.wait(60), self.read.decode()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._fd)

    def _more(self) -> bool:
        try:
            data = os.read(self._fd, 1 << 16)
        except OSError:  # nobody has the other end any more
            return False
        self.read += data
        return bool(data)


@pytest.fixture
def terminal(folder: Path) -> Iterator[Callable[..., Terminal]]:
    """Call the command in a terminal that does not outlive the test."""
    opened: list[Terminal] = []

    def terminal(*arguments: object, **options: Any) -> Terminal:
        opened.append(Terminal(*arguments, **options))
        return opened[-1]

    yield terminal
    for one in opened:
        one.close()
