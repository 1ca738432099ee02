"""Live streams, without anything that waits: who may begin, what counts, and that nothing comes to a stop.

What live reading must not change is how each task ends: so any program with streams is
held against the same :class:`Rules` as one whose tasks wait for the ends of streams.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dpcore
from dpcore import Items, Outcome, Ref, State, plan
from dpcore.jobs import Enough, Left, Reading, Room, Stored, Stream, There
from dpcore.live import LiveRun
from dpcore.runs import Run, Start
from tests.test_runs import NoIO, Rules, check_changes, failed, programs, registry_of, settle, succeeded


def live(plan, **arguments) -> LiveRun:
    return LiveRun(plan, "r1", io=NoIO(), **arguments)


def tell(run: Run, start: Start, message) -> list:
    """Have the run hear a message; return what it says to whom."""
    run.hear(start, message)
    run.release()
    return said(run)


def said(run: Run) -> list:
    says, run.says = run.says, []
    return says


def stream(start: Start, count: int) -> Outcome:
    return Outcome(state=State.SUCCEEDED, result=Items("r1", start.task, count, start.attempt), attempt=start.attempt)


@pytest.fixture
def pair(tasks):
    @tasks.task(max_retries=2)
    def days() -> Iterator[int]:
        yield 1

    @tasks.task(max_retries=1)
    def total(days: Iterator[int]) -> int: ...

    return tasks


@pytest.fixture
def chain(pair):
    pair.remove("total")

    @pair.task
    def doubled(days: Iterator[int]) -> Iterator[int]:
        yield 1

    @pair.task
    async def total(doubled: AsyncIterator[int]) -> int: ...

    return pair


# ---------------------------------------------------------------- beginning


def test_a_reader_begins_when_the_first_item_is_stored(pair):
    run = live(plan(registry=pair))
    days = run.take()
    assert run.job(days).room == 64
    assert run.take() is None
    tell(run, days, Stored(1))
    total = run.take()
    assert run.job(total).inputs == {"days": Stream(Items("r1", "days", 0, 1), "iterator", live=True)}
    assert run.job(total).talks


def test_one_whose_stream_turns_out_to_be_empty_begins_too_and_is_told_that_it_has_ended(pair):
    run = live(plan(registry=pair))
    days = run.take()
    settle(run, days, stream(days, 0))
    total = run.take()
    assert run.job(total).inputs == {"days": Stream(Items("r1", "days", 0, 1), "iterator")}
    settle(run, total, succeeded(run, total))
    assert run.state is State.SUCCEEDED


def test_one_that_begins_when_its_producer_has_ended_reads_what_is_there(pair):
    run = live(plan(registry=pair))
    days = run.take()
    tell(run, days, Stored(3))
    settle(run, days, stream(days, 3))
    assert run.job(run.take()).inputs == {"days": Stream(Items("r1", "days", 3, 1), "iterator")}


def test_a_parameter_that_wants_a_list_waits_for_the_end(tasks):
    @tasks.task
    def days() -> Iterator[int]:
        yield 1

    @tasks.task
    def total(days: list[int]) -> int: ...

    run = live(plan(registry=tasks))
    first = run.take()
    assert run.job(first).room is None
    tell(run, first, Stored(1))
    assert run.take() is None


def test_where_nothing_passes_messages_every_reader_waits_for_the_end(pair):
    run = Run(plan(registry=pair), "r1", io=NoIO())
    days = run.take()
    assert run.job(days).room is None
    settle(run, days, stream(days, 2))
    assert run.job(run.take()).inputs == {"days": Stream(Items("r1", "days", 2, 1), "iterator")}


def test_a_reader_that_waits_is_told_as_soon_as_there_is_an_item(pair):
    run = live(plan(registry=pair))
    days = run.take()
    tell(run, days, Stored(1))
    total = run.take()
    assert tell(run, total, Reading("days", 0, waits=True)) == [(total, There("days", 1))]
    assert tell(run, total, Reading("days", 1, waits=True)) == []
    assert tell(run, days, Stored(2)) == [(total, There("days", 2))]
    run.record(days, stream(days, 2))
    run.release()
    assert tell(run, total, Reading("days", 2, waits=True)) == [(total, There("days", 2, ended=True))]


# ---------------------------------------------------------------- the lead


def test_a_producer_is_held_by_a_reader_that_has_something_to_read_and_by_no_other(pair):
    pair["days"].lead = 2
    run = live(plan(registry=pair))
    days = run.take()
    assert run.job(days).room == 2
    assert tell(run, days, Stored(1)) == [(days, Room(3))]
    assert tell(run, days, Stored(3)) == [(days, Room(5))], "nobody reads yet"
    total = run.take()
    assert tell(run, total, Reading("days", 0, waits=True)) == [(total, There("days", 1))]
    assert tell(run, days, Stored(5)) == [], "it is as far ahead as it may be"
    assert tell(run, total, Reading("days", 4)) == [(days, Room(6))]
    assert tell(run, days, Stored(6)) == []
    assert tell(run, total, Left("days")) == [(days, Room(8))]


def test_one_that_waits_for_another_stream_does_not_hold_the_first(tasks):
    @tasks.task(lead=1)
    def one() -> Iterator[int]:
        yield 1

    @tasks.task(lead=1)
    def two() -> Iterator[int]:
        yield 1

    @tasks.task
    def both(one: Iterator[int], two: Iterator[int]) -> int: ...

    run = live(plan(registry=tasks))
    first, second = run.take(), run.take()
    tell(run, first, Stored(1))
    tell(run, second, Stored(1))
    reader = run.take()
    tell(run, reader, Reading("one", 0))
    tell(run, reader, Reading("two", 1))
    tell(run, first, Stored(2))
    assert tell(run, first, Stored(2)) == [], "it has not read what there is"
    assert tell(run, reader, Reading("two", 1, waits=True)) == [(first, Room(3))]
    assert tell(run, second, Stored(2)) == [(reader, There("two", 2))]


# ---------------------------------------------------------------- ends that are provisional


def test_an_end_counts_when_the_producer_has_ended_well(pair):
    run = live(plan(registry=pair))
    days = run.take()
    tell(run, days, Stored(1))
    total = run.take()
    settle(run, total, failed(total))
    again = run.take()
    assert again == Start("total", 2)
    settle(run, again, failed(again))
    assert "total" not in run.outcomes
    assert run.task_state("total") is State.RUNNING
    settle(run, days, stream(days, 1))
    assert run.outcomes["total"].state is State.FAILED
    assert run.ended


def test_what_has_read_an_attempt_that_fails_begins_again_at_no_cost(pair):
    pair["days"].drain = True
    run = live(plan(registry=pair))
    days = run.take()
    tell(run, days, Stored(1))
    total = run.take()
    settle(run, total, failed(total))
    second = run.take()
    settle(run, second, succeeded(run, second))
    settle(run, days, failed(days))
    assert run.freed == [Ref("r1", "total", "2")]
    assert run.task_state("total") is State.RETRYING
    days = run.take()
    assert days == Start("days", 2)
    assert run.take() is None
    tell(run, days, Stored(1))
    third = run.take()
    assert third == Start("total", 3)
    assert run.job(third).inputs["days"].items.attempt == 2
    settle(run, third, failed(third))
    fourth = run.take()
    assert fourth == Start("total", 4), "its own retry is still there"
    settle(run, fourth, succeeded(run, fourth))
    settle(run, days, stream(days, 1))
    assert run.state is State.SUCCEEDED
    check_changes(run)


def test_what_runs_on_an_attempt_that_fails_is_to_be_stopped_and_what_it_gives_is_forgotten(chain):
    run = live(plan(registry=chain))
    days = run.take()
    tell(run, days, Stored(1))
    doubled = run.take()
    tell(run, doubled, Stored(1))
    total = run.take()
    settle(run, days, failed(days))
    assert set(run.void) == {doubled, total}
    days = run.take()
    tell(run, days, Stored(1))
    assert run.take() is None, "the old one is not home yet"
    assert tell(run, doubled, Stored(2)) == []
    settle(run, doubled, stream(doubled, 5))
    assert run.freed == [Items("r1", "doubled", 5)]
    assert run.take() == Start("doubled", 2)
    settle(run, total, succeeded(run, total))
    assert "total" not in run.outcomes


def test_readers_of_a_producer_that_fails_for_good_are_skipped_when_they_are_home(chain):
    run = live(plan(registry=chain))
    finish_failing = [run.take()]
    for _ in range(3):
        days = finish_failing[-1]
        tell(run, days, Stored(1))
        doubled = run.take()
        settle(run, days, failed(days))
        if days.attempt < 3:
            settle(run, doubled, failed(doubled))
            finish_failing.append(run.take())
    assert "doubled" not in run.outcomes
    settle(run, doubled, succeeded(run, doubled))
    assert {name: str(outcome.state) for name, outcome in run.outcomes.items()} == {
        "days": "failed", "doubled": "skipped", "total": "skipped",
    }  # fmt: skip
    assert run.ended
    check_changes(run)


# ---------------------------------------------------------------- early returns


def test_a_producer_that_nobody_reads_to_the_end_is_stopped_and_has_succeeded(chain):
    run = live(plan(registry=chain))
    days = run.take()
    tell(run, days, Stored(1))
    doubled = run.take()
    tell(run, doubled, Stored(1))
    total = run.take()
    settle(run, total, succeeded(run, total))
    assert said(run) == [(doubled, Enough())]
    settle(run, doubled, failed(doubled))
    assert said(run) == [(days, Enough())]
    settle(run, days, Outcome(state=State.CANCELLED))
    assert run.state is State.SUCCEEDED
    assert run.outcomes["days"].result == Items("r1", "days", 1)


@pytest.mark.parametrize("why", ["drain", "list", "failed"])
def test_it_runs_to_its_end_if_it_drains_or_somebody_wants_all_of_it(pair, why):
    if why == "drain":
        pair["days"].drain = True
    if why == "list":
        pair.task(name="everything", inputs={"x": "days"})(lambda x: 1)
    run = live(plan(registry=pair))
    days = run.take()
    tell(run, days, Stored(1))
    for _ in range(2 if why == "failed" else 1):
        total = run.take()
        settle(run, total, failed(total) if why == "failed" else succeeded(run, total))
    assert said(run) == []


# ---------------------------------------------------------------- each=


@pytest.fixture
def mapped(pair):
    pair.remove("total")
    pair.task(each="days", max_retries=1)(load)
    return pair


def load(days: int) -> int: ...


def test_items_are_mapped_as_they_come(mapped):
    run = live(plan(registry=mapped))
    days = run.take()
    tell(run, days, Stored(1))
    first = run.take()
    assert first == Start("load", 1, 0)
    assert run.take() is None
    settle(run, first, succeeded(run, first))
    assert "load" not in run.outcomes
    tell(run, days, Stored(3))
    second, third = run.take(), run.take()
    assert run.job(third).inputs == {"days": Ref("r1", "days", "1-00000002")}
    settle(run, third, succeeded(run, third))
    settle(run, days, stream(days, 3))
    settle(run, second, failed(second))
    again = run.take()
    assert again == Start("load", 2, 1)
    settle(run, again, succeeded(run, again))
    assert [ref.result_id for ref in run.outcomes["load"].result] == ["1-00000000", "2-00000001", "1-00000002"]
    assert run.available == 0


def test_a_mapped_task_begins_again_with_attempts_of_its_own(mapped):
    run = live(plan(registry=mapped))
    days = run.take()
    tell(run, days, Stored(3))
    one, two = run.take(), run.take()
    settle(run, one, succeeded(run, one))
    settle(run, days, failed(days))
    assert run.void == [two]
    assert run.freed == [Items("r1", "load", 2, missing=frozenset({1}))]
    days = run.take()
    assert days == Start("days", 2)
    tell(run, days, Stored(1))
    assert run.take() is None
    settle(run, two, succeeded(run, two))
    one = run.take()
    assert one == Start("load", 2, 0)
    assert run.job(one).inputs == {"days": Ref("r1", "days", "2-00000000")}
    settle(run, one, failed(one))
    again = run.take()
    settle(run, again, succeeded(run, again))
    settle(run, days, stream(days, 1))
    assert run.outcomes["load"].result == Items("r1", "load", 1, 2, {0: 3})
    assert run.state is State.SUCCEEDED
    check_changes(run)


# ---------------------------------------------------------------- any plan, any outcomes, any order


class Sim:
    """A job that runs: what it has said, and what it has been told."""

    def __init__(self, run: Run, start: Start, count: int, tries: Counter, spec, rng) -> None:
        self.start, self.job = start, run.job(start)
        self.reads = {
            s.items.task: [0, 0, False, False] for s in self.job.inputs.values() if isinstance(s, Stream) and s.live
        }
        made_of = tuple(
            (name, source.result_id if isinstance(source, Ref) else source.items.attempt)
            for name, source in sorted(self.job.inputs.items())
        )
        self.key = start.task, start.index, made_of
        tries[self.key] += 1
        self.fails = tries[self.key] <= spec["failures"]
        self.room, self.emitted = self.job.room, 0
        self.target = rng.randint(0, count) if self.fails else count
        self.is_void = False

    def told(self, message) -> None:
        if isinstance(message, Room):
            assert message.count > self.room
            self.room = message.count
        elif isinstance(message, There):
            at = self.reads[message.task]
            assert at[3], "nobody asked"
            at[1:] = [message.count, message.ended, False]

    def acts(self) -> list:
        found = []
        if self.is_void:
            return ["end"]
        if self.job.streams and self.emitted < self.target:
            if self.room is None or self.emitted < self.room:
                found.append("emit")
        elif self.fails or all(at[2] and at[0] == at[1] for at in self.reads.values()):
            found.append("end")
        if not any(at[3] for at in self.reads.values()):
            found += [task for task, at in self.reads.items() if not (at[2] and at[0] == at[1])]
        return found


def drive_live(program, run: Run, rng: random.Random, window: int, cancel_at: int | None = None) -> None:
    """Run with any window and order; check that there is always something that can go on, and nothing is left behind."""
    running: dict[Start, Sim] = {}
    delayed: list = []
    seen: set[Start] = set()
    tries: Counter = Counter()
    made: set[Ref] = set()
    steps = 0
    while not (run.ended and not running):
        steps += 1
        assert steps < 20_000, "it does not end"
        if cancel_at == steps:
            run.cancel("enough")
        while len(running) < window and (start := run.take()) is not None:
            assert start not in seen, f"{start} was started twice"
            assert start.task not in run.outcomes
            seen.add(start)
            running[start] = Sim(
                run, start, program[int(start.task[1:])]["count"], tries, program[int(start.task[1:])], rng
            )
        choices = [(start, act) for start, sim in running.items() for act in sim.acts()]
        choices += [(retry.start, "requeue") for retry in delayed]
        assert choices or run.ended, f"nothing can go on: {running}"
        if not choices:
            break
        start, act = choices[rng.randrange(len(choices))]
        made |= step(program, run, running, delayed, start, act, rng)
        for void in run.void:
            running[void].is_void = True
        run.void.clear()
        delayed += run.retries
        run.retries.clear()
        for to, message in said(run):
            if to in running and not isinstance(message, Enough):
                running[to].told(message)
    assert run.take() is None
    assert run.available == 0
    check_results(run, made)


def check_results(run: Run, made: set[Ref]) -> None:
    """What was stored is the result of a task, or is forgotten; and no result is made of two attempts of a stream."""
    freed = [ref for result in run.freed for ref in ([result] if isinstance(result, Ref) else result)]
    results = {name: outcome.result for name, outcome in run.outcomes.items() if outcome.result is not None}
    kept = {ref for result in results.values() for ref in ([result] if isinstance(result, Ref) else result)}
    assert len(freed) == len(set(freed))
    assert not kept & set(freed)
    assert kept <= made
    left = made - kept - set(freed)
    assert not {ref for ref in left if run.plan.tasks[ref.task].each is None or ref.task in results}, left


def step(program, run, running, delayed, start, act, rng) -> set[Ref]:
    """Do one thing; return what it has stored for good."""
    made: set[Ref] = set()
    if act == "requeue":
        at = next(at for at, retry in enumerate(delayed) if retry.start == start)
        run.requeue(delayed.pop(at).start)
        run.release()
        return made
    sim = running[start]
    if act == "emit":
        sim.emitted += 1
        if sim.room is not None:
            run.hear(start, Stored(sim.emitted))
    elif act == "end":
        del running[start]
        spec = program[int(start.task[1:])]
        if sim.is_void and rng.random() < 0.5:
            outcome = Outcome(state=State.CANCELLED, attempt=start.attempt)
        elif sim.fails:
            outcome = failed(start, KeyError() if spec["fatal"] else ValueError())
        elif sim.job.streams:
            outcome = stream(start, sim.emitted)
        else:
            outcome = (
                succeeded(run, start)
                if start.index is None
                else Outcome(state=State.SUCCEEDED, result=sim.job.ref, attempt=start.attempt)
            )
        if outcome.result is not None:
            made = {outcome.result} if isinstance(outcome.result, Ref) else set(outcome.result)
        run.record(start, outcome)
    else:
        at = sim.reads[act]
        if at[0] < at[1]:
            at[0] += 1
            if rng.random() < 0.5:
                run.hear(start, Reading(act, at[0]))
        else:
            at[3] = True
            run.hear(start, Reading(act, at[0], waits=True))
    run.release()
    return made


@st.composite
def streaming(draw):
    """Programs in which nearly everything streams, and most failures are tried again."""
    program = draw(programs())
    times = draw(st.integers(0, 7))
    for spec in program:
        spec["stream"] = True
        spec["count"] *= times
        spec["fatal"] = spec["fatal"] and draw(st.booleans())
        spec["ups"] = {up: draw(st.sampled_from(["value", kind])) for up, kind in spec["ups"].items()}
    return program


def live_registry(program, lead: int) -> dpcore.Registry:
    """As :func:`registry_of`, but what reads a stream reads it live, and every producer has this *lead*."""
    registry = registry_of(program)
    for task in registry.values():
        task.lead = lead
        task.drain = True
        for name, hint in list(task.call.__annotations__.items()):
            task.call.__annotations__[name] = str(hint).replace("list[int]", "Iterator[int]")
    return registry


@given(programs() | streaming(), st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 3))
@settings(deadline=None, derandomize=True, max_examples=1000)
def test_live_reading_changes_nothing_about_how_each_task_ends(program, seed, window, lead):
    run = live(plan(registry=live_registry(program, lead)))
    drive_live(program, run, random.Random(seed), window)
    check_changes(run)
    assert {name: outcome.state for name, outcome in run.outcomes.items()} == {
        f"t{at}": state for at, state in Rules(program).ends.items()
    }


@given(programs() | streaming(), st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 60), st.booleans())
@settings(deadline=None, derandomize=True, max_examples=500)
def test_a_run_with_live_streams_that_is_cancelled_anywhere_ends(program, seed, window, at, fail_fast):
    run = live(plan(registry=live_registry(program, 2)), fail_fast=fail_fast)
    drive_live(program, run, random.Random(seed), window, cancel_at=at)
    check_changes(run)
    assert run.ended
