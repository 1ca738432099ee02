"""Tables: triggers and schedules as a project file has them."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from dpcore.config import Level, Setting, Value, converted, main_setting, settings_of
from dpcore.errors import (
    ArgumentError,
    ConfigError,
    CronError,
    NaiveDatetimeError,
    SettingError,
    TopicError,
    TriggerError,
    ZoneError,
)
from dpcore.plugins import Plugins
from dpcore.ports import Firing, Trigger
from dpcore.words import listed, nearest, printed

__all__ = ("arguments_of", "in_table", "triggers_of")

_WANTED = "a trigger, such as CronTrigger('0 3 * * *'), or several in a list"
_EXAMPLE = "{cron = '0 3 * * *', timezone = 'Europe/Berlin'}"
_OWN = ("trigger", "publish", "data", "run", "params", "metadata", "misfire", "grace", "overlap", "limit", "jitter")
_OF_RUNS = ("tags", "root_tasks", "include_upstream", "exclude", "fail_fast", "keep", "priority")


def triggers_of(given: object, plugins: Plugins) -> list[Trigger]:
    """Return the trigger, or triggers, that *given* is: one, a table as of a project file, or several of these.

    Raises :class:`~dpcore.errors.ArgumentError`, :class:`~dpcore.errors.SettingError`, and what making a
    trigger raises.
    """
    several = [given] if isinstance(given, Trigger | Mapping) else given
    if not isinstance(several, Sequence) or isinstance(several, str) or not several:
        raise ArgumentError("trigger", given, _WANTED)
    return [_made(one, plugins) if isinstance(one, Mapping) else _checked(one) for one in several]


def _checked(given: object) -> Trigger:
    if not isinstance(given, Trigger):
        raise ArgumentError("trigger", given, _WANTED)
    return given


def _made(table: Mapping[str, Any], plugins: Plugins) -> Trigger:
    known = [offer.provider.name for offer in plugins.offers("trigger")]
    names = [key for key in table if key in known]
    if len(names) != 1:
        meant = next((hint for key in table if (hint := nearest(key, known))), "")
        wanted = f"a table with the name of one trigger ({listed(known)}), such as {_EXAMPLE}{meant}"
        raise ArgumentError("trigger", dict(table), wanted)
    [name] = names
    cls, owner = plugins.load("trigger", name), f"trigger {name!r}"
    main, settings = main_setting(cls), settings_of(cls)
    if main is None and table[name] is not True:
        raise SettingError(owner, name, f"= {printed(table[name])} says nothing; write {name} = true")
    said = {key: value for key, value in table.items() if key != name}
    for key in said:
        if key not in settings:
            raise SettingError(owner, key, "is unknown", settings)
    first = [] if main is None else [_converted(owner, main, table[name])]
    made: Trigger = cls(*first, **{key: _converted(owner, settings[key], value) for key, value in said.items()})
    return made


def _converted(owner: str, setting: Setting, value: Any) -> Any:
    return converted(owner, setting, Value(value, "the table", Level.FILE))


def arguments_of(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the arguments of ``App.schedule()`` that a table ``[schedules.NAME]`` says, which stands *where*.

    ``{nominal}`` and ``{schedule}`` in the texts of *data* and *params* are filled in when it fires; the first takes a
    format, as in ``{nominal:%Y-%m-%d}``.  Raises :class:`~dpcore.errors.ConfigError`.
    """
    for key in table:
        if key not in (*_OWN, *_OF_RUNS):
            known = (*_OWN, *_OF_RUNS)
            raise ConfigError(where, f"unknown key {key!r} (there are: {listed(known, 20)}){nearest(key, known)}")
    if "trigger" not in table:
        raise ConfigError(where, f"it has no trigger; write for instance: trigger = {_EXAMPLE}")
    if not isinstance(table.get("params", {}), Mapping):
        raise ConfigError(where, f"params = {table['params']!r} must be a table")
    arguments = dict(table)
    for key in ("data", "params"):
        if any(_fields(arguments.get(key), where)):
            arguments[key] = _filling(arguments[key])
    return arguments


@contextmanager
def in_table(where: str) -> Iterator[None]:
    """Say where a table stands, if what is made of it makes no sense."""
    try:
        yield
    except (ArgumentError, SettingError, TopicError, TriggerError, CronError, ZoneError, NaiveDatetimeError) as error:
        raise ConfigError(where, str(error)) from error


def _filling(value: Any) -> Callable[[Firing], Any]:
    return lambda firing: filled(value, firing)


def _fields(value: Any, where: str) -> Iterator[str]:
    """Yield the fields in the texts of a value; raise for one that there is not."""
    if isinstance(value, str):
        try:
            names = [name for _, name, _, _ in string.Formatter().parse(value) if name is not None]
        except ValueError as error:
            raise ConfigError(where, f"{value!r}: {error}; write {{{{ and }}}} for braces themselves") from None
        for name in names:
            if name not in ("nominal", "schedule"):
                problem = f"{value!r} has {{{name}}}, and there are only {{nominal}} and {{schedule}}"
                raise ConfigError(where, f"{problem}; write {{{{ and }}}} for braces themselves")
            yield name
    elif isinstance(value, Mapping | list | tuple):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _fields(one, where)


def filled(value: Any, firing: Firing) -> Any:
    """Fill ``{nominal}`` and ``{schedule}`` into the texts of a value, whatever holds them.

    >>> firing = Firing(schedule="nightly", nominal=datetime.fromisoformat("2026-03-29T03:00+02:00"))
    >>> filled({"day": "{nominal:%Y-%m-%d}", "of": ["{schedule}"], "left": 3}, firing)
    {'day': '2026-03-29', 'of': ['nightly'], 'left': 3}
    """
    if isinstance(value, str):
        return value.format(nominal=_Nominal.of(firing.nominal), schedule=firing.schedule)
    if isinstance(value, Mapping):
        return {key: filled(one, firing) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [filled(one, firing) for one in value]
    return value


class _Nominal(datetime):
    """A nominal time, as text in ISO 8601 unless a format is given."""

    @classmethod
    def of(cls, moment: datetime) -> _Nominal:
        return cls.fromisoformat(moment.isoformat())

    def __format__(self, wanted: str) -> str:
        return super().__format__(wanted) if wanted else self.isoformat()
