"""What an executor promises where something goes wrong: deaths, code that does not end, values that are odd or huge."""

from __future__ import annotations

import ctypes
import os
import random
import re
import signal
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest

from dpcore.app import App
from dpcore.errors import TaskTimeoutError
from dpcore.jobs import Job, Ref, State
from dpcore.plugins import Plugins
from dpcore.ports import Executor
from dpcore.tasks import Registry
from dpcore.testing.executor_jobs import FolderIO, JobSuite, Recorder, until
from dpcore.testing.suite import descendants, leftovers, lives

__all__ = ("Failing",)

_ROUNDS = 3  # of what is compared when an executor is left for another time
_CODE = 73

# ---------------------------------------------------------------- what the jobs do; every process can import it


def double(a: int) -> int:
    """Return twice as much."""
    return 2 * a


def die(how: str) -> None:
    """End the process that runs this, saying nothing."""
    if how == "exit":
        os._exit(_CODE)
    if how == "SIGSEGV":
        _leave_no_core()
        ctypes.string_at(0)
    os.kill(os.getpid(), signal.SIGKILL)


def die_streaming(how: str) -> Iterator[int]:
    """End the process between two items."""
    yield 1
    die(how)


async def die_async(how: str) -> None:
    """End the process in a coroutine."""
    await anyio.lowlevel.checkpoint()
    die(how)


def _leave_no_core() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class NotAnException(BaseException):
    """What no ``except Exception`` catches."""


_BREAKS = {"base": NotAnException, "exit": SystemExit, "stop": StopIteration, "left": GeneratorExit}


def break_off(kind: str) -> Iterator[int]:
    """Yield an item, and raise."""
    yield 1
    raise _BREAKS[kind]("no")


async def break_off_async(kind: str) -> AsyncIterator[int]:
    """Yield an item, and raise, on an event loop."""
    yield 1
    await anyio.lowlevel.checkpoint()
    raise _BREAKS[kind]("no")


def _stay(folder: str, patience: float) -> None:
    place = Path(folder)
    (place / f"{os.getpid()}.begun").touch()
    until((place / "go").exists, patience)
    (place / "ended").touch()


def stay(folder: str, patience: float) -> None:
    """Say who begins, wait for the file *go*, and say that it ends."""
    _stay(folder, patience)


async def stay_async(folder: str, patience: float) -> None:
    """Do the same in a coroutine that lets nobody else go on."""
    _stay(folder, patience)


def stay_streaming(folder: str, patience: float) -> Iterator[int]:
    """Do the same between two items."""
    yield 1
    _stay(folder, patience)
    yield 2


def stay_deaf(folder: str, patience: float) -> None:
    """Do the same, and hear no signal meanwhile."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    _stay(folder, patience)


def stay_stubborn(folder: str, patience: float) -> None:
    """Do the same, whatever is raised into it."""
    while not (Path(folder) / "ended").exists():
        try:
            _stay(folder, patience)
        except BaseException:  # noqa: BLE001  (that is what it is about)
            continue


def stay_in_c(folder: str, patience: float) -> None:
    """Do the same in C, holding the interpreter."""
    (Path(folder) / f"{os.getpid()}.begun").touch()
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        pow(7, 2_000_000)


_STAYING = (stay, stay_async, stay_streaming, stay_deaf, stay_stubborn, stay_in_c)


class Unreadable:
    """What pickles, and does not unpickle."""

    def __reduce__(self) -> tuple[object, ...]:
        return _unread, ("it was well when it was stored",)


def _unread(why: str) -> None:
    raise ValueError(why)


def unreadable() -> Any:
    """Return what cannot be read again."""
    return Unreadable()


def unreadable_streaming() -> Iterator[Any]:
    """Yield one that can be read, and one that cannot."""
    yield 1
    yield Unreadable()


def unstorable_streaming() -> Iterator[Any]:
    """Yield one that can be stored, and one that cannot."""
    yield 1
    yield threading.Lock()


def reads(value: Any) -> str:
    """Return of which type it is."""
    return type(value).__name__


def much(size: int) -> bytes:
    """Return so many bytes."""
    return bytes(range(256)) * (size // 256)


def size(value: bytes) -> tuple[int, int]:
    """Return how many bytes there are, and what they amount to."""
    return len(value), hash(value)


def note(folder: str, number: int) -> int:
    """Write down, in one piece, that it ran; return the number."""
    file = os.open(Path(folder) / "ran", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, f"{number}\n".encode())
    os.close(file)
    return number


def together(folder: str, name: str, others: int, patience: float) -> None:
    """Wait until so many are here at once."""
    place = Path(folder)
    (place / f"{name}.free").touch()
    until(lambda: len([*place.glob("*.free")]) >= others, patience)


def much_or_less(value: bytes) -> int:
    """Return how many bytes there are."""
    return len(value)


def stay_named(folder: str, patience: float) -> None:
    """Say that it begins, and stay."""
    (Path(folder) / "b").touch()
    _stay(folder, patience)


async def sleep_async(folder: str, patience: float) -> None:
    """Say that it begins, and let others go on for as long as anybody has patience."""
    (Path(folder) / "s").touch()
    await anyio.sleep(patience)


# ---------------------------------------------------------------- the promises


class Failing(JobSuite, suite=True):
    """What holds however jobs end, and however odd they are."""

    many: ClassVar[int] = 10_000
    """How many jobs are many."""
    huge: ClassVar[int] = 50_000_000
    """How many bytes a huge value has."""

    # ---------------------------------------------------------------- death

    @pytest.mark.parametrize("how", ["exit", "SIGKILL", "SIGSEGV"])
    async def test_a_death_of_the_process_is_one_failed_attempt_that_names_its_cause(
        self, tmp_path: Path, how: str
    ) -> None:
        """Its exit code, or its signal by name; the next job runs.  (With ``isolates``.)"""
        async with self.make(tmp_path) as executor:
            self.needs(executor, "isolates")
            for call in (die, die_async, die_streaming):
                job = self.job(tmp_path, call, arguments={"how": how}, streams=call is die_streaming)
                outcome = await self.do(executor, job)
                assert outcome.state is State.FAILED
                assert outcome.result is None
                assert outcome.attempt == job.attempt
                said = str(outcome.error)
                assert how in said or re.search(rf"\b{_CODE}\b", said), f"it does not say how it died: {said!r}"
                await self.must_succeed(executor, self.job(tmp_path, double, "after", arguments={"a": 1}))

    async def test_a_death_is_not_its_siblings(self, tmp_path: Path) -> None:
        """The other jobs that run go on to their end, in the processes that they began in.  (With ``isolates``.)"""
        async with self.make(tmp_path) as executor:
            self.needs(executor, "isolates")
            if executor.slots == 1:
                pytest.skip("the executor has one slot, so that no job has siblings")
            siblings = executor.slots - 1
            arguments = {"folder": str(tmp_path), "patience": self.patience}
            async with anyio.create_task_group() as group:
                for number in range(siblings):
                    job = self.job(tmp_path, stay, f"s{number}", arguments=arguments)
                    group.start_soon(self.must_succeed, executor, job)
                await self.begun(tmp_path, siblings)
                for how in ("SIGKILL", "exit"):
                    outcome = await self.do(executor, self.job(tmp_path, die, arguments={"how": how}))
                    assert outcome.state is State.FAILED
                (tmp_path / "go").touch()
            assert len(_begun(tmp_path)) == siblings

    @pytest.mark.parametrize("kind", sorted(_BREAKS))
    async def test_a_stream_that_breaks_off_is_a_failed_outcome(self, tmp_path: Path, kind: str) -> None:
        """Whatever its body raises after an item, of whatever class; the executor goes on."""
        async with self.make(tmp_path) as executor:
            for call in (break_off, break_off_async):
                job = self.job(tmp_path, call, call.__name__, arguments={"kind": kind}, streams=True)
                outcome = await self.do(executor, job)
                assert outcome.state is State.FAILED
                assert outcome.error is not None
                await self.must_succeed(executor, self.job(tmp_path, double, "after", arguments={"a": 1}))

    # ---------------------------------------------------------------- code that does not end

    @pytest.mark.parametrize("call", _STAYING, ids=lambda call: call.__name__)
    async def test_what_is_cancelled_stops_whatever_it_is_at(self, tmp_path: Path, call: Callable[..., Any]) -> None:
        """Plain code, a coroutine that blocks, a generator, code in C, deaf or stubborn.  (With ``kills``.)"""
        async with self.make(tmp_path) as executor:
            self.needs(executor, "kills")
            arguments = {"folder": str(tmp_path), "patience": 2 * self.patience}
            job = self.job(tmp_path, call, arguments=arguments, streams=call is stay_streaming)
            with anyio.fail_after(self.patience):
                async with anyio.create_task_group() as group:
                    group.start_soon(executor.run, job, Recorder())
                    await self.begun(tmp_path, 1)
                    group.cancel_scope.cancel()
            await self.has_stopped(executor, tmp_path, call)

    @pytest.mark.parametrize("call", _STAYING, ids=lambda call: call.__name__)
    async def test_a_timeout_stops_whatever_a_task_is_at(self, tmp_path: Path, call: Callable[..., Any]) -> None:
        """It is recorded as timed out, and as stopped.  (With ``kills``.)"""
        executor = self.make(tmp_path)
        self.needs(executor, "kills")
        (tmp_path / "results").mkdir()
        tasks = Registry()
        tasks.task(name="stays", timeout=0.5)(call)
        io = FolderIO(tmp_path / "results")
        async with App(tasks, executor=executor, io=io, plugins=Plugins(installed=False)) as app:
            params = {"folder": str(tmp_path), "patience": 2 * self.patience}
            with anyio.fail_after(self.patience):
                outcome = (await app.run(params=params, check=False)).outcomes["stays"]
            assert outcome.state is State.TIMED_OUT
            assert isinstance(outcome.error, TaskTimeoutError)
            assert not outcome.still_running
            await self.has_stopped(executor, tmp_path, call)

    async def has_stopped(self, executor: Executor, tmp_path: Path, call: Callable[..., Any]) -> None:
        """Assert that what began goes on no more, and that all slots are free."""
        (tmp_path / "go").touch()
        arguments = {"folder": str(tmp_path), "others": executor.slots, "patience": self.patience}
        async with anyio.create_task_group() as group:
            for number in range(executor.slots):
                job = self.job(tmp_path, together, f"f{number}", arguments={**arguments, "name": str(number)})
                group.start_soon(self.must_succeed, executor, job)
        await anyio.sleep(0.3)  # not for something to happen: code that lives ends at once, now that there is *go*
        assert not (tmp_path / "ended").exists(), "its code went on"
        if call is stay_in_c and "remote" not in executor.capabilities:
            assert not any(map(lives, _begun(tmp_path))), "its process, which can only be killed, lives"

    async def begun(self, folder: Path, many: int) -> None:
        """Wait until so many jobs have begun."""
        with anyio.fail_after(self.patience):
            while len(_begun(folder)) < many:  # noqa: ASYNC110  (another process makes them)
                await anyio.sleep(0.001)

    # ---------------------------------------------------------------- odd values, and huge ones

    async def test_a_value_that_does_not_load_fails_where_it_is_read(self, tmp_path: Path) -> None:
        """The job that made it has succeeded, the one that reads it has failed and says why; the executor goes on."""
        async with self.make(tmp_path) as executor:
            made = await self.do(executor, self.job(tmp_path, unreadable, "made"))
            assert made.state is State.SUCCEEDED
            assert isinstance(made.result, Ref)
            read = await self.do(executor, self.job(tmp_path, reads, "reads", inputs={"value": made.result}))
            assert read.state is State.FAILED
            assert "it was well when it was stored" in str(read.error)
            streamed = await self.do(executor, self.job(tmp_path, unreadable_streaming, "streamed", streams=True))
            assert streamed.state is State.SUCCEEDED
            await self.must_succeed(executor, self.job(tmp_path, double, "after", arguments={"a": 1}))

    async def test_an_item_that_cannot_be_stored_is_a_failed_outcome(self, tmp_path: Path) -> None:
        """Also after one that could; the executor goes on."""
        async with self.make(tmp_path) as executor:
            outcome = await self.do(executor, self.job(tmp_path, unstorable_streaming, streams=True))
            assert outcome.state is State.FAILED
            assert isinstance(outcome.error, TypeError)
            await self.must_succeed(executor, self.job(tmp_path, double, "after", arguments={"a": 1}))

    async def test_a_huge_value_goes_in_and_out_whole(self, tmp_path: Path) -> None:
        """Returned, loaded as an input and given as an argument: 50 MB, from the first byte to the last."""
        wanted = size(much(self.huge))
        async with self.make(tmp_path) as executor:
            made = await self.do(executor, self.job(tmp_path, much, "made", arguments={"size": self.huge}))
            assert isinstance(made.result, Ref)
            assert size(self.loaded(tmp_path, made)) == wanted
            given: tuple[dict[str, Any], ...] = (
                {"inputs": {"value": made.result}},
                {"arguments": {"value": much(self.huge)}},
            )
            for number, fields in enumerate(given):
                outcome = await self.do(executor, self.job(tmp_path, much_or_less, f"t{number}", **fields))
                assert self.loaded(tmp_path, outcome) == wanted[0]

    # ---------------------------------------------------------------- very many

    async def test_each_of_very_many_jobs_has_one_outcome_and_runs_once(self, tmp_path: Path) -> None:
        """Ten thousand, given as fast as the window allows: none is lost, and none has the outcome of another."""
        wrong: list[int] = []
        async with self.make(tmp_path) as executor:

            async def one(number: int) -> None:
                arguments = {"folder": str(tmp_path), "number": number}
                job = self.job(tmp_path, note, f"n{number}", arguments=arguments)
                outcome = await self.do(executor, job)
                if outcome.state is not State.SUCCEEDED or outcome.result != job.ref:
                    wrong.append(number)

            await self.side_by_side(executor, tmp_path, one, self.many)
        assert wrong == []
        assert sorted(map(int, (tmp_path / "ran").read_text().split())) == [*range(self.many)]

    @pytest.mark.parametrize("seed", range(2))
    async def test_what_is_cancelled_at_any_moment_costs_the_others_nothing(self, tmp_path: Path, seed: int) -> None:
        """Waiting, about to begin, running or done: those that nobody cancels run once, the others at most once."""
        drawn = random.Random(seed)
        done: set[int] = set()
        many = min(150, self.many)
        async with self.make(tmp_path) as executor:

            async def one(number: int) -> None:
                job = self.job(tmp_path, note, f"n{number}", arguments={"folder": str(tmp_path), "number": number})
                patience = drawn.uniform(0, 0.01) if drawn.random() < 0.2 else self.patience
                with anyio.move_on_after(patience) as scope:
                    outcome = await executor.run(job, Recorder())
                    assert outcome.state is State.SUCCEEDED, outcome.error
                    done.add(number)
                assert patience < self.patience or not scope.cancelled_caught, "a job was lost"

            await self.side_by_side(executor, tmp_path, one, many)
            await self.must_succeed(executor, self.job(tmp_path, double, "after", arguments={"a": 1}))
        ran = [*map(int, (tmp_path / "ran").read_text().split())]
        assert len(ran) == len({*ran})
        assert done <= {*ran}

    # ---------------------------------------------------------------- nothing is left

    def test_nothing_is_left_of_what_went_wrong(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """After failures, cancellations and deaths: no process, thread, open file or temporary file more than before."""
        temporary = tmp_path / "temporary"
        temporary.mkdir()
        monkeypatch.setenv("TMPDIR", str(temporary))
        monkeypatch.setattr(tempfile, "tempdir", None)
        backend = self.backends[0]
        for number in range(_ROUNDS):
            (tmp_path / f"{number}").mkdir()
        anyio.run(self._trouble, tmp_path / "0", backend=backend)
        before, kept, known = leftovers(), _files(temporary), descendants()
        for number in range(1, _ROUNDS):
            seen = anyio.run(self._trouble, tmp_path / f"{number}", backend=backend)
            alive = [*filter(lives, seen - known)]
            assert not alive, f"these processes live on: {alive}"
        left = leftovers(since=before)
        assert left.no_more_than(before), f"{left} after {before}"
        assert not _files(temporary) - kept

    async def _trouble(self, folder: Path) -> set[int]:
        """Have jobs go wrong in every way that this executor survives; return the processes that there were."""
        arguments = {"folder": str(folder), "patience": self.patience}
        async with self.make(folder) as executor:
            wrong: list[Job] = [
                self.job(folder, break_off, "breaks", arguments={"kind": "base"}, streams=True),
                self.job(folder, unstorable_streaming, "unstorable", streams=True),
                self.job(folder, much_or_less, "odd", arguments={"value": 7}),
            ]
            if "isolates" in executor.capabilities:
                wrong.append(self.job(folder, die, "dies", arguments={"how": "SIGKILL"}))
            for job in wrong:
                assert (await self.do(executor, job)).state is State.FAILED
            if "kills" in executor.capabilities:
                await self.cancelled(executor, self.job(folder, stay_named, "stays", arguments=arguments), folder / "b")
            job = self.job(folder, sleep_async, "sleeps", arguments=arguments)
            await self.cancelled(executor, job, folder / "s")
            await self.must_succeed(executor, self.job(folder, double, "after", arguments={"a": 1}))
            return descendants()


def _begun(folder: Path) -> list[int]:
    return [int(file.stem) for file in folder.glob("*.begun")]


def _files(folder: Path) -> set[Path]:
    return {*folder.rglob("*")}
