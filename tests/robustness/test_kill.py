"""What SIGKILL leaves behind: whole values and whole commits, and nothing that was stored is lost."""

from __future__ import annotations

from dpcore_plugins.executors.multiprocess.pool import AHEAD


def test_300_killed_writers_leave_no_torso_and_lose_no_value(programs, tmp_path):
    (done,) = programs("killed_writers.py", ["results", tmp_path / "results", 300, 7])
    assert done["kills"] == 300
    assert done["stored and not said"] + done["left over"] > 0  # some of them were killed in the middle of it
    assert done["looked at"] > 300


def test_60_killed_programs_lose_no_change_that_was_recorded(programs, tmp_path):
    (done,) = programs("killed_writers.py", ["records", tmp_path / "runs.db", 60, 7])
    assert done["kills"] == 60
    assert done["commits"] > 60


def test_400_killed_programs_are_resumed_and_run_nothing_twice_that_had_ended(programs, tmp_path):
    threads, inline = programs(
        "killed_runs.py", [tmp_path / "threads", "threads", 200, 7], [tmp_path / "inline", "inline", 200, 8]
    )
    for done in (threads, inline):
        assert done["kills"] == 200
        assert done["sessions"] == done["kills"] + done["runs"]
        assert done["runs"] > 10
        assert done["twice"] > 0  # some of them were killed in the middle of a task
        assert done["executions"] > 10 * done["runs"]
    assert inline["most"] <= 1  # the one at work, or whose outcome was being recorded


def test_60_killed_programs_with_worker_processes_leave_none_and_are_resumed(programs, tmp_path):
    (done,) = programs("killed_runs.py", [tmp_path / "runs", "multiprocess?workers=2", 60, 9])
    assert done["kills"] == 60
    assert done["sessions"] == done["kills"] + done["runs"]
    assert done["runs"] > 3
    assert done["twice"] > 0
    assert done["executions"] > 10 * done["runs"]
    # What two workers are given at once while tasks are short, and as many whose outcomes are being recorded.
    assert done["most"] <= 2 * 2 * (1 + AHEAD)


def test_1500_ticks_of_four_schedulers_that_are_killed_40_times_each_start_one_run_or_event(programs, tmp_path):
    (done,) = programs("killed_schedulers.py", [tmp_path / "schedulers", 250, 40, 7])
    assert (done["runs"], done["events"], done["kills"]) == (1000, 500, 40)
    assert done["repeated"] > 0  # some of them were killed between doing it and noting that
