"""``dpcore resume``: run what is left of a run."""

from __future__ import annotations

from typing import Any

import click

from dpcore.cli.options import adapter_options, completing, limit_option, plugin_option, telling_options

__all__ = ("resume",)


@click.command()
@click.argument("run_id", metavar="RUN", shell_complete=completing("run"))
@click.option("--from", "from_", metavar="TASK", multiple=True, help="Run this task again, and all that waits for it.")
@click.option("--changed", is_flag=True, help="Run again what has changed since, and all that waits for it.")
@adapter_options("executor", "io", "broker", "store")
@limit_option()
@telling_options()
@plugin_option()
@click.pass_context
def resume(
    ctx: click.Context, /, run_id: str, plugin: tuple[str, ...], as_json: bool, quiet: bool, verbose: int, **given: Any
) -> None:
    """Run what is left of a run: of the latest one, or of that whose id is RUN or begins so.

    What has succeeded is not run again.  Of a run that was killed, nothing is that had ended; of
    one that was over, what did not succeed.  The tasks are those of the file or module that the
    run was started from, as it is now, and its executor and results are where they were, unless options say otherwise.

    \b
    Examples:
      dpcore resume latest
      dpcore resume 20261122-0300 --from load
      dpcore resume latest --changed
    """
    from dpcore.cli.resumed import resume_and_tell  # what --help need not wait for
    from dpcore.cli.running import Told

    ctx.exit(resume_and_tell(run_id, plugin, Told(as_json, quiet, verbose), given))
