"""What import-linter cannot see of the floors: public names only, no imports for types only, none inside functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import dpcore
import dpcore.durations
import dpcore.errors
import dpcore.events
import dpcore.functions
import dpcore.hints
import dpcore.jobs
import dpcore.scheduler
import dpcore.topics

ROOT = Path(__file__).parents[1]
MODULES = sorted([*ROOT.glob("dpcore/**/*.py"), *ROOT.glob("dpcore_plugins/**/*.py")])
ADAPTERS = sorted(ROOT.glob("dpcore_plugins/*/**/*.py"))
# ``hints``: who takes requests for tasks describes what these take, and converts as they do.  ``scheduler``: it shows schedules.
PUBLIC = {
    one.__name__: one.__all__
    for one in (
        dpcore,
        dpcore.durations,
        dpcore.errors,
        dpcore.events,
        dpcore.functions,
        dpcore.hints,
        dpcore.jobs,
        dpcore.scheduler,
        dpcore.topics,
    )
}

# Where a heavy dependency may be loaded on first use: whole floors, and single imports with their reasons in the code.
DEFERRING = ("dpcore_plugins/", "dpcore/cli/", "dpcore/testing/", "dpcore/hints/")
DEFERRED = {
    ("dpcore/functions.py", "cloudpickle"),
    ("dpcore/config.py", "tomllib"),
    ("dpcore/plugins.py", "importlib_metadata"),
    ("dpcore/words.py", "difflib"),
    ("dpcore/folders.py", "shutil"),
    ("dpcore/folders.py", "tempfile"),
}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported(found: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield (module, name) of each import below *found*; of a relative one with its dots, of a whole module with ``""``."""
    for one in ast.walk(found):
        if isinstance(one, ast.Import):
            yield from ((alias.name, "") for alias in one.names)
        elif isinstance(one, ast.ImportFrom):
            yield from (("." * one.level + (one.module or ""), alias.name) for alias in one.names)


@pytest.mark.parametrize("path", ADAPTERS, ids=name)
def test_an_adapter_imports_what_an_outsider_may(path: Path) -> None:
    parts = path.relative_to(ROOT).parts
    own = (
        ".".join(parts[: 2 if parts[1] == "api" else 3]) + "."
    )  # an adapter of several files is a package, and so is the API
    for module, imports in imported(tree(path)):
        if module.partition(".")[0] in ("", "dpcore", "dpcore_plugins") and not module.startswith(own):
            assert imports in PUBLIC.get(module, ()), f"from {module} import {imports}"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_nothing_is_imported_for_type_checkers_only(path: Path) -> None:
    names = {
        one.id if isinstance(one, ast.Name) else one.attr
        for one in ast.walk(tree(path))
        if isinstance(one, ast.Name | ast.Attribute)
    }
    assert "TYPE_CHECKING" not in names


@pytest.mark.parametrize("path", [path for path in MODULES if not name(path).startswith(DEFERRING)], ids=name)
def test_a_function_imports_nothing(path: Path) -> None:
    functions = [
        one for one in ast.walk(tree(path)) if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    ]
    late = {(name(path), module) for function in functions for module, _ in imported(function)}
    assert late <= DEFERRED


def test_every_exception_is_still_needed() -> None:
    late = {
        (name(path), module)
        for path in MODULES
        for one in ast.walk(tree(path))
        if isinstance(one, ast.FunctionDef)
        for module, _ in imported(one)
    }
    assert late >= DEFERRED


def test_there_is_something_to_check() -> None:
    assert len(MODULES) > 20
    assert len(ADAPTERS) > 6
