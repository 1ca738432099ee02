"""How topics and patterns are written, and whether one selects the other.

Nothing recurses, and no regular expression is made of a pattern.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar, cast

from dpcore.errors import TopicError

__all__ = (
    "MOST_REMEMBERED",
    "Alternative",
    "Pattern",
    "check_pattern",
    "check_topic",
    "in_between",
    "is_literal",
    "matches",
    "read",
    "selects",
)

F = TypeVar("F", bound=Callable[..., Any])

MOST_REMEMBERED = 4_096
"""How many topics, and how many patterns, are known without being looked at again."""

_MOST_BYTES = 500

_ODD = r"\s\x00-\x1f\x7f-\x9f\ud800-\udfff"
_ODD_LETTER = re.compile(f"[{_ODD}]")
_TOPIC = re.compile(rf"(?!\$(?:\.|\Z))[^.*|{_ODD}]+(?:\.[^.*|{_ODD}]+)*")

_TOPIC_RULE = "a topic is segments joined by single dots, such as 'orders.eu.paid'"
_PATTERN_RULE = (
    "a pattern is a topic in which '*' stands for a segment or a part of one and '**' for any number of them, "
    "such as 'orders.*.paid | logs.**'"
)


# ---------------------------------------------------------------- the grammar


def _remembering(most: int) -> Callable[[F], F]:
    """Have a function remember its latest answers, and keep its type."""
    return cast("Callable[[F], F]", lru_cache(most))


@_remembering(MOST_REMEMBERED)
def check_topic(topic: str) -> str:
    """Return *topic* if it is one; raise :class:`~dpcore.errors.TopicError` otherwise.

    A topic is at most 500 bytes of UTF-8: segments joined by ``.``, of which none is empty
    and none has a ``*``, a ``|``, a whitespace, a control character or a surrogate.  Behind a
    ``$`` at its beginning the first segment has something more.

    >>> check_topic("orders.eu.paid")
    'orders.eu.paid'
    >>> check_topic("orders..paid")
    Traceback (most recent call last):
    dpcore.errors.TopicError: the topic 'orders..paid' is not valid: segment 2 is empty; a topic is segments joined by single dots, such as 'orders.eu.paid'
    """
    if isinstance(topic, str) and _TOPIC.fullmatch(topic) and len(topic.encode()) <= _MOST_BYTES:
        return topic
    if isinstance(topic, str):
        for wildcard in "*|":
            if wildcard in topic:
                cure = "publish to one topic, or use publish_matching()"
                raise TopicError("topic", topic, f"is a pattern: it has {wildcard!r}; {cure}")
    raise TopicError("topic", topic, f"is not valid: {_fault(topic)}; {_TOPIC_RULE}")


@_remembering(MOST_REMEMBERED)
def check_pattern(pattern: str) -> str:
    """Return *pattern* if it is one; raise :class:`~dpcore.errors.TopicError` otherwise.

    A pattern is one or more alternatives joined by ``|``.  Each is a topic that may have
    wildcards, and is no longer than a topic may be.

    >>> check_pattern("orders.*.paid | logs.**")
    'orders.*.paid | logs.**'
    >>> check_pattern("logs**")
    Traceback (most recent call last):
    dpcore.errors.TopicError: the pattern 'logs**' is not valid: segment 1 is 'logs**', but '**' is always a whole segment; a pattern is a topic in which '*' stands for a segment or a part of one and '**' for any number of them, such as 'orders.*.paid | logs.**'
    """
    read(pattern)
    return pattern


def is_literal(pattern: str) -> bool:
    """Tell whether *pattern*, as it is written, is one topic.

    >>> is_literal("orders.eu"), is_literal("orders.*"), is_literal("orders|logs")
    (True, False, False)
    """
    return Pattern(pattern).literal


def _fault(text: object, name: str = "it") -> str | None:
    """Say what is wrong with a topic, or with the alternative of a pattern that is called *name*."""
    if not isinstance(text, str):
        return f"{name} is no str but of type {type(text).__name__}"
    if not text:
        return f"{name} is empty"
    if (size := len(text.encode(errors="surrogatepass"))) > _MOST_BYTES:
        return f"{name} has {size:,} bytes, and may have {_MOST_BYTES}"
    for number, segment in enumerate(text.split("."), 1):
        if problem := _fault_of_segment(segment, first=number == 1):
            return f"segment {number}{'' if name == 'it' else f' of {name}'} {problem}"
    return None


def _fault_of_segment(segment: str, *, first: bool) -> str | None:
    if not segment:
        return "is empty"
    if found := _ODD_LETTER.search(segment):
        letter = found[0]
        kind = "whitespace" if letter.isspace() else "a surrogate" if letter >= "\ud800" else "a control character"
        return f"has {letter!r}, which is {kind}"
    if "**" in segment and segment != "**":
        return f"is {segment!r}, but '**' is always a whole segment"
    if first and segment == "$":
        return "is '$' with nothing behind it"
    return None


class Alternative(NamedTuple):
    """One alternative of a pattern, as it is matched."""

    text: str
    segments: tuple[str, ...]
    """As written, but for a ``**`` that follows another."""
    wanted: tuple[str | tuple[str, ...] | None, ...]
    """What each segment asks for: itself (also ``*``), the pieces around each ``*``, or as ``**`` nothing (None)."""

    @property
    def literal(self) -> bool:
        """Whether it is a topic."""
        return "*" not in self.text


@_remembering(MOST_REMEMBERED)
def read(pattern: str) -> tuple[Alternative, ...]:
    """Return the alternatives of *pattern*, each once."""
    texts = [text.strip(" ") for text in pattern.split("|")] if isinstance(pattern, str) else [pattern]
    for number, text in enumerate(texts, 1):
        if problem := _fault(text, f"alternative {number}" if len(texts) > 1 else "it"):
            raise TopicError("pattern", pattern, f"is not valid: {problem}; {_PATTERN_RULE}")
    return tuple(map(_alternative, dict.fromkeys(texts)))


def _alternative(text: str) -> Alternative:
    segments: list[str] = []
    for segment in text.split("."):
        if not segments or segment != "**" or segments[-1] != "**":
            segments.append(segment)
    return Alternative(text, tuple(segments), tuple(map(_wanted, segments)))


def _wanted(segment: str) -> str | tuple[str, ...] | None:
    if segment == "**":
        return None
    return tuple(segment.split("*")) if "*" in segment and segment != "*" else segment


# ---------------------------------------------------------------- whether a pattern selects a topic


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern that is read once, to be asked often.

    >>> paid = Pattern("orders.*.paid | $run.**")
    >>> paid.matches("orders.eu.paid"), paid.matches("$run"), paid.matches("orders.paid")
    (True, True, False)
    >>> paid.alternatives
    ('orders.*.paid', '$run.**')
    """

    text: str
    """The pattern as it is written."""

    _read: tuple[Alternative, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_read", read(self.text))

    @property
    def alternatives(self) -> tuple[str, ...]:
        """What is joined by ``|``, each once."""
        return tuple(one.text for one in self._read)

    @property
    def literal(self) -> bool:
        """Whether the pattern, as it is written, is one topic."""
        return self._read[0].text == self.text and self._read[0].literal

    def matches(self, topic: str) -> bool:
        """Tell whether the pattern selects *topic*; raise :class:`~dpcore.errors.TopicError` if that is none."""
        segments = check_topic(topic).split(".")
        return any(selects(one, segments) for one in self._read)


def matches(pattern: str, topic: str) -> bool:
    """Tell whether *pattern* selects *topic*.

    >>> matches("orders.*.paid", "orders.eu.paid"), matches("*.data-*", "eu.data-2"), matches("orders.**", "orders")
    (True, True, True)
    >>> matches("**", "$run.started")
    False
    """
    return Pattern(pattern).matches(topic)


def selects(alternative: Alternative, segments: Sequence[str]) -> bool:
    """Tell whether *alternative* selects the topic of these segments.

    A ``**`` takes as few segments as it can, and only the latest one is ever made to take
    more: what stands before it has been found as early as it can be, so that no
    other choice leaves more room.  No two segments meet more than once.
    """
    _, written, wanted = alternative
    if segments[0][0] == "$" != written[0][0]:
        return False
    at, size, here, end = 0, len(segments), 0, len(wanted)
    again, retry = -1, 0  # what follows the latest `**`, and the segment where that was last tried
    while at < size:
        want = wanted[here] if here < end else ""
        if want is None:
            here += 1
            again, retry = here, at
        elif want == segments[at] or want == "*" or (want.__class__ is tuple and _fits(want, segments[at])):
            at += 1
            here += 1
        elif again < 0:
            return False
        else:
            retry += 1
            at, here = retry, again
    return here == end or (here == end - 1 and wanted[here] is None)


def _fits(pieces: Sequence[str], segment: str) -> bool:
    """Tell whether *pieces* are in *segment*, in order and apart, the first at its beginning and the last at its end."""
    head, tail = pieces[0], pieces[-1]
    return (
        len(segment) >= len(head) + len(tail)
        and segment.startswith(head)
        and segment.endswith(tail)
        and in_between(pieces, segment)
    )


def in_between(pieces: Sequence[str], segment: str) -> bool:
    """Tell whether all but the first and the last of *pieces* are, in order and apart, between these two."""
    at, end = len(pieces[0]), len(segment) - len(pieces[-1])
    for piece in pieces[1:-1]:
        if (found := segment.find(piece, at, end)) < 0:
            return False
        at = found + len(piece)
    return True
