"""The suites notice what is wrong, say which promise is broken, and cannot be talked out of it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import dpcore.testing
from dpcore.testing import ExecutorConformance, IOManagerConformance, QueueConformance, RunStoreConformance
from dpcore_plugins.io.memory import MemoryIO

FAULTY = Path(__file__).with_name("faulty.py")

BROKEN = {
    "ReadsThenWritesTheRun": ["what_several_save_at_once_is_all_there"],
    "WritesInPlace": [
        "a_failed_save_keeps_what_was_there",
        "a_killed_writer_leaves_the_old_value_or_the_new_one",
        "a_reader_during_overwrites_sees_a_whole_value",
    ],
    "ListsEveryRun": ["list_tells_what_is_there_and_nothing_else"],
    "RemembersTheFirst": ["the_last_value_counts"],
    "DeletesTheTask": ["delete_tells_whether_there_was_a_value"],
    "ClearsByPrefix": ["clear_forgets_one_run_and_counts"],
    "MixesUpTasks": ["ids_that_look_alike_are_different"],
    "SaysItCopies": ["copies_or_not_as_it_says"],
    "SaysItIsShared": ["shared_or_not_as_it_says", "another_process_works_on_the_same_results"],
    "LeavesFilesOpen": ["nothing_is_left_open"],
    "StoresWhatIsPrinted": ["a_failed_save_keeps_what_was_there"],
    "IgnoresExpected": [
        "a_commit_that_expects_another_version_is_refused",
        "a_run_begins_once",
        "of_commits_that_expect_one_version_one_happens",
    ],
    "IgnoresTheFence": [
        "a_fence_that_does_not_hold_refuses_the_commit",
        "an_append_with_a_lost_lease_is_refused",
    ],
    "LosesTheSeventhEntry": ["commits_at_once_happen_each_exactly_once"],
    "WritesEntriesOneByOne": ["a_cancelled_commit_has_happened_whole_or_not_at_all"],
    "WritesEntriesOneByOneToDisk": ["a_killed_writer_keeps_what_commit_returned_for"],
    "LooksThenWrites": ["of_commits_that_expect_one_version_one_happens", "of_many_who_ask_for_a_lease_one_gets_it"],
    "TakesUnderscoresForAnything": ["a_prefix_is_taken_as_it_is_written"],
    "ScansFromTheFirst": ["scan_begins_with_the_last_created", "list_begins_with_the_last_run"],
    "DropsTheValueOnly": ["what_was_dropped_leaves_nothing", "any_history_is_that_of_a_dictionary"],
    "SaysItIsDurable": ["durable_or_not_as_it_says"],
    "ListsAThousand": ["ten_thousand_values_are_listed_and_cleared"],
    "CutsWhatIsHuge": ["a_huge_value_returns_whole"],
    "TakesAFullDiskForDone": ["what_does_not_fit_keeps_what_was_there"],
    "RemembersLeases": ["a_fence_holds_between_two_of_the_same_settings"],
    "LosesLargeCommits": ["what_is_large_is_whole", "what_does_not_fit_keeps_what_was_there"],
    "TakesAFullDiskForDoneToo": ["what_does_not_fit_keeps_what_was_there"],
    "TakesWhatDoesNotLoadForNothing": ["a_value_that_does_not_load_is_refused_or_said_by_load"],
    "LeavesFilesOpenToo": ["nothing_is_left_open"],
    "WorksWhenClosed": ["it_is_used_between_entering_and_leaving"],
}


@pytest.fixture(scope="module")
def failed():
    """The promises that the faulty adapters failed, of those that they break; all in one run of pytest."""
    asked = [f"{FAULTY}::Test{name}::test_{promise}" for name, promises in BROKEN.items() for promise in promises]
    command = [sys.executable, "-m", "pytest", "-q", "-rf", "--tb=no", "-p", "no:cacheprovider", *asked]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    return set(re.findall(r"^FAILED .*faulty\.py::Test(\w+)::test_(\w+)", done.stdout, re.MULTILINE))


@pytest.mark.parametrize("name", BROKEN)
def test_every_fault_is_noticed_by_the_promise_it_breaks(failed, name):
    assert {promise for faulty, promise in failed if faulty == name} == set(BROKEN[name])


@pytest.mark.parametrize("suite", [ExecutorConformance, IOManagerConformance, QueueConformance, RunStoreConformance])
def test_every_promise_is_a_sentence(suite):
    promises = [getattr(suite, name) for name in dir(suite) if name.startswith("test_")]
    assert len(promises) > 20
    for promise in promises:
        assert re.match(r"[A-Z].*[.)]$", promise.__doc__.strip()), f"{promise.__name__} says nothing"


@pytest.mark.parametrize("suite", [IOManagerConformance, QueueConformance, RunStoreConformance])
def test_a_suite_has_a_version(suite):
    assert suite.version == 1


@pytest.mark.parametrize("instead", [lambda self, tmp_path: None, None])
def test_a_promise_cannot_be_overridden(instead):
    words = "TestMine overrides test_the_last_value_counts, a promise of the suite; if the adapter cannot keep it yet"
    with pytest.raises(TypeError, match=words):
        type("TestMine", (IOManagerConformance,), {"test_the_last_value_counts": instead})


def test_a_promise_cannot_be_overridden_from_the_side_either():
    side = type("Side", (), {"test_the_last_value_counts": lambda self, tmp_path: None})
    with pytest.raises(TypeError, match="overrides test_the_last_value_counts"):
        type("TestMine", (side, IOManagerConformance), {})


def test_a_promise_may_be_expected_to_fail_with_a_reason():
    @pytest.mark.xfail(reason="the server has no clear")
    def with_reason(self, tmp_path):
        IOManagerConformance.test_clear_forgets_one_run_and_counts(self, tmp_path)

    @pytest.mark.xfail
    def without(self, tmp_path):
        pass

    name = "test_clear_forgets_one_run_and_counts"
    type("TestMine", (IOManagerConformance,), {name: with_reason})
    with pytest.raises(TypeError, match="overrides"):
        type("TestMine", (IOManagerConformance,), {name: without})


@pytest.mark.parametrize("refuses", [{"text": "no"}, {"bytes": ""}, {"birds": "too loud"}])
def test_only_kinds_that_are_not_plain_may_be_refused_and_with_a_reason(refuses):
    with pytest.raises(TypeError, match="must give a reason for one of"):
        type("TestMine", (IOManagerConformance,), {"refuses": refuses})


def test_what_is_said_to_be_refused_must_be(tmp_path):
    suite = type(
        "TestMine", (IOManagerConformance,), {"refuses": {"bytes": "so it says"}, "make": lambda *_: MemoryIO()}
    )
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        suite().test_a_value_returns_as_it_was_saved_or_is_refused(tmp_path, "bytes", True)


def test_a_suite_without_an_adapter_says_what_is_missing(tmp_path):
    for suite in (IOManagerConformance, QueueConformance, RunStoreConformance):
        with pytest.raises(NotImplementedError, match=r"must say in make\(self, tmp_path"):
            suite().make(tmp_path)


def test_the_plugin_of_pytest_imports_neither_suites_nor_hypothesis_nor_adapters():
    program = (
        "import sys, dpcore.testing.plugin\n"
        "print([name for name in sys.modules if name.startswith(('dpcore.testing.', 'hypothesis', 'dpcore_plugins', 'trio'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "['dpcore.testing.plugin']\n"


def test_the_public_names_are_those_that_the_type_checker_sees():
    stub = Path(dpcore.testing.__file__).with_name("__init__.pyi").read_text()
    assert sorted(re.findall(r"import \w+ as (\w+)", stub)) == sorted(dpcore.testing.__all__)
    assert set(dpcore.testing.__all__) <= set(dir(dpcore.testing))
    for name in dpcore.testing.__all__:
        assert getattr(dpcore.testing, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        getattr(dpcore.testing, "Nothing")  # noqa: B009
