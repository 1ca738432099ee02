"""Listening: what a schedule does with a trigger that fires when something happens."""

from __future__ import annotations

from contextlib import suppress

import anyio
import msgspec

from dpcore.clock import Clock
from dpcore.errors import StoreError
from dpcore.ports import Firing, Platform, StreamTrigger
from dpcore.ports.runstore import Lease
from dpcore.ports.trigger import aware
from dpcore.scheduler.dispatch import Dispatcher
from dpcore.scheduler.schedule import Schedule
from dpcore.scheduler.standings import Standings
from dpcore.scheduler.telling import Teller

__all__ = ("Listener",)

_LISTENING = 30.0  # seconds for which a scheduler has the right to listen without having renewed it
_STANDBY = 2.0  # seconds after which one that does not listen asks whether it may


class Listener:
    """Hears one trigger of one schedule, and has fired what it says.

    Of the schedulers that share a store, one listens; the others stand by, and one of them takes over
    when its process ends or does not renew its right to.
    """

    def __init__(
        self,
        schedule: Schedule,
        trigger: StreamTrigger,
        platform: Platform,
        book: Standings,
        dispatcher: Dispatcher,
        teller: Teller,
    ) -> None:
        self._schedule, self._trigger, self._platform = schedule, trigger, platform
        self._book, self._dispatcher, self._teller = book, dispatcher, teller
        self._clock: Clock = platform.clock
        self._scope = anyio.CancelScope()
        self.begun = anyio.Event()
        """Set when it listens, or stands by, or has failed to."""

    def stop(self) -> None:
        """Listen no more."""
        self._scope.cancel()

    async def listen(self) -> None:
        """Listen until stopped; after an exception again, after a while."""
        try:
            with self._scope:
                while not await self._listen_once():
                    pass
        finally:
            self.begun.set()

    async def _listen_once(self) -> bool:
        """Listen while this is the scheduler that does; tell whether the trigger has ended by itself."""
        try:
            return await (self._take_turn() if self._book.shared else self._hear_all())
        except Exception as error:  # noqa: BLE001  (whatever a trigger, a broker or a store raises)
            self.begun.set()
            await self._clock.sleep_until(self._teller.fails(self._schedule, error))
            return False

    async def _take_turn(self) -> bool:
        """Listen, unless another scheduler does."""
        number = self._schedule.streams.index(self._trigger)
        lease = await self._book.store.lease(f"schedule/{self._schedule.name}/{number}", _LISTENING)
        if lease is None:
            self.begun.set()
            await self._clock.sleep(_STANDBY)
            return False
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._renew, lease)
                await self._hear_all()
                group.cancel_scope.cancel()
        except BaseExceptionGroup as several:
            raise _only(several) from None
        finally:
            with anyio.CancelScope(shield=True), suppress(StoreError):
                await lease.release()
        return True

    async def _renew(self, lease: Lease) -> None:
        while True:
            await self._clock.sleep(_LISTENING / 3)
            await lease.renew(_LISTENING)

    async def _hear_all(self) -> bool:
        async with self._trigger.listen(self._platform, self._schedule.name) as firings:
            self.begun.set()
            self._teller.works(self._schedule)
            async for firing in firings:
                await self._hear(msgspec.structs.replace(firing, schedule=self._schedule.name))
        return True

    async def _hear(self, firing: Firing) -> None:
        """Deal with a firing; return when that has been done."""
        schedule = self._schedule
        aware("nominal", firing.nominal)
        while True:
            if self._book.known(schedule.name).paused:
                self._teller.tell("skipped", schedule, firing.nominal, "it is paused")
                return
            try:
                await self._dispatcher.fire_or_give_up(schedule, firing, patient=schedule.policy.overlap != "skip")
            except (OSError, TimeoutError) as error:
                await self._clock.sleep_until(self._teller.fails(schedule, error))
            else:
                return


def _only(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the one exception that a task group was left with, or the group where there are several."""
    inner = group.exceptions[0]
    if len(group.exceptions) > 1:
        return group
    return _only(inner) if isinstance(inner, BaseExceptionGroup) else inner
