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
"""

from dpcore.app import App as App
from dpcore.app import Result as Result
from dpcore.app import run as run
from dpcore.errors import DpcoreError as DpcoreError
from dpcore.hookspecs import hookimpl as hookimpl
from dpcore.jobs import Items as Items
from dpcore.jobs import Job as Job
from dpcore.jobs import Outcome as Outcome
from dpcore.jobs import Ref as Ref
from dpcore.jobs import State as State
from dpcore.plans import Plan as Plan
from dpcore.plans import plan as plan
from dpcore.plugins import Plugins as Plugins
from dpcore.ports import Executor as Executor
from dpcore.ports import IOManager as IOManager
from dpcore.ports import Lease as Lease
from dpcore.ports import Line as Line
from dpcore.ports import RunStore as RunStore
from dpcore.ports.runstore import EXISTING as EXISTING
from dpcore.ports.runstore import Document as Document
from dpcore.ports.runstore import Fence as Fence
from dpcore.providers import Command as Command
from dpcore.providers import Provider as Provider
from dpcore.runs import Run as Run
from dpcore.tasks import Registry as Registry
from dpcore.tasks import Task as Task
from dpcore.tasks import registry as registry
from dpcore.tasks import task as task
from dpcore.worker import current_job as current_job
from dpcore.worker import perform as perform
from dpcore.worker import perform_async as perform_async

__all__ = (
    "EXISTING",
    "App",
    "Command",
    "Document",
    "DpcoreError",
    "Executor",
    "Fence",
    "IOManager",
    "Items",
    "Job",
    "Lease",
    "Line",
    "Outcome",
    "Plan",
    "Plugins",
    "Provider",
    "Ref",
    "Registry",
    "Result",
    "Run",
    "RunStore",
    "State",
    "Task",
    "current_job",
    "hookimpl",
    "perform",
    "perform_async",
    "plan",
    "registry",
    "run",
    "task",
)
