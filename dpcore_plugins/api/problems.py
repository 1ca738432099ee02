"""Problems: what a request is told that cannot be done, as RFC 9457 has it, and no more than that."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import msgspec
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from dpcore.errors import (
    AppStateError,
    BrokerLostError,
    PublishTimeoutError,
    RunNotFoundError,
    ScheduleFullError,
    ScheduleNotFoundError,
    StoreError,
)

__all__ = ("MEDIA_TYPE", "Problem", "ProblemRoute", "answered", "described", "problem_of")

MEDIA_TYPE = "application/problem+json"

_log = logging.getLogger("dpcore.api")

_SOON = {"Retry-After": "5"}  # seconds
_AWAY = (StoreError, BrokerLostError, PublishTimeoutError)

_SCHEMA = {
    "type": "object",
    "title": "Problem",
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string", "format": "uri-reference"},
    },
    "required": ["type", "title", "status", "detail", "instance"],
}


class Problem(Exception):  # noqa: N818  (what RFC 9457 calls it)
    """A request cannot be done: the *status* says what kind of problem it is, the *detail* which one.

    *more* are further members of the answer, such as the list of all that is wrong.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> None:
        super().__init__(status, detail)
        self.status, self.detail, self.headers, self.more = status, detail, headers, more

    def response(self, request: Request) -> Response:
        """Return the answer to a request."""
        told = {
            "type": "about:blank",
            "title": _title(self.status),
            "status": self.status,
            "detail": self.detail,
            "instance": quote(request.scope["path"]),
            **self.more,
        }
        headers = None if self.headers is None else dict(self.headers)
        return Response(msgspec.json.encode(told), self.status, headers, MEDIA_TYPE)


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:  # one of somebody's own
        return "Error"


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the problems with these statuses for the OpenAPI document."""
    return {
        status: {"description": _title(status), "content": {MEDIA_TYPE: {"schema": _SCHEMA}}} for status in statuses
    }


def problem_of(error: Exception, request: Request) -> Problem:
    """Return what to tell of *error*; of one that nobody expects only an id, under which it is in the log."""
    match error:
        case Problem():
            return error
        case RequestValidationError():
            return _invalid(error.errors())
        case HTTPException():
            return Problem(error.status_code, str(error.detail), error.headers)
        case ScheduleNotFoundError() | RunNotFoundError():
            return Problem(404, str(error))
        case ScheduleFullError():
            return _full(error)
        case ClientDisconnect():
            return Problem(400, "the request was broken off")  # which nobody hears any more
        case AppStateError():
            return Problem(503, str(error), _SOON)
    number = uuid4().hex
    _log.error("request %s: %s %s failed", number, request.method, request.url.path, exc_info=error)
    if isinstance(error, _AWAY):
        said = f"what this needs cannot be reached at present; the log of the server says more under {number}"
        return Problem(503, said, _SOON, id=number)
    return Problem(500, f"something went wrong here; the log of the server says more under {number}", id=number)


def _full(error: ScheduleFullError) -> Problem:
    said = f"schedule {error.name!r} was not fired, because as many of its runs go on as may"
    if error.overlap == "skip":
        return Problem(409, f"{said}; what it is fired for meanwhile is left out", runs=error.runs)
    return Problem(503, f"{said}, and as many firings wait; try again later", _SOON, runs=error.runs)


def _invalid(found: Iterable[Mapping[str, Any]]) -> Problem:
    """Return the problem that FastAPI has found with parameters of a request."""
    errors = [
        {"detail": one["msg"], "in": str(one["loc"][0]), "name": ".".join(map(str, one["loc"][1:]))} for one in found
    ]
    names = ", ".join(one["name"] for one in errors)
    return Problem(422, f"what the request says of {names} does not fit", errors=errors)


class ProblemRoute(APIRoute):
    """A route whose errors are told as problems, whatever its app does about those of others."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Answer as FastAPI does; what is raised becomes a problem."""
        answer = super().get_route_handler()

        async def answer_or_tell(request: Request) -> Response:
            return await answered(answer, request)

        return answer_or_tell

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; one by a method that there is not is a problem too."""
        if scope["method"] in (self.methods or ()):
            await super().handle(scope, receive, send)
            return
        allowed = ", ".join(sorted(self.methods or ()))
        said = f"{scope['method']} is not possible here, only {allowed}"
        told = Problem(405, said, {"Allow": allowed}).response(Request(scope))
        await told(scope, receive, send)


async def answered(answer: Callable[[Request], Coroutine[Any, Any, Response]], request: Request) -> Response:
    """Return the answer to a request, or what is told of the error that it has raised."""
    try:
        return await answer(request)
    except Exception as error:  # noqa: BLE001  (whatever it is, the client is told no more of it than what it may know)
        return problem_of(error, request).response(request)
