"""What a script is told that starts a run as soon as anybody loads it."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import dpcore
from dpcore import App, run, task

@task
def one() -> int:
    return 1

print("loaded")
{start}
"""
WORKER = """
import sys
from dpcore.errors import UnguardedScriptError
from dpcore.jobs import Function

for _ in range(2):
    try:
        print(Function.find("__main__", sys.argv[1], "one").call())
    except UnguardedScriptError as error:
        print(error)
"""
STARTS = {
    "run": "print(dict(run(plugins=dpcore.Plugins(installed=False))))",
    "app": """
async def main():
    async with App(plugins=dpcore.Plugins(installed=False)) as app:
        print(dict(await app.run()))

import asyncio
asyncio.run(main())
""",
}


def output(*arguments: object) -> list[str]:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("start", STARTS)
def test_an_unguarded_script_is_told_what_to_write_each_time_it_is_loaded(start, tmp_path):
    script = tmp_path / "orders.py"
    script.write_text(SCRIPT.format(start=STARTS[start]))
    assert output(script) == ["loaded", "{'one': 1}"]
    told = (
        f"{script} starts a run when it is only loaded for its tasks, as every worker process does; "
        'put what starts it under: if __name__ == "__main__":'
    )
    assert output("-c", WORKER, script) == ["loaded", told] * 2


def test_a_guarded_script_is_loaded_once_and_gives_its_tasks(tmp_path):
    script = tmp_path / "orders.py"
    script.write_text(SCRIPT.format(start=f'if __name__ == "__main__":\n    {STARTS["run"]}'))
    assert output(script) == ["loaded", "{'one': 1}"]
    assert output("-c", WORKER, script) == ["loaded", "1", "1"]
