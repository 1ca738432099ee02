"""Whether there can be plugins beyond the bundle, found out without importing what loads plugins.

``dpcore --help`` lists the commands of plugins.  Mostly there are none, and
then it need not wait for everything that finds and checks them; nor for pathlib,
whose import would be a good part of what is left.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator
from contextlib import suppress
from importlib.machinery import PathFinder
from os.path import dirname, exists

__all__ = ("only_the_bundle",)

_SPEAKING = ("DPCORE_PLUGINS", "DPCORE_DISABLE_PLUGINS", "DPCORE_PLUGIN_AUTOLOAD")
_BUNDLE = [b"default = dpcore_plugins"]


def only_the_bundle(named: Collection[str] = ()) -> bool:
    """Tell whether it is certain that no plugin is there but the one that ships; *named* are those of ``-p``.

    Certain is what the folders of ``sys.path`` and the project's files show.  Where
    something says a word about plugins, or cannot be looked into, the answer is False,
    and whoever asked has to look properly.
    """
    if named or any(os.environ.get(name) for name in _SPEAKING):
        return False
    # A finder of somebody else's may know distributions that lie in no folder.
    if any(hasattr(finder, "find_distributions") and finder is not PathFinder for finder in sys.meta_path):
        return False
    try:
        return not _project_speaks() and all(entries in ([], _BUNDLE) for entries in _entries())
    except OSError:
        return False


def _project_speaks() -> bool:
    folder, below = os.getcwd(), ""
    while folder != below:
        if exists(f"{folder}/dpcore.toml"):
            return True
        if b"dpcore" in _read(f"{folder}/pyproject.toml"):
            return True
        if exists(f"{folder}/pyproject.toml") and exists(f"{folder}/dpcore_conf.py"):
            return True
        folder, below = dirname(folder), folder
    return False


def _entries() -> Iterator[list[bytes]]:
    """Yield the plugins of each distribution, as its metadata says them."""
    for place in dict.fromkeys(sys.path):
        with suppress(FileNotFoundError):
            for name in os.listdir(place or "."):
                if name.endswith((".dist-info", ".egg-info")):
                    yield _plugins_in(f"{place or '.'}/{name}/entry_points.txt")
                elif name.endswith(".egg"):
                    yield _plugins_in(f"{place or '.'}/{name}/EGG-INFO/entry_points.txt")


def _read(file: str) -> bytes:
    try:
        with open(file, "rb") as opened:
            return opened.read()
    except (FileNotFoundError, NotADirectoryError):
        return b""


def _plugins_in(file: str) -> list[bytes]:
    lines = [line.strip() for line in _read(file).splitlines()]
    found, is_ours = [], False
    for line in lines:
        if line.startswith(b"["):
            is_ours = line == b"[dpcore]"
        elif is_ours and line:
            found.append(line)
    return found
