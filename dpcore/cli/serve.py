"""``dpcore serve``: fire schedules, start runs that are asked for, and take requests, until it is stopped."""

from __future__ import annotations

from typing import Any

import click

from dpcore.cli.options import DEFAULTS, adapter_options, limit_option, plugin_option

__all__ = ("serve",)


@click.command()
@click.argument("target", metavar="FILE")
@click.option(
    "--api",
    metavar="HOST:PORT",
    help="Where requests are taken.  [default: 127.0.0.1:8000, if dpcore[api] is installed]",
)
@click.option("--no-api", is_flag=True, help="Take no requests.")
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long runs may go on once it is stopped.",
)
@click.option("--dry-run", metavar="SPAN", help="Only show what would fire in that time, such as 24h.")
@adapter_options(*DEFAULTS)
@limit_option()
@click.option("-q", "--quiet", is_flag=True, help="Say only what went wrong.")
@click.option("-v", "--verbose", count=True, help="Tell what is logged: -v from the level info on, -vv everything.")
@plugin_option()
@click.pass_context
def serve(ctx: click.Context, /, target: str, plugin: tuple[str, ...], dry_run: str | None, **given: Any) -> None:
    """Fire the schedules of a project, and start the runs that events and requests ask for.

    Schedules are those of the project file, as tables [schedules.NAME], and those that
    FILE or a plugin adds with a function dpcore_add_schedules(app).  FILE, or a module,
    has the tasks.  Ctrl-C or SIGTERM stops it: nothing new begins, and runs have a while to end.
    Those that have not are gone on with when it is started again.

    \b
    Examples:
      dpcore serve orders.py
      dpcore serve orders.py --dry-run 24h
      dpcore serve shop.orders --api 0.0.0.0:8080 --executor threads
    """
    from dpcore.cli.serving import dry_run_and_tell, serve_and_tell  # what --help need not wait for

    if dry_run is not None:
        dry_run_and_tell(target, plugin, dry_run)
    else:
        ctx.exit(serve_and_tell(target, plugin, given))
