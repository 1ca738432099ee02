"""IOManager: where the results of tasks are stored, and loaded again."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, final

from dpcore.errors import ArgumentError, DamagedResultError, ResultNotFoundError, ResultNotStoredError
from dpcore.jobs import Ref, check_id
from dpcore.ports.adapter import Adapter

__all__ = ("IOManager",)

_TRIES = 100


class IOManager(Adapter):
    """Stores results under refs; plain (not async), because it runs beside the task.

    An adapter writes :meth:`write`, :meth:`read`, :meth:`has`, :meth:`remove` and
    :meth:`refs`, and :meth:`run_ids` and :meth:`remove_run` if it has a shorter way
    than through all refs.  They are given refs whose ids are checked already, may be
    called from several threads at once, and must keep two promises:

    - a reader sees a whole value or none: a torso is never listed, loaded or said to exist;
    - a failed or killed :meth:`write` leaves what was stored under the ref before.

    Capabilities:

    - ``shared``: other processes of this machine reach what is stored, and save, load
      and delete at the same time, also in one run.  The adapter
      then pickles (by its settings), and the copy works on the same results;
    - ``copies``: what is loaded is not the object that was saved; changing it changes
      nothing stored.
    """

    capabilities: ClassVar[frozenset[str]] = frozenset()

    # ------------------------------------------------------------ for the adapter

    @abstractmethod
    def write(self, ref: Ref, value: Any) -> str:
        """Store *value* under *ref*, replacing what is there; return where it is, for a person to read.

        Raise :class:`~dpcore.errors.ResultNotStoredError` if the value cannot be
        stored, and let an :class:`OSError` of the system pass: :meth:`save` says it.
        """

    @abstractmethod
    def read(self, ref: Ref) -> Any:
        """Return the value stored under *ref*.

        Raise :class:`KeyError` or :class:`FileNotFoundError` if there is none, and
        :class:`~dpcore.errors.DamagedResultError` if what is there is not a whole value.
        """

    @abstractmethod
    def has(self, ref: Ref) -> bool:
        """Tell whether a whole value is stored under *ref*."""

    @abstractmethod
    def remove(self, ref: Ref) -> bool:
        """Forget the value of *ref* and tell whether there was one; an empty run leaves nothing behind."""

    @abstractmethod
    def refs(self, run_id: str | None, task: str | None) -> Iterable[Ref]:
        """Yield the refs that are stored, in any order: of all runs, of one, or of one task in it."""

    def run_ids(self) -> Iterable[str]:
        """Yield the ids of the runs that have results, in any order."""
        return {ref.run_id for ref in self.refs(None, None)}

    def remove_run(self, run_id: str) -> int:
        """Forget all values of a run, and whatever else is left of it; return how many values there were."""
        return sum(self.remove(ref) for ref in sorted(self.refs(run_id, None)))

    # ------------------------------------------------------------ for everybody

    @final
    def save(self, ref: Ref, value: Any) -> str:
        """Store *value* under *ref*, replacing what is there; return where it is.

        Raises :class:`~dpcore.errors.InvalidIdError` before anything is touched,
        :class:`~dpcore.errors.ResultNotStoredError` if the value cannot be stored.
        """
        ref = _checked(ref)
        try:
            return self.write(ref, value)
        except OSError as error:
            raise ResultNotStoredError(ref, f"{self}: {error}") from error

    @final
    def load(self, ref: Ref) -> Any:
        """Return the value stored under *ref*.

        Raises :class:`~dpcore.errors.ResultNotFoundError` if there is none, and
        :class:`~dpcore.errors.DamagedResultError` if it is not whole.
        """
        ref = _checked(ref)
        for _ in range(_TRIES):
            try:
                return self.read(ref)
            except ResultNotFoundError:
                raise
            except (KeyError, FileNotFoundError) as error:
                absent = error
            if not self.has(ref):
                known = sorted(found.result_id for found in self.refs(ref.run_id, ref.task))
                raise ResultNotFoundError(ref, str(self), known) from absent
            # It is there: somebody has just saved it.  Or it is the value itself that says KeyError, every time.
        raise DamagedResultError(ref, str(self), f"reading it raises {absent!r}") from absent

    @final
    def exists(self, ref: Ref) -> bool:
        """Tell whether a whole value is stored under *ref*."""
        return self.has(_checked(ref))

    @final
    def delete(self, ref: Ref) -> bool:
        """Forget the value of *ref*; tell whether there was one."""
        return self.remove(_checked(ref))

    @final
    def list(self, run_id: str, task: str | None = None) -> list[Ref]:
        """Return the refs stored for a run, or for one task of it, sorted; an unknown run has none."""
        check_id(run_id, "run id")
        if task is not None:
            check_id(task, "task name")
        return sorted(self.refs(run_id, task))

    @final
    def runs(self) -> list[str]:  # type: ignore[valid-type]  # `list` is also the method above
        """Return the ids of the runs that have results, sorted."""
        return sorted(self.run_ids())

    @final
    def clear(self, run_id: str) -> int:
        """Forget all results of a run; return how many there were."""
        return self.remove_run(check_id(run_id, "run id"))


# The same few ids are checked for every result of a run, on the way in and on the way out: a run's, an attempt's,
# and a task's once for each of its readers.
_sound: set[str] = set()
_MOST_SOUND = 8192


def _checked(ref: Ref) -> Ref:
    try:
        if ref.run_id in _sound and ref.task in _sound and ref.result_id in _sound:
            return ref
    except TypeError:  # an id that does not even hash
        pass
    except AttributeError:
        raise ArgumentError("ref", ref, "a Ref: Ref(run_id, task, result_id)") from None
    if len(_sound) >= _MOST_SOUND:
        _sound.clear()
    for value, kind in ((ref.run_id, "run id"), (ref.task, "task name"), (ref.result_id, "result id")):
        if not isinstance(value, str) or value not in _sound:
            _sound.add(check_id(value, kind))
    return ref
