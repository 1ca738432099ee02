"""The executor on worker processes: the promises of its port, and what is particular to it."""

from __future__ import annotations

from dpcore.testing import ExecutorConformance
from dpcore_plugins import MultiprocessExecutor


class TestMultiprocess(ExecutorConformance):
    def make(self, tmp_path):
        return MultiprocessExecutor(workers=3)
