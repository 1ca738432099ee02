"""The heart: what a run starts, and what each outcome means, for any DAG and any outcomes.

:class:`Rules` below says independently, from the design's words, how each task of a
small plan must end; the machine is compared with it over random plans and outcomes.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Iterator

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dpcore
from dpcore import Items, Outcome, Ref, State, plan
from dpcore.errors import TaskError
from dpcore.runs import Run, Start

ENDED = {State.SUCCEEDED, State.FAILED, State.TIMED_OUT, State.SKIPPED, State.CANCELLED}


class NoIO:
    """Stores nothing: these tests make outcomes by hand."""


def start(plan, **arguments) -> Run:
    return Run(plan, "r1", io=NoIO(), **arguments)


def succeeded(run: Run, attempt: Start) -> Outcome:
    return Outcome(state=State.SUCCEEDED, result=run.job(attempt).ref, attempt=attempt.attempt)


def failed(attempt: Start, error: BaseException | None = None) -> Outcome:
    return Outcome(state=State.FAILED, error=error or ValueError("no"), attempt=attempt.attempt)


def settle(run: Run, attempt: Start, outcome: Outcome) -> None:
    run.record(attempt, outcome)
    run.release()
    for retry in run.retries:
        run.requeue(retry.start)
    run.retries.clear()


def finish(run: Run, outcome=lambda attempt: None) -> list[Start]:
    """Run everything, one attempt at a time; *outcome* may return a failure for an attempt."""
    started = []
    while (attempt := run.take()) is not None:
        started.append(attempt)
        settle(run, attempt, outcome(attempt) or succeeded(run, attempt))
    assert run.ended
    return started


# ---------------------------------------------------------------- what is said in the design, case by case


@pytest.fixture
def diamond(tasks):
    @tasks.task
    def top() -> int: ...

    @tasks.task(max_retries=2, retry_delay=1, backoff=3, max_delay=2, retry_on=ValueError)
    def left(top: int) -> int: ...

    @tasks.task
    def right(top: int) -> int: ...

    @tasks.task
    def bottom(left: int, right: int) -> int: ...

    return tasks


def test_ready_tasks_start_depth_first_and_then_in_plan_order(tasks):
    for name in ("a", "b"):
        tasks.task(name=name)(lambda: 1)
        tasks.task(name=f"{name}{name}", dependencies=[name])(lambda: 1)
    order = [attempt.task for attempt in finish(start(plan(registry=tasks)))]
    assert order == ["a", "aa", "b", "bb"]


def test_nothing_is_taken_before_its_outcome_is_released(diamond):
    run = start(plan(registry=diamond))
    first = run.take()
    run.record(first, succeeded(run, first))
    assert run.take() is None
    assert run.available == 0
    run.release()
    assert run.available == 2
    assert run.take().task == "left"


def test_a_failure_is_retried_with_growing_delays_and_then_skips_what_needs_it(diamond):
    run = start(plan(registry=diamond))
    delays = []
    while (attempt := run.take()) is not None:
        bad = attempt.task == "left"
        run.record(attempt, failed(attempt) if bad else succeeded(run, attempt))
        run.release()
        delays += [retry.delay for retry in run.retries]
        for retry in run.retries:
            run.requeue(retry.start)
        run.retries.clear()
    assert delays == [1, 2]
    assert run.state is State.FAILED
    assert {name: str(outcome.state) for name, outcome in run.outcomes.items()} == {
        "top": "succeeded", "left": "failed", "right": "succeeded", "bottom": "skipped",
    }  # fmt: skip
    assert run.outcomes["left"].attempt == 3
    assert run.outcomes["bottom"].reason == "'left' failed"
    states = [(change.old, change.new) for change in run.changes if change.task == "left"]
    assert states == [
        (State.PENDING, State.RUNNING), (State.RUNNING, State.RETRYING), (State.RETRYING, State.RUNNING),
        (State.RUNNING, State.RETRYING), (State.RETRYING, State.RUNNING), (State.RUNNING, State.FAILED),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (ValueError(), 3),
        (UnicodeError(), 3),
        (KeyError(), 1),
        (TaskError("left", "x.Bad", "no", ("x.Bad", "ValueError", "Exception")), 3),
        (TaskError("left", "x.Bad", "no", ("x.Bad", "Exception")), 1),
    ],
)
def test_only_what_retry_on_names_is_retried_also_when_it_came_from_another_process(diamond, error, attempts):
    run = start(plan(registry=diamond))
    started = finish(run, lambda attempt: failed(attempt, error) if attempt.task == "left" else None)
    assert Counter(attempt.task for attempt in started)["left"] == attempts


def test_jitter_stays_within_its_fraction_and_is_the_same_for_the_same_attempt(tasks):
    tasks.task(name="a", max_retries=50, retry_delay=10, jitter=0.5)(lambda: 1)

    def delays():
        run, found = start(plan(registry=tasks)), []
        while (attempt := run.take()) is not None:
            run.record(attempt, failed(attempt))
            found += [retry.delay for retry in run.retries]
            for retry in run.retries:
                run.requeue(retry.start)
            run.retries.clear()
        return found

    assert all(5 <= delay <= 15 for delay in delays())
    assert max(delays()) - min(delays()) > 5
    assert delays() == delays()


def test_an_endless_backoff_ends_at_max_delay(tasks):
    tasks.task(name="a", max_retries=2000, retry_delay=1, backoff=1e300, max_delay=7)(lambda: 1)
    run = start(plan(registry=tasks))
    for _ in range(5):
        attempt = run.take()
        run.record(attempt, failed(attempt))
        (retry,) = run.retries
        assert retry.delay in (1, 7)
        run.retries.clear()
        run.requeue(retry.start)


def test_a_fail_safe_task_leaves_a_default_a_none_or_a_skip(tasks):
    @tasks.task(fail_safe=True)
    def soft() -> int: ...

    @tasks.task(dependencies=["soft"])
    def after() -> int: ...

    @tasks.task(dependencies=["soft"])
    def with_default(soft: int = 7) -> int: ...

    @tasks.task
    def with_none(soft: int | None) -> int: ...

    @tasks.task
    def without(soft: int) -> int: ...

    @tasks.task
    def unhinted(soft) -> int: ...

    @tasks.task(dependencies=["without"])
    def behind() -> int: ...

    run = start(plan(registry=tasks))
    jobs = {}

    def outcome(attempt):
        jobs[attempt.task] = run.job(attempt)
        return failed(attempt) if attempt.task == "soft" else None

    finish(run, outcome)
    assert run.state is State.SUCCEEDED
    assert {name for name, out in run.outcomes.items() if out.state is State.SKIPPED} == {
        "without",
        "unhinted",
        "behind",
    }
    assert run.outcomes["soft"].state is State.FAILED
    assert jobs["with_default"].arguments == {}
    assert jobs["with_none"].arguments == {"soft": None}
    assert run.outcomes["without"].reason == "'soft' failed, and 'soft' has no default and does not admit None"


def test_fail_fast_cancels_what_has_not_started_and_asks_to_stop_what_runs(tasks):
    for name in ("a", "b", "c"):
        tasks.task(name=name)(lambda: 1)
    tasks.task(name="d", dependencies=["a"])(lambda: 1)
    run = start(plan(registry=tasks), fail_fast=True)
    a, b = run.take(), run.take()
    settle(run, a, failed(a))
    assert run.stopping
    assert run.take() is None
    assert run.outcomes["c"].state is State.CANCELLED
    assert run.outcomes["d"].state is State.SKIPPED
    assert not run.ended
    settle(run, b, Outcome(state=State.CANCELLED))
    assert run.ended
    assert run.state is State.FAILED


def test_a_cancelled_run_keeps_what_has_ended_and_cancels_the_rest(diamond):
    run = start(plan(registry=diamond))
    top = run.take()
    settle(run, top, succeeded(run, top))
    left = run.take()
    run.cancel("enough")
    assert run.take() is None
    assert run.outcomes["right"].reason == "enough"
    settle(run, left, succeeded(run, left))
    assert run.state is State.CANCELLED
    assert run.outcomes["left"].state is State.SUCCEEDED


def test_a_retry_that_waits_is_cancelled_with_its_run(diamond):
    run = start(plan(registry=diamond))
    top = run.take()
    settle(run, top, succeeded(run, top))
    left = run.take()
    run.record(left, failed(left))
    (retry,) = run.retries
    run.cancel("enough")
    assert run.ended
    run.requeue(retry.start)
    assert run.take() is None


def test_a_retry_that_was_ready_again_is_cancelled_with_its_run(diamond):
    run = start(plan(registry=diamond))
    top = run.take()
    settle(run, top, succeeded(run, top))
    left = run.take()
    settle(run, left, failed(left))
    run.cancel("enough")
    assert run.ended
    assert run.outcomes["left"].state is State.CANCELLED


def test_leaves_are_kept_and_other_values_freed_when_their_last_reader_has_ended(diamond):
    run = start(plan(registry=diamond), keep="leaves")
    freed = []
    while (attempt := run.take()) is not None:
        settle(run, attempt, succeeded(run, attempt))
        freed.append((attempt.task, [ref.task for ref in run.freed]))
        run.freed.clear()
    assert freed == [("top", []), ("left", []), ("right", ["top"]), ("bottom", ["left", "right"])]


@pytest.fixture
def mapped(tasks):
    @tasks.task
    def days() -> Iterator[str]:
        yield ""

    @tasks.task(each="days", max_retries=1)
    def load(day: str) -> int: ...

    @tasks.task
    def total(load: list[int]) -> int: ...

    return tasks


def stream(count: int) -> Outcome:
    return Outcome(state=State.SUCCEEDED, result=Items("r1", "days", count))


def test_a_mapped_task_is_one_job_an_item_in_the_producers_order(mapped):
    run = start(plan(registry=mapped))
    days = run.take()
    settle(run, days, stream(3))
    assert run.available == 3
    items = [run.take() for _ in range(3)]
    assert items == [Start("load", 1, 0), Start("load", 1, 1), Start("load", 1, 2)]
    assert [str(run.job(item).inputs["day"]) for item in items] == [f"r1/days/1-0000000{at}" for at in range(3)]
    settle(run, items[2], succeeded(run, items[2]))
    settle(run, items[0], failed(items[0]))
    again = run.take()
    assert again == Start("load", 2, 0)
    settle(run, again, succeeded(run, again))
    assert "load" not in run.outcomes
    settle(run, items[1], succeeded(run, items[1]))
    result = run.outcomes["load"].result
    assert [str(ref) for ref in result] == ["r1/load/2-00000000", "r1/load/1-00000001", "r1/load/1-00000002"]
    total = run.take()
    assert run.job(total).inputs["load"].items == result


def test_an_item_that_fails_for_good_ends_its_task_when_the_others_are_home(mapped):
    run = start(plan(registry=mapped))
    settle(run, run.take(), stream(4))
    one, two = run.take(), run.take()
    settle(run, one, failed(one))
    three, four, again = run.take(), run.take(), run.take()
    assert again == Start("load", 2, 0)
    settle(run, four, succeeded(run, four))
    settle(run, again, failed(again))
    assert run.take() is None
    settle(run, two, failed(two))
    assert run.take() is None, "an item was tried again though its task had failed"
    assert not run.ended
    settle(run, three, succeeded(run, three))
    assert run.outcomes["load"].state is State.FAILED
    assert run.outcomes["total"].state is State.SKIPPED
    assert run.ended


def test_fail_safe_items_are_left_out_and_listed(tasks):
    @tasks.task
    def days() -> Iterator[str]:
        yield ""

    @tasks.task(each="days", fail_safe=True)
    def load(day: str) -> int: ...

    @tasks.task(each="load")
    def double(load: int) -> int: ...

    run = start(plan(registry=tasks))
    settle(run, run.take(), stream(3))

    def outcome(attempt):
        return failed(attempt, OSError("x")) if attempt == Start("load", 1, 1) else None

    started = finish(run, outcome)
    assert run.state is State.SUCCEEDED
    assert [(at, str(error)) for at, error in run.outcomes["load"].failed_items] == [(1, "x")]
    assert len(run.outcomes["load"].result) == 2
    assert [run.job(attempt).inputs["load"].result_id for attempt in started if attempt.task == "double"] == [
        "1-00000000",
        "1-00000002",
    ]


def test_an_empty_stream_ends_what_is_mapped_over_it(mapped):
    run = start(plan(registry=mapped))
    settle(run, run.take(), stream(0))
    assert [attempt.task for attempt in finish(run)] == ["total"]
    assert run.state is State.SUCCEEDED


def test_what_a_stream_stored_before_it_failed_is_freed(mapped):
    run = start(plan(registry=mapped))
    days = run.take()
    settle(run, days, Outcome(state=State.FAILED, error=ValueError(), result=Items("r1", "days", 2)))
    assert run.freed == [Items("r1", "days", 2)]
    assert run.outcomes["days"].result is None


# ---------------------------------------------------------------- any plan, any outcomes

KINDS = ["value", "optional", "default", "order"]


@st.composite
def programs(draw):
    """Tasks with edges of every kind, streams, maps, retries and fail-safe, and what each attempt shall do."""
    size = draw(st.integers(1, 9))
    tasks = []
    for at in range(size):
        ups = draw(st.lists(st.integers(0, at - 1), unique=True, max_size=3)) if at else []
        streams = [up for up in ups if tasks[up]["stream"]]
        tasks.append(
            {
                "ups": {up: draw(st.sampled_from(KINDS)) for up in ups},
                "stream": draw(st.booleans()),
                "each": draw(st.sampled_from([None, *streams])) if streams else None,
                "count": draw(st.integers(0, 3)),
                "retries": draw(st.integers(0, 2)),
                "fail_safe": draw(st.booleans()),
                "failures": draw(st.integers(0, 3)),  # attempts of each job that fail
                "fatal": draw(st.booleans()),  # with an error that is not retried
            }
        )
        if tasks[-1]["each"] is not None:
            tasks[-1]["stream"] = True
            tasks[-1]["ups"][tasks[-1]["each"]] = "value"
    return tasks


HINTS = {"value": "int", "optional": "int | None", "default": "int"}


def registry_of(program) -> dpcore.Registry:
    registry = dpcore.Registry()
    for at, spec in enumerate(program):
        parameters = []
        for up, kind in spec["ups"].items():
            if kind != "order":
                hint = HINTS[kind]
                if program[up]["stream"] and spec["each"] != up:
                    hint = hint.replace("int", "list[int]")
                parameters.append((kind == "default", f"t{up}: {hint}{' = 5' if kind == 'default' else ''}"))
        source = ", ".join(text for _, text in sorted(parameters))
        streams = spec["stream"] and spec["each"] is None
        body = "yield 1" if streams else "return 1"
        namespace: dict = {"Iterator": Iterator}
        exec(f"def t{at}({source}) -> {'Iterator[int]' if streams else 'int'}:\n    {body}\n", namespace)
        registry.task(
            dependencies=[f"t{up}" for up in spec["ups"]],
            max_retries=spec["retries"],
            retry_on=ValueError,
            fail_safe=spec["fail_safe"],
            each=None if spec["each"] is None else f"t{spec['each']}",
        )(namespace[f"t{at}"])
    return registry


class Rules:
    """How each task of a program must end if nothing is cancelled, told from the design's words alone."""

    def __init__(self, program) -> None:
        self.program = program
        self.ends: dict[int, State] = {}
        self.jobs: dict[tuple[int, int | None], int] = {}  # attempts by (task, item)
        self.items: dict[int, int] = {}
        for at in range(len(program)):
            self.ends[at] = self.end(at)

    def attempts(self, spec) -> tuple[int, bool]:
        if spec["failures"] and spec["fatal"]:
            return 1, False
        return min(spec["failures"], spec["retries"]) + 1, spec["failures"] <= spec["retries"]

    def end(self, at: int) -> State:
        spec = self.program[at]
        for up, kind in spec["ups"].items():
            ended = self.ends[up]
            if ended is State.SKIPPED:
                return State.SKIPPED
            if ended is State.FAILED:
                if not self.program[up]["fail_safe"]:
                    return State.SKIPPED
                if kind == "value" or spec["each"] == up:
                    return State.SKIPPED
        attempts, good = self.attempts(spec)
        if spec["each"] is None:
            self.jobs[at, None] = attempts
            self.items[at] = spec["count"]
            return State.SUCCEEDED if good else State.FAILED
        count = self.items[spec["each"]]
        self.items[at] = count if good else 0
        if count and not good and not spec["fail_safe"]:
            return State.FAILED
        for item in range(count):
            self.jobs[at, item] = attempts
        return State.SUCCEEDED


def drive(program, run: Run, rng: random.Random, window: int, cancel_at: int | None = None) -> list[Start]:
    """Run with a random window and random order of completion; checks at each step what must always hold."""
    made, running, started, delayed = run.plan, [], [], []
    ended_at: dict[str, int] = {}
    steps = 0
    while not (run.ended and not running):
        steps += 1
        assert steps < 10_000, "it does not end"
        if cancel_at == steps:
            run.cancel("enough")
            delayed.clear()
        while len(running) < window and (attempt := run.take()) is not None:
            for up in made.needs[attempt.task]:
                assert run.task_state(up) in ENDED, f"{attempt} was started before {up} had ended"
            assert attempt.task not in ended_at
            assert attempt not in started, f"{attempt} was started twice"
            started.append(attempt)
            running.append(attempt)
        if running and not (delayed and rng.random() < 0.3):
            attempt = running.pop(rng.randrange(len(running)))
            spec = program[int(attempt.task[1:])]
            if attempt.attempt <= spec["failures"]:
                outcome = failed(attempt, KeyError() if spec["fatal"] else ValueError())
            elif run.job(attempt).streams:
                outcome = Outcome(
                    state=State.SUCCEEDED, result=Items("r1", attempt.task, spec["count"], attempt.attempt)
                )
            else:
                outcome = succeeded(run, attempt)
            run.record(attempt, outcome)
            run.release()
        elif delayed:
            run.requeue(delayed.pop(rng.randrange(len(delayed))).start)
        delayed += run.retries
        run.retries.clear()
        for name in run.outcomes:
            ended_at.setdefault(name, steps)
    assert run.take() is None
    return started


def check_changes(run: Run) -> None:
    """Each task moves along its states without a gap, and ends exactly once."""
    states = dict.fromkeys(run.plan.order, State.PENDING)
    ends: Counter[str] = Counter()
    for change in run.changes:
        if change.index is None:
            assert change.old is states[change.task], change
            assert change.new is not change.old
            states[change.task] = change.new
            ends[change.task] += change.new in ENDED
    assert states == {name: outcome.state for name, outcome in run.outcomes.items()}
    assert set(ends.values()) == {1}
    assert len(ends) == len(run.plan)


@given(programs(), st.integers(0, 2**32), st.integers(1, 4))
@settings(deadline=None, derandomize=True, max_examples=600)
def test_every_task_ends_once_and_exactly_as_the_rules_say(program, seed, window):
    run = start(plan(registry=registry_of(program)))
    started = drive(program, run, random.Random(seed), window)
    check_changes(run)
    rules = Rules(program)
    assert {name: outcome.state for name, outcome in run.outcomes.items()} == {
        f"t{at}": state for at, state in rules.ends.items()
    }
    attempts = Counter((attempt.task, attempt.index) for attempt in started)
    for (at, item), wanted in rules.jobs.items():
        assert attempts[f"t{at}", item] == wanted
    failed_hard = any(state is State.FAILED and not program[at]["fail_safe"] for at, state in rules.ends.items())
    assert run.state is (State.FAILED if failed_hard else State.SUCCEEDED)


@given(programs(), st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 20), st.booleans())
@settings(deadline=None, derandomize=True, max_examples=400)
def test_a_run_that_is_cancelled_anywhere_ends_with_every_task_ended_once(program, seed, window, at, fail_fast):
    run = start(plan(registry=registry_of(program)), fail_fast=fail_fast)
    drive(program, run, random.Random(seed), window, cancel_at=at)
    check_changes(run)
    assert run.state in (State.CANCELLED, State.FAILED, State.SUCCEEDED)


@given(programs(), st.integers(0, 2**32), st.integers(1, 4))
@settings(deadline=None, derandomize=True, max_examples=300)
def test_no_value_is_freed_before_its_last_reader_has_ended_and_each_only_once(program, seed, window):
    run = start(plan(registry=registry_of(program)), keep="leaves")
    readers = Counter(up for inputs in run.plan.inputs.values() for up in set(inputs.values()))
    drive(program, run, random.Random(seed), window)
    freed = Counter(result.task for result in run.freed)
    assert all(number == 1 for number in freed.values())
    wanted = {name for name, outcome in run.outcomes.items() if outcome.state is State.SUCCEEDED and readers[name]}
    assert set(freed) == wanted


def test_a_ref_says_which_attempt_and_item_made_it(mapped):
    run = start(plan(registry=mapped))
    assert run.job(Start("days", 2)).ref == Ref("r1", "days", "2")
    settle(run, run.take(), stream(1))
    assert run.job(Start("load", 1, 0)).ref == Ref("r1", "load", "1-00000000")


# ---------------------------------------------------------------- the same through the driver, on any executor


class Erratic(dpcore.Executor):
    """Has jobs done in any order, fails as the program says, and now and then breaks instead of saying so."""

    def __init__(self, program, rng: random.Random, slots: int) -> None:
        self.program, self.rng, self._slots = program, rng, slots
        self.started: list[Start] = []
        self.running = 0

    @property
    def slots(self) -> int:
        return self._slots

    async def run(self, job, line) -> Outcome:
        self.started.append(Start(job.task, job.attempt, job.index))
        self.running += 1
        assert self.running <= self._slots
        try:
            if self.rng.random() < 0.8:
                line.started()
            for _ in range(self.rng.randrange(4)):
                await anyio.lowlevel.checkpoint()
            spec = self.program[int(job.task[1:])]
            if job.attempt <= spec["failures"]:
                error = KeyError("no") if spec["fatal"] else ValueError("no")
                if self.rng.random() < 0.3:
                    raise error
                return Outcome(state=State.FAILED, error=error, attempt=job.attempt)
            if job.streams:
                return Outcome(
                    state=State.SUCCEEDED,
                    result=Items(job.run_id, job.task, spec["count"], job.attempt),
                    attempt=job.attempt,
                )
            return Outcome(state=State.SUCCEEDED, result=job.ref, attempt=job.attempt)
        finally:
            self.running -= 1


class Witness:
    """A plugin that holds every change against what must always be so."""

    def __init__(self) -> None:
        self.states: dict[str, State] = {}
        self.ends: Counter[str] = Counter()

    def dpcore_task_changed(self, run, task, old, new):
        assert self.states.get(task.name, State.PENDING) is old
        self.states[task.name] = new
        self.ends[task.name] += new in ENDED
        if new is State.RUNNING:
            for up in run.plan.needs[task.name]:
                assert self.states[up] in ENDED, f"{task.name} was started before {up} had ended"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_every_task_ends_once_and_as_the_rules_say_on_any_executor(backend):
    @given(programs(), st.integers(0, 2**32), st.integers(1, 4), st.one_of(st.none(), st.integers(0, 12)))
    @settings(deadline=None, derandomize=True, max_examples=120)
    def check(program, seed, slots, cancel_after):
        anyio.run(whole_run, program, seed, slots, cancel_after, backend=backend)

    async def whole_run(program, seed, slots, cancel_after):
        executor, witness = Erratic(program, random.Random(seed), slots), Witness()
        plugins = dpcore.Plugins(witness, installed=False)
        with anyio.fail_after(30):
            async with (
                dpcore.App(registry_of(program), executor=executor, plugins=plugins) as app,
                anyio.create_task_group() as group,
            ):

                async def cancel() -> None:
                    for _ in range(cancel_after):
                        await anyio.lowlevel.checkpoint()
                    with contextlib.suppress(dpcore.errors.RunNotFoundError):  # it has ended, or not begun
                        app.cancel("r1")

                if cancel_after is not None:
                    group.start_soon(cancel)
                result = await app.run(run_id="r1", check=False)
                history = await app.history("r1")
        states = {name: outcome.state for name, outcome in result.outcomes.items()}
        assert witness.states == states
        assert set(witness.ends.values()) == {1}
        assert {name: change.state for name, change in history.tasks.items()} == states
        assert history.record.state is result.state
        assert len(set(executor.started)) == len(executor.started), "an attempt was started twice"
        if result.state is not State.CANCELLED:
            rules = Rules(program)
            assert states == {f"t{at}": state for at, state in rules.ends.items()}
            attempts = Counter((start.task, start.index) for start in executor.started)
            for (at, item), wanted in rules.jobs.items():
                assert attempts[f"t{at}", item] == wanted

    check()
