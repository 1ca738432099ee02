"""Jobs: ids that become paths, functions that reach another process, outcomes that travel."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpcore import Items, Job, Outcome, Ref, State
from dpcore.errors import DpcoreError, FunctionNotFoundError, InvalidIdError, TaskError
from dpcore.jobs import Function, check_id

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


def top_level(x):
    return x + 1


class Holder:
    @staticmethod
    def inner(x):
        return x + 2


@pytest.mark.parametrize("call", [top_level, Holder.inner, len], ids=["function", "static method", "builtin"])
def test_a_function_with_a_name_travels_as_its_locator(call):
    function = Function(call)
    assert function.locator is not None
    assert len(pickle.dumps(function)) < 400
    assert pickle.loads(pickle.dumps(function)).call is call


def test_a_closure_and_a_lambda_travel_by_value():
    add = 5
    for call in (lambda x: x + add, lambda x: x + 5):
        assert Function(call).locator is None
        assert pickle.loads(pickle.dumps(Function(call))).call(1) == 6


def test_a_function_that_is_gone_is_told():
    with pytest.raises(FunctionNotFoundError, match=r"cannot find the function json\.nope: the module has no 'nope'"):
        Function.find("json", None, "nope")


CHILD = """
import pickle, sys
function = pickle.loads(bytes.fromhex(sys.stdin.read()))
print(function.call(20))
"""


def other_process(function: Function) -> str:
    """Return what the function gives for 20 in a fresh interpreter that knows nothing of this one."""
    child = subprocess.run(
        [sys.executable, "-c", CHILD], input=pickle.dumps(function).hex(), capture_output=True, text=True, check=False
    )
    return child.stdout.strip() or child.stderr


def test_a_module_beside_a_script_is_found_again_by_its_folder(tmp_path, monkeypatch):
    package = tmp_path / "pack_of_tasks"
    package.mkdir()
    (package / "__init__.py").write_text("def at_top(x):\n    return x + 1\n")
    (package / "inner.py").write_text("def inside(x):\n    return x + 2\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import pack_of_tasks.inner as inner

    assert other_process(Function(inner.inside)) == "22"
    assert other_process(Function(sys.modules["pack_of_tasks"].at_top)) == "21"


SCRIPT = """
import pickle, subprocess, sys
from dpcore.jobs import Function
def work(x):
    return x + 3
CHILD = {child!r}
if __name__ == "__main__":
    child = subprocess.run([sys.executable, "-c", CHILD], input=pickle.dumps(Function(work)).hex(), text=True)
"""


def test_the_function_of_a_script_is_found_again_in_its_file(tmp_path):
    script = tmp_path / "a_script.py"
    script.write_text(SCRIPT.format(child=CHILD))
    child = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "23"


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
    job = Job(run_id="r", task="t", function=Function(top_level), io=None, index=3, attempt=2, arguments={"x": 1})
    travelled = pickle.loads(pickle.dumps(job))
    assert travelled.ref == Ref("r", "t", "2-00000003")
    assert travelled.function.call is top_level
    assert str(job) == "t[3], attempt 2 of run r"
