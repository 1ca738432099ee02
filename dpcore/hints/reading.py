"""The schema of a function: what it takes and gives, as its hints say."""

from __future__ import annotations

import functools
import inspect
import sys
import types
import typing
from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import Any, ForwardRef, Literal

import msgspec

from dpcore.hints.apart import MISSING, shown

__all__ = (
    "Parameter",
    "Schema",
    "schema",
)


class Parameter(msgspec.Struct, frozen=True):
    """One parameter of a function; its *hint* is resolved and keeps its ``Annotated``."""

    name: str
    hint: Any = MISSING
    default: Any = MISSING
    positional_only: bool = False

    @property
    def required(self) -> bool:
        """Whether a call must supply it."""
        return self.default is MISSING


class Schema(msgspec.Struct, frozen=True):
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

    def parameters_json_schema(self) -> dict[str, Any]:
        """Describe what can be supplied as a JSON Schema (2020-12) of an object, with defaults where JSON can say them.

        Values are described in the form that msgspec gives them as JSON, and paths as
        text.  What JSON Schema has no word for is left open, under its name; a stream
        that is given beforehand is a list.  Never raises.

        >>> schema(lambda day, limit=10: ...).parameters_json_schema()["required"]
        ['day']
        """
        from dpcore.hints.documents import parameters_document

        rows = [(one.name, one.hint, one.default) for one in self.parameters.values()]
        return parameters_document(rows, self.extra_keywords, _record_rows)

    def result_json_schema(self) -> dict[str, Any]:
        """Describe the result as a JSON Schema (2020-12); of a stream, one of its items.  Never raises."""
        from dpcore.hints.documents import document
        from dpcore.hints.streams import item_hint

        hint = item_hint(self.result, is_async=self.is_async) if self.streams else self.result
        return document(hint, _record_rows)


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


def _record_rows(record: Any) -> list[tuple[str, Any, Any]]:
    return [(one.name, one.hint, one.default) for one in schema(record).parameters.values()]


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
    problems.append(f"the hint {_written(hint)!r} of {place} {problem}")
    return MISSING


def _written(hint: Any) -> str:
    try:
        return shown(hint)
    except Exception:  # noqa: BLE001 - a class may refuse even to say what it is called
        return f"a {type(hint).__name__}"


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
