"""Tasks that tell what their worker was sent, and how often."""

from __future__ import annotations

import os
from functools import wraps
from hashlib import sha256

from dpcore import Registry, current_job

tasks = Registry()


class Counted:
    """Bytes that know how often this process has pickled and loaded one of them."""

    pickled = loaded = 0

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __getstate__(self) -> bytes:
        Counted.pickled += 1
        return self.data

    def __setstate__(self, data: bytes) -> None:
        Counted.loaded += 1
        self.data = data


def times_loaded() -> tuple[int, int]:
    """Return this process, and how often it has loaded what is counted; the job has some of it."""
    assert current_job().params["data"].data
    return os.getpid(), Counted.loaded


def digests() -> tuple[str, str]:
    """Return what the job's parameter and metadata are."""
    job = current_job()
    return sha256(job.params["data"]).hexdigest(), sha256(job.metadata["data"]).hexdigest()


def seen() -> str:
    """Return the run that the parameters of the job are of; nothing, when it has none."""
    return str(current_job().params.get("run", ""))


def _pid() -> int:
    return os.getpid()


def again():
    """Stand for what is put here anew each time."""
    return os.getpid()


def _put(function):
    function.__name__ = function.__qualname__ = "again"
    globals()["again"] = function
    return function


def decorated_anew():
    """Return a function that this module has under the same name each time, decorated once more."""

    @wraps(_pid)
    def decorated() -> int:
        return _pid()

    return _put(decorated)


def defined_anew():
    """Return a function that this module has under the same name each time, defined once more."""

    def defined() -> int:
        return os.getpid()

    return _put(defined)
