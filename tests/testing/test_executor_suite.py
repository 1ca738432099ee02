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
    "LosesAnOutcome": "test_each_of_very_many_jobs_has_one_outcome_and_runs_once",
    "GivesAnOutcomeTwice": "test_each_of_very_many_jobs_has_one_outcome_and_runs_once",
    "LosesASlotToWhoIsCancelled": "test_what_is_cancelled_at_any_moment_costs_the_others_nothing",
    "ForgetsThatItWasTakenBack": "test_what_is_cancelled_at_any_moment_costs_the_others_nothing",
    "LooksAtWhatWasStored": "test_a_value_that_does_not_load_fails_where_it_is_read",
    "RefusesWhatIsHuge": "test_a_huge_value_goes_in_and_out_whole",
    "FallsWithItsJobs": "test_a_stream_that_breaks_off_is_a_failed_outcome",
    "StopsAtABadItem": "test_an_item_that_cannot_be_stored_is_a_failed_outcome",
    "LeaksADescriptor": "test_nothing_is_left_of_what_went_wrong",
    "LeaksATemporaryFile": "test_nothing_is_left_of_what_went_wrong",
    "LeaksAProcess": "test_nothing_is_left_of_what_went_wrong",
    "LeaksAGrandchild": "test_nothing_is_left_of_what_went_wrong",
    "NamesNoSignal": "test_a_death_of_the_process_is_one_failed_attempt_that_names_its_cause",
    "WaitsForTheDead": "test_a_death_of_the_process_is_one_failed_attempt_that_names_its_cause",
    "TakesTheSiblingsAlong": "test_a_death_is_not_its_siblings",
    "AsksToEnd": "test_what_is_cancelled_stops_whatever_it_is_at",
    "LosesTheLastItem": "test_what_is_said_of_a_stream_is_so_when_it_is_said",
    "TellsBeforeItIsStored": "test_what_is_said_of_a_stream_is_so_when_it_is_said",
    "TellsWhenItIsOver": "test_a_stream_is_read_while_it_is_made",
    "TellsOutOfOrder": "test_what_is_said_of_a_stream_is_so_when_it_is_said",
    "HasRoomForAll": "test_a_producer_makes_no_more_than_there_is_room_for",
    "DoesNotHearThatItIsEnough": "test_a_producer_that_hears_that_it_is_enough_has_succeeded",
    "MixesTheLines": "test_what_is_said_to_one_job_is_not_heard_by_another",
    "KeepsTheSlotOfWhoWaits": "test_a_job_that_waits_and_is_cancelled_gives_its_slot_back",
    "LeavesItRunning": "test_a_timeout_stops_whatever_a_task_is_at",
}
SOUND = ("Good", "GoodInProcesses", "Streams")


@pytest.fixture(scope="module")
def failures() -> dict[str, set[str]]:
    """Run for every faulty executor the promise it breaks, and all of them for the sound ones; return which failed."""
    asked = [*CAUGHT_BY.items(), *((name, promise) for name in SOUND for promise in {*CAUGHT_BY.values()})]
    command = [
        sys.executable, "-m", "pytest", *[f"{FAULTY}::Test{name}::{promise}" for name, promise in asked],
        "-q", "--tb=no", "-rf", "-p", "no:cacheprovider", "-W", "ignore",
    ]  # fmt: skip
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280, cwd=FAULTY.parents[2])
    assert " passed" in found.stdout, found.stdout + found.stderr
    failed: dict[str, set[str]] = defaultdict(set)
    for name, promise in re.findall(r"^FAILED .*::Test(\w+)::(test_\w+)", found.stdout, re.MULTILINE):
        failed[name].add(promise)
    return failed


@pytest.mark.parametrize(("name", "promise"), CAUGHT_BY.items())
def test_a_faulty_executor_is_caught_by_the_promise_it_breaks(failures, name, promise):
    assert promise in failures[name]


@pytest.mark.parametrize("name", SOUND)
def test_one_without_a_fault_is_not(failures, name):
    assert failures[name] == set()
