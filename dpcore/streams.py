"""Streams: how far one attempt of a producing task is, and how far those are that read it live.

Pure.  A :class:`Flow` is told what is stored and who has read how much; it says what
each reader may load, and how far the producer may go on.  What an attempt's end
means for those who have read it is not decided here but by :class:`~dpcore.runs.Run`.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from dpcore.jobs import Items, Outcome, Room, There

__all__ = ("LEAD", "Flow", "Reader")

S = TypeVar("S")

LEAD = 64
"""How many items a producer may be ahead of who reads them, unless its task says otherwise."""


class Flow:
    """The items of the current attempt of a task that streams, on their way to who reads them live.

    A producer may always store *lead* items more than it has told of, so it never has
    to ask; it gets no further room while it is *lead* items ahead of a reader that
    has begun and has something to read.  A reader that waits, for this stream or for
    another, holds nobody: so neither a reader that has no slot nor two streams that are
    read one after the other can bring everything to a stop.

    >>> flow = Flow("r1", "days", lead=2)
    >>> flow.begin(1)
    >>> flow.store(1), flow.room()
    (True, Room(count=3))
    >>> flow.reads("load", 0, waits=True), flow.answer("load")
    (None, There(task='days', count=1, ended=False))
    >>> flow.store(3), flow.room()  # and who reads has read none of them yet
    (False, None)
    >>> flow.reads("load", 2), flow.room()
    (None, Room(count=4))
    """

    __slots__ = ("attempt", "count", "ended", "enough", "granted", "lead", "positions", "run_id", "task", "waiting")

    def __init__(self, run_id: str, task: str, lead: int = LEAD) -> None:
        self.run_id, self.task, self.lead = run_id, task, lead
        self.attempt = self.count = self.granted = 0
        self.ended = self.enough = False
        self.positions: dict[str, int] = {}  # by reader that has begun: how many items it has read
        self.waiting: dict[str, bool] = {}  # by reader that waits: whether for this stream, or for another one

    def __repr__(self) -> str:
        return f"<Flow of {self.task!r}, attempt {self.attempt}: {self.count} items{', all' if self.ended else ''}>"

    @property
    def flows(self) -> bool:
        """Whether a reader can begin: the first item is there, or it is known that there is none."""
        return self.count > 0 or self.ended

    @property
    def items(self) -> Items:
        """What the attempt has stored so far."""
        return Items(self.run_id, self.task, self.count, self.attempt)

    def begin(self, attempt: int) -> None:
        """Begin again with *attempt*, which has stored nothing yet and may store :attr:`lead` items."""
        self.attempt, self.count, self.granted = attempt, 0, self.lead
        self.ended = self.enough = False
        self.positions.clear()
        self.waiting.clear()

    def store(self, count: int) -> bool:
        """Take in that the items before *count* are stored; tell whether that lets readers begin."""
        first = not self.flows and count > 0
        self.count = max(self.count, count)
        return first

    def end(self, count: int) -> bool:
        """Take in that there are *count* items and will be no more; tell whether that lets readers begin."""
        first = not self.flows
        self.count, self.ended = count, True
        return first

    # ---------------------------------------------------------------- who reads

    def reads(self, reader: str, index: int, *, waits: bool = False) -> None:
        """Take in that *reader* has read the items before *index*, and whether it waits for that one."""
        self.positions[reader] = max(index, self.positions.get(reader, 0))
        if waits:
            self.waiting[reader] = True
        else:
            self.waiting.pop(reader, None)

    def idles(self, reader: str, *, idle: bool) -> None:
        """Take in whether *reader* waits for another stream, and so cannot read this one."""
        if idle and reader in self.positions:
            self.waiting.setdefault(reader, False)
        elif not idle and self.waiting.get(reader) is False:
            del self.waiting[reader]

    def leave(self, reader: str) -> None:
        """Forget *reader*: it has ended, or reads no more of this."""
        self.positions.pop(reader, None)
        self.waiting.pop(reader, None)

    def answer(self, reader: str) -> There | None:
        """Return what a *reader* that waits is to be told, which then waits no longer; None if it has to go on waiting.

        It is given half of the lead at once, so that it tells in time how far it is.
        """
        if not self.waiting.get(reader):
            return None
        at = self.positions[reader]
        if at >= self.count and not self.ended:
            return None
        del self.waiting[reader]
        until = min(self.count, at + max(1, self.lead // 2))
        return There(self.task, until, self.ended and until == self.count)

    # ---------------------------------------------------------------- the producer

    def room(self) -> Room | None:
        """Return how far the producer may go on, if that is worth telling it now."""
        if self.ended:
            return None
        slowest = min((at for reader, at in self.positions.items() if reader not in self.waiting), default=self.count)
        until = min(slowest, self.count) + self.lead
        # Told when half of it is used up, and not item by item.
        if until <= self.granted or self.granted - self.count > self.lead // 2:
            return None
        self.granted = until
        return Room(until)


class Reader(Generic[S]):
    """How far a task is that reads live streams, beyond what its run knows of every task.

    ``open`` are the producers that have not ended for good, ``begun`` is its last attempt,
    and ``free`` says how many of its attempts cost it no retry: their producer's attempt
    had failed.  ``running`` are its attempts that count, ``reading`` the items of a mapped task
    among them whose code has begun, ``void`` those that do not
    any more and are not home yet.  ``provisional`` is the outcome that counts once nothing is
    open; ``fate`` how it ends when what is void is home.
    """

    __slots__ = ("begun", "fate", "free", "open", "provisional", "reading", "running", "sources", "void")

    def __init__(self, sources: set[str]) -> None:
        self.sources = frozenset(sources)
        self.open = sources
        self.begun = self.free = 0
        self.running: set[S] = set()
        self.reading: set[S] = set()
        self.void: set[S] = set()
        self.provisional: Outcome | None = None
        self.fate: Outcome | None = None
