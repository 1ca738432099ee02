"""The line of a job as the job has it, in its worker."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable
from itertools import count
from socket import socket
from typing import Protocol

import anyio
import msgspec

from dpcore import Event, Job
from dpcore.jobs import Message
from dpcore_plugins.executors.multiprocess.wire import BEGUN, MESSAGE, PUBLISH, frame

__all__ = ("JobLine", "packed", "unpacked")

packed = msgspec.msgpack.Encoder().encode
unpacked: Callable[[bytes], Message] = msgspec.msgpack.Decoder(Message).decode


class Channel(Protocol):
    """What a line needs of its worker."""

    channel: socket
    is_stopping: bool

    def say(self, said: bytes) -> None:
        """Send a frame."""

    def read(self) -> None:
        """Take in what has arrived."""

    def wait_for(self, is_there: Callable[[], object]) -> None:
        """Take in what arrives until that is so."""


class JobLine:
    """What a job says goes to the program at once; what it is told is taken in when it waits for something.

    Whoever waits hears everything that comes: also what is for the worker, or for
    another thread of the job.  A SIGTERM ends the wait, and so does the end of the program.
    """

    __slots__ = ("_answers", "_asked", "_is_async", "_is_over", "_is_timed", "_number", "_said", "_worker", "output")

    def __init__(self, worker: Channel, number: int, job: Job) -> None:
        self._worker, self._number = worker, number
        self._is_timed, self._is_async = job.timeout is not None, job.is_async
        self._is_over = False
        self.output = ""  # of which only the program knows
        self._said: deque[Message] = deque()
        self._answers: dict[int, Exception | None] = {}
        self._asked = count(1)

    @property
    def over(self) -> bool:
        """Whether the job was told to end, or has ended."""
        return self._is_over or self._worker.is_stopping

    def started(self) -> None:
        """Say that the job begins, if somebody measures its time: else it follows from the end of the one before."""
        if self._is_timed:
            self._worker.say(frame(BEGUN, self._number))

    def end(self) -> None:
        """Say and hear nothing more: a thread that the job has left behind may still try."""
        self._is_over = True

    # ---------------------------------------------------------------- live streams

    def send(self, message: Message) -> None:
        """Tell the runner something."""
        if not self.over:
            self._worker.say(frame(MESSAGE, self._number, packed(message)))

    def tell(self, number: int, body: bytes) -> None:
        """Take in what the runner says to the job of that number, if it is this."""
        if number == self._number:
            self._said.append(unpacked(body))

    async def receive(self) -> Message:
        """Wait on the job's event loop."""
        while (message := self.receive_sync(wait=False)) is None:
            await anyio.wait_readable(self._worker.channel)
        return message

    def receive_sync(self, *, wait: bool = True) -> Message | None:
        """Wait in any thread; with *wait* False, return None if nothing has arrived."""
        if not self._said:
            if wait:
                self._worker.wait_for(lambda: self._said or self.over)
            else:
                self._worker.read()
        if self._said:
            return self._said.popleft()
        self._check("there is nothing more to hear")
        return None

    # ---------------------------------------------------------------- events

    def publish(self, event: Event) -> None:
        """Have the program publish *event*; wait until the broker has it, unless that would hold up an event loop."""
        self._check(f"nothing was published on {event.topic!r}")
        question = 0 if self._is_async else next(self._asked)
        self._worker.say(frame(PUBLISH, self._number, pickle.dumps((question, event))))
        if question:
            self._worker.wait_for(lambda: question in self._answers or self.over)
            if question not in self._answers:
                self._check(f"nobody knows whether it was published on {event.topic!r}")
            if (error := self._answers.pop(question)) is not None:
                raise error

    def answer(self, number: int, body: bytes) -> None:
        """Take in what became of something that the job of that number wanted to have published."""
        if number == self._number:
            question, error = pickle.loads(body)
            self._answers[question] = error

    def _check(self, consequence: str) -> None:
        if self.over:
            raise RuntimeError(f"the job was given up, so {consequence}")
