"""What ``dpcore run`` does: run the tasks of a file or a module, and tell how it goes."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple, TextIO

import anyio

from dpcore.app import App
from dpcore.cli.interrupts import CANCELLED, Interrupts, await_threads
from dpcore.cli.log import told_log
from dpcore.cli.options import DEFAULTS
from dpcore.cli.output import reserved_stdout, tell
from dpcore.cli.project import Project
from dpcore.cli.recorded import selected
from dpcore.cli.refusal import Refusal, described
from dpcore.cli.report import Report, result_as_data
from dpcore.cli.screen import is_screen
from dpcore.cli.selection import Selection
from dpcore.cli.source import Source, load
from dpcore.config import Value
from dpcore.errors import RunNotFoundError
from dpcore.jobs import State
from dpcore.results import Result
from dpcore.runs import Run
from dpcore.words import listed, nearest

__all__ = ("Told", "drive_and_tell", "run_and_tell")

_CODES = {State.SUCCEEDED: 0, State.FAILED: 1, State.CANCELLED: CANCELLED}


class Told(NamedTuple):
    """How much is told of a run."""

    as_json: bool
    quiet: bool
    verbose: int


def run_and_tell(target: str, plugin: tuple[str, ...], told: Told, given: dict[str, Any]) -> int:
    """Run the tasks of *target* as the options *given* say; return the exit code."""
    adapters = {kind: given.pop(kind) for kind in DEFAULTS}
    options = {name: given.pop(name) for name in ("fail_fast", "keep")}
    limits = dict(given.pop("limit")) or None
    selection = Selection.of(**given)

    def choose(project: Project) -> dict[str, Value]:
        return {kind: project.choose(kind, option) for kind, option in adapters.items()}

    async def run(app: App) -> Result:
        arguments = selection.arguments
        if selection.from_run is not None:
            arguments["from_run"] = (await selected(await app.store(), selection.from_run)).record.run_id
        return await app.run(*selection.selection, **arguments, **options, check=False)

    return drive_and_tell(partial(load, target), plugin, told, choose, run, limits)


def drive_and_tell(
    load: Callable[[], Source],
    plugin: tuple[str, ...],
    told: Told,
    choose: Callable[[Project], dict[str, Value]],
    run: Callable[[App], Awaitable[Result]],
    limits: dict[str, int] | None = None,
) -> int:
    """Have an App *run* the tasks that *load* gives, on the adapters that *choose* says; return the exit code."""
    with Interrupts() as interrupts, told_log(told.verbose), _output(told.as_json) as out:
        project = Project.read(plugin)
        choices: dict[str, Any] = choose(project)
        project.check(choices)
        source = load()
        _check_limits(limits or {}, source)
        choices |= {"plugins": project.plugins, "config": project.config, "source": source.recorded}
        app = App(source.registry, limits=limits, **choices)
        with _report(sys.stderr if told.as_json else out, source.shown, told.quiet) as report:
            interrupts.before_end = report.close
            if not told.quiet:
                project.plugins.register(report, "report")
            result = anyio.run(_driven, app, interrupts, run)
        report.end(result)
        if told.as_json:
            tell(json.dumps(result_as_data(result), indent=2), out)
        still_running = [name for name, outcome in result.outcomes.items() if outcome.still_running]
        await_threads(still_running, cancelled=bool(interrupts.reason))
    return _CODES[result.state]


def _check_limits(limits: dict[str, int], source: Source) -> None:
    """Refuse a limit that would limit nothing, because its tag is misspelt, say."""
    for tag in limits:
        if tag not in source.registry.tags:
            tags = listed(source.registry.tags) or "none"
            words = f"--limit {tag}={limits[tag]}: no task of {source.shown} has the tag {tag!r} (tags: {tags})"
            raise Refusal(f"{words}{nearest(tag, source.registry.tags)}")


def _report(out: TextIO, shown: str, quiet: bool) -> Report:
    if quiet or not is_screen(out):
        return Report(out, shown, quiet=quiet)
    from dpcore.cli.live import LiveReport

    return LiveReport(out, shown)


@contextmanager
def _output(as_json: bool) -> Iterator[TextIO]:
    if as_json:
        with reserved_stdout() as out:
            yield out
    else:
        yield sys.stdout


async def _driven(app: App, interrupts: Interrupts, run: Callable[[App], Awaitable[Result]]) -> Result:
    cancelling = _Cancelling(app)
    with app.plugins.temporary(cancelling, "interrupts"), interrupts.calling(cancelling.cancel):
        async with app:
            try:
                return await run(app)
            except Exception as error:
                if not cancelling.run_id:
                    raise
                raise Refusal(
                    f"run {cancelling.run_id} was broken off, and is recorded only as far as it had come: "
                    f"{described(error)}"
                ) from error


class _Cancelling:
    """Cancels the run of *app*, or, if it has not begun, as soon as it has, so that this is recorded."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.run_id = self._reason = ""

    def dpcore_run_changed(self, run: Run, new: State) -> None:
        """Learn the id of the run."""
        if new is State.RUNNING:
            self.run_id = run.run_id
            if self._reason:  # not now, in the middle of its first step
                asyncio.get_running_loop().call_soon(self.cancel, self._reason)

    def cancel(self, reason: str) -> None:
        """Cancel the run."""
        self._reason = reason
        if self.run_id:
            with suppress(RunNotFoundError):  # it has just ended
                self._app.cancel(self.run_id, reason)
