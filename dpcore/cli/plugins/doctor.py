"""``dpcore plugins doctor``: what is wrong with plugins, and with what is said about them."""

from __future__ import annotations

import click

from dpcore.cli.options import plugin_option

__all__ = ("doctor",)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@plugin_option()
@click.pass_context
def doctor(ctx: click.Context, as_json: bool, plugin: tuple[str, ...]) -> None:
    """Look for what is wrong with plugins and settings; the exit code is 1 if something is.

    Broken plugins, adapters and commands of one name, installations that hide others, slow
    imports, names that nobody has, and chosen adapters that cannot be had.

    \b
    Example:
      dpcore plugins doctor
    """
    from dpcore.cli.plugins.findings import tell_findings  # what --help need not wait for

    ctx.exit(tell_findings(plugin, as_json=as_json))
