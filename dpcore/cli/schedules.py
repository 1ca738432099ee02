"""``dpcore schedules``: what fires by itself, and when."""

from __future__ import annotations

import click

from dpcore.cli.options import adapter_options, plugin_option

__all__ = ("schedules",)

_file = click.option("-f", "--file", metavar="FILE", help="A file or a module of tasks that adds schedules too.")


@click.group(invoke_without_command=True)
@_file
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@adapter_options("store")
@plugin_option()
@click.pass_context
def schedules(ctx: click.Context, file: str | None, as_json: bool, store: str | None, plugin: tuple[str, ...]) -> None:
    """List schedules with their next times, in local time.

    They are those of the project file, those that FILE adds, and all that the run store knows of.

    \b
    Examples:
      dpcore schedules
      dpcore schedules next nightly -n 10
      dpcore schedules pause nightly --note "the source is down"
    """
    if ctx.invoked_subcommand is None:
        from dpcore.cli.scheduled import tell_schedules  # what --help need not wait for

        tell_schedules(file, store, plugin, as_json=as_json)


@schedules.command("next")
@click.argument("name")
@click.option("-n", "--count", type=click.IntRange(1, 10_000), default=5, show_default=True, help="How many times.")
@click.option("--after", metavar="TIME", help="After which time, in ISO 8601; now, if not given.")
@_file
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@plugin_option()
def next_(name: str, count: int, after: str | None, file: str | None, as_json: bool, plugin: tuple[str, ...]) -> None:
    """Show the next times of the schedule NAME.

    Each in local time, and in that of its trigger where that is another.

    \b
    Example:
      dpcore schedules next nightly -n 10 --after 2026-03-28
    """
    from dpcore.cli.scheduled import tell_next

    tell_next(name, count, after, file, plugin, as_json=as_json)


@schedules.command()
@click.argument("name")
@click.option("--note", default="", help="Why.")
@adapter_options("store")
@plugin_option()
def pause(name: str, note: str, store: str | None, plugin: tuple[str, ...]) -> None:
    """Let the schedule NAME not fire by itself until it is resumed.

    What serves it takes note within ten seconds, and before it fires again.

    \b
    Example:
      dpcore schedules pause nightly --note "the source is down"
    """
    from dpcore.cli.scheduled import pause_and_tell

    pause_and_tell(name, store, plugin, note)


@schedules.command()
@click.argument("name")
@adapter_options("store")
@plugin_option()
def resume(name: str, store: str | None, plugin: tuple[str, ...]) -> None:
    """Let the schedule NAME fire again, from now on.

    \b
    Example:
      dpcore schedules resume nightly
    """
    from dpcore.cli.scheduled import resume_and_tell

    resume_and_tell(name, store, plugin)
