"""Runs: what to start next, and what an outcome means.

Nothing here waits, reads a clock or touches the outside.  A driver asks a
:class:`Run` what to :meth:`~Run.take`, has it done somewhere, and tells the run
how it went with :meth:`~Run.record`.  The run decides the rest: retries, what a
failure takes down with it, which results nobody will read again, and when
everything is over.  Every transition is put into :attr:`Run.changes`, once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from heapq import heapify, heappop, heappush
from typing import Any, Literal

import msgspec

from dpcore.errors import TaskError
from dpcore.hints import accepts_none, stream_kind
from dpcore.jobs import (
    Enough,
    Items,
    Job,
    Left,
    Message,
    Outcome,
    Reading,
    Ref,
    Results,
    State,
    Stored,
    Stream,
    qualified,
)
from dpcore.plans import Plan
from dpcore.streams import LEAD, Flow, Reader
from dpcore.tasks import Task

__all__ = ("Before", "Change", "Retry", "Run", "Start")

_NONE: Mapping[int, Any] = {}

Keep = Literal["all", "leaves"]


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


class _Mapped:
    """How far a mapped task is: items are taken in order, and retried one by one.

    While its stream is *open* there may be further items.  The attempts at an item are
    counted from *first*: 1, unless the task had to begin again.
    """

    __slots__ = (
        "attempts",
        "count",
        "duration",
        "ended",
        "failed",
        "first",
        "highest",
        "inflight",
        "items",
        "next",
        "open",
        "positions",
        "queued",
        "stopped",
        "todo",
    )

    def __init__(
        self,
        items: Items,
        before: Mapping[int, Outcome] = _NONE,
        *,
        fail_safe: bool = False,
        first: int = 1,
        is_open: bool = False,
    ) -> None:
        self.items, self.first, self.highest, self.open = items, first, first, is_open
        self.queued = False  # whether the next item is among what is ready
        self.count = len(items)
        # Where the producer left items out, ours are counted without them.
        self.positions = [at for at in range(items.count) if at not in items.missing] if items.missing else None
        self.todo = [at for at in range(self.count) if at not in before] if before else range(self.count)
        self.next = 0  # the first of these that was never taken
        self.inflight = 0  # taken, or waiting for a retry
        self.ended = self.count - len(self.todo)
        self.attempts: dict[int, int] = {}  # of the items that needed more than one
        self.failed: dict[int, BaseException] = {}
        self.stopped: Outcome | None = None  # the outcome that ends the task before its items have ended
        self.duration = 0.0
        for index, outcome in before.items():
            self.duration += outcome.duration
            if outcome.attempt > 1:
                self.attempts[index] = outcome.attempt
            if outcome.state is not State.SUCCEEDED and fail_safe:
                self.failed[index] = outcome.error or TaskError(items.task, "failure", outcome.reason)
            elif outcome.state is not State.SUCCEEDED:
                self.stopped = outcome

    @property
    def left(self) -> int:
        """How many items were never taken."""
        return len(self.todo) - self.next

    def ref(self, index: int) -> Ref:
        """Return the ref of the item that job *index* receives."""
        return self.items.at(index if self.positions is None else self.positions[index])


class Run:
    """One execution of a plan, under a run id.

    ``state`` is the run's, ``outcomes`` the tasks' that have ended.  ``changes``,
    ``retries`` and ``freed`` are for the driver to empty: transitions to record and
    to tell, attempts to start later, and results that no task will read again.
    With *before*, it goes on with a run of that id that had come so far.

    If it is *live*, a task whose parameter is an iterator, or that is mapped over a stream,
    starts as soon as its producer has stored an item, and reads while it runs.  Then the
    driver tells the run what jobs say (:meth:`hear`), tells them what is in ``says``, and
    stops those in ``void``: what they read has come to nothing, and they start again.
    """

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
        live: bool = False,
    ) -> None:
        self.plan, self.run_id, self.io = plan, run_id, io
        self.params, self.metadata, self.nominal = dict(params or {}), dict(metadata or {}), nominal
        self.fail_fast, self.keep = fail_fast, keep
        self.live = False  # whether some task reads while its producer still runs
        self.state = State.PENDING
        self.reason = ""
        self.outcomes: dict[str, Outcome] = {}
        self.changes: list[Change] = []
        self.retries: list[Retry] = []
        self.freed: list[Ref | Items] = []
        self.says: list[tuple[Start, Message]] = []
        self.void: list[Start] = []
        self._states: dict[str, State] = {}  # of tasks that are neither pending nor ended
        self._results: dict[str, Ref | Items] = {}
        self._earlier = earlier or {}
        self._mapped: dict[str, _Mapped] = {}
        self._retrying: dict[tuple[str, int | None], Start] = {}
        self._waits = {name: len(needs) for name, needs in plan.needs.items()}
        self._readers: dict[str, int] = {}  # of each result that can go once nobody will read it
        if keep == "leaves":
            for inputs in plan.inputs.values():
                for upstream in set(inputs.values()):
                    self._readers[upstream] = self._readers.get(upstream, 0) + 1
        # Deepest level first: what was begun is finished before more is begun, and its results can go.
        depth = {name: level for level, names in enumerate(plan.levels) for name in names}
        ranked = sorted(enumerate(plan.order), key=lambda at: (-depth[at[1]], at[0]))
        self._names = [name for _, name in ranked]
        self._rank = {name: rank for rank, name in enumerate(self._names)}
        self._ready: list[tuple[int, int, int | None]] = []  # rank, attempt, index
        self._held: list[tuple[int, int, int | None]] = []
        self._items_left = 0  # items of mapped tasks that are ready, beyond one each
        self._inflight = 0
        self._left = len(plan)  # tasks that have not ended
        self._cancelled = False
        self._failed = False
        self._flows: dict[str, Flow] = {}  # of the tasks whose items are read live
        self._live: dict[str, Reader[Start]] = {}  # by task that reads live
        self._before = before or Before()
        if live:
            self._find_streams()
        blocked = self._restore(self._before.outcomes)
        for name in [name for name in plan.order if not self._waits[name] and name not in self.outcomes]:
            self._enable(name)
        for name, reason in blocked:
            self._end(name, State.PENDING, Outcome(state=State.SKIPPED, reason=reason, attempt=0))
        if self._failed and fail_fast:
            self._stop(_FAIL_FAST)
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
        while self._ready:
            rank, attempt, index = heappop(self._ready)
            name = self._names[rank]
            if name in self.outcomes or (attempt > 1 and self._retrying.pop((name, index), None) is None):
                continue  # it was called off while it waited
            start = Start(name, attempt, index) if index != _ITEMS else self._next_item(name, rank)
            if start is not None:
                self._begin(start)
                return start
        return None

    @property
    def available(self) -> int:
        """How many attempts could be taken now."""
        return len(self._ready) + self._items_left

    def release(self) -> None:
        """Let :meth:`take` give what the outcomes recorded so far made ready.

        Until then it is held back, so that a driver can make an outcome durable before
        anything depends on it.
        """
        if self._held:
            for entry in self._held:
                heappush(self._ready, entry)
            self._held.clear()

    def requeue(self, start: Start) -> None:
        """Make an attempt ready whose delay is over; nothing happens if it was cancelled meanwhile."""
        if self._retrying.get((start.task, start.index)) == start:
            heappush(self._ready, (self._rank[start.task], start.attempt, start.index))

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
                if index is not None and upstream == task.each and name in self._mapped:
                    inputs[parameter] = self._mapped[name].ref(index)
                elif result is None and upstream in self._open_to(name):
                    items = msgspec.structs.replace(self._flows[upstream].items, count=0)
                    inputs[parameter] = Stream(items, stream_kind(task.parameters[parameter].hint), live=True)
                elif result is None:  # a fail-safe task left nothing: the default, else None
                    if task.parameters[parameter].required:
                        arguments[parameter] = None
                elif isinstance(result, Ref):
                    inputs[parameter] = result
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
            room=self._flows[name].granted if name in self._flows else None,
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
        name, index = start.task, start.index
        reader = self._live.get(name)
        if reader is not None and not self._counts(start, reader, outcome):
            return
        if name in self._flows:
            outcome = self._flowed(start, outcome)
        if outcome.state is not State.SUCCEEDED:
            if outcome.result is not None:
                self.freed.append(outcome.result)  # what a stream had stored before it failed
                outcome = _replaced(outcome, result=None)
            if outcome.state is State.CANCELLED and not outcome.reason:
                outcome = _replaced(outcome, reason=self.reason or "its run was cancelled")
        if index is not None:
            self._record_item(start, outcome)
        elif outcome.state in _FAILED and self._may_retry(start, outcome):
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
        if self._flows:
            self._begin_live(start)
        if index is not None:
            was = State.RETRYING if attempt > self._mapped[name].first else State.PENDING
            self.changes.append(Change(name, index, attempt, was, State.RUNNING, None))

    def _enable(self, name: str) -> None:
        """Make a task ready, all that it needs having ended; a mapped one item by item."""
        task = self.plan.tasks[name]
        reader = self._live.get(name)
        if reader is not None:
            self._enable_live(task, reader)
            return
        items = self._stream_of(task)
        if items is None:
            first = Start(name, self._before.begun.get((name, None), 0) + 1)
            if first.attempt > 1:
                self._retrying[name, None] = first
            self._held.append((self._rank[name], first.attempt, None))
            return
        mapped = self._mapped[name] = _Mapped(items, self._before.items.get(name, {}), fail_safe=task.fail_safe)
        if mapped.left and mapped.stopped is None:
            self._queue_items(name, mapped, mapped.left)
        else:
            self._settle_items(name)

    def _queue_items(self, name: str, mapped: _Mapped, count: int) -> None:
        """Make *count* further items ready; only the first of all has an entry of its own."""
        self._items_left += count
        if not mapped.queued:
            mapped.queued = True
            self._items_left -= 1
            self._held.append((self._rank[name], 1, _ITEMS))

    def _next_item(self, name: str, rank: int) -> Start | None:
        mapped = self._mapped[name]
        mapped.queued = False
        if mapped.stopped is not None or not mapped.left:
            return None
        index = mapped.todo[mapped.next]
        mapped.next += 1
        mapped.inflight += 1
        if mapped.left:
            self._items_left -= 1
            mapped.queued = True
            heappush(self._ready, (rank, 1, _ITEMS))
        return Start(name, self._before.begun.get((name, index), mapped.first - 1) + 1, index)

    def _stream_of(self, task: Task) -> Items | None:
        """Return the items that *task* is mapped over; None if it is not mapped, or its stream was given by hand."""
        if task.each is None:
            return None
        found = self._results.get(task.each, self._earlier.get(task.each))
        return found if isinstance(found, Items) else None

    def _sources(self, name: str) -> Iterator[tuple[str, str, Ref | Items | None]]:
        """Yield what feeds a task: the parameter, the task that it comes from, and its result."""
        for parameter, upstream in self.plan.inputs[name].items():
            yield parameter, upstream, self._results.get(upstream)
        for parameter, upstream in self.plan.earlier.get(name, {}).items():
            yield parameter, upstream, self._earlier[upstream]

    def _tries(self, start: Start) -> int:
        """Count the attempts that retries are charged with, up to this one."""
        free = self._free_of(start.task) if self._live else 0
        return start.attempt - (free or self._before.free.get((start.task, start.index), 0))

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
        if outcome.state in _FAILED and mapped.stopped is None and self._may_retry(start, outcome):
            self._retry(start, State.RUNNING, outcome)
            return
        mapped.inflight -= 1
        mapped.ended += 1
        if attempt > mapped.first:
            mapped.attempts[index] = attempt
        self.changes.append(Change(name, index, attempt, State.RUNNING, outcome.state, outcome))
        if outcome.state in _FAILED and task.fail_safe:
            mapped.failed[index] = outcome.error or TaskError(name, "failure", outcome.reason)
        elif outcome.state is not State.SUCCEEDED and mapped.stopped is None:
            self._stop_items(name, outcome)
        self._settle_items(name)

    def _stop_items(self, name: str, outcome: Outcome) -> None:
        """Start no further items: one has failed for good, or the run is stopping."""
        mapped = self._mapped[name]
        mapped.stopped = outcome
        self._items_left -= max(0, mapped.left - 1)
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
            self._finish(name, old, _replaced(mapped.stopped, result=None, duration=mapped.duration))
        elif mapped.ended == mapped.count and not mapped.open:
            self._finish(name, old, self._collected(name, mapped))

    def _collected(self, name: str, mapped: _Mapped) -> Outcome:
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
                reason = self._blocked(after, name, outcome) if outcome.state is not State.SUCCEEDED else ""
                if self._live and name in self._open_to(after):
                    ending += self._end_of_stream(name, after, reason, outcome)
                elif not reason:
                    self._waits[after] -= 1
                    if not self._waits[after] and after not in self.outcomes:
                        self._enable(after)
                elif after not in self.outcomes:
                    ending.append((after, State.PENDING, Outcome(state=State.SKIPPED, reason=reason, attempt=0)))
        if self._failed and self.fail_fast:
            self._stop(_FAIL_FAST)
        if not self._left:
            self._conclude()

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
        elif outcome.state in _FAILED and not self.plan.tasks[name].fail_safe:
            self._failed = True

    def _blocked(self, name: str, upstream: str, outcome: Outcome) -> str:
        """Say why task *name* cannot run any more now that *upstream* has not succeeded; "" if it can."""
        ended = f"{upstream!r} {'was ' if outcome.state in _NOT_RUN else ''}{outcome.state.replace('_', ' ')}"
        if outcome.state not in _FAILED or not self.plan.tasks[upstream].fail_safe:
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
        for name, mapped in self._mapped.items():
            if name not in self.outcomes and mapped.stopped is None:
                self._stop_items(name, Outcome(state=State.CANCELLED, reason=reason))
        self._retrying.clear()
        self.retries.clear()
        for name in self.plan.order:
            state, items = self.task_state(name), self._mapped.get(name)
            reader = self._live.get(name)
            is_running = bool(items.inflight) if items is not None else state is State.RUNNING
            if reader is not None:
                is_running = bool(reader.running or reader.void)
            if state.ended or is_running:
                continue
            if reader is not None:
                self._forget_provisional(reader)
            self._set_outcome(name, state, Outcome(state=State.CANCELLED, reason=reason, attempt=0))
        if not self._left:
            self._conclude()

    # ---------------------------------------------------------------- live streams

    def hear(self, start: Start, message: Message) -> None:
        """Take in what a job says of the streams that it feeds or reads; nothing happens if its attempt is over."""
        if isinstance(message, Stored):
            flow = self._flows.get(start.task)
            if flow is not None and flow.attempt == start.attempt and not flow.ended:
                self._tell_readers(flow, flow.store(message.count))
                self._give_room(flow)
        elif isinstance(message, Reading | Left):
            reader = self._live.get(start.task)
            if reader is not None and start in reader.running and message.task in reader.sources:
                self._hear_reader(start.task, reader, message)

    def _hear_reader(self, name: str, reader: Reader[Start], message: Reading | Left) -> None:
        flow = self._flows[message.task]
        if isinstance(message, Left):
            flow.leave(name)
        else:
            flow.reads(name, message.index, waits=message.waits)
            if not self._answer(flow, name) and message.waits:
                for other in reader.sources - {message.task}:
                    self._flows[other].idles(name, idle=True)
        self._let_go(reader)

    def _let_go(self, reader: Reader[Start]) -> None:
        """Give room to the producers that *reader* may have held until now."""
        for source in reader.sources:
            self._give_room(self._flows[source])

    def _find_streams(self) -> None:
        """Find which tasks read the items of which others while these are being made."""
        tasks = self.plan.tasks
        left = [name for name in self.plan.order if name not in self._before.outcomes]
        making = {name for name in left if tasks[name].streams and tasks[name].each is None}
        self._read_by: dict[str, list[str]] = {}
        for name in left if making else ():
            sources = {
                source for source in set(self.plan.inputs[name].values()) & making if self._reads_live(name, source)
            }
            if sources:
                self.live = True
                reader = self._live[name] = Reader(sources)
                self._resume_reader(name, reader)
                for source in sources:
                    self._read_by.setdefault(source, []).append(name)
                    lead = tasks[source].lead
                    self._flows[source] = Flow(self.run_id, source, LEAD if lead is None else lead)

    def _resume_reader(self, name: str, reader: Reader[Start]) -> None:
        """Count the attempts of a reader on from those that went before; one that is mapped begins all of them anew."""
        is_mapped = self.plan.tasks[name].each is not None
        for (task, _), begun in self._before.begun.items():
            if task == name:
                reader.begun = max(reader.begun, begun)
        reader.free = reader.begun if is_mapped else self._before.free.get((name, None), 0)

    def _reads_live(self, name: str, source: str) -> bool:
        task = self.plan.tasks[name]
        if task.each is not None:
            return task.each == source
        kinds = [
            (upstream, stream_kind(task.parameters[parameter].hint))
            for parameter, upstream in self.plan.inputs[name].items()
        ]
        # A plain iterator, read on an event loop, would hold it up until the next item is there.
        on_loop = task.schema.is_async or any(kind == "async" for _, kind in kinds)
        wanted = "async" if on_loop else "iterator"
        return all(kind == wanted for upstream, kind in kinds if upstream == source)

    def _open_to(self, name: str) -> Collection[str]:
        """Return the producers that *name* reads live and that have not ended for good."""
        reader = self._live.get(name)
        return reader.open if reader is not None else ()

    def _free_of(self, name: str) -> int:
        """Return how many attempts have cost a task no retry."""
        mapped = self._mapped.get(name)
        if mapped is not None:
            return mapped.first - 1
        reader = self._live.get(name)
        return reader.free if reader is not None else 0

    def _enable_live(self, task: Task, reader: Reader[Start]) -> None:
        name = task.name
        if task.each is None:
            attempt = reader.begun + 1
            if attempt > 1:
                self._retrying[name, None] = Start(name, attempt)
            self._held.append((self._rank[name], attempt, None))
            return
        flow = self._flows[task.each]
        mapped = self._mapped[name] = _Mapped(flow.items, first=reader.begun + 1, is_open=not flow.ended)
        if mapped.count:
            self._queue_items(name, mapped, mapped.count)
        self._settle_items(name)

    def _begin_live(self, start: Start) -> None:
        name = start.task
        if name in self._flows:
            self._flows[name].begin(start.attempt)
        reader = self._live.get(name)
        if reader is not None:
            reader.running.add(start)
            if start.index is None:
                reader.begun = start.attempt
            else:
                mapped = self._mapped[name]
                mapped.highest = max(mapped.highest, start.attempt)
                self._read_on(name, reader)

    def _read_on(self, name: str, reader: Reader[Start]) -> None:
        """Count the items that a mapped task has begun as read; with none of them running it holds nobody."""
        mapped = self._mapped.get(name)
        for source in reader.sources:
            flow = self._flows[source]
            if mapped is not None and reader.running:
                flow.reads(name, mapped.next)
            else:
                flow.leave(name)
            self._give_room(flow)

    def _tell_readers(self, flow: Flow, first: bool) -> None:
        """Let those who read *flow* have what it has; if it is the *first* of it, they may begin."""
        for name in self._read_by[flow.task]:
            if name in self.outcomes:
                continue
            if first:
                self._waits[name] -= 1
                if not self._waits[name]:
                    self._enable(name)
            elif name in self._mapped:
                self._extend(name, flow)
            self._answer(flow, name)

    def _extend(self, name: str, flow: Flow) -> None:
        """Let a mapped task have the items that have come, and know whether there will be others."""
        mapped = self._mapped[name]
        further = flow.count - mapped.count
        if mapped.stopped is None:
            mapped.items, mapped.count, mapped.open = flow.items, flow.count, not flow.ended
            mapped.todo = range(flow.count)
            if further:
                self._queue_items(name, mapped, further)
            if flow.ended:
                self._settle_items(name)

    def _answer(self, flow: Flow, name: str) -> bool:
        """Tell *name* what it waits for, if that is there."""
        message = flow.answer(name)
        if message is None:
            return False
        reader = self._live[name]
        self.says += [(start, message) for start in reader.running]
        for other in reader.sources - {flow.task}:
            self._flows[other].idles(name, idle=False)
        return True

    def _give_room(self, flow: Flow) -> None:
        room = flow.room()
        if room is not None:
            self.says.append((Start(flow.task, flow.attempt), room))

    # What ends, and what comes to nothing.

    def _counts(self, start: Start, reader: Reader[Start], outcome: Outcome) -> bool:
        """Take in that an attempt of a reader is home; tell whether its outcome counts."""
        name = start.task
        if start in reader.running:
            reader.running.discard(start)
            self._read_on(name, reader)
            return True
        reader.void.discard(start)
        if outcome.result is not None:
            self.freed.append(outcome.result)
        if start.index is not None:
            self.changes.append(Change(name, start.index, start.attempt, State.RUNNING, State.CANCELLED, None))
        if not reader.void:
            self._waits[name] -= 1
            self._home(name, reader)
        return False

    def _home(self, name: str, reader: Reader[Start]) -> None:
        """Have a reader whose work has come to nothing, and of which nothing runs any more, end or begin again."""
        if reader.fate is not None:
            self._end(name, State.RETRYING, reader.fate)
        elif self.stopping:
            reason = self.reason or _FAIL_FAST
            self._end(name, State.RETRYING, Outcome(state=State.CANCELLED, reason=reason, attempt=reader.begun))
        elif not self._waits[name]:
            self._enable(name)

    def _flowed(self, start: Start, outcome: Outcome) -> Outcome:
        """Take in that an attempt of a producer has ended; return how it has."""
        flow = self._flows[start.task]
        if flow.enough and outcome.state is not State.SUCCEEDED and not self.stopping:
            result = outcome.result if isinstance(outcome.result, Items) else flow.items
            outcome = _replaced(outcome, state=State.SUCCEEDED, result=result, error=None, traceback="", events=())
        if outcome.state is State.SUCCEEDED:
            count = outcome.result.count if isinstance(outcome.result, Items) else flow.count
            self._tell_readers(flow, flow.end(count))
        else:
            self._lose(start.task)
        return outcome

    def _lose(self, name: str) -> None:
        """Have all that has read the current attempt of a producer come to nothing, and what has read that, too."""
        losing = [name]
        for name in losing:  # which grows meanwhile
            flow = self._flows.get(name)
            if flow is None:
                continue
            had_begun = flow.flows
            flow.begin(0)
            for after in self._read_by[name] if had_begun else ():
                if after not in self.outcomes:
                    self._waits[after] += 1
                    self._begin_again(after, self._live[after])
                    losing.append(after)

    def _begin_again(self, name: str, reader: Reader[Start]) -> None:
        """Take back a reader, wherever it is, so that it begins again when it can; that costs it no retry."""
        self._forget_provisional(reader)
        mapped = self._mapped.pop(name, None)
        if mapped is not None:
            self._forget_items(name, mapped, reader)
        self._retrying.pop((name, None), None)
        rank = self._rank[name]
        self._held = [entry for entry in self._held if entry[0] != rank]
        self._ready = [entry for entry in self._ready if entry[0] != rank]
        heapify(self._ready)
        reader.free = reader.begun
        if self._states.get(name) is State.RUNNING:  # known before its producer can end: what it did is never resumed
            why = Outcome(state=State.CANCELLED, reason=_LOST, attempt=reader.begun)
            self._states[name] = State.RETRYING
            self.changes.append(Change(name, None, reader.begun, State.RUNNING, State.RETRYING, why))
        for source in reader.sources:
            self._flows[source].leave(name)
            self._give_room(self._flows[source])
        if reader.running:
            self._waits[name] += 1  # until they are home
            self.void += reader.running
            reader.void |= reader.running
            reader.running.clear()
        elif not reader.void and self._states.get(name) is State.RETRYING:
            self._home(name, reader)

    def _forget_items(self, name: str, mapped: _Mapped, reader: Reader[Start]) -> None:
        if mapped.next:
            reader.begun = mapped.highest
            left = frozenset({*mapped.failed, *(start.index for start in reader.running if start.index is not None)})
            made = Items(self.run_id, name, mapped.next, mapped.first, dict(mapped.attempts), left)
            if len(made):
                self.freed.append(made)
        if mapped.stopped is None:
            self._items_left -= max(0, mapped.left - 1)
            for key in [key for key in self._retrying if key[0] == name]:
                waiting = self._retrying.pop(key)
                change = Change(name, waiting.index, waiting.attempt - 1, State.RETRYING, State.CANCELLED, None)
                self.changes.append(change)

    def _forget_provisional(self, reader: Reader[Start]) -> None:
        if reader.provisional is not None and reader.provisional.result is not None:
            self.freed.append(reader.provisional.result)
        reader.provisional = None

    def _finish(self, name: str, old: State, outcome: Outcome) -> None:
        """End a task; one that has read what is not certain yet, when that is."""
        reader = self._live.get(name)
        if reader is None or not reader.open:
            self._end(name, old, outcome)
            return
        reader.provisional = outcome
        for source in reader.open:
            self._stop_unread(source)

    def _stop_unread(self, name: str) -> None:
        """Tell a producer that it is enough, if all that take its items have ended well, but for it."""
        flow = self._flows[name]
        if flow.ended or flow.enough or not flow.attempt or self.plan.tasks[name].drain:
            return
        for after in self.plan.dependents[name]:
            if name in self.plan.inputs[after].values():
                reader = self._live.get(after)
                if reader is None or reader.open != {name} or reader.provisional is None:
                    return
                if reader.provisional.state is not State.SUCCEEDED:
                    return
        flow.enough = True
        self.says.append((Start(name, flow.attempt), Enough()))

    def _end_of_stream(self, name: str, after: str, reason: str, outcome: Outcome) -> list[tuple[str, State, Outcome]]:
        """Say what the end of a producer decides for *after*, which reads it live: the tasks that end with it."""
        reader = self._live[after]
        reader.open.discard(name)
        state = self._states.get(after, State.PENDING)
        if after in self.outcomes:
            return []
        if outcome.state is State.SUCCEEDED:
            for other in reader.open:
                self._stop_unread(other)
            return [(after, state, reader.provisional)] if reader.provisional and not reader.open else []
        if not reason:
            self._waits[after] -= 1
            if not self._waits[after]:
                self._enable(after)
            return []
        skipped = Outcome(state=State.SKIPPED, reason=reason, attempt=0)
        if reader.void:
            reader.fate = skipped
            return []
        return [(after, state, skipped)]

    def _conclude(self) -> None:
        self.state = State.CANCELLED if self._cancelled else State.FAILED if self._failed else State.SUCCEEDED


def _is_async_stream(source: Ref | Stream) -> bool:
    return type(source) is Stream and source.how == "async"


_LOST = "the attempt whose items it read has failed"
_FAIL_FAST = "another task failed, and the run is to fail fast"
_ITEMS = -1  # in the heap: the next item of a mapped task, whichever it is then
_FAILED = frozenset({State.FAILED, State.TIMED_OUT})
_NOT_RUN = frozenset({State.SKIPPED, State.CANCELLED})


def _matches(error: BaseException, kinds: tuple[type[BaseException], ...]) -> bool:
    """Tell whether *error*, or what it stands for, is one of *kinds*."""
    if isinstance(error, TaskError) and error.bases:
        return any(qualified(kind) in error.bases for kind in kinds)
    return isinstance(error, kinds)


def _replaced(outcome: Outcome, **fields: Any) -> Outcome:
    return Outcome(**{**{name: getattr(outcome, name) for name in outcome.__struct_fields__}, **fields})
