"""Events: what happened, how it travels between processes, and how it is told to the rest of the world.

Pure.  An :class:`Event` is a value without a clock: whoever publishes it stamps id,
time and source.  Its floors, each of which stands on those below it:

===============  =======================================================================
``cloudevents``  the form that other systems read (:func:`to_cloudevent`), and ``wire``:
                 the form in which events travel between processes (:func:`encode`)
``payloads``     what an event may carry, and reading it as a type (:class:`PayloadReader`)
``envelope``     the value itself (:class:`Event`), and its ids (:class:`Ids`)
===============  =======================================================================
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "CAUSATION_ID": "envelope",
    "CORRELATION_ID": "envelope",
    "Event": "envelope",
    "Ids": "envelope",
    "Packed": "envelope",
    "PayloadReader": "payloads",
    "TRACEPARENT": "envelope",
    "TRACESTATE": "envelope",
    "check_event": "envelope",
    "decode": "wire",
    "decode_many": "wire",
    "decode_packed": "wire",
    "decode_packed_many": "wire",
    "encode": "wire",
    "encode_many": "wire",
    "fit": "payloads",
    "from_cloudevent": "cloudevents",
    "pack": "wire",
    "strict": "wire",
    "to_cloudevent": "cloudevents",
    "unpack": "wire",
}

__all__ = tuple(_HOMES)


def __getattr__(name: str) -> Any:
    if (home := _HOMES.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
