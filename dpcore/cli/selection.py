"""Which tasks a command is about: the arguments and options that ``run`` and ``plan`` share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

import click

from dpcore.cli.options import completing

__all__ = ("Selection", "selection_options")

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.argument("target", metavar="FILE_OR_MODULE", shell_complete=completing("target")),
    click.argument("selection", nargs=-1, metavar="[SELECTION]...", shell_complete=completing("selection")),
    click.option(
        "--tag",
        "tags",
        metavar="TAG",
        multiple=True,
        shell_complete=completing("tag"),
        help="Select the tasks with this tag.",
    ),
    click.option(
        "--exclude",
        metavar="SELECTION",
        multiple=True,
        shell_complete=completing("selection"),
        help="Leave these tasks out.",
    ),
    click.option(
        "--root-task",
        "root_tasks",
        metavar="TASK",
        multiple=True,
        shell_complete=completing("selection"),
        help="Begin at exactly this task.",
    ),
    click.option("--include-upstream", is_flag=True, help="Run what the root tasks wait for, too."),
    click.option(
        "--from-run",
        metavar="RUN",
        shell_complete=completing("run"),
        help="Take from an earlier run what the selection does not make.",
    ),
    click.option("--strict", is_flag=True, help="Refuse data between tasks that have no type hints."),
)


class Selection(NamedTuple):
    """The tasks that were asked for, as they were written."""

    selection: tuple[str, ...]
    tags: tuple[str, ...]
    exclude: tuple[str, ...]
    root_tasks: tuple[str, ...]
    include_upstream: bool
    from_run: str | None
    strict: bool
    params: dict[str, Any]

    @classmethod
    def of(cls, *, param: Iterable[str], **given: Any) -> Selection:
        """Take what the options gave."""
        return cls(**given, params=_params(param))

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of planning."""
        arguments = {**self._asdict(), "tags": self.tags or None, "root_tasks": self.root_tasks or None}
        del arguments["selection"]
        return arguments


def selection_options(param_help: str, *, names_only: bool = False) -> Callable[[F], F]:
    """Add FILE_OR_MODULE, SELECTION and the options that select; *names_only* allows a parameter without a value."""

    def check(ctx: click.Context, option: click.Parameter, params: tuple[str, ...]) -> tuple[str, ...]:
        seen = set()
        for text in params:
            name, equals, _ = text.partition("=")
            if not name or not (equals or names_only):
                raise click.BadParameter(f"{text!r} is not written name=value", ctx, option)
            if name in seen:
                raise click.BadParameter(f"{name!r} is given twice", ctx, option)
            seen.add(name)
        return params

    metavar = "NAME[=VALUE]" if names_only else "NAME=VALUE"
    param = click.option("--param", metavar=metavar, multiple=True, callback=check, help=param_help)

    def decorate(function: F) -> F:
        for option in reversed((*_OPTIONS, param)):
            function = option(function)
        return function

    return decorate


def _params(texts: Iterable[str]) -> dict[str, Any]:
    from dpcore.hints import MISSING

    pairs = (text.partition("=") for text in texts)
    return {name: value if equals else MISSING for name, equals, value in pairs}
