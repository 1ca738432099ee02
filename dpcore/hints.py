"""Type hints: the schema of a function, and whether an output fits an input.

Pure.  A hint that cannot be resolved loses only itself, never its neighbours.
"""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ("convert",)


def convert(value: object, hint: Any) -> Any:
    """Convert *value* (text from a command line, a value from Python or a file) to what *hint* asks for.

    Raises :class:`ValueError` with a sentence that says why it does not convert.
    """
    return msgspec.convert(value, hint, strict=False)
