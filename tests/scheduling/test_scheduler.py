"""Schedules fire each time once, on time, and say what they do not: on a clock that is told what time it is."""

from __future__ import annotations

import logging
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import msgspec
import pytest

from dpcore import App, Event, Firing, Registry, State, TimeTrigger, current_job
from dpcore.errors import (
    ArgumentError,
    NaiveDatetimeError,
    PlanningError,
    ScheduleExistsError,
    ScheduleFullError,
    ScheduleNotFoundError,
    TopicError,
)
from dpcore.processes import this_process
from dpcore.testing import FakeClock
from dpcore_plugins import (
    CronTrigger,
    EventTrigger,
    IntervalTrigger,
    ManualTrigger,
    MemoryBroker,
    MemoryRunStore,
    OnceTrigger,
)

pytestmark = pytest.mark.anyio


class SharedStore(MemoryRunStore):
    """Is shared by the apps of a test, each of which could be another process."""

    capabilities = frozenset({"shared"})

    async def __aexit__(self, *error):
        """Stay open for the others."""


START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR, DAY = 3600.0, 86_400.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture(params=[MemoryRunStore, SharedStore], ids=["private", "shared"])
def store(request: pytest.FixtureRequest) -> MemoryRunStore:
    """Return a store that lasts for the test."""
    return request.param()


@asynccontextmanager
async def hearing(app: App, *patterns: str):
    """Collect the events on some topics; what has been heard so far is in the list."""
    heard: list[Event] = []
    async with app.subscribe(*patterns, buffer=100_000) as events, anyio.create_task_group() as group:

        async def hear() -> None:
            async for event in events:
                heard.append(event)  # noqa: PERF401  (it is looked at meanwhile)

        group.start_soon(hear)
        yield heard
        group.cancel_scope.cancel()


def times(heard: list[Event], topic: str = "tick") -> list[str]:
    """Return the nominal times of events, short."""
    return [str(event.data["nominal"])[:16] for event in heard if event.topic == topic]


def daily(count: int, first: int = 1, hour: str = "00:00") -> list[str]:
    return [f"2026-01-{first + day:02}T{hour}" for day in range(count)]


# ---------------------------------------------------------------- when it fires


async def test_fires_at_each_of_its_times_and_never_early(clock):
    seen: list[tuple[datetime, datetime]] = []
    async with App(Registry(), clock=clock) as app:
        app.schedule(
            "a",
            CronTrigger("0 * * * *"),
            publish="tick",
            data=lambda firing: seen.append((firing.nominal, clock.now())),
        )
        await clock.advance(3 * HOUR + 1)
    assert [nominal.hour for nominal, _ in seen] == [1, 2, 3]
    assert all(nominal == now for nominal, now in seen)


async def test_fires_through_years(clock):
    async with App(Registry(), clock=clock) as app:
        app.schedule("a", CronTrigger("30 2 * * *", timezone="Europe/Berlin"), publish="tick")
        async with hearing(app, "tick") as heard:
            await clock.advance(365 * DAY)
    assert len(heard) == 365
    assert len({event.id for event in heard}) == 365


async def test_schedules_due_together_all_fire(clock):
    async with App(Registry(), clock=clock) as app:
        for number in range(200):
            app.schedule(f"s{number}", IntervalTrigger("1h"), publish="tick")
        async with hearing(app, "tick") as heard:
            await clock.advance(2 * HOUR)
    assert len(heard) == 400


async def test_any_of_several_triggers_fires_and_one_instant_once(clock):
    async with App(Registry(), clock=clock) as app:
        app.schedule("a", [CronTrigger("0 3 * * *"), IntervalTrigger("3h"), {"cron": "30 4 * * *"}], publish="tick")
        async with hearing(app, "tick") as heard:
            await clock.advance(7 * HOUR)
    assert times(heard) == ["2026-01-01T03:00", "2026-01-01T04:30", "2026-01-01T06:00"]


async def test_a_schedule_of_a_file_may_be_fired_by_time_and_by_events(clock):
    async with App(Registry(), clock=clock) as app:
        app.schedule("a", [IntervalTrigger("1h"), EventTrigger("go")], publish="tick")
        async with hearing(app, "tick") as heard:
            await app.publish("go", {"nominal": "now"})
            await clock.advance(HOUR)
    assert times(heard) == ["now", "2026-01-01T01:00"]


async def test_a_moment_comes_once(clock):
    async with App(Registry(), clock=clock) as app:
        app.schedule("a", OnceTrigger(START + timedelta(hours=1)), publish="tick")
        app.schedule("now", OnceTrigger(START - timedelta(seconds=1)), publish="tick")
        app.schedule("past", OnceTrigger(START - timedelta(days=1)), publish="tick")
        async with hearing(app, "tick") as heard:
            await clock.advance(2 * DAY)
        assert [event.data["schedule"] for event in heard] == ["now", "a"]
        assert [schedule.next for schedule in app.schedules.values()] == [None, None, None]


async def test_what_is_added_while_others_wait_fires_too(clock):
    async with App(Registry(), clock=clock) as app:
        app.schedule("late", CronTrigger("0 12 * * *"), publish="tick")
        async with hearing(app, "tick") as heard:
            await clock.advance(HOUR)
            app.schedule("soon", IntervalTrigger("1h"), publish="tick")
            await clock.advance(HOUR)
    assert [event.data["schedule"] for event in heard] == ["soon"]


async def test_a_schedule_made_before_the_app_is_entered_fires_in_it_and_again_when_it_is_entered_again(clock):
    app = App(Registry(), clock=clock)
    app.schedule("a", IntervalTrigger("1h"), publish="tick")
    for _ in range(2):
        async with app, hearing(app, "tick") as heard:
            await clock.advance(2 * HOUR)
        assert len(heard) == 2


async def test_starting_and_stopping_may_be_repeated(clock):
    async with App(Registry(), clock=clock) as app:
        app.schedule("a", IntervalTrigger("1h"), publish="tick")
        async with hearing(app, "tick") as heard:
            app.schedules.start()
            app.schedules.start()
            await clock.advance(HOUR)
            await app.schedules.stop()
            await app.schedules.stop()
            assert not app.schedules.running
            await clock.advance(5 * HOUR)
            assert len(heard) == 1
            app.schedules.start()
            await clock.advance(HOUR)
    assert times(heard) == ["2026-01-01T01:00", "2026-01-01T06:00", "2026-01-01T07:00"]


# ---------------------------------------------------------------- clocks that are set


async def test_a_wall_that_is_set_forward_is_noticed_within_thirty_seconds():
    clock = FakeClock(START, longest_sleep=30)
    async with App(Registry(), clock=clock) as app:
        app.schedule("a", CronTrigger("0 12 * * *"), publish="tick")
        async with hearing(app, "tick") as heard:
            await clock.advance(1)
            clock.set_wall(12 * HOUR)
            await clock.advance(30)
    assert times(heard) == ["2026-01-01T12:00"]


async def test_a_wall_that_is_set_back_fires_nothing_twice():
    clock = FakeClock(START, longest_sleep=30)
    async with App(Registry(), clock=clock) as app:
        app.schedule("a", IntervalTrigger("1h"), publish="tick")
        async with hearing(app, "tick") as heard:
            await clock.advance(2.5 * HOUR)
            clock.set_wall(-2 * HOUR)
            await clock.advance(3 * HOUR)
    assert times(heard) == [f"2026-01-01T0{hour}:00" for hour in (1, 2, 3)]


# ---------------------------------------------------------------- what it starts


async def test_an_event_has_the_data_that_was_given_or_made_and_always_the_same_id(clock):
    async with App(Registry(), clock=clock) as app:
        app.schedule("value", IntervalTrigger("1h"), publish="a", data={"x": 1})
        app.schedule("made", IntervalTrigger("1h"), publish="b", data=lambda firing: firing.nominal.hour)
        app.schedule("plain", IntervalTrigger("1h"), publish="c")
        async with hearing(app, "*") as heard:
            await clock.advance(HOUR)
    a, b, c = sorted(heard, key=lambda event: event.topic)
    assert (a.data, b.data) == ({"x": 1}, 1)
    assert c.data == {"schedule": "plain", "nominal": "2026-01-01T01:00:00+00:00"}
    assert (a.id, a.source) == ("value-20260101T010000Z", "schedule/value")


async def test_a_run_has_its_id_nominal_time_params_and_metadata_from_the_firing(clock):
    tasks, seen = Registry(), []

    @tasks.task
    def load(day: str, country: str = "de") -> None:
        job = current_job()
        seen.append((job.run_id, day, country, job.nominal, job.metadata))

    async with App(tasks, clock=clock, executor="inline") as app:
        app.schedule(
            "nightly",
            CronTrigger("30 0 * * *", timezone="Europe/Berlin"),
            run="load",
            params=lambda firing: {"day": f"{firing.nominal:%Y-%m-%d}"},
            metadata={"team": "sales"},
        )
        await clock.advance(DAY)
        history = await app.history("nightly-20260101T233000Z")
    [(run_id, day, country, nominal, metadata)] = seen
    assert (run_id, day, country) == ("nightly-20260101T233000Z", "2026-01-02", "de")
    assert nominal == datetime(2026, 1, 1, 23, 30, tzinfo=UTC)
    assert nominal.utcoffset() == timedelta(hours=1)
    assert metadata == {"schedule": "nightly", "correlation_id": run_id, "team": "sales"}
    assert history.record.state is State.SUCCEEDED


async def test_both_an_event_and_a_run_may_be_started(clock):
    tasks, ran = Registry(), []
    tasks.task(name="load")(lambda: ran.append(1))
    async with App(tasks, clock=clock, executor="inline") as app:
        app.schedule("a", IntervalTrigger("1h"), publish="tick", run=["load"])
        async with hearing(app, "tick") as heard:
            await clock.advance(2 * HOUR)
    assert len(ran) == len(heard) == 2


async def test_tags_select_what_is_run(clock):
    tasks, ran = Registry(), []
    tasks.task(name="load", tags=["etl"])(lambda: ran.append("load"))
    tasks.task(name="other")(lambda: ran.append("other"))
    async with App(tasks, clock=clock, executor="inline") as app:
        app.schedule("a", IntervalTrigger("1h"), tags=["etl"])
        await clock.advance(HOUR)
    assert ran == ["load"]


async def test_events_of_an_event_are_answered_with_its_data_and_its_correlation(clock):
    async with App(Registry(), clock=clock) as app:
        app.schedule("a", EventTrigger("orders.*"), publish="seen")
        async with hearing(app, "seen") as heard:
            first = await app.publish("orders.eu", 7, headers={"correlation-id": "c1"})
            await clock.advance(1)
            again = await app.publish(first)
            await clock.advance(1)
    assert [event.data for event in heard] == [7, 7]
    assert again.id == first.id
    assert heard[0].id == heard[1].id


async def test_observers_are_told_of_each_firing(clock):
    told = []

    class Watch:
        def dpcore_schedule_fired(self, schedule, firing):
            told.append((schedule.name, firing.id))

    app = App(Registry(), clock=clock)
    app.plugins.register(Watch())
    async with app:
        app.schedule("a", IntervalTrigger("1h"), publish="tick")
        await clock.advance(HOUR)
    assert told == [("a", "a-20260101T010000Z")]


# ---------------------------------------------------------------- what was missed


async def away(store: MemoryRunStore, clock: FakeClock, days: float, **policy: Any) -> tuple[list[str], list[str]]:
    """Schedule something daily at noon, be away for some days, and return what is fired and missed afterwards."""
    for seconds in (0.0, DAY / 2):
        async with App(Registry(), clock=clock, store=store) as app, hearing(app, "tick", "$schedule.*") as heard:
            app.schedule("a", CronTrigger("0 12 * * *"), publish="tick", **policy)
            await clock.advance(seconds)
        await clock.advance(0 if seconds else days * DAY)
    missed = [str(event.data["nominal"])[:16] for event in heard if event.topic == "$schedule.missed"]
    return times(heard), missed


async def test_the_latest_of_what_was_missed_is_made_up_for_and_the_others_are_told(clock, store, caplog):
    fired, missed = await away(store, clock, 3)
    assert fired == ["2026-01-03T12:00", "2026-01-04T12:00"]
    assert missed == ["2026-01-01T12:00", "2026-01-02T12:00"]
    assert "schedule 'a' has missed 2 times, from 2026-01-01 12:00:00+00:00 to 2026-01-02 12:00:00+00:00" in caplog.text


async def test_all_that_was_missed_is_made_up_for_in_order(clock, store):
    fired, missed = await away(store, clock, 3, misfire="all")
    assert fired == daily(4, hour="12:00")
    assert missed == []


async def test_what_was_missed_is_left_out_but_told(clock, store):
    fired, missed = await away(store, clock, 3, misfire="skip")
    assert fired == ["2026-01-04T12:00"]
    assert missed == daily(3, hour="12:00")


@pytest.mark.parametrize("misfire", ["latest", "all"])
async def test_what_is_later_than_the_grace_is_missed(clock, store, misfire):
    fired, missed = await away(store, clock, 3, misfire=misfire, grace="13h")
    assert fired == ["2026-01-03T12:00", "2026-01-04T12:00"]
    assert missed == daily(2, hour="12:00")


async def test_nothing_is_made_up_for_by_a_schedule_whose_trigger_has_changed(clock, store):
    for number, expression in enumerate(["0 12 * * *", "0 11 * * *"]):
        async with App(Registry(), clock=clock, store=store) as app, hearing(app, "tick") as heard:
            app.schedule("a", CronTrigger(expression), publish="tick")
            await clock.advance(0 if number else 11.5 * HOUR)
    assert heard == []


async def test_a_year_of_seconds_that_were_missed_takes_no_time_and_is_told_within_bounds(clock, store, caplog):
    for _ in range(2):
        async with App(Registry(), clock=clock, store=store) as app, hearing(app, "tick") as heard:
            app.schedule("a", IntervalTrigger(1), publish="tick")
            await clock.advance(0)
        clock.set_wall(365 * DAY)
    assert len(heard) == 1
    assert "has missed 10,000 times or more" in caplog.text


async def test_a_restart_at_any_moment_fires_each_time_once(clock, store):
    fired: list[str] = []
    for _ in range(12):
        async with App(Registry(), clock=clock, store=store) as app, hearing(app, "tick") as heard:
            app.schedule("a", IntervalTrigger("1h"), publish="tick", misfire="all")
            await clock.advance(1700)
        fired += times(heard)
        await clock.advance(700)
    assert fired == [f"2026-01-01T{hour:02}:00" for hour in range(1, 8)]


# ---------------------------------------------------------------- runs that overlap


def gated() -> tuple[Registry, list[Any], list[anyio.Event]]:
    """Return a task that waits to be let go on, what it has been run for, and the gates, one for each."""
    tasks, ran, gates = Registry(), [], []

    @tasks.task
    async def load() -> None:
        gate = anyio.Event()
        ran.append(f"{current_job().nominal:%H:%M}")
        gates.append(gate)
        await gate.wait()

    return tasks, ran, gates


async def test_what_is_due_while_it_runs_is_left_out_and_told(clock, caplog):
    tasks, ran, gates = gated()
    async with App(tasks, clock=clock, executor="inline") as app, hearing(app, "$schedule.skipped") as heard:
        app.schedule("a", IntervalTrigger("1h"), run="load")
        await clock.advance(3 * HOUR)
        assert (ran, len(heard)) == (["01:00"], 2)
        assert heard[0].data["reason"] == "1 run of it still runs"
        gates[0].set()
        await clock.advance(HOUR)
        assert ran == ["01:00", "04:00"]
    assert "schedule 'a': a-20260101T020000Z is left out, because 1 run of it still runs" in caplog.text


async def test_what_is_due_while_it_runs_waits_for_its_turn(clock):
    tasks, ran, gates = gated()
    async with App(tasks, clock=clock, executor="inline") as app:
        schedule = app.schedule("a", IntervalTrigger("1h"), run="load", overlap="queue")
        await clock.advance(4 * HOUR)
        assert schedule.waiting == [f"a-20260101T0{hour}0000Z" for hour in (2, 3, 4)]
        for number in range(4):
            gates[number].set()
            await clock.advance(1)
        assert ran == ["01:00", "02:00", "03:00", "04:00"]
        assert (schedule.waiting, schedule.runs) == ([], [])


async def test_no_more_than_a_hundred_firings_wait_and_those_beyond_stay_due(clock):
    tasks, ran, gates = gated()
    async with App(tasks, clock=clock, executor="inline") as app:
        schedule = app.schedule("a", IntervalTrigger(60), run="load", overlap="queue", misfire="all")
        await clock.advance(110 * 60)
        assert len(schedule.waiting) == 100
        with pytest.raises(ScheduleFullError, match="wait until they have ended"):
            await app.fire("a")
        for number in range(110):
            gates[number].set()
            await clock.advance(1)
        assert len(ran) == len(set(ran)) == 111


async def test_what_is_due_while_it_runs_may_run_beside(clock):
    tasks, ran, _ = gated()
    async with App(tasks, clock=clock, executor="threads?slots=4") as app:
        app.schedule("a", IntervalTrigger("1h"), run="load", overlap="allow")
        await clock.advance(3 * HOUR)
        assert len(app.schedules["a"].runs) == 3
    assert len(ran) >= 1


async def test_a_limit_says_how_many_run_together(clock):
    tasks, _, _ = gated()
    async with App(tasks, clock=clock, executor="threads") as app:
        schedule = app.schedule("a", IntervalTrigger("1h"), run="load", limit=2)
        await clock.advance(5 * HOUR)
        assert len(schedule.runs) == 2


async def test_a_run_that_fails_frees_its_place(clock):
    tasks = Registry()

    @tasks.task
    def fails() -> None:
        raise ValueError("no")

    async with App(tasks, clock=clock, executor="inline") as app:
        schedule = app.schedule("a", IntervalTrigger("1h"), run="fails")
        await clock.advance(3 * HOUR)
        assert schedule.runs == []
        assert len(await (await app.store()).list()) == 3


# ---------------------------------------------------------------- jitter


async def test_jitter_delays_each_firing_by_the_same_part_in_every_scheduler(clock):
    seen: list[list[float]] = []
    for _ in range(2):
        clock = FakeClock(START)
        late: list[float] = []

        def note(firing: Firing, late: list[float] = late, clock: FakeClock = clock) -> None:
            late.append((clock.now() - firing.nominal).total_seconds())

        async with App(Registry(), clock=clock) as app:
            app.schedule("a", IntervalTrigger("1h"), publish="tick", data=note, jitter=600)
            await clock.advance(20 * HOUR)
        seen.append(late)
    assert seen[0] == seen[1]
    assert len(set(seen[0])) > 15
    assert all(0 <= one < 600 for one in seen[0])


async def test_jitter_never_delays_beyond_the_next_time(clock):
    async with App(Registry(), clock=clock) as app:
        app.schedule("a", IntervalTrigger(60), publish="tick", jitter="1h")
        async with hearing(app, "tick") as heard:
            await clock.advance(61 * 60)
    assert len(heard) >= 60


# ---------------------------------------------------------------- what fails


class Moody(TimeTrigger):
    """Fires each hour, but raises while it is in a mood."""

    def __init__(self) -> None:
        self.mood = True

    def next_fire(self, after: datetime) -> datetime | None:
        if self.mood:
            raise RuntimeError("not today")
        return IntervalTrigger("1h").next_fire(after)


async def test_a_trigger_that_raises_is_reported_retried_and_shown_while_others_go_on(clock, caplog):
    caplog.set_level(logging.ERROR)
    moody = Moody()
    async with App(Registry(), clock=clock) as app, hearing(app, "tick", "$schedule.failed") as heard:
        schedule = app.schedule("moody", moody, publish="tick")
        app.schedule("other", IntervalTrigger("1h"), publish="tick")
        await clock.advance(HOUR)
        assert schedule.error == "RuntimeError: not today"
        assert [event.data["schedule"] for event in heard if event.topic == "tick"] == ["other"]
        failed = [event for event in heard if event.topic == "$schedule.failed"]
        assert 5 < len(failed) < 30  # with longer and longer waits in between
        moody.mood = False
        await clock.advance(HOUR)
        assert schedule.error == ""
        assert {event.data["schedule"] for event in heard if event.topic == "tick"} == {"other", "moody"}
    assert "schedule 'moody' fails, and is tried again: RuntimeError: not today" in caplog.text


async def test_a_trigger_that_goes_back_in_time_is_reported(clock, caplog):
    class Back(TimeTrigger):
        def next_fire(self, after: datetime) -> datetime | None:
            return after - timedelta(hours=1)

    async with App(Registry(), clock=clock) as app:
        app.schedule("a", Back(), publish="tick")
        await clock.advance(10)
    assert (
        "gives 2025-12-31 23:00:00+00:00 as its next time after 2026-01-01 00:00:00+00:00, which is not later"
        in caplog.text
    )


async def test_a_function_that_raises_costs_one_firing_and_is_told(clock, caplog):
    def data(firing: Firing) -> int:
        return 1 // (firing.nominal.hour - 2)

    async with App(Registry(), clock=clock) as app, hearing(app, "tick", "$schedule.failed") as heard:
        schedule = app.schedule("a", IntervalTrigger("1h"), publish="tick", data=data)
        await clock.advance(2 * HOUR)
        assert "ZeroDivisionError" in schedule.error
        await clock.advance(HOUR)
        assert schedule.error == ""
    assert [event.topic for event in heard] == ["tick", "$schedule.failed", "tick"]
    assert "schedule 'a' cannot fire a-20260101T020000Z: ZeroDivisionError" in caplog.text


async def test_a_run_that_cannot_be_planned_costs_one_firing_and_is_told(clock, caplog):
    tasks = Registry()
    tasks.task(name="load")(lambda: None)
    async with App(tasks, clock=clock, executor="inline") as app:
        schedule = app.schedule("a", IntervalTrigger("1h"), run="load")
        tasks.remove("load")
        await clock.advance(HOUR)
        assert "load" in schedule.error
        tasks.task(name="load")(lambda: None)
        await clock.advance(HOUR)
        assert schedule.error == ""
        assert schedule.runs == []
        assert len(await (await app.store()).list()) == 1


async def test_a_reader_that_blocks_its_topic_holds_up_no_other(clock):
    async with App(Registry(), clock=clock) as app:
        await app.declare("full", groups=["slow"], buffer=1, overflow="block")
        await app.publish("full", 0)
        app.schedule("stuck", IntervalTrigger("1h"), publish="full")
        app.schedule("free", IntervalTrigger("1h"), publish="tick")
        async with hearing(app, "tick") as heard:
            await clock.advance(3 * HOUR)
    assert len(heard) == 3


# ---------------------------------------------------------------- by hand


async def test_it_is_fired_by_hand_with_a_body_also_while_it_is_paused(clock):
    tasks, ran = Registry(), []

    @tasks.task
    def load(day: str) -> str:
        ran.append(day)
        return day

    async with App(tasks, clock=clock, executor="inline") as app:
        schedule = app.schedule("a", ManualTrigger(), run="load", publish="tick")
        await schedule.pause("holidays")
        async with hearing(app, "tick") as heard:
            fired = await app.fire("a", {"day": "monday"})
            assert fired.state == "fired"
            assert fired.running is not None
            assert (await fired.running.result())["load"] == "monday"
            await clock.advance(1)
    assert ran == ["monday"]
    assert [event.data for event in heard] == [{"day": "monday"}]
    assert heard[0].id == fired.id


async def test_with_the_same_key_it_is_fired_once(clock):
    tasks, ran = Registry(), []
    tasks.task(name="load")(lambda: ran.append(1))
    async with App(tasks, clock=clock, executor="inline") as app:
        app.schedule("a", ManualTrigger(), run="load")
        first = await app.fire("a", key="k")
        await clock.advance(1)
        again = await app.fire("a", key="k")
        assert (again.state, again.id) == ("known", first.id)
        await app.fire("a")
        await clock.advance(1)
    assert ran == [1, 1]


async def test_by_hand_it_is_refused_while_it_runs_unless_it_may_wait(clock):
    tasks, _, _ = gated()
    async with App(tasks, clock=clock, executor="inline") as app:
        app.schedule("a", IntervalTrigger("1h"), run="load")
        fired = await app.fire("a")
        with pytest.raises(
            ScheduleFullError, match=f"it still runs \\('{fired.id}'\\); wait, or schedule it with overlap='queue'"
        ):
            await app.fire("a")
        app.schedule("b", ManualTrigger(), run="load")
        await app.fire("b")
        assert (await app.fire("b")).state == "waiting"


async def test_a_schedule_that_is_paused_does_not_fire_and_makes_nothing_up(clock):
    async with App(Registry(), clock=clock) as app, hearing(app, "tick", "$schedule.*") as heard:
        schedule = app.schedule("a", IntervalTrigger("1h"), publish="tick")
        await clock.advance(HOUR)
        await schedule.pause("the source is down")
        assert (schedule.paused, schedule.note, schedule.next) == (True, "the source is down", None)
        await clock.advance(5.5 * HOUR)
        await schedule.resume()
        assert (schedule.paused, schedule.note) == (False, "")
        await clock.advance(HOUR)
    assert times(heard) == ["2026-01-01T01:00", "2026-01-01T07:00"]
    told = [event.topic for event in heard if event.topic not in ("tick", "$schedule.fired")]
    assert told == ["$schedule.paused", "$schedule.resumed"]


async def test_it_is_still_paused_after_a_restart(clock, store):
    for number in range(2):
        async with App(Registry(), clock=clock, store=store) as app, hearing(app, "tick") as heard:
            schedule = app.schedule("a", IntervalTrigger("1h"), publish="tick")
            await clock.advance(1)
            if not number:
                await schedule.pause("holidays")
            await clock.advance(3 * HOUR)
            assert (schedule.paused, schedule.note) == (True, "holidays")
    assert heard == []


async def test_unscheduling_forgets_a_schedule_and_what_was_known_of_it(clock, store):
    async with App(Registry(), clock=clock, store=store) as app, hearing(app, "tick") as heard:
        await app.schedule("a", IntervalTrigger("1h"), publish="tick").pause()
        await app.unschedule("a")
        assert "a" not in app.schedules
        await clock.advance(2 * HOUR)
        schedule = app.schedule("a", IntervalTrigger("1h"), publish="tick")
        await clock.advance(HOUR)
        assert not schedule.paused
    assert times(heard) == ["2026-01-01T03:00"]


async def test_backfilling_fires_what_was_not_fired_before(clock):
    tasks, ran = Registry(), []
    tasks.task(name="load")(lambda: ran.append(f"{current_job().nominal:%d %H:%M}"))
    async with App(tasks, clock=clock, executor="inline") as app:
        app.schedule("a", CronTrigger("0 12 * * *"), run="load")
        await clock.advance(1.6 * DAY)
        assert ran == ["01 12:00", "02 12:00"]
        fired = await app.backfill("a", START - timedelta(days=2), START + timedelta(days=1))
        await clock.advance(1)
        assert [one.state for one in fired] == ["fired", "fired", "known"]
    assert sorted(ran) == ["01 12:00", "02 12:00", "30 12:00", "31 12:00"]


# ---------------------------------------------------------------- what one can ask


async def test_schedules_are_a_mapping_that_shows_what_comes(clock):
    async with App(Registry(), clock=clock) as app:
        schedule = app.schedule("a", CronTrigger("30 2 * * *", timezone="Europe/Berlin"), publish="tick")
        await clock.advance(2 * DAY)
        assert list(app.schedules) == ["a"]
        assert app.schedules["a"] is schedule
        assert str(schedule.next) == "2026-01-03 02:30:00+01:00"
        assert schedule.last == datetime(2026, 1, 2, 1, 30, tzinfo=UTC)
        gap = schedule.upcoming(2, datetime(2026, 3, 28, 12, tzinfo=UTC))
        assert list(map(str, gap)) == ["2026-03-29 03:00:00+02:00", "2026-03-30 02:30:00+02:00"]
        assert len(list(schedule.between(START, START + timedelta(days=10)))) == 10
        assert repr(schedule) == "<Schedule 'a': cron '30 2 * * *' in Europe/Berlin>"
        assert repr(app.schedules) == "<Scheduler of 1 schedule, running>"
        with pytest.raises(ScheduleNotFoundError, match="there is no schedule 'b'"):
            app.schedules["b"]


def test_times_of_both_passes_of_an_hour_are_different(tasks):
    schedule = App(tasks).schedule("a", CronTrigger("30 * * * *", timezone="Europe/Berlin"), publish="tick")
    first, second = schedule.upcoming(2, datetime(2026, 10, 25, 0, tzinfo=UTC))
    assert (str(first), str(second)) == ("2026-10-25 02:30:00+02:00", "2026-10-25 02:30:00+01:00")
    assert second - first == timedelta(hours=1)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"name": "a b"}, ArgumentError, "name='a b' must be identifiers joined by . or -, 120 bytes at the most"),
        ({"trigger": "0 3 * * *"}, ArgumentError, "must be a trigger, such as CronTrigger"),
        ({"trigger": []}, ArgumentError, "must be a trigger, such as CronTrigger"),
        ({"trigger": {"corn": "0 3 * * *"}}, ArgumentError, "did you mean 'cron'?"),
        ({"publish": "a..b"}, TopicError, "a..b"),
        ({"publish": None}, ArgumentError, "publish=None must be a topic, or give run=: a schedule starts something"),
        ({"run": "nothing"}, PlanningError, "cannot plan"),
        ({"params": 3}, ArgumentError, "params=3 must be a mapping, or a function that makes one of the Firing"),
        ({"misfire": "never"}, ArgumentError, "misfire='never' must be one of 'latest', 'skip', 'all'"),
        ({"overlap": "no"}, ArgumentError, "overlap='no' must be one of 'skip', 'queue', 'allow'"),
        ({"limit": 0}, ArgumentError, "limit=0 must be a number of runs, at least 1"),
        ({"grace": "soon"}, ArgumentError, "grace='soon' must be seconds, a timedelta or a text"),
        ({"jitter": -1}, ArgumentError, "jitter=-1 must be seconds"),
        ({"colour": 1}, TypeError, r"schedule\(\) takes no 'colour'"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(tasks, arguments, error, words):
    given = {"name": "a", "trigger": IntervalTrigger("1h"), "publish": "tick", **arguments}
    app = App(tasks)
    with pytest.raises(error, match=words):
        app.schedule(given.pop("name"), given.pop("trigger"), **given)
    assert len(app.schedules) == 0


def test_a_name_is_given_once(tasks):
    app = App(tasks)
    app.schedule("a", IntervalTrigger("1h"), publish="tick")
    with pytest.raises(ScheduleExistsError, match=r"there is a schedule 'a' already \(every 1:00:00\)"):
        app.schedule("a", IntervalTrigger("2h"), publish="tick")


async def test_times_without_a_zone_are_refused(clock):
    async with App(Registry(), clock=clock) as app:
        schedule = app.schedule("a", IntervalTrigger("1h"), publish="tick")
        naive = datetime(2026, 1, 1)
        with pytest.raises(NaiveDatetimeError, match="must be an aware datetime"):
            schedule.upcoming(1, naive)
        with pytest.raises(NaiveDatetimeError, match="must be an aware datetime"):
            await app.backfill("a", naive, naive)
        with pytest.raises(ArgumentError, match="must be a time that has passed"):
            await app.backfill("a", START, START + timedelta(days=1))


# ---------------------------------------------------------------- several schedulers


class Lent(MemoryBroker):
    """Is entered and left once, by who lends it to several apps."""

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        pass


@asynccontextmanager
async def several(count: int, tasks: Registry, clock: FakeClock, store: MemoryRunStore, prepare: Any, **arguments: Any):
    """Enter several apps on one store and one broker, as several processes would have them."""
    broker = Lent()
    await MemoryBroker.__aenter__(broker)
    async with AsyncExitStack() as stack:
        apps = []
        for _ in range(count):
            app = App(tasks, clock=clock, store=store, broker=broker, **arguments)
            apps.append(await stack.enter_async_context(app))
            await app.broker()
            prepare(app)
        yield apps
    await MemoryBroker.__aexit__(broker, None, None, None)


async def test_several_schedulers_fire_each_time_once(clock):
    tasks, ran = Registry(), []
    tasks.task(name="load")(lambda: ran.append(f"{current_job().nominal:%H:%M}"))

    def prepare(app: App) -> None:
        app.schedule("tick", IntervalTrigger("1h"), publish="tick")
        app.schedule("load", IntervalTrigger("1h"), run="load")

    async with (
        several(4, tasks, clock, SharedStore(), prepare, executor="inline") as apps,
        hearing(apps[0], "tick") as heard,
    ):
        await clock.advance(24 * HOUR + 5)
    assert len(heard) == len({event.id for event in heard}) == 24
    assert sorted(ran) == [f"{hour % 24:02}:00" for hour in range(24)]


async def test_what_a_scheduler_had_claimed_and_not_fired_is_taken_over_when_its_claim_ends(clock):
    store = SharedStore()

    def prepare(app: App) -> None:
        app.schedule("a", IntervalTrigger("1h"), publish="tick")

    async with several(1, Registry(), clock, store, prepare) as [app], hearing(app, "tick") as heard:
        await clock.advance(HOUR / 2)
        standing, version = await store.read("schedule/a")
        until = START + timedelta(hours=1, seconds=40)
        standing["claim"] = {"id": "a-20260101T010000Z", "by": "x", "process": this_process(), "until": until}
        assert await store.write("schedule/a", standing, expected=version)
        await clock.advance(HOUR / 2 + 30)
        assert heard == []
        await clock.advance(12)
    assert times(heard) == ["2026-01-01T01:00"]


async def test_what_a_process_had_claimed_that_has_died_is_taken_over_at_once(clock):
    store = SharedStore()
    told = await anyio.run_process([sys.executable, "-c", "from dpcore.processes import *; print(this_process())"])
    dead = told.stdout.decode().strip()

    def prepare(app: App) -> None:
        app.schedule("a", IntervalTrigger("1h"), publish="tick")

    async with several(1, Registry(), clock, store, prepare) as [app], hearing(app, "tick") as heard:
        await clock.advance(HOUR / 2)
        standing, version = await store.read("schedule/a")
        standing["claim"] = {"id": "a-20260101T010000Z", "by": "x", "process": dead, "until": START + timedelta(days=1)}
        assert await store.write("schedule/a", standing, expected=version)
        await clock.advance(HOUR / 2)
    assert times(heard) == ["2026-01-01T01:00"]


async def test_pausing_in_one_scheduler_holds_in_all(clock):
    def prepare(app: App) -> None:
        app.schedule("a", IntervalTrigger("1h"), publish="tick")

    async with (
        several(2, Registry(), clock, SharedStore(), prepare) as [first, second],
        hearing(first, "tick") as heard,
    ):
        await clock.advance(HOUR)
        await first.schedules["a"].pause("holidays")
        await clock.advance(2 * HOUR)
        assert second.schedules["a"].note == "holidays"
        await second.schedules["a"].resume()
        await clock.advance(HOUR)
        assert not first.schedules["a"].paused
        await clock.advance(HOUR)
    assert times(heard) == [f"2026-01-01T0{hour}:00" for hour in (1, 4, 5)]


async def test_one_scheduler_listens_and_another_takes_over_when_it_ends(clock):
    def prepare(app: App) -> None:
        app.schedule("a", EventTrigger("go"), publish="tick")

    async with (
        several(2, Registry(), clock, SharedStore(), prepare) as [first, second],
        hearing(second, "tick") as heard,
    ):
        for number in range(3):
            await second.publish("go", number)
        await clock.advance(1)
        await first.schedules.stop()
        await second.publish("go", 3)
        await clock.advance(3)
        await second.publish("go", 4)
        await clock.advance(1)
    assert [event.data for event in heard] == [0, 1, 2, 3, 4]


async def test_a_run_of_another_scheduler_counts_for_the_overlap(clock):
    tasks, ran, gates = gated()

    def prepare(app: App) -> None:
        app.schedule("a", IntervalTrigger(5), run="load")

    async with (
        several(2, tasks, clock, SharedStore(), prepare, executor="inline") as apps,
        hearing(apps[0], "$schedule.skipped") as heard,
    ):
        await clock.advance(15)
        assert (ran, len(heard)) == (["00:00"], 2)
        gates[0].set()
        await clock.advance(5)
        assert ran == ["00:00", "00:00"]


# ---------------------------------------------------------------- bodies that wait, and keys that come again


class Order(msgspec.Struct):
    number: int


async def test_a_body_that_has_had_to_wait_is_still_what_it_was(clock):
    tasks, _, gates = gated()
    seen = []
    async with App(tasks, clock=clock, executor="inline") as app:
        app.schedule("a", ManualTrigger(), run="load", params=lambda firing: seen.append(firing.body) or {})
        await app.fire("a", Order(1))
        assert (await app.fire("a", Order(2))).state == "waiting"
        await clock.advance(1)
        gates[0].set()
        await clock.advance(1)
    assert seen == [Order(1), Order(2)]


async def test_a_body_that_could_not_wait_is_refused(clock):
    tasks, _, _ = gated()
    async with App(tasks, clock=clock, executor="inline") as app:
        app.schedule("a", ManualTrigger(), run="load")
        with pytest.raises(ArgumentError, match="must be of JSON's types, where it may have to wait"):
            await app.fire("a", object())


async def test_a_key_that_comes_again_takes_no_place_and_needs_none(clock):
    tasks, _, gates = gated()
    async with App(tasks, clock=clock, executor="inline") as app:
        schedule = app.schedule("a", ManualTrigger(), run="load", overlap="skip")
        first = await app.fire("a", key="k")
        await clock.advance(1)
        gates[0].set()
        await clock.advance(1)
        assert (await app.fire("a", key="k")).state == "known"
        assert schedule.runs == []
        await app.fire("a", key="other")
        assert (await app.fire("a", key="k")).id == first.id


async def test_what_is_backfilled_again_leaves_no_run_behind(clock):
    tasks = Registry()
    tasks.task(name="load")(lambda: None)
    async with App(tasks, clock=clock, executor="inline") as app:
        schedule = app.schedule("a", CronTrigger("0 12 * * *"), run="load")
        await clock.advance(DAY)
        assert [one.state for one in await app.backfill("a", START, START + timedelta(days=1))] == ["known"]
        assert schedule.runs == []
