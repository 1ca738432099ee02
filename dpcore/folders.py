"""Private temporary folders: each goes with its owner, and those of programs that were killed go with a later one.

All of a process lie in one folder, ``dpcore-XXXX``, with a file in it that the process has
locked for its life.  A child that was forked shares the lock, which lasts until both have
ended, and removes nothing; one that has begun another program does not have it.
"""

from __future__ import annotations

import os
import weakref
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG

try:
    import fcntl
except ImportError:  # then nobody can tell that an owner is dead, and nothing of others is removed
    fcntl = None  # type: ignore[assignment]

__all__ = ("PrivateFolder", "sweep")

_PREFIX = "dpcore-"
_OWNER = ".dpcore-owner"


class PrivateFolder:
    """A private temporary folder that goes when nobody holds this any more."""

    def __init__(self) -> None:
        import shutil  # noqa: PLC0415  (these two and what they import are needed by executors in other processes only)
        import tempfile  # noqa: PLC0415

        self._home = _home()
        self.path = Path(tempfile.mkdtemp(dir=self._home.path))
        weakref.finalize(self, _by_owner, os.getpid(), shutil.rmtree, self.path, ignore_errors=True)


class _Home:
    """What the private folders of this process lie in; it takes one open file, however many they are."""

    def __init__(self) -> None:
        import tempfile  # noqa: PLC0415

        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._lock = _owned(self.path)
        weakref.finalize(self, _by_owner, os.getpid(), _leave, self.path, self._lock)


_homes: weakref.WeakValueDictionary[int, _Home] = weakref.WeakValueDictionary()  # by process: a child makes its own


def _home() -> _Home:
    home = _homes.get(os.getpid())
    if home is None:  # two threads may each make one, which is as good
        home = _homes[os.getpid()] = _Home()
    return home


def _by_owner(pid: int, call: object, *arguments: object, **options: object) -> None:
    if os.getpid() == pid:
        call(*arguments, **options)  # type: ignore[operator]


def _owned(path: Path) -> int | None:
    """Say in the folder that it has an owner; return the file that is locked for as long as it is open."""
    if fcntl is None:
        return None
    growing, file = path / f"{_OWNER}.new", None
    try:
        file = os.open(growing, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(file, os.fsencode(path.name))  # a copy under another name is not of this owner
        growing.rename(path / _OWNER)  # only now others look at it, and it is locked
    except OSError:  # a file system without locks, or no file left: a folder that nobody else will remove
        if file is not None:
            os.close(file)
            file = None
        with suppress(OSError):
            growing.unlink()
    return file


def _leave(path: Path, lock: int | None) -> None:
    with suppress(OSError):
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            _empty(folder)
            path.rmdir()
        finally:
            os.close(folder)
    if lock is not None:
        os.close(lock)


def sweep() -> None:
    """Remove the folders of this user's programs that were killed; whatever goes wrong with one, it stays.

    It costs a look at each name in the folder of temporary files, and some calls for
    each that is a private folder's.
    """
    import tempfile  # noqa: PLC0415

    if fcntl is None:
        return
    with suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            if entry.name.startswith(_PREFIX):
                with suppress(OSError):
                    _remove_if_dead(entry.path, entry.name)


def _remove_if_dead(path: str, name: str) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(folder).st_uid != os.geteuid():
            return
        file = os.open(_OWNER, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        try:
            told = os.fstat(file)
            if not S_ISREG(told.st_mode) or os.read(file, 256) != os.fsencode(name):
                return
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError while anybody has it
            if os.path.samestat(told, os.stat(_OWNER, dir_fd=folder, follow_symlinks=False)):
                _empty(folder)
                Path(path).rmdir()
        finally:
            os.close(file)
    finally:
        os.close(folder)


def _empty(folder: int) -> None:
    """Remove all that is in a folder, and follow no link; what says whose it is last: who is killed here is dead, too."""
    import shutil  # noqa: PLC0415

    for name in os.listdir(folder):
        if name != _OWNER:
            try:
                os.unlink(name, dir_fd=folder)
            except OSError:  # a folder
                shutil.rmtree(name, dir_fd=folder, ignore_errors=True)
    if os.listdir(folder) == [_OWNER]:
        os.unlink(_OWNER, dir_fd=folder)
