"""Tasks that are stuck, which worker processes stop when their time is over, while the others run to their end.

A thread cannot be stopped; a process can, whatever it is doing.  What a stuck task has printed is kept.

Prints::

    endless    timed_out  no end in sight
    numbers    succeeded  [0, 1, 2, 3, 4]
    product    timed_out
    total      succeeded  10
"""

from math import factorial

from dpcore import run, task


@task(timeout=1)
def endless() -> None:
    """Run in circles."""
    print("no end in sight")
    while True:
        pass


@task(timeout=1)
def product() -> int:
    """Compute for hours in C, where Python hears of nothing."""
    return factorial(10**9)


@task
def numbers() -> list[int]:
    """Give out some numbers."""
    return list(range(5))


@task
def total(numbers: list[int]) -> int:
    """Add them up."""
    return sum(numbers)


if __name__ == "__main__":
    result = run(executor="multiprocess?workers=3&echo=no", check=False)
    for name, outcome in sorted(result.outcomes.items()):
        shown = result.get(name, outcome.output)
        print(f"{name:9}  {outcome.state:9}  {shown}".rstrip())
