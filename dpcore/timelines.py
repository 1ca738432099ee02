"""Timelines: when each task of a run was at work, as rows of bars and as lines of text.

Pure.  A row is read off what the run store recorded, so a run looks the same
while it runs, when it has ended, and a year later.  A bar begins when an attempt
was handed to the executor and ends when its outcome was recorded: what waits for a
worker's slot is in it.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dpcore.jobs import State
from dpcore.ports.runstore import RunHistory, TaskChange
from dpcore.words import counted, printable

__all__ = ("Bar", "Row", "Timeline", "columns", "cut", "padded", "seconds", "timeline", "word")

_TROUBLE = (State.FAILED, State.TIMED_OUT, State.RETRYING)


@dataclass(frozen=True, slots=True)
class Bar:
    """One attempt: *start* and *end* are seconds from the run's beginning, *took* what its body needed.

    *state* says how it ended, and is ``running`` where it has not.
    """

    start: float
    end: float
    state: State
    attempt: int = 1
    took: float = 0.0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One task: its attempts in order, none if it never began, and what is to be said of it.

    *note* is the error of its last attempt, or the reason why there was none; *items*
    counts those of a mapped task, whose one bar spans them all.
    """

    name: str
    state: State
    bars: tuple[Bar, ...] = ()
    note: str = ""
    items: int = 0

    @property
    def duration(self) -> float:
        """Seconds that its attempts took, without the waits between them."""
        return sum(bar.took or bar.end - bar.start for bar in self.bars)

    @property
    def attempts(self) -> int:
        """How often it was tried."""
        return self.bars[-1].attempt if self.bars else 0


@dataclass(frozen=True, slots=True)
class Timeline:
    """A run as rows over one axis, which goes from 0 to *length* seconds.

    The rows are in the order in which their tasks began or were given up; *unbegun*
    counts the tasks of the plan of which nothing is recorded yet.
    """

    run_id: str
    state: State
    length: float
    rows: tuple[Row, ...]
    unbegun: int = 0
    reason: str = ""

    @property
    def title(self) -> str:
        """The run in one line."""
        how = "running for" if not self.state.ended else f"{word(self.state)} in"
        reason = printable(_first_line(self.reason))
        why = f" ({reason})" if reason else ""
        return f"run {self.run_id}: {how} {seconds(self.length)}{why}"

    def lines(self, width: int = 80, *, limit: int = 50, ascii: bool = False) -> list[str]:  # noqa: A002
        """Draw the rows as lines of at most *width* columns: name, bars, state, duration and attempts.

        An attempt that succeeded is drawn full, one that did not half, one that runs
        light; each has one cell at the least.  Of more than *limit* rows those in
        trouble come first, and a last line counts the others.  With *ascii*, bars are
        made of ``#``, ``x`` and ``-``, and what is not ASCII in names and errors is escaped.

        >>> load = Row("load", State.SUCCEEDED, (Bar(0, 1, State.RETRYING), Bar(3, 4, State.SUCCEEDED, 2)))
        >>> found = Timeline("r1", State.FAILED, 4.0, (load, Row("total", State.SKIPPED, note="'load' failed")))
        >>> print(*found.lines(50, ascii=True), sep="\\n")
               0            4.00 s
        load   xxxxx         #####  succeeded   2.00 s  x2
        total  'load' failed        skipped
        """
        rows = self._chosen(limit)
        drawing = _Drawing(self.length, rows, width, ascii)
        lines = [line for row in rows for line in drawing.row(row)]
        if rows:
            lines.insert(0, drawing.axis())
        return [drawing.cut(line) for line in [*lines, *self._rest(rows)]]

    def _chosen(self, limit: int) -> list[Row]:
        if len(self.rows) <= limit:
            return list(self.rows)
        places = sorted(range(len(self.rows)), key=lambda place: self.rows[place].state not in _TROUBLE)  # it is stable
        return [self.rows[place] for place in sorted(places[: max(limit, 0)])]

    def _rest(self, shown: Sequence[Row]) -> list[str]:
        lines = []
        if more := len(self.rows) - len(shown):
            counts = Counter(row.state for row in self.rows)
            counts.subtract(row.state for row in shown)
            states = ", ".join(f"{count:,} {word(state)}" for state, count in counts.items() if count)
            lines.append(f"and {more:,} more: {states}")
        if self.unbegun > 0:
            lines.append(f"and {counted(self.unbegun, 'task')} that had not begun")
        return lines


def timeline(history: RunHistory, *, now: float | None = None) -> Timeline:
    """Read the timeline of a run off what is recorded of it.

    Of a run that has not ended, the axis and the bars of what is at work reach to
    *now*, in seconds since the epoch, or to the last thing that was recorded.
    """
    record = history.record
    changes: dict[str, list[TaskChange]] = {}
    last = record.began if record.ended is None else record.ended
    for change in history.changes:
        changes.setdefault(change.task, []).append(change)
        last = max(last, change.at)
    if record.ended is None and now is not None:
        last = max(last, now)
    length = max(last - record.began, 0.0)
    rows = tuple(_row(name, entries, record.began, length) for name, entries in changes.items())
    return Timeline(record.run_id, record.state, length, rows, max(record.tasks - len(rows), 0), record.reason)


def _row(name: str, changes: Sequence[TaskChange], began: float, length: float) -> Row:
    whole = [change for change in changes if change.index is None]
    items = len({change.index for change in changes} - {None})
    bars: list[Bar] = []
    running: float | None = None
    for change in whole:
        before = bars[-1].end if bars else 0.0
        at = min(max(change.at - began, before), length)  # a clock may have been set back
        if change.state is State.RUNNING:
            running = at if running is None else running
        elif running is not None or change.duration:
            start = max(at - change.duration, before) if running is None else running
            bars.append(Bar(start, max(at, start), change.state, change.attempt, change.duration, change.error))
            running = None
    last = whole[-1] if whole else changes[-1]
    if running is not None:
        bars.append(Bar(running, length, State.RUNNING, last.attempt))
    return Row(name, last.state, tuple(bars), last.error or last.reason, items)


# ---------------------------------------------------------------- drawing

_FEWEST = 8  # cells of bars; with fewer, a name is cut rather than these
_BLOCKS, _ASCII_BLOCKS = "█▒░", "#x-"
_BLOCK = {State.SUCCEEDED: 0, State.RUNNING: 2}  # all others ended in trouble


class _Drawing:
    """Rows drawn over one axis in so many columns."""

    def __init__(self, length: float, rows: Sequence[Row], width: int, only_ascii: bool) -> None:
        self.length, self.width, self.only_ascii = length, width, only_ascii
        self.blocks, self.dots = (_ASCII_BLOCKS, "...") if only_ascii else (_BLOCKS, "…")
        self.ends = {id(row): self.end(row) for row in rows}
        # What follows the bars keeps its width; a name gives way to the bars, and neither takes the other's half.
        free = max(width - max(map(len, self.ends.values()), default=0) - 4, 2)
        longest = max((columns(self.clean(row.name)) for row in rows), default=0)
        self.names = max(min(longest, max(free - 3 * _FEWEST, free // 2)), 1)
        self.cells = max(free - self.names, 1)

    def axis(self) -> str:
        most = seconds(self.length) if self.length else ""
        return f"{'':{self.names}}  0{most:>{max(self.cells - 1, len(most) + 1)}}".rstrip()

    def row(self, row: Row) -> list[str]:
        name = padded(cut(self.clean(row.name), self.names, self.dots), self.names)
        note = self.clean(_first_line(row.note))
        middle = self.bars(row.bars) if row.bars else cut(note, self.cells, self.dots)
        lines = [f"{name}  {padded(middle, self.cells)}  {self.ends[id(row)]}".rstrip()]
        if note and (row.bars or middle != note):
            lines.append(f"{'':{self.names}}  {note}")
        return lines

    def bars(self, bars: Iterable[Bar]) -> str:
        cells = [" "] * self.cells
        for bar in bars:
            first = min(self.cell(bar.start), self.cells - 1)
            after = max(self.cell(bar.end), first + 1)
            cells[first:after] = self.blocks[_BLOCK.get(bar.state, 1)] * (after - first)
        return "".join(cells)

    def cell(self, at: float) -> int:
        return round(at / self.length * self.cells) if self.length else 0

    def end(self, row: Row) -> str:
        took = seconds(row.duration) if row.bars else ""
        more = [f"x{row.attempts}"] * (row.attempts > 1) + [f"{row.items:,} items"] * (row.items > 0)
        return f"{word(row.state):9}  {took:>7}  {', '.join(more)}".rstrip()

    def clean(self, text: str) -> str:
        return printable(text, only_ascii=self.only_ascii)

    def cut(self, line: str) -> str:
        return cut(line, self.width, self.dots)


def _first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "")


def columns(text: str) -> int:
    """Count the columns of a terminal that *text* fills: letters of East Asia fill two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(map(_column, text))


def _column(letter: str) -> int:
    if unicodedata.combining(letter) or unicodedata.category(letter) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def padded(text: str, width: int) -> str:
    """Fill *text* up with blanks to so many columns of a terminal."""
    return text + " " * (width - columns(text))


def cut(text: str, width: int, dots: str = "…") -> str:
    """Cut *text* to so many columns of a terminal, and put *dots* where something is missing."""
    if columns(text) <= width:
        return text
    dots = dots if width > len(dots) else ""
    left, kept = width - len(dots), 0
    for letter in text:
        left -= _column(letter)
        if left < 0:
            break
        kept += 1
    return text[:kept] + dots


def word(state: State) -> str:
    """Write a state as people do."""
    return state.replace("_", " ")


def seconds(duration: float) -> str:
    """Write a duration in seconds so that it is read at a glance.

    >>> seconds(0.0042), seconds(1.239), seconds(125), seconds(7260)
    ('0.004 s', '1.24 s', '2 min 5 s', '2 h 1 min')
    """
    if duration < 0.1:
        return f"{duration:.3f} s"
    if duration < 60:
        return f"{duration:.2f} s"
    whole = round(duration)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
