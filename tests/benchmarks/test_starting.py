"""What it takes to begin: importing dpcore, ``dpcore --help``, and finding plugins.

Each round is an interpreter of its own.  An import and a discovery are timed in it, by
itself, so that what every interpreter needs to start makes no ratio look better;
``--help`` is timed whole, as a person waits for it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dpcore
import dpcore_plugins

PACKAGES = [Path(package.__file__).parent for package in (dpcore, dpcore_plugins)]

TIMED = """
{before}
from time import process_time
began = process_time()
{code}
print(process_time() - began)
"""


def child(*command: str, path: tuple[Path, ...] = (), folder: Path | None = None) -> str:
    """Run a command in *folder* and return what it prints.

    It must find compiled modules, and may write those that are missing:
    PYTHONDONTWRITEBYTECODE would have it compile at each start, and time that.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("DPCORE_", "PYTHON"))}
    if path:
        clean["PYTHONPATH"] = os.pathsep.join(map(str, path))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=clean, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def timed_in_child(watch: Any, tmp_path: Path) -> Callable[..., Callable[[], str]]:
    """Give what makes a side of code that is timed in an interpreter of its own."""

    def side(code: str, *options: str, before: str = "", path: tuple[Path, ...] = ()) -> Callable[[], str]:
        def timed() -> str:
            program = TIMED.format(code=code, before=before)
            *said, seconds = child(sys.executable, *options, "-c", program, path=path, folder=tmp_path).splitlines()
            watch.add(float(seconds))
            return "".join(said)

        return timed

    return side


# ---------------------------------------------------------------- importing


@pytest.mark.parametrize("code", ["import dpcore", "from dpcore import run, task", "from dpcore import task"])
def test_it_imports_as_what_it_stands_on_does(code: str, timed_in_child: Any, side_by_side: Any) -> None:
    ours, theirs = side_by_side.time(
        code, timed_in_child(code), timed_in_child("import pluggy, anyio, msgspec"),
        than="import pluggy, anyio, msgspec", budget=1.3, partly=True,
    )  # fmt: skip
    assert ours == theirs == ""


# ---------------------------------------------------------------- --help


PROJECT = """
[tool.dpcore]
executor = "threads"
"""


HELPS = (
    "", "completion", "config", "plan", "plugins", "plugins doctor", "plugins info", "plugins why", "run", "runs",
    "runs show", "tasks",
)  # fmt: skip


@pytest.mark.parametrize("arguments", [[*command.split(), "--help"] for command in HELPS], ids=" ".join)
@pytest.mark.parametrize("where", ["", " in a project"], ids=["outside", "in a project"])
def test_help_comes_as_click_and_rich_do(arguments: list[str], where: str, tmp_path: Path, side_by_side: Any) -> None:
    """A project may say a word about plugins, and plugins may bring commands: there it has to look."""
    script = Path(sysconfig.get_path("scripts")) / "dpcore"
    if not script.is_file():
        pytest.skip(f"{script.name} is not installed as a command here")
    if where:
        (tmp_path / "pyproject.toml").write_text(PROJECT)
    ours, theirs = side_by_side.time(
        f"dpcore {' '.join(arguments)}{where}", lambda: child(str(script), *arguments, folder=tmp_path),
        lambda: child(sys.executable, "-c", "import click, rich", folder=tmp_path),
        than="python -c 'import click, rich'", budget=1.5, clock="wall",
    )  # fmt: skip
    assert ours.startswith("Usage: ")
    assert theirs == ""


# ---------------------------------------------------------------- finding plugins


def installed(folder: Path, number: int, *, plugins: bool) -> Path:
    """Install so many distributions in *folder*, each of one empty module, as a wheel would."""
    folder.mkdir()
    for one in range(number):
        name = f"acme_{one}"
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir()
        (folder / f"{name}.py").touch()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: acme-{one}\nVersion: 1.0\n")
        (info / "RECORD").write_text(f"{name}.py,,\n{info.name}/METADATA,,\n{info.name}/RECORD,,\n")
        group = "dpcore" if plugins else "console_scripts"
        (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {name}\n")
    return folder


@pytest.fixture(scope="module")
def needed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give every module that is installed here, without metadata: no other distribution is there to be found."""
    folder = tmp_path_factory.mktemp("needed")
    sites = {Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")}
    for file in {file for site in sites for file in site.iterdir()} | set(PACKAGES):
        if not file.name.endswith((".dist-info", ".egg-info", ".pth", "__pycache__")):
            (folder / file.name).symlink_to(file)
    return folder


OURS = """
print(sum(record.source == "installed" and record.state == "active" for record in Plugins().installed))
"""
THEIRS = """
from importlib.metadata import entry_points
print(len([entry.load() for entry in entry_points(group="dpcore")]))
"""


@pytest.mark.parametrize(("number", "plugins"), [(5, True), (300, False), (300, True)])
def test_all_that_is_installed_is_found(
    number: int, plugins: bool, tmp_path: Path, needed: Path, timed_in_child: Any, side_by_side: Any
) -> None:
    number = side_by_side.size(number, 5)
    path = (installed(tmp_path / "site", number, plugins=plugins), needed)
    mine = timed_in_child(OURS, "-S", before="from dpcore.plugins import Plugins", path=path)
    what = f"{number} distributions, {'each a plugin' if plugins else 'none a plugin'}"
    ours, theirs = side_by_side.time(
        f"discovery, {what}", mine, timed_in_child(THEIRS, "-S", path=path),
        than="importlib.metadata, loaded", partly=True,
    )  # fmt: skip
    assert ours == theirs == str(number if plugins else 0)
