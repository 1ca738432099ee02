"""The form in which events travel between processes: msgpack, and never pickle.

An event is an array: the version of the form, then the fields of
:class:`~dpcore.events.envelope.Event` in their order.  So its second byte is the
version.  Who reads takes what follows the fields it knows for those of a later release,
and has a default for each that is not there; another version is refused.  Many events
are an array of these.  How payloads are written stands in :mod:`dpcore.events.payloads`.

The payload stays as it is where an event is only passed on: ``decode_packed`` reads
what is around it, and what it gives encodes to the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from dpcore.errors import PayloadError, WireError
from dpcore.events.envelope import VERSION, Event, Packed, check_event
from dpcore.events.payloads import SENSELESS, PayloadReader, plain, refusal

__all__ = (
    "decode",
    "decode_many",
    "decode_packed",
    "decode_packed_many",
    "encode",
    "encode_many",
    "pack",
    "strict",
    "unpack",
)

T = TypeVar("T")

_write = msgspec.msgpack.Encoder(enc_hook=plain).encode
_read: Callable[[Any], Any] = msgspec.msgpack.Decoder().decode
_read_event = msgspec.msgpack.Decoder(Event).decode
_read_events = msgspec.msgpack.Decoder(list[Event]).decode
_read_packed = msgspec.msgpack.Decoder(Packed).decode
_read_packed_many = msgspec.msgpack.Decoder(list[Packed]).decode


def encode(event: Event | Packed) -> bytes:
    """Write *event* as bytes.

    Raises :class:`~dpcore.errors.PayloadError` if its payload does not travel.  What
    is around the payload is not checked (:func:`~dpcore.events.envelope.check_event` does).

    >>> decode(encode(Event("orders.eu.paid", {"id": 7})))
    Event('orders.eu.paid', {'id': 7})
    """
    try:
        return _write(event)
    except Exception as error:  # what is written is anybody's
        raise _unwritten(event, error) from error


def encode_many(events: Sequence[Event | Packed]) -> bytes:
    """Write *events*, a list or a tuple, as bytes: one by one they would take longer.

    Raises :class:`~dpcore.errors.PayloadError` for the first that does not travel.
    """
    try:
        return _write(events)
    except Exception:
        for event in events:
            encode(event)
        raise


def pack(event: Event) -> Packed:
    """Encode the payload of *event*, once for however many it is sent to.

    Raises :class:`~dpcore.errors.PayloadError` if it does not travel.
    """
    try:
        data = msgspec.Raw(_write(event.data))
    except Exception as error:
        raise _unwritten(event, error) from error
    return Packed(event.topic, data, event.id, event.time, event.source, event.type, event.key, event.headers)


def _unwritten(event: Event | Packed, error: Exception) -> PayloadError:
    try:
        _write(event.data)
    except Exception as raised:  # noqa: BLE001
        return refusal(event.topic, event.data, _write, raised)
    if isinstance(event, Event):
        check_event(event)  # then it is not the payload
    return PayloadError(event.topic, "", f"cannot be written: {error}", "see what is beside the payload")


def decode(raw: bytes | memoryview, reader: PayloadReader | None = None) -> Event:
    """Read the event that :func:`encode` wrote, its payload as the type of *reader*.

    Raises :class:`~dpcore.errors.WireError` if these bytes are no event, and
    :class:`~dpcore.errors.PayloadError` if they are one whose payload is not of that type.
    """
    if reader is not None:
        return unpack(decode_packed(raw), reader)
    return _understood(_read_event, raw)


def decode_many(raw: bytes | memoryview, reader: PayloadReader | None = None) -> list[Event]:
    """Read the events that :func:`encode_many` wrote; otherwise as :func:`decode`."""
    if reader is not None:
        return [unpack(packed, reader) for packed in decode_packed_many(raw)]
    return _understood(_read_events, raw)


def decode_packed(raw: bytes | memoryview) -> Packed:
    """Read an event without its payload.

    That the payload is one whole value is known then, but not that it makes sense.
    Raises :class:`~dpcore.errors.WireError` if these bytes are no event.
    """
    return _understood(_read_packed, raw)


def decode_packed_many(raw: bytes | memoryview) -> list[Packed]:
    """Read the events that :func:`encode_many` wrote, without their payloads, as :func:`decode_packed`."""
    return _understood(_read_packed_many, raw)


def unpack(packed: Packed, reader: PayloadReader | None = None) -> Event:
    """Decode the payload of *packed*, as the type of *reader*; raises what :func:`decode` does."""
    if reader is None:
        data = _understood(_read, packed.data)
    else:
        try:
            data = reader.decoded(packed.data, packed.topic)
        except PayloadError:
            raise
        except SENSELESS as error:
            raise WireError(f"the payload is no msgpack: {error}") from error
    return Event(packed.topic, data, packed.id, packed.time, packed.source, packed.type, packed.key, packed.headers)


def strict(event: Event) -> Event:
    """Return *event* as it would come out of another process, so that what would go wrong there does so here.

    Raises :class:`~dpcore.errors.PayloadError` or :class:`~dpcore.errors.ArgumentError`.

    >>> strict(Event("a", (1, {2})))
    Event('a', [1, [2]])
    """
    return decode(encode(check_event(event)))


def _understood(read: Callable[[Any], T], raw: Any) -> T:
    try:
        return read(raw)
    except SENSELESS as error:
        version = _version(raw)
        if version not in (None, VERSION):
            raise WireError(
                f"they are written in version {version} of the wire form, and this dpcore reads version {VERSION}",
                "have the same release of dpcore on both sides",
            ) from error
        raise WireError(str(error)) from error


def _version(raw: Any) -> int | None:
    """Return the version that these bytes seem to be written in; None if they seem to be no events at all."""
    try:
        found = _read(raw)
        while isinstance(found, list):
            found = found[0]
    except (*SENSELESS, IndexError):
        return None
    return found if type(found) is int else None
