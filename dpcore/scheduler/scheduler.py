"""The scheduler: one heap of what is due next, and one task that sleeps until the first of it."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from typing import Any

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from dpcore.clock import Clock
from dpcore.errors import AppStateError, ArgumentError, ScheduleExistsError, ScheduleFullError, ScheduleNotFoundError
from dpcore.ports import Firing, TimeTrigger
from dpcore.ports.trigger import aware
from dpcore.processes import is_gone, this_process
from dpcore.scheduler.dispatch import Dispatcher, Host
from dpcore.scheduler.listening import Listener
from dpcore.scheduler.policies import ON_TIME, Claim, Due, Standing, due, local, paused, resumed, shifted
from dpcore.scheduler.schedule import Fired, Schedule
from dpcore.scheduler.standings import Standings
from dpcore.scheduler.telling import Teller
from dpcore.scheduler.together import made_together, publishes_only
from dpcore.words import counted

__all__ = ("Scheduler",)

_log = logging.getLogger("dpcore.scheduler")

_HEARTBEAT = timedelta(seconds=10)  # after which a scheduler looks at what others have done
_CLAIMED = timedelta(seconds=60)  # in which a firing that was claimed has been published and begun
_LOOK_AGAIN = timedelta(seconds=1)  # at what another scheduler has claimed
_STUCK = timedelta(milliseconds=100)  # after which others dispatch what is due behind something that waits
_MOST_AT_ONCE = 64  # tasks that dispatch
_AT_ONCE = 16  # of these from the beginning, where a store has to be waited for
_MANY = 32  # schedules that are due at one instant, from which on they publish together
_LONGEST_TOGETHER = 1.0  # seconds


class _Entry:
    """A schedule as the heap knows it."""

    __slots__ = ("first", "listeners", "look_at", "publishes_only", "schedule")

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.publishes_only = publishes_only(schedule)
        self.look_at: datetime | None = None
        """When it is looked at; other places in the heap that it had before count no more."""
        self.first: datetime | None = None
        """Its next nominal time."""
        self.listeners: list[Listener] = []


class Scheduler(Mapping[str, Schedule]):
    """The schedules of an app, by name, and what fires them: ``app.schedules``.

    It begins to fire when its app is entered, or at the first schedule, and ends with the app.
    In between, :meth:`stop` and :meth:`start` do so, as often as they are called.  *made* are the
    adapters that the app has made.
    """

    def __init__(self, host: Host, made: Mapping[str, Any]) -> None:
        self.clock: Clock = host.clock
        self._host = host
        self._teller = Teller(host.clock, host.publish, made)
        self._schedules: dict[str, Schedule] = {}
        self._entries: dict[str, _Entry] = {}
        self._arriving: dict[str, Schedule] = {}
        self._book: Standings | None = None
        self._dispatcher: Dispatcher | None = None
        self._app: TaskGroup | None = None
        self._group: TaskGroup | None = None
        self._scope: anyio.CancelScope | None = None
        self._ended = anyio.Event()
        self._asleep: anyio.CancelScope | None = None
        self._heap: list[datetime] = []
        self._slots: dict[datetime, list[_Entry]] = {}  # those that are looked at, by when
        self._due: deque[_Entry] = deque()
        self._dealt_with: list[_Entry] = []
        self._working = 0
        self._heartbeat: datetime | None = None
        self._me = os.urandom(8).hex()
        self._welcomed = anyio.Event()

    def __getitem__(self, name: str) -> Schedule:
        try:
            return self._schedules[name]
        except KeyError:
            raise ScheduleNotFoundError(name, self._schedules) from None

    def __contains__(self, name: object) -> bool:
        return name in self._schedules

    def __iter__(self) -> Iterator[str]:
        return iter(self._schedules)

    def __len__(self) -> int:
        return len(self._schedules)

    def __repr__(self) -> str:
        return f"<Scheduler of {counted(len(self), 'schedule')}, {'running' if self.running else 'stopped'}>"

    def standing(self, name: str) -> Standing:
        """Return what is known here of a schedule."""
        return Standing() if self._book is None else self._book.known(name)

    # ------------------------------------------------------------ beginning and ending

    @property
    def running(self) -> bool:
        """Whether schedules fire by themselves."""
        return self._scope is not None

    def open(self, group: TaskGroup) -> None:
        """Work in the task group of the app."""
        self._app = group
        self._teller.open(group)
        if self._schedules:
            self.start()

    def start(self) -> None:
        """Let schedules fire by themselves from now on; nothing happens if they do already."""
        if self._app is None:
            raise AppStateError("is not entered", "enter it first: async with App(...) as app")
        if self._scope is None:
            scope, ended = anyio.CancelScope(), anyio.Event()
            self._app.start_soon(self._run, scope, ended)
            self._scope, self._ended = scope, ended

    async def stop(self) -> None:
        """Let no schedule fire by itself any more; return when none does.  Runs that go on do so."""
        if self._scope is not None:
            self._scope.cancel()
            with anyio.CancelScope(shield=True):
                await self._ended.wait()

    async def close(self) -> None:
        """End with the app; the schedules are there when it is entered again."""
        await self.stop()
        if self._book is not None:
            with anyio.CancelScope(shield=True), suppress(OSError):
                await self._book.flush()
        self._app = self._book = self._dispatcher = None
        self._teller.open(None)

    async def _run(self, scope: anyio.CancelScope, ended: anyio.Event) -> None:
        try:
            with scope:
                async with anyio.create_task_group() as self._group:
                    await self._work_on()
        finally:
            self._group = self._scope = self._heartbeat = None
            self._heap.clear()
            self._slots.clear()
            self._due.clear()
            self._dealt_with.clear()
            self._entries.clear()
            self._working = 0
            self._tell_welcomed()
            ended.set()

    # ------------------------------------------------------------ schedules come and go

    def add(self, schedule: Schedule) -> None:
        """Add a schedule; it fires from now on, or when the app is entered."""
        if schedule.name in self._schedules:
            raise ScheduleExistsError(schedule.name, self._schedules[schedule.name].described)
        if self._app is not None:
            self.start()
        self._schedules[schedule.name] = self._arriving[schedule.name] = schedule
        self._wake()

    async def remove(self, name: str) -> None:
        """Forget a schedule, here and in the run store; its runs go on."""
        schedule = self[name]
        book, dispatcher = await self._ready()
        del self._schedules[name]
        self._arriving.pop(name, None)
        entry = self._entries.pop(name, None)
        if entry is not None:
            entry.look_at = None
            for listener in entry.listeners:
                listener.stop()
        dispatcher.forget(schedule)
        await book.forget(name)

    async def _ready(self) -> tuple[Standings, Dispatcher]:
        """Return what is known of schedules, and what starts what they fire."""
        if self._book is None or self._dispatcher is None:
            store = await self._host.store()
            if self._app is None:
                raise AppStateError("is not entered", "enter it first: async with App(...) as app")
            if self._book is None or self._dispatcher is None:
                self._book = Standings(store)
                self._dispatcher = Dispatcher(self._host, self._book, self._teller, self._app)
        return self._book, self._dispatcher

    async def begun(self) -> None:
        """Wait until every schedule has begun, or cannot: those that listen do so."""
        for _ in range(2):  # those that come while others are begun with are begun with next
            if self._arriving and self.running:
                await self._welcomed.wait()
        for entry in [*self._entries.values()]:
            for listener in entry.listeners:
                await listener.begun.wait()

    async def _welcome(self) -> None:
        """Begin with the schedules that have been added."""
        arriving = dict(self._arriving)
        try:
            book, _ = await self._ready()
            if len(arriving) > 1 or not book.shared:
                await book.load()
            await _each(self._begin, arriving.values(), _AT_ONCE if book.shared else 1)
            await book.keep_up()
        except OSError as error:
            _log.error("schedules cannot begin, and are tried again: %s", error)
            self._tell_welcomed()
            await self.clock.sleep(5.0)
            return
        for name, schedule in arriving.items():
            if self._arriving.get(name) is schedule:
                del self._arriving[name]
        self._tell_welcomed()
        if book.shared and self._heartbeat is None:
            self._heartbeat = self.clock.now() + _HEARTBEAT

    def _tell_welcomed(self) -> None:
        self._welcomed.set()
        self._welcomed = anyio.Event()

    async def _begin(self, schedule: Schedule) -> None:
        book, dispatcher = await self._ready()
        if self._schedules.get(schedule.name) is not schedule or schedule.name in self._entries:
            return
        entry = self._entries[schedule.name] = _Entry(schedule)
        now, described = self.clock.now(), schedule.described

        def settle(standing: Standing) -> bool:
            if standing.triggers == described and standing.last is not None:
                return False
            standing.triggers, standing.last, standing.claim = described, schedule.times.begins(now), None
            standing.next = schedule.times.following(standing.last) if book.shared else None
            return True

        await book.change(schedule.name, settle)
        self._push(entry)
        for trigger in schedule.streams:
            listener = Listener(schedule, trigger, self._host, book, dispatcher, self._teller)
            entry.listeners.append(listener)
            assert self._group is not None
            self._group.start_soon(listener.listen)
        standing = book.known(schedule.name)
        if standing.runs or standing.waiting:
            await dispatcher.look_after(schedule)

    # ------------------------------------------------------------ the heap

    async def _work_on(self) -> None:
        self._arriving = dict(self._schedules)
        while True:
            if self._arriving:
                await self._welcome()
            now = self.clock.now()
            while self._heap and self._heap[0] <= now:
                self._fall_due(heappop(self._heap), now)
            self._have_dealt_with()
            if self._heartbeat is not None and self._heartbeat <= now:
                self._heartbeat = now + _HEARTBEAT
                await self._look_around()
            await self._sleep()

    async def _sleep(self) -> None:
        """Sleep until something is due, or somebody wakes this."""
        until = self._heap[:1]
        if self._due:
            until.append(self.clock.now() + _STUCK)
        if self._heartbeat is not None:
            until.append(self._heartbeat)
        with anyio.CancelScope() as self._asleep:
            if not self._arriving:
                await (self.clock.sleep_until(min(until)) if until else anyio.sleep_forever())

    def _wake(self) -> None:
        if self._asleep is not None:
            self._asleep.cancel()

    def _push(self, entry: _Entry, look_at: datetime | None = None) -> None:
        """Have a schedule looked at when it is next due, or at *look_at*."""
        schedule = entry.schedule
        if self._entries.get(schedule.name) is not entry:
            return
        entry.look_at = entry.first = None
        if look_at is None:
            look_at = self._next(entry)
        if look_at is None:
            return
        slot = self._slots.get(look_at)
        if slot is None:
            slot = self._slots[look_at] = []
            heappush(self._heap, look_at)
            if self._heap[0] is look_at:
                self._wake()
        entry.look_at = look_at
        slot.append(entry)

    def _next(self, entry: _Entry) -> datetime | None:
        """Return when a schedule is next due, if it is."""
        schedule, standing = entry.schedule, self.standing(entry.schedule.name)
        if standing.paused or standing.last is None:
            return None
        following = schedule.times.following
        try:
            entry.first = following(standing.last)
            return None if entry.first is None else shifted(schedule.name, entry.first, schedule.policy, following)
        except Exception as error:  # noqa: BLE001  (whatever a trigger raises)
            return self._teller.fails(schedule, error)

    # ------------------------------------------------------------ what is due

    def _fall_due(self, instant: datetime, now: datetime) -> None:
        """Have those looked at whose time has come: many that do nothing but publish together, others one by one."""
        due: list[_Entry] = []
        for entry in self._slots.pop(instant):
            if entry.look_at == instant:
                entry.look_at = None
                due.append(entry)
        if len(due) < _MANY or now - instant > ON_TIME or self._book is None or self._book.shared or self._teller.hears:
            self._due.extend(due)
            return
        together = [entry for entry in due if entry.publishes_only and entry.first == instant]
        self._due.extend(entry for entry in due if not entry.publishes_only or entry.first != instant)
        assert self._group is not None
        self._group.start_soon(self._publish_together, together, instant, self._book)

    async def _publish_together(self, entries: Sequence[_Entry], nominal: datetime, book: Standings) -> None:
        """Publish what schedules fire that are due at one instant; what cannot be is looked at one by one."""
        _, dispatcher = await self._ready()
        left = {entry.schedule.name: entry for entry in entries if self._is_due(book, entry, nominal)}
        made = made_together([entry.schedule for entry in left.values()], nominal, self.clock.now().timestamp())
        try:
            broker = await self._host.broker()
            taken = await broker.publish_made([one.event for one in made], timeout=_LONGEST_TOGETHER)
        except Exception as error:  # noqa: BLE001  (a broker's: each that publishes meets it too, and reports it)
            _log.debug("what is due together cannot be published so: %s", error)
            taken = 0
        await checkpoint()  # who reads has a turn before the next times are computed
        for number, one in enumerate(made[:taken]):
            book.deal_with(one.schedule.name, nominal)
            dispatcher.has_published(one.schedule, nominal)
            self._push(left.pop(one.schedule.name))
            if not number % _MANY:
                await checkpoint()
        self._due.extend(left.values())
        self._have_dealt_with()
        await book.keep_up()

    def _is_due(self, book: Standings, entry: _Entry, nominal: datetime) -> bool:
        """Tell whether an entry is still to fire then: it may have been paused or removed meanwhile."""
        standing = book.known(entry.schedule.name)
        is_ours = self._entries.get(entry.schedule.name) is entry
        return is_ours and not standing.paused and standing.last is not None and standing.last < nominal

    def _have_dealt_with(self) -> None:
        """Have what is due dealt with: by one task, by some where a store is waited for, by more if one is stuck."""
        if not self._due or self._group is None or self._book is None:
            return
        wanted = min(len(self._due), _AT_ONCE) if self._book.shared else 1
        for _ in range(min(max(wanted - self._working, 1), _MOST_AT_ONCE - self._working)):
            self._working += 1
            self._group.start_soon(self._work)

    async def _work(self) -> None:
        try:
            while self._due:
                entry = self._due.popleft()
                try:
                    look_at = await self._deal_with(entry)
                except Exception as error:  # noqa: BLE001  (a trigger's, a store's or a broker's)
                    self._push(entry, self._teller.fails(entry.schedule, error))
                    continue
                if look_at is None:
                    self._dealt_with.append(entry)  # fire first, compute later
                else:
                    self._push(entry, look_at)
            dealt_with, self._dealt_with = self._dealt_with, []
            for entry in dealt_with:
                self._push(entry)
            if self._book is not None:
                await self._book.keep_up()
        except OSError as error:
            _log.error("what has fired cannot be noted in the run store yet: %s", error)
        finally:
            self._working -= 1

    async def _deal_with(self, entry: _Entry) -> datetime | None:
        """Fire what is due of a schedule; return when to look again, if not at its next time."""
        schedule = entry.schedule
        book, dispatcher = await self._ready()
        standing = await book.fresh(schedule.name) if book.shared else book.known(schedule.name)
        if standing.paused or standing.last is None:
            return None
        now, first = self.clock.now(), entry.first
        if first is not None and standing.last < first <= now <= first + ON_TIME:
            found = Due([first], [], more=False)
        else:
            found = due(schedule.times.following, standing.last, now, schedule.policy)
        for nominal in found.fire:
            firing = Firing(nominal=schedule.times.local(nominal), schedule=schedule.name)
            if book.shared and not await self._claim(book, firing, nominal):
                return now + _LOOK_AGAIN if book.known(schedule.name).claim is not None else None
            try:
                fired = await dispatcher.fire_or_give_up(schedule, firing)
            except BaseException:
                with anyio.CancelScope(shield=True), suppress(OSError):
                    await self._let_go(book, schedule)
                raise
            if fired is not None and fired.state == "full":  # it stays due, until there is room
                await self._let_go(book, schedule)
                return now + _LOOK_AGAIN
            await self._mark(book, schedule, nominal)
        if found.missed and (found.fire or await self._mark(book, schedule, found.missed[-1])):
            self._missed(schedule, found)
        return None

    async def _claim(self, book: Standings, firing: Firing, nominal: datetime) -> bool:
        """Claim a firing; False if another scheduler has claimed it, or has fired it."""
        now = self.clock.now()

        def claim(standing: Standing) -> bool:
            if standing.paused or standing.last is None or standing.last >= nominal:
                return False
            held = standing.claim
            if held is not None and held.by != self._me and now < held.until and not is_gone(held.process):
                return False
            standing.claim = Claim(firing.id, self._me, this_process(), now + _CLAIMED)
            return True

        return await book.change(firing.schedule, claim)

    async def _let_go(self, book: Standings, schedule: Schedule) -> None:
        """Give a claim back, so that whoever is there may fire."""

        def let_go(standing: Standing) -> bool:
            if standing.claim is None or standing.claim.by != self._me:
                return False
            standing.claim = None
            return True

        if book.shared:
            await book.change(schedule.name, let_go)

    async def _mark(self, book: Standings, schedule: Schedule, nominal: datetime) -> bool:
        """Note that all up to *nominal* has been dealt with; False if it had been."""
        following = schedule.times.following(nominal) if book.shared else None  # for who only looks

        def mark(standing: Standing) -> bool:
            if standing.last is not None and standing.last >= nominal:
                return False
            standing.last, standing.claim = nominal, None
            if book.shared:
                standing.next = following
            return True

        return await book.change(schedule.name, mark)

    def _missed(self, schedule: Schedule, found: Due) -> None:
        many = counted(len(found.missed), "time") + (" or more" if found.more else "")
        first, last = (schedule.times.local(nominal) for nominal in (found.missed[0], found.missed[-1]))
        _log.warning("schedule %r has missed %s, from %s to %s", schedule.name, many, first, last)
        for nominal in found.missed:
            self._teller.tell("missed", schedule, schedule.times.local(nominal), "nothing could fire then")

    async def _look_around(self) -> None:
        """Learn what other schedulers have done, and look after what they have left behind."""
        try:
            book, dispatcher = await self._ready()
            resting = [entry for name, entry in self._entries.items() if self.standing(name).paused]
            await book.load()
            for entry in resting:
                self._push(entry)
            for name, schedule in [*self._schedules.items()]:
                if dispatcher.left_alone(book.known(name)):
                    await dispatcher.look_after(schedule)
        except OSError as error:
            _log.error("the run store cannot be asked what other schedulers have done: %s", error)

    # ------------------------------------------------------------ by hand

    async def fire(self, schedule: Schedule, body: Any = None, key: str = "") -> Fired:
        """Fire a schedule now: :meth:`dpcore.App.fire`."""
        _, dispatcher = await self._ready()
        first = schedule.triggers[0]
        nominal = local(self.clock.now(), first.timezone if isinstance(first, TimeTrigger) else UTC)
        key = key or os.urandom(10).hex()
        fired = await dispatcher.fire(schedule, Firing(nominal=nominal, schedule=schedule.name, body=body, key=key))
        if fired.state in ("skipped", "full"):
            raise ScheduleFullError(schedule.name, [*self.standing(schedule.name).runs], schedule.policy.overlap)
        return fired

    async def backfill(self, schedule: Schedule, start: datetime, end: datetime) -> list[Fired]:
        """Fire a schedule for times that have passed: :meth:`dpcore.App.backfill`."""
        if aware("end", end) > self.clock.now():
            raise ArgumentError("end", end, "a time that has passed: what comes fires by itself")
        _, dispatcher = await self._ready()
        firings = (Firing(nominal=nominal, schedule=schedule.name) for nominal in schedule.between(start, end))
        return [await dispatcher.fire(schedule, firing, patient=True) for firing in firings]

    async def pause(self, schedule: Schedule, note: str) -> None:
        """Let a schedule not fire by itself: :meth:`Schedule.pause`."""
        if not isinstance(note, str):
            raise ArgumentError("note", note, "a text that says why")
        await self._change(schedule, lambda standing: paused(standing, note))
        self._teller.tell("paused", schedule, reason=note)

    async def resume(self, schedule: Schedule) -> None:
        """Let a schedule fire by itself again: :meth:`Schedule.resume`."""
        now = self.clock.now()
        if await self._change(schedule, lambda standing: resumed(standing, now)):
            self._teller.tell("resumed", schedule)

    async def _change(self, schedule: Schedule, change: Callable[[Standing], bool]) -> bool:
        book, _ = await self._ready()
        changed = await book.change(schedule.name, change)
        await book.keep_up()
        if (entry := self._entries.get(schedule.name)) is not None:
            self._push(entry)
        return changed


async def _each(do: Callable[[Schedule], Awaitable[None]], schedules: Iterable[Schedule], at_once: int) -> None:
    """Do something for each of some schedules, several at once."""
    left = iter([*schedules])

    async def work() -> None:
        for schedule in left:
            await do(schedule)

    try:
        async with anyio.create_task_group() as group:
            for _ in range(at_once):
                group.start_soon(work)
    except* OSError as several:
        raise several.exceptions[0] from None
