"""Functions: how another process finds one, and what it loads for that.

In the program a function is the object itself; a worker imports the module that the
program has imported, or runs its script once more for what that defines.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, cast
from zipimport import zipimporter

from dpcore.errors import FunctionNotFoundError

__all__ = ("Function", "load_script", "loading_only", "qualified", "script_being_loaded")


class Function:
    """A function, and the name by which another process finds it.

    In this process it is the object itself.  Pickled, it travels as its locator
    (module, file, qualified name), because the worker then sees the very module
    that the program imported; only what has no such name (a closure, a lambda, a
    cell of a notebook, a partial) travels by value, with cloudpickle.
    """

    __slots__ = ("call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call

    def __repr__(self) -> str:
        return f"Function({qualified(self.call)})"

    @property
    def locator(self) -> tuple[str, str | None, str] | None:
        """Module, file and qualified name under which another process finds it; None if there is no such name."""
        module, name = getattr(self.call, "__module__", None), getattr(self.call, "__qualname__", None)
        home = sys.modules.get(module) if isinstance(module, str) else None
        if home is None or not isinstance(name, str) or _attribute(home, name) is not self.call:
            return None
        file = getattr(home, "__file__", None)
        if file is None and home.__name__ == "__main__":
            return None  # a prompt or a notebook: no other process can read it again
        return home.__name__, file and str(Path(file).absolute()), name

    @classmethod
    def find(cls, module: str, file: str | None, name: str) -> Function:
        """Return the function of that locator, importing its module if need be."""
        found = _attribute(_module(module, file, name), name)
        if found is None:
            guarded = " when it is imported; define it outside of `if __name__ == '__main__':`"
            problem = f"the module has no {name!r}{guarded if module == '__main__' else ''}"
            raise FunctionNotFoundError(f"{module}.{name}", problem)
        return cls(found)

    def __reduce__(self) -> tuple[object, ...]:
        if (locator := self.locator) is not None:
            return (Function.find, locator)
        import cloudpickle  # noqa: PLC0415  (needed only by what has no name; costs more than all of this module)

        return (_carried, (cloudpickle.dumps(self.call),))


def _carried(pickled: bytes) -> Function:
    return Function(pickle.loads(pickled))


def _attribute(home: ModuleType, name: str) -> Any:
    found: Any = home
    for part in name.split("."):
        if (found := getattr(found, part, None)) is None:
            return None
    return found


def _module(module: str, file: str | None, name: str) -> ModuleType:
    if module == "__main__":
        return _script(file, name)
    try:
        return _imported(module, file)
    except ModuleNotFoundError as error:
        if file is None or error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        # The program found it beside its script, or was told where: look in the same folder.
        folder = Path(file).parents[module.count(".") + (Path(file).name == "__init__.py")]
        if str(folder) in sys.path:
            raise FunctionNotFoundError(f"{module}.{name}", f"there is no module {module!r} in {folder}") from error
        sys.path.append(str(folder))
        return _imported(module, file)


def _imported(module: str, file: str | None) -> ModuleType:
    with loading_only(file or module):
        return import_module(module)


def _script(file: str | None, name: str) -> ModuleType:
    main = sys.modules["__main__"]
    here = getattr(main, "__file__", None)
    if file is None or (here and Path(here).absolute() == Path(file)):
        return main
    loaded = sys.modules.get("__mp_main__")
    if loaded is not None and getattr(loaded, "__file__", None) == file:
        return loaded
    try:
        return load_script(file)
    except ImportError as error:
        if error.name != "__mp_main__":
            raise
        raise FunctionNotFoundError(f"__main__.{name}", str(error)) from None


def load_script(file: str, name: str | None = None) -> ModuleType:
    """Run *file*, the script of another process, for what it defines, and return it as a module.

    As multiprocessing does for a spawned child, not as ``__main__``, so that a guarded
    script does not start itself.  One that was started as a module (``python -m``) by
    that *name* finds its siblings; any other has no spec, as Python has it, so that
    multiprocessing finds it by its file.  Raises what running it raises; half of it is no script.
    """
    code, spec = _code(name or "__mp_main__", file)
    loaded = ModuleType("__mp_main__")
    loaded.__file__, loaded.__loader__ = file, spec.loader
    if name:
        loaded.__spec__, loaded.__package__ = spec, spec.parent
    sys.modules["__mp_main__"] = loaded
    try:
        with loading_only(file):
            exec(code, vars(loaded))
    except BaseException:
        del sys.modules["__mp_main__"]
        raise
    sys.modules["__mp_main__"] = loaded  # multiprocessing, if the script is the first to import it, puts __main__ there
    return loaded


def _code(name: str, file: str) -> tuple[CodeType, ModuleSpec]:
    path = Path(file)
    if path.is_file():  # also one whose name does not end as that of a module does
        spec = spec_from_file_location(name, file) or spec_from_file_location(
            name, file, loader=SourceFileLoader(name, file)
        )
    elif path.parent.is_file():  # an archive with a __main__.py in it, which finds its siblings there
        spec = zipimporter(str(path.parent)).find_spec(path.stem)
        if str(path.parent) not in sys.path:
            sys.path.append(str(path.parent))
    else:
        spec = None
    code = None if spec is None else cast(Any, spec.loader).get_code(spec.name)
    if spec is None or code is None:
        problem = "is not a file that another process can read; put the program in one that ends in .py"
        raise ImportError(f"{file} {problem}", name="__mp_main__", path=file)
    return code, spec


_loading: ContextVar[str | None] = ContextVar("dpcore_loading", default=None)


@contextmanager
def loading_only(file: str) -> Iterator[None]:
    """Have it known that *file* is loaded here for its tasks only, so that it starts no run."""
    token = _loading.set(file)
    try:
        yield
    finally:
        _loading.reset(token)


def script_being_loaded() -> str | None:
    """Return the file whose top level runs now for its tasks only; None if there is none."""
    return _loading.get()


def qualified(thing: object) -> str:
    """Name a class or a function in full, as it is imported.

    >>> qualified(Function), qualified(ValueError)
    ('dpcore.functions.Function', 'ValueError')
    """
    module = getattr(thing, "__module__", None)
    name = getattr(thing, "__qualname__", None) or repr(thing)
    return name if module in (None, "builtins") else f"{module}.{name}"
