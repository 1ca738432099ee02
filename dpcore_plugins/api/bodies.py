"""Bodies: what the requests that fire a schedule may carry, described as JSON Schema and read as what it says."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Set
from typing import Any, Protocol

import msgspec
from fastapi import Request

from dpcore import App, Plan, plan
from dpcore.errors import ArgumentError, MissingInputError, PayloadError, PlanningError
from dpcore.events import PayloadReader
from dpcore.hints import MISSING, Parameter, Schema, convert
from dpcore.scheduler import Schedule
from dpcore_plugins.api.problems import Problem
from dpcore_plugins.api.security import is_json

__all__ = ("Body", "body_of", "plan_of", "read_json")

_PLANNING = frozenset(inspect.signature(plan).parameters) - {"selection", "registry", "params"}
_DIGITS = re.compile(r"[0-9]+\Z")
_LONGEST_LENGTH = 15  # digits of a Content-Length that anybody means
_LEFT_OUT = ("$ref", "$comment", "discriminator")  # the last of which would point to what is not there
_VALUES = ("const", "default", "enum", "examples")  # which are no schemas
_MISFITS = (ValueError, TypeError, RecursionError)
_MOST_ROUNDS = 3  # of planning until it is known what is missing


# ---------------------------------------------------------------- as it comes in


async def read_json(request: Request, most: int) -> Any:
    """Return the body of a request, which is JSON of *most* bytes; None if there is none.

    What is larger is refused as soon as that is known: nobody makes this hold more.
    Raises :class:`~dpcore_plugins.api.problems.Problem`.
    """
    raw = await _read(request, most)
    if not raw:
        return None
    if not is_json(request):
        raise Problem(415, "the body must be JSON; say so with: Content-Type: application/json")
    try:
        return msgspec.json.decode(raw)
    except RecursionError:
        raise Problem(400, "the body is not JSON that can be read: it is nested too deeply") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise Problem(400, f"the body is not JSON: {error}") from None


async def _read(request: Request, most: int) -> bytes:
    length = request.headers.get("content-length", "")
    if _DIGITS.match(length) and (len(length) > _LONGEST_LENGTH or int(length) > most):
        raise _too_large(most)
    found = bytearray()
    async for chunk in request.stream():
        found += chunk
        if len(found) > most:
            raise _too_large(most)
    return bytes(found)


def _too_large(most: int) -> Problem:
    return Problem(413, f"the body is larger than {most} bytes, the most that is taken here", {"Connection": "close"})


# ---------------------------------------------------------------- what it has to be


class Body(Protocol):
    """What the body of a request that fires a schedule has to be."""

    @property
    def schema(self) -> dict[str, Any]:
        """Describe it as JSON Schema (2020-12), in one piece: there is no ``$defs`` that it refers to."""

    @property
    def required(self) -> bool:
        """Whether there has to be one."""

    def read(self, value: Any) -> Any:
        """Return what *value*, read from JSON, stands for; raise a :class:`Problem` that lists what is wrong with it."""


def body_of(app: App, schedule: Schedule) -> Body:
    """Return what fits a schedule: what a trigger of it says, the run parameters that are open, or anything."""
    said = [trigger.body for trigger in schedule.triggers if trigger.body is not None]
    if said:
        return _Typed(said[0])
    if schedule.starts.selection is None or callable(schedule.starts.params):
        return _Anything()
    planned, names = _planned(app, schedule)
    return _Anything() if planned is None else _Parameters(planned, schedule.starts.params or {}, names)


class _Anything:
    """Any value that JSON has."""

    required = False

    def __init__(self) -> None:
        self.schema: dict[str, Any] = {}

    def read(self, value: Any) -> Any:
        return value


class _Typed:
    """A value of one type."""

    def __init__(self, kind: Any) -> None:
        self._reader = _reader(kind)
        self.schema = _document(Schema({}, kind, False, False, False, ()).result_json_schema())  # noqa: FBT003
        self.required = not self._takes_nothing()

    def read(self, value: Any) -> Any:
        try:
            return self._reader(value)
        except _MISFITS as error:
            raise _refused([*_told(error)]) from None

    def _takes_nothing(self) -> bool:
        try:
            self._reader(None)
        except _MISFITS:
            return False
        return True


class _Parameters:
    """An object of the run parameters that the tasks of a plan leave open."""

    def __init__(self, planned: Plan, given: Mapping[str, Any], names: Set[str]) -> None:
        hints_of: dict[str, list[Any]] = {}
        self._required: set[str] = set()
        properties: dict[str, list[dict[str, Any]]] = {}
        for task in planned:
            opened = {one.name: one for one in _opened(planned, task.name, given, names)}
            schema = msgspec.structs.replace(task.schema, parameters=opened, extra_keywords=False)
            described = _document(schema.parameters_json_schema())["properties"]
            for name, parameter in opened.items():
                hints_of.setdefault(name, []).append(parameter.hint)
                properties.setdefault(name, []).append(described[name])
                if parameter.required and name not in given:
                    self._required.add(name)
        self._readers = {name: [*map(_reader, _different(hints))] for name, hints in hints_of.items()}
        self.required = bool(self._required)
        self.schema = {
            "type": "object",
            "properties": {name: _all_of(schemas) for name, schemas in properties.items()},
            **({"required": sorted(self._required)} if self._required else {}),
            "additionalProperties": False,
        }

    def read(self, value: Any) -> Any:
        if value is None and not self.required:
            return None
        if not isinstance(value, dict):
            raise _refused([{"detail": "an object of run parameters is expected", "pointer": "#"}])
        faults = [{"detail": f"{name!r} is missing", "pointer": "#"} for name in sorted(self._required - value.keys())]
        found = {}
        for name, one in value.items():
            if name not in self._readers:
                there = ", ".join(map(repr, self._readers)) or "none"
                faults.append({"detail": f"there is no such parameter (there are: {there})", "pointer": _pointer(name)})
                continue
            try:
                values = [read(one) for read in self._readers[name]]
                found[name] = values[0] if len(values) == 1 else one  # which each task that takes it converts
            except _MISFITS as error:
                faults += _told(error, name)
        if faults:
            raise _refused(faults)
        return found


def _refused(faults: list[dict[str, str]]) -> Problem:
    first = "; ".join(f"{one['pointer']}: {one['detail']}" for one in faults[:3])
    more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
    return Problem(422, f"the body does not fit: {first}{more}", errors=faults)


# ---------------------------------------------------------------- run parameters


def plan_of(app: App, schedule: Schedule) -> Plan | None:
    """Return what a firing of a schedule runs, whatever is missing for it; None if it cannot be planned."""
    return _planned(app, schedule)[0]


def _planned(app: App, schedule: Schedule) -> tuple[Plan | None, Set[str]]:
    """Return also which run parameters it takes: those that the schedule gives, and those that are missing."""
    starts = schedule.starts
    selection = starts.selection or ()
    if selection and isinstance(selection[0], Plan):
        selection = selection[0].order
    arguments = {name: value for name, value in starts.arguments.items() if name in _PLANNING}
    names = set() if callable(starts.params) else {*(starts.params or ())}
    for _ in range(_MOST_ROUNDS):
        try:
            return app.plan(*selection, params=names, **arguments), names
        except PlanningError as error:
            missing = {
                one.parameter for one in error.exceptions if isinstance(one, MissingInputError) and one.upstream is None
            }
            if missing <= names:
                break
            names |= missing
    return None, names


def _opened(planned: Plan, task: str, given: Mapping[str, Any], names: Set[str]) -> Iterator[Parameter]:
    """Yield the parameters of a task that no task feeds, and that no run parameter of another name does."""
    fed = {*planned.inputs.get(task, ()), *planned.earlier.get(task, ())}
    wired = planned.tasks[task].inputs
    for parameter in planned.tasks[task].parameters.values():
        if parameter.name in fed:
            continue
        if parameter.name in names or (not parameter.required and wired.get(parameter.name) not in given):
            yield parameter


# ---------------------------------------------------------------- reading values


def _reader(hint: Any) -> Callable[[Any], Any]:
    """Return what makes a value of *hint* of what JSON has, or raises one of the misfits.

    It is as strict as JSON allows; a hint that only ``convert`` knows is converted as a run parameter is.
    """
    if hint is MISSING:
        return lambda value: value
    try:
        read = PayloadReader(hint).value
    except ArgumentError:
        return lambda value: convert(value, hint)

    def read_again(value: Any) -> Any:
        try:
            return read(value)
        except PayloadError:
            if repr(whole := _whole(value)) == repr(value):
                raise
        return read(whole)

    return read_again


def _whole(value: Any) -> Any:
    """Return *value* with ints for floats that are whole: in JSON these are the same numbers.

    >>> _whole([5.0, {"a": 0.5}])
    [5, {'a': 0.5}]
    """
    if isinstance(value, list):
        return [*map(_whole, value)]
    if isinstance(value, dict):
        return {key: _whole(one) for key, one in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _told(error: BaseException, *place: str) -> Iterator[dict[str, str]]:
    """Yield what is wrong with a value, each with its place as a JSON pointer."""
    if not isinstance(error, PayloadError):
        yield {"detail": str(error) or "it does not fit", "pointer": _pointer(*place)}
        return
    at = (*place, *(name or index for name, index in re.findall(r"\.([^.\[]+)|\[(\d+)\]", error.path)))
    cause: Any = error
    while cause is not None and not callable(getattr(cause, "errors", None)):
        cause = cause.__cause__
    if cause is None:
        yield {"detail": error.problem.partition("; the payload is ")[0], "pointer": _pointer(*at)}
        return
    for one in cause.errors():  # as pydantic tells them
        yield {"detail": one["msg"], "pointer": _pointer(*at, *one["loc"])}


def _pointer(*place: object) -> str:
    """Write a place as RFC 6901 does, in the form that is a part of a URI reference.

    >>> _pointer(), _pointer("a/b", 0)
    ('#', '#/a~1b/0')
    """
    return "#" + "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in place)


# ---------------------------------------------------------------- JSON Schema in one piece


def _document(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema with its definitions where they are used: in an OpenAPI document ``$defs`` are looked for elsewhere.

    What holds itself is left open where it does so again.
    """
    definitions = schema.get("$defs", {})
    found: dict[str, Any] = _inlined({key: value for key, value in schema.items() if key[0] != "$"}, definitions, ())
    return {**_inlined({"$ref": schema["$ref"]}, definitions, ()), **found} if "$ref" in schema else found


def _inlined(schema: Any, definitions: Mapping[str, Any], open_: tuple[str, ...]) -> Any:
    if isinstance(schema, list):
        return [_inlined(one, definitions, open_) for one in schema]
    if not isinstance(schema, dict):
        return schema
    name = schema["$ref"].rpartition("/")[2] if isinstance(schema.get("$ref"), str) else None
    found = {}
    for key, value in schema.items():
        if key in ("properties", "patternProperties"):
            found[key] = {inner: _inlined(one, definitions, open_) for inner, one in value.items()}
        elif key not in _LEFT_OUT:
            found[key] = value if key in _VALUES else _inlined(value, definitions, open_)
    if name is None:
        return found
    return {**({} if name in open_ else _inlined(definitions[name], definitions, (*open_, name))), **found}


def _all_of(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    different = _different(schemas)
    return different[0] if len(different) == 1 else {"allOf": different}


def _different(values: list[Any]) -> list[Any]:
    return [one for index, one in enumerate(values) if one not in values[:index]]
