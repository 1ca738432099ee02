"""What a body has forked is not the worker: it ends where it would come back, and nothing is stored or said by it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARIES = pytest.mark.parametrize("library", ["asyncio", "trio"])
PATIENCE = 60.0


def said(executor: str, library: str, which: str) -> list[dict[str, object]]:
    """Return what the tasks gave at first, what they gave again, and what each has printed."""
    program = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "tests.adapters.forking", executor, library, which],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert program.returncode == 0, program.stderr
    lines = program.stdout.splitlines()
    assert sum(line.startswith("[{") for line in lines) == 1, "there is one program, and not two"
    return json.loads(lines[-1])


ENDS = {
    "come_back_returns": 0,
    "come_back_raises": 1,
    "come_back_exits": 0,
    "come_back_exits_with_3": 3,
    "come_back_exits_with_a_text": 1,
    "come_back_async_returns": 0,
    "come_back_async_awaits_first": 0,
    "come_back_async_raises": 1,
    "come_back_async_awaits": 1,
    "generate_ends": [1, 0],
    "generate_yields": [1, 0],
    "generate_raises": [1, 1],
    "generate_async_ends": [1, 0],
    "generate_async_yields": [1, 0],
    "generate_async_raises": [1, 1],
}


@LIBRARIES
@pytest.mark.parametrize("executor", ["multiprocess?workers=1", "threads", "inline"])
def test_a_child_that_would_come_back_from_the_body_ends_there(executor, library):
    first, again, _ = said(executor, library, "all")
    assert first == ENDS
    assert again == ENDS


CANNOT_WAIT = {
    "asyncio": "asyncio, trio",  # anyio's own error: in a child asyncio has no loop
    "trio": "RuntimeError: a process that a coroutine has forked cannot wait: the event loop is its parent's",
}


@LIBRARIES
def test_what_a_child_says_at_its_end_is_printed_by_the_job(library):
    _, _, output = said("multiprocess?workers=1", library, "all")
    assert output["come_back_exits_with_a_text"] == "the child exits with a text\nso it is\n"
    lines = output["come_back_raises"].splitlines()
    assert [lines[0], lines[1], lines[-1]] == [
        "the child raises",
        "Traceback (most recent call last):",
        "ValueError: of the child",
    ]
    assert output["come_back_async_awaits"].splitlines()[-1].endswith(CANNOT_WAIT[library])


@LIBRARIES
def test_a_child_has_nothing_of_the_worker_but_where_it_prints(library):
    first, again, output = said("multiprocess?workers=1", library, "worker")
    assert (
        first
        == again
        == {
            "speak_logs": 0,
            "speak_publishes": 1,
            "terminate": [-15] * 20,
            "map_on_a_pool": [1, 2],
            "signals_of_a_child": True,
        }
    )
    assert output["speak_logs"] == "WARNING:shop:of the child\n"
    assert output["speak_publishes"].endswith(
        "RuntimeError: this process was forked by a job, and cannot speak to the program in its place\n"
    )
    assert output["terminate"] == output["map_on_a_pool"] == output["signals_of_a_child"] == ""
