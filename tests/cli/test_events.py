"""``dpcore publish`` and ``dpcore tail``."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from dpcore_plugins import MultiprocessBroker

SOCKET = "multiprocess:hub.sock"

HUB = """
import anyio
from dpcore import App, Registry

async def main():
    async with App(Registry(), broker="multiprocess:hub.sock") as app:
        await app.declare("ready")
        print("ready", flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


@pytest.fixture
def hub_process(folder):
    """Start a program that has a hub; give its address, and the process."""
    with subprocess.Popen([sys.executable, "-c", HUB], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        yield SOCKET, process
        process.kill()


@pytest.fixture
def hub(hub_process):
    return hub_process[0]


def test_the_memory_broker_reaches_nobody_and_that_is_said(command):
    for arguments in (("publish", "a"), ("tail", "a")):
        said = command(*arguments, code=2).stderr
        assert "carries events within one process only, so nobody could be reached" in said
        assert "choose another, such as --broker multiprocess:.dpcore/hub.sock" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("publish", "a..b", "1"), "the topic 'a..b' is not valid: segment 2 is empty"),
        (("publish", "a.*", "1"), "is a pattern"),
        (("publish", "a", "{oops"), "DATA is no JSON: '{oops'"),
        (("publish", "a", "NaN"), "DATA is no JSON: 'NaN' (JSON has no NaN)"),
        (("publish", "a", "1", "--header", "x"), "--header takes NAME=VALUE, and not 'x'"),
        (("tail", "a..b"), "the pattern 'a..b' is not valid: segment 2 is empty"),
        (("tail", "a", "--group", "my group"), "group='my group' must be"),
    ],
)
def test_what_makes_no_sense_is_told(command, hub, arguments, words):
    assert words in command(*arguments, "--broker", hub, code=2).stderr


def test_where_nobody_listens_there_is_nothing_to_publish_to(command):
    said = command("publish", "a", "1", "--broker", SOCKET, code=2).stderr
    assert "hub.sock" in said


def test_what_is_published_is_followed(command, start, hub):
    tail = start("tail", "orders.**", "--broker", hub, "--json", "-n", "3", "--from-start")
    command(
        "publish", "orders.eu.paid", '{"id": 7}', "--broker", hub, "--key", "eu", "--type", "Paid", "--header", "a=b"
    )
    command("publish", "mail", "no order", "--text", "--broker", hub)
    first = command("publish", "orders", "--broker", hub).stdout.strip()
    command("publish", "orders.us", "-", "--broker", hub, input="[1, 2]\n3\n")
    shown, _ = tail.communicate(timeout=30)
    assert tail.returncode == 0
    events = [json.loads(line) for line in shown.splitlines()]
    assert [(event["topic"], event["data"]) for event in events] == [
        ("orders.eu.paid", {"id": 7}),
        ("orders", None),
        ("orders.us", [1, 2]),
    ]
    assert (events[0]["key"], events[0]["type"], events[0]["headers"]) == ("eu", "Paid", {"a": "b"})
    assert events[1]["id"] == first
    assert events[0]["time"].endswith("Z")


def test_events_are_shown_one_to_a_line_with_time_topic_and_payload(command, hub):
    command("publish", "orders.eu", '{"id": 7}', "--broker", hub, "--key", "k")
    line = command("tail", "orders.*", "--broker", hub, "--from-start", "-n", "1").stdout
    time, topic, key, data = line.split()
    assert (topic, key, data) == ("orders.eu", "key=k", '{"id":7}')
    assert len(time) == len("12:00:00.000")


def test_a_group_shares_what_is_shown(command, hub):
    command("publish", "jobs", "-", "--broker", hub, input="1\n2\n3\n")
    shown = [command("tail", "jobs", "--group", "g", "--broker", hub, "-n", "1", "--json").stdout for _ in range(3)]
    assert [json.loads(line)["data"] for line in shown] == [1, 2, 3]


def followed(command, start, address):
    """Start a tail, and wait until it has shown something."""
    command("publish", "first", "--broker", address)
    tail = start("tail", "*", "--broker", address, "--from-start")
    assert "first" in tail.stdout.readline()
    return tail


def test_ctrl_c_ends_a_tail(command, start, hub):
    tail = followed(command, start, hub)
    tail.send_signal(signal.SIGINT)
    _, said = tail.communicate(timeout=30)
    assert (tail.returncode, said) == (130, "dpcore: cancelled\n")


def test_a_tail_ends_when_its_hub_does(command, start, hub_process):
    address, process = hub_process
    tail = followed(command, start, address)
    process.kill()
    _, said = tail.communicate(timeout=30)
    assert tail.returncode == 2
    assert "is gone" in said


def test_a_tail_ends_when_nobody_reads_what_it_shows(command, start, hub):
    tail = followed(command, start, hub)
    tail.stdout.close()
    tail.stdout = None
    _, said = tail.communicate(timeout=30)
    assert (tail.returncode, said) == (0, "")


def test_whoever_reads_no_further_leaves_the_rest_of_a_group_to_others(command, start, hub):
    lines = "".join(f"{json.dumps(str(number).zfill(100))}\n" for number in range(3000))
    command("publish", "jobs", "-", "--broker", hub, input=lines)
    tail = start("tail", "jobs", "--group", "g", "--broker", hub)
    assert "0" * 100 in tail.stdout.readline()
    tail.stdout.close()
    tail.stdout = None
    assert tail.wait(30) == 0
    command("tail", "jobs", "--group", "g", "--broker", hub, "-n", "2000")  # a pipe holds less than a thousand lines


def test_ctrl_c_ends_a_publish_that_waits_for_its_input(start, hub):
    waiting = start("publish", "t", "-", "--broker", hub, stdin=subprocess.PIPE)
    waiting.stdin.write("1\n")
    waiting.stdin.flush()
    assert waiting.stdout.readline()
    waiting.send_signal(signal.SIGINT)
    assert waiting.wait(30) == 130
    assert waiting.stderr.read() == "dpcore: cancelled\n"


def test_what_cannot_be_written_is_one_line(command, start, hub):
    command("publish", "t", "1", "--broker", hub)
    with Path("/dev/full").open("w") as full:
        tail = start("tail", "t", "--from-start", "--broker", hub, stdout=full)
        _, said = tail.communicate(timeout=30)
    assert (tail.returncode, said) == (2, "dpcore: the output cannot be written: No space left on device\n")


def test_a_tail_that_is_stopped_stops_nobody_and_says_what_it_has_missed(command, start, hub):
    async def publish() -> None:
        async with MultiprocessBroker("hub.sock", serve=False) as broker:
            for _ in range(20):
                await broker.publish_many("many", range(1000))

    tail = followed(command, start, hub)
    tail.send_signal(signal.SIGSTOP)
    anyio.run(publish)
    tail.send_signal(signal.SIGCONT)
    command("publish", "last", "--broker", hub)
    while "last" not in tail.stdout.readline():
        pass
    tail.send_signal(signal.SIGINT)
    _, said = tail.communicate(timeout=30)
    assert re.fullmatch(r"dpcore: [\d,]+ events came too fast to be shown\ndpcore: cancelled\n", said)
