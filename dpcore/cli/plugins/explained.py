"""What ``dpcore plugins why`` tells: which adapter a name stands for, and why it is that one, or none."""

from __future__ import annotations

from collections.abc import Iterator

from dpcore.cli.options import DEFAULTS
from dpcore.cli.output import tell
from dpcore.cli.plugins.found import Found, everything
from dpcore.cli.settings import chosen, shown_adapter
from dpcore.config import AdapterString
from dpcore.errors import DpcoreError
from dpcore.plugins import Offer
from dpcore.providers import KINDS
from dpcore.words import nearest

__all__ = ("tell_why",)


def tell_why(plugin: tuple[str, ...], kind: str, name: str) -> int:
    """Explain what *name* stands for among the adapters of *kind*; return the exit code."""
    spec = AdapterString.parse(name)
    found = everything(plugin, [kind])
    lines, is_usable = _explained(found, kind, spec)
    tell("\n".join([*lines, *_choice(found, kind)]))
    return 0 if is_usable else 1


def _explained(found: Found, kind: str, spec: AdapterString) -> tuple[list[str], bool]:
    """Say which of the adapters that are offered *spec* stands for, and whether it can be used."""
    word, every = KINDS[kind].word, found.offers[kind]
    named = [one for one in every if spec.name in (one.provider.name, *one.provider.schemes)]
    meant = [one for one in named if spec.distribution in (None, one.source, one.plugin)]
    rows = [f"  {_offered(one, spec.name)}" for one in named]
    asked = spec.name if spec.distribution is None else f"{spec.name}@{spec.distribution}"
    if len(meant) == 1:
        among = ", the only one of that name" if len(named) == 1 else f", because {asked!r} says so, of these:"
        lines = [f"the {word} {asked!r} is {meant[0].qualified}{among}", *rows]
        if meant[0].state == "incompatible":
            return [*lines, f"it cannot be used: it was written for version {meant[0].provider.api} of its port"], False
        return lines, True
    if meant:
        ways = " or ".join(one.qualified for one in meant)
        blocks = " or ".join(f"-p no:{one.plugin}" for one in meant if one.distribution != "dpcore")
        cure = f"say {ways}" + (f", or block one: {blocks}" if blocks else "")
        return [
            f"the {word} {asked!r} is offered by {len(meant)} plugins, and none is taken silently; {cure}",
            *rows,
        ], False
    known = [one.qualified if spec.distribution else one.provider.name for one in named or every]
    there = f" (there are: {', '.join(known)})" if known else ""
    return [f"no plugin offers the {word} {asked!r}{there}{nearest(asked, known)}", *rows, *_left_out(found)], False


def _offered(offer: Offer, name: str) -> str:
    by = f"{offer.plugin}@{offer.distribution} {offer.version or ''}" if offer.distribution else offer.plugin
    how = "" if name == offer.provider.name else f", for {name}:// too"
    target = offer.provider.target
    where = target if isinstance(target, str) else f"{target.__module__}:{target.__qualname__}"
    return f"{offer.qualified}{how}: {where}, offered by {by.rstrip()} ({offer.state})"


def _left_out(found: Found) -> Iterator[str]:
    for record in found.plugins:
        if record.state != "active":
            yield f"  {record.qualified} might, but it is {record.state}: {record.cause}"


def _choice(found: Found, kind: str) -> Iterator[str]:
    """Say which adapter of the kind is used without another word."""
    if kind in DEFAULTS:
        choice = found.project.choose(kind, None)
        try:
            which = chosen(found.project, kind)
        except DpcoreError:
            which = None
        if which is None:
            yield f"dpcore run would use what cannot be had: {kind} = {choice.value!r}, by {choice.source}"
        else:
            yield f"dpcore run uses {which[1].qualified}: {kind} = {shown_adapter(which[0].value)}, by {choice.source}"
