"""What the promises of a broker share: one that is entered within bounds, and ways to read from it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import anyio
import pytest
from anyio.lowlevel import checkpoint

from dpcore.ports import Broker, Delivery, Subscription
from dpcore.testing.suite import Conformance

__all__ = ("Promises", "Trouble", "a_moment", "attempts", "data", "elsewhere", "read_to")

T = TypeVar("T")


class Trouble(Exception):
    """What a reader of these tests raises."""


class Promises(Conformance, suite=True):
    """A part of :class:`~dpcore.testing.BrokerConformance`."""

    backends: ClassVar[tuple[str, ...]] = ("asyncio", "trio")
    patience: ClassVar[float] = 30.0
    """Seconds after which something that should happen is said never to."""
    cancellations: ClassVar[int] = 1000
    """How often each of publishing, receiving and settling is cancelled at a random moment."""
    examples: ClassVar[int] = 40
    """How many random histories are compared with a model."""
    kills: ClassVar[int] = 10
    """How many processes are killed, of a broker that other processes may use."""
    retained: ClassVar[int] = 10_000
    """How many events of a topic the brokers that are made here retain, at the most."""

    pytestmark = pytest.mark.anyio

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Run each async promise on every backend."""
        if "backend" in metafunc.fixturenames:
            metafunc.parametrize("backend", self.backends)

    @pytest.fixture
    def anyio_backend(self, backend: str) -> str:
        return backend

    def make(self, tmp_path: Path) -> Broker:
        """Return a new broker, not entered, in a world of its own that depends on *tmp_path* only and is empty."""
        raise NotImplementedError(f"{type(self).__name__} must say in make(self, tmp_path) how its broker is made")

    def able(self, tmp_path: Path, *capabilities: str) -> Broker:
        """Make a broker; skip the test if it lacks one of *capabilities*."""
        broker = self.make(tmp_path)
        for capability in capabilities:
            if capability not in broker.capabilities:
                pytest.skip(f"{broker} lacks the capability {capability!r}, which another test proves")
        return broker

    @asynccontextmanager
    async def running(self, tmp_path: Path, *capabilities: str) -> AsyncIterator[Broker]:
        """Enter a broker for the length of a block, which is over before one loses patience."""
        broker = self.able(tmp_path, *capabilities)
        with anyio.fail_after(self.patience):
            async with broker:
                yield broker

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so that others, perhaps in another process, see to."""
        with anyio.fail_after(self.patience):
            while not condition():  # noqa: ASYNC110  (nobody tells)
                await anyio.sleep(0.001)


async def data(events: Subscription, count: int) -> list[Any]:
    """Return the payloads of the next *count* events."""
    return [(await anext(events)).data for _ in range(count)]


async def read_to(events: Subscription, last: object) -> list[Any]:
    """Return the payloads of what comes before one that is *last*."""
    found: list[Any] = []
    async for event in events:
        if event.data == last:
            return found
        found.append(event.data)
    raise AssertionError(f"the subscription ended before {last!r} came; there was {found}")


async def elsewhere(call: Callable[..., Awaitable[T]], *arguments: Any, **named: Any) -> T:
    """Return what *call* returns in another task, and raise what it raises."""
    found: list[T] = []
    raised: list[Exception] = []

    async def run() -> None:
        try:
            found.append(await call(*arguments, **named))
        except Exception as error:  # noqa: BLE001  (it is raised below)
            raised.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
    for error in raised:
        raise error
    return found[0]


async def attempts(events: Subscription, count: int) -> dict[Any, int]:
    """Ack the next *count* deliveries; return which attempt each payload was."""
    deliveries = events.deliveries()
    found: dict[Any, int] = {}
    for _ in range(count):
        delivery: Delivery = await anext(deliveries)
        assert delivery.event.data not in found, f"{delivery} came twice"
        found[delivery.event.data] = delivery.attempt
        await delivery.ack()
    return found


async def a_moment(chance: random.Random) -> None:
    """Let a random, short time pass: some turns of the loop, now and then a little more."""
    for _ in range(chance.randint(0, 4)):
        await checkpoint()
    if chance.random() < 0.05:
        await anyio.sleep(chance.uniform(0, 0.001))
