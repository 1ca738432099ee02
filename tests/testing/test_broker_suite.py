"""The suite of brokers is worth something: each broker with one fault is caught, by the promise it breaks."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import anyio
import pytest

from dpcore.testing import BrokerConformance
from dpcore.testing.broker.common import data, patient
from dpcore_plugins import MemoryBroker

FAULTY = Path(__file__).parent / "faulty_brokers.py"

CAUGHT_BY = {
    "LosesOnNack": "what_is_nacked_is_delivered_again_as_the_next_attempt",
    "IgnoresAck": "what_was_acked_is_not_delivered_again",
    "IgnoresDelay": "what_is_nacked_with_a_delay_comes_no_sooner",
    "ForgetsTheReason": "what_is_rejected_is_a_dead_letter",
    "CountsNoAttempts": "what_is_in_hand_is_settled_by_how_the_subscription_is_left",
    "DropsTheSeventh": "events_come_in_the_order_in_which_they_were_published",
    "RepeatsTheSeventh": "a_group_gets_each_event_once",
    "SwapsTheSeventhWithTheEighth": "events_come_in_the_order_in_which_they_were_published",
    "ForgetsHeaders": "key_type_and_headers_come_as_they_were",
    "ForgetsKeys": "events_of_one_key_are_worked_on_one_after_the_other",
    "LeaksSubscriptions": "subscriptions_leave_nothing_behind",
    "HangsWhenASubscriptionEnds": "leaving_does_not_hang",
    "HangsWhenLeft": "leaving_does_not_hang",
    "ServesTheFirstMemberOnly": "everyone_who_waits_gets_something_to_do",
    "TakesTenAtATime": "a_member_that_is_busy_holds_up_nobody",
    "SubscribesWhenFirstRead": "a_subscription_is_active_when_it_is_entered",
    "ShowsThePast": "a_subscription_is_active_when_it_is_entered",
    "StartsAnew": "a_new_group_begins_at_the_oldest_retained_or_at_what_is_new",
    "HasNoBounds": "a_publisher_waits_for_room",
    "CountsNoDrops": "what_is_dropped_is_counted",
    "DropsTheOther": "what_is_dropped_is_counted",
    "TakesAStarForTwoSegments": "patterns_select_topics",
    "SeesCapitalsAsSmall": "patterns_select_topics",
    "CompletesAtOnce": "a_subscription_ends_when_all_its_topics_are_completed",
    "EndsGroupsAtOnce": "a_group_ends_when_nothing_is_left_to_settle",
    "LosesWhatCancelledReadersWereToGet": "cancelling_the_wait_for_an_event_loses_nothing",
    "LosesWhatCancelledMembersWereToGet": "cancelling_the_wait_of_a_member_loses_and_repeats_nothing",
    "PublishesWhatWasCancelled": "a_cancelled_publish_has_published_nothing",
    "WaitsForItself": "who_waits_for_itself_is_told",
    "SeesDeadlocksEverywhere": "no_deadlock_is_seen_where_another_task_reads",
    "TriesForEver": "what_is_delivered_too_often_is_a_dead_letter",
    "LosesWhatIsLeft": "readers_read_what_is_left_when_the_broker_is_left",
    "LeaksAThread": "a_broker_leaves_nothing_behind",
    "SaysItCrossesProcesses": "only_who_says_so_has_an_address",
    "KeepsGroups": "publishers_that_wait_for_a_disbanded_group_go_on",
    "DisbandsUnderMembers": "a_group_with_members_is_not_disbanded",
    "SaysItLacksGroups": "what_a_broker_lacks_is_refused_by_name",
}
ALSO_BY_THE_MODEL = ["ShowsThePast"]
THE_MODEL = "any_history_is_that_of_a_plain_model"


@pytest.fixture(scope="module")
def failures() -> dict[str, set[str]]:
    """Run the promises above, each for the broker that breaks it and for one without a fault; return which failed."""
    pairs = [*CAUGHT_BY.items(), *((f"Hasty{name}", THE_MODEL) for name in ALSO_BY_THE_MODEL)]
    pairs += [("Faulty", promise) for promise in sorted({*CAUGHT_BY.values()})]
    asked = [f"{FAULTY}::Test{name}::test_{promise}" for name, promise in pairs]
    command = [sys.executable, "-m", "pytest", "-q", "-rf", "--tb=no", "-p", "no:cacheprovider", "-W", "ignore", *asked]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=FAULTY.parents[2])
    assert " passed" in done.stdout, done.stdout + done.stderr
    failed: dict[str, set[str]] = defaultdict(set)
    for name, promise in re.findall(r"^FAILED .*::Test(\w+)::test_(\w+)", done.stdout, re.MULTILINE):
        failed[name].add(promise)
    return failed


@pytest.mark.parametrize(("name", "promise"), CAUGHT_BY.items())
def test_a_faulty_broker_is_caught_by_the_promise_it_breaks(failures, name, promise):
    assert promise in failures[name]


@pytest.mark.parametrize("name", ALSO_BY_THE_MODEL)
def test_the_model_catches_it_too(failures, name):
    assert THE_MODEL in failures[f"Hasty{name}"]


def test_one_without_a_fault_is_not_caught(failures):
    assert failures["Faulty"] == set()


@pytest.mark.anyio
async def test_a_promise_that_is_not_kept_in_time_says_what_it_waited_for_and_what_had_come():
    async with MemoryBroker() as broker, broker.subscribe("t") as events:
        await broker.publish_many("t", range(2))
        with pytest.raises(AssertionError) as told, patient(0.01):
            await data(events, 3)
        assert re.fullmatch(
            r"for 0.01 seconds nothing came of: found.append\(.*\) \(common.py:\d+\), with \[0, 1\] until then",
            str(told.value),
        )


@pytest.mark.anyio
async def test_a_broker_that_cannot_be_left_in_time_is_named_by_the_suite():
    with pytest.raises(AssertionError, match="nothing came of: leaving the broker"), patient(0.01):
        await anyio.sleep_forever()


def test_every_promise_of_a_broker_is_a_sentence():
    promises = {
        name: test
        for kind in BrokerConformance.__mro__
        for name, test in vars(kind).items()
        if name.startswith("test_")
    }
    assert len(promises) > 70
    for name, promise in promises.items():
        assert re.match(r"[A-Z$].*[.)]$", promise.__doc__.strip()), f"{name} says nothing"


def test_a_promise_of_a_broker_cannot_be_overridden():
    with pytest.raises(TypeError, match="TestMine overrides test_patterns_select_topics, a promise of the suite"):
        type("TestMine", (BrokerConformance,), {"test_patterns_select_topics": lambda self, tmp_path: None})
