"""What the tasks do that every engine is given: as little as possible, or a megabyte.

In a module of its own, because other processes import it by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import FunctionType
from typing import Any

BYTES = 1_048_576
MOST = 500


def one() -> int:
    return 1


def same(x: int) -> int:
    return x


def joined(*_: Any) -> int:
    return 1


def array() -> Any:
    import numpy

    return numpy.zeros(BYTES // 8)


def first(x: Any) -> float:
    return float(x[0])


def items(count: int) -> Iterator[int]:
    for item in range(count):  # noqa: UP028  (Ray sends to what is yielded from)
        yield item


def counted(items: Iterable[int]) -> int:
    return sum(1 for _ in items)


def own(function: FunctionType, number: int) -> Any:
    """Return a function that does the same, and that another process finds here under a name of its own."""
    name = f"{function.__name__}{number}"
    made = FunctionType(function.__code__, globals(), name)
    made.__qualname__, made.__annotations__ = name, dict(function.__annotations__)
    return globals().setdefault(name, made)


ONE, SAME, ARRAY, FIRST = ([own(function, number) for number in range(MOST)] for function in (one, same, array, first))
