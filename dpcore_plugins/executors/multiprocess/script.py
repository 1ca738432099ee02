"""The program's script as its workers see it: it answers to ``__main__``, and is loaded when something of it is needed."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import FunctionType, ModuleType
from typing import Any

from dpcore.functions import load_script

__all__ = ("Script", "script_of_program")


class Script(ModuleType):
    """Stands where ``__main__`` stands until something in it is asked for, and is the script from then on.

    What it defines says of itself that it is of ``__main__``, as it does in the program:
    so values pickle by the same names on both sides, and in any later run of the script.
    """

    def __init__(self, file: str, name: str | None) -> None:
        super().__init__("__main__")
        self.__file__ = file
        if name is not None:  # multiprocessing, in a task, tells its own processes of it
            self.__spec__ = ModuleSpec(name, None, origin=file)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(f"module '__main__' has no attribute {name!r}")
        loaded = sys.modules.get("__mp_main__")
        if loaded is None or loaded is self:  # multiprocessing puts there what it finds as __main__
            spec = self.__spec__
            loaded = load_script(self.__file__ or "", None if spec is None else spec.name)
            _rename(vars(loaded))
            sys.modules["__main__"] = loaded
        return getattr(loaded, name)


def _rename(names: dict[str, Any]) -> None:
    for thing in [*names.values()]:
        if isinstance(thing, type | FunctionType) and thing.__module__ == "__mp_main__":
            thing.__module__ = "__main__"
            if isinstance(thing, type):
                _rename(dict(vars(thing)))


def script_of_program() -> tuple[str | None, str | None]:
    """Return the file of this program's script, and its name if it was started as a module; None for what there is not."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    file = getattr(main, "__file__", None)
    return file, spec.name if spec is not None else None
