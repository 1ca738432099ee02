"""The promises of an I/O manager, kept by JSON lines."""

from pathlib import Path
from typing import ClassVar

from dpcore_jsonlines import JsonLinesIO

from dpcore.testing import IOManagerConformance

DATA = ("bytes", "a tuple", "a set", "a time", "a small array", "large arrays", "a large array that is read only")
REST = {
    "a table by number": "JSON's keys are text",
    "an object": "JSON holds data",
    "a function without a name": "JSON holds data",
}


class TestJsonLinesIO(IOManagerConformance):
    """Whatever JSON holds returns as it was; the rest is refused."""

    refuses: ClassVar = {**dict.fromkeys(DATA, "JSON has none"), **REST}
    many: ClassVar = 300  # a run's file is written anew for each: it is not for ten thousand

    def make(self, tmp_path: Path) -> JsonLinesIO:
        """Store below the test's own folder."""
        return JsonLinesIO(path=tmp_path / "results")
