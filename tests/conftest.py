"""What every test may use: an isolated registry, no plugin that the machine happens to have, and real servers."""

from __future__ import annotations

import gc
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dpcore

ROOT = str(Path(__file__).parents[1])
if ROOT not in sys.path:
    # Other processes import tests by their names.  Last, so that the dpcore that is installed is found first.
    sys.path.append(ROOT)


@pytest.fixture
def tasks() -> dpcore.Registry:
    """A registry of the test's own."""
    return dpcore.Registry()


@pytest.fixture
def plugins() -> dpcore.Plugins:
    """The bundle, and nothing that is installed beside it."""
    return dpcore.Plugins(installed=False)


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the settings of the machine away from the test."""
    for name in [name for name in os.environ if name.startswith("DPCORE_") and name != "DPCORE_REQUIRE_SERVICES"]:
        monkeypatch.delenv(name)


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        missing(f"a full disk takes the right to mount one: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def pytest_collection_finish() -> None:
    """Look for garbage no more in what lives as long as the tests: in half a million objects each look took 0.2 s."""
    _drawn()
    gc.collect()
    gc.freeze()


@settings(max_examples=1, database=None)
@given(st.none())
def _drawn(value: None) -> None:
    """Have hypothesis make its source of chance, and see who holds it, while that can still be seen."""


# ---------------------------------------------------------------- what a machine may lack


def missing(what: str) -> NoReturn:
    """Skip a test that this machine cannot run; fail it where ``DPCORE_REQUIRE_SERVICES=1`` says that it must."""
    (pytest.fail if os.environ.get("DPCORE_REQUIRE_SERVICES") == "1" else pytest.skip)(what)


SERVERS = {
    "nats-server": (("--addr", "127.0.0.1", "--port", "-1"), r"client connections on 127\.0\.0\.1:(\d+)"),
    "redis-server": (
        ("--bind", "127.0.0.1", "--port", "{port}", "--save", "", "--appendonly", "no"),
        "Ready to accept connections",
    ),
}
"""The arguments of each, and what it prints once it listens: with the port, where it chose one itself."""


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., AbstractContextManager[int]]:
    """Start a server of the test's own: ``with service("redis-server") as port``, on the loopback, in an empty folder.

    Further arguments are the server's.  Where it is not installed the test is :func:`missing` it.
    """

    def serving(program: str, *arguments: str) -> AbstractContextManager[int]:
        return started(program, *arguments, folder=tmp_path_factory.mktemp(program))

    return serving


@contextmanager
def started(program: str, *more: str, folder: Path) -> Iterator[int]:
    """Run *program* until the block is left; give the port on which it says that it listens.

    That is why it is believed and not only connected to: somebody else may have
    taken the port meanwhile.
    """
    path = shutil.which(program, path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    if path is None:
        missing(f"{program} is not installed: apt-get install {program}")
    arguments, ready = SERVERS[program]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    command = [path, *(one.format(port=port) for one in arguments), *more]
    with subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        reading = threading.Thread(target=deque, args=(process.stdout, 0))  # a full pipe would stop the server
        try:
            found = _heard(process, ready)
            reading.start()
            yield int(found[1]) if found.re.groups else port
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
            if reading.ident is not None:
                reading.join()


def _heard(process: subprocess.Popen[str], ready: str) -> re.Match[str]:
    """Read what *process* prints until it is *ready*."""
    patience = threading.Timer(30, process.kill)
    patience.start()
    printed = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(ready, line):
                return found
            printed.append(line)
    finally:
        patience.cancel()
    pytest.fail(f"{process.args} ended before it was ready:\n{''.join(printed)}")
