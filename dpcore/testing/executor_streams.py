"""The promises of an executor that passes messages to its jobs and from them (capability ``streams``)."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import cast

import anyio
from anyio import from_thread, to_thread
from anyio.lowlevel import EventLoopToken, current_token

from dpcore.jobs import Enough, Items, Job, Message, Outcome, Reading, Ref, Room, State, Stored, Stream, There
from dpcore.ports import Executor, IOManager
from dpcore.testing.executor_jobs import FolderIO, JobSuite, Recorder

__all__ = ("Streaming",)


# ---------------------------------------------------------------- what the jobs do; every process can import it


def endless() -> Iterator[int]:
    """Yield all numbers."""
    yield from itertools.count()


async def endless_async() -> AsyncIterator[int]:
    """Yield all numbers, letting others go on before each."""
    for number in itertools.count():
        await anyio.lowlevel.checkpoint()
        yield number


def some(n: int) -> Iterator[int]:
    """Yield the numbers below *n*."""
    yield from range(n)


async def some_async(n: int) -> AsyncIterator[int]:
    """Yield the numbers below *n*, letting others go on before each."""
    for number in range(n):
        await anyio.lowlevel.checkpoint()
        yield number


def read(numbers: Iterator[int]) -> list[int]:
    """Return what comes."""
    return list(numbers)


async def read_async(numbers: AsyncIterator[int]) -> list[int]:
    """Return what comes."""
    return [number async for number in numbers]


def doubled(numbers: Iterator[int]) -> Iterator[int]:
    """Yield twice what comes."""
    for number in numbers:
        yield 2 * number


async def doubled_async(numbers: AsyncIterator[int]) -> AsyncIterator[int]:
    """Yield twice what comes."""
    async for number in numbers:
        yield 2 * number


class Talker(Recorder):
    """The runner's side of one job that talks: *answers* says what it is told on each thing that it says."""

    def __init__(self, answers: Callable[[Talker, Message], None] | None = None) -> None:
        super().__init__()
        self.said: list[Message] = []
        self._answers = answers
        self._told: deque[Message] = deque()
        self._changed = threading.Condition()
        self._event = anyio.Event()
        self._thread = threading.get_ident()
        self._token: EventLoopToken = current_token()

    def send(self, message: Message) -> None:
        """Take in what the job says, and answer it."""
        with self._changed:
            self.late = self.late or self.ended
            self.said.append(message)
        if self._answers is not None:
            self._answers(self, message)

    def tell(self, message: Message) -> None:
        """Say something to the job."""
        with self._changed:
            self._told.append(message)
        self._wake()

    def close(self) -> None:
        """Let nobody wait any more: the job is over, or was given up."""
        self.over = True
        self._wake()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
        if threading.get_ident() == self._thread:
            self._event.set()
        else:
            from_thread.run_sync(self._event.set, token=self._token)

    async def receive(self) -> Message:
        """Wait on an event loop for what the job is told."""
        if threading.get_ident() != self._thread:
            return cast(Message, await to_thread.run_sync(self.receive_sync))
        while (message := self.receive_sync(wait=False)) is None:
            await self._event.wait()
            self._event = anyio.Event()
        return message

    def receive_sync(self, *, wait: bool = True) -> Message | None:
        """Wait in a thread for what the job is told."""
        with self._changed:
            while not self._told:
                if self.over:
                    raise RuntimeError("the job was given up, so there is nothing more to hear")
                if not wait:
                    return None
                self._changed.wait()
            return self._told.popleft()


class Streaming(JobSuite, suite=True):
    """What holds where a running job talks with the runner; the suite plays the runner."""

    async def talk(self, executor: Executor, job: Job, line: Talker) -> Outcome:
        """Have a job done that talks, within bounds; whoever waits then is told that it is over."""
        try:
            with anyio.fail_after(self.patience):
                outcome = await executor.run(job, line)
            line.ended = True
        finally:
            line.close()
        assert not line.late, "something was said after the outcome"
        return outcome

    def reader(self, tmp_path: Path, call: Callable[..., object], up: str, task: str = "t", **fields: object) -> Job:
        """Return a job that reads the stream of *up* while that is made."""
        is_async = call.__name__.endswith("_async")
        stream = Stream(Items("r1", up, 0), "async" if is_async else "iterator", live=True)
        return self.job(tmp_path, call, task, inputs={"numbers": stream}, **fields)

    async def test_what_is_said_of_a_stream_is_so_when_it_is_said(self, tmp_path: Path) -> None:
        """Each item is stored before it is told of, they are told of in order, and all of them before the outcome."""
        async with self.make(tmp_path) as executor:
            self.needs(executor, "streams")
            for call in (some, some_async):
                job = self.job(tmp_path, call, call.__name__, arguments={"n": 20}, streams=True, room=1000)
                there: list[bool] = []
                line = Talker(lambda _, message: there.append(_is_stored(job, message)))  # noqa: B023
                outcome = await self.talk(executor, job, line)
                counts = [message.count for message in line.said if isinstance(message, Stored)]
                assert counts == sorted(counts)
                assert counts[-1:] == [20]
                assert all(there), "an item was told of that nobody can load yet"
                assert self.loaded(tmp_path, outcome) == [*range(20)]

    async def test_a_producer_makes_no_more_than_there_is_room_for(self, tmp_path: Path) -> None:
        """It waits until it is told of further room, and then goes on."""
        async with self.make(tmp_path) as executor:
            self.needs(executor, "streams")
            for call in (some, some_async):
                full, outcomes = anyio.Event(), []
                job = self.job(tmp_path, call, call.__name__, arguments={"n": 12}, streams=True, room=2)
                line = Talker(_ringing(full, 2))

                async def produce() -> None:
                    outcomes.append(await self.talk(executor, job, line))  # noqa: B023

                with anyio.fail_after(self.patience):
                    async with anyio.create_task_group() as group:
                        group.start_soon(produce)
                        await full.wait()
                        if executor.slots > 1:  # while another one makes many
                            other = self.job(
                                tmp_path, call, f"other-{call.__name__}", arguments={"n": 50}, streams=True
                            )
                            await self.must_succeed(executor, other)
                        assert line.said == [Stored(1), Stored(2)]
                        line.tell(Room(100))
                assert self.loaded(tmp_path, outcomes[0]) == [*range(12)]

    async def test_a_producer_that_hears_that_it_is_enough_has_succeeded(self, tmp_path: Path) -> None:
        """With the items that it had made."""
        async with self.make(tmp_path) as executor:
            self.needs(executor, "streams")
            for call in (endless, endless_async):
                line = Talker(lambda line, message: line.tell(Enough()) if message == Stored(3) else None)
                job = self.job(tmp_path, call, call.__name__, streams=True, room=3)
                outcome = await self.talk(executor, job, line)
                assert self.loaded(tmp_path, outcome) == [0, 1, 2]

    async def test_a_stream_is_read_while_it_is_made(self, tmp_path: Path) -> None:
        """An item is made only when the job has asked for it, so nobody can have waited for the end."""
        async with self.make(tmp_path) as executor:
            self.needs(executor, "streams")
            for call in (read, read_async):
                job = self.reader(tmp_path, call, f"up-{call.__name__}", call.__name__)
                outcome = await self.talk(executor, job, Talker(_making(job.io, f"up-{call.__name__}", 5)))
                assert self.loaded(tmp_path, outcome) == [*range(5)]

    async def test_an_empty_stream_ends(self, tmp_path: Path) -> None:
        """It is told that there is nothing, and has succeeded."""
        async with self.make(tmp_path) as executor:
            self.needs(executor, "streams")
            for call in (read, read_async):
                job = self.reader(tmp_path, call, f"up-{call.__name__}", call.__name__)
                outcome = await self.talk(executor, job, Talker(_making(job.io, f"up-{call.__name__}", 0)))
                assert self.loaded(tmp_path, outcome) == []

    async def test_a_job_reads_one_stream_and_feeds_another(self, tmp_path: Path) -> None:
        """What it makes of an item is told of before it asks for the next."""
        async with self.make(tmp_path) as executor:
            self.needs(executor, "streams")
            for call in (doubled, doubled_async):
                up = f"up-{call.__name__}"
                job = self.reader(tmp_path, call, up, call.__name__, streams=True, room=100)
                line = Talker(_making(job.io, up, 4))
                outcome = await self.talk(executor, job, line)
                assert self.loaded(tmp_path, outcome) == [0, 2, 4, 6]
                said = [
                    message for message in line.said if isinstance(message, Stored) or getattr(message, "waits", False)
                ]
                assert said == [
                    message
                    for at in range(5)
                    for message in ([Stored(at)] if at else []) + [Reading(up, at, waits=True)]
                ]

    async def test_what_is_said_to_one_job_is_not_heard_by_another(self, tmp_path: Path) -> None:
        """Several that run at once get each its own items, in order."""
        async with self.make(tmp_path) as executor:
            self.needs(executor, "streams")
            lengths: dict[int, list[int]] = {}

            async def one(number: int) -> None:
                call = read_async if number % 2 else read
                job = self.reader(tmp_path, call, f"up{number}", f"t{number}")
                outcome = await self.talk(executor, job, Talker(_making(job.io, f"up{number}", number)))
                lengths[number] = self.loaded(tmp_path, outcome)

            await self.side_by_side(executor, tmp_path, one, 12)
            assert lengths == {number: [*range(number)] for number in range(12)}

    async def test_a_job_that_waits_and_is_cancelled_gives_its_slot_back(self, tmp_path: Path) -> None:
        """One that waits for an item and one that waits for room; then as many as there are slots run to their ends."""
        async with self.make(tmp_path) as executor:
            self.needs(executor, "streams")
            for call in (read, read_async, endless, endless_async):
                waits = anyio.Event()
                heard = _ringing(waits)
                if "numbers" in call.__annotations__:
                    job = self.reader(tmp_path, call, "nothing", call.__name__)
                else:
                    job = self.job(tmp_path, call, call.__name__, streams=True, room=1)
                line = Talker(heard)
                with anyio.fail_after(self.patience):
                    async with anyio.create_task_group() as group:
                        group.start_soon(executor.run, job, line)
                        await waits.wait()
                        group.cancel_scope.cancel()
                line.close()

            async def one(number: int) -> None:
                job = self.job(tmp_path, some, f"after{number}", arguments={"n": 3}, streams=True, room=10)
                assert (await self.talk(executor, job, Talker())).state is State.SUCCEEDED

            await self.side_by_side(executor, tmp_path, one, executor.slots)


def _is_stored(job: Job, message: Message) -> bool:
    if not isinstance(message, Stored):
        return True
    return cast(IOManager, job.io).exists(Ref(job.run_id, job.task, f"{job.attempt}-{message.count - 1:08d}"))


def _making(io: object, up: str, many: int) -> Callable[[Talker, Message], None]:
    """Return what makes an item of *up* each time that a job waits for one, so many in all."""

    def answer(line: Talker, message: Message) -> None:
        if isinstance(message, Reading) and message.waits:
            assert message.task == up
            assert isinstance(io, FolderIO)
            if message.index < many:
                io.save(Items("r1", up, many).at(message.index), message.index)
            line.tell(There(up, min(many, message.index + 1), ended=message.index >= many))

    return answer


def _ringing(waits: anyio.Event, count: int = 1) -> Callable[[Talker, Message], None]:
    """Return what rings when a job has come to where it must wait: for an item, or when it has stored so many."""
    thread, token = threading.get_ident(), current_token()

    def answer(_: Talker, message: Message) -> None:
        if message == Stored(count) or (isinstance(message, Reading) and message.waits):
            if threading.get_ident() == thread:
                waits.set()
            else:
                from_thread.run_sync(waits.set, token=token)

    return answer
