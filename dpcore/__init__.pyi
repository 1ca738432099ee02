from dpcore import errors as errors
from dpcore.app import App as App
from dpcore.app import run as run
from dpcore.clock import Clock as Clock
from dpcore.errors import DpcoreError as DpcoreError
from dpcore.events.cloudevents import from_cloudevent as from_cloudevent
from dpcore.events.cloudevents import to_cloudevent as to_cloudevent
from dpcore.events.envelope import Event as Event
from dpcore.exchange import Exchange as Exchange
from dpcore.exchange import Reader as Reader
from dpcore.groups import Group as Group
from dpcore.groups import Held as Held
from dpcore.groups import Interest as Interest
from dpcore.groups import Member as Member
from dpcore.groups import Settlement as Settlement
from dpcore.groups import Shard as Shard
from dpcore.hookspecs import hookimpl as hookimpl
from dpcore.jobs import Items as Items
from dpcore.jobs import Job as Job
from dpcore.jobs import Outcome as Outcome
from dpcore.jobs import Ref as Ref
from dpcore.jobs import State as State
from dpcore.plans import Plan as Plan
from dpcore.plans import plan as plan
from dpcore.plugins import Plugins as Plugins
from dpcore.ports.broker import Broker as Broker
from dpcore.ports.executor import Executor as Executor
from dpcore.ports.executor import Line as Line
from dpcore.ports.io import IOManager as IOManager
from dpcore.ports.platform import WorkerInfo as WorkerInfo
from dpcore.ports.queue import Queue as Queue
from dpcore.ports.queue import Tally as Tally
from dpcore.ports.runstore import EXISTING as EXISTING
from dpcore.ports.runstore import Document as Document
from dpcore.ports.runstore import Fence as Fence
from dpcore.ports.runstore import Lease as Lease
from dpcore.ports.runstore import RunStore as RunStore
from dpcore.ports.subscription import Delivery as Delivery
from dpcore.ports.subscription import Feed as Feed
from dpcore.ports.subscription import Subscription as Subscription
from dpcore.ports.trigger import Firing as Firing
from dpcore.ports.trigger import Platform as Platform
from dpcore.ports.trigger import StreamTrigger as StreamTrigger
from dpcore.ports.trigger import TimeTrigger as TimeTrigger
from dpcore.ports.trigger import Trigger as Trigger
from dpcore.providers import Command as Command
from dpcore.providers import Provider as Provider
from dpcore.reactions import RunRequest as RunRequest
from dpcore.results import Result as Result
from dpcore.results import Running as Running
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
    "Broker",
    "Clock",
    "Command",
    "Delivery",
    "Document",
    "DpcoreError",
    "Event",
    "Exchange",
    "Executor",
    "Feed",
    "Fence",
    "Firing",
    "Group",
    "Held",
    "IOManager",
    "Interest",
    "Items",
    "Job",
    "Lease",
    "Line",
    "Member",
    "Outcome",
    "Plan",
    "Platform",
    "Plugins",
    "Provider",
    "Queue",
    "Reader",
    "Ref",
    "Registry",
    "Result",
    "Run",
    "RunRequest",
    "RunStore",
    "Running",
    "Settlement",
    "Shard",
    "State",
    "StreamTrigger",
    "Subscription",
    "Tally",
    "Task",
    "TimeTrigger",
    "Trigger",
    "WorkerInfo",
    "current_job",
    "from_cloudevent",
    "hookimpl",
    "perform",
    "perform_async",
    "plan",
    "registry",
    "run",
    "task",
    "to_cloudevent",
)
