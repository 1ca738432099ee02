"""What SIGKILL leaves behind: whole values and whole commits, and nothing that was stored is lost."""

from __future__ import annotations


def test_300_killed_writers_leave_no_torso_and_lose_no_value(programs, tmp_path):
    (done,) = programs("killed_writers.py", ["results", tmp_path / "results", 300, 7])
    assert done["kills"] == 300
    assert done["stored and not said"] + done["left over"] > 0  # some of them were killed in the middle of it
    assert done["looked at"] > 300


def test_60_killed_programs_lose_no_change_that_was_recorded(programs, tmp_path):
    (done,) = programs("killed_writers.py", ["records", tmp_path / "runs.db", 60, 7])
    assert done["kills"] == 60
    assert done["commits"] > 60
