"""What tasks publish while they run, on threads and worker processes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import anyio
import anyio.lowlevel
import pytest

from dpcore import App, State, current_job
from dpcore.errors import TopicCompletedError
from dpcore_plugins import InlineExecutor, MultiprocessExecutor, ThreadsExecutor
from tests.flags import Flag

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])]


@pytest.fixture(params=["threads", "multiprocess"])
def executor(request):
    return ThreadsExecutor(slots=2) if request.param == "threads" else MultiprocessExecutor(workers=2)


@pytest.mark.parametrize("is_async", [False, True])
async def test_what_a_task_publishes_now_is_read_while_it_runs(tasks, plugins, executor, tmp_path, is_async):
    read = Flag(tmp_path / "read")
    if is_async:

        @tasks.task
        async def load() -> None:
            current_job().publish("progress", 50, now=True)
            await read.up()

    else:

        @tasks.task
        def load() -> None:
            current_job().publish("progress", 50, now=True)
            assert read.wait()

    with anyio.fail_after(30):
        async with (
            App(tasks, executor=executor, plugins=plugins) as app,
            app.subscribe("progress") as events,
            anyio.create_task_group() as group,
        ):
            group.start_soon(app.run)
            event = await anext(events)
            read.set()
    assert event.data == 50


async def test_what_cannot_be_published_now_is_told_to_the_task(tasks, plugins, executor):
    @tasks.task
    def load() -> str:
        with pytest.raises(TopicCompletedError) as raised:
            current_job().publish("closed", 50, now=True)
        return str(raised.value)

    with anyio.fail_after(30):
        async with App(tasks, executor=executor, plugins=plugins) as app:
            await app.publish("closed")
            await app.complete("closed")
            assert (await app.run())["load"] == str(TopicCompletedError("closed"))


async def test_all_that_was_published_now_is_there_when_the_run_has_ended(tasks, plugins, executor):
    @tasks.task
    def days() -> Iterator[int]:
        for day in range(20):
            current_job().publish("days", day, now=True)
            yield day

    @tasks.task
    async def other() -> None:
        for day in range(20, 40):
            current_job().publish("days", day, now=True)

    with anyio.fail_after(30):
        async with App(tasks, executor=executor, plugins=plugins) as app, app.subscribe("days") as events:
            await app.run()
            await app.complete("days")
            assert sorted([event.data async for event in events]) == [*range(40)]


async def test_a_worker_that_waits_for_room_for_an_event_can_be_stopped(tasks, plugins, tmp_path):
    executor = MultiprocessExecutor(workers=2)
    full = Flag(tmp_path / "full")

    @tasks.task
    def load() -> None:
        for number in range(10_000):
            current_job().publish("days", number, now=True)
            full.set()

    with anyio.fail_after(30):
        async with (
            App(tasks, executor=executor, plugins=plugins) as app,
            app.subscribe("days", buffer=1, overflow="block"),
            anyio.create_task_group() as group,
        ):

            async def cancel() -> None:
                await full.up()
                app.cancel("r1")

            group.start_soon(cancel)
            result = await app.run(run_id="r1", check=False)
    assert result.state == "cancelled"


# ---------------------------------------------------------------- in the order of the calls


@pytest.fixture(params=["inline", "threads", "multiprocess"])
def any_executor(request):
    kinds = {
        "inline": InlineExecutor,
        "threads": ThreadsExecutor,
        "multiprocess": lambda: MultiprocessExecutor(workers=2),
    }
    return kinds[request.param]()


async def published_by(app: App, *topics: str) -> list[tuple[str, int]]:
    """What a run of all tasks has published on *topics* by the time it has ended."""
    async with app.subscribe(*topics) as events:
        await app.run()
        for topic in topics:
            await app.complete(topic)
        return [(event.topic, event.data) async for event in events]


async def test_a_coroutines_events_are_published_in_the_order_of_its_calls(tasks, plugins, any_executor):
    """For each of several at once: twenty in a row, and some more each time that it goes on."""

    def talker(topic: str):
        async def talk() -> None:
            for number in range(40):
                current_job().publish(topic, number, now=True)
                if number >= 20 and number % 3 == 0:
                    await anyio.lowlevel.checkpoint()

        return talk

    topics = ("one", "two", "three")
    for topic in topics:
        tasks.task(name=topic)(talker(topic))
    with anyio.fail_after(30):
        async with App(tasks, executor=any_executor, plugins=plugins) as app:
            found = await published_by(app, *topics)
    for topic in topics:
        assert [data for where, data in found if where == topic] == [*range(40)]


async def test_what_a_thread_of_a_coroutine_publishes_comes_after_what_that_has_published(tasks, plugins, any_executor):
    @tasks.task
    async def talk() -> None:
        for number in range(0, 30, 3):
            current_job().publish("hello", number, now=True)
            current_job().publish("hello", number + 1, now=True)
            await anyio.to_thread.run_sync(lambda number=number: current_job().publish("hello", number + 2, now=True))

    with anyio.fail_after(30):
        async with App(tasks, executor=any_executor, plugins=plugins) as app:
            found = await published_by(app, "hello")
    assert [data for _, data in found] == [*range(30)]


async def test_an_event_that_cannot_be_published_is_logged_and_those_after_it_are(tasks, plugins, any_executor, caplog):
    @tasks.task
    async def talk() -> None:
        for number in range(3):
            current_job().publish("hello", number, now=True)
            current_job().publish("closed", number, now=True)

    with anyio.fail_after(30):
        async with App(tasks, executor=any_executor, plugins=plugins) as app:
            await app.publish("closed")
            await app.complete("closed")
            found = await published_by(app, "hello")
    assert [data for _, data in found] == [0, 1, 2]
    assert [one.exc_info[0] for one in caplog.records if "'closed'" in one.getMessage()] == [TopicCompletedError] * 3


async def test_a_run_that_is_cancelled_waits_for_no_reader_of_what_a_coroutine_publishes(
    tasks, plugins, any_executor, tmp_path
):
    begun = Flag(tmp_path / "begun")

    @tasks.task
    async def talk() -> None:
        try:
            for number in range(5):
                current_job().publish("hello", number, now=True)
            begun.set()
            await anyio.sleep_forever()
        finally:
            current_job().publish("hello", 5, now=True)

    async with (
        App(tasks, executor=any_executor, plugins=plugins) as app,
        app.subscribe("hello", buffer=1, overflow="block"),
    ):
        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                group.start_soon(partial(app.run, run_id="r1", check=False))
                await begun.up()
                app.cancel("r1")
        assert (await app.history("r1")).record.state is State.CANCELLED
