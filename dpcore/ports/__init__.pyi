from dpcore.ports.adapter import Adapter as Adapter
from dpcore.ports.broker import Broker as Broker
from dpcore.ports.executor import Executor as Executor
from dpcore.ports.executor import Line as Line
from dpcore.ports.io import IOManager as IOManager
from dpcore.ports.platform import WorkerInfo as WorkerInfo
from dpcore.ports.queue import Queue as Queue
from dpcore.ports.queue import Tally as Tally
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

__all__ = (
    "Adapter",
    "Broker",
    "Delivery",
    "Executor",
    "Feed",
    "Firing",
    "IOManager",
    "Lease",
    "Line",
    "Platform",
    "Queue",
    "RunStore",
    "StreamTrigger",
    "Subscription",
    "Tally",
    "TimeTrigger",
    "Trigger",
    "WorkerInfo",
)
