"""dpcore: the core of an event-driven data platform, made of plugins the way pytest is.

The modules are floors; each stands only on those below it:

====================  ===========================================================
``testing``, ``cli``  conformance suites for adapters; the ``dpcore`` command
``app``               a registry joined to the adapters that run it; ``run()``
``runner``            drives one run on one executor
``worker``            the worker's side: does one job, and never raises
``plugins``           finding plugins, and adapters in them
``config``            settings: call > environment > project file > default
``hookspecs``         what a plugin may implement
``timelines``         a run as rows of bars, and as lines of text
``ports``             what an adapter implements
``providers``         the record by which an adapter is offered
``runs``              what to start next, and what an outcome means
``plans``             which tasks a run needs, and in what order
``tasks``             functions registered under a name
``jobs``              one attempt at one task, how it went, where its result lives
``hints``             the schema of a function; does this output fit that input
``errors``, ``clock`` what is raised on purpose; what time it is
====================  ===========================================================

A name is imported from its floor when it is first used, so that ``dpcore --help`` need
not wait for an event loop; ``__init__.pyi`` tells type checkers where each comes from.
"""

from importlib import import_module
from typing import Any

_NAMES = {
    "app": ("App", "Result", "run"),
    "errors": ("DpcoreError",),
    "hookspecs": ("hookimpl",),
    "jobs": ("Items", "Job", "Outcome", "Ref", "State"),
    "plans": ("Plan", "plan"),
    "plugins": ("Plugins",),
    "ports": ("Executor", "IOManager", "Lease", "Line", "RunStore"),
    "ports.runstore": ("EXISTING", "Document", "Fence"),
    "providers": ("Command", "Provider"),
    "runs": ("Run",),
    "tasks": ("Registry", "Task", "registry", "task"),
    "worker": ("current_job", "perform", "perform_async"),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}
_MODULES = frozenset(
    [
        "app",
        "clock",
        "config",
        "errors",
        "hints",
        "hookspecs",
        "jobs",
        "plans",
        "plugins",
        "ports",
        "providers",
        "runner",
        "runs",
        "tasks",
        "worker",
    ]
)

__all__ = tuple(sorted(_HOMES))


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"dpcore.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'dpcore' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"dpcore.{_HOMES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
