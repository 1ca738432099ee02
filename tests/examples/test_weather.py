"""The weather pipeline computes what the plain csv module computes, on all of its days and on each year."""

from __future__ import annotations

import csv
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

import dpcore
from dpcore.testing import RunTasks

if not os.environ.get("DPCORE_REQUIRE_SERVICES"):
    for name in ("vega_datasets", "pandas"):
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed: pip install 'dpcore[examples]'", allow_module_level=True)

SCRIPT = Path(__file__).parents[2] / "examples" / "weather.py"
YEARS = [None, 2012, 2013, 2014, 2015]

Day = tuple[date, float, float]
Rows = Callable[[int | None], list[Day]]


@pytest.fixture(scope="module")
def weather() -> Iterator[ModuleType]:
    """Import the example under its stem, as ``dpcore run`` does, and take its tasks out of the registry again."""
    before = set(dpcore.registry)
    spec = spec_from_file_location("weather", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["weather"] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        for name in set(dpcore.registry) - before:
            dpcore.registry.remove(name)
        del sys.modules["weather"]


@pytest.fixture(scope="module")
def rows() -> Rows:
    """The days of a year, or all of them: date, precipitation, highest temperature."""
    package = find_spec("vega_datasets")
    assert package is not None
    assert package.submodule_search_locations
    file = Path(package.submodule_search_locations[0], "_data", "seattle-weather.csv")
    with file.open(encoding="utf-8", newline="") as lines:
        found = [
            (datetime.strptime(row["date"], "%Y/%m/%d").date(), float(row["precipitation"]), float(row["temp_max"]))
            for row in csv.DictReader(lines)
        ]
    return lambda year: [day for day in found if year in (None, day[0].year)]


@pytest.fixture
def result(weather: ModuleType, run_tasks: RunTasks, year: int | None) -> dpcore.Result:
    tasks = (weather.days, weather.wet, weather.dry_spell, weather.hottest, weather.report)
    return run_tasks(*tasks, params={} if year is None else {"year": str(year)})


def test_the_data_are_four_whole_years(rows: Rows) -> None:
    days = [day for day, _, _ in rows(None)]
    assert (days[0], days[-1], len(days)) == (date(2012, 1, 1), date(2015, 12, 31), 1461)
    assert all(later - earlier == timedelta(days=1) for earlier, later in pairwise(days))


@pytest.mark.parametrize("year", YEARS)
def test_the_share_of_wet_days_is_that_of_each_month(result: dpcore.Result, rows: Rows, year: int | None) -> None:
    months: dict[str, list[bool]] = defaultdict(list)
    for day, rain, _ in rows(year):
        months[f"{day:%B}"].append(rain > 0)
    assert result["wet"].to_dict() == pytest.approx({name: sum(wet) / len(wet) for name, wet in months.items()})
    assert len(months) == 12


@pytest.mark.parametrize("year", YEARS)
def test_the_dry_spell_is_the_longest_one_and_the_first_of_its_length(
    result: dpcore.Result, rows: Rows, year: int | None
) -> None:
    spells: list[list[date]] = [[]]
    for day, rain, _ in rows(year):
        if rain:
            spells.append([])
        else:
            spells[-1].append(day)
    assert [day.date() for day in result["dry_spell"]["date"]] == max(spells, key=len)


@pytest.mark.parametrize("year", YEARS)
def test_the_hottest_day_is_the_first_with_the_highest_temperature(
    result: dpcore.Result, rows: Rows, year: int | None
) -> None:
    day, _, highest = max(rows(year), key=lambda row: row[2])
    assert (result["hottest"]["date"].date(), result["hottest"]["temp_max"]) == (day, highest)


@pytest.mark.parametrize("year", YEARS)
def test_the_report_says_all_of_it(result: dpcore.Result, rows: Rows, year: int | None) -> None:
    days = rows(year)
    wet, rain = sum(rain > 0 for _, rain, _ in days), sum(rain for _, rain, _ in days)
    first, *others = result["report"].splitlines()
    assert first == f"It rained or snowed on {wet} of {len(days):,} days, {rain:,.1f} mm in all."
    assert [line.split()[1] for line in others] == ["wettest", "longest", "hottest"]
    assert f"{len(result['dry_spell'])} days" in others[1]
    assert f"{result['hottest']['temp_max']} degrees" in others[2]


@pytest.mark.parametrize("year", [None])
def test_a_longest_dry_spell_of_48_days_began_in_july_2012(result: dpcore.Result) -> None:
    assert (len(result["dry_spell"]), f"{result['dry_spell']['date'].iloc[0]:%Y-%m-%d}") == (48, "2012-07-23")
