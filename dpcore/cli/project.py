"""The project that a command works in: its settings, its plugins, and which adapters it wants.

What an option says outweighs the environment, that the project file, and that the
defaults of the command line, which keep runs and results under ``.dpcore/``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from dpcore.cli.refusal import Refusal
from dpcore.config import AdapterString, Config, Level, Value
from dpcore.errors import DpcoreError
from dpcore.plugins import Plugins

__all__ = ("DEFAULTS", "Project", "adapter_options", "plugin_option")

F = TypeVar("F", bound=Callable[..., Any])

DEFAULTS: Mapping[str, str] = {
    "executor": "threads",
    "io": "filesystem:.dpcore/runs",
    "broker": "memory",
    "store": "sqlite:.dpcore/runs.db",
}

_HELP = {
    "executor": "Where tasks run.",
    "io": "Where results are kept.",
    "broker": "What carries events.",
    "store": "Where runs are recorded.",
}


class Project(NamedTuple):
    """Settings and plugins of the project that the current folder is in."""

    config: Config
    plugins: Plugins

    @classmethod
    def read(cls, names: Iterable[str] = (), *, block: Iterable[str] = ()) -> Project:
        """Read the nearest project file, and load the plugins *names* and the project's own.

        *names* are as ``-p`` takes them, before the command and after it.
        """
        config, names = Config.read(), [*names]
        if names and str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))  # last, so that a plugin of the project's is found and nothing is hidden
        plugins = Plugins(load=names, block=block, config=config)
        if config.root is not None:
            plugins.load_conf(config.root)
        return cls(config, plugins)

    def choose(self, kind: str, option: str | None) -> Value:
        """Return the adapter of *kind* that is wanted, and who said so."""
        return self.config.choice(kind, option, DEFAULTS[kind])

    def check(self, choices: Mapping[str, Value]) -> None:
        """Raise what is wrong with the adapters that were chosen, before anything is begun with them.

        Making an adapter opens nothing, so one is made and thrown away.  A broker needs
        only to be there: no run uses it.
        """
        for kind, choice in choices.items():
            if kind == "broker":
                self._check_broker(choice)
                continue
            try:
                self.plugins.make(kind, choice, self.config)
            except DpcoreError:
                raise
            except Exception as error:
                notes = "".join(f", {note}" for note in getattr(error, "__notes__", ()))
                raise Refusal(f"{type(error).__name__}: {error}{notes} (chosen by {choice.source})") from error

    def _check_broker(self, choice: Value) -> None:
        if choice.level is not Level.DEFAULT:
            where = None if choice.level is Level.CALL else choice.source
            spec = AdapterString.parse(choice.value, where)
            self.plugins.offer("broker", spec.name, spec.distribution)


def adapter_options(*kinds: str) -> Callable[[F], F]:
    """Add the options that choose the adapters of *kinds*."""

    def decorate(function: F) -> F:
        for kind in reversed(kinds):
            option = click.option(f"--{kind}", metavar="ADAPTER", help=f"{_HELP[kind]}  [default: {DEFAULTS[kind]}]")
            function = option(function)
        return function

    return decorate


def plugin_option(*, is_eager: bool = False) -> Callable[[F], F]:
    """Add ``-p NAME``; what is given before the command is there too, before what is given after it."""
    return click.option(
        "-p",
        "plugin",
        metavar="NAME",
        multiple=True,
        is_eager=is_eager,
        callback=_with_those_before,
        help="Load a plugin: an installed one, or a module; no:NAME blocks one.",
    )


def _with_those_before(ctx: click.Context, _: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    before: tuple[str, ...] = ctx.parent.params.get("plugin", ()) if ctx.parent is not None else ()
    return (*before, *names)
