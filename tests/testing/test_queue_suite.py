"""The suite of queues is worth something: each queue with one fault is caught, by the promise it breaks."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

FAULTY = Path(__file__).parent / "faulty_queues.py"

CAUGHT_BY = {
    "LosesTheItemOfACancelledGet": "test_gets_and_puts_that_are_cancelled_at_any_moment_lose_and_repeat_nothing",
    "LastInFirstOut": "test_items_come_out_in_the_order_in_which_they_went_in",
    "HoldsOneMore": "test_a_queue_holds_its_size_and_no_more",
    "HangsThoseWhoWaitWhenItIsClosed": "test_closing_wakes_all_who_wait",
    "ForgetsWhatIsDone": "test_join_waits_until_all_is_done",
    "JoinsWhenAllWasGot": "test_join_waits_until_all_is_done",
    "KeepsTheWakeUpOfWhoWasCancelled": "test_one_who_is_woken_and_cancelled_wakes_the_next",
    "WakesEverybody": "test_an_item_wakes_one_and_the_first_first",
    "KeepsThoseWhoWereCancelled": "test_waits_that_were_cancelled_take_no_memory",
    "DropsWhatIsLeftWhenItIsClosed": "test_a_closed_queue_takes_nothing_and_gives_what_is_left",
    "PutsAgainWhenItWasFull": "test_a_cancelled_put_has_put_nothing",
    "SaysThatItCrosses": "test_capabilities_are_what_is_so",
    "LosesWhatAProcessLeaves": "test_what_a_process_has_put_outlives_it_where_it_crosses",
}


@pytest.fixture(scope="module")
def failures() -> dict[str, set[str]]:
    """Run for every faulty queue the promise that it breaks, and all of these for the good one; return which failed."""
    asked = [f"{FAULTY}::Test{name}::{promise}" for name, promise in CAUGHT_BY.items()]
    asked += [f"{FAULTY}::TestGood::{promise}" for promise in sorted({*CAUGHT_BY.values()})]
    command = [sys.executable, "-m", "pytest", *asked, "-q", "--tb=no", "-rf", "-p", "no:cacheprovider", "-W", "ignore"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200, cwd=FAULTY.parents[2])
    assert " passed" in found.stdout, found.stdout + found.stderr
    failed: dict[str, set[str]] = defaultdict(set)
    for name, promise in re.findall(r"^FAILED .*::Test(\w+)::(test_\w+)", found.stdout, re.MULTILINE):
        failed[name].add(promise)
    return failed


@pytest.mark.parametrize(("name", "promise"), CAUGHT_BY.items())
def test_a_faulty_queue_is_caught_by_the_promise_it_breaks(failures, name, promise):
    assert promise in failures[name]


def test_one_without_a_fault_is_not(failures):
    assert failures["Good"] == set()
