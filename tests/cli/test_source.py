"""Where tasks come from: files, modules, and the registries in them."""

import re
import sys
from pathlib import Path

import pytest


def test_a_file_is_imported_under_its_stem_with_its_folder_first(command, write, folder):
    write("flows/rows.py", "ROWS = [1, 2]")
    write(
        "flows/flow.py", "from dpcore import task\nfrom rows import ROWS\n@task\ndef count() -> int: return len(ROWS)"
    )
    assert "succeeded: 1 task" in command("run", "flows/flow.py").stdout
    assert sys.path[0] == str(folder / "flows")
    assert sys.modules["flow"].__file__ == str(folder / "flows" / "flow.py")


def test_a_module_is_imported_by_its_name_from_the_current_folder(command, write):
    write("shop/__init__.py", "")
    write("shop/rows.py", "ROWS = [1, 2]")
    write(
        "shop/flow.py", "from dpcore import task\nfrom .rows import ROWS\n@task\ndef count() -> int: return len(ROWS)"
    )
    assert "1 task of shop.flow" in command("run", "shop.flow").stdout


def test_the_record_says_where_the_tasks_are_from(command, orders):
    command("run", "orders.py")
    assert str(orders) in command("runs", "show", "latest").stdout


@pytest.mark.parametrize("target", ["bare.py", "bare"])
@pytest.mark.parametrize("called", ["run", "plan", "tasks"])
def test_a_file_that_starts_a_run_by_itself_is_told_what_to_write_and_starts_none(command, write, called, target):
    lines = (
        "import dpcore",
        "own = dpcore.Registry()",
        "own.task(name='one')(lambda: open('ran', 'x'))",
        "dpcore.run(registry=own)",
    )
    write("bare.py", "\n".join(lines))
    said = command(called, target, code=2)
    assert (said.stdout, "Traceback" in said.stderr) == ("", False)
    assert f"{target} starts a run when it is only loaded for its tasks" in said.stderr
    assert 'put what starts it under: if __name__ == "__main__":' in said.stderr
    assert not Path("ran").exists()


# ---------------------------------------------------------------- registries

TWO = """
from dpcore import Registry
first, second, empty = Registry(), Registry(), Registry()
also_first = first
@first.task
def one() -> int: return 1
@second.task
def two() -> int: return 2
"""


def test_a_registry_of_the_file_is_taken_instead_of_the_default_one(command, write):
    write("own.py", TWO.replace("@second.task", ""))
    assert "plan" in command("plan", "own.py", "one").stdout


def test_of_several_registries_one_has_to_be_named(command, write):
    write("own.py", TWO)
    said = command("run", "own.py", code=2).stderr
    assert "own.py has several registries of tasks ('first', 'second')" in said
    assert "say which is meant: own.py:first or own.py:second" in said
    assert "1 task of own.py:second" in command("run", "own.py:second").stdout
    assert "1 task of own:first" in command("run", "own:first").stdout


def test_a_registry_that_is_not_there_is_told_the_nearest(command, write):
    write("own.py", TWO)
    said = command("run", "own.py:secnd", code=2).stderr
    assert "own.py has no registry 'secnd' (there are: 'first', 'second', 'empty'); did you mean 'second'?" in said


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize("name", ["run", "plan"])
@pytest.mark.parametrize(
    ("target", "text", "words"),
    [
        ("ordrs.py", None, "there is no file 'ordrs.py'; did you mean 'orders.py'?"),
        ("zzz/zzz.py", None, "there is no file 'zzz/zzz.py', nor the folder '"),
        ("./sub", None, "'./sub' is a folder; name a file in it ('inner.py'), or a module"),
        ("sub", None, "'sub' is a folder; name a file in it ('inner.py'), or a module"),
        ("sub.below", None, "'sub.below' is a folder; name a file in it, though none there ends in .py, or a module"),
        ("package", None, "package has no tasks; decorate a function with @task"),
        ("rows.txt", "1", "rows.txt cannot be imported: a file of tasks is named like a module"),
        ("v1.2.py", "1", "v1.2.py cannot be imported"),
        ("ordrs", None, "there is no module 'ordrs', neither in "),
        ("orders.missing", None, "there is no module 'orders.missing'"),
        ("empty.py", "x = 1", "empty.py has no tasks; decorate a function with @task (from dpcore import task)"),
        ("pickle.py", "x = 1", "cannot be imported as 'pickle', because another module has that name"),
    ],
)
def test_what_cannot_be_loaded_is_one_message(command, orders, write, name, target, text, words):
    write("sub/inner.py", "")
    write("sub/below/note.txt", "")
    write("package/__init__.py", "")
    if text is not None:
        write(target, text)
    said = command(name, target, code=2)
    assert words in said.stderr
    assert said.stdout == ""
    assert "Traceback" not in said.stderr


def test_a_syntax_error_is_told_with_its_line(command, write):
    file = write("wrong.py", "x = 1\ndef f(:\n")
    assert f"dpcore: {file}:2: SyntaxError: invalid syntax\n    def f(:\n" == command("run", "wrong.py", code=2).stderr


def test_an_error_on_import_is_told_with_the_users_frames_only(command, write):
    rows, flow = (
        write("rows.py", "def read():\n    raise OSError('gone')\n"),
        write("flow.py", "import rows\nrows.read()"),
    )
    said = command("run", "flow.py", code=2).stderr
    said = re.sub(r"^ *[~^]+\n", "", said, flags=re.MULTILINE)  # where in its line, which not every Python says
    assert said == (
        f"dpcore: {flow} fails when it is imported:\n"
        "Traceback (most recent call last):\n"
        f'  File "{flow}", line 2, in <module>\n'
        "    rows.read()\n"
        f'  File "{rows}", line 2, in read\n'
        "    raise OSError('gone')\n"
        "OSError: gone\n"
    )


def test_a_task_that_is_defined_wrongly_is_told_where_it_stands(command, write):
    flow = write("flow.py", "from dpcore import task\n@task(max_retries=-1)\ndef f(): ...\n")
    said = command("run", "flow.py", code=2).stderr
    assert "task 'f': max_retries=-1 must be a whole number, 0 or more" in said
    assert f'File "{flow}", line 2' in said
    assert said.count("File ") == 1


def test_a_file_that_exits_or_is_part_of_a_package_is_told_so(command, write):
    write("leaving.py", "raise SystemExit('no')")
    assert "SystemExit: no" in command("run", "leaving.py", code=2).stderr
    write("inside.py", "from . import rows")
    assert "name it as a module: dpcore run PACKAGE.MODULE" in command("run", "inside.py", code=2).stderr


def test_a_module_that_misses_another_says_so(command, write):
    write("flow.py", "import surely_not_there")
    said = command("run", "flow", code=2).stderr
    assert "flow fails when it is imported" in said
    assert "No module named 'surely_not_there'" in said


def test_tasks_in_two_registries_are_not_passed_over_in_silence(command, write):
    write("lib.py", "from dpcore import Registry\nshared = Registry()\n@shared.task\ndef theirs(): ...\n")
    write("mine.py", "from lib import shared\nfrom dpcore import task\n@task\ndef mine(): ...\n")
    said = command("run", "mine.py", code=2).stderr
    assert "mine.py has tasks of @task, and the registry 'shared' with others" in said
    assert "mine.py:shared" in said
