from dpcore.events.cloudevents import from_cloudevent as from_cloudevent
from dpcore.events.cloudevents import to_cloudevent as to_cloudevent
from dpcore.events.envelope import CAUSATION_ID as CAUSATION_ID
from dpcore.events.envelope import CORRELATION_ID as CORRELATION_ID
from dpcore.events.envelope import TRACEPARENT as TRACEPARENT
from dpcore.events.envelope import TRACESTATE as TRACESTATE
from dpcore.events.envelope import Event as Event
from dpcore.events.envelope import Ids as Ids
from dpcore.events.envelope import Packed as Packed
from dpcore.events.envelope import check_event as check_event
from dpcore.events.payloads import PayloadReader as PayloadReader
from dpcore.events.payloads import fit as fit
from dpcore.events.wire import decode as decode
from dpcore.events.wire import decode_many as decode_many
from dpcore.events.wire import decode_packed as decode_packed
from dpcore.events.wire import decode_packed_many as decode_packed_many
from dpcore.events.wire import encode as encode
from dpcore.events.wire import encode_many as encode_many
from dpcore.events.wire import pack as pack
from dpcore.events.wire import strict as strict
from dpcore.events.wire import unpack as unpack

__all__ = (
    "CAUSATION_ID",
    "CORRELATION_ID",
    "TRACEPARENT",
    "TRACESTATE",
    "Event",
    "Ids",
    "Packed",
    "PayloadReader",
    "check_event",
    "decode",
    "decode_many",
    "decode_packed",
    "decode_packed_many",
    "encode",
    "encode_many",
    "fit",
    "from_cloudevent",
    "pack",
    "strict",
    "to_cloudevent",
    "unpack",
)
