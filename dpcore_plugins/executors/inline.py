"""Jobs one after the other, on the event loop itself."""

from __future__ import annotations

from types import TracebackType

from anyio import Lock

from dpcore import Executor, Job, Line, Outcome, perform, perform_async

__all__ = ("InlineExecutor",)


class InlineExecutor(Executor):
    """Runs one job at a time where the run itself runs: no thread, no process, nothing to start.

    For tests, for debugging with a debugger, and for tasks so small that anything
    else costs more than they do.  A plain function blocks the event loop while it
    runs and cannot be stopped, and until it has ended it is not recorded that it had
    begun; a coroutine function can be stopped, and is recorded.  Several runs of one app
    take turns, job by job.  No stream is read while it is made, since who reads it would
    have to run beside who makes it: a task that reads one waits for its end, and so does one
    that is mapped over it, and a producer whose readers return early runs to its end.
    """

    def __init__(self) -> None:
        self._turn: Lock | None = None

    @property
    def slots(self) -> int:
        """One job at a time."""
        return 1

    async def run(self, job: Job, line: Line) -> Outcome:
        """Do *job* on the event loop."""
        if self._turn is None:  # made here, because it belongs to the loop that runs
            self._turn = Lock(fast_acquire=True)
        if job.is_async or self._turn.locked():
            async with self._turn:
                outcome = await perform_async(job, line)
        else:  # nothing else runs between its beginning and its end
            outcome = perform(job, line)
        if isinstance(outcome.error, KeyboardInterrupt):
            raise outcome.error  # the user's Ctrl-C hit the body, which ran in the main thread
        return outcome

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Forget the loop that ran."""
        self._turn = None
