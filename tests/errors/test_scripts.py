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
from dpcore.functions import Function

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


IMPORTING = """
import dpcore
{imports}

if __name__ == "__main__":
    result = dpcore.run(executor="multiprocess?workers=1", check=False)
    print(result.outcomes["one"].state, result.outcomes["one"].error)
"""


def test_a_module_that_starts_a_run_where_a_worker_imports_it_is_told_too(tmp_path):
    """In the program it may do so; in a worker it would run all of it once more."""
    module = tmp_path / "flow.py"
    module.write_text(SCRIPT.format(start=STARTS["run"]))
    script = tmp_path / "program.py"
    script.write_text(IMPORTING.format(imports="import flow"))
    *before, after = output(script)
    assert before == ["loaded", "{'one': 1}"]
    assert after.startswith(f"failed {module} starts a run when it is only loaded for its tasks")


def test_a_guarded_script_is_loaded_once_and_gives_its_tasks(tmp_path):
    script = tmp_path / "orders.py"
    script.write_text(SCRIPT.format(start=f'if __name__ == "__main__":\n    {STARTS["run"]}'))
    assert output(script) == ["loaded", "{'one': 1}"]
    assert output("-c", WORKER, script) == ["loaded", "1", "1"]
