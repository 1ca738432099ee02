"""Settings: which adapters are wanted, what they are told, and who said so.

A setting is looked for in four places, and the first that has it wins: the call,
the environment (``DPCORE_*``), the project file (``[tool.dpcore]`` of
``pyproject.toml``, or ``dpcore.toml``), and the default.  Every value is handed
on with its source.  A :class:`Config` reads the file it is given and nothing
else; only :meth:`Config.read`, which is for the command line, looks for one.

Adapters are written in one grammar::

    threads                          a name
    redis@dp-redis                   of that distribution, or plugin
    multiprocess?workers=4&slots=2   with settings, percent-encoded where need be
    filesystem:./runs                with a path
    redis://localhost:6379/0         with a URL, whose scheme selects the adapter
"""

from __future__ import annotations

import inspect
import os
import re
import types
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

from dpcore.errors import AdapterNotMadeError, ArgumentError, ConfigError, DpcoreError, SettingError
from dpcore.hints import convert
from dpcore.providers import KINDS
from dpcore.words import listed, nearest, printed

__all__ = (
    "AdapterString",
    "Config",
    "Level",
    "Secret",
    "Setting",
    "Value",
    "build",
    "canonical",
    "converted",
    "kind_named",
    "main_setting",
    "masked",
    "settings_of",
    "settle",
)

CHOICES = ("broker", "io", "executor", "store")
LISTS = ("disable", "plugins")
TABLES = {kind.table: key for key, kind in KINDS.items()}


class Level(IntEnum):
    """How much a source counts; the greatest wins."""

    DEFAULT = 0
    FILE = 1
    ENVIRONMENT = 2
    CALL = 3


@dataclass(frozen=True, slots=True)
class Value:
    """A value, and where it comes from."""

    value: Any
    source: str
    """For people: ``the call``, ``option``, ``DPCORE_IO``, ``pyproject.toml [tool.dpcore]``, ``default``."""

    level: Level


class Secret(str):
    """A text that is not shown: client libraries can use it as the ``str`` it is, and its repr is ``***``.

    >>> password = Secret("hunter2")
    >>> password, password.reveal()
    (***, 'hunter2')
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "***"

    def reveal(self) -> str:
        """Return the text, as a plain ``str``."""
        return "".join(self)


def canonical(distribution: str) -> str:
    """Return the name of a distribution as package indexes compare it (PEP 503).

    >>> canonical("DP_Redis")
    'dp-redis'
    """
    return re.sub(r"[-_.]+", "-", distribution).lower()


def kind_named(kind: str) -> str:
    """Return *kind* if it is one; otherwise raise a :class:`ConfigError` that lists them."""
    if kind in KINDS:
        return kind
    raise ConfigError("adapters", f"there is no kind {kind!r} (there are: {listed(KINDS)}){nearest(kind, KINDS)}")


# ---------------------------------------------------------------- the grammar


GRAMMAR = (
    "write 'name', 'name?setting=value', 'name:path' or 'name://host/...'; 'name@distribution' picks one of several"
)

_STRING = re.compile(
    r"""(?P<name> [a-z][a-z0-9+.-]*)
    (?:@(?P<distribution> [A-Za-z0-9] (?:[A-Za-z0-9._-]*[A-Za-z0-9])? ))?
    (?P<rest> $|[:?].*)""",
    re.VERBOSE | re.DOTALL,
)
_PASSWORD = re.compile(r"(://[^/?#@:]*):[^/?#]*@")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/:@,+* ")


@dataclass(frozen=True, slots=True, repr=False)
class AdapterString:
    """An adapter as it is written in one string.

    >>> AdapterString.parse("multiprocess?workers=4").settings
    {'workers': '4'}
    >>> redis = AdapterString.parse("redis@dp-redis://localhost/0")
    >>> redis.name, redis.distribution, redis.address
    ('redis', 'dp-redis', 'redis://localhost/0')
    >>> AdapterString.parse("filesystem:./runs").address
    './runs'
    """

    name: str
    """The name of an adapter, or a scheme that selects it."""

    distribution: str | None = None
    """Whose adapter is meant, where several have that name."""

    address: str | None = None
    """The whole URL without ``@distribution``, or the path, or None."""

    settings: Mapping[str, str] = field(default_factory=dict, hash=False)
    """What follows the ``?``.  That of a URL may hold what is not for the adapter but for its client library."""

    @classmethod
    def parse(cls, text: str, where: str | None = None) -> AdapterString:
        """Read *text*; a :class:`ConfigError` shows the grammar, and names *where* the text stands."""
        try:
            return cls._parse(text)
        except (ValueError, TypeError) as error:
            shown = masked(text) if isinstance(text, str) else text
            place = f"{where}: " if where else ""
            raise ConfigError(f"{place}adapter {shown!r}", f"{error}; {GRAMMAR}") from None

    @classmethod
    def _parse(cls, text: str) -> AdapterString:
        if not isinstance(text, str):
            raise TypeError("it is no text")
        text.encode()  # a lone surrogate could neither be written nor sent
        match = _STRING.fullmatch(text)
        if match is None:
            raise ValueError("it does not begin with the name of an adapter")
        name, distribution, rest = match["name"], match["distribution"], match["rest"]
        if rest.startswith("://"):
            return cls(name, distribution, name + rest, dict(_pairs_of_url(rest)))
        path, _, query = rest.partition("?")
        if path == ":":
            raise ValueError("there is no path after the ':'")
        address = _decoded(path[1:]) if path else None
        if address is not None and address.startswith(f"{name}://"):
            raise ValueError("the name is there twice")
        return cls(name, distribution, address, dict(_pairs(query)))

    @property
    def is_url(self) -> bool:
        """Whether it was written as a URL, whose address is the whole of it."""
        return self.address is not None and self.address.startswith(f"{self.name}://")

    def __str__(self) -> str:
        """Write it so that :meth:`parse` reads the same."""
        name = f"{self.name}@{self.distribution}" if self.distribution else self.name
        if self.address is not None and self.is_url:
            return name + self.address.removeprefix(self.name)
        path = "" if self.address is None else f":{_encoded(self.address)}"
        path = path.replace("://", ":%2F/", 1) if path.startswith("://") else path  # or it would be a URL
        query = "&".join(f"{_encoded(key)}={_encoded(value)}" for key, value in self.settings.items())
        return f"{name}{path}?{query}" if query else name + path

    def __repr__(self) -> str:
        # A password may stand in the URL, and any setting may turn out to be a secret.
        hidden = str(replace(self, settings=dict.fromkeys(self.settings, "***")))
        if self.is_url and "?" in hidden:
            hidden = f"{hidden.partition('?')[0]}?***"
        return f"<AdapterString {masked(hidden)}>"


def _pairs(query: str) -> Iterator[tuple[str, str]]:
    seen = set()
    for part in query.split("&") if query else ():
        key, equals, value = part.partition("=")
        key = _decoded(key)
        if not key or not equals:
            raise ValueError("after the '?' there must be setting=value, joined by '&'")
        if key in seen:
            raise ValueError(f"setting {key!r} is there twice")
        seen.add(key)
        yield key, _decoded(value)


def _pairs_of_url(rest: str) -> Iterator[tuple[str, str]]:
    # What does not look like a setting is left to the client library, which gets the URL.
    for part in rest.partition("#")[0].partition("?")[2].split("&"):
        key, equals, value = part.partition("=")
        if key and equals:
            yield _decoded(key), _decoded(value)


# urllib.parse would do, but costs more to import than this whole module.


def _decoded(text: str) -> str:
    """Undo percent-encoding; what is not encoded stays as it is."""
    if "%" not in text:
        return text
    raw = re.sub(rb"%([0-9A-Fa-f]{2})", lambda match: bytes([int(match[1], 16)]), text.encode())
    return raw.decode(errors="replace")


def _encoded(text: str) -> str:
    return "".join(chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in text.encode())


def masked(text: str) -> str:
    """Hide the password of a URL.

    >>> masked("redis://user:hunter2@host/0")
    'redis://user:***@host/0'
    """
    return _PASSWORD.sub(r"\1:***@", text)


# ---------------------------------------------------------------- the sources


class Config:
    """What the environment and a project file say.

    >>> Config(environ={"DPCORE_IO": "memory"}).choice("io", default="filesystem:runs")
    Value(value='memory', source='DPCORE_IO', level=<Level.ENVIRONMENT: 2>)
    """

    def __init__(self, file: str | os.PathLike[str] | None = None, *, environ: Mapping[str, str] | None = None) -> None:
        """Read *file* (if one is given) and *environ* (``os.environ``, unless another is given)."""
        source = os.environ if environ is None else environ
        # An empty variable is how a shell line unsets one for a single command.
        self.environ = {key: value for key, value in source.items() if key.startswith("DPCORE_") and value}
        self.file = None if file is None else Path(file)
        self.root = None if self.file is None else self.file.parent
        """The folder of the project, beside whose file ``dpcore_conf.py`` may stand."""
        self._table: dict[str, Any] = {}
        self._source = ""
        if self.file is not None:
            self._source = f"{self.file.name} [tool.dpcore]" if _is_pyproject(self.file) else self.file.name
            self._table = _table(self.file)

    @classmethod
    def read(cls, place: str | os.PathLike[str] = ".", *, environ: Mapping[str, str] | None = None) -> Config:
        """Read the project file *place*, or the nearest one upward from the folder *place*.

        The nearest is the first folder with a ``dpcore.toml``, or with a
        ``pyproject.toml`` that has a ``[tool.dpcore]``.  Without one the project is
        the folder of the nearest ``pyproject.toml``, and there are no settings.
        """
        place = Path(place).absolute()
        if place.is_file():
            return cls(place, environ=environ)
        fallback = None
        for folder in (place, *place.parents):
            own, shared = folder / "dpcore.toml", folder / "pyproject.toml"
            if own.is_file():
                return cls(own, environ=environ)
            if shared.is_file():
                if _table(shared):
                    return cls(shared, environ=environ)
                fallback = fallback or shared
        return cls(fallback, environ=environ)

    def choice(self, kind: str, given: object = None, default: object = None, said: str = "the call") -> Value:
        """Return which adapter of *kind* is wanted: *given* by what *said* names if it is not None, or elsewhere."""
        name = f"DPCORE_{kind.upper()}"
        if given is not None:
            return Value(given, said, Level.CALL)
        if name in self.environ:
            return Value(self.environ[name], name, Level.ENVIRONMENT)
        if kind in self._table:
            return Value(self._table[kind], self._source, Level.FILE)
        return Value(default, "default", Level.DEFAULT)

    @property
    def plugins(self) -> list[Value]:
        """The plugins to load by name, of the file and then of the environment."""
        return self._names("plugins", "DPCORE_PLUGINS")

    @property
    def disable(self) -> list[Value]:
        """The plugins to block, of the file and then of the environment; the two add up."""
        return self._names("disable", "DPCORE_DISABLE_PLUGINS")

    def _names(self, key: str, variable: str) -> list[Value]:
        texts = [part.strip() for part in self.environ.get(variable, "").split(",")]
        return [
            *(Value(name, self._source, Level.FILE) for name in self._table.get(key, ())),
            *(Value(name, variable, Level.ENVIRONMENT) for name in texts if name),
        ]

    @property
    def autoload(self) -> Value:
        """Whether installed plugins are loaded without being named."""
        text = self.environ.get("DPCORE_PLUGIN_AUTOLOAD")
        if text is None:
            return Value(_SWITCH["1"], "default", Level.DEFAULT)
        if text.lower() not in _SWITCH:
            raise ConfigError("DPCORE_PLUGIN_AUTOLOAD", f"{text!r} must be 0 or 1")
        return Value(_SWITCH[text.lower()], "DPCORE_PLUGIN_AUTOLOAD", Level.ENVIRONMENT)

    @property
    def adapters(self) -> list[tuple[str, Value]]:
        """The adapters for which the file has a table of settings: their kind, and their name."""
        return [
            (kind, Value(name, f"{self._source} ({table})", Level.FILE))
            for table, kind in TABLES.items()
            for name in self._table.get(table, {})
        ]

    @property
    def limits(self) -> dict[str, int]:
        """How many jobs of tasks with a tag may run at once, by tag, as the file has it."""
        return dict(self._table.get("limits", {}))

    @property
    def schedules(self) -> dict[str, Value]:
        """The schedules of the file, by name: each a table, as it is written."""
        return {
            name: Value(table, f"{self._source} (schedules.{name})", Level.FILE)
            for name, table in self._table.get("schedules", {}).items()
        }

    def settings(self, kind: str, name: str, others: Iterable[str] = ()) -> Iterator[tuple[str, Value]]:
        """Yield what is set for the adapter *name*, the weightier last.

        *others* are the names of other adapters of that kind, since the variables of
        ``threads-fast`` begin like those of ``threads``.
        """
        table = KINDS[kind].table
        source = f"{table}.{name}]"
        source = f"{self._source[:-1]}.{source}" if _is_pyproject(self.file) else f"{self._source} [{source}"
        for key, value in self._table.get(table, {}).get(name, {}).items():
            yield key, Value(value, source, Level.FILE)
        prefix = _variable(kind, name)
        longer = tuple(other for other in (_variable(kind, one) for one in others) if len(other) > len(prefix))
        for variable, text in sorted(self.environ.items()):
            if variable.startswith(prefix) and not (longer and variable.startswith(longer)):
                yield variable.removeprefix(prefix).lower(), Value(text, variable, Level.ENVIRONMENT)


_SWITCH = {"0": False, "false": False, "no": False, "off": False, "1": True, "true": True, "yes": True, "on": True}


def _variable(kind: str, name: str) -> str:
    return f"DPCORE_{kind}_{name}_".upper().replace("-", "_")


def _is_pyproject(file: Path | None) -> bool:
    return file is not None and file.name == "pyproject.toml"


def _table(file: Path) -> dict[str, Any]:
    """Return the settings in *file*, checked as far as they can be without knowing the adapters."""
    document = _document(file)
    if not _is_pyproject(file):
        if "tool" in document:
            raise ConfigError(str(file), "has a [tool]; here the keys stand at the top, without [tool.dpcore]")
        return _checked(document, str(file))
    tool = document.get("tool", {})
    table = tool.get("dpcore", {}) if isinstance(tool, dict) else {}
    where = f"{file} [tool.dpcore]"
    if not isinstance(table, dict):
        raise ConfigError(where, f"{table!r} must be a table")
    return _checked(table, where)


def _document(file: Path) -> dict[str, Any]:
    import tomllib  # noqa: PLC0415 - not needed by those who have no file, and slow to import

    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(str(file), "there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(file), f"cannot be read: {error}") from None
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ConfigError(str(file), "is nested too deeply") from None
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"at line (\d+)", str(error))
        line = found[1] if found else text.count("\n") + 1  # "at end of document"
        raise ConfigError(f"{file}:{line}", f"is not TOML: {error}") from None


def _checked(table: dict[str, Any], where: str) -> dict[str, Any]:
    known = (*CHOICES, *LISTS, *TABLES, "limits", "schedules")
    for key, value in table.items():
        if key in CHOICES and not isinstance(value, str):
            raise ConfigError(where, f"{key} = {value!r} must be an adapter in one string, such as 'memory'")
        if key in LISTS and not (isinstance(value, list) and all(isinstance(name, str) for name in value)):
            raise ConfigError(where, f"{key} = {value!r} must be a list of names of plugins")
        if key in (*TABLES, "schedules") and not _holds_tables(value):
            each = "schedule" if key == "schedules" else "adapter"
            raise ConfigError(where, f"{key} = {value!r} must hold a table per {each}: [{key}.NAME]")
        if key == "limits" and not is_limits(value):
            raise ConfigError(where, f"limits = {value!r} must hold a whole number from 1 on for each tag")
        if key not in known:
            raise ConfigError(where, f"unknown key {key!r} (there are: {listed(known)}){nearest(key, known)}")
    return table


def _holds_tables(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(each, dict) for each in value.values())


def is_limits(value: object) -> bool:
    """Tell whether *value* says how many jobs may run at once of tasks with some tags.

    >>> is_limits({"db": 2}), is_limits({"db": 0}), is_limits({"": 2})
    (True, False, False)
    """
    return isinstance(value, Mapping) and all(
        isinstance(tag, str) and tag and type(most) is int and most > 0 for tag, most in value.items()
    )


# ---------------------------------------------------------------- the settings of an adapter


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing that the constructor of an adapter can be told."""

    name: str
    hint: Any
    default: Any
    required: bool
    secret: bool


def settings_of(cls: type) -> Mapping[str, Setting]:
    """Return the settings of an adapter: the keyword-only parameters of its constructor, and its address.

    The address is the parameter ``url``, or else ``path``, and need not be
    keyword-only.  A constructor with ``**kwargs`` has its parents' settings too.
    """
    found: dict[str, Setting] = {}
    for function in _constructors(cls):
        for parameter in inspect.signature(function).parameters.values():
            if parameter.name not in found and _is_setting(parameter):
                found[parameter.name] = _setting(function, parameter)
    return found


def main_setting(cls: type) -> Setting | None:
    """Return the first parameter of a constructor that may be given by position; None if there is none."""
    for function in _constructors(cls):
        for parameter in [*inspect.signature(function).parameters.values()][1:]:
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                return _setting(function, parameter)
    return None


def _constructors(cls: type) -> Iterator[Any]:
    for each in cls.__mro__[:-1]:
        if "__init__" in vars(each):
            function = vars(each)["__init__"]
            yield function
            if not any(one.kind is one.VAR_KEYWORD for one in inspect.signature(function).parameters.values()):
                return


def _is_setting(parameter: inspect.Parameter) -> bool:
    is_address = parameter.name in ("url", "path") and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    return is_address or parameter.kind is parameter.KEYWORD_ONLY


def _setting(function: Any, parameter: inspect.Parameter) -> Setting:
    required = parameter.default is parameter.empty
    hint: Any = Any if parameter.annotation is parameter.empty else parameter.annotation
    try:
        one = types.SimpleNamespace(__annotations__={parameter.name: hint})
        hint = typing.get_type_hints(one, getattr(function, "__globals__", {}), include_extras=True)[parameter.name]
    except Exception:  # noqa: BLE001 - evaluating a hint may raise anything; then only this one is not converted
        hint = Any
    return Setting(parameter.name, hint, None if required else parameter.default, required, Secret in _members(hint))


def _members(hint: Any) -> tuple[Any, ...]:
    """Return what a hint admits: the members of a union, or itself."""
    if typing.get_origin(hint) is typing.Annotated:
        return _members(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(member for each in typing.get_args(hint) for member in _members(each))
    return (hint,)


def build(
    cls: type,
    kind: str,
    spec: AdapterString | Value | None = None,
    config: Config | None = None,
    *,
    name: str | None = None,
    others: Collection[str] = (),
) -> Any:
    """Make an adapter of class *cls* with what :func:`settle` finds; what is not set is left to the constructor.

    A :class:`ValueError` of the constructor, which refuses a setting, is raised as an
    :class:`~dpcore.errors.AdapterNotMadeError`; whatever else it raises has a note.
    """
    values = settle(cls, kind, spec, config, name=name, others=others)
    given = {key: value.value for key, value in values.items() if value.level is not Level.DEFAULT}
    try:
        return cls(**given)
    except Exception as error:
        if isinstance(error, ArgumentError) or (isinstance(error, ValueError) and not isinstance(error, DpcoreError)):
            raise AdapterNotMadeError(_owner(cls, kind, spec, name), str(error)) from error
        if isinstance(error, DpcoreError):
            raise
        error.add_note(f"while making the {_owner(cls, kind, spec, name)}")
        raise


def settle(
    cls: type,
    kind: str,
    spec: AdapterString | Value | None = None,
    config: Config | None = None,
    *,
    name: str | None = None,
    others: Collection[str] = (),
    missing_ok: bool = False,
) -> dict[str, Value]:
    """Return the value of each setting of *cls*, converted by its hint, and where it comes from.

    *spec* is the adapter as it was written; in a :class:`Value` it says where, so
    that a string of the project file gives way to the environment.  At one level the
    string wins.  A path in the project file is relative to the folder of that file.
    With *missing_ok* a required setting that nobody set is left out.
    *name* is the adapter's own, where a scheme of it was written, and
    *others* are the names beside it.  The repr of a secret value hides it.  Raises
    :class:`~dpcore.errors.SettingError` for what is unknown, missing, not to be
    converted, and for an address that nobody takes.
    """
    written = spec if isinstance(spec, Value) else Value(spec, "the call", Level.CALL)
    name = name or (written.value.name if written.value else None)
    owner = _owner(cls, kind, spec, name)
    settings = settings_of(cls)
    _check_constructor(owner, cls, settings)
    said = [*config.settings(kind, name, others)] if config and name else []
    if written.value is not None:
        said += [(key, replace(written, value=value)) for key, value in _spelled(owner, written.value, settings)]
    best: dict[str, Value] = {}
    for key, value in said:
        if key not in settings:
            raise SettingError(owner, key, f"is unknown, from {value.source}", settings)
        if key not in best or best[key].level <= value.level:
            best[key] = value
    root = config.root if config is not None else None
    return {
        key: _settled(owner, setting, _placed(setting, best.get(key), root))
        for key, setting in settings.items()
        if key in best or not (setting.required and missing_ok)
    }


def _owner(cls: type, kind: str, spec: AdapterString | Value | None, name: str | None) -> str:
    spec = spec.value if isinstance(spec, Value) else spec
    return f"{KINDS[kind].word} {name or (spec.name if spec else cls.__name__)!r}"


def _check_constructor(owner: str, cls: type, settings: Mapping[str, Setting]) -> None:
    """Refuse a constructor that wants what no string, file or variable can say."""
    function = next(_constructors(cls), None)
    for one in [*inspect.signature(function).parameters.values()][1:] if function else ():
        positional = one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
        if positional and one.default is one.empty and one.name not in settings:
            raise SettingError(owner, one.name, "is not keyword-only, so only Python can give it; pass an object")


def _spelled(owner: str, spec: AdapterString, settings: Mapping[str, Setting]) -> Iterator[tuple[str, str]]:
    """Yield what an adapter string sets: its settings, and its address under the name of who takes it."""
    takes_url = "url" in settings
    for key, value in spec.settings.items():
        if key in settings or not (spec.is_url and takes_url):
            yield key, value
    if spec.address is None:
        return
    if takes_url:
        yield "url", _without(spec.address, settings) if spec.is_url else spec.address
    elif "path" in settings:
        yield "path", _path_of(owner, spec, spec.address)
    else:
        raise SettingError(owner, "address", f"is given ({masked(spec.address)!r}), but it takes none", settings)


def _without(url: str, settings: Mapping[str, Setting]) -> str:
    """Take out of the query of *url* what is for the adapter; its client library would stumble over it."""
    url, mark, fragment = url.partition("#")
    place, _, query = url.partition("?")
    kept = [part for part in query.split("&") if "=" not in part or _decoded(part.partition("=")[0]) not in settings]
    return place + (f"?{'&'.join(kept)}" if query and kept else "") + mark + fragment


def _path_of(owner: str, spec: AdapterString, address: str) -> str:
    if not spec.is_url:
        return address
    host, slash, path = address.removeprefix(f"{spec.name}://").partition("?")[0].partition("/")
    if host or not slash:
        raise SettingError(owner, "path", f"cannot be on a host ({masked(address)!r}); write {spec.name}:PATH")
    return _decoded(f"/{path}")


def _placed(setting: Setting, said: Value | None, root: Path | None) -> Value | None:
    """Have a path in the project file mean the same, whatever folder of the project somebody is in."""
    if said is None or said.level is not Level.FILE or root is None or not isinstance(said.value, str):
        return said
    if setting.name != "path" and Path not in _members(setting.hint):
        return said
    return replace(said, value=str(root.absolute() / Path(said.value).expanduser()))


def _settled(owner: str, setting: Setting, said: Value | None) -> Value:
    if said is not None:
        return replace(said, value=converted(owner, setting, said))
    if setting.required:
        ways = {"url": "write it as 'name://host/...'", "path": "write it as 'name:path'"}
        way = ways.get(setting.name, f"write it as 'name?{setting.name}=...'")
        raise SettingError(owner, setting.name, f"is missing; {way}, or set it in the environment or the project file")
    return Value(setting.default, "default", Level.DEFAULT)


def converted(owner: str, setting: Setting, said: Value) -> Any:
    """Return what was said of a setting, converted by its hint; *owner* is named where it does not convert."""
    members = _members(setting.hint)
    if setting.hint is Any or (isinstance(said.value, str) and str in members):
        return said.value  # a text, where a text will do, is not looked into
    if setting.secret and isinstance(said.value, str):
        return Secret(said.value)
    try:
        return convert(said.value, setting.hint)
    except (ValueError, TypeError, RecursionError) as error:
        if setting.secret:
            raise SettingError(owner, setting.name, f"(hidden), from {said.source}, does not convert") from None
        why = "it is nested too deeply" if isinstance(error, RecursionError) else error
        problem = f"= {printed(said.value)}, from {said.source}, does not convert: {why}"
        raise SettingError(owner, setting.name, problem) from error
