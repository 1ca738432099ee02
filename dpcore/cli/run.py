"""``dpcore run``: run the tasks of a file or a module."""

from __future__ import annotations

from typing import Any

import click

from dpcore.cli.options import DEFAULTS, adapter_options, limit_option, plugin_option, telling_options
from dpcore.cli.selection import selection_options

__all__ = ("run",)


@click.command()
@selection_options("Give a run parameter; its text is converted by the type hint.")
@adapter_options(*DEFAULTS)
@click.option("--fail-fast", is_flag=True, help="Cancel everything else when a task fails.")
@click.option(
    "--keep", type=click.Choice(["all", "leaves"]), default="all", help="Keep all results, or those nobody reads."
)
@limit_option()
@telling_options()
@plugin_option()
@click.pass_context
def run(
    ctx: click.Context, /, target: str, plugin: tuple[str, ...], as_json: bool, quiet: bool, verbose: int, **given: Any
) -> None:
    """Run the tasks of a file or a module.

    In a terminal it shows what runs now, and elsewhere a line for each task that has ended.

    Without a SELECTION every task is run.  A selection is a task's name, +name (what it
    waits for too), name+ (what waits for it too), or tag:word.

    \b
    Examples:
      dpcore run orders.py
      dpcore run orders.py +total --param day=2026-11-22
      dpcore run shop.orders --tag nightly --executor threads --json
    """
    from dpcore.cli.running import Told, run_and_tell  # what --help need not wait for

    ctx.exit(run_and_tell(target, plugin, Told(as_json, quiet, verbose), given))
