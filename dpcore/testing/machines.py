"""Random histories, compared with a model: hypothesis draws them and shrinks what fails."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from dpcore.errors import ResultNotFoundError
from dpcore.jobs import Ref
from dpcore.ports import IOManager

__all__ = ("compare_io",)

# The same histories every time: a red suite is red for everybody.
_SETTINGS = settings(derandomize=True, deadline=None, database=None, stateful_step_count=30)

_RUNS = st.sampled_from(["r1", "r2", "r1.x"])
_TASKS = st.sampled_from(["total", "total.x", "größe"])
_REFS = st.builds(Ref, _RUNS, _TASKS, st.sampled_from(["1", "2", "1-00000000"]))
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def compare_io(make: Callable[[Path], IOManager], tmp_path: Path, examples: int) -> None:
    """Assert that the manager holds what a dictionary would, whatever is done to it."""

    class History(_IOHistory):
        def make(self) -> IOManager:
            return make(Path(tempfile.mkdtemp(dir=tmp_path)))

    run_state_machine_as_test(History, settings=settings(_SETTINGS, max_examples=examples))  # type: ignore[no-untyped-call]


class _IOHistory(RuleBasedStateMachine):
    def make(self) -> IOManager:
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        self.io, self.model = self.make(), dict[Ref, Any]()

    @rule(ref=_REFS, value=_VALUES)
    def save(self, ref: Ref, value: Any) -> None:
        self.io.save(ref, value)
        self.model[ref] = value

    @rule(ref=_REFS)
    def load(self, ref: Ref) -> None:
        if ref in self.model:
            assert self.io.load(ref) == self.model[ref]
        else:
            with pytest.raises(ResultNotFoundError):
                self.io.load(ref)

    @rule(ref=_REFS)
    def delete(self, ref: Ref) -> None:
        assert self.io.delete(ref) == (ref in self.model)
        self.model.pop(ref, None)

    @rule(run=_RUNS)
    def clear(self, run: str) -> None:
        gone = [ref for ref in self.model if ref.run_id == run]
        assert self.io.clear(run) == len(gone)
        for ref in gone:
            del self.model[ref]

    @rule(run=_RUNS, task=_TASKS)
    def list_of_a_task(self, run: str, task: str) -> None:
        assert self.io.list(run, task) == sorted(ref for ref in self.model if (ref.run_id, ref.task) == (run, task))

    @rule(ref=_REFS)
    def exists(self, ref: Ref) -> None:
        assert self.io.exists(ref) == (ref in self.model)

    @invariant()
    def all_is_there(self) -> None:
        runs = sorted({ref.run_id for ref in self.model})
        assert self.io.runs() == runs
        for run in runs:
            assert self.io.list(run) == sorted(ref for ref in self.model if ref.run_id == run)
