"""Resuming: what is left of a run, read off what is recorded of it.

What has succeeded stays.  Of a run that was broken off, so does all else that had
ended: a failure counts, though its program died before the run was over.  Of a run
that was over and did not succeed, what did not succeed is run again.  An item of a
mapped task stays like a task.  Whatever is run again takes all that waits for it along,
and an attempt that comes to nothing all that has read its items meanwhile: that runs
again with the next one, which costs it no retry.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from dpcore.errors import RunEndedError, TaskError, TaskNotFoundError
from dpcore.jobs import Items, Outcome, Ref, State
from dpcore.plans import Plan
from dpcore.ports.runstore import RunHistory, TaskChange
from dpcore.runs import Before

__all__ = ("Rest", "rest", "result_of")

_FAILED = (State.FAILED, State.TIMED_OUT)
_LOSES = (*_FAILED, State.RETRYING, State.CANCELLED, State.PENDING)
_DIED = "its program ended before it did"


class Rest(msgspec.Struct, frozen=True):
    """What is left of a run: *before* is what stays, *changes* is what to record of what does not.

    *again* are tasks that had ended and are run again; *changed* those that had ended,
    and whose code or inputs have changed since.
    """

    before: Before
    changes: list[TaskChange]
    again: tuple[str, ...]
    changed: tuple[str, ...]


def rest(plan: Plan, history: RunHistory, *, at: float, begin: Iterable[str] = (), changed: bool = False) -> Rest:
    """Say what of *plan* is left to be run of a run that has come as far as *history* says.

    The tasks in *begin* are run again, and with *changed* those that have changed, each
    with all that waits for it.  *at* is the time of the changes to record.

    Raises :class:`~dpcore.errors.TaskNotFoundError` for one to begin at that is not in the
    plan, and :class:`~dpcore.errors.RunEndedError` if nothing is left.
    """
    found = {name: _Past() for name in plan.order}
    for change in history.changes:
        if change.task in found:
            found[change.task].take(change)
            if change.index is None and change.state in _LOSES:
                _lose(plan, found, change.task)
    differ = tuple(name for name, past in found.items() if _differs(plan, name, past))
    anew = _closed(plan, [*_known(plan, begin), *(differ if changed else ())])
    is_over = history.record.ended is not None
    heard = max([history.record.began, *(change.at for change in history.changes)])
    if history.record.state is State.SUCCEEDED and is_over and not anew:
        raise RunEndedError(history.record.run_id, differ)
    return _Reading(plan, history.record.run_id, found, anew, is_over=is_over, at=at, heard=heard).rest(differ)


def result_of(run_id: str, change: TaskChange) -> Ref | Items | None:
    """Return where the result of a task is that ended so; None if it left none.

    >>> result_of("r1", TaskChange(task="t", state=State.SUCCEEDED, at=0.0, result="1"))
    Ref(run_id='r1', task='t', result_id='1')
    """
    if change.state is not State.SUCCEEDED or change.result is None:
        return None
    if change.count is None:
        return Ref(run_id, change.task, change.result)
    return Items(run_id, change.task, change.count, int(change.result), change.attempts, frozenset(change.missing))


class _Past:
    """What one task of a run has behind it."""

    __slots__ = ("begun", "free", "items", "last")

    def __init__(self) -> None:
        self.last: TaskChange | None = None
        self.items: dict[int, TaskChange] = {}
        self.begun: dict[int | None, int] = {}
        self.free: dict[int | None, int] = {}

    def take(self, change: TaskChange) -> None:
        """Take in the next thing that was recorded of the task."""
        index = change.index
        if change.state is State.PENDING:
            self.begin_anew(index)
        elif index is not None and change.attempt <= self.free.get(index, 0):
            return  # it came home after what it had read was lost
        elif change.state is State.RETRYING and not change.error:
            self.free[index] = self.free.get(index, 0) + 1
        self.begun[index] = max(self.begun.get(index, 0), change.attempt)
        if index is not None:
            self.items[index] = change
        else:
            self.last = change

    def begin_anew(self, index: int | None = None) -> None:
        """Have all that was done come to nothing: of an item, or of the task."""
        if index is not None:
            self.free[index] = self.begun.get(index, 0)
        else:
            self.free = dict(self.begun)
            self.items.clear()

    @property
    def ended(self) -> TaskChange | None:
        """The change with which the task ended; None if it has not."""
        return self.last if self.last is not None and self.last.state.ended else None


class _Reading:
    """One call of :func:`rest`."""

    def __init__(
        self,
        plan: Plan,
        run_id: str,
        found: dict[str, _Past],
        anew: set[str],
        *,
        is_over: bool,
        at: float,
        heard: float,
    ) -> None:
        self.plan, self.run_id, self.found, self.anew, self.is_over, self.at = plan, run_id, found, anew, is_over, at
        self.heard = heard  # when the last program was heard of: an attempt that ended with it has lasted no longer
        self.changes: list[TaskChange] = []
        self.begun: dict[tuple[str, int | None], int] = {}
        self.free: dict[tuple[str, int | None], int] = {}

    def rest(self, differ: tuple[str, ...]) -> Rest:
        outcomes: dict[str, Outcome] = {}
        again: list[str] = []
        for name, past in self.found.items():
            ended = past.ended
            if ended is not None and self._stays(name, ended):
                outcomes[name] = _outcome(self.run_id, ended, past.items)
                continue
            if ended is not None and ended.state not in (State.SKIPPED, State.CANCELLED):
                again.append(name)
            self._reopen(name, past, outcomes)
        items = {name: dict(self._items(past)) for name, past in self.found.items() if name not in outcomes}
        before = Before(outcomes, {name: kept for name, kept in items.items() if kept}, self.begun, self.free)
        return Rest(before, self.changes, tuple(again), differ)

    def _stays(self, name: str, ended: TaskChange) -> bool:
        if name in self.anew or ended.state is State.CANCELLED:
            return False
        if ended.state in _FAILED:
            return not self.is_over or self.plan.tasks[name].fail_safe
        return ended.state is State.SUCCEEDED or not self.is_over

    def _reopen(self, name: str, past: _Past, outcomes: dict[str, Outcome]) -> None:
        """Note what is to be recorded of a task that is run again, or goes on; its attempts are counted on."""
        if past.last is None:
            return
        # What has begun before all that feeds it had ended has read it live; and not to its end.
        goes_on = name not in self.anew and all(up in outcomes for up in self.plan.inputs[name].values())
        if not goes_on or not past.items:
            self._change(past, past.last, State.RETRYING if goes_on and past.ended is None else State.PENDING)
        else:
            for change in [*past.items.values()]:
                if change.state in (State.RUNNING, State.RETRYING):
                    self._change(past, change, State.RETRYING)
                elif change.state is State.CANCELLED or (self.is_over and self._failed_for_good(name, change)):
                    self._change(past, change, State.PENDING)
            self._change(past, msgspec.structs.replace(past.last, attempt=0), State.RETRYING)
        self.begun.update({(name, index): count for index, count in past.begun.items() if count})
        self.free.update({(name, index): count for index, count in past.free.items() if count})

    def _failed_for_good(self, name: str, change: TaskChange) -> bool:
        return change.state in _FAILED and not self.plan.tasks[name].fail_safe

    def _change(self, past: _Past, change: TaskChange, state: State) -> None:
        """Record *state* of what *change* was about, unless that is how it is anyway."""
        if state is change.state or (state is State.RETRYING and change.state is State.PENDING):
            return
        at, reason = (self.heard, _DIED) if state is State.RETRYING else (self.at, "")
        again = TaskChange(
            task=change.task, state=state, at=at, attempt=change.attempt, index=change.index, reason=reason
        )
        past.take(again)
        self.changes.append(again)

    def _items(self, past: _Past) -> Iterator[tuple[int, Outcome]]:
        for index, change in past.items.items():
            if change.state.ended:
                yield index, _outcome(self.run_id, change, {})


def _differs(plan: Plan, name: str, past: _Past) -> bool:
    ended = past.ended
    return ended is not None and bool(ended.fingerprint) and ended.fingerprint != plan.fingerprint_of(name)


def _lose(plan: Plan, found: dict[str, _Past], name: str) -> None:
    """Have come to nothing what has read an attempt at *name*, and what has read that: it has, if it has begun by now."""
    waiting = [name]
    while waiting:
        source = waiting.pop()
        for after in plan.dependents[source]:
            past = found[after]
            if past.ended is None and any(past.begun.values()) and source in plan.inputs[after].values():
                past.begin_anew()
                waiting.append(after)


def _known(plan: Plan, names: Iterable[str]) -> Iterator[str]:
    for name in names:
        if name not in plan:
            raise TaskNotFoundError(name, plan.order)
        yield name


def _closed(plan: Plan, names: Iterable[str]) -> set[str]:
    """Return *names* and all that waits for them."""
    found = set(names)
    waiting = list(found)
    while waiting:
        for after in plan.dependents[waiting.pop()]:
            if after not in found:
                found.add(after)
                waiting.append(after)
    return found


def _outcome(run_id: str, change: TaskChange, items: dict[int, TaskChange]) -> Outcome:
    failed = ((index, items[index]) for index in change.missing if index in items)
    return Outcome(
        state=change.state,
        result=result_of(run_id, change),
        error=_error(change) if change.state in _FAILED else None,
        traceback=change.traceback,
        duration=change.duration,
        attempt=change.attempt,
        worker=change.worker,
        reason=change.reason,
        failed_items=tuple((index, _error(item)) for index, item in failed),
        task=change.task,
        output=change.output,
    )


def _error(change: TaskChange) -> TaskError:
    kind, _, text = change.error.partition(": ")
    return TaskError(change.task, kind or "failure", text or change.reason)
