"""Results as JSON lines, for whoever wants to read them: ``{path}/{run_id}.jsonl``, one line a result.

dpcore run orders.py --io jsonlines:./results
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Any, ClassVar

from dpcore import IOManager, Provider, Ref, hookimpl
from dpcore.errors import DamagedResultError, ResultNotStoredError

__all__ = ("JsonLinesIO",)


class JsonLinesIO(IOManager):
    """Stores what JSON holds: None, booleans, numbers, text, lists, and tables by text.

    A run is one small file that is written anew for each result, so it is for
    results that a person reads, not for many or large ones.
    """

    capabilities: ClassVar[frozenset[str]] = frozenset({"shared", "copies"})

    def __init__(self, *, path: str | Path) -> None:
        self.path = Path(path).expanduser().absolute()

    def write(self, ref: Ref, value: Any) -> str:
        """Add or replace the result's line."""
        _refuse_what_json_changes(ref, value, "value")
        with self._changing(ref.run_id) as lines:
            lines[ref.task, ref.result_id] = value
        return f"{self._file(ref.run_id)} ({ref.task}/{ref.result_id})"

    def read(self, ref: Ref) -> Any:
        """Find the result's line; a KeyError if there is none."""
        try:
            return self._lines(ref.run_id)[ref.task, ref.result_id]
        except ValueError as error:
            raise DamagedResultError(ref, str(self._file(ref.run_id)), str(error)) from error

    def has(self, ref: Ref) -> bool:
        """Tell whether there is a line for it."""
        return (ref.task, ref.result_id) in self._lines(ref.run_id)

    def remove(self, ref: Ref) -> bool:
        """Leave out its line, and the file with the last one."""
        if not self.has(ref):  # and make no folder for a lock where there is nothing
            return False
        with self._changing(ref.run_id) as lines:
            there = (ref.task, ref.result_id) in lines
            lines.pop((ref.task, ref.result_id), None)
        return there

    def refs(self, run_id: str | None, task: str | None) -> Iterator[Ref]:
        """Yield a ref for each line."""
        for run in [run_id] if run_id is not None else [file.stem for file in self.path.glob("*.jsonl")]:
            for name, result_id in self._lines(run):
                if task is None or task == name:
                    yield Ref(run, name, result_id)

    def _file(self, run_id: str) -> Path:
        return self.path / f"{run_id}.jsonl"

    def _lines(self, run_id: str) -> dict[tuple[str, str], Any]:
        try:
            text = self._file(run_id).read_text("utf-8")
        except FileNotFoundError:
            return {}
        lines = map(json.loads, text.split("\n")[:-1])
        return {(line["task"], line["result"]): line["value"] for line in lines}

    @contextmanager
    def _changing(self, run_id: str) -> Iterator[dict[tuple[str, str], Any]]:
        """Change the lines of a run, one process and thread at a time; readers see them before or after."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as lock:
            flock(lock, LOCK_EX)
            lines = self._lines(run_id)
            yield lines
            file = self._file(run_id)
            if not lines:
                file.unlink(missing_ok=True)
                return
            growing = self.path / ".growing"  # ours alone, while we hold the lock; a killed writer's is written over
            growing.write_text(
                "".join(
                    json.dumps({"task": task, "result": result, "value": value}) + "\n"
                    for (task, result), value in lines.items()
                )
            )
            growing.replace(file)


def _refuse_what_json_changes(ref: Ref, value: Any, where: str) -> None:
    """JSON would take a tuple and give back a list: what does not return as it was is refused."""
    if type(value) is dict and all(type(key) is str for key in value):
        for key, item in value.items():
            _refuse_what_json_changes(ref, item, f"{where}[{key!r}]")
    elif type(value) is list:
        for index, item in enumerate(value):
            _refuse_what_json_changes(ref, item, f"{where}[{index}]")
    elif value is not None and type(value) not in (bool, int, float, str):
        raise ResultNotStoredError(ref, f"{where} is a {type(value).__name__}, and JSON has none")


@hookimpl
def dpcore_io_managers() -> list[Provider[IOManager]]:
    """Offer it as ``io="jsonlines:PATH"``."""
    return [
        Provider(
            name="jsonlines",
            target="dpcore_jsonlines:JsonLinesIO",
            summary="JSON lines, one file a run",
            capabilities=JsonLinesIO.capabilities,
        )
    ]
