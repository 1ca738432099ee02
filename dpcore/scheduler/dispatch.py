"""What firings start: events and runs, as many of these at once as their schedule may have."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol

import anyio
from anyio.abc import TaskGroup

from dpcore.errors import RunEndedError, RunExistsError, RunHeldError, RunNotFoundError, StoreError
from dpcore.jobs import State, described
from dpcore.ports import Broker, Firing, Platform, RunStore
from dpcore.processes import is_gone, this_process
from dpcore.records import LEFT
from dpcore.results import Result, Running
from dpcore.scheduler.policies import Standing
from dpcore.scheduler.schedule import Fired, Schedule
from dpcore.scheduler.standings import Standings
from dpcore.scheduler.telling import Teller
from dpcore.words import counted

__all__ = ("Dispatcher", "Host")

_log = logging.getLogger("dpcore.scheduler")

_PATIENCE = 20.0  # seconds in which a broker takes an event
_BEGUN = timedelta(seconds=60)  # in which a run is recorded, once it has a place
_LOOK_AGAIN = 2.0  # seconds after which it is asked whether a run has ended elsewhere
_MOST_RUNS = 1000  # of one schedule, at once
_MOST_WAITING = 100  # firings of one schedule that wait for their turn
_MOST_BROKEN = 3  # times that a run is gone on with whose process has died
_GOING_ON = frozenset({State.PENDING, State.RUNNING, State.RETRYING})


class Host(Platform, Protocol):
    """What a scheduler asks of an app."""

    @property
    def plugins(self) -> Any:
        """Whom the app tells of what happens."""

    @property
    def broker(self) -> Callable[[], Awaitable[Broker]]:
        """Return the broker."""

    @property
    def store(self) -> Callable[[], Awaitable[RunStore]]:
        """Return the run store."""

    @property
    def submit(self) -> Callable[..., Awaitable[Running]]:
        """Begin a run: :meth:`dpcore.App.submit`."""

    @property
    def submit_resumed(self) -> Callable[..., Awaitable[Running]]:
        """Go on with a run: :meth:`dpcore.App.submit_resumed`."""


_Place = Literal["free", "waiting", "skipped", "full", "taken"]


class Dispatcher:
    """Publishes the events and begins the runs of firings, and follows these to their ends."""

    def __init__(self, host: Host, book: Standings, teller: Teller, group: TaskGroup) -> None:
        self._host, self._book, self._teller, self._group = host, book, teller, group
        self._clock = host.clock
        self._observers: Sequence[Callable[..., object]] = host.plugins.observers("dpcore_schedule_fired")
        self._running: dict[str, Running] = {}
        self._turns: dict[str, anyio.Lock] = {}  # for who decides whether a run of a schedule may begin
        self._changed: dict[str, anyio.Event] = {}  # when one has ended
        self._undriven: dict[str, datetime] = {}  # runs that have a place and that nobody drives, since when

    def left_alone(self, standing: Standing) -> bool:
        """Tell whether a schedule has something to be looked after: runs that are not driven here, or what waits."""
        return bool(standing.waiting) or any(run not in self._running for run in standing.runs)

    async def fire_or_give_up(self, schedule: Schedule, firing: Firing, *, patient: bool = False) -> Fired | None:
        """Fire; where what it starts is at fault, tell that and return None.  What may be better later is raised."""
        try:
            fired = await self.fire(schedule, firing, patient=patient)
        except OSError:  # a store's or a broker's, or that somebody took too long
            raise
        except Exception as error:  # noqa: BLE001  (a function of the user's, a plan that cannot be made)
            self._teller.gives_up(schedule, firing, error)
            return None
        if schedule.error:
            self._teller.works(schedule)
        return fired

    async def fire(self, schedule: Schedule, firing: Firing, *, patient: bool = False) -> Fired:
        """Publish and begin what a firing starts, if its schedule may run another now.

        Who is *patient* waits here for that; others are kept for their turn, or left out.
        """
        if schedule.starts.selection is None:
            await self._start(schedule, firing)
            return Fired(firing, "fired")
        if firing.key and await self._was_begun(schedule, firing.id):
            return Fired(firing, "known")
        while True:
            async with self._turn(schedule):
                place = await self._place(schedule, firing, patient=patient)
                if place == "free":
                    return await self._start_run(schedule, firing)
                if place != "taken":
                    return Fired(firing, place)
            await self._change(schedule)

    async def _place(self, schedule: Schedule, firing: Firing, *, patient: bool) -> _Place:
        """Take a place for the run of a firing, or say what becomes of it."""
        book, policy = self._book, schedule.policy
        limit = _MOST_RUNS if policy.overlap == "allow" else policy.limit
        gone = await self._gone(schedule)
        found: _Place = "taken"

        def take(standing: Standing) -> bool:
            nonlocal found
            standing.runs = {run: who for run, who in standing.runs.items() if run not in gone}
            if firing.id in standing.runs:
                found = "free"
            elif firing.id in standing.waiting:
                found = "waiting"
            elif len(standing.runs) < limit:
                standing.runs[firing.id] = this_process()
                found = "free"
                return True
            elif patient:
                found = "taken"
            elif policy.overlap != "queue":
                found = "skipped"
            elif len(standing.waiting) >= _MOST_WAITING:
                found = "full"
            else:
                standing.waiting.append(firing.id)
                found = "waiting"
                return True
            return bool(gone)

        waits = policy.overlap == "queue" and not patient
        if waits:
            await book.keep(firing)  # before anybody is told that it waits
        await book.change(schedule.name, take)
        if waits and found != "waiting":
            await book.drop(schedule.name, [firing.id])
        if found in ("skipped", "waiting"):
            self._left_out(schedule, firing, found)
        return found

    async def _was_begun(self, schedule: Schedule, run_id: str) -> bool:
        """Tell whether there is such a run that has no place any more."""
        standing = self._book.known(schedule.name)
        return run_id not in standing.runs and await self._book.store.record(run_id) is not None

    def _left_out(self, schedule: Schedule, firing: Firing, found: str) -> None:
        going = self._book.known(schedule.name)
        reason = f"{counted(len(going.runs), 'run')} of it still {'runs' if len(going.runs) == 1 else 'run'}"
        _log.log(
            logging.WARNING if found == "skipped" else logging.INFO,
            "schedule %r: %s %s, because %s",
            schedule.name,
            firing.id,
            "is left out" if found == "skipped" else "waits for its turn",
            reason,
        )
        self._teller.tell(found, schedule, firing.nominal, reason)

    async def _start_run(self, schedule: Schedule, firing: Firing) -> Fired:
        try:
            running = await self._start(schedule, firing)
        except BaseException:
            with anyio.CancelScope(shield=True), suppress(StoreError):
                await self._release(schedule, firing.id)
            raise
        if running is None:
            if await self._fate(self._book.known(schedule.name), firing.id) == "ended":
                await self._release(schedule, firing.id)
            return Fired(firing, "known")
        self._follow(schedule, running)
        return Fired(firing, "fired", running)

    async def _start(self, schedule: Schedule, firing: Firing) -> Running | None:
        """Publish the event of a firing, and begin its run; None if there is none, or it was begun before."""
        starts, running = schedule.starts, None
        if starts.topic is not None:
            await self._host.publish(starts.event(firing), timeout=_PATIENCE)
        if starts.selection is not None:
            with suppress(RunExistsError):
                running = await self._host.submit(*starts.selection, **starts.run(firing))
        for see in self._observers:
            see(schedule, firing)
        self._teller.fired(schedule, firing)
        return running

    def has_published(self, schedule: Schedule, nominal: datetime) -> None:
        """Tell observers of a firing that was published together with others."""
        if self._observers:
            firing = Firing(nominal=schedule.times.local(nominal), schedule=schedule.name)
            for see in self._observers:
                see(schedule, firing)
        if schedule.error:
            self._teller.works(schedule)

    def forget(self, schedule: Schedule) -> None:
        """Let go of what was kept for a schedule; its runs go on."""
        self._turns.pop(schedule.name, None)
        self._changed.pop(schedule.name, None)

    def _turn(self, schedule: Schedule) -> anyio.Lock:
        return self._turns.setdefault(schedule.name, anyio.Lock())

    def _changes(self, schedule: Schedule) -> anyio.Event:
        return self._changed.setdefault(schedule.name, anyio.Event())

    # ------------------------------------------------------------ runs

    def _follow(self, schedule: Schedule, running: Running) -> None:
        """See to it that the place of a run is free when it has ended."""
        self._running[running.run_id] = running
        self._group.start_soon(self._until_ended, schedule, running)

    async def _until_ended(self, schedule: Schedule, running: Running) -> None:
        result: Result | None = None
        try:
            result = await running.result(check=False)
        except Exception:  # noqa: BLE001  (it has been logged by who has asked)
            _log.exception("run %s of schedule %r was broken off", running.run_id, schedule.name)
        finally:
            self._running.pop(running.run_id, None)
        if result is not None and result.reason == LEFT:
            return  # it is gone on with when the app is there again
        try:
            await self._release(schedule, running.run_id)
            await self._next_waiting(schedule)
        except Exception as error:  # noqa: BLE001  (a store's, or of what is begun)
            self._teller.fails(schedule, error)

    async def _release(self, schedule: Schedule, run_id: str) -> None:
        def release(standing: Standing) -> bool:
            if run_id not in standing.runs:
                return False
            del standing.runs[run_id]
            standing.broken.pop(run_id, None)
            return True

        await self._book.change(schedule.name, release)
        self._changes(schedule).set()
        self._changed[schedule.name] = anyio.Event()

    async def _change(self, schedule: Schedule) -> None:
        """Wait until a run of the schedule ends here, or a while: it may end elsewhere."""
        changed = self._changes(schedule)
        async with anyio.create_task_group() as group:

            async def wake() -> None:
                await self._clock.sleep(_LOOK_AGAIN)
                changed.set()

            if self._book.shared:
                group.start_soon(wake)
            await changed.wait()
            group.cancel_scope.cancel()

    async def _next_waiting(self, schedule: Schedule) -> None:
        """Begin what waits, as far as there are places."""
        book = self._book
        while (await book.fresh(schedule.name)).waiting:
            async with self._turn(schedule):
                chosen = ""

                def choose(standing: Standing) -> bool:
                    nonlocal chosen
                    chosen = ""
                    if not standing.waiting or len(standing.runs) >= schedule.policy.limit:
                        return False
                    chosen = standing.waiting.pop(0)
                    standing.runs[chosen] = this_process()
                    return True

                if not await book.change(schedule.name, choose):
                    return
                await self._begin_kept(schedule, chosen)

    async def _begin_kept(self, schedule: Schedule, firing_id: str) -> None:
        book = self._book
        firing = await book.kept(schedule.name, firing_id)
        if firing is None:
            await self._release(schedule, firing_id)
            return
        try:
            await self._start_run(schedule, firing)
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001  (a function of the user's, a plan that cannot be made)
            self._teller.gives_up(schedule, firing, error)
        await book.drop(schedule.name, [firing_id])

    async def _gone(self, schedule: Schedule) -> set[str]:
        """Return which runs that are noted as going on have ended, or never began and will not."""
        standing = self._book.known(schedule.name)
        noted = [run for run in standing.runs if run not in self._running]
        fates = {run: await self._fate(standing, run) for run in noted}
        return {
            run
            for run, fate in fates.items()
            if fate == "ended" or (fate == "lost" and await self._book.kept(schedule.name, run) is None)
        }

    async def _fate(self, standing: Standing, run_id: str) -> Literal["going", "ended", "broken", "lost"]:
        """Return what has become of a run that is not driven here: one is lost if its process died before it began."""
        store = self._book.store
        record = await store.record(run_id)
        if record is not None and record.state not in _GOING_ON:
            return "broken" if record.reason == LEFT else "ended"
        if record is not None and await store.holder(f"run/{run_id}") is not None:
            return "going"
        now = self._clock.now()
        since = self._undriven.setdefault(run_id, now)
        if not is_gone(standing.runs.get(run_id, "")) and now - since < _BEGUN:
            return "going"  # or it is about to be
        del self._undriven[run_id]
        return "lost" if record is None else "broken"

    async def look_after(self, schedule: Schedule) -> None:
        """Go on with runs whose process has died, and forget those that have ended without being noted."""
        standing = await self._book.fresh(schedule.name)
        for run_id in [run for run in standing.runs if run not in self._running]:
            fate = await self._fate(standing, run_id)
            if fate == "broken":
                await self._go_on(schedule, run_id, standing.runs[run_id])
            elif fate == "lost":
                await self._begin_kept(schedule, run_id)
            elif fate == "ended":
                await self._release(schedule, run_id)
        await self._next_waiting(schedule)

    async def _go_on(self, schedule: Schedule, run_id: str, owner: str) -> None:
        """Go on with a run that was *owner*'s, unless another scheduler does."""
        times = 0

        def note(standing: Standing) -> bool:
            nonlocal times
            if standing.runs.get(run_id) != owner:
                return False
            times = standing.broken.get(run_id, 0) + 1
            standing.broken[run_id] = times
            standing.runs[run_id] = this_process()
            return True

        if not await self._book.change(schedule.name, note):
            return
        try:
            if times > _MOST_BROKEN:
                raise RunNotFoundError(run_id, f"what is gone on with: it was broken off {times} times")
            running = await self._host.submit_resumed(run_id)
        except RunHeldError:
            return
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001  (it has ended meanwhile, or cannot be planned any more)
            if not isinstance(error, RunEndedError):
                told = f"run {run_id} was broken off, and is not gone on with: {described(error)}"
                _log.error("schedule %r: %s", schedule.name, told)
                self._teller.tell("failed", schedule, reason=told)
            await self._release(schedule, run_id)
            return
        _log.warning("schedule %r goes on with run %s, which was broken off", schedule.name, run_id)
        self._follow(schedule, running)
