"""Gives jobs to worker processes as a runner would."""

from __future__ import annotations

from pathlib import Path

import anyio

from dpcore import Job, State
from dpcore.functions import Function
from dpcore.testing.executor import Recorder
from dpcore_plugins import FilesystemIO, MultiprocessExecutor
from dpcore_plugins.executors.multiprocess.pool import AHEAD
from tests.adapters import dying

PATIENCE = 30.0


class Bench:
    """Gives jobs to an executor, and loads what they gave."""

    def __init__(self, executor: MultiprocessExecutor, folder: Path) -> None:
        self.executor, self.folder = executor, folder
        self.io = FilesystemIO(path=folder / "results")
        self.count = 0

    def job(self, call, **arguments) -> Job:
        self.count += 1
        fields = {"is_async": call.__name__.endswith("_async"), "streams": call is dying.stay_generating}
        return Job(
            run_id="r", task=f"t{self.count}", function=Function(call), io=self.io, arguments=arguments, **fields
        )

    async def outcome(self, call, **arguments):
        with anyio.fail_after(PATIENCE):
            return await self.executor.run(self.job(call, **arguments), Recorder())

    async def value(self, call, **arguments):
        outcome = await self.outcome(call, **arguments)
        assert outcome.state is State.SUCCEEDED, outcome.error
        return self.io.load(outcome.result)

    async def warm_up(self) -> None:
        """Do short jobs until so many more are wanted that some are sent ahead."""
        with anyio.fail_after(PATIENCE):
            while self.executor.window < self.executor.workers * (1 + AHEAD):
                await self.outcome(dying.pid)

    async def begun(self, many: int = 1) -> list[int]:
        """Wait until so many jobs have begun; return their processes."""
        with anyio.fail_after(PATIENCE):
            while len(found := [*self.folder.glob("*.begun")]) < many:
                await anyio.sleep(0.001)
        return [int(file.stem) for file in found]
