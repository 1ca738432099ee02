"""What dpcore adds to pytest; loaded by every run in the environment, so it imports nothing else."""

from __future__ import annotations

import pytest

__all__ = ()

# So that a promise that is broken shows the values, as in a test module.
pytest.register_assert_rewrite(
    "dpcore.testing.suite",
    "dpcore.testing.io",
    "dpcore.testing.executor",
    "dpcore.testing.runstore",
    "dpcore.testing.machines",
)
