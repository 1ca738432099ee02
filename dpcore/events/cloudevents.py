"""Events as CloudEvents 1.0, the form in which systems of different makers tell each other what happened.

Both modes of its HTTP binding: *structured*, where the body is one JSON document,
and *binary*, where the body is the payload and all else is in headers that begin
with ``ce-``.  What is what (sections 3.1 of the specification, of its JSON format
and of its HTTP binding; its extensions for partitioning, tracing and correlation):

=========================  ============================================================
of the event               of the CloudEvent
=========================  ============================================================
``id``, ``source``,        the same; both are required there, and a source is a URI
``time``                   reference, as ``orders`` and ``/shop/7`` are
``type``                   ``type``; ``dpcore.event`` if it is empty
``topic``                  the extension ``topic``
``key``                    the extension ``partitionkey``
header ``traceparent``,    the extensions of these names
``tracestate``
header ``correlation-id``  the extensions ``correlationid`` and ``causationid``
and ``causation-id``
header ``subject``,        the attributes of these names
``dataschema``,
``datacontenttype``
any other header           an extension of its name, if it may be one (a-z and 0-9, up to 20);
                           all others together are JSON in the extension ``dpcoreheaders``
``data``                   JSON; bytes are base64 or the body, ``application/octet-stream``;
                           text is itself if the header ``datacontenttype`` says ``text/...``
=========================  ============================================================

JSON knows fewer types than the wire form: times, UUIDs and Decimals are text, bytes
within a payload base64, keys text.  A reader who says the type gets them back.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from urllib.parse import quote, unquote_to_bytes

import msgspec

from dpcore.errors import ArgumentError, CloudEventError
from dpcore.events.envelope import CAUSATION_ID, CORRELATION_ID, Event, check_event
from dpcore.events.payloads import SENSELESS, plain, refusal
from dpcore.words import printed

__all__ = ("from_cloudevent", "to_cloudevent")

_SPECVERSION = "1.0"
_FORMAT = "application/cloudevents"
_JSON = "application/json"
_BYTES = "application/octet-stream"
_UNTYPED = "dpcore.event"
_OTHERS = "dpcoreheaders"

_CONTENT_TYPE = "datacontenttype"
_OF_HEADERS = {CORRELATION_ID: "correlationid", CAUSATION_ID: "causationid"}
_TO_HEADERS = {extension: header for header, extension in _OF_HEADERS.items()}
_CORE = ("specversion", "id", "source", "type", "time")
_TAKEN = {*_CORE, "data", "topic", "partitionkey", _OTHERS, _CONTENT_TYPE, *_TO_HEADERS}
_EXTENSION = re.compile(r"[a-z0-9]{1,20}\Z")

# The characters that text may not have there: controls, halves of surrogate pairs and what Unicode calls noncharacters.
_FORBIDDEN = re.compile(
    "[\0-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef" + "".join(f"{chr(n + 0xFFFE)}{chr(n + 0xFFFF)}" for n in range(0, 0x110000, 0x10000)) + "]"
)  # fmt: skip
_URI_REFERENCE = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+\Z")
_AS_THEY_ARE = "".join(chr(n) for n in range(0x21, 0x7F) if chr(n) not in '"%')

Headers = Mapping[str, str]


# ---------------------------------------------------------------- writing


def to_cloudevent(event: Event, mode: Literal["structured", "binary"] = "structured") -> tuple[dict[str, str], bytes]:
    """Return the HTTP headers and the body that tell *event* as a CloudEvent.

    Raises :class:`~dpcore.errors.CloudEventError` for what a CloudEvent cannot say,
    such as an event that was not published and so has no id, and
    :class:`~dpcore.errors.PayloadError` for a payload that JSON cannot say.

    >>> headers, body = to_cloudevent(Event("orders.paid", {"id": 7}, id="1", source="shop"))
    >>> headers
    {'content-type': 'application/cloudevents+json'}
    >>> body.decode()
    '{"specversion":"1.0","id":"1","source":"shop","type":"dpcore.event","topic":"orders.paid","datacontenttype":"application/json","data":{"id":7}}'
    """
    if mode not in ("structured", "binary"):
        raise ArgumentError("mode", mode, "'structured' or 'binary'")
    attributes = _attributes(check_event(event))
    content_type, data = _content(event)
    if mode == "binary":
        headers = {f"ce-{name}": quote(value, safe=_AS_THEY_ARE) for name, value in attributes.items()}
        return ({**headers, "content-type": content_type} if content_type else headers), _body(content_type, data)
    document: dict[str, Any] = {**attributes, _CONTENT_TYPE: content_type} if content_type else {**attributes}
    if isinstance(data, bytes):
        document["data_base64"] = base64.b64encode(data).decode()
    elif data is not None:
        document["data"] = data
    return {"content-type": f"{_FORMAT}+json"}, _json(document)


def _attributes(event: Event) -> dict[str, str]:
    """Return all that is said of *event* beside its payload."""
    if not (event.id and event.source):
        raise CloudEventError(
            "write", f"its id is {event.id!r} and its source {event.source!r}; it has both once it is published"
        )
    if not _URI_REFERENCE.match(event.source):
        raise CloudEventError(
            "write",
            f"its source {printed(event.source)} is no URI reference; leave out blanks and letters beyond ASCII",
        )
    attributes = {"specversion": _SPECVERSION, "id": event.id, "source": event.source, "type": event.type or _UNTYPED}
    if event.time:
        attributes["time"] = f"{datetime.fromtimestamp(event.time, UTC).replace(tzinfo=None).isoformat()}Z"
    attributes["topic"] = event.topic
    if event.key is not None:
        attributes["partitionkey"] = event.key
    for name, value in attributes.items():
        if not _is_sound(value):
            raise CloudEventError(
                "write", f"its {name} is {printed(value)}; it must be text without control characters, and not empty"
            )
    return {**attributes, **_extensions(event.headers or {})}


def _extensions(headers: Headers) -> dict[str, str]:
    found: dict[str, str] = {}
    others: dict[str, str] = {}
    for name, value in headers.items():
        extension = _OF_HEADERS.get(name, name)
        free = extension != name or (name not in _TAKEN and _EXTENSION.match(name))
        if free and _is_sound(value):
            found[extension] = value
        elif name != _CONTENT_TYPE:
            others[name] = value
    if others:
        found[_OTHERS] = json.dumps(others, separators=(",", ":"))  # in ASCII, whatever is in it
    return found


def _is_sound(text: str) -> bool:
    return bool(text) and not _FORBIDDEN.search(text)


def _content(event: Event) -> tuple[str | None, Any]:
    """Return the type of the content, and the payload: bytes, None, or what JSON has words for."""
    data, declared = event.data, (event.headers or {}).get(_CONTENT_TYPE)
    if declared is not None and not _is_sound(declared):
        raise CloudEventError("write", f"its header {_CONTENT_TYPE!r} is {printed(declared)}")
    if data is None:
        return declared, None
    if isinstance(data, (bytes, bytearray, memoryview)):
        return declared or _BYTES, bytes(data)
    if declared is None or _is_json(declared):
        return declared or _JSON, _plain(event)
    if isinstance(data, str):
        return declared, data
    raise CloudEventError(
        "write",
        f"its header {_CONTENT_TYPE!r} is {declared!r}, and its payload neither str nor bytes but {printed(data, 80)}",
    )


def _plain(event: Event) -> Any:
    """Return the payload of *event* as JSON can say it."""
    try:
        _json(found := _builtins(event.data))
    except Exception as error:
        raise refusal(event.topic, event.data, lambda value: _json(_builtins(value)), error) from error
    return found


def _builtins(data: Any) -> Any:
    return msgspec.to_builtins(data, enc_hook=plain, str_keys=True)


def _json(value: Any) -> bytes:
    # Not msgspec's, which writes null for nan.
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _body(content_type: str | None, data: Any) -> bytes:
    if content_type is None or data is None:
        return b""
    if isinstance(data, bytes):
        return data
    if _is_json(content_type):
        return _json(data)
    try:
        return str(data).encode(_charset(content_type))
    except (LookupError, UnicodeError) as error:
        raise CloudEventError("write", f"its payload cannot be written as {content_type!r}: {error}") from error


# ---------------------------------------------------------------- reading


def from_cloudevent(headers: Headers, body: bytes | str) -> Event:
    """Return the event that an HTTP message tells, in whichever of the two modes.

    The names of *headers* may be in any case.  Of a CloudEvent that has no extension
    ``topic``, because dpcore did not write it, the topic is its subject, or else its type; that
    this is a topic is not checked.  Attributes that dpcore does not know are headers.

    Raises :class:`~dpcore.errors.CloudEventError` that says what is wrong with it.

    >>> from_cloudevent({"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "io.paid"}, b"")
    Event('io.paid', None, id='1', source='/s', type='io.paid')
    """
    lower = {name.lower(): value for name, value in headers.items()}
    content_type = lower.get("content-type")
    written = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else bytes(body)
    media = _media(content_type or "")
    if media.startswith(_FORMAT):
        if media != f"{_FORMAT}+json":
            raise CloudEventError(
                "read", f"its content type is {content_type!r}, and dpcore reads '{_FORMAT}+json', one event at a time"
            )
        return _structured(written)
    attributes = {name[3:]: _unquoted(name, value) for name, value in lower.items() if name.startswith("ce-")}
    if not attributes:
        raise CloudEventError(
            "read",
            f"it has neither headers that begin with 'ce-' nor the content type '{_FORMAT}+json', but {content_type!r}",
        )
    data = _read(content_type, written)
    attributes.pop(_CONTENT_TYPE, None)
    if content_type is not None:
        attributes[_CONTENT_TYPE] = content_type
    return _event(attributes, data)


def _structured(body: bytes) -> Event:
    document = _parsed(body, "its body")
    if not isinstance(document, dict):
        raise CloudEventError("read", f"its body is {printed(document, 80)}, and not a JSON object")
    attributes = {
        name: _text(name, value)
        for name, value in document.items()
        if name not in ("data", "data_base64") and value is not None
    }
    data, encoded = document.get("data"), document.get("data_base64")
    if encoded is None:
        return _event(attributes, data)
    if data is not None:
        raise CloudEventError("read", "it has both 'data' and 'data_base64'")
    try:
        data = base64.b64decode(encoded, validate=True)
    except (ValueError, TypeError) as error:
        raise CloudEventError("read", f"its 'data_base64' is no base64: {error}") from error
    return _event(attributes, _read(attributes.get(_CONTENT_TYPE), data))


def _text(name: str, value: Any) -> str:
    """Return the value of an attribute as its text; those of extensions may be of other types there."""
    if isinstance(value, str):
        return value
    if name in (*_CORE, "subject", "dataschema", _CONTENT_TYPE) or not isinstance(value, (bool, int)):
        raise CloudEventError("read", f"its {name!r} is {printed(value, 80)}, and not text")
    return str(value).lower()  # true and false, as the specification has them


def _unquoted(name: str, value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError as error:
        raise CloudEventError("read", f"its header {name!r} is {printed(value)}: {error}") from error


def _event(attributes: dict[str, str], data: Any) -> Event:
    """Make the event of the text of its *attributes*."""
    if (version := attributes.pop("specversion", None)) != _SPECVERSION:
        said = "it has no 'specversion'" if version is None else f"its 'specversion' is {printed(version)}"
        raise CloudEventError("read", f"{said}, and dpcore reads {_SPECVERSION!r}")
    if missing := [name for name in ("id", "source", "type") if not attributes.get(name)]:
        raise CloudEventError("read", f"it has no {' and no '.join(map(repr, missing))}")
    time = attributes.pop("time", None)
    event_id, source, kind = (attributes.pop(name) for name in ("id", "source", "type"))
    topic = attributes.pop("topic", "") or attributes.get("subject", "") or kind
    key = attributes.pop("partitionkey", "") or None
    if attributes.get(_CONTENT_TYPE) == (_BYTES if isinstance(data, bytes) else _JSON):
        del attributes[_CONTENT_TYPE]  # what is said of such a payload anyway
    others = _other_headers(attributes.pop(_OTHERS, None))
    headers = {_TO_HEADERS.get(name, name): value for name, value in attributes.items()} | others
    kind = "" if kind == _UNTYPED else kind
    return Event(topic, data, event_id, _read_time(time), source, kind, key, headers or None)


def _other_headers(text: str | None) -> dict[str, str]:
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not (isinstance(found, dict) and all(isinstance(value, str) for value in found.values())):
        raise CloudEventError("read", f"its {_OTHERS!r} is {printed(text)}, and not a JSON object of text")
    return found


def _read_time(text: str | None) -> float:
    if text is None:
        return 0.0
    try:
        found: datetime = msgspec.convert(text, Annotated[datetime, msgspec.Meta(tz=True)])
        if (time := found.timestamp()) < 0:
            raise ValueError("it is before 1970")
        return time
    except SENSELESS as error:
        raise CloudEventError("read", f"its 'time' is {printed(text)}: {error}") from error


def _read(content_type: str | None, body: bytes) -> Any:
    """Make the payload of bytes, as their *content_type* says."""
    if content_type is None:
        return body or None
    if _is_json(content_type):
        return _parsed(body, "its payload") if body else None
    if not _media(content_type).startswith("text/"):
        return body
    try:
        return body.decode(_charset(content_type))
    except (LookupError, UnicodeError) as error:
        raise CloudEventError("read", f"its payload cannot be read as {content_type!r}: {error}") from error


def _parsed(body: bytes, what: str) -> Any:
    try:
        return msgspec.json.decode(body)
    except SENSELESS as error:
        raise CloudEventError("read", f"{what} is no JSON: {error}") from error


def _media(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _is_json(content_type: str) -> bool:
    return _media(content_type).endswith(("/json", "+json"))


def _charset(content_type: str) -> str:
    found = re.search(r";\s*charset\s*=\s*\"?([^\s\";]+)", content_type, re.IGNORECASE)
    return found[1] if found else "utf-8"
