"""What every adapter has: capabilities as data, and a way to refuse."""

from __future__ import annotations

from abc import ABC
from typing import ClassVar

from dpcore.errors import UnsupportedError

__all__ = ("Adapter",)


class Adapter(ABC):
    """An implementation of a port.

    Its settings are the keyword-only parameters of its constructor, converted by
    their hints; the address of its string goes to the one parameter named ``url``
    (the whole string) or ``path``.  A constructor takes settings and nothing else:
    it opens no file and no connection.
    """

    capabilities: ClassVar[frozenset[str]] = frozenset()
    """What it does natively; what a capability means is said by the port."""

    def require(self, capability: str, asked: str) -> None:
        """Raise :class:`~dpcore.errors.UnsupportedError` unless this adapter has *capability*."""
        if capability not in self.capabilities:
            raise UnsupportedError(str(self), capability, asked)

    def __str__(self) -> str:
        return type(self).__name__
