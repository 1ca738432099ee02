"""All plugins and what they offer, whatever is wrong with some of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from dpcore.cli.project import Project
from dpcore.config import Config
from dpcore.errors import PluginError, PluginNotFoundError
from dpcore.plugins import Offer, PluginRecord
from dpcore.providers import KINDS, Command

__all__ = ("Found", "everything")


class Found(NamedTuple):
    """The plugins, and what those that work offer."""

    project: Project
    plugins: list[PluginRecord]
    offers: dict[str, list[Offer]]
    commands: list[tuple[Command, str]]


def everything(names: tuple[str, ...], kinds: Iterable[str] = tuple(KINDS)) -> Found:
    """Ask for everything; what was asked for by name and fails is listed as broken, and the rest with it."""
    broken: dict[str, PluginRecord] = {}
    config = Config.read()  # what is wrong with the settings themselves is no plugin's fault
    while True:
        try:
            project = Project.read(names, block=broken)
            plugins = project.plugins
            offers = {kind: plugins.offers(kind) for kind in kinds}
            commands = plugins.commands()
            records = plugins.installed  # last, since what offers nothing but errors is broken
        except (PluginError, PluginNotFoundError) as error:
            if error.plugin in broken:
                raise
            broken[error.plugin] = _broken(error, config)
        else:
            return Found(project, _with(records, broken), offers, commands)


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
