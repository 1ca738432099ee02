"""Standings: what schedulers know of their schedules, in the run store, and how they agree on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

import msgspec

from dpcore.errors import ArgumentError
from dpcore.ports.runstore import RunStore
from dpcore.ports.trigger import Firing
from dpcore.scheduler.policies import Standing

__all__ = ("Change", "Standings")

Change = Callable[[Standing], bool]
"""Changes a standing in place; False, and nothing is written, if there is nothing to be changed."""

_PREFIX = "schedule/"
_FIRINGS = "firing/"


class Standings:
    """The standings of an app's schedules, by name: those that it knows, and what the run store has.

    Where the store is shared, every change is made on what is there now, and by one scheduler at a
    time: each write expects the version that was read.  Otherwise nobody else writes, so
    changes count at once, and are written when there is time: :meth:`keep_up`.
    """

    def __init__(self, store: RunStore) -> None:
        self.store = store
        self.shared = "shared" in store.capabilities
        self._lasts = "durable" in store.capabilities
        self._known: dict[str, Standing] = {}
        self._versions: dict[str, int] = {}
        self._unwritten: dict[str, None] = {}
        self._kept: dict[str, Firing] = {}  # those that wait and have come here

    @property
    def all(self) -> dict[str, Standing]:
        """What is known of each schedule, by name."""
        return dict(self._known)

    async def load(self) -> None:
        """Read all that the store has; of what it does not share, only what is not known yet."""
        for name, value, version in await self.store.documents(_PREFIX):
            if self.shared or name not in self._known:
                self._known[name], self._versions[name] = _read(value), version

    def known(self, name: str) -> Standing:
        """Return what was last known of a schedule; a new one if nothing is."""
        found = self._known.get(name)
        if found is None:
            found = self._known[name] = Standing()
        return found

    async def fresh(self, name: str) -> Standing:
        """Return what is known of a schedule, asking the store where others write too."""
        if self.shared:
            value, version = await self.store.read(_PREFIX + name)
            self._known[name], self._versions[name] = _read(value), version
        return self.known(name)

    async def change(self, name: str, change: Change) -> bool:
        """Change a standing, once nobody else does at the same time; tell whether there was something to be changed."""
        if not self.shared:
            if not change(self.known(name)):
                return False
            self._unwritten[name] = None
            return True
        while change(standing := await self.fresh(name)):
            version = await self.store.write(_PREFIX + name, standing, expected=self._versions[name])
            if version is not None:
                self._versions[name] = version
                return True
        return False

    def deal_with(self, name: str, nominal: datetime) -> None:
        """Note that all up to *nominal* has been dealt with, of a schedule that nobody else knows."""
        self._known[name].last = nominal
        self._unwritten[name] = None

    async def keep_up(self) -> None:
        """Write what has changed since, if what is written lasts; otherwise :meth:`flush` at the end is soon enough."""
        if self._lasts:
            await self.flush()

    async def flush(self) -> None:
        """Write what has changed since."""
        while self._unwritten:
            name = next(iter(self._unwritten))
            await self.store.write(_PREFIX + name, self._known[name])
            self._unwritten.pop(name, None)

    async def forget(self, name: str) -> None:
        """Forget a schedule, with the firings that wait."""
        standing = await self.fresh(name)
        await self.drop(name, standing.waiting)
        self._known.pop(name, None)
        self._versions.pop(name, None)
        self._unwritten.pop(name, None)
        await self.store.forget(_PREFIX + name)

    # ------------------------------------------------------------ firings that wait

    async def keep(self, firing: Firing) -> None:
        """Keep a firing until its turn comes: here as it is, and in the store as JSON has it.

        Raises :class:`~dpcore.errors.ArgumentError` for a body that JSON does not have.
        """
        try:
            body = msgspec.to_builtins(firing.body, enc_hook=_dumped)
        except (TypeError, ValueError, RecursionError) as error:
            raise ArgumentError("body", firing.body, f"of JSON's types, where it may have to wait ({error})") from error
        kept = {"nominal": firing.nominal.isoformat(), "key": firing.key, "body": body}
        await self.store.write(f"{_FIRINGS}{firing.schedule}/{firing.id}", kept)
        self._kept[firing.id] = firing

    async def kept(self, schedule: str, firing_id: str) -> Firing | None:
        """Return a firing that was kept; None if it was dropped meanwhile."""
        if firing_id in self._kept:
            return self._kept[firing_id]
        kept, _ = await self.store.read(f"{_FIRINGS}{schedule}/{firing_id}")
        if kept is None:
            return None
        nominal = datetime.fromisoformat(kept["nominal"])
        return Firing(schedule=schedule, nominal=nominal, key=kept["key"], body=kept["body"])

    async def drop(self, schedule: str, firing_ids: Iterable[str]) -> None:
        """Let go of firings that waited."""
        for firing_id in firing_ids:
            self._kept.pop(firing_id, None)
            await self.store.forget(f"{_FIRINGS}{schedule}/{firing_id}")


def _dumped(value: Any) -> Any:
    """Return what JSON has of a value that msgspec does not know: of a pydantic model."""
    if not hasattr(value, "model_dump"):
        raise TypeError(f"{type(value).__name__} is none of them")
    return value.model_dump(mode="json")


def _read(value: Any) -> Standing:
    return Standing() if value is None else msgspec.convert(value, Standing)
