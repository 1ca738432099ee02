"""Records of runs in one SQLite file, which several processes may have open at once.

Commits that arrive while one is written wait together and are the next transaction, so a
hundred tasks that end at once cost one, and each still learns for itself whether it was
accepted.

A small transaction takes a tenth of what it costs to hand it to a thread, because SQLite only
copies it into the system's memory.  So it is written at once, on the event loop, as long as
nothing has to be waited for: no other process, no fsync, no checkpoint, no disk that was slow
just now.  All else runs in a thread, one call at a time.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from time import perf_counter
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

import anyio
from anyio import to_thread
from anyio.lowlevel import checkpoint

from dpcore import EXISTING, Document, Fence, RunStore
from dpcore.errors import StoreError
from dpcore_plugins.runstores.sqlite.aside import folder_locked, set_aside

__all__ = ("SqliteRunStore",)

T = TypeVar("T")

_log = logging.getLogger("dpcore.runstores.sqlite")

_VERSION = 1
_APPLICATION = 0x6470636F  # "dpco"
_SCHEMA = f"""
    CREATE TABLE document (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, value BLOB NOT NULL, version INTEGER NOT NULL);
    CREATE TABLE entry (id INTEGER PRIMARY KEY, document INTEGER NOT NULL, value BLOB NOT NULL);
    CREATE INDEX entry_document ON entry (document);
    PRAGMA application_id = {_APPLICATION};
    PRAGMA user_version = {_VERSION};
"""
# What is damaged where the next records go is noticed when the file is opened, and not in the middle of a run.
_ENDS = (
    "SELECT value FROM document ORDER BY id DESC LIMIT 1",
    "SELECT value FROM entry ORDER BY id DESC LIMIT 1",
    "SELECT id FROM document ORDER BY key DESC LIMIT 1",
    "SELECT id FROM document ORDER BY key LIMIT 1",
    "SELECT id FROM entry ORDER BY document DESC LIMIT 1",
)
# How long one call waits in its thread for another process, and how often; between two of them it can be cancelled.
_PATIENCE = 0.1
_TRIES = 100
_SMALL = 64 * 1024  # bytes at most that are written on the event loop
_SLOW = 0.002  # seconds: one that takes longer there has the next ones written in a thread,
_PAUSE = 10  # times as long as it took
_PAGE = 4096
_CHECKPOINT = 4 * 1024 * 1024  # bytes, about, after which the log is copied into the database


class SqliteRunStore(RunStore):
    """Remembers runs in the SQLite database at *path*; the file and its folder are made on entering.

    What a commit returned for outlives the death of the program; with *sync* it
    outlives a power failure too, at the price of one fsync for each transaction.

    A database that is found to be damaged when it is opened is kept beside it as
    ``NAME.corrupt-TIME``, a warning says so, and a new one is begun.  Files of other
    programs, and databases of a newer dpcore, are refused and left as they are.
    """

    capabilities: ClassVar[frozenset[str]] = frozenset({"durable", "shared"})

    def __init__(self, *, path: str | Path = ".dpcore/runs.db", sync: bool = False) -> None:
        self.path = Path(path).expanduser().absolute()
        self.sync = sync
        self._connection: sqlite3.Connection | None = None
        self._waiting: deque[_Commit] = deque()
        # The loop's turns are taken by tasks; the guard is for a thread that a cancelled task left behind.
        self._guard = Lock()
        self._file: tuple[int, int] | None = None  # which file is open
        self._unchecked = 0  # bytes in the log, about
        self._swift_from = 0.0  # when the event loop may write again
        self._waits = _PATIENCE  # seconds, for other processes: as the connection is set now

    def __str__(self) -> str:
        return f"sqlite:{self.path}"

    async def __aenter__(self) -> Self:
        if self._connection is not None:
            raise StoreError(str(self), "it is open already; enter it once, or make another one of the same path")
        self._turn, self._threads = anyio.Lock(), anyio.CapacityLimiter(1)
        self._writing, self._written = False, anyio.Event()
        self._waits = _PATIENCE
        try:
            await self._in_thread(self._open)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file, after what was asked before."""
        if self._connection is not None:
            with anyio.CancelScope(shield=True):
                async with self._turn:
                    await to_thread.run_sync(self._close, limiter=self._threads)

    # ---------------------------------------------------------------- on the loop

    async def commit(
        self,
        key: str,
        *,
        value: bytes | None = None,
        expected: int | None = None,
        entries: Sequence[bytes] = (),
        fence: Fence | None = None,
    ) -> int | None:
        """Write it in the next transaction, together with all that waits by then."""
        self._entered()
        mine = _Commit(key, value, expected, entries, fence)
        self._waiting.append(mine)
        try:
            await checkpoint()  # what others want to commit just now, comes along
            while not mine.done:
                if self._writing:
                    await self._written.wait()
                elif not self._write_here():
                    await self._write()
        except BaseException:
            mine.withdrawn = True  # unless a thread has it already, and then it happens whole
            raise
        if mine.error is not None:
            raise mine.error
        return mine.version

    def _write_here(self) -> bool:
        """Write what waits if that takes next to no time; tell whether it did."""
        began = perf_counter()
        if self.sync or began < self._swift_from or self._unchecked > _CHECKPOINT or self._turn.locked():
            return False
        if sum(commit.size for commit in self._waiting) > _SMALL or not self._guard.acquire(blocking=False):
            return False
        try:
            self._wait_for_others(0.0)
            self._write_all()
        except (sqlite3.Error, StoreError):
            return False  # another process writes, or it cannot be written at all: that is for the thread to find out
        finally:
            self._guard.release()
            ended = perf_counter()
            if ended - began > _SLOW:
                self._swift_from = ended + (ended - began) * _PAUSE
        return True

    async def _write(self) -> None:
        """Write what waits, for all that wait; whoever is not served by it is woken to do it next."""
        self._writing = True
        try:
            async with self._turn:
                await self._in_thread(self._write_waiting)
        except StoreError as error:  # not one of them could have been written: nobody shall wait in vain once more
            for commit in _taken(self._waiting):
                commit.error, commit.done = StoreError(*error.args), True
        finally:
            self._written.set()
            self._writing, self._written = False, anyio.Event()

    async def fetch(self, key: str, *, entries: bool = False) -> Document | None:
        """Read the document and its entries as of one moment."""
        self._entered()
        async with self._turn:
            return await self._in_thread(lambda: self._fetch(key, entries))

    async def scan(self, prefix: str, limit: int | None = None) -> list[tuple[str, Document]]:
        """Read the documents of a range of keys, the last created first."""
        self._entered()
        async with self._turn:
            return await self._in_thread(lambda: self._scan(prefix, limit))

    async def drop(self, key: str) -> bool:
        """Delete the document and its entries in one transaction."""
        self._entered()
        async with self._turn:
            return await self._in_thread(lambda: self._drop(key))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        for _ in range(_TRIES):
            try:
                return await to_thread.run_sync(work, limiter=self._threads)
            except sqlite3.Error as error:
                if not _is_busy(error):
                    raise self._unusable(error) from error
        raise StoreError(str(self), f"another process has kept it locked for {_TRIES * _PATIENCE:g} s")

    def _entered(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError(str(self), "it is not open; use it inside of `async with`")
        return self._connection

    def _unusable(self, error: Exception) -> StoreError:
        code = getattr(error, "sqlite_errorcode", None)
        if _is_corrupt(error):
            return StoreError(
                str(self),
                f"{error}; move the file away, or restore a copy of it (`sqlite3 FILE .recover` reads the rest)",
            )
        cure = ""
        if code is not None and code & 0xFF == sqlite3.SQLITE_FULL:
            cure = "; make room there, or choose another path: sqlite:PATH"
        elif code is not None and code & 0xFF in (
            sqlite3.SQLITE_READONLY,
            sqlite3.SQLITE_CANTOPEN,
            sqlite3.SQLITE_PERM,
        ):
            cure = "; let it be written, or choose another path: sqlite:PATH"
        return StoreError(str(self), f"{error}{cure}")

    # ---------------------------------------------------------------- in the thread: opening

    def _open(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _refuse_foreign(self.path, str(self))
        except OSError as error:
            if isinstance(error, StoreError):
                raise
            raise StoreError(str(self), f"{error}; choose another path") from error
        try:
            with folder_locked(self.path.parent):
                self._connection = self._opened()
        except sqlite3.DatabaseError as error:
            if not _is_corrupt(error):
                raise
            with folder_locked(self.path.parent, alone=True):
                self._connection = self._opened_anew()
        self._file = _identity(self.path)
        with suppress(OSError):  # of programs that were killed, which nobody has copied into the database
            self._unchecked = self.path.with_name(f"{self.path.name}-wal").stat().st_size

    def _opened(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _opened_anew(self) -> sqlite3.Connection:
        """Give a damaged file another name, unless somebody else has done so meanwhile, and begin a new one."""
        try:
            return self._opened()
        except sqlite3.DatabaseError as error:
            if not (_is_corrupt(error) and _is_ours(self.path)):
                raise
            kept = set_aside(self.path, self.clock.now())
            words = "%s: %s; it is kept as %s, and a new one begun (`sqlite3 %s .recover` reads what can be read of it)"
            _log.warning(words, self.path, error, kept, kept.name)
        return self._opened()

    def _prepare(self, connection: sqlite3.Connection) -> None:
        with _transaction(connection, "BEGIN"):
            self._check(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if self.sync else 'NORMAL'}")
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # see _CHECKPOINT: not on the event loop
        with _transaction(connection, "BEGIN IMMEDIATE"):
            if self._check(connection) == 0:  # and nobody else is making it now
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    connection.execute(statement)
        for query in _ENDS:
            connection.execute(query).fetchone()

    def _check(self, connection: sqlite3.Connection) -> int:
        version: int = _one(connection, "PRAGMA user_version")
        application = _one(connection, "PRAGMA application_id")
        if application != _APPLICATION and _one(connection, "SELECT count(*) FROM sqlite_master"):
            raise StoreError(str(self), "it is a database of another program; choose another path")
        if version > _VERSION:
            raise _newer(str(self), version)
        return version

    def _close(self) -> None:
        with self._guard:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    # ---------------------------------------------------------------- in the thread: writing

    @contextmanager
    def _held(self) -> Iterator[sqlite3.Connection]:
        """Hold the connection, in the thread: where it may wait for other processes."""
        with self._guard:
            self._wait_for_others(_PATIENCE)
            yield self._entered()

    def _write_waiting(self) -> None:
        with self._held() as connection:
            self._write_all()
            if self._unchecked > _CHECKPOINT:
                self._unchecked = 0
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _write_all(self) -> None:
        connection = self._entered()
        connection.execute("BEGIN IMMEDIATE")  # raises while another process writes; nothing is taken then
        batch = [*_taken(self._waiting)]
        try:
            if any(commit.value is not None for commit in batch):  # the end of a run, say, for which there is time
                self._check_there()
            if len(batch) == 1:
                batch[0].version = _written(connection, batch[0])
            else:
                for commit in batch:
                    self._write_one(connection, commit)
            connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001  (every one that waits must hear of it)
            _roll_back(connection)
            for commit in batch:
                commit.error = self._said(error)
        for commit in batch:
            self._unchecked += commit.size
            commit.done = True

    def _check_there(self) -> None:
        if _identity(self.path) != self._file:
            raise StoreError(
                str(self), "the file was deleted or replaced while it was open; what was recorded in it is lost"
            )

    def _wait_for_others(self, seconds: float) -> None:
        """Have the connection wait so long for other processes, from now on; where it is held."""
        if seconds != self._waits:
            self._waits = seconds
            self._entered().execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")

    def _write_one(self, connection: sqlite3.Connection, commit: _Commit) -> None:
        connection.execute("SAVEPOINT one")
        try:
            commit.version = _written(connection, commit)
        except Exception as error:
            if not connection.in_transaction:  # the disk is full, say: SQLite has given up all of it
                raise
            connection.execute("ROLLBACK TO one")
            commit.error = self._said(error)  # the others do not suffer for it
        connection.execute("RELEASE one")

    def _said(self, error: Exception) -> Exception:
        if not isinstance(error, sqlite3.Error):
            return error
        said = self._unusable(error)
        said.__cause__ = error
        return said

    def _drop(self, key: str) -> bool:
        with self._held() as connection, _transaction(connection, "BEGIN IMMEDIATE"):
            connection.execute("DELETE FROM entry WHERE document = (SELECT id FROM document WHERE key = ?)", (key,))
            return connection.execute("DELETE FROM document WHERE key = ?", (key,)).rowcount > 0

    # ---------------------------------------------------------------- in the thread: reading

    def _fetch(self, key: str, entries: bool) -> Document | None:
        with self._held() as connection, _transaction(connection, "BEGIN"):
            row = connection.execute("SELECT id, value, version FROM document WHERE key = ?", (key,)).fetchone()
            if row is None:
                return None
            document, value, version = row
            found = connection.execute("SELECT value FROM entry WHERE document = ? ORDER BY id", (document,))
            return Document(value, version, [entry for (entry,) in found] if entries else [])

    def _scan(self, prefix: str, limit: int | None) -> list[tuple[str, Document]]:
        beyond = _beyond(prefix)
        upper = "AND key < :beyond" if beyond is not None else ""
        query = f"SELECT key, value, version FROM document WHERE key >= :prefix {upper} ORDER BY id DESC LIMIT :limit"
        asked = {"prefix": prefix, "beyond": beyond, "limit": -1 if limit is None else limit}
        with self._held() as connection:
            rows = connection.execute(query, asked).fetchall()
        return [(key, Document(value, version)) for key, value, version in rows]


class _Commit:
    """One commit on its way: what is asked, and what came of it."""

    __slots__ = ("done", "entries", "error", "expected", "fence", "key", "size", "value", "version", "withdrawn")

    def __init__(
        self, key: str, value: bytes | None, expected: int | None, entries: Sequence[bytes], fence: Fence | None
    ) -> None:
        self.key, self.value, self.expected, self.entries, self.fence = key, value, expected, entries, fence
        written = (value, *entries)
        self.size = _PAGE + sum(len(part) for part in written if isinstance(part, bytes))  # what the log grows by
        self.version: int | None = None
        self.error: Exception | None = None
        self.done = self.withdrawn = False


def _taken(waiting: deque[_Commit]) -> Iterator[_Commit]:
    with suppress(IndexError):
        while True:
            commit = waiting.popleft()
            if not commit.withdrawn:
                yield commit


def _written(connection: sqlite3.Connection, commit: _Commit) -> int | None:
    """Do what *commit* asks, inside a transaction; None, and nothing, if it is refused."""
    row = connection.execute("SELECT id, version FROM document WHERE key = ?", (commit.key,)).fetchone()
    document, version = row or (None, 0)
    if not _accepted(connection, commit, version):
        return None
    if document is None:
        insert = "INSERT INTO document (key, value, version) VALUES (?, ?, 1)"
        document, version = connection.execute(insert, (commit.key, commit.value)).lastrowid, 1
    elif commit.value is not None:
        version += 1
        update = "UPDATE document SET value = ?, version = ? WHERE id = ?"
        connection.execute(update, (commit.value, version, document))
    connection.executemany(
        "INSERT INTO entry (document, value) VALUES (?, ?)", [(document, entry) for entry in commit.entries]
    )
    return version


def _accepted(connection: sqlite3.Connection, commit: _Commit, version: int) -> bool:
    if commit.value is None and not version:
        return False
    if commit.expected is not None and commit.expected != version and (commit.expected != EXISTING or not version):
        return False
    if commit.fence is None:
        return True
    row = connection.execute("SELECT version FROM document WHERE key = ?", (commit.fence.key,)).fetchone()
    return commit.fence.version == (row[0] if row else 0)


@contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Iterator[sqlite3.Connection]:
    connection.execute(begin)
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        _roll_back(connection)
        raise


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:  # SQLite has done so itself after some errors
        connection.execute("ROLLBACK")


def _one(connection: sqlite3.Connection, query: str) -> Any:
    return connection.execute(query).fetchone()[0]


def _is_corrupt(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _is_busy(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def _refuse_foreign(path: Path, store: str) -> None:
    """Look at the file's head before SQLite does: it may write to what it opens."""
    try:
        with path.open("rb") as file:
            head = file.read(100)
    except FileNotFoundError:
        return
    if head and (len(head) < 100 or not head.startswith(b"SQLite format 3\0")):
        raise StoreError(store, "the file is not a database; move it away, or choose another path")
    if (version := int.from_bytes(head[60:64], "big")) > _VERSION and head[68:72] == _APPLICATION.to_bytes(4, "big"):
        raise _newer(store, version)


def _is_ours(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(72)[68:] == _APPLICATION.to_bytes(4, "big")


def _newer(store: str, version: int) -> StoreError:
    return StoreError(
        store,
        f"a newer dpcore wrote it (version {version}, this one knows {_VERSION}); upgrade, or choose another path",
    )


def _beyond(prefix: str) -> str | None:
    """Return the first string after all that begin with *prefix*; None if there is none.

    >>> _beyond("run/"), _beyond("")
    ('run0', None)
    """
    while prefix:
        last = ord(prefix[-1])
        if last < 0x10FFFF:
            return prefix[:-1] + chr(0xE000 if last == 0xD7FF else last + 1)  # no half of a surrogate pair
        prefix = prefix[:-1]
    return None
