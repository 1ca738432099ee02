"""The promises of a broker: subclass :class:`BrokerConformance`."""

from dpcore.testing.broker.conformance import BrokerConformance as BrokerConformance

__all__ = ("BrokerConformance",)
