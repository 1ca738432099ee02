"""What runs leave behind in the program that runs them: nothing that grows with their number, little with their tasks."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("how", ["apart", "in one"])
def test_1000_runs_leave_no_thread_no_open_file_and_no_memory_behind(how, programs, tmp_path):
    ((before, after),) = programs("runs_and_runs.py", [how, tmp_path, 1000])
    assert after["threads"] <= before["threads"]
    assert after["files"] <= before["files"]
    # The id of each of the last 1,024 runs is remembered as a sound one, which takes one block;
    # any object of a run, a job or an outcome that stayed would take more of them, and a result 100 kB.
    assert after["blocks"] - before["blocks"] < 2 * 1000
    assert after["bytes"] - before["bytes"] < 20_000_000


def test_a_run_of_100_000_tasks_costs_less_than_2_kilobytes_for_each(programs):
    (each,) = programs("very_many.py", [100_000])
    assert each < 2048
