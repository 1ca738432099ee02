"""Real servers for requests over HTTP: uvicorn on a free port, in a thread with an event loop of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import anyio
import httpx
import pytest
import uvicorn
from anyio.from_thread import BlockingPortal, start_blocking_portal

from dpcore import App, Plugins, Registry
from dpcore_plugins.api import serve

JSON = {"Content-Type": "application/json"}


class House:
    """An event loop in a thread, in which servers are and the Apps that they serve."""

    def __init__(self, portal: BlockingPortal) -> None:
        self.portal = portal

    @contextmanager
    def serving(self, app: App, **arguments) -> Iterator[httpx.Client]:
        """Serve the schedules of *app*, and give who asks for them."""
        with (
            self._running(partial(serve, app, port=0, **arguments)) as url,
            httpx.Client(base_url=url, timeout=20) as client,
        ):
            yield client

    @contextmanager
    def hosting(self, asgi, **settings) -> Iterator[httpx.Client]:
        """Serve somebody's own app as uvicorn does."""
        server = uvicorn.Server(uvicorn.Config(asgi, port=0, log_config=None, lifespan="on", **settings))

        async def work() -> None:
            with anyio.CancelScope(shield=True):
                await server.serve()

        async def run(*, task_status) -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(work)
                while not server.started:
                    await anyio.sleep(0.01)
                where = server.servers[0].sockets[0].getsockname()
                task_status.started("http://unix" if isinstance(where, str) else f"http://127.0.0.1:{where[1]}")
                try:
                    await anyio.sleep_forever()
                finally:
                    server.should_exit = True

        with self._running(run) as url, httpx.Client(base_url=url, timeout=20) as client:
            yield client

    @contextmanager
    def _running(self, run) -> Iterator[str]:
        scopes: list[anyio.CancelScope] = []

        async def until_cancelled(*, task_status) -> None:
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                await run(task_status=task_status)

        future, url = self.portal.start_task(until_cancelled)
        try:
            yield url
        finally:
            self.portal.call(scopes[0].cancel)
            future.result(30)


@pytest.fixture(scope="session")
def house() -> Iterator[House]:
    with start_blocking_portal("asyncio") as portal:
        yield House(portal)


@pytest.fixture
def app(tasks: Registry, plugins: Plugins) -> App:
    return App(tasks, plugins=plugins)
