"""Hints as JSON Schema (draft 2020-12): what a value looks like once msgspec has written it as JSON.

Containers, unions and aliases are taken apart here; classes are described by
msgspec, and pydantic's models by themselves.  What none of them knows is left
open, under its name: a document says too little rather than too much.  It is
stricter than Python in two things only: a bool is no integer and a str no array
there, and what ``msgspec.Meta`` demands is written down, which nobody checks here.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum, Flag
from pathlib import PurePath
from typing import Annotated, Any, Literal, NewType, TypeVar, Union

import msgspec

from dpcore.hints.apart import MISSING, fields_of, inside, is_typed_dict, members_of, parts_of, shown
from dpcore.hints.values import CONTAINERS, is_record

__all__ = ("document", "parameters_document")

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Document = dict[str, Any]
Row = tuple[str, Any, Any]
"""The name, the hint and the default of a field or a parameter; each of the last two may be MISSING."""

_DEEPEST = 40  # aliases may stand for ever larger ones: `type Widening[T] = list[Widening[list[T]]]`


def document(hint: Any, rows_of: Callable[[Any], list[Row]]) -> Document:
    """Describe the values of *hint*; *rows_of* reads the fields of a record that msgspec does not take."""
    writer = _Writer(rows_of)
    return writer.whole(writer.described(hint))


def parameters_document(rows: Iterable[Row], more: bool, rows_of: Callable[[Any], list[Row]]) -> Document:
    """Describe an object with a property for each of *rows*, and with others if there may be *more*."""
    writer = _Writer(rows_of)
    found = writer.properties(rows)
    return writer.whole(found if more else {**found, "additionalProperties": False})


class _Writer:
    """Writes one document: what has a name goes into its ``$defs``, so that it may speak of itself."""

    def __init__(self, rows_of: Callable[[Any], list[Row]]) -> None:
        self.rows_of = rows_of
        self.definitions: Document = {}
        self.names: dict[Any, str] = {}
        self.lifts: dict[Any, Document] = {}
        self.depth = 0

    def whole(self, found: Document) -> Document:
        return {"$schema": DIALECT, **found, **({"$defs": self.definitions} if self.definitions else {})}

    def described(self, hint: Any) -> Document:
        if self.depth >= _DEEPEST:
            return {}
        self.depth += 1
        try:
            return self.taken_apart(hint)
        except Exception:  # noqa: BLE001 - hints are anybody's objects; one that cannot be described is left open
            return _unknown(hint)
        finally:
            self.depth -= 1

    def taken_apart(self, hint: Any) -> Document:
        origin = typing.get_origin(hint)
        if origin in (Union, types.UnionType):
            return self.any_of(hint.__args__)
        if origin is Annotated:
            return self.constrained(hint)
        if origin is Literal:
            return {"enum": [_plain(value) for value in hint.__args__]}
        members = members_of(hint, newtypes=True)
        if any(member is MISSING or member is object for member in members):
            return {}
        if not members:  # Never
            return {"not": {}}
        stands_for = hint.__supertype__ if isinstance(hint, NewType) else inside(hint, origin)
        if isinstance(hint, TypeVar):
            return self.described(stands_for)
        if stands_for is not hint:
            # An alias by its name, since it may stand for something that holds itself.
            named = "TypeAliasType" in (type(hint).__name__, type(origin).__name__)
            return self.defined(hint, lambda: self.described(stands_for)) if named else self.described(stands_for)
        return self.single(hint)

    def any_of(self, hints: Sequence[Any]) -> Document:
        if any(member is MISSING or member is object for hint in hints for member in members_of(hint)):
            return {}
        found: list[Document] = []
        for hint in hints:
            one = self.described(hint)
            found += [one] if one not in found else []
        return found[0] if len(found) == 1 else {"anyOf": found}

    def constrained(self, hint: Any) -> Document:
        inner, *extras = typing.get_args(hint)
        found = self.described(inner)
        for extra in extras:
            if isinstance(extra, msgspec.Meta):
                found = {**found, **self.said_by(extra, inner)}
        return found

    def said_by(self, meta: msgspec.Meta, inner: Any) -> Document:
        """Return what *meta* adds: msgspec knows how, where it knows the type."""
        members = members_of(inner, newtypes=True)
        for kind in (inner, *members, *(parts_of(member)[0] for member in members)):
            try:
                with_it = msgspec.json.schema(Annotated[kind, meta], schema_hook=_unknown)
                without = msgspec.json.schema(kind, schema_hook=_unknown)
            except (TypeError, ValueError, NameError):
                continue
            return {
                key: value for key, value in with_it.items() if without.get(key, MISSING) != value and key != "$defs"
            }
        return {key: value for key in ("title", "description") if (value := getattr(meta, key))}

    def single(self, hint: Any) -> Document:
        kind, arguments = parts_of(hint)
        if hint is types.NoneType:
            return {"type": "null"}
        if kind in CONTAINERS:
            return self.container(CONTAINERS[kind], arguments)
        if not isinstance(kind, type):
            return _unknown(hint)
        if callable(pydantic := getattr(kind, "model_json_schema", None)):
            return self.lifted(pydantic(ref_template="#/$defs/{model}"))
        if issubclass(kind, Enum):
            return self.defined(hint, lambda: _enumerated(kind))
        if is_record(kind):
            return self.record(hint, kind)
        if issubclass(kind, PurePath):
            return {"type": "string", "title": shown(hint)}
        return msgspec.json.schema(hint)  # which raises for what it does not know

    def container(self, build: type, arguments: tuple[Any, ...] | None) -> Document:
        if build is dict:
            values = self.described(arguments[1]) if arguments else {}
            return {"type": "object", **({"additionalProperties": values} if values else {})}
        if build is tuple and arguments is not None and ... not in arguments:
            items = {"prefixItems": [self.described(item) for item in arguments], "items": False} if arguments else {}
            return {"type": "array", **items, "minItems": len(arguments), "maxItems": len(arguments)}
        items = self.described(arguments[0]) if arguments else {}
        unique = {"uniqueItems": True} if build in (set, frozenset) else {}
        return {"type": "array", **({"items": items} if items else {}), **unique}

    def record(self, hint: Any, kind: Any) -> Document:
        try:
            return self.by_msgspec(hint)
        except Exception:  # noqa: BLE001 - a hint that does not resolve, a union that msgspec cannot tell apart, ...
            return self.defined(hint, lambda: {"title": shown(hint), **self.fields(kind)})

    def fields(self, kind: Any) -> Document:
        if is_typed_dict(kind):
            fields = fields_of(kind).items()
            found = {"type": "object", "properties": {key: self.described(field) for key, (field, _) in fields}}
            required = [key for key, (field, needed) in fields if needed and field is not MISSING]
            return {**found, **({"required": required} if required else {})}
        rows = self.rows_of(kind)
        if not issubclass(kind, tuple):
            return self.properties(rows)
        needed = sum(default is MISSING for _, _, default in rows)
        items = [self.with_default(field, default) for _, field, default in rows]
        return {"type": "array", "prefixItems": items, "minItems": needed, "maxItems": len(rows)}

    def properties(self, rows: Iterable[Row]) -> Document:
        rows = list(rows)
        found = {"type": "object", "properties": {name: self.with_default(hint, value) for name, hint, value in rows}}
        required = [name for name, _, default in rows if default is MISSING]
        return {**found, **({"required": required} if required else {})}

    def with_default(self, hint: Any, default: Any) -> Document:
        found = self.described(hint)
        if default is MISSING:
            return found
        try:
            return {**found, "default": _plain(default)}
        except Exception:  # noqa: BLE001 - JSON cannot say it, and a default's own code may run
            return found

    def by_msgspec(self, hint: Any) -> Document:
        """Describe a record as msgspec does, which asks back for what it does not know; raise what that raises."""
        if hint not in self.lifts:
            self.lifts[hint] = self.lifted(msgspec.json.schema(hint, schema_hook=self.described))
        return self.lifts[hint]

    def defined(self, hint: Any, describe: Callable[[], Document]) -> Document:
        """Describe *hint* under a name of its own, once, and refer to it."""
        if hint not in self.names:
            name = self.names[hint] = self.free(_name(hint))
            self.definitions[name] = {}  # so that nobody else takes it meanwhile
            self.definitions[name] = describe()
        return {"$ref": f"#/$defs/{self.names[hint]}"}

    def lifted(self, found: Document) -> Document:
        """Return *found* with its definitions among ours; those of a name that is taken by another get a new one."""
        theirs = found.pop("$defs", {})
        renamed = {name: name for name in theirs}
        for name, definition in theirs.items():
            if self.definitions.get(name, definition) != definition:
                renamed[name] = self.free(name)
        if any(old != new for old, new in renamed.items()):
            theirs, found = _renamed(theirs, renamed), _renamed(found, renamed)
        self.definitions.update({renamed[name]: definition for name, definition in theirs.items()})
        return found

    def free(self, name: str) -> str:
        found, number = name, 1
        while found in self.definitions:
            number += 1
            found = f"{name}_{number}"
        return found


def _renamed(found: Any, names: Mapping[str, str]) -> Any:
    if isinstance(found, list):
        return [_renamed(one, names) for one in found]
    if not isinstance(found, dict):
        return found
    return {
        key: f"#/$defs/{names.get(value.removeprefix('#/$defs/'), value.removeprefix('#/$defs/'))}"
        if key == "$ref" and isinstance(value, str) and value.startswith("#/$defs/")
        else _renamed(value, names)
        for key, value in found.items()
    }


def _name(hint: Any) -> str:
    """Write *hint* as a name that needs no escaping in a reference."""
    return "".join(letter if letter.isalnum() or letter in "_-." else "_" for letter in shown(hint)).strip("_")


def _enumerated(kind: type[Enum]) -> Document:
    if issubclass(kind, Flag):
        return {"title": kind.__name__, "type": "integer"}  # any combination of its members
    return {"title": kind.__name__, "enum": [_plain(member.value) for member in kind]}


def _unknown(hint: Any) -> Document:
    """Describe what nothing is known of: any value, under the name of its class."""
    try:
        name, module = shown(hint), getattr(parts_of(hint)[0], "__module__", "builtins")
    except Exception:  # noqa: BLE001 - a class may refuse even to say what it is called
        return {}
    where = name if module == "builtins" else f"{module}.{name}"
    return {"title": name, "$comment": f"any value: JSON Schema has no word for {where}"}


def _path_as_text(value: Any) -> str:
    if isinstance(value, PurePath):
        return str(value)
    raise NotImplementedError


def _plain(value: Any) -> Any:
    """Return *value* as JSON says it; raise where JSON cannot."""
    plain = msgspec.to_builtins(value, str_keys=True, enc_hook=_path_as_text)
    return json.loads(json.dumps(plain, allow_nan=False))
