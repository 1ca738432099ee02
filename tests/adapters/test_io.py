"""The I/O managers that ship, under their suite, and what is special to each."""

from __future__ import annotations

import pytest

from dpcore.testing import IOManagerConformance
from dpcore_plugins.io.filesystem import FilesystemIO
from dpcore_plugins.io.memory import MemoryIO


class TestMemoryIO(IOManagerConformance):
    def make(self, tmp_path):
        return MemoryIO()


class TestFilesystemIO(IOManagerConformance):
    def make(self, tmp_path):
        return FilesystemIO(path=tmp_path / "runs")


class TestFilesystemIOWithSync(IOManagerConformance):
    kills = 5

    def make(self, tmp_path):
        return FilesystemIO(path=tmp_path / "runs", sync=True)
