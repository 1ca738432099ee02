"""Records of runs in the memory of this process."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from dpcore import EXISTING, Document, Fence, RunStore
from dpcore.errors import StoreError

__all__ = ("MemoryRunStore",)


class _Row:
    __slots__ = ("entries", "value", "version")

    def __init__(self) -> None:
        self.value, self.version = b"", 0
        self.entries: list[bytes] = []


class MemoryRunStore(RunStore):
    """Remembers runs for as long as the object lives, also while it is not entered.

    Nothing here waits, so every commit is whole: there is no moment at which it
    could be cancelled, or seen half done by another task of the loop.
    """

    def __init__(self) -> None:
        self._rows: dict[str, _Row] = {}
        self._open = False

    def __str__(self) -> str:
        return "memory"

    async def __aenter__(self) -> Self:
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False

    async def commit(
        self,
        key: str,
        *,
        value: bytes | None = None,
        expected: int | None = None,
        entries: Sequence[bytes] = (),
        fence: Fence | None = None,
    ) -> int | None:
        """Change the row, or leave it as it is."""
        rows = self._entered()
        row = rows.get(key)
        version = row.version if row is not None else 0
        if value is None and not version:
            return None
        if expected is not None and expected != version and (expected != EXISTING or not version):
            return None
        if fence is not None and fence.version != self._version(fence.key):
            return None
        if row is None:
            row = rows[key] = _Row()
        if value is not None:
            row.value, row.version = value, version + 1
        row.entries += entries
        return row.version

    async def fetch(self, key: str, *, entries: bool = False) -> Document | None:
        """Return what the row holds now; it does not follow what comes later."""
        row = self._entered().get(key)
        return None if row is None else Document(row.value, row.version, row.entries.copy() if entries else [])

    async def scan(self, prefix: str, limit: int | None = None) -> list[tuple[str, Document]]:
        """Return the rows from the last created on: a dictionary keeps that order."""
        found: list[tuple[str, Document]] = []
        for key, row in reversed(self._entered().items()):
            if limit is not None and len(found) >= limit:
                break
            if key.startswith(prefix):
                found.append((key, Document(row.value, row.version)))
        return found

    async def drop(self, key: str) -> bool:
        """Forget the row."""
        return self._entered().pop(key, None) is not None

    def _version(self, key: str) -> int:
        row = self._rows.get(key)
        return row.version if row is not None else 0

    def _entered(self) -> dict[str, _Row]:
        if not self._open:
            raise StoreError(str(self), "it is not open; use it inside of `async with`")
        return self._rows
