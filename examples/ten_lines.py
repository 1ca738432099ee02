"""Two tasks, one of which receives the result of the other.

Prints::

    42
"""

from dpcore import run, task


@task(tags=["demo"])
def orders() -> list[int]:
    """Return what was ordered."""
    return [30, 10, 2]


@task(tags=["demo"])
def total(orders: list[int]) -> int:
    """Add it up; a parameter named like a task receives its result."""
    return sum(orders)


if __name__ == "__main__":
    result = run(tags=["demo"])
    print(result["total"])
