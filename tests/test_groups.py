"""Groups decide right without any loop: who gets what, in which order, and when it comes again."""

from __future__ import annotations

from collections import Counter, defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from dpcore.events import Event
from dpcore.groups import Group, Settlement

T = (("t",),)


class World:
    """A group that reads topic t, and what it has buried."""

    def __init__(self, *, buffer=100, overflow="block", max_deliveries=3, one_by_one=False):
        self.letters: list[Event] = []
        self.lost: list[tuple[Event, str, str]] = []
        self.group = Group("g", buffer, overflow, max_deliveries, self.letters.append, self._lose)
        self.group.one_by_one = one_by_one
        self.shard = self.group.shard(T)
        self.published = 0

    def _lose(self, *what):
        self.lost.append(what)

    def put(self, *keys):
        for key in keys or (None,):
            self.shard.put(Event("t", self.published, str(self.published), key=key))
            self.published += 1

    def join(self):
        return self.group.join(("t",), ["t"])


def numbers(entries):
    return [entry.event.data for entry in entries]


def settle(member, entries, how, now=0.0, **more):
    member.settle([Settlement(entry, how, **more) for entry in entries], now)


# ---------------------------------------------------------------- order


def test_a_member_takes_the_oldest_first_and_no_more_than_it_asks_for():
    world = World()
    world.put(*[None] * 5)
    member = world.join()
    assert [numbers(member.take(2)) for _ in range(4)] == [[0, 1], [2, 3], [4], []]


def test_what_goes_back_keeps_its_place():
    world = World()
    world.put(*[None] * 6)
    one, two = world.join(), world.join()
    first, second = one.take(3), two.take(1)
    settle(two, second, "nack")
    settle(one, [first[2]], "nack")
    settle(one, [first[0]], "release")
    assert numbers(two.take(9)) == [0, 2, 3, 4, 5]


def test_a_nack_counts_as_an_attempt_and_a_release_does_not():
    world = World()
    world.put()
    member = world.join()
    for how, attempt in (("release", 1), ("nack", 1), ("release", 2), ("nack", 2), ("nack", 3)):
        (entry,) = member.take(1)
        assert entry.attempt == attempt
        settle(member, [entry], how)
    assert member.take(1) == []
    (letter,) = world.letters
    assert letter.topic == "$dead.g.t"
    assert letter.headers["dead-letter-attempts"] == "3"
    assert letter.headers["dead-letter-reason"] == "it was delivered too often"
    assert world.shard.count == 0


def test_what_was_settled_before_or_by_somebody_else_is_left_alone():
    world = World()
    world.put()
    one, two = world.join(), world.join()
    (old,) = one.take(1)
    settle(one, [old], "nack")
    (new,) = two.take(1)
    settle(one, [old], "ack")
    settle(two, [old], "reject")
    settle(one, [new], "reject")
    assert world.shard.count == 1
    settle(two, [new], "ack")
    settle(two, [new], "nack")
    assert (world.shard.count, world.letters, two.take(1)) == (0, [], [])


def test_a_member_that_leaves_gives_back_what_it_holds_as_it_was_and_takes_no_more():
    world = World()
    world.put(*[None] * 3)
    one, two = world.join(), world.join()
    held = one.take(2)
    one.leave(0.0)
    one.leave(0.0)
    assert one.take(1) == []
    settle(one, held, "ack")
    again = two.take(3)
    assert [(entry.event.data, entry.attempt) for entry in again] == [(0, 1), (1, 1), (2, 1)]


def test_a_dead_letter_has_a_topic_that_is_one_however_long_it_was():
    world = World(max_deliveries=1)
    letters, group = world.letters, world.group
    long = ".".join(["x" * 99] * 5)
    group.shard(((long,),)).put(Event(long, 1, "e", headers={"a": "b"}))
    member = group.join((long,), [long])
    settle(member, member.take(1), "reject", reason="no")
    (letter,) = letters
    assert letter.topic == "$dead.g"
    assert letter.id == "e-dead-g"
    assert letter.headers == {
        "a": "b",
        "dead-letter-reason": "no",
        "dead-letter-group": "g",
        "dead-letter-topic": long,
        "dead-letter-attempts": "1",
    }
    assert group.shard(((long,),)).count == 0


def test_a_dead_letter_that_is_given_up_is_told_and_not_buried_again():
    world = World(max_deliveries=2)
    member = world.join()
    letters = [Event(topic, topic, topic) for topic in ("$dead.other.t", "$dead.g.t", "$dead.x")]
    for letter in letters:
        world.shard.put(letter)
    rejected, *nacked = member.take(3)
    settle(member, [rejected], "reject", reason="no")
    settle(member, nacked, "nack")
    settle(member, member.take(3), "nack")
    too_often = "it was delivered too often"
    assert world.lost == [(letters[0], "g", "no"), (letters[1], "g", too_often), (letters[2], "g", too_often)]
    assert (world.letters, world.shard.count, member.take(1)) == ([], 0, [])


# ---------------------------------------------------------------- delays


def test_a_delayed_event_comes_when_it_is_due_and_in_its_place():
    world = World()
    world.put(*[None] * 3)
    member = world.join()
    entries = member.take(2)
    settle(member, [entries[0]], "nack", now=100.0, delay=5.0)
    settle(member, [entries[1]], "nack", now=100.0, delay=2.0)
    assert world.group.due() == 102.0
    world.group.wake_due(101.9)
    assert numbers(member.take(1)) == [2]
    world.group.wake_due(102.0)
    assert world.group.due() == 105.0
    assert numbers(member.take(1)) == [1]
    world.put()
    world.group.wake_due(105.0)
    assert world.group.due() is None
    assert [(entry.event.data, entry.attempt) for entry in member.take(9)] == [(0, 2), (3, 1)]


def test_what_is_delayed_has_its_place_in_the_buffer():
    world = World(buffer=2, overflow="drop_newest")
    world.put(None, None)
    member = world.join()
    settle(member, member.take(1), "nack", now=0.0, delay=1.0)
    world.put()
    assert (world.group.dropped, world.shard.count) == (1, 2)


# ---------------------------------------------------------------- keys


def test_one_member_at_a_time_has_events_of_a_key_and_others_pass_by():
    world = World()
    world.put("a", "a", "b", "a", None)
    one, two = world.join(), world.join()
    first = one.take(1)
    assert numbers(first) == [0]
    second = two.take(9)
    assert numbers(second) == [2, 4]
    settle(one, first, "ack")
    assert numbers(two.take(9)) == [1, 3]
    assert one.take(9) == []


def test_one_member_may_have_several_events_of_a_key_in_order():
    world = World()
    world.put("a", "a", "a")
    one, two = world.join(), world.join()
    held = one.take(2)
    assert numbers(held) == [0, 1]
    assert two.take(9) == []
    settle(one, held[:1], "ack")
    assert two.take(9) == []
    settle(one, held[1:], "ack")
    assert numbers(two.take(9)) == [2]


def test_where_events_are_sent_ahead_a_member_has_one_of_a_key_at_a_time_and_what_goes_back_comes_first():
    world = World(one_by_one=True)
    world.put("a", "a", None, "a", "b")
    member = world.join()
    first = member.take(9)
    assert numbers(first) == [0, 2, 4]
    settle(member, first[:1], "nack")
    again = member.take(9)
    assert (numbers(again), again[0].attempt) == ([0], 2)
    settle(member, again, "nack", delay=5.0)
    assert numbers(member.take(9)) == []
    world.group.wake_due(5.0)
    for number in (0, 1, 3):
        taken = member.take(9)
        assert numbers(taken) == [number]
        settle(member, taken, "ack")
    settle(member, first[1:], "ack")
    assert not world.group._lanes


def test_where_one_of_a_key_is_dropped_the_next_has_its_turn():
    world = World(one_by_one=True, buffer=3, overflow="drop_oldest")
    world.put("a", "a", "a")
    member, other = world.join(), world.join()
    taken = member.take(9)
    settle(member, taken, "ack")  # 1 may be taken now, and 2 waits for it
    world.put("b", "b")
    assert world.group.dropped == 1
    assert numbers(other.take(9)) == [2, 3]


def test_a_delayed_event_of_a_key_holds_up_its_key_and_no_other():
    world = World()
    world.put("a", "b", "a")
    one, two = world.join(), world.join()
    settle(one, one.take(1), "nack", now=0.0, delay=5.0)
    assert numbers(two.take(9)) == [1]
    world.group.wake_due(5.0)
    assert [(entry.event.data, entry.attempt) for entry in two.take(1)] == [(0, 2)]
    assert one.take(1) == []


def test_keys_are_forgotten_when_nothing_of_them_is_left():
    world = World()
    world.put(*map(str, range(100)))
    member = world.join()
    for entry in member.take(100):
        settle(member, [entry], "ack")
    assert not world.group._lanes


# ---------------------------------------------------------------- bounds


def test_the_oldest_that_waits_is_dropped_and_what_is_in_hand_is_not():
    world = World(buffer=3, overflow="drop_oldest")
    world.put(*[None] * 3)
    member = world.join()
    held = member.take(1)
    world.put(None, None)
    assert (world.group.dropped, world.shard.count) == (2, 3)
    settle(member, held, "ack")
    assert numbers(member.take(9)) == [3, 4]


def test_where_all_is_in_hand_what_comes_is_dropped():
    world = World(buffer=2, overflow="drop_oldest")
    world.put(None, None)
    member = world.join()
    member.take(2)
    world.put()
    assert (world.group.dropped, member.take(1)) == (1, [])


# ---------------------------------------------------------------- waking


def test_whoever_has_waited_longest_is_woken_once():
    world = World()
    one, two = world.join(), world.join()
    woken: list[str] = []
    one.waits(lambda: woken.append("one"))
    two.waits(lambda: woken.append("two"))
    world.put()
    assert woken == ["one"]
    world.put()
    world.put()
    assert woken == ["one", "two"]


def test_a_member_that_was_woken_and_goes_wakes_another():
    world = World()
    one, two = world.join(), world.join()
    woken: list[str] = []
    one.waits(lambda: woken.append("one"))
    two.waits(lambda: woken.append("two"))
    world.put()
    one.pass_on()
    assert woken == ["one", "two"]


# ---------------------------------------------------------------- any history

KEYS = st.sampled_from([None, None, "a", "b"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS),
        st.tuples(st.just("take"), st.integers(0, 2), st.integers(1, 3)),
        st.tuples(st.sampled_from(["ack", "nack", "delay", "reject", "release"]), st.integers(0, 2), st.integers(0, 9)),
        st.tuples(st.just("leave"), st.integers(0, 2)),
        st.tuples(st.just("pass"), st.integers(1, 3)),
    ),
    max_size=60,
)


@settings(deadline=None, max_examples=300)
@given(steps=STEPS, one_by_one=st.booleans())
def test_whatever_happens_nothing_is_lost_or_held_twice_and_every_key_is_held_by_one(steps, one_by_one):
    world, now = World(max_deliveries=3, one_by_one=one_by_one), 0.0
    members = [world.join() for _ in range(3)]
    acked: Counter[int] = Counter()
    for step, *arguments in steps:
        if step == "put":
            world.put(*arguments)
        elif step == "take":
            members[arguments[0]].take(arguments[1])
        elif step == "pass":
            now += arguments[0]
            world.group.wake_due(now)
        elif step == "leave":
            members[arguments[0]].leave(now)
            members[arguments[0]] = world.join()
        elif held := [*members[arguments[0]].out.values()]:
            entry = held[arguments[1] % len(held)]
            delay = 2.0 if step == "delay" else 0.0
            settle(members[arguments[0]], [entry], "nack" if step == "delay" else step, now, delay=delay)
            acked[entry.event.data] += step == "ack"
        check(world, members, acked)
    finish(world, members, acked, now)


def check(world, members, acked):
    out = [entry for member in members for entry in member.out.values()]
    holders = defaultdict(set)
    for number, member in enumerate(members):
        for entry in member.out.values():
            holders[entry.event.key].add(number)
    assert len({entry.event.data for entry in out}) == len(out)
    assert all(len(who) == 1 for key, who in holders.items() if key is not None)
    if world.group.one_by_one:
        keys = [entry.event.key for entry in out if entry.event.key is not None]
        assert len(set(keys)) == len(keys)
    parked = sum(len(lane.parked) for lane in world.group._lanes.values())
    waiting = len(world.shard.queue) + len(world.shard.returned)
    assert world.shard.count == waiting + parked + len(out) + len(world.group._delayed)
    assert world.shard.count + len(world.letters) + sum(acked.values()) == world.published


def finish(world, members, acked, now):
    """Have one member do all that is left: it gets the events of each key in order, and everything ends once."""
    for member in members[1:]:
        member.leave(now)
    for entry in [*members[0].out.values()]:
        settle(members[0], [entry], "release", now)
    world.group.wake_due(now + 100)
    done = defaultdict(list)
    while taken := members[0].take(1):
        done[taken[0].event.key].append(taken[0].event.data)
        settle(members[0], taken, "ack", now)
        acked[taken[0].event.data] += 1
    for key, found in done.items():
        assert key is None or found == sorted(found)
    assert set(acked.values()) <= {0, 1}
    ended = {number for number, times in acked.items() if times} | {letter.data for letter in world.letters}
    assert ended == {*range(world.published)}
    assert world.shard.count == 0
    assert not world.group._lanes
