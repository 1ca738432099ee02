"""Executors that break one promise each, for test_executor_suite.py: not collected by itself."""

from __future__ import annotations

import threading
from functools import partial

import anyio
from anyio import to_thread

import dpcore
from dpcore import Outcome, Ref, State
from dpcore.testing import ExecutorConformance


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


def suite_of(kind):
    class Suite(ExecutorConformance):
        examples = 5
        patience = 2

        def make(self, tmp_path):
            return kind()

    Suite.__name__ = Suite.__qualname__ = f"Test{kind.__name__}"
    return Suite


KINDS = [kind for kind in [*globals().values()] if isinstance(kind, type) and issubclass(kind, Good)]
globals().update({f"Test{kind.__name__}": suite_of(kind) for kind in KINDS})
