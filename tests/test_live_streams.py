"""Tasks that read a stream while it is made, through an app: on threads and worker processes, asyncio and trio."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator

import anyio
import pytest

from dpcore import App, Outcome, State, current_job
from dpcore_plugins import MemoryIO, MultiprocessExecutor, ThreadsExecutor
from tests.flags import Flag

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.fixture(params=["threads", "multiprocess"])
def executor(request):
    """Make an executor with so many places."""
    if request.param == "threads":
        return lambda slots=4: ThreadsExecutor(slots=slots)
    return lambda slots=4: MultiprocessExecutor(workers=slots, grace=10)  # however busy the machine is


@pytest.fixture
def flag(tmp_path):
    """Make a flag."""
    names = map(str, range(9))
    return lambda: Flag(tmp_path / next(names))


async def result_of(tasks, plugins, executor, *, check: bool = True, **arguments):
    with anyio.fail_after(30):
        async with App(tasks, executor=executor, plugins=plugins) as app:
            return await app.run(check=check, **arguments)


# ---------------------------------------------------------------- items come while they are made (D-X7)


async def test_the_first_item_is_read_while_the_producer_still_runs(tasks, plugins, executor, flag):
    """The producer does not go on before its first item has been read."""
    read = flag()

    @tasks.task
    def days() -> Iterator[int]:
        yield 1
        assert read.wait(10)
        yield 2

    @tasks.task
    def total(days: Iterator[int]) -> list[int]:
        found = []
        for day in days:
            found.append(day)
            read.set()
        return found

    assert (await result_of(tasks, plugins, executor()))["total"] == [1, 2]


async def test_coroutine_functions_read_and_make_streams_as_they_come(tasks, plugins, executor, flag):
    read = flag()

    @tasks.task
    async def days() -> AsyncIterator[int]:
        yield 1
        await read.up()
        yield 2

    @tasks.task
    async def doubled(days: AsyncIterator[int]) -> AsyncIterator[int]:
        async for day in days:
            yield 2 * day

    @tasks.task
    async def total(doubled: AsyncIterator[int]) -> list[int]:
        found = []
        async for day in doubled:
            found.append(day)
            read.set()
        return found

    assert (await result_of(tasks, plugins, executor()))["total"] == [2, 4]


async def test_the_first_item_is_mapped_while_the_producer_still_runs(tasks, plugins, executor, flag):
    mapped = flag()

    @tasks.task
    def days() -> Iterator[int]:
        yield 1
        assert mapped.wait(10)
        yield from (2, 3)

    @tasks.task(each="days")
    def load(day: int) -> int:
        mapped.set()
        return day * 10

    assert (await result_of(tasks, plugins, executor()))["load"] == [10, 20, 30]


@pytest.mark.parametrize("each", [False, True])
async def test_an_empty_stream_ends(tasks, plugins, executor, each):
    """D-X6."""

    @tasks.task
    def days() -> Iterator[int]:
        yield from ()

    if each:
        tasks.task(name="read", each="days")(lambda days: days)
    else:

        @tasks.task
        def read(days: Iterator[int]) -> list[int]:
            return [*days]

    assert (await result_of(tasks, plugins, executor()))["read"] == []


@pytest.mark.parametrize("slots", [1, 2, 3, 16])
async def test_a_chain_of_ten_streams_ends_on_any_number_of_slots(tasks, plugins, executor, slots):
    @tasks.task(lead=2)
    def t0() -> Iterator[int]:
        yield from range(100)

    for number in range(1, 10):

        @tasks.task(name=f"t{number}", inputs={"items": f"t{number - 1}"}, lead=2)
        def following(items: Iterator[int]) -> Iterator[int]:
            for item in items:
                yield item + 1

    result = await result_of(tasks, plugins, executor(slots))
    assert result["t9"] == [*range(9, 109)]


@pytest.mark.parametrize("slots", [1, 2])
async def test_items_that_wait_for_a_place_hold_nobody(tasks, plugins, executor, slots):
    """Also where an executor is given more jobs than it runs at once."""

    @tasks.task(lead=2)
    def days() -> Iterator[int]:
        yield from range(100)

    tasks.task(name="load", each="days")(lambda days: days + 1)

    assert (await result_of(tasks, plugins, executor(slots)))["load"] == [*range(1, 101)]


@pytest.mark.parametrize("slots", [1, 2, 3])
async def test_two_streams_that_are_read_one_after_the_other_bring_nothing_to_a_stop(tasks, plugins, executor, slots):
    @tasks.task(lead=1)
    def days() -> Iterator[int]:
        yield from range(50)

    @tasks.task(lead=1)
    def doubled(days: Iterator[int]) -> Iterator[int]:
        for day in days:
            yield 2 * day

    @tasks.task
    def both(days: Iterator[int], doubled: Iterator[int]) -> int:
        return sum(doubled) - sum(days)

    assert (await result_of(tasks, plugins, executor(slots)))["both"] == sum(range(50))


# ---------------------------------------------------------------- the lead


async def test_a_producer_waits_for_a_reader_that_is_slower(tasks, plugins, executor, tmp_path):
    made = tmp_path / "made"
    made.touch()

    @tasks.task(lead=4)
    def days() -> Iterator[int]:
        for day in range(200):
            with made.open("a") as file:
                file.write(".")
            yield day

    @tasks.task
    def total(days: Iterator[int]) -> list[int]:
        return [made.stat().st_size - day for day in days]

    ahead = (await result_of(tasks, plugins, executor()))["total"]
    assert len(ahead) == 200
    # Before the reader had begun nobody held it, and it had been given room for a lead beyond what it had made.
    free = ahead[0] + 4
    assert all(day + number <= max(free, day + 12) for day, number in enumerate(ahead)), "twice the lead, and some"


# ---------------------------------------------------------------- attempts


async def test_no_result_is_made_of_the_items_of_two_attempts(tasks, plugins, executor, flag):
    """D-X7: what had been read of the attempt that failed is forgotten, and its items are."""
    begun = flag()

    @tasks.task(max_retries=1)
    def days() -> Iterator[str]:
        attempt = current_job().attempt
        yield f"{attempt}a"
        if attempt == 1:
            assert begun.wait(10)
            raise ValueError("no")
        yield f"{attempt}b"

    @tasks.task
    def total(days: Iterator[str]) -> list[str]:
        found = []
        for day in days:
            found.append(day)
            begun.set()
        return found

    with anyio.fail_after(20):
        async with App(tasks, executor=executor(), plugins=plugins) as app:
            result = await app.run()
            stored = (await app.io()).list(result.run_id)
    assert result["total"] == ["2a", "2b"]
    assert sorted(str(ref).partition("/")[2] for ref in stored) == ["days/2-00000000", "days/2-00000001", "total/2"]


async def test_who_reads_begins_again_when_the_worker_of_its_producer_is_killed(tasks, plugins, tmp_path, flag):
    begun = flag()

    @tasks.task(max_retries=1)
    def days() -> Iterator[str]:
        attempt = current_job().attempt
        yield f"{attempt}a"
        if attempt == 1:
            (tmp_path / "pid").write_text(str(os.getpid()))
            assert begun.wait(10)
            os.kill(os.getpid(), signal.SIGKILL)
        yield f"{attempt}b"

    @tasks.task
    def total(days: Iterator[str]) -> list[object]:
        found: list[object] = []
        for day in days:
            found.append(day)
            begun.set()
        return [*found, current_job().attempt]

    with anyio.fail_after(30):
        async with App(tasks, executor=MultiprocessExecutor(workers=2), plugins=plugins) as app:
            result = await app.run()
            record = await app.history(result.run_id)
    assert result["total"][:2] == ["2a", "2b"]
    assert result.outcomes["days"].attempt == 2
    errors = [one.error for one in record.changes if one.task == "days" and one.error]
    assert errors == ["WorkerLostError: the worker process of task 'days' was killed by SIGKILL"]


async def test_readers_of_a_producer_that_fails_for_good_are_skipped_and_none_hangs(tasks, plugins, executor, flag):
    begun = flag()

    @tasks.task
    def days() -> Iterator[int]:
        yield 1
        assert begun.wait(10)
        raise ValueError("no")

    @tasks.task
    def doubled(days: Iterator[int]) -> Iterator[int]:
        yield from days

    @tasks.task
    async def total(doubled: AsyncIterator[int]) -> int:
        async for _ in doubled:
            begun.set()
        return 1

    tasks.task(name="load", each="days")(lambda days: days)
    outcomes = (await result_of(tasks, plugins, executor(), check=False)).outcomes
    assert {name: str(outcome.state) for name, outcome in outcomes.items()} == {
        "days": "failed", "doubled": "skipped", "load": "skipped", "total": "skipped",
    }  # fmt: skip


async def test_a_reader_that_fails_reads_the_same_items_again(tasks, plugins, executor, flag):
    failed = flag()

    @tasks.task
    def days() -> Iterator[int]:
        yield 1
        assert failed.wait(10)
        yield 2

    @tasks.task(max_retries=1)
    def total(days: Iterator[int]) -> int:
        first = next(days)
        if not failed.is_set():
            failed.set()
            raise ValueError("no")
        return first + sum(days)

    assert (await result_of(tasks, plugins, executor()))["total"] == 3


@pytest.fixture
def endless(tasks):
    """A stream without an end, and two tasks that fail at its third item."""

    @tasks.task
    def days() -> Iterator[int]:
        day = 0
        while True:
            day += 1
            yield day

    @tasks.task
    def reader(days: Iterator[int]) -> None:
        for day in days:
            if day == 3:
                raise ValueError("the third")

    @tasks.task(each="days")
    def mapped(day: int) -> int:
        if day == 3:
            raise ValueError("the third")
        return day

    return tasks


@pytest.mark.parametrize("name", ["reader", "mapped"])
async def test_a_reader_that_fails_ends_a_run_that_fails_fast_whatever_its_producer_does(
    endless, plugins, executor, name
):
    endless.remove("reader" if name == "mapped" else "mapped")
    result = await result_of(endless, plugins, executor(), check=False, fail_fast=True)
    assert (result.state, result.outcomes[name].state) == (State.FAILED, State.FAILED)
    assert str(result.outcomes[name].error) == "the third"
    assert result.outcomes["days"].state is State.CANCELLED


async def test_a_reader_that_has_failed_is_told_at_once_and_on_record_if_the_run_is_cancelled(
    endless, plugins, executor, caplog
):
    endless.remove("mapped")
    async with App(endless, executor=executor(), plugins=plugins) as app:
        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:

                async def cancel_when_told() -> None:
                    while "task 'reader' of run r1 has failed" not in caplog.text:
                        await anyio.sleep(0.001)
                    app.cancel("r1")

                group.start_soon(cancel_when_told)
                result = await app.run(run_id="r1", check=False)
        recorded = (await app.history("r1")).tasks["reader"]
    assert "ValueError('the third')" in caplog.text
    assert (result.state, result.outcomes["days"].state) == (State.CANCELLED, State.CANCELLED)
    assert (result.outcomes["reader"].state, str(result.outcomes["reader"].error)) == (State.FAILED, "the third")
    assert (recorded.state, "ValueError: the third" in recorded.traceback) == (State.FAILED, True)


# ---------------------------------------------------------------- early returns


async def test_a_producer_whose_readers_have_all_returned_early_is_stopped_and_has_succeeded(
    tasks, plugins, executor, flag
):
    closed = flag()

    @tasks.task
    def days() -> Iterator[int]:
        day = 0
        try:
            while True:
                yield day
                day += 1
        finally:
            closed.set()

    @tasks.task
    def first(days: Iterator[int]) -> int:
        return next(days)

    @tasks.task
    async def third(doubled: AsyncIterator[int]) -> int:
        count = 0
        async for day in doubled:
            count += 1
            if count == 3:
                return day
        return -1

    @tasks.task
    async def doubled(days: AsyncIterator[int]) -> AsyncIterator[int]:
        async for day in days:
            yield 2 * day

    result = await result_of(tasks, plugins, executor())
    assert (result["first"], result["third"]) == (0, 4)
    assert {outcome.state for outcome in result.outcomes.values()} == {State.SUCCEEDED}
    assert closed.is_set()


async def test_one_that_would_make_no_further_item_is_stopped_too_and_has_succeeded(tasks, plugins):
    """It hears only where it makes an item, so it is given up after a second; on a thread its code runs on."""
    ended = threading.Event()

    @tasks.task
    def days() -> Iterator[int]:
        yield from range(3)
        assert ended.wait(30)

    @tasks.task
    def first(days: Iterator[int]) -> int:
        return next(days)

    with anyio.fail_after(20):
        async with App(tasks, executor="threads", io=(io := MemoryIO()), plugins=plugins) as app:
            result = await app.run()
            ended.set()
    assert result["first"] == 0
    assert result.outcomes["days"].state is State.SUCCEEDED
    assert result.outcomes["days"].still_running
    assert {ref.task for ref in io.list(result.run_id)} == {"days", "first"}
    assert [io.load(ref) for ref in io.list(result.run_id, "days")] == [*result["days"]]
    assert result.state is State.SUCCEEDED


async def test_a_coroutine_that_would_make_no_further_item_is_cancelled(tasks, plugins):
    cancelled = anyio.Event()

    @tasks.task
    async def days() -> AsyncIterator[int]:
        yield 1
        try:
            await anyio.sleep_forever()
        except BaseException:
            cancelled.set()
            raise

    @tasks.task
    async def first(days: AsyncIterator[int]) -> int:
        async for day in days:
            return day
        return 0

    result = await result_of(tasks, plugins, ThreadsExecutor())
    assert (result["first"], [*result["days"]]) == (1, [1])
    assert cancelled.is_set()
    assert not result.outcomes["days"].still_running


async def test_one_that_drains_runs_to_its_end(tasks, plugins, executor, flag):
    read = flag()

    @tasks.task(drain=True)
    def days() -> Iterator[int]:
        yield 0
        assert read.wait(10)
        yield from range(1, 300)

    @tasks.task
    def first(days: Iterator[int]) -> int:
        read.set()
        return next(days)

    result = await result_of(tasks, plugins, executor())
    assert (result["first"], len(result["days"])) == (0, 300)


# ---------------------------------------------------------------- stopping


@pytest.mark.parametrize("why", ["cancelled", "timed out"])
async def test_jobs_that_wait_for_each_other_are_stopped_and_leave_no_thread(tasks, plugins, executor, why, flag):
    asked, cleaned = flag(), flag()
    before = {*threading.enumerate()}

    @tasks.task(timeout=0.2 if why == "timed out" else None)
    async def days() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep_forever()

    @tasks.task
    def total(days: Iterator[int]) -> int:
        next(days)
        try:
            asked.set()  # in here: what stops it may come as soon as it is up
            return sum(days)
        finally:
            cleaned.set()

    with anyio.fail_after(20):
        async with App(tasks, executor=executor(), plugins=plugins) as app, anyio.create_task_group() as group:

            async def cancel() -> None:
                await asked.up()
                app.cancel("r1")

            if why == "cancelled":
                group.start_soon(cancel)
            outcomes: dict[str, Outcome] = dict((await app.run(run_id="r1", check=False)).outcomes)
    assert outcomes["days"].state is (State.CANCELLED if why == "cancelled" else State.TIMED_OUT)
    assert outcomes["total"].state in (State.CANCELLED, State.SKIPPED)
    assert why == "timed out" or cleaned.wait(), "who waits for an item hears that it is to end"
    for thread in {*threading.enumerate()} - before:
        if thread.name.startswith("threads-"):  # trio keeps threads of its own
            thread.join(10)
            assert not thread.is_alive()
