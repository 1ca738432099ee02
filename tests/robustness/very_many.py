"""A program that runs very many tasks that do nothing, and says what they cost it: run by test_leaks.py."""

from __future__ import annotations

import gc
import json
import resource
import sys
from pathlib import Path

import dpcore
from dpcore import App


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def main(count: int) -> None:
    tasks = dpcore.Registry()

    def nothing() -> None: ...

    for number in range(count):
        tasks.task(name=f"nothing_{number}")(nothing)
    async with App(tasks, plugins=dpcore.Plugins(installed=False), executor="inline") as app:
        app.plan()  # what a registry's tasks remember of their functions is the registry's
        gc.collect()
        before = resident()
        result = await app.run()
        after = resident()
        assert len(result) == count
        assert (await app.history(result.run_id)).record.counts == {"succeeded": count}
    print(json.dumps((after - before) / count))


if __name__ == "__main__":
    import anyio

    anyio.run(main, int(sys.argv[1]))
