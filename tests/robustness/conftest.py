"""Programs that run beside the test, as real processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


@pytest.fixture
def programs() -> Callable[..., list[Any]]:
    """Run a program of this folder, once for each list of arguments, all at the same time; return what each printed."""

    def run(name: str, *calls: list[object], timeout: float = 300) -> list[Any]:
        started = [
            subprocess.Popen(
                [sys.executable, HERE / name, *map(str, arguments)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for arguments in calls
        ]
        try:
            ended = [(process, *process.communicate(timeout=timeout)) for process in started]
        finally:
            for process in started:
                process.kill()
                process.wait()
        for process, out, err in ended:
            assert process.returncode == 0, f"{out}\n{err}"
        return [json.loads(out) for _, out, _ in ended]

    return run
