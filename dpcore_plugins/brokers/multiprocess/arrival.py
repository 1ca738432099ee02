"""How a peer comes in: it connects, and both sides prove that they know the key."""

from __future__ import annotations

import os
import secrets
import socket
from typing import Any

import anyio

from dpcore_plugins.brokers.multiprocess.link import Link
from dpcore_plugins.brokers.multiprocess.places import Place
from dpcore_plugins.brokers.multiprocess.wire import (
    GREETING,
    PROTOCOL,
    VERDICT,
    Cut,
    Frame,
    NonsenseError,
    Welcome,
    proof,
    read_greeting,
    read_verdict,
    unpacked,
)

__all__ = ("connect",)

_PATIENCE = 5.0  # seconds that a hub may take to let a peer in; as long as it waits for the key
_MOST = 1 << 31  # bytes in a frame of the hub, which this side trusts


async def connect(place: Place) -> Link:
    """Come in at *place*; raises FileNotFoundError or ConnectionError while nobody is there."""
    key = place.read_key()
    family, address = place.target()
    connection = socket.socket(family)
    try:
        connection.settimeout(0)
        if family == socket.AF_INET:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with anyio.move_on_after(_PATIENCE) as patience:
            await _connected(connection, address)
            link = await _introduced(place, connection, key)
        if patience.cancelled_caught:
            raise place.refuse(f"nobody answered within {_PATIENCE:g} seconds", "see whether its process is stopped")
    except BaseException:
        connection.close()
        raise
    return link


async def _connected(connection: socket.socket, address: Any) -> None:
    while True:
        try:
            connection.connect(address)
        except BlockingIOError:
            if connection.family == socket.AF_INET:
                await anyio.wait_writable(connection)
                if code := connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise ConnectionRefusedError(code, os.strerror(code)) from None
                return
            await anyio.sleep(0.01)  # a Unix socket whose hub has many to let in
        else:
            return


async def _introduced(place: Place, connection: socket.socket, key: bytes) -> Link:
    """Prove that each knows the key, and return the link."""
    try:
        version, hub_nonce = read_greeting(await _exactly(connection, GREETING))
    except NonsenseError as error:
        raise place.refuse(f"what listens there is no hub: {error}", "give another path") from None
    if version != PROTOCOL:
        raise place.refuse(
            f"its hub speaks version {version} of the protocol, and this dpcore version {PROTOCOL}",
            "have the same release of dpcore in both processes",
        )
    nonce = secrets.token_bytes(32)
    connection.send(proof(key, hub_nonce, nonce))  # so few bytes always fit
    is_welcome, is_hub = read_verdict(key, hub_nonce, nonce, await _exactly(connection, VERDICT))
    if not is_welcome:
        raise place.refuse(f"its hub has another key than {place.key} holds", "give the hub's key file with ?key=")
    if not is_hub:
        raise place.refuse("what listens there does not know the key", "see who made that socket")
    cut = Cut(_MOST)
    frames: list[Frame] = []
    while not frames:
        frames = cut.cut(await _some(connection, 4096))
    link = Link(place, connection, unpacked(frames[0][3], Welcome), cut)
    for heard in frames[1:]:
        link.hear(*heard)
    return link


async def _exactly(connection: socket.socket, size: int) -> bytes:
    said = b""
    while len(said) < size:
        said += await _some(connection, size - len(said))
    return said


async def _some(connection: socket.socket, most: int) -> bytes:
    while True:
        await anyio.wait_readable(connection)
        try:
            data = connection.recv(most)
        except BlockingIOError:
            continue
        if not data:
            raise ConnectionResetError("the hub hung up")
        return data
