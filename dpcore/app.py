"""App: a registry of tasks joined to the adapters that run it."""

from __future__ import annotations

import logging
import os
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from inspect import signature
from itertools import islice
from types import TracebackType
from typing import Any, Self, cast

import anyio
import msgspec
from anyio import to_thread
from anyio.abc import TaskGroup

from dpcore.adapters import Adapters
from dpcore.clock import Clock, SystemClock
from dpcore.config import Config, is_limits
from dpcore.errors import (
    AppStateError,
    ArgumentError,
    NotSharedError,
    PlanningError,
    RunExistsError,
    RunHeldError,
    RunningLoopError,
    RunNotFoundError,
    SelectionError,
    SettingError,
    StoreError,
    TaskNotFoundError,
    UnguardedScriptError,
    check_argument,
)
from dpcore.events import Event
from dpcore.functions import script_being_loaded
from dpcore.groups import Overflow, Start
from dpcore.jobs import Items, Ref, check_id
from dpcore.kept import Kept
from dpcore.live import run_of
from dpcore.outbox import Publish
from dpcore.plans import Plan, Selector
from dpcore.plans import plan as make_plan
from dpcore.plugins import Plugins
from dpcore.ports import Broker, Executor, IOManager, RunStore, Subscription
from dpcore.ports.broker import subscription
from dpcore.ports.runstore import Lease, RunHistory, RunRecord
from dpcore.ports.subscription import Acknowledge
from dpcore.processes import shown_process
from dpcore.reactions import REQUESTS, Announcer, Params, Reaction, chooses, reaction_name
from dpcore.records import carried, check_there, earlier, forget, record_of
from dpcore.results import Result
from dpcore.resuming import Rest, rest
from dpcore.runner import Runner
from dpcore.runs import Keep, Run
from dpcore.slots import Slots
from dpcore.tasks import Registry
from dpcore.tasks import registry as default_registry
from dpcore.words import Shown, listed, nearest, printed

__all__ = ("App", "Result", "loop_is_running", "run")

_log = logging.getLogger("dpcore.app")

_PLANNED = frozenset({"tags", "root_tasks", "include_upstream", "exclude", "from_run", "strict"})
_LEASED = 30.0  # seconds that a run belongs to who drives it without having said that it still does
_MOST_FORGOTTEN = 100  # runs that are forgotten at the end of one: what many let go of at once goes bit by bit


class App:
    """A registry of tasks joined to the adapters that run it; an async context manager.

    Each adapter is a name, a string such as ``"filesystem:./runs"``, an object, or a
    :class:`~dpcore.config.Value` that says where it was written; it is made when it
    is first used.  What is not given is read from ``DPCORE_*``,
    then from *config* if one is given; the defaults are ``memory``, ``threads`` and,
    for *io*, ``memory`` where the executor runs in this process and otherwise
    ``filesystem`` in a private temporary folder.

    *source* names the file or module that the tasks come from, for the record.  With
    *strict_events* every payload goes through the wire form, also where the broker
    could pass the object itself: what would not survive a process fails at ``publish``.

    *limits* say how many jobs of tasks with a tag run at once, in all runs of this app
    together: with ``{"db": 2}`` two of those tagged ``db``.  A job that was given up, and
    whose code may still run, does not count.  Without them, those of *config* hold.

    Where the store does not last, of the runs that have ended the latest *keep_runs* are
    kept, all if it is None.  An older one is forgotten when further runs end, as
    :meth:`forget` does it, but not before nobody has its :class:`Result` any more, and no
    run takes data from it.  Its results go with it where they are the app's own, in
    ``memory`` or in the private folder; elsewhere they stay.  A store that lasts
    keeps every run until it is told to forget it.
    """

    def __init__(
        self,
        registry: Registry | None = None,
        *,
        broker: object = None,
        io: object = None,
        executor: object = None,
        store: object = None,
        plugins: Plugins | None = None,
        config: Config | None = None,
        clock: Clock | None = None,
        source: str = "",
        strict_events: bool = False,
        limits: Mapping[str, int] | None = None,
        keep_runs: int | None = 100,
    ) -> None:
        check_argument("strict_events", strict_events, bool, "True or False")
        check_argument("registry", registry, Registry | None, "a Registry")
        check_argument("plugins", plugins, Plugins | None, "a Plugins")
        check_argument("config", config, Config | None, "a Config")
        check_argument("clock", clock, Clock | None, "a Clock")
        if isinstance(keep_runs, bool) or not isinstance(keep_runs, int | None) or (keep_runs or 0) < 0:
            raise ArgumentError("keep_runs", keep_runs, "a whole number of runs, at least 0, or None to keep all")
        self.registry = default_registry if registry is None else registry
        self.config = config if config is not None else plugins.config if plugins is not None else Config()
        self.plugins = plugins if plugins is not None else Plugins(config=self.config)
        given_limits = _checked_limits(limits)
        self._slots = Slots(self.config.limits if given_limits is None else given_limits)
        self.clock = clock if clock is not None else SystemClock()
        self.source = source
        given = {"broker": broker, "io": io, "executor": executor, "store": store}
        self._adapters = Adapters(self.plugins, self.config, self.clock, given, strict_events=strict_events)
        self.plans: dict[str, Plan] = {}
        """Plans that events on ``$run.request`` may ask for, by name; fill it as you like."""
        self._group: TaskGroup | None = None
        self._runners: dict[str, Runner] = {}
        self._kept = Kept(keep_runs)
        self._reactions: list[Reaction] = []
        self._broker: Broker | None = None  # once nothing has to be waited for before an event is published

    def __repr__(self) -> str:
        return f"<App of {len(self.registry)} tasks>"

    async def __aenter__(self) -> Self:
        if self._group is not None:
            raise AppStateError("is entered already", "make another one")
        self.plugins.check_broker(
            self._adapters.choices["broker"]
        )  # before something is done, of which an event should tell
        self._broker = None
        self._group = await anyio.create_task_group().__aenter__()
        self._adapters.open(self._group)
        try:
            self.plugins.live("dpcore_started", self)
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Start no more runs, cancel those that still run, and close every adapter that this app made.

        Readers of the broker have its ``drain`` seconds to read what is left, unless the
        app is left with an exception.
        """
        assert self._group is not None
        for reaction in self._reactions:
            reaction.stop()
        self._reactions.clear()
        for runner in list(self._runners.values()):
            runner.cancel("its App was left")
            with anyio.CancelScope(shield=True):  # what it records needs the store
                await runner.ended()
        self.plugins.live("dpcore_stopping", self)
        self._kept.clear()
        self._adapters.close(failed=kind is not None)
        group, self._group = self._group, None
        self._broker = None
        # What the body raised is not the group's affair: it goes on as it is, and in no ExceptionGroup.
        await group.__aexit__(None, None, None)

    # ---------------------------------------------------------------- adapters

    async def broker(self) -> Broker:
        """Return the broker, made and entered when first asked for."""
        return await self._adapters.broker()

    async def executor(self) -> Executor:
        """Return the executor, made and entered when first asked for."""
        return await self._adapters.executor()

    async def io(self) -> IOManager:
        """Return the I/O manager, made when first asked for."""
        return await self._adapters.io()

    async def store(self) -> RunStore:
        """Return the run store, made and entered when first asked for."""
        return await self._adapters.store()

    # ---------------------------------------------------------------- events

    def publish(
        self,
        topic: str | Event,
        data: Any = None,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        type: str = "",
        timeout: float | None = None,
    ) -> Coroutine[Any, Any, Event]:
        """Publish *data* on *topic*, or an event as it is; awaited, it returns the event as published.

        It is :meth:`Broker.publish`, which says what holds.
        """
        if self._broker is not None:  # no coroutine of ours around the broker's
            return self._broker.publish(topic, data, key=key, headers=headers, type=type, timeout=timeout)
        return self._publish(topic, data, key=key, headers=headers, type=type, timeout=timeout)

    async def _publish(self, topic: str | Event, data: Any, **arguments: Any) -> Event:
        return await (await self._listened_to()).publish(topic, data, **arguments)

    async def _listened_to(self) -> Broker:
        """Return the broker, once every reaction that was asked for is listening."""
        broker = await self.broker()
        if self._broker is None:
            for reaction in list(self._reactions):
                await reaction.begun()
            self._broker = broker
        return broker

    async def publish_many(
        self, topic: str | Iterable[Event], data: Iterable[Any] | None = None, **arguments: Any
    ) -> list[Event]:
        """Publish each of *data* on *topic*, or each of some events, in order: :meth:`Broker.publish_many`."""
        return await (await self._listened_to()).publish_many(topic, data, **arguments)

    async def publish_matching(self, pattern: str, data: Any = None, **arguments: Any) -> list[Event]:
        """Publish *data* on every topic that *pattern* matches and that is known: :meth:`Broker.publish_matching`."""
        return await (await self._listened_to()).publish_matching(pattern, data, **arguments)

    async def declare(self, topic: str, groups: Iterable[str] = (), **arguments: Any) -> None:
        """Make *topic* and *groups* that read it known: :meth:`Broker.declare`."""
        await (await self.broker()).declare(topic, groups, **arguments)

    async def disband(self, group: str) -> bool:
        """Forget *group*, with all that it holds: :meth:`Broker.disband`."""
        return await (await self.broker()).disband(group)

    async def complete(self, topic: str) -> None:
        """Say that nothing more will be published on *topic*: :meth:`Broker.complete`."""
        await (await self.broker()).complete(topic)

    def subscribe(
        self,
        *patterns: str,
        group: str | None = None,
        start: Start | None = None,
        ack: Acknowledge = "auto",
        buffer: int | None = None,
        overflow: Overflow | None = None,
        type: Any = None,
    ) -> Subscription:
        """Return a subscription to the topics that *patterns* match: :meth:`Broker.subscribe`, which says what holds."""
        return subscription(
            self.broker,
            *patterns,
            group=group,
            start=start,
            ack=ack,
            buffer=buffer,
            overflow=overflow,
            type=type,
        )

    def consume(
        self,
        *patterns: str,
        group: str = "default",
        start: Start | None = None,
        ack: Acknowledge = "auto",
        buffer: int | None = None,
        overflow: Overflow | None = None,
        type: Any = None,
    ) -> Subscription:
        """Return a subscription that shares the work with all others of its group: :meth:`Broker.consume`."""
        return self.subscribe(*patterns, group=group, start=start, ack=ack, buffer=buffer, overflow=overflow, type=type)

    def run_on(
        self,
        pattern: str,
        selection: Iterable[Selector] = (),
        *,
        params: Params | None = None,
        name: str | None = None,
        limit: int = 10,
        **arguments: Any,
    ) -> Reaction:
        """Start a run of *selection* for each event on the topics that *pattern* matches, from now on.

        *params* are run parameters, or a function that makes them of the event.  With no
        *selection*, and no ``tags=`` or ``root_tasks=``, the event says itself what to run: a
        :class:`~dpcore.reactions.RunRequest`.  *arguments* are those of :meth:`run`.  At most *limit*
        runs run at once.  ``await`` what this returns to wait until it listens; what
        this app publishes waits for that by itself.

        *name* says who shares the work: each event starts one run in all the apps on a broker
        that give the same name, whichever of them takes it.  By default it is made of pattern and
        selection; give each service one of its own where several run tasks of one name on the
        same events.  It is a part of the group's name, ``run-NAME``, and of the runs' ids.

        What is wrong with the selection is told here, so tasks are registered before.
        An event of which no run can be made, because it lacks a parameter, say, goes to the
        dead letters.
        """
        if self._group is None:
            raise AppStateError("is not entered", "enter it first: async with App(...) as app")
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise ArgumentError("limit", limit, "a number of runs, at least 1")
        if not callable(params):
            check_argument("params", params, Mapping | None, "a mapping, or a function that makes one of the event")
        check_argument("name", name, str | None, "a name for those who share the events")
        selectors = self._selected(selection, arguments)
        if not chooses(selectors, arguments) and params is not None:
            raise ArgumentError("params", params, "left out, because without a selection the event has the parameters")
        if name is None:
            listed = [selectors, *(arguments.get(argument) or () for argument in ("tags", "root_tasks", "exclude"))]
            name = reaction_name(pattern, [str(self._written(one)) for given in listed for one in given])
        reading = self.subscribe(pattern, group=f"run-{name}", start="new", ack="manual")
        reaction = Reaction(name, self, reading, selectors, arguments, params, limit)
        for other in self._reactions:
            if other.name == name and not other.stopped and not other.does_as(reaction):
                raise ArgumentError("name", name, f"another than that of {other!r}, which does something else")
        self._reactions.append(reaction)
        self._broker = None  # until it listens
        self._group.start_soon(self._react, reaction)
        return reaction

    def _selected(self, selection: Iterable[Selector], arguments: Mapping[str, Any]) -> list[Selector]:
        """Return what :meth:`run_on` is to run as a list; raise for what could be said before any event has come."""
        known = signature(self.run).parameters
        for argument in arguments:
            if argument not in known or argument in ("selection", "run_id", "check"):
                raise TypeError(f"run_on() takes no {argument!r}{nearest(argument, known)}")
        _check_running({"metadata": None, "fail_fast": False, "keep": "all", **arguments})
        if isinstance(selection, str) or callable(selection):
            selection = [selection]
        check_argument("selection", selection, Iterable, "names of tasks, or what else plan() takes, in a list")
        selectors = list(selection)
        if chooses(selectors, arguments) and not isinstance(selectors[0] if selectors else None, Plan):
            planned = {name: value for name, value in arguments.items() if name in _PLANNED}
            try:
                make_plan(*selectors, registry=self.registry, **planned)
            except PlanningError as error:  # what a task lacks may come with the event
                faults = [fault for fault in error.exceptions if isinstance(fault, SelectionError | TaskNotFoundError)]
                if faults:
                    raise PlanningError("cannot plan", faults) from None
        return selectors

    async def _react(self, reaction: Reaction) -> None:
        try:
            await reaction.listen()
        finally:
            if reaction in self._reactions:
                self._reactions.remove(reaction)

    async def serve(self) -> None:
        """Start the runs that events on ``$run.request`` ask for, until cancelled.

        Apps on one broker that serve share the requests: each must have the tasks that are asked for.
        """
        await self.run_on(REQUESTS, name="requests")
        await anyio.sleep_forever()

    # ---------------------------------------------------------------- planning and running

    def plan(self, *selection: Selector, params: Mapping[str, Any] | Iterable[str] = (), **arguments: Any) -> Plan:
        """Plan as :func:`dpcore.plan` does, over this app's registry; plugins may reshape the plan."""
        return self.plugins.shape(make_plan(*selection, registry=self.registry, params=params, **arguments))

    async def run(
        self,
        *selection: Selector | Plan,
        tags: Iterable[str] | None = None,
        root_tasks: Iterable[Selector] | None = None,
        include_upstream: bool = False,
        exclude: Iterable[Selector] = (),
        from_run: str | None = None,
        strict: bool = False,
        params: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        fail_fast: bool = False,
        keep: Keep = "all",
        check: bool = True,
        run_id: str | None = None,
        nominal: datetime | None = None,
        priority: int = 0,
    ) -> Result:
        """Run the selected tasks, as :func:`dpcore.plan` selects them, and return what they gave.

        A plan that was made before may be given instead of a selection.  *params* are run parameters by name; *metadata* is handed to the tasks.  With
        *fail_fast* a failure cancels everything else at once; with ``keep="leaves"`` a
        value is freed when its last reader has ended.  A failed run raises
        (:meth:`Result.raise_for_failure`) unless *check* is False.

        Runs of one app share its executor alike; one with a higher *priority* is served
        first, and each has one place at least.

        Raises :class:`~dpcore.errors.ArgumentError` and
        :class:`~dpcore.errors.PlanningError` before anything has run.
        """
        _refuse_while_loading()
        check_argument("params", params, Mapping | None, "a mapping from parameter to value")
        check_argument("check", check, bool, "True or False")
        if isinstance(priority, bool) or not isinstance(priority, int):
            raise ArgumentError("priority", priority, "a whole number")
        _check_running({"metadata": metadata, "fail_fast": fail_fast, "keep": keep})
        arguments = {
            "tags": _listed(tags),
            "root_tasks": _listed(root_tasks),
            "include_upstream": include_upstream,
            "exclude": _listed(exclude) or [],
            "from_run": from_run,
            "strict": strict,
        }
        plan = self._planned(selection, params or {}, arguments)
        written = plan.order if selection and isinstance(selection[0], Plan) else selection
        executor, io, store = await self._to_run_with()
        _reading = self._kept.hold(plan.from_run)
        run = run_of(
            plan,
            self._new_run_id() if run_id is None else check_id(run_id, "run id"),
            io=io,
            params=params,
            metadata=metadata,
            nominal=nominal,
            earlier=await self._earlier(plan, store, io),
            fail_fast=fail_fast,
            keep=keep,
            limits=self._slots.limits,
            streams="streams" in executor.capabilities,
        )
        record = self._record(run, written, arguments, durable="durable" in store.capabilities)
        record.priority = priority
        if not await store.begin(record):
            raise RunExistsError(run.run_id, str(store))
        # Begun first: who dies in between leaves a run that can be resumed, and no lease on nothing.
        lease = await store.lease(f"run/{run.run_id}", _LEASED)
        if lease is None:
            raise RunExistsError(run.run_id, str(store))
        result = await self._drive(run, record, executor, store, io, lease)
        return result.raise_for_failure() if check else result

    async def resume(
        self,
        run_id: str,
        *,
        from_: Selector | Iterable[Selector] = (),
        changed: bool = False,
        params: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        check: bool = True,
    ) -> Result:
        """Run what is left of a run that was broken off, or that has ended and did not succeed.

        What has succeeded is not run again, and of a run that was broken off neither is
        what had failed: an outcome that is recorded counts.  The tasks in *from_* are run again
        all the same, and with *changed* those whose code or inputs have changed since; each
        with all that waits for it.  Without *changed*, those are told by a warning in the log.

        The run is planned again, from the tasks that this app has now, as it was selected.  What
        it was given is recorded; *params* and *metadata* replace it, and are needed where it did not pickle.

        Raises :class:`~dpcore.errors.RunNotFoundError`, :class:`~dpcore.errors.RunHeldError` while
        somebody drives the run, :class:`~dpcore.errors.RunEndedError` if it has succeeded, and
        :class:`~dpcore.errors.PlanningError` if it cannot be planned any more, or
        a result that is needed is gone.
        """
        _refuse_while_loading()
        check_id(run_id, "run id")
        check_argument("changed", changed, bool, "True or False")
        check_argument("check", check, bool, "True or False")
        check_argument("params", params, Mapping | None, "a mapping from parameter to value")
        check_argument("metadata", metadata, Mapping | None, "a mapping")
        begin = [from_] if isinstance(from_, str) or callable(from_) else from_
        check_argument("from_", begin, Iterable, "names of tasks, or their functions, in a list")
        executor, io, store = await self._to_run_with()
        await store.get(run_id)  # a name that is misspelt shall leave no lease
        lease = await self._leased(run_id, store)
        try:
            history = await store.get(run_id)  # of which nothing changes any more
            _reading = self._kept.hold(history.record.selection.get("from_run"))
            run, left, record = await self._remaining(
                history, self._named(begin), changed, (params, metadata), executor, store, io
            )
            await store.append(run_id, left.changes, record=record, lease=lease)
        except BaseException:
            await _released(lease)
            raise
        if differing := [name for name in left.changed if name in left.before.outcomes]:
            told = "%s changed since run %s, and will not be run again; to have that done: changed=True, --changed"
            _log.warning(told, listed(differing), run_id)
        result = await self._drive(run, record, executor, store, io, lease)
        return result.raise_for_failure() if check else result

    async def _remaining(
        self,
        history: RunHistory,
        begin: list[str],
        changed: bool,
        given: tuple[Mapping[str, Any] | None, Mapping[str, Any] | None],
        executor: Executor,
        store: RunStore,
        io: IOManager,
    ) -> tuple[Run, Rest, RunRecord]:
        """Make what is left of a run: the run to drive, what it leaves out, and what to record."""
        record = history.record
        params, metadata = carried(record, *given)
        arguments = dict(record.selection)
        plan = self.plan(*arguments.pop("selection", ()), params=params, **arguments)
        left = rest(plan, history, at=self.clock.now().timestamp(), begin=begin, changed=changed)
        run = run_of(
            plan,
            record.run_id,
            streams="streams" in executor.capabilities,
            io=io,
            params=params,
            metadata=metadata,
            nominal=datetime.fromisoformat(record.nominal) if record.nominal is not None else None,
            earlier=await self._earlier(plan, store, io),
            fail_fast=record.fail_fast,
            keep=cast(Keep, record.keep),
            before=left.before,
            limits=self._slots.limits,
        )
        await to_thread.run_sync(check_there, run, io)
        fresh = self._record(run, (), {}, durable="durable" in store.capabilities)
        kept = {name: getattr(record, name) for name in ("began", "selection", "params", "metadata", "carried")}
        if given != (None, None):
            kept = {name: kept[name] for name in ("began", "selection")}
        kept["priority"] = record.priority
        source = fresh.source or record.source
        return run, left, msgspec.structs.replace(fresh, source=source, **kept)

    def _named(self, selectors: Iterable[Selector]) -> list[str]:
        """Return the names of tasks that are given by name or function."""
        found: list[str] = []
        for one in selectors:
            names = [one] if isinstance(one, str) else self.registry.named(one)
            if not names:
                raise TaskNotFoundError(Shown(printed(one)), self.registry)
            found += names
        return found

    async def _leased(self, run_id: str, store: RunStore) -> Lease:
        """Take the lease of a run that is there."""
        if run_id in self._runners:
            raise RunHeldError(run_id, "this App")
        if run_id in self._kept.going:
            raise RunNotFoundError(run_id, str(store))
        lease = await store.lease(f"run/{run_id}", _LEASED)
        if lease is None:
            who, until = await store.holder(f"run/{run_id}") or ("", 0.0)
            when = f"{datetime.fromtimestamp(until).astimezone():%H:%M:%S}" if until else "a moment"
            raise RunHeldError(run_id, shown_process(who), when)
        return lease

    async def _to_run_with(self) -> tuple[Executor, IOManager, RunStore]:
        """Return what every run needs, once it is clear that it goes together."""
        executor, io, store = await self.executor(), await self.io(), await self.store()
        if not 1 <= executor.slots <= executor.window:
            problem = f"is {executor.slots!r} with a window of {executor.window!r}; it must be at least 1, and the window not less"
            raise SettingError(f"executor {executor}", "slots", problem)
        if not executor.in_process and "shared" not in io.capabilities:
            raise PlanningError("cannot plan", [NotSharedError(str(executor), str(io))])
        return executor, io, store

    def _planned(
        self, selection: tuple[Selector | Plan, ...], params: Mapping[str, Any], arguments: Mapping[str, Any]
    ) -> Plan:
        """Plan; a plan that was made before is made again with these *params*, of the tasks that it has."""
        if not (selection and isinstance(selection[0], Plan)):
            return self.plan(*cast("tuple[Selector, ...]", selection), params=params, **arguments)
        given = selection[0]
        if len(selection) > 1 or any(arguments.values()):
            raise ArgumentError("selection", given, "alone, because a plan says by itself what is run")
        plan = self.plan(*given.order, params=params)
        if plan.id != given.id:
            wanted = "a plan that its tasks' names select again; this one needs the params= that it was made with, or from_run="
            raise ArgumentError("selection", given, wanted)
        return plan

    def cancel(self, run_id: str, reason: str = "it was asked for") -> None:
        """Cancel a run of this app: stop its jobs as far as the executor can, and record that."""
        runner = self._runners.get(check_id(run_id, "run id"))
        if runner is None:
            raise RunNotFoundError(run_id, "what this App is running", self._runners)
        runner.cancel(reason)

    async def history(self, run_id: str) -> RunHistory:
        """Return all that is known of a run: what the run store has, and what a running one has not recorded yet."""
        if (runner := self._runners.get(check_id(run_id, "run id"))) is not None:
            await runner.flush()
        return await (await self.store()).get(run_id)

    async def forget(self, *run_ids: str) -> int:
        """Remove what the run store has of some runs, and before that their results; return how many results there were.

        The results are those that this app's I/O manager has.  Of a :class:`Result` that somebody still
        has, only values that were not loaded are gone.  When this call is cancelled, each run is there
        as it was, or gone.

        Before anything is removed it raises :class:`~dpcore.errors.RunNotFoundError` if there is no such run, and
        :class:`~dpcore.errors.RunHeldError` while somebody drives one, or this app another that takes data from it.
        """
        for run_id in run_ids:
            self._check_free(check_id(run_id, "run id"))
        io, store = await self.io(), await self.store()
        for run_id in run_ids:
            await store.get(run_id)
        return sum([await self._forget(run_id, store, io) for run_id in dict.fromkeys(run_ids)])

    def _check_free(self, run_id: str) -> None:
        if run_id in self._runners:
            raise RunHeldError(run_id, "this App")
        for other, runner in self._runners.items():
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
                if self._group is not None:
                    _log.warning("run %s could not be forgotten, and is kept for now: %s", run_id, error)
                    self._kept.add(run_id)

    async def _drive(
        self,
        run: Run,
        record: RunRecord,
        executor: Executor,
        store: RunStore,
        io: IOManager,
        lease: Lease,
    ) -> Result:
        began = self.clock.monotonic()
        hold = self._kept.hold(run.run_id)
        run_changed = self.plugins.observers("dpcore_run_changed")
        task_changed = self.plugins.observers("dpcore_task_changed")
        publish: Publish = self._publish_of_tasks
        announcer = None
        if (
            broker := self._adapters.made.get("broker")
        ) is not None:  # whoever wants to be told of runs has asked for it before
            announcer = Announcer(broker)
            run_changed = [*run_changed, announcer.run_changed]
            task_changed = [*task_changed, announcer.task_changed]
            publish = partial(self._publish_of_tasks, announcer=announcer)
        runner = self._runners[run.run_id] = Runner(
            run,
            executor,
            store,
            io,
            record,
            self.clock,
            run_changed,
            task_changed,
            publish,
            lease,
            self._slots,
        )
        try:
            if announcer is None:
                await runner.drive()
            else:
                async with announcer.telling():
                    await runner.drive()
        finally:
            del self._runners[run.run_id]
            await _released(lease)
            if "durable" not in store.capabilities:
                self._kept.add(run.run_id)
        result = Result(run, io, self.clock.monotonic() - began, folder=self._adapters.folder, hold=hold)
        await self._forget_older(store, io)
        return result

    async def _publish_of_tasks(self, events: Sequence[Event], announcer: Announcer | None = None) -> None:
        if announcer is not None:  # that a task runs is told before what it tells itself
            await announcer.flush()
        await self.publish_many(events)

    async def _earlier(self, plan: Plan, store: RunStore, io: IOManager) -> dict[str, Ref | Items]:
        """Find the results of the earlier run that the plan takes data from."""
        if plan.from_run is None:
            return {}
        if plan.from_run in self._kept.going:
            raise RunNotFoundError(plan.from_run, str(store))
        history = await store.get(plan.from_run)  # a name that is misspelt is told, also if nothing is taken
        return earlier(plan, history, io)

    def _record(
        self, run: Run, selection: Sequence[Selector | Plan], arguments: dict[str, Any], *, durable: bool
    ) -> RunRecord:
        return record_of(
            run,
            began=self.clock.now().timestamp(),
            source=self.source,
            selection={name: self._written(value) for name, value in {"selection": selection, **arguments}.items()},
            settings={kind: self._adapters.described(kind) for kind in ("executor", "io", "store")},
            durable=durable,
        )

    def _written(self, given: Any) -> Any:
        """Write an argument of plan() down: a task's function by the task's name."""
        if isinstance(given, list | tuple):
            return [self._written(one) for one in given]
        return self.registry.named(given)[0] if callable(given) else given

    def _new_run_id(self) -> str:
        return f"{self.clock.now():%Y%m%d-%H%M%S}-{os.urandom(4).hex()}"


async def _released(lease: Lease) -> None:
    """Give a lease back; whatever else went wrong has been said, and the lease ends by itself."""
    with anyio.CancelScope(shield=True), suppress(StoreError):
        await lease.release()


def _check_running(arguments: Mapping[str, Any]) -> None:
    check_argument("metadata", arguments["metadata"], Mapping | None, "a mapping")
    check_argument("fail_fast", arguments["fail_fast"], bool, "True or False")
    keep = arguments["keep"]
    if not isinstance(keep, str) or keep not in ("all", "leaves"):
        raise ArgumentError("keep", keep, "'all' or 'leaves'")


def _checked_limits(limits: object) -> Mapping[str, int] | None:
    if limits is not None and not is_limits(limits):
        wanted = "a mapping from tag to how many jobs of tasks with it may run at once, at least 1"
        raise ArgumentError("limits", limits, wanted)
    return cast("Mapping[str, int] | None", limits)


def _listed(selectors: Iterable[Selector] | None) -> list[Any] | None:
    if selectors is None or isinstance(selectors, str) or not isinstance(selectors, Iterable):
        return cast("list[Any] | None", selectors)  # what is no list is a fault that planning words
    return list(selectors)


def run(
    *selection: Selector,
    registry: Registry | None = None,
    tags: Iterable[str] | None = None,
    root_tasks: Iterable[Selector] | None = None,
    include_upstream: bool = False,
    exclude: Iterable[Selector] = (),
    from_run: str | None = None,
    strict: bool = False,
    params: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    fail_fast: bool = False,
    keep: Keep = "all",
    check: bool = True,
    **app_arguments: Any,
) -> Result:
    """Run the selected tasks to their end and return what they gave: :class:`App` and :meth:`App.run` in one call.

    *app_arguments* are those of :class:`App`.  Where an event loop is running
    already it raises :class:`~dpcore.errors.RunningLoopError`, whose text is what to
    write instead.
    """
    __tracebackhide__ = True  # as in Result.raise_for_failure
    known = signature(App).parameters
    for name in app_arguments:
        if name not in known:
            raise TypeError(f"run() takes no {name!r}{nearest(name, (*signature(run).parameters, *known))}")

    async def main() -> Result:
        async with App(registry, **app_arguments) as app:
            return await app.run(
                *selection,
                tags=tags,
                root_tasks=root_tasks,
                include_upstream=include_upstream,
                exclude=exclude,
                from_run=from_run,
                strict=strict,
                params=params,
                metadata=metadata,
                fail_fast=fail_fast,
                keep=keep,
                check=False,
            )

    _refuse_while_loading()
    if loop_is_running():
        raise RunningLoopError
    result = anyio.run(main)
    return result.raise_for_failure() if check else result


def _refuse_while_loading() -> None:
    script = script_being_loaded()
    if script is not None:
        raise UnguardedScriptError(script)


def loop_is_running() -> bool:
    """Tell whether this thread is in an event loop already, so that none can be started in it."""
    try:
        anyio.get_current_task()
    except RuntimeError:  # also anyio's own for "no event loop"
        return False
    return True
