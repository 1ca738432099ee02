"""A program whose tasks fork, for test_forks.py: their children come back from the body, each in its own way."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import sys
import time
from functools import partial

import anyio
import anyio.lowlevel

import dpcore


def code_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def come_back(how: str) -> object:
    """End a child of the body as *how* says, and say with which code it ended."""
    pid = os.fork()
    if pid:
        return code_of(pid)
    print(f"the child {how}")
    if how == "raises":
        raise ValueError("of the child")
    if how.startswith("exits"):
        sys.exit({"exits": None, "exits with 3": 3, "exits with a text": "so it is"}[how])
    return "of the child"


async def come_back_async(how: str) -> object:
    await anyio.lowlevel.checkpoint() if how == "awaits first" else None
    pid = os.fork()
    if pid:
        return code_of(pid)
    if how == "awaits":
        await anyio.lowlevel.checkpoint()
    if how == "raises":
        raise ValueError("of the child")
    return "of the child"


def generate(how: str):
    """Have a child between two items, and give its code."""
    yield 1
    pid = os.fork()
    if not pid:
        print(f"the child {how}")
        if how == "raises":
            raise ValueError("of the child")
        if how == "yields":
            yield "of the child"
        return
    yield code_of(pid)


async def generate_async(how: str):
    for item in generate(how):
        yield item


def speak(how: str) -> object:
    """Have a child speak to the program, and give its code."""
    pid = os.fork()
    if pid:
        return code_of(pid)
    if how == "logs":
        logging.getLogger("shop").warning("of the child")
    elif how == "publishes":
        dpcore.current_job().publish("a.topic", "of the child", now=True)
    return None


def _stay() -> None:
    time.sleep(60)


def terminate() -> list[int | None]:
    """Terminate processes that were forked a moment ago; give their codes."""
    context = multiprocessing.get_context("fork")
    codes = []
    for _ in range(20):
        process = context.Process(target=_stay)
        process.start()
        process.terminate()
        process.join()
        codes.append(process.exitcode)
    return codes


def map_on_a_pool() -> list[int]:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(abs, [-1, -2])


def signals_of_a_child() -> bool:
    """Tell whether a child has the signals and files that it would have, had no worker forked it."""
    pid = os.fork()
    if pid:
        return code_of(pid) == 0
    ours = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL and signal.set_wakeup_fd(-1) == -1
    ours = ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    sockets = [name for name in os.listdir("/proc/self/fd") if is_socket(int(name))]  # noqa: PTH208
    sys.exit(0 if ours and not sockets and not signal.pthread_sigmask(signal.SIG_BLOCK, ()) else f"{sockets}")


def is_socket(file: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{file}").startswith("socket:")  # noqa: PTH115
    except OSError:
        return False


CALLS = [
    partial(come_back, "returns"),
    partial(come_back, "raises"),
    partial(come_back, "exits"),
    partial(come_back, "exits with 3"),
    partial(come_back, "exits with a text"),
    partial(come_back_async, "returns"),
    partial(come_back_async, "awaits first"),
    partial(come_back_async, "raises"),
    partial(come_back_async, "awaits"),
    partial(generate, "ends"),
    partial(generate, "yields"),
    partial(generate, "raises"),
    partial(generate_async, "ends"),
    partial(generate_async, "yields"),
    partial(generate_async, "raises"),
]
OF_A_WORKER = [
    partial(speak, "logs"),
    partial(speak, "publishes"),
    terminate,
    map_on_a_pool,
    signals_of_a_child,
]


def main(executor: str, library: str, which: str) -> None:
    """Do each, and then all once more; say what each gave, and what was printed by it."""
    tasks = dpcore.Registry()
    for call in CALLS if which == "all" else OF_A_WORKER:
        name = (
            "_".join([call.func.__name__, *call.args]).replace(" ", "_") if isinstance(call, partial) else call.__name__
        )
        tasks.task(name=name)(call)
    said = []

    async def run() -> None:
        async with dpcore.App(tasks, executor=executor, plugins=dpcore.Plugins(installed=False)) as app:
            for _ in range(2):
                result = await app.run()
                said.append({name: list(made) if "generate" in name else made for name, made in result.items()})
        said.append({name: outcome.output for name, outcome in result.outcomes.items()})

    anyio.run(run, backend=library)
    print(json.dumps(said), file=sys.__stdout__)


if __name__ == "__main__":
    main(*sys.argv[1:])
