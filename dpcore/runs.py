"""Runs: what to start next, and what an outcome means.

Nothing here waits, reads a clock or touches the outside.  A driver asks a
:class:`Run` what to :meth:`~Run.take`, has it done somewhere, and tells the run
how it went with :meth:`~Run.record`.  The run decides the rest: retries, what a
failure takes down with it, which results nobody will read again, and when
everything is over.  Every transition is put into :attr:`Run.changes`, once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from datetime import datetime
from heapq import heappop, heappush
from typing import Any, Literal

import msgspec

from dpcore.errors import TaskError
from dpcore.functions import qualified
from dpcore.hints import accepts_none, stream_kind
from dpcore.jobs import Items, Job, Outcome, Ref, Results, State, Stream
from dpcore.mapped import Mapped
from dpcore.plans import Plan
from dpcore.slots import Limits
from dpcore.tasks import Task

__all__ = ("FAILED", "FAIL_FAST", "Before", "Change", "Retry", "Run", "Start")

Keep = Literal["all", "leaves"]
_Entry = tuple[int, int, "int | None"]  # rank, attempt, index


class Start(msgspec.Struct, frozen=True):
    """One attempt to start: *attempt* is counted from 1; *index* is the item of a mapped task."""

    task: str
    attempt: int
    index: int | None = None


class Retry(msgspec.Struct, frozen=True):
    """An attempt to :meth:`~Run.requeue` when *delay* seconds have passed."""

    start: Start
    delay: float


class Change(msgspec.Struct, frozen=True):
    """One transition of a task, or of item *index* of a mapped task."""

    task: str
    index: int | None
    attempt: int
    old: State
    new: State
    outcome: Outcome | None


class Before(msgspec.Struct, frozen=True):
    """What had become of a run when it was broken off, or had ended, and is to go on.

    *outcomes* are those of tasks that have ended for good, *items* the same of single items
    of mapped tasks.  *begun* counts the attempts at a task, or at an item, that went before;
    *free* how many of these its retries are not charged with.
    """

    outcomes: dict[str, Outcome] = {}
    items: dict[str, dict[int, Outcome]] = {}
    begun: dict[tuple[str, int | None], int] = {}
    free: dict[tuple[str, int | None], int] = {}


class Run:
    """One execution of a plan, under a run id.

    ``state`` is the run's, ``outcomes`` the tasks' that have ended.  ``changes``,
    ``retries`` and ``freed`` are for the driver to empty: transitions to record and
    to tell, attempts to start later, and results that no task will read again.
    With *before*, it goes on with a run of that id that had come so far; *limits* say how many
    jobs of tasks with a tag may run at once, in this run and in others that are given the same.

    Here a task that reads a stream waits for its end; see :class:`~dpcore.live.LiveRun`.
    """

    # With slots there may be any number of these: Python makes attributes slow beyond thirty.
    __slots__ = (
        "_aside",
        "_begun",
        "_cancelled",
        "_earlier",
        "_failed",
        "_free",
        "_held",
        "_holds",
        "_inflight",
        "_items",
        "_items_aside",
        "_items_left",
        "_left",
        "_limited",
        "_limits",
        "_mapped",
        "_names",
        "_rank",
        "_readers",
        "_ready",
        "_results",
        "_retrying",
        "_states",
        "_waits",
        "changes",
        "fail_fast",
        "freed",
        "io",
        "keep",
        "metadata",
        "nominal",
        "outcomes",
        "params",
        "plan",
        "reason",
        "retries",
        "run_id",
        "state",
    )

    def __init__(
        self,
        plan: Plan,
        run_id: str,
        *,
        io: Results,
        params: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        nominal: datetime | None = None,
        earlier: Mapping[str, Ref | Items] | None = None,
        fail_fast: bool = False,
        keep: Keep = "all",
        before: Before | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.plan, self.run_id, self.io = plan, run_id, io
        self.params, self.metadata, self.nominal = dict(params or {}), dict(metadata or {}), nominal
        self.fail_fast, self.keep = fail_fast, keep
        self.state = State.PENDING
        self.reason = ""
        self.outcomes: dict[str, Outcome] = {}
        self.changes: list[Change] = []
        self.retries: list[Retry] = []
        self.freed: list[Ref | Items] = []
        self._states: dict[str, State] = {}  # of tasks that are neither pending nor ended
        self._results: dict[str, Ref | Items] = {}
        self._earlier = earlier or {}
        self._mapped: dict[str, Mapped] = {}
        self._retrying: dict[tuple[str, int | None], Start] = {}
        self._waits = {name: len(needs) for name, needs in plan.needs.items()}
        self._readers: dict[str, int] = {}  # of each result that can go once nobody will read it
        if keep == "leaves":
            for inputs in plan.inputs.values():
                for upstream in set(inputs.values()):
                    self._readers[upstream] = self._readers.get(upstream, 0) + 1
        # By priority, then deepest level first: what was begun is finished before more is begun, and its results can go.
        depth = {name: level for level, names in enumerate(plan.levels) for name in names}
        tasks = plan.tasks
        ranked = sorted(enumerate(plan.order), key=lambda at: (-tasks[at[1]].priority, -depth[at[1]], at[0]))
        self._names = [name for _, name in ranked]
        self._rank = {name: rank for rank, name in enumerate(self._names)}
        self._ready: list[_Entry] = []
        self._held: list[_Entry] = []
        self._limits = limits
        self._limited: dict[int, tuple[str, ...]] = {}  # by rank, of the tasks that have some: their tags with a limit
        if limits is not None:
            every = enumerate(limits.of(tasks[name].tags) for name in self._names)
            self._limited = {rank: tags for rank, tags in every if tags}
        self._aside: dict[tuple[str, ...], list[_Entry]] = {}  # what is ready of these, by their tags
        self._holds: dict[Start, tuple[str, ...]] = {}
        self._items_left = 0  # items of mapped tasks that are ready, beyond one each
        self._items_aside: dict[tuple[str, ...], int] = {}  # the same of those with a limit, by their tags
        self._inflight = 0
        self._left = len(plan)  # tasks that have not ended
        self._cancelled = False
        self._failed = False
        before = before or Before()
        self._begun, self._free, self._items = before.begun, before.free, before.items  # of what went before
        blocked = self._restore(before.outcomes)
        for name in [name for name in plan.order if not self._waits[name] and name not in self.outcomes]:
            self._enable(name)
        for name, reason in blocked:
            self._end(name, State.PENDING, Outcome(state=State.SKIPPED, reason=reason, attempt=0))
        if self._failed and fail_fast:
            self._stop(FAIL_FAST)
        if not self._left:
            self._conclude()
        self.release()

    def __repr__(self) -> str:
        return f"<Run {self.run_id!r}: {self.state}, {len(self.outcomes)} of {len(self.plan)} tasks ended>"

    @property
    def ended(self) -> bool:
        """Whether every task has ended."""
        return not self._left

    @property
    def running(self) -> bool:
        """Whether some job was taken and has not been recorded."""
        return self._inflight > 0

    @property
    def stopping(self) -> bool:
        """Whether what still runs should be cancelled: the run was, or it failed and is to fail fast."""
        return self._cancelled or (self.fail_fast and self._failed)

    def task_state(self, name: str) -> State:
        """Return how far a task of the plan is."""
        outcome = self.outcomes.get(name)
        return outcome.state if outcome is not None else self._states.get(name, State.PENDING)

    # ---------------------------------------------------------------- starting

    def take(self) -> Start | None:
        """Return the next attempt to start, as if it were started; None if nothing can be started now."""
        if self._limits is not None and self._limited:
            return self._take_limited(self._limits)
        while self._ready:
            start = self._taken(heappop(self._ready))
            if start is not None:
                return start
        return None

    def _taken(self, entry: _Entry) -> Start | None:
        """Begin what was next; None if that was called off while it waited."""
        rank, attempt, index = entry
        name = self._names[rank]
        if name in self.outcomes or (attempt > 1 and self._retrying.pop((name, index), None) is None):
            return None
        start = Start(name, attempt, index) if index != _ITEMS else self._next_item(name, rank)
        if start is not None:
            self._begin(start)
        return start

    def _take_limited(self, limits: Limits) -> Start | None:
        """Take what is next of what may run beside all else that does."""
        while True:
            heaps = [self._ready, *(aside for tags, aside in self._aside.items() if limits.free(tags))]
            heaps = [heap for heap in heaps if heap]
            if not heaps:
                return None
            entry = heappop(min(heaps, key=lambda heap: heap[0]))
            start = self._taken(entry)
            if start is not None:
                tags = self._limited.get(entry[0])
                if tags is not None:
                    limits.take(tags)
                    self._holds[start] = tags
                return start

    def let_go(self) -> None:
        """Give back what limits have granted to jobs that will not be recorded any more."""
        while self._holds:
            self._give_back(next(iter(self._holds)))

    def _give_back(self, start: Start) -> None:
        tags = self._holds.pop(start, None)
        if tags is not None and self._limits is not None:
            self._limits.give_back(tags)

    @property
    def available(self) -> int:
        """How many attempts could be taken now; at most, where a task has several limits."""
        count = len(self._ready) + self._items_left
        if self._limits is not None:
            for tags, aside in self._aside.items():
                count += min(len(aside) + self._items_aside.get(tags, 0), self._limits.free(tags))
        return count

    def release(self) -> None:
        """Let :meth:`take` give what the outcomes recorded so far made ready.

        Until then it is held back, so that a driver can make an outcome durable before
        anything depends on it.
        """
        if self._held:
            for entry in self._held:
                self._queue(entry)
            self._held.clear()

    def requeue(self, start: Start) -> None:
        """Make an attempt ready whose delay is over; nothing happens if it was cancelled meanwhile."""
        if self._retrying.get((start.task, start.index)) == start:
            self._queue((self._rank[start.task], start.attempt, start.index))

    def job(self, start: Start) -> Job:
        """Return all that a worker needs for this attempt."""
        name, attempt, index = start.task, start.attempt, start.index
        task = self.plan.tasks[name]
        inputs: dict[str, Ref | Stream] = {}
        arguments: dict[str, Any] = {}
        schema = task.schema
        if schema.parameters:
            arguments.update(self.plan.arguments.get(name, {}))
            for parameter, upstream, result in self._sources(name):
                if result is None:  # a fail-safe task left nothing: the default, else None
                    if task.parameters[parameter].required:
                        arguments[parameter] = None
                elif not isinstance(result, Items):
                    inputs[parameter] = result
                elif index is not None and upstream == task.each and name in self._mapped:
                    inputs[parameter] = self._mapped[name].ref(index)
                else:
                    inputs[parameter] = Stream(result, stream_kind(task.parameters[parameter].hint))
            for parameter in task.positional:  # one that is left out would shift those after it
                if parameter not in inputs and parameter not in arguments and not task.parameters[parameter].required:
                    arguments[parameter] = task.parameters[parameter].default
        return Job(
            run_id=self.run_id,
            task=name,
            function=task.function,
            io=self.io,
            attempt=attempt,
            index=index,
            inputs=inputs,
            arguments=arguments,
            positional=task.positional,
            streams=task.streams and task.each is None,
            is_async=schema.is_async or (bool(inputs) and any(map(_is_async_stream, inputs.values()))),
            timeout=task.timeout,
            params=self.params,
            metadata=self.metadata,
            nominal=self.nominal,
        )

    # ---------------------------------------------------------------- recording

    def record(self, start: Start, outcome: Outcome) -> None:
        """Take in how an attempt went that :meth:`take` gave; each attempt is recorded exactly once."""
        self._inflight -= 1
        if self._holds:
            self._give_back(start)
        name, index = start.task, start.index
        if outcome.state is not State.SUCCEEDED:
            if outcome.result is not None:
                self.freed.append(outcome.result)  # what a stream had stored before it failed
                outcome = replaced(outcome, result=None)
            if outcome.state is State.CANCELLED and not outcome.reason:
                outcome = replaced(outcome, reason=self.reason or "its run was cancelled")
        if index is not None:
            self._record_item(start, outcome)
        elif outcome.state in FAILED and self._may_retry(start, outcome):
            self._retry(start, State.RUNNING, outcome)
        else:
            self._finish(name, State.RUNNING, outcome)

    def cancel(self, reason: str) -> None:
        """Start nothing more: what has not started is cancelled now, what runs when it is recorded."""
        if not self.ended and self.state is not State.CANCELLED:
            self.reason = reason
            self._cancelled = True
            self._stop(reason)

    # ---------------------------------------------------------------- inside

    def _restore(self, outcomes: Mapping[str, Outcome]) -> list[tuple[str, str]]:
        """Take in how tasks had ended before; return those that cannot run because of it, and why."""
        blocked: list[tuple[str, str]] = []
        ended = [name for name in self.plan.order if name in outcomes]
        for name in ended:
            self._set_outcome(name, State.PENDING, outcomes[name])
        for name in ended:
            for after in self.plan.dependents[name]:
                if after in self.outcomes:
                    continue
                outcome = outcomes[name]
                reason = self._blocked(after, name, outcome) if outcome.state is not State.SUCCEEDED else ""
                if reason:
                    blocked.append((after, reason))
                else:
                    self._waits[after] -= 1
        self.changes.clear()  # they have been recorded and told
        return blocked

    def _begin(self, start: Start) -> None:
        self._inflight += 1
        name, attempt, index = start.task, start.attempt, start.index
        if self.state is State.PENDING:
            self.state = State.RUNNING
        old = self._states.get(name, State.PENDING)
        if old is not State.RUNNING:
            first = attempt if index is None else self._mapped[name].first
            self._states[name] = State.RUNNING
            self.changes.append(Change(name, None, first, old, State.RUNNING, None))
        if index is not None:
            was = State.RETRYING if attempt > self._mapped[name].first else State.PENDING
            self.changes.append(Change(name, index, attempt, was, State.RUNNING, None))

    def _enable(self, name: str) -> None:
        """Make a task ready, all that it needs having ended; a mapped one item by item."""
        task = self.plan.tasks[name]
        items = self._stream_of(task)
        if items is None:
            self._hold(name, self._begun.get((name, None), 0) + 1 if self._begun else 1)
            return
        mapped = self._mapped[name] = Mapped(items, self._items.get(name, {}), fail_safe=task.fail_safe)
        if mapped.left and mapped.stopped is None:
            self._queue_items(name, mapped, mapped.left)
        else:
            self._settle_items(name)

    def _hold(self, name: str, attempt: int) -> None:
        """Make an attempt ready that no retry has asked for."""
        if attempt > 1:
            self._retrying[name, None] = Start(name, attempt)
        self._held.append((self._rank[name], attempt, None))

    def _queue_items(self, name: str, mapped: Mapped, count: int) -> None:
        """Make *count* further items ready; only the first of all has an entry of its own."""
        rank = self._rank[name]
        self._count_items(rank, count)
        if not mapped.queued:
            mapped.queued = True
            self._count_items(rank, -1)
            self._held.append((rank, 1, _ITEMS))

    def _queue(self, entry: _Entry) -> None:
        """Put what is ready where :meth:`take` looks for it."""
        tags = self._limited.get(entry[0])
        heappush(self._ready if tags is None else self._aside.setdefault(tags, []), entry)

    def _count_items(self, rank: int, count: int) -> None:
        """Count *count* items more as ready beyond the first; less, where it is negative."""
        tags = self._limited.get(rank)
        if tags is None:
            self._items_left += count
        else:
            self._items_aside[tags] = self._items_aside.get(tags, 0) + count

    def _next_item(self, name: str, rank: int) -> Start | None:
        mapped = self._mapped[name]
        mapped.queued = False
        if mapped.stopped is not None or not mapped.left:
            return None
        index = mapped.todo[mapped.next]
        mapped.next += 1
        mapped.inflight += 1
        if mapped.left:
            mapped.queued = True
            self._count_items(rank, -1)
            self._queue((rank, 1, _ITEMS))
        return Start(name, self._begun.get((name, index), mapped.first - 1) + 1, index)

    def _stream_of(self, task: Task) -> Items | None:
        """Return the items that *task* is mapped over; None if it is not mapped, or its stream was given by hand."""
        if task.each is None:
            return None
        found = self._results.get(task.each, self._earlier.get(task.each))
        return found if isinstance(found, Items) else None

    def _sources(self, name: str) -> Iterator[tuple[str, str, Ref | Items | Stream | None]]:
        """Yield what feeds a task: the parameter, the task that it comes from, and its result, or what to read of it."""
        for parameter, upstream in self.plan.inputs[name].items():
            yield parameter, upstream, self._results.get(upstream)
        for parameter, upstream in self.plan.earlier.get(name, {}).items():
            yield parameter, upstream, self._earlier[upstream]

    def _tries(self, start: Start) -> int:
        """Count the attempts that retries are charged with, up to this one."""
        return start.attempt - self._free.get((start.task, start.index), 0)

    def _may_retry(self, start: Start, outcome: Outcome) -> bool:
        task = self.plan.tasks[start.task]
        if self._tries(start) > task.max_retries or self.stopping or outcome.error is None:
            return False
        return _matches(outcome.error, task.retry_on)

    def _retry(self, start: Start, old: State, outcome: Outcome) -> None:
        again = Start(start.task, start.attempt + 1, start.index)
        self._retrying[start.task, start.index] = again
        self.retries.append(Retry(again, self._delay(start)))
        if start.index is None:
            self._states[start.task] = State.RETRYING
        self.changes.append(Change(start.task, start.index, start.attempt, old, State.RETRYING, outcome))

    def _delay(self, start: Start) -> float:
        task = self.plan.tasks[start.task]
        most = float("inf") if task.max_delay is None else task.max_delay
        try:
            delay = min(task.retry_delay * task.backoff ** (self._tries(start) - 1), most)
        except OverflowError:
            delay = most
        if task.jitter:
            # Drawn from what the attempt is, so that a run told again waits as it did.
            drawn = hashlib.sha256(f"{self.run_id}/{start.task}/{start.attempt}/{start.index}".encode()).digest()
            delay = min(delay * (1 + task.jitter * (int.from_bytes(drawn[:8]) / 2**63 - 1)), most)
        return delay

    def _record_item(self, start: Start, outcome: Outcome) -> None:
        name, attempt, index = start.task, start.attempt, start.index
        assert index is not None
        task, mapped = self.plan.tasks[name], self._mapped[name]
        mapped.duration += outcome.duration
        if outcome.state in FAILED and mapped.stopped is None and self._may_retry(start, outcome):
            self._retry(start, State.RUNNING, outcome)
            return
        mapped.inflight -= 1
        mapped.ended += 1
        if attempt > mapped.first:
            mapped.attempts[index] = attempt
        self.changes.append(Change(name, index, attempt, State.RUNNING, outcome.state, outcome))
        if outcome.state in FAILED and task.fail_safe:
            mapped.failed[index] = outcome.error or TaskError(name, "failure", outcome.reason)
        elif outcome.state is not State.SUCCEEDED and mapped.stopped is None:
            self._stop_items(name, outcome)
        self._settle_items(name)

    def _stop_items(self, name: str, outcome: Outcome) -> None:
        """Start no further items: one has failed for good, or the run is stopping."""
        mapped = self._mapped[name]
        mapped.stopped = outcome
        self._count_items(self._rank[name], -max(0, mapped.left - 1))
        for key in [key for key in self._retrying if key[0] == name]:
            waiting = self._retrying.pop(key)
            mapped.inflight -= 1
            self.changes.append(Change(name, waiting.index, waiting.attempt - 1, State.RETRYING, State.CANCELLED, None))

    def _settle_items(self, name: str) -> None:
        mapped = self._mapped[name]
        if mapped.inflight or name in self.outcomes:
            return
        old = self._states.get(name, State.PENDING)
        if mapped.stopped is not None:
            self._finish(name, old, replaced(mapped.stopped, result=None, duration=mapped.duration))
        elif mapped.ended == mapped.count and not mapped.open:
            self._finish(name, old, self._collected(name, mapped))

    def _collected(self, name: str, mapped: Mapped) -> Outcome:
        items = Items(
            self.run_id,
            name,
            mapped.count,
            attempt=mapped.first,
            attempts=dict(sorted(mapped.attempts.items())),
            missing=frozenset(mapped.failed),
        )
        return Outcome(
            state=State.SUCCEEDED,
            result=items,
            duration=mapped.duration,
            failed_items=tuple(sorted(mapped.failed.items(), key=lambda at: at[0])),
        )

    def _end(self, name: str, old: State, outcome: Outcome) -> None:
        """End a task, and everything that this decides, without recursion."""
        ending = [(name, old, outcome)]
        for name, old, outcome in ending:  # which grows meanwhile
            if name in self.outcomes:
                continue
            self._set_outcome(name, old, outcome)
            for after in self.plan.dependents[name]:
                end = self._supplied(after, name, outcome)
                if end is not None:
                    ending.append(end)
        if self._failed and self.fail_fast:
            self._stop(FAIL_FAST)
        if not self._left:
            self._conclude()

    def _supplied(self, name: str, upstream: str, outcome: Outcome) -> tuple[str, State, Outcome] | None:
        """Have a task start if *upstream*, which has ended, was the last that it needed; return how it ends, if it does."""
        reason = self._blocked(name, upstream, outcome) if outcome.state is not State.SUCCEEDED else ""
        if reason:
            return name, State.PENDING, Outcome(state=State.SKIPPED, reason=reason, attempt=0)
        self._waits[name] -= 1
        if not self._waits[name] and name not in self.outcomes:
            self._enable(name)
        return None

    def _finish(self, name: str, old: State, outcome: Outcome) -> None:
        """End a task that has done its own part."""
        self._end(name, old, outcome)

    def _set_outcome(self, name: str, old: State, outcome: Outcome) -> None:
        self.outcomes[name] = outcome
        self._left -= 1
        self._states.pop(name, None)
        self.changes.append(Change(name, None, outcome.attempt, old, outcome.state, outcome))
        if self._readers:
            self._release(name)
        if outcome.state is State.SUCCEEDED:
            if outcome.result is not None:
                self._results[name] = outcome.result
                if self._readers.get(name, 1) == 0:
                    self.freed.append(outcome.result)
        elif outcome.state in FAILED and not self.plan.tasks[name].fail_safe:
            self._failed = True

    def _blocked(self, name: str, upstream: str, outcome: Outcome) -> str:
        """Say why task *name* cannot run any more now that *upstream* has not succeeded; "" if it can."""
        ended = f"{upstream!r} {'was ' if outcome.state in _NOT_RUN else ''}{outcome.state.replace('_', ' ')}"
        if outcome.state not in FAILED or not self.plan.tasks[upstream].fail_safe:
            return ended
        task = self.plan.tasks[name]
        for parameter, source in self.plan.inputs[name].items():
            if source == upstream:
                wants = task.parameters[parameter]
                if task.each == upstream or (wants.required and not accepts_none(wants.hint)):
                    return f"{ended}, and {parameter!r} has no default and does not admit None"
        return ""

    def _release(self, name: str) -> None:
        """Count *name* off the readers of what it read; what has none left can go."""
        for upstream in dict.fromkeys(self.plan.inputs[name].values()):
            self._readers[upstream] -= 1
            if not self._readers[upstream] and upstream in self._results:
                self.freed.append(self._results[upstream])

    def _stop(self, reason: str) -> None:
        """Cancel everything that has not started, waits for a retry, or has items that were not taken."""
        self._ready.clear()
        self._held.clear()
        self._aside.clear()
        for name, mapped in self._mapped.items():
            if name not in self.outcomes and mapped.stopped is None:
                self._stop_items(name, Outcome(state=State.CANCELLED, reason=reason))
        self._retrying.clear()
        self.retries.clear()
        for name in self.plan.order:
            state = self.task_state(name)
            if not (state.ended or self._is_running(name, state)):
                self._set_outcome(name, state, Outcome(state=State.CANCELLED, reason=reason, attempt=0))
        if not self._left:
            self._conclude()

    def _is_running(self, name: str, state: State) -> bool:
        """Tell whether some job of a task is not home yet."""
        mapped = self._mapped.get(name)
        return bool(mapped.inflight) if mapped is not None else state is State.RUNNING

    def _conclude(self) -> None:
        self.state = State.CANCELLED if self._cancelled else State.FAILED if self._failed else State.SUCCEEDED


def _is_async_stream(source: Ref | Stream) -> bool:
    return type(source) is Stream and source.how == "async"


FAIL_FAST = "another task failed, and the run is to fail fast"
_ITEMS = -1  # in the heap: the next item of a mapped task, whichever it is then
FAILED = frozenset({State.FAILED, State.TIMED_OUT})
_NOT_RUN = frozenset({State.SKIPPED, State.CANCELLED})


def _matches(error: BaseException, kinds: tuple[type[BaseException], ...]) -> bool:
    """Tell whether *error*, or what it stands for, is one of *kinds*."""
    if isinstance(error, TaskError) and error.bases:
        return any(qualified(kind) in error.bases for kind in kinds)
    return isinstance(error, kinds)


def replaced(outcome: Outcome, **fields: Any) -> Outcome:
    """Return *outcome* with other *fields*."""
    return Outcome(**{**{name: getattr(outcome, name) for name in outcome.__struct_fields__}, **fields})
