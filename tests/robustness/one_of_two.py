"""A program that runs the same tasks again and again on a store that another one uses too: run by test_together.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import anyio

import dpcore
from dpcore import App

tasks = dpcore.Registry()


@tasks.task
def rows(size: int) -> list[int]:
    return [size] * size


@tasks.task
def days(rows: list[int]):
    yield from rows[:5]


@tasks.task(each="days")
def each_day(days: int) -> int:
    return days + 1


@tasks.task
def total(each_day: list[int], rows: list[int]) -> int:
    return sum(each_day) + len(rows)


async def main(name: str, folder: Path, times: int) -> None:
    found = {}
    plugins = dpcore.Plugins(installed=False)
    io, store = f"filesystem:{folder}/results", f"sqlite:{folder}/runs.db"
    async with App(tasks, plugins=plugins, io=io, store=store) as app:
        for number in range(times):
            result = await app.run(params={"size": 10 + number}, run_id=f"{name}-{number}")
            found[result.run_id] = result["total"]
            records = await app.store()
            while await records.write("turns", [name, number], expected=(await records.read("turns"))[1]) is None:
                pass  # the other one came first
    print(json.dumps(found))


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
