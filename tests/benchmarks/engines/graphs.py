"""Engines that are told the graph, or are given futures in place of what is not there yet."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from tests.benchmarks.engines import work


class Engine:
    """What there is to all of them."""

    name = ""

    def __init__(self, workers: int) -> None:
        self._workers = workers

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def prepare(self, shape: str, size: int) -> None:
        """Do the work once."""
        getattr(self, shape)(size)


class Joblib(Engine):
    """Has no graph: one call for all that can be done at once."""

    name = "joblib"

    def __enter__(self) -> Self:
        from joblib import Parallel

        self._parallel = Parallel(n_jobs=self._workers)
        self._parallel.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._parallel.__exit__(*error)

    def wide(self, size: int) -> int:
        from joblib import delayed

        self._parallel(delayed(work.ONE[number])() for number in range(size))
        return int(self._parallel([delayed(work.one)()])[0])

    def chain(self, size: int) -> int:
        from joblib import delayed

        (value,) = self._parallel([delayed(work.ONE[0])()])
        for number in range(1, size):
            (value,) = self._parallel([delayed(work.SAME[number])(value)])
        return int(value)

    def arrays(self, size: int) -> int:
        from joblib import delayed

        made = self._parallel(delayed(work.ARRAY[number])() for number in range(size // 2))
        read = self._parallel(delayed(work.FIRST[number])(value) for number, value in enumerate(made))
        return sum(value == 0.0 for value in read)


class Dask(Engine):
    """A LocalCluster of processes with one thread each; futures are handed on."""

    name = "Dask LocalCluster"

    def __enter__(self) -> Self:
        from distributed import Client, LocalCluster

        self._folder = tempfile.mkdtemp()
        self._cluster = LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=self._workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            local_directory=self._folder,
        )
        self._client: Any = Client(self._cluster)  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()
        self._cluster.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._client.submit(function, *arguments, pure=False)

    def wide(self, size: int) -> int:
        made = [self._submit(work.ONE[number]) for number in range(size)]
        return int(self._submit(work.joined, made).result())

    def chain(self, size: int) -> int:
        value = self._submit(work.ONE[0])
        for number in range(1, size):
            value = self._submit(work.SAME[number], value)
        return int(value.result())

    def arrays(self, size: int) -> int:
        made = [self._submit(work.ARRAY[number]) for number in range(size // 2)]
        read = [self._submit(work.FIRST[number], future) for number, future in enumerate(made)]
        return sum(value == 0.0 for value in self._client.gather(read))


class Ray(Engine):
    """One node, as many cores; references are handed on."""

    name = "Ray"

    def __enter__(self) -> Self:
        import ray

        ray.init(
            num_cpus=self._workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
            configure_logging=False,
        )  # fmt: skip
        self._remote: dict[Any, Any] = {}
        return self

    def __exit__(self, *error: object) -> None:
        import ray

        ray.shutdown()

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        import ray

        if function not in self._remote:
            self._remote[function] = ray.remote(function)
        return self._remote[function].remote(*arguments)

    def wide(self, size: int) -> int:
        import ray

        made = [self._call(work.ONE[number]) for number in range(size)]
        return int(ray.get(self._call(work.joined, *made)))

    def chain(self, size: int) -> int:
        import ray

        value = self._call(work.ONE[0])
        for number in range(1, size):
            value = self._call(work.SAME[number], value)
        return int(ray.get(value))

    def arrays(self, size: int) -> int:
        import ray

        made = [self._call(work.ARRAY[number]) for number in range(size // 2)]
        read = [self._call(work.FIRST[number], value) for number, value in enumerate(made)]
        return sum(value == 0.0 for value in ray.get(read))


class Hamilton(Engine):
    """One process, nothing stored: functions are called in their order."""

    name = "Hamilton, in one process"

    def prepare(self, shape: str, size: int) -> None:
        """Build the driver: its graph is read off names of functions and of their parameters."""
        from hamilton import ad_hoc_utils, driver

        lines = {
            "wide": [f"def t{number}() -> int:\n    return 1" for number in range(size)]
            + [f"def joined({', '.join(f't{number}: int' for number in range(size))}) -> int:\n    return 1"],
            "chain": ["def t0() -> int:\n    return 1"]
            + [f"def t{number}(t{number - 1}: int) -> int:\n    return t{number - 1}" for number in range(1, size)],
            "arrays": [
                f"def a{number}() -> object:\n    return array()\n"
                f"def b{number}(a{number}: object) -> float:\n    return float(a{number}[0])"
                for number in range(size // 2)
            ],
        }[shape]
        space: dict[str, Any] = {"array": work.array, "__name__": work.__name__}
        exec("\n".join(lines), space)
        functions = [value for name, value in space.items() if name[0] in "tabj" and name[-1:].isdigit()]
        functions += [space["joined"]] if "joined" in space else []
        module = ad_hoc_utils.create_temporary_module(*functions)
        self._driver: Any = driver.Builder().with_modules(module).build()

    def wide(self, size: int) -> int:
        return int(self._driver.execute(["joined"])["joined"])

    def chain(self, size: int) -> int:
        return int(self._driver.execute([f"t{size - 1}"])[f"t{size - 1}"])

    def arrays(self, size: int) -> int:
        names = [f"b{number}" for number in range(size // 2)]
        return sum(value == 0.0 for value in self._driver.execute(names).values())
