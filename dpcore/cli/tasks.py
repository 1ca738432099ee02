"""``dpcore tasks``: the tasks of a file or a module, without running any."""

from __future__ import annotations

import click

from dpcore.cli.options import completing

__all__ = ("tasks",)


@click.command()
@click.argument("target", metavar="FILE_OR_MODULE", shell_complete=completing("target"))
@click.option(
    "--tag",
    "tags",
    metavar="TAG",
    multiple=True,
    shell_complete=completing("tag"),
    help="Show only the tasks with this tag.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, with JSON Schemas.")
def tasks(target: str, tags: tuple[str, ...], as_json: bool) -> None:
    """List the tasks of a file or a module: name, tags, what each takes and gives, and what it does.

    \b
    Examples:
      dpcore tasks orders.py
      dpcore tasks shop.orders --tag nightly --json
    """
    from dpcore.cli.catalogue import tell_tasks  # what --help need not wait for

    tell_tasks(target, tags, as_json=as_json)
