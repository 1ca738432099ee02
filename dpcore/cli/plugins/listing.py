"""Plugins and what they offer, as a list for people and as data."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from dpcore.cli.commands import BUILT_IN
from dpcore.cli.output import tell
from dpcore.cli.plugins.found import Found, everything
from dpcore.cli.text import table
from dpcore.plugins import Offer, PluginRecord
from dpcore.providers import KINDS, Command

__all__ = ("offer_as_data", "tell_all")


def tell_all(plugin: tuple[str, ...], kinds: Iterable[str], *, as_json: bool) -> None:
    """List the plugins, and what of these *kinds* they offer."""
    found = everything(plugin, kinds)
    tell(json.dumps(as_data(found), indent=2) if as_json else "\n".join(as_text(found)))


# ---------------------------------------------------------------- as text


def as_text(found: Found) -> list[str]:
    """Write all that was found as lines."""
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


def _command_marks(found: Found, command: Command) -> list[str]:
    if command.name in BUILT_IN:
        return ["REFUSED: dpcore has a command of that name"]
    if sum(one.name == command.name for one, _ in found.commands) > 1:
        return ["CONFLICT: block one of the plugins"]
    return [command.summary]


# ---------------------------------------------------------------- as JSON


def as_data(found: Found) -> dict[str, Any]:
    """Return all that was found in JSON's types."""
    return {
        "plugins": [asdict(record) for record in found.plugins],
        "adapters": [offer_as_data(offer, offers) for offers in found.offers.values() for offer in offers],
        "commands": [
            {"name": command.name, "target": command.target, "summary": command.summary, "plugin": plugin}
            for command, plugin in found.commands
        ],
    }


def offer_as_data(offer: Offer, beside: list[Offer]) -> dict[str, Any]:
    """Return what is known of an adapter without importing it, in JSON's types."""
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
