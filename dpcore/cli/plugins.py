"""``dpcore plugins``: which plugins there are, and what they offer; imports no adapter."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import click

from dpcore.cli.commands import BUILT_IN
from dpcore.cli.options import plugin_option
from dpcore.cli.output import tell
from dpcore.cli.project import Project
from dpcore.cli.text import table
from dpcore.config import Config
from dpcore.errors import PluginError, PluginNotFoundError
from dpcore.plugins import Offer, PluginRecord
from dpcore.providers import KINDS, Command

__all__ = ("plugins",)


class _Found(NamedTuple):
    plugins: list[PluginRecord]
    offers: dict[str, list[Offer]]
    commands: list[tuple[Command, str]]


@click.command()
@click.option("--kind", type=click.Choice([*KINDS]), help="Show only the adapters of this kind.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@plugin_option()
def plugins(kind: str | None, as_json: bool, plugin: tuple[str, ...]) -> None:
    """List plugins and the adapters that they offer, without importing an adapter.

    \b
    Examples:
      dpcore plugins
      dpcore plugins --kind broker --json
    """
    found = _found(plugin, [kind] if kind else [*KINDS])
    tell(json.dumps(_as_data(found), indent=2) if as_json else "\n".join(_as_text(found)))


def _found(names: tuple[str, ...], kinds: list[str]) -> _Found:
    """Ask for everything; what was asked for by name and fails is listed as broken, and the rest with it."""
    broken: dict[str, PluginRecord] = {}
    config = Config.read()  # what is wrong with the settings themselves is no plugin's fault
    while True:
        try:
            plugins = Project.read(names, block=broken).plugins
            offers = {kind: plugins.offers(kind) for kind in kinds}
            commands = plugins.commands()
            records = plugins.installed  # last, since what offers nothing but errors is broken
        except (PluginError, PluginNotFoundError) as error:
            if error.plugin in broken:
                raise
            broken[error.plugin] = _broken(error, config)
        else:
            return _Found(_with(records, broken), offers, commands)


def _broken(error: PluginError | PluginNotFoundError, config: Config) -> PluginRecord:
    is_conf = config.root is not None and (config.root / error.plugin).is_file()
    return PluginRecord(
        name=error.plugin,
        module=str(config.root / error.plugin) if is_conf and config.root else error.plugin,
        source="project" if is_conf else "option",
        state="broken",
        cause=error.problem,
    )


def _with(records: list[PluginRecord], broken: Mapping[str, PluginRecord]) -> list[PluginRecord]:
    """Put what failed in the places where it was blocked only to get on."""
    there = [
        replace(record, state="broken", cause=broken[record.qualified].cause) if record.qualified in broken else record
        for record in records
    ]
    return [*there, *(broken[name] for name in broken if name not in {record.qualified for record in records})]


# ---------------------------------------------------------------- as text


def _as_text(found: _Found) -> list[str]:
    rows = [_plugin_row(record) for record in found.plugins]
    lines = ["plugins", *table(rows, "  ")]
    for kind, offers in found.offers.items():
        if offers:
            lines += [
                "",
                KINDS[kind].table.replace("_", " "),
                *table([_offer_row(one, offers) for one in offers], "  "),
            ]
    if found.commands:
        rows = [(command.name, plugin, *_command_marks(found, command)) for command, plugin in found.commands]
        lines += ["", "commands", *table([(*row[:2], "; ".join(row[2:])) for row in rows], "  ")]
    return lines


def _plugin_row(record: PluginRecord) -> tuple[str, ...]:
    state = f"{record.state}: {record.cause}" if record.cause else record.state
    return (record.name, record.distribution or "-", record.version or "-", record.source, record.module, state)


def _offer_row(offer: Offer, beside: list[Offer]) -> tuple[str, ...]:
    source = f"{offer.source} {offer.version}" if offer.version else offer.source
    said = [*_marks(offer, beside), *([offer.provider.summary] if offer.provider.summary else [])]
    return (offer.provider.name, source, "; ".join(said))


def _marks(offer: Offer, beside: list[Offer]) -> list[str]:
    """Say what keeps an adapter from being used by its plain name."""
    others = [one for one in beside if one.provider.name == offer.provider.name and one is not offer]
    marks = []
    if others and offer.distribution != "dpcore" and any(one.distribution == "dpcore" for one in others):
        marks.append("shadows the bundled one")
    if others:
        marks.append(f"CONFLICT: say {offer.qualified}")
    if offer.state == "incompatible":
        marks.append(f"INCOMPATIBLE: written for version {offer.provider.api} of its port")
    return marks


def _command_marks(found: _Found, command: Command) -> list[str]:
    if command.name in BUILT_IN:
        return ["REFUSED: dpcore has a command of that name"]
    if sum(one.name == command.name for one, _ in found.commands) > 1:
        return ["CONFLICT: block one of the plugins"]
    return [command.summary]


# ---------------------------------------------------------------- as JSON


def _as_data(found: _Found) -> dict[str, Any]:
    return {
        "plugins": [asdict(record) for record in found.plugins],
        "adapters": [_offer_as_data(offer, offers) for offers in found.offers.values() for offer in offers],
        "commands": [
            {"name": command.name, "target": command.target, "summary": command.summary, "plugin": plugin}
            for command, plugin in found.commands
        ],
    }


def _offer_as_data(offer: Offer, beside: list[Offer]) -> dict[str, Any]:
    provider = offer.provider
    target = provider.target
    return {
        "kind": offer.kind,
        "name": provider.name,
        "qualified": offer.qualified,
        "plugin": offer.plugin,
        "distribution": offer.distribution,
        "version": offer.version,
        "state": offer.state,
        "marks": _marks(offer, beside),
        "target": target if isinstance(target, str) else f"{target.__module__}:{target.__qualname__}",
        "summary": provider.summary,
        "schemes": list(provider.schemes),
        "extra": provider.extra,
        "capabilities": sorted(provider.capabilities),
        "api": provider.api,
    }
