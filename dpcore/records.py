"""Records: what is written down of a run that begins, and what other runs and a resumed one take of it."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, cast

import anyio
from anyio import to_thread
from anyio.lowlevel import checkpoint_if_cancelled

from dpcore.errors import MissingInputError, ParamsLostError, PlanningError, RunHeldError, StoreError
from dpcore.jobs import Items, Ref, State, described, writable
from dpcore.plans import Plan
from dpcore.ports import IOManager
from dpcore.ports.runstore import RunHistory, RunRecord, RunStore
from dpcore.processes import shown_process
from dpcore.resuming import result_of
from dpcore.runs import Run
from dpcore.tasks import Registry
from dpcore.words import printed

__all__ = ("LEFT", "carried", "check_there", "earlier", "forget", "record_of", "written")

LEFT = "its App was left"
"""Why a run was cancelled that nobody had cancelled: with the app that drove it."""

_HELD = 30.0  # seconds that a run is nobody else's while it is forgotten


def record_of(
    run: Run, *, began: float, source: str, selection: Mapping[str, Any], settings: Mapping[str, str], durable: bool
) -> RunRecord:
    """Return what is recorded of a run that begins; with *durable* so that it can be told what has changed since."""
    try:
        pickled: bytes | None = pickle.dumps((run.params, run.metadata))
    except Exception:  # noqa: BLE001  (whatever pickling raises: then a resumed run has to be given them again)
        pickled = None
    return RunRecord(
        run_id=run.run_id,
        state=State.RUNNING,
        began=began,
        source=writable(source),
        selection=dict(selection),
        params={writable(str(name)): _shown(value) for name, value in run.params.items()},
        metadata={writable(str(name)): _shown(value) for name, value in run.metadata.items()},
        carried=pickled,
        settings=dict(settings),
        plan_id=run.plan.id,
        fingerprint=run.plan.fingerprint if durable else "",  # it reads every task's source
        fail_fast=run.fail_fast,
        keep=run.keep,
        nominal=run.nominal.isoformat() if run.nominal is not None else None,
        tasks=len(run.plan),
    )


def written(given: Any, registry: Registry) -> Any:
    """Write an argument of plan() down: a task's function by the task's name."""
    if isinstance(given, list | tuple):
        return [written(one, registry) for one in given]
    return registry.named(given)[0] if callable(given) else given


def carried(
    record: RunRecord, params: Mapping[str, Any] | None, metadata: Mapping[str, Any] | None
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the parameters and the metadata of a run, unless they are given anew."""
    if params is not None and metadata is not None:
        return params, metadata
    recorded: tuple[Mapping[str, Any], Mapping[str, Any]] = ({}, {})
    lost = [*(record.params if params is None else ()), *(record.metadata if metadata is None else ())]
    if record.carried is not None and lost:
        try:
            recorded = pickle.loads(record.carried)
        except Exception as error:
            raise ParamsLostError(record.run_id, lost, described(error)) from error
    elif lost:
        raise ParamsLostError(record.run_id, lost, "they do not pickle")
    return (recorded[0] if params is None else params, recorded[1] if metadata is None else metadata)


def check_there(run: Run, io: IOManager) -> None:
    """Raise if a result that a task will read, and that was made before, is gone."""
    looked: dict[str, Ref | None] = {}
    faults: list[Exception] = []
    for name, inputs in run.plan.inputs.items():
        if name in run.outcomes:
            continue
        for parameter, up in inputs.items():
            if up not in looked:
                result = run.outcomes[up].result if up in run.outcomes else None
                refs = [result] if isinstance(result, Ref) else result or ()
                looked[up] = next((ref for ref in refs if not io.exists(ref)), None)
            if (gone := looked[up]) is not None:
                problem = f"{io} holds no whole result {gone}; have it made again (from_=[{up!r}], --from {up})"
                faults.append(MissingInputError(name, parameter, up, (), problem))
    if faults:
        raise PlanningError(f"cannot resume run {run.run_id!r}", faults)


def earlier(plan: Plan, history: RunHistory, io: IOManager) -> dict[str, Ref | Items]:
    """Find what *plan* takes from the earlier run of that *history*.

    Raises :class:`~dpcore.errors.PlanningError` for what is not there.
    """
    wanted = [(name, parameter, up) for name, ups in plan.earlier.items() for parameter, up in ups.items()]
    run_id, tasks = history.record.run_id, history.tasks
    found: dict[str, Ref | Items] = {}
    faults: list[Exception] = []
    for name, parameter, up in wanted:
        change = tasks.get(up)
        if change is None or change.state is not State.SUCCEEDED or change.result is None:
            state = "is not in it" if change is None else f"{change.state.replace('_', ' ')} in it"
            faults.append(MissingInputError(name, parameter, up, (), f"run {run_id!r} cannot give it: it {state}"))
        else:
            found[up] = cast("Ref | Items", result_of(run_id, change))
        result = found.get(up)
        first = result if isinstance(result, Ref) else next(iter(result), None) if result is not None else None
        if first is not None and not io.exists(first):
            problem = (
                f"run {run_id!r} cannot give it: {io} holds no whole result {first}; run {up!r} too, or give its result"
            )
            faults.append(MissingInputError(name, parameter, up, (), problem))
    if faults:
        raise PlanningError("cannot plan", faults)
    return found


async def forget(run_id: str, store: RunStore, io: IOManager | None) -> int:
    """Remove the results of a run, where *io* is given, and then its record; return how many results there were.

    The record goes last, because it says where the results are: who is killed in between
    can do it again.  A cancellation waits until both are gone.

    Raises :class:`~dpcore.errors.RunHeldError` while somebody drives the run.
    """
    await checkpoint_if_cancelled()
    count = 0
    with anyio.CancelScope(shield=True):
        lease = await store.lease(f"run/{run_id}", _HELD)
        if lease is None:
            who, _ = await store.holder(f"run/{run_id}") or ("", 0.0)
            raise RunHeldError(run_id, shown_process(who))
        try:
            if io is not None and "shared" in io.capabilities:
                count = await to_thread.run_sync(io.clear, run_id)
            elif io is not None:
                count = io.clear(run_id)
            await store.remove(run_id)
        except BaseException:
            with suppress(StoreError):
                await lease.release()
            raise
        # Where others may have stood still since they held it, their tokens must stay old for ever.
        await (lease.release() if "durable" in store.capabilities else lease.drop())
    return count


def _shown(value: object) -> str:
    return writable(printed(value))
