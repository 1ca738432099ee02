"""Whether every value that one hint allows is accepted by another."""

from __future__ import annotations

import functools
import typing
from collections import abc as c
from collections.abc import Iterator
from enum import Enum
from typing import Any, Literal, NewType

from dpcore.hints.apart import MISSING, fields_of, is_subclass, is_typed_dict, members_of, parts_of, seen_as

__all__ = ("fits",)


_MEMORY = 4096
_DEPTH = 50
_answers: dict[tuple[int, int], tuple[bool, Any, Any]] = {}


def fits(output: Any, into: Any) -> bool:
    """Tell whether every value that *output* allows is accepted by *into*.

    Generics are compared covariantly (what flows is read, not written), each
    member of an output union must fit, and numbers follow the numeric tower of
    PEP 484: int to float to complex.  Unchecked, so fitting, are MISSING, ``Any``,
    an unbound TypeVar, the arguments of a bare ``list``, and whatever neither the
    rules here nor beartype can decide.  Never raises.

    >>> fits(list[bool], c.Iterable[int]), fits(int | None, int), fits(int, int | None)
    (True, False, True)
    """
    key = (id(output), id(into))
    known = _answers.get(key)
    if known is None:
        if len(_answers) >= _MEMORY:
            _answers.clear()
        # Kept with its hints: while they live, no other hint has their ids.
        try:
            known = _answers[key] = (_answer(output, into), output, into)
        except RecursionError:  # asked where the stack is nearly full: next time may be better
            return True
    return known[0]


def _answer(output: Any, into: Any) -> bool:
    # By value too, as each function that says `list[int]` makes an object of its own.
    try:
        return _hashed_answer(output, into)
    except RecursionError:
        raise
    except Exception:  # noqa: BLE001 - hashing fails, for Annotated[int, {}] with a TypeError; answering never does
        return _Question().fits(output, into)


@functools.lru_cache(_MEMORY)
def _hashed_answer(output: Any, into: Any) -> bool:
    return _Question().fits(output, into)


class _Question:
    """One question with all the questions it leads to.

    A pair met again while it is being decided fits as far as it can be told: so
    recursive aliases and TypedDicts come to an end.  If the pair turns out not to
    fit, what was concluded from supposing it is forgotten.
    """

    def __init__(self) -> None:
        self.supposed: dict[tuple[Any, Any], tuple[Any, Any]] = {}
        self.refused: dict[tuple[Any, Any], tuple[Any, Any]] = {}
        self.depth = 0

    def fits(self, output: Any, into: Any) -> bool:
        pair = (_identity(output), _identity(into))
        if pair in self.supposed or self.depth > _DEPTH:
            return True
        if pair in self.refused:
            return False
        before = len(self.supposed)
        self.supposed[pair] = (output, into)
        self.depth += 1
        try:
            fitting = output is into or self.members_fit(members_of(output), members_of(into))
        except RecursionError:
            raise
        except Exception:  # noqa: BLE001 - hints are anybody's objects; what cannot be decided is not reported
            fitting = True
        finally:
            self.depth -= 1
        if not fitting:
            while len(self.supposed) > before:
                self.supposed.popitem()
            self.refused[pair] = (output, into)
        return fitting

    def members_fit(self, outputs: list[Any], intos: list[Any]) -> bool:
        if any(into is MISSING or into is object for into in intos):
            return True
        finite = any(typing.get_origin(into) is Literal for into in intos)
        for output in outputs:
            if output is MISSING or any(self.single_fits(output, into) for into in intos):
                continue
            # A bool is one of two values, an Enum one of its members (as type checkers expand them).
            values = _values(output) if finite else ()
            if not values or not all(any(self.single_fits(value, into) for into in intos) for value in values):
                return False
        return True

    def single_fits(self, output: Any, into: Any) -> bool:
        if output is into or output == into:
            return True
        if isinstance(output, NewType):
            return self.fits(output.__supertype__, into)
        kind, wanted = parts_of(output)[0], parts_of(into)[0]
        if isinstance(into, NewType) or wanted is Literal:
            return False
        if kind is Literal:
            return self.fits(type(output.__args__[0]), into)
        if not isinstance(kind, type) or not isinstance(wanted, type):
            return _beartype_says(output, into)
        return self.classes_fit(output, kind, into, wanted)

    def classes_fit(self, output: Any, kind: Any, into: Any, wanted: Any) -> bool:
        if wanted in (float, complex) and issubclass(kind, (int, float) if wanted is complex else int):
            return True  # PEP 484, "The numeric tower"
        if is_typed_dict(wanted):
            return is_typed_dict(kind) and self.fields_fit(fields_of(kind), fields_of(wanted))
        if getattr(wanted, "_is_protocol", False) and wanted not in kind.__mro__:
            return _has_members(kind, wanted)
        if not is_subclass(kind, wanted):
            return False
        wants = parts_of(into)[1]
        if wants is None:
            return True
        if wanted is c.Callable:
            return kind is not c.Callable or self.calls_fit(parts_of(output)[1], wants)
        gives = seen_as(output, wanted)
        if gives is None:
            return True
        return self.tuples_fit(gives, wants) if wanted is tuple else all(map(self.fits, gives, wants))

    def fields_fit(self, gives: dict[str, tuple[Any, bool]], wants: dict[str, tuple[Any, bool]]) -> bool:
        return all(
            (gives[key][1] or not required) and self.fits(gives[key][0], hint) if key in gives else not required
            for key, (hint, required) in wants.items()
        )

    def calls_fit(self, gives: tuple[Any, ...] | None, wants: tuple[Any, ...]) -> bool:
        if gives is None:
            return True
        if not self.fits(gives[-1], wants[-1]):
            return False
        if not isinstance(gives[0], list) or not isinstance(wants[0], list):
            return True  # `...`, or a ParamSpec
        return len(gives[0]) == len(wants[0]) and all(map(self.fits, wants[0], gives[0]))

    def tuples_fit(self, gives: tuple[Any, ...], wants: tuple[Any, ...]) -> bool:
        if ... in wants:
            return all(self.fits(item, wants[0]) for item in gives if item is not ...)
        # tuple[int, ...] may have any length, so it is not sure to have this one.
        return ... not in gives and len(gives) == len(wants) and all(map(self.fits, gives, wants))


def _identity(hint: Any) -> Any:
    try:
        hash(hint)
    except Exception:  # noqa: BLE001 - as above
        return id(hint)
    return hint


def _values(hint: Any) -> list[Any]:
    """Every value of a class that has finitely many, each as a Literal."""
    if hint is bool:
        return [Literal[True], Literal[False]]
    return [Literal[value] for value in hint] if isinstance(hint, type) and issubclass(hint, Enum) else []


def _has_members(kind: type, protocol: type) -> bool:
    if hasattr(kind, "__getattr__"):
        return True
    # What only __init__ sets cannot be seen on the class, so a missing attribute counts only where none can be set.
    settable = kind.__dictoffset__ != 0
    return all(
        getattr(kind, name, None) is not None or (settable and not is_method) for name, is_method in _asked_of(protocol)
    )


def _beartype_says(output: Any, into: Any) -> bool:
    # Imported here, as it takes 0.4 s and is seldom asked.
    from beartype.door import is_subhint

    return is_subhint(output, into)


@typing.runtime_checkable
class _Example(typing.Protocol):
    member: int


# What each Protocol class has in its own right, whatever the version of Python.
_NO_MEMBERS = {*vars(_Example), "__orig_bases__", "__type_params__", "__slots__"}


def _asked_of(protocol: type) -> Iterator[tuple[str, bool]]:
    """The members a Protocol asks for, and whether each is a method."""
    for kind in protocol.__mro__:
        if getattr(kind, "_is_protocol", False):
            own = vars(kind)
            for name in {**own.get("__annotations__", {}), **own}:
                value = own.get(name, MISSING)
                if name not in _NO_MEMBERS and value is not None:  # `__hash__ = None` comes with __eq__
                    yield name, callable(value) or isinstance(value, classmethod)
