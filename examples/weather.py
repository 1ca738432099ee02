"""Four years of weather in Seattle: how wet is it, really?

Needs ``pip install 'dpcore[examples]'``.  Run all of it, or ask about one year::

    python examples/weather.py
    dpcore run examples/weather.py --param year=2015

Prints::

    It rained or snowed on 623 of 1,461 days, 4,426.0 mm in all.
    The wettest month is December (65% of its days), the driest July (9%).
    The longest dry spell was 48 days, from 23 July 2012.
    The hottest day was 11 August 2014 with 35.6 degrees.
"""

import pandas as pd
from vega_datasets import data

from dpcore import run, task


@task
def days(year: int | None = None) -> pd.DataFrame:
    """Read the daily observations from 2012 to 2015, or those of one year."""
    table = pd.read_csv(data.seattle_weather.filepath, parse_dates=["date"])
    return table if year is None else table[table["date"].dt.year == year]


@task
def wet(days: pd.DataFrame) -> pd.Series:
    """Give the share of days with any precipitation, month by month."""
    return (days["precipitation"] > 0).groupby(days["date"].dt.month_name(), sort=False).mean()


@task
def dry_spell(days: pd.DataFrame) -> pd.DataFrame:
    """Find the longest time without precipitation."""
    dry = days[days["precipitation"] == 0]
    spells = dry.groupby((dry["date"].diff() != pd.Timedelta(days=1)).cumsum())
    return max((spell for _, spell in spells), key=len)


@task
def hottest(days: pd.DataFrame) -> pd.Series:
    """Find the day with the highest temperature, the first of several."""
    return days.loc[days["temp_max"].idxmax()]


@task
def report(days: pd.DataFrame, wet: pd.Series, dry_spell: pd.DataFrame, hottest: pd.Series) -> str:
    """Answer in four lines."""
    return "\n".join(
        [
            f"It rained or snowed on {(days['precipitation'] > 0).sum()} of {len(days):,} days, {days['precipitation'].sum():,.1f} mm in all.",
            f"The wettest month is {wet.idxmax()} ({wet.max():.0%} of its days), the driest {wet.idxmin()} ({wet.min():.0%}).",
            f"The longest dry spell was {len(dry_spell)} days, from {dry_spell['date'].iloc[0]:%d %B %Y}.",
            f"The hottest day was {hottest['date']:%d %B %Y} with {hottest['temp_max']} degrees.",
        ]
    )


if __name__ == "__main__":
    print(run()["report"])
