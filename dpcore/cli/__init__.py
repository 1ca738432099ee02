"""The ``dpcore`` command.

The exit code is 0 for success, 1 for a run that failed or something that is wrong
with what was looked at, 2 for what was asked and cannot be done, which one message
on stderr explains, and 130 for what was cancelled by Ctrl-C, SIGTERM or SIGHUP.
"""

import os
import sys

__all__ = ("main",)


def main() -> None:
    """Run the command line, and end the process.

    Nothing is imported before this is called, so that Ctrl-C meets it from the first
    moment on.
    """
    try:
        from dpcore.cli.process import run_process

        code = run_process()
    except KeyboardInterrupt:  # what handles it better has not been imported yet
        os.write(2, b"dpcore: cancelled\n")
        code = 130
    sys.exit(code)
