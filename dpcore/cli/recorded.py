"""What ``dpcore runs`` tells: the runs that were recorded."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import anyio
import msgspec

from dpcore.cli.output import tell
from dpcore.cli.project import Project
from dpcore.cli.refusal import Refusal
from dpcore.cli.text import local_time, table
from dpcore.clock import SystemClock
from dpcore.errors import InvalidIdError, RunNotFoundError
from dpcore.ports.runstore import RunHistory, RunRecord, RunStore
from dpcore.timelines import seconds, timeline
from dpcore.words import listed, printable

__all__ = ("asked", "newest", "selected", "tell_run", "tell_runs")

T = TypeVar("T")

_WIDTH = 100  # columns where there is no terminal


def tell_runs(store: str | None, plugin: tuple[str, ...], limit: int, *, as_json: bool) -> None:
    """List the newest runs."""
    histories = asked(store, plugin, lambda store: _latest(store, limit)) or []
    if as_json:
        tell(json.dumps([_as_data(history) for history in histories], indent=2))
    elif histories:
        tell("\n".join(table([_HEAD, *map(_row, histories)])))
    else:
        tell("no runs were recorded here yet")


def tell_run(store: str | None, plugin: tuple[str, ...], run_id: str, most: int | None, *, as_json: bool) -> None:
    """Show one run, and draw so many tasks of it at the *most*."""
    history = asked(store, plugin, lambda store: selected(store, run_id))
    if history is None:
        raise Refusal(f"there is no run {run_id!r}: no runs were recorded here yet")
    if as_json:
        tell(json.dumps({**_as_data(history), "tasks": _tasks_as_data(history)}, indent=2))
    else:
        tell("\n".join([*_described(history), "", *_drawn(history, most), *_printed(history, most)]))


def newest(store: str | None, plugin: tuple[str, ...], most: int) -> list[RunRecord]:
    """Return the records of the newest runs, so many at the *most*."""
    return asked(store, plugin, lambda store: store.list(most)) or []


async def selected(store: RunStore, name: str) -> RunHistory:
    """Return the run of that id, the one whose id begins so, or the latest one for "latest".

    Raises :class:`~dpcore.errors.RunNotFoundError` when there is none, and
    :class:`Refusal` when there are several.
    """
    try:
        return await store.get(name)
    except (RunNotFoundError, InvalidIdError):
        ids = [record.run_id for record in await store.list(1 if name == "latest" else None)]
    found = ids if name == "latest" else [run_id for run_id in ids if name and run_id.startswith(name)]
    if not found:
        raise RunNotFoundError(name, str(store), ids)
    if len(found) > 1:
        raise Refusal(f"several runs begin with {name!r}: {listed(found, 5)}; write more of the one that is meant")
    return await store.get(found[0])


async def _latest(store: RunStore, limit: int) -> list[RunHistory]:
    return [
        RunHistory(record, []) if record.ended is not None else await store.get(record.run_id)
        for record in await store.list(limit)
    ]


def asked(
    option: str | None, plugin: tuple[str, ...], question: Callable[[RunStore], Coroutine[Any, Any, T]]
) -> T | None:
    """Ask the run store; None if it keeps runs at a place where nothing is yet."""
    project = Project.read(plugin)
    choice = project.choose("store", option)
    project.check({"store": choice})
    store: RunStore = project.plugins.make("store", choice, project.config)
    place = getattr(store, "path", None)
    if isinstance(place, Path) and not place.exists():
        return None  # to look is no reason to make it

    async def ask() -> T:
        async with store:
            return await question(store)

    return anyio.run(ask)


# ---------------------------------------------------------------- as text

_LINES = 10  # of what a task has printed
_HEAD = ("state", "tasks", "began", "duration", "run")


def _row(history: RunHistory) -> tuple[str, ...]:
    record = history.record
    took = seconds(record.ended - record.began) if record.ended is not None else f"last heard of {_silent(history)} ago"
    done = f"{_done(history):,}/{record.tasks:,}"
    return (str(record.state), done, local_time(record.began), took, record.run_id)


def _done(history: RunHistory) -> int:
    """Return how many tasks have succeeded."""
    if history.record.ended is not None:
        return history.record.counts.get("succeeded", 0)
    return sum(change.state == "succeeded" for change in history.tasks.values())


def _described(history: RunHistory) -> list[str]:
    record = history.record
    rows = [
        ("run", record.run_id),
        ("state", f"{record.state} ({record.reason})" if record.reason else str(record.state)),
        ("tasks", f"{_done(history):,} of {record.tasks:,} succeeded"),
        ("began", local_time(record.began)),
        *_ending(history),
        ("source", record.source),
        ("selected", _selection(record)),
        ("params", _pairs(record.params)),
        ("metadata", _pairs(record.metadata)),
        ("plan", f"{record.plan_id} (fingerprint {record.fingerprint})" if record.plan_id else ""),
        *record.settings.items(),
    ]
    return table([(name, value) for name, value in rows if value])


def _ending(history: RunHistory) -> list[tuple[str, str]]:
    record = history.record
    if record.ended is not None:
        return [("duration", seconds(record.ended - record.began))]
    ago = f"{local_time(_heard(history))}, {_silent(history)} ago; nothing more will come if its program was killed"
    return [("heard of", ago)]


def _heard(history: RunHistory) -> float:
    """Return when something was last recorded of a run."""
    return max([history.record.began, *(change.at for change in history.changes)])


def _silent(history: RunHistory) -> str:
    return seconds(max(0.0, SystemClock().now().timestamp() - _heard(history)))


def _selection(record: RunRecord) -> str:
    given = {name: value for name, value in record.selection.items() if value}
    return ", ".join(f"{name} {' '.join(v) if isinstance(v, list) else v}" for name, v in given.items()) or "every task"


def _pairs(values: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _drawn(history: RunHistory, most: int | None) -> list[str]:
    # Of a run that has not ended the bars reach to what was last recorded: nobody knows whether it still runs.
    found = timeline(history)
    width = shutil.get_terminal_size((_WIDTH, 24)).columns
    return found.lines(width, limit=len(found.rows) if most is None else most, ascii=not _has_bars(sys.stdout.encoding))


def _printed(history: RunHistory, most: int | None) -> Iterator[str]:
    """Show what the tasks have printed, of so many the last lines, or all of it."""
    last = {(change.task, change.index): change for change in history.changes if change.output}
    for change in [*last.values()][:most]:
        item = "" if change.index is None else f"[{change.index}]"
        lines = [printable(line, keep="\t") for line in change.output.splitlines()]
        left_out = 0 if most is None else max(0, len(lines) - _LINES)
        yield ""
        yield f"printed by {change.task}{item}, attempt {change.attempt}:"
        if left_out:
            yield f"  ({left_out:,} lines before; --all shows them)"
        yield from (f"  {line}" for line in lines[left_out:])


def _has_bars(encoding: str | None) -> bool:
    try:
        "\u2588\u2592\u2591\u2026".encode(encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return False
    return True


# ---------------------------------------------------------------- as JSON


def _as_data(history: RunHistory) -> dict[str, Any]:
    record = history.record
    fields = {name: getattr(record, name) for name in record.__struct_fields__ if name != "carried"}
    data: dict[str, Any] = msgspec.to_builtins(fields)
    heard = None if history.record.ended is not None else _heard(history)
    return {**data, "done": _done(history), "last_heard_of": heard}


def _tasks_as_data(history: RunHistory) -> dict[str, Any]:
    return {
        name: {
            "state": str(change.state),
            "attempts": change.attempt,
            "duration": change.duration,
            "at": change.at,
            "error": change.error or None,
            "reason": change.reason or None,
            "result": change.result,
            "count": change.count,
            "worker": change.worker or None,
            "traceback": change.traceback or None,
            "output": change.output or None,
        }
        for name, change in history.tasks.items()
    }
