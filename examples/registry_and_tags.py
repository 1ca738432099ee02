"""Tasks kept in a registry of one's own, found by their tags, and run by them.

Prints::

    <Registry of 3 tasks>
    tags: daily, report, weekly
    daily: orders, total
    orders takes nothing, total takes orders
    total = 42
    <Registry of 2 tasks>
"""

from dpcore import Registry, run

tasks = Registry()  # without one, @dpcore.task fills dpcore.registry


@tasks.task(tags=["daily"])
def orders() -> list[int]:
    """Return what was ordered."""
    return [30, 10, 2]


@tasks.task(tags=["daily", "report"])
def total(orders: list[int]) -> int:
    """Add it up."""
    return sum(orders)


@tasks.task(tags=["weekly"])
def cleaned() -> None:
    """Throw old orders away."""


if __name__ == "__main__":
    print(tasks)
    print("tags:", ", ".join(tasks.tags))
    print("daily:", ", ".join(task.name for task in tasks.tagged("daily")))
    print(", ".join(f"{name} takes {', '.join(tasks[name].parameters) or 'nothing'}" for name in ("orders", "total")))
    print("total =", run(registry=tasks, tags=["report"])["total"])  # orders runs too, as total needs it
    tasks.remove("cleaned")
    print(tasks)
