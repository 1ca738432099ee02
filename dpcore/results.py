"""Results: what a run gave, each value loaded when it is asked for; and runs that go on, which will give one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, cast

import anyio

from dpcore.errors import (
    NoValueError,
    RunCancelledError,
    RunFailedError,
    TaskError,
    TaskNotFoundError,
    check_argument,
)
from dpcore.functions import qualified
from dpcore.jobs import Outcome, Ref, State, described, message
from dpcore.plans import Plan
from dpcore.ports import IOManager
from dpcore.runs import Run
from dpcore.words import LONGEST_TEXT, printed

__all__ = ("Ending", "Result", "Running")

_log = logging.getLogger("dpcore.results")


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


class Ending:
    """How a run comes to its end: told once, by who drives it, and asked for by as many as like.

    An error that nobody has asked for is logged when nobody can any more.
    """

    def __init__(self, run_id: str, cancel: Callable[[str], None]) -> None:
        self._run_id = run_id
        self._error: Exception | None = None
        self._asked = False
        self._trace: TracebackType | None = None
        self._result: Result | None = None
        self._told = anyio.Event()
        self._cancel: Callable[[str], None] | None = cancel  # until it has ended, so that no more than its result stays

    def __del__(self) -> None:
        if self._error is not None and not self._asked:
            error = (type(self._error), self._error, self._trace)
            _log.error("run %s was broken off, and nobody has asked for its result", self._run_id, exc_info=error)

    @property
    def told(self) -> bool:
        """Whether it is known."""
        return self._told.is_set()

    def tell(self, outcome: Result | Exception) -> None:
        """Say what the run gave, or what broke it off."""
        if isinstance(outcome, Exception):
            self._error, self._trace = outcome, outcome.__traceback__
        else:
            self._result = outcome
        self._cancel = None
        self._told.set()

    async def asked(self) -> Result:
        """Wait for it, and return what the run gave or raise what broke it off."""
        await self._told.wait()
        self._asked = True
        if self._error is not None:
            raise self._error.with_traceback(self._trace)  # without the frames of who has asked before
        assert self._result is not None
        return self._result

    def cancel(self, reason: str) -> None:
        """Cancel the run, unless it has ended."""
        if self._cancel is not None:
            self._cancel(reason)


class Running:
    """A run that goes on by itself, in the App in which it was begun: what :meth:`dpcore.App.submit` returns.

    ``await running`` is ``await running.result()``.
    """

    def __init__(self, run: Run, ending: Ending) -> None:
        self.run_id: str = run.run_id
        """The id of the run."""
        self.plan: Plan = run.plan
        """What is run."""
        self._ending = ending

    def __repr__(self) -> str:
        return f"<Running {self.run_id!r}: {'ended' if self.ended else 'goes on'}>"

    def __await__(self) -> Generator[Any, Any, Result]:
        return self.result().__await__()

    @property
    def ended(self) -> bool:
        """Whether it has come to its end, however it did: then :meth:`result` waits for nothing."""
        return self._ending.told

    async def result(self, *, check: bool = True) -> Result:
        """Wait until the run has ended, and return what it gave; as often as you like, and for as many.

        A run that has failed or was cancelled raises (:meth:`Result.raise_for_failure`)
        unless *check* is False.  What broke it off, such as a store that failed
        (:class:`~dpcore.errors.StoreError`), is raised in any case; where nobody asks
        for it, it is logged.  When this call is cancelled, the run goes on.
        """
        __tracebackhide__ = True  # as in Result.raise_for_failure
        check_argument("check", check, bool, "True or False")
        result = await self._ending.asked()
        return result.raise_for_failure() if check else result

    def cancel(self, reason: str = "it was asked for") -> None:
        """Cancel the run: stop its jobs as far as the executor can, and record that; nothing happens once it has ended."""
        self._ending.cancel(reason)


def _freed(run: Run) -> frozenset[str]:
    if run.keep == "all":
        return frozenset()
    return frozenset(name for inputs in run.plan.inputs.values() for name in inputs.values())
