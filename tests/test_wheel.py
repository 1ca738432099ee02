"""Under tox it is the built wheel that is tested, not the checkout beside the tests."""

from __future__ import annotations

import os
import sysconfig
from importlib.metadata import files
from pathlib import Path

import pytest

import dpcore
import dpcore_plugins

pytestmark = pytest.mark.skipif(
    not os.environ.get("DPCORE_TEST_WHEEL"), reason="DPCORE_TEST_WHEEL is not set: run tox to test the wheel"
)

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("package", [dpcore, dpcore_plugins], ids=lambda package: package.__name__)
def test_a_package_is_imported_from_where_the_wheel_was_installed(package: object) -> None:
    installed = Path(sysconfig.get_path("purelib"))
    assert Path(str(getattr(package, "__file__", None))).is_relative_to(installed)


def test_the_wheel_holds_every_module_and_nothing_else() -> None:
    def wanted(path: Path) -> bool:
        return path.is_file() and path.suffix in (".py", ".pyi", ".typed")

    written = {
        path.relative_to(ROOT)
        for name in ("dpcore", "dpcore_plugins")
        for path in (ROOT / name).rglob("*")
        if wanted(path)
    }
    packed = {Path(str(path)) for path in files("dpcore") or ()}
    packed = {
        path for path in packed if path.suffix != ".pyc" and ".dist-info" not in path.parts[0] and path.parts[0] != ".."
    }
    assert packed == written
