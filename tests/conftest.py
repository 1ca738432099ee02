"""What every test may use: an isolated registry, and no plugin that the machine happens to have."""

from __future__ import annotations

import os
import subprocess

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


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        missing = pytest.fail if os.environ.get("DPCORE_REQUIRE_SERVICES") == "1" else pytest.skip
        missing(f"a full disk takes the right to mount one: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)
