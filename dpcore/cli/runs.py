"""``dpcore runs``: the runs that were recorded."""

from __future__ import annotations

import click

from dpcore.cli.options import adapter_options, completing, plugin_option

__all__ = ("runs",)

_MOST = 50  # tasks that are drawn, unless all are asked for


@click.group(invoke_without_command=True)
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many runs, newest first.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@adapter_options("store")
@plugin_option()
@click.pass_context
def runs(ctx: click.Context, limit: int, as_json: bool, store: str | None, plugin: tuple[str, ...]) -> None:
    """List the runs that were recorded, newest first.

    \b
    Examples:
      dpcore runs --limit 5
      dpcore runs show latest
      dpcore runs rm 20261122-0300
    """
    if ctx.invoked_subcommand is None:
        from dpcore.cli.recorded import tell_runs  # what --help need not wait for

        tell_runs(store, plugin, limit, as_json=as_json)


@runs.command()
@click.argument("run_id", metavar="[RUN]", default="latest", shell_complete=completing("run"))
@click.option(
    "--all", "every", is_flag=True, help=f"Show every task, not only {_MOST} of them, and all that was printed."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@adapter_options("store")
@plugin_option()
@click.pass_context
def show(
    ctx: click.Context, run_id: str, every: bool, as_json: bool, store: str | None, plugin: tuple[str, ...]
) -> None:
    """Show what is recorded of a run: of the latest one, or of that whose id is RUN or begins so.

    Each task is a row with a bar for each attempt: full if it succeeded, half if it did not,
    light while it runs.  Below them is the end of what tasks printed on worker processes.

    \b
    Examples:
      dpcore runs show
      dpcore runs show 20261122-0300 --json
    """
    from dpcore.cli.recorded import tell_run

    store = store or (ctx.parent.params["store"] if ctx.parent is not None else None)
    tell_run(store, plugin, run_id, None if every else _MOST, as_json=as_json)


@runs.command()
@click.argument("run_ids", metavar="RUN...", nargs=-1, required=True, shell_complete=completing("run"))
@click.option("--keep-results", is_flag=True, help="Forget only what is recorded.")
@adapter_options("store", "io")
@plugin_option()
@click.pass_context
def rm(
    ctx: click.Context,
    run_ids: tuple[str, ...],
    keep_results: bool,
    store: str | None,
    io: str | None,
    plugin: tuple[str, ...],
) -> None:
    """Forget runs, each named by its id or the beginning of it, and delete their results.

    A run that somebody drives is left alone.

    \b
    Examples:
      dpcore runs rm 20261122-0300
      dpcore runs rm latest --keep-results
    """
    from dpcore.cli.resumed import remove_and_tell

    store = store or (ctx.parent.params["store"] if ctx.parent is not None else None)
    remove_and_tell(run_ids, plugin, store, io, keep_results=keep_results)
