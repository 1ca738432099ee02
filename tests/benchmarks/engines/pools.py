"""Process pools: they store nothing, and know of no graph; what waits for what is the program's to say."""

from __future__ import annotations

import multiprocessing
from abc import ABC, abstractmethod
from concurrent.futures import Executor, ProcessPoolExecutor
from types import TracebackType
from typing import Any, Self

from tests.benchmarks.engines import work


class Pool(ABC):
    """Whatever has ``submit`` and futures."""

    name = ""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool: Executor

    @abstractmethod
    def _open(self) -> Executor: ...

    def __enter__(self) -> Self:
        self._pool = self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()

    def prepare(self, shape: str, size: int) -> None:
        """Have the workers there, with all that they import."""
        self.wide(50)
        self.arrays(10)

    def wide(self, size: int) -> int:
        for future in [self._pool.submit(work.ONE[number]) for number in range(size)]:
            future.result()
        return self._pool.submit(work.joined).result()

    def chain(self, size: int) -> int:
        value = self._pool.submit(work.ONE[0]).result()
        for number in range(1, size):
            value = self._pool.submit(work.SAME[number], value).result()
        return value

    def arrays(self, size: int) -> int:
        made = [self._pool.submit(work.ARRAY[number]) for number in range(size // 2)]
        read = [self._pool.submit(work.FIRST[number], future.result()) for number, future in enumerate(made)]
        return sum(future.result() == 0.0 for future in read)


class ConcurrentFutures(Pool):
    """The standard library's."""

    name = "ProcessPoolExecutor"

    def _open(self) -> Executor:
        return ProcessPoolExecutor(self._workers, mp_context=multiprocessing.get_context("forkserver"))


class Loky(Pool):
    """The pool that joblib stands on."""

    name = "loky"

    def _open(self) -> Executor:
        import loky

        made: Any = loky.ProcessPoolExecutor(self._workers)
        return made  # type: ignore[no-any-return]
