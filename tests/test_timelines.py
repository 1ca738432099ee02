"""Timelines: every task in its place, every bar on the axis, and no line too wide."""

from __future__ import annotations

import unicodedata
from itertools import pairwise
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dpcore
from dpcore.jobs import State
from dpcore.ports.runstore import RunHistory, RunRecord, TaskChange
from dpcore.testing import FakeClock
from dpcore.timelines import Bar, Row, Timeline, timeline

RUNNING, SUCCEEDED, FAILED, RETRYING = State.RUNNING, State.SUCCEEDED, State.FAILED, State.RETRYING


def change(task: str, state: State, at: float, attempt: int = 1, **more: Any) -> TaskChange:
    return TaskChange(task=task, state=state, at=at, attempt=attempt, **more)


def history(*changes: TaskChange, began: float = 100.0, ended: float | None = None, **record: Any) -> RunHistory:
    state = record.pop("state", RUNNING if ended is None else SUCCEEDED)
    return RunHistory(RunRecord(run_id="r1", began=began, ended=ended, state=state, **record), list(changes))


def drawn(*changes: TaskChange, width: int = 60, **record: Any) -> list[str]:
    return timeline(history(*changes, **record)).lines(width)


# ---------------------------------------------------------------- rows


def test_a_bar_goes_from_the_start_of_an_attempt_to_its_outcome_in_seconds_from_the_runs_beginning():
    found = timeline(history(change("a", RUNNING, 101), change("a", SUCCEEDED, 103, duration=1.5), ended=104))
    assert found.length == 4
    assert found.rows == (Row("a", SUCCEEDED, (Bar(1, 3, SUCCEEDED, 1, 1.5),)),)
    assert (found.rows[0].duration, found.rows[0].attempts) == (1.5, 1)


def test_each_retry_is_a_bar_of_its_own_with_a_gap_before_it():
    [row] = timeline(
        history(
            change("a", RUNNING, 100),
            change("a", RETRYING, 101, error="ValueError: no"),
            change("a", RUNNING, 103, 2),
            change("a", FAILED, 104, 2, error="ValueError: never"),
            ended=104,
        )
    ).rows
    assert [(bar.start, bar.end, bar.state) for bar in row.bars] == [(0, 1, RETRYING), (3, 4, FAILED)]
    assert [bar.error for bar in row.bars] == ["ValueError: no", "ValueError: never"]
    assert (row.state, row.note, row.attempts, row.duration) == (FAILED, "ValueError: never", 2, 2)


def test_a_task_that_never_began_has_no_bar_and_its_reason():
    [row] = timeline(history(change("b", State.SKIPPED, 101, 0, reason="'a' failed"), ended=101)).rows
    assert row == Row("b", State.SKIPPED, note="'a' failed")
    assert (row.attempts, row.duration) == (0, 0)


def test_a_mapped_task_is_one_bar_and_the_number_of_its_items():
    [row] = timeline(
        history(
            change("m", RUNNING, 100),
            change("m", RUNNING, 100, index=0),
            change("m", RUNNING, 100, index=1),
            change("m", SUCCEEDED, 101, index=1),
            change("m", RETRYING, 102, index=0),
            change("m", RUNNING, 103, 2, index=0),
            change("m", SUCCEEDED, 104, 2, index=0),
            change("m", SUCCEEDED, 104, count=2, duration=3),
            ended=104,
        )
    ).rows
    assert row == Row("m", SUCCEEDED, (Bar(0, 4, SUCCEEDED, 1, 3),), items=2)


def test_what_runs_reaches_to_the_end_of_the_axis_which_is_now_where_now_is_known():
    running = history(change("a", RUNNING, 101), change("b", RUNNING, 102), tasks=4)
    assert [row.bars[0].end for row in timeline(running).rows] == [2, 2]
    assert [row.bars[0].end for row in timeline(running, now=110).rows] == [10, 10]
    assert timeline(running).unbegun == 2


def test_now_means_nothing_to_a_run_that_has_ended():
    ended = history(change("a", RUNNING, 100), change("a", SUCCEEDED, 102), ended=102)
    assert timeline(ended, now=999) == timeline(ended)


def test_an_attempt_whose_beginning_was_not_recorded_is_placed_by_its_duration():
    [row] = timeline(history(change("a", SUCCEEDED, 103, duration=2), ended=104)).rows
    assert row.bars == (Bar(1, 3, SUCCEEDED, 1, 2),)


def test_a_real_run_is_drawn_as_it_went(tasks, plugins):
    clock = FakeClock(autojump=True)

    @tasks.task(max_retries=1, retry_delay=2)
    async def load() -> int:
        await clock.sleep(1)
        raise ConnectionError("nobody there\nreally")

    @tasks.task
    def total(load: int) -> int:
        return load

    async def main() -> Timeline:
        async with dpcore.App(tasks, executor="inline", plugins=plugins, clock=clock) as app:
            await app.run(check=False, run_id="r1")
            return timeline(await app.history("r1"))

    found = anyio.run(main)
    assert found.title == "run r1: failed in 4.00 s"
    assert [(row.name, [(bar.start, bar.end) for bar in row.bars]) for row in found.rows] == [
        ("load", [(0, 1), (3, 4)]),
        ("total", []),
    ]
    text = "\n".join(found.lines(60))
    assert "ConnectionError: nobody there\n" in text
    assert "'load' failed" in text
    assert "really" not in text


# ---------------------------------------------------------------- lines


def test_the_lines_show_bars_states_durations_attempts_and_errors():
    lines = drawn(
        change("load", RUNNING, 100),
        change("load", RETRYING, 101),
        change("load", RUNNING, 103, 2),
        change("load", FAILED, 104, 2, error="ValueError: no\nmore"),
        change("rest", State.SKIPPED, 104, 0, reason="'load' failed"),
        ended=104,
        tasks=3,
    )
    assert lines == [
        "      0                       4.00 s",
        "load  ▒▒▒▒▒▒▒▒              ▒▒▒▒▒▒▒▒  failed      2.00 s  x2",
        "      ValueError: no",
        "rest  'load' failed                   skipped",
        "and 1 task that had not begun",
    ]


def test_an_instant_run_has_a_cell_for_each_task():
    lines = drawn(change("a", RUNNING, 100), change("a", SUCCEEDED, 100), ended=100)
    assert lines == ["   0", f"a  █{' ' * 36}  succeeded  0.000 s"]


def test_what_runs_is_drawn_lightly():
    assert "░" in drawn(change("a", RUNNING, 101), change("b", RUNNING, 103))[1]


def test_a_run_in_which_nothing_has_begun_says_so():
    assert drawn(tasks=2) == ["and 2 tasks that had not begun"]
    assert drawn() == []


def test_ten_thousand_tasks_are_shown_in_part_with_those_in_trouble_among_them():
    changes = [
        entry for n in range(10_000) for entry in (change(f"t{n}", RUNNING, n), change(f"t{n}", SUCCEEDED, n + 1))
    ]
    changes[2 * 7000 + 1] = change("t7000", FAILED, 7001, error="ValueError: 7000")
    lines = timeline(history(*changes, began=0, ended=10_001)).lines(limit=5)
    assert [line.split()[0] for line in lines] == ["0", "t0", "t1", "t2", "t3", "t7000", "ValueError:", "and"]
    assert lines[-1] == "and 9,995 more: 9,995 succeeded"


def test_a_very_long_name_gives_way_to_the_bars():
    lines = drawn(change("x" * 200, RUNNING, 100), change("x" * 200, SUCCEEDED, 101), ended=101)
    assert "…  █" in lines[1]
    assert len(lines[1]) <= 60


def test_letters_that_fill_two_columns_are_counted_as_two():
    lines = drawn(change("订单", RUNNING, 100), change("ab", RUNNING, 100), ended=101)
    assert lines[1].startswith("订单  ░")
    assert lines[2].startswith("ab    ░")


def test_what_a_terminal_would_obey_is_escaped():
    [_, _, error] = drawn(change("a", RUNNING, 100), change("a", FAILED, 101, error="ValueError: \x1b[2J"), ended=101)
    assert error.strip() == "ValueError: \\x1b[2J"


def test_in_ascii_everything_is_ascii():
    failed = [change("zähl", RUNNING, 100), change("zähl", FAILED, 101, error="ValueError: ✗")]
    lines = timeline(history(*failed, ended=101)).lines(ascii=True)
    assert all(line.isascii() for line in lines)
    assert lines[1].startswith("z\\xe4hl  xxx")
    assert lines[2].strip() == "ValueError: \\u2717"


@pytest.mark.parametrize(
    ("record", "title"),
    [
        ({"ended": 102.0}, "run r1: succeeded in 2.00 s"),
        ({"ended": 102.0, "state": State.CANCELLED, "reason": "Ctrl-C\nx"}, "run r1: cancelled in 2.00 s (Ctrl-C)"),
        ({}, "run r1: running for 0.000 s"),
    ],
)
def test_a_title_is_the_run_in_one_line(record, title):
    assert timeline(history(**record)).title == title


# ---------------------------------------------------------------- whatever was recorded

TIMES = st.floats(-1e6, 1e9, allow_nan=False)
CHANGES = st.builds(
    TaskChange,
    task=st.sampled_from(["a", "b", "c", "订单" * 20, "x" * 200]),
    state=st.sampled_from(State),
    at=TIMES,
    attempt=st.integers(0, 5),
    index=st.none() | st.integers(0, 3),
    duration=st.floats(0, 1e6, allow_nan=False),
    error=st.text(max_size=200),
    reason=st.text(max_size=20),
)
RECORDS = st.builds(
    RunRecord,
    run_id=st.just("r1"),
    state=st.sampled_from(State),
    began=TIMES,
    ended=st.none() | TIMES,
    tasks=st.integers(0, 9),
    reason=st.text(max_size=20),
)
HISTORIES = st.builds(RunHistory, RECORDS, st.lists(CHANGES, max_size=40))


def is_shown(text: str) -> bool:
    """Tell whether a terminal only shows it; Python calls some spaces not printable that it shows as such."""
    return text.translate(dict.fromkeys(map(ord, "\u00a0\u2007\u202f\u3000"), " ")).isprintable()


def columns(line: str) -> int:
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in line)
    return len(line) + wide - sum(unicodedata.category(letter) in ("Mn", "Me") for letter in line)


@given(HISTORIES, st.none() | TIMES)
def test_whatever_was_recorded_each_task_has_one_row_in_order_and_its_bars_lie_on_the_axis(history, now):
    found = timeline(history, now=now)
    assert is_shown(found.title)
    assert [row.name for row in found.rows] == list(dict.fromkeys(change.task for change in history.changes))
    for row in found.rows:
        assert all(0 <= bar.start <= bar.end <= found.length for bar in row.bars)
        assert all(before.start <= after.start for before, after in pairwise(row.bars))
        assert sum(bar.state is State.RUNNING for bar in row.bars) <= 1


@given(HISTORIES, st.integers(0, 120), st.integers(0, 6), st.booleans())
def test_whatever_was_recorded_no_line_is_wider_than_asked_for_or_breaks(history, width, limit, plain):
    lines = timeline(history).lines(width, limit=limit, ascii=plain)
    assert all(columns(line) <= width for line in lines)
    assert all(is_shown(line) for line in lines)
    assert not plain or all(line.isascii() for line in lines)
