"""What ``dpcore publish`` and ``dpcore tail`` do: publish events, and show them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

import anyio
import msgspec

from dpcore.app import App
from dpcore.cli.output import reader_is_gone, tell
from dpcore.cli.project import Project
from dpcore.cli.refusal import Refusal, complain
from dpcore.events import Event
from dpcore.ports import Broker, Subscription
from dpcore.tasks import Registry
from dpcore.words import counted, nearest, printed

__all__ = ("publish_and_tell", "tail_and_tell")

_ROOM = 10_000  # events that wait to be shown
_LOOK = 1.0  # seconds after which it is looked whether anybody still reads what is shown


def publish_and_tell(
    topic: str,
    data: str,
    broker: str | None,
    plugin: tuple[str, ...],
    *,
    is_text: bool,
    key: str | None,
    headers: tuple[str, ...],
    kind: str,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Publish *data*, and print the id of each event, or the event."""
    payloads = _payloads(data, is_text=is_text)
    pairs = dict(map(_header, headers)) or None

    async def main(app: App) -> None:
        async for payload in payloads:
            event = await app.publish(topic, payload, key=key, headers=pairs, type=kind, timeout=timeout)
            await _shown(_document(event) if as_json else event.id)

    _with_app(broker, plugin, main)


def tail_and_tell(
    patterns: tuple[str, ...],
    broker: str | None,
    plugin: tuple[str, ...],
    *,
    group: str | None,
    from_start: bool,
    count: int | None,
    as_json: bool,
) -> None:
    """Print events as they come.

    Whoever only looks holds nobody up: without a group the oldest events make room, and it is said how many.
    """

    async def main(app: App) -> None:
        reading = app.subscribe(
            *patterns,
            group=group,
            start="earliest" if from_start else None,
            ack="auto" if group is None else "manual",
            buffer=_ROOM if group is None else None,
        )
        async with anyio.create_task_group() as watching, reading as events:
            watching.start_soon(_end_with_reader, watching.cancel_scope)
            try:
                await _show(events, count, _document if as_json else _line)
            finally:
                if group is None and events.dropped:
                    complain(f"{counted(events.dropped, 'event')} came too fast to be shown")
            watching.cancel_scope.cancel()

    _with_app(broker, plugin, main)


async def _show(events: Subscription, count: int | None, form: Callable[[Event], str]) -> None:
    shown = 0
    async for delivery in events.deliveries():
        if not await _shown(form(delivery.event)):
            return  # and it goes back, since nobody has seen it
        await delivery.ack()
        shown += 1
        if shown == count:
            return


async def _shown(text: str) -> bool:
    """Write *text* when stdout has room for it, without holding up what else is to be done; False if nobody reads it."""
    with suppress(OSError, ValueError):  # a file, which always has room, or what is closed already
        await anyio.wait_writable(1)
    return not reader_is_gone() and tell(text)


async def _end_with_reader(scope: anyio.CancelScope) -> None:
    while not reader_is_gone():  # noqa: ASYNC110  (nobody tells that a pipe is not read any more)
        await anyio.sleep(_LOOK)
    scope.cancel()


def _with_app(broker: str | None, plugin: tuple[str, ...], main: Callable[[App], Any]) -> None:
    project = Project.read(plugin)
    choice = project.choose("broker", broker)
    made = project.plugins.make("broker", choice, project.config)
    if isinstance(made, Broker):
        if not made.capabilities & {"processes", "remote"}:
            raise Refusal(
                f"the broker {made} carries events within one process only, so nobody could be reached "
                f"(chosen by {choice.source}); choose another, such as --broker multiprocess:.dpcore/hub.sock"
            )
        made.may_host = False  # what comes and goes is no place to keep events

    async def entered() -> None:
        async with App(Registry(), broker=made, plugins=project.plugins, config=project.config) as app:
            await main(app)

    anyio.run(entered)


async def _payloads(data: str, *, is_text: bool) -> AsyncIterator[Any]:
    if data != "-":
        yield data if is_text else _read(data)
        return
    number = 0
    async for line in _lines_of_stdin():
        number += 1
        yield line if is_text else _read(line, number)


async def _lines_of_stdin() -> AsyncIterator[str]:
    """Read stdin line by line, so that what else is to be done is done meanwhile."""
    try:
        stdin = sys.stdin.fileno()
    except OSError:  # a caller has put something else in its place
        for line in sys.stdin:
            yield line.rstrip("\r\n")
        return
    rest = b""
    while found := await _read_some(stdin):
        *lines, rest = (rest + found).split(b"\n")
        for one in lines:
            yield one.removesuffix(b"\r").decode(errors="surrogateescape")
    if rest:
        yield rest.decode(errors="surrogateescape")


async def _read_some(file: int) -> bytes:
    with suppress(OSError, ValueError):  # a file, which always has something to read
        await anyio.wait_readable(file)
    return os.read(file, 1 << 16)


def _read(text: str, line: int | None = None) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        where = "DATA" if line is None else f"line {line} of stdin"
        raise Refusal(
            f"{where} is no JSON: {printed(text)} ({error}); text needs quotes within the JSON, or --text"
        ) from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"JSON has no {name}")


def _header(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise Refusal(
            f"--header takes NAME=VALUE, and not {text!r}{nearest(text, ('traceparent=', 'correlation-id='))}"
        )
    return name, value


def _line(event: Event) -> str:
    when = datetime.fromtimestamp(event.time).astimezone()
    key = f"  key={event.key}" if event.key is not None else ""
    return f"{when:%H:%M:%S}.{when.microsecond // 1000:03}  {event.topic}{key}  {_json(event.data)}"


def _document(event: Event) -> str:
    about = {
        "topic": event.topic,
        "data": event.data,
        "id": event.id,
        "time": event.when,
        "source": event.source,
        "type": event.type,
        "key": event.key,
        "headers": event.headers or {},
    }
    return _json(about)


def _json(value: Any) -> str:
    try:
        return msgspec.json.encode(value, enc_hook=repr).decode()
    except (TypeError, ValueError, msgspec.MsgspecError):  # keys that JSON has no words for
        return json.dumps(msgspec.to_builtins(value, str_keys=True, enc_hook=repr), default=repr)
