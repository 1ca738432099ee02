"""What ``dpcore publish`` and ``dpcore tail`` do: publish events, and show them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import anyio
import msgspec

from dpcore.app import App
from dpcore.cli.output import reader_is_gone, tell
from dpcore.cli.project import Project
from dpcore.cli.refusal import Refusal
from dpcore.events import Event
from dpcore.ports import Broker
from dpcore.tasks import Registry
from dpcore.words import nearest, printed

__all__ = ("publish_and_tell", "tail_and_tell")

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
        for payload in payloads:
            event = await app.publish(topic, payload, key=key, headers=pairs, type=kind, timeout=timeout)
            tell(_document(event) if as_json else event.id)

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
    """Print events as they come."""

    async def main(app: App) -> None:
        reading = app.subscribe(
            *patterns,
            group=group,
            start="earliest" if from_start else None,
            ack="auto" if group is None else "manual",
            overflow="block" if group is None and "blocks" in (await app.broker()).capabilities else None,
        )
        shown = 0
        async with anyio.create_task_group() as watching, reading as events:
            watching.start_soon(_end_with_reader, watching.cancel_scope)
            async for delivery in events.deliveries():
                tell(_document(delivery.event) if as_json else _line(delivery.event))
                await delivery.ack()
                shown += 1
                if shown == count or reader_is_gone():
                    break
            watching.cancel_scope.cancel()

    _with_app(broker, plugin, main)


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


def _payloads(data: str, *, is_text: bool) -> Iterator[Any]:
    if data == "-":
        return (line.rstrip("\n") if is_text else _read(line, number) for number, line in enumerate(sys.stdin, 1))
    return iter([data if is_text else _read(data)])


def _read(text: str, line: int | None = None) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        where = "DATA" if line is None else f"line {line} of stdin"
        raise Refusal(
            f"{where} is no JSON: {printed(text)} ({error}); text needs quotes within the JSON, or --text"
        ) from error


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
