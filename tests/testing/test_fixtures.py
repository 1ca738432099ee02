"""The fixtures of the pytest plugin: nothing on the machine changes them, and a failed test shows its runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

import dpcore
from dpcore import Registry, State, current_job
from dpcore.errors import MissingInputError, PayloadError, PlanningError, RunFailedError
from dpcore.testing import FakeClock, RunTasks

pytest_plugins = "pytester"


# ---------------------------------------------------------------- dp_clock


def test_the_clock_stands_still_and_each_test_has_its_own(dp_clock):
    assert type(dp_clock) is FakeClock
    assert dp_clock.monotonic() == 0


# ---------------------------------------------------------------- dp_app


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_an_app_of_ones_own_runs_in_an_async_test(dp_app, anyio_backend):
    @dp_app.registry.task
    async def orders() -> list[int]:
        await anyio.lowlevel.checkpoint()
        return [30, 10, 2]

    @dp_app.registry.task
    def total(orders: list[int]) -> int:
        return sum(orders)

    async with dp_app as app:
        result = await app.run()
    assert result["total"] == 42


def test_an_app_of_ones_own_plans_in_a_plain_test(dp_app):
    @dp_app.registry.task
    def total(orders: list[int]) -> int:
        return sum(orders)

    assert dp_app.plan(params=["orders"]).order == ("total",)


def test_an_app_of_ones_own_may_be_entered_more_than_once(dp_app):
    @dp_app.registry.task
    def one() -> int:
        return 1

    async def main() -> int:
        async with dp_app:
            return (await dp_app.run())["one"]

    assert [anyio.run(main), anyio.run(main)] == [1, 1]


def test_the_registry_of_the_app_is_empty_and_not_the_one_that_task_fills(dp_app):
    assert len(dp_app.registry) == 0
    assert dp_app.registry is not dpcore.registry


async def test_the_app_lives_on_the_clock_that_the_test_asks_for(dp_app, dp_clock):
    @dp_app.registry.task(max_retries=1, retry_delay=3600)
    def second() -> int:
        if current_job().attempt == 1:
            raise ConnectionError
        return current_job().attempt

    async with dp_app, anyio.create_task_group() as group:

        async def run() -> None:
            result = await dp_app.run()
            assert result["second"] == 2
            assert result.duration == 3600

        group.start_soon(run)
        await dp_clock.advance(3599)
        await dp_clock.advance(1)


def test_without_that_the_app_lives_on_the_clock_of_the_machine(dp_app):
    assert type(dp_app.clock).__name__ == "SystemClock"


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_events_of_an_app_of_ones_own_go_through_the_wire_form(dp_app, anyio_backend):
    async with dp_app as app, app.subscribe("orders") as events:
        await app.publish("orders", (1, 2))
        assert (await anext(events)).data == [1, 2]
        with pytest.raises(PayloadError):
            await app.publish("orders", object())


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_an_event_that_is_nacked_comes_back_on_the_clock_of_the_test(dp_app, dp_clock, anyio_backend):
    async with dp_app as app, app.consume("orders", ack="manual") as orders:
        await app.publish("orders")
        deliveries = orders.deliveries()
        dp_clock.autojump = True
        await (await anext(deliveries)).nack(delay=3600)
        assert (await anext(deliveries)).attempt == 2
        assert dp_clock.monotonic() == 3600


# ---------------------------------------------------------------- run_tasks


def test_plain_functions_run_as_tasks_wired_by_name(run_tasks):
    def orders() -> list[int]:
        return [30, 10, 2]

    def total(orders: list[int], factor: int = 1) -> int:
        return sum(orders) * factor

    assert run_tasks(orders, total)["total"] == 42
    assert run_tasks(orders, total, params={"factor": "2"})["total"] == 84


def test_only_what_is_given_runs_and_the_rest_are_params(run_tasks):
    tasks = Registry()

    @tasks.task
    def load() -> list[int]:
        raise AssertionError("a test of total() loads nothing")

    @tasks.task(inputs={"rows": load}, tags=["sum"])
    def total(rows: list[int]) -> int:
        return sum(rows)

    result = run_tasks(tasks["total"], params={"rows": [1, 2]})
    assert dict(result) == {"total": 3}
    assert dict(run_tasks(tasks["total"], params={"load": [1, 2]})) == {"total": 3}
    assert result.plan.tasks["total"].tags == ("sum",)
    with pytest.raises(PlanningError) as caught:
        run_tasks(tasks["total"])
    [fault] = caught.value.exceptions
    assert isinstance(fault, MissingInputError)


def test_a_mapped_task_without_its_stream_runs_once(run_tasks):
    tasks = Registry()

    @tasks.task
    def days():
        yield from "abc"

    @tasks.task(each=days)
    def loaded(days: str) -> str:
        return days.upper()

    assert run_tasks(tasks["loaded"], params={"days": "x"})["loaded"] == "X"
    assert run_tasks(tasks)["loaded"] == ["A", "B", "C"]


def test_a_function_that_is_a_task_keeps_its_settings(run_tasks):
    @dpcore.task(name="flaky.load", max_retries=2)
    def load() -> int:
        if current_job().attempt < 3:
            raise ConnectionError
        return current_job().attempt

    try:
        assert run_tasks(load)["flaky.load"] == 3
    finally:
        dpcore.registry.remove("flaky.load")


def test_a_function_that_is_several_tasks_is_a_question(run_tasks):
    def load() -> int:
        return 1

    dpcore.task(name="load_one")(load)
    dpcore.task(name="load_two")(load)
    try:
        with pytest.raises(ValueError, match=re.escape("(load_one, load_two); give one: dpcore.registry['load_one']")):
            run_tasks(load)
        assert dict(run_tasks(dpcore.registry["load_two"])) == {"load_two": 1}
    finally:
        dpcore.registry.remove("load_one")
        dpcore.registry.remove("load_two")


def test_nothing_to_run_is_an_error(run_tasks):
    with pytest.raises(TypeError, match=r"needs something to run: functions, tasks or registries"):
        run_tasks()


def test_a_failure_raises_unless_it_is_not_to_be_checked(run_tasks):
    def broken() -> None:
        raise ValueError("no")

    with pytest.raises(RunFailedError) as caught:
        run_tasks(broken)
    assert str(caught.value.exceptions[0]) == "no"
    assert run_tasks(broken, check=False).state is State.FAILED


def test_a_retry_in_an_hour_takes_no_time_on_a_clock_of_ones_own(run_tasks, dp_clock):
    tasks = Registry()

    @tasks.task(max_retries=1, retry_delay=3600)
    def second() -> int:
        if current_job().attempt == 1:
            raise ConnectionError
        return 2

    result = run_tasks(tasks)
    assert (result["second"], result.duration, dp_clock.monotonic()) == (2, 3600, 3600)
    assert not dp_clock.autojump


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_an_async_test_may_run_tasks_too(run_tasks, anyio_backend):
    async def one() -> int:
        await anyio.lowlevel.checkpoint()
        return 1

    assert run_tasks(one)["one"] == 1


def test_the_call_can_be_named_in_a_hint(run_tasks):
    assert isinstance(run_tasks, RunTasks)


# ---------------------------------------------------------------- a failed test shows its runs

FAILING = """
import anyio

def orders():
    return [1]

def total(orders):
    raise ValueError("no total today")

def report(total):
    return total
"""


def test_a_failed_test_shows_each_of_its_runs_as_a_timeline(pytester):
    pytester.makepyfile(
        FAILING
        + """
def test_total(run_tasks):
    run_tasks(orders)
    result = run_tasks(orders, total, report, check=False)
    assert result.state == "succeeded"

def test_app(dp_app):
    dp_app.registry.task(total)
    async def main():
        async with dp_app:
            await dp_app.run(params={"orders": 1}, run_id="mine")
    anyio.run(main)
"""
    )
    done = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    done.assert_outcomes(failed=2)
    done.stdout.re_match_lines(
        [
            r"-+ dpcore run \S+: succeeded in .* s -+",
            r"-+ dpcore run \S+: failed in .* s -+",
            r" +0 +\S+ s",
            r"orders +█+ +succeeded +\S+ s",
            r"total +▒+ +failed +\S+ s",
            r" +ValueError: no total today",
            r"report  'total' failed +skipped",
            r"-+ dpcore run mine: failed in .* s -+",
        ]
    )


def test_a_failed_test_shows_its_own_line_and_what_the_task_raised_but_no_frames_of_dpcore(pytester):
    pytester.makepyfile(
        """
        class Mute(Exception):
            def __str__(self):
                raise RuntimeError("mute")

        def load():
            raise Mute

        def test_load(run_tasks):
            run_tasks(load)

        def test_number(run_tasks):
            run_tasks(3)
        """
    )
    done = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    done.assert_outcomes(failed=2)
    said = done.stdout.str()
    assert "run_tasks(load)" in said
    assert "raise Mute" in said
    assert "Mute: <Mute whose __str__ fails>" in said  # in the timeline
    assert "failed in dpcore_task_changed" not in said
    assert "tasks=3 must be functions, Task objects or registries" in said
    assert not re.findall(r"dpcore/\w+(?:/\w+)?\.py:\d+", said), said


def test_a_test_that_passes_or_that_ran_nothing_shows_nothing(pytester):
    pytester.makepyfile(
        FAILING
        + """
def test_total(run_tasks):
    assert run_tasks(orders)["orders"] == [1]

def test_nothing(dp_app):
    assert not dp_app

def test_other():
    assert False
"""
    )
    done = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-rA")
    done.assert_outcomes(passed=1, failed=2)
    done.stdout.no_fnmatch_line("*dpcore run*")


def test_a_run_is_shown_once_though_the_teardown_fails_as_well(pytester):
    pytester.makepyfile(
        FAILING
        + """
import pytest

@pytest.fixture
def broken():
    yield
    assert False

def test_total(run_tasks, broken):
    run_tasks(total, params={"orders": 1})
"""
    )
    done = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    done.assert_outcomes(failed=1, errors=1)
    assert done.stdout.str().count("dpcore run ") == 1


def test_a_run_that_had_not_ended_is_shown_as_far_as_it_came(pytester):
    pytester.makepyfile(
        """
import anyio

async def waits():
    await anyio.sleep_forever()

def test_waits(dp_app, dp_clock):
    dp_app.registry.task(waits)
    dp_app.registry.task(name="later", dependencies=["waits"])(lambda: None)

    async def main():
        async with dp_app, anyio.create_task_group() as group:
            group.start_soon(dp_app.run)
            await dp_clock.advance(10)
            raise RuntimeError("enough")

    anyio.run(main)
"""
    )
    done = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    done.assert_outcomes(failed=1)
    done.stdout.re_match_lines([r"-+ dpcore run \S+: cancelled in 10.00 s \(.*\) -+", r"waits +▒+ +cancelled +10.00 s"])


def test_the_fixtures_are_listed_with_what_they_give(pytester):
    done = pytester.runpytest_inprocess("--fixtures", "-p", "no:cacheprovider")
    done.stdout.fnmatch_lines_random(
        [
            "dp_clock -- *",
            "    Give a FakeClock,*",
            "dp_app -- *",
            "    Give an App of*",
            "run_tasks -- *",
            "    Give a call*",
        ]
    )


# ---------------------------------------------------------------- what is installed cannot change a test

HOSTILE = """
import pathlib

pathlib.Path(__file__).with_suffix(".ran").touch()

from dpcore import Provider, hookimpl

@hookimpl
def dpcore_io_managers():
    return [Provider(name="memory", target="hostile:Nothing")]

@hookimpl
def dpcore_executors():
    return [Provider(name="inline", target="hostile:Nothing")]

@hookimpl
def dpcore_run_stores():
    return [Provider(name="memory", target="hostile:Nothing")]

@hookimpl
def dpcore_plan(plan):
    raise RuntimeError("hostile")

@hookimpl
def dpcore_started(app):
    raise RuntimeError("hostile")
"""

ISOLATED = """
import anyio

def orders():
    return [30, 10, 2]

def total(orders):
    return sum(orders)

def test_run_tasks(run_tasks):
    assert run_tasks(orders, total)["total"] == 42

def test_dp_app(dp_app):
    dp_app.registry.task(orders)
    async def main():
        async with dp_app:
            assert (await dp_app.run())["orders"] == [30, 10, 2]
    anyio.run(main)
    assert [one.name for one in dp_app.plugins.installed if one.source != "object"] == ["default"]
"""

ENVIRONMENT = {
    "DPCORE_IO": "nope:nowhere",
    "DPCORE_EXECUTOR": "nope",
    "DPCORE_STORE": "nope",
    "DPCORE_BROKER": "nope",
    "DPCORE_PLUGINS": "hostile,missing",
    "DPCORE_DISABLE_PLUGINS": "default",
    "DPCORE_PLUGIN_AUTOLOAD": "perhaps",
    "DPCORE_IO_MEMORY_PATH": "/nowhere",
    "DPCORE_EXECUTOR_INLINE_SLOTS": "-1",
}


@pytest.fixture
def hostile(pytester, monkeypatch) -> Path:
    """A folder on the path in which a distribution is installed that spoils all it can."""
    folder = pytester.mkdir("installed")
    (folder / "hostile.py").write_text(HOSTILE)
    info = folder / "hostile-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hostile\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[dpcore]\nhostile = hostile\n")
    (info / "RECORD").write_text("hostile.py,,\n")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


def test_neither_what_is_installed_nor_variables_nor_project_files_change_a_test(pytester, hostile, monkeypatch):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    pytester.makefile(".toml", dpcore='io = "nope"\nplugins = ["hostile"]\n')
    pytester.makepyfile(dpcore_conf="raise RuntimeError('hostile')", test_isolated=ISOLATED)
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    done.assert_outcomes(passed=2)
    assert not (hostile / "hostile.ran").exists()


def test_and_an_app_that_is_not_isolated_is_changed_by_them(pytester, hostile):
    pytester.makepyfile(
        """
import dpcore

def test_run():
    tasks = dpcore.Registry()
    tasks.task(name="one")(lambda: 1)
    dpcore.run(registry=tasks)
"""
    )
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    done.assert_outcomes(failed=1)
    assert (hostile / "hostile.ran").exists()


# ---------------------------------------------------------------- what loading it costs


def test_loading_the_plugin_loads_nothing_that_importing_dpcore_and_pytest_does_not():
    code = "import pytest, dpcore, sys; before = set(sys.modules); import dpcore.testing.plugin; print(set(sys.modules) - before)"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.strip() in (
        "{'dpcore.testing', 'dpcore.testing.plugin'}",
        "{'dpcore.testing.plugin', 'dpcore.testing'}",
    )
