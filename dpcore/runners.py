"""Runners: how the runs of an app begin, are driven to their ends, go on after they were broken off, and are forgotten."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, cast

import anyio
import msgspec
from anyio import to_thread
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint_if_cancelled

from dpcore.adapters import Adapters
from dpcore.clock import Clock
from dpcore.errors import (
    AppStateError,
    ArgumentError,
    NotSharedError,
    PlanningError,
    RunCancelledError,
    RunExistsError,
    RunHeldError,
    RunNotFoundError,
    SettingError,
    StoreError,
    TaskNotFoundError,
    UnguardedScriptError,
    check_argument,
)
from dpcore.events import Event
from dpcore.functions import script_being_loaded
from dpcore.jobs import Items, Ref, check_id
from dpcore.kept import Hold, Kept
from dpcore.live import run_of
from dpcore.plans import Plan, Selector
from dpcore.plans import plan as make_plan
from dpcore.plugins import Plugins
from dpcore.ports import Executor, IOManager, RunStore
from dpcore.ports.runstore import Lease, RunHistory, RunRecord
from dpcore.processes import shown_process
from dpcore.reactions import Announcer
from dpcore.records import LEFT, carried, check_there, earlier, forget, record_of, written
from dpcore.results import Ending, Result, Running
from dpcore.resuming import Rest, rest
from dpcore.runner import Runner
from dpcore.runs import Keep, Run
from dpcore.slots import Slots
from dpcore.tasks import Registry
from dpcore.words import Shown, listed, printed

__all__ = ("Begun", "Runners", "check_running", "refuse_while_loading")

_log = logging.getLogger("dpcore.runners")

_LEASED = 30.0  # seconds that a run belongs to who drives it without having said that it still does
_MOST_FORGOTTEN = 100  # runs that are forgotten at the end of one: what many let go of at once goes bit by bit


class _Means(NamedTuple):
    """What every run needs."""

    executor: Executor
    io: IOManager
    store: RunStore


@dataclass(slots=True, eq=False)
class Begun:
    """A run that is recorded and leased: whoever has this drives it, or else nobody does."""

    runner: Runner
    lease: Lease
    announcer: Announcer | None
    at: float
    """When it began, on the app's clock."""
    holds: tuple[Hold | None, ...]
    """What keeps its results there, and those that it takes data from."""
    over: anyio.Event = field(default_factory=anyio.Event)
    """Set when nothing of it is left to be done with the store."""


class Runners(Mapping[str, Runner]):
    """The runs that an app drives: a mapping from run id to what drives it, from when it is begun to its end.

    A run is begun, and then it is driven by whoever has begun it, or started; there is nothing
    to be waited for in between.  *plugins*, *adapters*, *slots* and *kept* are the app's.
    """

    def __init__(
        self,
        registry: Registry,
        plugins: Plugins,
        adapters: Adapters,
        clock: Clock,
        source: str,
        slots: Slots,
        kept: Kept,
    ) -> None:
        self._registry, self._plugins, self._adapters = registry, plugins, adapters
        self._clock, self._source, self._slots, self._kept = clock, source, slots, kept
        self._begun: dict[str, Begun] = {}
        self._beginnings: set[anyio.Event] = set()  # each is set when its run has begun, or cannot
        self._group: TaskGroup | None = None
        self._publish: Callable[[Sequence[Event]], Awaitable[object]] | None = None
        self._is_open = False

    def __getitem__(self, run_id: str) -> Runner:
        return self._begun[run_id].runner

    def __iter__(self) -> Iterator[str]:
        return iter(self._begun)

    def __len__(self) -> int:
        return len(self._begun)

    def open(self, group: TaskGroup, publish: Callable[[Sequence[Event]], Awaitable[object]]) -> None:
        """Let runs begin, of which tasks of *group* drive those that are started; what they publish goes to *publish*."""
        self._group, self._publish, self._is_open = group, publish, True

    async def ended(self) -> None:
        """Wait until no run is being begun or driven."""
        while self._beginnings or self._begun:
            for beginning in list(self._beginnings):
                await beginning.wait()
            for begun in list(self._begun.values()):
                await begun.over.wait()

    async def close(self) -> None:
        """Let no more runs begin, cancel those that have, and wait until they are recorded."""
        self._is_open = False
        with anyio.CancelScope(shield=True):  # what they record needs the store
            for beginning in list(self._beginnings):
                await beginning.wait()
            left = list(self._begun.values())
            for begun in left:
                begun.runner.cancel(LEFT)
            for begun in left:
                await begun.over.wait()
        self._group = self._publish = None
        self._kept.clear()

    def plan(self, selection: Iterable[Selector], params: Mapping[str, Any] | Iterable[str], **arguments: Any) -> Plan:
        """Plan over the app's registry; plugins may reshape the plan."""
        return self._plugins.shape(make_plan(*selection, registry=self._registry, params=params, **arguments))

    # ---------------------------------------------------------------- beginning

    async def begin(
        self,
        selection: tuple[Selector | Plan, ...],
        arguments: Mapping[str, Any],
        *,
        params: Mapping[str, Any] | None,
        metadata: Mapping[str, Any] | None,
        fail_fast: bool,
        keep: Keep,
        run_id: str | None,
        nominal: datetime | None,
        priority: int,
    ) -> Begun:
        """Plan a run, record it and take its lease; *arguments* are what else :func:`dpcore.plan` takes.

        When this call is cancelled, the run is there as a whole, or nothing of it is.
        """
        refuse_while_loading()
        check_running(params=params, metadata=metadata, fail_fast=fail_fast, keep=keep, priority=priority)
        given = _as_lists(arguments)
        plan = self._planned(selection, params or {}, given)
        selected = plan.order if selection and isinstance(selection[0], Plan) else selection
        means = await self._means()
        reading = self._kept.hold(plan.from_run)
        run = run_of(
            plan,
            self._new_run_id() if run_id is None else check_id(run_id, "run id"),
            io=means.io,
            params=params,
            metadata=metadata,
            nominal=nominal,
            earlier=await self._earlier(plan, means),
            fail_fast=fail_fast,
            keep=keep,
            limits=self._slots.limits,
            streams="streams" in means.executor.capabilities,
        )
        record = self._record(run, {"selection": selected, **given}, means.store)
        record.priority = priority
        with self._beginning():
            lease = await self._recorded(record, means.store)
            return self._ours(run, record, lease, means, reading)

    def _planned(
        self, selection: tuple[Selector | Plan, ...], params: Mapping[str, Any], arguments: Mapping[str, Any]
    ) -> Plan:
        """Plan; a plan that was made before is made again with these *params*, of the tasks that it has."""
        if not (selection and isinstance(selection[0], Plan)):
            return self.plan(cast("tuple[Selector, ...]", selection), params, **arguments)
        given = selection[0]
        if len(selection) > 1 or any(arguments.values()):
            raise ArgumentError("selection", given, "alone, because a plan says by itself what is run")
        plan = self.plan(given.order, params)
        if plan.id != given.id:
            wanted = "a plan that its tasks' names select again; this one needs the params= that it was made with, or from_run="
            raise ArgumentError("selection", given, wanted)
        return plan

    async def _means(self) -> _Means:
        """Return what every run needs, once it is clear that it goes together."""
        executor, io, store = await self._adapters.executor(), await self._adapters.io(), await self._adapters.store()
        if not 1 <= executor.slots <= executor.window:
            problem = f"is {executor.slots!r} with a window of {executor.window!r}; it must be at least 1, and the window not less"
            raise SettingError(f"executor {executor}", "slots", problem)
        if not executor.in_process and "shared" not in io.capabilities:
            raise PlanningError("cannot plan", [NotSharedError(str(executor), str(io))])
        return _Means(executor, io, store)

    async def _earlier(self, plan: Plan, means: _Means) -> dict[str, Ref | Items]:
        """Find the results of the earlier run that the plan takes data from."""
        if plan.from_run is None:
            return {}
        if plan.from_run in self._kept.going:
            raise RunNotFoundError(plan.from_run, str(means.store))
        history = await means.store.get(plan.from_run)  # a name that is misspelt is told, also if nothing is taken
        return earlier(plan, history, means.io)

    def _record(self, run: Run, selection: Mapping[str, Any], store: RunStore) -> RunRecord:
        return record_of(
            run,
            began=self._clock.now().timestamp(),
            source=self._source,
            selection={name: written(value, self._registry) for name, value in selection.items()},
            settings={kind: self._adapters.described(kind) for kind in ("executor", "io", "store")},
            durable="durable" in store.capabilities,
        )

    @contextmanager
    def _beginning(self) -> Iterator[None]:
        """Begin a run for the length of a ``with`` block; who leaves the app waits for that, and then cancels the run."""
        if not self._is_open:
            raise AppStateError("is being left", "stay in it until its runs have ended")
        beginning = anyio.Event()
        self._beginnings.add(beginning)
        try:
            yield
        finally:
            self._beginnings.discard(beginning)
            beginning.set()

    async def _recorded(self, record: RunRecord, store: RunStore) -> Lease:
        """Record a run that begins, and take its lease; as a whole, so that no run is left that says it is running."""
        await checkpoint_if_cancelled()
        with anyio.CancelScope(shield=True):
            if not await store.begin(record):
                raise RunExistsError(record.run_id, str(store))
            # Begun first: who dies in between leaves a run that can be resumed, and no lease on nothing.
            lease = await store.lease(f"run/{record.run_id}", _LEASED)
        if lease is None:
            raise RunExistsError(record.run_id, str(store))
        return lease

    def _ours(self, run: Run, record: RunRecord, lease: Lease, means: _Means, reading: Hold | None) -> Begun:
        """Make what drives a run, which counts as running from now on."""
        run_changed = self._plugins.observers("dpcore_run_changed")
        task_changed = self._plugins.observers("dpcore_task_changed")
        announcer = None
        broker = self._adapters.made.get("broker")
        if broker is not None:  # whoever wants to be told of runs has asked for it before
            announcer = Announcer(broker)
            run_changed = [*run_changed, announcer.run_changed]
            task_changed = [*task_changed, announcer.task_changed]
        publish = partial(self._publish_of_tasks, announcer=announcer)
        runner = Runner(
            run,
            means.executor,
            means.store,
            means.io,
            record,
            self._clock,
            run_changed,
            task_changed,
            publish,
            lease,
            self._slots,
        )
        holds = (self._kept.hold(run.run_id), reading)
        begun = self._begun[run.run_id] = Begun(runner, lease, announcer, self._clock.monotonic(), holds)
        return begun

    async def _publish_of_tasks(self, events: Sequence[Event], announcer: Announcer | None) -> None:
        assert self._publish is not None
        if announcer is not None:  # that a task runs is told before what it tells itself
            await announcer.flush()
        await self._publish(events)

    def _new_run_id(self) -> str:
        return f"{self._clock.now():%Y%m%d-%H%M%S}-{os.urandom(4).hex()}"

    # ---------------------------------------------------------------- driving

    async def drive(self, begun: Begun) -> Result:
        """Drive a run to its end, in this task: cancelling this call cancels the run (:meth:`Runner.drive`)."""
        runner, announcer = begun.runner, begun.announcer
        if announcer is None:
            await self._own(begun)
        else:
            async with announcer.telling():
                await self._own(begun)
        duration = self._clock.monotonic() - begun.at
        result = Result(runner.run, runner.io, duration, folder=self._adapters.folder, hold=begun.holds[0])
        await self._forget_older(runner.store, runner.io)
        return result

    def start(self, begun: Begun) -> Running:
        """Drive a run to its end in a task of the app's, whatever becomes of the one that calls this."""
        assert self._group is not None
        runner = begun.runner
        ending = Ending(runner.run.run_id, runner.cancel)
        self._group.start_soon(self._drive_apart, begun, ending, name=f"run {runner.run.run_id}")
        return Running(runner.run, ending)

    async def _drive_apart(self, begun: Begun, ending: Ending) -> None:
        try:
            outcome = await self._outcome(begun)
        except BaseException:  # which ends the program
            ending.tell(RunCancelledError(begun.runner.run.run_id, "the program was interrupted"))
            raise
        ending.tell(outcome)

    async def _outcome(self, begun: Begun) -> Result | Exception:
        """Drive a run to its end, and return what it gave, or what broke it off: that is no affair of the app's."""
        try:
            with anyio.CancelScope(shield=True):  # who leaves the app cancels its runs
                result = await self.drive(begun)
        except Exception as error:  # noqa: BLE001  (a store's, say: whoever asks for the result gets it)
            return error
        return result

    async def _own(self, begun: Begun) -> None:
        """Drive a run that is ours, and is nobody's afterwards."""
        runner = begun.runner
        run_id = runner.run.run_id
        try:
            await runner.drive()
        finally:
            del self._begun[run_id]
            try:
                await _released(begun.lease)
            finally:
                begun.over.set()
                if "durable" not in runner.store.capabilities:
                    self._kept.add(run_id)

    # ---------------------------------------------------------------- going on

    async def resume(
        self,
        run_id: str,
        *,
        from_: Selector | Iterable[Selector],
        changed: bool,
        params: Mapping[str, Any] | None,
        metadata: Mapping[str, Any] | None,
    ) -> Begun:
        """Begin what is left of a run: :meth:`dpcore.App.resume`, which says what holds."""
        refuse_while_loading()
        check_id(run_id, "run id")
        check_argument("changed", changed, bool, "True or False")
        check_running(params=params, metadata=metadata)
        begin = [from_] if isinstance(from_, str) or callable(from_) else from_
        check_argument("from_", begin, Iterable, "names of tasks, or their functions, in a list")
        means = await self._means()
        await means.store.get(run_id)  # a name that is misspelt shall leave no lease
        with self._beginning():
            lease = await self._leased(run_id, means.store)
            try:
                history = await means.store.get(run_id)  # of which nothing changes any more
                reading = self._kept.hold(history.record.selection.get("from_run"))
                run, left, record = await self._remaining(
                    history, self._named(begin), changed, (params, metadata), means
                )
                await means.store.append(run_id, left.changes, record=record, lease=lease)
            except BaseException:
                await _released(lease)
                raise
            begun = self._ours(run, record, lease, means, reading)
        if differing := [name for name in left.changed if name in left.before.outcomes]:
            told = "%s changed since run %s, and will not be run again; to have that done: changed=True, --changed"
            _log.warning(told, listed(differing), run_id)
        return begun

    async def _leased(self, run_id: str, store: RunStore) -> Lease:
        """Take the lease of a run that is there."""
        if run_id in self._begun:
            raise RunHeldError(run_id, "this App")
        if run_id in self._kept.going:
            raise RunNotFoundError(run_id, str(store))
        lease = await store.lease(f"run/{run_id}", _LEASED)
        if lease is None:
            who, until = await store.holder(f"run/{run_id}") or ("", 0.0)
            when = f"{datetime.fromtimestamp(until).astimezone():%H:%M:%S}" if until else "a moment"
            raise RunHeldError(run_id, shown_process(who), when)
        return lease

    def _named(self, selectors: Iterable[Selector]) -> list[str]:
        """Return the names of tasks that are given by name or function."""
        found: list[str] = []
        for one in selectors:
            names = [one] if isinstance(one, str) else self._registry.named(one)
            if not names:
                raise TaskNotFoundError(Shown(printed(one)), self._registry)
            found += names
        return found

    async def _remaining(
        self,
        history: RunHistory,
        begin: list[str],
        changed: bool,
        given: tuple[Mapping[str, Any] | None, Mapping[str, Any] | None],
        means: _Means,
    ) -> tuple[Run, Rest, RunRecord]:
        """Make what is left of a run: the run to drive, what it leaves out, and what to record."""
        record = history.record
        params, metadata = carried(record, *given)
        arguments = dict(record.selection)
        plan = self.plan(arguments.pop("selection", ()), params, **arguments)
        left = rest(plan, history, at=self._clock.now().timestamp(), begin=begin, changed=changed)
        run = run_of(
            plan,
            record.run_id,
            streams="streams" in means.executor.capabilities,
            io=means.io,
            params=params,
            metadata=metadata,
            nominal=datetime.fromisoformat(record.nominal) if record.nominal is not None else None,
            earlier=await self._earlier(plan, means),
            fail_fast=record.fail_fast,
            keep=cast(Keep, record.keep),
            before=left.before,
            limits=self._slots.limits,
        )
        await to_thread.run_sync(check_there, run, means.io)
        return run, left, self._record_again(run, record, means.store, whole=given == (None, None))

    def _record_again(self, run: Run, record: RunRecord, store: RunStore, *, whole: bool) -> RunRecord:
        """Return what is recorded of a run that goes on: what was is kept, with the parameters where it is the *whole*."""
        fresh = self._record(run, {}, store)
        kept = ("began", "selection", "priority", *(("params", "metadata", "carried") if whole else ()))
        stays = {name: getattr(record, name) for name in kept}
        return msgspec.structs.replace(fresh, source=fresh.source or record.source, **stays)

    # ---------------------------------------------------------------- forgetting

    async def forget(self, run_ids: Sequence[str]) -> int:
        """Forget runs: :meth:`dpcore.App.forget`, which says what holds."""
        for run_id in run_ids:
            self._check_free(check_id(run_id, "run id"))
        io, store = await self._adapters.io(), await self._adapters.store()
        for run_id in run_ids:
            await store.get(run_id)
        return sum([await self._forget(run_id, store, io) for run_id in dict.fromkeys(run_ids)])

    def _check_free(self, run_id: str) -> None:
        if run_id in self:
            raise RunHeldError(run_id, "this App")
        for other, runner in self.items():
            if runner.run.plan.from_run == run_id:
                raise RunHeldError(other, f"this App, and takes data from run {run_id!r}")

    async def _forget(self, run_id: str, store: RunStore, io: IOManager | None) -> int:
        if run_id in self._kept.going:
            raise RunNotFoundError(run_id, str(store))
        self._kept.going.add(run_id)
        try:
            count = await forget(run_id, store, io)
            self._kept.discard(run_id)
            return count
        finally:
            self._kept.going.discard(run_id)

    async def _forget_older(self, store: RunStore, io: IOManager) -> None:
        """Forget the runs that are not to be kept any more; what goes wrong with that is no fault of the run that has ended."""
        for run_id in list(islice(self._kept.due(), _MOST_FORGOTTEN)):
            try:
                with anyio.CancelScope(shield=True):  # of the call whose own run has ended
                    await self._forget(run_id, store, io if self._adapters.owns_results else None)
            except Exception as error:  # noqa: BLE001  (whatever a store or an I/O manager raises)
                if self._is_open:
                    _log.warning("run %s could not be forgotten, and is kept for now: %s", run_id, error)
                    self._kept.add(run_id)


async def _released(lease: Lease) -> None:
    """Give a lease back; whatever else went wrong has been said, and the lease ends by itself."""
    with anyio.CancelScope(shield=True), suppress(StoreError):
        await lease.release()


def check_running(
    *,
    params: object = None,
    metadata: object = None,
    fail_fast: object = False,
    keep: object = "all",
    priority: object = 0,
) -> None:
    """Raise :class:`~dpcore.errors.ArgumentError` for what a run cannot be given, whatever its tasks are."""
    check_argument("params", params, Mapping | None, "a mapping from parameter to value")
    check_argument("metadata", metadata, Mapping | None, "a mapping")
    check_argument("fail_fast", fail_fast, bool, "True or False")
    if not isinstance(keep, str) or keep not in ("all", "leaves"):
        raise ArgumentError("keep", keep, "'all' or 'leaves'")
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise ArgumentError("priority", priority, "a whole number")


def refuse_while_loading() -> None:
    """Raise :class:`~dpcore.errors.UnguardedScriptError` in a file that is only being loaded for its tasks."""
    script = script_being_loaded()
    if script is not None:
        raise UnguardedScriptError(script)


def _as_lists(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of plan() so that each can be gone through twice; what is no list is a fault that planning words."""

    def listed(given: Any) -> Any:
        return list(given) if isinstance(given, Iterable) and not isinstance(given, str) else given

    lists = {name: listed(arguments[name]) for name in ("tags", "root_tasks", "exclude")}
    return {**arguments, **lists, "exclude": lists["exclude"] or []}
