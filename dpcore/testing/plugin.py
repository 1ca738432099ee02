"""What dpcore adds to pytest: fixtures that nothing on the machine can change, and failures that show the run.

Every run of pytest in the environment loads this module, so what a fixture needs
is imported when a test first asks for it.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

__all__ = ("dp_app", "dp_clock", "run_tasks")

# So that a promise that is broken shows the values, as in a test module.
pytest.register_assert_rewrite(
    "dpcore.testing.suite",
    "dpcore.testing.broker",
    "dpcore.testing.io",
    "dpcore.testing.executor",
    "dpcore.testing.runstore",
    "dpcore.testing.queue",
    "dpcore.testing.queue_processes",
    "dpcore.testing.queue_users",
    "dpcore.testing.machines",
)

_SEEN = pytest.StashKey[Any]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Have an option that names adapters to be tested, and say what it does."""
    parser.getgroup("dpcore").addoption(
        "--dpcore-adapter",
        action="append",
        default=[],
        metavar="KIND:NAME",
        help="with --pyargs dpcore.testing: test the adapter of that name, such as broker:memory or "
        "'store:sqlite?sync=true', by the suite of its kind; {tmp_path} in its address is a folder of each test's own; "
        "may be given several times",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Look at the adapters that are named, before anything is collected."""
    if names := config.getoption("dpcore_adapter"):
        from dpcore.testing.adapter import CHOSEN, choose

        config.stash[CHOSEN] = choose(names)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Have the suites of the adapters that are named in the place of the one module that is collected here."""
    if module_path != Path(__file__).with_name("test_adapter.py"):
        return None
    from dpcore.testing.adapter import AdapterModule

    module: pytest.Module = AdapterModule.from_parent(parent, path=module_path)
    return module


@pytest.fixture
def dp_clock() -> Any:
    """Give a FakeClock, which stands still until ``await dp_clock.advance(seconds)``; the other fixtures live on it."""
    from dpcore.testing.clock import FakeClock

    return FakeClock()


@pytest.fixture
def dp_app(request: pytest.FixtureRequest) -> Any:
    """Give an App of one's own: an empty registry, the bundle's memory adapters, jobs inline, nobody's settings.

    It is not entered: write ``async with dp_app:`` in a test of any async plugin, on
    asyncio or trio, or plan with it in a plain one.  Where the test asks for
    ``dp_clock`` too, the app lives on that clock.  Its events are strict: each payload
    goes through the wire form, as it would between processes.
    """
    from dpcore.testing.fixtures import isolated_app

    return isolated_app(_seen(request), clock=_clock(request))


@pytest.fixture
def run_tasks(request: pytest.FixtureRequest) -> Any:
    """Give a call that runs tasks, or plain functions, by themselves and returns their Result (dpcore.testing.RunTasks)."""
    from dpcore.testing.fixtures import RunTasks

    return RunTasks(_seen(request), _clock(request))


def _clock(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue("dp_clock") if "dp_clock" in request.fixturenames else None


def _seen(request: pytest.FixtureRequest) -> Any:
    from dpcore.testing.fixtures import Seen

    return request.node.stash.setdefault(_SEEN, Seen())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the runs of a test that failed, each as a section with its timeline."""
    report = yield
    if report.failed and _SEEN in item.stash:
        report.sections += item.stash[_SEEN].sections()
        del item.stash[_SEEN]  # what fails afterwards, in a teardown, need not show them again
    return report
