"""The I/O managers that ship, under their suite, and what is special to each."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
import threading
import traceback
import types
from pathlib import Path

import pytest

from dpcore.errors import ArgumentError, DamagedResultError, ResultNotFoundError, ResultNotStoredError
from dpcore.jobs import Ref
from dpcore.testing import IOManagerConformance
from dpcore.testing.suite import leftovers
from dpcore_plugins.io.filesystem import FilesystemIO
from dpcore_plugins.io.memory import MemoryIO


class TestMemoryIO(IOManagerConformance):
    def make(self, tmp_path):
        return MemoryIO()


class TestFilesystemIO(IOManagerConformance):
    def make(self, tmp_path):
        return FilesystemIO(path=tmp_path / "runs")


class TestFilesystemIOWithSync(IOManagerConformance):
    many = 300  # each of which waits for the disk
    kills = 5

    def make(self, tmp_path):
        return FilesystemIO(path=tmp_path / "runs", sync=True)


# ---------------------------------------------------------------- memory


def test_memory_says_why_it_cannot_be_sent_to_another_process():
    with pytest.raises(TypeError, match=r"keeps results in this process.*FilesystemIO"):
        pickle.dumps(MemoryIO())


# ---------------------------------------------------------------- files

REF = Ref("r1", "total", "1")


class Array:
    """What numpy does, without numpy: a buffer beside the pickle."""

    def __init__(self, data):
        self.data = memoryview(data)

    def __reduce_ex__(self, protocol):
        return Array, (pickle.PickleBuffer(self.data),)


class Connection:
    def __init__(self):
        self.lock = threading.Lock()


class Report:
    def __init__(self):
        self.title, self.conn = "March", Connection()


@pytest.fixture
def io(tmp_path):
    return FilesystemIO(path=tmp_path / "runs")


def files(io):
    return sorted(str(file.relative_to(io.path)) for file in io.path.rglob("*") if file.is_file())


def test_nothing_is_made_before_the_first_result(io, tmp_path):
    assert io.runs() == []
    assert io.clear("r1") == 0
    assert not io.delete(REF)
    assert list(tmp_path.iterdir()) == []


def test_a_relative_path_is_that_of_the_moment_of_construction(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    io = FilesystemIO(path="runs")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert io.save(REF, 1) == str(tmp_path / "runs/r1/total/1.pkl")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert FilesystemIO(path="~/runs").path == tmp_path / "runs"
    assert FilesystemIO().path == Path.cwd() / ".dpcore/runs"


def test_a_value_without_large_buffers_is_a_plain_pickle(io):
    where = io.save(REF, {"small": Array(b"x" * 100).data.tobytes()})
    with Path(where).open("rb") as file:
        assert pickle.load(file) == {"small": b"x" * 100}
    assert files(io) == ["r1/total/1.pkl"]


def test_large_buffers_lie_beside_aligned_and_are_mapped(io):
    if not Path("/proc/self/maps").exists():
        pytest.skip("only Linux tells what is mapped")
    io.save(REF, [Array(bytearray(b"a" * 65_537)), Array(bytearray(b"b" * 100_000)), Array(bytearray(b"c" * 65_535))])
    pkl, buf = sorted(files(io), reverse=True)
    assert pkl == "r1/total/1.pkl"
    assert buf.endswith(".buf")
    content = (io.path / buf).read_bytes()
    assert content == b"a" * 65_537 + b"\0" * 63 + b"b" * 100_000
    loaded = io.load(REF)
    assert buf in Path("/proc/self/maps").read_text()
    loaded[0].data[:3] = b"new"
    assert (io.path / buf).read_bytes() == content
    assert bytes(io.load(REF)[0].data[:3]) == b"aaa"
    assert [len(array.data) for array in loaded] == [65_537, 100_000, 65_535]


def test_a_loaded_array_outlives_its_file(io):
    io.save(REF, Array(bytearray(b"a" * 100_000)))
    loaded = io.load(REF)
    io.save(REF, Array(bytearray(b"b" * 100_000)))
    assert io.delete(REF)
    assert set(bytes(loaded.data)) == {ord("a")}


def test_many_loaded_arrays_do_not_use_up_the_file_descriptors(io):
    io.save(REF, Array(bytearray(100_000)))
    before = leftovers().descriptors
    kept = [io.load(REF) for _ in range(400)]
    assert leftovers().descriptors - before <= 256
    assert all(len(array.data) == 100_000 for array in kept)
    kept[-1].data[0] = 1
    assert kept[0].data[0] == io.load(REF).data[0] == 0


def test_an_overwrite_leaves_no_old_buffers_behind(io):
    for size in (100_000, 200_000, 10, 100_000):
        io.save(REF, Array(bytearray(size)))
        assert len(files(io)) == (1 if size == 10 else 2)
    assert io.delete(REF)
    assert list(io.path.iterdir()) == []


def test_a_loader_that_holds_an_old_pickle_finds_the_new_buffers(io, monkeypatch):
    io.save(REF, Array(bytearray(b"a" * 100_000)))
    opened = os.open

    def overwritten_in_between(path, *arguments):
        if str(path).endswith(".buf"):
            monkeypatch.undo()
            io.save(REF, Array(bytearray(b"b" * 100_000)))
        return opened(path, *arguments)

    monkeypatch.setattr(os, "open", overwritten_in_between)
    assert set(bytes(io.load(REF).data)) == {ord("b")}


def test_a_failed_save_leaves_no_file_behind(io):
    for value in (Report(), [Array(bytearray(100_000)), Report()]):
        with pytest.raises(ResultNotStoredError):
            io.save(REF, value)
    assert not io.path.exists()


def test_what_does_not_pickle_is_named_down_to_the_attribute(io):
    with pytest.raises(ResultNotStoredError) as error:
        io.save(REF, {"reports": [Report()]})
    assert str(error.value) == (
        "cannot store the result r1/total/1: its type is dict, and value['reports'][0].conn.lock: "
        "cannot pickle '_thread.lock' object; return what pickles, or leave that part out"
    )
    with pytest.raises(ResultNotStoredError, match=r"its type is .*Report, and value\.conn\.lock: cannot pickle"):
        io.save(REF, Report())
    assert isinstance(error.value.__cause__, TypeError)


class Telling:
    """Counts how often values of it are pickled: one that many share, once for each pickle."""

    pickled = 0

    def __reduce__(self):
        Telling.pickled += 1
        return (Telling, ())


def test_what_does_not_pickle_is_found_among_many_without_trying_each(io):
    Telling.pickled = 0
    shared = Telling()
    values = [[shared] for _ in range(10_000)]
    with pytest.raises(ResultNotStoredError, match=r"value\[10000\]: cannot pickle '_thread.lock'"):
        io.save(REF, [*values, threading.Lock(), *values])
    assert Telling.pickled < 100


def test_what_does_not_pickle_is_found_in_a_value_that_holds_itself(io):
    itself = []
    itself += [itself, {"whole": itself}, threading.Lock()]
    with pytest.raises(ResultNotStoredError, match=r"and value\[2\]: cannot pickle '_thread.lock'"):
        io.save(REF, itself)


def test_a_value_too_deep_to_pickle_is_refused(io):
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ResultNotStoredError, match="its type is list"):
        io.save(REF, deep)
    while deep:  # freed from the outside in: the interpreter does not recurse that far either
        deep = deep.pop()


def test_what_has_no_name_travels_by_value(io):
    class Local:
        def __init__(self, factor):
            self.double = lambda number: number * factor

    io.save(REF, Local(2))
    assert io.load(REF).double(21) == 42
    program = "import sys; from dpcore.jobs import Ref; from dpcore_plugins.io.filesystem import FilesystemIO\n"
    program += "print(FilesystemIO(path=sys.argv[1]).load(Ref('r1', 'total', '1')).double(4))"
    done = subprocess.run([sys.executable, "-c", program, io.path], capture_output=True, text=True, check=True)
    assert done.stdout == "8\n"


def test_what_a_prompt_defines_can_be_loaded_elsewhere(io):
    program = (
        "import sys; from dpcore.jobs import Ref; from dpcore_plugins.io.filesystem import FilesystemIO\n"
        "class Point:\n    x = 7\n"
        "FilesystemIO(path=sys.argv[1]).save(Ref('r1', 'total', '1'), Point())\n"
    )
    subprocess.run([sys.executable, "-c", program, io.path], check=True)
    assert io.load(REF).x == 7


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"dpcore buffers ", b"dpcore buffers x\n[]\n", b"\x80\x05", b"\x80\x05K"]
)
def test_what_is_no_result_is_damaged_and_named(io, content):
    where = Path(io.save(REF, 1))
    where.write_bytes(content)
    with pytest.raises(DamagedResultError, match=r"the result r1/total/1 cannot be read from .*1\.pkl: ") as error:
        io.load(REF)
    assert pickle.loads(pickle.dumps(error.value)).args == error.value.args


class Unloadable:
    """Pickles, and does not load."""

    def __init__(self, rows: bytearray) -> None:
        self.rows = Array(rows)

    def __setstate__(self, state):
        raise ValueError("of an older version")


@pytest.mark.parametrize("size", [100, 100_000])
def test_a_whole_result_whose_class_does_not_load_it_is_not_blamed_on_the_file(io, size):
    io.save(REF, Unloadable(bytearray(size)))
    with pytest.raises(DamagedResultError) as error:
        io.load(REF)
    assert "it is whole, but does not load: ValueError: of an older version; the class of" in str(error.value)
    assert "__setstate__" in "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize("size", [100, 100_000])
def test_a_result_cut_off_anywhere_is_damaged(io, size):
    where = Path(io.save(REF, [Array(bytearray(size)), "the end"]))
    whole = where.read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 40)):
        where.write_bytes(whole[:length])
        with pytest.raises(DamagedResultError):
            io.load(REF)


def test_buffers_that_are_cut_off_or_missing_are_damage(io):
    io.save(REF, Array(bytearray(100_000)))
    buffers = next(io.path.rglob("*.buf"))
    buffers.write_bytes(b"short")
    with pytest.raises(DamagedResultError, match="its buffers end too early"):
        io.load(REF)
    buffers.unlink()
    with pytest.raises(DamagedResultError, match="its buffers are missing"):
        io.load(REF)


def test_an_empty_file_is_not_listed(io):
    Path(io.save(REF, 1)).write_bytes(b"")
    assert not io.exists(REF)
    assert io.list("r1") == io.runs() == []
    assert io.delete(REF) is False
    assert not io.path.joinpath("r1").exists()


def test_a_class_that_is_not_there_any_more_is_damage_with_its_cause(io, monkeypatch):
    module = types.ModuleType("gone_tomorrow")
    exec("class Order: pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "gone_tomorrow", module)
    io.save(REF, module.Order())
    del module.Order
    with pytest.raises(DamagedResultError, match="its code is not there any more") as error:
        io.load(REF)
    assert isinstance(error.value.__cause__, AttributeError)
    monkeypatch.delitem(sys.modules, "gone_tomorrow")
    with pytest.raises(DamagedResultError, match="gone_tomorrow") as error:
        io.load(REF)
    assert isinstance(error.value.__cause__, ModuleNotFoundError)


def test_foreign_files_are_neither_listed_nor_in_the_way(io):
    io.save(REF, 1)
    for name in ("notes.txt", "r1/readme.pkl", "r1/total/two words.pkl", "r1/total/1.txt", "r1/total/.old.pkl"):
        (io.path / name).write_bytes(b"x")
    (io.path / "r1/total/2.pkl").mkdir()
    assert io.runs() == ["r1"]
    assert io.list("r1") == io.list("r1", "total") == [REF]
    assert io.list("notes.txt") == []
    assert not io.exists(Ref("r1", "total", "2"))
    assert not io.exists(Ref("notes.txt", "total", "2"))
    for absent in (Ref("r1", "total", "2"), Ref("notes.txt", "total", "1")):
        assert not io.delete(absent)
        with pytest.raises(ResultNotFoundError):
            io.load(absent)


def test_what_killed_writers_left_vanishes_with_clear(io):
    io.save(REF, 1)
    (io.path / "r1/total/.0123.tmp").write_bytes(b"torso")
    (io.path / "r1/total/1.0123.buf").write_bytes(b"orphan")
    (io.path / ".0123.cleared/total").mkdir(parents=True)
    (io.path / "r2/total").mkdir(parents=True)
    (io.path / "r2/total/.0123.tmp").write_bytes(b"torso")
    assert io.runs() == ["r1"]
    assert io.clear("r1") == 1
    assert io.clear("r2") == 0
    assert list(io.path.iterdir()) == []


def test_deleting_the_last_result_leaves_no_empty_folders(io):
    for ref in (REF, Ref("r1", "other", "1")):
        io.save(ref, 1)
    io.delete(REF)
    assert sorted(path.name for path in (io.path / "r1").iterdir()) == ["other"]
    io.delete(Ref("r1", "other", "1"))
    assert list(io.path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_said_in_the_words_of_the_system(tmp_path):
    (tmp_path / "file").write_text("in the way")
    io = FilesystemIO(path=tmp_path / "file" / "runs")
    with pytest.raises(
        ResultNotStoredError,
        match=r"cannot store the result r1/total/1: filesystem:.*Not a directory.*; choose another folder: filesystem:PATH$",
    ) as error:
        io.save(REF, 1)
    assert isinstance(error.value.__cause__, NotADirectoryError)
    assert not io.exists(REF)
    assert io.runs() == []


def test_a_file_in_the_place_of_a_folder_is_said_at_once(io):
    io.path.mkdir()
    (io.path / "r1").write_text("in the way")
    with pytest.raises(ResultNotStoredError, match="Not a directory"):
        io.save(REF, 1)
    (io.path / "r2").mkdir()
    (io.path / "r2" / "total").write_text("in the way")
    with pytest.raises(ResultNotStoredError, match=r"Not a directory|File exists"):
        io.save(Ref("r2", "total", "1"), 1)


@pytest.mark.parametrize("value", [b"x" * 3_000_000, Array(bytearray(3_000_000))], ids=["pickle", "buffers"])
def test_a_full_disk_keeps_the_old_value_and_leaves_no_torso(tiny_disk, value):
    io = FilesystemIO(path=tiny_disk / "runs")
    io.save(REF, "old")
    with pytest.raises(
        ResultNotStoredError, match=r"No space left on device; make room there, or choose another"
    ) as error:
        io.save(REF, value)
    assert error.value.__cause__.errno == errno.ENOSPC
    assert io.load(REF) == "old"
    assert files(io) == ["r1/total/1.pkl"]


def test_the_name_of_another_folder_in_a_foreign_file_leads_nowhere(io, tmp_path):
    (tmp_path / "secret").write_bytes(b"x" * 100)
    Path(io.save(REF, 1)).write_bytes(b"dpcore buffers ../../../secret\n[[0, 100]]\n" + pickle.dumps(1))
    with pytest.raises(DamagedResultError, match="its buffers are missing"):
        io.load(REF)
    assert io.delete(REF)
    assert (tmp_path / "secret").exists()


def test_what_is_no_ref_is_told_at_once(io):
    with pytest.raises(ArgumentError, match=r"^ref='r1/t/1' must be a Ref: Ref\(run_id, task, result_id\)$"):
        io.save("r1/t/1", 1)
