"""The broker as an App has it: a peer of the hub, which it may have brought along."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from itertools import count
from time import monotonic
from typing import Any
from urllib.parse import quote

import anyio
from anyio.lowlevel import current_token

from dpcore import Broker, Event, Exchange, Feed, Interest
from dpcore.errors import BrokerRefusedError, BrokerStateError, DpcoreError, PayloadError
from dpcore.events import encode_many
from dpcore_plugins.brokers.multiprocess.arrival import connect
from dpcore_plugins.brokers.multiprocess.feeds import MemberFeed, ReaderFeed
from dpcore_plugins.brokers.multiprocess.link import Link
from dpcore_plugins.brokers.multiprocess.places import Folder, Place, Transport
from dpcore_plugins.brokers.multiprocess.thread import HubThread
from dpcore_plugins.brokers.multiprocess.wire import Kind, alike, packed, unpacked

__all__ = ("MultiprocessBroker",)

_PATIENCE = 10.0  # seconds in which a hub that begins or ends is waited for
_GOOD_BYE = 2.0  # seconds in which a hub says what it took of what was published last
_PIECE = 1 << 16  # bytes that are published in one frame, if they are of several events
_MANY = 1024  # events in one frame
_ALIKE = 8  # events of one topic from which on the hub does not look at them


class MultiprocessBroker(Broker):
    """Carries events between the processes of one machine, through a hub that lives with one of them.

    Whoever enters first at *path* is the hub, for as long as it stays; others join
    it, by :attr:`address` from other processes.  Without a path the hub is in a private
    folder.  With *serve* true it must be the hub, with false it only joins.  When the hub
    goes, all that it held is gone, and its peers get
    :class:`~dpcore.errors.BrokerLostError` in whatever they wait for.

    What was being published may have been taken although :meth:`publish` raises, in two
    more cases than that: when the hub does not say within a second that it took it back,
    because its process is stopped (then a timeout and a cancellation go on as they should),
    and when it is cancelled by means of asyncio alone, ``Task.cancel()`` or
    ``asyncio.timeout()``, which come once and cannot be left unheeded.  Against the latter
    use ``publish(timeout=...)`` or a scope of anyio: these raise only if the event was not
    published.

    Who may come in is who can read the key file *key*, by default beside the path; the
    hub makes it, for its user only.  *transport* is ``"unix"``, or ``"tcp"`` on the
    loopback, where the path is a file that tells the port.

    These are the hub's: *retain*, *total* and *max_deliveries*, as the memory broker
    has them, and *max_payload*, the bytes that one event may have.
    """

    capabilities = frozenset({"blocks", "completes", "delay", "groups", "keys", "processes", "retains"})

    def __init__(
        self,
        path: str | None = None,
        *,
        serve: bool | None = None,
        retain: int = 10_000,
        total: int = 100_000,
        max_deliveries: int = 5,
        drain: float = 5.0,
        key: str | None = None,
        max_payload: int = 16 << 20,
        transport: Transport | None = None,
    ) -> None:
        for name, value, least in (
            ("retain", retain, 0),
            ("total", total, 1),
            ("max_deliveries", max_deliveries, 1),
            ("max_payload", max_payload, 1),
        ):
            if value < least:
                raise ValueError(f"{name}={value!r} must be at least {least}")
        if max_payload > 1 << 30:
            raise ValueError(f"max_payload={max_payload!r} must be at most {1 << 30}")
        if drain < 0:
            raise ValueError(f"drain={drain!r} must be at least 0 seconds")
        if path is None and serve is False:
            raise ValueError("serve=False must come with the path of a hub that is to be joined")
        self.drain = drain
        self._path, self._serve, self._key = path, serve, key
        self._transport: Transport = transport or ("unix" if hasattr(socket, "AF_UNIX") else "tcp")
        self._max_payload = max_payload
        self._settings = {"retain": retain, "total": total, "max_deliveries": max_deliveries}
        self._place: Place | None = None
        if path is not None:
            self._settle_at(path)
        self._link: Link | None = None
        self._hub: HubThread | None = None
        self._folder: Folder | None = None

    def _settle_at(self, path: str) -> None:
        self._place = place = Place(path, self._transport, self._key)
        settings = ["serve=false"]
        if self._key is not None:
            settings.append(f"key={quote(str(place.key))}")
        if self._transport == "tcp":
            settings.append("transport=tcp")
        self.address = f"multiprocess:{quote(str(place.path))}?{'&'.join(settings)}"

    def __str__(self) -> str:
        return "multiprocess" if self._place is None else str(self._place)

    @property
    def is_hub(self) -> bool:
        """Whether the hub lives with this broker."""
        return self._hub is not None

    # ------------------------------------------------------------ its life

    async def start(self) -> None:
        """Join the hub, or be it."""
        if self._path is None:
            self._folder = Folder()
            self._settle_at(str(self._folder.path / "hub.sock"))
        try:
            self._link = link = await self._entered(self._placed)
        except BaseException:
            await self._end_hub(0.0)
            raise
        link.is_own = self._hub is not None
        link.grace = self.grace
        self._numbers = count(1)
        self.wanted = link.wanted  # type: ignore[method-assign]
        self.tasks.start_soon(link.listen)
        self.tasks.start_soon(link.write)

    @property
    def _placed(self) -> Place:
        assert self._place is not None
        return self._place

    async def _entered(self, place: Place) -> Link:
        """Find a hub or become it; two that begin at the same moment agree on one."""
        serve = False if self._serve is None and not self.may_host else self._serve
        patience = monotonic() + _PATIENCE
        tried = 0
        while True:
            if serve is not False:
                claim = place.claim()
                if claim is not None:
                    exchange = Exchange(**self._settings, lost=self.lost)
                    self._hub = HubThread(claim, max_payload=self._max_payload, exchange=exchange)
                    return await connect(place)
                if serve and tried > 3:  # once may have been somebody who only looked
                    raise place.refuse("another process is the hub there", "give another path, or leave out serve=True")
            elif not place.is_served():
                raise place.refuse(
                    "there is no hub", "enter the broker that is the hub first, or leave out serve=false"
                )
            tried += 1
            if not serve:
                try:
                    return await connect(place)
                except (FileNotFoundError, ConnectionError) as error:
                    if isinstance(error, BrokerRefusedError):
                        raise
                    if monotonic() > patience:
                        raise place.refuse(
                            "the process that is the hub there, or is about to be, lets nobody in",
                            f"see which one has {place.lock} open",
                        ) from error
                except PermissionError as error:
                    raise place.refuse(f"this user may not go there: {error}", "be the user of the hub") from error
            await anyio.sleep(0.02)

    async def stop(self, drain: float) -> None:
        """Let readers read what is left, for *drain* seconds, and disconnect; the hub goes with its App."""
        link, self._link = self._link, None
        del self.wanted
        if link is None:
            return
        link.is_leaving = True
        try:
            if self._hub is not None:
                await self._end_hub(drain)
            else:
                await self._leave(link, drain)
        finally:
            await link.leave()

    async def _leave(self, link: Link, drain: float) -> None:
        with anyio.move_on_after(_GOOD_BYE) as patience:
            try:
                await link.ask(Kind.LEAVE)
            except DpcoreError:  # then nothing is left to be read
                return
        if patience.cancelled_caught:  # its process is stopped
            return
        for hearer in [*link.hearers.values()]:
            if isinstance(hearer, MemberFeed):
                hearer.release()
        with anyio.move_on_after(drain):
            await link.idle()

    async def _end_hub(self, drain: float) -> None:
        hub, self._hub = self._hub, None
        if hub is not None:
            ended = anyio.Event()
            ring = _ringer()
            hub.leave(drain, ring, ended.set)
            with anyio.CancelScope(shield=True):
                await ended.wait()
            hub.join()
        if self._folder is not None:
            self._folder.remove()
            self._folder = None

    def _joined(self) -> Link:
        if self._link is None:
            raise BrokerStateError(str(self), "is not entered, or was left")
        return self._link

    # ------------------------------------------------------------ publishing

    async def send(self, events: Sequence[Event]) -> None:
        """Have the hub take *events*; wait for room where a reader's policy says so."""
        link = self._joined()
        me = self.this_task()
        if len(events) == 1:
            body = encode_many(events)
            if len(body) > link.max_payload:
                raise self._too_large(link, events[0], body)
            await link.publish(Kind.PUBLISH, 1, body, events[0].topic, me)
            return
        most = min(link.max_payload, 2 * _PIECE)
        many = max(1, min(_MANY, _PIECE // len(encode_many(events[:1]))))
        at = 0
        while at < len(events):
            piece = list(events[at : at + many])
            body = encode_many(piece)
            if len(body) > most and len(piece) > 1:
                many = max(1, len(piece) // 2)
                continue
            if len(body) > link.max_payload:
                raise self._too_large(link, piece[0], body)
            kind, topic, some = Kind.PUBLISH, piece[0].topic, len(piece)
            if (
                some >= _ALIKE
                and [one.topic for one in piece].count(topic) == [one.key for one in piece].count(None) == some
            ):
                kind, body = Kind.ALIKE, alike(topic, body)
            await link.publish(kind, some, body, topic, me)
            at += some

    def _too_large(self, link: Link, event: Event, body: bytes) -> PayloadError:
        return PayloadError(
            event.topic,
            "",
            f"takes {len(body)} bytes, and the hub takes {link.max_payload} at the most",
            "publish where it can be read, such as a Ref or a path, or give the hub's App a larger max_payload=",
        )

    # ------------------------------------------------------------ topics and subscriptions

    async def topics(self) -> list[str]:
        """Return the topics that were declared or published to, in any process."""
        found: list[str] = unpacked(await self._joined().ask(Kind.TOPICS), list[str])
        return found

    async def arrange(self, topic: str, interests: Sequence[Interest]) -> None:
        """Make *topic* known, and groups that read it."""
        await self._joined().ask(Kind.DECLARE, 0, packed((topic, list(interests))))

    async def dissolve(self, group: str) -> bool:
        """Have the hub forget *group* and all that it holds."""
        return bool(unpacked(await self._joined().ask(Kind.DISBAND, 0, packed(group)), bool))

    async def end(self, topic: str) -> None:
        """Complete *topic*."""
        await self._joined().ask(Kind.COMPLETE, 0, packed(topic))

    async def open(self, interest: Interest) -> Feed:
        """Begin a subscription."""
        link = self._joined()
        kind = ReaderFeed if interest.group is None else MemberFeed
        feed: ReaderFeed | MemberFeed = kind(link, next(self._numbers), interest, self.this_task())
        try:
            await link.ask(Kind.OPEN, feed.number, packed(interest))
        except BaseException:
            link.forget(feed.number, closed=False)
            raise
        if isinstance(feed, ReaderFeed):
            feed.begin()
        return feed


def _ringer() -> Callable[[Callable[[], None]], object]:
    """Return what has the running event loop call something soon, told from any thread."""
    loop: Any = current_token().native_token
    ring: Callable[[Callable[[], None]], object] = getattr(loop, "run_sync_soon", None) or loop.call_soon_threadsafe
    return ring
