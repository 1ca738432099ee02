"""A program that counts what its runs leave behind in it: run by test_leaks.py."""

from __future__ import annotations

import gc
import json
import resource
import sys
import threading
from pathlib import Path

import anyio

import dpcore
from dpcore import App, run

tasks = dpcore.Registry()
WARM = 100


@tasks.task
def rows() -> list[int]:
    return [1] * 1000


@tasks.task
async def total(rows: list[int]) -> int:
    return sum(rows)


@tasks.task
def days():
    yield from range(3)


@tasks.task(timeout=60)
def large() -> bytearray:
    return bytearray(100_000)


@tasks.task(max_retries=1, fail_safe=True)
def bad(total: int) -> None:
    raise ValueError("no")


def held() -> dict[str, int]:
    sys._clear_type_cache()  # which holds on to the last 4,096 names that were looked up
    gc.collect()
    return {
        "threads": threading.active_count(),
        "files": len([*Path("/proc/self/fd").iterdir()]),
        "blocks": sys.getallocatedblocks(),
        "bytes": int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize(),
    }


def apart(folder: Path, times: int) -> None:
    """Run each in an App of its own."""
    plugins = dpcore.Plugins(installed=False)
    for number in range(times):
        on_disk = {"io": f"filesystem:{folder}/io", "store": f"sqlite:{folder}/runs.db"} if number % 4 == 0 else {}
        executor = "inline" if number % 2 else "threads?slots=2"
        assert run(registry=tasks, plugins=plugins, executor=executor, check=False, **on_disk)["total"] == 1000


def in_one(folder: Path, times: int) -> None:
    """Run all of them in one App that stays."""

    async def main() -> None:
        plugins = dpcore.Plugins(installed=False)
        async with App(tasks, plugins=plugins, io=f"filesystem:{folder}/io", store=f"sqlite:{folder}/runs.db") as app:
            for number in range(times + WARM + 1):
                result = await app.run(check=False)
                assert result["total"] == 1000
                if number == WARM:
                    before.update(held())
            after.update(held())

    before: dict[str, int] = {}
    after: dict[str, int] = {}
    anyio.run(main)
    print(json.dumps([before, after]))


if __name__ == "__main__":
    how, folder, times = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if how == "in one":
        in_one(folder, times)
    else:
        apart(folder, WARM)
        before = held()
        apart(folder, times)
        print(json.dumps([before, held()]))
