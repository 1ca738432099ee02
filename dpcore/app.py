"""App: a registry of tasks joined to the adapters that run it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime
from inspect import signature
from types import TracebackType
from typing import Any, Self, cast

import anyio
from anyio.abc import TaskGroup, TaskStatus

from dpcore.adapters import Adapters
from dpcore.clock import Clock, SystemClock
from dpcore.config import Config, is_limits
from dpcore.durations import Duration
from dpcore.errors import (
    AppStateError,
    ArgumentError,
    PlanningError,
    RunningLoopError,
    RunNotFoundError,
    SelectionError,
    TaskNotFoundError,
    check_argument,
)
from dpcore.events import Event
from dpcore.groups import Overflow, Start
from dpcore.jobs import check_id
from dpcore.kept import Kept
from dpcore.plans import Plan, Selector
from dpcore.plans import plan as make_plan
from dpcore.plugins import Plugins
from dpcore.ports import Broker, Executor, Firing, IOManager, RunStore, Subscription, Trigger
from dpcore.ports.broker import subscription
from dpcore.ports.runstore import RunHistory
from dpcore.ports.subscription import Acknowledge
from dpcore.ports.trigger import Overlap
from dpcore.reactions import REQUESTS, Params, Reaction, chooses, reaction_name
from dpcore.records import written
from dpcore.results import Result, Running
from dpcore.runners import Runners, check_running, refuse_while_loading
from dpcore.runs import Keep
from dpcore.scheduler import Fired, Misfire, Policy, Schedule, Scheduler, Starts
from dpcore.scheduler.schedule import check_name as check_schedule_name
from dpcore.scheduler.tables import arguments_of, in_table, triggers_of
from dpcore.slots import Slots
from dpcore.tasks import Registry
from dpcore.tasks import registry as default_registry
from dpcore.topics import check_topic
from dpcore.words import nearest

__all__ = ("App", "Result", "loop_is_running", "run")

_PLANNED = frozenset({"tags", "root_tasks", "include_upstream", "exclude", "from_run", "strict"})
_OF_RUNS = frozenset({"metadata", "fail_fast", "keep", "priority"})


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
    :meth:`forget` does it, but not before nobody has its :class:`Result` any more, or the
    :class:`Running` that gives it, and no run takes data from it.  Its results go with it
    where they are the app's own, in ``memory`` or in the private folder; elsewhere they
    stay.  A store that lasts keeps every run until it is told to forget it.
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
        self._kept = Kept(keep_runs)
        self._runners = Runners(
            self.registry, self.plugins, self._adapters, self.clock, source, self._slots, self._kept
        )
        self._reactions: list[Reaction] = []
        self._serves = False
        self.schedules = Scheduler(self, self._adapters.made)
        """What fires by itself, by name."""
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
        self._runners.open(self._group, self.publish_many)
        self.schedules.open(self._group)
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
        await self.schedules.close()
        await self._runners.close()
        self.plugins.live("dpcore_stopping", self)
        self._adapters.close(failed=kind is not None)
        group, self._group = self._group, None
        self._broker = None
        # What the body raised is not the group's affair: it goes on as it is, and in no ExceptionGroup.
        await group.__aexit__(None, None, None)

    @property
    def entered(self) -> bool:
        """Whether it can be used: from when it has been entered until it is left."""
        return self._group is not None

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
            await self.schedules.begun()
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
        selectors = self._selected(selection, arguments, "run_on")
        if not chooses(selectors, arguments) and params is not None:
            raise ArgumentError("params", params, "left out, because without a selection the event has the parameters")
        if name is None:
            listed = [selectors, *(arguments.get(argument) or () for argument in ("tags", "root_tasks", "exclude"))]
            name = reaction_name(pattern, [str(written(one, self.registry)) for given in listed for one in given])
        reading = self.subscribe(pattern, group=f"run-{name}", start="new", ack="manual")
        reaction = Reaction(name, self, reading, selectors, arguments, params, limit)
        for other in self._reactions:
            if other.name == name and not other.stopped and not other.does_as(reaction):
                raise ArgumentError("name", name, f"another than that of {other!r}, which does something else")
        self._reactions.append(reaction)
        self._broker = None  # until it listens
        self._group.start_soon(self._react, reaction)
        return reaction

    def _selected(self, selection: Iterable[Selector], arguments: Mapping[str, Any], caller: str) -> list[Selector]:
        """Return what *caller* is to run as a list; raise for what could be said before anything has come to be run."""
        known = signature(self.run).parameters
        for argument in arguments:
            if argument not in known or argument in ("selection", "run_id", "check"):
                raise TypeError(f"{caller}() takes no {argument!r}{nearest(argument, known)}")
        check_running(**{name: value for name, value in arguments.items() if name in _OF_RUNS})
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

    # ---------------------------------------------------------------- scheduling

    def schedule(
        self,
        name: str,
        trigger: Trigger | Mapping[str, Any] | Sequence[Trigger | Mapping[str, Any]],
        *,
        publish: str | None = None,
        data: Any = None,
        run: Iterable[Selector] | None = None,
        params: Mapping[str, Any] | Callable[[Firing], Mapping[str, Any]] | None = None,
        metadata: Mapping[str, Any] | None = None,
        misfire: Misfire = "latest",
        grace: Duration | None = None,
        overlap: Overlap | None = None,
        limit: int | None = None,
        jitter: Duration | None = None,
        **arguments: Any,
    ) -> Schedule:
        """Have something started whenever *trigger* fires, under a *name*: an event, a run, or both.

        *trigger* is one, a table as in a project file (``{"cron": "0 3 * * *"}``), or several in a
        list, any of which will do.  A firing publishes an event on the topic *publish*, with
        *data*, a value or a function of the :class:`Firing`; without it, the body that it was fired
        with, the data of the events that it answers, or its nominal time.  It starts a run of the selection *run*
        with *params*, a mapping or a function of the Firing; the body that it was fired with
        adds to a mapping.  *metadata* and *arguments* are those of :meth:`run`; ``run=[]`` with ``tags=``
        selects by these alone.  Ids of events and runs come from the schedule and the nominal time.

        *misfire* says what becomes of times at which nothing could fire, because the machine slept, say, or the
        program did not run: ``"latest"`` makes up for the last of them, ``"all"`` for each,
        ``"skip"`` for none that is later than *grace*, which is 60 seconds here; with the others there is no such limit unless it is given.
        *overlap* says what becomes of a firing while a run of the schedule goes on: ``"skip"`` leaves it out,
        ``"queue"`` lets it wait for its turn, ``"allow"`` runs it beside; by default the
        trigger says which: time is skipped, events and requests wait.  *limit* is how many of its runs may
        go on together before that.  *jitter* delays each firing by a part of it, always the same for the same time.

        It fires from now on, or when the app is entered.  State is in the run store under the name: of a
        store that lasts, a restart makes up for what was missed; schedulers that share one fire each time once.
        Whatever is missed, left out or fails is logged, and told by events on ``$schedule.*``.

        Raises :class:`~dpcore.errors.ArgumentError`, :class:`~dpcore.errors.ScheduleExistsError`,
        :class:`~dpcore.errors.TopicError`, and :class:`~dpcore.errors.PlanningError` for a selection
        that cannot be planned; so tasks are registered before.
        """
        triggers = triggers_of(trigger, self.plugins)
        policy = Policy.checked(triggers, misfire=misfire, grace=grace, overlap=overlap, limit=limit, jitter=jitter)
        if publish is not None:
            check_topic(publish)
        elif run is None and not arguments:
            raise ArgumentError("publish", publish, "a topic, or give run=: a schedule starts something")
        if not callable(params):
            check_argument("params", params, Mapping | None, "a mapping, or a function that makes one of the Firing")
        selection = None
        if run is not None or arguments:
            selection = self._selected([] if run is None else run, arguments, "schedule")
        starts = Starts(
            topic=publish, data=data, selection=selection, params=params, metadata=metadata, arguments=arguments
        )
        schedule = Schedule(self.schedules, check_schedule_name(name), triggers, policy, starts)
        self.schedules.add(schedule)
        if schedule.streams:
            self._broker = None  # until it listens
        return schedule

    def add_schedules(self) -> None:
        """Add the schedules of the project file (``[schedules.NAME]``), and those of plugins (``dpcore_add_schedules``).

        Raises :class:`~dpcore.errors.ConfigError`, which says where what is wrong stands, and what :meth:`schedule` raises.
        """
        for name, said in self.config.schedules.items():
            with in_table(said.source):
                self.schedule(name, **arguments_of(said.value, said.source))
        self.plugins.live("dpcore_add_schedules", self)

    async def unschedule(self, name: str) -> None:
        """Forget a schedule and what is known of it, here and in the run store; its runs go on.

        Raises :class:`~dpcore.errors.ScheduleNotFoundError`.
        """
        await self.schedules.remove(name)

    async def fire(self, name: str, body: Any = None, *, key: str = "") -> Fired:
        """Fire a schedule now, by hand, also while it is paused; return what became of it.

        Functions of the Firing find *body* there; what :meth:`schedule` says uses it too.  A *key* that it was fired with
        before begins no second run, and publishes an event of the same id.  Raises :class:`~dpcore.errors.ScheduleNotFoundError`, and
        :class:`~dpcore.errors.ScheduleFullError` where as many of its runs go on as may.
        """
        return await self.schedules[name].fire(body, key=key)

    async def backfill(self, name: str, start: datetime, end: datetime) -> list[Fired]:
        """Fire a schedule for each nominal time from *start* on and before *end*, both past; return what became of each.

        They are fired in order, one after the other as far as *limit* says.  What has
        been fired before is not fired again.
        """
        return await self.schedules[name].backfill(start, end)

    async def serve(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Fire schedules, and start the runs that events on ``$run.request`` ask for, until cancelled.

        To the schedules that there are, those of the project file and of plugins are
        added (:meth:`add_schedules`).  Apps on one broker that serve share the requests: each must
        have the tasks that are asked for.  ``await group.start(app.serve)`` returns when it does.
        """
        if not self._serves:
            self.add_schedules()
            self._serves = True
        await self.run_on(REQUESTS, name="requests")
        task_status.started()
        await anyio.sleep_forever()

    async def drain(self) -> None:
        """Begin nothing more of itself, and return when every run that was begun has ended.

        Schedules stop, and reactions take no more events; what they have begun goes on.  Bound
        the wait with ``anyio.move_on_after``: runs that have not ended by then are cancelled when the App is left, and
        those of schedules are gone on with when their schedule begins again.
        """
        for reaction in self._reactions:
            reaction.drain()
        await self.schedules.stop()
        await self._runners.ended()

    # ---------------------------------------------------------------- planning and running

    def plan(self, *selection: Selector, params: Mapping[str, Any] | Iterable[str] = (), **arguments: Any) -> Plan:
        """Plan as :func:`dpcore.plan` does, over this app's registry; plugins may reshape the plan."""
        return self._runners.plan(selection, params, **arguments)

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
        check_argument("check", check, bool, "True or False")
        begun = await self._runners.begin(
            selection,
            _planned(tags, root_tasks, include_upstream, exclude, from_run, strict),
            params=params,
            metadata=metadata,
            fail_fast=fail_fast,
            keep=keep,
            run_id=run_id,
            nominal=nominal,
            priority=priority,
        )
        result = await self._runners.drive(begun)
        return result.raise_for_failure() if check else result

    async def submit(
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
        run_id: str | None = None,
        nominal: datetime | None = None,
        priority: int = 0,
    ) -> Running:
        """Begin a run as :meth:`run` does, and return at once what tells of its end: a :class:`Running`.

        By then it is planned and recorded, so whatever becomes of this program, :meth:`resume`
        can run what is left.  It goes on whoever has begun it and whoever waits for it; it is
        cancelled by :meth:`cancel`, by :meth:`Running.cancel`, and when the App is left.  When
        this call is cancelled, nothing has begun.

        Raises what :meth:`run` raises before anything has run, and
        :class:`~dpcore.errors.RunExistsError` if there is a run of that id.
        """
        begun = await self._runners.begin(
            selection,
            _planned(tags, root_tasks, include_upstream, exclude, from_run, strict),
            params=params,
            metadata=metadata,
            fail_fast=fail_fast,
            keep=keep,
            run_id=run_id,
            nominal=nominal,
            priority=priority,
        )
        return self._runners.start(begun)

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
        check_argument("check", check, bool, "True or False")
        begun = await self._runners.resume(run_id, from_=from_, changed=changed, params=params, metadata=metadata)
        result = await self._runners.drive(begun)
        return result.raise_for_failure() if check else result

    async def submit_resumed(
        self,
        run_id: str,
        *,
        from_: Selector | Iterable[Selector] = (),
        changed: bool = False,
        params: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Running:
        """Begin what is left of a run as :meth:`resume` does, and return at once what tells of its end.

        The run is this App's when this returns, and goes on as one does that was submitted.
        """
        begun = await self._runners.resume(run_id, from_=from_, changed=changed, params=params, metadata=metadata)
        return self._runners.start(begun)

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
        return await self._runners.forget(run_ids)


def _checked_limits(limits: object) -> Mapping[str, int] | None:
    if limits is not None and not is_limits(limits):
        wanted = "a mapping from tag to how many jobs of tasks with it may run at once, at least 1"
        raise ArgumentError("limits", limits, wanted)
    return cast("Mapping[str, int] | None", limits)


def _planned(
    tags: Iterable[str] | None,
    root_tasks: Iterable[Selector] | None,
    include_upstream: bool,
    exclude: Iterable[Selector],
    from_run: str | None,
    strict: bool,
) -> dict[str, Any]:
    """Return what plan() takes beside a selection and parameters."""
    return {
        "tags": tags,
        "root_tasks": root_tasks,
        "include_upstream": include_upstream,
        "exclude": exclude,
        "from_run": from_run,
        "strict": strict,
    }


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

    refuse_while_loading()
    if loop_is_running():
        raise RunningLoopError
    result = anyio.run(main)
    return result.raise_for_failure() if check else result


def loop_is_running() -> bool:
    """Tell whether this thread is in an event loop already, so that none can be started in it."""
    try:
        anyio.get_current_task()
    except RuntimeError:  # also anyio's own for "no event loop"
        return False
    return True
