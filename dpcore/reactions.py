"""Reactions: events that start runs, and the events that tell of runs."""

from __future__ import annotations

import hashlib
import logging
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import anyio
import msgspec
from anyio.abc import TaskGroup

from dpcore.errors import (
    ArgumentError,
    InvalidIdError,
    PlanningError,
    RunExistsError,
    RunNotFoundError,
    UnsupportedError,
)
from dpcore.events import CORRELATION_ID, Event, PayloadReader
from dpcore.jobs import Items, Outcome, Ref, State, described
from dpcore.ports import Broker, Delivery, Subscription
from dpcore.ports.runstore import RunHistory
from dpcore.runs import Run
from dpcore.words import counted, printed

__all__ = (
    "REQUESTS",
    "Announcer",
    "Reaction",
    "RunFinished",
    "RunRequest",
    "RunStarted",
    "TaskChanged",
    "chooses",
    "reaction_name",
)

REQUESTS = "$run.request"
"""The topic on which runs are asked for, with a :class:`RunRequest`."""

_log = logging.getLogger("dpcore.reactions")

_TOO_SLOW = "the broker took too long, and was not told of"
_LONGEST_NAME = 60  # of a reaction, as a part of a group's name
_MOST_SAID = 10_000  # characters of an error in an event
_MOST_UNTOLD = 10_000  # changes of a run that wait for a slow broker

Params = Mapping[str, Any] | Callable[[Event], Mapping[str, Any]]


class RunRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What an event on ``$run.request`` carries: the arguments of :meth:`dpcore.App.run`.

    *plan* is the name of one of the app's plans (:attr:`dpcore.App.plans`) or the id of one,
    instead of a selection.  *correlation_id* is passed on to everything that comes of it.
    """

    plan: str = ""
    names: list[str] = []
    tags: list[str] = []
    root_tasks: list[str] = []
    include_upstream: bool = False
    exclude: list[str] = []
    params: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    fail_fast: bool = False
    run_id: str = ""
    correlation_id: str = ""


class RunStarted(msgspec.Struct, kw_only=True):
    """What an event on ``$run.started`` carries."""

    run_id: str
    plan_id: str
    tasks: list[str]
    metadata: dict[str, Any] = {}
    correlation_id: str = ""


class RunFinished(msgspec.Struct, kw_only=True):
    """What an event on ``$run.finished`` carries; *results* are refs, or how many items a stream has, by task."""

    run_id: str
    plan_id: str
    state: State
    tasks: dict[str, State]
    results: dict[str, dict[str, str] | int]
    errors: dict[str, str]
    reason: str = ""
    metadata: dict[str, Any] = {}
    correlation_id: str = ""


class TaskChanged(msgspec.Struct, kw_only=True):
    """What an event on ``$task.STATE`` carries, such as ``$task.succeeded``; *duration* is in seconds."""

    run_id: str
    task: str
    state: State
    attempt: int
    result: dict[str, str] | int | None = None
    error: str = ""
    duration: float = 0.0
    metadata: dict[str, Any] = {}
    correlation_id: str = ""


class Announcer:
    """Publishes what happens to one run, where somebody wants to know: an observer of the run, and a task."""

    patience: float = 5.0
    """Seconds in which a broker takes what is left to be told when the run has ended."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._untold: deque[tuple[str, msgspec.Struct]] = deque()
        self._wake = anyio.Event()
        self._turn = anyio.Lock()
        self._left_out = 0
        self._ended = False

    def run_changed(self, run: Run, old: State, new: State) -> None:  # noqa: ARG002  (as observers are called)
        """Have it told that a run began or ended."""
        if new is State.RUNNING:
            if self._broker.wanted("$run.started"):
                self._add("$run.started", _started(run))
        elif self._broker.wanted("$run.finished"):
            self._add("$run.finished", _finished(run))

    def task_changed(
        self,
        run: Run,
        task: Any,
        attempt: int,
        old: State,  # noqa: ARG002
        new: State,
        outcome: Outcome | None,
    ) -> None:
        """Have it told that a task went on."""
        topic = f"$task.{new}"
        if self._broker.wanted(topic):
            if len(self._untold) >= _MOST_UNTOLD:
                self._left_out += 1
                return
            self._add(topic, _changed(run, task.name, attempt, new, outcome))

    def _add(self, topic: str, told: msgspec.Struct) -> None:
        self._untold.append((topic, told))
        self._wake.set()

    @asynccontextmanager
    async def telling(self) -> AsyncIterator[None]:
        """Publish what comes, and what is left at the end."""
        told = anyio.Event()
        broken: BaseException | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(self._tell, told)
            try:
                yield
            except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001  (raised below, in no ExceptionGroup)
                broken = error
            finally:
                self._ended = True
                self._wake.set()
                with anyio.move_on_after(self.patience, shield=True):
                    await told.wait()
                group.cancel_scope.cancel()
                if self._untold:
                    _log.warning("%s %s", _TOO_SLOW, counted(len(self._untold), "change"))
        if broken is not None:
            raise broken

    async def _tell(self, told: anyio.Event) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake = anyio.Event()
                await self.flush()
                if self._ended and not self._untold:
                    return
        finally:
            told.set()

    async def flush(self) -> None:
        """Publish what is there, in order."""
        async with self._turn:
            while self._untold:
                topic, told = self._untold[0]
                await self._publish(topic, told)
                self._untold.popleft()  # what was cancelled was not told
            if self._left_out:
                _log.warning("%s %s of tasks", _TOO_SLOW, counted(self._left_out, "change"))
                self._left_out = 0

    async def _publish(self, topic: str, told: Any) -> None:
        headers = {CORRELATION_ID: told.correlation_id} if told.correlation_id else None
        try:
            await self._broker.publish(topic, msgspec.to_builtins(told), headers=headers, type=type(told).__name__)
        except Exception:  # noqa: BLE001  (a broker's or a user's: it is logged)
            _log.exception("%s of run %s was not published", topic, told.run_id)


def _started(run: Run) -> RunStarted:
    metadata, correlation = _about(run)
    return RunStarted(
        run_id=run.run_id,
        plan_id=run.plan.id,
        tasks=list(run.plan.order),
        metadata=metadata,
        correlation_id=correlation,
    )


def _finished(run: Run) -> RunFinished:
    metadata, correlation = _about(run)
    outcomes = run.outcomes
    return RunFinished(
        run_id=run.run_id,
        plan_id=run.plan.id,
        state=run.state,
        tasks={name: outcome.state for name, outcome in outcomes.items()},
        results={
            name: where
            for name, outcome in outcomes.items()
            if outcome.state is State.SUCCEEDED and (where := _where(outcome.result)) is not None
        },
        errors={
            name: described(outcome.error, _MOST_SAID)
            for name, outcome in outcomes.items()
            if outcome.error is not None
        },
        reason=run.reason,
        metadata=metadata,
        correlation_id=correlation,
    )


def _changed(run: Run, task: str, attempt: int, state: State, outcome: Outcome | None) -> TaskChanged:
    metadata, correlation = _about(run)
    told = TaskChanged(
        run_id=run.run_id, task=task, state=state, attempt=attempt, metadata=metadata, correlation_id=correlation
    )
    if outcome is not None:
        told.result, told.duration = _where(outcome.result), outcome.duration
        told.error = described(outcome.error, _MOST_SAID) if outcome.error is not None else outcome.reason
    return told


def _where(result: Ref | Items | None) -> dict[str, str] | int | None:
    if isinstance(result, Ref):
        return {"run_id": result.run_id, "task": result.task, "result_id": result.result_id}
    return None if result is None else result.count


def _about(run: Run) -> tuple[dict[str, Any], str]:
    metadata = {str(name): _plain(value) for name, value in run.metadata.items()}
    correlation = metadata.get("correlation_id")
    return metadata, correlation if isinstance(correlation, str) else ""


def _plain(value: Any) -> Any:
    """Return *value* if it can be told anywhere, otherwise what is printed of it."""
    try:
        return msgspec.to_builtins(value)
    except Exception:  # noqa: BLE001  (whatever an object of the user's raises)
        return printed(value)


class Starts(Protocol):
    """What a reaction asks of an app."""

    plans: dict[str, Any]

    async def run(self, *selection: Any, **arguments: Any) -> Any:
        """Run tasks."""

    async def history(self, run_id: str) -> RunHistory:
        """Return what is known of a run."""


class Reaction:
    """Starts a run for each event; made by :meth:`dpcore.App.run_on`.

    ``await reaction`` waits until it is listening.  An event is acked when its run has
    ended, however it ended; what no run can be made of goes to the dead letters.  The id of
    the run comes from the event, so an event that is delivered again starts no second one.
    """

    def __init__(
        self,
        name: str,
        app: Starts,
        subscription: Subscription,
        selection: Sequence[Any],
        arguments: Mapping[str, Any],
        params: Params | None,
        limit: int,
    ) -> None:
        self.name = name
        """What it is called in logs; its group is made of it."""
        self._app, self._subscription = app, subscription
        self._selection, self._arguments, self._params = selection, arguments, params
        self._limit = limit
        self._running: dict[str, anyio.Event] = {}
        self._scope, self._reading = anyio.CancelScope(), anyio.CancelScope()
        self._listening = anyio.Event()
        self._error: Exception | None = None

    def __repr__(self) -> str:
        return f"<Reaction {self.name!r} to {' | '.join(self._subscription.interest.patterns)!r}>"

    def __await__(self) -> Generator[Any, Any, Reaction]:
        return self._ready().__await__()

    @property
    def stopped(self) -> bool:
        """Whether it starts no more runs."""
        return self._scope.cancel_called

    def does_as(self, other: Reaction) -> bool:
        """Tell whether *other* does the same with the same events, so that it does not matter which of them has one."""
        try:
            return bool(self._does == other._does)
        except Exception:  # noqa: BLE001  (what comparing a user's values raises)
            return False

    @property
    def _does(self) -> tuple[Any, ...]:
        return self._subscription.interest.patterns, list(self._selection), self._arguments, self._params

    async def begun(self) -> None:
        """Wait until it listens, or cannot."""
        await self._listening.wait()

    async def _ready(self) -> Reaction:
        await self._listening.wait()
        if self._error is not None:
            raise self._error
        return self

    def stop(self) -> None:
        """Start no more runs; cancel those that run, whose events go back."""
        self._scope.cancel()

    def drain(self) -> None:
        """Start no more runs, and let those that run come to their ends."""
        self._reading.cancel()

    async def listen(self) -> None:
        """Start runs until stopped."""
        try:
            with self._scope:
                async with self._subscription as events, anyio.create_task_group() as group:
                    self._listening.set()
                    with self._reading:
                        await self._read(events, group)
        except Exception as error:  # noqa: BLE001  (a broker's or a user's: it is logged or kept)
            _log.exception("%r has ended: no event starts a run any more", self)
            self._error = error
        finally:
            self._listening.set()

    async def _read(self, events: Subscription, group: TaskGroup) -> None:
        places = anyio.Semaphore(self._limit)
        deliveries = events.deliveries()
        await places.acquire()
        async for delivery in deliveries:
            group.start_soon(self._react, delivery, places)
            await places.acquire()

    async def _react(self, delivery: Delivery, places: anyio.Semaphore) -> None:
        try:
            problem = await self._run(delivery)
            await (delivery.reject(problem) if problem else delivery.ack())
        except Exception:  # noqa: BLE001  (a store's or a broker's: another attempt may do better)
            _log.exception("%r: event %s on %r goes back", self, delivery.event.id, delivery.event.topic)
            await self._give_back(delivery)
        finally:
            places.release()

    async def _give_back(self, delivery: Delivery) -> None:
        if delivery.settled:
            return
        try:
            await delivery.nack(delay=min(60.0, 2.0**delivery.attempt))
        except UnsupportedError:
            await delivery.nack()
        except Exception:  # noqa: BLE001  (the broker's: it goes back when the subscription is left)
            _log.exception("%r could not give event %s back", self, delivery.event.id)

    async def _run(self, delivery: Delivery) -> str:
        """Run what the event asks for; return why not, if it asks for nothing that can be."""
        event = delivery.event
        try:
            selection, arguments = self._asked(event)
        except Exception as error:  # noqa: BLE001  (a broker's or a user's: it is logged or kept)
            _log.exception("%r: event %s on %r starts no run", self, event.id, event.topic)
            return f"no run can be made of it: {described(error)}"
        run_id = arguments.pop("run_id") or _run_id(self.name, event)
        if run_id in self._running:  # the same event, delivered again while its run goes on
            await self._running[run_id].wait()
            return ""
        ended = self._running[run_id] = anyio.Event()
        try:
            return await self._start(delivery, run_id, selection, arguments)
        finally:
            del self._running[run_id]
            ended.set()

    async def _start(self, delivery: Delivery, run_id: str, selection: Sequence[Any], arguments: dict[str, Any]) -> str:
        event = delivery.event
        for again in ("", f"-{delivery.attempt}"):
            try:
                await self._app.run(*selection, **arguments, run_id=run_id + again, check=False)
            except RunExistsError:
                if (await self._app.history(run_id)).record.state is not State.RUNNING:
                    return ""  # it has ended, and only its event came back
                continue
            except (ArgumentError, InvalidIdError, PlanningError, RunNotFoundError) as error:
                _log.error("%r: event %s on %r starts no run: %s", self, event.id, event.topic, error)
                return f"no run can be made of it: {described(error)}"
            return ""
        return ""

    def _asked(self, event: Event) -> tuple[Sequence[Any], dict[str, Any]]:
        if not chooses(self._selection, self._arguments):
            return self._requested(event)
        arguments = dict(self._arguments)
        correlation = (event.headers or {}).get(CORRELATION_ID, event.id)
        params = self._params(event) if callable(self._params) else self._params
        arguments["params"] = dict(params or {})
        arguments["metadata"] = _metadata(event, correlation, arguments.get("metadata"))
        return self._selection, {"run_id": "", **arguments}

    def _requested(self, event: Event) -> tuple[Sequence[Any], dict[str, Any]]:
        request: RunRequest = _requests.value(event.data if event.data is not None else {}, event.topic)
        correlation = request.correlation_id or (event.headers or {}).get(CORRELATION_ID, event.id)
        arguments: dict[str, Any] = {
            "run_id": request.run_id,
            "params": request.params,
            "metadata": _metadata(event, correlation, request.metadata),
            "fail_fast": request.fail_fast,
        }
        if request.plan:
            return [self._plan(request.plan)], arguments
        return request.names, {
            **arguments,
            "tags": request.tags or None,
            "root_tasks": request.root_tasks or None,
            "include_upstream": request.include_upstream,
            "exclude": request.exclude,
        }

    def _plan(self, wanted: str) -> Any:
        plans = self._app.plans
        found = plans.get(wanted) or next((plan for plan in plans.values() if plan.id == wanted), None)
        if found is None:
            raise ArgumentError(
                "plan", wanted, f"the name or the id of one of the app's plans: {', '.join(plans) or 'none'}"
            )
        return found


_requests = PayloadReader(RunRequest)


def chooses(selection: Sequence[Any], arguments: Mapping[str, Any]) -> bool:
    """Tell whether a reaction says what it runs; otherwise the event does."""
    return bool(selection or arguments.get("tags") or arguments.get("root_tasks"))


def reaction_name(pattern: str, selection: Sequence[str]) -> str:
    """Make a name of what is read and of what is run that may be a part of a group's."""
    if pattern == REQUESTS and not selection:
        return "requests"
    text = "-".join((str(pattern), *selection))
    name = re.sub(r"\W+", "-", text).strip("-")
    if name == text and len(name) <= _LONGEST_NAME:
        return name
    return f"{name[: _LONGEST_NAME - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _metadata(event: Event, correlation: str, more: Mapping[str, Any] | None) -> dict[str, Any]:
    about = {"topic": event.topic, "id": event.id, "source": event.source}
    return {"event": about, "correlation_id": correlation, **(more or {})}


def _run_id(name: str, event: Event) -> str:
    text = "\0".join((name, event.source, event.id))
    return f"on-{hashlib.sha256(text.encode()).hexdigest()[:20]}"
