"""``dpcore plugins info``: all that is known of an adapter or a plugin."""

from __future__ import annotations

import click

from dpcore.cli.options import KINDS, completing, plugin_option

__all__ = ("info",)


@click.command()
@click.argument("name", metavar="NAME", shell_complete=completing("name"))
@click.option("--kind", type=click.Choice(KINDS), help="Look only for adapters of this kind.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@plugin_option()
def info(name: str, kind: str | None, as_json: bool, plugin: tuple[str, ...]) -> None:
    """Show an adapter with its settings and where each value comes from, or a plugin with what it offers.

    NAME is an adapter, also written with settings, or a plugin.

    \b
    Examples:
      dpcore plugins info filesystem
      dpcore plugins info "threads?slots=4"
      dpcore plugins info default --json
    """
    from dpcore.cli.plugins.known import tell_known  # what --help need not wait for

    tell_known(plugin, name, kind, as_json=as_json)
