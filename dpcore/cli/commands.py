"""The list of commands: dpcore's own, and those that plugins offer.

Each command is in a file of its own, which is imported when the command is
called: ``dpcore --help`` knows it by its record.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from importlib import import_module
from typing import Any, NamedTuple, Protocol

import click

from dpcore.cli.discovery import only_the_bundle
from dpcore.cli.options import plugin_option
from dpcore.cli.output import lose, not_written, reader_is_gone
from dpcore.cli.refusal import Refusal, complain, refusal_of

__all__ = ("BUILT_IN", "cli")


class _Command(Protocol):
    """What is known of a command until it is called: a :class:`dpcore.Command`, which takes a while to import."""

    @property
    def name(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def summary(self) -> str: ...


class _OwnCommand(NamedTuple):
    name: str
    target: str
    summary: str


BUILT_IN: Mapping[str, _Command] = {
    command.name: command
    for command in (
        _OwnCommand("completion", "dpcore.cli.completion:completion", "Print what makes a shell complete commands."),
        _OwnCommand("config", "dpcore.cli.config:config", "Show the settings, and who said so."),
        _OwnCommand("plan", "dpcore.cli.plan:plan", "Show what a run would do, without running anything."),
        _OwnCommand(
            "plugins", "dpcore.cli.plugins:plugins", "List plugins and what they offer, and what is wrong with them."
        ),
        _OwnCommand("publish", "dpcore.cli.publish:publish", "Publish an event."),
        _OwnCommand("resume", "dpcore.cli.resume:resume", "Run what is left of a run."),
        _OwnCommand("run", "dpcore.cli.run:run", "Run the tasks of a file or a module."),
        _OwnCommand("runs", "dpcore.cli.runs:runs", "List the runs that were recorded, show one, or remove it."),
        _OwnCommand("schedules", "dpcore.cli.schedules:schedules", "List schedules, and show when they fire."),
        _OwnCommand("serve", "dpcore.cli.serve:serve", "Fire schedules and start runs, until it is stopped."),
        _OwnCommand("tail", "dpcore.cli.tail:tail", "Show events as they come."),
        _OwnCommand("tasks", "dpcore.cli.tasks:tasks", "List the tasks of a file or a module."),
    )
}


class _Offered(NamedTuple):
    """A command, and who offers it."""

    command: _Command
    plugin: str


class Commands(click.Group):
    """The built-in commands, and those that plugins offer; each is imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, dpcore's own first."""
        return [*BUILT_IN, *_usable(_offered(ctx))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command of that name; plugins are looked for only if it is none of dpcore's own."""
        if cmd_name in BUILT_IN:
            return _imported(BUILT_IN[cmd_name], "dpcore")
        named = [one for one in _offered(ctx) if one.command.name == cmd_name]
        if len(named) > 1:
            raise Refusal(_several(named))
        return _imported(*named[0]) if named else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is called; for one that is not there, say which there are."""
        name = args[0]
        command = self.get_command(ctx, name)
        if command is None:
            from dpcore.words import nearest

            known = self.list_commands(ctx)
            ctx.fail(f"there is no command {name!r} (there are: {', '.join(known)}){nearest(name, known)}")
        return name, command, args[1:]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from their records; what is wrong with plugins goes to stderr."""
        try:
            offered = _offered(ctx)
        except Exception as error:
            refusal = refusal_of(error)
            if refusal is None:
                raise
            offered = []
            complain(f"the commands of plugins are not listed: {refusal.message}")
        for problem in _problems(offered):
            complain(problem)
        for title, commands in (("Commands", BUILT_IN), ("Commands of plugins", _usable(offered))):
            if commands:
                with formatter.section(title):
                    formatter.write_dl([(name, command.summary) for name, command in commands.items()])

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Take in the arguments; ``--help`` and what is wrong with them end here."""
        with _ending_well():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what dpcore raises on purpose becomes a message, and Ctrl-C the exit code 130."""
        with _ending_well():
            return super().invoke(ctx)


@contextmanager
def _ending_well() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        complain("cancelled")
        raise click.exceptions.Exit(130) from None
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except Exception as error:
        refusal = _unwritten(error) if isinstance(error, OSError) else None
        refusal = refusal or refusal_of(error)
        if refusal is None:
            raise
        raise refusal from error


def _unwritten(error: OSError) -> Refusal | None:
    """Return what to say of help, or a version, that click could not write."""
    if isinstance(error, BrokenPipeError) and reader_is_gone():
        lose(sys.stdout)
        raise click.exceptions.Exit(0) from None
    if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT) and error.filename is None:
        lose(sys.stdout)
        return not_written(error)
    return None


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dpcore", prog_name="dpcore", message="%(prog)s %(version)s")
@plugin_option(is_eager=True)  # so that a --help after it lists the commands of the plugin
@click.pass_context
def cli(ctx: click.Context, plugin: tuple[str, ...]) -> None:
    """Run data pipelines made of tasks, on adapters that can be swapped.

    \b
    Example:
      dpcore run orders.py --tag demo
    """


# ---------------------------------------------------------------- commands of plugins


def _offered(ctx: click.Context) -> list[_Offered]:
    """Return the commands that plugins offer, found once for each call of ``dpcore``."""
    key = f"{__name__}.offered"
    if key not in ctx.meta:
        # A shell that completes somebody's line is told nothing of what is wrong.
        with suppress(Exception) if ctx.resilient_parsing else nullcontext():
            ctx.meta[key] = _found(ctx.params.get("plugin", ()))
    found: list[_Offered] = ctx.meta.get(key, [])
    return found


def _found(named: tuple[str, ...]) -> list[_Offered]:
    if only_the_bundle(named):
        return []  # the bundle offers no commands
    from dpcore.cli.project import Project

    return [_Offered(command, plugin) for command, plugin in Project.read(named).plugins.commands()]


def _usable(offered: list[_Offered]) -> dict[str, _Command]:
    # Of several with one name any will do: they are listed once, and refused when they are called.
    return {one.command.name: one.command for one in offered if one.command.name not in BUILT_IN}


def _problems(offered: list[_Offered]) -> Iterator[str]:
    for one in offered:
        if one.command.name in BUILT_IN:
            yield (
                f"the command {one.command.name!r} of plugin {one.plugin!r} is left out, because dpcore has one of that "
                "name; its author must give it another"
            )
    for name in _usable(offered):
        named = [one for one in offered if one.command.name == name]
        if len(named) > 1:
            yield _several(named)


def _several(named: list[_Offered]) -> str:
    who = " and by ".join(repr(one.plugin) for one in named)
    return (
        f"the command {named[0].command.name!r} is offered by the plugins {who}; "
        f"block one of them, as with: dpcore -p no:{named[-1].plugin} {named[0].command.name}"
    )


def _imported(command: _Command, plugin: str) -> click.Command:
    try:
        module, _, name = command.target.partition(":")
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:
        if plugin == "dpcore":
            raise
        raise Refusal(
            f"the command {command.name!r} of plugin {plugin!r} cannot be imported from {command.target}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(found, click.Command):
        raise Refusal(f"the command {command.name!r} of plugin {plugin!r} is no click command, but {found!r}")
    return found
