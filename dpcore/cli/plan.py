"""``dpcore plan``: what a run would do, as text, as data, and as a graph."""

from __future__ import annotations

from typing import Any

import click

from dpcore.cli.options import plugin_option
from dpcore.cli.selection import Selection, selection_options

__all__ = ("plan",)


@click.command()
@selection_options("Name a run parameter that will be given, or give it.", names_only=True)
@click.option(
    "--format",
    "form",
    type=click.Choice(["tree", "json", "mermaid", "dot"]),
    default="tree",
    show_default=True,
    help="How to show it.",
)
@click.option("--check", is_flag=True, help="Show only whether it can be planned.")
@plugin_option()
def plan(target: str, plugin: tuple[str, ...], form: str, check: bool, **given: Any) -> None:
    """Show what a run would do, without running anything.

    It takes the selection of dpcore run.  In the tree, "parameter <- task" is data, "after
    task" is order only, and (inferred) marks an edge that nobody wrote down.

    \b
    Examples:
      dpcore plan orders.py
      dpcore plan orders.py +total --param day --format mermaid
      dpcore plan orders.py --check
    """
    from dpcore.cli.planned import tell_plan  # what --help need not wait for

    tell_plan(target, plugin, Selection.of(**given), None if check else form)
