"""``dpcore plugins why``: which adapter a name stands for, and why that one, or none."""

from __future__ import annotations

import click

from dpcore.cli.options import KINDS, completing, plugin_option

__all__ = ("why",)


@click.command()
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("name", metavar="NAME", shell_complete=completing("name"))
@plugin_option()
@click.pass_context
def why(ctx: click.Context, kind: str, name: str, plugin: tuple[str, ...]) -> None:
    """Explain which adapter of a KIND the NAME stands for, and why; the exit code is 1 if it cannot be used.

    \b
    Examples:
      dpcore plugins why store sqlite
      dpcore plugins why io filesystem@dpcore
    """
    from dpcore.cli.plugins.explained import tell_why  # what --help need not wait for

    ctx.exit(tell_why(plugin, kind, name))
