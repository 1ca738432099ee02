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

import logging
import threading
from collections.abc import Callable, Sequence
from math import inf
from time import perf_counter
from typing import Any

import anyio
import msgspec
from anyio import from_thread, to_thread
from anyio.abc import TaskGroup
from anyio.lowlevel import EventLoopToken, checkpoint, current_token

from dpcore.clock import Clock, SystemClock
from dpcore.errors import StoreError, TaskTimeoutError, UnsupportedError
from dpcore.events import Event
from dpcore.jobs import Items, Job, Message, Outcome, Reading, Ref, State
from dpcore.journal import Journal
from dpcore.live import LiveRun
from dpcore.outbox import Outbox, Publish
from dpcore.ports import Executor, IOManager, RunStore
from dpcore.ports.runstore import Lease, RunRecord
from dpcore.posts import Post, Posts
from dpcore.runs import Change, Run, Start
from dpcore.slots import Slots
from dpcore.timers import Timers

__all__ = ("Runner",)

_log = logging.getLogger("dpcore.runner")

Observers = Sequence[Callable[..., None]]

_UNRECORDED = 0.2  # seconds that a "running" may wait for an outcome to be recorded with
_FAREWELL = 1.0  # seconds in which jobs of a run that was cancelled may still publish something
_TURNS = 4  # of the event loop, in which an outcome that is there already comes home
_GREEDY = 0.01  # seconds after which jobs that never wait leave the loop to others


class Runner:
    """Drives *run* to its end, on *executor*, recording in *store*.

    *record* is what :meth:`~dpcore.ports.RunStore.begin` was given; *run_changed* and
    *task_changed* are observers.  With a *lease* it is renewed, and everything is recorded
    under it: when somebody else has it, the run is broken off with
    :class:`~dpcore.errors.LeaseLostError`, since it is the other's from then on.  *slots*
    are shared with other runs on the same executor, by the record's priority.
    """

    __slots__ = (
        "_arrived",
        "_ended",
        "_flushing",
        "_group",
        "_holding",
        "_interrupt",
        "_journal",
        "_lanes",
        "_lazy",
        "_lease",
        "_lines",
        "_posts",
        "_publish",
        "_publishing",
        "_recorded",
        "_recording",
        "_run_changed",
        "_slots",
        "_task_changed",
        "_thread",
        "_timers",
        "_token",
        "_yielded",
        "allowed",
        "clock",
        "executor",
        "io",
        "record",
        "run",
        "store",
    )

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
        slots: Slots | None = None,
    ) -> None:
        self.run, self.executor, self.store, self.io = run, executor, store, io
        self.record, self.clock = record, clock
        self._run_changed, self._task_changed = run_changed, task_changed
        self._publish = publish if publish is not None else _no_broker
        self._timers = Timers(clock)
        prints = run.plan.fingerprint_of if "durable" in store.capabilities else None  # it reads every task's source
        self._journal = Journal(run.run_id, store, clock, lease, prints)
        self._lease = lease
        self._holding = anyio.CancelScope()
        self._lazy = not (store.capabilities & {"durable", "shared"} or task_changed)
        self._flushing = False
        self._arrived: list[tuple[Start, Outcome]] = []
        self._recording = False
        self._recorded: anyio.Event | None = None  # set when who records has done so, if somebody waits for that
        self._group: TaskGroup | None = None
        self._lanes = 0
        self._slots = slots if slots is not None else Slots()
        self.allowed = executor.window
        self._lines: set[_Line] = set()
        self._publishing: set[anyio.CancelScope] = set()
        self._yielded = perf_counter()
        self._interrupt: BaseException | None = None
        self._ended = anyio.Event()
        self._thread = threading.get_ident()
        self._token: EventLoopToken = current_token()
        self._posts = Posts(run, self._token, self._heard, self._timers.add) if isinstance(run, LiveRun) else None

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
                    self._slots.join(self)
                    await self._record()
        finally:
            self._group = self._timers.group = None  # what a job still says that could not be stopped begins nothing
            self._ended.set()
            self.run.let_go()
            self._slots.leave(self)

    async def _lane(self, start: Start | None = None) -> None:
        """Have ready attempts done, one after the other, until none is left; *start* first, if that was taken already."""
        if start is None:
            start = self._next()
        elif self.run.stopping:  # since then
            self._arrived.append((start, Outcome(state=State.CANCELLED, attempt=start.attempt)))
            start = None
            await self._record()
        try:
            while start is not None:
                start = await self._stretch(start)
        finally:
            self._lanes -= 1
            if self._slots.crowded:
                self._slots.share(self)

    async def _stretch(self, start: Start | None) -> Start | None:
        """Have attempts done until none is left, or one has ended in an unusual way; return the next one to do.

        All of them share one scope, because to open one costs as much as a small task.
        """
        posts = self._posts
        with anyio.CancelScope() as scope:
            while start is not None:
                job = self.run.job(start)
                line = _Line(self, job, scope)
                if job.timeout is not None:
                    self.arm(line, job.timeout, began=False)
                if posts is not None:
                    line.post = posts.open(start, scope, talks=job.talks or job.index is not None)
                    posts.tell()
                self._note_running()
                outcome: Outcome | None = None
                outcome = await self._perform(job, line)
                if outcome is None or outcome.error is not None or job.timeout is not None or scope.cancel_called:
                    break
                if outcome.events:
                    break
                if posts is not None:
                    posts.close(start)
                self._arrived.append((start, outcome))
                if self._recording or not (self._lazy and self._is_settled()):
                    await self._settle()
                if perf_counter() - self._yielded > _GREEDY:
                    await self._yield()
                start = self._next()
        if start is None:
            return None
        if posts is not None:
            posts.close(start)
        outcome = await self._judged(job, line, outcome)
        if outcome.events and outcome.state is State.SUCCEEDED:
            outcome = await self._published(outcome)
        self._arrived.append((start, outcome))  # to the list that is current after the wait
        await self._record(lanes_to_be=1)
        return self._next()

    async def _yield(self) -> None:
        """Leave the loop to others: jobs that never wait would keep it for themselves."""
        await checkpoint()
        self._yielded = perf_counter()

    def _feed(self, lanes_to_be: int) -> None:
        """Have as many lanes as there is work for, counting the one that goes on by itself."""
        assert self._group is not None
        if self._slots.crowded:
            self._slots.share(self)
        for _ in range(min(self._room(), self.run.available - lanes_to_be)):
            self._lanes += 1
            self._group.start_soon(self._lane)

    def _next(self) -> Start | None:
        """Take what a lane does next; nothing where there are too many lanes by now: the others see to it."""
        return self.run.take() if self._room() >= 0 else None

    def _room(self) -> int:
        """How many lanes there may be more just now; less than none where there are too many."""
        if self.executor.window != self._slots.places:
            self._slots.share(self)
        return self.allowed - self._lanes

    @property
    def places(self) -> int:
        """How many jobs the executor may be given."""
        return self.executor.window

    @property
    def priority(self) -> int:
        """What it was begun with."""
        return self.record.priority

    @property
    def wants(self) -> int:
        """How many lanes there are, and how many more there is work for."""
        return self._lanes + self.run.available

    def offer(self) -> None:
        """Have begun what other runs have left room for; taken now, before another one can."""
        if self._group is None or self._ended.is_set():
            return
        while self._room() > 0 and (start := self.run.take()) is not None:
            self._lanes += 1
            self._group.start_soon(self._lane, start)

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
            kept = line.post.kept if line.post is not None else None
            if job.streams:  # forget what it had stored before it was given up
                await self._off_the_loop(_forget_items, self.io, job, kept.count if kept is not None else 0)
            return msgspec.structs.replace(self._given_up(job, line), result=kept)
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

    def publish_now(self, line: _Line, event: Event) -> None:
        """Publish *event* after what the job of *line* has published before.

        In a thread wait for it, on the event loop see to it that it is done before the run ends.
        """
        if threading.get_ident() != self._thread:
            if line.outbox is None:
                from_thread.run(self._publish, (event,), token=self._token)
            else:
                from_thread.run(line.outbox.publish, event, token=self._token)
        elif self._group is not None:
            if line.outbox is None:
                line.outbox = Outbox(self._publish, self.run.run_id, self._publishing)
            line.outbox.put(event, self._group, _FAREWELL if self.run.stopping else inf)

    def _given_up(self, job: Job, line: _Line) -> Outcome:
        """Say how a job went that was cancelled from here."""
        on_loop = job.is_async and self.executor.in_process
        began = line.began if self.executor.tells else line.given
        lives = began is not None and not on_loop and "kills" not in self.executor.capabilities
        duration = 0.0 if began is None else self.clock.monotonic() - began
        if line.timed_out:
            late = _timed_out(job, "running" if lives else "stopped", duration)
            return msgspec.structs.replace(late, output=line.output)
        return Outcome(
            state=State.CANCELLED, attempt=job.attempt, duration=duration, still_running=lives, output=line.output
        )

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
                if self._posts is not None:
                    self._posts.tell()
                    self._posts.stop_void()
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
            self._end_recording()
        if run.ended and not run.running:
            await self._conclude()
        elif self._lazy and not self._flushing:
            self._flush_soon()

    async def _settle(self) -> None:
        """Record what has arrived, or leave it to who records just now.

        Where as much has arrived as there are lanes, that one is waited for: what is not
        recorded runs again if the program dies.
        """
        if not self._recording:
            await self._record(lanes_to_be=1)
        elif len(self._arrived) >= self._lanes:
            if self._recorded is None:
                self._recorded = anyio.Event()
            await self._recorded.wait()

    def _end_recording(self) -> None:
        self._recording = False
        if self._recorded is not None:
            self._recorded.set()
            self._recorded = None

    def _take_in(self) -> list[Change]:
        """Take in what has arrived; return what it has changed, which is noted to be recorded."""
        arrived, self._arrived = self._arrived, []
        for start, outcome in arrived:
            self.run.record(start, outcome)
        if self._slots.limits is not None and arrived and self._slots.crowded:
            self._slots.offer(self)
        changes, self.run.changes = self.run.changes, []
        self._journal.note(changes)
        return changes

    def _is_settled(self) -> bool:
        """Take in what has arrived where that is recorded later, and tell whether it asks for nothing else now."""
        run = self.run
        self._take_in()
        run.release()
        is_lane_wanted = run.available > 1 and self._room() > 0
        if self._posts is not None and self._posts.waiting:
            return False
        return not (is_lane_wanted or run.ended or run.stopping or run.freed or run.retries)

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
                    self._end_recording()
                if self._arrived or self.run.changes or self._posts is not None:
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

    def _heard(self) -> None:
        """Have begun what may begin after what a running job has said."""
        if not self._recording:
            self.run.release()
            if self.run.available and self._group is not None and not self.run.ended:
                self._feed(0)

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


class _Line:
    """The runner's side of one running job."""

    __slots__ = ("began", "given", "job", "outbox", "output", "post", "runner", "scope", "timed_out")

    def __init__(self, runner: Runner, job: Job, scope: anyio.CancelScope) -> None:
        self.runner: Runner | None = runner
        self.job: Job | None = job
        self.scope: anyio.CancelScope | None = scope
        self.given = runner.clock.monotonic()
        self.began: float | None = None
        self.timed_out = False
        self.output = ""  # of a job that was stopped
        self.post: Post | None = None  # of a job that talks while it runs
        self.outbox: Outbox | None = None  # of one that has published something on the event loop while it runs

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
            if self.post is not None and job.index is not None:
                self.post.hear(Reading("", job.index))

    def expire(self) -> None:
        if self.scope is not None:
            self.timed_out = True
            self.scope.cancel()

    def end(self) -> None:
        """Let go of everything: its timer may be due in an hour only."""
        self.scope = self.job = self.runner = None
        if self.post is not None:
            self.post.close()

    def publish(self, event: Event) -> None:
        runner = self.runner
        if runner is None:
            raise RuntimeError(f"the job was given up, so nothing was published on {event.topic!r}")
        runner.publish_now(self, event)

    def send(self, message: Message) -> None:
        if self.post is not None:
            self.post.hear(message)

    async def receive(self) -> Message:
        return await self._open_post.receive()

    def receive_sync(self, *, wait: bool = True) -> Message | None:
        return self._open_post.receive_sync(wait=wait)

    @property
    def _open_post(self) -> Post:
        if self.post is None:
            raise UnsupportedError("this job", "streams", "be told anything: it reads and feeds no live stream")
        return self.post


_real = SystemClock()


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


def _forget_items(io: IOManager, job: Job, kept: int) -> None:
    """Delete what an attempt has stored, but for as many items as are kept."""
    stay = frozenset(Items(job.run_id, job.task, kept, job.attempt))
    try:
        refs = io.list(job.run_id, job.task)
    except Exception:  # noqa: BLE001  (whatever an adapter raises: the run does not need it)
        _log.warning("what %s had stored before it was given up cannot be found", job, exc_info=True)
        return
    _delete(io, [ref for ref in refs if ref.result_id.startswith(f"{job.attempt}-") and ref not in stay])


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
