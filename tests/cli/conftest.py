"""A folder with files of tasks, and the command called in it: here, or as a process of its own."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

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

    def call(*arguments: object, code: int = 0) -> Result:
        forget(folder)
        result = CliRunner().invoke(cli, [*map(str, arguments)], prog_name="dpcore", catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result

    return call


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Call the command as a process of its own, which does not outlive the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object, **environ: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-P", "-W", "error", "-c", "from dpcore.cli import main; main()", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env=os.environ | environ,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
