"""The third-party package of the examples: installed as anybody's, found by name, and true to its port."""

from __future__ import annotations

import json
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "examples" / "custom_adapter"

ORDERS = """
from dpcore import task

@task
def orders() -> list[int]:
    return [30, 10, 2]

@task
def total(orders: list[int]) -> int:
    return sum(orders)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """Return the interpreter of an environment in which the package is installed beside what is here."""
    home = tmp_path_factory.mktemp("custom") / "venv"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    here = sysconfig.get_path("purelib")
    (packages,) = home.glob("lib/python*/site-packages")
    (packages / "here.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    install = ["-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-build-isolation", str(PACKAGE)]
    subprocess.run([python, *install], check=True, stdin=subprocess.DEVNULL, timeout=120)
    return python


def dpcore(python: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; sys.argv[0] = 'dpcore'; from dpcore.cli import main; main()"
    return subprocess.run(
        [python, "-c", code, *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )


def test_it_is_found_by_its_entry_point_and_listed_without_being_asked_for(python, tmp_path):
    listed = json.loads(dpcore(python, tmp_path, "plugins", "--json").stdout)
    assert "jsonlines" in json.dumps(listed)
    assert "dpcore-jsonlines" in json.dumps(listed)


def test_a_pipeline_runs_on_it_by_name_and_its_results_are_lines_of_json(python, tmp_path):
    (tmp_path / "orders.py").write_text(ORDERS)
    done = dpcore(python, tmp_path, "run", "orders.py", "--io", "jsonlines:./results")
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "results").glob("*.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert {line["task"]: line["value"] for line in lines} == {"orders": [30, 10, 2], "total": 42}


def test_what_it_refuses_fails_the_task_with_its_words(python, tmp_path):
    (tmp_path / "pair.py").write_text("from dpcore import task\n@task\ndef pair():\n    return (1, 2)\n")
    done = dpcore(python, tmp_path, "run", "pair.py", "--io", "jsonlines:./results")
    assert done.returncode == 1
    assert "cannot store the result" in done.stdout + done.stderr


def test_it_passes_the_suite_of_its_port(python, tmp_path):
    done = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", PACKAGE / "tests"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
