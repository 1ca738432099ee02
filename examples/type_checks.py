"""A pipeline whose types do not fit is refused before anything runs, with every fault at once.

Prints::

    task 'rows' returns list[str], but 'total' wants list[int] for 'rows'
    task 'label' returns bytes | None, but 'total' wants bytes for 'label'
    with other rows and another label: total report
"""

from dpcore import Registry, plan
from dpcore.errors import PlanningError

tasks = Registry()


@tasks.task
def rows() -> list[str]:
    """Return rows as they were read."""
    return ["30", "10"]


@tasks.task
def label() -> bytes | None:
    """Return a label, if there is one."""
    return b"orders"


@tasks.task
def total(rows: list[int], label: bytes) -> int:
    """Expect numbers, and that there is a label."""
    return sum(rows) + len(label)


@tasks.task
def report(total: float) -> str:
    """Take a float; an int is one, as type checkers have it."""
    return f"{total:.2f}"


if __name__ == "__main__":
    try:
        plan(registry=tasks)
    except PlanningError as error:
        for fault in error.exceptions:
            print(str(fault).partition(" (")[0])  # what follows says where both are written
    fitting = plan("report", registry=tasks, params=["rows", "label"])  # params stand in for what does not fit
    print("with other rows and another label:", *fitting.order)
