"""serve(): in the caller's loop, until it is cancelled; what has been begun is finished within a grace."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import anyio
import httpx
import pytest

from dpcore import App
from dpcore.errors import AppStateError
from dpcore_plugins import ApiTrigger
from dpcore_plugins.api import serve

from .conftest import JSON


@pytest.fixture
def gate():
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture
def slow(app, tasks, gate) -> App:
    tasks.task(name="slow")(lambda: gate.wait(20))
    app.schedule("slow", ApiTrigger(), run=["slow"])
    return app


def ask(url: str) -> httpx.Response:
    return httpx.post(f"{url}/schedules/slow/fire?wait=20", headers=JSON, timeout=25)


async def until_running(app: App) -> None:
    with anyio.fail_after(10):
        while not app.schedules["slow"].runs:
            await anyio.sleep(0.01)


async def until_closed(url: str) -> None:
    """Wait until nobody else is let in."""
    with anyio.fail_after(10):
        while True:
            try:
                stream = await anyio.connect_tcp("127.0.0.1", int(url.rpartition(":")[2]))
            except OSError:
                return
            await stream.aclose()
            await anyio.sleep(0.02)


def test_a_request_in_flight_is_finished_when_it_is_cancelled(slow, gate):
    async def main() -> httpx.Response:
        with ThreadPoolExecutor() as pool:
            async with slow, anyio.create_task_group() as group:
                url = await group.start(partial(serve, slow, port=0))
                answer = pool.submit(ask, url)
                await until_running(slow)
                group.cancel_scope.cancel()
                with anyio.CancelScope(shield=True):
                    await until_closed(url)
                    assert not answer.done()
                    gate.set()
            return answer.result(20)

    answer = anyio.run(main)
    assert answer.status_code == 200
    assert answer.json()["results"] == {"slow": True}


def test_a_request_that_takes_longer_than_the_grace_is_broken_off(slow, gate):
    async def main() -> float:
        with ThreadPoolExecutor() as pool:
            async with slow:
                async with anyio.create_task_group() as group:
                    url = await group.start(partial(serve, slow, port=0, grace=0.5))
                    answer = pool.submit(ask, url)
                    await until_running(slow)
                    began = time.monotonic()
                    group.cancel_scope.cancel()
                took = time.monotonic() - began
                assert answer.result(10).status_code == 500
                await anyio.wait_all_tasks_blocked()  # its connection is closed
                gate.set()
                return took

    assert 0.5 < anyio.run(main) < 5


def test_the_app_is_entered_and_left_where_nobody_has_entered_it(slow):
    async def main() -> None:
        async with anyio.create_task_group() as group:
            url = await group.start(partial(serve, slow, port=0))
            assert url.startswith("http://127.0.0.1:")
            assert slow.entered
            async with httpx.AsyncClient() as client:
                assert (await client.get(f"{url}/health")).status_code == 200
            group.cancel_scope.cancel()
        assert not slow.entered

    anyio.run(main)


def test_what_entering_the_app_raises_reaches_the_caller(tasks, plugins):
    app = App(tasks, plugins=plugins, broker="nothing-like-it")

    async def main() -> None:
        with pytest.raises(LookupError, match="no plugin offers the broker 'nothing-like-it'"):
            await serve(app, port=0)

    anyio.run(main)


def test_a_port_that_is_taken_is_said_at_once(slow):
    async def main() -> None:
        async with anyio.create_task_group() as group:
            url = await group.start(partial(serve, slow, port=0))
            with pytest.raises(OSError, match="in use"):
                await serve(slow, port=int(url.rpartition(":")[2]))
            group.cancel_scope.cancel()

    anyio.run(main)


def test_on_trio_it_says_what_it_needs(slow):
    said = (
        r"^this App cannot be served on this event loop: uvicorn needs asyncio's; run it with "
        r"anyio.run\(main, backend='asyncio'\), or include the router in an app that a server for trio runs$"
    )
    with pytest.raises(AppStateError, match=said):
        anyio.run(partial(serve, slow, port=0), backend="trio")


def test_signals_are_left_to_the_caller(slow):
    async def main() -> None:
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        async with anyio.create_task_group() as group:
            await group.start(partial(serve, slow, port=0))
            assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
            group.cancel_scope.cancel()

    anyio.run(main)


PROGRAM = """
import anyio, signal
from functools import partial
from dpcore import App, Registry
from dpcore_plugins import ApiTrigger
from dpcore_plugins.api import serve

async def main():
    app = App(Registry())
    app.schedule("paid", ApiTrigger(), publish="paid")
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        async with anyio.create_task_group() as group:
            print(await group.start(partial(serve, app, port=0)), flush=True)
            async for _ in signals:
                group.cancel_scope.cancel()
    print("left", app.entered, flush=True)

anyio.run(main)
"""


def test_a_program_ends_by_sigterm_as_its_author_wants():
    command = [sys.executable, "-W", "error", "-c", PROGRAM]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        url = process.stdout.readline().strip()
        assert httpx.post(f"{url}/schedules/paid/fire", headers=JSON).status_code == 202
        process.terminate()
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "left False\n", "")


def test_without_fastapi_it_says_in_one_sentence_what_to_install():
    program = """
import sys
sys.modules["fastapi"] = None
import dpcore_plugins, dpcore_plugins.triggers.api
dpcore_plugins.ApiTrigger()
try:
    import dpcore_plugins.api
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "the HTTP API 'dpcore_plugins.api' of dpcore cannot be imported: import of fastapi halted; None in sys.modules; "
        "what it needs comes with: pip install 'dpcore[api]'\n"
    )


def test_nothing_else_imports_fastapi():
    program = "import sys, dpcore, dpcore_plugins, dpcore_plugins.triggers.api; assert not {'fastapi', 'uvicorn'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", program], check=True)
