"""The promises of a queue that other processes use too, and are killed while they do."""

from __future__ import annotations

import contextlib
import pickle
import random
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest

from dpcore.errors import QueueClosedError, QueueEmptyError, QueueFullError, QueueNotSentError, UnsupportedError
from dpcore.ports import Queue, Tally
from dpcore.testing.others import (
    Others,
    echo,
    echo_async,
    get_and_tell,
    get_async_and_tell,
    heard,
    kill,
    listen,
    put_and_tell,
    put_and_vanish,
    put_async_and_tell,
)
from dpcore.testing.queue_users import in_order, release, several_turns, until
from dpcore.testing.suite import AsyncConformance

__all__ = ("AcrossProcesses",)


class AcrossProcesses(AsyncConformance, suite=True):
    """What a queue promises to several processes, if it says that it is for them; a part of QueueConformance."""

    patience: ClassVar[float] = 60.0
    """Seconds after which something that should happen is said never to."""
    examples: ClassVar[int] = 50
    """How many random histories are compared with a deque's."""
    cancellations: ClassVar[int] = 1000
    """How often a put or get is cancelled at a random moment, on each backend."""
    kills: ClassVar[int] = 8
    """How many processes are killed at a random moment."""

    def make(self, tmp_path: Path, size: int = 16) -> Queue:
        """Return a new queue of that size, not entered."""
        raise NotImplementedError(
            f"{type(self).__name__} must say in make(self, tmp_path, size=16) how its queue is made"
        )

    @contextmanager
    def in_time(self) -> Iterator[None]:
        """Let nothing take longer than anybody has patience."""
        with anyio.fail_after(self.patience):
            yield

    def crosses(self, queue: Queue) -> bool:
        """Tell whether the queue is for several processes; that it says so truly is a promise of its own."""
        return "processes" in queue.capabilities

    # ---------------------------------------------------------------- capabilities

    def test_capabilities_are_what_is_so(self, tmp_path: Path) -> None:
        """They are data, of those that the port knows; what is off raises when it is required or tried."""
        known = {"processes"}
        with self.make(tmp_path) as queue:
            self.check_capabilities(queue, known)
            for capability in known - queue.capabilities:
                with pytest.raises(UnsupportedError, match=capability):
                    queue.require(capability, "be asked")
            with pytest.raises(QueueNotSentError, match="cannot be pickled here; "):  # by nobody, on its way to nobody
                pickle.dumps(queue)
            with Others.started() as others:
                if self.crosses(queue):
                    others.run(put_and_vanish, queue, range(1))
                    assert queue.get_sync(timeout=self.patience) == 0
                else:
                    with pytest.raises(QueueNotSentError):
                        others.run(put_and_vanish, queue, range(1))

    @pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
    def test_another_process_works_on_the_same_queue_where_it_crosses(self, tmp_path: Path, method: str) -> None:
        """Items, order, bound, joining and closing are shared, by both of its ends, however the process is started."""
        queue, back = self.make(tmp_path, size=2), self.make(tmp_path, size=2)
        if not self.crosses(queue):
            return  # that it cannot be sent is proven above
        work = {"spawn": echo, "forkserver": echo_async, "fork": echo}[method]
        items = [number if number % 7 else b"x" * 200_000 for number in range(50)]
        with Others.started(method) as others, ThreadPoolExecutor(1) as threads:
            process = others.run(work, queue, back)
            threads.submit(lambda: [queue.put_sync(item, timeout=self.patience) for item in items])
            try:
                assert [back.get_sync(timeout=self.patience) for _ in items] == items
                anyio.run(self._joined, queue)
                queue.close()
                with pytest.raises(QueueClosedError):
                    back.get_sync(timeout=self.patience)
                process.join(self.patience)
                assert process.exitcode == 0
            finally:
                release(queue, threads)

    async def _joined(self, queue: Queue) -> None:
        with self.in_time():
            await queue.join()

    def test_what_a_process_has_put_outlives_it_where_it_crosses(self, tmp_path: Path) -> None:
        """A put that has returned is in the queue, though its process ends with its next breath."""
        queue = self.make(tmp_path, size=100)
        if not self.crosses(queue):
            return
        with Others.started() as others:
            process = others.run(put_and_vanish, queue, range(100))
            process.join(self.patience)
            assert [queue.get_nowait() for _ in range(100)] == [*range(100)]

    # ---------------------------------------------------------------- processes that are killed

    async def test_a_process_that_is_killed_while_it_waits_stops_nobody_where_it_crosses(self, tmp_path: Path) -> None:
        """Whether it waited for items or for room, on an event loop or not: items and room go to others at once."""
        works = (get_and_tell, get_async_and_tell, put_and_tell, put_async_and_tell)
        queues = [self.make(tmp_path, size=1) for _ in works]
        if not self.crosses(queues[0]):
            return
        with Others.started() as others, self.in_time():
            victims = [
                [others.talking(work, queue) for _ in range(2)] for work, queue in zip(works, queues, strict=True)
            ]
            for work, queue, pair in zip(works, queues, victims, strict=True):
                for _, hear in pair:
                    heard(hear, self.patience)
                if work in (put_and_tell, put_async_and_tell):
                    await until(queue.full)
            await anyio.sleep(0.2)  # not for something to happen: so that they probably wait by now
            for queue, pair in zip(queues, victims, strict=True):
                for process, hear in pair:
                    kill(process)
                    hear.close()
                if queue.full():
                    queue.get_nowait()
                await self._works(queue)

    async def _works(self, queue: Queue) -> None:
        """Assert that an empty queue of size 1 is in order."""
        assert queue.empty()
        for number in range(5):
            await queue.put(number)
            with pytest.raises(QueueFullError):
                queue.put_sync("more", timeout=0)
            assert await queue.get() == number
            with pytest.raises(QueueEmptyError):
                queue.get_sync(timeout=0)

    async def test_what_a_killed_process_had_got_counts_as_done_where_it_crosses(self, tmp_path: Path) -> None:
        """Who joins is not kept waiting for it, also who waits already when it dies."""
        queue = self.make(tmp_path)
        if not self.crosses(queue):
            return
        with Others.started() as others, self.in_time():
            process, hear = others.talking(get_and_tell, queue)
            heard(hear, self.patience)
            for number in range(3):
                await queue.put(number)
                assert heard(hear, self.patience) == number
            assert queue.tally() == Tally(0, 3, closed=False)
            async with anyio.create_task_group() as group:
                group.start_soon(queue.join)
                await several_turns()
                await anyio.to_thread.run_sync(kill, process)
            assert queue.tally() == Tally(0, 0, closed=False)
            hear.close()

    def test_processes_that_are_killed_at_any_moment_lose_nothing_that_is_in_the_queue_where_it_crosses(
        self, tmp_path: Path
    ) -> None:
        """Each that gets takes at most the item in its hands with it; what was put is there; the others go on."""
        queue = self.make(tmp_path, size=5)
        if not self.crosses(queue):
            return
        drawn = random.Random(4)
        with Others.started() as others, ThreadPoolExecutor(2) as threads:
            getters = [others.talking(get_and_tell, queue) for _ in range(self.kills // 2)]
            putters = [others.talking(put_and_tell, queue) for _ in range(self.kills - self.kills // 2)]
            for _, hear in getters + putters:
                heard(hear, self.patience)
            stop = threading.Event()
            mine = threads.submit(self._put_until, queue, stop)
            got = threads.submit(self._get_all, queue)
            told = threads.submit(listen, [hear for _, hear in getters], [hear for _, hear in putters])
            try:
                for process, _ in drawn.sample(getters + putters, self.kills):
                    stop.wait(drawn.uniform(0, 0.1))  # the moment that was drawn
                    kill(process)
            finally:
                stop.set()
                count = mine.result(self.patience)
                queue.close()
            arrived = got.result(self.patience)
            elsewhere, put = told.result(self.patience)
        assert queue.tally() == Tally(0, len(arrived), closed=True)
        self._accounted(arrived, elsewhere, [*put, *((0, number) for number in range(count))], len(getters))

    def _put_until(self, queue: Queue, stop: threading.Event) -> int:
        number = 0
        while not stop.is_set():
            queue.put_sync((0, number, b""), timeout=self.patience)
            number += 1
        return number

    def _get_all(self, queue: Queue) -> list[tuple[int, int]]:
        found = []
        with contextlib.suppress(QueueClosedError):
            while True:
                found.append(queue.get_sync(timeout=self.patience)[:2])
        return found

    def _accounted(self, here: list[Any], elsewhere: list[Any], put: list[Any], most: int) -> None:
        counts = Counter(here + elsewhere)
        assert {*counts.values()} == {1}, "an item was got twice"
        lost = {*put} - counts.keys()
        assert len(lost) <= most, f"{len(lost)} items are lost, and {most} processes were killed that got some"
        in_order(here)
