"""The triggers that ship, under the suite of their port, and what is special to each."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial

import anyio
import pytest

from dpcore import App
from dpcore.durations import duration
from dpcore.errors import ArgumentError, BrokerLostError, CronError, NaiveDatetimeError, TriggerError
from dpcore.ports import TimeTrigger
from dpcore.testing import FakeClock
from dpcore.testing.fixtures import Seen, isolated_app
from dpcore_plugins import ApiTrigger, CronTrigger, EventTrigger, ManualTrigger, MemoryBroker

FIRST = datetime.min.replace(tzinfo=UTC)
LAST = datetime.max.replace(tzinfo=UTC)


def day(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
async def app(clock):
    async with isolated_app(Seen(), clock=clock) as app:
        yield app


class Heard(list):
    """What has been fired, each as its moment and the data of its events."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock
        self.firings = []

    async def listen(self, app, trigger, schedule="s", *, task_status=anyio.TASK_STATUS_IGNORED):
        async with trigger.listen(app, schedule) as firings:
            task_status.started()
            async for firing in firings:
                self.firings.append(firing)
                self.append((self.clock.monotonic(), [event.data for event in firing.events]))


@pytest.fixture
async def heard(clock):
    return Heard(clock)


@asynccontextmanager
async def listening(heard, app, trigger, schedule="s"):
    """Have somebody listen, who has dealt with all there is whenever the clock has advanced."""
    async with anyio.create_task_group() as group:
        await group.start(heard.listen, app, trigger, schedule)
        yield
        group.cancel_scope.cancel()


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


# ---------------------------------------------------------------- event


async def test_a_batch_of_one_is_every_event(app, clock, heard):
    async with listening(heard, app, EventTrigger("t", batch=1)):
        await app.publish_many("t", range(5))
        await clock.advance(1)
        assert [data for _, data in heard] == [[0], [1], [2], [3], [4]]


async def test_throttle_fires_for_the_first_at_once_and_then_for_the_last(app, clock, heard):
    async with listening(heard, app, EventTrigger("t", throttle=10)):
        await app.publish_many("t", range(5))  # before anybody had a turn
        await clock.advance(1)
        assert heard == [(0, [0])]
        await app.publish("t", 5)
        await app.publish("t", 6)
        await clock.advance(99)
        assert heard[1:] == [(10, [6])]
        await app.publish_many("t", [7, 8])
        await clock.advance(100)
        assert heard[2:] == [(100, [7]), (110, [8])]


@pytest.mark.parametrize("schedule", ["load.daily", "a" * 120, "täglich.früh", "x-y"])
async def test_a_schedule_of_any_name_listens_to_events(app, clock, heard, schedule):
    async with listening(heard, app, EventTrigger("t"), schedule):
        await app.publish("t", 1)
        await clock.advance(1)
    assert heard == [(0, [1])]


async def test_schedules_whose_names_look_alike_do_not_share_their_events(app, clock, heard):
    names = ["a.b", "a-b", "a_b", f"{'a' * 70}.b", f"{'a' * 70}.c"]
    async with anyio.create_task_group() as group:
        for name in names:
            await group.start(heard.listen, app, EventTrigger("t"), name)
        await app.publish("t", 1)
        await clock.advance(1)
        group.cancel_scope.cancel()
    assert heard == [(0, [1])] * len(names)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"batch": 3, "throttle": 2}, "throttle=2 must be left out beside batch="),
        ({"batch": 3, "debounce": "5s"}, "debounce='5s' must be left out beside batch="),
        ({"debounce": 1, "throttle": 2}, "throttle=2 must be left out beside debounce="),
    ],
)
def test_events_are_joined_in_one_way(said, words):
    with pytest.raises(ArgumentError, match=f"^{words}: only one of batch, debounce and throttle$"):
        EventTrigger("t", **said)


@pytest.mark.parametrize("joining", [{}, {"batch": 2}, {"debounce": 1}, {"throttle": 1}])
async def test_what_breaks_its_reading_comes_out_as_it_is(joining):
    class Losing(MemoryBroker):
        async def open(self, interest):
            feed = await super().open(interest)
            feed.receive = self.lost
            return feed

        async def lost(self, limit):
            raise BrokerLostError(str(self), "it was lost")

    async with App(broker=Losing()) as app, EventTrigger("t", **joining).listen(app, "s") as firings:
        with pytest.raises(BrokerLostError, match="it was lost"):
            await anext(firings)


def test_what_an_event_trigger_does_is_said_alike_in_every_process():
    def paid(event):
        return True

    class Paid:
        def __call__(self, event):
            return True

    assert str(EventTrigger("a.*", filter=partial(paid, 1))) == "event 'a.*', filter partial"
    assert str(EventTrigger("a.*", filter=Paid())).endswith(".<locals>.Paid")
    assert str(EventTrigger("a.*", filter=paid)).endswith(".<locals>.paid")
    assert str(EventTrigger("a.*", start="earliest")) == "event 'a.*', start earliest"
    assert str(EventTrigger("a.*", batch=3, within="5s")) == "event 'a.*', batch 3, within 0:00:05"


# ---------------------------------------------------------------- manual, api


def test_what_fires_by_itself_never_says_who_fires_it():
    assert str(ManualTrigger()) == "by hand"
    assert str(ApiTrigger()) == "by request"
    assert str(ApiTrigger(body=dict)) == "by request with dict"
    assert str(ApiTrigger(body=list[int])) == "by request with list[int]"


# ---------------------------------------------------------------- durations


@pytest.mark.parametrize("given", [b"3", bytearray(b"3")])
def test_bytes_are_no_duration(given):
    with pytest.raises(
        ArgumentError, match=r"^every=.* must be seconds, a timedelta or a text such as '90s' or '1h30m'"
    ):
        duration("every", given)


# ---------------------------------------------------------------- the port


class Wrong(TimeTrigger):
    """Gives what it was told to."""

    def __init__(self, given):
        self.given = given

    def next_fire(self, after):
        return self.given

    def __str__(self):
        return "of a wrong kind"


def test_a_naive_moment_is_refused_whatever_the_trigger():
    for trigger in (Wrong(LAST), ManualTrigger(), CronTrigger("0 3 * * *")):
        naive = datetime(2026, 3, 29)
        with pytest.raises(NaiveDatetimeError, match=r"^after=.* must be an aware datetime"):
            trigger.following(naive)
        with pytest.raises(NaiveDatetimeError, match=r"^after="):
            trigger.upcoming(3, naive)
        with pytest.raises(NaiveDatetimeError, match=r"^start="):
            list(trigger.between(naive, LAST))
        with pytest.raises(NaiveDatetimeError, match=r"^end="):
            list(trigger.between(FIRST, naive))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (datetime(2026, 1, 1), r"which is no aware datetime"),
        ("tomorrow", r"'tomorrow' as its next time, which is no aware datetime"),
        (FIRST, r"which is not later"),
        (day("2026-01-01"), r"which is not later"),
    ],
)
def test_what_is_no_later_time_is_an_error_that_names_the_trigger(given, words):
    with pytest.raises(TriggerError, match=f"^trigger of a wrong kind gives .*{words}"):
        Wrong(given).following(day("2026-01-01"))
