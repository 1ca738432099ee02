"""Runs with live streams: tasks that read the items of others while these are being made.

Pure, like :class:`~dpcore.runs.Run`, from which a :class:`LiveRun` differs in what it does
when a producer's attempt begins, stores, ends or fails, and when a reader's does.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from heapq import heapify
from typing import Any

import msgspec

from dpcore.hints import stream_kind
from dpcore.jobs import Enough, Items, Job, Left, Message, Outcome, Reading, Ref, Results, State, Stored, Stream
from dpcore.mapped import Mapped
from dpcore.plans import Plan
from dpcore.runs import FAIL_FAST, FAILED, Before, Change, Run, Start, replaced
from dpcore.streams import LEAD, Flow, Reader

__all__ = ("LiveRun", "live_sources", "run_of")

_LOST = "the attempt whose items it read has failed"
_NOTHING = Before()


def run_of(plan: Plan, run_id: str, *, streams: bool, before: Before | None = None, **arguments: Any) -> Run:
    """Return a run of *plan*; one with live streams if the executor can have *streams* and some task would read one.

    The *arguments* are those of :class:`~dpcore.runs.Run`.
    """
    is_live = streams and bool(live_sources(plan, before.outcomes if before is not None else ()))
    return (LiveRun if is_live else Run)(plan, run_id, before=before, **arguments)


def live_sources(plan: Plan, ended: Container[str] = ()) -> dict[str, set[str]]:
    """Return which tasks can read others while these are being made: the producers by reader, but for what has *ended*.

    A mapped task is no such producer: its items end in any order, so who reads them waits for all.
    """
    making = {name for name, task in plan.tasks.items() if task.streams and task.each is None and name not in ended}
    if not making:
        return {}
    found: dict[str, set[str]] = {}
    for name in plan.order:
        if name not in ended:
            sources = {up for up in plan.inputs[name].values() if up in making and _reads_live(plan, name, up)}
            if sources:
                found[name] = sources
    return found


def _reads_live(plan: Plan, name: str, source: str) -> bool:
    task = plan.tasks[name]
    if task.each is not None:
        return task.each == source
    kinds = [
        (upstream, stream_kind(task.parameters[parameter].hint)) for parameter, upstream in plan.inputs[name].items()
    ]
    # A plain iterator, read on an event loop, would hold it up until the next item is there.
    on_loop = task.schema.is_async or any(kind == "async" for _, kind in kinds)
    wanted = "async" if on_loop else "iterator"
    return all(kind == wanted for upstream, kind in kinds if upstream == source)


class LiveRun(Run):
    """A run in which tasks read streams while these are being made.

    A task whose parameter is an iterator, or that is mapped over a stream, starts as soon
    as its producer has stored an item, and reads while it runs.  The driver tells the run
    what jobs say (:meth:`hear`), tells them what is in ``says``, and stops those in
    ``void``: what they read has come to nothing, and they start again.  Readers in ``failing``
    have failed for good, which counts when what they read has ended well.
    """

    __slots__ = ("_flows", "_live", "_read_by", "failing", "says", "void")

    def __init__(self, plan: Plan, run_id: str, *, io: Results, before: Before | None = None, **arguments: Any) -> None:
        before = before or _NOTHING
        self.says: list[tuple[Start, Message]] = []
        self.void: list[Start] = []
        self.failing: list[tuple[str, Outcome]] = []
        self._flows: dict[str, Flow] = {}  # of the tasks whose items are read live
        self._live: dict[str, Reader[Start]] = {}  # by task that reads live
        self._read_by: dict[str, list[str]] = {}
        for name, sources in live_sources(plan, before.outcomes).items():
            self._live[name] = Reader(sources)
            for source in sources:
                self._read_by.setdefault(source, []).append(name)
                lead = plan.tasks[source].lead
                self._flows[source] = Flow(run_id, source, LEAD if lead is None else lead)
        # Of a stream that begins anew there are other items for all one knows: so does all that was mapped over it.
        anew = {name for name in self._live if plan.tasks[name].each is not None}
        for (name, _), begun in before.begun.items():
            if name in self._live:
                reader = self._live[name]
                reader.begun = max(reader.begun, begun)
                reader.free = reader.begun if name in anew else before.free.get((name, None), 0)
        super().__init__(plan, run_id, io=io, before=_without(before, anew), **arguments)

    def job(self, start: Start) -> Job:
        """Return all that a worker needs for this attempt."""
        job = super().job(start)
        flow = self._flows.get(start.task)
        return job if flow is None else msgspec.structs.replace(job, room=flow.granted)

    def record(self, start: Start, outcome: Outcome) -> None:
        """Take in how an attempt went that :meth:`take` gave; each attempt is recorded exactly once."""
        reader = self._live.get(start.task)
        if reader is not None and not self._counts(start, reader, outcome):
            self._inflight -= 1
            self._give_back(start)
            return
        if start.task in self._flows:
            outcome = self._flowed(start, outcome)
        super().record(start, outcome)

    def hear(self, start: Start, message: Message) -> None:
        """Take in what a job says of the streams that it feeds or reads; nothing happens if its attempt is over."""
        if isinstance(message, Stored):
            flow = self._flows.get(start.task)
            if flow is not None and flow.attempt == start.attempt and not flow.ended:
                self._tell_readers(flow, flow.store(message.count))
                self._give_room(flow)
        elif isinstance(message, Reading | Left):
            reader = self._live.get(start.task)
            if reader is None or start not in reader.running:
                return
            if start.index is not None:  # its code begins: one that only waits for a place holds nobody
                reader.reading.add(start)
                self._read_on(start.task, reader)
            elif message.task in reader.sources:
                self._hear_reader(start.task, reader, message)

    def kept(self, start: Start) -> Items | None:
        """Return what stays of what a producer has stored if it is stopped; None unless nobody wants more of it."""
        flow = self._flows.get(start.task)
        return flow.items if flow is not None and flow.enough and flow.attempt == start.attempt else None

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

    # What a run decides of every task, and what is different for those that feed or read live streams.

    def _begin(self, start: Start) -> None:
        super()._begin(start)
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

    def _enable(self, name: str) -> None:
        task, reader = self.plan.tasks[name], self._live.get(name)
        if reader is None:
            super()._enable(name)
            return
        if task.each is None:
            self._hold(name, reader.begun + 1)
            return
        flow = self._flows[task.each]
        mapped = self._mapped[name] = Mapped(flow.items, first=reader.begun + 1, is_open=not flow.ended)
        if mapped.count:
            self._queue_items(name, mapped, mapped.count)
        self._settle_items(name)

    def _sources(self, name: str) -> Iterator[tuple[str, str, Ref | Items | Stream | None]]:
        reader = self._live.get(name)
        task = self.plan.tasks[name]
        for parameter, upstream, result in super()._sources(name):
            if reader is None or upstream not in reader.open:
                yield parameter, upstream, result
            elif task.each is not None:
                yield parameter, upstream, self._flows[upstream].items
            else:
                items = msgspec.structs.replace(self._flows[upstream].items, count=0)
                yield parameter, upstream, Stream(items, stream_kind(task.parameters[parameter].hint), live=True)

    def _tries(self, start: Start) -> int:
        reader = self._live.get(start.task)
        if reader is None:
            return super()._tries(start)
        mapped = self._mapped.get(start.task)
        return start.attempt - (mapped.first - 1 if mapped is not None else reader.free)

    def _supplied(self, name: str, upstream: str, outcome: Outcome) -> tuple[str, State, Outcome] | None:
        reader = self._live.get(name)
        if reader is None or upstream not in reader.open:
            return super()._supplied(name, upstream, outcome)
        reason = self._blocked(name, upstream, outcome) if outcome.state is not State.SUCCEEDED else ""
        return self._end_of_stream(name, upstream, reason, outcome)

    def _finish(self, name: str, old: State, outcome: Outcome) -> None:
        """End a task; one that has read what is not certain yet, when that is."""
        reader = self._live.get(name)
        has_failed = outcome.state in FAILED and not self.plan.tasks[name].fail_safe
        if reader is None or not reader.open or (has_failed and self.fail_fast):
            self._end(name, old, outcome)
            return
        reader.provisional = outcome
        if has_failed:
            self.failing.append((name, outcome))
        for source in reader.open:
            self._stop_unread(source)

    def _is_running(self, name: str, state: State) -> bool:
        reader = self._live.get(name)
        return bool(reader.running or reader.void) if reader is not None else super()._is_running(name, state)

    def _stop(self, reason: str) -> None:
        for name, reader in self._live.items():
            if name in self.outcomes or reader.running or reader.void:
                continue
            if reader.provisional is not None and reader.provisional.state in FAILED:
                self._set_outcome(name, self.task_state(name), reader.provisional)  # it will not begin again
            else:
                self._forget_provisional(reader)
        super()._stop(reason)

    # How far streams are.

    def _read_on(self, name: str, reader: Reader[Start]) -> None:
        """Count the items that a mapped task was given as read; while no code of it runs, it holds nobody."""
        mapped = self._mapped.get(name)
        for source in reader.sources:
            flow = self._flows[source]
            if mapped is not None and reader.reading:
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
            reader.reading.discard(start)
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
            reason = self.reason or FAIL_FAST
            self._end(name, State.RETRYING, Outcome(state=State.CANCELLED, reason=reason, attempt=reader.begun))
        elif not self._waits[name]:
            self._enable(name)

    def _flowed(self, start: Start, outcome: Outcome) -> Outcome:
        """Take in that an attempt of a producer has ended; return how it has."""
        flow = self._flows[start.task]
        if flow.enough and outcome.state is not State.SUCCEEDED and not self.stopping:
            result = outcome.result if isinstance(outcome.result, Items) else flow.items
            outcome = replaced(outcome, state=State.SUCCEEDED, result=result, error=None, traceback="", events=())
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
        self._call_off({self._rank[after] for after in losing[1:]})

    def _call_off(self, ranks: set[int]) -> None:
        """Forget what was ready to start of the tasks with these *ranks*."""
        if ranks:
            self._held = [entry for entry in self._held if entry[0] not in ranks]
            if not ranks.isdisjoint(entry[0] for entry in self._ready):
                self._ready = [entry for entry in self._ready if entry[0] not in ranks]
                heapify(self._ready)
            for tags, aside in self._aside.items():
                self._aside[tags] = [entry for entry in aside if entry[0] not in ranks]
                heapify(self._aside[tags])

    def _begin_again(self, name: str, reader: Reader[Start]) -> None:
        """Take back a reader, wherever it is, so that it begins again when it can; that costs it no retry."""
        self._forget_provisional(reader)
        mapped = self._mapped.pop(name, None)
        if mapped is not None:
            self._forget_items(name, mapped, reader)
        self._retrying.pop((name, None), None)
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
            reader.reading.clear()
        elif not reader.void and self._states.get(name) is State.RETRYING:
            self._home(name, reader)

    def _forget_items(self, name: str, mapped: Mapped, reader: Reader[Start]) -> None:
        if mapped.next:
            reader.begun = mapped.highest
            left = frozenset({*mapped.failed, *(start.index for start in reader.running if start.index is not None)})
            made = Items(self.run_id, name, mapped.next, mapped.first, dict(mapped.attempts), left)
            if len(made):
                self.freed.append(made)
        if mapped.stopped is None:
            self._count_items(self._rank[name], -max(0, mapped.left - 1))
            for key in [key for key in self._retrying if key[0] == name]:
                waiting = self._retrying.pop(key)
                change = Change(name, waiting.index, waiting.attempt - 1, State.RETRYING, State.CANCELLED, None)
                self.changes.append(change)

    def _forget_provisional(self, reader: Reader[Start]) -> None:
        if reader.provisional is not None and reader.provisional.result is not None:
            self.freed.append(reader.provisional.result)
        reader.provisional = None

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

    def _end_of_stream(
        self, name: str, source: str, reason: str, outcome: Outcome
    ) -> tuple[str, State, Outcome] | None:
        """Take in that a producer has ended for good which *name* reads live; return how it ends, if it does."""
        reader = self._live[name]
        reader.open.discard(source)
        state = self._states.get(name, State.PENDING)
        if name in self.outcomes:
            return None
        if outcome.state is State.SUCCEEDED:
            for other in reader.open:
                self._stop_unread(other)
            return (name, state, reader.provisional) if reader.provisional and not reader.open else None
        if not reason:
            self._waits[name] -= 1
            if not self._waits[name]:
                self._enable(name)
            return None
        skipped = Outcome(state=State.SKIPPED, reason=reason, attempt=0)
        if reader.void:
            reader.fate = skipped
            return None
        return name, state, skipped


def _without(before: Before, names: set[str]) -> Before:
    """Forget what had become of the items of *names*."""
    if not names:
        return before
    return Before(
        before.outcomes,
        {name: items for name, items in before.items.items() if name not in names},
        {key: count for key, count in before.begun.items() if key[0] not in names},
        {key: count for key, count in before.free.items() if key[0] not in names},
    )
