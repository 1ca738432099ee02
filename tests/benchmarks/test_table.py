"""The table says what was measured, and which budgets were missed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


@pytest.fixture
def table(pytestconfig: pytest.Config) -> Any:
    return pytestconfig.pluginmanager.get_plugin(str(HERE / "conftest.py"))


def test_a_row_says_both_sides_and_how_they_compare(table: Any) -> None:
    heads, row = table.lines([table.Figure("a task", 6e-6, "a call", 2e-6, 3.14159, 4, "s", "cpu")])
    assert heads.split() == ["what", "dpcore", "the", "other", "ratio", "median", "budget", "within", "clock"]
    assert re.split("  +", row) == ["a task", "6 µs", "2 µs", "a call", "3x", "3.14x", "4x", "yes", "cpu"]


def test_a_budget_that_is_missed_is_said(table: Any) -> None:
    assert "MISSED" in table.lines([table.Figure("a task", 6e-6, "a call", 1e-6, 6.0, 4, "s")])[1]
    assert "MISSED" in table.lines([table.Figure("memory of a task", 3_000, "", None, None, 2_048, "B")])[1]


def test_what_has_no_budget_is_neither_within_nor_beyond(table: Any) -> None:
    row = table.lines([table.Figure("a task", 6e-6, "a call", 1e-6, 6.0, None, "s")])[1]
    assert re.split("  +", row) == ["a task", "6 µs", "1 µs", "a call", "6x", "6x"]


def test_measuring_prints_one_table_and_writes_it_as_json(tmp_path: Path) -> None:
    asked = [
        "--benchmark-enable",
        "--benchmark-only",
        "--benchmark-max-time=0.01",
        f"--benchmark-json={tmp_path / 'f'}",
    ]
    command = [sys.executable, "-m", "pytest", f"--rootdir={HERE.parents[1]}", str(HERE / "test_observing.py"), *asked]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        command, cwd=HERE.parents[1], env=clean, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("a change of a task")]
    assert len(rows) == 3
    assert "0 of 0 budgets kept, 0 missed" in done.stdout
    written = json.loads((tmp_path / "f").read_text(encoding="utf-8"))["benchmarks"]
    ratios = [one["extra_info"]["ours"] / one["extra_info"]["theirs"] for one in written]
    assert ratios == [one["extra_info"]["ratio"] for one in written]
