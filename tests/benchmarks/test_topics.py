"""What routing a topic costs, whether few patterns are there or very many, and what it costs when they change.

Of the patterns, 80 % are literal, 15 % have a ``*`` and 5 % end with ``**``; the topics reach three of them each.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import count
from typing import Any

import pytest

from dpcore.topics import Pattern, Routes, check_pattern, check_topic, matches

REMEMBERED = 4_096
ASKED = 150
"""Topics that differ, however many patterns there are: how fast memory is must not be what is compared."""


def patterns(size: int) -> list[str]:
    """Return *size* patterns, in groups of twenty."""
    return [
        pattern
        for group in range(-(-size // 20))
        for pattern in (
            f"group{group}.eu.t0",
            *(f"group{group}.*.t{number}" for number in range(3)),
            *(f"group{group}.eu.t{number}" for number in range(1, 16)),
            f"group{group}.**",
        )
    ][:size]


def topics(size: int) -> list[str]:
    """Return topics that reach three of *size* patterns each, spread over all of these."""
    groups = max(1, size // 20)
    return [f"group{turn * groups * 3 // ASKED}.eu.t{number}" for turn in range(ASKED // 3) for number in range(3)]


def routes(size: int, cache: int = REMEMBERED) -> Routes[int]:
    made: Routes[int] = Routes(cache=cache)
    for number, pattern in enumerate(patterns(size)):
        made.add(pattern, number)
    return made


def asked(route: Callable[[str], tuple[int, ...]], some: list[str]) -> int:
    """Route each topic twenty times; count whom they reach."""
    return sum([len(route(topic)) for _ in range(20) for topic in some])


@pytest.fixture(scope="module")
def built() -> Callable[..., Routes[int]]:
    """Give routes of any number of patterns."""
    return cache(routes)


# ---------------------------------------------------------------- routing


def test_a_topic_that_is_remembered_is_found_among_a_thousand_patterns_as_among_one(
    built: Any, side_by_side: Any
) -> None:
    one, many = built(1), built(1_000)
    some = topics(1_000)
    ours, theirs = side_by_side.time(
        "route a remembered topic, 1,000 patterns",
        lambda: asked(many.match, some), lambda: asked(one.match, some), than="1 pattern", budget=1.5, per=20 * ASKED,
    )  # fmt: skip
    assert (ours, theirs) == (20 * 3 * ASKED, 20)


def test_a_topic_that_is_remembered_is_found_among_very_many_patterns_as_among_a_thousand(
    built: Any, side_by_side: Any
) -> None:
    size = side_by_side.size(100_000, 2_000)
    few, many, small, large = built(1_000), built(size), topics(1_000), topics(size)
    ours, theirs = side_by_side.time(
        f"route a remembered topic, {size:,} patterns",
        lambda: asked(many.match, large), lambda: asked(few.match, small),
        than="1,000 patterns", budget=1.5, per=20 * ASKED,
    )  # fmt: skip
    assert ours == theirs == 20 * 3 * ASKED


def test_a_topic_that_is_remembered_is_found_as_in_a_dict(built: Any, side_by_side: Any) -> None:
    many, some = built(1_000), topics(1_000)
    known = {topic: many.match(topic) for topic in some}
    ours, theirs = side_by_side.time(
        "route a remembered topic, 1,000 patterns",
        lambda: asked(many.match, some), lambda: asked(known.__getitem__, some), than="a dict", per=20 * ASKED,
    )  # fmt: skip
    assert ours == theirs


def test_another_topic_is_routed_among_very_many_patterns_as_among_a_thousand(built: Any, side_by_side: Any) -> None:
    size = side_by_side.size(100_000, 2_000)
    few, many, small, large = built(1_000, 0), built(size, 0), topics(1_000), topics(size)
    ours, theirs = side_by_side.time(
        f"route another topic, {size:,} patterns",
        lambda: asked(many.match, large), lambda: asked(few.match, small),
        than="1,000 patterns", budget=1.5, per=20 * ASKED,
    )  # fmt: skip
    assert ours == theirs == 20 * 3 * ASKED


def test_another_topic_is_routed_as_each_pattern_says(built: Any, side_by_side: Any) -> None:
    tree, each = built(1_000, 0), [Pattern(pattern) for pattern in patterns(1_000)]
    some = topics(1_000)[::30]
    ours, theirs = side_by_side.time(
        "route another topic, 1,000 patterns",
        lambda: asked(tree.match, some),
        lambda: 20 * sum(pattern.matches(topic) for topic in some for pattern in each),
        than="asking each", per=20 * len(some), per_theirs=len(some),
    )  # fmt: skip
    assert ours == theirs


def test_topics_that_are_never_met_again_are_routed_as_with_no_cache(side_by_side: Any) -> None:
    size = side_by_side.size(50_000, 500)
    cached, walked = routes(1_000), routes(1_000, 0)
    turns = count()

    def fresh(those: Routes[int]) -> int:
        turn = next(turns) // 2
        some = [f"group{number % 50}.eu.x{turn}-{number}" for number in range(size)]
        return sum([len(those.match(topic)) for topic in some])

    ours, theirs = side_by_side.time(
        "route topics that are never met again",
        lambda: fresh(cached), lambda: fresh(walked), than="no cache", budget=1.5, per=size,
    )  # fmt: skip
    assert ours == theirs == size


# ---------------------------------------------------------------- patterns that come and go


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [
        ("a literal", "group{}.eu.t7"),
        ("one with *", "group{}.*.t7"),
        ("one with **", "group{}.**"),
        ("one that begins with **", "**.x{}"),
    ],
)
def test_a_pattern_comes_and_goes_while_many_topics_are_remembered(kind: str, pattern: str, side_by_side: Any) -> None:
    size = side_by_side.size(10_000, 200)
    full, empty = routes(size), routes(size)
    for turn in range(REMEMBERED):
        full.match(f"group{turn % (size // 20)}.eu.t{turn}")
    some = [pattern.format(number) for number in range(10)]

    def churn(those: Routes[int]) -> int:
        for one in some:
            those.add(one, -1)
        for one in some:
            those.remove(one, -1)
        return len(those)

    ours, theirs = side_by_side.time(
        f"add and remove {kind}, 4,096 topics remembered",
        lambda: churn(full), lambda: churn(empty), than="none remembered", per=len(some),
    )  # fmt: skip
    assert ours == theirs == size


def test_a_topic_is_routed_while_patterns_come_and_go(side_by_side: Any) -> None:
    size = side_by_side.size(10_000, 200)
    kept, asked_anew = routes(size), routes(size, cache=0)
    some = topics(size)

    def churn(those: Routes[int]) -> int:
        reached = 0
        for turn, topic in enumerate(some):
            if turn % 10 == 0:
                those.add(pattern := f"group{turn}.*.t{turn % 7}", -1)
                those.remove(pattern, -1)
            reached += len(those.match(topic))
        return reached

    ours, theirs = side_by_side.time(
        "route a topic, a pattern comes and goes with each tenth",
        lambda: churn(kept), lambda: churn(asked_anew), than="no cache", budget=1, per=ASKED,
    )  # fmt: skip
    assert ours == theirs


# ---------------------------------------------------------------- the grammar


def test_a_topic_is_checked(side_by_side: Any) -> None:
    some = topics(100_000)
    known = {topic: topic for topic in some}
    ours, theirs = side_by_side.time(
        "check_topic, again",
        lambda: [check_topic(topic) for topic in some], lambda: [known[topic] for topic in some],
        than="a dict", per=ASKED,
    )  # fmt: skip
    assert ours == theirs


def test_a_pattern_is_checked(side_by_side: Any) -> None:
    some = patterns(1_000)[:ASKED]
    known = {pattern: pattern for pattern in some}
    ours, theirs = side_by_side.time(
        "check_pattern, again",
        lambda: [check_pattern(pattern) for pattern in some], lambda: [known[pattern] for pattern in some],
        than="a dict", per=ASKED,
    )  # fmt: skip
    assert ours == theirs


def test_a_pattern_that_is_read_is_asked(side_by_side: Any) -> None:
    read = Pattern("*.eu.**.t1*")
    some = topics(100_000)
    ours, theirs = side_by_side.time(
        "Pattern.matches",
        lambda: [read.matches(topic) for topic in some], lambda: [matches(read.text, topic) for topic in some],
        than="matches()", per=ASKED,
    )  # fmt: skip
    assert ours == theirs
