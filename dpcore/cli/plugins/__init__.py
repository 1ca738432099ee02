"""``dpcore plugins``: which plugins there are, what they offer, and what is wrong with them.

Only ``info``, and ``doctor`` for those that are chosen, import adapters.
"""

from __future__ import annotations

import click

from dpcore.cli.options import KINDS, plugin_option
from dpcore.cli.plugins.doctor import doctor
from dpcore.cli.plugins.info import info
from dpcore.cli.plugins.why import why

__all__ = ("plugins",)


@click.group(invoke_without_command=True)
@click.option("--kind", type=click.Choice(KINDS), help="Show only the adapters of this kind.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@plugin_option()
@click.pass_context
def plugins(ctx: click.Context, kind: str | None, as_json: bool, plugin: tuple[str, ...]) -> None:
    """List plugins and the adapters that they offer, without importing an adapter.

    \b
    Examples:
      dpcore plugins
      dpcore plugins --kind broker --json
      dpcore plugins info filesystem
    """
    if ctx.invoked_subcommand is None:
        from dpcore.cli.plugins.listing import tell_all  # what --help need not wait for

        tell_all(plugin, [kind] if kind else KINDS, as_json=as_json)


for command in (info, why, doctor):
    plugins.add_command(command)
