"""Tasks that fail: tried again, given a time limit, or allowed to fail.

Prints::

    succeeded  flaky     3 attempts
    timed out  slow      1 attempt   task 'slow' took longer than its timeout of 0.05 s; it was stopped
    failed     optional  1 attempt   nobody there
    succeeded  report    1 attempt
    skipped    archive   0 attempts  'slow' timed out
    report = 3 rows, no extras
    the run failed because of: TaskTimeoutError
"""

import anyio

from dpcore import Registry, current_job, run

tasks = Registry()


@tasks.task(max_retries=3, retry_delay=0.01, backoff=2, retry_on=ConnectionError)
def flaky() -> int:
    """Succeed at the third attempt; any other exception would end it at once."""
    if current_job().attempt < 3:
        raise ConnectionError("nobody there")
    return 3


@tasks.task(timeout=0.05)
async def slow() -> int:
    """Wait for what never comes; a coroutine is really stopped."""
    await anyio.sleep_forever()
    return 1


@tasks.task(fail_safe=True)
def optional() -> str:
    """Fail without failing the run."""
    raise ConnectionError("nobody there")


@tasks.task(dependencies=[optional])
def report(flaky: int, optional: str = "no extras") -> str:
    """Do with the default where the optional task has failed."""
    return f"{flaky} rows, {optional}"


@tasks.task
def archive(slow: int) -> None:
    """Never begin: what it needs is not there."""


if __name__ == "__main__":
    result = run(registry=tasks, check=False)
    for name, outcome in result.outcomes.items():
        attempts = f"{outcome.attempt} attempt{'' if outcome.attempt == 1 else 's'}"
        state, why = outcome.state.replace("_", " "), outcome.error or outcome.reason
        print(f"{state:9}  {name:8}  {attempts:10}  {why}".rstrip())
    print("report =", result["report"])
    fatal = [error for name, error in result.errors.items() if not tasks[name].fail_safe]
    print("the run failed because of:", *(type(error).__name__ for error in fatal))
