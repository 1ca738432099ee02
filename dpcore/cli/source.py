"""Where the tasks of a command come from: a file, or a module.

A file is imported under its stem, with its folder first on ``sys.path``, and a
module by its name, with the current folder there: so that another process can
import either of them again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from dpcore.cli.refusal import Refusal, users_traceback
from dpcore.errors import UnguardedScriptError
from dpcore.functions import loading_only
from dpcore.tasks import Registry
from dpcore.tasks import registry as default_registry
from dpcore.words import listed, nearest

__all__ = ("Source", "load")


class Source(NamedTuple):
    """The tasks of a file or a module."""

    registry: Registry
    shown: str
    """As it was asked for."""

    recorded: str
    """As another process finds it, whatever folder it is in: the absolute file, or the module."""

    module: ModuleType


def load(target: str) -> Source:
    """Import *target*, written ``FILE``, ``MODULE``, or either with ``:NAME`` of a registry in it.

    The tasks are those of the module's own registry if it has exactly one with tasks,
    and otherwise those of :data:`dpcore.registry`.  Raises :class:`Refusal` for what is
    not there, does not import, or has no tasks.
    """
    place, name = _parted(target)
    if _is_file(place):
        file = _checked_file(place)
        module = _imported_file(file)
        recorded = str(file)
    else:
        module = _imported_module(place)
        recorded = place
    registry = _named(module, place, name) if name else _only(module, place)
    if not registry:
        raise Refusal(_without_tasks(target, module))
    return Source(registry, target, f"{recorded}:{name}" if name else recorded, module)


def _without_tasks(target: str, module: ModuleType) -> str:
    folder = next(iter(getattr(module, "__path__", ())), None)
    if folder is not None and getattr(module, "__file__", None) is None:
        return _folder(target, Path(folder))
    return f"{target} has no tasks; decorate a function with @task (from dpcore import task)"


def _folder(place: str, folder: Path) -> str:
    there = f" ({_files_in(folder)})" if _names_in(folder) else ", though none there ends in .py"
    return f"{place!r} is a folder; name a file in it{there}, or a module"


def _parted(target: str) -> tuple[str, str]:
    place, colon, name = target.rpartition(":")
    is_name = colon and all(part.isidentifier() for part in name.split("."))
    return (place, name) if is_name and not Path(target).exists() else (target, "")


def _is_file(place: str) -> bool:
    is_module = all(part.isidentifier() for part in place.split(".")) and Path(place).suffix != ".py"
    return not is_module or Path(place).is_file()


# ---------------------------------------------------------------- files


def _checked_file(place: str) -> Path:
    file = Path(place).expanduser().absolute()
    if file.is_dir():
        raise Refusal(_folder(place, file))
    if not file.is_file():
        if not file.parent.is_dir():
            raise Refusal(f"there is no file {place!r}, nor the folder {str(file.parent)!r}")
        near = nearest(file.name, _names_in(file.parent)) or f" (Python files there: {_files_in(file.parent)})"
        raise Refusal(f"there is no file {place!r}{near}")
    if file.suffix != ".py" or "." in file.stem:
        raise Refusal(
            f"{place} cannot be imported: a file of tasks is named like a module, such as 'orders.py', "
            "so that other processes can import it too"
        )
    return file


def _names_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("*.py"))


def _files_in(folder: Path) -> str:
    return listed(_names_in(folder), 5)


def _imported_file(file: Path) -> ModuleType:
    _put_first(file.parent)
    module = _imported(file.stem, str(file))
    found = getattr(module, "__file__", None)
    if found is None or not Path(found).samefile(file):
        raise Refusal(
            f"{file} cannot be imported as {file.stem!r}, because another module has that name "
            f"({found or 'built into Python'}); rename the file"
        )
    return module


# ---------------------------------------------------------------- modules


def _imported_module(name: str) -> ModuleType:
    folder = Path.cwd()
    _put_first(folder)
    try:
        return _imported(name, name)
    except Refusal as refusal:
        cause = refusal.__cause__
        if not isinstance(cause, ModuleNotFoundError) or not f"{name}.".startswith(f"{cause.name}."):
            raise
        known = [*_names_in(folder), *(Path(file).stem for file in _names_in(folder))]
        near = nearest(name, known) or f"; to name a file, write it with its ending: '{name}.py'"
        raise Refusal(f"there is no module {name!r}, neither in {folder} nor installed{near}") from cause


def _put_first(folder: Path) -> None:
    if sys.path[:1] != [str(folder)]:
        sys.path.insert(0, str(folder))


def _imported(name: str, shown: str) -> ModuleType:
    try:
        with loading_only(shown):
            return import_module(name)
    except UnguardedScriptError:
        raise  # which says all there is to say
    except SyntaxError as error:
        text = (error.text or "").strip()
        line = f"{error.filename}:{error.lineno}" if error.lineno else error.filename or shown
        raise Refusal(f"{line}: {type(error).__name__}: {error.msg}" + (f"\n    {text}" if text else "")) from error
    except (Exception, SystemExit) as error:
        raise Refusal(f"{shown} fails when it is imported:\n{_told(error)}") from error


def _told(error: BaseException) -> str:
    told = users_traceback(error)
    if isinstance(error, ImportError) and "relative import" in str(error):
        told += "\nit is part of a package; name it as a module: dpcore run PACKAGE.MODULE"
    return told


# ---------------------------------------------------------------- registries


def _only(module: ModuleType, place: str) -> Registry:
    own = _registries(module)
    filled = [name for name, registry in own.items() if registry and registry is not default_registry]
    if filled and any(task.call.__module__ == module.__name__ for task in default_registry.values()):
        raise Refusal(
            f"{place} has tasks of @task, and the registry {listed(filled)} with others; put them into one registry, "
            f"or say which is meant: {' or '.join(f'{place}:{name}' for name in filled)}"
        )
    if len(filled) > 1:
        choice = " or ".join(f"{place}:{name}" for name in filled)
        raise Refusal(f"{place} has several registries of tasks ({listed(filled)}); say which is meant: {choice}")
    return own[filled[0]] if filled else default_registry


def _named(module: ModuleType, place: str, name: str) -> Registry:
    found: object = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, Registry):
        known: Iterable[str] = _registries(module)
        raise Refusal(f"{place} has no registry {name!r} (there are: {listed(known)}){nearest(name, known)}")
    return found


def _registries(module: ModuleType) -> dict[str, Registry]:
    """Return the registries that a module holds, each under the first of its names."""
    found: dict[int, tuple[str, Registry]] = {}
    for name, value in vars(module).items():
        if isinstance(value, Registry):
            found.setdefault(id(value), (name, value))
    return dict(found.values())
