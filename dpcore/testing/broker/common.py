"""What the promises of a broker share: one that is entered within bounds, and ways to read from it."""

from __future__ import annotations

import linecache
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from traceback import walk_tb
from typing import Any, ClassVar, TypeVar

import anyio
import pytest
from anyio.lowlevel import checkpoint

from dpcore.ports import Broker, Delivery, Subscription
from dpcore.testing.suite import AsyncConformance
from dpcore.words import printed

__all__ = ("Promises", "Trouble", "a_moment", "attempts", "data", "elsewhere", "patient", "read_to")

T = TypeVar("T")


class Trouble(Exception):
    """What a reader of these tests raises."""


class Promises(AsyncConformance, suite=True):
    """A part of :class:`~dpcore.testing.BrokerConformance`."""

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
        with patient(self.patience):
            async with broker:
                yield broker

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so that others, perhaps in another process, see to."""
        with patient(self.patience):
            while not condition():  # noqa: ASYNC110  (nobody tells)
                await anyio.sleep(0.001)


@contextmanager
def patient(seconds: float) -> Iterator[None]:
    """Have what is in the block over within *seconds*; otherwise say what it waited for, and what had come."""
    waited = ""
    with anyio.move_on_after(seconds) as scope:
        try:
            yield
        except BaseException as error:
            waited = _waited(error)
            raise
    if scope.cancelled_caught:
        raise AssertionError(f"for {seconds:g} seconds nothing came of: {waited or 'leaving the broker'}") from None


def _waited(error: BaseException) -> str:
    """Return the lines of this suite that were waiting when *error* came, and what had come until then."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    lines: list[str] = []
    for frame, number in walk_tb(error.__traceback__):
        code = frame.f_code
        if Path(code.co_filename).parent != Path(__file__).parent or code.co_name in ("patient", "running"):
            continue
        lines.append(f"{linecache.getline(code.co_filename, number).strip()} ({Path(code.co_filename).name}:{number})")
        if "found" in frame.f_locals:
            lines.append(f"with {printed(frame.f_locals['found'])} until then")
    return ", ".join(lines)


async def data(events: Subscription, count: int) -> list[Any]:
    """Return the payloads of the next *count* events."""
    found: list[Any] = []
    while len(found) < count:
        found.append((await anext(events)).data)
    return found


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
