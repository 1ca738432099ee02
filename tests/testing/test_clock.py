"""FakeClock: time passes when it is told to, in order, and nobody is left behind."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import anyio
import pytest

from dpcore.testing import FakeClock


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


async def test_it_begins_in_2026_unless_told_and_stands_still():
    assert FakeClock().now() == FakeClock().now() == datetime(2026, 1, 1, tzinfo=UTC)
    assert FakeClock(datetime(2030, 5, 1, tzinfo=UTC)).now().year == 2030


async def test_another_zone_is_shown_in_utc():
    zone = datetime(2026, 1, 1, tzinfo=UTC).astimezone().tzinfo
    assert FakeClock(datetime(2026, 6, 1, tzinfo=zone)).now().tzinfo is UTC


async def test_sleepers_wake_in_the_order_of_their_deadlines_each_at_its_own():
    clock, woken = FakeClock(), []

    async def sleep(seconds):
        await clock.sleep(seconds)
        woken.append((seconds, clock.monotonic()))

    async with anyio.create_task_group() as tasks:
        for seconds in (30, 10, 20, 99):
            tasks.start_soon(sleep, seconds)
        await clock.advance(50)
        assert woken == [(10, 10), (20, 20), (30, 30)]
        assert clock.monotonic() == 50
        await clock.advance(49)
    assert woken[-1] == (99, 99)
    assert clock.now() == datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=99)


async def test_who_sleeps_in_a_loop_wakes_as_often_as_it_would_have():
    clock, ticks = FakeClock(), []

    async def tick():
        for _ in range(5):
            await clock.sleep(1)
            ticks.append(clock.monotonic())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        await clock.advance(3.5)
        assert ticks == [1, 2, 3]
        await clock.advance(1.5)
        assert ticks == [1, 2, 3, 4, 5]


async def test_what_a_sleeper_sets_in_motion_is_over_before_the_next_one_wakes():
    clock, seen = FakeClock(), []
    send, receive = anyio.create_memory_object_stream[str](0)

    async def early():
        await clock.sleep(1)
        await send.send("early")

    async def relay():
        seen.append(await receive.receive())
        await anyio.lowlevel.checkpoint()
        seen.append("relayed")

    async def late():
        await clock.sleep(1.0001)
        seen.append("late")

    async with anyio.create_task_group() as tasks, send, receive:
        for work in (late, relay, early):
            tasks.start_soon(work)
        await clock.advance(2)
    assert seen == ["early", "relayed", "late"]


async def test_a_sleeper_that_is_cancelled_holds_up_nobody():
    clock, woken = FakeClock(), []

    async def sleep(seconds):
        await clock.sleep(seconds)
        woken.append(seconds)

    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as doomed:
                doomed.start_soon(sleep, 1)
                await anyio.wait_all_tasks_blocked()
                scope.cancel()
        tasks.start_soon(sleep, 2)
        await clock.advance(5)
    assert woken == [2]


async def test_no_time_and_negative_time_only_let_others_go_on():
    clock = FakeClock()
    await clock.sleep(0)
    await clock.sleep(-1)
    assert clock.monotonic() == 0


async def test_with_autojump_an_hour_takes_a_moment():
    clock, began = FakeClock(autojump=True), time.perf_counter()
    for _ in range(24):
        await clock.sleep(3600)
    assert clock.monotonic() == 24 * 3600
    assert time.perf_counter() - began < 2


async def test_with_autojump_everybody_wakes_at_their_own_time():
    clock, woken = FakeClock(autojump=True), []

    async def sleep(seconds, times):
        for _ in range(times):
            await clock.sleep(seconds)
            for _ in range(5):
                await anyio.lowlevel.checkpoint()
            woken.append((seconds, clock.monotonic()))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sleep, 7, 3)
        tasks.start_soon(sleep, 5, 3)
        tasks.start_soon(sleep, 1, 2)
    assert woken == [(1, 1), (1, 2), (5, 5), (7, 7), (5, 10), (7, 14), (5, 15), (7, 21)]


async def test_with_autojump_the_one_who_watched_may_be_cancelled():
    clock, woken = FakeClock(autojump=True), []

    async def sleep(seconds):
        await clock.sleep(seconds)
        woken.append(clock.monotonic())

    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as doomed:
                doomed.start_soon(sleep, 50)
                await anyio.lowlevel.checkpoint()
                tasks.start_soon(sleep, 60)
                scope.cancel()
    assert woken == [60]


async def test_with_autojump_time_stands_still_while_somebody_works():
    clock, done = FakeClock(autojump=True), []

    async def work():
        for _ in range(200):
            await anyio.lowlevel.checkpoint()
        done.append(clock.monotonic())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(clock.sleep, 10)
        tasks.start_soon(work)
    assert done == [0]
