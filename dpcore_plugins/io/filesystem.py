"""Results as files: ``{path}/{run_id}/{task}/{result_id}.pkl``, one pickle each.

A value's large buffers (arrays, not copied into the pickle) lie beside it, in a file
``{result_id}.{nonce}.buf`` that the ``.pkl`` names.  Both are complete before the
``.pkl`` gets its name: that rename is the commit, and the only one.  Names that
begin with a dot are work in progress, and are never listed.

Loading a pickle runs what it says: the folder must be as trusted as the code.
"""

# A path object costs more than the system call that it is made for.
# ruff: noqa: PTH102, PTH103, PTH104, PTH106, PTH108, PTH113, PTH116, PTH119, PTH120, PTH123, PTH208

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from errno import EDQUOT, ENOSPC
from fcntl import LOCK_EX, LOCK_SH, flock
from mmap import ACCESS_COPY, mmap
from pathlib import Path
from stat import S_ISREG
from typing import Any, ClassVar, NamedTuple
from weakref import WeakSet

from dpcore import IOManager, Ref
from dpcore.errors import DamagedResultError, InvalidIdError, ResultNotStoredError

__all__ = ("FilesystemIO",)

_LARGE = 64 * 1024
_ALIGNED = 64
# No pickle begins like this.  The line goes on with the name of the file of the buffers, the next
# one says where in it they are, and the pickle follows.
_WITH_BUFFERS = b"dpcore buffers "
_MOST_MAPS = 256
_TRIES = 1000


class FilesystemIO(IOManager):
    """Stores each result in a file of its own, below *path*.

    A value without large buffers is a plain pickle, for ``pickle.load``.  Buffers of
    64 KiB and more are mapped on load: an array of any size loads at once, is
    writable, and writing to it changes no file.

    With *sync* a result that was saved outlives a power failure too, not only the
    death of the program.  Nothing is created before the first result is.
    """

    capabilities: ClassVar[frozenset[str]] = frozenset({"shared", "copies"})

    def __init__(self, *, path: str | Path = ".dpcore/runs", sync: bool = False) -> None:
        self.path = Path(path).expanduser().absolute()
        self.sync = sync
        self._root = os.fspath(self.path)

    def __str__(self) -> str:
        return f"filesystem:{self._root}"

    # ---------------------------------------------------------------- writing

    def write(self, ref: Ref, value: Any) -> str:
        """Write the files beside, then rename; return the path of the ``.pkl``."""
        pickled, buffers = _pickled(ref, value)
        folder = self._folder(ref)
        try:
            try:
                return self._commit(folder, ref.result_id, pickled, buffers)
            except FileNotFoundError:  # there is no folder, not yet, or not any more: somebody cleared the run
                return self._commit_anew(folder, ref.result_id, pickled, buffers)
        except OSError as error:
            room = "make room there, or " if error.errno in (ENOSPC, EDQUOT) else ""
            raise ResultNotStoredError(ref, f"{self}: {error}; {room}choose another folder: filesystem:PATH") from error

    def _commit_anew(self, folder: str, result_id: str, pickled: bytes, buffers: Sequence[memoryview]) -> str:
        with self._kept():  # nobody clears it before there is something in it
            for _ in range(_TRIES):  # but its last result may be removed, and the folder with it
                with suppress(FileNotFoundError):
                    is_new = self._make(folder)
                    return self._commit(folder, result_id, pickled, buffers, is_new=is_new)
        raise FileNotFoundError(f"{folder} is removed as fast as it is made")

    def _kept(self) -> AbstractContextManager[None]:
        """Have nothing below the folder of all cleared meanwhile."""
        try:
            return _locked(self._root, LOCK_SH)
        except FileNotFoundError:
            os.makedirs(self._root, exist_ok=True)
            return _locked(self._root, LOCK_SH)

    def _commit(
        self, folder: str, result_id: str, pickled: bytes, buffers: Sequence[memoryview], *, is_new: bool = False
    ) -> str:
        final, nonce = f"{folder}/{result_id}.pkl", os.urandom(6).hex()
        growing, beside = f"{folder}/.{nonce}.tmp", f"{folder}/{result_id}.{nonce}.buf"
        # Opened before the buffers are written: a run that is cleared is renamed first, so if this
        # file can still be renamed at the end, the buffers lie in the folder where it does.
        file = os.open(growing, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            try:
                if buffers:
                    spans = self._write_buffers(beside, buffers)
                    _write_all(file, b"%s%s\n%s\n" % (_WITH_BUFFERS, os.path.basename(beside).encode(), spans))
                _write_all(file, pickled)
                if self.sync:
                    os.fsync(file)
            finally:
                os.close(file)
            replaced = None if is_new else _buffers_of(final)
            os.rename(growing, final)
        except BaseException:
            for torso in (growing, beside) if buffers else (growing,):
                with suppress(OSError):
                    os.unlink(torso)
            raise
        if self.sync:
            with suppress(FileNotFoundError):  # cleared already
                _sync_folder(folder)
        if replaced is not None:
            with suppress(OSError):
                os.unlink(f"{folder}/{replaced}")
        return final

    def _write_buffers(self, path: str, buffers: Sequence[memoryview]) -> bytes:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        spans: list[tuple[int, int]] = []
        end = 0
        try:
            for buffer in buffers:
                begin = -(-end // _ALIGNED) * _ALIGNED
                os.lseek(file, begin, os.SEEK_SET)
                _write_all(file, buffer)
                spans.append((begin, buffer.nbytes))
                end = begin + buffer.nbytes
            if self.sync:
                os.fsync(file)
        finally:
            os.close(file)
        return json.dumps(spans).encode()

    def _make(self, folder: str) -> bool:
        """Make the folder of a task; tell whether it was not there."""
        if not self.sync:
            with suppress(OSError):  # that of the run is there, as a rule
                os.mkdir(folder)
                return True
        try:
            os.makedirs(folder, exist_ok=True)
        except FileExistsError as error:
            if os.path.isfile(folder):
                raise
            # It was there when it should be made, and was gone when it was looked at.
            raise FileNotFoundError(*error.args) from error
        if self.sync:
            run = os.path.dirname(folder)
            for made in (run, os.path.dirname(run), os.path.dirname(os.path.dirname(run))):
                _sync_folder(made)
        return False

    # ---------------------------------------------------------------- reading

    def read(self, ref: Ref) -> Any:
        """Unpickle the file; its buffers are mapped, each map private to what is loaded."""
        path, before = f"{self._folder(ref)}/{ref.result_id}.pkl", None
        while True:
            content = _content(path)
            try:
                return _loaded(path, content)
            except _BuffersGoneError as gone:
                # Overwritten since the .pkl was read: it names other buffers now.  If not, they are lost.
                if content == before:
                    raise DamagedResultError(ref, path, f"its buffers are missing: {gone.filename}") from gone
                before = content
            except Exception as error:
                raise DamagedResultError(ref, path, _why(error, content)) from error

    def has(self, ref: Ref) -> bool:
        """Tell whether there is a file that is not empty."""
        return _is_whole_file(f"{self._folder(ref)}/{ref.result_id}.pkl")

    # ---------------------------------------------------------------- forgetting

    def remove(self, ref: Ref) -> bool:
        """Remove the files, and the folders that are empty without them."""
        folder = self._folder(ref)
        path = f"{folder}/{ref.result_id}.pkl"
        try:
            whole = _is_whole_file(path)
            buffers = _buffers_of(path)
            os.unlink(path)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return False
        with suppress(OSError):
            if buffers is not None:
                os.unlink(f"{folder}/{buffers}")
        with suppress(OSError):  # the folder is not empty, or is gone already
            os.rmdir(folder)
            os.rmdir(os.path.dirname(folder))
        return whole

    def remove_run(self, run_id: str) -> int:
        """Rename the run's folder, then remove it: a writer sees the run whole or not at all."""
        doomed = f"{self._root}/.{os.urandom(6).hex()}.cleared"
        try:
            with _locked(self._root, LOCK_EX):
                os.rename(f"{self._root}/{run_id}", doomed)
        except (FileNotFoundError, NotADirectoryError):
            return 0
        count = sum(1 for task in _folders(doomed) for _ in _results(f"{doomed}/{task}"))
        for left in _names(self._root):
            if left.startswith(".") and left.endswith(".cleared"):  # of somebody who was killed here, too
                shutil.rmtree(f"{self._root}/{left}", ignore_errors=True)
        return count

    # ---------------------------------------------------------------- listing

    def refs(self, run_id: str | None, task: str | None) -> Iterator[Ref]:
        """Yield the files that are not empty and whose names are ids."""
        for run in _folders(self._root) if run_id is None else [run_id]:
            for name in _folders(f"{self._root}/{run}") if task is None else [task]:
                for result_id in _results(f"{self._root}/{run}/{name}"):
                    yield Ref(run, name, result_id)

    def run_ids(self) -> Iterator[str]:
        """Yield the folders that hold at least one result."""
        return (run for run in _folders(self._root) if next(self.refs(run, None), None) is not None)

    def _folder(self, ref: Ref) -> str:
        return f"{self._root}/{ref.run_id}/{ref.task}"


# ---------------------------------------------------------------- a value and its bytes


def _pickled(ref: Ref, value: Any) -> tuple[bytes, list[memoryview]]:
    """Return the pickle of *value*, and its large buffers beside it."""
    try:
        pickled, buffers = _dumped(pickle.dumps, value)
        if not hasattr(sys.modules["__main__"], "__file__") and b"__main__" in pickled:
            return _dumped(_by_value(), value)  # of a prompt or a notebook, which no other process can import
        return pickled, buffers
    except Exception as error:  # noqa: BLE001  (whatever a value's own pickling raises)
        cause = error
    try:
        try:
            return _dumped(_by_value(), value)  # it may hold what has no name: a closure, a lambda, a local class
        except Exception as error:  # noqa: BLE001
            words = _words(error)
        # Not raised inside of that handler: cloudpickle's frames hold the value's buffers, and views of them
        # that the garbage collector finds in a circle with their exception crash CPython 3.11.
        problem = f"its type is {_named(type(value))}, and {_culprit(value, words)}; return what pickles, or leave that part out"
        raise ResultNotStoredError(ref, problem) from cause
    finally:
        del cause


def _dumped(dumps: Callable[..., bytes], value: Any) -> tuple[bytes, list[memoryview]]:
    buffers: list[memoryview] = []

    def stays(buffer: pickle.PickleBuffer) -> bool:
        view = memoryview(buffer)
        if view.nbytes < _LARGE or not view.contiguous:
            return True
        buffers.append(buffer.raw())
        return False

    try:
        return dumps(value, protocol=5, buffer_callback=stays), buffers
    except BaseException:
        # The traceback holds this frame, and so would hold them.
        for buffer in buffers:
            buffer.release()
        raise


def _by_value() -> Callable[..., bytes]:
    import cloudpickle  # only a value that pickle refuses needs it

    return cloudpickle.dumps  # type: ignore[no-any-return]


class _BuffersGoneError(FileNotFoundError):
    """The .pkl names buffers that are not there."""


def _loaded(path: str, content: bytes) -> Any:
    if not content.startswith(_WITH_BUFFERS):
        return pickle.loads(content)
    first = content.index(b"\n")
    second = content.index(b"\n", first + 1)
    buffers = _mapped(f"{os.path.dirname(path)}/{_name_in(content[:first])}")
    spans = json.loads(content[first:second])
    if any(begin + length > buffers.nbytes for begin, length in spans):
        raise EOFError("its buffers end too early")
    return pickle.loads(
        memoryview(content)[second + 1 :], buffers=[buffers[begin : begin + length] for begin, length in spans]
    )


# Before Python 3.13 a map holds a file descriptor of its own for as long as the value
# lives.  A program that keeps many arrays must not run out of them: the rest is read.
_maps: WeakSet[mmap] = WeakSet()


def _mapped(path: str) -> memoryview:
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError as error:
        raise _BuffersGoneError(*error.args[:2], path) from error
    try:
        size = os.fstat(file).st_size
        if sys.version_info >= (3, 13):
            return memoryview(mmap(file, size, access=ACCESS_COPY, trackfd=False))
        if len(_maps) >= _MOST_MAPS:
            with open(file, "rb", buffering=0, closefd=False) as whole:
                return memoryview(bytearray(whole.readall()))
        made = mmap(file, size, access=ACCESS_COPY)
        _maps.add(made)
        return memoryview(made)
    finally:
        os.close(file)


def _buffers_of(path: str) -> str | None:
    """Return the name of the buffers that the .pkl at *path* names, if it does."""
    try:
        with open(path, "rb", buffering=0) as file:
            head = file.read(512)
    except OSError:
        return None
    return _name_in(head.partition(b"\n")[0]) if head.startswith(_WITH_BUFFERS) else None


def _name_in(line: bytes) -> str:
    # Whatever a foreign file says, it says nothing of files elsewhere.
    return os.path.basename(line[len(_WITH_BUFFERS) :].decode(errors="replace"))


# ---------------------------------------------------------------- what to say of what fails


class _Part(NamedTuple):
    key: Any
    value: Any
    is_item: bool

    def __str__(self) -> str:
        return f"[{self.key!r}]" if self.is_item else f".{self.key}"


def _culprit(value: Any, words: str, most: int = 16) -> str:
    """Follow what does not pickle down to the attribute or item that is the cause, in *most* moves at the most."""
    path, seen = [("value", value, words)], {id(value)}
    for _ in range(most):
        where, value, _ = path[-1]
        parts = [*_parts(value)]
        unseen = [part for part in parts if id(part.value) not in seen]
        found = _first_refused(unseen)
        if found is not None:
            part, words = found
            seen.add(id(part.value))
            path.append((f"{where}{part}", part.value, words))
        elif len(path) > 1 and len(unseen) < len(parts):
            path.pop()  # it holds what holds it, and only therefore does not pickle: another part is the cause
        else:
            break
    where, _, words = path[-1]
    return f"{where}: {words}"


def _first_refused(parts: Sequence[_Part]) -> tuple[_Part, str] | None:
    """Return the first of *parts* that does not pickle, and why: found by halves, since there may be many."""
    if not parts or _refused([part.value for part in parts]) is None:
        return None
    while len(parts) > 1:
        half = parts[: len(parts) // 2]
        parts = half if _refused([part.value for part in half]) is not None else parts[len(half) :]
    words = _refused(parts[0].value)
    return None if words is None else (parts[0], words)


def _refused(value: Any) -> str | None:
    try:
        _dumped(_by_value(), value)
    except Exception as error:  # noqa: BLE001
        return _words(error)
    return None


def _parts(value: Any) -> Iterator[_Part]:
    if isinstance(value, dict):
        yield from (_Part(key, item, is_item=True) for key, item in value.items())
    elif isinstance(value, (list, tuple)):
        yield from (_Part(index, item, is_item=True) for index, item in enumerate(value))
    else:
        slots = (name for kind in type(value).__mro__ for name in _names_of(vars(kind).get("__slots__", ())))
        for name in [*getattr(value, "__dict__", {}), *slots]:
            with suppress(AttributeError):  # a slot may be empty
                yield _Part(name, getattr(value, name), is_item=False)


def _names_of(slots: str | Iterable[str]) -> Iterable[str]:
    return (slots,) if isinstance(slots, str) else slots


def _named(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def _why(error: Exception, content: bytes) -> str:
    if not content:
        return "the file is empty; run the task again"
    if isinstance(error, ImportError | AttributeError):
        return f"its code is not there any more, or not here: {_words(error)}"
    if content.endswith(pickle.STOP) and not isinstance(error, pickle.UnpicklingError | EOFError):
        cure = "the class of something in it, by its __reduce__ or __setstate__, does not load what it has stored"
        return f"it is whole, but does not load: {type(error).__name__}: {_words(error)}; {cure}"
    return f"the file is not whole, or not a result: {type(error).__name__}: {_words(error)}"


# ---------------------------------------------------------------- files and folders


def _content(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.readall()
    except (NotADirectoryError, IsADirectoryError) as error:  # foreign things have the names of ours
        raise FileNotFoundError(*error.args) from error


def _write_all(file: int, data: bytes | memoryview) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]


def _locked(path: str, how: int) -> AbstractContextManager[None]:
    """Return what holds a lock on a folder, which is there; the system lets go of it when the process dies."""
    return _holding(os.open(path, os.O_RDONLY), how)


@contextmanager
def _holding(folder: int, how: int) -> Iterator[None]:
    try:
        flock(folder, how)
        yield
    finally:
        os.close(folder)


def _sync_folder(path: str) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _folders(path: str) -> Iterator[str]:
    return (name for name in _names(path) if _is_id(name))


def _results(folder: str) -> Iterator[str]:
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            name = entry.name.removesuffix(".pkl")
            if name != entry.name and _is_id(name) and _is_whole_file(entry):
                yield name


def _is_whole_file(path: str | os.DirEntry[str]) -> bool:
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return S_ISREG(found.st_mode) and found.st_size > 0


def _is_id(name: str) -> bool:
    try:
        return bool(Ref("run", "task", name).check())
    except InvalidIdError:
        return False
