"""Drives one Run on one Executor: starts what is ready, records how it went, and waits.

All deciding is done by :class:`~dpcore.runs.Run`; here is only the waiting.  As
many lanes as the executor has places take ready attempts and have them done.
Whichever lane brings an outcome home while nobody records does the recording, for
all outcomes that have arrived: so a store that takes its time gets them in groups,
and one that does not costs no hand-over.  Nothing that depends on an outcome is
started before it is recorded, and no observer is told of it.  Only a store that
nobody else can read and that ends with the program gets them later, in larger groups.
"""

from __future__ import annotations

import heapq
import logging
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextvars import copy_context
from functools import partial
from itertools import count
from time import perf_counter
from typing import Any, cast

import anyio
import msgspec
from anyio import from_thread, to_thread
from anyio.abc import TaskGroup
from anyio.lowlevel import EventLoopToken, checkpoint, current_token

from dpcore.clock import Clock, SystemClock
from dpcore.errors import StoreError, TaskTimeoutError, UnsupportedError
from dpcore.events import Event
from dpcore.jobs import Items, Job, Message, Outcome, Ref, State, described, writable
from dpcore.ports import Executor, IOManager, RunStore
from dpcore.ports.runstore import Lease, RunRecord, TaskChange
from dpcore.runs import Change, Run, Start

__all__ = ("Publish", "Runner")

_log = logging.getLogger("dpcore.runner")

Observers = Sequence[Callable[..., None]]
Publish = Callable[[Sequence[Event]], Coroutine[Any, Any, None]]

_UNRECORDED = 0.2  # seconds that a "running" may wait for an outcome to be recorded with
_TURNS = 4  # of the event loop, in which an outcome that is there already comes home
_GREEDY = 0.01  # seconds after which jobs that never wait leave the loop to others


class Runner:
    """Drives *run* to its end, on *executor*, recording in *store*.

    *record* is what :meth:`~dpcore.ports.RunStore.begin` was given; *run_changed* and
    *task_changed* are observers.  With a *lease* it is renewed, and everything is recorded
    under it: when somebody else has it, the run is broken off with
    :class:`~dpcore.errors.LeaseLostError`, since it is the other's from then on.
    """

    def __init__(
        self,
        run: Run,
        executor: Executor,
        store: RunStore,
        io: IOManager,
        record: RunRecord,
        clock: Clock,
        run_changed: Observers = (),
        task_changed: Observers = (),
        publish: Publish | None = None,
        lease: Lease | None = None,
    ) -> None:
        self.run, self.executor, self.store, self.io = run, executor, store, io
        self.record, self.clock = record, clock
        self._run_changed, self._task_changed = run_changed, task_changed
        self._publish = publish if publish is not None else _no_broker
        self._timers = _Timers(clock)
        prints = run.plan.fingerprint_of if "durable" in store.capabilities else None  # it reads every task's source
        self._journal = _Journal(run.run_id, store, clock, lease, prints)
        self._lease = lease
        self._holding = anyio.CancelScope()
        self._lazy = not (store.capabilities & {"durable", "shared"} or task_changed)
        self._flushing = False
        self._arrived: list[tuple[Start, Outcome]] = []
        self._recording = False
        self._group: TaskGroup | None = None
        self._lanes = 0
        self._lines: set[_Line] = set()
        self._by_start: dict[Start, _Line] = {}  # of a run with live streams
        self._heard: deque[tuple[_Line, Message]] = deque()  # from threads
        self._is_told = False  # that there is something in it
        self._publishing: set[anyio.CancelScope] = set()
        self._yielded = perf_counter()
        self._interrupt: BaseException | None = None
        self._ended = anyio.Event()
        self._thread = threading.get_ident()
        self._token: EventLoopToken = current_token()
        self._soon = _soon(self._token)
        # What a thread makes the loop do has that thread's context; jobs begun from there must have the run's.
        self._hear_here = partial(copy_context().run, self._hear_threads)

    async def drive(self) -> None:
        """Return when every task has ended and that is recorded.

        When this call is cancelled, so is the run: its jobs are stopped as far as the
        executor can, that is recorded, and then the cancellation goes on.
        """
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._sheltered)
                try:
                    await self._ended.wait()
                except BaseException:
                    self.cancel("the program was interrupted")
                    raise
        except BaseExceptionGroup as error:
            single = _single(error)
            raise single from single.__cause__  # `from None` would take its own cause away
        if self._interrupt is not None:
            raise self._interrupt
        assert self.run.ended, f"{self.run} was left before its end"

    def cancel(self, reason: str) -> None:
        """Cancel the run: start nothing more, and stop what runs; nothing happens once every task has ended."""
        if self.run.ended or self._ended.is_set():
            return
        self.run.cancel(reason)
        self._stop_jobs()
        if self._group is not None:
            self._group.start_soon(self._record)

    async def ended(self) -> None:
        """Wait until everything is recorded."""
        await self._ended.wait()

    async def _hold(self, lease: Lease) -> None:
        """Renew the lease until the run has ended.

        By the time that really passes: whoever else wants the run sees only whether this is done.
        """
        with self._holding:
            while True:
                await _real.sleep(lease.ttl / 3)
                try:
                    await lease.renew(lease.ttl)
                except StoreError as error:  # what follows will succeed, or else what is recorded will tell
                    _log.warning("the lease on run %s could not be renewed: %s", self.run.run_id, error)

    # ---------------------------------------------------------------- lanes

    async def _sheltered(self) -> None:
        """Run everything where a cancellation from outside does not reach: only :meth:`cancel` stops jobs."""
        try:
            with anyio.CancelScope(shield=True):
                async with anyio.create_task_group() as group:
                    self._group = self._timers.group = group
                    if self._lease is not None:
                        group.start_soon(self._hold, self._lease)
                    self._tell_run(State.PENDING, State.RUNNING)
                    await self._record()
        finally:
            self._ended.set()

    async def _lane(self) -> None:
        """Have ready attempts done, one after the other, until none is left."""
        start = self.run.take()
        try:
            while start is not None:
                start = await self._stretch(start)
        finally:
            self._lanes -= 1

    async def _stretch(self, start: Start | None) -> Start | None:
        """Have attempts done until none is left, or one has ended in an unusual way; return the next one to do.

        All of them share one scope, because to open one costs as much as a small task.
        """
        run_is_live = self.run.live
        with anyio.CancelScope() as scope:
            while start is not None:
                job = self.run.job(start)
                line = _Line(self, job, scope)
                if job.timeout is not None:
                    self.arm(line, job.timeout, began=False)
                if run_is_live:
                    self._by_start[start] = line
                    if job.talks:
                        line.open(start)
                    self._say()
                self._note_running()
                outcome: Outcome | None = None
                outcome = await self._perform(job, line)
                if outcome is None or outcome.error is not None or job.timeout is not None or scope.cancel_called:
                    break
                if outcome.events:
                    break
                if run_is_live:
                    del self._by_start[start]
                self._arrived.append((start, outcome))
                if not (self._recording or (self._lazy and self._is_settled())):
                    await self._record(lanes_to_be=1)
                if perf_counter() - self._yielded > _GREEDY:
                    await self._yield()
                start = self.run.take()
        if start is None:
            return None
        self._by_start.pop(start, None)
        outcome = await self._judged(job, line, outcome)
        if outcome.events and outcome.state is State.SUCCEEDED:
            outcome = await self._published(outcome)
        self._arrived.append((start, outcome))  # to the list that is current after the wait
        await self._record(lanes_to_be=1)
        return self.run.take()

    async def _yield(self) -> None:
        """Leave the loop to others: jobs that never wait would keep it for themselves."""
        await checkpoint()
        self._yielded = perf_counter()

    def _feed(self, lanes_to_be: int) -> None:
        """Have as many lanes as there is work for, counting the one that goes on by itself."""
        assert self._group is not None
        wanted = min(self.executor.window, self._lanes - lanes_to_be + self.run.available)
        while self._lanes < wanted:
            self._lanes += 1
            self._group.start_soon(self._lane)

    async def _perform(self, job: Job, line: _Line) -> Outcome | None:
        """Have the executor do *job*; None if it was interrupted."""
        self._lines.add(line)
        try:
            return await self.executor.run(job, line)
        except (KeyboardInterrupt, SystemExit) as error:
            self._interrupt = error  # raised by drive() when all is recorded
            self.cancel("the program was interrupted")
            return None
        except Exception as error:  # noqa: BLE001  (an executor that breaks is a failed attempt, never a hang)
            return Outcome(state=State.FAILED, error=error, attempt=job.attempt)
        finally:
            line.end()
            self._lines.discard(line)

    async def _judged(self, job: Job, line: _Line, outcome: Outcome | None) -> Outcome:
        """Say how a job went that did not simply succeed: *outcome* is what the executor made of it, if anything."""
        if outcome is None:
            if job.streams:  # forget what it had stored before it was given up
                await self._off_the_loop(_forget_items, self.io, job)
            return self._given_up(job, line)
        if outcome.error is not None and not isinstance(outcome.error, Exception):
            await checkpoint()  # what interrupted the body may have asked for the run to be cancelled
            if self.run.stopping:
                return Outcome(state=State.CANCELLED, attempt=job.attempt, duration=outcome.duration)
        is_late = job.timeout is not None and outcome.duration > job.timeout
        if is_late and outcome.state is State.SUCCEEDED:
            return _timed_out(job, "ended", outcome.duration, outcome.result)
        return outcome

    async def _published(self, outcome: Outcome) -> Outcome:
        """Publish what a task wanted to have published when it has succeeded; before that is recorded.

        So what is published is published again, with the same ids, if the program dies in between.
        """
        try:
            with anyio.CancelScope() as scope:  # a run that is cancelled need not wait for room
                self._publishing.add(scope)
                try:
                    await self._publish(outcome.events)
                finally:
                    self._publishing.discard(scope)
        except Exception as error:  # noqa: BLE001  (whatever a broker raises: the attempt has not done what it should)
            return msgspec.structs.replace(outcome, state=State.FAILED, error=error, events=())
        if scope.cancelled_caught:
            return msgspec.structs.replace(outcome, state=State.CANCELLED, events=())
        return msgspec.structs.replace(outcome, events=())

    def publish_now(self, event: Event) -> None:
        """Publish *event*; in a thread wait for it, on the event loop see to it that it is done before the run ends."""
        if threading.get_ident() != self._thread:
            from_thread.run(self._publish, (event,), token=self._token)
        elif self._group is not None:
            self._group.start_soon(self._publish_soon, event)

    async def _publish_soon(self, event: Event) -> None:
        try:
            await self._publish((event,))
        except Exception:  # noqa: BLE001  (whatever a broker raises: the task has gone on)
            _log.exception("what a task of run %s wanted to publish on %r was not", self.run.run_id, event.topic)

    def _given_up(self, job: Job, line: _Line) -> Outcome:
        """Say how a job went that was cancelled from here."""
        on_loop = job.is_async and self.executor.in_process
        began = line.began if self.executor.tells else line.given
        lives = began is not None and not on_loop and "kills" not in self.executor.capabilities
        duration = 0.0 if began is None else self.clock.monotonic() - began
        if line.timed_out:
            return _timed_out(job, "running" if lives else "stopped", duration)
        return Outcome(state=State.CANCELLED, attempt=job.attempt, duration=duration, still_running=lives)

    def _stop_jobs(self) -> None:
        for line in list(self._lines):
            if line.scope is not None:
                line.scope.cancel()
        for scope in list(self._publishing):
            scope.cancel()

    # ---------------------------------------------------------------- recording

    async def _record(self, lanes_to_be: int = 0) -> None:
        """Take in what has arrived, record it, and only then let it have consequences; until nothing is left.

        One does it at a time; who comes while another does leaves it to that one.
        """
        if self._recording:
            return
        run = self.run
        self._recording = True
        try:
            while True:
                changes = self._take_in()
                if not self._lazy:
                    await self._journal.write()
                run.release()
                if self._task_changed:
                    self._tell(changes)
                if run.live:
                    self._say()
                    self._stop_void()
                if run.freed:
                    await self._free()
                self._wait_for_retries()
                if run.stopping:
                    self._stop_jobs()
                if not (self._arrived or run.changes):
                    break
            run.release()  # what was heard meanwhile depends on nothing that is not recorded
            if run.available > lanes_to_be:
                self._feed(lanes_to_be)
        finally:
            self._recording = False
        if run.ended and not run.running:
            await self._conclude()
        elif self._lazy and not self._flushing:
            self._flush_soon()

    def _take_in(self) -> list[Change]:
        """Take in what has arrived; return what it has changed, which is noted to be recorded."""
        arrived, self._arrived = self._arrived, []
        for start, outcome in arrived:
            self.run.record(start, outcome)
        changes, self.run.changes = self.run.changes, []
        self._journal.note(changes)
        return changes

    def _is_settled(self) -> bool:
        """Take in what has arrived where that is recorded later, and tell whether it asks for nothing else now."""
        run = self.run
        self._take_in()
        run.release()
        is_lane_wanted = run.available > 1 and self._lanes < self.executor.window
        is_quiet = not (run.freed or run.retries or run.says or run.void)
        return is_quiet and not (is_lane_wanted or run.ended or run.stopping)

    def _note_running(self) -> None:
        """Tell observers at once that a task runs; the store learns it with the next outcome, or soon."""
        changes, self.run.changes = self.run.changes, []
        self._journal.note(changes)
        if self._task_changed:
            self._tell(changes)
        if not self._flushing:
            self._flush_soon()

    def _flush_soon(self) -> None:
        self._flushing = True
        self._timers.add(_UNRECORDED, self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._journal.unwritten and not self._recording and self._group is not None:
            self._group.start_soon(self._write)
        elif self._journal.unwritten:
            self._flush_soon()

    async def flush(self) -> None:
        """Have recorded at once what may be recorded later: by the run itself, whatever becomes of this call."""
        if self._journal.unwritten and self._group is not None and not self._ended.is_set():
            written = anyio.Event()
            self._group.start_soon(self._write, written)
            await written.wait()

    async def _write(self, written: anyio.Event | None = None) -> None:
        try:
            if not self._recording:
                self._recording = True
                try:
                    await self._journal.write()
                finally:
                    self._recording = False
                if self._arrived or self.run.changes or self.run.live:
                    await self._record()
        finally:
            if written is not None:
                written.set()

    def _wait_for_retries(self) -> None:
        for retry in self.run.retries:
            self._timers.add(retry.delay, self._retry, retry.start)
        self.run.retries.clear()

    def _retry(self, start: Start) -> None:
        self.run.requeue(start)
        self._feed(0)

    async def _free(self) -> None:
        freed, self.run.freed = self.run.freed, []
        refs = [ref for result in freed for ref in ([result] if isinstance(result, Ref) else result)]
        await self._off_the_loop(_delete, self.io, refs)

    async def _off_the_loop(self, call: Callable[..., None], *arguments: Any) -> None:
        """Have *call* done where it does not hold up the event loop, if it may wait for something."""
        with anyio.CancelScope(shield=True):
            if "shared" in self.io.capabilities:
                await to_thread.run_sync(call, *arguments)
            else:
                call(*arguments)

    async def _conclude(self) -> None:
        if self.record.ended is not None:
            return
        self.record.state, self.record.ended = self.run.state, self.clock.now().timestamp()
        self.record.reason = self.run.reason
        for outcome in self.run.outcomes.values():
            self.record.counts[outcome.state] = self.record.counts.get(outcome.state, 0) + 1
        self._timers.stop()
        self._recording = True  # by nobody else any more
        await self._journal.write(self.record)
        self._holding.cancel()
        self._tell_run(State.RUNNING, self.run.state)

    # ---------------------------------------------------------------- live streams

    def hear(self, line: _Line, message: Message) -> None:
        """Take in what a job says; callable from any thread, and never waits."""
        if threading.get_ident() == self._thread:
            self._hear_all([(line, message)])
            return
        self._heard.append((line, message))
        if not self._is_told:
            self._is_told = True
            self._soon(self._hear_here)

    def _hear_threads(self) -> None:
        self._is_told = False  # first: what is said from here on is told again
        heard = []
        while self._heard:
            heard.append(self._heard.popleft())
        self._hear_all(heard)

    def _hear_all(self, heard: Sequence[tuple[_Line, Message]]) -> None:
        run = self.run
        for line, message in heard:
            if not line.over and line.start is not None:
                run.hear(line.start, message)
        self._say()
        if not self._recording:
            run.release()
            if run.available and self._group is not None and not run.ended:
                self._feed(0)

    def _say(self) -> None:
        says, self.run.says = self.run.says, []
        for start, message in says:
            line = self._by_start.get(start)
            if line is not None and line.post is not None:
                line.post.put(message)

    def _stop_void(self) -> None:
        """Stop the jobs whose work has come to nothing."""
        for start in self.run.void:
            line = self._by_start.get(start)
            if line is not None and line.scope is not None:
                line.scope.cancel()
        self.run.void.clear()

    # ---------------------------------------------------------------- observers

    def _tell(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.index is None:
                task = self.run.plan.tasks[change.task]
                for observe in self._task_changed:
                    observe(self.run, task, change.attempt, change.old, change.new, change.outcome)

    def _tell_run(self, old: State, new: State) -> None:
        for observe in self._run_changed:
            observe(self.run, old, new)

    # ---------------------------------------------------------------- timeouts

    def arm(self, line: _Line, timeout: float, *, began: bool) -> None:
        """Stop the job of *line* when *timeout* seconds have passed; callable from any thread.

        A job that has not *began* is only given: that is what counts where the executor
        never says when one begins.
        """
        if threading.get_ident() == self._thread:
            self._timers.add(timeout, self._expire_soon, line, began)
        else:
            from_thread.run_sync(self._timers.add, timeout, self._expire_soon, line, began, token=self._token)

    def _expire_soon(self, line: _Line, began: bool) -> None:
        if self._group is not None and line.scope is not None and (began or not self.executor.tells):
            self._group.start_soon(self._expire, line)

    async def _expire(self, line: _Line) -> None:
        """Stop a job, unless it has ended while the event loop was held up: that is heard first."""
        for _ in range(_TURNS):
            await checkpoint()
        line.expire()


class _Journal:
    """Writes the transitions of one run into the run store, in groups."""

    __slots__ = ("_clock", "_lease", "_noted", "_prints", "_run_id", "_store")

    def __init__(
        self,
        run_id: str,
        store: RunStore,
        clock: Clock,
        lease: Lease | None = None,
        prints: Callable[[str], str] | None = None,
    ) -> None:
        self._run_id, self._store, self._clock = run_id, store, clock
        self._lease, self._prints = lease, prints
        self._noted: list[tuple[float, list[Change]]] = []

    @property
    def unwritten(self) -> bool:
        """Whether there is something to write."""
        return bool(self._noted)

    def note(self, changes: list[Change]) -> None:
        """Remember *changes*, which have happened now."""
        if changes:
            self._noted.append((self._clock.now().timestamp(), changes))

    async def write(self, record: RunRecord | None = None) -> None:
        """Write all that was noted, in one piece, and the run's *record* with it if one is given; one at a time."""
        count = len(self._noted)
        entries = [self._entry(change, at) for at, changes in self._noted for change in changes]
        if entries or record is not None:
            await self._store.append(self._run_id, entries, record=record, lease=self._lease)
        del self._noted[:count]  # and not what was noted meanwhile

    def _entry(self, change: Change, at: float) -> TaskChange:
        entry = _entry(change, at)
        if self._prints is not None and entry.state in _RAN and entry.index is None:
            entry.fingerprint = self._prints(entry.task)
        return entry


class _Line:
    """The runner's side of one running job."""

    __slots__ = ("began", "given", "job", "post", "runner", "scope", "start", "timed_out")

    def __init__(self, runner: Runner, job: Job, scope: anyio.CancelScope) -> None:
        self.runner: Runner | None = runner
        self.job: Job | None = job
        self.scope: anyio.CancelScope | None = scope
        self.given = runner.clock.monotonic()
        self.began: float | None = None
        self.timed_out = False
        self.start: Start | None = None
        self.post: _Post | None = None

    @property
    def over(self) -> bool:
        return self.runner is None

    def started(self) -> None:
        runner, job = self.runner, self.job
        if self.began is None and runner is not None and job is not None:
            self.began = runner.clock.monotonic()
            runner.executor.tells = True
            if job.timeout is not None:
                runner.arm(self, job.timeout, began=True)

    def expire(self) -> None:
        if self.scope is not None:
            self.timed_out = True
            self.scope.cancel()

    def end(self) -> None:
        """Let go of everything: its timer may be due in an hour only."""
        self.scope = self.job = self.runner = None
        if self.post is not None:
            self.post.close()

    def open(self, start: Start) -> None:
        """Have messages pass for the attempt *start*."""
        self.start, self.post = start, _Post()

    def publish(self, event: Event) -> None:
        runner = self.runner
        if runner is None:
            raise RuntimeError(f"the job was given up, so nothing was published on {event.topic!r}")
        runner.publish_now(event)

    def send(self, message: Message) -> None:
        runner = self.runner
        if runner is not None and self.post is not None:
            runner.hear(self, message)

    async def receive(self) -> Message:
        return await self._open_post.receive()

    def receive_sync(self, *, wait: bool = True) -> Message | None:
        return self._open_post.receive_sync(wait=wait)

    @property
    def _open_post(self) -> _Post:
        if self.post is None:
            raise UnsupportedError("this job", "streams", "be told anything: it reads and feeds no live stream")
        return self.post


class _Post:
    """What is said to one running job, for it to take out in a thread or on an event loop."""

    __slots__ = ("_closed", "_condition", "_event", "_said", "_thread")

    def __init__(self) -> None:
        self._said: deque[Message] = deque()
        self._condition = threading.Condition()
        self._event = anyio.Event()
        self._thread = threading.get_ident()
        self._closed = False

    def put(self, message: Message) -> None:
        """Say *message*; on the runner's event loop."""
        with self._condition:
            self._said.append(message)
            self._condition.notify_all()
        self._event.set()

    def close(self) -> None:
        """Let nobody wait any more: the job is over, or was given up."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        self._event.set()

    async def receive(self) -> Message:
        """Wait for the next message on an event loop."""
        if threading.get_ident() != self._thread:  # a loop of the job's own
            return cast(Message, await to_thread.run_sync(self.receive_sync))
        while (message := self.receive_sync(wait=False)) is None:
            if self._event.is_set():
                self._event = anyio.Event()
            else:
                await self._event.wait()
        return message

    def receive_sync(self, *, wait: bool = True) -> Message | None:
        """Wait for the next message in a thread."""
        with self._condition:
            while not self._said:
                if self._closed:
                    raise RuntimeError("the job was given up, so there is nothing more to hear")
                if not wait:
                    return None
                self._condition.wait()
            return self._said.popleft()


class _Timers:
    """What is to be called later, on one clock, with one sleeper for the earliest of them."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.group: TaskGroup | None = None
        self._due: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = count()
        self._sleeper: anyio.CancelScope | None = None
        self._until = float("inf")
        self._stopped = False

    def add(self, delay: float, call: Callable[..., None], *arguments: Any) -> None:
        """Have ``call(*arguments)`` called in *delay* seconds; at once if that is not in the future."""
        if delay <= 0:
            call(*arguments)
            return
        due = self.clock.monotonic() + delay
        heapq.heappush(self._due, (due, next(self._number), call, arguments))
        if due < self._until and not self._stopped and self.group is not None:
            self._until = due
            if self._sleeper is not None:
                self._sleeper.cancel()
            self._sleeper = anyio.CancelScope()
            self.group.start_soon(self._sleep, self._sleeper)

    def stop(self) -> None:
        """Forget everything."""
        self._stopped = True
        self._due.clear()
        if self._sleeper is not None:
            self._sleeper.cancel()

    async def _sleep(self, scope: anyio.CancelScope) -> None:
        with scope:
            while self._due:
                self._until = self._due[0][0]
                await self.clock.sleep(max(0.0, self._until - self.clock.monotonic()))
                while self._due and self._due[0][0] <= self.clock.monotonic():
                    _, _, call, arguments = heapq.heappop(self._due)
                    call(*arguments)
                    if scope.cancel_called:
                        return
            self._until, self._sleeper = float("inf"), None


def _soon(token: EventLoopToken) -> Callable[[Callable[[], None]], object]:
    """Return what has an event loop call something soon, told from any thread and without waiting."""
    native: Any = token.native_token
    soon: Callable[[Callable[[], None]], object] = getattr(native, "run_sync_soon", None) or native.call_soon_threadsafe
    return soon


_real = SystemClock()
_RAN = (State.SUCCEEDED, State.FAILED, State.TIMED_OUT)


async def _no_broker(events: Sequence[Event]) -> None:
    raise UnsupportedError("this runner", "publish", f"publish on {events[0].topic!r}")


def _single(error: BaseException) -> BaseException:
    """Take an exception out of the groups that task groups have put around it, where it is the only one, or all say the same."""
    while isinstance(error, BaseExceptionGroup):
        singles = [_single(one) for one in error.exceptions]
        if len({(type(one), str(one)) for one in singles}) > 1:
            break
        error = singles[0]
    return error


def _forget_items(io: IOManager, job: Job) -> None:
    try:
        refs = io.list(job.run_id, job.task)
    except Exception:  # noqa: BLE001  (whatever an adapter raises: the run does not need it)
        _log.warning("what %s had stored before it was given up cannot be found", job, exc_info=True)
        return
    _delete(io, [ref for ref in refs if ref.result_id.startswith(f"{job.attempt}-")])


def _delete(io: IOManager, refs: Sequence[Ref]) -> None:
    """Forget results that nobody reads; what cannot be deleted is logged, and disturbs nothing."""
    for ref in refs:
        try:
            io.delete(ref)
        except Exception:  # noqa: BLE001  (whatever an adapter raises: the run does not need it)
            _log.warning("the result %s, which nobody reads any more, cannot be deleted", ref, exc_info=True)


def _timed_out(job: Job, ending: str, duration: float, result: Ref | Items | None = None) -> Outcome:
    assert job.timeout is not None
    return Outcome(
        state=State.TIMED_OUT,
        error=TaskTimeoutError(job.task, job.timeout, ending),
        duration=duration,
        attempt=job.attempt,
        still_running=ending == "running",
        result=result,
        task=job.task,
    )


def _entry(change: Change, at: float) -> TaskChange:
    """Write a transition down as the run store keeps it."""
    state, outcome = change.new, change.outcome
    if outcome is None:
        return TaskChange(task=change.task, state=state, at=at, attempt=change.attempt, index=change.index)
    entry = TaskChange(
        task=change.task,
        state=state,
        at=at,
        attempt=change.attempt,
        index=change.index,
        duration=outcome.duration,
        worker=outcome.worker,
        output=outcome.output and writable(outcome.output),
    )
    result = outcome.result
    if isinstance(result, Ref):
        entry.result = result.result_id
    elif result is not None:
        entry.count, entry.attempts, entry.missing = result.count, result.attempts, sorted(result.missing)
        entry.result = str(result.attempt)
    if state is not State.SUCCEEDED:
        entry.reason, entry.traceback = writable(outcome.reason), writable(outcome.traceback)
        if outcome.error is not None:
            entry.error = described(outcome.error)
    return entry
