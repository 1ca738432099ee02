"""Values made of text, or of other values, as a hint asks for them."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections import abc as c
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, Literal
from uuid import UUID

import msgspec

from dpcore.hints.apart import MISSING, STANDARD, fields_of, is_typed_dict, members_of, parts_of, shown, value_shown
from dpcore.hints.fitting import fits
from dpcore.hints.streams import STREAMS
from dpcore.words import printed

__all__ = ("CONTAINERS", "convert", "is_record")


def convert(value: Any, hint: Any) -> Any:
    """Make of *value* what *hint* asks for: of text from a shell, or of a value from Python or a file.

    A value that is an instance already is given back itself.  Text becomes numbers,
    ``yes``/``no``, ISO 8601 dates and durations, members of an Enum by name or value,
    ``none``; and from JSON lists, dicts and records (dataclass, TypedDict, Struct);
    a list of scalars may be separated by commas.  Of a union the first member that
    converts is taken, None before and str after the others.  Empty text is only ever
    a str.  A class that merely could be called with the text is not guessed at.

    Raises :class:`ValueError` whose text says what is wrong with the value.

    >>> convert("7", int), convert("1,2", list[int]), convert("none", str | None), convert("x", int | str)
    (7, [1, 2], None, 'x')
    >>> convert("2026-13-01", date)
    Traceback (most recent call last):
    ValueError: '2026-13-01' is not a date: month must be in 1..12
    """
    is_text = isinstance(value, str)
    if type(value) is not str and _holds(value, hint):
        return value
    members = members_of(hint, newtypes=True)
    if any(member is MISSING or member is object for member in members):
        return value
    members.sort(key=lambda member: 2 if member is str else 0 if member is types.NoneType else 1)
    for member in members:
        try:
            return _from_text(value, member) if is_text else _from_value(value, member)
        except ValueError:
            if len(members) == 1:
                raise
    raise _refusal(value, hint)


def _refusal(value: Any, hint: Any, why: str = "") -> ValueError:
    members = members_of(hint)
    if len(members) > 1 and all(typing.get_origin(member) is Literal for member in members):
        wanted = f"one of {', '.join(value_shown(member.__args__[0]) for member in members)}"
    else:
        wanted = shown(hint)
        article = "an " if wanted[0] in "aeioAEIO" else "a "
        wanted = wanted if wanted.startswith(("None", "Literal")) else article + wanted
    return ValueError(f"{printed(value, 80)} is not {wanted}{': ' if why else ''}{why}")


def _holds(value: Any, hint: Any) -> bool:
    """Whether *value* is an instance of *hint*, its contents with it."""
    return any(_is_one(value, member) for member in members_of(hint, newtypes=True))


def _is_one(value: Any, member: Any) -> bool:
    kind, arguments = parts_of(member)
    if kind is Literal:
        wanted = member.__args__[0]
        return type(wanted) is type(value) and bool(wanted == value)
    if is_typed_dict(kind):
        return isinstance(value, dict) and _fields_hold(value, fields_of(kind))
    # A class fits where its type[...] does; anything else where its class does.
    its = type[value] if isinstance(value, type) else type(value)
    return fits(its, member) and _contents_hold(value, kind, arguments)


def _fields_hold(value: dict[Any, Any], fields: dict[str, tuple[Any, bool]]) -> bool:
    return all(_holds(value[key], hint) if key in value else not required for key, (hint, required) in fields.items())


def _contents_hold(value: Any, kind: Any, arguments: tuple[Any, ...] | None) -> bool:
    # Only what is sure to be in memory and cheap to read again is looked into: no iterators, no frames, no arrays.
    known = isinstance(value, (list, tuple, set, frozenset, dict)) and kind.__module__ in STANDARD
    if arguments is None or not known:
        return True
    if kind is tuple and ... not in arguments:
        return len(value) == len(arguments) and all(map(_holds, value, arguments))
    if isinstance(value, dict) and len(arguments) == 2:
        return _all_hold(value, arguments[0]) and _all_hold(value.values(), arguments[1])
    return _all_hold(value, arguments[0])


def _all_hold(values: Iterable[Any], hint: Any) -> bool:
    if all(isinstance(member, type) and not is_typed_dict(member) for member in members_of(hint, newtypes=True)):
        # Only their classes matter, and a million numbers have one: some hundred times faster than one by one.
        kinds = set(map(type, values))
        return all(any(fits(kind, member) for member in members_of(hint, newtypes=True)) for kind in kinds)
    return all(_holds(value, hint) for value in values)


def _bool(text: str) -> bool:
    word = text.lower()
    if word not in ("yes", "true", "1", "on", "no", "false", "0", "off"):
        raise ValueError
    return word in ("yes", "true", "1", "on")


def _none(text: str) -> None:
    if text.lower() not in ("none", "null"):
        raise ValueError


def _timedelta(text: str) -> timedelta:
    try:
        return timedelta(seconds=float(text))
    except ValueError:
        return msgspec.convert(text, timedelta)


_READERS: Mapping[Any, Callable[[str], Any]] = {
    types.NoneType: _none,
    bool: _bool,
    int: int,
    float: float,
    complex: complex,
    Decimal: Decimal,
    date: date.fromisoformat,
    datetime: datetime.fromisoformat,
    time: time.fromisoformat,
    timedelta: _timedelta,
    UUID: UUID,
}
# A stream that is given beforehand is a list: it can be read again by the next attempt.
_LISTS = (list, c.Sequence, c.MutableSequence, c.Collection, c.Iterable, c.Container, c.Reversible, *STREAMS)
CONTAINERS: Mapping[Any, type] = {
    **dict.fromkeys(_LISTS, list),
    **dict.fromkeys((set, c.Set, c.MutableSet), set),
    **dict.fromkeys((dict, c.Mapping, c.MutableMapping), dict),
    frozenset: frozenset,
    tuple: tuple,
}


def _from_text(text: str, member: Any) -> Any:
    kind = parts_of(member)[0]
    if kind is str:
        return text
    if kind is Literal:
        return _literal(text, member)
    if not isinstance(kind, type):
        raise _refusal(text, member)
    if issubclass(kind, Enum):
        return _enum(text, kind)
    if not text:
        raise _refusal(text, member)
    if kind in CONTAINERS or is_record(kind):
        return _from_value(_parsed(text, member), member, text)
    if issubclass(kind, PurePath):
        return kind(text)
    if kind not in _READERS:
        raise _refusal(text, member, "that cannot be written as text, so give a value")
    return _read(text, kind)


def _read(text: str, kind: type) -> Any:
    try:
        return _READERS[kind](text)
    except (ValueError, ArithmeticError) as error:  # Decimal raises an ArithmeticError whose text says nothing
        why = str(error) if isinstance(error, ValueError) else ""
        raise _refusal(text, kind, "" if repr(text) in why or kind in (int, float) else why) from None


def _literal(text: str, member: Any) -> Any:
    value = member.__args__[0]
    if isinstance(value, str) and not isinstance(value, Enum):
        if text == value:
            return value
    elif convert(text, type(value)) == value:
        return value
    raise _refusal(text, member)


def _enum(text: str, kind: type[Enum]) -> Enum:
    for found in (kind.__members__.get(text), *(one for one in kind if str(one.value) == text)):
        if found is not None:
            return found
    raise _refusal(text, kind, f"there are {', '.join(kind.__members__)}")


def is_record(kind: Any) -> bool:
    """Tell whether the instances of the class *kind* have fields that are written down."""
    return (
        dataclasses.is_dataclass(kind)
        or is_typed_dict(kind)
        or issubclass(kind, msgspec.Struct)
        or (issubclass(kind, tuple) and hasattr(kind, "_fields"))
        or hasattr(kind, "__attrs_attrs__")
    )


def _parsed(text: str, member: Any) -> Any:
    kind, arguments = parts_of(member)
    is_list = CONTAINERS.get(kind, dict) is not dict and text.lstrip()[:1] not in ("[", "{")
    if is_list and _are_scalars(arguments or ()):
        return [part.strip() for part in text.split(",")]
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise _refusal(text, member, f"as JSON, {error}") from None


def _are_scalars(arguments: Iterable[Any]) -> bool:
    kinds = [parts_of(member)[0] for argument in arguments for member in members_of(argument, newtypes=True)]
    return not any(kind in CONTAINERS or (isinstance(kind, type) and is_record(kind)) for kind in kinds)


def _from_value(value: Any, member: Any, written: Any = MISSING) -> Any:
    kind, arguments = parts_of(member)
    given = value if written is MISSING else written
    try:
        if kind in CONTAINERS:
            return _filled(value, CONTAINERS[kind], arguments)
        if kind in _READERS or is_record(kind) or issubclass(kind, Enum):
            return msgspec.convert(value, member, strict=False, dec_hook=lambda hint, inner: convert(inner, hint))
    except (ValueError, TypeError, NameError) as error:
        raise _refusal(given, member, str(error)) from None
    raise _refusal(given, member)


def _filled(value: Any, build: type, arguments: tuple[Any, ...] | None) -> Any:
    if build is dict:
        if not isinstance(value, Mapping):
            raise ValueError
        key_hint, hint = arguments or (MISSING, MISSING)
        return {convert(key, key_hint): convert(item, hint) for key, item in value.items()}
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise ValueError
    if build is tuple and arguments is not None and ... not in arguments:
        if len(value) != len(arguments):
            raise ValueError(f"it has {len(value)} items instead of {len(arguments)}")
        return tuple(map(convert, value, arguments))
    return build(convert(item, arguments[0] if arguments else MISSING) for item in value)
