"""When a cron trigger fires is what the written rule says, round every change of the clocks and far from them.

The rule is told by an oracle that walks real time (:mod:`tests.scheduling.oracle`); here it is
compared with the trigger over every change of the clocks of three years in nine zones, with cases
written out by hand, with Debian's cron as cronsim has it, and over random expressions and instants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import islice, pairwise, product
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from dpcore_plugins import CronTrigger
from tests.scheduling import oracle
from tests.scheduling.oracle import DAY, HOUR, MINUTE, SECOND, fires, fires_by_wall_times, is_interval_like, transitions

INSTANT = timedelta(microseconds=1)
YEARS = 2025, 2027

ZONES = {
    "Europe/Berlin": "an hour, at night",
    "America/New_York": "an hour, at night, west of Greenwich",
    "Australia/Lord_Howe": "half an hour",
    "Africa/Cairo": "an hour, ahead from midnight and back to the day before",
    "America/Santiago": "the same, south of the equator",
    "Africa/Casablanca": "an hour back for Ramadan and ahead after it, by the moon",
    "Asia/Beirut": "ahead from midnight, back to the day before",
    "America/Nuuk": "the last hour of a day is left out, or comes twice",
    "Pacific/Chatham": "an hour, at a quarter to the hour",
}

FIXED = (
    "30 2 * * *",
    "0 2 * * *",
    "0 3 * * *",
    "0 0 * * *",
    "15 0 * * *",
    "59 23 * * *",
    "15 2 * * *",
    "45 1 * * *",
    "30 1-3 * * *",
    "0,30 2,3 * * *",
    "5/20 1 * * *",
    "0 0-23 * * *",
    "0-59 2 * * *",
    "0-59/7 0-4/2 * * *",
    "0 23/2 * * *",
    "30 2 * * SUN",
    "30 2 * * 0",
    "30 2 * * 7",
    "30 23 * * sat",
    "0 0 * * MON-FRI",
    "0 0 * * 5-7",
    "30 2 L * *",
    "0 1 28,L * *",
    "45 2 * * 0#1",
    "30 0 * * 5#4",
    "30 1 * * L0",
    "30 23 * * L6",
    "0 0 1 * *",
    "30 2 ? * SUN",
    "30 2 29 * ?",
    "0 2 29 MAR *",
    "30 2 */2 * *",
    "30 1 1-7 * SUN",
    "45 2 20-31 * FRI,SAT",
    "0 0 */2 * MON-SAT/2",
    "30 2 * mar-apr,OCT *",
    "@daily",
    "@midnight",
    "@weekly",
    "@monthly",
    "@yearly",
    "@annually",
    "0 30 2 * * *",
    "15,45 30 2 * * *",
    "59 59 23 * * *",
    "0-10/5 0 1-3 * * SUN",
    "0 30 2 L * ?",
    "30/15 0 0 ? * 5-7",
    "0 30 2 * * * 2026",
    "0 0 0 * * * 2025-2027/2",
    "0 15 2 * * SUN,SAT *",
    "20 30 1 29 MAR ? 2025,2026",
)

INTERVAL_LIKE = (
    "0 * * * *",
    "30 * * * *",
    "17 * * * *",
    "*/30 2 * * *",
    "*/15 0-4 * * 0",
    "*/10 1,2 * * *",
    "*/20 0 * * *",
    "15 */2 * * *",
    "0 */6 * * *",
    "*/7 */3 * * *",
    "30 */2 * * SUN",
    "45 * L * *",
    "0 */2 */2 * *",
    "15 * */2 * SUN",
    "20 * * * L5",
    "*/30 23 * * SAT#5,SUN#1",
    "@hourly",
    "0 */20 2 * * *",
    "30 15 */2 * * *",
    "*/20 30 2 * * *",
    "*/30 59 1 * * ?",
    "0 30 * * * * 2026",
    "*/30 0 0 * * * 2025-2026",
)

DENSE = (
    "* * * * *",
    "*/5 * * * *",
    "* 2 * * *",
    "0 * * * * *",
    "*/20 */10 * * * *",
    "* 30 2 * * *",
    "10-50/20 * * ? * SUN 2025-2027",
)

EXPRESSIONS = FIXED + INTERVAL_LIKE + DENSE

POLICIES = (
    {"gap": "skip"},
    {"overlap": "second"},
    {"overlap": "both"},
    {"gap": "skip", "overlap": "both"},
)

SELDOM = (
    "30 2 * * *",
    "0 0 * * MON",
    "*/30 2 * * 0",
    "0 0 1 * *",
    "0 3 31 * *",
    "15 2 L * *",
    "0 0 13 * FRI",
    "30 2 * * SUN#5",
    "0 1 * * 0#1,7#3",
    "30 1 * * L7",
    "0 0 29 2 *",
    "0 0 29 2 MON",
    "0 12 L 2,6 *",
    "@weekly",
    "@yearly",
    "0 30 2 ? * L0 2026",
    "10 0 0 1 JAN,JUL ? 2024-2030/3",
    "0 0 12 31 12 * 2025",
)


def every_zone() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("zone", ZONES, ids=lambda zone: zone.partition("/")[2])


def windows(zone: str, reach: timedelta) -> list[tuple[datetime, datetime]]:
    """From *reach* before to *reach* after every change of the clocks."""
    return [(change - reach, change + reach) for change in transitions(zone, *YEARS)]


def stepped(expression: str, start: datetime, end: datetime, **how: str) -> Iterator[datetime]:
    """Take one fire after the other, each from a trigger that has not fired before."""
    after = start - INSTANT
    while (fire := CronTrigger(expression, **how).next_fire(after)) is not None and fire < end:
        yield fire
        after = fire


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


# ---------------------------------------------------------------- round every change of the clocks


@every_zone()
def test_three_days_before_and_after_every_change_of_the_clocks_the_fires_are_the_rules(zone):
    assert differences(FIXED + INTERVAL_LIKE, zone, 3 * DAY) == []


@every_zone()
def test_what_fires_every_minute_or_every_second_fires_as_ruled_for_hours_round_every_change(zone):
    by_minutes = tuple(filter(is_by_minutes, DENSE))
    assert differences(by_minutes, zone, 2 * HOUR) == []
    assert differences(tuple(set(DENSE) - set(by_minutes)), zone, 31 * MINUTE) == []


@every_zone()
def test_every_other_policy_for_the_gap_and_the_overlap_is_the_rules_too(zone):
    assert differences(FIXED, zone, 4 * HOUR, *POLICIES) == []


@every_zone()
def test_policies_change_nothing_for_what_fires_at_intervals(zone):
    assert differences(INTERVAL_LIKE, zone, 2 * HOUR, *POLICIES) == []


@every_zone()
def test_one_fire_after_the_other_from_fresh_triggers_is_the_same_as_all_at_once(zone):
    for expression in EXPRESSIONS:
        reach = 26 * HOUR if expression in FIXED else 16 * MINUTE if expression in DENSE else 7 * HOUR
        for start, end in windows(zone, reach):
            found = list(stepped(expression, start, end, timezone=zone))
            assert found == list(CronTrigger(expression, timezone=zone).between(start, end)), expression
            assert found == CronTrigger(expression, timezone=zone).upcoming(len(found), start - INSTANT), expression


def differences(expressions: tuple[str, ...], zone: str, reach: timedelta, *policies: dict[str, str]) -> list[str]:
    """Where, round which change, which of *expressions* fires otherwise than it should."""
    found, ways = [], list(product(expressions, policies or ({},)))
    triggers = [CronTrigger(expression, timezone=zone, **policy) for expression, policy in ways]
    for start, end in windows(zone, reach):
        for trigger, (expression, policy) in zip(triggers, ways, strict=True):
            fired, expected = list(trigger.between(start, end)), fires(expression, zone, start, end, **policy)
            if fired != expected:
                found.append(f"{expression!r} {policy} from {start}: {apart(fired, expected, zone)}")
    return found


def apart(fired: list[datetime], expected: list[datetime], zone: str) -> str:
    missing, extra = told(sorted(set(expected) - set(fired)), zone), told(sorted(set(fired) - set(expected)), zone)
    return f"missing {missing or 'none'}, too many {extra or 'none'}, {len(fired)} for {len(expected)}"


def told(fired: Iterable[datetime], zone: str) -> str:
    """The fires as a clock there shows them."""
    return " ".join(shown(fire.astimezone(ZoneInfo(zone))) for fire in fired)


def shown(fire: datetime) -> str:
    offset = fire.utcoffset()
    assert offset is not None
    return f"{fire:%H:%M:%S}".removesuffix(":00") + f"{offset / HOUR:+g}"


def is_by_minutes(expression: str) -> bool:
    return len(expression.split()) == 5


def test_every_zone_changes_its_clocks_in_every_year_and_every_expression_is_as_it_is_filed():
    for zone in ZONES:
        assert {change.year for change in transitions(zone, *YEARS)} == {2025, 2026, 2027}
        assert len(transitions(zone, *YEARS)) >= 6
    assert not any(map(is_interval_like, FIXED))
    assert all(map(is_interval_like, INTERVAL_LIKE + DENSE))
    assert len(set(EXPRESSIONS)) >= 80


# ---------------------------------------------------------------- whole years


@every_zone()
def test_what_fires_seldom_fires_as_ruled_for_three_years(zone):
    for expression in SELDOM:
        fired = CronTrigger(expression, timezone=zone).between(*three_years())
        assert list(fired) == fires_by_wall_times(expression, zone, *three_years()), expression


@pytest.mark.parametrize(
    "expression",
    ["0 0 13 * FRI", "30 2 1 * SUN#2", "0 2 31 * 0#4,5#1", "20 * 1-7,20-31 * L5", "0 12 L 2,6 L3", "30 2 1 */2 L0"],
)
@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Santiago"])
def test_either_day_field_is_enough_also_where_it_names_the_second_friday_or_the_last(zone, expression):
    fired = CronTrigger(expression, timezone=zone).between(*three_years())
    assert list(fired) == fires_by_wall_times(expression, zone, *three_years())


@pytest.mark.parametrize(
    "expression", ["0 0 13 * FRI", "30 2 1-7 * SUN", "0 0 */2 * MON", "30 2 L * L0", "0 12 29 2 *", "0 0 8-14 * 2#2"]
)
@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Santiago"])
def test_both_day_fields_must_match_where_either_is_not_enough(zone, expression):
    fired = CronTrigger(expression, timezone=zone, day_or=False).between(*three_years())
    assert list(fired) == fires_by_wall_times(expression, zone, *three_years(), day_or=False)


def three_years() -> tuple[datetime, datetime]:
    return datetime(YEARS[0], 1, 1, tzinfo=UTC), datetime(YEARS[1] + 1, 1, 1, tzinfo=UTC)


def test_either_day_field_is_enough_and_both_are_too_many_only_where_that_is_asked():
    fridays_and_the_13th = CronTrigger("0 0 13 * FRI").upcoming(4, at("2026-02-09T00:00Z"))
    fridays_the_13th = CronTrigger("0 0 13 * FRI", day_or=False).upcoming(4, at("2026-02-09T00:00Z"))
    assert [f"{fire:%a %d.%m.%y}" for fire in fridays_and_the_13th] == [
        "Fri 13.02.26",
        "Fri 20.02.26",
        "Fri 27.02.26",
        "Fri 06.03.26",
    ]
    assert [f"{fire:%a %d.%m.%y}" for fire in fridays_the_13th] == [
        "Fri 13.02.26",
        "Fri 13.03.26",
        "Fri 13.11.26",
        "Fri 13.08.27",
    ]


@pytest.mark.parametrize(
    ("expression", "the_same"),
    [
        ("5-5 * * * *", "5 * * * *"),
        ("0 0 1-1 JAN-JAN *", "0 0 1 1 *"),
        ("0 0 * * MON-MON", "0 0 * * 1"),
        ("0 3-3/2 * * *", "0 3 * * *"),
        ("59/15 * * * *", "59 * * * *"),
        ("0 23/6 * * *", "0 23 * * *"),
        ("0 0 * * 0-6", "0 0 * * *"),
        ("0 0 * * 5-7", "0 0 * * SUN,FRI,SAT"),
        ("0 0 ? * ?", "0 0 * * *"),
        ("0 0 * * L7", "0 0 * * L0"),
        ("0 0 * * 7#2", "0 0 * * SUN#2"),
        ("0 0 * * 1#1,L1", "0 0 * * L1,1#1"),
        ("0 5 * * * *", "5 * * * *"),
        ("0 5 * * * * *", "5 * * * *"),
        ("  5  *\t* * * ", "5 * * * *"),
        ("05 00 * * *", "5 0 * * *"),
        ("@Daily", "0 0 * * *"),
    ],
)
def test_two_ways_to_write_the_same(expression, the_same):
    start = at("2026-05-01T00:00Z")
    assert CronTrigger(expression).upcoming(40, start) == CronTrigger(the_same).upcoming(40, start)


# ---------------------------------------------------------------- cases that are read by eye


BERLIN_GAP, BERLIN_OVERLAP = ("Europe/Berlin", "2026-03-29T00:00"), ("Europe/Berlin", "2026-10-25T00:00")
NEW_YORK_GAP, NEW_YORK_OVERLAP = ("America/New_York", "2026-03-08T00:00"), ("America/New_York", "2026-11-01T00:00")
LORD_HOWE_GAP, LORD_HOWE_OVERLAP = (
    ("Australia/Lord_Howe", "2025-10-05T00:00"),
    ("Australia/Lord_Howe", "2025-04-06T00:00"),
)

CASES = [
    # what names a time that does not exist fires once, where the clocks go on
    (BERLIN_GAP, "30 2 * * *", {}, "03:00+2"),
    (BERLIN_GAP, "0 2 * * *", {}, "03:00+2"),
    (BERLIN_GAP, "0-59 2 * * *", {}, "03:00+2"),
    (BERLIN_GAP, "30 1-3 * * *", {}, "01:30+1 03:00+2 03:30+2"),
    (BERLIN_GAP, "0,30 2,3 * * *", {}, "03:00+2 03:30+2"),
    (BERLIN_GAP, "0 30 2 * * *", {}, "03:00+2"),
    (BERLIN_GAP, "0 30 2 * * * 2026", {}, "03:00+2"),
    (BERLIN_GAP, "0 30 2 * * * 2027", {}, ""),
    (NEW_YORK_GAP, "30 2 * * *", {}, "03:00-4"),
    (LORD_HOWE_GAP, "15 2 * * *", {}, "02:30+11"),
    (LORD_HOWE_GAP, "0,15,30,45 2 * * *", {}, "02:30+11 02:45+11"),
    # also where that is midnight
    (("Africa/Cairo", "2025-04-25T00:00"), "0 0 * * *", {}, "01:00+3"),
    (("Africa/Cairo", "2025-04-25T00:00"), "30 0 * * FRI", {}, "01:00+3"),
    (("America/Santiago", "2025-09-07T00:00"), "@daily", {}, "01:00-3"),
    (("America/Santiago", "2025-09-07T00:00"), "@weekly", {}, "01:00-3"),
    (("Asia/Beirut", "2025-03-30T00:00"), "0 0 * * *", {}, "01:00+3"),
    (("America/Nuuk", "2025-03-29T20:00"), "30 23 * * SAT", {}, "00:00-1"),
    (("America/Nuuk", "2025-03-29T20:00"), "0 0 * * *", {}, "00:00-1"),
    (("America/Nuuk", "2025-03-29T20:00"), "0,30 23,0 * * *", {}, "00:00-1 00:30-1"),
    (("America/Nuuk", "2025-03-29T20:00"), "30 23 * * SUN", {}, ""),
    # or not at all
    (BERLIN_GAP, "30 2 * * *", {"gap": "skip"}, ""),
    (BERLIN_GAP, "30 1-3 * * *", {"gap": "skip"}, "01:30+1 03:30+2"),
    (BERLIN_GAP, "0,30 2,3 * * *", {"gap": "skip"}, "03:00+2 03:30+2"),
    (BERLIN_GAP, "0 30 2 * * *", {"gap": "skip"}, ""),
    (("Africa/Cairo", "2025-04-25T00:00"), "0 0 * * *", {"gap": "skip"}, ""),
    # what fires at intervals makes nothing up
    (BERLIN_GAP, "*/30 2 * * *", {}, ""),
    (BERLIN_GAP, "15 */2 * * *", {}, "00:15+1 04:15+2"),
    (BERLIN_GAP, "0 * * * *", {}, "00:00+1 01:00+1 03:00+2 04:00+2 05:00+2"),
    (BERLIN_GAP, "*/30 1-3 * * *", {}, "01:00+1 01:30+1 03:00+2 03:30+2"),
    (BERLIN_GAP, "*/30 30 2 * * *", {}, ""),
    (BERLIN_GAP, "0 */30 2,3 * * *", {}, "03:00+2 03:30+2"),
    (LORD_HOWE_GAP, "*/15 2 * * *", {}, "02:30+11 02:45+11"),
    (("Africa/Cairo", "2025-04-25T00:00"), "*/30 0 * * *", {}, ""),
    (("Asia/Beirut", "2025-03-30T00:00"), "0 */2 * * SUN", {}, "02:00+3 04:00+3"),
    # what names a time that comes twice fires at its first
    (BERLIN_OVERLAP, "30 2 * * *", {}, "02:30+2"),
    (BERLIN_OVERLAP, "30 1-3 * * *", {}, "01:30+2 02:30+2 03:30+1"),
    (BERLIN_OVERLAP, "0 0-23 * * *", {}, "00:00+2 01:00+2 02:00+2 03:00+1"),
    (BERLIN_OVERLAP, "0 30 2 * * *", {}, "02:30+2"),
    (NEW_YORK_OVERLAP, "30 1 * * *", {}, "01:30-4"),
    (LORD_HOWE_OVERLAP, "45 1 * * *", {}, "01:45+11"),
    (LORD_HOWE_OVERLAP, "15,45 1 * * *", {}, "01:15+11 01:45+11"),
    (("Africa/Cairo", "2025-10-30T20:00"), "30 23 * * *", {}, "23:30+3"),
    (("America/Nuuk", "2025-10-25T20:00"), "30 23 * * SAT", {}, "23:30-1"),
    # or at its second, or at both
    (BERLIN_OVERLAP, "30 2 * * *", {"overlap": "second"}, "02:30+1"),
    (BERLIN_OVERLAP, "30 1-3 * * *", {"overlap": "second"}, "01:30+2 02:30+1 03:30+1"),
    (BERLIN_OVERLAP, "30 2 * * *", {"overlap": "both"}, "02:30+2 02:30+1"),
    (BERLIN_OVERLAP, "0,30 2 * * *", {"overlap": "both"}, "02:00+2 02:30+2 02:00+1 02:30+1"),
    (BERLIN_OVERLAP, "0 30 2 * * *", {"overlap": "second"}, "02:30+1"),
    (LORD_HOWE_OVERLAP, "45 1 * * *", {"overlap": "both"}, "01:45+11 01:45+10.5"),
    (("Africa/Cairo", "2025-10-30T20:00"), "30 23 * * *", {"overlap": "second"}, "23:30+2"),
    # what fires at intervals takes each real one
    (BERLIN_OVERLAP, "0 * * * *", {}, "00:00+2 01:00+2 02:00+2 02:00+1 03:00+1"),
    (BERLIN_OVERLAP, "*/30 2 * * *", {}, "02:00+2 02:30+2 02:00+1 02:30+1"),
    (BERLIN_OVERLAP, "30 */2 * * *", {}, "00:30+2 02:30+2 02:30+1"),
    (NEW_YORK_OVERLAP, "*/30 59 1 * * *", {}, "01:59-4 01:59:30-4 01:59-5 01:59:30-5"),
    (LORD_HOWE_OVERLAP, "*/15 1 * * *", {}, "01:00+11 01:15+11 01:30+11 01:45+11 01:30+10.5 01:45+10.5"),
    (LORD_HOWE_OVERLAP, "0 2-4 * * *", {}, "02:00+10.5 03:00+10.5 04:00+10.5"),
    (LORD_HOWE_OVERLAP, "0 * * * *", {}, "00:00+11 01:00+11 02:00+10.5 03:00+10.5 04:00+10.5"),
    # a day that an island left out when it crossed the date line
    (("Pacific/Apia", "2011-12-31T00:00"), "0 12 * * FRI", {}, "00:00+14"),
    (("Pacific/Apia", "2011-12-31T00:00"), "0 0-23/6 * * *", {}, "00:00+14"),
    (("Pacific/Apia", "2011-12-31T00:00"), "0 12 * * FRI", {"gap": "skip"}, ""),
    (("Pacific/Apia", "2011-12-31T00:00"), "0 */3 * * *", {}, "00:00+14 03:00+14"),
]


@pytest.mark.parametrize(("night", "expression", "policy", "expected"), CASES)
def test_in_the_five_hours_in_which_the_clocks_change(night, expression, policy, expected):
    zone, begins = night
    start = at(begins).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    fired = CronTrigger(expression, timezone=zone, **policy).between(start, start + 5 * HOUR)
    assert told(fired, zone) == expected
    assert told(fires(expression, zone, start, start + 5 * HOUR, **policy), zone) == expected


def test_where_the_clocks_skip_three_quarters_of_an_hour_and_half_a_minute_the_fire_is_at_the_first_second_there_is():
    """Monrovia kept UTC-0:44:30 until the seventh of January 1972, at midnight."""
    start, end = at("1972-01-06T22:00Z"), at("1972-01-07T03:00Z")
    for expression in ("0 0 * * *", "30 0,1 * * *", "0 * * * *", "*/15 0-2 * * *", "20 44 0 * * *", "40 44 0 * * *"):
        fired = list(CronTrigger(expression, timezone="Africa/Monrovia").between(start, end))
        assert fired == fires(expression, "Africa/Monrovia", start, end), expression
    [midnight] = CronTrigger("0 0 * * *", timezone="Africa/Monrovia").between(start, end)
    assert midnight == at("1972-01-07T00:44:30Z")


# ---------------------------------------------------------------- Debian's cron


OFF_THE_HOUR = {"Australia/Lord_Howe", "Pacific/Chatham"}
"""Zones of a change by half an hour, or at a quarter to it.

cronsim goes on by whole hours, so that after such a change it is in the middle of one, and misses
what there was before; over ``*/7 */3 * * *`` in Chatham it goes round for ever.
"""

AT_MIDNIGHT = {"Africa/Cairo", "America/Santiago", "Asia/Beirut"}
"""Zones with a day whose midnight is left out.

Where not every day will do, cronsim goes on to the midnight of the next that does; there it is 01:00
instead, and it fires then, whether 01:00 was named or not.
"""


def is_cronsims_slip(zone: str, expression: str) -> bool:
    """Say whether cronsim may differ: only over what fires at intervals, which is where it walks real time."""
    if not is_interval_like(expression):
        return False
    every_day = debians(expression).split()[2:] == ["*", "*", "*"]
    return zone in OFF_THE_HOUR or (zone in AT_MIDNIGHT and not every_day)


def debians(expression: str) -> str:
    """Write *expression* as cronsim reads it: ``5L`` for the last Friday, and no names for whole expressions."""
    *fields, weekday = oracle.ALIASES.get(expression, expression).replace("?", "*").split()
    return " ".join([*fields, weekday[1:] + "L" if weekday.startswith("L") else weekday])


def debian_fires(expression: str, zone: str, start: datetime, end: datetime) -> list[datetime]:
    found = []
    for fire in CronSim(debians(expression), (start - SECOND).astimezone(ZoneInfo(zone))):
        if fire.astimezone(UTC) >= end:
            break
        found.append(fire.astimezone(UTC))
    return found


@every_zone()
def test_debians_cron_fires_at_the_same_instants(zone):
    compared = fired = 0
    for expression in (one for one in EXPRESSIONS if one.startswith("@") or is_by_minutes(one)):
        if is_cronsims_slip(zone, expression):
            continue
        trigger = CronTrigger(expression, timezone=zone)
        for start, end in windows(zone, 14 * HOUR if expression not in DENSE else 2 * HOUR):
            expected = debian_fires(expression, zone, start, end)
            assert list(trigger.between(start, end)) == expected, (expression, start)
            assert fires(expression, zone, start, end) == expected, (expression, start)
            compared, fired = compared + 1, fired + len(expected)
    assert compared >= 250
    assert fired >= 500


# ---------------------------------------------------------------- far away, and from elsewhere


@pytest.mark.parametrize(
    ("zone", "year"),
    [("America/New_York", 1971), ("Europe/Rome", 1971), ("Africa/Cairo", 1971)]
    + [(zone, 2099) for zone in ZONES if "Casa" not in zone]
    + [(zone, 2100) for zone in ZONES if "Casa" not in zone],
)
def test_the_rule_holds_in_the_last_century_and_in_the_next(zone, year):
    changes = transitions(zone, year, year)
    assert len(changes) == 2
    for change in changes:
        start, end = change - 26 * HOUR, change + 26 * HOUR
        for expression in ("30 2 * * *", "0 0 * * *", "*/30 * * * *", "0 30 1 * * *", "15 0 2 * * * *"):
            fired = CronTrigger(expression, timezone=zone).between(start, end)
            assert list(fired) == fires(expression, zone, start, end), expression


def test_a_leap_day_is_found_across_the_century_that_has_none():
    assert CronTrigger("0 0 29 2 *").upcoming(2, at("2093-01-01T00:00Z")) == [
        at("2096-02-29T00:00Z"),
        at("2104-02-29T00:00Z"),
    ]
    mondays = CronTrigger("0 0 29 FEB MON", day_or=False)
    assert mondays.next_fire(at("2016-02-29T00:00Z")) == at("2044-02-29T00:00Z")
    assert mondays.next_fire(at("2072-02-29T00:00Z")) == at("2112-02-29T00:00Z")


def test_there_is_none_any_more_after_the_last_year_that_is_named():
    trigger = CronTrigger("0 0 3 1 1 * 2024-2026", timezone="Asia/Tokyo")
    assert trigger.upcoming(5, at("2024-06-01T00:00Z")) == [at("2024-12-31T18:00Z"), at("2025-12-31T18:00Z")]
    assert trigger.next_fire(at("2025-12-31T18:00Z")) is None
    assert trigger.upcoming(5, at("2030-01-01T00:00Z")) == []
    assert list(trigger.between(at("2026-01-01T00:00Z"), at("2040-01-01T00:00Z"))) == []
    assert CronTrigger("0 0 3 1 1 * 2000").next_fire(at("2026-01-01T00:00Z")) is None


def test_there_is_none_any_more_at_the_end_of_time():
    assert CronTrigger("0 0 * * *").next_fire(at("9999-12-31T12:00Z")) is None


def test_from_wherever_the_instant_is_told_the_next_fire_is_the_same():
    elsewhere = [ZoneInfo("Asia/Tokyo"), ZoneInfo("America/New_York"), timezone(timedelta(hours=-3, minutes=-30))]
    for zone in ZONES:
        trigger = CronTrigger("30 0-3 * * *", timezone=zone, overlap="both")
        for change in transitions(zone, *YEARS):
            for minutes in range(-150, 150, 25):
                after = change + minutes * MINUTE
                told_elsewhere = [after.astimezone(place) for place in (*elsewhere, ZoneInfo(zone))]
                assert {trigger.next_fire(place) for place in told_elsewhere} == {trigger.next_fire(after)}


def test_the_second_time_that_the_clocks_show_the_instant_is_told_by_its_fold():
    berlin = ZoneInfo("Europe/Berlin")
    trigger = CronTrigger("50 2 * * *", timezone="Europe/Berlin", overlap="both")
    first, second = (datetime(2026, 10, 25, 2, 45, tzinfo=berlin, fold=fold) for fold in (0, 1))
    assert trigger.next_fire(first) == at("2026-10-25T00:50Z")
    assert trigger.next_fire(second) == at("2026-10-25T01:50Z")
    assert CronTrigger("50 2 * * *", timezone="Europe/Berlin").next_fire(second) == at("2026-10-26T01:50Z")
    assert CronTrigger("0 1 * * *").next_fire(first) == at("2026-10-25T01:00Z")
    assert CronTrigger("0 1 * * *").next_fire(second) == at("2026-10-26T01:00Z")
    assert list(trigger.between(first, second)) == [at("2026-10-25T00:50Z")]


def test_a_wall_time_that_does_not_exist_is_the_instant_that_python_takes_it_for():
    nowhere = datetime(2026, 3, 29, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    assert nowhere.astimezone(UTC) == at("2026-03-29T01:30Z")
    assert CronTrigger("*/20 * * * *", timezone="Europe/Berlin").next_fire(nowhere) == at("2026-03-29T01:40Z")
    earlier = nowhere.replace(fold=1)
    assert CronTrigger("*/20 * * * *", timezone="Europe/Berlin").next_fire(earlier) == at("2026-03-29T00:40Z")


@pytest.mark.parametrize("place", ["Asia/Kolkata", ZoneInfo("Asia/Kolkata"), timezone(timedelta(hours=5, minutes=30))])
def test_a_zone_is_a_name_or_a_tzinfo(place):
    assert CronTrigger("0 9 * * *", timezone=place).next_fire(at("2026-05-01T00:00Z")) == at("2026-05-01T03:30Z")


def test_without_a_zone_the_wall_shows_utc():
    assert CronTrigger("30 2 * * *").next_fire(at("2026-03-29T00:00+01:00")) == at("2026-03-29T02:30Z")
    assert CronTrigger("30 2 * * *", timezone=UTC).next_fire(at("2026-03-29T02:30Z")) == at("2026-03-30T02:30Z")


# ---------------------------------------------------------------- what next means


def test_the_next_fire_is_strictly_later_to_the_microsecond():
    trigger, fire, later = CronTrigger("0 0 3 * * *"), at("2026-05-01T03:00Z"), at("2026-05-02T03:00Z")
    assert trigger.next_fire(fire) == later
    assert trigger.next_fire(fire - INSTANT) == fire
    assert trigger.next_fire(fire + INSTANT) == later
    assert trigger.next_fire(later - INSTANT) == later
    every_second = CronTrigger("* * * * * *")
    assert every_second.next_fire(fire) == fire + SECOND
    assert every_second.next_fire(fire + INSTANT) == fire + SECOND
    assert every_second.next_fire(fire + SECOND - INSTANT) == fire + SECOND


def test_between_has_its_start_and_not_its_end():
    trigger, first, second = CronTrigger("0 3 * * *"), at("2026-05-01T03:00Z"), at("2026-05-02T03:00Z")
    assert list(trigger.between(first, second)) == [first]
    assert list(trigger.between(first, second + INSTANT)) == [first, second]
    assert list(trigger.between(first + INSTANT, second)) == []
    assert list(trigger.between(first, first)) == []
    assert list(trigger.between(second, first)) == []


def test_what_is_given_is_aware_and_in_utc():
    trigger = CronTrigger("30 2 * * *", timezone="Europe/Berlin")
    start = at("2026-10-24T00:00Z")
    given_out = [trigger.next_fire(start), *trigger.upcoming(3, start), *trigger.between(start, start + 3 * DAY)]
    assert len(given_out) == 7
    assert all(fire.tzinfo is UTC for fire in given_out)


def test_whoever_looks_ahead_leaves_the_trigger_as_it_was():
    trigger, start = CronTrigger("*/10 * * * *"), at("2026-05-01T00:00Z")
    one, other = trigger.between(start, start + HOUR), trigger.between(start, start + HOUR)
    seen = list(islice(one, 3))
    assert trigger.next_fire(start + 5 * HOUR) == start + 5 * HOUR + 10 * MINUTE
    assert trigger.next_fire(start) == start + 10 * MINUTE
    assert list(islice(other, 3)) == seen == [start, start + 10 * MINUTE, start + 20 * MINUTE]
    assert seen + list(one) == seen + list(other) == [start + minutes * MINUTE for minutes in range(0, 60, 10)]
    assert trigger.upcoming(0, start) == []


@pytest.mark.parametrize(
    "ask",
    [
        lambda trigger, naive, aware: trigger.next_fire(naive),
        lambda trigger, naive, aware: trigger.upcoming(2, naive),
        lambda trigger, naive, aware: list(trigger.between(naive, aware)),
        lambda trigger, naive, aware: list(trigger.between(aware, naive)),
    ],
)
def test_an_instant_without_a_zone_is_refused_and_told_that_it_must_be_aware(
    ask: Callable[[CronTrigger, datetime, datetime], object],
):
    naive = datetime(2026, 5, 1)
    with pytest.raises((ValueError, TypeError), match="aware"):
        ask(CronTrigger("0 3 * * *"), naive, naive.replace(tzinfo=UTC))


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "expression",
    [
        "0 0 31 2 *",
        "0 0 30 2 *",
        "0 0 30,31 FEB *",
        "0 0 31 4,6,9,11 *",
        "0 0 31 2 ?",
        "0 0 31 2 */2",
        "0 0 0 31 11 *",
        "0 0 0 29 2 ? 2027",
        "0 0 0 29 FEB * 2025-2027",
    ],
)
def test_a_date_that_no_year_has_is_refused(expression):
    with pytest.raises(ValueError, match=r"\w"):
        CronTrigger(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "",
        " ",
        "*",
        "* * * *",
        "* * * * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * 32 * *",
        "* * * 0 *",
        "* * * 13 *",
        "* * * * 8",
        "60 * * * * *",
        "0 0 0 1 1 * 26",
        "-1 * * * *",
        "1.5 * * * *",
        "*/0 * * * *",
        "*/x * * * *",
        "/5 * * * *",
        "1, * * * *",
        "1,,2 * * * *",
        "1- * * * *",
        "1--2 * * * *",
        "a b c d e",
        "* * * FOO *",
        "* * * * FOO",
        "* * * MON *",
        "* * * * JAN",
        "L * * * *",
        "* L * * *",
        "* * * L *",
        "* * * * 5#0",
        "* * * * 5#6",
        "* * * * #2",
        "* * * * L8",
        "@never",
        "@reboot",
        "hourly",
        "H * * * *",
        "R * * * *",
    ],
)
def test_what_is_no_expression_is_refused(expression):
    with pytest.raises(ValueError, match=r"\w"):
        CronTrigger(expression)


# ---------------------------------------------------------------- any expression, anywhere, at any time


def values(lowest: int, highest: int, names: tuple[str, ...] = ()) -> st.SearchStrategy[str]:
    numbers = st.integers(lowest, highest).map(str)
    return numbers | st.sampled_from(names) if names else numbers


def spans(lowest: int, highest: int) -> st.SearchStrategy[str]:
    ends = st.tuples(st.integers(lowest, highest), st.integers(lowest, highest)).filter(lambda pair: pair[0] < pair[1])
    return ends.map(lambda pair: f"{pair[0]}-{pair[1]}")


def steps(lowest: int, highest: int, longest: int, names: tuple[str, ...] = ()) -> st.SearchStrategy[str]:
    spanned = st.just("*") | spans(lowest, highest)
    if not names:  # from MON in steps of two to where, cron has never said
        spanned |= values(lowest, highest)
    return st.builds("{}/{}".format, spanned, st.integers(2, longest))


def lists(lowest: int, highest: int, names: tuple[str, ...] = ()) -> st.SearchStrategy[str]:
    return st.lists(values(lowest, highest, names) | spans(lowest, highest), min_size=2, max_size=3).map(",".join)


def fields(lowest: int, highest: int, longest: int, names: tuple[str, ...] = ()) -> st.SearchStrategy[str]:
    one = values(lowest, highest, names)
    return (
        one
        | st.just("*")
        | steps(lowest, highest, longest, names)
        | spans(lowest, highest)
        | lists(lowest, highest, names)
    )


SECONDS, MINUTES, HOURS = fields(0, 59, 45), fields(0, 59, 45), fields(0, 4, 4) | fields(0, 23, 12)
DAYS = st.just("*") | fields(1, 31, 20) | st.sampled_from(["L", "?", "L,1", "15,L"])
MONTHS = st.just("*") | fields(1, 12, 6, tuple(oracle.MONTHS))
WEEKDAYS = (
    st.just("*") | fields(0, 6, 4, tuple(oracle.WEEKDAYS)) | st.sampled_from(["?", "7", "5-7", "0#1", "L0", "L6"])
)
EVERY_YEAR = st.sampled_from(["*", "2020-2040", "2025/2", "2024,2026,2027"])


@st.composite
def any_expression(draw: st.DrawFn, seconds: bool = True) -> str:
    drawn = [draw(field) for field in (MINUTES, HOURS, DAYS, MONTHS, WEEKDAYS)]
    if seconds and draw(st.booleans()):
        drawn = [draw(SECONDS), *drawn]
        drawn += [draw(EVERY_YEAR)] if draw(st.booleans()) else []
    return " ".join(drawn)


PLACES = [*ZONES, "UTC", "Asia/Kolkata", "America/Havana", "Europe/Dublin", "Antarctica/Troll", "Asia/Gaza"]
INSTANTS = st.builds(
    lambda zone, nth, off: (zone, transitions(zone, *YEARS)[nth] + off),
    st.sampled_from(list(ZONES)),
    st.integers(0, 5),
    st.timedeltas(-2 * DAY, 2 * DAY),
) | st.tuples(st.sampled_from(PLACES), st.datetimes(datetime(1972, 2, 1), datetime(2098, 1, 1), timezones=st.just(UTC)))
HOW = st.fixed_dictionaries(
    {
        "gap": st.sampled_from(["shift", "skip"]),
        "overlap": st.sampled_from(["first", "second", "both"]),
        "day_or": st.booleans(),
    }
)


def trigger_of(expression: str, **how: object) -> CronTrigger:
    """A trigger, unless *expression* names a date that there is not: which is for another test."""
    try:
        return CronTrigger(expression, **how)
    except ValueError:
        assume(is_possible(expression, how["day_or"]))
        raise


def is_possible(expression: str, day_or: object) -> bool:
    """Say whether there is such a date: in 28 years every day of the year falls on every day of the week."""
    schedule = oracle.schedule_of(expression)
    first = date(2012, 1, 1)
    return any(oracle.date_matches(schedule, first + n * DAY, bool(day_or)) for n in range(28 * 365 + 7))


def chosen(examples: int) -> settings:
    phases = set(Phase) - {Phase.explain}  # which takes minutes, and what is found is short
    return settings(max_examples=examples, deadline=None, phases=phases, suppress_health_check=[HealthCheck.too_slow])


@chosen(150)
@given(expression=any_expression(), moment=INSTANTS, how=HOW, length=st.timedeltas(MINUTE, 30 * HOUR))
def test_any_expression_fires_as_ruled_anywhere_at_any_time(expression, moment, how, length):
    zone, start = moment
    trigger = trigger_of(expression, timezone=zone, **how)
    end = start + min(length, HOUR if len(expression.split()) > 5 else DAY)
    fired = list(trigger.between(start, end))
    assert fired == fires(expression, zone, start, end, **how)
    assert all(earlier < later for earlier, later in pairwise(fired))


@chosen(250)
@given(expression=any_expression(), moment=INSTANTS, how=HOW, part=st.floats(0, 1, exclude_max=True))
def test_whenever_it_is_started_again_the_next_fire_is_the_one_it_would_have_been(expression, moment, how, part):
    zone, after = moment
    first = trigger_of(expression, timezone=zone, **how).next_fire(after)
    assume(first is not None)
    assert first > after
    assert first.tzinfo is UTC
    assert is_named_or_comes_after_a_gap(expression, zone, first, **how)
    second = CronTrigger(expression, timezone=zone, **how).next_fire(first)
    restarted = CronTrigger(expression, timezone=zone, **how)
    assert restarted.next_fire(after + (first - INSTANT - after) * part) == first
    if second is not None:
        assert second > first
        assert restarted.next_fire(first + (second - INSTANT - first) * part) == second
        assert restarted.next_fire(second - INSTANT) == second


def is_named_or_comes_after_a_gap(expression: str, zone: str, fire: datetime, **how: object) -> bool:
    wall = fire.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    if oracle.matches(expression, wall, bool(how["day_or"])):
        return True
    before = (fire - SECOND).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    return how["gap"] == "shift" and not is_interval_like(expression) and wall - before > SECOND


@chosen(100)
@given(expression=any_expression(), moment=INSTANTS, how=HOW, count=st.integers(0, 6))
def test_one_by_one_so_many_and_all_of_a_time_are_the_same_fires(expression, moment, how, count):
    zone, after = moment
    trigger = trigger_of(expression, timezone=zone, **how)
    several = trigger.upcoming(count, after)
    one_by_one = []
    while len(one_by_one) < count and (fire := trigger.next_fire([after, *one_by_one][-1])) is not None:
        one_by_one.append(fire)
    assert several == one_by_one
    if several:
        assert list(trigger.between(after + INSTANT, several[-1] + INSTANT)) == several
        assert list(trigger.between(several[0], several[-1])) == several[:-1]


@chosen(150)
@given(days=DAYS, months=MONTHS, weekdays=WEEKDAYS, day_or=st.booleans())
def test_a_date_is_refused_if_and_only_if_no_year_has_it(days, months, weekdays, day_or):
    expression = f"0 0 {days} {months} {weekdays}"
    try:
        CronTrigger(expression, day_or=day_or)
    except ValueError:
        assert not is_possible(expression, day_or)
    else:
        assert is_possible(expression, day_or)


# ---------------------------------------------------------------- the oracle


@every_zone()
def test_who_walks_real_time_and_who_walks_wall_times_find_the_same(zone):
    for start, end in windows(zone, 26 * HOUR):
        for expression in ("30 0-3 * * SUN", "*/20 0,2,23 * * *", "0 15 0,2 * * *", "0,30 23 L * L6"):
            for policy in ({}, *POLICIES):
                expected = fires(expression, zone, start, end, **policy)
                assert fires_by_wall_times(expression, zone, start, end, **policy) == expected


@pytest.mark.parametrize(
    ("expression", "wall", "is_named"),
    [
        ("30 2 * * *", "2026-05-01T02:30:00", True),
        ("30 2 * * *", "2026-05-01T02:30:01", False),
        ("*/20 30 2 * * *", "2026-05-01T02:30:40", True),
        ("5/20 * * * *", "2026-05-01T02:45:00", True),
        ("5/20 * * * *", "2026-05-01T02:00:00", False),
        ("0 0 L * *", "2028-02-29T00:00:00", True),
        ("0 0 L * *", "2028-02-28T00:00:00", False),
        ("0 0 * * 5#2", "2026-05-08T00:00:00", True),
        ("0 0 * * FRI#2", "2026-05-15T00:00:00", False),
        ("0 0 * * L5", "2026-05-29T00:00:00", True),
        ("0 0 * * L5", "2026-05-22T00:00:00", False),
        ("0 0 * * 7", "2026-05-03T00:00:00", True),
        ("0 0 * * 5-7", "2026-05-03T00:00:00", True),
        ("0 0 13 * FRI", "2026-05-08T00:00:00", True),
        ("0 0 */2 * FRI", "2026-05-08T00:00:00", False),
        ("0 0 ? MAY FRI", "2026-05-08T00:00:00", True),
        ("@weekly", "2026-05-03T00:00:00", True),
        ("0 0 0 * * * 2027", "2026-05-03T00:00:00", False),
        ("0 0 0 * * * 2025/2", "2027-05-03T00:00:00", True),
    ],
)
def test_the_oracle_reads_an_expression_as_people_do(expression, wall, is_named):
    assert oracle.matches(expression, at(wall)) is is_named
