"""Who does which job, and what becomes of the jobs of a worker that is lost."""

from __future__ import annotations

import logging
import os
import pickle
import sys
from collections import deque
from collections.abc import Callable
from contextvars import Context
from itertools import count
from typing import Any

import anyio
import msgspec

from dpcore import Job, Line, Outcome, State
from dpcore.errors import ExecutorLeftError, WorkerLostError, WorkersNotStartedError
from dpcore_plugins.executors.multiprocess.echo import Echo
from dpcore_plugins.executors.multiprocess.logs import handled, levels
from dpcore_plugins.executors.multiprocess.loops import running_loop
from dpcore_plugins.executors.multiprocess.machine import ended, kills_for_memory
from dpcore_plugins.executors.multiprocess.orders import Shared, pickled
from dpcore_plugins.executors.multiprocess.script import script_of_program
from dpcore_plugins.executors.multiprocess.template import Template
from dpcore_plugins.executors.multiprocess.watch import Awaited, Watch
from dpcore_plugins.executors.multiprocess.wire import BEGUN, DONE, HUNG_UP, LOG, MESSAGE, OUTCOME, PUBLISH, READY
from dpcore_plugins.executors.multiprocess.worker import Call, Worker
from dpcore_plugins.executors.multiprocess.working import Hello, done

__all__ = ("AHEAD", "Pool")

_log = logging.getLogger("dpcore.executors.multiprocess")

AHEAD = 16  # jobs, beside the one that it is at, that a worker has at most
_FEW = 8  # with so many it gets more, all at once
_SHORT = 0.001  # seconds: as long as jobs take less, some are sent ahead
_UNKNOWN = 0.032  # as if jobs took that long, until a few have been done
_WORKER_HOOKS = frozenset({"dpcore_worker_started", "dpcore_worker_stopping"})
_MEMORY = 8  # jobs after which one is as good as forgotten
_MOST_FAILURES = 4  # workers, one after the other, that die before they are ready
_BACKOFF = 0.05  # seconds to wait after the first of them; twice as long after each more,
_MOST_DOUBLINGS = 6  # so often
_GLANCE = 0.05  # seconds after which somebody looks at what is printed
_FAREWELL = 5000  # milliseconds for what a worker does at its end
_SAID = 2000  # characters of what a worker had printed before it died
_PATIENCE = 5.0  # seconds in which the system removes what was killed


class Pool:
    """The worker processes of one executor on one event loop.

    They are started when there is work for them, up to *most*.  A job is stopped by
    stopping its worker; one that did not end after *grace* seconds is killed.
    """

    def __init__(
        self,
        most: int,
        grace: float,
        *,
        echo: bool,
        most_jobs: int | None = None,
        environment: dict[str, str] | None = None,
        plugins: Any = None,
        start_timeout: float = 60.0,
    ) -> None:
        self._most, self._grace, self._start_timeout = most, grace, start_timeout
        self._most_jobs = most_jobs or sys.maxsize
        self._environment, self._plugins = environment or {}, plugins
        self._plugins_sent: bytes | None = None  # not known yet
        self._mark = b"\0" + os.urandom(15)
        self._loop = running_loop()
        self._echo = Echo(self._loop) if echo else None
        self._template: Template | None = None
        self._workers: dict[int, Worker] = {}
        self._retired: dict[int, Worker] = {}  # have done all that one worker is to do, and end
        self._idle: list[Worker] = []
        self._pending: deque[Call] = deque()
        self._shared = Shared()
        self._age = self._shared.age
        self._worker_numbers, self._call_numbers = count(1), count(1)
        self._failures = 0
        self.pace = _UNKNOWN  # seconds that the jobs before took, the last of them most
        self._wait: Callable[[], object] | None = None  # after workers that could not start
        self._unglance: Callable[[], object] | None = None
        self._watch = Watch(self._loop, self._workers.values, self._late, patience=start_timeout, grace=grace)
        self._is_closing = False
        self._killed_for_memory = kills_for_memory()

    # ---------------------------------------------------------------- giving and taking back

    def prepare(self) -> None:
        """Start the template, which takes a moment to import what it needs."""
        if self._template is None or self._template.is_gone:
            self._template = Template(self._loop, self._forked, self._killed, self._died, self._lost_template)

    def give(self, job: Job, line: Line, talk: Context | None = None) -> Call:
        """Have a job done by the next worker that is free; what it says meanwhile is heard in the context *talk*."""
        order, needs = self._shared.order(job, on_trio=self._loop.is_trio)
        call = Call(job, line, next(self._call_numbers) & 0xFFFFFFFF, order, needs, self._loop)
        call.talk = talk
        if self._age != self._shared.age:
            self._renew()
        self._place(call)
        return call

    def _renew(self) -> None:
        """Give the present workers nothing more: a module of theirs has been loaded anew in the program."""
        self._age = self._shared.age
        for worker in [*self._workers.values()]:
            self._pending.extendleft(reversed(worker.unbegun()))
            worker.left = 0
            self._leave_out(worker)
            self._free(worker)
        for call in [*self._pending]:  # by now their functions may have lost their names to those of the new module
            try:
                call.order, call.needs = self._shared.order(call.job, on_trio=self._loop.is_trio)
            except Exception as error:  # noqa: BLE001  (whatever pickling raises)
                self._pending.remove(call)
                call.end(None, error)
        self._feed()

    def _place(self, call: Call) -> None:
        if self._idle:
            self._hand(self._idle.pop(), call)
        elif len(self._workers) < self._most and self._wait is None:
            self._start(call)
        elif not self._pending and (worker := self._quickest(_FEW)) is not None:
            self._hand(worker, call)
        else:
            self._pending.append(call)

    def _glance(self) -> None:
        """Watch what is printed by jobs that take their time; the mark that each one prints would wake us up for nothing."""
        self._unglance = None
        for worker in self._workers.values():
            worker.watch_output()

    def _quickest(self, most: int) -> Worker | None:
        """Return who of those with *most* jobs shall have one sent ahead, while they are so short that it comes to it at once."""
        if self.pace >= _SHORT:
            return None
        found = None
        for worker in self._workers.values():
            if len(worker.calls) <= most and worker.takes_more:
                found, most = worker, len(worker.calls) - 1
        return found

    def _steal(self) -> None:
        """Give an idle worker what was sent ahead to another that has not come to it."""
        while self._idle and (busy := max(self._workers.values(), key=lambda one: len(one.calls))):
            call = busy.take_back() if len(busy.calls) > 1 else None
            if call is None:
                return
            self._hand(self._idle.pop(), call)

    def _hand(self, worker: Worker, call: Call) -> None:
        if worker.path != sys.path:
            worker.greet(self._hello(worker.number))
        worker.give(call)
        self._watch.begin()
        if worker.is_ready and len(worker.calls) == 1:
            self._next_begins(worker)

    def _next_begins(self, worker: Worker) -> None:
        """Take it that the first job of a worker begins; one that has a timeout says so when it has been loaded."""
        worker.look_away()
        if self._unglance is None:
            self._unglance = self._loop.later(_GLANCE, self._glance)
        if worker.calls and worker.calls[0].job.timeout is None:
            worker.calls[0].begin()

    def _feed(self) -> None:
        """Give what waits to who can take it."""
        while self._pending:
            if self._idle:
                self._hand(self._idle.pop(), self._pending.popleft())
            elif len(self._workers) < self._most and self._wait is None:
                self._start(self._pending.popleft())
            elif (worker := self._quickest(_FEW)) is not None:
                while self._pending and len(worker.calls) <= AHEAD and worker.takes_more:
                    self._hand(worker, self._pending.popleft())
            else:
                return
        if self._idle:
            self._steal()

    async def withdraw(self, call: Call) -> None:
        """Have a job not done; one that has begun is stopped, and has ended when this returns."""
        worker = call.worker
        if worker is None:
            if call in self._pending:
                self._pending.remove(call)
            return
        back = worker.unbegun()
        self._pending.extendleft(one for one in reversed(back) if one is not call)
        if call in back:
            self._free(worker)
        elif worker.calls and worker.calls[-1] is call:
            self._stop(worker)
            await worker.dead.wait()
        self._feed()  # else it has ended already, and that is on its way

    def _stop(self, worker: Worker) -> None:
        worker.is_doomed = worker.is_told = True
        self._watch.begin()
        if self._template is not None:
            self._template.stop(worker.number, self._grace)

    def _free(self, worker: Worker) -> None:
        if worker.is_ready and not worker.calls and not worker.is_doomed and worker not in self._idle:
            if worker.left:
                self._idle.append(worker)
            else:
                self._retire(worker)

    def _retire(self, worker: Worker) -> None:
        """Let a worker end by itself; another one can be started meanwhile."""
        self._retired[worker.number] = self._workers.pop(worker.number)
        worker.dismiss()
        if self._template is not None:
            self._template.bury(worker.number, _FAREWELL)

    # ---------------------------------------------------------------- workers

    def _start(self, call: Call) -> None:
        self.prepare()
        assert self._template is not None
        try:
            worker = Worker(next(self._worker_numbers), self._loop, self._hear, self._mark, self._echo)
        except OSError as error:  # so many files cannot be open at once
            self._pending.appendleft(call)
            if self._workers:  # which do it all, too
                self._most = len(self._workers)
                _log.warning("there are %d worker processes, and cannot be more: %s", self._most, error)
            else:
                self._failed_to_start(str(error))
            return
        worker.left = self._most_jobs
        self._workers[worker.number] = worker
        worker.greet(self._hello(worker.number))
        worker.give(call)
        self._watch.begin()
        self._template.fork(worker.number, worker.files)

    def _hello(self, number: int) -> Hello:
        if self._plugins_sent is None:
            self._plugins_sent = _sent(self._plugins)
        script, package = script_of_program()
        return Hello(
            [*sys.path],
            [*sys.argv],
            _folder(),
            self._mark,
            levels(),
            script,
            package,
            self._environment,
            number,
            self._plugins_sent,
        )

    def _forked(self, number: int) -> None:
        for workers in (self._workers, self._retired):  # it may have done all that it is to do before this is heard
            if (worker := workers.get(number)) is not None:
                worker.leave_files()

    def _killed(self, number: int) -> None:
        if number in self._workers:
            worker = self._workers[number]
            worker.why = worker.why or "closed its connection to the program, and was killed"

    def _hear(self, worker: Worker, kind: int, number: int, body: bytes) -> None:
        if kind in (DONE, OUTCOME):
            call = worker.calls[0] if worker.calls else None
            if call is None or call.number != number:
                at = "none" if call is None else call.number
                raise RuntimeError(f"worker {worker.number} speaks of job {number}, and is at {at}")
            call.begin()
            if kind == DONE:
                outcome: Outcome | Exception = self._done(worker, call.job, body)
            else:
                outcome = _otherwise(body, worker.printed.ended())
            worker.calls.popleft()  # now that nothing can fail: whoever is among these is ended if the worker is
            if isinstance(outcome, Outcome):
                self._measure(outcome)
            call.end(*((None, outcome) if isinstance(outcome, Exception) else (outcome,)))
            if worker.calls:
                self._next_begins(worker)
            else:
                self._free(worker)
            if self._pending or self._idle:
                self._feed()
        elif kind in (MESSAGE, PUBLISH):
            if worker.calls and worker.calls[0].number == number:  # else it is of a thread that a job has left behind
                worker.calls[0].hear(body) if kind == MESSAGE else worker.calls[0].ask(body)
        else:
            self._hear_of_worker(worker, kind, number, body)

    def _hear_of_worker(self, worker: Worker, kind: int, number: int, body: bytes) -> None:
        if kind == LOG:
            worker.printed.note(handled(body))
        elif kind == BEGUN:
            worker.calls[0].begin()
        elif kind == READY:
            worker.is_ready, worker.pid = True, number
            self._failures = 0
            self._next_begins(worker)
            self._free(worker)
            self._feed()
        elif kind == HUNG_UP and self._template is not None and not worker.is_doomed:
            worker.is_doomed = True
            self._leave_out(worker)
            self._template.bury(worker.number)

    def _measure(self, outcome: Outcome) -> None:
        if (
            outcome.error is None or outcome.duration > self.pace
        ):  # what fails at once says nothing of how long others take
            self.pace += (outcome.duration - self.pace) / _MEMORY

    def _done(self, worker: Worker, job: Job, body: bytes) -> Outcome:
        seconds, where = done(body)
        return Outcome(
            state=State.SUCCEEDED,
            result=job.ref,
            duration=seconds,
            attempt=job.attempt,
            where=where,
            worker=f"{worker.pid}/MainThread",
            output=worker.printed.ended(),
        )

    # ---------------------------------------------------------------- what is lost

    def _died(self, number: int, status: int | None) -> None:
        """Take it that a worker is dead, and replace it if there is something to do."""
        if (retired := self._retired.pop(number, None)) is not None:
            retired.drain()
            retired.printed.ended()
            retired.close()
        worker = self._workers.get(number)
        if worker is None:
            return
        how = "could not be started" if status is None else worker.why or ended(status)
        self._bury(worker, how, for_memory=self._is_for_memory(status))
        if not worker.is_ready and not worker.is_told:
            self._failed_to_start(f"a worker {how}")
        self._feed()

    def _bury(self, worker: Worker, how: str, *, for_memory: bool = False) -> None:
        """Have what a dead worker was at failed; what it had not begun goes to others, and costs nobody anything."""
        worker.is_doomed = True  # it gets nothing more, whatever it has said last
        worker.drain()
        output = worker.printed.ended()
        self._leave_out(worker)
        self._pending.extendleft(reversed(worker.unbegun()))
        while worker.calls:
            call = worker.calls.popleft()
            call.begin()
            job = call.job
            lost: Exception = WorkerLostError(job.task, how, output[-_SAID:], for_memory=for_memory)
            if self._is_closing:
                lost = ExecutorLeftError(job.task, has_begun=True)
            call.end(
                Outcome(
                    state=State.FAILED,
                    error=lost,
                    attempt=job.attempt,
                    task=job.task,
                    worker=f"{worker.pid}",
                    output=output,
                )
            )
        del self._workers[worker.number]
        worker.close()

    def _late(self, worker: Worker, awaited: Awaited) -> None:
        """Replace who stands still: nothing that waits for it may wait for ever."""
        if self._template is None or self._is_closing:
            return
        if awaited in (Awaited.FORK, Awaited.END):
            _log.warning("the process that forks workers does nothing that it is asked, and is replaced with them")
            self._template.kill()
            self._lost_template("")
        elif awaited is Awaited.BEGIN:
            worker.why = (
                f"had not begun it after {self._start_timeout:g} seconds, since it was still importing, and was killed"
            )
            self._stop(worker)
        elif awaited is Awaited.START:
            worker.why = f"was not ready after {self._start_timeout:g} seconds, and was killed"
            worker.is_doomed = True
            self._template.stop(worker.number, 0)
        else:
            self._pending.extendleft(reversed(worker.unbegun()))
            if not worker.calls:  # it has not taken the first just now
                _log.warning("worker process %s stands still, and takes no job; it is replaced", worker.pid)
                worker.is_doomed = worker.is_told = True
                self._template.stop(worker.number, 0)
            self._feed()

    def _leave_out(self, worker: Worker) -> None:
        if worker in self._idle:
            self._idle.remove(worker)

    def _is_for_memory(self, status: int | None) -> bool:
        if status != 9 or self._killed_for_memory is None:
            return False
        before, self._killed_for_memory = self._killed_for_memory, kills_for_memory()
        return self._killed_for_memory is not None and self._killed_for_memory > before

    def _lost_template(self, said: str) -> None:
        """Take it that the template is dead, and with it all workers."""
        self._template = None
        while self._retired:
            self._retired.popitem()[1].close()
        for worker in [*self._workers.values()]:
            self._bury(worker, "was killed with the process that had forked it")
        if not self._is_closing:
            why = said or f"the process that forks them, {sys.executable}, has died"
            self._failed_to_start(why, is_hopeless=bool(said))

    def _failed_to_start(self, why: str, *, is_hopeless: bool = False) -> None:
        """Try again in a while; where that is no use, and no worker is there that would do it, fail what waits."""
        self._failures += 1
        is_served = any(worker.is_ready and not worker.is_doomed for worker in self._workers.values())
        if not is_served and (is_hopeless or self._failures >= _MOST_FAILURES):
            self._failures = 0
            waiting, self._pending = self._pending, deque()
            for call in waiting:
                call.end(None, WorkersNotStartedError(why))
        elif self._wait is None:
            _log.warning("a worker process could not be started: %s", why)
            self._wait = self._loop.later(_BACKOFF * 2 ** min(self._failures, _MOST_DOUBLINGS), self._try_again)

    def _try_again(self) -> None:
        self._wait = None
        self._feed()

    # ---------------------------------------------------------------- the end

    async def close(self) -> None:
        """End all workers: idle ones by themselves, others as if they were told to stop; nothing of them is left."""
        await self._end_workers()
        if self._echo is not None:
            self._echo.close()

    def _end_waiting(self) -> None:
        """Begin nothing more: no look, no worker and no job."""
        self._is_closing = True
        self._watch.end()
        if self._unglance is not None:
            self._unglance()
            self._unglance = None
        if self._wait is not None:
            self._wait()
        for call in self._pending:
            call.end(None, ExecutorLeftError(call.job.task))
        self._pending.clear()

    async def _end_workers(self) -> None:
        self._end_waiting()
        if self._template is None:
            return
        template = self._template
        if not self._workers and not self._retired:
            template.kill()
            return
        with anyio.CancelScope(shield=True), anyio.move_on_after(self._grace + _PATIENCE) as waiting:
            workers = [*self._workers.values(), *self._retired.values()]
            for worker in workers:
                if worker.calls or not worker.is_ready:
                    self._stop(worker)
                elif not worker.is_doomed:
                    worker.dismiss()
            self._idle.clear()
            for worker in workers:
                await worker.dead.wait()
        if waiting.cancelled_caught:  # it does nothing that it is asked
            template.kill()
        await template.end()
        for worker in [*self._workers.values()]:  # which have not ended in that time, or not been heard to
            self._bury(worker, "was killed")
        for worker in self._retired.values():
            worker.close()


def _otherwise(body: bytes, output: str) -> Outcome | Exception:
    """Return the outcome of a job that did not simply succeed, or why it cannot be known."""
    try:
        outcome: Outcome = pickle.loads(body)
    except Exception as error:  # noqa: BLE001  (an event that the body has published may hold anything)
        return error
    return msgspec.structs.replace(outcome, output=output)


def _sent(plugins: Any) -> bytes:
    """Return the plugins as workers get them: nothing if none of them wants to know of workers."""
    if plugins is None or not any(_WORKER_HOOKS.intersection(record.hooks) for record in plugins.installed):
        return b""
    return pickled(plugins)


def _folder() -> str:
    try:
        return os.getcwd()  # noqa: PTH109
    except FileNotFoundError:
        return ""
