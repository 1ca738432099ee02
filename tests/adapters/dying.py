"""What the jobs of test_multiprocess_executor.py do: they end in every way there is, or not at all."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import anyio
import sniffio

from dpcore_plugins.executors.multiprocess.wire import DONE, frame


def pid() -> int:
    return os.getpid()


def take(seconds: float, *, fail: bool = False) -> None:
    time.sleep(seconds)
    assert not fail


def end(how: str) -> None:
    """End the process that runs this, in one of many ways."""
    if how == "segfault":
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        ctypes.string_at(0)
    elif how == "exit":
        os._exit(7)
    elif how == "nothing":
        os._exit(0)
    elif how == "files":
        os.closerange(3, 100)
        time.sleep(60)
    elif how == "files, and returns":
        os.closerange(3, 100)
    elif how == "abort":
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.abort()
    else:
        os.kill(os.getpid(), getattr(signal, how))
        time.sleep(60)


def end_of_thread() -> None:
    threading.Thread(target=os._exit, args=(3,)).start()
    time.sleep(60)


def touch(folder: str, name: str) -> None:
    (Path(folder) / name).touch()


def stay(folder: str) -> None:
    """Stay for ever, and clean up when told to end."""
    try:
        touch(folder, f"{os.getpid()}.begun")
        while True:
            time.sleep(60)
    finally:
        touch(folder, f"{os.getpid()}.cleaned")


def pid_when_one_has_begun(folder: str) -> int:
    """Wait until another job stays, and say where this one is done."""
    while not [*Path(folder).glob("*.begun")]:
        time.sleep(0.001)
    return os.getpid()


def stay_until(folder: str, name: str) -> None:
    touch(folder, f"{name} begun")
    while not (Path(folder) / name).exists():
        time.sleep(0.001)


async def stay_async(folder: str) -> None:
    """Stay in a coroutine that blocks its loop."""
    stay(folder)


async def wait_async(folder: str) -> None:
    """Stay in a coroutine that leaves its loop free."""
    try:
        touch(folder, f"{os.getpid()}.begun")
        await anyio.sleep(60)
    finally:
        touch(folder, f"{os.getpid()}.cleaned")


def stay_generating(folder: str):
    """Stay between two items."""
    yield 1
    stay(folder)


def stay_in_c(folder: str) -> None:
    """Stay where no signal is heard by Python."""
    touch(folder, f"{os.getpid()}.begun")
    ctypes.PyDLL(None).sleep(60) if sys.platform == "linux" else time.sleep(60)
    while True:
        pow(7, 10**8)


def stay_in_spite_of_all(folder: str) -> None:
    while True:
        try:
            touch(folder, f"{os.getpid()}.begun")
            while True:
                time.sleep(60)
        except BaseException:  # noqa: BLE001
            touch(folder, f"{os.getpid()}.cleaned")


def stay_with_a_child(folder: str) -> None:
    child = subprocess.Popen(["sleep", "60"])
    touch(folder, f"{child.pid}.child")
    touch(folder, f"{os.getpid()}.begun")
    child.wait()


def _refuse():
    raise ValueError("it was well when it was stored")


class Broken:
    def __reduce__(self):
        return _refuse, ()


def does_not_load() -> Broken:
    return Broken()


async def loop_async():
    library = sniffio.current_async_library()
    return library, id(asyncio.get_running_loop()) if library == "asyncio" else 0


async def leave_task_async() -> int:
    asyncio.get_running_loop().create_task(asyncio.sleep(60))
    return len(asyncio.all_tasks())


def print_in_every_way(text: str) -> None:
    print(f"a {text}")
    print(f"b {text}", file=sys.stderr)
    subprocess.run(["echo", f"c {text}"], check=True)
    os.write(1, f"d {text}\n".encode())


def print_much(lines: int) -> None:
    for number in range(lines):
        print("line", number)


def say_and_die() -> None:
    print("at row 7", end="", flush=True)
    os._exit(7)


def log_some() -> None:
    log = logging.getLogger("shop")
    log.debug("nobody wants to know")
    log.info("%d sold", 7)
    log.error("none left", extra={"lock": threading.Lock()})


class Unloadable:
    """Pickles, and does not load."""

    def __reduce__(self):
        return int, ("no number",)


def log_what_does_not_load() -> int:
    for number in range(20):
        logging.getLogger("shop").warning("%d sold", number, extra={"user": Unloadable()})
    return 7


def log_for(user: str) -> int:
    for number in range(20):
        logging.getLogger("shop").warning("%d sold", number, extra={"user": user})
    logging.getLogger("shop").warning("to nobody")
    return 7


def say_nonsense() -> None:
    """Say on the worker's own channel that another job has ended."""
    for file in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if file.is_socket():
                os.write(int(file.name), frame(DONE, 12345, b"?"))
    time.sleep(60)


def count_up(folder: str, name: str) -> None:
    with (Path(folder) / f"{name}.count").open("a") as file:
        file.write("x")


def variable(name: str) -> str | None:
    return os.environ.get(name)


def modules() -> list[str]:
    return [*sys.modules]


def print_and_stay(said) -> None:
    print("at row 7")
    said.set()
    time.sleep(60)


def take_all_memory() -> int:
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 32, before[1]))
    try:
        return len(bytearray(1 << 40))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def does_not_pickle() -> object:
    return threading.Lock()
