"""Type hints: the schema of a function, whether an output fits an input, and values made from text.

Pure.  Its one rule: what cannot be decided is not reported.  A hint that does
not resolve loses only itself, never its neighbours, and a question that has no
sure answer (an unbound TypeVar, a hint of a library nobody knows) is answered
as if the hint were missing.

Four parts: reading a function (:func:`schema`), taking hints apart, asking
whether they fit (:func:`fits`, :func:`stream_fits`), and making values
(:func:`convert`).
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
import types
import typing
from collections import ChainMap, Counter
from collections import abc as c
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Annotated, Any, Final, ForwardRef, Literal, NewType, TypeVar, Union
from uuid import UUID

import msgspec

from dpcore.errors import printed

__all__ = (
    "MISSING",
    "Missing",
    "Parameter",
    "Schema",
    "accepts_none",
    "convert",
    "fits",
    "item_hint",
    "schema",
    "shown",
    "stream_fits",
    "stream_kind",
)


class Missing(Enum):
    """The type of :data:`MISSING`; an Enum, so that it pickles as itself and type checkers can tell it apart."""

    MISSING = "MISSING"

    def __repr__(self) -> str:
        return self.name


MISSING: Final = Missing.MISSING
"""Stands where there is no hint, or no default."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a function; its *hint* is resolved and keeps its ``Annotated``."""

    name: str
    hint: Any = MISSING
    default: Any = MISSING
    positional_only: bool = False

    @property
    def required(self) -> bool:
        """Whether a call must supply it."""
        return self.default is MISSING


@dataclass(frozen=True, slots=True)
class Schema:
    """What a function takes and gives, as its hints say.

    *parameters* leaves out ``*args`` and ``**kwargs``; *extra_keywords* tells of
    the latter.  *result* is the return hint as written: what awaiting gives for a
    coroutine function, the whole ``Iterator[T]`` for a generator function.
    *problems* has one sentence for each hint that did not resolve, and is MISSING.
    """

    parameters: Mapping[str, Parameter]
    result: Any
    streams: bool
    is_async: bool
    extra_keywords: bool
    problems: tuple[str, ...]


# ---------------------------------------------------------------- reading a function


def schema(function: Callable[..., Any]) -> Schema:
    """Read the parameters and the result of *function*: anything that can be called.

    Sees through ``functools.partial`` (what is bound by keyword is a default),
    ``functools.wraps``, bound methods and objects with a ``__call__``.  A class
    takes what its constructor takes and gives itself.  Raises :class:`TypeError`
    for what cannot be called, and nothing else.

    >>> found = schema(lambda day, limit=10: ...)
    >>> [parameter.required for parameter in found.parameters.values()]
    [True, False]
    """
    owner: Any
    problems: list[str] = []
    if type(function) is types.FunctionType and not function.__dict__:
        # Nothing was set on it, so it wraps nothing: its code says all, 20 times faster than inspect.
        rows, result, extra = _rows_of_code(function)
        owner, flags = function, function.__code__.co_flags
    else:
        if not callable(function):
            raise TypeError(f"{function!r} cannot be called")
        layers = _layers(function)
        owner = next((layer for layer in layers if "__signature__" in _attributes(layer)), layers[-1])
        flags = next(filter(None, map(_flags, layers)), 0)
        rows, result, extra = _rows_of_signature(function, owner, problems)
    parameters = {}
    for name, hint, default, positional in rows:
        resolved = _resolved(hint, owner, f"parameter {name!r}", problems)
        parameters[name] = Parameter(name, resolved, default, positional)
    return Schema(
        parameters,
        _resolved(result, owner, "the result", problems),
        bool(flags & (inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR)),
        bool(flags & (inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR)),
        extra,
        tuple(problems),
    )


_Row = tuple[str, Any, Any, bool]


def _rows_of_code(function: types.FunctionType) -> tuple[list[_Row], Any, bool]:
    code, hints = function.__code__, function.__annotations__
    names, count = code.co_varnames, code.co_argcount
    defaults, keyword_defaults = function.__defaults__ or (), function.__kwdefaults__ or {}
    defaulted = dict(zip(names[count - len(defaults) : count], defaults, strict=True)) | keyword_defaults
    rows = [
        (name, hints.get(name, MISSING), defaulted.get(name, MISSING), index < code.co_posonlyargcount)
        for index, name in enumerate(names[: count + code.co_kwonlyargcount])
    ]
    return rows, hints.get("return", MISSING), bool(code.co_flags & inspect.CO_VARKEYWORDS)


def _rows_of_signature(function: Any, owner: Any, problems: list[str]) -> tuple[list[_Row], Any, bool]:
    result = owner if isinstance(owner, type) else MISSING
    try:
        signature = inspect.signature(function)
    except ValueError as error:  # some built-ins do not say what they take
        problems.append(f"the parameters of {function!r} cannot be read: {error}")
        return [], result, False
    empty = inspect.Parameter.empty
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    rows = [
        (
            name,
            MISSING if it.annotation is empty else it.annotation,
            MISSING if it.default is empty else it.default,
            it.kind is it.POSITIONAL_ONLY,
        )
        for name, it in signature.parameters.items()
        if it.kind not in (it.VAR_POSITIONAL, it.VAR_KEYWORD)
    ]
    if result is MISSING and signature.return_annotation is not empty:
        result = signature.return_annotation
    return rows, result, inspect.Parameter.VAR_KEYWORD in kinds


def _attributes(thing: Any) -> Mapping[str, Any]:
    return getattr(thing, "__dict__", {})


def _layers(function: Any) -> list[Any]:
    """The callable and what it calls in the end, from the outside in."""
    layers: list[Any] = []
    while all(function is not layer for layer in layers):  # a function may be said to wrap itself
        layers.append(function)
        if isinstance(function, type):
            break
        if isinstance(function, functools.partial):
            function = function.func
        elif isinstance(function, types.MethodType):
            function = function.__func__
        elif "__wrapped__" in _attributes(function):
            function = function.__wrapped__
        elif isinstance(type(function).__call__, types.FunctionType):
            function = type(function).__call__
    return layers


def _flags(layer: Any) -> int:
    """How calling *layer* itself answers: at once (0), by a coroutine, or by a stream.

    The outermost layer that does not answer at once decides: a coroutine function
    that wraps a generator function is no stream.
    """
    if inspect.isasyncgenfunction(layer):
        return inspect.CO_ASYNC_GENERATOR
    if inspect.isgeneratorfunction(layer):
        return inspect.CO_GENERATOR
    return inspect.CO_COROUTINE if inspect.iscoroutinefunction(layer) else 0


def _resolved(hint: Any, owner: Any, place: str, problems: list[str]) -> Any:
    if isinstance(hint, type) or hint is MISSING:
        return hint
    if hint is None:
        return types.NoneType
    try:
        found = _evaluated(hint, owner)
        if not isinstance(found, (int, float, bytes, str, list, tuple, dict, set)):
            return types.NoneType if found is None else found
        problem = "is a value, not a type"
    except Exception as error:  # noqa: BLE001 - evaluating a hint runs any code; whatever it raises costs this hint alone
        problem = f"does not resolve: {type(error).__name__}: {error}"
    problems.append(f"the hint {shown(hint)!r} of {place} {problem}")
    return MISSING


def _evaluated(hint: Any, owner: Any) -> Any:
    if isinstance(hint, str):
        spaces = _namespaces(owner)
        hint = eval(_compiled(hint), *spaces)
    if _is_settled(hint):
        return hint
    holder = types.SimpleNamespace(__annotations__={"hint": hint})
    return typing.get_type_hints(holder, *_namespaces(owner), include_extras=True)["hint"]


@functools.lru_cache(4096)
def _compiled(text: str) -> types.CodeType:
    # As annotationlib does: a leading star or line breaks are legal in an annotation, though not in an expression.
    return compile(f"({text.lstrip()}\n)", "<hint>", "eval", dont_inherit=True)


def _is_settled(hint: Any) -> bool:
    """Whether there is no string left in *hint*; asking typing, which rebuilds it, costs ten times more."""
    if isinstance(hint, (str, ForwardRef)):
        return False
    return typing.get_origin(hint) is Literal or all(map(_is_settled, getattr(hint, "__args__", ())))


def _namespaces(owner: Any) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """Where the names in the hints of *owner* are looked up: globals, and what goes before them."""
    if isinstance(owner, type):
        # A dataclass takes the fields of its bases, whose hints were written in the modules of these.
        modules = [vars(sys.modules[kind.__module__]) for kind in owner.__mro__ if kind.__module__ in sys.modules]
        return {}, ChainMap(*modules)
    local = {parameter.__name__: parameter for parameter in getattr(owner, "__type_params__", ())}
    code = getattr(owner, "__code__", None)
    for name, cell in zip(code.co_freevars if code else (), getattr(owner, "__closure__", None) or (), strict=False):
        try:
            local[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    module = sys.modules.get(getattr(owner, "__module__", None) or "")
    return getattr(owner, "__globals__", None) or dict(_attributes(module)), local


# ---------------------------------------------------------------- taking hints apart

_WRAPPERS = frozenset(
    getattr(typing, name)
    for name in ("Annotated", "Required", "NotRequired", "ReadOnly", "Final", "ClassVar")
    if hasattr(typing, name)  # ReadOnly is new in 3.13
)
# The files of typing are names for type checkers: what open() gives is none of them.
_UNSAID = (Any, typing.Self, ..., typing.IO, typing.TextIO, typing.BinaryIO)
_UNSAID_KINDS = (str, ForwardRef, typing.ParamSpec, typing.TypeVarTuple, list)
_ALIASES = 100  # more openings than any hint needs: `type Loop = Loop` has no end


def _members(hint: Any, *, newtypes: bool = False) -> list[Any]:
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
                inner = hint.__supertype__ if newtypes and isinstance(hint, NewType) else _inside(hint, origin)
            except Exception:  # noqa: BLE001 - what stands in an alias or a bound is evaluated only now (PEP 695)
                inner = MISSING
            openings += inner is not hint
            if openings > _ALIASES:
                return [MISSING]
            (found if inner is hint else waiting).append(inner)
    return found


def _is_any_of(these: tuple[Any, ...], hint: Any) -> bool:
    return any(hint is one for one in these)  # `in` would ask a stranger's __eq__


def _inside(hint: Any, origin: Any) -> Any:
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
        return _union(hint.__constraints__) if hint.__constraints__ else bound
    if type(hint).__name__ == "TypeAliasType":  # by name: typing's own on 3.12, typing_extensions' before
        return hint.__value__
    if type(origin).__name__ == "TypeAliasType":
        return _substituted(origin.__value__, dict(zip(origin.__type_params__, hint.__args__, strict=True)))
    return str if hint is typing.LiteralString else hint


def _union(hints: Iterable[Any]) -> Any:
    every = tuple(hints) or (typing.Never,)
    return every[0] if len(every) == 1 else Union[every]  # noqa: UP007 - of as many as there are


def _substituted(hint: Any, arguments: Mapping[Any, Any]) -> Any:
    if isinstance(hint, TypeVar):
        return arguments.get(hint, Any)
    parameters = getattr(hint, "__parameters__", ())
    return hint[tuple(arguments.get(parameter, Any) for parameter in parameters)] if parameters else hint


def _parts(hint: Any) -> tuple[Any, tuple[Any, ...] | None]:
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
_STANDARD = frozenset({"builtins", "collections", "collections.abc", "typing", "contextlib", "types"})


def _seen_as(hint: Any, target: type) -> tuple[Any, ...] | None:
    """The arguments *hint* has as a *target*, one of its bases; None when nothing says what they are."""
    origin, arguments = _parts(hint)
    if origin is target:
        return arguments
    if origin in _ITEMS:
        return (_ITEMS[origin],)
    if _is_typed_dict(origin):
        return (str, _union(field for field, _ in _fields(origin).values()))
    if arguments is not None and origin.__module__ in _STANDARD:
        return _seen_as_standard(origin, arguments, target)
    known = dict(zip(getattr(origin, "__parameters__", ()), arguments or (), strict=False))
    for base in vars(origin).get("__orig_bases__", origin.__bases__):
        kind = _parts(base)[0]
        if kind not in (object, typing.Generic, typing.Protocol) and _is_subclass(kind, target):
            return _seen_as(_substituted(base, known), target)
    return None  # a class of somebody's own may iterate over anything


def _seen_as_standard(origin: Any, arguments: tuple[Any, ...], target: type) -> tuple[Any, ...]:
    if origin is tuple:
        return (_union(item for item in arguments if item is not ...),)
    if origin is c.ItemsView:
        return (tuple[arguments],)  # type: ignore[valid-type]
    if origin is c.Coroutine and target is c.Awaitable:
        return arguments[-1:]
    # In all others the first argument is what iterating gives, and pairs are pairs: dict[K, V] is an Iterable[K].
    return (*arguments, int) if origin is Counter else arguments


def _is_subclass(kind: type, target: type) -> bool:
    # The bases first: issubclass() refuses a Protocol that is not runtime_checkable even where it is a base.
    return target in kind.__mro__ or (not getattr(target, "_is_protocol", False) and issubclass(kind, target))


def _is_typed_dict(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, dict) and hasattr(kind, "__required_keys__")


def _fields(kind: Any) -> dict[str, tuple[Any, bool]]:
    """Each key of a TypedDict: its hint, and whether it must be there."""
    try:
        hints = typing.get_type_hints(kind, include_extras=True)
    except Exception:  # noqa: BLE001 - as in schema(); here the keys are known all the same
        hints = dict.fromkeys(kind.__annotations__, MISSING)
    found = {}
    for key, hint in hints.items():
        required = key in kind.__required_keys__
        while (origin := typing.get_origin(hint)) in _WRAPPERS:
            # The class itself cannot see these where hints are strings (PEP 655, PEP 563).
            required = True if origin is typing.Required else False if origin is typing.NotRequired else required
            hint = hint.__args__[0]
        found[key] = (hint, required)
    return found


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


# ---------------------------------------------------------------- does it fit?

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

    >>> fits(list[bool], Iterable[int]), fits(int | None, int), fits(int, int | None)
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
            fitting = output is into or self.members_fit(_members(output), _members(into))
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
        kind, wanted = _parts(output)[0], _parts(into)[0]
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
        if _is_typed_dict(wanted):
            return _is_typed_dict(kind) and self.fields_fit(_fields(kind), _fields(wanted))
        if getattr(wanted, "_is_protocol", False) and wanted not in kind.__mro__:
            return _has_members(kind, wanted)
        if not _is_subclass(kind, wanted):
            return False
        wants = _parts(into)[1]
        if wants is None:
            return True
        if wanted is c.Callable:
            return kind is not c.Callable or self.calls_fit(_parts(output)[1], wants)
        gives = _seen_as(output, wanted)
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


# ---------------------------------------------------------------- streams, None, and how a hint is written

_STREAMS: Mapping[Any, Literal["iterator", "async"]] = {
    c.Iterator: "iterator",
    c.Generator: "iterator",
    c.AsyncIterator: "async",
    c.AsyncIterable: "async",
    c.AsyncGenerator: "async",
}


def item_hint(result: Any, *, is_async: bool = False) -> Any:
    """Give the T of a task that streams, from its return hint; MISSING where the hint does not say.

    *is_async* decides for a class that can be iterated over in both ways.

    >>> item_hint(Iterator[int]), item_hint(Iterator), item_hint(MISSING)
    (<class 'int'>, MISSING, MISSING)
    """
    ways = (c.AsyncIterable, c.Iterable) if is_async else (c.Iterable, c.AsyncIterable)
    items = []
    for member in _members(result, newtypes=True):
        kind = _parts(member)[0]
        if member is MISSING or not isinstance(kind, type):
            return MISSING
        way = next((way for way in ways if issubclass(kind, way)), None)
        if way is None:
            continue  # the None of Iterator[int] | None
        arguments = _seen_as(member, way)
        if not arguments:
            return MISSING
        items.append(arguments[0])
    return _union(items) if items else MISSING


def stream_fits(item: Any, into: Any) -> bool:
    """Tell whether a parameter hinted *into* can take a stream of *item*, in the way :func:`stream_kind` says.

    >>> stream_fits(bool, Iterator[int]), stream_fits(str, list[int]), stream_fits(int, int)
    (True, False, False)
    """
    live = _live_member(into)
    if live is None:
        return fits(list[item], into)
    kind, arguments = _parts(live)
    # A reader gets an iterator: nobody is there to take what it might send into a generator.
    return kind not in (c.Generator, c.AsyncGenerator) and (not arguments or fits(item, arguments[0]))


def stream_kind(into: Any) -> Literal["iterator", "async", "list"]:
    """Say how a parameter hinted *into* wants a stream: as it comes, in either colour, or whole.

    >>> stream_kind(Iterator[int]), stream_kind(c.AsyncIterable[int] | None), stream_kind(Iterable[int])
    ('iterator', 'async', 'list')
    """
    live = _live_member(into)
    return "list" if live is None else _STREAMS[_parts(live)[0]]


def _live_member(into: Any) -> Any:
    return next((member for member in _members(into, newtypes=True) if _parts(member)[0] in _STREAMS), None)


def accepts_none(hint: Any) -> bool:
    """Tell whether *hint* admits None in so many words; MISSING does not.

    >>> accepts_none(int | None), accepts_none(Any), accepts_none(int), accepts_none(MISSING)
    (True, True, False, False)
    """
    if hint is Any:
        return True
    if typing.get_origin(hint) in (Union, types.UnionType, Annotated):
        arguments = hint.__args__
        return any(map(accepts_none, arguments))
    return any(member is types.NoneType or member is object for member in _members(hint, newtypes=True))


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
    inside = ", ".join(map(_value_shown if origin is Literal else shown, arguments))
    star = "*" if getattr(hint, "__unpacked__", False) is True else ""
    return f"{star}{_name(origin)}[{inside or '()'}]"


def _value_shown(value: Any) -> str:
    return f"{type(value).__qualname__}.{value.name}" if isinstance(value, Enum) else repr(value)


def _name(hint: Any) -> str:
    if isinstance(hint, (str, ForwardRef)):
        return hint if isinstance(hint, str) else hint.__forward_arg__
    name = getattr(hint, "__qualname__", None) or getattr(hint, "__name__", None) or getattr(hint, "_name", None)
    # A class made in a function is known by what follows: `orders.<locals>.Order` is Order to its author.
    return str(name).rpartition("<locals>.")[2] if name else repr(hint)


# ---------------------------------------------------------------- making values


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
    members = _members(hint, newtypes=True)
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
    members = _members(hint)
    if len(members) > 1 and all(typing.get_origin(member) is Literal for member in members):
        wanted = f"one of {', '.join(_value_shown(member.__args__[0]) for member in members)}"
    else:
        wanted = shown(hint)
        article = "an " if wanted[0] in "aeioAEIO" else "a "
        wanted = wanted if wanted.startswith(("None", "Literal")) else article + wanted
    return ValueError(f"{printed(value, 80)} is not {wanted}{': ' if why else ''}{why}")


def _holds(value: Any, hint: Any) -> bool:
    """Whether *value* is an instance of *hint*, its contents with it."""
    return any(_is_one(value, member) for member in _members(hint, newtypes=True))


def _is_one(value: Any, member: Any) -> bool:
    kind, arguments = _parts(member)
    if kind is Literal:
        wanted = member.__args__[0]
        return type(wanted) is type(value) and bool(wanted == value)
    if _is_typed_dict(kind):
        return isinstance(value, dict) and _fields_hold(value, _fields(kind))
    # A class fits where its type[...] does; anything else where its class does.
    its = type[value] if isinstance(value, type) else type(value)
    return fits(its, member) and _contents_hold(value, kind, arguments)


def _fields_hold(value: dict[Any, Any], fields: dict[str, tuple[Any, bool]]) -> bool:
    return all(_holds(value[key], hint) if key in value else not required for key, (hint, required) in fields.items())


def _contents_hold(value: Any, kind: Any, arguments: tuple[Any, ...] | None) -> bool:
    # Only what is sure to be in memory and cheap to read again is looked into: no iterators, no frames, no arrays.
    known = isinstance(value, (list, tuple, set, frozenset, dict)) and kind.__module__ in _STANDARD
    if arguments is None or not known:
        return True
    if kind is tuple and ... not in arguments:
        return len(value) == len(arguments) and all(map(_holds, value, arguments))
    if isinstance(value, dict) and len(arguments) == 2:
        return _all_hold(value, arguments[0]) and _all_hold(value.values(), arguments[1])
    return _all_hold(value, arguments[0])


def _all_hold(values: Iterable[Any], hint: Any) -> bool:
    if all(isinstance(member, type) and not _is_typed_dict(member) for member in _members(hint, newtypes=True)):
        # Only their classes matter, and a million numbers have one: some hundred times faster than one by one.
        kinds = set(map(type, values))
        return all(any(fits(kind, member) for member in _members(hint, newtypes=True)) for kind in kinds)
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
_LISTS = (list, c.Sequence, c.MutableSequence, c.Collection, c.Iterable, c.Container, c.Reversible, *_STREAMS)
_CONTAINERS: Mapping[Any, type] = {
    **dict.fromkeys(_LISTS, list),
    **dict.fromkeys((set, c.Set, c.MutableSet), set),
    **dict.fromkeys((dict, c.Mapping, c.MutableMapping), dict),
    frozenset: frozenset,
    tuple: tuple,
}


def _from_text(text: str, member: Any) -> Any:
    kind = _parts(member)[0]
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
    if kind in _CONTAINERS or _is_record(kind):
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


def _is_record(kind: Any) -> bool:
    return (
        dataclasses.is_dataclass(kind)
        or _is_typed_dict(kind)
        or issubclass(kind, msgspec.Struct)
        or (issubclass(kind, tuple) and hasattr(kind, "_fields"))
        or hasattr(kind, "__attrs_attrs__")
    )


def _parsed(text: str, member: Any) -> Any:
    kind, arguments = _parts(member)
    is_list = _CONTAINERS.get(kind, dict) is not dict and text.lstrip()[:1] not in ("[", "{")
    if is_list and _are_scalars(arguments or ()):
        return [part.strip() for part in text.split(",")]
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise _refusal(text, member, f"as JSON, {error}") from None


def _are_scalars(arguments: Iterable[Any]) -> bool:
    kinds = [_parts(member)[0] for argument in arguments for member in _members(argument, newtypes=True)]
    return not any(kind in _CONTAINERS or (isinstance(kind, type) and _is_record(kind)) for kind in kinds)


def _from_value(value: Any, member: Any, written: Any = MISSING) -> Any:
    kind, arguments = _parts(member)
    given = value if written is MISSING else written
    try:
        if kind in _CONTAINERS:
            return _filled(value, _CONTAINERS[kind], arguments)
        if kind in _READERS or _is_record(kind) or issubclass(kind, Enum):
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
