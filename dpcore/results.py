"""Results: what a run gave, each value loaded when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self, cast

from dpcore.errors import NoValueError, RunCancelledError, RunFailedError, TaskError, TaskNotFoundError
from dpcore.functions import qualified
from dpcore.jobs import Outcome, Ref, State, described, message
from dpcore.plans import Plan
from dpcore.ports import IOManager
from dpcore.runs import Run
from dpcore.words import LONGEST_TEXT, printed

__all__ = ("Result",)


class Result(Mapping[str, Any]):
    """What a run gave: a mapping from task to value, each loaded when it is asked for.

    It holds the tasks that succeeded; of a stream, the list of its items.
    """

    def __init__(self, run: Run, io: IOManager, duration: float, *, folder: object = None, hold: object = None) -> None:
        self.run_id: str = run.run_id
        """The id of the run."""
        self.state: State = run.state
        """How the run ended."""
        self.outcomes: Mapping[str, Outcome] = {name: run.outcomes[name] for name in run.plan.order}
        """How each task ended, in the order of the plan."""
        self.duration: float = duration
        """Seconds from the beginning to the end."""
        self.reason: str = run.reason
        """Why the run was cancelled; empty otherwise."""
        self.plan: Plan = run.plan
        """What was run."""
        self._io = io
        self._gone = _freed(run)
        self._folder, self._hold = folder, hold  # these live as long as somebody may ask for a value

    def __getitem__(self, name: str) -> Any:
        outcome = self.outcomes.get(name)
        if outcome is None:
            raise TaskNotFoundError(name, self.outcomes)
        if name in self._gone:
            raise NoValueError(name, "it was freed after its last reader, because keep='leaves'")
        if outcome.state is not State.SUCCEEDED or outcome.result is None:
            why = printed(outcome.error, LONGEST_TEXT) if outcome.error is not None else outcome.reason
            raise NoValueError(name, f"it {outcome.state.replace('_', ' ')}{': ' if why else ''}{why}")
        if isinstance(outcome.result, Ref):
            return self._io.load(outcome.result)
        return [self._io.load(ref) for ref in outcome.result]

    def __iter__(self) -> Iterator[str]:
        return (name for name in self.outcomes if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        outcome = self.outcomes.get(cast(str, name))
        return outcome is not None and outcome.state is State.SUCCEEDED and name not in self._gone

    def __repr__(self) -> str:
        return f"<Result of run {self.run_id!r}: {self.state}, {len(self)} values>"

    @property
    def errors(self) -> Mapping[str, BaseException]:
        """What the failed tasks raised, in the order of the plan."""
        return {
            name: outcome.error or TaskError(name, "failure", outcome.reason or "no reason was given")
            for name, outcome in self.outcomes.items()
            if outcome.state in (State.FAILED, State.TIMED_OUT)
        }

    def raise_for_failure(self) -> Self:
        """Raise what went wrong; return this result if nothing did.

        A failed run raises :class:`~dpcore.errors.RunFailedError`, the group of what
        its tasks raised, a cancelled one :class:`~dpcore.errors.RunCancelledError`.
        """
        __tracebackhide__ = True  # pytest shows the line of the test, and what the tasks raised
        if self.state is State.CANCELLED:
            raise RunCancelledError(self.run_id, self.reason)
        if self.state is State.FAILED:
            fatal = {name: error for name, error in self.errors.items() if not self.plan.tasks[name].fail_safe}
            message = f"run {self.run_id} failed in {len(fatal)} of {len(self.outcomes)} tasks"
            raise RunFailedError(message, [self._noted(name, error) for name, error in fatal.items()])
        return self

    def _noted(self, name: str, error: BaseException) -> Exception:
        note = f"in task {name!r}, attempt {self.outcomes[name].attempt} of run {self.run_id}"
        try:
            if note not in getattr(error, "__notes__", ()):
                error.add_note(note)
        except Exception:  # noqa: BLE001  (an exception that lets nothing be set on it, such as a frozen dataclass)
            error = TaskError(name, qualified(type(error)), described(error)).with_traceback(error.__traceback__)
        if not isinstance(error, Exception):  # a group of exceptions holds no SystemExit
            error = TaskError(name, qualified(type(error)), message(error)).with_traceback(error.__traceback__)
        return error


def _freed(run: Run) -> frozenset[str]:
    if run.keep == "all":
        return frozenset()
    return frozenset(name for inputs in run.plan.inputs.values() for name in inputs.values())
