"""The suite of executors is worth something: each executor with one fault is caught, by the promise it breaks."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

FAULTY = Path(__file__).parent / "faulty_executors.py"

CAUGHT_BY = {
    "SwallowsErrors": "test_whatever_a_body_raises_is_a_failed_outcome",
    "RaisesErrors": "test_whatever_a_body_raises_is_a_failed_outcome",
    "MixesOutcomes": "test_every_job_runs_once_and_its_outcome_is_its_own",
    "RunsTheSeventhTwice": "test_every_job_runs_once_and_its_outcome_is_its_own",
    "NeverSaysThatItStarts": "test_the_line_is_told_once_that_a_job_starts",
    "TakesTooMany": "test_no_more_jobs_run_at_once_than_slots",
    "OneAtATime": "test_as_many_jobs_as_slots_really_run_at_once",
    "SaysThatItKills": "test_cancelling_a_plain_function_returns_at_once_and_kills_only_where_it_says_so",
    "SaysThatItIsElsewhere": "test_capabilities_are_what_is_so",
    "ForgetsTheAttempt": "test_a_value_is_stored_where_the_job_says",
    "LeaksAThread": "test_nothing_is_left_behind",
}


@pytest.fixture(scope="module")
def failures() -> dict[str, set[str]]:
    """Run the promises above for every faulty executor; return which failed, by executor."""
    promises = " or ".join(sorted(set(CAUGHT_BY.values())))
    command = [
        sys.executable, "-m", "pytest", str(FAULTY), "-q", "--tb=no", "-rf", "-p", "no:cacheprovider", "-k", promises,
        "-o", "python_files=faulty_*.py", "-W", "ignore",
    ]  # fmt: skip
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200, cwd=FAULTY.parents[2])
    assert " passed" in found.stdout, found.stdout + found.stderr
    failed: dict[str, set[str]] = defaultdict(set)
    for name, promise in re.findall(r"^FAILED .*::Test(\w+)::(test_\w+)", found.stdout, re.MULTILINE):
        failed[name].add(promise)
    return failed


@pytest.mark.parametrize(("name", "promise"), CAUGHT_BY.items())
def test_a_faulty_executor_is_caught_by_the_promise_it_breaks(failures, name, promise):
    assert promise in failures[name]


def test_one_without_a_fault_is_not(failures):
    assert failures["Good"] == set()
