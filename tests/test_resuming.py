"""Resuming, without anything that waits: any plan, broken off anywhere and as often as you like, ends as if nothing had been.

A program is gone with all that it had not recorded; what it had recorded is what the
next one is made from.  What each attempt does is said by the same programs as in
``test_runs``, and how each task has to end by the same :class:`Rules`.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpcore import Items, State, plan
from dpcore.clock import SystemClock
from dpcore.jobs import Enough, Stream
from dpcore.journal import Journal
from dpcore.live import LiveRun, live_sources, run_of
from dpcore.ports.runstore import RunHistory, RunRecord, TaskChange
from dpcore.resuming import rest
from dpcore.runs import Run, Start
from tests.test_runs import NoIO, Rules, programs, registry_of
from tests.test_streams import Sim, live_registry, said, step, streaming


class Kept:
    """What a journal has written, and what attempts had come to by then; the rest goes with its program."""

    def __init__(self) -> None:
        self.changes: list[TaskChange] = []
        self.tries: Counter = Counter()

    async def append(self, run_id, changes, *, record=None, lease=None) -> None:
        self.changes += changes

    @property
    def last(self) -> dict[tuple[str, int | None], TaskChange]:
        return {(change.task, change.index): change for change in self.changes}


class World:
    """A plan, of which one program after the other does a part."""

    def __init__(self, program, registry, rng: random.Random) -> None:
        self.program, self.plan, self.rng = program, plan(registry=registry), rng
        self.kept = Kept()
        self.inputs: dict[tuple[str, int | None, int], dict] = {}  # of each attempt, the last one with that number

    def begun(self, *, streams: bool) -> Run:
        """Return the run for a new program."""
        left = rest(self.plan, RunHistory(RunRecord(run_id="r1", state=State.RUNNING), self.kept.changes), at=1.0)
        self.kept.changes += left.changes
        return run_of(self.plan, "r1", streams=streams, before=left.before, io=NoIO())

    def drive(self, run: Run, window: int, break_at: int) -> bool:
        """Go on until all has ended, which is true, or the program breaks off."""
        journal = Journal("r1", self.kept, SystemClock())
        running: dict[Start, Sim] = {}
        delayed: list = []
        tries = Counter(self.kept.tries)
        stays, recorded = self.stays(), self.attempts()
        for at in range(20_000):
            while len(running) < window and (start := run.take()) is not None:
                assert (start.task, start.index) not in stays, f"{start} had ended"
                assert (start.task, start.index, start.attempt) not in recorded, f"{start} was begun before"
                running[start] = self.began(run, start, tries)
            choices = [(start, act) for start, sim in running.items() for act in sim.acts()]
            choices += [(retry.start, "requeue") for retry in delayed]
            assert choices or (run.ended and not running), f"nothing can go on: {running}"
            over = not choices
            if choices and at < break_at:
                start, act = choices[self.rng.randrange(len(choices))]
                if act == "end":
                    tries[running[start].key] += 1
                step(self.program, run, running, delayed, start, act, self.rng)
                delayed += run.retries
                run.retries.clear()
                self.tell(run, running)
            if over or (at < break_at and (act == "end" or self.rng.random() < 0.2)):
                changes, run.changes = run.changes, []
                journal.note(changes)
                written(journal)
                self.kept.tries = Counter(tries)
            if over or at >= break_at:
                return over
        raise AssertionError("it does not end")

    def began(self, run: Run, start: Start, tries: Counter) -> Sim:
        spec = self.program[int(start.task[1:])]
        sim = Sim(run, start, spec["count"], Counter(tries), spec, self.rng)
        self.inputs[start.task, start.index, start.attempt] = sim.job.inputs
        return sim

    def tell(self, run: Run, running: dict[Start, Sim]) -> None:
        if not isinstance(run, LiveRun):
            return
        for void in run.void:
            running[void].is_void = True
        run.void.clear()
        for to, message in said(run):
            if to in running and not isinstance(message, Enough):
                running[to].told(message)

    # What is true of it, read off what is recorded.

    def attempts(self) -> set[tuple[str, int | None, int]]:
        """Return the attempts that are known to have begun."""
        return {
            (change.task, change.index, change.attempt)
            for change in self.kept.changes
            if change.state is State.RUNNING and (change.index is not None or self.plan.tasks[change.task].each is None)
        }

    def stays(self) -> set[tuple[str, int | None]]:
        """Return the tasks that had ended, and the items of those whose producers had."""
        last = self.kept.last
        ended = {key for key, change in last.items() if change.state.ended}
        return {
            (name, index)
            for name, index in ended
            if index is None or all((up, None) in ended for up in self.plan.inputs[name].values())
        }

    def check(self, run: Run) -> None:
        """Hold how it has ended against the rules; and what each result was made of against what there is."""
        assert {name: outcome.state for name, outcome in run.outcomes.items()} == {
            f"t{at}": state for at, state in Rules(self.program).ends.items()
        }
        results = {name: outcome.result for name, outcome in run.outcomes.items()}
        for name, result in results.items():
            if result is not None:
                for index, attempt in self.made(result):
                    self.check_inputs(name, index, self.inputs[name, index, attempt], results)
        assert {(name, change.state) for (name, index), change in self.kept.last.items() if index is None} == {
            (name, outcome.state) for name, outcome in run.outcomes.items()
        }

    def made(self, result) -> list[tuple[int | None, int]]:
        """Return which attempts have made a result, and at which items."""
        if isinstance(result, Items) and self.plan.tasks[result.task].each is not None:
            refs = [ref.result_id.split("-") for ref in result]
            return [(int(index), int(attempt)) for attempt, index in refs]
        return [(None, result.attempt if isinstance(result, Items) else int(result.result_id))]

    def check_inputs(self, name, index, inputs, results) -> None:
        for parameter, upstream in self.plan.inputs[name].items():
            got, there = inputs.get(parameter), results[upstream]
            if isinstance(got, Stream) and got.live:
                assert got.items.attempt == there.attempt
            elif isinstance(got, Stream):
                assert got.items == there
            elif got is not None and isinstance(there, Items):
                assert got == list(there)[index]
            else:
                assert got == there


def written(journal: Journal) -> None:
    with pytest.raises(StopIteration):
        journal.write().send(None)


def broken_off(program, registry, seed, window, breaks, *, streams: float = 0.0) -> None:
    """Have a program run that is broken off so often, each time with live streams as likely as that."""
    rng = random.Random(seed)
    world = World(program, registry, rng)
    run = run_of(world.plan, "r1", streams=streams > 0, io=NoIO())
    for _ in range(breaks):
        if world.drive(run, window, int(rng.expovariate(1 / 20))):
            break
        run = world.begun(streams=rng.random() < streams)
    else:
        assert world.drive(run, window, 1 << 30)
    world.check(run)


def reads_live(program) -> bool:
    return bool(live_sources(plan(registry=live_registry(program, 2))))


@given(programs(), st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 5))
@settings(deadline=None, derandomize=True, max_examples=300)
def test_however_often_a_run_is_broken_off_it_ends_as_if_it_had_not_been(program, seed, window, breaks):
    broken_off(program, registry_of(program), seed, window, breaks)


@given(streaming().filter(reads_live), st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 5))
@settings(deadline=None, derandomize=True, max_examples=400)
def test_so_does_one_with_live_streams(program, seed, window, breaks):
    broken_off(program, live_registry(program, 2), seed, window, breaks, streams=0.8)
