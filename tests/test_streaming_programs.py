"""Any program with live streams, run on threads by the real driver: each task ends as the rules say, of what there is.

The programs are those of ``test_streams``; here they are code that yields, reads and
fails.  A producer at a gate does not go on before those that read only it have begun, so
they read it live or the test does not end.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dpcore
from dpcore import Items, Job, Outcome, Ref, State, current_job
from dpcore.jobs import Stream
from dpcore_plugins import MemoryIO, ThreadsExecutor
from tests.test_runs import Rules
from tests.test_streams import streaming


class Listed(ThreadsExecutor):
    """Knows the jobs that it was given, so that a body can tell what it is fed with."""

    def __init__(self, slots: int) -> None:
        super().__init__(slots=slots)
        self.jobs: dict[tuple[str, int | None, int], Job] = {}

    async def run(self, job, line) -> Outcome:
        self.jobs[job.task, job.index, job.attempt] = job
        return await super().run(job, line)


class Bodies:
    """What the tasks of a program do: read, yield what tells who made it, and fail as often as they should."""

    def __init__(self, program, executor: Listed, seed: int) -> None:
        self.program, self.executor, self.seed = program, executor, seed
        self.lock = threading.Lock()
        self.tries: Counter = Counter()
        self.gates: dict[tuple[str, int, int], threading.Event] = {}

    def gate(self, source: str, attempt: int, reader: int) -> threading.Event:
        with self.lock:
            return self.gates.setdefault((source, attempt, reader), threading.Event())

    def readers(self, at: int) -> list[int]:
        """Return the tasks that read only this one, which reads nothing."""
        if self.program[at]["ups"]:
            return []
        return [after for after, spec in enumerate(self.program) if spec["gated"] and list(spec["ups"]) == [at]]

    def plan(self, at: int) -> tuple[Job, int, int | None]:
        """Begin an attempt: return its job, how many items it makes, and at which it fails."""
        now, spec = current_job(), self.program[at]
        job = self.executor.jobs[now.task, now.index, now.attempt]
        key = (
            at,
            job.index,
            *((name, one.result_id if isinstance(one, Ref) else one.items.attempt) for name, one in job.inputs.items()),
        )
        with self.lock:
            self.tries[key] += 1
            fails = self.tries[key] <= spec["failures"]
        for source in job.inputs.values():
            if isinstance(source, Stream):
                self.gate(source.items.task, source.items.attempt, at).set()
            elif "-" in source.result_id:
                self.gate(source.task, int(source.result_id.split("-")[0]), at).set()
        fails_at = random.Random(f"{self.seed}{key}").randint(0, spec["count"]) if fails else None
        return job, spec["count"], fails_at

    def fail(self, at: int) -> None:
        raise KeyError("no") if self.program[at]["fatal"] else ValueError("no")

    def stream(self, at: int, inputs: list) -> Iterator:
        """Yield items, each after one of what it reads."""
        job, count, fails_at = self.plan(at)
        left = [iter(source) for source in inputs if isinstance(source, Iterator)]
        for number in range(count):
            if number == fails_at:
                self.fail(at)
            if number == 1:
                for reader in self.readers(at):
                    assert self.gate(job.task, job.attempt, reader).wait(20), "its reader did not begin"
            for source in left:
                next(source, None)
            yield job.task, job.attempt, number
        if fails_at is not None:
            self.fail(at)
        for source in left if self.program[at]["whole"] else ():
            read = [(task, attempt) for task, attempt, _ in source]
            assert len(set(read)) < 2, "of two attempts"

    async def stream_async(self, at: int, inputs: list) -> AsyncIterator:
        job, count, fails_at = self.plan(at)
        left = [source for source in inputs if isinstance(source, AsyncIterator)]
        for number in range(count):
            if number == fails_at:
                self.fail(at)
            for source in left:
                await anext(source, None)
            yield job.task, job.attempt, number
        if fails_at is not None:
            self.fail(at)
        for source in left if self.program[at]["whole"] else ():
            read = [(task, attempt) async for task, attempt, _ in source]
            assert len(set(read)) < 2, "of two attempts"

    def item(self, at: int, inputs: list) -> tuple:
        """Return what one item has become."""
        job, _, fails_at = self.plan(at)
        if fails_at is not None:
            self.fail(at)
        return job.task, job.attempt, job.index


def registry(program, bodies: Bodies, lead: int) -> dpcore.Registry:
    """Return the tasks of a program in which all that streams is read live."""
    found = dpcore.Registry()
    for at, spec in enumerate(program):
        parameters = []
        is_async = spec["async"] and spec["each"] is None
        iterator = "AsyncIterator[tuple]" if is_async else "Iterator[tuple]"
        for up, kind in spec["ups"].items():
            if kind != "order":
                hint = "tuple" if up == spec["each"] else iterator if program[up]["each"] is None else "list[tuple]"
                more = {"value": "", "optional": " | None", "default": " = ()"}[kind]
                parameters.append((kind == "default", f"t{up}: {hint}{more}"))
        names = ", ".join(text.partition(":")[0] for _, text in parameters)
        source = ", ".join(text for _, text in sorted(parameters))
        if spec["each"] is not None:
            code = f"def t{at}({source}) -> tuple:\n    return bodies.item({at}, [{names}])\n"
        elif is_async:
            code = (
                f"async def t{at}({source}) -> AsyncIterator[tuple]:\n"
                f"    async with aclosing(bodies.stream_async({at}, [{names}])) as made:\n"
                "        async for one in made:\n            yield one\n"
            )
        else:
            code = f"def t{at}({source}) -> Iterator[tuple]:\n    yield from bodies.stream({at}, [{names}])\n"
        namespace = {"bodies": bodies, "aclosing": aclosing, "AsyncIterator": AsyncIterator, "Iterator": Iterator}
        exec(code, namespace)
        found.task(
            dependencies=[f"t{up}" for up in spec["ups"]],
            max_retries=spec["retries"],
            retry_on=ValueError,
            fail_safe=spec["fail_safe"],
            each=None if spec["each"] is None else f"t{spec['each']}",
            lead=None if spec["each"] is not None else lead,
            # One that was told that it is enough would not fail any more.
            drain=spec["failures"] > 0 and spec["each"] is None,
        )(namespace[f"t{at}"])
    return found


@st.composite
def coded(draw):
    program = draw(streaming())
    for spec in program:
        spec["async"] = draw(st.booleans())
        spec["whole"] = draw(st.booleans())  # whether it reads on when it has nothing more to make
        spec["gated"] = draw(st.booleans()) and set(spec["ups"].values()) == {"value"}
    return program


def check_whole(bodies: Bodies, result, io: MemoryIO) -> None:
    """What a task has made is there, and says that it is all of one attempt."""
    for name, outcome in result.outcomes.items():
        made = outcome.result
        if isinstance(made, Items):
            for index, (ref, value) in enumerate(zip(made, map(io.load, made), strict=True)):
                attempt, at = ref.result_id.split("-")
                assert value == (name, int(attempt), int(at))
                assert bodies.program[int(name[1:])]["each"] is not None or (made.attempt, index) == (
                    int(attempt),
                    int(at),
                )


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_any_program_with_live_streams_ends_as_the_rules_say(backend):
    @given(coded(), st.integers(0, 2**32), st.sampled_from([1, 2, 3, 8]), st.integers(1, 3))
    @settings(deadline=None, derandomize=True, max_examples=150)
    def check(program, seed, slots, lead):
        anyio.run(whole_run, program, seed, slots, lead, backend=backend)

    async def whole_run(program, seed, slots, lead):
        # A gate takes a place for each that waits at one, and for who is to open it.
        executor = Listed(64 if any(spec["gated"] for spec in program) else slots)
        bodies, io = Bodies(program, executor, seed), MemoryIO()
        tasks = registry(program, bodies, lead)
        with anyio.fail_after(30):
            async with dpcore.App(tasks, executor=executor, io=io, plugins=dpcore.Plugins(installed=False)) as app:
                result = await app.run(check=False)
        wanted = {f"t{at}": state for at, state in Rules(program).ends.items()}
        assert {name: outcome.state for name, outcome in result.outcomes.items()} == wanted, {
            name: outcome.error for name, outcome in result.outcomes.items() if outcome.state is not State.SUCCEEDED
        }
        check_whole(bodies, result, io)

    check()
