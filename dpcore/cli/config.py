"""``dpcore config``: what the settings come to, and who said so."""

from __future__ import annotations

import click

from dpcore.cli.options import DEFAULTS, adapter_options, plugin_option

__all__ = ("config",)


@click.command()
@adapter_options(*DEFAULTS)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@plugin_option()
def config(as_json: bool, plugin: tuple[str, ...], **adapters: str | None) -> None:
    """Show the settings that a run here would have, and who said so; secrets stay hidden.

    An option outweighs the environment (DPCORE_*), that the project file, and that the default.

    \b
    Examples:
      dpcore config
      dpcore config --executor "threads?slots=4" --json
    """
    from dpcore.cli.configured import tell_config  # what --help need not wait for

    tell_config(plugin, adapters, as_json=as_json)
