"""What ``dpcore config`` tells: what the settings come to, and who said so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dpcore.cli.options import DEFAULTS
from dpcore.cli.output import tell
from dpcore.cli.project import Project
from dpcore.cli.settings import chosen, settings_as_data, settings_rows, shown_adapter, told_settings
from dpcore.cli.text import table
from dpcore.config import AdapterString, Level, Value
from dpcore.errors import DpcoreError

__all__ = ("tell_config",)


def tell_config(plugin: tuple[str, ...], adapters: Mapping[str, str | None], *, as_json: bool) -> None:
    """Show the settings as they are with the options *adapters*."""
    project = Project.read(plugin)
    found = {kind: _adapter(project, kind, adapters[kind]) for kind in DEFAULTS}
    if as_json:
        tell(json.dumps(_as_data(project, found), indent=2))
    else:
        tell("\n".join(_as_text(project, found)))


def _adapter(project: Project, kind: str, option: str | None) -> dict[str, Any]:
    choice = project.choose(kind, option)
    spec = AdapterString.parse(choice.value, None if choice.level is Level.CALL else choice.source)
    found: dict[str, Any] = {"adapter": shown_adapter(spec), "source": choice.source, "problem": "", "settings": []}
    try:
        which = chosen(project, kind, option)
        if which is None:
            project.plugins.offer(kind, spec.name, spec.distribution)  # raises why there is none
        else:
            _, told = told_settings(project, which[1], which[0])
            settings = {one.setting.name: one.setting for one in told}
            found |= {"adapter": shown_adapter(spec, settings), "settings": told}
    except DpcoreError as error:
        found["problem"] = str(error)
    return found


# ---------------------------------------------------------------- for people


def _as_text(project: Project, found: dict[str, dict[str, Any]]) -> list[str]:
    config = project.config
    rows = [
        ("project", str(config.root) if config.root is not None else "no project file from here upward"),
        ("file", str(config.file) if config.file is not None else "-"),
        ("plugins", _names(config.plugins)),
        ("disable", _names(config.disable)),
        ("limits", ", ".join(f"{tag} = {most}" for tag, most in config.limits.items()) or "none"),
        ("autoload", f"{'yes' if config.autoload.value else 'no'}  ({config.autoload.source})"),
    ]
    lines = table(rows)
    for kind, one in found.items():
        problem = one["problem"]
        lines += ["", f"{kind} = {one['adapter']}  ({one['source']})"]
        lines += (
            [f"  problem: {problem}"]
            if problem
            else table(settings_rows(one["settings"]), "  ")
            if one["settings"]
            else []
        )
    return lines


def _names(values: list[Value]) -> str:
    return ", ".join(f"{value.value} ({value.source})" for value in values) or "none"


# ---------------------------------------------------------------- for programs


def _as_data(project: Project, found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    config = project.config
    return {
        "root": None if config.root is None else str(config.root),
        "file": None if config.file is None else str(config.file),
        "plugins": [_value(one) for one in config.plugins],
        "disable": [_value(one) for one in config.disable],
        "limits": config.limits,
        "autoload": _value(config.autoload),
        "adapters": {
            kind: {**one, "problem": one["problem"] or None, "settings": settings_as_data(one["settings"])}
            for kind, one in found.items()
        },
    }


def _value(value: Value) -> dict[str, Any]:
    return {"value": value.value, "source": value.source}
