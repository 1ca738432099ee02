"""App: a registry of tasks joined to the adapters that run it."""

from __future__ import annotations

import logging
import os
import pickle
import weakref
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from inspect import signature
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, Self, cast

import anyio
import msgspec
from anyio import to_thread
from anyio.abc import TaskGroup

from dpcore.clock import Clock, SystemClock
from dpcore.config import AdapterString, Config, Value, is_limits, settings_of
from dpcore.errors import (
    AppStateError,
    ArgumentError,
    MissingInputError,
    NotSharedError,
    NoValueError,
    ParamsLostError,
    PlanningError,
    RunCancelledError,
    RunExistsError,
    RunFailedError,
    RunHeldError,
    RunningLoopError,
    RunNotFoundError,
    SelectionError,
    SettingError,
    StoreError,
    TaskError,
    TaskNotFoundError,
    UnguardedScriptError,
    check_argument,
)
from dpcore.events import Event
from dpcore.groups import Overflow, Start
from dpcore.jobs import Items, Outcome, Ref, State, check_id, described, qualified, script_being_loaded, writable
from dpcore.live import run_of
from dpcore.plans import Plan, Selector
from dpcore.plans import plan as make_plan
from dpcore.plugins import Plugins
from dpcore.ports import Adapter, Broker, Executor, IOManager, RunStore, Subscription
from dpcore.ports.broker import subscription
from dpcore.ports.runstore import Lease, RunHistory, RunRecord
from dpcore.ports.subscription import Acknowledge
from dpcore.processes import shown_process
from dpcore.reactions import REQUESTS, Announcer, Params, Reaction, chooses, reaction_name
from dpcore.resuming import Rest, rest, result_of
from dpcore.runner import Publish, Runner
from dpcore.runs import Keep, Run
from dpcore.slots import Slots
from dpcore.tasks import Registry
from dpcore.tasks import registry as default_registry
from dpcore.words import Shown, listed, nearest, printed

__all__ = ("App", "Result", "loop_is_running", "run")

_log = logging.getLogger("dpcore.app")

_PORTS: Mapping[str, type[Adapter]] = {"broker": Broker, "io": IOManager, "executor": Executor, "store": RunStore}
_PLANNED = frozenset({"tags", "root_tasks", "include_upstream", "exclude", "from_run", "strict"})
_LEASED = 30.0  # seconds that a run belongs to who drives it without having said that it still does
_DEFAULTS = {"broker": "memory", "io": None, "executor": "threads", "store": "memory"}


class Result(Mapping[str, Any]):
    """What a run gave: a mapping from task to value, each loaded when it is asked for.

    It holds the tasks that succeeded; of a stream, the list of its items.
    """

    def __init__(self, run: Run, io: IOManager, duration: float, folder: _Folder | None = None) -> None:
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
        self._folder = folder  # lives as long as somebody may ask for a value

    def __getitem__(self, name: str) -> Any:
        outcome = self.outcomes.get(name)
        if outcome is None:
            raise TaskNotFoundError(name, self.outcomes)
        if name in self._gone:
            raise NoValueError(name, "it was freed after its last reader, because keep='leaves'")
        if outcome.state is not State.SUCCEEDED or outcome.result is None:
            why = f"{outcome.error!r}" if outcome.error is not None else outcome.reason
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
            error = TaskError(name, qualified(type(error)), str(error)).with_traceback(error.__traceback__)
        return error


def _freed(run: Run) -> frozenset[str]:
    if run.keep == "all":
        return frozenset()
    return frozenset(name for inputs in run.plan.inputs.values() for name in inputs.values())


class _Folder:
    """A private temporary folder that goes when nobody holds this any more."""

    def __init__(self) -> None:
        import shutil  # noqa: PLC0415  (these two and what they import are needed by executors in other processes only)
        import tempfile  # noqa: PLC0415

        self.path = Path(tempfile.mkdtemp(prefix="dpcore-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


class _Making:
    """An adapter that is being made, for those who wait for it."""

    def __init__(self) -> None:
        self.ended = anyio.Event()
        self.error: Exception | None = None


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
    ) -> None:
        check_argument("strict_events", strict_events, bool, "True or False")
        check_argument("registry", registry, Registry | None, "a Registry")
        check_argument("plugins", plugins, Plugins | None, "a Plugins")
        check_argument("config", config, Config | None, "a Config")
        check_argument("clock", clock, Clock | None, "a Clock")
        self.registry = default_registry if registry is None else registry
        self.config = config if config is not None else plugins.config if plugins is not None else Config()
        self.plugins = plugins if plugins is not None else Plugins(config=self.config)
        given_limits = _checked_limits(limits)
        self._slots = Slots(self.config.limits if given_limits is None else given_limits)
        self.clock = clock if clock is not None else SystemClock()
        self.source = source
        given = {"broker": broker, "io": io, "executor": executor, "store": store}
        for kind, port in _PORTS.items():
            _check_adapter(kind, port, given[kind])
        self.strict_events = strict_events
        self.plans: dict[str, Plan] = {}
        """Plans that events on ``$run.request`` may ask for, by name; fill it as you like."""
        self._choices = {
            kind: value if isinstance(value, Value) else self.config.choice(kind, value, _DEFAULTS[kind])
            for kind, value in given.items()
        }
        self._made: dict[str, Any] = {}
        self._making: dict[str, _Making] = {}
        self._folder: _Folder | None = None
        self._group: TaskGroup | None = None
        self._left: anyio.Event | None = None
        self._runners: dict[str, Runner] = {}
        self._reactions: list[Reaction] = []
        self._broker: Broker | None = (
            None  # once it is there, and nothing has to be waited for before an event is published
        )
        self._failed = False

    def __repr__(self) -> str:
        return f"<App of {len(self.registry)} tasks>"

    async def __aenter__(self) -> Self:
        if self._group is not None:
            raise AppStateError("is entered already", "make another one")
        self.plugins.check_broker(self._choices["broker"])  # before something is done, of which an event should tell
        self._failed, self._broker = False, None
        self._left, self._making = anyio.Event(), {}  # what belongs to the loop that runs now
        self._group = await anyio.create_task_group().__aenter__()
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
        assert self._left is not None
        self._failed = kind is not None
        for reaction in self._reactions:
            reaction.stop()
        self._reactions.clear()
        for runner in list(self._runners.values()):
            runner.cancel("its App was left")
            with anyio.CancelScope(shield=True):  # what it records needs the store
                await runner.ended()
        self.plugins.live("dpcore_stopping", self)
        self._left.set()
        group, self._group = self._group, None
        self._broker = None
        self._made.clear()
        # What the body raised is not the group's affair: it goes on as it is, and in no ExceptionGroup.
        await group.__aexit__(None, None, None)

    # ---------------------------------------------------------------- adapters

    async def broker(self) -> Broker:
        """Return the broker, made and entered when first asked for."""
        return cast(Broker, await self._adapter("broker"))

    async def executor(self) -> Executor:
        """Return the executor, made and entered when first asked for."""
        return cast(Executor, await self._adapter("executor"))

    async def io(self) -> IOManager:
        """Return the I/O manager, made when first asked for."""
        return cast(IOManager, await self._adapter("io"))

    async def store(self) -> RunStore:
        """Return the run store, made and entered when first asked for."""
        return cast(RunStore, await self._adapter("store"))

    async def _adapter(self, kind: str) -> Adapter:
        if self._group is None:
            raise AppStateError("is not entered", "enter it first: async with App(...) as app")
        if kind not in self._made:
            making = self._making.get(kind)
            if making is None:
                making = self._making[kind] = _Making()
                # Not as a part of this call: who asks first may be cancelled, and others wait for it too.
                self._group.start_soon(self._hold, kind, making)
            await making.ended.wait()
            if making.error is not None:
                raise making.error
        return cast(Adapter, self._made[kind])

    async def _make(self, kind: str) -> Any:
        choice = self._choices[kind]
        if kind == "io" and choice.value is None:
            if (await self.executor()).in_process:
                return self.plugins.make("io", "memory", self.config)
            self._folder = _Folder()
            return self.plugins.load("io", "filesystem")(path=self._folder.path)
        return self.plugins.make(kind, choice, self.config)

    async def _hold(self, kind: str, making: _Making) -> None:
        """Make an adapter, enter it, and leave it with the App: in one task, as the task groups inside of it ask for."""
        assert self._left is not None
        left = self._left
        try:
            adapter = await self._make(kind)
            if isinstance(adapter, RunStore | Broker):
                adapter.clock = self.clock
            if isinstance(adapter, Executor):
                adapter.plugins = self.plugins
            if isinstance(adapter, Broker):
                adapter.strict = adapter.strict or self.strict_events
                adapter.on_published = self.plugins.observers("dpcore_event_published")
                adapter.on_settled = self.plugins.observers("dpcore_event_settled")
            async with AsyncExitStack() as entered:
                if hasattr(adapter, "__aenter__"):
                    adapter = await entered.enter_async_context(adapter)
                self._made[kind] = adapter
                making.ended.set()
                with anyio.CancelScope(shield=True):
                    await left.wait()
                if self._failed and isinstance(adapter, Broker):
                    adapter.drain = 0.0
        except Exception as error:
            if making.ended.is_set():
                raise
            making.error = error
        finally:
            if not making.ended.is_set():
                self._making.pop(kind, None)  # who asks again may have it made after all
                making.error = making.error or AppStateError(
                    f"was left while its {kind} was being made", "stay in it until its runs have ended"
                )
                making.ended.set()

    def _described(self, kind: str) -> str:
        """Write down which adapter was used, without its secrets, and so that it is found from any folder."""
        value = self._choices[kind].value
        if not isinstance(value, str | AdapterString):
            return str(self._made.get(kind, value))
        spec = AdapterString.parse(value) if isinstance(value, str) else value
        known = settings_of(type(self._made[kind]))
        shown = {name: text for name, text in spec.settings.items() if name in known and not known[name].secret}
        address = None if spec.is_url else spec.address
        path = getattr(self._made[kind], "path", None) if "path" in known else None
        if isinstance(path, str | os.PathLike) and not spec.is_url:
            shown.pop("path", None)
            address = str(Path(path).absolute())
        return str(replace(spec, settings=shown, address=address))

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
        params, metadata = _carried(record, *given)
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
        await to_thread.run_sync(_check_there, run, io)
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
        run_changed = self.plugins.observers("dpcore_run_changed")
        task_changed = self.plugins.observers("dpcore_task_changed")
        publish: Publish = self._publish_of_tasks
        announcer = None
        if (broker := self._made.get("broker")) is not None:  # whoever wants to be told of runs has asked for it before
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
        return Result(run, io, self.clock.monotonic() - began, self._folder)

    async def _publish_of_tasks(self, events: Sequence[Event], announcer: Announcer | None = None) -> None:
        if announcer is not None:  # that a task runs is told before what it tells itself
            await announcer.flush()
        await self.publish_many(events)

    async def _earlier(self, plan: Plan, store: RunStore, io: IOManager) -> dict[str, Ref | Items]:
        """Find the results of the earlier run that the plan takes data from."""
        wanted = [(name, parameter, up) for name, ups in plan.earlier.items() for parameter, up in ups.items()]
        if plan.from_run is None:
            return {}
        tasks = (await store.get(plan.from_run)).tasks  # a name that is misspelt is told, also if nothing is taken
        found: dict[str, Ref | Items] = {}
        faults: list[Exception] = []
        for name, parameter, up in wanted:
            change = tasks.get(up)
            if change is None or change.state is not State.SUCCEEDED or change.result is None:
                state = "is not in it" if change is None else f"{change.state.replace('_', ' ')} in it"
                faults.append(
                    MissingInputError(name, parameter, up, (), f"run {plan.from_run!r} cannot give it: it {state}")
                )
            else:
                found[up] = cast("Ref | Items", result_of(plan.from_run, change))
            result = found.get(up)
            first = result if isinstance(result, Ref) else next(iter(result), None) if result is not None else None
            if first is not None and not io.exists(first):
                problem = f"run {plan.from_run!r} cannot give it: {io} holds no whole result {first}; run {up!r} too, or give its result"
                faults.append(MissingInputError(name, parameter, up, (), problem))
        if faults:
            raise PlanningError("cannot plan", faults)
        return found

    def _written(self, given: Any) -> Any:
        """Write an argument of plan() down: a task's function by the task's name."""
        if isinstance(given, list | tuple):
            return [self._written(one) for one in given]
        return self.registry.named(given)[0] if callable(given) else given

    def _new_run_id(self) -> str:
        return f"{self.clock.now():%Y%m%d-%H%M%S}-{os.urandom(4).hex()}"

    def _record(
        self, run: Run, selection: Sequence[Selector | Plan], arguments: dict[str, Any], *, durable: bool
    ) -> RunRecord:
        try:
            carried: bytes | None = pickle.dumps((run.params, run.metadata))
        except Exception:  # noqa: BLE001  (whatever pickling raises: then a resumed run has to be given them again)
            carried = None
        return RunRecord(
            run_id=run.run_id,
            state=State.RUNNING,
            began=self.clock.now().timestamp(),
            source=writable(self.source),
            selection={name: self._written(value) for name, value in {"selection": selection, **arguments}.items()},
            params={writable(str(name)): _short(value) for name, value in run.params.items()},
            metadata={writable(str(name)): _short(value) for name, value in run.metadata.items()},
            carried=carried,
            settings={kind: self._described(kind) for kind in ("executor", "io", "store")},
            plan_id=run.plan.id,
            fingerprint=run.plan.fingerprint if durable else "",  # it reads every task's source
            fail_fast=run.fail_fast,
            keep=run.keep,
            nominal=run.nominal.isoformat() if run.nominal is not None else None,
            tasks=len(run.plan),
        )


def _check_adapter(kind: str, port: type[Adapter], given: object) -> None:
    value = given.value if isinstance(given, Value) else given
    fits = isinstance(value, type) and issubclass(value, port)
    if not fits and not isinstance(value, port | str | AdapterString | None):
        cure = f", such as 'filesystem:{value}'" if kind == "io" and isinstance(value, PurePath) else ""
        wanted = (
            f"the name of an adapter with what it is told, in one string{cure}, or an object of class {port.__name__}"
        )
        raise ArgumentError(kind, value, wanted)


async def _released(lease: Lease) -> None:
    """Give a lease back; whatever else went wrong has been said, and the lease ends by itself."""
    with anyio.CancelScope(shield=True), suppress(StoreError):
        await lease.release()


def _carried(
    record: RunRecord, params: Mapping[str, Any] | None, metadata: Mapping[str, Any] | None
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the parameters and the metadata of a run, unless they are given anew."""
    if params is not None and metadata is not None:
        return params, metadata
    recorded: tuple[Mapping[str, Any], Mapping[str, Any]] = ({}, {})
    lost = [*(record.params if params is None else ()), *(record.metadata if metadata is None else ())]
    if record.carried is not None and lost:
        try:
            recorded = pickle.loads(record.carried)
        except Exception as error:
            raise ParamsLostError(record.run_id, lost, described(error)) from error
    elif lost:
        raise ParamsLostError(record.run_id, lost, "they do not pickle")
    return (recorded[0] if params is None else params, recorded[1] if metadata is None else metadata)


def _check_there(run: Run, io: IOManager) -> None:
    """Raise if a result that a task will read, and that was made before, is gone."""
    looked: dict[str, Ref | None] = {}
    faults: list[Exception] = []
    for name, inputs in run.plan.inputs.items():
        if name in run.outcomes:
            continue
        for parameter, up in inputs.items():
            if up not in looked:
                result = run.outcomes[up].result if up in run.outcomes else None
                refs = [result] if isinstance(result, Ref) else result or ()
                looked[up] = next((ref for ref in refs if not io.exists(ref)), None)
            if (gone := looked[up]) is not None:
                problem = f"{io} holds no whole result {gone}; have it made again (from_=[{up!r}], --from {up})"
                faults.append(MissingInputError(name, parameter, up, (), problem))
    if faults:
        raise PlanningError(f"cannot resume run {run.run_id!r}", faults)


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


def _short(value: object) -> str:
    return writable(printed(value))


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
