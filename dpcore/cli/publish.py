"""``dpcore publish``: publish an event."""

from __future__ import annotations

import click

from dpcore.cli.options import adapter_options, plugin_option

__all__ = ("publish",)


@click.command()
@click.argument("topic")
@click.argument("data", default="null")
@click.option("--text", is_flag=True, help="Take DATA as text, not as JSON.")
@click.option("--key", metavar="KEY", help="Keep it in order with others of the same KEY.")
@click.option("--header", "headers", metavar="NAME=VALUE", multiple=True, help="Add a header; may be repeated.")
@click.option("--type", "kind", metavar="TYPE", default="", help="Say what kind of payload it is.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="How long to wait for room.")
@click.option("--json", "as_json", is_flag=True, help="Print the event as JSON, not only its id.")
@adapter_options("broker")
@plugin_option()
def publish(
    topic: str,
    data: str,
    text: bool,
    key: str | None,
    headers: tuple[str, ...],
    kind: str,
    timeout: float | None,
    as_json: bool,
    broker: str | None,
    plugin: tuple[str, ...],
) -> None:
    """Publish an event on TOPIC; DATA is JSON, or - for a JSON document per line of stdin.

    It prints the id of each event. The broker must be one that other processes reach.

    \b
    Examples:
      dpcore publish orders.eu.paid '{"id": 7}' --broker multiprocess:/run/shop/hub.sock
      dpcore publish mail.out 'good morning' --text --key anna
    """
    from dpcore.cli.carried import publish_and_tell  # what --help need not wait for

    publish_and_tell(
        topic, data, broker, plugin, is_text=text, key=key, headers=headers, kind=kind, timeout=timeout, as_json=as_json
    )
