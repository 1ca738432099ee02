"""What ``dpcore serve`` does: fire, run and answer until it is stopped, and say so."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from functools import partial
from heapq import merge
from itertools import islice
from operator import itemgetter
from typing import Any

import anyio

from dpcore.app import App
from dpcore.cli.interrupts import Interrupts, await_threads
from dpcore.cli.log import told_log
from dpcore.cli.options import DEFAULTS
from dpcore.cli.output import tell
from dpcore.cli.project import Project
from dpcore.cli.refusal import Refusal
from dpcore.cli.source import Source, load
from dpcore.cli.text import local_time, table
from dpcore.durations import duration
from dpcore.jobs import State
from dpcore.ports import Firing
from dpcore.runs import Run
from dpcore.scheduler import Schedule
from dpcore.words import counted

__all__ = ("added", "dry_run_and_tell", "serve_and_tell")

_API = "127.0.0.1:8000"
_MOST_SHOWN = 1000


def serve_and_tell(target: str, plugin: tuple[str, ...], given: dict[str, Any]) -> int:
    """Serve the tasks of *target* as the options *given* say, until a signal stops it; return the exit code."""
    with Interrupts() as interrupts, told_log(given["verbose"]):
        project = Project.read(plugin)
        choices: dict[str, Any] = {kind: project.choose(kind, given[kind]) for kind in DEFAULTS}
        project.check(choices)
        source = load(target)
        choices |= {"plugins": project.plugins, "config": project.config, "source": source.recorded}
        app = App(source.registry, limits=dict(given["limit"]) or None, **choices)
        added(app, source)
        if not given["quiet"]:
            project.plugins.register(_Told(), "report")
        api = None if given["no_api"] else _api(app, given["api"])
        anyio.run(_served, app, interrupts, api, given["grace"], partial(_greet, source, given["quiet"]))
        await_threads([], cancelled=True)
    return 0


def added(app: App, source: Source) -> None:
    """Let a file of tasks add schedules as a plugin does, if it has a function for that."""
    if hasattr(source.module, "dpcore_add_schedules"):
        app.plugins.register(source.module, source.module.__name__)


def _greet(source: Source, quiet: bool, app: App, address: str) -> None:
    if not quiet:
        where = f", requests at {address}" if address else ""
        print(f"serving {source.shown}: {counted(len(app.schedules), 'schedule')}{where}; Ctrl-C stops it", flush=True)


async def _served(
    app: App,
    interrupts: Interrupts,
    api: Callable[..., Any] | None,
    grace: float,
    greet: Callable[[App, str], None],
) -> None:
    stopped = anyio.Event()
    with interrupts.calling(lambda _: stopped.set()):
        async with app, anyio.create_task_group() as group:
            address = ""
            await group.start(app.serve)
            if api is not None:
                address = await group.start(api)
            greet(app, address)
            await stopped.wait()
            group.cancel_scope.cancel()
            with anyio.move_on_after(grace, shield=True) as patience:
                await app.drain()
            if patience.cancelled_caught:
                print("runs that have not ended are gone on with when it is started again", file=sys.stderr)


def _api(app: App, address: str | None) -> Callable[..., Any] | None:
    """Return what takes requests; None if that is not installed, and nobody has asked for it."""
    try:
        from dpcore_plugins.api import serve
    except ImportError as error:
        if address is None:
            return None
        raise Refusal(f"requests cannot be taken: {error}") from error
    host, colon, port = (address or _API).rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise Refusal(f"--api {address!r} must be a host and a port, such as 127.0.0.1:8000")
    return partial(serve, app, host=host.strip("[]"), port=int(port))


class _Told:
    """Says on stdout what fires, and how its runs end."""

    def __init__(self) -> None:
        self._began: dict[str, float] = {}

    def dpcore_schedule_fired(self, schedule: Schedule, firing: Firing) -> None:
        """Say that a schedule has fired."""
        self._say(f"{schedule.name} fires {firing.id}")

    def dpcore_run_changed(self, run: Run, new: State) -> None:
        """Say how a run has ended."""
        if new.ended:
            failed = [name for name, outcome in run.outcomes.items() if outcome.error is not None]
            why = f" ({', '.join(failed[:3])})" if failed else ""
            self._say(f"run {run.run_id} {new}{why}")

    def _say(self, words: str) -> None:
        with suppress(OSError, ValueError):
            print(f"{datetime.now():%H:%M:%S}  {words}", flush=True)


# ---------------------------------------------------------------- what would fire


def dry_run_and_tell(target: str, plugin: tuple[str, ...], span: str) -> None:
    """Show what the schedules of *target* would fire in that time, in order."""
    length = duration("--dry-run", span)
    project = Project.read(plugin)
    source = load(target)
    app = App(source.registry, plugins=project.plugins, config=project.config)
    added(app, source)
    app.add_schedules()
    now = app.clock.now()
    comes = merge(*(_fires(schedule, now, now + length) for schedule in app.schedules.values()), key=itemgetter(0))
    rows = [(local_time(moment.timestamp()), name, starts) for moment, name, starts in islice(comes, _MOST_SHOWN)]
    more = [f"and more; only the first {_MOST_SHOWN:,} are shown"] if next(comes, None) is not None else []
    tell("\n".join([*table([("local time", "schedule", "starts"), *rows]), *more]) if rows else "nothing would fire")


def _fires(schedule: Schedule, start: datetime, end: datetime) -> Iterator[tuple[datetime, str, str]]:
    for nominal in schedule.between(start, end):
        yield nominal, schedule.name, str(schedule.starts)
