"""A run as it is seen in a terminal: what runs now in the last rows, and above them what has ended."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TextIO

from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dpcore.cli.report import Report
from dpcore.cli.screen import Screen
from dpcore.jobs import Outcome, State
from dpcore.runs import Run
from dpcore.tasks import Task
from dpcore.timelines import seconds, word

__all__ = ("LiveReport",)

_ROWS = 8  # tasks that are shown while they run, at most
_FEW = 50  # tasks of a plan of which each gets a line when it has ended
_STYLES = {
    State.SUCCEEDED: "green",
    State.FAILED: "bold red",
    State.TIMED_OUT: "bold red",
    State.RETRYING: "yellow",
    State.CANCELLED: "yellow",
    State.RUNNING: "cyan",
}


class LiveReport(Report):
    """Shows a run in the terminal *out* as it goes; *now* says what time it is, in seconds.

    Its hooks only note what has changed: what they cost does not depend on what is
    shown.  Of a plan of many tasks only those that go wrong get a line.
    """

    def __init__(self, out: TextIO, shown: str, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__(out, shown)
        self._console, self._now = Console(file=out, highlight=False), now
        self._screen: Screen | None = None
        self._active: dict[str, tuple[State, int, float]] = {}
        self._counts: Counter[State] = Counter()
        self._tasks = 0
        self._began = 0.0

    def close(self) -> None:
        """Give the terminal back, from whichever thread."""
        screen, self._screen = self._screen, None
        if screen is not None:
            screen.close()

    def dpcore_run_changed(self, run: Run, new: State) -> None:
        """Begin with the rows, and end with them."""
        super().dpcore_run_changed(run, new)
        if new is State.RUNNING:
            self._tasks, self._began = len(run.plan), self._now()
            self._counts.update(outcome.state for outcome in run.outcomes.values())  # of a run that goes on
            self._screen = Screen(self.out, min(_ROWS, self._tasks) + 1, self.rows)
            self._screen.__enter__()
        else:
            self.close()

    def dpcore_task_changed(self, task: Task, attempt: int, new: State, outcome: Outcome | None) -> None:
        """Note what a task does now, and say how it ended."""
        if new.ended:
            self._active.pop(task.name, None)
            self._counts[new] += 1
            if new is State.SUCCEEDED and self._tasks > _FEW:
                return
        else:
            self._active[task.name] = (new, attempt, self._now())
        super().dpcore_task_changed(task, attempt, new, outcome)

    def styled(self, state: State, text: str) -> str:
        """Colour *text* as what it says of a task, where colours are wanted."""
        return self._written(Text(text, _STYLES.get(state, "")))

    # ---------------------------------------------------------------- the rows

    def rows(self, width: int) -> list[str]:
        """Return a line for each task that runs or waits for a retry, as far as there is room, and how far all is."""
        active = list(self._active.items())
        room = min(_ROWS, self._tasks)
        shown = active if len(active) <= room else active[: room - 1]
        lines = [self._row(name, *what, width) for name, what in shown]
        if len(shown) < len(active):
            lines.append(self._written(Text(f"and {len(active) - len(shown):,} more", "dim"), width))
        return [*lines, self._total(width)]

    def _row(self, name: str, state: State, attempt: int, since: float, width: int) -> str:
        took = seconds(max(0.0, self._now() - since))
        tail = f"  {took}  (attempt {attempt})" if attempt > 1 else f"  {took}"
        if state is State.RETRYING:
            tail = f"  (attempt {attempt} failed)"
        line = Text(no_wrap=True)
        line.append(f"{word(state):9}", _STYLES.get(state, ""))
        line.append("  ")
        title = Text(name)
        title.truncate(max(8, width - len(line) - len(tail)), overflow="ellipsis")
        return self._written(line + title + Text(tail, "dim"), width)

    def _total(self, width: int) -> str:
        done = sum(self._counts.values())
        words = [f"{done:,}/{self._tasks:,}", *self._told(), seconds(max(0.0, self._now() - self._began))]
        grid = Table.grid(padding=(0, 1))
        grid.add_row(
            ProgressBar(total=max(1, self._tasks), completed=done, width=max(5, min(30, width // 4))), ", ".join(words)
        )
        return self._written(grid, width)

    def _told(self) -> Iterator[str]:
        for state, count in list(self._counts.items()):  # which may grow meanwhile
            if state is not State.SUCCEEDED:
                yield f"{count:,} {word(state)}"

    def _written(self, shown: Text | Table, width: int | None = None) -> str:
        with self._console.capture() as capture:
            self._console.print(shown, width=width, no_wrap=True, overflow="ellipsis", crop=True, end="")
        return capture.get().rstrip("\n").split("\n")[0]
