"""The multiprocess broker under the suite of its port, and what comes of sharing a hub: keys, strangers, deaths."""

from __future__ import annotations

import fcntl
import math
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from dpcore import Broker, Event, Exchange, Plugins
from dpcore.config import Config
from dpcore.errors import (
    ArgumentError,
    BrokerLostError,
    BrokerRefusedError,
    BrokerStateError,
    DeadlockError,
    PayloadError,
    PublishTimeoutError,
)
from dpcore.events import decode_many, encode_many, pack, unpack
from dpcore.testing import BrokerConformance
from dpcore.testing.suite import Writers, leftovers
from dpcore_plugins import MultiprocessBroker
from dpcore_plugins.brokers.multiprocess.flight import Flight
from dpcore_plugins.brokers.multiprocess.places import Place
from dpcore_plugins.brokers.multiprocess.sheaves import Sheaf, bodies, fitting, opened, slips
from dpcore_plugins.brokers.multiprocess.thread import HubThread
from dpcore_plugins.brokers.multiprocess.wire import Cut, Kind, NonsenseError, alike, frame, greeting, packed, proof

pytestmark = pytest.mark.anyio

PATIENCE = 20


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


def at(address: str) -> Broker:
    return Plugins(config=Config(environ={})).make("broker", address)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class TestMultiprocessBroker(BrokerConformance):
    def make(self, tmp_path):
        return MultiprocessBroker()


# ---------------------------------------------------------------- who is the hub


async def test_without_a_path_the_hub_is_in_a_folder_that_only_this_user_can_look_into_and_that_goes_with_it():
    broker = MultiprocessBroker()
    assert broker.address is None
    async with broker:
        assert broker.address is not None
        path = Path(broker.address.removeprefix("multiprocess:").partition("?")[0])
        assert (mode(path.parent), mode(path), mode(Path(f"{path}.key"))) == (0o700, 0o600, 0o600)
        async with at(broker.address) as other, other.subscribe("t") as events:
            await broker.publish("t", {"id": 7})
            assert (await anext(events)).data == {"id": 7}
    assert not path.parent.exists()


@pytest.mark.parametrize("transport", ["unix", "tcp"])
async def test_the_first_at_a_path_is_the_hub_and_the_others_join_it(tmp_path, transport):
    path = str(tmp_path / "hub.sock")
    first, second = (MultiprocessBroker(path, transport=transport) for _ in range(2))
    async with first, second, at(first.address) as third:
        assert [first.is_hub, second.is_hub, third.is_hub] == [True, False, False]
        async with second.subscribe("t") as events, third.consume("t") as work:
            await third.publish("t", 1)
            assert [(await anext(events)).data, (await anext(work)).data] == [1, 1]
    assert [*tmp_path.iterdir()] == []


async def test_two_that_begin_at_the_same_moment_agree_on_one(tmp_path):
    async def enter(broker: MultiprocessBroker, here: list[bool], together: anyio.Event) -> None:
        async with broker:
            here.append(broker.is_hub)
            if len(here) == 4:
                together.set()
            await together.wait()

    for _ in range(20):
        here: list[bool] = []
        together = anyio.Event()
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(enter, MultiprocessBroker(str(tmp_path / "hub.sock")), here, together)
        assert sorted(here) == [False, False, False, True]


async def test_who_must_be_the_hub_is_refused_where_there_is_one_and_who_only_joins_where_there_is_none(tmp_path):
    path = str(tmp_path / "hub.sock")
    with pytest.raises(BrokerRefusedError, match=r"there is no hub; enter the broker that is the hub first"):
        await MultiprocessBroker(path, serve=False).__aenter__()
    async with MultiprocessBroker(path, serve=True):
        with pytest.raises(BrokerRefusedError, match=r"another process is the hub there; give another path"):
            await MultiprocessBroker(path, serve=True).__aenter__()
    with pytest.raises(ValueError, match="serve=False must come with the path"):
        MultiprocessBroker(serve=False)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda folder: folder / ("x" * 120), "and that of a Unix socket may have 107; give a shorter path, or "),
        (
            lambda folder: Path(__file__) / "hub",
            "cannot be made in .*: (File exists|Not a directory); give a path in a",
        ),
        (lambda folder: Path("/proc/hub"), "cannot be made in /proc: "),
    ],
    ids=["too long", "a file", "unwritable"],
)
async def test_a_path_where_no_hub_can_be_is_refused_in_words_and_leaves_nothing(tmp_path, make, problem):
    before = leftovers()
    with pytest.raises(BrokerRefusedError, match=problem):
        await MultiprocessBroker(str(make(tmp_path))).__aenter__()
    assert [*tmp_path.iterdir()] == []
    assert leftovers().no_more_than(before)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"retain": -1}, "retain=-1 must be at least 0"),
        ({"max_payload": 0}, "max_payload=0 must be at least 1"),
        ({"max_payload": 1 << 31}, "max_payload=2147483648 must be at most 1073741824"),
        ({"drain": -1}, "drain=-1 must be at least 0 seconds"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(setting, words):
    with pytest.raises(ValueError, match=words):
        MultiprocessBroker(**setting)


# ---------------------------------------------------------------- the key


async def test_who_has_another_key_is_turned_away_and_told(tmp_path, caplog):
    other = tmp_path / "other"
    other.write_bytes(b"k" * 32)
    other.chmod(0o600)
    async with MultiprocessBroker(str(tmp_path / "hub")) as hub:
        with pytest.raises(BrokerRefusedError, match=f"its hub has another key than {other} holds; give the hub's"):
            await MultiprocessBroker(str(tmp_path / "hub"), key=str(other)).__aenter__()
        await hub.publish("t", 1)
    assert "turned away somebody with another key" in caplog.text


async def test_a_key_that_others_can_read_opens_nothing(tmp_path):
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    key.chmod(0o640)
    words = rf"others can read the key file {key} \(mode 0640\); remove it, so that a new one is made"
    with pytest.raises(BrokerRefusedError, match=words):
        await MultiprocessBroker(str(tmp_path / "hub"), key=str(key)).__aenter__()
    key.chmod(0o600)
    async with MultiprocessBroker(str(tmp_path / "hub"), key=str(key)) as hub:
        key.chmod(0o604)
        with pytest.raises(
            BrokerRefusedError, match=r"others can read the key file .*, so that the hub makes a new one"
        ):
            await at(hub.address).__aenter__()
    assert key.exists()  # it was not the hub that made it


async def test_a_key_that_is_short_or_no_file_opens_nothing(tmp_path):
    (tmp_path / "short").write_bytes(b"k")
    (tmp_path / "short").chmod(0o600)
    for name, words in (("short", "holds 1 bytes; have at least 32 in it"), ("", "is not a file of this user")):
        with pytest.raises(BrokerRefusedError, match=words):
            await MultiprocessBroker(str(tmp_path / "hub"), key=str(tmp_path / name)).__aenter__()


async def test_what_stands_in_the_place_of_the_key_and_is_none_is_not_waited_for(tmp_path):
    key = tmp_path / "hub.key"
    makers: list[tuple[Callable[[], object], str]] = [
        (lambda: os.mkfifo(key, 0o600), "is not a file of this user; remove it, so that a new one is made"),
        (lambda: key.symlink_to(tmp_path / "other"), "cannot be read: .*; remove it, so that a new one is made"),
    ]
    for make, words in makers:
        make()
        with pytest.raises(BrokerRefusedError, match=words):
            await MultiprocessBroker(str(tmp_path / "hub")).__aenter__()
        key.unlink()
    async with MultiprocessBroker(str(tmp_path / "hub")) as hub:
        os.replace(key, tmp_path / "kept")  # noqa: PTH105
        os.mkfifo(key, 0o600)
        with pytest.raises(BrokerRefusedError, match="is not a file of this user; remove it, so that the hub makes"):
            await at(hub.address).__aenter__()


@pytest.mark.parametrize("transport", ["unix", "tcp"])
async def test_a_file_that_somebody_made_where_the_key_is_written_does_not_get_it(tmp_path, transport):
    prepared = [tmp_path / name for name in ("hub.key.new", "hub.new")]
    for path in prepared:
        path.touch(0o666)
    with ExitStack() as stack:
        opened = [stack.enter_context(path.open("rb")) for path in prepared]
        async with MultiprocessBroker(str(tmp_path / "hub"), transport=transport) as hub:
            assert (mode(tmp_path / "hub.key"), [file.read() for file in opened]) == (0o600, [b"", b""])
            async with at(hub.address) as other:
                await other.publish("t", 1)
    assert sorted(tmp_path.iterdir()) == prepared


@contextmanager
def pretender(path: Path, says: bytes) -> Iterator[None]:
    """Hold the place of a hub, and say one thing to whoever comes."""
    with open(f"{path}.lock", "w") as lock, socket.socket(socket.AF_UNIX) as listener:  # noqa: PTH123
        fcntl.flock(lock, fcntl.LOCK_EX)
        key = Path(f"{path}.key")
        key.write_bytes(b"k" * 32)
        key.chmod(0o600)
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, suppress(ConnectionError):
                connection.sendall(says)
                connection.recv(1000)
                connection.sendall(b"\1" + bytes(32))
                connection.recv(1000)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (
            greeting(bytes(32)).replace(b"\1", b"\7", 1),
            "its hub speaks version 7 of the protocol, and this dpcore version",
        ),
        (b"HTTP/1.1 400 Bad Request" + bytes(40), "what listens there is no hub: it began with b'HTTP/1.1 400 Bad"),
        (greeting(bytes(32)), "what listens there does not know the key; see who made that socket"),
    ],
    ids=["old version", "no hub", "no key"],
)
async def test_what_is_no_hub_of_ours_is_told_in_words(tmp_path, says, words):
    with pretender(tmp_path / "hub", says), pytest.raises(BrokerRefusedError, match=words):
        await MultiprocessBroker(str(tmp_path / "hub")).__aenter__()


# ---------------------------------------------------------------- strangers, and peers that speak nonsense


def place_of(broker: Broker) -> str:
    assert broker.address is not None
    return broker.address.removeprefix("multiprocess:").partition("?")[0]


def came_to_its_end(connection: socket.socket) -> bool:
    """Read until the other side hangs up."""
    try:
        while connection.recv(1 << 16):
            pass
    except ConnectionResetError:
        pass
    return True


async def test_strangers_are_dropped_whatever_they_say_and_the_hub_lives_on(anyio_backend_name):
    async with MultiprocessBroker() as hub, hub.subscribe("t") as events:
        path = place_of(hub)

        @settings(max_examples=60, deadline=None)
        @given(st.binary(max_size=400))
        def strangers(said: bytes) -> None:
            with socket.socket(socket.AF_UNIX) as stranger:
                stranger.connect(path)
                stranger.sendall(said)
                stranger.shutdown(socket.SHUT_WR)
                assert came_to_its_end(stranger)

        await to_thread.run_sync(strangers)
        await hub.publish("t", 1)
        assert (await anext(events)).data == 1


def introduced(path: str) -> socket.socket:
    """Return a connection that the hub takes for a peer's."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    said = connection.recv(43, socket.MSG_WAITALL)
    connection.sendall(proof(Path(f"{path}.key").read_bytes(), said[-32:], bytes(32)))
    assert connection.recv(33, socket.MSG_WAITALL)[:1] == b"\1"
    return connection


FRAMES = st.builds(
    frame,
    st.integers(0, 50) | st.sampled_from([Kind.PUBLISH, Kind.OPEN, Kind.SETTLE, Kind.DECLARE]),
    st.integers(0, 3),
    st.integers(0, 3),
    st.binary(max_size=30)
    | st.sampled_from([b"\x90", b"\x80", b"\xc0", b"\x92\x90\x90", b"\xa1t", b"\x91\x99\x01\xa1t"]),
)


async def test_a_peer_that_speaks_nonsense_is_dropped_and_the_others_go_on():
    async with MultiprocessBroker() as hub, hub.subscribe("t") as events:
        path = place_of(hub)

        @settings(max_examples=60, deadline=None)
        @given(st.lists(FRAMES, max_size=6).map(b"".join) | st.binary(max_size=100))
        def peers(said: bytes) -> None:
            with introduced(path) as peer:
                peer.sendall(said)
                peer.shutdown(socket.SHUT_WR)
                assert came_to_its_end(peer)

        await to_thread.run_sync(peers)
        await hub.publish("t", 1)
        while (await anext(events)).data != 1:
            pass


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        (Kind.DECLARE, packed(["t", [{"patterns": ["t"]}]]), "a topic is declared for what is no group"),
        (Kind.DECLARE, packed(["t", [{"patterns": ["t..u"], "group": "g"}]]), "the pattern 't..u' is not valid"),
        (Kind.OPEN, packed({"patterns": []}), "a subscription that cannot be"),
        (Kind.OPEN, packed({"patterns": ["t"], "buffer": -5}), "a subscription that cannot be"),
        (99, b"", "a frame of kind 99"),
    ],
    ids=["no group", "no pattern", "no patterns", "no buffer", "no kind"],
)
async def test_a_peer_that_is_dropped_is_told_why_and_may_come_again(kind, body, words, caplog):
    async with MultiprocessBroker() as hub:
        async with at(hub.address) as other:
            other._link.say(kind, 1, 1, body)
            with anyio.fail_after(PATIENCE), pytest.raises(BrokerLostError, match=f"it dropped this peer: .*{words}"):
                await other.topics()
        async with at(hub.address) as other:
            await other.publish("t", 1)
    assert "Traceback" not in caplog.text


async def test_out_of_file_descriptors_the_hub_lets_nobody_in_for_a_while_and_says_so_once(tmp_path):
    strangers: list[socket.socket] = []
    path = tmp_path / "hub"
    try:
        with a_hub(path, "few") as process, anyio.fail_after(PATIENCE):
            assert process.stderr is not None
            async with MultiprocessBroker(str(path)) as peer:
                for _ in range(60):
                    strangers.append(socket.socket(socket.AF_UNIX))
                    strangers[-1].connect(str(path))
                said = await to_thread.run_sync(process.stderr.readline)
                assert b"cannot let anybody in for now: [Errno 24]" in said
                await peer.publish("t", 1)
                for stranger in strangers:
                    stranger.close()
                async with MultiprocessBroker(str(path)) as late:
                    assert await late.topics() == ["t"]
            process.kill()
            assert b"anybody" not in process.stderr.read()
    finally:
        for stranger in strangers:
            stranger.close()


async def test_a_hub_that_has_failed_is_left_at_once(tmp_path):
    class Failing(Exchange):
        def offer(self, event: Event) -> None:
            raise RuntimeError("a defect")

        def close(self) -> None:
            raise RuntimeError("a defect")

    thread = HubThread(Place(str(tmp_path / "hub"), "unix", None).claim(), max_payload=1000, exchange=Failing())
    for _ in range(2):  # the second time nothing of it is left
        ended = threading.Event()
        thread.leave(0, lambda call: call(), ended.set)
        assert await to_thread.run_sync(ended.wait, PATIENCE)
        thread.join()
    assert [*tmp_path.iterdir()] == []


async def test_what_a_group_delays_for_long_holds_up_nothing_that_is_due_before_in_it_or_in_others():
    async with MultiprocessBroker() as hub:

        async def work(group: str) -> None:
            async with hub.consume("t", group=group, ack="manual") as events:
                left = {1, 2}
                async for delivery in events.deliveries():
                    number = delivery.event.data
                    if number not in left:
                        await delivery.nack(delay=3600)
                    elif delivery.attempt < 4:
                        await delivery.nack(delay=0.01)
                    else:
                        await delivery.ack()
                        left.remove(number)
                    if not left:
                        return

        with anyio.fail_after(PATIENCE):
            await hub.publish_many("t", range(4))
            async with anyio.create_task_group() as tasks:
                for group in "abc":
                    tasks.start_soon(work, group)


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
async def test_members_learn_what_their_group_dropped_while_nobody_asked_for_anything(overflow):
    async with (
        MultiprocessBroker() as hub,
        at(hub.address) as other,
        hub.consume("t", buffer=2, overflow=overflow) as first,
        other.consume("t", buffer=2, overflow=overflow) as second,
    ):
        for number in range(5):
            await hub.publish("t", number)
            assert first.dropped == max(0, number - 1)
        async with other.consume("t", buffer=2, overflow=overflow) as third:
            await other.topics()
            assert first.dropped == second.dropped == third.dropped == 3


async def test_events_that_make_no_sense_are_left_out_and_in_a_group_rejected(caplog):
    async with (
        MultiprocessBroker() as hub,
        hub.subscribe("t") as events,
        hub.consume("t") as work,
        hub.consume("$dead.**", group="undertaker") as dead,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(anext, dead)
        with introduced(place_of(hub)) as peer:
            good = [Event("t", number, str(number), 1.0, "peer") for number in range(7)]
            nonsense = encode_many([*good, Event("t", b"here", "7", 1.0)]).replace(
                b"\xc4\x04here", b"\xa5\xff\xff\xff\xff\xff"
            )
            peer.sendall(frame(Kind.ALIKE, 1, 9, alike("t", b"no events at all")))
            peer.sendall(frame(Kind.ALIKE, 2, 8, alike("t", nonsense)))
            await hub.publish("t", "sense")
            for reader in (events, work):
                found = [(await anext(reader)).data for _ in range(8)]
                assert sorted(map(str, found)) == ["0", "1", "2", "3", "4", "5", "6", "sense"]
        with anyio.fail_after(PATIENCE):
            while caplog.text.count("on '$dead.default.t' was left out") < 10:
                await anyio.sleep(0.001)
        tasks.cancel_scope.cancel()


async def test_events_that_were_published_together_are_retained_rejected_and_dropped_one_by_one():
    async with (
        MultiprocessBroker() as hub,
        hub.subscribe("t", buffer=5) as few,
        hub.subscribe("$dead.**") as dead,
        hub.consume("t", ack="manual") as work,
    ):
        await hub.publish_many("t", range(20), headers={"a": "b"})
        assert few.dropped == 15
        assert [(await anext(few)).data for _ in range(5)] == [15, 16, 17, 18, 19]
        deliveries = work.deliveries()
        for number in range(20):
            delivery = await anext(deliveries)
            assert delivery.event.data == number
            await (delivery.reject("why not") if number == 7 else delivery.ack())
        letter = await anext(dead)
        assert (letter.data, letter.headers["a"], letter.headers["dead-letter-reason"]) == (7, "b", "why not")
        async with hub.subscribe("t", start="earliest") as late:
            assert [(await anext(late)).data for _ in range(20)] == [*range(20)]


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=6), st.data())
def test_sheaves_that_were_cut_come_out_as_their_events_in_order(made, data):
    events, numbers = [], count()
    for size, is_sheaf in made:
        some = [Event("t", next(numbers)) for _ in range(size)]
        events += slips(Sheaf("t", size, encode_many(some))) if is_sheaf else map(pack, some)
    begin = data.draw(st.integers(0, len(events)))
    end = data.draw(st.integers(begin, len(events)))
    pieces = [*bodies(events[begin:end])]
    found = [event.data for _, body in pieces for event in decode_many(body)]
    assert found == [*range(begin, end)]
    assert [size for size, _ in pieces] == [len(decode_many(body)) for _, body in pieces]
    assert [event.data for event in map(unpack, map(opened, events))] == [*range(len(events))]


async def test_a_frame_that_is_too_large_is_not_waited_for():
    async with MultiprocessBroker(max_payload=1000) as hub:
        with introduced(place_of(hub)) as peer:
            peer.sendall(struct.pack(">IBII", 1 << 31, Kind.PUBLISH, 1, 1))
            assert await to_thread.run_sync(came_to_its_end, peer)


async def test_who_does_not_show_the_key_in_time_is_dropped_and_the_oldest_of_too_many_at_once():
    async with MultiprocessBroker() as hub:
        path = place_of(hub)
        strangers = [socket.socket(socket.AF_UNIX) for _ in range(70)]
        try:
            for stranger in strangers:
                stranger.connect(path)
            for stranger in (strangers[0], strangers[-1]):  # the first for the last's sake, the last for the time's
                assert await to_thread.run_sync(came_to_its_end, stranger)
            async with at(hub.address) as other:
                await other.publish("t", 1)
        finally:
            for stranger in strangers:
                stranger.close()


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=20)), max_size=6), st.data())
def test_frames_come_out_as_they_went_in_however_they_are_cut(frames, data):
    said = b"".join(frame(kind, 1, 2, body) for kind, body in frames)
    cut, found = Cut(20), []
    while said:
        size = data.draw(st.integers(1, len(said)))
        found += cut.cut(said[:size])
        said = said[size:]
    assert found == [(kind, 1, 2, body) for kind, body in frames]
    with pytest.raises(NonsenseError, match="a frame of 21 bytes; 20 are the most"):
        cut.cut(frame(1, 1, 1, bytes(21)))


async def test_a_payload_that_is_too_large_is_refused_where_it_is_published():
    async with MultiprocessBroker(max_payload=1000) as hub, at(hub.address) as other, hub.subscribe("t") as events:
        words = r"takes \d+ bytes, and the hub takes 1000 at the most; publish where it can be read"
        for refused in (lambda: other.publish("t", "x" * 2000), lambda: other.publish_many("t", ["x" * 2000])):
            with pytest.raises(PayloadError, match=words):
                await refused()
        await other.publish_many("t", ["x" * 600, "y" * 600])  # each of them is not
        assert [(await anext(events)).data[0] for _ in range(2)] == ["x", "y"]


# ---------------------------------------------------------------- one peer and another


async def test_a_loop_that_is_blocked_stops_nobody_else():
    async with MultiprocessBroker() as hub:
        with Writers.of(_talk_to_itself, hub.address) as there:
            assert there.run() == [*range(10)]  # it does not wait: this loop stands still meanwhile


async def test_a_busy_member_gives_back_what_it_has_not_begun_to_one_that_is_idle():
    async with MultiprocessBroker() as hub, hub.consume("t") as busy:
        await hub.publish_many("t", range(400))
        for number in range(200):  # so quickly that more is sent ahead
            assert (await anext(busy)).data == number
        async with hub.consume("t") as idle:
            with anyio.fail_after(PATIENCE):
                found = [(await anext(idle)).data for _ in range(200)]
            assert sorted(found) == [*range(200, 400)]


async def test_a_publisher_that_waits_for_room_holds_up_nothing_else_of_its_peer():
    async with (
        MultiprocessBroker() as hub,
        at(hub.address) as other,
        hub.subscribe("full", buffer=1, overflow="block") as full,
        anyio.create_task_group() as tasks,
    ):
        await other.publish("full", 0)
        for number in range(1, 4):
            tasks.start_soon(other.publish_many, "full", [number])
        with anyio.fail_after(PATIENCE):
            for number in range(100):
                await other.publish("free", number)
            assert await other.topics() == ["full", "free"]
            assert sorted([(await anext(full)).data for _ in range(4)]) == [0, 1, 2, 3]


async def test_any_number_of_publishers_wait_for_room_and_hold_up_no_other_topic():
    async with (
        MultiprocessBroker() as hub,
        at(hub.address) as other,
        hub.subscribe("t", buffer=1, overflow="block") as events,
        anyio.create_task_group() as tasks,
    ):
        for number in range(10_050):
            tasks.start_soon(other.publish, "t", number)
        with anyio.fail_after(3 * PATIENCE):
            async with other.subscribe("free") as free:
                await other.publish("free", 1)
                assert (await anext(free)).data == 1
            assert {(await anext(events)).data for _ in range(10_050)} == {*range(10_050)}


class TestFlight:
    async def test_whoever_waits_has_room_as_soon_as_there_is_some_whatever_is_cancelled_meanwhile(self):
        flight = Flight()
        landed = 0

        async def fly(topic: str, size: int, patience: float) -> None:
            nonlocal landed
            with anyio.move_on_after(patience):
                await flight.board(topic, size, lambda: None)
                try:
                    await checkpoint()
                finally:
                    flight.land(topic, size)
                    landed += 1

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                for number in range(10_000):
                    size = 20 << 20 if number % 1000 == 0 else 5000
                    patience = 0 if number % 7 == 0 else math.inf
                    tasks.start_soon(fly, "few" if number % 10 == 0 else "many", size, patience)
        assert landed >= 10_000 * 6 // 7
        await flight.board("t", 1 << 40, lambda: None)  # nothing is left of it

    async def test_whoever_waits_when_the_connection_ends_is_told(self):
        def gone() -> None:
            raise BrokerLostError("multiprocess:hub", "it is gone")

        async def wait(topic: str) -> None:
            with pytest.raises(BrokerLostError):
                await flight.board(topic, 1 << 24, gone)

        flight = Flight()
        await flight.board("a", 1 << 25, lambda: None)
        for _ in range(4_000):
            await flight.board("b", 0, lambda: None)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait, "a")
            tasks.start_soon(wait, "b")
            await anyio.wait_all_tasks_blocked()
            flight.end()


async def test_what_waits_for_its_own_reader_is_a_deadlock_only_within_one_process():
    async with (
        MultiprocessBroker() as hub,
        at(hub.address) as other,
        hub.subscribe("t", buffer=1, overflow="block") as events,
    ):
        await hub.publish("t", 0)
        with anyio.move_on_after(0.05) as scope:
            await other.publish("t", 1)
        assert scope.cancelled_caught
        assert (await anext(events)).data == 0
        await hub.publish("t", 2)
        with pytest.raises(DeadlockError, match="only the task that publishes reads there"):
            await hub.publish("t", 3)
        assert (await anext(events)).data == 2


async def test_who_reads_the_platforms_own_topics_is_known_to_every_peer():
    async with MultiprocessBroker() as hub, at(hub.address) as other:
        assert (hub.wanted("$run.started"), hub.wanted("orders")) == (False, True)
        async with other.subscribe("orders | $run.*"):
            assert (other.wanted("$run.started"), other.wanted("$task.started")) == (True, False)
            await hub.topics()  # what the hub said before its answer has been heard
            assert hub.wanted("$run.started")
            async with at(hub.address) as late:
                assert late.wanted("$run.started")
        await hub.topics()
        assert not hub.wanted("$run.started")


async def test_the_readers_of_a_peer_that_is_left_read_what_is_left_and_the_hub_goes_on():
    found: list[int] = []

    async def read(events) -> None:
        async with events:
            ready.set()
            found.extend([event.data async for event in events])

    async with MultiprocessBroker() as hub:
        ready = anyio.Event()
        async with anyio.create_task_group() as tasks:
            async with at(hub.address) as other:
                tasks.start_soon(read, other.subscribe("t"))
                await ready.wait()
                await hub.publish_many("t", range(500))
            assert found == [*range(500)]
        await hub.publish("t", 1)


@pytest.mark.parametrize("drain", [0, 0.05])
async def test_whoever_waits_for_room_when_its_peer_is_left_is_told_and_nothing_of_it_is_published(drain):
    refused: list[int] = []

    async def publish(broker: Broker, number: int) -> None:
        with pytest.raises(BrokerStateError, match="was left"):
            await broker.publish("full", number)
        refused.append(number)

    async with MultiprocessBroker() as hub, hub.subscribe("full", buffer=1, overflow="block") as full:
        async with anyio.create_task_group() as tasks, at(hub.address) as other:
            other.drain = drain
            await other.publish("full", 0)
            for number in range(1, 4):
                tasks.start_soon(publish, other, number)
            await anyio.wait_all_tasks_blocked()
        assert sorted(refused) == [1, 2, 3]
        await hub.complete("full")
        assert [event.data async for event in full] == [0]


async def test_more_large_events_than_a_connection_holds_are_read_by_whoever_reads():
    async with MultiprocessBroker() as hub, at(hub.address) as other:
        await hub.declare("t", ["default"])
        for number in range(700):
            await hub.publish("t", [number, b"x" * 100_000])
        with anyio.fail_after(4 * PATIENCE):
            async with other.subscribe("t", start="earliest", overflow="block") as events:
                assert [(await anext(events)).data[0] for _ in range(700)] == [*range(700)]
            async with other.consume("t") as work:
                found: list[int] = []
                async for batch in work.batches(700):
                    found += [event.data[0] for event in batch]
                    if len(found) == 700:
                        break
                assert found == [*range(700)]


async def test_several_readers_of_one_process_have_their_turns_of_a_connection_that_is_full():
    async with MultiprocessBroker() as hub, at(hub.address) as other, AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(other.subscribe(f"t.{n}", overflow="block")) for n in range(3)]
        for number in range(60):
            for n in range(3):
                await hub.publish(f"t.{n}", [number, b"x" * 50_000])
        with anyio.fail_after(PATIENCE):
            for events in reversed(readers):
                assert [(await anext(events)).data[0] for _ in range(60)] == [*range(60)]


async def test_a_peer_that_reads_no_answers_is_dropped_and_the_others_go_on(caplog):
    async with MultiprocessBroker() as hub:
        await hub.declare("t." + "x" * 200)
        for number in range(1000):
            await hub.declare(f"{number}." + "x" * 200)
        with introduced(place_of(hub)) as peer:
            with suppress(ConnectionError):
                peer.sendall(frame(Kind.TOPICS, 1) * 500)
            assert await to_thread.run_sync(came_to_its_end, peer)
        await hub.publish("t", 1)
    assert "leaves more than 67108864 bytes of answers unread" in caplog.text


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1, max_size=6), st.integers(1, 3000), st.data())
def test_what_fits_into_a_portion_is_at_least_one_event_and_cuts_no_sheaf(made, most, data):
    events: list[Any] = []
    ends = {0}
    for size, is_sheaf in made:
        some = [Event("t", b"x" * data.draw(st.integers(0, 999)), headers={"a": "b"}) for _ in range(size)]
        ends |= {len(events) + size} if is_sheaf else {*range(len(events), len(events) + size + 1)}
        events += slips(Sheaf("t", size, encode_many(some))) if is_sheaf else map(pack, some)
    many = fitting(events, most)
    assert 0 < many <= len(events)
    assert many in ends
    first = min(ends - {0})
    assert many == first or len(b"".join(body for _, body in bodies(events[:many]))) <= most + 9


@pytest.mark.parametrize(
    "settle",
    [
        lambda one: one.reject(ValueError("no such address")),
        lambda one: one.nack(delay=Decimal("0.5")),
        lambda one: one.nack(delay=float("nan")),
    ],
    ids=["an error", "a decimal", "no number"],
)
async def test_who_settles_with_what_cannot_be_said_is_told_and_everything_else_is_said(settle):
    async with MultiprocessBroker() as hub, hub.consume("t", ack="manual") as work:
        await hub.publish_many("t", range(3))
        deliveries = work.deliveries()
        good, bad = await anext(deliveries), await anext(deliveries)
        await good.ack()
        with pytest.raises(ArgumentError, match="must be"):
            await settle(bad)
        with anyio.fail_after(PATIENCE):
            await hub.publish("t", 3)
            assert (await anext(deliveries)).event.data == 2


async def test_a_reason_with_a_lone_surrogate_reaches_the_dead_letters_in_words_that_can_be_printed():
    async with (
        MultiprocessBroker() as hub,
        hub.consume("t", ack="manual") as work,
        hub.subscribe("$dead.default.t") as dead,
    ):
        await hub.publish_many("t", range(2))
        deliveries = work.deliveries()
        with anyio.fail_after(PATIENCE):
            await (await anext(deliveries)).reject("bad \udcff")
            reason = (await anext(dead)).headers["dead-letter-reason"]
            assert (await anext(deliveries)).event.data == 1
        assert reason.startswith("bad ")
        assert reason.isprintable()


class Speechless:
    """A subscription that cannot say what became of its events."""

    task, opener = None, 0

    def hear(self, kind: int, count: int, body: bytes) -> None:
        raise AssertionError("the hub knows nothing of it")

    def lose(self) -> None:
        pass

    def report(self) -> None:
        raise TypeError("what has no words")


async def test_a_subscription_that_cannot_say_something_keeps_nothing_else_from_the_hub(caplog):
    async with MultiprocessBroker() as hub:
        hub._link.report_soon(Speechless())
        with anyio.fail_after(PATIENCE):
            await hub.publish("t", 1)
            assert await hub.topics() == ["t"]
    assert "what has no words" in caplog.text


# ---------------------------------------------------------------- forks and deaths


async def test_a_forked_process_is_told_to_enter_a_broker_of_its_own():
    async with MultiprocessBroker() as hub:
        read, write = os.pipe()
        if not os.fork():
            status = 1
            try:
                hub._link.check()
            except BrokerStateError as error:
                os.write(write, str(error).encode())
                status = 0
            finally:
                os._exit(status)
        said = os.read(read, 1000).decode()
        assert os.wait()[1] == 0  # noqa: ASYNC222  (it has said all that it says)
        os.close(read)
        os.close(write)
        assert f"is that of process {os.getpid()}, from which this one was forked; enter a broker of its own" in said
        await hub.publish("t", 1)


async def test_a_member_that_is_killed_counts_only_what_it_had_begun():
    async with MultiprocessBroker() as hub:
        await hub.declare("t", ["default"])
        await hub.publish_many("t", range(300))
        with Writers.of(_hold_the_hundredth, hub.address) as there:
            said = await to_thread.run_sync(there.kill_after, 101, 0.0)
        assert said[:101] == [*range(101)]
        async with hub.consume("t", ack="manual") as events:
            deliveries = events.deliveries()
            found = [await anext(deliveries) for _ in range(200)]
            assert [(one.event.data, one.attempt) for one in found] == [(100, 2), *((n, 1) for n in range(101, 300))]


async def test_an_event_that_kills_whoever_works_on_it_ends_with_the_dead_letters_and_takes_no_other_along():
    async with MultiprocessBroker(max_deliveries=3) as hub, hub.subscribe("$dead.**") as dead:
        await hub.declare("t", ["default"])
        await hub.publish_many("t", range(300))
        done: list[int] = []
        with Writers.of(_die_of_the_poison, hub.address) as there:
            for _ in range(3):
                done += await to_thread.run_sync(there.run)
            buried = await anext(dead)
            assert (buried.data, buried.headers["dead-letter-attempts"]) == (150, "3")
            assert "died" in buried.headers["dead-letter-reason"]
        async with hub.consume("t") as events:
            while len(set(done)) < 299:
                done.append((await anext(events)).data)
        assert dead.dropped == 0
        assert set(done) == {*range(300)} - {150}


async def test_when_the_process_of_the_hub_is_killed_all_that_wait_are_told_and_the_next_takes_its_place(tmp_path):
    path = tmp_path / "hub"
    with a_hub(path) as process:
        broker = MultiprocessBroker(str(path))
        lost: list[str] = []

        async def expect(name: str, wait: Callable) -> None:
            with pytest.raises(BrokerLostError, match=f"process {process.pid}, in which it was, closed the|broke"):
                await wait()
            lost.append(name)

        async def iterate(events) -> None:
            async for _ in events:
                pass

        with anyio.fail_after(PATIENCE):
            async with broker:
                assert not broker.is_hub
                reader, member = broker.subscribe("a"), broker.consume("b")
                full = broker.subscribe("full", overflow="block", buffer=1)
                async with reader, member, full:
                    await broker.publish("full", 0)
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(expect, "publish", lambda: broker.publish("full", 1))
                        tasks.start_soon(expect, "iterate", lambda: iterate(reader))
                        tasks.start_soon(expect, "consume", lambda: iterate(member))
                        await broker.topics()  # all of them are waiting
                        os.kill(process.pid, signal.SIGKILL)
                    await expect("afterwards", lambda: broker.publish("t", 1))
            assert sorted(lost) == ["afterwards", "consume", "iterate", "publish"]
            async with MultiprocessBroker(str(path)) as following:
                assert following.is_hub
                await following.publish("t", 1)
    assert [*tmp_path.iterdir()] == []


async def test_while_the_process_of_the_hub_is_stopped_a_timeout_and_a_cancellation_go_on_and_it_can_be_left(tmp_path):
    with a_hub(tmp_path / "hub") as process:
        rescue = threading.Timer(PATIENCE, process.send_signal, [signal.SIGCONT])
        rescue.start()
        try:
            async with MultiprocessBroker(str(tmp_path / "hub")) as broker, broker.subscribe("t"):
                await broker.publish("t", 0)
                os.kill(process.pid, signal.SIGSTOP)
                os.waitpid(process.pid, os.WUNTRACED)  # noqa: ASYNC222  (all of its threads stand still then)
                with pytest.raises(PublishTimeoutError):
                    await broker.publish("t", 1, timeout=0.01)
                with anyio.move_on_after(0.01) as scope:
                    await broker.publish("t", 2)
                assert scope.cancelled_caught
            assert rescue.is_alive()  # it was not that which ended the wait
        finally:
            rescue.cancel()


async def test_a_process_that_was_forked_from_a_hub_does_not_keep_it_alive(tmp_path):
    path = tmp_path / "hub"
    with a_hub(path, "fork") as process:
        with anyio.fail_after(PATIENCE):
            async with MultiprocessBroker(str(path)) as broker, broker.subscribe("t") as events:
                os.kill(process.pid, signal.SIGKILL)
                with pytest.raises(BrokerLostError):
                    await anext(events)
            async with MultiprocessBroker(str(path)) as following:
                assert following.is_hub


async def test_when_the_app_of_the_hub_leaves_its_peers_read_what_is_left_and_are_told(tmp_path):
    hub = MultiprocessBroker(str(tmp_path / "hub"))
    leave = anyio.Event()
    found: list[int] = []

    async def be_the_hub(*, task_status) -> None:
        async with hub:
            task_status.started()
            await leave.wait()

    async def read(events) -> None:
        while True:
            found.append((await anext(events)).data)

    async def read_to_the_end(events) -> None:
        with pytest.raises(BrokerLostError, match=r"is leaving|has left"):
            await read(events)

    async with anyio.create_task_group() as tasks:
        await tasks.start(be_the_hub)
        async with at(hub.address) as other, other.subscribe("t") as events, other.consume("t") as work:
            await other.publish_many("t", range(5))
            async with anyio.create_task_group() as readers:
                readers.start_soon(read_to_the_end, events)
                readers.start_soon(read_to_the_end, work)
                leave.set()
            assert sorted(found) == sorted([*range(5), *range(5)])
            with pytest.raises(BrokerLostError):
                await other.publish("t", 1)


@contextmanager
def a_hub(path: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Have another process be the hub at *path*, until it is killed.

    With "fork" it has forked one that lives on, with "few" it may have few file descriptors.
    """
    code = f"""
import anyio, os, resource, sys
from dpcore_plugins import MultiprocessBroker
async def main():
    async with MultiprocessBroker({str(path)!r}, serve=True):
        if "fork" in sys.argv and not os.fork():
            sys.stdin.buffer.read()
            os._exit(0)
        if "few" in sys.argv:
            resource.setrlimit(resource.RLIMIT_NOFILE, (40, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        print("here", flush=True)
        await anyio.sleep_forever()
anyio.run(main)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if "few" in arguments else None,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        try:
            yield process
        finally:
            process.kill()


def _talk_to_itself(address: str, say: Callable[[int], None]) -> None:
    async def work() -> None:
        async with at(address) as broker, broker.subscribe("t") as events:
            for number in range(10):
                await broker.publish("t", number)
                say((await anext(events)).data)

    anyio.run(work)


def _hold_the_hundredth(address: str, say: Callable[[int], None]) -> None:
    async def work() -> None:
        async with at(address) as broker, broker.consume("t") as events:
            async for event in events:
                if event.data == 100:
                    await broker.topics()  # the hub knows by then what was begun
                say(event.data)
                if event.data == 100:
                    await anyio.sleep_forever()

    anyio.run(work)


def _die_of_the_poison(address: str, say: Callable[[int], None]) -> None:
    async def work() -> None:
        async with at(address) as broker, broker.consume("t") as events:
            async for event in events:
                if event.data == 150:
                    os.kill(os.getpid(), signal.SIGKILL)
                say(event.data)

    anyio.run(work)
