"""The public surface: what is named, what it says of itself, and how much an adapter must write."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import dpcore
import dpcore_plugins
from dpcore import Executor, IOManager, Queue, RunStore

MODULES = sorted(
    name
    for package in (dpcore, dpcore_plugins)
    for _, name, _ in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not name.endswith("__main__")
)


@pytest.mark.parametrize("name", ["dpcore", "dpcore_plugins", *MODULES])
def test_a_module_says_what_it_is_for_and_its_all_is_honest(name):
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    for public in getattr(module, "__all__", ()):
        assert hasattr(module, public), f"{name}.__all__ names {public!r}, which is not there"


@pytest.mark.parametrize("name", dpcore.__all__)
def test_a_public_name_says_what_the_reader_gets(name):
    value = getattr(dpcore, name)
    if inspect.isclass(value) or callable(value):
        assert (inspect.getdoc(value) or "").strip(), f"dpcore.{name} has no docstring"
    if inspect.isclass(value):
        for member, thing in vars(value).items():
            if not member.startswith("_") and (inspect.isfunction(thing) or isinstance(thing, property)):
                assert inspect.getdoc(thing), f"dpcore.{name}.{member} has no docstring"


@pytest.mark.parametrize(("port", "most"), [(Executor, 2), (IOManager, 5), (Queue, 5), (RunStore, 4)])
def test_an_adapter_writes_few_methods(port, most):
    assert 1 <= len(port.__abstractmethods__) <= most <= 5


def test_no_module_shares_a_name_with_a_public_function():
    functions = {name for name in dpcore.__all__ if inspect.isfunction(getattr(dpcore, name))}
    assert not functions & {name.removeprefix("dpcore.") for name in MODULES}  # dpcore.cli.run hides nothing


def fresh(code: str) -> str:
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return child.stdout.strip()


def test_importing_dpcore_imports_nothing_else_of_it_until_a_name_is_asked_for():
    loaded = fresh("import dpcore, sys; print(*sys.modules)").split()
    assert [name for name in loaded if name.startswith(("dpcore", "anyio", "pluggy", "msgspec"))] == ["dpcore"]


def test_who_only_decorates_tasks_does_not_import_what_runs_them():
    loaded = fresh("from dpcore import task; import sys; print(*sys.modules)").split()
    assert not {"anyio", "pluggy", "dpcore.app", "dpcore.runner", "dpcore.plugins", "dpcore.config"} & {*loaded}


def test_every_public_name_and_the_errors_are_found_at_the_package():
    known = fresh("import dpcore; print(*[name for name in dpcore.__all__ if getattr(dpcore, name) is None])")
    assert known == ""
    assert fresh("import dpcore; print(dpcore.errors.PlanningError.__name__)") == "PlanningError"
    with pytest.raises(AttributeError, match="no attribute 'Nope'"):
        getattr(dpcore, "Nope")  # noqa: B009


@pytest.mark.parametrize("package", ["dpcore", "dpcore.events", "dpcore.ports", "dpcore.testing"])
def test_what_type_checkers_read_of_a_package_is_what_python_finds(package):
    module = importlib.import_module(package)
    stub = ast.parse(Path(module.__file__).with_suffix(".pyi").read_text())
    imported = {
        alias.name: statement.module
        for statement in stub.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    imported.pop("errors", None)  # a module, and no name
    assert imported.keys() == {*module.__all__}
    for name, home in imported.items():
        assert getattr(importlib.import_module(home), name) is getattr(module, name)
    (names,) = [ast.literal_eval(one.value) for one in stub.body if isinstance(one, ast.Assign)]
    assert {*names} == {*module.__all__}


def test_importing_all_of_dpcore_imports_no_event_loop_no_command_line_and_no_adapter():
    loaded = fresh("from dpcore import *; import sys; print(*sys.modules)").split()
    for heavy in (
        "asyncio", "trio", "click", "rich", "sqlite3", "importlib_metadata", "beartype", "cloudpickle", "pytest",
        "hypothesis", "dpcore.testing", "dpcore.cli",
    ):  # fmt: skip
        assert heavy not in loaded
    assert not [name for name in loaded if name.startswith("dpcore_plugins")]


def test_importing_the_pytest_plugin_imports_no_suite_and_no_adapter():
    loaded = fresh("import dpcore.testing.plugin, sys; print(*sys.modules)").split()
    assert "dpcore" in loaded
    assert "hypothesis" not in loaded
    assert not [name for name in loaded if name.startswith("dpcore_plugins")]
    assert "dpcore.testing.io" not in loaded
    assert "dpcore.testing.executor" not in loaded


def test_the_bundle_is_a_manifest_that_imports_no_adapter_and_knows_each_class_by_name():
    code = (
        "import sys, dpcore_plugins as p; before = [m for m in sys.modules if m.startswith('dpcore_plugins.')];"
        "print(before, p.FilesystemIO.__module__)"
    )
    assert fresh(code) == "[] dpcore_plugins.io.filesystem"
    with pytest.raises(AttributeError, match="no attribute 'Nope'"):
        getattr(dpcore_plugins, "Nope")  # noqa: B009  (a bare expression would be a statement without effect)


@pytest.mark.parametrize("kind", ["io", "queue", "executor", "store"])
def test_what_a_provider_says_is_what_its_class_has(kind, plugins):
    for offer in plugins.offers(kind):
        adapter = plugins.load(kind, offer.provider.name)
        assert adapter.capabilities == offer.provider.capabilities, offer.qualified
        assert offer.provider.summary
        assert adapter.__name__ in dpcore_plugins.__all__
