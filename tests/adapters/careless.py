"""What the jobs of test_multiprocess_careless.py do: they leave their worker in a state."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

from dpcore import current_job


def close_streams() -> None:
    sys.stdout.close()
    sys.stderr.close()


def close_files() -> None:
    for file in (0, 1, 2):
        os.close(file)


def replace_streams() -> None:
    sys.stdout = sys.stderr = StringIO()


def print_elsewhere() -> None:
    nothing = os.open(os.devnull, os.O_WRONLY)
    for file in (1, 2):
        os.dup2(nothing, file)


def fill_what_does_not_block() -> None:
    os.set_blocking(1, False)
    try:
        while True:
            os.write(1, b"x" * 4096)
    except BlockingIOError:
        pass


def leave_it_so() -> None:
    os.set_blocking(1, False)


def say(text: str) -> int:
    print(text)
    print(text, file=sys.stderr)
    os.write(1, text.encode() + b"\n")
    return len(sys.stdin.read())


def log_from_a_signal() -> int:
    """Log records of megabytes, and small ones by a signal that comes in between."""
    log = logging.getLogger("careless")
    ticks = []

    def tick(*_) -> None:
        ticks.append(1)
        log.warning("tick")

    signal.signal(signal.SIGALRM, tick)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    for _ in range(20):
        log.warning("x" * 2_000_000)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return len(ticks)


def open_in_a_child() -> str:
    """Return what a child has open that is told to keep all that it may."""
    child = subprocess.run(["ls", "-l", "/proc/self/fd"], close_fds=False, capture_output=True, text=True, check=True)
    return child.stdout


def hold_the_interpreter() -> None:
    """Leave a thread behind that lets nobody else run, from half a second on until it is killed."""

    timer = threading.Timer(0.5, re.match, ["(a*)*b", "a" * 64])
    timer.daemon = True
    timer.start()


def length(data: bytes) -> int:
    return len(data)


def one_and_then_another_when_it_is_published(folder: str) -> Iterator[int]:
    yield 1
    while not (Path(folder) / "published").exists():
        time.sleep(0.001)
    yield 2


def publish_on_a_thread(numbers: Iterator[int], folder: str) -> int:
    job = current_job()
    first = threading.Event()

    def publish() -> None:
        first.wait()
        for number in range(5):
            job.publish("careless", number, now=True)
        (Path(folder) / "published").touch()

    thread = threading.Thread(target=publish)
    thread.start()
    count = 0
    for _ in numbers:
        first.set()
        count += 1
    thread.join()
    return count
