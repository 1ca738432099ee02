"""What ``dpcore resume`` and ``dpcore runs rm`` do to runs that were recorded."""

from __future__ import annotations

from functools import partial
from typing import Any

from dpcore.app import App
from dpcore.cli.options import DEFAULTS
from dpcore.cli.output import tell
from dpcore.cli.project import Project
from dpcore.cli.recorded import asked, selected
from dpcore.cli.refusal import Refusal
from dpcore.cli.running import Told, drive_and_tell
from dpcore.cli.source import load
from dpcore.config import Level, Value
from dpcore.errors import DpcoreError
from dpcore.ports import IOManager
from dpcore.ports.runstore import RunRecord
from dpcore.records import forget
from dpcore.results import Result
from dpcore.words import counted

__all__ = ("remove_and_tell", "resume_and_tell")


def resume_and_tell(name: str, plugin: tuple[str, ...], told: Told, given: dict[str, Any]) -> int:
    """Run what is left of a run as the options *given* say; return the exit code."""
    adapters = {kind: given.pop(kind) for kind in DEFAULTS}
    limits = dict(given.pop("limit")) or None
    record = _record(name, plugin, adapters["store"])
    if not record.source:
        raise Refusal(
            f"run {record.run_id} was started by a program, and not by dpcore run; "
            f"resume it there: await app.resume({record.run_id!r})"
        )

    def choose(project: Project) -> dict[str, Value]:
        return {kind: _chosen(project, record, kind, option) for kind, option in adapters.items()}

    async def resume(app: App) -> Result:
        return await app.resume(record.run_id, **given, check=False)

    return drive_and_tell(partial(load, record.source), plugin, told, choose, resume, limits)


def remove_and_tell(
    names: tuple[str, ...], plugin: tuple[str, ...], store: str | None, io: str | None, *, keep_results: bool
) -> None:
    """Forget runs, and what they gave."""
    project = Project.read(plugin)
    for name in names:
        record = _record(name, plugin, store)
        results: IOManager | None = None
        if not keep_results:
            results = project.plugins.make("io", _chosen(project, record, "io", io), project.config)
        count = asked(store, plugin, partial(forget, record.run_id, io=results))
        gone = f", and {counted(count or 0, 'result')}" if results is not None else ""
        tell(f"removed run {record.run_id}{gone}")


def _record(name: str, plugin: tuple[str, ...], store: str | None) -> RunRecord:
    history = asked(store, plugin, lambda store: selected(store, name))
    if history is None:
        raise Refusal(f"there is no run {name!r}: no runs were recorded here yet")
    return history.record


def _chosen(project: Project, record: RunRecord, kind: str, option: str | None) -> Value:
    """Return which adapter to use: what an option says, else what the run had, where it is known by name."""
    recorded = record.settings.get(kind)
    choice = project.choose(kind, option)
    if option is not None or recorded is None:
        return choice
    value = Value(recorded, f"run {record.run_id}", Level.CALL)
    try:
        project.plugins.make(kind, value, project.config)
    except DpcoreError:
        if kind == "io":  # elsewhere there are no results of it
            raise
        return choice
    return value
