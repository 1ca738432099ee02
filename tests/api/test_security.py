"""Who may ask: whoever has a token; without tokens this machine, and no web page that a browser on it has open."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from functools import partial

import anyio
import httpx
import pytest
from fastapi import FastAPI, Request

from dpcore import App, Plugins, Registry
from dpcore.errors import ArgumentError
from dpcore_plugins import ApiTrigger
from dpcore_plugins.api import create_app, create_trigger_router, serve
from dpcore_plugins.api.problems import Problem
from dpcore_plugins.api.security import Guard, Tokens

from .conftest import JSON

CURE = "give tokens with create_trigger_router(tokens=...), or set DPCORE_API_TOKENS, and send one: Authorization: Bearer TOKEN"
SECRET = "s3cret-of-the-house"


def made() -> App:
    app = App(Registry(), plugins=Plugins(installed=False))
    app.schedule("paid", ApiTrigger(), publish="paid")
    return app


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


# ---------------------------------------------------------------- with tokens


@pytest.fixture(scope="module")
def guarded(house) -> Iterator[httpx.Client]:
    with house.serving(made(), tokens=[SECRET, "the-second", "tökén"]) as client:
        yield client


PATHS = [
    ("GET", "/schedules"),
    ("GET", "/schedules/paid"),
    ("GET", "/schedules/paid/runs/x"),
    ("POST", "/schedules/paid/fire"),
    ("POST", "/schedules/paid/pause"),
    ("POST", "/schedules/paid/resume"),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
]


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_every_path_wants_a_token(guarded, method, path):
    answer = guarded.request(method, path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"] == "there is no token in the request; send one: Authorization: Bearer TOKEN"
    assert guarded.request(method, path, headers=bearer(SECRET)).status_code != 401


def test_only_whether_it_is_there_is_told_to_everybody(guarded):
    assert guarded.get("/health").json() == {"status": "ok"}


@pytest.mark.parametrize(
    "header",
    [
        "Bearer", "Bearer x", f"Bearer {SECRET}x", f"Bearer {SECRET[:-1]}", f"Bearer {SECRET.upper()}",
        f"Bearer {SECRET},the-second", f"Bearer {SECRET} the-second", f"Basic {SECRET}", SECRET, f"Token {SECRET}", "Bearer *",
    ],
)  # fmt: skip
def test_a_wrong_token_opens_nothing(guarded, header):
    answer = guarded.get("/schedules", headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.json()["detail"] == (
        "the request has no token that is known here; send one: Authorization: Bearer TOKEN"
    )
    assert SECRET not in answer.text


@pytest.mark.parametrize(
    "header", [f"Bearer {SECRET}", f"bearer {SECRET}", "BEARER  the-second", "Bearer tökén".encode()]
)
def test_each_token_opens(guarded, header):
    assert guarded.get("/schedules", headers={"Authorization": header}).status_code == 200


def test_with_a_token_a_post_without_a_body_needs_no_content_type(guarded):
    assert guarded.post("/schedules/paid/fire", headers=bearer(SECRET)).status_code == 202
    assert guarded.post("/schedules/paid/resume", headers=bearer(SECRET)).status_code == 200
    answer = guarded.post("/schedules/paid/fire", headers=bearer(SECRET), content=b"{}")
    assert answer.status_code == 415
    assert answer.json()["detail"] == "the body must be JSON; say so with: Content-Type: application/json"


def test_who_may_not_ask_is_told_so_before_anything_else(guarded):
    answers = [
        guarded.get("/schedules/nobody"),
        guarded.get("/schedules/paid?count=x"),
        guarded.post("/schedules/paid/fire", content=b"{", headers=JSON),
    ]
    assert [one.status_code for one in answers] == [401] * 3


def test_a_function_is_asked_for_tokens_at_each_request(house):
    tokens: list[str] = []
    with house.serving(made(), tokens=lambda: iter(tokens)) as client:
        assert client.get("/schedules").status_code == 401
        assert client.get("/schedules", headers={"Authorization": "Bearer"}).status_code == 401
        tokens.append("new")
        assert client.get("/schedules", headers=bearer("new")).status_code == 200
        tokens[0] = "newer"
        assert client.get("/schedules", headers=bearer("new")).status_code == 401


def test_a_function_that_fails_opens_nothing(house):
    def broken() -> list[str]:
        raise OSError(f"no {SECRET}")

    with house.serving(made(), tokens=broken) as client:
        answer = client.get("/schedules", headers=bearer("x"))
    assert answer.status_code == 500
    assert SECRET not in answer.text


def test_tokens_are_read_from_the_environment_when_the_router_is_made(house, monkeypatch):
    monkeypatch.setenv("DPCORE_API_TOKENS", " one ,two,, ")
    host = FastAPI()
    host.include_router(create_trigger_router(made()))
    monkeypatch.setenv("DPCORE_API_TOKENS", "three")
    with house.hosting(host) as client:
        codes = [client.get("/schedules", headers=bearer(one)).status_code for one in ("one", "two", "three", ",")]
    assert codes == [200, 200, 401, 401]


def test_tokens_that_are_given_outweigh_the_environment(house, monkeypatch):
    monkeypatch.setenv("DPCORE_API_TOKENS", "one")
    with house.serving(made(), tokens=["two"]) as client:
        assert [client.get("/schedules", headers=bearer(one)).status_code for one in ("one", "two")] == [401, 200]
    with house.serving(made(), tokens=[]) as client:
        assert client.get("/schedules").status_code == 200


def test_tokens_are_shown_nowhere(guarded, caplog):
    with caplog.at_level(logging.DEBUG):
        guarded.get("/schedules", headers=bearer(SECRET))
        guarded.get("/schedules", headers=bearer(f"{SECRET}x"))
    assert SECRET not in caplog.text
    tokens = Tokens([SECRET])
    assert repr(tokens) == "<Tokens>"
    assert repr(Guard(tokens)) == "Guard(<Tokens>)"
    assert SECRET not in str(vars(tokens))


@pytest.mark.parametrize("tokens", [SECRET, [SECRET, 3], [""], [f"{SECRET} x"], [None], 7, b"bytes", [SECRET.encode()]])
def test_what_cannot_be_a_token_is_refused_and_not_shown(tokens):
    with pytest.raises(
        ArgumentError, match=r"^tokens=.* must be a list of texts without blanks, or a function that returns one$"
    ) as caught:
        create_trigger_router(made(), tokens=tokens)
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value)


# ---------------------------------------------------------------- without tokens


@pytest.fixture(scope="module")
def local(house) -> Iterator[httpx.Client]:
    with house.serving(made()) as client:
        yield client


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.1.2.3:80", "[::1]", "[::1]:8000"])
def test_without_tokens_this_machine_may_ask(local, host):
    assert local.get("/schedules", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "192.168.0.1", "0.0.0.0",
        "localhost:8000@evil.example", "evil.example/localhost", "[::1]evil", "localhost:x", "127.0.0.1 localhost", "[::2]", "",
    ],
)  # fmt: skip
def test_without_tokens_a_name_that_may_lead_elsewhere_is_refused(local, host):
    answer = local.get("/schedules", headers={"Host": host})
    assert answer.status_code == 403
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"] == (
        f"without tokens the request must name a loopback host, such as localhost; {CURE}"
    )


def test_without_tokens_a_request_with_no_host_is_refused(local):
    with socket.create_connection((local.base_url.host, local.base_url.port), 10) as connection:
        connection.sendall(b"GET /schedules HTTP/1.0\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize(
    ("origin", "code"), [("http://evil.example", 403), ("null", 403), ("http://localhost:3000", 200)]
)
def test_without_tokens_a_web_page_from_elsewhere_is_refused(local, origin, code):
    assert local.get("/schedules", headers={"Origin": origin}).status_code == code


@pytest.mark.parametrize("header", ["Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP"])
def test_without_tokens_a_proxy_lets_nobody_in(local, header):
    answer = local.get("/schedules", headers={header: "127.0.0.1"})
    assert answer.status_code == 403
    assert answer.json()["detail"] == f"without tokens nobody may ask through a proxy; {CURE}"


@pytest.mark.parametrize("path", ["fire", "pause", "resume"])
@pytest.mark.parametrize(
    "media", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
def test_without_tokens_a_post_says_that_it_is_json_as_no_form_can(local, path, media):
    answer = local.post(f"/schedules/paid/{path}", headers={} if media is None else {"Content-Type": media})
    assert answer.status_code == 415
    assert answer.json()["detail"] == (
        "without tokens the content type must be application/json, also where there is no body, "
        f"so that no web page can ask; {CURE}"
    )


def test_without_tokens_a_token_is_of_no_use_and_does_no_harm(local):
    assert local.get("/schedules", headers=bearer("x")).status_code == 200


def asked(server: object, client: object) -> str:
    """Return why a request is refused that comes from *client* to *server*."""
    scope = {
        "type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [(b"host", b"localhost")],
        "server": server, "client": client,
    }  # fmt: skip
    try:
        anyio.run(Guard(Tokens([])).check, Request(scope))
    except Problem as problem:
        return f"{problem.status}: {problem.detail}"
    return ""


@pytest.mark.parametrize(
    ("server", "client", "status"),
    [
        (("127.0.0.1", 80), ("127.0.0.1", 5), 200),
        (("::1", 80), ("::1", 5), 200),
        (("::ffff:127.0.0.1", 80), ("::ffff:127.0.0.1", 5), 200),
        (("192.168.0.1", 80), ("127.0.0.1", 5), 403),
        (("127.0.0.1", 80), ("192.168.0.7", 5), 403),
        (("::ffff:192.168.0.1", 80), ("::1", 5), 403),
        (("127.0.0.1", 80), ("testclient", 5), 403),
        (("127.0.0.1", 80), None, 403),
        (None, ("127.0.0.1", 5), 403),
        (None, None, 403),
    ],
)
def test_without_tokens_both_ends_are_on_this_machine(server, client, status):
    refused = f"403: without tokens only this machine may ask, at a loopback address; {CURE}"
    assert asked(server, client) == (refused if status == 403 else "")


def test_a_unix_socket_is_of_this_machine_whatever_host_is_named(house, tmp_path):
    path = str(tmp_path / "api.sock")
    through = httpx.HTTPTransport(uds=path)
    with house.hosting(create_app(made()), uds=path), httpx.Client(transport=through, base_url="http://any") as client:
        assert client.get("/schedules").status_code == 200
        assert client.get("/schedules", headers={"Via": "x"}).status_code == 403


# ---------------------------------------------------------------- where it may listen


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_without_tokens_it_does_not_listen_where_others_reach_it(host):
    wanted = (
        "a loopback address, such as 127.0.0.1, as long as there are no tokens; give tokens=, or set DPCORE_API_TOKENS"
    )
    with pytest.raises(ArgumentError, match=f"^host='{host}' must be {wanted}$"):
        anyio.run(partial(serve, made(), host=host, port=0))


def test_with_tokens_it_listens_where_it_is_told(house):
    with house.serving(made(), host="0.0.0.0", tokens=[SECRET]) as client:
        url = f"http://127.0.0.1:{client.base_url.port}/schedules"
        assert httpx.get(url, headers=bearer(SECRET)).status_code == 200
        assert httpx.get(url).status_code == 401


def test_localhost_is_this_machine(house):
    with house.serving(made(), host="localhost") as client:
        assert client.get("/schedules").status_code == 200
