"""What ``dpcore tasks`` tells: the tasks of a file or a module, without running any."""

from __future__ import annotations

import json
from typing import Any

from dpcore.cli.output import reserved_stdout, tell
from dpcore.cli.source import load
from dpcore.cli.text import table
from dpcore.hints import MISSING, shown
from dpcore.tasks import Task
from dpcore.timelines import cut

__all__ = ("tell_tasks",)

_WIDEST = 60


def tell_tasks(target: str, tags: tuple[str, ...], *, as_json: bool) -> None:
    """List the tasks of *target*, those with one of the *tags* if there are any."""
    with reserved_stdout() as out:  # what the file prints while it is imported is no part of the list
        found = [task for task in load(target).registry.values() if not tags or {*tags} & {*task.tags}]
        if as_json:
            tell(json.dumps([_as_data(task) for task in found], indent=2), out)
        elif found:
            tell("\n".join(table([("task", "tags", "takes", "gives", "does"), *map(_row, found)])), out)
        else:
            tell("no task has such a tag", out)


def _row(task: Task) -> tuple[str, ...]:
    takes = ", ".join(_parameter(name, one.hint, one.required) for name, one in task.parameters.items())
    first = next(iter(task.description.strip().splitlines()), "")
    return (
        task.name,
        ", ".join(task.tags) or "-",
        cut(takes, _WIDEST) or "-",
        cut(_gives(task), _WIDEST),
        cut(first, _WIDEST) or "-",
    )


def _parameter(name: str, hint: Any, required: bool) -> str:
    said = name if hint is MISSING else f"{name}: {shown(hint)}"
    return said if required else f"[{said}]"


def _gives(task: Task) -> str:
    if task.returns_nothing:
        return "nothing"
    hint = "?" if task.result is MISSING else shown(task.result)
    return f"{hint}, many" if task.many else hint


def _as_data(task: Task) -> dict[str, Any]:
    return {
        "name": task.name,
        "place": task.place,
        "tags": list(task.tags),
        "description": task.description,
        "dependencies": list(task.dependencies),
        "inputs": dict(task.inputs),
        "each": task.each,
        "streams": task.streams,
        "parameters": {
            name: {"hint": None if one.hint is MISSING else shown(one.hint), "required": one.required}
            for name, one in task.parameters.items()
        },
        "result": None if task.result is MISSING else shown(task.result),
        "parameters_schema": task.schema.parameters_json_schema(),
        "result_schema": task.schema.result_json_schema(),
    }
