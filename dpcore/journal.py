"""The journal of a run: its transitions, on their way into the run store."""

from __future__ import annotations

from collections.abc import Callable

from dpcore.clock import Clock
from dpcore.jobs import Ref, State, described, writable
from dpcore.ports import RunStore
from dpcore.ports.runstore import Lease, RunRecord, TaskChange
from dpcore.runs import Change
from dpcore.words import excerpt

__all__ = ("Journal",)

_RAN = (State.SUCCEEDED, State.FAILED, State.TIMED_OUT)


class Journal:
    """Writes the transitions of one run into the run store, in groups."""

    __slots__ = ("_clock", "_lease", "_noted", "_prints", "_run_id", "_store")

    def __init__(
        self,
        run_id: str,
        store: RunStore,
        clock: Clock,
        lease: Lease | None = None,
        prints: Callable[[str], str] | None = None,
    ) -> None:
        self._run_id, self._store, self._clock = run_id, store, clock
        self._lease, self._prints = lease, prints
        self._noted: list[tuple[float, list[Change]]] = []

    @property
    def unwritten(self) -> bool:
        """Whether there is something to write."""
        return bool(self._noted)

    def note(self, changes: list[Change]) -> None:
        """Remember *changes*, which have happened now."""
        if changes:
            self._noted.append((self._clock.now().timestamp(), changes))

    async def write(self, record: RunRecord | None = None) -> None:
        """Write all that was noted, in one piece, and the run's *record* with it if one is given; one at a time."""
        count = len(self._noted)
        entries = [self._entry(change, at) for at, changes in self._noted for change in changes]
        if entries or record is not None:
            await self._store.append(self._run_id, entries, record=record, lease=self._lease)
        del self._noted[:count]  # and not what was noted meanwhile

    def _entry(self, change: Change, at: float) -> TaskChange:
        entry = _entry(change, at)
        if self._prints is not None and entry.state in _RAN and entry.index is None:
            entry.fingerprint = self._prints(entry.task)
        return entry


def _entry(change: Change, at: float) -> TaskChange:
    """Write a transition down as the run store keeps it."""
    state, outcome = change.new, change.outcome
    if outcome is None:
        return TaskChange(task=change.task, state=state, at=at, attempt=change.attempt, index=change.index)
    entry = TaskChange(
        task=change.task,
        state=state,
        at=at,
        attempt=change.attempt,
        index=change.index,
        duration=outcome.duration,
        worker=outcome.worker,
        output=outcome.output and writable(outcome.output),
    )
    result = outcome.result
    if isinstance(result, Ref):
        entry.result = result.result_id
    elif result is not None:
        entry.count, entry.attempts, entry.missing = result.count, result.attempts, sorted(result.missing)
        entry.result = str(result.attempt)
    if state is not State.SUCCEEDED:
        entry.reason, entry.traceback = writable(outcome.reason), excerpt(writable(outcome.traceback))
        if outcome.error is not None:
            entry.error = described(outcome.error)
    return entry
