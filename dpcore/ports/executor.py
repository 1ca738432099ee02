"""Executor: where jobs run."""

from __future__ import annotations

from abc import abstractmethod
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self

from dpcore.events import Event
from dpcore.jobs import Job, Message, Outcome
from dpcore.ports.adapter import Adapter

__all__ = ("Executor", "Line")


class Line(Protocol):
    """The runner's side of one running job."""

    @property
    def over(self) -> bool:
        """Whether nobody waits for the job any more: it was given up, and what it still makes is not stored."""

    output: str
    """What a job that was cancelled had printed, set by an executor that knows it before ``run`` ends."""

    def started(self) -> None:
        """Say that the job's code begins now: state ``running`` and its timeout count from here.

        Call it once, on the event loop or in the thread that runs the job.  A job of
        an executor that never says so is taken to have started when it was given.
        """

    def publish(self, event: Event) -> None:
        """Publish what the job's code wants to have published at once, from its thread or from the event loop.

        In a thread this returns when the broker has the event, and raises what it raises.
        """

    def send(self, message: Message) -> None:
        """Tell the runner something of the running job, from any thread; never waits (capability ``streams``).

        What a job says that was given up is dropped.  What it says before its outcome must come before it.
        """

    async def receive(self) -> Message:
        """Wait on an event loop for what the runner says to the running job (capability ``streams``).

        Messages come in order, each once.  Raises :class:`RuntimeError` once the job is given up.
        """

    def receive_sync(self, *, wait: bool = True) -> Message | None:
        """Wait in a thread for what the runner says; None if *wait* is False and there is nothing yet."""


class Executor(Adapter):
    """Runs jobs: in this process, in others, or on other machines.

    Capabilities:

    - ``kills``: a timeout or a cancellation really stops the code, also sync code;
    - ``isolates``: jobs run in other processes, so that a crash of a task is not a crash of
      the program, and nothing that is kept in this process's memory is seen by them;
    - ``streams``: it passes messages between the runner and a running job, so that tasks can
      read the items of a stream while they are being made; elsewhere they wait for its end;
    - ``remote``: jobs run on other machines.

    An executor is an async context manager: what it starts, it starts when it is
    entered and has ended when it is left, on every way out.
    """

    capabilities: ClassVar[frozenset[str]] = frozenset()
    plugins: Any = None
    """The plugins of the app that has it, set by the app.  They pickle: an executor with processes of its own has
    ``plugins.live("dpcore_worker_started", WorkerInfo(...))`` called in each of them before the first job, and
    ``dpcore_worker_stopping`` after the last; nothing is looked for there."""

    tells: bool = False
    """Whether it has ever said of a job that it begins; set by the runner."""

    @property
    @abstractmethod
    def slots(self) -> int:
        """How many jobs really run at once, at least 1."""

    @property
    def window(self) -> int:
        """How many jobs it may be given at once, at least :attr:`slots`; more than that only hides waiting times.

        A job that was given is out of reach of priorities, shares between runs and limits by tag,
        and is shown as running; so let it be more only for what is done in a moment.  It may change
        while jobs run: it is looked at before each job is given, so it must cost nothing to say.
        What was given before is not taken back when it shrinks.  Each of several runs is given one
        job at least, so there may be more of them.
        """
        return self.slots

    @property
    def in_process(self) -> bool:
        """Whether jobs run in this process and so see its memory."""
        return not self.capabilities & {"isolates", "remote"}

    @abstractmethod
    async def run(self, job: Job, line: Line) -> Outcome:
        """Have *job* done, and say how it went.

        The work itself is :func:`dpcore.perform` (or :func:`dpcore.perform_async`),
        which never raises, and which calls ``line.started()`` if it is given the line; an
        executor that returns what it returns is whole.  Jobs and outcomes pickle.  Where
        ``perform(job)`` runs in another process, without a line, call ``line.started()``
        here.  A job whose process dies is a failed outcome like any other.  Timeouts and
        retries are the runner's: it cancels this call, and calls again.

        Cancelling this call cancels the job: a job that was given and has not
        started never will, a running one is stopped if the executor ``kills``, and
        left to itself otherwise.  What this raises counts as a failed attempt.
        """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop every job that still runs as far as the executor can, and leave nothing behind."""
