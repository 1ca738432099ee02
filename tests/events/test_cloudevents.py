"""Events and CloudEvents are made of each other without loss, and the official library reads what dpcore writes."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import msgspec
import numpy as np
import pytest
from cloudevents.core.bindings import http as official
from cloudevents.core.v1.event import CloudEvent
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dpcore.errors import ArgumentError, CloudEventError, PayloadError
from dpcore.events import (
    CAUSATION_ID,
    CORRELATION_ID,
    TRACEPARENT,
    TRACESTATE,
    Event,
    fit,
    from_cloudevent,
    to_cloudevent,
)

NOON = datetime(2026, 11, 22, 12, 0, 0, 5, tzinfo=UTC)
FULL = Event(
    "orders.eu.paid", {"id": 7, "tags": ["a", None]}, "1-1", NOON.timestamp(), "/shop/7", "shop.paid", "eu é",
    {TRACEPARENT: "00-ab-cd-01", TRACESTATE: 'a="1 %"', CORRELATION_ID: "c", CAUSATION_ID: "0", "tenant": "x", "X-Odd": "ü"},
)  # fmt: skip
MODES = ["structured", "binary"]
both_modes = pytest.mark.parametrize("mode", MODES)

# What attributes may hold: text without controls, surrogates and noncharacters.
TEXT = st.text(
    st.characters(blacklist_categories=("Cc", "Cs", "Cn"), blacklist_characters="\ufffe\uffff"), min_size=1, max_size=20
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
SOURCES = st.text("abcXYZ019-._~:/?#[]@!$&'()*+,;=", min_size=1, max_size=20)
TIMES = st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(2200, 1, 1), timezones=st.just(UTC))
NAMES_OF_HEADERS = st.sampled_from(
    [TRACEPARENT, CORRELATION_ID, "correlationid", "topic", "id", "data", "subject", "a0"]
)
HEADERS = st.dictionaries(
    (NAMES_OF_HEADERS | st.text()).filter(
        lambda name: name != "datacontenttype"
    ),  # has a meaning, and tests of its own
    TEXT | st.text(),
    min_size=1,
)
EVENTS = st.builds(
    Event, TEXT, JSON | st.binary(), TEXT, TIMES.map(datetime.timestamp), SOURCES, st.just("") | TEXT.filter(lambda kind: kind != "dpcore.event"), st.none() | TEXT, st.none() | HEADERS
)  # fmt: skip


@both_modes
@settings(deadline=None, max_examples=200)
@given(event=EVENTS)
@example(event=FULL)
@example(event=Event("a", b"", "1", 0.0, "s"))
def test_an_event_is_the_same_when_it_has_been_a_cloudevent(mode, event):
    assert from_cloudevent(*to_cloudevent(event, mode)) == event


@both_modes
def test_headers_are_found_in_any_case(mode):
    headers, body = to_cloudevent(FULL, mode)
    assert from_cloudevent({name.title(): value for name, value in headers.items()}, body) == FULL
    assert from_cloudevent({name.upper(): value for name, value in headers.items()}, body.decode()) == FULL


def test_other_headers_of_the_message_are_not_the_events():
    headers, body = to_cloudevent(FULL, "binary")
    assert from_cloudevent({**headers, "Host": "x", "Content-Length": str(len(body))}, body) == FULL


def test_the_structured_mode_is_one_json_document():
    headers, body = to_cloudevent(FULL)
    assert headers == {"content-type": "application/cloudevents+json"}
    assert json.loads(body) == {
        "specversion": "1.0", "id": "1-1", "source": "/shop/7", "type": "shop.paid", "time": "2026-11-22T12:00:00.000005Z",
        "topic": "orders.eu.paid", "partitionkey": "eu é", "traceparent": "00-ab-cd-01", "tracestate": 'a="1 %"',
        "correlationid": "c", "causationid": "0", "tenant": "x", "dpcoreheaders": '{"X-Odd":"\\u00fc"}',
        "datacontenttype": "application/json", "data": {"id": 7, "tags": ["a", None]},
    }  # fmt: skip


def test_the_binary_mode_is_headers_in_ascii_and_the_payload_itself():
    headers, body = to_cloudevent(FULL, "binary")
    assert json.loads(body) == FULL.data
    assert headers["content-type"] == "application/json"
    assert headers["ce-id"] == "1-1"
    assert headers["ce-partitionkey"] == "eu%20%C3%A9"
    assert headers["ce-tracestate"] == "a=%221%20%25%22"
    assert "ce-datacontenttype" not in headers
    assert all(value.isascii() and value.isprintable() and " " not in value for value in headers.values())


def test_what_is_not_given_is_not_said():
    headers, body = to_cloudevent(Event("a.b", None, "1", 0.0, "s"), "binary")
    assert headers == {
        "ce-specversion": "1.0",
        "ce-id": "1",
        "ce-source": "s",
        "ce-type": "dpcore.event",
        "ce-topic": "a.b",
    }
    assert body == b""


@both_modes
def test_bytes_are_the_payload_as_they_are(mode):
    event = Event("a", b"\x00\xff", "1", NOON.timestamp(), "s")
    headers, body = to_cloudevent(event, mode)
    if mode == "binary":
        assert (headers["content-type"], body) == ("application/octet-stream", b"\x00\xff")
    else:
        document = json.loads(body)
        assert (document["datacontenttype"], document["data_base64"]) == ("application/octet-stream", "AP8=")
        assert "data" not in document
    assert from_cloudevent(headers, body) == event
    assert from_cloudevent(*to_cloudevent(Event("a", memoryview(b"x"), "1", source="s"), mode)).data == b"x"


@both_modes
@pytest.mark.parametrize(
    ("content_type", "data", "body"),
    [
        ("text/plain", "é", "é".encode()),
        ("text/plain; charset=latin-1", "é", b"\xe9"),
        ('text/html;charset="utf-8"', "", b""),
        ("application/xml", b"<a/>", b"<a/>"),
        ("application/problem+json", {"a": 1}, b'{"a":1}'),
        ("Application/JSON; charset=utf-8", [1], b"[1]"),
    ],
)
def test_a_content_type_of_its_own_is_kept(mode, content_type, data, body):
    event = Event("a", data, "1", NOON.timestamp(), "s", headers={"datacontenttype": content_type})
    headers, written = to_cloudevent(event, mode)
    if mode == "binary":
        assert (headers["content-type"], written) == (content_type, body)
    assert from_cloudevent(headers, written) == event


@dataclass
class Paid:
    order: UUID
    amount: Decimal
    at: datetime
    receipt: bytes
    counts: dict[int, int]


@both_modes
def test_a_typed_reader_gets_the_type_back(mode):
    paid = Paid(UUID(int=7), Decimal("1.20"), NOON, b"\xff", {1: 2})
    assert fit(from_cloudevent(*to_cloudevent(Event("a", paid, "1", source="s"), mode)).data, Paid) == paid


# ---------------------------------------------------------------- against the official library


def read_officially(headers, body):
    return official.from_http_event(official.HTTPMessage(headers=headers, body=body))


@both_modes
@settings(deadline=None, max_examples=150)
@given(event=EVENTS.filter(lambda event: event.data != b""))  # which is None there, in a body
@example(event=FULL)
def test_the_official_library_reads_what_dpcore_writes(mode, event):
    read = read_officially(*to_cloudevent(event, mode))
    assert (read.get_id(), read.get_source(), read.get_type()) == (event.id, event.source, event.type or "dpcore.event")
    assert read.get_specversion() == "1.0"
    assert read.get_extension("topic") == event.topic
    assert read.get_extension("partitionkey") == event.key
    if event.time:
        assert read.get_time() == event.when
    data = event.data
    if mode == "binary" and isinstance(data, bytes):
        try:  # it makes text of whatever is text, whatever the content type says
            data = data.decode()
        except UnicodeDecodeError:
            data = event.data
    assert read.get_data() == data


NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=20).filter(
    lambda name: name not in ("data", "datacontenttype", "dataschema", "dpcoreheaders", "topic", "time", "subject", "partitionkey",
                              "id", "source", "type", "specversion", "correlationid", "causationid")
)  # fmt: skip


@both_modes
@settings(deadline=None, max_examples=150)
@given(
    attributes=st.fixed_dictionaries(
        {"id": TEXT, "source": SOURCES, "type": TEXT.filter(lambda kind: kind != "dpcore.event"), "time": TIMES},
        optional={"subject": TEXT, "dataschema": SOURCES, "topic": TEXT, "partitionkey": TEXT, "correlationid": TEXT},
    ),
    extensions=st.dictionaries(NAMES, TEXT, max_size=3),
    data=st.dictionaries(st.text(), JSON),
)
def test_dpcore_reads_what_the_official_library_writes(mode, attributes, extensions, data):
    cloudevent = CloudEvent({**attributes, **extensions, "datacontenttype": "application/json"}, data)
    write = official.to_structured_event if mode == "structured" else official.to_binary_event
    message = write(cloudevent)
    event = from_cloudevent(message.headers, message.body)
    assert (event.id, event.source, event.type) == (attributes["id"], attributes["source"], attributes["type"])
    assert event.when == attributes["time"]
    assert event.topic == attributes.get("topic", attributes.get("subject", attributes["type"]))
    assert event.key == attributes.get("partitionkey")
    assert event.data == data
    kept = {name: attributes[name] for name in ("subject", "dataschema") if name in attributes} | extensions
    if "correlationid" in attributes:
        kept[CORRELATION_ID] = attributes["correlationid"]
    assert (event.headers or {}) == kept
    assert from_cloudevent(*to_cloudevent(event, mode)) == event


@both_modes
def test_dpcore_reads_the_bytes_that_the_official_library_writes(mode):
    cloudevent = CloudEvent(
        {"id": "1", "source": "s", "type": "t", "datacontenttype": "image/png", "sequence": "5"}, b"\x89P"
    )
    write = official.to_structured_event if mode == "structured" else official.to_binary_event
    message = write(cloudevent)
    event = from_cloudevent(message.headers, message.body)
    assert (event.topic, event.data) == ("t", b"\x89P")
    assert event.headers == {"sequence": "5", "datacontenttype": "image/png"}


# ---------------------------------------------------------------- what others write

REQUIRED = {"specversion": "1.0", "id": "1", "source": "/s", "type": "io.paid"}
STRUCTURED = {"Content-Type": "application/cloudevents+json; charset=utf-8"}


def structured(**document):
    return from_cloudevent(STRUCTURED, json.dumps({**REQUIRED, **document}))


def binary(body=b"", /, **headers):
    required = {f"ce-{name}": value for name, value in REQUIRED.items()}
    return from_cloudevent({**required, **{name.replace("_", "-"): value for name, value in headers.items()}}, body)


def test_the_topic_of_a_foreign_event_is_its_subject_or_its_type():
    assert structured().topic == "io.paid"
    assert structured(subject="orders").topic == "orders"
    assert structured(subject="orders", topic="mine").topic == "mine"
    assert structured(subject="orders").headers == {"subject": "orders"}


def test_extensions_of_other_types_are_text():
    assert structured(flag=True, number=-7, unset=None).headers == {"flag": "true", "number": "-7"}


def test_an_event_may_have_no_time_and_no_payload():
    assert structured() == binary() == Event("io.paid", None, "1", 0.0, "/s", "io.paid")
    assert structured(data=None).data is None
    assert binary(b"", content_type="application/json").data is None
    assert binary(b"null", content_type="application/json").data is None


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-11-22T12:00:00.000005Z", NOON),
        ("2026-11-22t13:30:00.000005+01:30", NOON),
        ("2026-11-22T12:00:00.0000054999z", NOON),
    ],
)
def test_times_are_read_as_rfc_3339_has_them(text, time):
    assert structured(time=text).when == binary(ce_time=text).when == time
    assert structured(time=text).time == time.timestamp()


def test_values_of_headers_may_be_quoted():
    assert binary(ce_tenant='"a \\"b\\" %C3%A9"').headers == {"tenant": 'a "b" é'}
    assert binary(ce_tenant='"').headers == {"tenant": '"'}


def test_a_body_of_no_known_type_is_bytes():
    assert binary(b"x").data == b"x"
    assert binary(b"x", content_type="application/pdf").headers == {"datacontenttype": "application/pdf"}


def test_one_event_is_the_same_in_both_modes_whatever_wrote_it():
    encoded = base64.b64encode(b'{"a":1}').decode()
    assert structured(data_base64=encoded, datacontenttype="application/json") == binary(
        b'{"a":1}', content_type="application/json"
    )
    assert structured(data="é", datacontenttype="text/plain") == binary("é".encode(), content_type="text/plain")


def test_a_number_of_any_size_is_read():
    assert structured(data=10**30).data == 10**30


BAD_DOCUMENTS = [
    (b"{", "its body is no JSON: "),
    (b"\xff", "its body is no JSON: "),
    (b"[" * 100_000, "its body is no JSON: "),
    (b"[]", "its body is [], and not a JSON object"),
    (b"{}", "it has no 'specversion', and dpcore reads '1.0'"),
    ({"specversion": "0.3"}, "its 'specversion' is '0.3', and dpcore reads '1.0'"),
    ({"id": None, "source": ""}, "it has no 'id' and no 'source'"),
    ({"id": 7}, "its 'id' is 7, and not text"),
    ({"type": ["x"]}, "its 'type' is ['x'], and not text"),
    ({"subject": True}, "its 'subject' is True, and not text"),
    ({"tenant": 1.5}, "its 'tenant' is 1.5, and not text"),
    ({"tenant": {"a": 1}}, "its 'tenant' is {'a': 1}, and not text"),
    ({"time": "noon"}, "its 'time' is 'noon': Invalid RFC3339 encoded datetime"),
    ({"time": "2026-01-01T00:00:00"}, "its 'time' is '2026-01-01T00:00:00': "),
    ({"time": "0001-01-01T00:00:00+02:00"}, "its 'time' is '0001-01-01T00:00:00+02:00': "),
    ({"time": "1969-12-31T23:59:59Z"}, "its 'time' is '1969-12-31T23:59:59Z': it is before 1970"),
    ({"data_base64": "!"}, "its 'data_base64' is no base64: "),
    ({"data_base64": 7}, "its 'data_base64' is no base64: "),
    ({"data_base64": "aGk=", "data": 1}, "it has both 'data' and 'data_base64'"),
    ({"data_base64": "aGk=", "datacontenttype": "application/json"}, "its payload is no JSON: "),
    ({"data_base64": "/w==", "datacontenttype": "text/plain"}, "its payload cannot be read as 'text/plain': "),
    (
        {"data_base64": "/w==", "datacontenttype": "text/plain;charset=x"},
        "its payload cannot be read as 'text/plain;charset=x': ",
    ),
    ({"dpcoreheaders": "{"}, "its 'dpcoreheaders' is '{', and not a JSON object of text"),
    ({"dpcoreheaders": "[1]"}, "its 'dpcoreheaders' is '[1]', and not a JSON object of text"),
    ({"dpcoreheaders": '{"a":1}'}, "its 'dpcoreheaders' is '{\"a\":1}', and not a JSON object of text"),
]


@pytest.mark.parametrize(("document", "words"), BAD_DOCUMENTS, ids=lambda one: str(one)[:40])
def test_a_bad_document_is_told_as_that(document, words):
    body = document if isinstance(document, bytes) else json.dumps({**REQUIRED, **document}).encode()
    with pytest.raises(CloudEventError) as raised:
        from_cloudevent(STRUCTURED, body)
    assert str(raised.value).startswith(f"cannot read this CloudEvent: {words}")


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        (
            {},
            "it has neither headers that begin with 'ce-' nor the content type 'application/cloudevents+json', but None",
        ),
        (
            {"content-type": "text/html"},
            "it has neither headers that begin with 'ce-' nor the content type 'application/cloudevents+json', but 'text/html'",
        ),
        (
            {"content-type": "application/cloudevents-batch+json"},
            (
                "its content type is 'application/cloudevents-batch+json', and dpcore reads 'application/cloudevents+json', "
                "one event at a time"
            ),
        ),
        ({"ce-id": "1"}, "it has no 'specversion', and dpcore reads '1.0'"),
        ({"ce-specversion": "1.0", "ce-type": "t"}, "it has no 'id' and no 'source'"),
        ({"ce-id": "%ff"}, "its header 'ce-id' is '%ff': "),
    ],
    ids=str,
)
def test_bad_headers_are_told_as_that(headers, words):
    with pytest.raises(CloudEventError) as raised:
        from_cloudevent(headers, b"")
    assert str(raised.value).startswith(f"cannot read this CloudEvent: {words}")


@settings(deadline=None, max_examples=200)
@given(
    st.dictionaries(
        st.sampled_from(["ce-id", "ce-source", "ce-type", "ce-time", "ce-x", "CE-Topic", "Content-Type"]), st.text()
    ),
    st.sampled_from(["1.0", "0.3"]),
    st.binary(),
)
def test_any_message_is_an_event_or_a_cloudevent_error(headers, version, body):
    for message in (
        headers,
        {**headers, "ce-specversion": version},
        STRUCTURED,
        {"Content-Type": "application/cloudevents"},
    ):
        try:
            event = from_cloudevent(message, body)
        except CloudEventError:
            continue
        assert isinstance(event, Event)


def test_text_that_is_no_unicode_is_no_cloudevent():
    with pytest.raises(CloudEventError, match="its body is no JSON"):
        from_cloudevent(STRUCTURED, '{"id": "\ud800"}')


@settings(deadline=None, max_examples=200)
@given(
    st.dictionaries(st.sampled_from([*REQUIRED, "time", "topic", "data", "data_base64", "x", "dpcoreheaders"]), JSON)
)
def test_any_document_is_an_event_or_a_cloudevent_error(document):
    for one in (document, {**REQUIRED, **document}):
        try:
            event = from_cloudevent(STRUCTURED, json.dumps(one))
        except CloudEventError:
            continue
        assert isinstance(event, Event)


# ---------------------------------------------------------------- what cannot be told


@both_modes
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": ""}, "its id is '' and its source '/shop/7'; it has both once it is published"),
        ({"source": ""}, "its id is '1-1' and its source ''; it has both once it is published"),
        ({"source": "my shop"}, "its source 'my shop' is no URI reference; leave out blanks and letters beyond ASCII"),
        ({"source": "50%"}, "its source '50%' is no URI reference; leave out blanks and letters beyond ASCII"),
        ({"topic": ""}, "its topic is ''; it must be text without control characters, and not empty"),
        ({"key": ""}, "its partitionkey is ''; it must be text without control characters, and not empty"),
        ({"key": "a\n"}, "its partitionkey is 'a\\n'; it must be text without control characters, and not empty"),
        (
            {"headers": {"datacontenttype": "text/plain"}},
            "its header 'datacontenttype' is 'text/plain', and its payload neither str nor bytes but {'id': 7, 'tags': ['a', None]}",
        ),
        ({"headers": {"datacontenttype": "a\n"}}, "its header 'datacontenttype' is 'a\\n'"),
    ],
    ids=str,
)
def test_what_a_cloudevent_cannot_say_is_told(change, words, mode):
    with pytest.raises(CloudEventError) as raised:
        to_cloudevent(msgspec.structs.replace(FULL, **change), mode)
    assert str(raised.value) == f"cannot write this CloudEvent: {words}"


def test_text_that_its_charset_lacks_is_told():
    event = Event("a", "é", "1", source="s", headers={"datacontenttype": "text/plain; charset=ascii"})
    with pytest.raises(CloudEventError, match="cannot write this CloudEvent: its payload cannot be written as"):
        to_cloudevent(event, "binary")


@both_modes
@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"a": [float("nan")]}, "data['a'][0] is nan, which JSON has no word for; send None, or text"),
        (
            {(1, 2): 3},
            "data cannot be written: Only dicts with str-like or number-like keys are supported; send a dict whose keys are text",
        ),
        ([np.int64(1)], "data[0] is of type numpy.int64, which does not travel; send .item() of it"),
    ],
    ids=str,
)
def test_a_payload_that_json_cannot_say_is_told(data, words, mode):
    with pytest.raises(PayloadError) as raised:
        to_cloudevent(Event("a", data, "1", source="s"), mode)
    assert str(raised.value) == f"event on 'a': {words}"


def test_there_are_two_modes():
    with pytest.raises(ArgumentError, match="mode='batch' must be 'structured' or 'binary'"):
        to_cloudevent(FULL, "batch")


def test_an_event_of_wrong_types_is_not_written():
    with pytest.raises(ArgumentError, match=r"headers=.* must be a mapping of str to str"):
        to_cloudevent(Event("a", None, "1", source="s", headers={"n": 1}))
