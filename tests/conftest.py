"""What every test may use: an isolated registry, and no plugin that the machine happens to have."""

from __future__ import annotations

import os

import pytest

import dpcore


@pytest.fixture
def tasks() -> dpcore.Registry:
    """A registry of the test's own."""
    return dpcore.Registry()


@pytest.fixture
def plugins() -> dpcore.Plugins:
    """The bundle, and nothing that is installed beside it."""
    return dpcore.Plugins(installed=False)


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the settings of the machine away from the test."""
    for name in [name for name in os.environ if name.startswith("DPCORE_") and name != "DPCORE_REQUIRE_SERVICES"]:
        monkeypatch.delenv(name)
