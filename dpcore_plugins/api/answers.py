"""Answers: what requests are told of schedules and of their runs, and nothing that is only the server's affair."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

import msgspec
from anyio import to_thread
from pydantic import AwareDatetime, BaseModel, Field

from dpcore import App, IOManager, Items, Plan, Ref, State
from dpcore.errors import RunNotFoundError
from dpcore.scheduler import Schedule

__all__ = ("Accepted", "Ended", "Fault", "Going", "Shown", "ShownWithNext", "ended", "going", "shown")

_STAMPED = re.compile(r"(\d{8}T\d{6}(\.\d{6})?Z|[0-9a-f]{20})\Z")
_KIND = re.compile(r"[\w.]+")
_LONGEST_TEXT = 500  # characters of what an error says


class Fault(BaseModel):
    """What went wrong: its type, and what it says where the router shows that."""

    type: str
    text: str | None = None


class Shown(BaseModel):
    """A schedule, as it is now."""

    name: str
    trigger: str
    paused: bool
    note: str
    last: AwareDatetime | None = Field(description="the last nominal time that was dealt with")
    next: AwareDatetime | None = Field(description="the next nominal time")
    runs: list[str] = Field(description="the ids of its runs that go on")
    waiting: list[str] = Field(description="the ids of firings that wait for their turn")
    error: Fault | None = Field(description="what is wrong with it at present, if something is")


class ShownWithNext(Shown):
    """A schedule, and when it fires next."""

    upcoming: list[AwareDatetime]


class Accepted(BaseModel):
    """What became of a firing, the id of which is that of its run and of its event."""

    id: str
    state: str = Field(description="fired; waiting for its turn; or known, because it was fired before")
    run_id: str | None = None
    event_id: str | None = None


class Ended(BaseModel):
    """How a run ended, and what those of its tasks gave that no other waits for."""

    id: str
    run_id: str
    event_id: str | None = None
    state: str
    results: dict[str, Any]
    left_out: list[str] = Field(description="tasks whose result JSON cannot say, or that is too large: null")
    errors: dict[str, Fault]


class TaskShown(BaseModel):
    """How far a task is."""

    state: str
    attempt: int
    error: Fault | None = None


class Going(BaseModel):
    """How far a run is; *waiting* if it has not begun."""

    run_id: str
    state: str
    reason: str = ""
    tasks: dict[str, TaskShown] = {}


# ---------------------------------------------------------------- schedules


def shown(schedule: Schedule, *, texts: bool) -> dict[str, Any]:
    """Return what is told of a schedule; what its errors say only with *texts*."""
    error = schedule.error
    try:
        following = schedule.next
    except Exception as raised:  # noqa: BLE001  (a trigger's, which is somebody's: the scheduler tells of it)
        following, error = None, error or type(raised).__name__
    return {
        "name": schedule.name,
        "trigger": schedule.described,
        "paused": schedule.paused,
        "note": schedule.note,
        "last": schedule.last,
        "next": following,
        "runs": schedule.runs,
        "waiting": schedule.waiting,
        "error": _fault(error, texts=texts),
    }


def _fault(error: str, *, texts: bool) -> Fault | None:
    """Return what is told of an error that is recorded as ``Type: text``."""
    if not error:
        return None
    kind, _, text = error.partition(": ")
    first = text.partition("\n")[0][:_LONGEST_TEXT]
    return Fault(type=kind if _KIND.fullmatch(kind) else "Error", text=first if texts else None)


# ---------------------------------------------------------------- runs


async def going(app: App, schedule: Schedule, run_id: str, *, texts: bool) -> Going | None:
    """Return how far a run of a schedule is; None if it has no such run."""
    if not run_id.startswith(f"{schedule.name}-") or not _STAMPED.match(run_id[len(schedule.name) + 1 :]):
        return None
    if run_id in schedule.waiting:
        return Going(run_id=run_id, state="waiting")
    try:
        history = await app.history(run_id)
    except RunNotFoundError:
        return Going(run_id=run_id, state=State.PENDING) if run_id in schedule.runs else None
    tasks = {
        name: TaskShown(state=change.state, attempt=change.attempt, error=_fault(change.error, texts=texts))
        for name, change in history.tasks.items()
    }
    return Going(run_id=run_id, state=history.record.state, reason=history.record.reason if texts else "", tasks=tasks)


async def ended(app: App, run_id: str, plan: Plan | None, *, texts: bool, most: int) -> dict[str, Any]:
    """Return how a run ended: its state, results of *most* bytes each, and errors."""
    history = await app.history(run_id)
    results: dict[str, Any] = {}
    left_out: list[str] = []
    errors: dict[str, Any] = {}
    io = await app.io()
    for name, change in history.tasks.items():
        if change.state in (State.FAILED, State.TIMED_OUT):
            fault = _fault(change.error, texts=texts) or Fault(type=change.state)
            errors[name] = fault.model_dump(exclude_none=True)
        if (
            change.state is not State.SUCCEEDED
            or change.result is None
            or (plan is not None and plan.dependents.get(name))
        ):
            continue
        kept: Ref | Items = Ref(run_id, name, change.result)
        if change.count is not None:
            kept = Items(run_id, name, change.count, int(change.result), change.attempts, frozenset(change.missing))
        written = await _written(io, kept, most)
        results[name] = written
        if written is None:
            left_out.append(name)
    return {"state": history.record.state, "results": results, "left_out": left_out, "errors": errors}


async def _written(io: IOManager, kept: Ref | Items, most: int) -> msgspec.Raw | None:
    """Write a result as JSON; None if that cannot be."""
    if "shared" in io.capabilities:
        return await to_thread.run_sync(_as_json, io, kept, most)
    return _as_json(io, kept, most)


def _as_json(io: IOManager, kept: Ref | Items, most: int) -> msgspec.Raw | None:
    try:
        if isinstance(kept, Ref):
            raw = _encode(io.load(kept))
            return msgspec.Raw(raw) if len(raw) <= most else None
        parts = _parts(io, kept, most)
        return None if parts is None else msgspec.Raw(b"[" + b",".join(parts) + b"]")
    except Exception:  # noqa: BLE001  (a result may be anything, and may be gone)
        return None


def _parts(io: IOManager, refs: Iterable[Ref], most: int) -> list[bytes] | None:
    parts: list[bytes] = []
    for ref in refs:
        parts.append(_encode(io.load(ref)))
        most -= len(parts[-1]) + 1
        if most < 0:
            return None
    return parts


def _plain(value: Any) -> Any:
    """Make of *value* what msgspec can write, where msgspec itself does not know how."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise NotImplementedError


_encode = msgspec.json.Encoder(enc_hook=_plain).encode
