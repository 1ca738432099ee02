"""The settings of an adapter as people see them: what each is, and who said so; secrets stay hidden."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from dpcore.cli.options import DEFAULTS
from dpcore.cli.project import Project
from dpcore.config import AdapterString, Level, Setting, Value, masked, settings_of, settle
from dpcore.hints import shown
from dpcore.plugins import Offer

__all__ = ("Told", "chosen", "settings_as_data", "settings_rows", "shown_adapter", "told_settings")


class Told(NamedTuple):
    """A setting, and its value unless it has none."""

    setting: Setting
    value: Value | None


def chosen(project: Project, kind: str, option: str | None = None) -> tuple[Value, Offer] | None:
    """Return which adapter of *kind* is chosen, parsed, and who offers it; None if none is, or nobody does so."""
    if kind not in DEFAULTS:
        return None
    choice = project.choose(kind, option)
    spec = AdapterString.parse(choice.value, None if choice.level is Level.CALL else choice.source)
    found = [
        one
        for one in project.plugins.offers(kind)
        if spec.name in (one.provider.name, *one.provider.schemes)
        and (spec.distribution is None or spec.distribution in (one.source, one.plugin))
    ]
    return (replace(choice, value=spec), found[0]) if len(found) == 1 else None


def told_settings(project: Project, offer: Offer, spec: Value | None) -> tuple[type, list[Told]]:
    """Import an adapter, and return its class and its settings as they are if it is written as *spec* says.

    Raises what is wrong with them, as making the adapter would.
    """
    name = f"{offer.provider.name}@{offer.source}"
    cls = project.plugins.load(offer.kind, AdapterString(offer.provider.name, offer.source))
    others = {one.provider.name for one in project.plugins.offers(offer.kind)}
    written = spec or Value(AdapterString.parse(name), "default", Level.DEFAULT)
    values = settle(cls, offer.kind, written, project.config, name=offer.provider.name, others=others, missing_ok=True)
    return cls, [Told(setting, values.get(key)) for key, setting in settings_of(cls).items()]


def shown_adapter(spec: AdapterString, settings: Mapping[str, Setting] | None = None) -> str:
    """Write an adapter string so that no secret is in it; what may be one is hidden where *settings* are not known."""
    if settings is None:
        return repr(spec).removeprefix("<AdapterString ").removesuffix(">")
    hidden = {
        key: "***" if spec.is_url or key not in settings or settings[key].secret else value
        for key, value in spec.settings.items()
    }
    address = spec.address
    if address is not None and spec.is_url and hidden:
        address = f"{address.partition('?')[0]}?***"
    return masked(str(replace(spec, settings=hidden, address=address)))


# ---------------------------------------------------------------- for people, and for programs


def settings_rows(told: list[Told]) -> list[tuple[str, ...]]:
    """Return a row for each setting: name, type, value, and where that comes from."""
    return [(one.setting.name, shown(one.setting.hint), _value(one), _source(one)) for one in told]


def settings_as_data(told: list[Told]) -> list[dict[str, Any]]:
    """Return the settings in JSON's types."""
    return [
        {
            "name": one.setting.name,
            "type": shown(one.setting.hint),
            "required": one.setting.required,
            "secret": one.setting.secret,
            "default": None if one.setting.required else _repr(one.setting, one.setting.default),
            "value": None if one.value is None else _repr(one.setting, one.value.value),
            "source": None if one.value is None else one.value.source,
        }
        for one in told
    ]


def _value(one: Told) -> str:
    return "(required, and not set)" if one.value is None else _repr(one.setting, one.value.value)


def _source(one: Told) -> str:
    if one.value is None:
        return "-"
    if one.value.level is Level.DEFAULT or one.setting.required:
        return one.value.source
    return f"{one.value.source}  (default: {_repr(one.setting, one.setting.default)})"


def _repr(setting: Setting, value: object) -> str:
    if setting.secret and value is not None:
        return "***"
    if isinstance(value, str) and "://" in value and "?" in value:  # what a client library is told may be a secret
        value = f"{value.partition('?')[0]}?***"
    return masked(repr(value))
