"""The queues that ship, under the suite of their port, and what is special to each."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import anyio
import pytest

from dpcore import Plugins
from dpcore.config import Config
from dpcore.errors import (
    AdapterNotMadeError,
    ArgumentError,
    ItemNotSentError,
    QueueEmptyError,
    QueueNotSentError,
    UnsupportedError,
)
from dpcore.testing import QueueConformance
from dpcore.testing.suite import leftovers
from dpcore_plugins import MemoryQueue, MultiprocessQueue

BOTH = pytest.mark.parametrize("kind", [MemoryQueue, MultiprocessQueue])


class TestMemoryQueue(QueueConformance):
    def make(self, tmp_path, size=16):
        return MemoryQueue(size=size)


class TestMultiprocessQueue(QueueConformance):
    def make(self, tmp_path, size=16):
        return MultiprocessQueue(size=size)


# ---------------------------------------------------------------- made by name


@pytest.mark.parametrize(("name", "kind"), [("memory", MemoryQueue), ("multiprocess", MultiprocessQueue)])
def test_a_queue_is_made_by_its_name(name, kind):
    plugins = Plugins(installed=False)
    queue = plugins.make("queue", f"{name}?size=10", Config(environ={}))
    assert type(queue) is kind
    assert queue.size == 10
    assert plugins.make("queue", name).size == 1024
    with pytest.raises(AdapterNotMadeError, match="size=0 must be at least 1"):
        plugins.make("queue", f"{name}?size=0")


@BOTH
@pytest.mark.parametrize("size", [None, "x", 1.5, True])
def test_a_size_that_is_no_number_is_refused(kind, size):
    with pytest.raises(ArgumentError, match=f"^size={size!r} must be at least 1"):
        kind(size=size)


@BOTH
def test_a_queue_prints_as_it_was_made(kind):
    assert str(kind(size=7)) == f"{kind.__name__}(size=7)"


# ---------------------------------------------------------------- memory


def test_a_memory_queue_says_that_it_does_not_leave_its_process():
    with pytest.raises(
        QueueNotSentError, match="it is in the memory of this process; MultiprocessQueue goes to others"
    ):
        pickle.dumps(MemoryQueue())


def test_one_whose_event_loop_is_gone_does_not_keep_an_item_from_the_next():
    queue = MemoryQueue(size=1)
    abandoned = asyncio.new_event_loop()
    waiting = abandoned.create_task(queue.get())
    abandoned.run_until_complete(asyncio.sleep(0.01))
    abandoned.close()  # its task never learns of it
    with ThreadPoolExecutor(1) as threads:
        got = threads.submit(queue.get_sync, 30)
        queue.put_sync("item")
        assert got.result(30) == "item"
    waiting._log_destroy_pending = False
    waiting.get_coro().close()
    queue.put_sync("more")
    assert queue.get_sync(0) == "more"


@BOTH
def test_event_loops_in_several_threads_pass_items_to_each_other(kind):
    queue, back = kind(size=1), kind(size=1)

    async def answer():
        async with back:
            async for number in queue:
                await back.put(number + 1)

    async def ask():
        async with queue:
            for number in range(100):
                await queue.put(number)
                assert await back.get() == number + 1

    with ThreadPoolExecutor(2) as threads:
        running = [threads.submit(anyio.run, work, backend=loop) for work, loop in ((answer, "asyncio"), (ask, "trio"))]
        for thread in running:
            thread.result(60)


@BOTH
def test_ctrl_c_ends_a_thread_that_waits_and_leaves_the_queue_in_order(kind):
    queue = kind(size=1)
    killer = threading.Timer(0.1, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT])
    killer.start()
    with pytest.raises(KeyboardInterrupt):
        queue.get_sync(timeout=30)
    killer.join()
    queue.put_sync(1)
    assert queue.get_sync(timeout=0) == 1


def test_a_coroutine_that_was_forgotten_while_it_waited_takes_its_place_out_of_the_line():
    queue = MemoryQueue(size=1)

    async def forget():
        coroutine = queue.get()
        task = asyncio.ensure_future(coroutine)
        await asyncio.sleep(0)
        assert len(queue._getters) == 1
        task.cancel()

    asyncio.run(forget())
    gc.collect()
    assert not queue._getters


# ---------------------------------------------------------------- multiprocess


def test_nothing_is_opened_before_it_is_used():
    before = leftovers()
    queue = MultiprocessQueue(size=3)
    assert leftovers().no_more_than(before)  # idle threads of earlier tests may end meanwhile
    queue.put_nowait(1)
    assert leftovers().descriptors > before.descriptors
    del queue
    assert leftovers().no_more_than(before)


def test_it_says_where_it_can_be_sent():
    with pytest.raises(QueueNotSentError, match=r"when that is started: Process\(target=..., args=\(queue,\)\)"):
        pickle.dumps(MultiprocessQueue())


_here: list[MultiprocessQueue] = []


def keep(queue):
    _here.append(queue)


def put_here(number):
    _here[0].put_sync(number)
    return number


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_it_is_sent_to_the_processes_of_a_pool_by_its_initargs(method):
    queue = MultiprocessQueue(size=100)
    start = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=start, initializer=keep, initargs=(queue,)) as pool:
        assert [*pool.map(put_here, range(50))] == [*range(50)]
    assert sorted(queue.get_nowait() for _ in range(50)) == [*range(50)]


def test_where_the_system_lacks_what_it_takes_it_says_so_when_it_is_made(monkeypatch):
    monkeypatch.delattr(os, "memfd_create")
    with pytest.raises(UnsupportedError, match="share items here, which takes Linux"):
        MultiprocessQueue()


class Unruly:
    """Pickles, and does not let itself be unpickled."""

    def __reduce__(self):
        return _refuse, ()


def _refuse():
    raise ZeroDivisionError


def test_an_item_that_cannot_be_unpickled_raises_where_it_is_got_and_counts_as_done():
    with MultiprocessQueue() as queue:
        queue.put_nowait(Unruly())
        queue.put_nowait(("x" * 100_000, Unruly()))
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                queue.get_nowait()
        assert queue.tally() == (0, 0, False)


def test_an_item_too_deep_to_pickle_raises_at_put():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with MultiprocessQueue() as queue:
        with pytest.raises(ItemNotSentError):
            queue.put_nowait(deep)
        assert queue.empty()
    while deep:  # or else taking it apart would go as deep
        deep = deep[0]


def test_more_small_items_than_the_ring_holds_are_no_trouble():
    """What finds no room in it has pages of its own."""
    with MultiprocessQueue(size=200) as queue:
        items = [bytes([number % 256]) * 60_000 for number in range(200)]
        for turn in range(3):
            for item in items[turn:]:
                queue.put_nowait(item)
            assert [queue.get_nowait() for _ in items[turn:]] == items[turn:]


def memory_of(queue):
    return os.fstat(queue.open().sent[1]).st_blocks * 512


def test_large_items_that_were_got_take_no_memory():
    with MultiprocessQueue(size=4) as queue:
        for _ in range(20):
            queue.put_nowait(b"x" * 3_000_000)
            assert memory_of(queue) >= 3_000_000
            queue.get_nowait()
        assert memory_of(queue) == 0


def test_small_items_of_a_queue_that_is_emptied_again_and_again_use_the_same_memory():
    with MultiprocessQueue(size=1000) as queue:
        for _ in range(2000):
            queue.put_nowait(b"x" * 1000)
            queue.get_nowait()
        assert os.fstat(queue.open().sent[0]).st_blocks * 512 < 100_000


@contextmanager
def stuck(queue, work):
    """Have a process that holds a lock of the queue, and kill it at the end."""
    started = multiprocessing.get_context("spawn")
    hear, tell = started.Pipe(duplex=False)
    process = started.Process(target=work, args=(queue, tell), daemon=True)
    process.start()
    assert hear.poll(60)
    yield process
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    hear.close()
    tell.close()


def hold_for_ever(descriptor, queue, tell):
    import fcntl

    fcntl.flock(getattr(queue.open(), descriptor), fcntl.LOCK_EX)
    tell.send("locked")
    threading.Event().wait()


@pytest.mark.parametrize("descriptor", ["_putting", "_getting"])
def test_a_process_that_is_killed_while_it_holds_a_lock_gives_it_back(descriptor):
    queue = MultiprocessQueue(size=2)
    queue.put_nowait(1)

    def put_and_get():
        queue.put_sync(2, timeout=60)
        return [queue.get_sync(timeout=60), queue.get_sync(timeout=60)]

    with ThreadPoolExecutor(1) as threads:
        with stuck(queue, partial(hold_for_ever, descriptor)):
            found = threads.submit(put_and_get)
            with pytest.raises(TimeoutError):
                found.result(0.1)
        assert found.result(60) == [1, 2]
    with pytest.raises(QueueEmptyError):
        queue.get_nowait()


KILLED = """
import multiprocessing, os, signal, sys
from dpcore_plugins import MultiprocessQueue

def work(queue, begun):
    begun.send(1)
    queue.get_sync()

if __name__ == "__main__":
    queue = MultiprocessQueue(size=3)
    queue.put_sync(b"x" * 1_000_000)
    queue.put_sync(1)
    spawn = multiprocessing.get_context("spawn")
    hear, tell = spawn.Pipe()
    waiting = MultiprocessQueue(size=3)
    process = spawn.Process(target=work, args=(waiting, tell))
    process.start()
    hear.recv()
    print(process.pid, flush=True)
    os.kill(process.pid, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_nothing_is_left_when_all_are_killed(tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    places = [Path("/dev/shm"), tmp_path / "tmp"]
    places[1].mkdir()
    before = [{*place.iterdir()} for place in places]
    env = {**os.environ, "TMPDIR": str(places[1])}
    done = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [{*place.iterdir()} for place in places][1] == before[1]
    assert not [path for path in {*places[0].iterdir()} - before[0] if "dpcore" in path.name]
