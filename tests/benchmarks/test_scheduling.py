"""What a scheduler costs, and how late it is: beside APScheduler, and beside bare croniter for the next time alone."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import repeat
from math import ceil
from typing import Any
from zoneinfo import ZoneInfo

import anyio
import anyio.lowlevel
import pytest
from croniter import croniter

from dpcore import App, Plugins, Registry
from dpcore_plugins import CronTrigger

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

BERLIN = ZoneInfo("Europe/Berlin")
EACH_SECOND, DAILY = "* * * * * *", "0 30 2 * * *"


def app() -> App:
    return App(Registry(), plugins=Plugins(installed=False))


async def until_second(after: float) -> None:
    """Wait until a whole second has passed, and so much more."""
    now = time.time()
    await anyio.sleep(ceil(now) + after - now)


# ---------------------------------------------------------------- lateness


async def ours_late(count: int, seconds: int) -> list[float]:
    """Have so many schedules publish each second, and return how late a reader has the events, in seconds."""
    late: list[float] = []
    async with app() as platform, platform.subscribe("tick", buffer=2 * count + 10) as events:

        async def read() -> None:
            async for _ in events:
                late.append(time.time() % 1)  # noqa: PERF401  (one by one, as a handler would)

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            await until_second(0.2)
            for number in range(count):
                platform.schedule(f"s{number}", CronTrigger(EACH_SECOND), publish="tick")
            await platform.schedules.begun()
            await until_second(0.95 + seconds - 1)
            late.clear()
            await until_second(0.95 + seconds - 1)
            group.cancel_scope.cancel()
    return late


async def theirs_late(count: int, seconds: int) -> list[float]:
    """Have so many jobs of an AsyncIOScheduler called each second, and return how late they are, in seconds."""
    from apscheduler.schedulers.asyncio import AsyncIOScheduler
    from apscheduler.triggers.cron import CronTrigger as Cron

    late: list[float] = []

    async def handle() -> None:
        late.append(time.time() % 1)

    scheduler = AsyncIOScheduler(timezone=UTC)
    for _ in range(count):
        scheduler.add_job(handle, Cron(second="*", timezone=UTC), misfire_grace_time=None, coalesce=True)
    await until_second(0.2)
    scheduler.start()
    await until_second(0.95 + seconds - 1)
    late.clear()
    await until_second(0.95 + seconds - 1)
    scheduler.shutdown(wait=False)
    return late


def quantile(late: list[float], part: float) -> float:
    return sorted(late)[min(len(late) - 1, int(part * len(late)))]


@pytest.mark.parametrize(
    ("count", "part", "budget"), [(1, 0.5, None), (1_000, 0.99, 1 / 20), (10_000, 0.5, None), (10_000, 0.99, 1 / 10)]
)
def test_how_late_are_triggers_that_are_due_together(
    count: int, part: float, budget: float | None, side_by_side: Any, watch: Any
) -> None:
    pytest.importorskip("apscheduler")
    count = side_by_side.size(count, 5)

    def side(late: Callable[[int, int], Awaitable[list[float]]]) -> Callable[[], int]:
        def measure() -> int:
            found = anyio.run(late, count, 1)
            watch.add(quantile(found, part))
            return len(found)

        return measure

    one, other = side_by_side.time(
        f"lateness of {count:,} due together, p{part * 100:g}", side(ours_late), side(theirs_late),
        than="APScheduler", budget=budget, partly=True, clock="wall",
    )  # fmt: skip
    assert one >= count
    assert other >= count


# ---------------------------------------------------------------- what it costs


def test_starting_with_many_schedules(side_by_side: Any, watch: Any) -> None:
    pytest.importorskip("apscheduler")
    count = side_by_side.size(10_000, 20)

    async def ours() -> int:
        platform = app()
        with watch.going():
            for number in range(count):
                platform.schedule(f"s{number}", CronTrigger(DAILY, timezone=BERLIN), publish="tick")
            async with platform:
                await platform.schedules.begun()
        return len(platform.schedules)

    async def theirs() -> int:
        from apscheduler.schedulers.asyncio import AsyncIOScheduler
        from apscheduler.triggers.cron import CronTrigger as Cron

        scheduler = AsyncIOScheduler(timezone=UTC)
        with watch.going():
            for _ in range(count):
                scheduler.add_job(print, Cron(hour=2, minute=30, timezone=BERLIN))
            scheduler.start()
            await anyio.lowlevel.checkpoint()
        scheduler.shutdown(wait=False)
        return len(scheduler.get_jobs()) or count

    one, other = side_by_side.time(
        "one of 10,000 schedules that are begun with", lambda: anyio.run(ours), lambda: anyio.run(theirs),
        than="APScheduler", per=count, partly=True,
    )  # fmt: skip
    assert one == other == count


def test_a_second_in_which_nothing_is_due(side_by_side: Any, watch: Any) -> None:
    pytest.importorskip("apscheduler")
    count, seconds = side_by_side.size(10_000, 20), side_by_side.size(2, 0)

    async def ours() -> None:
        platform = app()
        for number in range(count):
            platform.schedule(f"s{number}", CronTrigger("0 0 1 1 *"), publish="tick")
        async with platform:
            await platform.schedules.begun()
            await anyio.sleep(0.2)
            with watch.going():
                await anyio.sleep(seconds)

    async def theirs() -> None:
        from apscheduler.schedulers.asyncio import AsyncIOScheduler
        from apscheduler.triggers.cron import CronTrigger as Cron

        scheduler = AsyncIOScheduler(timezone=UTC)
        for _ in range(count):
            scheduler.add_job(print, Cron(month=1, day=1, timezone=UTC))
        scheduler.start()
        await anyio.sleep(0.2)
        with watch.going():
            await anyio.sleep(seconds)
        scheduler.shutdown(wait=False)

    side_by_side.time(
        "CPU of a second with 10,000 schedules and nothing due", lambda: anyio.run(ours), lambda: anyio.run(theirs),
        than="APScheduler", per=max(1, seconds), partly=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    "expression", ["* * * * *", "*/5 * * * *", "30 2 * * *", "0 9 * * 1-5", "0 0 1 * *", "*/10 * * * * *"]
)
def test_the_next_time(expression: str, side_by_side: Any) -> None:
    count = side_by_side.size(300, 5)
    start = datetime(2026, 1, 1, tzinfo=UTC)

    def ours() -> datetime:
        next_fire, moment = CronTrigger(expression, timezone=BERLIN).next_fire, start
        for _ in repeat(None, count):
            moment = next_fire(moment)
        return moment

    def theirs() -> datetime:
        times = croniter(expression, start.astimezone(BERLIN), ret_type=datetime, second_at_beginning=True)
        moment = start
        for _ in repeat(None, count):
            moment = times.get_next()
        return moment

    one, other = side_by_side.time(
        f"the next time of {expression!r}", ours, theirs, than="croniter", per=count, budget=1.0
    )
    # Where clocks are changed, croniter has another opinion of what is like an interval, and of what is repeated.
    assert abs(one - other) < timedelta(days=2)
