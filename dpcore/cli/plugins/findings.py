"""What ``dpcore plugins doctor`` finds: what is wrong with plugins, and with what is said about them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Literal, NamedTuple

from dpcore.cli.commands import BUILT_IN
from dpcore.cli.options import DEFAULTS
from dpcore.cli.output import tell
from dpcore.cli.plugins.found import Found, everything
from dpcore.cli.refusal import described
from dpcore.config import canonical
from dpcore.plugins import GROUP, Offer
from dpcore.providers import KINDS
from dpcore.words import counted, nearest

__all__ = ("tell_findings",)

_SLOW = 0.1  # seconds that importing a plugin may take without a remark
_PREFIX = "DPCORE_"
_VARIABLES = {f"DPCORE_{kind.upper()}" for kind in DEFAULTS} | {
    "DPCORE_PLUGINS",
    "DPCORE_DISABLE_PLUGINS",
    "DPCORE_PLUGIN_AUTOLOAD",
}


class _Finding(NamedTuple):
    level: Literal["wrong", "remark"]
    subject: str
    problem: str


def tell_findings(plugin: tuple[str, ...], *, as_json: bool) -> int:
    """Look for everything, and say what was found; return the exit code."""
    found = everything(plugin)
    findings = [finding for look in _LOOKS for finding in look(found)]
    wrong = sum(one.level == "wrong" for one in findings)
    if as_json:
        tell(json.dumps([one._asdict() for one in findings], indent=2))
    else:
        lines = [f"{one.level:6}  {one.subject}: {one.problem}" for one in findings]
        number = sum(len(offers) for offers in found.offers.values())
        seen = f"{counted(len(found.plugins), 'plugin')} and {counted(number, 'adapter')}"
        tell("\n".join([*lines, f"looked at {seen}: {counted(wrong, 'thing') if wrong else 'nothing'} wrong"]))
    return 1 if wrong else 0


def _broken(found: Found) -> Iterator[_Finding]:
    for record in found.plugins:
        if record.state == "broken":
            yield _Finding("wrong", f"plugin {record.qualified}", f"is broken: {record.cause}")


def _conflicts(found: Found) -> Iterator[_Finding]:
    for kind, offers in found.offers.items():
        by_name: dict[str, list[Offer]] = {}
        for one in offers:
            for name in dict.fromkeys((one.provider.name, *one.provider.schemes)):
                by_name.setdefault(name, []).append(one)
        for name, several in by_name.items():
            if len(several) > 1:
                ways = " or ".join(one.qualified for one in several)
                shadows = " (one shadows what ships with dpcore)" if any(_ships(one) for one in several) else ""
                problem = f"is offered by {len(several)} plugins{shadows}; say {ways}, or block one"
                yield _Finding("wrong", f"{KINDS[kind].word} {name}", problem)


def _ships(offer: Offer) -> bool:
    return offer.distribution == "dpcore"


def _incompatible(found: Found) -> Iterator[_Finding]:
    for kind, offers in found.offers.items():
        for one in offers:
            if one.state == "incompatible":
                taken = f"{KINDS[kind].oldest} to {KINDS[kind].api}"
                problem = f"is written for version {one.provider.api} of its port, and this dpcore takes {taken}"
                yield _Finding("wrong", f"{KINDS[kind].word} {one.qualified}", problem)


def _commands(found: Found) -> Iterator[_Finding]:
    names = [command.name for command, _ in found.commands]
    for command, plugin in found.commands:
        if command.name in BUILT_IN:
            yield _Finding(
                "wrong", f"command {command.name}", f"of plugin {plugin} is refused: dpcore has one of that name"
            )
        elif names.count(command.name) > 1:
            yield _Finding("wrong", f"command {command.name}", f"of plugin {plugin} is offered by another plugin too")


def _names(found: Found) -> Iterator[_Finding]:
    known = [name for one in found.plugins for name in (one.name, one.qualified)]
    known += [name for name, _, _ in found.project.plugins.overruled]
    for name, who in found.project.plugins.misnamed:
        if name not in {one.qualified for one in found.plugins if one.state == "broken"}:
            yield _Finding("wrong", f"no:{name}", f"blocks no plugin, in {who}{nearest(name, known)}")
    for name, who, blocked in found.project.plugins.overruled:
        if blocked != "block=":  # that is ours, of one that is broken
            yield _Finding("remark", f"plugin {name}", f"is asked for by {who}, and blocked by {blocked}")


def _variables(found: Found) -> Iterator[_Finding]:
    """Yield the variables that nobody reads."""
    prefixes = {
        f"DPCORE_{kind}_{one.provider.name}_".upper().replace("-", "_")
        for kind, offers in found.offers.items()
        for one in offers
    }
    for variable in found.project.config.environ:
        if variable not in _VARIABLES and not variable.startswith(tuple(prefixes)):
            words = [known.removeprefix(_PREFIX) for known in _VARIABLES]
            near = nearest(variable.removeprefix(_PREFIX), words).replace("'", f"'{_PREFIX}", 1)
            yield _Finding("wrong" if near else "remark", variable, f"is read by nobody{near}")


def _tables(found: Found) -> Iterator[_Finding]:
    for kind, name in found.project.config.adapters:
        known = [one.provider.name for one in found.offers[kind]]
        if name.value not in known:
            problem = f"has settings in {name.source}, and no plugin offers it{nearest(name.value, known)}"
            yield _Finding("wrong", f"{KINDS[kind].word} {name.value}", problem)


def _choices(found: Found) -> Iterator[_Finding]:
    for kind in DEFAULTS:
        choice = found.project.choose(kind, None)
        try:
            found.project.check({kind: choice})
        except Exception as error:  # noqa: BLE001  (whatever an adapter raises is a finding)
            yield _Finding("wrong", f"{kind}, chosen by {choice.source}", described(error))


def _hidden(_: Found) -> Iterator[_Finding]:
    """Yield the distributions with plugins that are there twice, of which the first hides the others."""
    import importlib_metadata

    places: dict[str, dict[tuple[str, str], None]] = {}
    for one in importlib_metadata.distributions():
        if any(entry.group == GROUP for entry in one.entry_points):
            places.setdefault(canonical(one.name), {})[one.version, str(one.locate_file(""))] = None
    for name, several in places.items():
        if len(several) > 1:
            where = ", ".join(f"{version} in {place}" for version, place in several)
            yield _Finding(
                "wrong", f"distribution {name}", f"is there {len(several)} times, and the first is used: {where}"
            )


def _slow(found: Found) -> Iterator[_Finding]:
    for record in sorted(found.plugins, key=lambda one: -one.seconds):
        if record.seconds > _SLOW:
            problem = f"takes {record.seconds:.2f} s to import, which everybody waits for at every command"
            yield _Finding("remark", f"plugin {record.qualified}", problem)


_LOOKS = (_broken, _conflicts, _incompatible, _commands, _hidden, _names, _variables, _tables, _choices, _slow)
