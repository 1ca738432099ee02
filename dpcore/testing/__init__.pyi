from dpcore.testing.clock import FakeClock as FakeClock
from dpcore.testing.io import IOManagerConformance as IOManagerConformance
from dpcore.testing.runstore import RunStoreConformance as RunStoreConformance

__all__ = ("FakeClock", "IOManagerConformance", "RunStoreConformance")
