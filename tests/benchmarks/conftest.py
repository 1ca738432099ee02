"""What every benchmark may use: two sides measured in turns, and one table of what came out.

A machine that others use makes everything slower, and never faster.  So both sides
run in one process, a round of one after a round of the other, for many short
rounds, and the fastest round of each is what they are compared by.  Beside that ratio
stands the median of the ratios of the pairs: where the two are far apart, the
machine was too busy to tell.

What computes is timed by the processor time of this process, which on a quiet machine is
the time that passes and on a busy one leaves out what others took.  What waits, for
threads, files or other processes, is timed by the clock on the wall.
"""

from __future__ import annotations

import gc
import os
import platform
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Literal, TypeVar

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from pytest_benchmark.fixture import BenchmarkFixture

from dpcore_plugins import MultiprocessBroker
from tests.benchmarks.processes import another, serve

Clock = Literal["cpu", "wall"]

A = TypeVar("A")
B = TypeVar("B")

FEWEST = 3
"""Pairs of rounds that are measured even if they take long."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table."""

    what: str
    ours: float
    than: str
    """What it is compared to; empty if a budget is all there is."""
    theirs: float | None
    median: float | None
    """The median of the ratios of pairs of rounds."""
    budget: float | None
    """The ratio, or without another side the figure itself, that it should not exceed; None if none was set."""
    unit: str
    clock: Clock | None = None

    @property
    def ratio(self) -> float | None:
        return None if self.theirs is None else self.ours / self.theirs

    @property
    def is_within(self) -> bool | None:
        if self.budget is None:
            return None
        return (self.ours if self.ratio is None else self.ratio) <= self.budget


FIGURES = pytest.StashKey[list[Figure]]()


class Watch:
    """A clock that goes only where a benchmark lets it: what it shows is the sum of what was timed."""

    def __init__(self) -> None:
        self.shown = 0.0
        self.clock: Clock = "cpu"

    def __call__(self) -> float:
        return self.shown

    @contextmanager
    def going(self) -> Iterator[None]:
        """Time the block."""
        now = process_time if self.clock == "cpu" else perf_counter
        began = now()
        yield
        self.shown += now() - began

    def add(self, seconds: float) -> None:
        """Take what another process has timed."""
        self.shown += seconds


WATCH = Watch()


@pytest.fixture
def watch() -> Watch:
    """The clock of a benchmark whose sides say themselves which part of their work counts."""
    return WATCH


class SideBySide:
    """Measures what dpcore does and what another does for it, for one row of the table.

    Without ``--benchmark-enable`` it calls each side once, and measures nothing.
    """

    def __init__(self, request: pytest.FixtureRequest, benchmark: BenchmarkFixture) -> None:
        self._benchmark = benchmark
        self._seconds = float(request.config.getoption("benchmark_max_time"))
        self._figures = request.config.stash.setdefault(FIGURES, [])

    def size(self, whole: int, small: int) -> int:
        """Return *whole* where something is measured, *small* where it is only tried."""
        return whole if self._benchmark.enabled else small

    def time(
        self,
        what: str,
        ours: Callable[[], A],
        theirs: Callable[[], B],
        *,
        than: str,
        budget: float | None = None,
        per: int = 1,
        per_theirs: int | None = None,
        partly: bool = False,
        clock: Clock = "cpu",
    ) -> tuple[A, B]:
        """Time both sides in turns, and return what they gave the last time.

        A round does *per* of what the row is about, the other side's *per_theirs* if
        that is another number.  Of sides that are timed *partly*, what they do in
        ``with watch.going()`` counts.
        """
        WATCH.clock = clock
        whole_ours, whole_theirs = (ours, theirs) if partly else (_timed(ours), _timed(theirs))
        given: list[B] = []
        took: list[float] = []

        def before() -> None:
            self._collect()
            shown = WATCH()
            given[:] = [whole_theirs()]
            took.append(WATCH() - shown)
            self._collect()  # nobody pays for what the other left

        rounds = 1
        if self._benchmark.enabled:
            began = perf_counter()
            before()
            whole_ours()
            rounds = max(FEWEST, int(self._seconds / (perf_counter() - began)))
            took.clear()
        gave = self._benchmark.pedantic(whole_ours, setup=before, rounds=rounds)
        if self._benchmark.enabled:
            pairs = zip(self._benchmark.stats.stats.data, took, strict=True)
            per_theirs = per if per_theirs is None else per_theirs
            ratios = [one / per / (other / per_theirs) for one, other in pairs]
            best = self._benchmark.stats.stats.min / per
            self._note(Figure(what, best, than, min(took) / per_theirs, median(ratios), budget, "s", clock))
        return gave, given[0]

    def memory(
        self,
        what: str,
        ours: Callable[[], A],
        theirs: Callable[[], B] | None = None,
        *,
        than: str = "",
        budget: float | None = None,
        per: int = 1,
        per_theirs: int | None = None,
    ) -> tuple[A, B | None]:
        """Measure once how much memory each side has in use at its highest, beyond what was there before."""
        peaks: list[float] = []

        def measured() -> tuple[A, B | None]:
            other = None if theirs is None else _traced(theirs, peaks)
            return _traced(ours, peaks), other

        gave = self._benchmark.pedantic(measured)
        if self._benchmark.enabled:
            other = peaks[0] / (per_theirs or per) if theirs is not None else None
            self._note(Figure(what, peaks[-1] / per, than, other, None, budget, "B"))
        return gave

    def _collect(self) -> None:
        if self._benchmark.enabled:
            gc.collect()

    def _note(self, figure: Figure) -> None:
        self._figures.append(figure)
        self._benchmark.extra_info.update(asdict(figure), ratio=figure.ratio, is_within=figure.is_within)


def _timed(side: Callable[[], A]) -> Callable[[], A]:
    def timed() -> A:
        with WATCH.going():
            return side()

    return timed


def _traced(side: Callable[[], A], peaks: list[float]) -> A:
    gc.collect()
    tracemalloc.start()
    try:
        gave = side()
        peaks.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()
    return gave


@pytest.fixture
def side_by_side(request: pytest.FixtureRequest, benchmark: BenchmarkFixture) -> Iterator[SideBySide]:
    """Give what measures two sides in turns; the test says what the row is."""
    if benchmark.enabled:
        gc.collect()
        gc.freeze()  # what pytest and its plugins hold is no part of either side
    yield SideBySide(request, benchmark)
    gc.unfreeze()


@pytest.fixture
def portal() -> Iterator[BlockingPortal]:
    """A loop in a thread of its own, for what is async and is called by a benchmark that is not."""
    with start_blocking_portal() as portal:
        yield portal


@pytest.fixture
def broker(tmp_path: Path, portal: BlockingPortal) -> Iterator[MultiprocessBroker]:
    """A broker of this process, whose hub is in another one."""
    path = str(tmp_path / "hub")
    with another(serve, path), portal.wrap_async_context_manager(MultiprocessBroker(path, serve=False)) as broker:
        yield broker


@pytest.hookimpl(tryfirst=True)
def pytest_itemcollected(item: pytest.Item) -> None:
    """Have pytest-benchmark read the same watch."""
    item.add_marker(pytest.mark.benchmark(timer=WATCH))


# ---------------------------------------------------------------- the table


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what was measured, one row each; a budget that was missed is said, and fails nothing."""
    figures = config.stash.get(FIGURES, [])
    if not figures:
        return
    terminalreporter.section("figures")
    for line in lines(figures):
        terminalreporter.write_line(line)
    for report in terminalreporter.stats.get("skipped", []):
        said = report.longrepr[2].removeprefix("Skipped: ")
        if "benchmarks" in report.nodeid and not said.startswith("Skipping non-benchmark"):  # that is --benchmark-only
            terminalreporter.write_line(f"not measured: {report.location[2]} ({said})")
    missed = sum(figure.is_within is False for figure in figures)
    budgets = sum(figure.budget is not None for figure in figures)
    terminalreporter.write_line("")
    terminalreporter.write_line(f"{budgets - missed} of {budgets} budgets kept, {missed} missed")
    system = f"{platform.python_implementation()} {platform.python_version()}, {platform.system()} {platform.machine()}"
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    terminalreporter.write_line(f"{system}, {os.cpu_count()} cores, load {load}")
    terminalreporter.write_line(
        "ratio: of the fastest rounds; median: of the ratios of the pairs of rounds; within: the ratio"
    )


def lines(figures: list[Figure]) -> list[str]:
    """Return the table, its columns as wide as what is in them."""
    heads = ("what", "dpcore", "the other", "", "ratio", "median", "budget", "within", "clock")
    rows = [heads, *map(_cells, figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    left = (0, 3, 8)
    return [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _cells(figure: Figure) -> tuple[str, ...]:
    measured = "" if figure.theirs is None else _shown(figure.theirs, figure.unit)
    budget = "" if figure.budget is None else f"{figure.budget:g}x"
    if figure.budget is not None and figure.ratio is None:
        budget = _shown(figure.budget, figure.unit)
    return (
        figure.what,
        _shown(figure.ours, figure.unit),
        measured,
        figure.than,
        "" if figure.ratio is None else f"{figure.ratio:.3g}x",
        "" if figure.median is None else f"{figure.median:.3g}x",
        budget,
        {None: "", True: "yes", False: "MISSED"}[figure.is_within],
        figure.clock or "",
    )


def _shown(figure: float, unit: str) -> str:
    for prefix, size in (("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1.0), ("m", 1e-3), ("µ", 1e-6)):
        if figure >= size:
            return f"{figure / size:.3g} {prefix}{unit}"
    return f"{figure / 1e-9:.3g} n{unit}"
