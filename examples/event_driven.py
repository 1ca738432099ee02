"""A task that tells by an event what it has done, the run that this event starts, and what is told of both.

Needs ``pip install 'dpcore[examples]'``.  ``extract`` writes one year of the weather in Seattle into a file, and
says where it is; nobody calls ``transform``, which the event starts.  Both runs, and every event that comes of them,
carry the correlation id that the first one was given.

Prints::

    weather-2012: extract succeeded, transform succeeded, 177 wet days
    weather-2013: extract succeeded, transform succeeded, 152 wet days
    weather-2014: extract succeeded, transform succeeded, 150 wet days
    weather-2015: extract succeeded, transform succeeded, 144 wet days
    8 runs, of which 4 were started by an event
"""

import csv
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
from vega_datasets import data

from dpcore import App, current_job, task
from dpcore.events import CORRELATION_ID

YEARS = (2012, 2013, 2014, 2015)


@task
def extract(year: int, folder: Path) -> int:
    """Write the days of *year* into a file, and publish where it is, should this attempt succeed."""
    with Path(data.seattle_weather.filepath).open(encoding="utf-8", newline="") as file:
        days = [row for row in csv.DictReader(file) if row["date"].startswith(f"{year}")]
    path = folder / f"{year}.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, days[0])
        writer.writeheader()
        writer.writerows(days)
    current_job().publish("weather.extracted", {"year": year, "path": str(path)})
    return len(days)


@task
def transform(path: Path, year: int) -> int:
    """Count the days with rain or snow in a file that was extracted, and publish how many."""
    with path.open(encoding="utf-8", newline="") as file:
        wet = sum(float(row["precipitation"]) > 0 for row in csv.DictReader(file))
    current_job().publish("weather.transformed", {"year": year, "wet": wet})
    return wet


async def main(folder: Path) -> None:
    """Extract each year, and print what was told of all that came of it."""
    runs: dict[str, dict[str, str]] = defaultdict(dict)  # by correlation id, as what follows
    wet: dict[str, int] = {}
    by_event = 0
    async with App() as app, app.subscribe("$run.finished", "weather.transformed") as events:
        app.run_on("weather.extracted", [transform], params=lambda event: event.data)
        for year in YEARS:
            params, metadata = {"year": year, "folder": folder}, {"correlation_id": f"weather-{year}"}
            await app.run(extract, params=params, metadata=metadata)
        for _ in range(3 * len(YEARS)):  # of each year: two runs, and what the second one has published
            event = await anext(events)
            correlation = (event.headers or {})[CORRELATION_ID]
            if event.topic == "$run.finished":
                runs[correlation] |= event.data["tasks"]
                by_event += "event" in event.data["metadata"]
            else:
                wet[correlation] = event.data["wet"]
    for correlation, states in sorted(runs.items()):
        went = ", ".join(f"{name} {state}" for name, state in sorted(states.items()))
        print(f"{correlation}: {went}, {wet[correlation]} wet days")
    print(f"{sum(map(len, runs.values()))} runs, of which {by_event} were started by an event")


if __name__ == "__main__":
    with TemporaryDirectory() as name:
        anyio.run(main, Path(name))
