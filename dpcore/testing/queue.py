"""The promises of a queue."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import queue as standard
import random
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from dpcore.errors import (
    ArgumentError,
    ItemNotSentError,
    QueueClosedError,
    QueueEmptyError,
    QueueFullError,
    TooManyDoneError,
)
from dpcore.ports import Tally
from dpcore.testing.queue_processes import AcrossProcesses
from dpcore.testing.queue_users import Attempts, Crowd, in_order, release, several_turns, until
from dpcore.testing.suite import leftovers

__all__ = ("QueueConformance",)


# ---------------------------------------------------------------- the suite


class QueueConformance(AcrossProcesses, suite=True):
    """What a queue promises: subclass it, and say how one is made.

    Every promise is kept on asyncio and on trio; a queue for one of them only
    narrows ``backends``, with the reason in a comment beside it.
    """

    # ---------------------------------------------------------------- items

    async def test_items_come_out_in_the_order_in_which_they_went_in(self, tmp_path: Path) -> None:
        """Whichever end they go in and out by: waiting, at once, or from code that is not async."""
        with self.in_time():
            async with self.make(tmp_path, size=9) as queue:
                for turn in range(7):
                    for number in range(0, 9, 3):
                        await queue.put((turn, number))
                        queue.put_nowait((turn, number + 1))
                        queue.put_sync((turn, number + 2), timeout=0)
                    found: list[Any] = []
                    for _ in range(3):
                        found += [queue.get_nowait(), queue.get_sync(timeout=0), await queue.get()]
                    assert found == [(turn, number) for number in range(9)]

    @pytest.mark.parametrize("size", [1, 2, 7])
    def test_a_queue_holds_its_size_and_no_more(self, tmp_path: Path, size: int) -> None:
        """One more is a QueueFullError, also a queue.Full, and is not in it; each that is got makes room for one."""
        with self.make(tmp_path, size=size) as queue:
            assert queue.size == size
            for turn in range(3):
                for number in range(size):
                    assert not queue.full()
                    assert queue.qsize() == number
                    queue.put_nowait((turn, number))
                assert queue.full()
                for refused in (partial(queue.put_nowait, "more"), partial(queue.put_sync, "more", timeout=0)):
                    with pytest.raises(QueueFullError, match=f"no more than {size} item") as caught:
                        refused()
                    assert isinstance(caught.value, standard.Full)
                assert [queue.get_nowait() for _ in range(size)] == [(turn, number) for number in range(size)]

    @pytest.mark.parametrize("size", [0, -1])
    def test_a_queue_without_a_bound_is_refused(self, tmp_path: Path, size: int) -> None:
        """A size below 1 is a ValueError that says so."""
        with pytest.raises(ValueError, match=f"size={size} must be at least 1"):
            self.make(tmp_path, size=size)

    def test_an_empty_queue_says_so(self, tmp_path: Path) -> None:
        """Getting from it at once is a QueueEmptyError, also a queue.Empty."""
        with self.make(tmp_path) as queue:
            for _ in range(2):
                assert queue.empty()
                assert queue.tally() == Tally(0, 0, closed=False)
                for refused in (queue.get_nowait, lambda: queue.get_sync(timeout=0)):
                    with pytest.raises(QueueEmptyError, match="is empty") as caught:
                        refused()
                    assert isinstance(caught.value, standard.Empty)
                queue.put_nowait(None)
                assert not queue.empty()
                assert queue.get_nowait() is None
                queue.task_done()

    def test_items_are_handed_on_or_copied_as_it_says(self, tmp_path: Path) -> None:
        """Where it crosses processes each is got as a copy of what it was when it was put; else it is the same object."""
        with self.make(tmp_path) as queue:
            item = {"list": [1, 2]}
            queue.put_nowait(item)
            item["list"].append(3)
            found = queue.get_nowait()
            if self.crosses(queue):
                assert found == {"list": [1, 2]}
            else:
                assert found is item

    def test_an_item_that_cannot_be_sent_raises_at_put(self, tmp_path: Path) -> None:
        """An ItemNotSentError, also a TypeError, that names item and cause; nothing of it is in the queue."""
        with self.make(tmp_path) as queue:
            item = threading.Lock()
            if not self.crosses(queue):
                queue.put_nowait(item)
                assert queue.get_nowait() is item
                return
            queue.put_nowait("before")
            for put in (queue.put_nowait, queue.put_sync):
                with pytest.raises(ItemNotSentError, match=r"cannot put .*lock.* into .*cannot pickle") as caught:
                    put(item)
                assert isinstance(caught.value, TypeError)
                assert caught.value.__cause__ is not None
            queue.put_nowait("after")
            assert [queue.get_nowait(), queue.get_nowait()] == ["before", "after"]
            assert queue.empty()

    @pytest.mark.parametrize("length", [0, 1, 500, 5_000, 65_400, 65_700, 300_000, 5_000_000])
    def test_an_item_may_be_of_any_length(self, tmp_path: Path, length: int) -> None:
        """Small and large ones stand in one line, as many as there is room for, again and again."""
        with self.make(tmp_path, size=3) as queue:
            data = random.Random(length).randbytes(length)
            for number in range(5):
                for item in ((number, data), "small", data):
                    queue.put_nowait(item)
                assert [queue.get_nowait() for _ in range(3)] == [(number, data), "small", data]

    # ---------------------------------------------------------------- waiting

    async def test_a_get_waits_for_an_item_and_a_put_for_room(self, tmp_path: Path) -> None:
        """They go on when there is one, and not before."""
        with self.in_time():
            async with self.make(tmp_path, size=1) as queue, anyio.create_task_group() as group:
                said: list[Any] = []

                async def get() -> None:
                    said.append(await queue.get())

                async def put() -> None:
                    await queue.put("second")
                    said.append("put")

                group.start_soon(get)
                await several_turns()
                assert said == []
                await queue.put("first")
                await until(lambda: said == ["first"])
                await queue.put("more")
                group.start_soon(put)
                await several_turns()
                assert said == ["first"]
                assert await queue.get() == "more"
                await until(lambda: said == ["first", "put"])
                assert await queue.get() == "second"

    async def test_an_item_wakes_one_and_the_first_first(self, tmp_path: Path) -> None:
        """Of several who wait, each item is for the one who waited longest; likewise each place that becomes free."""
        with self.in_time():
            async with self.make(tmp_path, size=2) as queue, anyio.create_task_group() as group:
                said: list[Any] = []

                async def get(name: int) -> None:
                    said.append((name, await queue.get()))

                async def put(name: int) -> None:
                    await queue.put(name)
                    said.append(name)

                for name in range(5):
                    group.start_soon(get, name)
                    await several_turns()
                for name in range(5):
                    queue.put_nowait(name * 10)
                    await until(lambda name=name: len(said) == name + 1)  # type: ignore[misc]
                    await several_turns()
                    assert said[name:] == [(name, name * 10)]
                said.clear()
                queue.put_nowait("a")
                queue.put_nowait("b")
                for name in range(5):
                    group.start_soon(put, name)
                    await several_turns()
                found = []
                for name in range(5):
                    found.append(queue.get_nowait())
                    await until(lambda name=name: said == [*range(name + 1)])  # type: ignore[misc]
                assert [*found, queue.get_nowait(), queue.get_nowait()] == ["a", "b", *range(5)]

    async def test_one_who_is_woken_and_cancelled_wakes_the_next(self, tmp_path: Path, backend: str) -> None:
        """Neither an item nor room waits for who has gone."""
        with self.in_time():
            async with self.make(tmp_path, size=1) as queue:
                for _ in range(20):
                    async with anyio.create_task_group() as group:
                        await self._wait_and_give_up(backend, group, queue.get)
                        queue.put_nowait("item")
                        self._give_up()
                        await until(queue.empty)
                        group.cancel_scope.cancel()
                    queue.put_nowait("item")
                    async with anyio.create_task_group() as group:
                        await self._wait_and_give_up(backend, group, lambda: queue.put("next"))
                        assert queue.get_nowait() == "item"
                        self._give_up()
                        await until(queue.full)
                        group.cancel_scope.cancel()
                    assert queue.get_nowait() == "next"
                    assert queue.empty()

    async def _wait_and_give_up(self, backend: str, group: Any, call: Callable[[], Any]) -> None:
        """Have three wait; `_give_up` cancels the first two of them, if need be by asyncio's own way, which is harsher."""
        cancels: list[Callable[[], object]] = []
        for _ in range(3):
            if backend == "asyncio":
                cancels.append(asyncio.ensure_future(call()).cancel)
            else:
                scope = anyio.CancelScope()
                cancels.append(scope.cancel)

                async def scoped(scope: anyio.CancelScope = scope) -> None:
                    with scope:
                        await call()

                group.start_soon(scoped)
            await several_turns()

        def give_up() -> None:
            for cancel in cancels[:2]:
                cancel()

        self._give_up: Callable[[], None] = give_up

    async def test_a_cancelled_put_has_put_nothing(self, tmp_path: Path) -> None:
        """And a cancelled get has got nothing; both leave the queue as it was."""
        with self.in_time():
            async with self.make(tmp_path, size=1) as queue:
                with anyio.move_on_after(0.01) as scope:
                    await queue.get()
                assert scope.cancelled_caught
                await queue.put(1)
                with anyio.move_on_after(0.01) as scope:
                    await queue.put(2)
                assert scope.cancelled_caught
                assert queue.qsize() == 1
                assert await queue.get() == 1
                assert queue.empty()

    async def test_a_loop_of_puts_and_gets_lets_others_go_on(self, tmp_path: Path) -> None:
        """Also where none of them waits: the event loop gets its turn, and the loop can be cancelled."""
        with self.in_time():
            async with self.make(tmp_path) as queue:
                with anyio.move_on_after(0.01) as scope:
                    while True:
                        await queue.put(1)
                        await queue.get()
                assert scope.cancelled_caught

    def test_the_ends_for_code_that_is_not_async_wait_as_long_as_they_are_told(self, tmp_path: Path) -> None:
        """For the seconds given, or until there is what they wait for, which another thread does."""
        with self.make(tmp_path, size=1) as queue, ThreadPoolExecutor(2) as threads:
            with pytest.raises(QueueEmptyError):
                queue.get_sync(timeout=0.01)
            with pytest.raises(QueueEmptyError):
                queue.get_sync(timeout=-1)
            got = threads.submit(queue.get_sync, self.patience)
            queue.put_sync("item", timeout=self.patience)
            assert got.result(self.patience) == "item"
            queue.put_sync("first")
            with pytest.raises(QueueFullError):
                queue.put_sync("second", timeout=0.01)
            put = threads.submit(queue.put_sync, "second", self.patience)
            assert queue.get_sync() == "first"
            put.result(self.patience)
            assert queue.get_sync(timeout=0) == "second"

    @pytest.mark.parametrize("timeout", ["1", True, float("nan"), b""])
    def test_what_is_no_time_to_wait_is_refused(self, tmp_path: Path, timeout: Any) -> None:
        """As an ArgumentError, whether there is something to wait for or not; nothing is put or got."""
        with self.make(tmp_path, size=1) as queue:
            for _ in range(2):
                with pytest.raises(ArgumentError, match=r"^timeout=.* must be a number of seconds, or None"):
                    queue.get_sync(timeout)
                with pytest.raises(ArgumentError, match=r"^timeout=.* must be a number of seconds, or None"):
                    queue.put_sync("item", timeout)
                if queue.empty():
                    queue.put_sync("item", timeout=10**400)
            assert queue.qsize() == 1

    # ---------------------------------------------------------------- closing

    async def test_a_closed_queue_takes_nothing_and_gives_what_is_left(self, tmp_path: Path) -> None:
        """Then getting raises QueueClosedError too, which is a ValueError; closing it twice does nothing."""
        with self.in_time():
            queue = self.make(tmp_path, size=3)
            for number in range(3):
                await queue.put(number)
            queue.close()
            queue.close()
            assert queue.tally() == Tally(3, 3, closed=True)
            for put in (queue.put_nowait, queue.put_sync):
                with pytest.raises(QueueClosedError, match=r"cannot put into .*: it was closed; put before"):
                    put(4)
            with pytest.raises(QueueClosedError) as caught:
                await queue.put(4)
            assert isinstance(caught.value, ValueError)
            assert [await queue.get(), queue.get_sync(), queue.get_nowait()] == [0, 1, 2]
            with pytest.raises(QueueClosedError, match=r"cannot get from .*: it was closed and nothing is left"):
                await queue.get()
            for get in (queue.get_nowait, queue.get_sync):
                with pytest.raises(QueueClosedError):
                    get()
            with pytest.raises(QueueClosedError):
                await queue.put(4)
            queue.close()
            assert queue.qsize() == 0

    async def test_closing_wakes_all_who_wait(self, tmp_path: Path) -> None:
        """Tasks and threads, those who wait for items and those who wait for room; all learn that it is closed."""
        for end in ("get", "put"):
            queue = self.make(tmp_path, size=1)
            if end == "put":
                queue.put_nowait("full")
            call = queue.get if end == "get" else partial(queue.put, "more")
            call_sync = queue.get_sync if end == "get" else partial(queue.put_sync, "more")
            with ThreadPoolExecutor(2) as threads:
                said: list[str] = []

                async def wait_and_say(call: Any = call, said: list[str] = said) -> None:
                    with pytest.raises(QueueClosedError):
                        await call()
                    said.append("closed")

                try:
                    with self.in_time():
                        async with anyio.create_task_group() as group:
                            waiting = [threads.submit(call_sync, timeout=self.patience) for _ in range(2)]
                            for _ in range(3):
                                group.start_soon(wait_and_say)
                            await several_turns()
                            queue.close()
                        assert said == ["closed"] * 3
                        for thread in waiting:
                            assert isinstance(thread.exception(self.patience), QueueClosedError)
                finally:
                    release(queue, threads)

    async def test_iterating_ends_when_it_is_closed_and_empty(self, tmp_path: Path) -> None:
        """Each item comes once; a cancelled iteration goes on where it was."""
        with self.in_time():
            queue = self.make(tmp_path, size=2)
            found = []

            async def feed() -> None:
                async with queue:
                    for number in range(10):
                        await queue.put(number)

            async with anyio.create_task_group() as group:
                with anyio.move_on_after(0.01):
                    async for item in queue:
                        found.append(item)  # noqa: PERF401  (none comes)
                group.start_soon(feed)
                async for item in queue:
                    found.append(item)
                    if item == 4:
                        break
                async for item in queue:
                    found.append(item)  # noqa: PERF401  (a list that is cut short would be gone)
            assert found == [*range(10)]

    async def test_leaving_it_closes_it(self, tmp_path: Path) -> None:
        """By `async with` and by `with`, also by an exception, also unused."""
        queue = self.make(tmp_path)
        queue.put_nowait(1)
        with pytest.raises(ZeroDivisionError):
            async with queue as entered:
                raise ZeroDivisionError
        assert entered is queue
        assert queue.tally() == Tally(1, 1, closed=True)
        assert queue.get_nowait() == 1
        queue = self.make(tmp_path)
        with queue as entered_plainly:
            assert entered_plainly is queue
        with pytest.raises(QueueClosedError):
            queue.put_nowait(1)

    # ---------------------------------------------------------------- joining

    async def test_join_waits_until_all_is_done(self, tmp_path: Path) -> None:
        """Every item that was put was got, and reported; all who join go on then, and at once where nothing is left."""
        with self.in_time():
            async with self.make(tmp_path) as queue:
                await queue.join()
                said: list[str] = []

                async def join() -> None:
                    await queue.join()
                    said.append("done")

                for number in range(3):
                    queue.put_nowait(number)
                async with anyio.create_task_group() as group:
                    for _ in range(2):
                        group.start_soon(join)
                    for unfinished in (3, 2, 1):
                        await several_turns()
                        assert queue.tally() == Tally(unfinished, unfinished, closed=False)
                        queue.get_nowait()
                        await several_turns()
                        assert queue.tally() == Tally(unfinished - 1, unfinished, closed=False)
                        assert said == []
                        queue.task_done()
                assert said == ["done", "done"]
                assert queue.tally() == Tally(0, 0, closed=False)
                await queue.join()

    def test_an_item_is_done_once(self, tmp_path: Path) -> None:
        """More often than items were got is a TooManyDoneError, also a ValueError, and changes nothing."""
        with self.make(tmp_path) as queue:
            for _ in range(2):
                with pytest.raises(TooManyDoneError, match="too many times") as caught:
                    queue.task_done()
                assert isinstance(caught.value, ValueError)
                queue.put_nowait(1)
                with pytest.raises(TooManyDoneError):
                    queue.task_done()  # it is in the queue still
                queue.get_nowait()
                queue.task_done()
            assert queue.tally() == Tally(0, 0, closed=False)

    async def test_join_waits_for_what_is_left_in_a_closed_queue(self, tmp_path: Path) -> None:
        """Closing ends no work."""
        with self.in_time():
            queue = self.make(tmp_path)
            queue.put_nowait(1)
            queue.close()
            with anyio.move_on_after(0.01) as scope:
                await queue.join()
            assert scope.cancelled_caught
            queue.get_nowait()
            async with anyio.create_task_group() as group:
                group.start_soon(queue.join)
                await several_turns()
                queue.task_done()

    # ---------------------------------------------------------------- many at once

    async def test_gets_and_puts_that_are_cancelled_at_any_moment_lose_and_repeat_nothing(
        self, tmp_path: Path, backend: str
    ) -> None:
        """By a cancel scope, by asyncio.wait_for and by Task.cancel: what was put is got, each once and in order."""
        queue = self.make(tmp_path, size=4)
        attempts = Attempts(backend)
        put: list[int] = []
        got: list[int] = []

        async def produce() -> None:
            number = 0
            while attempts.cancelled < self.cancellations:

                async def one(number: int = number) -> None:
                    await queue.put(number)
                    put.append(number)

                await attempts.make(one)
                number += 1
                await checkpoint()
            queue.close()

        async def one() -> None:
            got.append(await queue.get())

        async def consume() -> None:
            with contextlib.suppress(QueueClosedError):
                while True:
                    await attempts.make(one)
                    await checkpoint()

        with anyio.fail_after(self.patience * 3):
            async with anyio.create_task_group() as group:
                group.start_soon(produce)
                for _ in range(2):
                    group.start_soon(consume)
        assert attempts.cancelled >= self.cancellations
        assert got == put

    async def test_many_tasks_and_threads_at_once_get_each_item_once_and_in_order(self, tmp_path: Path) -> None:
        """Of each producer in its order, whoever gets them; with tasks and threads at both ends."""
        crowd = Crowd(self.make(tmp_path, size=5), each=150, patience=self.patience)
        tasks, count = 4, 3
        with ThreadPoolExecutor(2 * count) as threads:
            try:
                with self.in_time():
                    async with anyio.create_task_group() as group:
                        running = [threads.submit(crowd.consume_in_thread) for _ in range(count)]
                        running += [threads.submit(crowd.produce_in_thread, f"thread {name}") for name in range(count)]
                        for name in range(tasks):
                            group.start_soon(crowd.consume)
                            group.start_soon(crowd.produce, f"task {name}")
                        await until(lambda: sum(map(len, crowd.got)) == 150 * (tasks + count))
                        await crowd.queue.join()
                        crowd.queue.close()
                    for thread in running:
                        thread.result(self.patience)
            finally:
                release(crowd.queue, threads)
        assert {*Counter(item for mine in crowd.got for item in mine).values()} == {1}
        for mine in crowd.got:
            in_order(mine)

    async def test_threads_and_the_event_loop_pass_items_to_each_other(self, tmp_path: Path) -> None:
        """In both directions, one place at a time: whoever waits is woken from the other side."""
        there, back = self.make(tmp_path, size=1), self.make(tmp_path, size=1)

        def answer() -> None:
            with contextlib.suppress(QueueClosedError):
                while True:
                    back.put_sync(there.get_sync(timeout=self.patience) + 1, timeout=self.patience)

        with ThreadPoolExecutor(1) as threads:
            answering = threads.submit(answer)
            try:
                with self.in_time():
                    for number in range(200):
                        await there.put(number)
                        assert await back.get() == number + 1
            finally:
                release(there, threads)
            answering.result(self.patience)

    def test_any_history_is_that_of_a_deque(self, tmp_path: Path) -> None:
        """Whatever is put, got, done and closed, by whichever ends and in whatever order, refusals included."""
        from dpcore.testing.machines import compare_queue

        compare_queue(self.make, tmp_path, self.examples)

    # ---------------------------------------------------------------- what is left behind

    def test_nothing_is_left_behind(self, tmp_path: Path) -> None:
        """No thread, no process and no open file, once it is forgotten: the second use leaves no more than the first."""

        async def use() -> None:
            queue = self.make(tmp_path, size=2)
            async with anyio.create_task_group() as group:
                group.start_soon(queue.get)
                await several_turns()
                await queue.put(1)
            queue.put_sync(b"x" * 1_000_000)
            with anyio.move_on_after(0.01):
                await queue.join()
            with pytest.raises(QueueFullError):
                queue.put_sync([queue.put_sync(2), 3], timeout=0.001)
            queue.close()

        shared = Path("/dev/shm")
        named = {*shared.iterdir()} if shared.exists() else set()
        for backend in self.backends:
            anyio.run(use, backend=backend)
            before = leftovers()
            anyio.run(use, backend=backend)
            assert leftovers(since=before).no_more_than(before)
        if shared.exists():
            assert not [path for path in {*shared.iterdir()} - named if "dpcore" in path.name]

    async def test_waits_that_were_cancelled_take_no_memory(self, tmp_path: Path) -> None:
        """Nor do items that were got: a queue that is used for long is not larger than one that was used a little."""

        async def use(times: int) -> None:
            for _ in range(times):
                with anyio.CancelScope() as scope:
                    async with anyio.create_task_group() as group:
                        group.start_soon(queue.get)
                        await checkpoint()
                        await checkpoint()
                        scope.cancel()
                for _ in range(3):
                    await queue.put(b"x" * 1000)
                    await queue.get()
                    queue.task_done()

        def used() -> int:
            gc.collect()
            return tracemalloc.get_traced_memory()[0]

        async with self.make(tmp_path) as queue:
            await use(50)
            tracemalloc.start()
            try:
                await use(50)
                before = used()
                await use(400)
                assert used() - before < 50_000
            finally:
                tracemalloc.stop()
