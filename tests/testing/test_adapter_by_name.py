"""An adapter that is installed is tested by its name, without a line of code."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from dpcore.testing.adapter import choose

CONF = """
from dpcore import Provider, hookimpl
from dpcore_plugins import MemoryRunStore


class Forgetful(MemoryRunStore):
    async def drop(self, key):
        return True


class Placed(MemoryRunStore):
    def __init__(self, *, path):
        super().__init__()
        print("made at", path)


@hookimpl
def dpcore_run_stores():
    return [Provider(name="forgetful", target=Forgetful), Provider(name="placed", target=Placed)]
"""


@pytest.fixture
def project(tmp_path):
    """A folder with a project file and a plugin of its own."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "dpcore.toml").write_text("")
    (folder / "dpcore_conf.py").write_text(CONF)
    return folder


def run(folder, *arguments):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--pyargs", "dpcore.testing", *arguments]
    return subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        env={**os.environ, "COLUMNS": "300"},
    )


def test_the_suite_of_its_kind_proves_it(project):
    done = run(project, "--dpcore-adapter", "executor:inline")
    assert re.search(r"^\d\d passed", done.stdout, re.MULTILINE), done.stdout + done.stderr


def test_several_are_tested_in_one_run(project):
    chosen = ("broker:memory?retain=5&drain=1", "queue:memory?size=3", "store:memory", "io:memory")
    options = [word for name in chosen for word in ("--dpcore-adapter", name)]
    done = run(project, "--collect-only", *options, "--dpcore-adapter", "io:memory")
    found = set(re.findall(r"^\S*test_adapter\.py::(\S+)::test_", done.stdout, re.MULTILINE))
    assert found == set(chosen), done.stdout + done.stderr
    assert done.stdout.count("io:memory::test_the_last_value_counts") == 1


def test_what_it_does_not_keep_fails_and_is_named(project):
    promises = "what_was_dropped_leaves_nothing or entries_alone_make_no_document"
    done = run(project, "--dpcore-adapter", "store:forgetful", "-k", promises)
    failed = re.findall(r"^FAILED .*::store:forgetful::(\w+)\[(\w+)\]", done.stdout, re.MULTILINE)
    assert failed == [("test_what_was_dropped_leaves_nothing", loop) for loop in ("asyncio", "trio")]
    assert "2 failed, 2 passed" in done.stdout


def test_what_it_keeps_at_a_path_is_kept_in_a_folder_of_each_test(project):
    promises = "the_last_value_counts or killed_writer_leaves"
    done = run(project, "--dpcore-adapter", "io:filesystem", "-k", promises)
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    assert not (project / ".dpcore").exists()


@pytest.mark.parametrize(("said", "ends"), [("store:placed", "/adapter"), ("store:placed:{tmp_path}/here", "/here")])
def test_where_it_is_kept_may_be_said(project, said, ends):
    done = run(project, "--dpcore-adapter", said, "-k", "entries_alone_make_no_document and trio", "-s")
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    places = re.findall(r"made at (\S+)", done.stdout)
    assert len(set(places)) == 2  # one was made to see whether it can be
    assert all(place.endswith(ends) and "{" not in place for place in places)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("brokr:memory", "(kinds: 'broker', 'executor', 'io', 'queue', 'store'); did you mean 'broker'?"),
        ("memory", "it is KIND:NAME[?setting=value], such as broker:memory"),
        ("broker:memry", "no plugin offers the broker 'memry' (there are: "),
        ("broker:memry", "; did you mean 'memory'?"),
        ("broker:memory?retain=many", "retain"),
        ("broker:memory?retian=5", "did you mean 'retain'?"),
        ("broker:memory?retain=-1", "retain=-1 must be at least 0"),
        ("store:", "it does not begin with the name of an adapter"),
    ],
)
def test_what_is_wrong_with_a_name_is_said_in_words(said, words):
    with pytest.raises(pytest.UsageError) as refused:
        choose(["broker:memory", said])
    assert str(refused.value).startswith(f"--dpcore-adapter '{said}': ")
    assert words in str(refused.value)


def test_a_wrong_name_is_one_line_before_anything_is_tested(project):
    done = run(project, "--dpcore-adapter", "store:forgetfull")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in done.stderr.splitlines() if line]
    assert line.startswith("ERROR: --dpcore-adapter 'store:forgetfull': no plugin offers the run store 'forgetfull'")
    assert line.endswith("did you mean 'forgetful'?")


def test_without_a_name_it_says_how_to_give_one(project):
    done = run(project)
    assert done.returncode == pytest.ExitCode.INTERRUPTED
    assert "say which adapter is tested: --dpcore-adapter KIND:NAME, such as broker:memory" in done.stdout


def test_the_option_explains_itself(project):
    assert "--dpcore-adapter=KIND:NAME" in run(project, "--help").stdout
