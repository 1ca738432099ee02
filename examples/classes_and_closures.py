"""Methods, callable objects, classes, partials and closures as tasks, as a notebook makes them.

Prints::

    readings  [18.5, 21.0]
    warmest   21.0
    scaled    [185.0, 210.0]
    summary   Summary(station='north', warmest=21.0)
    rounded   21
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from dpcore import Registry, run


class Station:
    """Something with a state; its method is the task."""

    def __init__(self, name: str) -> None:
        self.name = name

    def readings(self) -> list[float]:
        """Return what was measured."""
        return [18.5, 21.0]


class Warmest:
    """An object that is called like a function."""

    def __call__(self, readings: list[float]) -> float:
        """Return the highest."""
        return max(readings)


@dataclass
class Summary:
    """A class as a task: its fields are the parameters, an instance is the result."""

    station: str
    warmest: float


def scaled_by(factor: float) -> Callable[[list[float]], list[float]]:
    """Make a function that remembers *factor*."""

    def scaled(readings: list[float]) -> list[float]:
        return [reading * factor for reading in readings]

    return scaled


tasks = Registry()
tasks.task(Station("north").readings)
tasks.task(name="warmest")(Warmest())
tasks.task(name="summary")(Summary)
tasks.task(name="rounded", inputs={"number": "warmest"})(partial(round, ndigits=None))
tasks.task(scaled_by(10))

if __name__ == "__main__":
    result = run(registry=tasks, params={"station": "north"})
    for name, value in result.items():
        print(f"{name:9} {value}")
