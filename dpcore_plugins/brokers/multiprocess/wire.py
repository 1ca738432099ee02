"""What the hub and its peers say to each other: frames, their kinds, and how two of them come to trust each other.

First both sides prove that they know the key, in a few bytes of fixed length
(:func:`greeting`, :func:`proof`, :func:`verdict`): nothing else of a stranger is looked at.
From then on everything is a frame: its length, its kind, a number (of a request or a
subscription), a count, and a body in msgpack.  Events are in it as
:func:`dpcore.events.encode_many` writes them.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

__all__ = (
    "GREETING",
    "PROOF",
    "PROTOCOL",
    "VERDICT",
    "Cut",
    "Frame",
    "Given",
    "Kind",
    "NonsenseError",
    "Outcome",
    "Outcomes",
    "Welcome",
    "alike",
    "frame",
    "greeting",
    "packed",
    "proof",
    "read_alike",
    "read_greeting",
    "read_proof",
    "read_verdict",
    "unpacked",
    "verdict",
)

PROTOCOL: Final = 1
"""The version of all of this; two that speak different ones say so and part."""

_HEAD = struct.Struct(">IBII")
_MAGIC = b"dpcore hub"
_NONCE = 32
_MAC = 32


class NonsenseError(ValueError):
    """The other side said what this protocol has no place for."""


class Kind:
    """The kinds of frames; in brackets what number and count stand for, then the body."""

    # from a peer
    PUBLISH: Final = 1  # (request, events) events
    WITHDRAW: Final = 2  # (request)
    OPEN: Final = 3  # (request, feed) the interest
    CLOSE: Final = 4  # (request, feed)
    ASK: Final = 5  # (feed, events that may be sent beyond those asked for before)
    READ: Final = 6  # (feed, events that were read and take no room any more)
    SETTLE: Final = 7  # (feed, events that were begun) what became of which
    DECLARE: Final = 8  # (request) topic, interests
    COMPLETE: Final = 9  # (request) topic
    TOPICS: Final = 10  # (request)
    LEAVE: Final = 11  # (request)
    ALIKE: Final = 12  # (request, events) the topic that all of them have, and events without a key
    # from the hub
    WELCOME: Final = 32  # what holds here
    ANSWER: Final = 33  # (request) value, or nothing
    REFUSE: Final = 34  # (request) name and arguments of an error
    WITHDRAWN: Final = 35  # (request, events that were taken before)
    BLOCKED: Final = 36  # (request) feeds, the reader in words, its capacity
    EVENTS: Final = 37  # (feed, events) events
    GIVEN: Final = 38  # (feed, events) their numbers and attempts, and the events
    ENDED: Final = 39  # (feed, 1 if the hub goes)
    DROPPED: Final = 40  # (feed) how many in all
    TIGHT: Final = 41  # (feed)
    RECALL: Final = 42  # (feed, events)
    WANTED: Final = 43  # patterns of the platform's own topics that are read
    BYE: Final = 44  # why


Frame = tuple[int, int, int, bytes]
"""One thing that was said: its kind, a number, a count, and a body."""


Outcome = tuple[int, Literal["nack", "reject", "release"], float, str]
"""What became of one event that was not acked: its number, what, after how many seconds again, and why."""


class Outcomes(msgspec.Struct, array_like=True):
    """What became of events that a member was given, by their numbers."""

    acks: list[int] = []
    others: list[Outcome] = []


class Given(msgspec.Struct, array_like=True):
    """Events for a member: their numbers in the group, which attempt each is, and themselves."""

    numbers: list[int]
    attempts: list[int]
    events: msgspec.Raw


class Welcome(msgspec.Struct, array_like=True):
    """What a peer learns when it comes in."""

    pid: int
    max_payload: int
    wanted: list[str]


def alike(topic: str, events: bytes) -> bytes:
    """Write the body of events that have one topic and no keys, so that the hub need not look at them.

    >>> read_alike(alike("t", b"..."))
    ('t', b'...')
    """
    name = topic.encode()
    return b"".join((len(name).to_bytes(2, "big"), name, events))


def read_alike(body: bytes) -> tuple[str, bytes]:
    """Return the topic and the events; raises :class:`NonsenseError`."""
    end = 2 + int.from_bytes(body[:2], "big")
    try:
        return body[2:end].decode(), body[end:]
    except UnicodeDecodeError as error:
        raise NonsenseError(f"a topic is no text: {error}") from error


packed = msgspec.msgpack.Encoder().encode


def unpacked(body: bytes, kind: Any) -> Any:
    """Read *body* as *kind*; raises :class:`NonsenseError`."""
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise NonsenseError(f"a body is no {kind}: {error}") from error


def frame(kind: int, number: int = 0, count: int = 0, body: bytes = b"") -> bytes:
    """Write one frame.

    >>> Cut(100).cut(frame(Kind.ASK, 7, 256))
    [(5, 7, 256, b'')]
    """
    return _HEAD.pack(len(body), kind, number, count) + body


class Cut:
    """Cuts what comes in into frames; *most* bytes of a body are the most.

    >>> cut = Cut(100)
    >>> cut.cut(b"\\0\\0\\0"), cut.cut(b"\\2\\x21\\0\\0\\0\\1\\0\\0\\0\\0hi\\0")
    ([], [(33, 1, 0, b'hi')])
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._rest = bytearray()
        self._needed = 0

    def cut(self, data: bytes) -> list[Frame]:
        """Return the frames that are whole now; raises :class:`NonsenseError` for one that is too large."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return []
            data = bytes(self._rest)
            self._rest.clear()
        frames: list[Frame] = []
        at, end, head = 0, len(data), _HEAD.size
        while end - at >= head:
            length, kind, number, count = _HEAD.unpack_from(data, at)
            if length > self._most:
                raise NonsenseError(f"a frame of {length} bytes; {self._most} are the most")
            stop = at + head + length
            if stop > end:
                self._needed = stop - at
                break
            frames.append((kind, number, count, data[at + head : stop]))
            at = stop
        else:
            self._needed = head
        if at < end:
            self._rest += memoryview(data)[at:]
        return frames


# ---------------------------------------------------------------- coming in

GREETING: Final = len(_MAGIC) + 1 + _NONCE
"""Length of what the hub says first: that it is one, its version, and its challenge."""
PROOF: Final = len(_MAGIC) + 1 + _NONCE + _MAC
"""Length of what the peer says to that: its version, its own challenge, and that it knows the key."""
VERDICT: Final = 1 + _MAC
"""Length of the hub's answer: how it decided, and that it knows the key as well."""


def greeting(nonce: bytes) -> bytes:
    """Write what the hub says first."""
    return _MAGIC + bytes([PROTOCOL]) + nonce


def read_greeting(said: bytes) -> tuple[int, bytes]:
    """Return the hub's version and its challenge; raises :class:`NonsenseError` if that is no hub."""
    return _read(said)


def proof(key: bytes, hub_nonce: bytes, nonce: bytes) -> bytes:
    """Write what a peer says to a greeting."""
    return _MAGIC + bytes([PROTOCOL]) + nonce + _mac(key, b"peer", hub_nonce, nonce)


def read_proof(key: bytes, hub_nonce: bytes, said: bytes) -> tuple[int, bytes, bool]:
    """Return the peer's version, its challenge, and whether it knows the key."""
    version, nonce = _read(said[:-_MAC])
    return version, nonce, hmac.compare_digest(said[-_MAC:], _mac(key, b"peer", hub_nonce, nonce))


def verdict(key: bytes, hub_nonce: bytes, nonce: bytes, *, welcome: bool) -> bytes:
    """Write what the hub says to a proof; who does not know the key learns nothing of it."""
    return b"\1" + _mac(key, b"hub", hub_nonce, nonce) if welcome else bytes(VERDICT)


def read_verdict(key: bytes, hub_nonce: bytes, nonce: bytes, said: bytes) -> tuple[bool, bool]:
    """Return whether the hub lets us in, and whether it knows the key itself."""
    return said[:1] == b"\1", hmac.compare_digest(said[1:], _mac(key, b"hub", hub_nonce, nonce))


def _read(said: bytes) -> tuple[int, bytes]:
    if not said.startswith(_MAGIC):
        raise NonsenseError(f"it began with {said[:16]!r}")
    return said[len(_MAGIC)], said[len(_MAGIC) + 1 :]


def _mac(key: bytes, who: bytes, *nonces: Sequence[int]) -> bytes:
    return hmac.digest(key, b"\0".join([who, bytes([PROTOCOL]), *map(bytes, nonces)]), "sha256")
