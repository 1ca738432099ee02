"""The servers that tests start for themselves, and the rule for where one is not installed."""

from __future__ import annotations

import socket
from typing import Any

import pytest


@pytest.mark.parametrize("program", ["nats-server", "redis-server"])
def test_a_server_listens_on_the_loopback_until_the_block_is_left(program: str, service: Any) -> None:
    with service(program) as port, service(program) as another:
        assert port != another
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=10)


def test_a_server_that_ends_before_it_listens_fails_the_test_with_what_it_printed(service: Any) -> None:
    with (
        pytest.raises(pytest.fail.Exception, match=r"(?s)redis-server.* ended before it was ready:\n.*no-such-setting"),
        service("redis-server", "--no-such-setting", "1"),
    ):
        raise AssertionError("it has started")


@pytest.mark.parametrize(("required", "outcome"), [(None, pytest.skip.Exception), ("1", pytest.fail.Exception)])
def test_a_server_that_is_not_installed_skips_the_test_unless_services_are_required(
    required: str | None, outcome: type[BaseException], service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DPCORE_REQUIRE_SERVICES", raising=False)
    if required is not None:
        monkeypatch.setenv("DPCORE_REQUIRE_SERVICES", required)
    with pytest.raises(outcome, match=r"^no-such-server is not installed: apt-get install no-such-server$"):
        service("no-such-server").__enter__()
