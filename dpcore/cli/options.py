"""The options that several commands share, and the adapters that they have by default."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

__all__ = ("DEFAULTS", "KINDS", "adapter_options", "completing", "limit_option", "plugin_option", "telling_options")

F = TypeVar("F", bound=Callable[..., Any])

DEFAULTS: Mapping[str, str] = {
    "executor": "multiprocess",
    "io": "filesystem:.dpcore/runs",
    "broker": "memory",
    "store": "sqlite:.dpcore/runs.db",
}

KINDS = ("broker", "queue", "trigger", "io", "executor", "store")
"""The keys of :data:`dpcore.providers.KINDS`, which takes a while to import."""

_HELP = {
    "executor": "Where tasks run.",
    "io": "Where results are kept.",
    "broker": "What carries events.",
    "store": "Where runs are recorded.",
}


def adapter_options(*kinds: str) -> Callable[[F], F]:
    """Add the options that choose the adapters of *kinds*."""

    def decorate(function: F) -> F:
        for kind in reversed(kinds):
            option = click.option(
                f"--{kind}",
                metavar="ADAPTER",
                help=f"{_HELP[kind]}  [default: {DEFAULTS[kind]}]",
                shell_complete=completing("adapter"),
            )
            function = option(function)
        return function

    return decorate


def limit_option() -> Callable[[F], F]:
    """Add ``--limit TAG=NUMBER``, which takes the place of the limits of the project file."""
    return click.option(
        "--limit",
        metavar="TAG=NUMBER",
        multiple=True,
        callback=_limits,
        help="Have at most so many jobs at once of tasks with a tag.",
    )


def _limits(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> list[tuple[str, int]]:
    found = []
    for text in texts:
        tag, _equals, most = text.rpartition("=")
        if not tag or not (most.isascii() and most.isdigit()) or int(most) < 1:
            raise click.BadParameter(f"{text!r} must be a tag and a whole number from 1 on, such as db=2")
        found.append((tag, int(most)))
    return found


def telling_options() -> Callable[[F], F]:
    """Add what a command that runs tasks tells: ``--quiet``, ``--verbose`` and ``--json``."""

    def decorate(function: F) -> F:
        for option in reversed(_TELLING):
            function = option(function)
        return function

    return decorate


_TELLING = (
    click.option("-q", "--quiet", is_flag=True, help="Say only what went wrong."),
    click.option("-v", "--verbose", count=True, help="Tell what is logged: -v from the level info on, -vv everything."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON document, and everything else to stderr."),
)


def completing(what: str) -> Callable[[click.Context, click.Parameter, str], Any]:
    """Return what offers a shell *what* fits an option: a key of :data:`dpcore.cli.completion.OFFERS`."""

    def complete(ctx: click.Context, option: click.Parameter, incomplete: str) -> Any:
        from dpcore.cli.completion import OFFERS  # what it takes is needed by nobody else

        return OFFERS[what](ctx, option, incomplete)

    return complete


def plugin_option(*, is_eager: bool = False) -> Callable[[F], F]:
    """Add ``-p NAME``; what is given before the command is there too, before what is given after it."""
    return click.option(
        "-p",
        "plugin",
        metavar="NAME",
        multiple=True,
        is_eager=is_eager,
        callback=_with_those_before,
        shell_complete=completing("plugin"),
        help="Load a plugin: an installed one, or a module; no:NAME blocks one.",
    )


def _with_those_before(ctx: click.Context, _: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    before: tuple[str, ...] = ctx.parent.params.get("plugin", ()) if ctx.parent is not None else ()
    return (*before, *names)
