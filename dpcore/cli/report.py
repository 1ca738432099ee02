"""What a person sees of a run: a line for each task as it ends, and how it all went.

It is a plugin like any other, which observes the run, and prints plain lines.  In a
terminal there is :mod:`dpcore.cli.live`.
"""

from __future__ import annotations

from collections import Counter
from types import TracebackType
from typing import Any, Self, TextIO

from dpcore.cli.output import CLOSED, lose
from dpcore.cli.refusal import complain
from dpcore.jobs import Outcome, State, described, message
from dpcore.plans import Plan
from dpcore.results import Result
from dpcore.runs import Run
from dpcore.tasks import Task
from dpcore.timelines import columns, padded, seconds, word
from dpcore.words import counted, listed, printable

__all__ = ("Report", "error_of", "left_out", "result_as_data")

_FAILED = (State.FAILED, State.TIMED_OUT)
_WIDEST = 40
_TAB = "\t"
_MOST = 20  # failed or skipped tasks that are told one by one


class Report:
    """Prints a run to *out* as it goes; *shown* names where its tasks come from.

    A reader who has gone away, as with ``| head``, does not disturb the run.  With
    *quiet* :meth:`end` says only what went wrong.
    """

    def __init__(self, out: TextIO, shown: str, *, quiet: bool = False) -> None:
        self.out, self.shown, self.quiet = out, shown, quiet
        self._width = 0
        self._is_lost = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of what the report holds; a plain one holds nothing."""

    def styled(self, state: State, text: str) -> str:  # noqa: ARG002  (others have a colour for it)
        """Return *text* as it is shown; a plain report has no colours."""
        return text

    def say(self, line: str = "") -> None:
        """Print a line, and have it seen at once."""
        if self._is_lost:
            return
        try:
            self.out.write(line + "\n")  # at once, so that nothing of another's comes in between
            self.out.flush()
        except OSError as error:
            lose(self.out)
            if not isinstance(error, BrokenPipeError):
                self._lose(error.strerror)
        except ValueError:
            if not self.out.closed:
                raise
            self._lose(CLOSED)

    def _lose(self, why: str | None) -> None:
        self._is_lost = True
        complain(f"no more is shown of the run, which goes on: {why}")

    def dpcore_run_changed(self, run: Run, new: State) -> None:
        """Say which run begins."""
        if new is State.RUNNING:
            self._width = min(_WIDEST, max(map(columns, run.plan.order)))
            before = f", {counted(len(run.outcomes), 'task')} had ended before" if run.outcomes else ""
            self.say(f"run {run.run_id}: {counted(len(run.plan), 'task')} of {self.shown}{before}")
            for line in left_out(run.plan):
                self.say(line)

    def dpcore_task_changed(self, task: Task, attempt: int, new: State, outcome: Outcome | None) -> None:
        """Say how an attempt ended; what never began is told at the end."""
        if outcome is None or new is State.SKIPPED or (new is State.CANCELLED and not outcome.attempt):
            return
        line = f"{self.styled(new, f'{word(new):9}')}  {padded(task.name, self._width)}  {seconds(outcome.duration)}"
        if new is State.RETRYING:
            of = f" of {task.max_retries + 1}" if attempt <= task.max_retries else ""  # more of a run that was resumed
            line += f"  (attempt {attempt}{of} failed: {printable(error_of(outcome))})"
        elif outcome.attempt > 1:
            line += f"  (attempt {outcome.attempt})"
        self.say(line)

    def end(self, result: Result) -> None:
        """Say what failed, what did not run because of that, and how it all went."""
        failed = [name for name, outcome in result.outcomes.items() if outcome.state in _FAILED]
        for name, outcome in result.outcomes.items():
            if outcome.state in _FAILED and name in failed[:_MOST]:
                fail_safe = " (fail-safe)" if result.plan.tasks[name].fail_safe else ""
                self.say(f"\n{name} {word(outcome.state)}{fail_safe}:")
                self.say(_indented(outcome.traceback.rstrip() or error_of(outcome) or outcome.reason))
            for index, error in outcome.failed_items:
                self.say(f"\n{name}, item {index} failed and was left out:")
                self.say(_indented(described(error)))
        if len(failed) > _MOST:
            self.say(f"\nand {counted(len(failed) - _MOST, 'more task')} failed")
        skipped = [(name, one.reason) for name, one in result.outcomes.items() if one.state is State.SKIPPED]
        if skipped:
            self.say()
        for name, reason in skipped[:_MOST]:
            self.say(f"skipped  {name}, because {printable(reason)}")
        if len(skipped) > _MOST:
            self.say(f"skipped  {counted(len(skipped) - _MOST, 'more task')}")
        if not (self.quiet and result.state is State.SUCCEEDED):
            self.say(self._last_line(result))

    def _last_line(self, result: Result) -> str:
        counts = Counter(outcome.state for outcome in result.outcomes.values())
        total = counted(len(result.outcomes), "task")
        if counts[State.SUCCEEDED] == len(result.outcomes):
            how = total
        else:
            rest = [f"{number:,} {word(state)}" for state, number in counts.items() if state is not State.SUCCEEDED]
            how = ", ".join([f"{counts[State.SUCCEEDED]:,} of {total} succeeded", *rest])
        why = f" ({printable(result.reason)})" if result.reason else ""
        return f"{self.styled(result.state, str(result.state))}{why}: {how} in {seconds(result.duration)}, run {result.run_id}"


def left_out(plan: Plan) -> list[str]:
    """Say which dependencies outside the selection nobody waits for, one line for each task that has some."""
    found: dict[str, list[str]] = {}
    for task, dependency in plan.left_out:
        found.setdefault(task, []).append(dependency)
    return [
        f"left out: {task} does not wait for {listed(names)}, which {'are' if len(names) > 1 else 'is'} not selected"
        for task, names in found.items()
    ]


def error_of(outcome: Outcome) -> str:
    """Say in one line what a task raised; empty if it raised nothing."""
    if outcome.error is None:
        return ""
    first = (message(outcome.error).strip().splitlines() or [""])[0]
    return f"{type(outcome.error).__name__}: {first}" if first else type(outcome.error).__name__


def result_as_data(result: Result) -> dict[str, Any]:
    """Return how a run went, in JSON's types."""
    return {
        "run_id": result.run_id,
        "state": str(result.state),
        "reason": result.reason or None,
        "duration": round(result.duration, 6),
        "tasks": {
            name: {
                "state": str(outcome.state),
                "duration": round(outcome.duration, 6),
                "attempts": outcome.attempt,
                "error": error_of(outcome) or None,
                "reason": outcome.reason or None,
                "where": outcome.where or None,
            }
            for name, outcome in result.outcomes.items()
        },
    }


def _indented(text: str) -> str:
    return "\n".join(f"    {printable(line, keep=_TAB)}".rstrip() for line in text.splitlines())
