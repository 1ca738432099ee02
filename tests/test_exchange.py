"""The exchange decides right without any loop: who gets an event, what is kept, and what is forgotten."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpcore.errors import BufferFullError, GroupSettingsError, TopicCompletedError
from dpcore.events import Event
from dpcore.exchange import Exchange
from dpcore.groups import Interest, Settlement
from dpcore.topics import matches


class World:
    """An exchange, and events with numbers and times that grow."""

    def __init__(self, **settings):
        self.exchange = Exchange(**settings)
        self.count = 0

    def event(self, topic, **more):
        self.count += 1
        return Event(topic, self.count - 1, f"{self.count:06}", float(self.count), **more)

    def offer(self, *topics):
        return [self.exchange.offer(self.event(topic)) for topic in topics]

    def read(self, *patterns, **more):
        return self.exchange.read(Interest(patterns=patterns, **more))

    def join(self, *patterns, start="earliest", buffer=10_000, overflow="block", group="g", said=()):
        interest = Interest(patterns=patterns, group=group, start=start, buffer=buffer, overflow=overflow, said=said)
        return self.exchange.join(interest)


def numbers(found):
    return [getattr(one, "event", one).data for one in found]


def ack(member, entries):
    member.settle([Settlement(entry) for entry in entries], 0.0)


# ---------------------------------------------------------------- who gets what


def test_an_event_goes_to_everybody_or_to_nobody():
    world = World()
    first = world.read("t", buffer=5)
    full = world.read("t", buffer=1, overflow="block")
    member = world.join("t")
    assert world.offer("t", "t") == [None, full]
    assert numbers(first.queue) == numbers(full.queue) == numbers(member.take(9)) == [0]
    full.queue.clear()
    assert world.offer("t") == [None]
    assert (numbers(first.queue), numbers(full.queue), numbers(member.take(9))) == ([0, 2], [2], [2])


@pytest.mark.parametrize("group", [None, "g"])
def test_where_the_policy_is_to_say_so_nobody_gets_it(group):
    world = World()
    other = world.read("t")
    if group:
        world.join("t", buffer=1, overflow="error")
    else:
        world.read("t", buffer=1, overflow="error")
    world.offer("t")
    with pytest.raises(BufferFullError, match="no room for more than 1 event;"):
        world.offer("t")
    assert world.exchange.offer_many([world.event("t")]) == 0
    assert numbers(other.queue) == [0]
    assert numbers(world.read("t", start="earliest").queue) == [0]


def test_of_many_as_many_are_taken_as_there_is_room_for():
    world = World()
    full, other = world.read("t", buffer=3, overflow="block"), world.read("**")
    assert world.exchange.offer_many([world.event("t") for _ in range(5)]) == 3
    assert numbers(full.queue) == numbers(other.queue) == [0, 1, 2]
    assert world.exchange.offer_many([world.event("t"), world.event("u")]) == 0


@settings(deadline=None, max_examples=200)
@given(
    topics=st.lists(st.sampled_from(["a", "a.b", "b"]), max_size=30),
    cuts=st.lists(st.integers(1, 7), max_size=20),
    buffer=st.integers(1, 6),
    overflow=st.sampled_from(["drop_oldest", "drop_newest"]),
    retain=st.integers(0, 5),
)
def test_many_at_once_do_what_one_after_the_other_does(topics, cuts, buffer, overflow, retain):
    worlds = [World(retain=retain, total=9) for _ in range(2)]
    readers = [[w.read("a.**", buffer=buffer, overflow=overflow), w.read("b"), w.read("**")] for w in worlds]
    members = [w.join("**", buffer=buffer, overflow=overflow) for w in worlds]
    worlds[0].offer(*topics)
    events = [worlds[1].event(topic) for topic in topics]
    while events:
        cut = cuts.pop() if cuts else len(events)
        batch, events = events[:cut], events[cut:]
        while batch:
            batch = batch[worlds[1].exchange.offer_many(batch) :]
    for one, many in zip(*readers, strict=True):
        assert (numbers(one.queue), one.dropped) == (numbers(many.queue), many.dropped)
    assert numbers(members[0].take(99)) == numbers(members[1].take(99))
    assert members[0].group.dropped == members[1].group.dropped
    if retain < 5:  # how much is forgotten when the total is reached depends on when it is looked at
        kept = [{name: len(topic.log) for name, topic in w.exchange.topics.items()} for w in worlds]
        assert all(sum(logs.values()) <= 9 for logs in kept)


def test_what_is_wanted_is_what_somebody_reads():
    world = World()
    assert not world.exchange.wanted("$run.started")
    reader = world.read("$run.**")
    assert world.exchange.wanted("$run.started")
    assert not world.exchange.wanted("a")
    world.exchange.leave(reader)
    world.exchange.leave(reader)
    assert not world.exchange.wanted("$run.started")
    assert world.offer("$run.started") == [None]
    assert not reader.queue


# ---------------------------------------------------------------- what is kept


def test_of_each_topic_the_latest_are_retained():
    world = World(retain=3)
    world.offer(*["a"] * 5, "b", "a")
    assert numbers(world.read("a", start="earliest").queue) == [3, 4, 6]
    assert numbers(world.read("*", start="earliest").queue) == [3, 4, 5, 6]
    assert numbers(World(retain=0).read("a", start="earliest").queue) == []


@settings(deadline=None, max_examples=200)
@given(topics=st.lists(st.sampled_from("abc"), max_size=80), total=st.integers(1, 20), many=st.booleans())
def test_of_all_topics_together_the_oldest_are_forgotten_first(topics, total, many):
    world = World(total=total)
    if many:
        events = [world.event(topic) for topic in topics]
        while events:
            events = events[world.exchange.offer_many(events[:4]) :]
    else:
        world.offer(*topics)
    kept = sorted(event.data for topic in world.exchange.topics.values() for event in topic.log)
    assert kept == [*range(len(topics) - len(kept), len(topics))]
    assert len(kept) <= total
    assert len(kept) >= min(len(topics), total - total // 10 - 4 * many)


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest", "block", "error"])
def test_what_is_retained_is_replayed_whole_and_takes_no_room_from_what_comes_later(overflow):
    world = World()
    world.offer(*["t"] * 5)
    reader = world.read("t", start="earliest", buffer=2, overflow=overflow)
    member = world.join("t", buffer=2, overflow=overflow)
    assert (numbers(reader.queue), reader.dropped, member.group.dropped) == ([0, 1, 2, 3, 4], 0, 0)
    if overflow == "error":
        with pytest.raises(BufferFullError):
            world.offer("t")
    else:
        assert world.offer("t") == [reader if overflow == "block" else None]
    lost = overflow.startswith("drop")
    oldest = int(overflow == "drop_oldest")
    expected = [*range(oldest, 5 + oldest)]
    assert (numbers(reader.queue), reader.dropped) == (expected, lost)
    assert (numbers(member.take(9)), member.group.dropped) == (expected, lost)


def test_a_publisher_is_not_woken_by_a_replay_before_there_is_room():
    world = World()
    world.offer(*["t"] * 3)
    reader = world.read("t", start="earliest", buffer=2, overflow="block")
    woken = []
    reader.waiting.append(lambda: woken.append(len(reader.queue)))
    for _ in range(3):
        reader.queue.popleft()
        reader.release(1)
    assert woken == [1]


def test_beyond_the_most_topics_those_that_nobody_declared_are_forgotten_the_first_seen_first():
    world = World()
    world.exchange.declare("t.5", [])
    reader = world.read("t.1")
    for number in range(100_000):
        world.offer(f"t.{number}")
    assert len(world.exchange.topics) == 100_000
    world.offer("one.more")
    known = world.exchange.topics
    assert len(known) == 90_001
    assert "t.5" in known
    assert "t.1" not in known
    assert "t.99999" in known
    world.offer("t.1")
    assert numbers(reader.queue) == [1, world.count - 1]
    assert world.exchange._kept == sum(len(topic.log) for topic in known.values())


# ---------------------------------------------------------------- groups


def test_a_new_group_has_what_is_retained_and_an_old_one_what_it_has_not_read():
    world = World()
    world.offer("a", "b", "a")
    member = world.join("a")
    assert numbers(member.take(9)) == [0, 2]
    world.offer("a", "c")
    wider = world.join("*")
    assert sorted(numbers(wider.take(9))) == [1, 3, 4]
    fresh = world.join("**", group="new", start="new")
    assert fresh.take(9) == []


def test_members_that_read_different_patterns_do_not_hold_each_other_up():
    world = World()
    a, b = world.join("a", buffer=2), world.join("b", buffer=2)
    assert world.offer("a", "a", "b")[2] is None
    assert world.offer("a") != [None]
    assert world.offer("b") == [None]
    assert (numbers(a.take(9)), numbers(b.take(9))) == ([0, 1], [2, 4])


def test_when_a_member_with_other_patterns_joins_nothing_is_lost_and_the_order_stays():
    world = World()
    world.exchange.declare(
        "t.x", [Interest(patterns=("t.x",), group="g", start="earliest", buffer=10_000, overflow="block")]
    )
    world.offer("t.x", "t.x", "t.y")
    one = world.join("t.x")
    held = one.take(1)
    two = world.join("t.*")
    world.offer("t.x", "t.y")
    assert numbers(two.take(1)) == [1]
    ack(one, held)
    assert numbers(one.take(9)) == [3]
    assert numbers(two.take(9)) == [2, 4]


@settings(deadline=None, max_examples=200)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("offer"), st.sampled_from(["a", "a.b", "b"])),
            st.tuples(st.just("join"), st.sampled_from(["a", "a.**", "**", "b", "a.b"])),
            st.tuples(st.sampled_from(["take", "ack", "nack", "leave"]), st.integers(0, 9)),
        ),
        max_size=40,
    )
)
def test_members_of_any_patterns_that_come_and_go_get_each_event_that_one_of_them_asked_for(steps):
    world, members, acked, offered, asked = World(max_deliveries=99), [], Counter(), {}, set()
    for step, argument in steps:
        if step == "offer":
            offered[world.count] = argument
            world.offer(argument)
        elif step == "join":
            asked.add(argument)
            members.append(world.join(argument))
        elif members:
            act(step, members, members[argument % len(members)], acked)
    for member in members:
        member.leave(0.0)
    for pattern in sorted(asked):
        work_on_all(world.join(pattern), acked)
    assert acked == Counter(
        {number: 1 for number, topic in offered.items() if any(matches(pattern, topic) for pattern in asked)}
    )
    if asked:
        assert all(shard.count == 0 for shard in world.exchange.groups["g"].shards.values())


def act(step, members, member, acked):
    if step == "take":
        for entry in member.take(2):
            assert any(matches(pattern, entry.event.topic) for pattern in member.patterns)
    elif step == "leave":
        members.remove(member)
        member.leave(0.0)
    else:
        held = [*member.out.values()][:1]
        member.settle([Settlement(entry, step) for entry in held], 0.0)
        acked.update(numbers(held) if step == "ack" else ())


def work_on_all(member, acked):
    """Take and ack all that is left for *member*, which comes in the order of each topic."""
    while taken := member.take(5):
        for topic in ("a", "a.b", "b"):
            of_one = [entry.event.data for entry in taken if entry.event.topic == topic]
            assert of_one == sorted(of_one)
        acked.update(numbers(taken))
        ack(member, taken)
    member.leave(0.0)


def test_a_group_keeps_its_settings_and_members_that_say_none_take_them():
    world = World()
    world.exchange.declare("t", [Interest(patterns=("t",), group="g", buffer=3, overflow="error")])
    assert world.join("t", buffer=10_000).group.buffer == 3
    world.join("t", buffer=3, overflow="error", said=("buffer", "overflow"))
    for more in ({"buffer": 4, "said": ("buffer",)}, {"buffer": 3, "overflow": "block", "said": ("overflow",)}):
        with pytest.raises(GroupSettingsError) as refused:
            world.join("t", **more)
        assert "group 'g' has buffer=3 and overflow='error' already" in str(refused.value)
    assert len(world.exchange.groups["g"].members) == 2


# ---------------------------------------------------------------- dead letters


def test_a_dead_letter_is_read_and_retained_also_where_there_is_no_room():
    world = World(max_deliveries=1)
    dead, full = world.read("$dead.**"), world.read("$dead.g.t", buffer=1, overflow="block")
    member, morgue = world.join("t"), world.join("$dead.**", group="morgue")
    world.offer("t", "t")
    for entry in member.take(2):
        member.settle([Settlement(entry, "nack")], 0.0)
    assert numbers(dead.queue) == numbers(full.queue) == numbers(morgue.take(9)) == [0, 1]
    assert numbers(world.read("$dead.**", start="earliest").queue) == [0, 1]


# ---------------------------------------------------------------- ends


def test_a_completed_topic_takes_nothing_and_ends_those_who_read_it_alone():
    world = World()
    alone, both, wild = world.read("a"), world.read("a", "b"), world.read("*")
    world.offer("a")
    world.exchange.complete("a")
    with pytest.raises(TopicCompletedError):
        world.offer("a")
    with pytest.raises(TopicCompletedError):
        world.exchange.offer_many([world.event("a")])
    assert (alone.ended, both.ended, wild.ended) == (True, False, False)
    world.exchange.complete("b")
    assert (both.ended, wild.ended) == (True, False)
    late = world.read("a", "b")
    assert (late.ended, numbers(late.queue)) == (True, [0])


def test_members_end_when_what_they_could_get_is_settled():
    world = World()
    one, two, wild = world.join("a"), world.join("a", "b"), world.join("a.**")
    world.offer("a")
    (held,) = wild.take(1)
    world.exchange.complete("a")
    assert (one.ended, two.ended) == (False, False)
    ack(wild, [held])
    assert (one.ended, two.ended, wild.ended) == (True, False, False)
    assert world.join("a").ended
    world.exchange.complete("b")
    assert two.ended


def test_closing_ends_everybody_and_takes_nothing_that_waits():
    world = World()
    reader, member = world.read("t"), world.join("t")
    world.offer("t")
    woken = []
    world.read("u").wake = lambda: woken.append("reader")
    world.join("u", group="idle").waits(lambda: woken.append("member"))
    world.exchange.close()
    assert woken == ["reader", "member"]
    assert (reader.ended, numbers(reader.queue)) == (True, [0])
    assert (member.ended, numbers(member.take(9))) == (True, [0])


# ---------------------------------------------------------------- time


def test_the_first_delay_of_all_groups_is_due_first():
    world = World()
    one, two = world.join("t", group="one"), world.join("t", group="two")
    assert world.exchange.due() is None
    world.offer("t")
    one.settle([Settlement(one.take(1)[0], "nack", 9.0)], 0.0)
    two.settle([Settlement(two.take(1)[0], "nack", 3.0)], 1.0)
    assert world.exchange.due() == 4.0
    world.exchange.wake_due(4.0)
    assert world.exchange.due() == 9.0
    assert (numbers(two.take(1)), one.take(1)) == ([0], [])
