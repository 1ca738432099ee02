"""``dpcore plugins``: which plugins there are, what they offer, and what is wrong with them.

Only ``info``, and ``doctor`` for those that are chosen, import adapters.
"""

from __future__ import annotations

import json

import click

from dpcore.cli.options import plugin_option
from dpcore.cli.output import tell
from dpcore.cli.plugins.doctor import doctor
from dpcore.cli.plugins.found import everything
from dpcore.cli.plugins.info import info
from dpcore.cli.plugins.listing import as_data, as_text
from dpcore.cli.plugins.why import why
from dpcore.providers import KINDS

__all__ = ("plugins",)


@click.group(invoke_without_command=True)
@click.option("--kind", type=click.Choice([*KINDS]), help="Show only the adapters of this kind.")
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
        found = everything(plugin, [kind] if kind else [*KINDS])
        tell(json.dumps(as_data(found), indent=2) if as_json else "\n".join(as_text(found)))


for command in (info, why, doctor):
    plugins.add_command(command)
