"""A process in a terminal of its own, with a size."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
from typing import IO


class Terminal:
    """Calls the command in a pseudo-terminal, and reads what it would show."""

    def __init__(
        self, *arguments: object, columns: int = 80, rows: int = 24, out: IO[str] | None = None, **environ: str
    ) -> None:
        self.read = b""
        self._fd, there = pty.openpty()
        self.resize(columns, rows)
        kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-W", "error", "-c", "from dpcore.cli import main; main()", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=there if out is None else out,
            stderr=there,
            env=kept | {"TERM": "xterm-256color"} | environ,
        )
        os.close(there)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def until(self, words: bytes | str, timeout: float = 60) -> bytes:
        """Read on until *words* have been written."""
        wanted = words.encode() if isinstance(words, str) else words
        while wanted not in self.read:
            assert select.select([self._fd], [], [], timeout)[0], f"nothing more comes after {self.read!r}"
            assert self._more(), f"it ended without {wanted!r}: {self.read!r}"
        return self.read

    def end(self) -> tuple[int, str]:
        """Read to the end; return the exit code, and all that was written."""
        while self._more():
            pass
        return self.process.wait(60), self.read.decode()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._fd)

    def _more(self) -> bool:
        try:
            data = os.read(self._fd, 1 << 16)
        except OSError:  # nobody has the other end any more
            return False
        self.read += data
        return bool(data)
