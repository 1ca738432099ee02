"""What ``dpcore plugins info`` tells: all that is known of an adapter or a plugin."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, NamedTuple

from dpcore.cli.output import tell
from dpcore.cli.plugins.found import Found, everything
from dpcore.cli.plugins.listing import offer_as_data
from dpcore.cli.refusal import Refusal
from dpcore.cli.settings import Told, chosen, settings_as_data, settings_rows, told_settings
from dpcore.cli.text import table
from dpcore.config import AdapterString, Level, Value
from dpcore.errors import ConfigError, DpcoreError
from dpcore.plugins import Offer, PluginRecord
from dpcore.providers import KINDS
from dpcore.words import nearest

__all__ = ("tell_known",)


class _Adapter(NamedTuple):
    """An adapter, what its settings are, or why nobody knows them, and who has chosen it."""

    offer: Offer
    capabilities: list[str]
    settings: list[Told]
    problem: str
    choice: Value | None


def tell_known(plugin: tuple[str, ...], name: str, kind: str | None, *, as_json: bool) -> None:
    """Show the adapters, of that *kind* if one is given, and the plugins of that *name*."""
    found = everything(plugin, [kind] if kind else [*KINDS])
    records = [] if kind else [one for one in found.plugins if name in (one.name, one.qualified, one.distribution)]
    adapters = _adapters(found, name)
    if not (records or adapters):
        known = [one.provider.name for offers in found.offers.values() for one in offers]
        known += [one.name for one in found.plugins]
        what = f"{KINDS[kind].word} {name!r}" if kind else f"adapter or plugin {name!r}"
        raise Refusal(f"there is no {what}; dpcore plugins lists them{nearest(name, known)}")
    if as_json:
        tell(json.dumps(_as_data(found, records, adapters), indent=2))
    else:
        blocks = [_plugin_lines(found, one) for one in records] + [[*_adapter_lines(one)] for one in adapters]
        tell("\n\n".join("\n".join(block) for block in blocks))


def _adapters(found: Found, name: str) -> list[_Adapter]:
    try:
        spec = AdapterString.parse(name)
    except ConfigError:
        return []  # a plugin may have other names
    offers = [
        one
        for of_kind in found.offers.values()
        for one in of_kind
        if spec.name in (one.provider.name, *one.provider.schemes)
        and spec.distribution in (None, one.source, one.plugin)
    ]
    return [_adapter(found, one, spec) for one in offers]


def _adapter(found: Found, offer: Offer, spec: AdapterString) -> _Adapter:
    choice = None
    problem, capabilities = "", sorted(offer.provider.capabilities)
    told: list[Told] = []
    try:
        which = chosen(found.project, offer.kind)
        choice = which[0] if which is not None and which[1] == offer else None
        is_written = bool(spec.settings or spec.address)
        cls, told = told_settings(found.project, offer, Value(spec, "option", Level.CALL) if is_written else choice)
        capabilities = sorted(getattr(cls, "capabilities", capabilities))
    except DpcoreError as error:
        problem = str(error)
    return _Adapter(offer, capabilities, told, problem, choice)


# ---------------------------------------------------------------- for people


def _adapter_lines(adapter: _Adapter) -> Iterator[str]:
    offer, provider = adapter.offer, adapter.offer.provider
    target = provider.target
    yield f"{KINDS[offer.kind].word} {provider.name}: {provider.summary or 'its plugin says no more of it'}"
    by = f"{offer.plugin}@{offer.distribution} {offer.version or ''}" if offer.distribution else offer.plugin
    rows = [
        ("kind", offer.kind),
        ("written", ", ".join([provider.name, offer.qualified, *(f"{scheme}://" for scheme in provider.schemes)])),
        ("plugin", by.rstrip()),
        ("class", target if isinstance(target, str) else f"{target.__module__}:{target.__qualname__}"),
        ("capabilities", ", ".join(adapter.capabilities) or "none"),
        ("port", f"version {provider.api}"),
        ("chosen", f"by {adapter.choice.source}" if adapter.choice else "no"),
    ]
    if offer.state != "ok":
        rows.append(("state", offer.state))
    yield from table(rows, "  ")
    if adapter.problem:
        yield f"  problem: {adapter.problem}"
    elif adapter.settings:
        yield "  settings"
        yield from table([("name", "type", "value", "from"), *settings_rows(adapter.settings)], "    ")
    else:
        yield "  it has no settings"


def _plugin_lines(found: Found, record: PluginRecord) -> list[str]:
    offers = [
        f"{kind} {one.provider.name}" for kind, of_kind in found.offers.items() for one in of_kind if _is(one, record)
    ]
    commands = [f"dpcore {command.name}" for command, plugin in found.commands if plugin == record.qualified]
    rows = [
        ("distribution", f"{record.distribution} {record.version or ''}".rstrip() if record.distribution else "-"),
        ("module", record.module),
        ("found as", record.source),
        ("state", f"{record.state}: {record.cause}" if record.cause else record.state),
        ("hooks", ", ".join(record.hooks) or "none"),
        ("offers", ", ".join([*offers, *commands]) or "nothing"),
        ("import", f"{record.seconds * 1000:.0f} ms"),
    ]
    return [f"plugin {record.qualified}", *table(rows, "  ")]


def _is(offer: Offer, record: PluginRecord) -> bool:
    return (offer.plugin, offer.distribution) == (record.name, record.distribution)


# ---------------------------------------------------------------- for programs


def _as_data(found: Found, records: list[PluginRecord], adapters: list[_Adapter]) -> dict[str, Any]:
    return {
        "plugins": [asdict(one) for one in records],
        "adapters": [
            {
                **offer_as_data(one.offer, found.offers[one.offer.kind]),
                "capabilities": one.capabilities,
                "chosen_by": one.choice.source if one.choice else None,
                "settings": settings_as_data(one.settings),
                "problem": one.problem or None,
            }
            for one in adapters
        ],
    }
