"""The suites by name, for whoever has an adapter installed and wants it proven.

::

    pytest --pyargs dpcore.testing --dpcore-adapter broker:memory --dpcore-adapter 'store:sqlite?sync=true'
"""

from __future__ import annotations

import inspect
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

import dpcore.testing
from dpcore.config import AdapterString, Config, settings_of
from dpcore.errors import DpcoreError
from dpcore.plugins import Plugins
from dpcore.testing.suite import Conformance
from dpcore.words import listed, nearest, printed

__all__ = ("CHOSEN", "AdapterModule", "Chosen", "choose", "suite_of")

SUITES: Mapping[str, str] = {
    "broker": "BrokerConformance",
    "executor": "ExecutorConformance",
    "io": "IOManagerConformance",
    "queue": "QueueConformance",
    "store": "RunStoreConformance",
}
"""The suite of each kind of adapter that has one, by its name in :mod:`dpcore.testing`."""

_PLACE = "{tmp_path}"  # in an address: a folder of each test's own


class Chosen:
    """An adapter that was chosen by name, made as the command line makes it, but in a place of each test's own."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.kind, colon, name = text.partition(":")
        if not colon or self.kind not in SUITES:
            kinds = f"kinds: {listed(SUITES)}"
            raise ValueError(
                f"it is KIND:NAME[?setting=value], such as broker:memory ({kinds}){nearest(self.kind, SUITES)}"
            )
        self.spec = AdapterString.parse(name)

    def __reduce__(self) -> tuple[object, ...]:
        return (Chosen, (self.text,))  # what was found here is found again in another process

    @cached_property
    def plugins(self) -> Plugins:
        """The plugins of the project that the current folder is in."""
        config = Config.read()
        if config.root is not None and config.plugins and str(config.root) not in sys.path:
            sys.path.append(str(config.root))
        plugins = Plugins(config=config)
        if config.root is not None:
            plugins.load_conf(config.root)
        return plugins

    @cached_property
    def _keeps_a_place(self) -> bool:
        """Whether the adapter keeps things at a path, whoever says which."""
        path = settings_of(self.plugins.load(self.kind, self.spec)).get("path")
        return path is not None and (path.required or path.default is not None)

    def make(self, tmp_path: Path, settings: Mapping[str, Any] | None = None) -> Any:
        """Make one; where it keeps things at a path and none was said, they are below *tmp_path*."""
        address = self.spec.address
        if address is not None:
            address = address.replace(_PLACE, str(tmp_path))
        elif self._keeps_a_place and "path" not in self.spec.settings:
            address = str(tmp_path / "adapter")
        more = {name: str(value) for name, value in (settings or {}).items()}
        spec = replace(self.spec, address=address, settings={**self.spec.settings, **more})
        return self.plugins.make(self.kind, spec)


CHOSEN = pytest.StashKey[list[Chosen]]()
"""Where the plugin of pytest keeps what the options name."""


def choose(texts: Iterable[str]) -> list[Chosen]:
    """Return the adapters that ``--dpcore-adapter`` names; what is wrong with one is a UsageError that says so."""
    found = []
    for text in dict.fromkeys(texts):
        try:
            chosen = Chosen(text)
            with tempfile.TemporaryDirectory() as folder:
                chosen.make(Path(folder))  # which opens nothing
        except (DpcoreError, ValueError) as error:
            raise pytest.UsageError(f"--dpcore-adapter {printed(text)}: {error}") from error
        found.append(chosen)
    return found


def suite_of(chosen: Chosen) -> type[Conformance]:
    """Return the suite of an adapter's kind, which makes that adapter."""
    suite: type[Conformance] = getattr(dpcore.testing, SUITES[chosen.kind])
    asked = inspect.signature(suite.make)

    def make(self: Any, tmp_path: Path, *arguments: Any, **named: Any) -> Any:
        given = asked.bind(self, tmp_path, *arguments, **named)
        given.apply_defaults()
        return chosen.make(tmp_path, dict([*given.arguments.items()][2:]))

    made: type[Conformance] = type(chosen.text, (suite,), {"make": make, "__doc__": f"{chosen.text} keeps its word."})
    return made


class AdapterModule(pytest.Module):
    """What ``--pyargs dpcore.testing`` collects: one suite for each adapter that was chosen."""

    def collect(self) -> Iterator[pytest.Class]:
        """Return the suites."""
        chosen = self.config.stash.get(CHOSEN, [])
        if not chosen:
            raise self.CollectError("say which adapter is tested: --dpcore-adapter KIND:NAME, such as broker:memory")
        for one in chosen:
            setattr(self.obj, one.text, suite_of(one))
            yield pytest.Class.from_parent(self, name=one.text)
