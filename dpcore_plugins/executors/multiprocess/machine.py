"""What the system says of cores, memory and processes."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

__all__ = ("cores", "die_with_parent", "ended", "group_folders", "kills_for_memory")

_GROUPS = Path("/sys/fs/cgroup")
_PR_SET_PDEATHSIG = 1


def cores() -> int:
    """Return how many cores this process may use: those it is bound to, or fewer where its cgroup has a quota."""
    try:
        count = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        count = os.cpu_count() or 1
    quotas = [quota for folder in group_folders() if (quota := _quota(folder)) is not None]
    return max(1, min(count, *(max(1, round(quota)) for quota in quotas)) if quotas else count)


def kills_for_memory() -> int | None:
    """Return how many processes of this cgroup the kernel has killed for want of memory; None if nobody says."""
    for folder in group_folders():
        for name in ("memory.events", "memory.oom_control"):
            try:
                lines = (folder / name).read_text().splitlines()
            except OSError:
                continue
            for line in lines:
                word, _, number = line.partition(" ")
                if word == "oom_kill":
                    return int(number)
    return None


def _quota(folder: Path) -> float | None:
    try:
        if (both := folder / "cpu.max").exists():
            most, period = both.read_text().split()
        else:
            most, period = (folder / "cpu.cfs_quota_us").read_text(), (folder / "cpu.cfs_period_us").read_text()
        return int(most) / int(period) if int(most) > 0 else None
    except (OSError, ValueError):  # there is none, or it says "max"
        return None


def group_folders() -> list[Path]:
    """Return the folders of the cgroups that this process is in, its own first, then those around it."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    folders: list[Path] = []
    for line in lines:
        _, kinds, path = line.split(":", 2)
        roots = [_GROUPS / kinds] if kinds else [_GROUPS, _GROUPS / "unified"]
        for root in roots:
            own = root / path.lstrip("/")
            folders += [folder for folder in (own, *own.parents) if folder.is_relative_to(root)]
    return [folder for folder in folders if folder.is_dir()]


def die_with_parent(number: int, parent: int) -> None:
    """Have the system send this process the signal *number* when *parent* dies, where there is a way; end if it is dead."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def ended(status: int) -> str:
    """Say how a process ended.

    >>> ended(9), ended(7 << 8)
    ('was killed by SIGKILL', 'exited with code 7')
    """
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
