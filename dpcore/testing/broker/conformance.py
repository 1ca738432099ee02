"""All promises of a broker in one class."""

from __future__ import annotations

from dpcore.testing.broker.cancelling import Cancelling
from dpcore.testing.broker.delivery import Delivering
from dpcore.testing.broker.groups import Sharing
from dpcore.testing.broker.life import Living
from dpcore.testing.broker.pressure import Pressing
from dpcore.testing.broker.processes import CrossingProcesses
from dpcore.testing.broker.settling import Settling

__all__ = ("BrokerConformance",)


class BrokerConformance(Delivering, Sharing, Settling, Pressing, Living, Cancelling, CrossingProcesses, suite=True):
    """What a broker promises: subclass it, and say how one is made::

        class TestMyBroker(BrokerConformance):
            def make(self, tmp_path):
                return MyBroker(path=tmp_path / "events")

    It runs with the adapter's own defaults.  What a broker cannot do by its capabilities is
    skipped, and a test of its own proves that asking for it raises UnsupportedError.
    Every promise is kept on asyncio and on trio; a broker for one of them only narrows
    ``backends``, with the reason in a comment beside it.
    """
