"""Where a hub is found: its socket, its lock and its key, and who may have them."""

from __future__ import annotations

import os
import secrets
import socket
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal
from weakref import WeakSet

from dpcore.errors import BrokerRefusedError

__all__ = ("Claim", "Folder", "Place", "Transport", "forkless")

Transport = Literal["unix", "tcp"]

_MOST_BYTES = 107  # of the path of a Unix socket, with the zero that ends it 108
_KEY = 32
_FRESH = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC  # does not wait for whoever writes to a pipe


class Place:
    """The files of one hub: *path*, where it listens; beside it ``.lock`` and, if no other was named, ``.key``.

    With Unix sockets *path* is the socket; with TCP it is a file that holds host and port.
    """

    def __init__(self, path: str, transport: Transport, key: str | None) -> None:
        self.path = Path(os.path.abspath(path))  # noqa: PTH100  (resolve() would follow links that may change)
        self.transport = transport
        self.makes_key = key is None
        self.key = Path(f"{self.path}.key") if key is None else Path(os.path.abspath(key))  # noqa: PTH100
        self.lock = Path(f"{self.path}.lock")

    def __str__(self) -> str:
        return f"multiprocess:{self.path}"

    def refuse(self, problem: str, cure: str) -> BrokerRefusedError:
        """Return the error that says why nobody can go in here."""
        return BrokerRefusedError(str(self), problem, cure)

    # ------------------------------------------------------------ peers

    def is_served(self) -> bool:
        """Tell whether a process is the hub here, or is about to be."""
        try:
            lock = os.open(self.lock, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._unusable(error) from error
        try:
            return not _lock(lock, shared=True)
        finally:
            os.close(lock)

    def target(self) -> tuple[socket.AddressFamily, Any]:
        """Return family and address to connect to; raises FileNotFoundError while there is none."""
        if self.transport == "unix":
            self._check_length()
            return socket.AF_UNIX, str(self.path)
        host, _, port = self.path.read_text(encoding="ascii").strip().rpartition(":")
        if not port.isdigit():
            raise self.refuse(f"{self.path} holds no host and port", "give the path at which the hub serves")
        return socket.AF_INET, (host, int(port))

    def read_key(self, *, as_hub: bool = False) -> bytes:
        """Return the key, if it is a file that only this user can read; raises FileNotFoundError while there is none."""
        remedy = f"remove it, so that {'a new one is made' if as_hub else 'the hub makes a new one'}"
        try:
            file = os.open(self.key, _LOOK)
        except (FileNotFoundError, PermissionError):
            raise
        except OSError as error:  # a link, or a socket
            raise self.refuse(f"the key file {self.key} cannot be read: {error.strerror}", remedy) from error
        try:
            found = os.fstat(file)
            is_mine = not hasattr(os, "geteuid") or found.st_uid == os.geteuid()
            if not stat.S_ISREG(found.st_mode) or not is_mine:
                raise self.refuse(f"the key file {self.key} is not a file of this user", remedy)
            if stat.S_IMODE(found.st_mode) & 0o077 and sys.platform != "win32":
                raise self.refuse(
                    f"others can read the key file {self.key} (mode {stat.S_IMODE(found.st_mode):04o})",
                    f"{remedy}; chmod 600 {self.key} if you are sure that nobody did",
                )
            key = os.read(file, 4096)
        finally:
            os.close(file)
        if len(key) < _KEY:
            raise self.refuse(f"the key file {self.key} holds {len(key)} bytes", f"have at least {_KEY} in it")
        return key

    # ------------------------------------------------------------ the hub

    def claim(self) -> Claim | None:
        """Return the right to be the hub here; None if another process has it."""
        while True:
            try:
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                lock = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise self._unusable(error) from error
            if not _lock(lock, shared=False):
                os.close(lock)
                return None
            try:
                is_it = os.path.samestat(os.fstat(lock), os.stat(self.lock))  # noqa: PTH116
            except FileNotFoundError:
                is_it = False
            if is_it:
                return Claim(self, lock)
            os.close(lock)  # it was removed meanwhile by the hub that left

    def _check_length(self) -> None:
        if (length := len(os.fsencode(self.path))) > _MOST_BYTES:
            raise self.refuse(
                f"its path has {length} bytes, and that of a Unix socket may have {_MOST_BYTES}",
                "give a shorter path, or ?transport=tcp",
            )

    def _unusable(self, error: OSError) -> BrokerRefusedError:
        return self.refuse(
            f"its files cannot be made in {self.path.parent}: {error.strerror}", "give a path in a folder of your own"
        )


class Claim:
    """The right to be the hub at a place, and the files that come with it; all of them go when it is given back."""

    def __init__(self, place: Place, lock: int) -> None:
        self.place = place
        self._lock = lock
        self._pid = os.getpid()
        self._made: list[Path] = []
        self.listener: socket.socket | None = None
        self.connections: WeakSet[socket.socket] = WeakSet()
        forkless.add(self)

    def listen(self) -> bytes:
        """Make what peers need, and return the key; then they can connect."""
        place = self.place
        try:
            key = self._key()
            with suppress(FileNotFoundError):
                place.path.unlink()  # of a hub that was killed: whoever holds the lock is alone here
            self.listener = self._listening()
        except BrokerRefusedError:
            self.release()
            raise
        except OSError as error:
            self.release()
            raise place._unusable(error) from error
        return key

    def _key(self) -> bytes:
        place = self.place
        try:
            key = place.read_key(as_hub=True)
            is_made = place.makes_key  # by a hub that was killed here
        except FileNotFoundError:
            self._write(place.key, secrets.token_hex(_KEY).encode())
            key, is_made = place.read_key(as_hub=True), True  # where others may write, it may be another by now
        if is_made:
            self._made.append(place.key)
        return key

    def _write(self, path: Path, said: bytes) -> None:
        """Write a file that only this user can read, whole or not at all."""
        fresh = Path(f"{path}.{secrets.token_hex(8)}")  # a name that nobody can have made before
        with os.fdopen(os.open(fresh, _FRESH, 0o600), "wb") as opened:
            try:
                if hasattr(os, "fchmod"):
                    os.fchmod(opened.fileno(), 0o600)  # whatever the umask is
                opened.write(said)
                opened.flush()
                fresh.replace(path)
            except BaseException:
                fresh.unlink()
                raise

    def _listening(self) -> socket.socket:
        path = self.place.path
        if self.place.transport == "unix":
            self.place._check_length()
            listener = socket.socket(socket.AF_UNIX)
            self._bind(listener, str(path))
            path.chmod(0o600)
        else:
            listener = socket.socket(socket.AF_INET)
            self._bind(listener, ("127.0.0.1", 0))
            self._write(path, "{}:{}\n".format(*listener.getsockname()).encode("ascii"))
        self._made.append(path)
        return listener

    def _bind(self, listener: socket.socket, address: Any) -> None:
        try:
            listener.bind(address)
            listener.listen(128)
            listener.settimeout(0)
        except BaseException:
            listener.close()
            raise

    def release(self) -> None:
        """Give it back: remove what was made, and let the next one have it."""
        forkless.discard(self)
        if self._lock < 0:
            return
        if self.listener is not None:
            self.listener.close()
        if self._pid == os.getpid():
            for path in (*self._made, self.place.lock):
                with suppress(OSError):
                    path.unlink()
        os.close(self._lock)
        self._lock = -1

    def forked(self) -> None:
        """Let go of everything in a forked process, which would otherwise keep it alive after its parent."""
        for one in [*self.connections]:
            one.close()
        self.release()


class Folder:
    """A folder that only this user can look into, as long as it is needed."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self.path = Path(tempfile.mkdtemp(prefix="dpcore-"))
        if len(os.fsencode(self.path)) > _MOST_BYTES - len("/hub.sock"):
            self.path.rmdir()
            self.path = Path(tempfile.mkdtemp(prefix="dpcore-", dir="/tmp"))

    def remove(self) -> None:
        """Remove it, unless something is in it that is not ours."""
        if self._pid == os.getpid():
            with suppress(OSError):
                self.path.rmdir()


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int, *, shared: bool) -> bool:
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        if shared:
            msvcrt.locking(file, msvcrt.LK_UNLCK, 1)
        return True
else:
    import fcntl

    def _lock(file: int, *, shared: bool) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_NB | (fcntl.LOCK_SH if shared else fcntl.LOCK_EX))
        except BlockingIOError:
            return False
        return True


# ---------------------------------------------------------------- forks

forkless: WeakSet[Any] = WeakSet()
"""What a forked process must not go on with: each is told by its ``forked()``.

A forked process has its parent's sockets and its lock.  As long as it does, nobody
notices that the parent was killed, and nobody can be the next hub.
"""


def _forked() -> None:
    for one in [*forkless]:
        one.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
