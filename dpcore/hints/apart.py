"""Taking hints apart: what a hint stands for, its class and arguments, its fields, and how it is written."""

from __future__ import annotations

import sys
import types
import typing
from collections import Counter
from collections import abc as c
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Annotated, Any, Final, ForwardRef, Literal, NewType, TypeVar, Union

__all__ = (
    "MISSING",
    "STANDARD",
    "Missing",
    "fields_of",
    "inside",
    "is_subclass",
    "is_typed_dict",
    "members_of",
    "parts_of",
    "seen_as",
    "shown",
    "union_of",
    "value_shown",
)


class Missing(Enum):
    """The type of :data:`MISSING`; an Enum, so that it pickles as itself and type checkers can tell it apart."""

    MISSING = "MISSING"

    def __repr__(self) -> str:
        return self.name


MISSING: Final = Missing.MISSING
"""Stands where there is no hint, or no default."""


_WRAPPERS = frozenset(
    getattr(typing, name)
    for name in ("Annotated", "Required", "NotRequired", "ReadOnly", "Final", "ClassVar")
    if hasattr(typing, name)  # ReadOnly is new in 3.13
)
# The files of typing are names for type checkers: what open() gives is none of them.
_UNSAID = (Any, typing.Self, ..., typing.IO, typing.TextIO, typing.BinaryIO)
_UNSAID_KINDS = (str, ForwardRef, typing.ParamSpec, typing.TypeVarTuple, list)
_ALIASES = 100  # more openings than any hint needs: `type Loop = Loop` has no end


def members_of(hint: Any, *, newtypes: bool = False) -> list[Any]:
    """The single hints of which a value must satisfy one; MISSING stands for what is not checked.

    Unions, aliases, TypeVars and ``Literal`` come apart, ``Annotated`` comes off,
    and with *newtypes* each ``NewType`` gives its supertype.  ``Never`` has none.
    """
    found: list[Any] = []
    waiting = [hint]
    openings = 0
    while waiting:
        hint = waiting.pop()
        origin = typing.get_origin(hint)
        if origin in (Union, types.UnionType):
            waiting.extend(reversed(hint.__args__))
        elif origin is Literal:
            found += [types.NoneType if value is None else Literal[value] for value in hint.__args__]
        elif hint is not typing.Never and hint is not typing.NoReturn:
            try:
                inner = hint.__supertype__ if newtypes and isinstance(hint, NewType) else inside(hint, origin)
            except Exception:  # noqa: BLE001 - what stands in an alias or a bound is evaluated only now (PEP 695)
                inner = MISSING
            openings += inner is not hint
            if openings > _ALIASES:
                return [MISSING]
            (found if inner is hint else waiting).append(inner)
    return found


def _is_any_of(these: tuple[Any, ...], hint: Any) -> bool:
    return any(hint is one for one in these)  # `in` would ask a stranger's __eq__


def inside(hint: Any, origin: Any) -> Any:
    """What *hint* stands for; itself if it stands for itself."""
    if _is_any_of(_UNSAID, hint) or _is_any_of(_UNSAID, origin) or isinstance(hint, _UNSAID_KINDS):
        return MISSING
    if isinstance(hint, type):
        return hint
    if hint is None:
        return types.NoneType
    if origin in _WRAPPERS:
        return hint.__args__[0]
    if isinstance(hint, TypeVar):
        bound = MISSING if hint.__bound__ is None else hint.__bound__
        return union_of(hint.__constraints__) if hint.__constraints__ else bound
    if type(hint).__name__ == "TypeAliasType":  # by name: typing's own on 3.12, typing_extensions' before
        return hint.__value__
    if type(origin).__name__ == "TypeAliasType":
        return _substituted(origin.__value__, dict(zip(origin.__type_params__, hint.__args__, strict=True)))
    return str if hint is typing.LiteralString else hint


def union_of(hints: Iterable[Any]) -> Any:
    """Give the union of *hints*; ``Never`` where there are none."""
    every = tuple(hints) or (typing.Never,)
    return every[0] if len(every) == 1 else Union[every]  # noqa: UP007 - of as many as there are


def _substituted(hint: Any, arguments: Mapping[Any, Any]) -> Any:
    if isinstance(hint, TypeVar):
        return arguments.get(hint, Any)
    parameters = getattr(hint, "__parameters__", ())
    return hint[tuple(arguments.get(parameter, Any) for parameter in parameters)] if parameters else hint


def parts_of(hint: Any) -> tuple[Any, tuple[Any, ...] | None]:
    """The class and the arguments of a single hint; None where it has none, which ``tuple[()]`` has.

    A tuple that unpacks another says less about its items than the rules here would
    need (PEP 646), and counts as bare.
    """
    origin = typing.get_origin(hint)
    if origin is None:
        return hint, None
    arguments = typing.get_args(hint) if hasattr(hint, "__args__") else None
    if origin is tuple and arguments and any(map(_is_unpacked, arguments)):
        return tuple, None
    return origin, arguments


def _is_unpacked(argument: Any) -> bool:
    return typing.get_origin(argument) is typing.Unpack or getattr(argument, "__unpacked__", False) is True


# What these classes give when one iterates over them, which their arguments do not say.
_ITEMS: Mapping[Any, Any] = {str: str, bytes: int, bytearray: int, memoryview: int, range: int}
STANDARD = frozenset({"builtins", "collections", "collections.abc", "typing", "contextlib", "types"})


def _field(kind: Any, hint: Any) -> Any:
    names = vars(sys.modules[kind.__module__]) if kind.__module__ in sys.modules else {}
    holder = types.SimpleNamespace(__annotations__={"hint": hint})
    try:
        return typing.get_type_hints(holder, names, include_extras=True)["hint"]
    except Exception:  # noqa: BLE001 - as above
        return MISSING


def seen_as(hint: Any, target: type) -> tuple[Any, ...] | None:
    """The arguments *hint* has as a *target*, one of its bases; None when nothing says what they are."""
    origin, arguments = parts_of(hint)
    if origin is target:
        return arguments
    if origin in _ITEMS:
        return (_ITEMS[origin],)
    if is_typed_dict(origin):
        return (str, union_of(field for field, _ in fields_of(origin).values()))
    if arguments is not None and origin.__module__ in STANDARD:
        return _seen_as_standard(origin, arguments, target)
    known = dict(zip(getattr(origin, "__parameters__", ()), arguments or (), strict=False))
    for base in vars(origin).get("__orig_bases__", origin.__bases__):
        kind = parts_of(base)[0]
        if kind not in (object, typing.Generic, typing.Protocol) and is_subclass(kind, target):
            return seen_as(_substituted(base, known), target)
    return None  # a class of somebody's own may iterate over anything


def _seen_as_standard(origin: Any, arguments: tuple[Any, ...], target: type) -> tuple[Any, ...]:
    if origin is tuple:
        return (union_of(item for item in arguments if item is not ...),)
    if origin is c.ItemsView:
        return (tuple[arguments],)  # type: ignore[valid-type]
    if origin is c.Coroutine and target is c.Awaitable:
        return arguments[-1:]
    # In all others the first argument is what iterating gives, and pairs are pairs: dict[K, V] is an Iterable[K].
    return (*arguments, int) if origin is Counter else arguments


def is_subclass(kind: type, target: type) -> bool:
    """Tell what ``issubclass`` would, also of a Protocol that it refuses."""
    # The bases first: issubclass() refuses a Protocol that is not runtime_checkable even where it is a base.
    return target in kind.__mro__ or (not getattr(target, "_is_protocol", False) and issubclass(kind, target))


def is_typed_dict(kind: Any) -> bool:
    """Tell whether *kind* is a TypedDict."""
    return isinstance(kind, type) and issubclass(kind, dict) and hasattr(kind, "__required_keys__")


def fields_of(kind: Any) -> dict[str, tuple[Any, bool]]:
    """Each key of a TypedDict: its hint, and whether it must be there."""
    try:
        hints = typing.get_type_hints(kind, include_extras=True)
    except Exception:  # noqa: BLE001 - as in schema(): the one that does not resolve costs itself alone
        hints = {key: _field(kind, hint) for key, hint in kind.__annotations__.items()}
    found = {}
    for key, hint in hints.items():
        required = key in kind.__required_keys__
        while (origin := typing.get_origin(hint)) in _WRAPPERS:
            # The class itself cannot see these where hints are strings (PEP 655, PEP 563).
            required = True if origin is typing.Required else False if origin is typing.NotRequired else required
            hint = hint.__args__[0]
        found[key] = (hint, required)
    return found


# ---------------------------------------------------------------- how a hint is written


def shown(hint: Any) -> str:
    """Write *hint* as one would write it in a program, without the modules, and without what Annotated adds.

    >>> shown(c.Mapping[str, list[int] | None]), shown(MISSING)
    ('Mapping[str, list[int] | None]', 'anything')
    """
    if hint is MISSING:
        return "anything"
    if hint is None or hint is types.NoneType or hint is ...:
        return "..." if hint is ... else "None"
    if isinstance(hint, list):  # the parameters of a Callable
        return f"[{', '.join(map(shown, hint))}]"
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is None or not hasattr(hint, "__args__"):
        return _name(hint)
    if origin is Annotated:
        return shown(arguments[0])
    if origin in (Union, types.UnionType):
        return " | ".join(map(shown, arguments))
    inside = ", ".join(map(value_shown if origin is Literal else shown, arguments))
    star = "*" if getattr(hint, "__unpacked__", False) is True else ""
    return f"{star}{_name(origin)}[{inside or '()'}]"


def value_shown(value: Any) -> str:
    """Write a value of a ``Literal`` as one would in a program."""
    return f"{type(value).__qualname__}.{value.name}" if isinstance(value, Enum) else repr(value)


def _name(hint: Any) -> str:
    if isinstance(hint, (str, ForwardRef)):
        return hint if isinstance(hint, str) else hint.__forward_arg__
    name = getattr(hint, "__qualname__", None) or getattr(hint, "__name__", None) or getattr(hint, "_name", None)
    # A class made in a function is known by what follows: `orders.<locals>.Order` is Order to its author.
    return str(name).rpartition("<locals>.")[2] if name else repr(hint)
