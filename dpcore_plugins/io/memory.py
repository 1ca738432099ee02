"""Results in the memory of this process: the objects themselves, without a copy."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Lock
from typing import Any, NoReturn

from dpcore import IOManager, Ref

__all__ = ("MemoryIO",)


class MemoryIO(IOManager):
    """Keeps results in a dictionary, for as long as the object lives.

    What is loaded is the very object that was saved: whoever changes it, changes it
    for all its readers.
    """

    def __init__(self) -> None:
        self._runs: dict[str, dict[str, dict[str, Any]]] = {}
        # A writer must not add to a table that a remover has just found empty and let go.
        self._changing = Lock()

    def write(self, ref: Ref, value: Any) -> str:
        """Keep the object; nothing of it is read or copied."""
        with self._changing:
            tasks = self._runs.get(ref.run_id)
            if tasks is None:
                tasks = self._runs[ref.run_id] = {}
            results = tasks.get(ref.task)
            if results is None:
                tasks[ref.task] = {ref.result_id: value}
            else:
                results[ref.result_id] = value
        return "memory"

    def read(self, ref: Ref) -> Any:
        """Return the object that was saved."""
        return self._runs[ref.run_id][ref.task][ref.result_id]

    def has(self, ref: Ref) -> bool:
        """Tell whether an object is kept under *ref*."""
        return ref.result_id in self._runs.get(ref.run_id, {}).get(ref.task, {})

    def remove(self, ref: Ref) -> bool:
        """Let go of the object, and of the tables that are empty without it."""
        with self._changing:
            if not self.has(ref):
                return False
            tasks = self._runs[ref.run_id]
            del tasks[ref.task][ref.result_id]
            if not tasks[ref.task]:
                del tasks[ref.task]
            if not tasks:
                del self._runs[ref.run_id]
            return True

    def refs(self, run_id: str | None, task: str | None) -> Iterator[Ref]:
        """Yield what was kept at the moment of the first one."""
        with self._changing:
            runs = [run_id] if run_id is not None else list(self._runs)
            found = [
                Ref(run, name, result_id)
                for run in runs
                for name, results in self._runs.get(run, {}).items()
                if task is None or name == task
                for result_id in results
            ]
        yield from found

    def run_ids(self) -> list[str]:
        """Return the runs that have a table."""
        with self._changing:
            return list(self._runs)

    def remove_run(self, run_id: str) -> int:
        """Let go of a run's whole table."""
        with self._changing:
            return sum(map(len, self._runs.pop(run_id, {}).values()))

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "MemoryIO keeps results in this process, so it cannot be sent to another one; "
            "use one that processes share, such as FilesystemIO"
        )
