"""Jobs: ids that become paths, outcomes that travel."""

from __future__ import annotations

import pickle
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpcore import Items, Job, Outcome, Ref, State
from dpcore.errors import DpcoreError, InvalidIdError, TaskError
from dpcore.functions import Function
from dpcore.jobs import check_id, described, message
from dpcore.words import LONGEST_TEXT, excerpt

BAD_IDS = [
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "/etc",
    "a\\b",
    "a\0b",
    "a\n",
    "a b",
    ".hidden",
    "a..b",
    "a.",
    "x" * 300,
    "é" * 101,
    5,
    None,
    b"x",
    "\ud800",
    "-a",
]


@pytest.mark.parametrize("value", BAD_IDS, ids=repr)
def test_an_id_that_must_not_become_part_of_a_path_is_refused_with_its_kind(value):
    with pytest.raises(InvalidIdError) as caught:
        check_id(value, "run id")
    text = str(caught.value)
    assert "cannot be a run id: " in text
    assert len(text) < 250
    for part in ("run_id", "task", "result_id"):
        ids = {"run_id": "r", "task": "t", "result_id": "1", part: value}
        with pytest.raises(InvalidIdError):
            Ref(**ids).check()


@pytest.mark.parametrize("value", ["r1", "2026-11-22.first", "größe-1", "_x", "a" * 200])
def test_an_id_of_words_is_good(value):
    assert check_id(value, "run id") == value


@given(st.text())
@settings(deadline=None, derandomize=True)
def test_whatever_the_text_an_id_is_good_or_an_error_of_dpcore(text):
    try:
        check_id(text, "run id")
    except DpcoreError:
        return
    assert "/" not in text
    assert "\\" not in text
    assert text not in ("", ".", "..")


def test_items_count_what_is_there_and_know_who_stored_it():
    items = Items("r", "t", 4, attempt=2, attempts={0: 3}, missing=frozenset({1}))
    assert len(items) == 3
    assert [ref.result_id for ref in items] == ["3-00000000", "2-00000002", "2-00000003"]
    assert pickle.loads(pickle.dumps(items)) == items


class Odd(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a} {b}")


class Locked(Exception):
    def __init__(self):
        super().__init__("locked")
        self.lock = threading.Lock()


class Mute(Exception):
    def __str__(self):
        raise RuntimeError


def outcome_of(error: BaseException) -> Outcome:
    return Outcome(state=State.FAILED, error=error, traceback="Traceback: the frames\n", result=Ref("r", "work", "1"))


def test_an_error_that_pickles_travels_as_it_is_with_the_workers_traceback_as_a_note():
    travelled = pickle.loads(pickle.dumps(outcome_of(KeyError("x"))))
    assert type(travelled.error) is KeyError
    assert "the frames" in travelled.error.__notes__[0]
    assert travelled.state is State.FAILED


@pytest.mark.parametrize("error", [Odd(1, 2), Locked(), Mute()], ids=lambda error: type(error).__name__)
def test_an_error_that_does_not_pickle_or_unpickle_travels_as_what_it_was(error):
    travelled = pickle.loads(pickle.dumps(outcome_of(error)))
    if isinstance(error, Mute):
        assert isinstance(travelled.error, Mute)
        return
    assert isinstance(travelled.error, TaskError)
    assert travelled.error.kind.endswith(type(error).__name__)
    assert "Exception" in travelled.error.bases
    assert str(error) in str(travelled.error)


def test_a_job_travels_whole_and_says_what_it_is():
    job = Job(run_id="r", task="t", function=Function(len), io=None, index=3, attempt=2, arguments={"x": 1})
    travelled = pickle.loads(pickle.dumps(job))
    assert travelled.ref == Ref("r", "t", "2-00000003")
    assert travelled.function.call is len
    assert str(job) == "t[3], attempt 2 of run r"


# ---------------------------------------------------------------- errors of any size


@given(st.text(), st.integers(64, 200))
def test_of_a_long_text_beginning_and_end_are_kept_and_the_rest_is_counted(text, most):
    text *= 20
    kept = excerpt(text, most)
    assert len(kept) <= most
    if kept != text:
        head, _, rest = kept.partition(" [... ")
        count, _, tail = rest.partition(" characters are left out ...] ")
        assert text.startswith(head)
        assert text.endswith(tail)
        assert len(head) + int(count.replace(",", "")) + len(tail) == len(text)


class LocalError(Exception):
    def __reduce__(self):
        raise TypeError("it does not travel")


@pytest.mark.parametrize("letter", ["x", "\udce9"])
def test_what_an_error_says_is_bounded_beside_it_and_not_in_it(letter):
    """Also where each letter is written as several."""
    error = ValueError(letter * 1_000_000)
    assert len(message(error)) <= LONGEST_TEXT
    assert len(described(error)) <= LONGEST_TEXT + len("ValueError: ")
    failed = Outcome(state=State.FAILED, error=error, failed_items=((0, LocalError(letter * 1_000_000)),), task="t")
    there = pickle.loads(pickle.dumps(failed))
    assert str(there.error) == str(error)
    stands_for = there.failed_items[0][1]
    assert isinstance(stands_for, TaskError)
    assert len(stands_for.text) <= LONGEST_TEXT
    assert all(len(note) <= LONGEST_TEXT + 100 for note in stands_for.__notes__)
