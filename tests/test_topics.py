"""What a topic and a pattern are, which selects which, and whom a topic reaches.

:func:`selected` below says from the design's words, one character at a time, whether a pattern
selects a topic; what dpcore says is compared with it over more than a million pairs.
"""

from __future__ import annotations

import gc
import pickle
import random
from collections.abc import Sequence
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from dpcore.errors import ArgumentError, RouteNotFoundError, TopicError
from dpcore.topics import Pattern, Routes, check_pattern, check_topic, is_literal, matches
from dpcore.topics.patterns import read, selects

LONGEST = ".".join("a" for _ in range(250))  # 499 bytes: no topic has more segments


def selected(pattern: str, topic: str) -> bool:
    """Say whether *pattern* selects *topic*, as plainly as it can be said."""
    for alternative in pattern.split("|"):
        alternative = alternative.strip(" ")
        hidden = topic.startswith("$") and not alternative.startswith("$")
        if not hidden and path_fits(tuple(alternative.split(".")), tuple(topic.split("."))):
            return True
    return False


@cache
def path_fits(pattern: tuple[str, ...], topic: tuple[str, ...]) -> bool:
    if not pattern:
        return not topic
    if pattern[0] == "**":
        return path_fits(pattern[1:], topic) or (bool(topic) and path_fits(pattern, topic[1:]))
    return bool(topic) and segment_fits(pattern[0], topic[0]) and path_fits(pattern[1:], topic[1:])


@cache
def segment_fits(pattern: str, segment: str) -> bool:
    if not pattern:
        return not segment
    if pattern[0] == "*":
        return segment_fits(pattern[1:], segment) or (segment != "" and segment_fits(pattern, segment[1:]))
    return segment[:1] == pattern[0] and segment_fits(pattern[1:], segment[1:])


# ---------------------------------------------------------------- which selects which


@pytest.mark.parametrize(
    ("pattern", "topic", "is_selected"),
    [
        # a literal selects itself
        ("orders", "orders", True),
        ("orders", "Orders", False),
        ("orders", "orders.eu", False),
        ("orders.eu.paid", "orders.eu.paid", True),
        ("orders.eu.paid", "orders.eu", False),
        ("a.b", "axb", False),
        ("données.été", "données.été", True),
        ("a-b_c/d:e", "a-b_c/d:e", True),
        ("[a].(b)+?", "[a].(b)+?", True),
        ("[a]", "a", False),
        # `*` is exactly one segment
        ("*", "orders", True),
        ("*", "orders.eu", False),
        ("orders.*", "orders.eu", True),
        ("orders.*", "orders", False),
        ("orders.*", "orders.eu.paid", False),
        ("*.eu.*", "orders.eu.paid", True),
        ("*.eu.*", "orders.us.paid", False),
        ("*.*", "orders.eu", True),
        # within a segment it is any run of characters, also none
        ("data-*", "data-7", True),
        ("data-*", "data-", True),
        ("data-*", "data", False),
        ("data-*", "data-7.x", False),
        ("*-eu", "orders-eu", True),
        ("*-eu", "-eu", True),
        ("*-eu", "orders-eu-x", False),
        ("a*b*c", "abc", True),
        ("a*b*c", "a1b2c", True),
        ("a*b*c", "acb", False),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("ab*ba", "aba", False),
        ("*a*", "bab", True),
        ("*aa*a*", "aaa", True),
        ("*aa*aa*", "aaa", False),
        ("x.data-*.y", "x.data-1.y", True),
        ("*.data-*", "eu.data-2", True),
        # `**` is zero or more segments, anywhere
        ("**", "orders", True),
        ("**", "orders.eu.paid", True),
        ("data.**", "data", True),
        ("data.**", "data.a", True),
        ("data.**", "data.a.b.c", True),
        ("data.**", "database", False),
        ("**.paid", "paid", True),
        ("**.paid", "orders.eu.paid", True),
        ("**.paid", "orders.paid.eu", False),
        ("a.**.z", "a.z", True),
        ("a.**.z", "a.b.c.z", True),
        ("a.**.z", "a.z.b", False),
        ("a.**.z", "a", False),
        ("**.**", "a", True),
        ("**.a.**.a.**", "a", False),
        ("**.a.**.a.**", "x.a.y.a.z", True),
        ("*.**", "a", True),
        ("**.*.*", "a", False),
        ("**.x.y", "x.x.y", True),
        ("**.x-*.y.**.z", "x-1.x-2.y.z", True),
        # `|` is either
        ("orders|logs", "logs", True),
        ("orders|logs", "orders.logs", False),
        ("orders.* | logs.**", "logs", True),
        ("orders.* | logs.**", "orders", False),
        ("a|a", "a", True),
        # what begins with `$` is selected only by what begins with it
        ("**", "$run.started", False),
        ("*", "$run", False),
        ("*.started", "$run.started", False),
        ("*run", "$run", False),
        ("**.started", "$run.started", False),
        ("$run.*", "$run.started", True),
        ("$run.**", "$run", True),
        ("$*", "$run", True),
        ("$*.**", "$run.started", True),
        ("$*", "run", False),
        ("** | $*.**", "$run.started", True),
        ("**.$run", "a.$run", True),
        ("**.$run", "$run", False),
        ("a.*", "a.$b", True),
    ],
)
def test_a_pattern_selects(pattern: str, topic: str, is_selected: bool) -> None:
    assert matches(pattern, topic) is Pattern(pattern).matches(topic) is selected(pattern, topic) is is_selected
    routes: Routes[str] = Routes()
    routes.add(pattern, "me")
    assert routes.match(topic) == (("me",) if is_selected else ())


segments = st.sampled_from(["a", "b", "ab", "ba", "aab", "$a"])
wildcards = st.sampled_from(["*", "**", "**", "a*", "*b", "a*b", "*a*", "*a*b*", "$*"])
topics = st.lists(segments, min_size=1, max_size=6).map(".".join)
alternatives = st.lists(segments | wildcards, min_size=1, max_size=6).map(".".join)
patterns = st.lists(alternatives, min_size=1, max_size=3).map(" | ".join)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.lists(patterns, min_size=1, max_size=12), st.lists(topics, min_size=1, max_size=12))
def test_whatever_is_written_the_plainest_way_to_match_says_the_same(some: list[str], heard: list[str]) -> None:
    routes: Routes[int] = Routes(cache=4)
    for number, pattern in enumerate(some):
        routes.add(pattern, number)
    for topic in heard:
        wanted = tuple(number for number, pattern in enumerate(some) if selected(pattern, topic))
        assert tuple(number for number, pattern in enumerate(some) if Pattern(pattern).matches(topic)) == wanted
        assert routes.match(topic) == wanted


def drawn(chance: random.Random, among: Sequence[str], most: int) -> str:
    return ".".join(chance.choices(among, k=chance.randint(1, most)))


def test_over_a_million_pairs_the_plainest_way_to_match_says_the_same() -> None:
    names = ["a", "b", "ab", "abba", "data-1", "data-2"]
    wild = ["*", "**", "*", "**", "a*", "*a", "*b*", "a*a", "a*b*a", "data-*", "*-2", "d*-*2", "$*", "$a"]
    pairs = hits = 0
    for seed in range(65):
        chance = random.Random(seed)
        heard = [drawn(chance, names, 5) for _ in range(110)]
        heard += [f"$a.{topic}" for topic in heard[:15]] + ["$a", "$b"]
        some = list(dict.fromkeys(drawn(chance, [*names, *wild, *wild], 5) for _ in range(125)))
        some += [f"{one}|{other}" for one, other in zip(some[::8], some[4::8], strict=False)]
        routes: Routes[str] = Routes(cache=50)
        for pattern in some:
            routes.add(pattern, pattern)
        for topic in heard:
            wanted = [pattern for pattern in some if selected(pattern, topic)]
            assert [pattern for pattern in some if Pattern(pattern).matches(topic)] == wanted, (seed, topic)
            assert [*routes.match(topic)] == wanted, (seed, topic)
            hits += len(wanted)
        pairs += len(some) * len(heard)
    path_fits.cache_clear()
    assert pairs > 1_000_000
    assert hits > 50_000


# ---------------------------------------------------------------- no pattern is slow


class Met(str):
    """A segment that counts how often it is looked at."""

    times = 0

    def __eq__(self, other: object) -> bool:
        Met.times += 1
        return str(self) == other

    __hash__ = str.__hash__


@settings(deadline=None, derandomize=True, max_examples=300)
@given(alternatives, st.lists(segments, min_size=1, max_size=40))
def test_no_two_segments_of_a_pattern_and_of_a_topic_meet_twice(pattern: str, topic: list[str]) -> None:
    Met.times = 0
    (alternative,) = read(pattern)
    assert selects(alternative, [Met(one) for one in topic]) is selected(pattern, ".".join(topic))
    assert Met.times <= (len(alternative.segments) + 1) * len(topic)


@pytest.mark.parametrize("pattern", [
    ".".join(["**", "a"] * 16) + ".b",
    ".".join(["**", "a"] * 80) + ".b",
    ".".join(["**", "*"] * 90) + ".b.**",
    ".".join(["**", "a*a"] * 16),
    ".".join(["**", "a", "a", "a", "a", "b"] * 16),
])  # fmt: skip
def test_a_pattern_that_could_be_tried_in_endless_ways_is_answered(pattern: str) -> None:
    assert not matches(pattern, LONGEST)
    routes: Routes[int] = Routes()
    for number in range(20):
        routes.add(f"{pattern}.**.x{number}", number)
    routes.add(pattern, -1)
    routes.add("**.a", -2)
    assert routes.match(LONGEST) == (-2,)


@pytest.mark.parametrize("pattern", ["*a" * 100 + "*b", "*a*a*a*a*b", "*" + "aaaaaaaab*" * 40, "a*" * 249 + "b"])
def test_a_segment_that_could_be_tried_in_endless_ways_is_answered(pattern: str) -> None:
    assert not matches(pattern, "a" * 500)
    routes: Routes[str] = Routes()
    routes.add(pattern, "me")
    assert routes.match("a" * 500) == ()


# ---------------------------------------------------------------- what a topic is, and what a pattern is

TOPIC = "a topic is segments joined by single dots, such as 'orders.eu.paid'"
PATTERN = (
    "a pattern is a topic in which '*' stands for a segment or a part of one and '**' for any number of them, "
    "such as 'orders.*.paid | logs.**'"
)
CURE = "publish to one topic, or use publish_matching()"


@pytest.mark.parametrize(
    "topic", ["a", "a.b.c", "$run.started", "$$", "a.$", "a$.b", "1.2", "données.été", "a/b", "a" * 500, "é" * 250]
)
def test_what_is_a_topic_is_returned_as_it_was_given(topic: str) -> None:
    assert check_topic(topic) == topic
    assert check_pattern(topic) == topic
    assert is_literal(topic)


@pytest.mark.parametrize(
    ("topic", "words"),
    [
        ("", f"the topic '' is not valid: it is empty; {TOPIC}"),
        ("a..b", f"the topic 'a..b' is not valid: segment 2 is empty; {TOPIC}"),
        (".a", f"the topic '.a' is not valid: segment 1 is empty; {TOPIC}"),
        ("a.", f"the topic 'a.' is not valid: segment 2 is empty; {TOPIC}"),
        ("a b", f"the topic 'a b' is not valid: segment 1 has ' ', which is whitespace; {TOPIC}"),
        ("a.b\n", f"the topic 'a.b\\n' is not valid: segment 2 has '\\n', which is whitespace; {TOPIC}"),
        ("a\u2028", f"the topic 'a\\u2028' is not valid: segment 1 has '\\u2028', which is whitespace; {TOPIC}"),
        ("a\x00", f"the topic 'a\\x00' is not valid: segment 1 has '\\x00', which is a control character; {TOPIC}"),
        ("a.\x9f", f"the topic 'a.\\x9f' is not valid: segment 2 has '\\x9f', which is a control character; {TOPIC}"),
        ("\ud800", f"the topic '\\ud800' is not valid: segment 1 has '\\ud800', which is a surrogate; {TOPIC}"),
        ("$", f"the topic '$' is not valid: segment 1 is '$' with nothing behind it; {TOPIC}"),
        ("$.a", f"the topic '$.a' is not valid: segment 1 is '$' with nothing behind it; {TOPIC}"),
        ("é" * 251, f"the topic '{'é' * 199}... (253 characters) is not valid: it has 502 bytes, and may have 500; {TOPIC}"),
        ("orders.*", f"the topic 'orders.*' is a pattern: it has '*'; {CURE}"),
        ("a|b", f"the topic 'a|b' is a pattern: it has '|'; {CURE}"),
        (None, f"the topic None is not valid: it is no str but of type NoneType; {TOPIC}"),
        (b"a", f"the topic b'a' is not valid: it is no str but of type bytes; {TOPIC}"),
        (3, f"the topic 3 is not valid: it is no str but of type int; {TOPIC}"),
    ],
)  # fmt: skip
def test_what_is_no_topic_is_told_so(topic: str, words: str) -> None:
    for asked in (check_topic, Pattern("**").matches, Routes[int]().match, lambda topic: matches("a", topic)):
        with pytest.raises(TopicError) as caught:
            asked(topic)
        assert str(caught.value) == words
        assert caught.value.kind == "topic"


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("", "it is empty"),
        (" ", "it is empty"),
        ("a|", "alternative 2 is empty"),
        ("|", "alternative 1 is empty"),
        ("a..*", "segment 2 is empty"),
        ("*|a..b", "segment 2 of alternative 2 is empty"),
        ("***", "segment 1 is '***', but '**' is always a whole segment"),
        ("a.b**", "segment 2 is 'b**', but '**' is always a whole segment"),
        ("$**", "segment 1 is '$**', but '**' is always a whole segment"),
        ("$.**", "segment 1 is '$' with nothing behind it"),
        ("a. *", "segment 2 has ' ', which is whitespace"),
        ("a\n", "segment 1 has '\\n', which is whitespace"),
        ("*.\x7f", "segment 2 has '\\x7f', which is a control character"),
        ("*" + "a" * 500, "it has 501 bytes, and may have 500"),
        ("*|" + "\ud800" * 200, "alternative 2 has 600 bytes, and may have 500"),
        (None, "it is no str but of type NoneType"),
        (b"*", "it is no str but of type bytes"),
    ],
)
def test_what_is_no_pattern_is_told_so_and_nothing_is_added(pattern: str, problem: str) -> None:
    routes: Routes[int] = Routes()
    for asked in (check_pattern, is_literal, Pattern, lambda pattern: routes.add(pattern, 1)):
        with pytest.raises(TopicError) as caught:
            asked(pattern)
        assert str(caught.value).startswith("the pattern ")
        assert str(caught.value).endswith(f" is not valid: {problem}; {PATTERN}")
    assert not routes


def test_what_cannot_be_hashed_is_neither() -> None:
    for asked in (check_topic, check_pattern, Routes[int]().match):
        with pytest.raises(TypeError, match="unhashable"):
            asked(["a"])


@given(st.text(alphabet=st.characters(), max_size=8))
@settings(deadline=None, derandomize=True, max_examples=500)
def test_a_topic_is_the_pattern_that_selects_itself_and_nothing_else_is_one(text: str) -> None:
    try:
        check_topic(text)
    except TopicError:
        with pytest.raises(TopicError):
            matches("**|$*.**", text)
    else:
        assert is_literal(text)
        assert matches(text, text)
        assert matches("**", text) is not text.startswith("$")


def test_a_pattern_is_literal_if_as_it_is_written_it_is_one_topic() -> None:
    assert is_literal("a.b")
    assert is_literal("$run")
    assert not any(map(is_literal, ("a.*", "**", "a*", "a|b", "a|a", " a")))


def test_a_pattern_has_its_text_and_each_of_its_alternatives_once() -> None:
    pattern = Pattern(" a.* |b| a.*|**.**")
    assert pattern.text == " a.* |b| a.*|**.**"
    assert pattern.alternatives == ("a.*", "b", "**.**")


def test_a_pattern_is_a_value_that_pickles() -> None:
    pattern = Pattern("a.*|b")
    again = pickle.loads(pickle.dumps(pattern))
    assert again == pattern
    assert hash(again) == hash(pattern)
    assert again.matches("a.x")
    assert repr(again) == "Pattern(text='a.*|b')"
    assert Pattern("a.*") != pattern
    with pytest.raises(AttributeError):
        pattern.text = "a"  # type: ignore[misc]


# ---------------------------------------------------------------- whom a topic reaches


def test_a_value_is_reached_once_however_many_of_its_patterns_select_the_topic() -> None:
    routes: Routes[str] = Routes()
    for pattern in ("a.b", "a.*", "*.b", "**", "a|a.b|*.*"):
        routes.add(pattern, "me")
    assert routes.match("a.b") == ("me",)
    assert len(routes) == 5


def test_values_come_in_the_order_in_which_they_were_first_added() -> None:
    routes: Routes[str] = Routes()
    routes.match("a.b")
    routes.add("x", "first")
    routes.add("a.*", "second")
    routes.add("a.b", "third")
    routes.add("**", "first")
    assert routes.match("a.b") == routes.match("a.b") == ("first", "second", "third")
    assert routes.match("a.c") == ("first", "second")


def test_a_value_that_was_gone_comes_last_when_it_is_added_again() -> None:
    routes: Routes[str] = Routes()
    for value in ("first", "second"):
        routes.add("a", value)
    routes.remove("a", "first")
    routes.add("a", "first")
    assert routes.match("a") == ("second", "first")


def test_what_was_added_twice_is_removed_twice() -> None:
    routes: Routes[str] = Routes()
    routes.add("a.*", "me")
    routes.add("a.*", "me")
    routes.remove("a.*", "me")
    assert routes.match("a.b") == ("me",)
    routes.remove("a.*", "me")
    assert routes.match("a.b") == ()
    assert not routes


@pytest.mark.parametrize(("removed", "left"), [("a.*", "*.b"), ("*.b", "a.*"), ("a.b", "a.c"), ("a.b|a.c", "a.c")])
def test_a_value_stays_where_another_of_its_patterns_leads_and_only_there(removed: str, left: str) -> None:
    routes: Routes[str] = Routes()
    for pattern in (removed, left):
        routes.add(pattern, "me")
    heard = ("a.b", "a.c", "b.b", "c")
    assert [routes.match(topic) for topic in heard] == [
        ("me",) if matches(f"{removed}|{left}", topic) else () for topic in heard
    ]
    routes.remove(removed, "me")
    assert [routes.match(topic) for topic in heard] == [("me",) if matches(left, topic) else () for topic in heard]


def test_values_are_told_apart_by_equality_and_hash() -> None:
    routes: Routes[object] = Routes()
    routes.add("a", 1)
    routes.add("*", 1.0)
    routes.add("a", nan := float("nan"))
    assert routes.match("a") == (1, nan)
    routes.remove("a", nan)
    assert routes.match("a") == (1,)
    with pytest.raises(TypeError, match="unhashable"):
        routes.add("b", [])
    assert [*routes] == ["a", "*"]


def test_the_patterns_that_hold_a_value_are_the_collection() -> None:
    routes: Routes[int] = Routes()
    routes.add("b.*", 1)
    routes.add("a", 1)
    routes.add("b.*", 2)
    routes.remove("b.*", 1)
    assert ([*routes], len(routes), "b.*" in routes, "b" in routes) == (["b.*", "a"], 2, True, False)
    routes.remove("b.*", 2)
    assert [*routes] == ["a"]


def test_removing_what_is_not_there_is_told_with_what_is() -> None:
    routes: Routes[str] = Routes()
    routes.add("a.**", "me")
    for pattern, value, known in [("a.*", "me", "'a.**'"), ("a.**", "you", "none"), ("..", "me", "'a.**'")]:
        with pytest.raises(RouteNotFoundError) as caught:
            routes.remove(pattern, value)
        assert str(caught.value).startswith(f"{value!r} is not under the pattern {pattern!r} (its patterns: {known}); ")
    with pytest.raises(KeyError):
        routes.remove("a.*", "me")
    assert routes.match("a") == ("me",)


@pytest.mark.parametrize("most", [-1, None, 1.0, True])
def test_a_cache_of_no_size_is_refused(most: int) -> None:
    with pytest.raises(ArgumentError, match=r"cache=.* must be a whole number of topics from 0 on"):
        Routes(cache=most)


def test_a_topic_is_remembered_until_as_many_others_were_routed() -> None:
    routes: Routes[int] = Routes(cache=8)
    routes.add("**", 1)
    found = routes.match("t0")
    assert all(routes.match(f"t{number}") for number in range(8))
    assert routes.match("t0") is found
    assert routes.match("t8")
    assert routes.match("t0") is not found


def test_with_no_cache_nothing_is_remembered() -> None:
    routes: Routes[int] = Routes(cache=0)
    routes.add("**", 1)
    assert routes.match("a") == routes.match("a") == (1,)
    assert routes.match("a") is not routes.match("a")


@pytest.mark.parametrize("pattern", ["a.b", "a.*", "a.**.b", "*.b", "a*.b|a.b", "**.z|a.b"])
def test_adding_and_removing_leave_the_topics_alone_that_the_pattern_does_not_select(pattern: str) -> None:
    routes: Routes[int] = Routes()
    routes.add("**", 1)
    other, same = routes.match("b.c"), routes.match("a.b")
    routes.add(pattern, 2)
    assert routes.match("a.b") == (1, 2)
    assert routes.match("b.c") is other
    routes.remove(pattern, 2)
    assert routes.match("a.b") == same
    assert routes.match("b.c") is other


def test_a_topic_with_very_many_readers_is_right_while_they_come_and_go() -> None:
    routes: Routes[int] = Routes()
    for number in range(300):
        routes.add(("a.b", "a.*", "**")[number % 3], number)
        assert routes.match("a.b") == tuple(range(number + 1))
    for number in range(300):
        routes.remove(("a.b", "a.*", "**")[number % 3], number)
        assert routes.match("a.b") == tuple(range(number + 1, 300))


def test_of_very_many_parts_of_a_segment_the_right_ones_are_found() -> None:
    routes: Routes[str] = Routes()
    for number in range(1_000):
        for pattern in (f"data-{number}-*.x", f"*-{number}.x", f"a{number}*z.x", f"a*{number}*z.x"):
            routes.add(pattern, pattern)
    assert routes.match("data-7-eu.x") == ("data-7-*.x",)
    assert routes.match("data-71-eu-7.x") == ("*-7.x", "data-71-*.x")
    assert routes.match("a30z.x") == ("a*0*z.x", "a3*z.x", "a*3*z.x", "a30*z.x", "a*30*z.x")
    assert routes.match("data-7-eu.y") == ()


def held(thing: object) -> int:
    """Count the objects, and what is in them, that *thing* keeps alive, but for classes, modules and functions."""
    seen, found, total = {id(thing)}, [thing], 0
    while found:
        one = found.pop()
        total += 1 + (len(one) if isinstance(one, dict | list | tuple | set) else 0)
        for other in gc.get_referents(one):
            if id(other) not in seen and not isinstance(other, type) and not callable(other):
                seen.add(id(other))
                found.append(other)
    return total


def test_nothing_is_left_of_ten_thousand_random_patterns() -> None:
    chance = random.Random(4)
    routes: Routes[int] = Routes(cache=0)
    routes.add("a", 1)
    routes.remove("a", 1)
    empty = held(routes)
    names = ["a", "b", "$c", "*", "**", "a*", "*b", "a*b", "*a*b*"]
    added: list[tuple[str, int]] = []
    for _ in range(10_000):
        if added and chance.random() < 0.45:
            routes.remove(*added.pop(chance.randrange(len(added))))
        else:
            pattern = "|".join(drawn(chance, names, 5) for _ in range(chance.randint(1, 3)))
            added.append((pattern, chance.randrange(50)))
            routes.add(*added[-1])
    assert held(routes) > 100 * empty
    chance.shuffle(added)
    for one in added:
        routes.remove(*one)
    assert held(routes) == empty
    assert not routes


def test_what_is_remembered_stays_within_its_bounds() -> None:
    chance = random.Random(4)
    routes: Routes[int] = Routes(cache=64)
    sizes = []
    for turn in range(6_000):
        routes.match(f"a{turn}.b{turn % 7}.c")
        pattern = chance.choice([f"a{turn}.*.c", "*.b3.*", "**", f"a{turn}.b{turn % 7}.c"])
        for number in range(66 if turn % 10 == 0 else 1):
            routes.add(pattern, number)
        for number in range(66 if turn % 10 == 0 else 1):
            routes.match(f"a{turn}.b{turn % 7}.c")
            routes.remove(pattern, number)
        if turn % 1_000 == 500:
            sizes.append(held(routes))
    assert max(sizes) < 3_000


def test_nothing_is_left_of_topics_with_very_many_readers_that_are_never_met_again() -> None:
    routes: Routes[int] = Routes()
    for number in range(70):
        routes.add("**", number)
    routes.add("x.*", 0)
    sizes = []
    for turn in range(1_000):
        routes.match(topic := f"{turn}.x.{turn}")
        routes.add(topic, 0)
        routes.remove(topic, 0)
        sizes.append(held(routes) if turn % 100 == 0 else sizes[-1])
    assert {*sizes} == {sizes[0]}


class Routing(RuleBasedStateMachine):
    """Routes beside a plain list; few topics and a small cache, so that these are mended, dropped and forgotten often."""

    heard = st.sampled_from(["a", "b", "a.b", "a.ab", "b.b", "a.b.b", "b.a.b", "$a", "$a.b"])
    written = st.sampled_from(
        ["a", "a.b", "$a", "*", "**", "a.*", "*.b", "a.**", "**.b", "**.b.*", "a*", "*.a*b", "$*.**", "a|b", "b | *.b"]
    )

    @initialize(most=st.sampled_from([1, 4, 6, 20]))
    def begin(self, most: int) -> None:
        self.routes: Routes[int] = Routes(cache=most)
        self.added: list[tuple[str, int]] = []
        self.order: list[int] = []
        self.is_crowded = False

    @rule(pattern=written, value=st.integers(0, 3))
    def add(self, pattern: str, value: int) -> None:
        self.routes.add(pattern, value)
        self.added.append((pattern, value))
        if value not in self.order:
            self.order.append(value)

    @precondition(lambda self: not self.is_crowded)
    @rule(pattern=st.sampled_from(["a.b", "a.**", "$a|b"]))
    def begin_crowd(self, pattern: str) -> None:
        self.is_crowded = True
        for value in range(100, 170):
            self.add(pattern, value)

    @precondition(lambda self: self.is_crowded)
    @rule()
    def end_crowd(self) -> None:
        self.is_crowded = False
        for one in [one for one in self.added if one[1] >= 100]:
            self.drop(one)

    @precondition(lambda self: self.added)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        self.drop(data.draw(st.sampled_from([one for one in self.added if one[1] < 100] or self.added)))

    def drop(self, one: tuple[str, int]) -> None:
        self.routes.remove(*one)
        self.added.remove(one)
        if all(value != one[1] for _, value in self.added):
            self.order.remove(one[1])

    @rule(topics=st.lists(heard, min_size=1, max_size=9))
    def match(self, topics: list[str]) -> None:
        for topic in topics:
            reached = {value for pattern, value in self.added if selected(pattern, topic)}
            assert self.routes.match(topic) == tuple(value for value in self.order if value in reached)
        assert {*self.routes} == {pattern for pattern, _ in self.added}


TestRouting = Routing.TestCase
TestRouting.settings = settings(deadline=None, derandomize=True, max_examples=150, stateful_step_count=40)
