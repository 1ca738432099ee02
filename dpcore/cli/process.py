"""A process that is the command line: its streams, and its end."""

from __future__ import annotations

from dpcore.cli.commands import cli
from dpcore.cli.output import flush_output, open_streams

__all__ = ("run_process",)


def run_process() -> int:
    """Run the command line on what the process was called with; return its exit code."""
    open_streams()
    try:
        cli.main(prog_name="dpcore")
    except SystemExit as end:
        code = end.code
    flush_output()
    return code if isinstance(code, int) else 0 if code is None else 1
