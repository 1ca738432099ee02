"""The triggers that ship, under the suite of their port, and what is special to each."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from dpcore.errors import CronError
from dpcore_plugins import CronTrigger

FIRST = datetime.min.replace(tzinfo=UTC)
LAST = datetime.max.replace(tzinfo=UTC)


def day(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# ---------------------------------------------------------------- cron


def test_a_year_is_found_however_far_away():
    trigger = CronTrigger("0 0 0 1 1 * 2020,2099")
    for after in (FIRST, day("1960-01-01"), day("2019-12-31")):
        assert trigger.next_fire(after) == day("2020-01-01")
    assert trigger.next_fire(day("2020-01-01")) == day("2099-01-01")
    assert trigger.next_fire(day("2099-01-01")) is None


@pytest.mark.parametrize("expression", ["0 0 31 2 *", "0 0 30 2 *", "0 0 31 4,6 *", "0 0 0 29 2 * 2099"])
def test_a_date_that_never_comes_is_refused(expression):
    with pytest.raises(CronError, match=r"day of month '\d+' never comes in month '[\d,]+'"):
        CronTrigger(expression)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/New_York"])
@pytest.mark.parametrize("expression", ["0 3 * * MON", "0 0 29 2 *", "0 0 L * *", "0 0 1 1 *", "0 3 * * *"])
def test_the_first_and_the_last_years_are_like_others(expression, zone):
    trigger = CronTrigger(expression, timezone=zone)
    found = trigger.next_fire(FIRST)
    assert found is not None
    assert FIRST < found < day("0005-01-01")
    assert trigger.next_fire(LAST) is None
    late = [trigger.next_fire(day("9991-01-01") + timedelta(days=100 * number)) for number in range(31)]
    assert found < late[0]
    assert all(one is None or one > day("9991-01-01") for one in late)


def test_a_cron_trigger_pickles_and_copies():
    trigger = CronTrigger("0 3 * * 1", timezone="Europe/Berlin", gap="skip", overlap="both", day_or=False)
    for again in (pickle.loads(pickle.dumps(trigger)), copy.deepcopy(trigger), copy.copy(trigger)):
        assert repr(again) == repr(trigger)
        assert again.upcoming(5, day("2026-01-01")) == trigger.upcoming(5, day("2026-01-01"))


def test_many_threads_ask_one_cron_trigger_for_more_days_than_it_remembers():
    trigger = CronTrigger("0 0 * * MON")
    start = day("1970-01-05")

    def mondays(turn):
        weeks = range(turn, 4200, 3)
        return [trigger.next_fire(start + timedelta(weeks=week)) == start + timedelta(weeks=week + 1) for week in weeks]

    with ThreadPoolExecutor(3) as threads:
        assert all(all(found) for found in threads.map(mondays, range(3)))
