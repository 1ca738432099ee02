"""What ``dpcore schedules`` tells: what fires by itself, as it is written and as the run store knows it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from dpcore.app import App
from dpcore.cli.output import tell
from dpcore.cli.project import Project
from dpcore.cli.recorded import asked
from dpcore.cli.refusal import Refusal
from dpcore.cli.serving import added
from dpcore.cli.source import load
from dpcore.cli.text import local_time, table
from dpcore.clock import SystemClock
from dpcore.errors import ScheduleNotFoundError
from dpcore.ports.runstore import RunStore
from dpcore.scheduler import Policy, Schedule, Scheduler, Starts
from dpcore.scheduler.policies import Standing, paused, resumed
from dpcore.scheduler.standings import Standings
from dpcore.scheduler.tables import arguments_of, in_table, triggers_of
from dpcore.tasks import Registry
from dpcore.words import listed

__all__ = ("pause_and_tell", "resume_and_tell", "tell_next", "tell_schedules")


def tell_schedules(file: str | None, store: str | None, plugin: tuple[str, ...], *, as_json: bool) -> None:
    """List schedules: what is written, and what is known."""
    written = _written(file, plugin)
    known = asked(store, plugin, _known) or {}
    told = [_told(name, written.get(name), known.get(name)) for name in dict.fromkeys([*written, *known])]
    if as_json:
        tell(json.dumps(told, indent=2))
    elif told:
        head = ("schedule", "next", "last", "state", "trigger")
        tell("\n".join(table([head, *map(_row, told)])))
    else:
        tell("there are no schedules; write one into the project file as [schedules.NAME], or see: dpcore serve --help")


def tell_next(
    name: str, count: int, after: str | None, file: str | None, plugin: tuple[str, ...], *, as_json: bool
) -> None:
    """Show the next times of a schedule."""
    schedule = _written(file, plugin)[name]
    found = schedule.upcoming(count, _moment(after))
    if as_json:
        tell(json.dumps([moment.isoformat() for moment in found], indent=2))
    elif not found:
        tell(f"{name} does not fire by itself any more ({schedule.described})")
    else:
        rows = [_both(moment) for moment in found]
        theirs = any(there for _, there in rows)
        tell("\n".join(table([("local time", schedule.described)] * theirs + [row[: 1 + theirs] for row in rows])))


def pause_and_tell(name: str, store: str | None, plugin: tuple[str, ...], note: str) -> None:
    """Let a schedule not fire by itself."""
    _change(name, store, plugin, lambda standing: paused(standing, note))
    tell(f"{name} is paused")


def resume_and_tell(name: str, store: str | None, plugin: tuple[str, ...]) -> None:
    """Let a schedule fire again."""
    now = SystemClock().now()
    changed = _change(name, store, plugin, lambda standing: resumed(standing, now))
    tell(f"{name} fires again" if changed else f"{name} was not paused")


def _change(name: str, store: str | None, plugin: tuple[str, ...], change: Callable[[Standing], bool]) -> bool:
    async def do(store: RunStore) -> bool:
        book = Standings(store)
        await book.load()
        if name not in book.all:
            raise ScheduleNotFoundError(name, book.all)
        changed = await book.change(name, change)
        await book.flush()
        return changed

    changed = asked(store, plugin, do)
    if changed is None:
        raise Refusal(f"there is no schedule {name!r}: nothing has been served here yet")
    return changed


async def _known(store: RunStore) -> dict[str, Standing]:
    book = Standings(store)
    await book.load()
    return book.all


def _written(file: str | None, plugin: tuple[str, ...]) -> Scheduler:
    """Return the schedules of the project file, and with a *file* those that this and plugins add."""
    project = Project.read(plugin)
    if file is not None:
        source = load(file)
        app = App(source.registry, plugins=project.plugins, config=project.config)
        added(app, source)
        app.add_schedules()
        return app.schedules
    app = App(Registry(), plugins=project.plugins, config=project.config)
    for name, said in project.config.schedules.items():
        with in_table(said.source):  # what they run is not looked at: the tasks are not there
            given = arguments_of(said.value, said.source)
            starts = Starts(topic=given.get("publish"), selection=given.get("run"))
            triggers = triggers_of(given["trigger"], project.plugins)
            app.schedules.add(Schedule(app.schedules, name, triggers, Policy(), starts))
    return app.schedules


def _told(name: str, written: Schedule | None, known: Standing | None) -> dict[str, Any]:
    standing = known or Standing()
    moment = standing.next if written is None else written.times.following(standing.last or SystemClock().now())
    return {
        "name": name,
        "trigger": standing.triggers if written is None else written.described,
        "starts": None if written is None else str(written.starts),
        "next": None if moment is None or standing.paused else moment.isoformat(),
        "last": None if standing.last is None else standing.last.isoformat(),
        "paused": standing.paused,
        "note": standing.note,
        "runs": [*standing.runs],
        "waiting": len(standing.waiting),
    }


def _row(told: dict[str, Any]) -> tuple[str, ...]:
    times = (_shown(told["next"]), _shown(told["last"]))
    return (told["name"], *times, _state(told), told["trigger"])


def _shown(moment: str | None) -> str:
    return "-" if moment is None else local_time(datetime.fromisoformat(moment).timestamp())


def _state(told: dict[str, Any]) -> str:
    if told["paused"]:
        return f"paused: {told['note']}" if told["note"] else "paused"
    words = [f"runs {listed(told['runs'], 1)}"] if told["runs"] else []
    if told["waiting"]:
        words.append(f"{told['waiting']} wait")
    return ", ".join(words) or "waits for its time"


def _both(moment: datetime) -> tuple[str, str]:
    here = moment.astimezone()
    there = "" if here.utcoffset() == moment.utcoffset() else f"{moment:%Y-%m-%d %H:%M:%S} {moment.tzname()}"
    return f"{here:%Y-%m-%d %H:%M:%S} {here.tzname()}", there


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).astimezone()  # without an offset it is the time of this machine
    except ValueError:
        raise Refusal(
            f"--after {text!r} must be a time in ISO 8601, such as 2026-03-28 or 2026-03-28T12:00+01:00"
        ) from None
