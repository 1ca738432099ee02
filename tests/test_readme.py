"""What the README shows is what happens: its files are written, its commands run, its tables compared with the code."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_overloads

import anyio
import pytest

from dpcore import App, Plugins, Registry
from dpcore.groups import Overflow
from dpcore.hookspecs import SPECS
from dpcore.providers import KINDS
from dpcore.topics import check_pattern

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

# A command of the README that needs what is not installed is passed over, unless everything is said to be there.
NEEDS = {"dpcore": "dpcore.cli", "pytest": "dpcore.testing"}


class Block(NamedTuple):
    kind: str
    text: str
    line: int


class Command(NamedTuple):
    line: int
    shown: str
    output: str


BLOCKS = [
    Block(found[1], found[2], README.count("\n", 0, found.start()) + 2)
    for found in re.finditer(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
]


def files() -> dict[str, str]:
    """Return the files that the README writes; each begins with a comment that is its name."""
    named = [(re.match(r"# ([\w.]+)\n", block.text), block) for block in BLOCKS if block.kind in ("python", "toml")]
    assert all(name for name, _ in named)
    return {name[1]: block.text for name, block in named if name}


def commands() -> list[Command]:
    """Return the commands of the blocks that show an output."""
    found = []
    for block in BLOCKS:
        if block.kind == "console":
            for part in re.finditer(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block.text, re.MULTILINE):
                line = block.line + block.text.count("\n", 0, part.start())
                found.append(Command(line, part[1], part[2]))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the files of the README, and install its plugin as an editable install would: by its metadata."""
    folder = tmp_path_factory.mktemp("readme")
    written = files()
    project = tomllib.loads(written["pyproject.toml"])["project"]
    metadata = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    groups = project["entry-points"].items()
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items()) for group, entries in groups
    ]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    for name, text in written.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    assert {block.kind for block in BLOCKS} == {"python", "toml", "console", "sh", "text"}
    assert len(commands()) >= 10


@pytest.mark.parametrize("command", commands(), ids=lambda command: f"line {command.line}: {command.shown}")
def test_a_command_prints_what_is_shown(command: Command, folder: Path) -> None:
    """``...`` in an output stands for anything."""
    program = re.sub(r"^([A-Z_]+=\S+ )+", "", command.shown).split()[0]
    if program in NEEDS and find_spec(NEEDS[program]) is None and not os.environ.get("DPCORE_REQUIRE_SERVICES"):
        pytest.skip(f"{NEEDS[program]} is not installed")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DPCORE_")}
    environment |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(folder)}
    done = subprocess.run(
        command.shown, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    wanted = ".*".join(re.escape(part) for part in command.output.split("..."))
    assert re.fullmatch(wanted, done.stdout, re.DOTALL), done.stdout


@pytest.mark.parametrize("name", [name for name in files() if name.endswith(".py")])
def test_a_file_of_the_readme_runs_as_a_program(name: str, folder: Path) -> None:
    if name.startswith("test_") and find_spec("dpcore.testing") is None:
        pytest.skip("dpcore.testing is not installed")
    done = subprocess.run([sys.executable, "-W", "error", name], cwd=folder, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_program_is_the_one_among_the_examples() -> None:
    """But for docstrings, which examples have for the sake of their own."""
    example = (ROOT / "examples" / "ten_lines.py").read_text(encoding="utf-8")
    lines = [line.partition("  #")[0].rstrip() for line in files()["orders.py"].splitlines()[1:]]
    assert [line for line in lines if line] == [
        line for line in re.sub(r'^ *""".*?"""\n', "", example, flags=re.DOTALL | re.MULTILINE).splitlines() if line
    ]


def test_what_the_shell_publishes_the_shell_shows(tmp_path: Path) -> None:
    """The lines are run as they are, but for where the hub is."""
    publish, tail = next(block.text for block in BLOCKS if block.text.startswith("dpcore publish")).splitlines()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DPCORE_")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"

    async def shown() -> list[str]:
        async with App(Registry(), broker=f"multiprocess:{tmp_path / 'hub.sock'}") as app:
            await app.broker()
            lines = [line.replace("/run/shop", str(tmp_path)) for line in (publish, tail)]
            with anyio.fail_after(60):
                done = [await anyio.run_process(line, cwd=tmp_path, env=environment) for line in lines]
            return [one.stdout.decode() for one in done]

    printed, seen = anyio.run(shown)
    assert printed.strip()
    assert seen.split(maxsplit=1)[1] == 'orders.eu.paid  {"order":7}\n'


# ---------------------------------------------------------------- the lines that install


def installs() -> list[str]:
    return [block.text.strip() for block in BLOCKS if block.text.startswith("python3 -m venv")]


def test_there_are_two_lines_that_install_and_do_it_all() -> None:
    first, second = installs()
    assert first.endswith(".venv/bin/dpcore run examples/flights.py")
    assert second.endswith(".venv/bin/pytest -n auto --dist loadscope --no-loadscope-reorder")


def test_the_check_of_the_project_takes_its_test_line_from_the_readme(tmp_path: Path) -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    found = re.search(r"^line=\$\((.*)\)$", script, re.MULTILINE)
    assert found is not None
    shown = subprocess.run(found[1], shell=True, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert shown.splitlines() == installs()[1:]
    assert 'bash -euo pipefail -c "$line"' in script


# ---------------------------------------------------------------- the tables


def table(heading: str) -> dict[str, list[str]]:
    """Return the rows of the table whose first heading is *heading*, by their first cell without its backquotes."""
    found = re.search(rf"^\| {heading} \|.*\n\|[-|]+\n((?:\|.*\n)+)", README, re.MULTILINE)
    assert found is not None
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in found[1].splitlines()]
    return {row[0].strip("` |"): row[1:] for row in rows}


def test_every_argument_of_task_is_explained() -> None:
    full = max((inspect.signature(one).parameters for one in get_overloads(Registry.task)), key=len)
    assert list(table("argument")) == [name for name, one in full.items() if one.kind is one.KEYWORD_ONLY]


def test_every_policy_for_overflow_is_explained() -> None:
    assert {name.strip('"') for name in table("overflow")} == set(get_args(Overflow))


def test_the_patterns_are_patterns() -> None:
    patterns = [pattern.replace("\\|", "|") for pattern in table("pattern")]
    assert [check_pattern(pattern) for pattern in patterns] == patterns


def test_every_hook_is_named_with_its_arguments_and_its_kind() -> None:
    hooks: dict[str, Any] = {f"{spec.name}({', '.join(spec.arguments)})": spec.kind for spec in SPECS.values()}
    assert {name: row[0] for name, row in table("hook").items()} == hooks


def test_every_adapter_that_ships_is_listed() -> None:
    plugins = Plugins()
    offers = [(kind, offer) for kind in KINDS for offer in plugins.offers(kind)]
    shipped = {(kind, offer.provider.name) for kind, offer in offers if offer.source == "dpcore"}
    assert set(re.findall(rf"^\| `({'|'.join(KINDS)})` \| `([\w-]+)` \|", README, re.MULTILINE)) == shipped


def test_what_it_links_to_is_there() -> None:
    links = set(re.findall(r"\]\(([^)]+)\)", README))
    assert [link for link in links if not (ROOT / link).exists()] == []
