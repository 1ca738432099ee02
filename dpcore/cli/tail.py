"""``dpcore tail``: show events as they come."""

from __future__ import annotations

import click

from dpcore.cli.options import adapter_options, plugin_option

__all__ = ("tail",)


@click.command()
@click.argument("patterns", metavar="PATTERN...", nargs=-1, required=True)
@click.option(
    "--group", metavar="GROUP", help="Share the events with the other members of GROUP; each is acked when shown."
)
@click.option("--from-start", is_flag=True, help="Begin with the oldest event that the broker retains.")
@click.option("-n", "--count", type=click.IntRange(min=1), help="End after so many events.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document per event.")
@adapter_options("broker")
@plugin_option()
def tail(
    patterns: tuple[str, ...],
    group: str | None,
    from_start: bool,
    count: int | None,
    as_json: bool,
    broker: str | None,
    plugin: tuple[str, ...],
) -> None:
    """Show the events on the topics that PATTERN matches, as they come, until interrupted.

    In a pattern * is one segment and ** any number of them. The broker must be one that other
    processes reach.

    \b
    Examples:
      dpcore tail 'orders.**' --broker multiprocess:/run/shop/hub.sock
      dpcore tail 'jobs.*' --group workers --json
    """
    from dpcore.cli.carried import tail_and_tell  # what --help need not wait for

    tail_and_tell(patterns, broker, plugin, group=group, from_start=from_start, count=count, as_json=as_json)
