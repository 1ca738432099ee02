"""Executors that break one promise each, for test_executor_suite.py: not collected by itself."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from functools import partial

import anyio
import msgspec
from anyio import to_thread

import dpcore
from dpcore import Items, Outcome, Ref, State
from dpcore.errors import WorkerLostError
from dpcore.jobs import Enough, Room, Stored
from dpcore.testing import ExecutorConformance
from tests.adapters.processes import Processes


class Good(dpcore.Executor):
    """Keeps every promise; each of the others changes one thing."""

    slots = 3

    def __init__(self) -> None:
        self.limiter = None

    async def run(self, job, line):
        return await self.perform(job, line)

    async def perform(self, job, line):
        if self.limiter is None:
            self.limiter = anyio.CapacityLimiter(self.slots)
        in_thread = partial(to_thread.run_sync, abandon_on_cancel=True, limiter=self.limiter)
        return await dpcore.perform_async(job, line, in_thread=in_thread)


class SwallowsErrors(Good):
    async def run(self, job, line):
        outcome = await self.perform(job, line)
        return Outcome(state=State.SUCCEEDED, result=job.ref, attempt=job.attempt) if outcome.error else outcome


class RaisesErrors(Good):
    async def run(self, job, line):
        outcome = await self.perform(job, line)
        if isinstance(outcome.error, Exception):
            raise outcome.error
        return outcome


class MixesOutcomes(Good):
    """Gives each job the outcome of the one before."""

    last = None

    async def run(self, job, line):
        outcome = await self.perform(job, line)
        previous, self.last = self.last, outcome
        return previous if previous is not None and job.task.startswith("t") else outcome


class RunsTheSeventhTwice(Good):
    number = 0

    async def run(self, job, line):
        self.number += 1
        if self.number % 7 == 0:
            await self.perform(job, line)
        return await self.perform(job, line)


class NeverSaysThatItStarts(Good):
    async def run(self, job, line):
        return await self.perform(job, None)


class TakesTooMany(Good):
    """Says that it has three slots and runs all it is given."""

    window = 9

    async def run(self, job, line):
        self.limiter = self.limiter or anyio.CapacityLimiter(100)
        return await self.perform(job, line)


class OneAtATime(Good):
    """Says that it has three slots and has one."""

    async def run(self, job, line):
        self.limiter = self.limiter or anyio.CapacityLimiter(1)
        return await self.perform(job, line)


class SaysThatItKills(Good):
    capabilities = frozenset({"kills"})


class SaysThatItIsElsewhere(Good):
    capabilities = frozenset({"remote"})


class ForgetsTheAttempt(Good):
    async def run(self, job, line):
        outcome = await self.perform(job, line)
        if isinstance(outcome.result, Ref):
            return Outcome(state=outcome.state, result=Ref(job.run_id, job.task, "1"), attempt=1)
        return outcome


class LeaksAThread(Good):
    async def __aenter__(self):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        return self


class LosesAnOutcome(Good):
    """Of the 400th job there is nothing more to hear."""

    number = 0

    async def run(self, job, line):
        self.number += 1
        outcome = await self.perform(job, line)
        if self.number == 400:
            await anyio.sleep_forever()
        return outcome


class GivesAnOutcomeTwice(Good):
    """The 400th job is given that of the one before."""

    number, last = 0, None

    async def run(self, job, line):
        self.number += 1
        outcome = await self.perform(job, line)
        previous, self.last = self.last, outcome
        return previous if self.number == 400 else outcome


class LosesASlotToWhoIsCancelled(Good):
    """Who is cancelled while it runs does not give its slot back."""

    async def run(self, job, line):
        if self.limiter is None:
            self.limiter = anyio.Semaphore(self.slots)
        await self.limiter.acquire()
        in_thread = partial(to_thread.run_sync, abandon_on_cancel=True)
        outcome = await dpcore.perform_async(job, line, in_thread=in_thread)
        self.limiter.release()
        return outcome


class ForgetsThatItWasTakenBack(Good):
    """Runs what was cancelled a second time, behind everybody's back."""

    async def run(self, job, line):
        try:
            return await self.perform(job, line)
        except BaseException:
            threading.Thread(target=dpcore.perform, args=[job]).start()
            raise


class LooksAtWhatWasStored(Good):
    async def run(self, job, line):
        outcome = await self.perform(job, line)
        if isinstance(outcome.result, Ref):
            job.io.load(outcome.result)
        return outcome


class RefusesWhatIsHuge(Good):
    async def run(self, job, line):
        if any(len(value) > 1_000_000 for value in job.arguments.values() if isinstance(value, bytes)):
            return Outcome(state=State.FAILED, error=ValueError("too much"), attempt=job.attempt)
        return await self.perform(job, line)


class FallsWithItsJobs(Good):
    """Knows exceptions, and nothing else that can be raised."""

    async def run(self, job, line):
        outcome = await self.perform(job, line)
        if outcome.error is not None and not isinstance(outcome.error, Exception):
            raise outcome.error
        return outcome


class StopsAtABadItem(Good):
    """Takes the items before one that cannot be stored for all there are."""

    async def run(self, job, line):
        outcome = await self.perform(job, line)
        if job.streams and isinstance(outcome.error, TypeError):
            return Outcome(state=State.SUCCEEDED, result=Items(job.run_id, job.task, 1), attempt=job.attempt)
        return outcome


class LeaksADescriptor(Good):
    """One for each failure."""

    async def run(self, job, line):
        outcome = await self.perform(job, line)
        if outcome.error is not None:
            os.dup(0)
        return outcome


class LeaksATemporaryFile(Good):
    async def run(self, job, line):
        file, _ = tempfile.mkstemp()
        os.close(file)
        return await self.perform(job, line)


def started(*command):
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


class LeaksAProcess(Good):
    async def __aenter__(self):
        self.left = started("sleep", "20")
        return self


class LeaksAGrandchild(Good):
    """Nobody's child any more when the executor is left."""

    async def __aenter__(self):
        command = (
            "import subprocess, sys; subprocess.Popen(['sleep', '20'], stdin=-3, stdout=-3); print(); sys.stdin.read()"
        )
        self.child = started(sys.executable, "-uc", command)
        self.child.stdout.readline()
        return self

    async def __aexit__(self, *_):
        self.child.communicate()


# ---------------------------------------------------------------- in other processes


class GoodInProcesses(Processes):
    """Keeps every promise, too; each of the others changes one thing."""


class NamesNoSignal(Processes):
    def lost(self, job, code):
        return Outcome(state=State.FAILED, error=RuntimeError("the process has died"), attempt=job.attempt)


class WaitsForTheDead(Processes):
    async def run(self, job, line):
        outcome = await super().run(job, line)
        if isinstance(outcome.error, WorkerLostError):
            await anyio.sleep_forever()
        return outcome


class TakesTheSiblingsAlong(Processes):
    """Ends all processes where one has died."""

    def __init__(self):
        super().__init__()
        self.scopes = set()

    async def run(self, job, line):
        with anyio.CancelScope() as scope:
            self.scopes.add(scope)
            outcome = await super().run(job, line)
            self.scopes.discard(scope)
            if isinstance(outcome.error, WorkerLostError):
                for sibling in self.scopes:
                    sibling.cancel()
            return outcome
        return self.lost(job, -9)


class AsksToEnd(Processes):
    """Says SIGTERM, and leaves it at that."""

    def end(self, process):
        process.terminate()


class LeavesItRunning(Processes):
    """Stops nothing that is cancelled or takes too long."""

    def end(self, process):
        pass


# ---------------------------------------------------------------- messages


class Streams(Good):
    """Passes messages, as it should; each of the next changes one thing about that."""

    capabilities = frozenset({"streams"})
    Between = None

    async def run(self, job, line):
        return await self.perform(job, self.Between(line) if self.Between is not None and job.talks else line)


class _Between:
    """A line that passes on what it is told."""

    def __init__(self, line):
        self.line = line

    def __getattr__(self, name):
        return getattr(self.line, name)


class LosesTheLastItem(Streams):
    class Between(_Between):
        def send(self, message):
            if message != Stored(20):
                self.line.send(message)


class TellsBeforeItIsStored(Streams):
    class Between(_Between):
        def send(self, message):
            self.line.send(Stored(message.count + 1) if isinstance(message, Stored) else message)


class TellsWhenItIsOver(Streams):
    """Keeps what a job says until its end."""

    async def run(self, job, line):
        kept = []
        between = _Between(line)
        between.send = kept.append
        outcome = await self.perform(job, between if job.talks else line)
        for message in kept:
            line.send(message)
        return outcome


class TellsOutOfOrder(Streams):
    class Between(_Between):
        kept = None

        def send(self, message):
            if isinstance(message, Stored) and self.kept is None:
                self.kept = message
            else:
                self.line.send(message)
                if self.kept is not None:
                    self.kept, kept = None, self.kept
                    self.line.send(kept)


class HasRoomForAll(Streams):
    async def run(self, job, line):
        return await self.perform(job if job.room is None else msgspec.structs.replace(job, room=10_000), line)


class DoesNotHearThatItIsEnough(Streams):
    class Between(_Between):
        def receive_sync(self, *, wait=True):
            message = self.line.receive_sync(wait=wait)
            return Room(10) if isinstance(message, Enough) else message


class MixesTheLines(Streams):
    """Gives what is said to one job to whichever asks first."""

    def __init__(self):
        super().__init__()
        self.lines = []

    async def run(self, job, line):
        self.lines.append(line)
        between = _Between(line)
        if job.talks and len(self.lines) > 1:
            between.send = self.lines[-2].send
        return await self.perform(job, between)


class KeepsTheSlotOfWhoWaits(Streams):
    """Has a job that was cancelled while it waits keep its place for good."""

    async def run(self, job, line):
        self.limiter = self.limiter or anyio.CapacityLimiter(self.slots)
        if not job.talks:
            return await self.perform(job, line)
        self.places = getattr(self, "places", None) or anyio.Semaphore(self.slots)
        await self.places.acquire()
        outcome = await self.perform(job, line)
        self.places.release()
        return outcome


SOUND = (Good, GoodInProcesses, Streams)


def suite_of(kind):
    class Suite(ExecutorConformance):
        examples = 5
        many = 500 if issubclass(kind, Good) else 100  # of which each is a process
        patience = 2 if kind not in SOUND else 30
        backends = ("asyncio", "trio") if issubclass(kind, Good) else ("asyncio",)

        def make(self, tmp_path):
            return kind()

    Suite.__name__ = Suite.__qualname__ = f"Test{kind.__name__}"
    return Suite


KINDS = [kind for kind in [*globals().values()] if isinstance(kind, type) and issubclass(kind, (Good, Processes))]
globals().update({f"Test{kind.__name__}": suite_of(kind) for kind in KINDS})
