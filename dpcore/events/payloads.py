"""Payloads: what an event may carry, and reading it as a type.

What travels, and what is made of it by who does not say a type:

==============================================  ======================================
published                                       read without ``type=``
==============================================  ======================================
None, bool, float (also nan and inf), str       itself
int of 64 bits                                  itself; a greater one is refused
bytes, bytearray, memoryview                    bytes
list, tuple, set, frozenset, NamedTuple         list
dict; its keys as values are, a tuple a tuple   dict
datetime with a time zone                       datetime, in UTC
datetime without one, date, time                str, as ISO 8601 has it
timedelta                                       str, a duration of ISO 8601 (``P1DT2S``)
UUID, Decimal, path                             str
Enum                                            its value
dataclass, attrs, TypedDict, ``msgspec.Struct``  dict of the fields (``array_like``: list)
pydantic's models                               dict of the fields, by alias
:class:`~dpcore.jobs.Ref`                       dict of its three ids
==============================================  ======================================

A reader who says the type gets it back as it was, but that datetimes are in UTC,
and that an Enum's values must be all str or all int.  Anything else does not travel:
:class:`~dpcore.errors.PayloadError` says where it is and what to send instead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, time
from pathlib import PurePath
from typing import Any

import msgspec

from dpcore.errors import ArgumentError, PayloadError
from dpcore.events.envelope import Event
from dpcore.functions import qualified
from dpcore.hints import shown
from dpcore.hints.apart import is_typed_dict
from dpcore.hints.values import is_record
from dpcore.words import printed

__all__ = ("SENSELESS", "PayloadReader", "fit", "plain", "refusal")

# What msgspec raises over bytes that make no sense: its own errors, a ValueError over text that is no UTF-8, a
# RecursionError over lists within lists without end, an OverflowError over times beyond the calendar, a TypeError
# over keys that cannot be keys and over what is not even bytes.
SENSELESS = (msgspec.MsgspecError, ValueError, TypeError, RecursionError, OverflowError, MemoryError)


def plain(value: Any) -> Any:
    """Make of *value* what msgspec can write, where msgspec itself does not know how."""
    if hasattr(type(value), "model_dump"):  # a model of pydantic's, which is not imported for it
        # Unlike mode="json" it leaves bytes and times as they are, which the wire has words for.
        return value.model_dump(by_alias=True, round_trip=True)
    if isinstance(value, PurePath):
        return str(value)
    raise NotImplementedError


# ---------------------------------------------------------------- why a payload does not travel

_DEEPEST = 50  # that is looked into for what is wrong


def refusal(topic: str, data: Any, write: Callable[[Any], object], error: Exception) -> PayloadError:
    """Say where in *data* the value is that *write* does not take, why, and what to send instead."""
    if isinstance(error, RecursionError):
        return PayloadError(topic, "", "holds itself, or is nested too deeply", "send what is flat")
    path, value = "", data
    for _ in range(_DEEPEST):
        for inner, part in _parts(value):
            try:
                write(part)
            except Exception as raised:  # noqa: BLE001  (what is written is anybody's)
                path, value, error = f"{path}{inner}", part, raised
                break
        else:
            break
    return PayloadError(topic, path, *_why(value, error))


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what *value* is made of, each part under its path."""
    if isinstance(value, dict):
        yield from ((f" key {printed(key, 40)}", key) for key in value)
        yield from ((f"[{printed(key, 40)}]", inner) for key, inner in value.items())
    elif isinstance(value, (list, tuple)):
        yield from ((f"[{index}]", inner) for index, inner in enumerate(value))
    elif isinstance(value, (set, frozenset)):
        yield from (("{}", inner) for inner in value)
    elif is_record(type(value)) or hasattr(type(value), "model_dump"):
        fields = next((getattr(value, name) for name in _FIELDS if hasattr(value, name)), ())
        yield from ((f".{name}", getattr(value, name, None)) for name in fields)


_FIELDS = ("__struct_fields__", "__dataclass_fields__", "__dict__", "__slots__")  # where records keep their names


def _why(value: Any, error: Exception) -> tuple[str, str]:
    kind = type(value)
    if kind is int:
        return "is an int beyond 64 bits", "send it as text"
    if kind is str:
        return "is text with half a character in it, a lone surrogate", "send it as bytes"
    if kind is float:
        return f"is {value}, which JSON has no word for", "send None, or text"
    if kind is datetime:
        return f"is {value}, which is no year of UTC's calendar", "send a time within the years 1 to 9999"
    if kind is dict:
        return f"cannot be written: {error}", "send a dict whose keys are text"
    if hasattr(kind, "model_dump") or not isinstance(error, (TypeError, NotImplementedError)):
        return f"is of type {qualified(kind)} and cannot be written: {error}", "send a dict"
    return f"is of type {qualified(kind)}, which does not travel", _cure(value)


_STORED = "store it with an I/O manager and send its ref"


def _cure(value: Any) -> str:
    """Say what to send in place of *value*: numpy and pandas are known by what they can do, and not imported."""
    kind = type(value)
    if hasattr(kind, "to_pydatetime"):
        return "send .to_pydatetime() of it"
    if hasattr(kind, "tolist") and hasattr(kind, "ndim"):
        return "send .item() of it" if value.ndim == 0 else f"{_STORED}, or send .tolist() of it"
    if hasattr(kind, "columns"):
        return _STORED
    for builtin in (bool, int, float, str, bytes):
        if isinstance(value, builtin):
            return f"send {builtin.__name__}() of it"
    if isinstance(value, Iterable):
        return "send a list of it"
    return f"send a dict, a dataclass, a msgspec.Struct or a model of pydantic's, or {_STORED}"


# ---------------------------------------------------------------- reading a payload as a type


class PayloadReader:
    """Reads payloads as *kind*, whatever they were published as: made once, for a subscription.

    *kind* is a class or a hint that msgspec knows (a dataclass, TypedDict, Struct,
    NamedTuple, Enum, list[...], a union, ...), a model of pydantic's, a path, or made of these.
    What it is not is an :class:`~dpcore.errors.ArgumentError` here.

    It is as strict as ``msgspec.convert``: text becomes a datetime, a UUID, a Decimal,
    an Enum; and bytes, if it is base64; a number does not become text, nor text a number.
    """

    __slots__ = ("_decoder", "_is_class", "kind")

    def __init__(self, kind: Any) -> None:
        self.kind = kind
        try:
            self._decoder = msgspec.msgpack.Decoder(kind, dec_hook=_made)
            unknown = [*_unknown(kind)]
        except Exception as error:  # hints are anybody's objects
            raise ArgumentError("type", kind, f"a type that payloads can be read as: {error}") from error
        if unknown:
            names = ", ".join(map(qualified, unknown))
            wanted = f"made of types that payloads can be read as, which {names} is not; {_READABLE}"
            raise ArgumentError("type", kind, wanted)
        self._is_class = kind is Any or (isinstance(kind, type) and not is_typed_dict(kind))

    def __repr__(self) -> str:
        return f"PayloadReader({shown(self.kind)})"

    def value(self, data: Any, topic: str = "") -> Any:
        """Return *data* as the type: itself if it is an instance of a class, otherwise a value made of it.

        *topic* is where it was published, for the error.  Raises
        :class:`~dpcore.errors.PayloadError` if it does not fit.
        """
        if self._is_class and self._is_one(data):
            return data
        try:
            return self._converted(data)
        except Exception as error:  # noqa: BLE001  (validators are anybody's code)
            refused = error
        try:  # as it were read by another process: an object there is what it is written as
            return self._decoder.decode(_write(data))
        except Exception:  # noqa: BLE001
            raise self._refusal(data, topic, refused) from refused

    def event(self, event: Event) -> Event:
        """Return *event* with its payload as the type; the event itself if it has it already."""
        data = self.value(event.data, event.topic)
        return event if data is event.data else msgspec.structs.replace(event, data=data)

    def decoded(self, raw: msgspec.Raw | bytes, topic: str = "") -> Any:
        """Return the encoded payload *raw* as the type.

        What it gives is what :meth:`value` gives where the payload was not encoded.
        """
        try:
            return self._decoder.decode(raw)
        except Exception as error:  # noqa: BLE001
            refused = error
        data = _read(raw)
        try:  # text from JSON stands for more types than msgpack's does
            return self._converted(data)
        except Exception:  # noqa: BLE001
            raise self._refusal(data, topic, refused) from refused

    def _converted(self, data: Any) -> Any:
        return msgspec.convert(data, self.kind, dec_hook=_made, str_keys=True)

    def _is_one(self, data: Any) -> bool:
        return self.kind is Any or (isinstance(data, self.kind) and (self.kind is not int or type(data) is not bool))

    def _refusal(self, data: Any, topic: str, error: Exception) -> PayloadError:
        said = str(error)
        found = _PLACE.match(said)
        problem, path = found.groups() if found else (said, "")
        problem = f"does not fit {shown(self.kind)}: {problem}; the payload is {printed(data, 80)}"
        return PayloadError(topic, path, problem, "publish what fits, or subscribe with another type=")


def fit(data: Any, kind: Any, topic: str = "") -> Any:
    """Return *data* as *kind*, as :meth:`PayloadReader.value` does: for once.

    >>> from uuid import UUID
    >>> fit("00000000-0000-0000-0000-000000000007", UUID)
    UUID('00000000-0000-0000-0000-000000000007')
    >>> fit({"a": [1, "2"]}, dict[str, list[int]], "orders")
    Traceback (most recent call last):
    ...
    dpcore.errors.PayloadError: event on 'orders': data[...][1] does not fit dict[str, list[int]]: Expected `int`, got `str`; the payload is {'a': [1, '2']}; publish what fits, or subscribe with another type=
    """
    return PayloadReader(kind).value(data, topic)


_READABLE = (
    "use a dataclass, a TypedDict, a msgspec.Struct, a model of pydantic's, or types of the standard library's that are "
    "written as text, numbers, lists and dicts"
)
_PLACE = re.compile(r"(.*) - at `(?:key` in `)?\$(.*)`\Z", re.DOTALL)

_write = msgspec.msgpack.Encoder(enc_hook=plain).encode
_read = msgspec.msgpack.Decoder().decode


def _unknown(kind: Any) -> Iterator[type]:
    """Yield the classes in *kind* that nobody here can make of what travels."""
    waiting: list[Any] = [msgspec.inspect.type_info(kind)]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, msgspec.inspect.CustomType) and not _is_made(one.cls):
            yield one.cls
        for inner in msgspec.structs.astuple(one):
            for part in inner if isinstance(inner, tuple) else (inner,):
                if isinstance(part, msgspec.inspect.Type | msgspec.inspect.Field):
                    waiting.append(part)  # noqa: PERF401


def _is_made(kind: type) -> bool:
    return kind is object or hasattr(kind, "model_validate") or issubclass(kind, PurePath)


def _made(kind: Any, value: Any) -> Any:
    """Make of *value* a *kind* that msgspec does not know."""
    if isinstance(value, kind):
        return value
    if hasattr(kind, "model_validate"):
        return _model(kind, value)
    if not isinstance(value, str):
        raise ValueError(f"Expected `{kind.__name__}`, got `{type(value).__name__}`")
    return kind(value)


def _model(kind: Any, value: Any) -> Any:
    """Make of *value* a model of pydantic's."""
    try:
        return kind.model_validate(value)
    except ValueError as error:
        if not kind.model_config.get("strict"):
            raise ValueError(_said_by_pydantic(error)) from error
    # A strict one takes text for a UUID or a date only where there is nothing but text: in JSON.
    try:
        return kind.model_validate_json(json.dumps(value, default=_json_time))
    except (TypeError, ValueError) as error:
        raise ValueError(_said_by_pydantic(error)) from error


def _json_time(value: Any) -> str:
    if isinstance(value, (date, time)):
        return value.isoformat()
    raise TypeError(
        f"a strict model reads what is JSON, and {printed(value, 80)} is not"
    )  # how it writes bytes is its own


def _said_by_pydantic(error: Any) -> str:
    if not hasattr(error, "errors"):
        return str(error)
    return ", ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}".removeprefix(": ") for one in error.errors())
