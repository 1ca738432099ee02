"""The hub: the exchange, who is connected to it, and what is done when a turn of its loop ends."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from dpcore import Exchange, Interest
from dpcore.topics import Pattern
from dpcore_plugins.brokers.multiprocess.outlets import GroupOutlets, MemberOutlet, ReaderOutlet
from dpcore_plugins.brokers.multiprocess.places import Claim
from dpcore_plugins.brokers.multiprocess.wire import Kind, Welcome, packed

__all__ = ("FLUSH", "INTRODUCTION", "Connection", "Hub", "Waiting")

INTRODUCTION = 5.0
"""Seconds that a stranger may take to show the key."""
FLUSH = 0.5
"""Seconds that the last words may take."""

_PAUSE = 0.25  # seconds in which nobody is let in, where that failed
_STRANGERS = 64  # connections that have not shown the key

_log = logging.getLogger("dpcore.broker")


class Connection(asyncio.Protocol, ABC):
    """What the hub needs of a connection to a stranger or a peer."""

    outlets: dict[int, ReaderOutlet | MemberOutlet]
    gone: asyncio.Future[None]

    @abstractmethod
    def say(self, kind: int, number: int = 0, count: int = 0, body: bytes = b"") -> None:
        """Send a frame when this turn of the loop ends."""

    @abstractmethod
    def flush(self) -> None:
        """Send everything that waits."""

    @abstractmethod
    def hang_up(self) -> None:
        """Say good-bye, and end the connection when that is sent."""

    @abstractmethod
    def abort(self) -> None:
        """End the connection at once."""

    @abstractmethod
    def drop(self, why: str) -> None:
        """Log why, tell the other side if it knows the key, and end it."""

    @abstractmethod
    def too_late(self) -> None:
        """Drop who has not shown the key in time."""


class Waiting(Protocol):
    """What waited for room, and may go on."""

    def go(self, *, again: bool = False) -> None:
        """Go on."""


class Hub:
    """The exchange, who is connected to it, and what is to be done when a turn of its loop ends."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        claim: Claim,
        key: bytes,
        max_payload: int,
        exchange: Exchange,
        connected: Callable[[Hub], Connection],
    ) -> None:
        self._connected = connected
        self.loop, self.claim, self.key, self.max_payload, self.exchange = loop, claim, key, max_payload, exchange
        self.peers: dict[Connection, None] = {}
        self.strangers: dict[Connection, None] = {}
        self.groups: dict[str, GroupOutlets] = {}
        self.resumed: deque[Waiting] = deque()
        self.is_closing = False
        self._touched: dict[Any, None] = {}
        self._said: dict[Connection, None] = {}
        self._is_armed = False
        self._dropping: dict[GroupOutlets, None] = {}  # groups that may drop events, which wakes nobody
        self._wanted: dict[str, int] = {}
        self._is_crowded = False
        self._arrivals: set[asyncio.Task[Any]] = set()
        self._end = loop.create_future()

    async def serve(self) -> None:
        """Let peers in and serve them, until it is closed."""
        self._listen()
        try:
            await self._end
        finally:
            self._stop_listening()
            peers = [*self.peers, *self.strangers]
            for task in self._arrivals:
                task.cancel()
            for peer in peers:
                peer.hang_up()
            gone = [peer.gone for peer in peers]
            if gone:
                await asyncio.wait(gone, timeout=FLUSH)
            for peer in peers:
                peer.abort()
            await asyncio.sleep(0)

    def _listen(self) -> None:
        listener = self.claim.listener
        if listener is not None and listener.fileno() >= 0:
            self.loop.add_reader(listener, self._accept)

    def _stop_listening(self) -> None:
        listener = self.claim.listener
        if listener is not None and listener.fileno() >= 0:
            self.loop.remove_reader(listener)
            listener.close()

    def _accept(self) -> None:
        assert self.claim.listener is not None
        while True:
            try:
                connection, _ = self.claim.listener.accept()
            except BlockingIOError:
                self._is_crowded = False
                return
            except OSError as error:  # of file descriptors there are no more: the loop would try again for ever
                if not self._is_crowded:
                    _log.error("the hub at %s cannot let anybody in for now: %s", self.claim.place, error)
                self._is_crowded = True
                self.loop.remove_reader(self.claim.listener)
                self.loop.call_later(_PAUSE, self._listen)
                return
            connection.settimeout(0)
            if connection.family == socket.AF_INET:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.claim.connections.add(connection)
            arrival = self.loop.create_task(
                self.loop.connect_accepted_socket(lambda: self._connected(self), connection)
            )
            self._arrivals.add(arrival)
            arrival.add_done_callback(self._arrivals.discard)

    def meet(self, peer: Connection) -> None:
        """Have a stranger show the key in time; where there are too many, the oldest goes."""
        self.strangers[peer] = None
        if len(self.strangers) > _STRANGERS:
            oldest = next(iter(self.strangers))
            oldest.drop(f"{_STRANGERS} others wait to show the key")
        self.loop.call_later(INTRODUCTION, peer.too_late)

    # ------------------------------------------------------------ turns

    def now(self) -> float:
        """Tell the time of the loop."""
        return self.loop.time()

    def later(self, seconds: float, changed: Any) -> None:
        """Have *changed* touched in some seconds."""
        self.loop.call_later(seconds, self.touch, changed)

    def at(self, when: float, ring: Callable[[], None]) -> asyncio.TimerHandle:
        """Have *ring* called at *when*, by the time of the loop."""
        return self.loop.call_at(when, ring)

    def touch(self, changed: Any) -> None:
        """Have ``changed.pump()`` called when this turn ends."""
        self._touched[changed] = None
        self.arm()

    def said(self, peer: Connection) -> None:
        """Have what was said to *peer* sent when this turn ends."""
        self._said[peer] = None
        self.arm()

    def arm(self) -> None:
        """Have this turn end as soon as everything was heard that is there."""
        if not self._is_armed:
            self._is_armed = True
            self.loop.call_soon(self._turn)

    def _turn(self) -> None:
        try:
            self._turn_once()
        except Exception as error:  # noqa: BLE001  (a defect here must not leave peers waiting for ever)
            self._fail(error)
        if self.is_closing:
            self._end_if_drained()

    def _turn_once(self) -> None:
        self._is_armed = False
        resumed, self.resumed = self.resumed, deque()
        for publication in resumed:
            publication.go(again=True)
        for group in self._dropping:
            if group.has_dropped():
                self._touched[group] = None
        while self._touched:
            touched, self._touched = self._touched, {}
            for one in touched:
                one.pump()
        said, self._said = self._said, {}
        for peer in said:
            peer.flush()

    # ------------------------------------------------------------ its end

    def close(self, drain: float) -> None:
        """Take no more, and end when everything was read, or in *drain* seconds."""
        if self.is_closing:
            return
        self.is_closing = True
        try:
            self._let_all_end()
        except Exception as error:  # noqa: BLE001  (whoever leaves it would wait for ever)
            self._fail(error)
        self.loop.call_later(drain, self._finish)
        self.arm()

    def _let_all_end(self) -> None:
        self._stop_listening()
        for peer in [*self.strangers]:
            peer.abort()
        for peer in self.peers:
            for outlet in peer.outlets.values():
                outlet.is_leaving = True
                outlet.touched()
        self.exchange.close()

    def _end_if_drained(self) -> None:
        if not any(not outlet.settled() for peer in self.peers for outlet in peer.outlets.values()):
            self._finish()

    def _finish(self) -> None:
        if not self._end.done():
            self._end.set_result(None)

    def _fail(self, error: Exception) -> None:
        if not self._end.done():
            self._end.set_exception(error)

    # ------------------------------------------------------------ who wants what

    def want(self, patterns: tuple[str, ...], change: int) -> None:
        """Have peers know which of the platform's own topics are read."""
        own = [text for pattern in patterns for text in Pattern(pattern).alternatives if text.startswith("$")]
        if not own:
            return
        before = set(self._wanted)
        for pattern in own:
            self._wanted[pattern] = self._wanted.get(pattern, 0) + change
            if not self._wanted[pattern]:
                del self._wanted[pattern]
        if set(self._wanted) != before:
            body = packed(list(self._wanted))
            for peer in self.peers:
                peer.say(Kind.WANTED, body=body)

    def is_new(self, interest: Interest) -> bool:
        """Tell whether its group does not read that yet."""
        group = self.exchange.groups.get(interest.group or "")
        return group is None or interest.patterns not in group.interests

    def welcome(self) -> bytes:
        """Write what a new peer is told."""
        return packed(Welcome(os.getpid(), self.max_payload, list(self._wanted)))

    def group(self, interest: Interest) -> GroupOutlets:
        """Return the members of a group that exists and has this interest."""
        name = interest.group or ""
        found = self.groups.get(name)
        if found is None:
            group = self.exchange.groups[name]
            group.one_by_one = True
            found = self.groups[name] = GroupOutlets(self, group)
        if found.group.overflow in ("drop_newest", "drop_oldest") or any("$" in one for one in interest.patterns):
            self._dropping[found] = None  # a dead letter waits for no room, whatever the policy
        return found
