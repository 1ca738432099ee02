"""Providers: the records by which plugins offer what they have.

Pure.  A record is data: what it names stays unimported until it is used, so
that a hundred installed adapters cost no more than a hundred lines in a list.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, NamedTuple, TypeVar

from dpcore.errors import ProviderError

__all__ = ("KINDS", "Command", "Kind", "Provider")

T_co = TypeVar("T_co", covariant=True)

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")  # RFC 3986, section 3.1, in lower case

_NAME_WANTED = "lower-case words joined by '-', such as 'redis' or 'redis-streams'"
_TARGET_WANTED = "'package.module:Name'"


class Kind(NamedTuple):
    """One of the six things that can be swapped."""

    hook: str
    """The hook that offers it."""

    word: str
    """What it is called in a sentence."""

    oldest: int = 1
    """The oldest version of its port that this dpcore still takes."""

    api: int = 1
    """The version of its port that this dpcore has."""

    @property
    def table(self) -> str:
        """The table of a settings file that holds the settings of its adapters.

        >>> KINDS["io"].table
        'io_managers'
        """
        return self.hook.removeprefix("dpcore_")


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "broker": Kind("dpcore_brokers", "broker"),
        "queue": Kind("dpcore_queues", "queue"),
        "trigger": Kind("dpcore_triggers", "trigger"),
        "io": Kind("dpcore_io_managers", "I/O manager"),
        "executor": Kind("dpcore_executors", "executor"),
        "store": Kind("dpcore_run_stores", "run store"),
    }
)
"""The kinds of adapters, by the key that stands for them in settings, on the command line and in errors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider(Generic[T_co]):
    """An adapter, as a plugin offers it under a name.

    Raises :class:`~dpcore.errors.ProviderError` where it is made, which is in
    the plugin, so that the traceback shows its author the line.

    >>> Provider(name="redis", target="dp_redis.broker:RedisBroker", schemes=("rediss",), extra="dpcore[redis]").name
    'redis'
    """

    name: str
    """How users select it: ``broker="redis"``."""

    target: str | type[T_co]
    """The class; written ``package.module:Class`` it stays unimported until it is used."""

    summary: str = ""
    """One line for the list of adapters."""

    schemes: tuple[str, ...] = ()
    """Further URL schemes that select it (``rediss``)."""

    extra: str | None = None
    """What to install when its import fails: ``dpcore[redis]``."""

    capabilities: frozenset[str] = frozenset()
    """The capabilities of its class, to be shown without importing it."""

    api: int = 1
    """The version of the port it was written against."""

    def __class_getitem__(cls, item: object) -> type:
        # On Python 3.11 what is both frozen and slotted cannot be made as Provider[Broker](...), since
        # typing tries to note the [Broker] on it; only type checkers need to see that.
        return cls

    def __post_init__(self) -> None:
        if not _is_name(self.name):
            self._refuse("name", _NAME_WANTED)
        if not isinstance(self.target, type) and not _is_target(self.target):
            self._refuse("target", f"{_TARGET_WANTED} or a class")
        if not isinstance(self.summary, str):
            self._refuse("summary", "a line of text")
        if not isinstance(self.schemes, tuple) or not all(map(_is_scheme, self.schemes)):
            self._refuse("schemes", "a tuple of URL schemes in lower case, such as ('rediss',)")
        if self.extra is not None and not (isinstance(self.extra, str) and self.extra):
            self._refuse("extra", "what pip installs, such as 'dpcore[redis]', or None")
        if not isinstance(self.capabilities, frozenset) or not all(isinstance(one, str) for one in self.capabilities):
            self._refuse("capabilities", "a frozenset of names, such as frozenset({'kills'})")
        if type(self.api) is not int or self.api < 1:
            self._refuse("api", "a whole number from 1 on: the version of the port that it was written against")

    def _refuse(self, field: str, wanted: str) -> None:
        raise ProviderError(f"provider {self.name!r}", field, getattr(self, field), wanted)


@dataclass(frozen=True, slots=True)
class Command:
    """A command that a plugin adds to the command line.

    >>> Command("hello", "acme.hello:hello", "Say hello.").name
    'hello'
    """

    name: str
    """The word after ``dpcore``."""

    target: str
    """A click command, written ``package.module:object``; unimported until it is called."""

    summary: str = ""
    """One line for ``dpcore --help``."""

    def __post_init__(self) -> None:
        if not _is_name(self.name):
            self._refuse("name", _NAME_WANTED)
        if not _is_target(self.target):
            self._refuse("target", f"{_TARGET_WANTED}, which names a click command")
        if not isinstance(self.summary, str):
            self._refuse("summary", "a line of text")

    def _refuse(self, field: str, wanted: str) -> None:
        raise ProviderError(f"command {self.name!r}", field, getattr(self, field), wanted)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _is_scheme(value: object) -> bool:
    return isinstance(value, str) and _SCHEME.fullmatch(value) is not None


def _is_target(value: object) -> bool:
    if not isinstance(value, str):
        return False
    module, colon, name = value.partition(":")
    return bool(colon) and all(part.isidentifier() for part in (*module.split("."), *name.split(".")))
