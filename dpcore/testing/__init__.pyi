from dpcore.testing.broker import BrokerConformance as BrokerConformance
from dpcore.testing.clock import FakeClock as FakeClock
from dpcore.testing.executor import ExecutorConformance as ExecutorConformance
from dpcore.testing.fixtures import RunTasks as RunTasks
from dpcore.testing.io import IOManagerConformance as IOManagerConformance
from dpcore.testing.queue import QueueConformance as QueueConformance
from dpcore.testing.runstore import RunStoreConformance as RunStoreConformance

__all__ = (
    "BrokerConformance",
    "ExecutorConformance",
    "FakeClock",
    "IOManagerConformance",
    "QueueConformance",
    "RunStoreConformance",
    "RunTasks",
)
