"""``dpcore completion``: what a shell needs to complete a command line, and what it is then offered.

Nothing of the user's is run for it: tasks and tags are read off the text of the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from dpcore.cli.options import KINDS
from dpcore.cli.output import tell
from dpcore.cli.refusal import Refusal

__all__ = ("OFFERS", "completion")

_VARIABLE = "_DPCORE_COMPLETE"
_MOST_RUNS = 50
_HINTS = {
    "bash": 'eval "$(dpcore completion bash)"       # in ~/.bashrc',
    "zsh": 'eval "$(dpcore completion zsh)"        # in ~/.zshrc, after compinit',
    "fish": "dpcore completion fish | source        # in ~/.config/fish/config.fish",
}


@click.command()
@click.argument("shell", type=click.Choice([*_HINTS]), required=False)
@click.pass_context
def completion(ctx: click.Context, shell: str | None) -> None:
    """Print what makes a SHELL complete commands, options, tasks, tags and adapters.

    \b
    Examples:
      eval "$(dpcore completion bash)"
      dpcore completion fish | source
    """
    if shell is None:
        tell(
            "\n".join(["put one of these into the settings of your shell:", *(f"  {hint}" for hint in _HINTS.values())])
        )
        return
    found = get_completion_class(shell)
    if found is None:  # pragma: no cover  (click has had these three for years)
        raise Refusal(f"click knows no completion for {shell}")
    source = found(ctx.find_root().command, {}, "dpcore", _VARIABLE)
    tell(source.source_template % source.source_vars())


# ---------------------------------------------------------------- what is offered


def complete_target(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the Python files and the folders there."""
    place = Path(os.path.dirname(incomplete) or ".")  # noqa: PTH120  (a trailing slash counts)
    before = incomplete[: incomplete.rfind("/") + 1]
    with suppress(OSError):
        return [
            CompletionItem(f"{before}{one.name}/" if one.is_dir() else f"{before}{one.name}")
            for one in sorted(place.iterdir())
            if f"{before}{one.name}".startswith(incomplete)
            and (one.suffix == ".py" or (one.is_dir() and not one.name.startswith((".", "__"))))
        ]
    return []


def complete_selection(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the tasks, and ``tag:word`` for each tag."""
    plus = "+" if incomplete.startswith("+") else ""
    names, tags = _written(ctx)
    words = [f"{plus}{name}" for name in [*names, *(f"tag:{tag}" for tag in tags)]]
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def complete_tag(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the tags."""
    return [CompletionItem(tag) for tag in _written(ctx)[1] if tag.startswith(incomplete)]


def complete_adapter(ctx: click.Context, option: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the adapters of the kind that the option is named after, with what they are."""
    with suppress(Exception):  # there is no place to say what is wrong, here and below
        offers = _project(ctx).plugins.offers(str(option.name))
        return [
            CompletionItem(one.provider.name, help=one.provider.summary)
            for one in offers
            if one.provider.name.startswith(incomplete)
        ]
    return []


def complete_name(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the adapters, of the kind that was named if one was, and beside those of all kinds the plugins."""
    kind = ctx.params.get("kind")
    with suppress(Exception):
        plugins = _project(ctx).plugins
        offers = [one for each in ([kind] if kind else KINDS) for one in plugins.offers(each)]
        found = {one.provider.name: one.provider.summary for one in offers}
        if not kind:
            found |= {one.name: f"the plugin {one.qualified}" for one in plugins.installed}
        return [CompletionItem(name, help=help_) for name, help_ in found.items() if name.startswith(incomplete)]
    return []


def complete_plugin(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the plugins that are installed, and after ``no:`` those that can be blocked."""
    no = "no:" if incomplete.startswith("no:") else ""
    with suppress(Exception):
        names = [f"{no}{one.name}" for one in _project(ctx).plugins.installed]
        return [CompletionItem(name) for name in dict.fromkeys(names) if name.startswith(incomplete)]
    return []


def complete_run(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the newest runs, with how they went."""
    from dpcore.cli.recorded import newest

    above = ctx.parent.params if ctx.parent is not None else {}
    with suppress(Exception):
        records = newest(ctx.params.get("store") or above.get("store"), ctx.params.get("plugin") or (), _MOST_RUNS)
        return [
            CompletionItem(name, help=help_)
            for name, help_ in [("latest", ""), *((one.run_id, str(one.state)) for one in records)]
            if name.startswith(incomplete)
        ]
    return []


def _project(ctx: click.Context) -> Any:
    from dpcore.cli.project import Project

    return Project.read(ctx.params.get("plugin") or ())


OFFERS: Mapping[str, Callable[[click.Context, click.Parameter, str], list[CompletionItem]]] = {
    "adapter": complete_adapter,
    "name": complete_name,
    "plugin": complete_plugin,
    "run": complete_run,
    "selection": complete_selection,
    "tag": complete_tag,
    "target": complete_target,
}
"""What is offered for an option or an argument."""


def _written(ctx: click.Context) -> tuple[list[str], list[str]]:
    """Return the names and tags of the tasks in the file that was named, as its text has them."""
    place = str(ctx.params.get("target") or next(iter(ctx.args), "")).partition(":")[0]
    names: list[str] = []
    tags: list[str] = []
    with suppress(OSError, SyntaxError, ValueError):  # there is no such file, or no sense in it yet
        file = Path(place) if place.endswith(".py") else Path(*place.split(".")).with_suffix(".py")
        for name, of_one in _tasks_in(file.read_text(encoding="utf-8")):
            names.append(name)
            tags += of_one
    return list(dict.fromkeys(names)), list(dict.fromkeys(tags))


def _tasks_in(text: str) -> Iterator[tuple[str, list[str]]]:
    import ast

    for one in ast.walk(ast.parse(text)):
        if not isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for decorator in one.decorator_list:
            called = decorator.func if isinstance(decorator, ast.Call) else decorator
            if (called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")) != "task":
                continue
            given: dict[str | None, object] = {}
            for keyword in decorator.keywords if isinstance(decorator, ast.Call) else ():
                with suppress(ValueError):  # it is no literal, and would have to be run
                    given[keyword.arg] = ast.literal_eval(keyword.value)
            tags = given.get("tags", ())
            yield str(given.get("name", one.name)), [*map(str, tags)] if isinstance(tags, list | tuple | set) else []
