"""Schedules, decided: what is due, what was missed, and what several schedulers agree on.

Pure.  A schedule remembers the last nominal time that it has dealt with, and nothing else is needed to
know what comes: the next time is computed from that one, so that it never drifts, and a scheduler
that was away finds out by itself what it has missed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Literal, NamedTuple, cast, get_args

import msgspec

from dpcore.durations import Duration, duration
from dpcore.errors import ArgumentError
from dpcore.ports.trigger import Overlap, TimeTrigger, Trigger
from dpcore.words import listed

__all__ = (
    "MOST_MISSED",
    "ON_TIME",
    "Claim",
    "Due",
    "Misfire",
    "Policy",
    "Standing",
    "Times",
    "due",
    "local",
    "paused",
    "resumed",
    "shifted",
)

Misfire = Literal["latest", "skip", "all"]

ON_TIME = timedelta(seconds=1)
"""How late a firing may be without that it counts as late."""

MOST_MISSED = 10_000
"""Missed times of one schedule that are told of one by one; of more, it is only said that there are some."""

_AT_ONCE = 100  # times that are made up for before other schedules have their turn
_GRACE_OF_SKIP = timedelta(seconds=60)


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What a schedule does when it is late, when it is still running, and how it spreads.

    A firing later than *grace* is missed; without one, only ``misfire="skip"`` has a limit, of 60 seconds.
    At most *limit* of its runs run at once; *overlap* says what becomes of another.  Each firing
    is delayed by a part of *jitter*, always the same one for the same nominal time.
    """

    misfire: Misfire = "latest"
    grace: timedelta | None = None
    overlap: Overlap = "skip"
    limit: int = 1
    jitter: timedelta = timedelta()

    @classmethod
    def checked(
        cls,
        triggers: Sequence[Trigger],
        *,
        misfire: object,
        grace: Duration | None,
        overlap: object,
        limit: object,
        jitter: Duration | None,
    ) -> Policy:
        """Return a policy of what was given for a schedule with *triggers*; what was not is theirs to say.

        Raises :class:`~dpcore.errors.ArgumentError`.
        """
        if misfire not in get_args(Misfire):
            raise ArgumentError("misfire", misfire, f"one of {listed(get_args(Misfire))}")
        if overlap is None:
            overlap = triggers[0].overlap
        if overlap not in get_args(Overlap):
            raise ArgumentError("overlap", overlap, f"one of {listed(get_args(Overlap))}")
        if limit is None:
            limit = 1
        if type(limit) is not int or limit < 1 or (limit > 1 and overlap == "allow"):
            raise ArgumentError("limit", limit, "a number of runs, at least 1, and left out with overlap='allow'")
        return cls(
            misfire=cast(Misfire, misfire),
            grace=None if grace is None else duration("grace", grace),
            overlap=cast(Overlap, overlap),
            limit=limit,
            jitter=timedelta() if jitter is None else duration("jitter", jitter, timedelta()),
        )

    @property
    def latest(self) -> timedelta | None:
        """How late a firing may be at the most."""
        return _GRACE_OF_SKIP if self.grace is None and self.misfire == "skip" else self.grace


class Claim(msgspec.Struct, frozen=True):
    """That a scheduler is about to fire, until when nobody else should."""

    id: str
    """That of the firing."""

    by: str
    """Which scheduler it is."""

    process: str
    """In which process it works: when that has ended, the claim has."""

    until: datetime


class Standing(msgspec.Struct, omit_defaults=True):
    """What schedulers know of a schedule, as it is in the run store."""

    triggers: str = ""
    """What its triggers were when it was scheduled; others begin anew."""

    last: datetime | None = None
    """The last nominal time that was dealt with: fired, missed, or left out."""

    next: datetime | None = None
    """The nominal time after that, for who only looks."""

    paused: bool = False
    note: str = ""
    claim: Claim | None = None
    runs: dict[str, str] = {}
    """Its runs that have a place, and are not known to have ended: the process that drives each, by id, oldest first."""

    waiting: list[str] = []
    """The ids of firings that wait for their turn, oldest first."""

    broken: dict[str, int] = {}
    """How often runs were broken off, because their process had died."""


def paused(standing: Standing, note: str) -> bool:
    """Note that a schedule is not to fire by itself, and why."""
    standing.paused, standing.note = True, note
    return True


def resumed(standing: Standing, now: datetime) -> bool:
    """Note that a schedule may fire by itself again, from *now* on; False if it might."""
    if not standing.paused:
        return False
    standing.paused, standing.note = False, ""
    standing.last = max(standing.last or now, now)
    return True


class Times:
    """The times of several triggers together, each instant once."""

    def __init__(self, triggers: Sequence[TimeTrigger]) -> None:
        self.triggers = triggers
        self.following = triggers[0].following if len(triggers) == 1 else self._first_following
        """Return the first time of any of them later than a given one, aware and in UTC; None if there is none."""

    def _first_following(self, after: datetime) -> datetime | None:
        found = [one for trigger in self.triggers if (one := trigger.following(after)) is not None]
        return min(found, default=None)

    def begins(self, now: datetime) -> datetime:
        """Return the time after which a schedule that is new at *now* begins to fire."""
        return min((trigger.begins(now) for trigger in self.triggers), default=now)

    def local(self, nominal: datetime) -> datetime:
        """Return *nominal* in the local time of the trigger that it comes from."""
        for trigger in self.triggers:
            if len(self.triggers) == 1 or trigger.following(nominal - nominal.resolution) == nominal:
                return local(nominal, trigger.timezone)
        return nominal


def local(moment: datetime, zone: Any) -> datetime:
    """Return *moment* in *zone*, with a fixed offset.

    Two times of one zone are compared and subtracted by their wall in Python, which is wrong
    where clocks are changed; with fixed offsets they are the instants that they are.
    """
    if zone is UTC:
        return moment
    shown = moment.astimezone(zone)
    offset = shown.utcoffset()
    assert offset is not None
    return shown.replace(tzinfo=timezone(offset, shown.tzname() or ""), fold=0)


class Due(NamedTuple):
    """What is to be done about the times that have passed, oldest first."""

    fire: list[datetime]
    missed: list[datetime]
    more: bool
    """Whether further times were missed, too many to be listed."""


Following = Callable[[datetime], datetime | None]


def due(following: Following, last: datetime, now: datetime, policy: Policy) -> Due:
    """Decide what to do about the times after *last* and up to *now*."""
    first = following(last)
    if first is None or first > now:
        return Due([], [], more=False)
    if now - first <= ON_TIME:
        return Due([first], [], more=False)  # and the next one, should it have passed too, in its turn
    earliest = None if policy.latest is None else now - max(policy.latest, ON_TIME)
    if policy.misfire == "all":
        return _all(following, first, now, earliest)
    latest = _latest(following, last, now)
    fires = earliest is None or latest >= earliest
    missed, more = _from(following, first, latest, MOST_MISSED)
    if not fires and not more:
        missed.append(latest)
    return Due([latest] if fires else [], missed, more)


def _all(following: Following, first: datetime, now: datetime, earliest: datetime | None) -> Due:
    """Fire all that are not too late, some at once."""
    missed: list[datetime] = []
    more = False
    moment: datetime | None = first
    if earliest is not None and first < earliest:
        missed, more = _from(following, first, earliest, MOST_MISSED)
        moment = following(earliest - earliest.resolution)
    fire: list[datetime] = []
    while moment is not None and moment <= now and len(fire) < _AT_ONCE:
        fire.append(moment)
        moment = following(moment)
    return Due(fire, missed, more)


def _from(following: Following, first: datetime, end: datetime, most: int) -> tuple[list[datetime], bool]:
    """Return the times from *first* on and before *end*, *most* of them, and whether there are more."""
    found: list[datetime] = []
    moment: datetime | None = first
    while moment is not None and moment < end:
        if len(found) >= most:
            return found, True
        found.append(moment)
        moment = following(moment)
    return found, False


def _latest(following: Following, last: datetime, now: datetime) -> datetime:
    """Return the last time after *last* and up to *now*; there is one."""
    back = timedelta(seconds=1)
    moment = following(last)
    while now - back > last:
        found = following(now - back)
        if found is not None and found <= now:
            moment = found
            break
        back *= 2
    assert moment is not None
    while (later := following(moment)) is not None and later <= now:
        moment = later
    return moment


def shifted(name: str, nominal: datetime, policy: Policy, following: Following) -> datetime:
    """Return when a firing is due: its nominal time, and by its jitter later, but never when the next one is.

    >>> at = datetime(2026, 3, 29, tzinfo=UTC)
    >>> shifted("nightly", at, Policy(), lambda after: None) == at
    True
    """
    if not policy.jitter:
        return nominal
    later = following(nominal)
    most = policy.jitter if later is None else min(policy.jitter, later - nominal)
    drawn = hashlib.sha256(f"{name}\0{nominal.isoformat()}".encode()).digest()
    return nominal + most * (int.from_bytes(drawn[:8], "big") / 2**64)
