"""Firings: what a request fires, once for each key that it gives, and the end of the run that it may wait for."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import anyio
import msgspec

from dpcore import App, Running
from dpcore_plugins.api.problems import Problem

__all__ = ("Fired", "Keys", "has_ended")

_MOST_KEYS = 10_000  # that are remembered
_FIRST_LOOK, _LAST_LOOK = 0.02, 0.5  # seconds between looks at whether a run has ended


class Fired(NamedTuple):
    """What became of a firing."""

    id: str
    state: str
    running: Running | None = None
    """Its run, where it was begun for this request."""

    replayed: bool = False
    """Whether it had been fired before, under the same key."""


class _Known:
    """What is known of a key."""

    __slots__ = ("asked", "id", "turn")

    def __init__(self, asked: bytes) -> None:
        self.asked = asked
        self.id = ""
        self.turn = anyio.Lock()


class Keys:
    """The keys that schedules were fired with, the latest of them: under each it fires once.

    The scheduler sees to that where a run is begun, for ever.  What is only published it cannot ask for
    again, so here it is remembered, and with it what was asked for.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], _Known] = OrderedDict()

    async def once(self, name: str, key: str, body: Any, fire: Callable[[], Awaitable[Fired]]) -> Fired:
        """Fire, unless that was done under this key; whoever asks at the same time waits for who was first.

        Raises :class:`~dpcore_plugins.api.problems.Problem` if it was done with another body.
        """
        asked = hashlib.sha256(msgspec.json.encode(body, order="deterministic")).digest()
        known = self._known.setdefault((name, key), _Known(asked))
        self._known.move_to_end((name, key))
        async with known.turn:
            if known.id:
                if known.asked != asked:
                    raise Problem(422, "another body was sent with this Idempotency-Key; send the same, or another key")
                return Fired(known.id, "known", replayed=True)
            known.asked = asked
            fired = await fire()
            known.id = fired.id
        while len(self._known) > _MOST_KEYS:
            self._known.popitem(last=False)
        return fired


async def has_ended(app: App, run_id: str, running: Running | None, seconds: float) -> bool:
    """Wait until a run has ended, *seconds* at the most; tell whether it has."""
    with anyio.move_on_after(seconds):
        if running is not None:
            await running.result(check=False)
            return True
        store, look = await app.store(), _FIRST_LOOK
        while (record := await store.record(run_id)) is None or not record.state.ended:
            await anyio.sleep(look)
            look = min(look * 2, _LAST_LOOK)
        return True
    return False
