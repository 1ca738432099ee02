"""The router: the schedules of an App as paths of somebody's FastAPI app."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from enum import Enum
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from fastapi import APIRouter, Header, Query, Request, Response, Security
from fastapi.security import HTTPBearer
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from dpcore import App
from dpcore.errors import ArgumentError
from dpcore.scheduler import Schedule
from dpcore_plugins.api.answers import Accepted, Ended, Going, Shown, ShownWithNext, ended, going, shown
from dpcore_plugins.api.bodies import Body, body_of, plan_of, read_json
from dpcore_plugins.api.firings import Fired, Keys, has_ended
from dpcore_plugins.api.problems import Problem, ProblemRoute, described
from dpcore_plugins.api.security import Guard, Tokens, TokenSource

__all__ = ("MOST_BODY", "MOST_WAIT", "TriggerRouter", "create_trigger_router", "entered")

MOST_BODY = 1_048_576
MOST_WAIT = 60.0

_MOST_UPCOMING = 100

_NOTE = {
    "type": "object",
    "properties": {"note": {"type": "string", "description": "why"}},
    "additionalProperties": False,
}
_FIRING: dict[str, Any] = {
    "methods": ["POST"],
    "status_code": 202,
    "response_model": Accepted,
    "response_description": "It was fired, or waits for its turn; Location says where its run is",
    "responses": {
        200: {"model": Ended, "description": "Its run has ended in the time that was to be waited for"},
        **described(400, 404, 409, 413, 415),
    },
}

Wait = Annotated[
    float, Query(ge=0, allow_inf_nan=False, description="seconds to wait for the end of the run, up to a limit")
]
Count = Annotated[int, Query(ge=1, le=_MOST_UPCOMING, description="how many of the next times to tell")]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern="^[!-~]([ -~]*[!-~])?$",
        description="with a key that was sent before nothing is fired; the answer is about what was then",
    ),
]


def create_trigger_router(
    app: App,
    *,
    prefix: str = "/schedules",
    tags: list[str | Enum] | None = None,
    tokens: Tokens | TokenSource = None,
    most_body: int = MOST_BODY,
    most_wait: float = MOST_WAIT,
    error_texts: bool = False,
) -> APIRouter:
    """Return a router through which the schedules of *app* are looked at, fired, paused and resumed.

    Include it in a FastAPI app.  Its lifespan enters *app*, if it has not been entered by then, and leaves it again;
    where no lifespan runs, as in an app that is mounted, enter *app* yourself.  It serves the schedules that there
    are when a request comes, and describes those that there are when the OpenAPI document is made; with an old
    FastAPI, which copies routes, those that there are when the router is included.

    *tokens* open the door, as ``Authorization: Bearer TOKEN``: a list, or a function that is asked for one at each
    request; by default those in the environment variable ``DPCORE_API_TOKENS``, separated by commas.  Without any, only
    requests from this machine to a loopback address are let in, and none that a web page could have made.

    A body has *most_body* bytes at the most, and so has each result that is told; ``?wait=`` waits *most_wait* seconds.
    What the errors of tasks say is told only with *error_texts*; their types are in any case.

    Raises :class:`~dpcore.errors.ArgumentError`.
    """
    if not isinstance(app, App):
        raise ArgumentError("app", app, "a dpcore.App")
    if isinstance(most_body, bool) or not isinstance(most_body, int) or most_body < 1:
        raise ArgumentError("most_body", most_body, "a number of bytes, at least 1")
    if isinstance(most_wait, bool) or not isinstance(most_wait, int | float) or not 0 <= most_wait < float("inf"):
        raise ArgumentError("most_wait", most_wait, "a number of seconds, at least 0")
    checked = Tokens.of(tokens)
    doors = _Doors(app, most_body, most_wait, texts=error_texts)
    return TriggerRouter(app, doors, checked, prefix, ["schedules"] if tags is None else tags)


@asynccontextmanager
async def entered(app: App) -> AsyncIterator[None]:
    """Enter an App for the length of a block, unless somebody else has entered it: then it is used as it is."""
    if app.entered:
        yield
    else:
        async with app:
            yield


class _Doors:
    """What the paths of a router do."""

    def __init__(self, app: App, most_body: int, most_wait: float, *, texts: bool) -> None:
        self._app, self._most_body, self._most_wait, self._texts = app, most_body, most_wait, texts
        self._keys = Keys()
        self._bodies: dict[str, tuple[Schedule, Body]] = {}

    def body_of(self, schedule: Schedule) -> Body:
        """Return what a schedule is fired with; planned once."""
        known = self._bodies.get(schedule.name)
        if known is None or known[0] is not schedule:
            known = self._bodies[schedule.name] = (schedule, body_of(self._app, schedule))
        return known[1]

    def _schedule(self, name: str) -> Schedule:
        if not self._app.entered:
            said = "the App of these schedules is not entered; if this FastAPI app is mounted in another, its lifespan does not run"
            raise Problem(503, f"{said}, so enter the App yourself: async with app", {"Retry-After": "5"})
        return self._app.schedules[name]

    async def schedules(self) -> list[dict[str, Any]]:
        """Every schedule, as it is now."""
        names = [*self._app.schedules]
        return [shown(self._schedule(name), texts=self._texts) for name in names]

    async def schedule(self, name: str, count: Count = 5) -> dict[str, Any]:
        """One schedule, and when it fires next."""
        found = self._schedule(name)
        return {**shown(found, texts=self._texts), "upcoming": found.upcoming(count)}

    async def pause(self, name: str, request: Request) -> dict[str, Any]:
        """Let a schedule not fire by itself until it is resumed; it can be fired all the same."""
        found = self._schedule(name)
        given = await read_json(request, self._most_body)
        note = {} if given is None else given
        if not isinstance(note, dict) or note.keys() - {"note"} or not isinstance(note.get("note", ""), str):
            fault = {"detail": "an object with a text 'note' is expected, or nothing", "pointer": "#"}
            raise Problem(422, f"the body does not fit: {fault['detail']}", errors=[fault])
        await found.pause(note.get("note", ""))
        return shown(found, texts=self._texts)

    async def resume(self, name: str) -> dict[str, Any]:
        """Let a schedule fire by itself again, from now on."""
        found = self._schedule(name)
        await found.resume()
        return shown(found, texts=self._texts)

    async def run(self, name: str, run_id: str) -> Going:
        """How far a run is that a schedule has started."""
        found = await going(self._app, self._schedule(name), run_id, texts=self._texts)
        if found is None:
            raise Problem(404, f"schedule {name!r} has no run {run_id!r}, or it was forgotten")
        return found

    async def fire(self, name: str, request: Request, wait: Wait = 0.0, key: Key = None) -> Response:
        """Fire a schedule now, also while it is paused."""
        schedule = self._schedule(name)
        fired = await self._fired(schedule, await read_json(request, self._most_body), key)
        runs, publishes = schedule.starts.selection is not None, schedule.starts.topic is not None
        told: dict[str, Any] = {"id": fired.id}
        told |= {"run_id": fired.id} if runs else {}
        told |= {"event_id": fired.id} if publishes else {}
        headers = {"Idempotency-Replayed": "true"} if fired.replayed else {}
        if runs and wait and await has_ended(self._app, fired.id, fired.running, min(wait, self._most_wait)):
            plan = fired.running.plan if fired.running is not None else plan_of(self._app, schedule)
            end = await ended(self._app, fired.id, plan, texts=self._texts, most=self._most_body)
            return _json({**told, **end}, 200, headers)
        if runs:
            path = request.scope["path"].removesuffix("/fire")
            headers["Location"] = quote(f"{path}/runs/{fired.id}")
        return _json({**told, "state": fired.state}, 202, headers)

    async def _fired(self, schedule: Schedule, given: Any, key: str | None) -> Fired:
        async def fire() -> Fired:
            found = await self._app.fire(schedule.name, body, key=key or "")
            return Fired(found.id, found.state, found.running, replayed=found.state == "known")

        body = self.body_of(schedule).read(given)
        return await fire() if key is None else await self._keys.once(schedule.name, key, given, fire)


def _json(told: dict[str, Any], status: int, headers: dict[str, str]) -> Response:
    return Response(msgspec.json.encode(told), status, headers, "application/json")


class _DescribedRoute(ProblemRoute):
    """A path that is there to be described: the one for every name serves it."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:  # noqa: ARG002  (none does)
        """Match nothing."""
        return Match.NONE, {}


class TriggerRouter(APIRouter):
    """A router whose routes describe the schedules of an App that there are at the moment."""

    def __init__(self, app: App, doors: _Doors, tokens: Tokens, prefix: str, tags: list[str | Enum]) -> None:
        self._app, self._doors = app, doors
        self._routes: list[BaseRoute] = []
        self._described: dict[str, BaseRoute] = {}
        self._is_whole = False
        guards = [Security(Guard(tokens).check)]
        if tokens:
            guards.append(
                Security(HTTPBearer(auto_error=False, scheme_name="token", description="a token of this router"))
            )

        @asynccontextmanager
        async def lifespan(_: Any) -> AsyncIterator[None]:
            async with entered(app):
                yield

        super().__init__(
            prefix=prefix,
            tags=tags,
            dependencies=guards,
            route_class=ProblemRoute,
            lifespan=lifespan,
            responses=described(*((401,) if tokens else (403,)), 422, 500, 503),
        )
        self._add_paths()
        self._is_whole = True

    @property
    def routes(self) -> list[BaseRoute]:
        """The paths for every schedule, and one for each that there is, to be described."""
        if self._is_whole and self._described.keys() != {*self._app.schedules}:
            self._describe()
        return self._routes

    @routes.setter
    def routes(self, routes: Iterable[BaseRoute]) -> None:
        self._routes = [*routes]

    def _add_paths(self) -> None:
        doors, posted = self._doors, described(400, 413, 415)
        self.add_api_route("", doors.schedules, response_model=list[Shown])
        self.add_api_route("/{name}", doors.schedule, response_model=ShownWithNext, responses=described(404))
        self.add_api_route("/{name}/runs/{run_id}", doors.run, response_model=Going, responses=described(404))
        changed: dict[str, Any] = {"methods": ["POST"], "response_model": Shown}
        self.add_api_route(
            "/{name}/pause",
            doors.pause,
            responses={**described(404), **posted},
            openapi_extra={"requestBody": {"content": {"application/json": {"schema": _NOTE}}}},
            **changed,
        )
        self.add_api_route("/{name}/resume", doors.resume, responses=described(404, 415), **changed)
        self.add_api_route(
            "/{name}/fire",
            doors.fire,
            openapi_extra={"requestBody": {"content": {"application/json": {"schema": {}}}}},
            **_FIRING,
        )

    def _describe(self) -> None:
        """Describe the schedules that have come, and no more those that have gone."""
        schedules, known = self._app.schedules, self._described
        for name in [name for name in known if name not in schedules]:
            self._routes.remove(known.pop(name))
        self._is_whole = False
        try:
            for name in [name for name in schedules if name not in known]:
                self._describe_one(schedules[name])
                known[name] = self._routes[-1]
        finally:
            self._is_whole = True

    def _describe_one(self, schedule: Schedule) -> None:
        body = self._doors.body_of(schedule)
        content = {"application/json": {"schema": body.schema}}
        self.add_api_route(
            f"/{schedule.name}/fire",
            _described,
            name=f"fire_{schedule.name}",
            summary=f"Fire {schedule.name}",
            description=f"Fire this schedule now ({schedule.described}).",
            route_class_override=_DescribedRoute,
            openapi_extra={"requestBody": {"content": content, "required": body.required}},
            **_FIRING,
        )


async def _described(wait: Wait = 0.0, key: Key = None) -> None:
    """Stand for :meth:`_Doors.fire` in the description of one schedule."""
