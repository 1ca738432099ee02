"""An executor as a stranger would write it in an afternoon: a process a job, killed when it is cancelled."""

from __future__ import annotations

import multiprocessing
import signal

import anyio

import dpcore
from dpcore.errors import WorkerLostError

FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["tests.adapters.processes", "dpcore.testing.executor", "dpcore_plugins"])


class Processes(dpcore.Executor):
    capabilities = frozenset({"isolates", "kills"})
    slots = 2

    def __init__(self) -> None:
        self._limiter = None

    async def run(self, job, line):
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(self.slots)
        async with self._limiter:
            ours, theirs = FORKSERVER.Pipe(duplex=False)
            process = FORKSERVER.Process(target=perform_and_send, args=(job, theirs))
            with ours:
                process.start()
                theirs.close()
                line.started()
                try:
                    await anyio.wait_readable(ours)
                    return ours.recv()
                except EOFError:
                    process.join()
                    return self.lost(job, process.exitcode)
                finally:
                    self.end(process)

    def lost(self, job, code):
        how = f"exited with code {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"
        return dpcore.Outcome(state=dpcore.State.FAILED, error=WorkerLostError(job.task, how), attempt=job.attempt)

    def end(self, process):
        process.kill()
        process.join()
        process.close()


def perform_and_send(job, connection) -> None:
    """Be the process of one job."""
    connection.send(dpcore.perform(job))
