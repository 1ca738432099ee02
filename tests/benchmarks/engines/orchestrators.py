"""Engines that record what they do, as dpcore does."""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import tempfile
from pathlib import Path
from typing import Any, Self

from tests.benchmarks.engines import work
from tests.benchmarks.engines.graphs import Engine


class Prefect(Engine):
    """A flow whose tasks run in threads, beside the server that it starts for itself."""

    name = "Prefect, threads and its own server"

    def __enter__(self) -> Self:
        self._home = tempfile.mkdtemp()
        os.environ.update(
            PREFECT_HOME=self._home, PREFECT_LOGGING_LEVEL="ERROR", PREFECT_SERVER_ANALYTICS_ENABLED="false",
            PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="120", DO_NOT_TRACK="1",
        )  # fmt: skip
        import prefect
        from prefect.testing.utilities import prefect_test_harness

        self._prefect: Any = prefect
        self._server = prefect_test_harness(server_startup_timeout=120)
        self._server.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.__exit__(*error)  # type: ignore[arg-type]
        shutil.rmtree(self._home, ignore_errors=True)

    def prepare(self, shape: str, size: int) -> None:
        """Make the flow of that shape, and run it once."""
        task, flow = self._prefect.task, self._prefect.flow
        one, same, joined, array, first = map(task, (work.one, work.same, work.joined, work.array, work.first))

        def wide(size: int) -> int:
            made = [one.submit() for _ in range(size)]
            return int(joined.submit(wait_for=made).result())

        def chain(size: int) -> int:
            value = one.submit()
            for _ in range(1, size):
                value = same.submit(value)
            return int(value.result())

        def arrays(size: int) -> int:
            read = [first.submit(made) for made in [array.submit() for _ in range(size // 2)]]
            return sum(value.result() == 0.0 for value in read)

        self._flow = flow({"wide": wide, "chain": chain, "arrays": arrays}[shape])
        self._flow(2)

    def wide(self, size: int) -> int:
        return int(self._flow(size))

    chain = arrays = wide


class Dagster(Engine):
    """A job on an instance of its own, in one process: each step in a process of its own takes seconds."""

    name = "Dagster, in one process"

    def __enter__(self) -> Self:
        logging.getLogger("dagster").setLevel(logging.ERROR)
        return self

    def prepare(self, shape: str, size: int) -> None:
        """Build the job."""
        from dagster import In, Nothing, job, op

        silent: Any = {"config": {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}}

        def made(function: Any, name: str, **ins: Any) -> Any:
            # Without its annotations: Dagster would resolve them, and they say nothing of time.
            def body(x: Any) -> Any:
                return function(x)

            def source() -> Any:
                return function()

            return op(name=name, ins=ins)(body if "x" in ins else source)

        @job(name=shape, **silent)
        def whole() -> None:
            if shape == "wide":
                parts = [made(work.one, f"t{number}")() for number in range(size)]
                made(work.one, "joined", after=In(Nothing))(after=parts)
            elif shape == "chain":
                value = made(work.one, "t0")()
                for number in range(1, size):
                    value = made(work.same, f"t{number}", x=In())(value)
            else:
                for number in range(size // 2):
                    made(work.first, f"b{number}", x=In())(made(work.array, f"a{number}")())

        self._job: Any = whole

    def wide(self, size: int) -> int:
        return int(self._job.execute_in_process().output_for_node("joined"))

    def chain(self, size: int) -> int:
        return int(self._job.execute_in_process().output_for_node(f"t{size - 1}"))

    def arrays(self, size: int) -> int:
        done = self._job.execute_in_process()
        return sum(done.output_for_node(f"b{number}") == 0.0 for number in range(size // 2))


class Luigi(Engine):
    """Its local scheduler, with a process for each task, whose results are files."""

    name = "Luigi"

    def __enter__(self) -> Self:
        logging.getLogger("luigi").setLevel(logging.ERROR)
        logging.getLogger("luigi-interface").setLevel(logging.ERROR)
        return self

    def prepare(self, shape: str, size: int) -> None:
        """Nothing can be made before: what is complete is not run again."""

    def _run(self, shape: str, size: int) -> Any:
        import luigi

        folder = Path(tempfile.mkdtemp())
        try:
            last = Step(shape=shape, size=size, number=size, folder=str(folder))
            assert luigi.build(
                [last], local_scheduler=True, workers=self._workers, log_level="ERROR", no_lock=True
            )  # fmt: skip
            return last.value()
        finally:
            shutil.rmtree(folder)

    def wide(self, size: int) -> int:
        return int(self._run("wide", size))

    def chain(self, size: int) -> int:
        return int(self._run("chain", size))

    def arrays(self, size: int) -> int:
        return int(self._run("arrays", size))


try:
    import luigi
except ImportError:
    pass
else:

    class Step(luigi.Task):  # type: ignore[misc]
        """Task *number* of a shape; the one whose number is its size ends it."""

        shape = luigi.Parameter()
        size = luigi.IntParameter()
        number = luigi.IntParameter()
        folder = luigi.Parameter()

        def requires(self) -> list[Step]:
            """Say what it waits for."""
            half = self.size // 2
            if self.number == self.size:  # the join, or what counts the arrays
                needs = {"wide": range(self.size), "chain": [self.size - 1], "arrays": range(half, 2 * half)}[
                    self.shape
                ]
            elif self.shape == "chain":
                needs = [self.number - 1] if self.number else []
            else:
                needs = [self.number - half] if self.shape == "arrays" and self.number >= half else []
            return [self.clone(number=number) for number in needs]

        def output(self) -> Any:
            """Say where its result is."""
            return luigi.LocalTarget(f"{self.folder}/{self.number}.pkl", format=luigi.format.Nop)

        def value(self) -> Any:
            """Read the result."""
            with self.output().open("r") as file:
                return pickle.load(file)

        def run(self) -> None:
            """Do it, and store the result."""
            needs = self.requires()
            if self.number == self.size:
                result: Any = sum(step.value() == 0.0 for step in needs) if self.shape == "arrays" else 1
            elif not needs:
                result = work.array() if self.shape == "arrays" else work.one()
            else:
                result = (work.first if self.shape == "arrays" else work.same)(needs[0].value())
            with self.output().open("w") as file:
                pickle.dump(result, file)
