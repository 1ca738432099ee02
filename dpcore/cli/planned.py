"""What ``dpcore plan`` tells: what a run would do, as text, as data, and as a graph."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from dpcore.app import App
from dpcore.cli.output import reserved_stdout, tell
from dpcore.cli.project import Project
from dpcore.cli.report import left_out
from dpcore.cli.selection import Selection
from dpcore.cli.source import load
from dpcore.functions import qualified
from dpcore.plans import Edge, Plan
from dpcore.tasks import Task
from dpcore.words import counted

__all__ = ("tell_plan",)


def tell_plan(target: str, plugin: tuple[str, ...], selection: Selection, form: str, *, only_check: bool) -> None:
    """Plan *target*, and show it in that *form*; with *only_check* say only that it can be planned."""
    with reserved_stdout() as out:  # what the file prints while it is imported is no part of a plan
        project = Project.read(plugin)
        app = App(load(target).registry, plugins=project.plugins, config=project.config)
        found = app.plan(*selection.selection, **selection.arguments)
        tell(_checked(found, form) if only_check else _shown(found, form, selection.params), out)


def _checked(plan: Plan, form: str) -> str:
    return json.dumps({"ok": True, "tasks": len(plan)}) if form == "json" else f"ok: {counted(len(plan), 'task')}"


def _shown(plan: Plan, form: str, given: Mapping[str, Any]) -> str:
    if form in ("mermaid", "dot"):
        return as_mermaid(plan) if form == "mermaid" else as_dot(plan)
    return as_tree(plan, given) if form == "tree" else as_json(plan, given)


# ---------------------------------------------------------------- for people


def as_tree(plan: Plan, given: Mapping[str, Any]) -> str:
    """Write the plan level by level, each task with what it needs."""
    lines = [f"plan {plan.id}: {counted(len(plan), 'task')} in {counted(len(plan.levels), 'level')}"]
    edges = _edges_into(plan)
    for number, level in enumerate(plan.levels, start=1):
        lines += ["", f"level {number}"]
        for name in level:
            lines += _branch(plan, plan.tasks[name], edges[name], given)
    taken = dict.fromkeys(param for task in plan for param in _params(plan, task, given))
    if taken:
        lines += ["", f"run parameters: {', '.join(taken)}"]
    if plan.left_out:
        lines += ["", *left_out(plan)]
    return "\n".join(lines)


def _branch(plan: Plan, task: Task, edges: list[Edge], given: Mapping[str, Any]) -> Iterator[str]:
    marks = [*task.tags, *(["streams"] if task.streams else []), *([f"each {task.each}"] if task.each else [])]
    yield f"  {task.name}" + (f"  [{', '.join(marks)}]" if marks else "")
    for edge in edges:
        inferred = "  (inferred)" if edge.inferred else ""
        yield f"    {edge.parameter} <- {edge.upstream}{inferred}" if edge.parameter else f"    after {edge.upstream}"
    for parameter, upstream in plan.earlier.get(task.name, {}).items():
        yield f"    {parameter} <- {upstream} of run {plan.from_run}"
    for parameter in _params(plan, task, given):
        yield f"    {parameter} <- run parameter"


def _edges_into(plan: Plan) -> dict[str, list[Edge]]:
    found: dict[str, list[Edge]] = {name: [] for name in plan.order}
    for edge in plan.edges:
        found[edge.task].append(edge)
    return found


def _params(plan: Plan, task: Task, given: Mapping[str, Any]) -> list[str]:
    """Return the parameters of *task* that run parameters supply, also those only named so far."""
    fed = {**plan.inputs.get(task.name, {}), **plan.earlier.get(task.name, {})}
    supplied = plan.arguments.get(task.name, {})
    return [
        one.name
        for one in task.parameters.values()
        if one.name not in fed and (one.required or one.name in supplied or one.name in given)
    ]


# ---------------------------------------------------------------- for programs


def as_json(plan: Plan, given: Mapping[str, Any]) -> str:
    """Write everything that is known of the plan, in an order that does not change."""
    edges = _edges_into(plan)
    document = {
        "id": plan.id,
        "fingerprint": plan.fingerprint,
        "from_run": plan.from_run,
        "order": plan.order,
        "levels": plan.levels,
        "tasks": {task.name: _task_as_data(plan, task, edges[task.name], given) for task in plan},
        "edges": [
            {"upstream": edge.upstream, "task": edge.task, "parameter": edge.parameter, "inferred": edge.inferred}
            for edge in plan.edges
        ],
        "left_out": [{"task": task, "dependency": dependency} for task, dependency in plan.left_out],
    }
    return json.dumps(document, indent=2)


def _task_as_data(plan: Plan, task: Task, edges: list[Edge], given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "place": task.place,
        "description": task.description,
        "tags": task.tags,
        "fingerprint": task.fingerprint,
        "needs": plan.needs[task.name],
        "inputs": {edge.parameter: edge.upstream for edge in edges if edge.parameter},
        "inferred": [edge.parameter for edge in edges if edge.inferred],
        "after": [edge.upstream for edge in edges if edge.parameter is None],
        "earlier": dict(plan.earlier.get(task.name, {})),
        "params": _params(plan, task, given),
        "streams": task.streams,
        "each": task.each,
        "settings": {
            "max_retries": task.max_retries,
            "retry_delay": task.retry_delay,
            "backoff": task.backoff,
            "max_delay": task.max_delay,
            "jitter": task.jitter,
            "retry_on": [qualified(kind) for kind in task.retry_on],
            "timeout": task.timeout,
            "fail_safe": task.fail_safe,
            "version": task.version,
        },
    }


# ---------------------------------------------------------------- graphs


def as_mermaid(plan: Plan) -> str:
    """Write a flowchart of Mermaid; dotted arrows are order only.

    Its ids are numbers, because Mermaid takes neither every letter nor its own words for one.
    """
    ids = {name: f"t{number}" for number, name in enumerate(plan.order)}
    lines = ["flowchart TD", *(f"    {ids[name]}[{_mermaid(name)}]" for name in plan.order)]
    for edge in plan.edges:
        arrow = f"-->|{_mermaid(_label(edge))}|" if edge.parameter else "-.->"
        lines.append(f"    {ids[edge.upstream]} {arrow} {ids[edge.task]}")
    return "\n".join(lines)


def as_dot(plan: Plan) -> str:
    """Write a graph of Graphviz; dashed arrows are order only."""
    lines = ["digraph plan {", "    node [shape=box];", *(f"    {_dot(name)};" for name in plan.order)]
    for edge in plan.edges:
        look = f"label={_dot(_label(edge))}" if edge.parameter else "style=dashed"
        lines.append(f"    {_dot(edge.upstream)} -> {_dot(edge.task)} [{look}];")
    return "\n".join([*lines, "}"])


def _label(edge: Edge) -> str:
    return f"{edge.parameter} (inferred)" if edge.inferred else str(edge.parameter)


def _mermaid(text: str) -> str:
    return '"{}"'.format(text.replace("#", "#35;").replace('"', "#quot;"))


def _dot(text: str) -> str:
    return '"{}"'.format(text.replace("\\", "\\\\").replace('"', '\\"'))
