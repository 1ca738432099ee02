"""An event is a value; ids are unique and come in order."""

from __future__ import annotations

import gc
import pickle
import subprocess
import sys
import weakref
from datetime import UTC, datetime
from threading import Thread

import msgspec
import pytest

from dpcore.errors import ArgumentError
from dpcore.events import CAUSATION_ID, CORRELATION_ID, TRACEPARENT, TRACESTATE, Event, Ids, check_event

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()


def test_an_event_is_built_by_position_in_the_order_of_its_fields():
    event = Event("a.b", {"id": 7}, "1", NOON, "shop", "Paid", "eu", {TRACEPARENT: "00"})
    assert msgspec.structs.asdict(event) == {
        "topic": "a.b", "data": {"id": 7}, "id": "1", "time": NOON, "source": "shop", "type": "Paid", "key": "eu",
        "headers": {"traceparent": "00"},
    }  # fmt: skip


def test_a_topic_is_all_that_an_event_needs():
    assert Event("a") == Event("a", None, "", 0.0, "", "", None, None)


def test_an_event_does_not_change():
    with pytest.raises(AttributeError):
        Event("a").data = 1


def test_events_are_equal_if_all_their_fields_are():
    assert Event("a", {"x": [1]}, "1") == Event("a", {"x": [1]}, "1")
    assert Event("a", {"x": [1]}, "1") != Event("a", {"x": [2]}, "1")
    assert Event("a", id="1") != Event("a", id="2")


def test_events_of_one_source_and_id_have_one_place_in_a_set_whatever_they_carry():
    one, again = (
        Event("a", {"x": [1]}, "1", source="s", headers={}),
        Event("a", {"x": [1]}, "1", source="s", headers={}),
    )
    assert len({one, again}) == 1
    assert len({one, Event("a", {"x": [1]}, "2", source="s")}) == 2


def test_an_event_prints_its_topic_its_payload_and_what_else_was_given():
    assert repr(Event("a.b")) == "Event('a.b', None)"
    assert repr(Event("a.b", {"id": 7}, "1", key="eu")) == "Event('a.b', {'id': 7}, id='1', key='eu')"


def test_a_long_payload_is_cut_where_an_event_is_printed():
    assert len(repr(Event("a", "x" * 10_000))) < 300


class Unprintable:
    def __repr__(self):
        raise RuntimeError


def test_an_event_prints_whatever_it_carries():
    assert repr(Event("a", Unprintable())) == "Event('a', <Unprintable that cannot be printed>)"


def test_an_event_pickles():
    event = Event("a.b", {"id": 7}, "1", NOON, "shop", "Paid", "eu", {CORRELATION_ID: "c", CAUSATION_ID: "0"})
    assert pickle.loads(pickle.dumps(event)) == event


def test_a_circle_that_goes_through_an_event_is_freed():
    class Box:
        event: Event

    box = Box()
    box.event = Event("a", box)
    gone = weakref.ref(box)
    del box
    gc.collect()
    assert gone() is None


def test_an_event_with_everything_right_is_given_back_itself():
    for event in (Event("a"), Event("a", object(), "1", NOON, "s", "t", "k", {TRACESTATE: "v"})):
        assert check_event(event) is event


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (Event(3), "topic=3 must be a str"),
        (Event("a", id=3), "id=3 must be a str"),
        (Event("a", source=None), "source=None must be a str"),
        (Event("a", type=int), "type=<class 'int'> must be a str"),
        (Event("a", key=7), "key=7 must be a str, or None"),
        (Event("a", time="now"), "time='now' must be seconds since the epoch, or 0 to have it stamped"),
        (Event("a", time=-1.0), "time=-1.0 must be seconds since the epoch, or 0 to have it stamped"),
        (Event("a", time=float("nan")), "time=nan must be seconds since the epoch, or 0 to have it stamped"),
        (Event("a", headers=[]), "headers=[] must be a mapping of str to str, or None"),
        (Event("a", headers={"n": 1}), "headers={'n': 1} must be a mapping of str to str, or None"),
        (Event("a", headers={1: "n"}), "headers={1: 'n'} must be a mapping of str to str, or None"),
    ],
)
def test_what_is_of_the_wrong_type_is_named(event, words):
    with pytest.raises(ArgumentError) as raised:
        check_event(event)
    assert str(raised.value) == words


def test_the_time_is_seconds_since_the_epoch_and_can_be_had_as_a_datetime():
    assert Event("a", time=NOON + 0.000005).when == datetime(2026, 11, 22, 12, 0, 0, 5, tzinfo=UTC)
    assert Event("a").when is None


# ---------------------------------------------------------------- ids


def test_the_text_of_ids_is_in_the_order_of_their_making():
    ids = Ids()
    made = [ids.next() for _ in range(10_000)]
    assert made == sorted(made)
    assert len({*made}) == 10_000
    assert len({len(one) for one in made}) == 1


def test_no_two_objects_make_the_same_id():
    assert len({Ids().next() for _ in range(1_000)}) == 1_000


def test_threads_that_share_ids_get_each_once_and_each_in_order():
    ids = Ids()
    made: list[list[str]] = [[] for _ in range(8)]
    threads = [Thread(target=lambda mine=mine: mine.extend(ids.next() for _ in range(5_000))) for mine in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(mine == sorted(mine) for mine in made)
    assert len({one for mine in made for one in mine}) == 8 * 5_000


def test_a_forked_process_makes_ids_of_its_own():
    code = (
        "import os; from dpcore.events import Ids\n"
        "ids, gone = Ids(), Ids()\n"
        "del gone\n"
        "ids.next(); child = os.fork()\n"
        "os.write(1, f'{ids.next()}\\n'.encode())\n"
        "os._exit(0) if child == 0 else os.waitpid(child, 0)\n"
        "print(ids.next())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    made = done.stdout.split()
    assert len({*made}) == 3
    prefixes = sorted(one.partition("-")[0] for one in made)
    assert len({*prefixes}) == 2
    assert {len(prefix) for prefix in prefixes} == {16}
