"""The promises of an I/O manager."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest

from dpcore.errors import InvalidIdError, ResultNotFoundError, ResultNotStoredError, UnsupportedError
from dpcore.jobs import Ref
from dpcore.ports import IOManager
from dpcore.testing.suite import Conformance, Writers, leave_no_room, leftovers, moments

__all__ = ("KINDS", "PLAIN", "IOManagerConformance", "Kind")


# ---------------------------------------------------------------- what is stored


@dataclass
class Order:
    """A class that any process can import."""

    number: int
    items: list[str]


class Array:
    """Bytes that pickle as an array does: as a buffer that need not be copied."""

    def __init__(self, data: Any) -> None:
        self.data = memoryview(data)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Array, (pickle.PickleBuffer(self.data),)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Array) and self.data == other.data

    __hash__ = None  # type: ignore[assignment]


class Unstorable:
    """What no copy can be made of, since half of it lives elsewhere."""

    def __init__(self) -> None:
        self.size = 1
        self.lock = threading.Lock()


class Unreadable:
    """What pickles, and cannot be made again of that; a KeyError, as if nothing were there."""

    def __reduce__(self) -> tuple[object, ...]:
        return _unread, ("it was well when it was stored",)


def _unread(why: str) -> None:
    raise KeyError(why)


def _equal(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


class Kind(NamedTuple):
    """A kind of value: how one is made, and how two are told to be the same."""

    make: Callable[[], Any]
    same: Callable[[Any, Any], bool] = _equal


PLAIN: Mapping[str, Kind] = {
    "none": Kind(lambda: None),
    "a truth": Kind(lambda: True),
    "a number": Kind(lambda: -(2**60)),
    "a fraction": Kind(lambda: 0.1),
    "text": Kind(lambda: "größer\n\0\u2028 🜁"),
    "a list": Kind(lambda: [1, [2.5, None], [], "x"]),
    "a table": Kind(lambda: {"a": {"b": [1, {"c": None}]}, "": {}}),
    "100 KB of text": Kind(lambda: "0123456789" * 10_000),
}
"""Kinds that every I/O manager stores."""

KINDS: Mapping[str, Kind] = {
    **PLAIN,
    "bytes": Kind(lambda: b"\x80\x05\0 raw"),
    "a tuple": Kind(lambda: (1, ("x",), ())),
    "a set": Kind(lambda: {1, 2, frozenset({3})}),
    "a table by number": Kind(lambda: {1: "a", (2, 3): "b"}),
    "a time": Kind(lambda: datetime(2026, 11, 22, 9, 30, tzinfo=UTC)),
    "an object": Kind(lambda: Order(7, ["bolt"])),
    "a function without a name": Kind(lambda: lambda: 42, lambda one, other: bool(one() == other() == 42)),
    "a small array": Kind(lambda: Array(bytearray(b"small"))),
    "large arrays": Kind(lambda: [Array(bytearray(range(256)) * size) for size in (256, 257, 4096)]),
    "a large array that is read only": Kind(lambda: Array(bytes(range(256)) * 1024)),
}
"""All kinds.  A suite's ``refuses`` may take any away that is not in :data:`PLAIN`."""

_NOT_IDS = ["../x", "a/../b", "/etc", "a/b", "a\\b", "", ".", "..", ".hidden", "a\0b", "a\nb", "a ", "x" * 300, None, 7]
_NOT_ID_NAMES = [repr(value)[:12] for value in _NOT_IDS]
_REF = Ref("r1", "total", "1")
_OTHER = Ref("r1", "total", "2")
_MUCH = b"much" * 500_000
_REFUSED, _STORED = 0, 1


class IOManagerConformance(Conformance, suite=True):
    """What an I/O manager promises: subclass it, and say how one is made.

    Every manager stores the kinds of values in :data:`PLAIN`.  One that does not
    store some of the other :data:`KINDS` says which, and why::

        refuses = {"bytes": "JSON has none"}

    Each of these is then proven to be refused, in a test that carries the reason.
    """

    refuses: ClassVar[Mapping[str, str]] = {}
    kills: ClassVar[int] = 20
    """How many writers are killed, of a manager that other processes share."""
    many: ClassVar[int] = 10_000
    """How many values a run has."""
    huge: ClassVar[int] = 40_000_000
    """How many bytes a huge value has."""
    examples: ClassVar[int] = 40
    """How many random histories are compared with a dictionary."""

    def __init_subclass__(cls, *, suite: bool = False) -> None:
        super().__init_subclass__(suite=suite)
        for kind, reason in cls.refuses.items():
            if kind not in KINDS or kind in PLAIN or not reason:
                there = sorted(set(KINDS) - set(PLAIN))
                raise TypeError(f"{cls.__name__}.refuses[{kind!r}] must give a reason for one of {there}")

    def make(self, tmp_path: Path) -> IOManager:
        """Return a new manager; two that are made of one *tmp_path* have the same settings."""
        raise NotImplementedError(f"{type(self).__name__} must say in make(self, tmp_path) how its manager is made")

    def pytest_generate_tests(self, metafunc: Any) -> None:
        if "refused" in metafunc.fixturenames:
            cases = [(kind, kind in self.refuses) for kind in KINDS]
            names = [kind + (f", refused: {self.refuses[kind]}" if refused else "") for kind, refused in cases]
            metafunc.parametrize(("kind", "refused"), cases, ids=names)

    # ---------------------------------------------------------------- one value

    def test_a_value_returns_as_it_was_saved_or_is_refused(self, tmp_path: Path, kind: str, refused: bool) -> None:
        """What is loaded has the type and the value of what was saved; a kind that is not stored is refused."""
        io = self.make(tmp_path)
        if refused:
            with pytest.raises(ResultNotStoredError):
                io.save(_REF, KINDS[kind].make())
            assert not io.exists(_REF)
            assert io.list("r1") == []
            return
        io.save(_REF, KINDS[kind].make())
        assert KINDS[kind].same(io.load(_REF), KINDS[kind].make())

    def test_save_says_where(self, tmp_path: Path) -> None:
        """What save returns is a text for a person to read."""
        where = self.make(tmp_path).save(_REF, 1)
        assert isinstance(where, str)
        assert where

    def test_the_last_value_counts(self, tmp_path: Path) -> None:
        """A value replaces the one before, whatever the size of either."""
        io = self.make(tmp_path)
        for size in (3, 100_000, 0, 50):
            io.save(_REF, ["x"] * size)
            assert io.load(_REF) == ["x"] * size
            assert io.list("r1") == [_REF]

    def test_large_buffers_are_replaced_whole(self, tmp_path: Path) -> None:
        """A value made of buffers replaces another, or one without, and the other way round."""
        io = self.make(tmp_path)
        if "large arrays" in self.refuses:
            return
        for value in (
            1,
            Array(bytearray(b"a" * 100_000)),
            Array(bytearray(b"b" * 200_000)),
            [2],
            Array(bytearray(70_000)),
        ):
            io.save(_REF, value)
            assert io.load(_REF) == value
            assert io.list("r1") == [_REF]

    def test_a_value_that_is_not_there_is_named_and_what_is_there_is_listed(self, tmp_path: Path) -> None:
        """A load of nothing raises ResultNotFoundError, which says what was asked, of whom, and what there is."""
        io = self.make(tmp_path)
        assert not io.exists(_REF)
        with pytest.raises(ResultNotFoundError) as nothing:
            io.load(_REF)
        assert str(nothing.value) == f"there is no result r1/total/1 in {io} (results of that task in that run: none)"
        io.save(_REF, 1)
        with pytest.raises(ResultNotFoundError) as other:
            io.load(Ref("r1", "total", "2"))
        assert str(other.value) == f"there is no result r1/total/2 in {io} (results of that task in that run: '1')"

    def test_a_failed_save_keeps_what_was_there(self, tmp_path: Path) -> None:
        """A value that cannot be stored is refused, and changes nothing.  (Without ``copies`` there is none such.)"""
        io = self.make(tmp_path)
        io.save(_REF, "before")
        value = {"inside": [Unstorable()]}
        if "copies" not in io.capabilities:
            io.save(_REF, value)
            assert io.load(_REF) is value
            return
        with pytest.raises(ResultNotStoredError, match="r1/total/1"):
            io.save(_REF, value)
        assert io.load(_REF) == "before"
        with pytest.raises(ResultNotStoredError):
            io.save(Ref("r1", "total", "2"), value)
        with pytest.raises(ResultNotStoredError):
            io.save(Ref("r2", "total", "2"), value)
        assert io.list("r1") == [_REF]
        assert io.runs() == ["r1"]

    def test_a_value_that_does_not_load_is_refused_or_said_by_load(self, tmp_path: Path) -> None:
        """Not as if there were none, nor as another value; what lies beside it loads.  (With ``copies``.)"""
        io = self.make(tmp_path)
        io.save(_OTHER, "beside")
        if "copies" in io.capabilities:
            try:
                io.save(_REF, [Unreadable()])
            except ResultNotStoredError:
                assert not io.exists(_REF)
            else:
                with pytest.raises(Exception, match="it was well when it was stored") as said:
                    io.load(_REF)
                assert not isinstance(said.value, ResultNotFoundError)
                assert io.exists(_REF)
                io.save(_REF, "better")
                assert io.load(_REF) == "better"
        assert io.load(_OTHER) == "beside"

    # ---------------------------------------------------------------- ids

    @pytest.mark.parametrize("wrong", _NOT_IDS, ids=_NOT_ID_NAMES)
    def test_what_is_not_an_id_is_refused_and_touches_nothing(self, tmp_path: Path, wrong: Any) -> None:
        """An id that could leave its place is an InvalidIdError, in every position and of every method."""
        inside = tmp_path / "inside"
        inside.mkdir()
        io = self.make(inside)
        io.save(_REF, "kept")
        before = _tree(tmp_path)
        for ref in (Ref(wrong, "total", "1"), Ref("r1", wrong, "1"), Ref("r1", "total", wrong)):
            for call in (io.load, io.exists, io.delete, lambda ref: io.save(ref, "evil")):
                with pytest.raises(InvalidIdError):
                    call(ref)
        for ask in (io.list, io.clear, *((lambda task: io.list("r1", task),) if wrong is not None else ())):
            with pytest.raises(InvalidIdError):
                ask(wrong)
        assert _tree(tmp_path) == before
        assert io.load(_REF) == "kept"

    @pytest.mark.parametrize(
        "name", ["größe", "売上", "a.b-c_d", "x" * 200, "ä" * 100, "1", "nul.pkl", "1.buf"], ids=lambda name: name[:8]
    )
    def test_whatever_is_an_id_can_be_stored_and_is_listed(self, tmp_path: Path, name: str) -> None:
        """Word characters of any script, dots and hyphens, up to 200 bytes, come back as they were."""
        io, ref = self.make(tmp_path), Ref(name, name, name)
        io.save(ref, ["value"])
        assert io.load(ref) == ["value"]
        assert io.list(name) == io.list(name, name) == [ref]
        assert io.runs() == [name]
        assert io.clear(name) == 1

    def test_ids_that_look_alike_are_different(self, tmp_path: Path) -> None:
        """No id is a pattern or a prefix, and no three ids run together."""
        io = self.make(tmp_path)
        refs = [
            Ref(run, task, item) for run in ("r", "r_", "rx") for task in ("t", "t.t") for item in ("1", "1-1", "11")
        ]
        refs += [Ref("r", "t", "t.1"), Ref("r", "t.t", "t")]
        for number, ref in enumerate(refs):
            io.save(ref, number)
        assert [io.load(ref) for ref in refs] == [*range(len(refs))]
        assert io.delete(refs[0])
        assert [ref for ref in refs if io.exists(ref)] == refs[1:]

    # ---------------------------------------------------------------- several

    def test_list_tells_what_is_there_and_nothing_else(self, tmp_path: Path) -> None:
        """A run's refs, or a task's, sorted; of what is unknown, none."""
        io = self.make(tmp_path)
        for ref in (Ref("r1", "b", "2"), Ref("r1", "b", "1"), Ref("r1", "a", "1"), Ref("r2", "a", "1")):
            io.save(ref, str(ref))
        assert io.list("r1") == [Ref("r1", "a", "1"), Ref("r1", "b", "1"), Ref("r1", "b", "2")]
        assert io.list("r1", "b") == [Ref("r1", "b", "1"), Ref("r1", "b", "2")]
        assert io.list("r2", "b") == io.list("r3") == io.list("r3", "a") == []

    def test_runs_are_those_that_have_results(self, tmp_path: Path) -> None:
        """Sorted; a run whose last result is deleted is not one of them any more."""
        io = self.make(tmp_path)
        assert io.runs() == []
        for run in ("r2", "r1", "r3"):
            io.save(Ref(run, "a", "1"), run)
        assert io.runs() == ["r1", "r2", "r3"]
        assert io.delete(Ref("r2", "a", "1"))
        assert io.runs() == ["r1", "r3"]

    def test_ten_thousand_values_are_listed_and_cleared(self, tmp_path: Path) -> None:
        """All of them, in order, those of a task by themselves too; none is left of them afterwards."""
        io = self.make(tmp_path)
        refs = [Ref("r1", f"t{number % 10}", f"1-{number:08d}") for number in range(self.many)]
        for number, ref in enumerate(refs):
            io.save(ref, number)
        assert io.list("r1") == sorted(refs)
        assert io.list("r1", "t3") == sorted(refs[3::10])
        assert io.load(refs[-1]) == self.many - 1
        assert io.clear("r1") == self.many
        assert io.list("r1") == []
        assert io.runs() == []

    def test_a_huge_value_returns_whole(self, tmp_path: Path) -> None:
        """Bytes, or text, and an array of 40 MB, from their first to their last."""
        io = self.make(tmp_path)
        huge = bytes(range(256)) * (self.huge // 256)
        value = huge if "bytes" not in self.refuses else huge.decode("latin-1")
        io.save(_REF, value)
        assert hash(io.load(_REF)) == hash(value)  # not compared, since a failure would show both
        if "large arrays" not in self.refuses:
            io.save(_REF, Array(bytearray(huge)))
            assert hash(bytes(io.load(_REF).data)) == hash(huge)

    def test_clear_forgets_one_run_and_counts(self, tmp_path: Path) -> None:
        """All results of that run and of no other are gone; of an unknown run there are 0."""
        io = self.make(tmp_path)
        for run in ("r1", "r10", "r"):
            for number in range(3):
                io.save(Ref(run, f"t{number}", "1"), number)
        assert io.clear("r1") == 3
        assert io.clear("r1") == io.clear("unknown") == 0
        assert io.runs() == ["r", "r10"]
        assert len(io.list("r")) == len(io.list("r10")) == 3
        assert not io.exists(Ref("r1", "t0", "1"))

    def test_delete_tells_whether_there_was_a_value(self, tmp_path: Path) -> None:
        """The first time it was there, the second time it was not, and its neighbours are untouched."""
        io = self.make(tmp_path)
        io.save(_REF, 1)
        io.save(Ref("r1", "total", "2"), 2)
        assert io.delete(_REF) is True
        assert io.delete(_REF) is False
        assert io.delete(Ref("unknown", "total", "1")) is False
        assert not io.exists(_REF)
        assert io.load(Ref("r1", "total", "2")) == 2
        with pytest.raises(ResultNotFoundError):
            io.load(_REF)

    def test_what_was_deleted_can_be_saved_again(self, tmp_path: Path) -> None:
        """Nothing of the old value comes back."""
        io = self.make(tmp_path)
        for value in ("first", "second"):
            io.save(_REF, value)
            assert io.load(_REF) == value
            assert io.delete(_REF)
        io.save(_REF, "third")
        assert io.clear("r1") == 1
        io.save(_REF, "fourth")
        assert io.load(_REF) == "fourth"
        assert io.list("r1") == [_REF]

    def test_any_history_is_that_of_a_dictionary(self, tmp_path: Path) -> None:
        """Whatever is saved, deleted and cleared, in whatever order: what is there is what a dictionary would hold."""
        from dpcore.testing.machines import compare_io

        compare_io(self.make, tmp_path, self.examples)

    # ---------------------------------------------------------------- capabilities

    def test_capabilities_are_data(self, tmp_path: Path) -> None:
        """They are those that the port names, the same on the class and on the object; the others can be asked for in vain."""
        io = self.make(tmp_path)
        self.check_capabilities(io, {"shared", "copies"})
        for capability in {"shared", "copies"} - io.capabilities:
            with pytest.raises(UnsupportedError, match=capability):
                io.require(capability, "do that")

    def test_copies_or_not_as_it_says(self, tmp_path: Path) -> None:
        """With ``copies``, changing what was saved or loaded changes nothing stored; without, it is the object itself."""
        io, value = self.make(tmp_path), [1, [2]]
        io.save(_REF, value)
        if "copies" not in io.capabilities:
            assert io.load(_REF) is value
            return
        value.append(3)
        assert io.load(_REF) == [1, [2]]
        io.load(_REF)[1].append(4)
        assert io.load(_REF) == [1, [2]]

    def test_what_is_loaded_of_an_array_can_be_written_to(self, tmp_path: Path) -> None:
        """A buffer that was writable is so again, and with ``copies`` writing to it changes nothing stored."""
        io = self.make(tmp_path)
        if "large arrays" in self.refuses:
            return
        io.save(_REF, Array(bytearray(100_000)))
        loaded = io.load(_REF)
        loaded.data[0] = 7
        assert loaded.data[0] == 7
        assert io.load(_REF).data[0] == (0 if "copies" in io.capabilities else 7)

    def test_shared_or_not_as_it_says(self, tmp_path: Path) -> None:
        """With ``shared``, another of the same settings and a pickled copy see the same; without, neither does."""
        io, other = self.make(tmp_path), self.make(tmp_path)
        io.save(_REF, "shared")
        if "shared" not in io.capabilities:
            assert not other.exists(_REF)
            with pytest.raises((TypeError, pickle.PicklingError)):
                pickle.dumps(io)
            return
        for reader in (other, pickle.loads(pickle.dumps(io))):
            assert reader.load(_REF) == "shared"
            assert reader.list("r1") == [_REF]
        assert other.delete(_REF)
        assert not io.exists(_REF)

    # ---------------------------------------------------------------- several at once

    def test_a_reader_during_overwrites_sees_a_whole_value(self, tmp_path: Path) -> None:
        """Threads that load while another saves get the value before or the one after."""
        io = self.make(tmp_path)
        io.save(_REF, self._version(0))
        with _Threads() as threads:
            for _ in range(2):
                threads.until_done(lambda: self._assert_whole(io.load(_REF)) and io.exists(_REF))
            for number in range(200):
                io.save(_REF, self._version(number))

    def test_what_several_save_at_once_is_all_there(self, tmp_path: Path) -> None:
        """Each saves refs of its own in one run: from threads, and with ``shared`` each by an instance of its own."""
        io = self.make(tmp_path)
        managers = [self.make(tmp_path) if "shared" in io.capabilities else io for _ in range(4)]

        def save(number: int) -> None:
            for attempt in range(25):
                managers[number].save(Ref("r1", f"t{number}", str(attempt)), [number, attempt])

        threads = [threading.Thread(target=save, args=[number]) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(io.list("r1")) == 100
        for ref in io.list("r1"):
            assert io.load(ref) == [int(ref.task[1:]), int(ref.result_id)]

    def test_a_run_that_is_cleared_while_it_is_written_holds_whole_values_or_none(self, tmp_path: Path) -> None:
        """No save fails because of it, no load sees a torso, and what is listed at the end loads."""
        io = self.make(tmp_path)

        def read() -> None:
            with suppress(ResultNotFoundError):
                self._assert_whole(io.load(_REF))

        with _Threads() as threads:
            threads.until_done(lambda: io.clear("r1"))
            threads.until_done(read)
            for number in range(200):
                io.save(_REF, self._version(number))
        for ref in io.list("r1"):
            self._assert_whole(io.load(ref))
        io.clear("r1")
        assert io.runs() == []

    def test_a_save_is_not_lost_to_a_delete_beside_it(self, tmp_path: Path) -> None:
        """Deleting the last value of a task while another is saved under it keeps that one."""
        io, passing = self.make(tmp_path), Ref("r1", "total", "passing")

        def come_and_go() -> None:
            io.save(passing, "passing")
            io.delete(passing)

        with _Threads() as threads:
            threads.until_done(come_and_go)
            for number in range(300):
                io.save(_REF, number)
                assert io.load(_REF) == number
                assert io.delete(_REF)

    def test_a_killed_writer_leaves_the_old_value_or_the_new_one(self, tmp_path: Path) -> None:
        """SIGKILL at any moment of a save leaves one whole value, and all that save returned for.  (With ``shared``.)"""
        if "shared" not in self.make(tmp_path).capabilities:
            return
        with Writers.of(_overwrite, type(self), tmp_path) as writers:
            for said, seconds in moments(seed=7, times=self.kills, most=0.03):
                heard = writers.kill_after(said, seconds)
                io = self.make(tmp_path)
                found = [io.load(ref) for ref in io.list("r1")]
                assert len(found) == bool(found)
                for value in found:
                    self._assert_whole(value)
                if heard:
                    assert found, "save had returned, and nothing is there"
                    assert found[0]["number"] - heard[-1] in (0, 1), "neither the last value nor the next one"

    def test_what_does_not_fit_keeps_what_was_there(self, tmp_path: Path) -> None:
        """On a full disk a save is a ResultNotStoredError, which changes nothing.  (With ``shared``.)"""
        io = self.make(tmp_path)
        if "shared" not in io.capabilities:
            return
        io.save(_REF, "before")
        with Writers.of(_save_too_much, type(self), tmp_path) as writers:
            said = writers.run()
        assert said in ([_REFUSED], [_STORED]), "it failed with another error than ResultNotStoredError"
        whole = {_REF: "before"} if said == [_REFUSED] else {_REF: _MUCH, _OTHER: _MUCH}
        assert {ref: io.load(ref) for ref in io.list("r1")} == whole
        io.save(_OTHER, "after")
        assert io.load(_OTHER) == "after"

    def test_another_process_works_on_the_same_results(self, tmp_path: Path) -> None:
        """What one process saves, another loads, and the other way round.  (With ``shared``.)"""
        io = self.make(tmp_path)
        if "shared" not in io.capabilities:
            return
        io.save(_REF, 20)
        with Writers.of(_double, type(self), tmp_path) as writers:
            assert writers.run() == [20]
        assert io.load(_REF) == 40

    def test_nothing_is_left_open(self, tmp_path: Path) -> None:
        """A hundred values later there are no more open files and threads than before."""
        io = self.make(tmp_path)
        self._work(io)
        before = leftovers()
        for _ in range(100):
            self._work(io)
        left = leftovers()
        assert left.no_more_than(before), f"{left} after {before}"

    def _work(self, io: IOManager) -> None:
        io.save(_REF, self._version(1))
        io.load(_REF)
        io.list("r1")
        io.runs()
        with pytest.raises(ResultNotFoundError):
            io.load(Ref("r1", "total", "2"))
        io.delete(_REF)

    # ---------------------------------------------------------------- values that show when they are torn

    def _version(self, number: int) -> dict[str, Any]:
        value: dict[str, Any] = {"number": number, "filler": [number] * 3000}
        if "large arrays" not in self.refuses:
            value["array"] = Array(bytearray([number % 256]) * 70_000)
        return value

    def _assert_whole(self, value: dict[str, Any]) -> bool:
        # Not compared with another value of ours: a million numbers would be shown when they differ.
        number = value["number"]
        assert len(value["filler"]) == 3000
        assert set(value["filler"]) == {number}, "half of one value and half of another"
        if "large arrays" not in self.refuses:
            assert set(bytes(value["array"].data)) == {number % 256}, "the array of another value"
        return True


def _overwrite(suite: type[IOManagerConformance], path: Path, say: Callable[[int], None]) -> None:
    made = suite()
    io = made.make(path)
    number = io.load(_REF)["number"] + 1 if io.exists(_REF) else 0
    while True:
        io.save(_REF, made._version(number))
        say(number)
        number += 1


def _save_too_much(suite: type[IOManagerConformance], path: Path, say: Callable[[int], None]) -> None:
    io = suite().make(path)
    leave_no_room(len(_MUCH) // 2)
    stored = [_STORED]
    for ref in (_REF, _OTHER):
        try:
            io.save(ref, _MUCH)
        except ResultNotStoredError:
            stored = [_REFUSED]
    say(*stored)


def _double(suite: type[IOManagerConformance], path: Path, say: Callable[[int], None]) -> None:
    io = suite().make(path)
    number = io.load(_REF)
    io.save(_REF, number * 2)
    say(number)


def _tree(path: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() if file.is_file() else b"" for file in path.rglob("*")}


class _Threads:
    """Threads that do something again and again until the block ends; what they raise, it raises."""

    def __init__(self) -> None:
        self._done = threading.Event()
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []

    def until_done(self, work: Callable[[], object]) -> None:
        thread = threading.Thread(target=self._repeat, args=(work,))
        self._threads.append(thread)
        thread.start()

    def _repeat(self, work: Callable[[], object]) -> None:
        try:
            while not self._done.is_set():
                work()
        except BaseException as error:  # noqa: BLE001  (it is raised in the test's own thread)
            self._errors.append(error)

    def __enter__(self) -> _Threads:
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]
