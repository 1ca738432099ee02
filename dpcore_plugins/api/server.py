"""The server: a FastAPI app of schedules and nothing else, served by uvicorn in the caller's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
from collections.abc import Iterator
from typing import Any

import anyio
import uvicorn
from anyio.abc import TaskStatus
from fastapi import APIRouter, FastAPI, Request, Response, Security
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException

from dpcore import App
from dpcore.errors import AppStateError, ArgumentError
from dpcore_plugins.api.problems import Problem, ProblemRoute, problem_of
from dpcore_plugins.api.router import MOST_BODY, MOST_WAIT, create_trigger_router, entered
from dpcore_plugins.api.security import Guard, Tokens, TokenSource, is_loopback

__all__ = ("create_app", "serve")

_log = logging.getLogger("dpcore.api")


def create_app(
    app: App,
    *,
    tokens: Tokens | TokenSource = None,
    title: str = "dpcore",
    most_body: int = MOST_BODY,
    most_wait: float = MOST_WAIT,
    error_texts: bool = False,
) -> FastAPI:
    """Return a FastAPI app of the schedules of *app*, with the OpenAPI document, its pages, and ``/health``.

    The arguments are those of :func:`create_trigger_router`.  Whoever may ask for schedules may see
    the document; ``/health`` answers everybody, with 503 while *app* is not entered.
    """
    checked = Tokens.of(tokens)
    made = FastAPI(title=title, openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    made.add_exception_handler(HTTPException, _told)
    limits: dict[str, Any] = {"most_body": most_body, "most_wait": most_wait, "error_texts": error_texts}
    made.include_router(create_trigger_router(app, tokens=checked, **limits))
    made.include_router(_documents(made, checked))
    made.include_router(_health(app))
    return made


async def _told(request: Request, error: Exception) -> Response:
    return problem_of(error, request).response(request)


def _documents(made: FastAPI, tokens: Tokens) -> APIRouter:
    """Return where the OpenAPI document is, for those who may ask."""
    router = APIRouter(dependencies=[Security(Guard(tokens).check)], route_class=ProblemRoute, include_in_schema=False)

    @router.get("/openapi.json")
    async def document() -> JSONResponse:
        return JSONResponse(made.openapi())

    @router.get("/docs")
    async def pages() -> HTMLResponse:
        return get_swagger_ui_html(openapi_url="openapi.json", title=made.title)

    return router


def _health(app: App) -> APIRouter:
    """Return where everybody may ask whether this is there."""
    router = APIRouter(route_class=ProblemRoute, include_in_schema=False)

    @router.get("/health")
    async def health() -> dict[str, str]:
        if not app.entered:
            raise Problem(503, "the App is not entered, or is being left", {"Retry-After": "5"})
        return {"status": "ok"}

    return router


# ---------------------------------------------------------------- uvicorn


class _Server(uvicorn.Server):
    """A server that tells when it has started, and leaves signals to whoever runs it."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = anyio.Event()
        self.ended = anyio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and tell so."""
        await super().startup(sockets=sockets)
        self.ready.set()

    async def work(self, listening: socket.socket) -> None:
        """Serve until somebody says that it is enough, and then finish what has been begun."""
        try:
            with anyio.CancelScope(shield=True):
                await self.serve(sockets=[listening])
        finally:
            self.ready.set()
            self.ended.set()


async def serve(
    app: App,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    tokens: TokenSource = None,
    title: str = "dpcore",
    most_body: int = MOST_BODY,
    most_wait: float = MOST_WAIT,
    error_texts: bool = False,
    grace: float = 10.0,
    task_status: TaskStatus[str] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the schedules of *app* until cancelled, entering it if it has not been entered.

    It is told to *task_status* where, as ``http://127.0.0.1:8000``, once requests are taken; with port 0 the system
    chooses one.  Signals are the caller's affair.  When it is cancelled, no more requests are taken, and those that are
    being answered have *grace* seconds, rounded up, before they are broken off; then *app* is left.

    What else it takes is as in :func:`create_app`.  Raises :class:`~dpcore.errors.ArgumentError` for a *host* that
    others reach while there are no tokens, :class:`~dpcore.errors.AppStateError` on
    another event loop than asyncio's, and :class:`OSError` if it cannot listen there.
    """
    _check_loop()
    checked = Tokens.of(tokens)
    limits: dict[str, Any] = {"most_body": most_body, "most_wait": most_wait, "error_texts": error_texts}
    made = create_app(app, tokens=checked, title=title, **limits)
    config = uvicorn.Config(
        made,
        lifespan="off",  # the App is entered and left here, where what it raises reaches the caller
        log_config=None,
        proxy_headers=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=math.ceil(grace),
    )
    with _listening(host, port, checked) as listening:
        async with entered(app):
            await _serve(_Server(config), listening, task_status)


async def _serve(server: _Server, listening: socket.socket, task_status: TaskStatus[str]) -> None:
    address, port = listening.getsockname()[:2]
    async with anyio.create_task_group() as group:
        group.start_soon(server.work, listening)
        try:
            await server.ready.wait()
            url = f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
            _log.info("schedules are served at %s", url)
            task_status.started(url)
            await server.ended.wait()
        finally:
            server.should_exit = True


def _check_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        problem = "cannot be served on this event loop: uvicorn needs asyncio's"
        cure = "run it with anyio.run(main, backend='asyncio'), or include the router in an app that a server for trio runs"
        raise AppStateError(problem, cure) from None


def _listening(host: str, port: int, tokens: Tokens) -> socket.socket:
    """Listen, where that is safe: what others reach takes tokens."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    if not tokens and not is_loopback(str(address[0])):
        wanted = "a loopback address, such as 127.0.0.1, as long as there are no tokens; give tokens=, or set DPCORE_API_TOKENS"
        raise ArgumentError("host", host, wanted)
    # With its protocol, by which asyncio knows that small answers are not to wait for each other: 40 ms each.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except BaseException:
        listening.close()
        raise
    return listening
