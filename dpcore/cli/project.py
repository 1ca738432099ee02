"""The project that a command works in: its settings, its plugins, and which adapters it wants.

What an option says outweighs the environment, that the project file, and that the
defaults of the command line, which keep runs and results under ``.dpcore/``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from dpcore.cli.options import DEFAULTS
from dpcore.cli.refusal import Refusal
from dpcore.config import Config, Level, Value
from dpcore.errors import DpcoreError
from dpcore.plugins import Plugins

__all__ = ("Project",)


class Project(NamedTuple):
    """Settings and plugins of the project that the current folder is in."""

    config: Config
    plugins: Plugins

    @classmethod
    def read(cls, names: Iterable[str] = (), *, block: Iterable[str] = ()) -> Project:
        """Read the nearest project file, and load the plugins *names* and the project's own.

        *names* are as ``-p`` takes them, before the command and after it.  Whoever names
        a plugin, it may lie beside the project file or in the current folder.
        """
        config, names = Config.read(), [*names]
        if names or config.plugins:
            for folder in (config.root, Path.cwd()):
                if folder is not None and str(folder) not in sys.path:
                    sys.path.append(str(folder))  # last, so that a plugin of the project's is found and hides nothing
        plugins = Plugins(load=names, block=block, config=config)
        if config.root is not None:
            plugins.load_conf(config.root)
        return cls(config, plugins)

    def choose(self, kind: str, option: str | None) -> Value:
        """Return the adapter of *kind* that is wanted, and who said so."""
        return self.config.choice(kind, option, DEFAULTS[kind], said=f"--{kind}")

    def check(self, choices: Mapping[str, Value]) -> None:
        """Raise what is wrong with the adapters that were chosen, before anything is begun with them.

        Making an adapter opens nothing, so one is made and thrown away.  The default broker
        need not be there: a run may do without.
        """
        for kind, choice in choices.items():
            if kind == "broker" and choice.level is Level.DEFAULT:
                continue
            try:
                self.plugins.make(kind, choice, self.config)
            except DpcoreError:
                raise
            except Exception as error:
                notes = "".join(f", {note}" for note in getattr(error, "__notes__", ()))
                raise Refusal(f"{type(error).__name__}: {error}{notes} (chosen by {choice.source})") from error
