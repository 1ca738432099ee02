"""The executors that ship, and one in other processes, under the suite of their port."""

from __future__ import annotations

import anyio
import pytest
from anyio import to_process

import dpcore
from dpcore.testing import ExecutorConformance
from dpcore_plugins import InlineExecutor, ThreadsExecutor


class TestInline(ExecutorConformance):
    def make(self, tmp_path):
        return InlineExecutor()


class TestThreads(ExecutorConformance):
    def make(self, tmp_path):
        return ThreadsExecutor(slots=3)


class Processes(dpcore.Executor):
    """What a stranger would write in an afternoon: a process a job at a time, killed when it is cancelled."""

    capabilities = frozenset({"isolates", "kills"})
    slots = 2

    def __init__(self) -> None:
        self._limiter = None

    async def run(self, job, line):
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(self.slots)
        async with self._limiter:
            line.started()
            try:
                return await to_process.run_sync(dpcore.perform, job, cancellable=True)
            except to_process.BrokenWorkerProcess as error:
                return dpcore.Outcome(state=dpcore.State.FAILED, error=error, attempt=job.attempt)


class TestProcesses(ExecutorConformance):
    backends = ("asyncio",)
    examples = 2  # each starts processes of its own

    def make(self, tmp_path):
        return Processes()


@pytest.mark.parametrize("slots", [0, -1])
def test_threads_without_a_slot_are_refused(slots):
    with pytest.raises(ValueError, match=f"slots={slots} must be at least 1"):
        ThreadsExecutor(slots=slots)


def test_the_default_number_of_threads_is_bounded():
    assert 5 <= ThreadsExecutor().slots <= 32
