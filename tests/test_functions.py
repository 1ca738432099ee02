"""Functions: how one reaches another process."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from dpcore.errors import FunctionNotFoundError
from dpcore.functions import Function


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
from dpcore.functions import Function
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
