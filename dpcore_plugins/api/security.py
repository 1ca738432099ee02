"""Security: who may ask.  Whoever has a token; and where there are no tokens, whoever is on this machine."""

from __future__ import annotations

import hmac
import os
import re
from collections.abc import Callable, Iterable
from hashlib import sha256
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

from fastapi import Request

from dpcore.errors import ArgumentError
from dpcore_plugins.api.problems import Problem

__all__ = ("Guard", "TokenSource", "Tokens", "is_loopback")

VARIABLE = "DPCORE_API_TOKENS"

TokenSource = Iterable[str] | Callable[[], Iterable[str]] | None

_BEARER = re.compile(rb"bearer +(\S+) *\Z", re.IGNORECASE)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:@/\s]+)(?::\d{1,5})?\Z")
_FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
_CURE = (
    f"give tokens with create_trigger_router(tokens=...), or set {VARIABLE}, and send one: Authorization: Bearer TOKEN"
)


class Tokens:
    """The tokens that open the door: some, or a function that is asked for them at each request.

    None reads them from the environment variable ``DPCORE_API_TOKENS``, separated by commas, once.
    Only what is made of them is kept, which tells nobody what they are.
    """

    def __init__(self, source: TokenSource = None) -> None:
        if source is None:
            source = [token for one in os.environ.get(VARIABLE, "").split(",") if (token := one.strip())]
        self._ask = source if callable(source) else None
        self._prints = [] if callable(source) else _prints(source)

    @classmethod
    def of(cls, source: Tokens | TokenSource) -> Tokens:
        """Return *source* if it is that already."""
        return source if isinstance(source, Tokens) else cls(source)

    def __repr__(self) -> str:
        return "<Tokens>"

    def __bool__(self) -> bool:
        """Whether a token is asked for; with a function it is, also when that gives none."""
        return self._ask is not None or bool(self._prints)

    def opens(self, header: str | None) -> bool:
        """Tell whether the value of an ``Authorization`` header has one of the tokens, in a time that tells no more."""
        found = _BEARER.match(header.encode("latin-1")) if header is not None else None
        given = sha256(found[1] if found else b"").digest()
        prints = self._prints if self._ask is None else _prints(self._ask())
        same = [hmac.compare_digest(given, one) for one in prints]
        return any(same) and found is not None


def _prints(tokens: object) -> list[bytes]:
    """Return what tokens are compared by; an error over one of them does not show it."""
    wanted = "a list of texts without blanks, or a function that returns one"
    if isinstance(tokens, str) or not isinstance(tokens, Iterable):
        raise ArgumentError("tokens", type(tokens), wanted)
    every = list(tokens)
    for token in every:
        if not isinstance(token, str) or not re.fullmatch(r"\S+", token):
            raise ArgumentError("tokens", [type(one) for one in every], wanted)
    return [sha256(token.encode()).digest() for token in every]


class Guard:
    """Lets a request in, or raises the :class:`~dpcore_plugins.api.problems.Problem` that it is told."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def __repr__(self) -> str:
        return f"Guard({self._tokens!r})"

    async def check(self, request: Request) -> None:
        """Let a request in that has a token, or, where there are none, that comes from this machine."""
        if self._tokens:
            self._check_token(request)
        else:
            _check_local(request)

    def _check_token(self, request: Request) -> None:
        header = request.headers.get("authorization")
        if not self._tokens.opens(header):
            said = (
                "there is no token in the request" if header is None else "the request has no token that is known here"
            )
            raise Problem(401, f"{said}; send one: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})


def _check_local(request: Request) -> None:
    """Let only this machine in, and no web page that a browser on this machine has open (DNS rebinding, CSRF)."""
    if not _is_from_here(request):
        raise Problem(403, f"without tokens only this machine may ask, at a loopback address; {_CURE}")
    if any(name in request.headers for name in _FORWARDED):
        raise Problem(403, f"without tokens nobody may ask through a proxy; {_CURE}")
    hosts = [] if _is_socket(request) else request.headers.getlist("host") or [""]
    hosts += [urlsplit(origin).netloc for origin in request.headers.getlist("origin")]
    if not all(map(_names_loopback, hosts)):
        raise Problem(403, f"without tokens the request must name a loopback host, such as localhost; {_CURE}")
    if request.method == "POST" and not is_json(request):
        said = "without tokens the content type must be application/json, also where there is no body"
        raise Problem(415, f"{said}, so that no web page can ask; {_CURE}")


def is_json(request: Request) -> bool:
    """Tell whether a request says that its body is JSON."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return media == "application/json" or (media.startswith("application/") and media.endswith("+json"))


def _is_socket(request: Request) -> bool:
    """Tell whether a request came through a Unix socket, to which no browser has a way."""
    server = request.scope.get("server")
    return server is not None and server[1] is None and request.scope.get("client") is None


def _is_from_here(request: Request) -> bool:
    server, client = request.scope.get("server"), request.scope.get("client")
    if _is_socket(request):
        return True
    return server is not None and client is not None and is_loopback(server[0]) and is_loopback(client[0])


def is_loopback(address: str) -> bool:
    """Tell whether an IP address is one at which a machine reaches itself.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("::ffff:127.0.0.1"), is_loopback("192.168.0.1")
    (True, True, True, False)
    """
    try:
        found = ip_address(address)
    except ValueError:
        return False
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped.is_loopback
    return found.is_loopback


def _names_loopback(host: str) -> bool:
    found = _HOST.match(host)
    if found is None:
        return False
    name = found[1].strip("[]").lower()
    return name == "localhost" or is_loopback(name)
