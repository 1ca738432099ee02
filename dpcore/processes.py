"""Which process this is, and whether another one has certainly ended."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

__all__ = ("is_gone", "shown_process", "this_process")


def this_process() -> str:
    """Name this process as no other is named, on any machine and at any time.

    It is ``HOST/BOOT/PID/BEGAN``: the machine, what tells one start of it (or one container on it)
    from others, the process's number there, and when it began.  Parts that the system does not
    tell are empty.
    """
    return _named(os.getpid())


@lru_cache(maxsize=1)  # it stays the same, and takes longer to find out than all else that begins a small run
def _named(pid: int) -> str:
    return f"{_here()}/{pid}/{_began(pid) or ''}"


def is_gone(process: str) -> bool:
    """Tell whether the process of that name has ended for certain; False where that cannot be known from here."""
    here, pid, began = _parted(process)
    if here != _here() or not began or not pid.isdecimal():
        return False
    if _is_hidden(int(pid)):
        return False
    return _began(int(pid)) != began


def shown_process(process: str) -> str:
    """Write the name of a process as people do.

    >>> shown_process("laptop/1c2d/4711/9"), shown_process("")
    ('process 4711 on laptop', 'a process that left no name')
    """
    here, pid, _ = _parted(process)
    return f"process {pid} on {here.partition('/')[0]}" if pid else "a process that left no name"


def _parted(process: str) -> tuple[str, str, str]:
    here, _, rest = process.rpartition("/")
    here, _, pid = here.rpartition("/")
    return here, pid, rest


def _here() -> str:
    boot = namespace = ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = str(Path("/proc/self/ns/pid").readlink()).removeprefix("pid:").strip("[]")
    return f"{socket.gethostname().replace('/', '_')}/{boot}.{namespace}"


def _is_hidden(pid: int) -> bool:
    """Tell whether there is such a process, of somebody else, of which the system shows us nothing (``hidepid``)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return not Path(f"/proc/{pid}/stat").exists()
    except (ProcessLookupError, OverflowError):
        return False
    return False


def _began(pid: int) -> str | None:
    """Return when a living process of this machine began, as the system counts; None if there is none, or no way to know."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()  # its name, in brackets before, may hold anything
    return fields[18] if state not in ("Z", "X") else None
