"""What the proof of concept did wrong when it executed plans (D-X1 to D-X19), where no other test says that it is not so."""

import os
import threading
from pathlib import Path

import anyio
import pytest

import dpcore
from dpcore.errors import RunFailedError
from dpcore_plugins.runstores.memory import MemoryRunStore

LOCK = threading.Lock()  # of this module, as a library has one


def die(folder: Path) -> None:
    (folder / str(dpcore.current_job().attempt)).touch()
    os._exit(9)


def own_timeout() -> None:
    raise TimeoutError("the server did not answer")


def counted(folder: Path) -> int:
    with (folder / dpcore.current_job().task).open("a") as file:
        file.write("x")
    return 1


def take_lock() -> bool:
    return LOCK.acquire(timeout=5)


def closure() -> object:
    local = threading.Lock()
    return lambda: local


def loud() -> None:
    raise ValueError("x" * 5_000_000)


def test_x1_a_task_that_kills_its_only_worker_is_tried_again_and_what_follows_is_done(tasks, plugins, tmp_path):
    tasks.task(max_retries=3)(die)
    tasks.task(name="after")(os.getpid)
    result = dpcore.run(
        registry=tasks, plugins=plugins, executor="multiprocess?workers=1", params={"folder": tmp_path}, check=False
    )
    assert (result.outcomes["die"].state, result.outcomes["die"].attempt) == ("failed", 4)
    assert "exited with code 9" in str(result.outcomes["die"].error)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["1", "2", "3", "4"]
    assert result.outcomes["after"].state == "succeeded"


@pytest.mark.parametrize("executor", ["threads", "multiprocess?workers=1"])
def test_x4_a_body_that_raises_a_timeout_of_its_own_has_failed_and_keeps_its_words(tasks, plugins, executor):
    tasks.task(timeout=60)(own_timeout)
    with pytest.raises(RunFailedError) as caught:
        dpcore.run(registry=tasks, plugins=plugins, executor=executor)
    assert [str(error) for error in caught.value.exceptions] == ["the server did not answer"]


class SlowStore(MemoryRunStore):
    """Takes ten milliseconds for whatever it is to keep."""

    async def commit(self, key, **what):
        await anyio.sleep(0.01)
        return await super().commit(key, **what)


@pytest.mark.parametrize("kind", ["sqlite", "slow"])
def test_x5_each_of_many_tasks_that_wait_for_many_runs_once(tasks, plugins, tmp_path, kind):
    tasks.task(name="root")(counted)
    for level, before in (("a", ["root"]), ("b", [f"a{number}" for number in range(20)])):
        for number in range(20):
            tasks.task(name=f"{level}{number}", dependencies=before)(counted)
    (tmp_path / "ran").mkdir()
    result = dpcore.run(
        registry=tasks,
        plugins=plugins,
        executor="multiprocess?workers=2",
        store=SlowStore() if kind == "slow" else f"sqlite:{tmp_path / 'runs.db'}",
        params={"folder": tmp_path / "ran"},
    )
    assert len(result) == 41
    assert {file.name: file.read_text() for file in (tmp_path / "ran").iterdir()} == dict.fromkeys(result, "x")


def test_x8_locks_that_a_thread_of_the_program_holds_are_free_in_workers_of_the_first_pool_and_the_next(tasks, plugins):
    tasks.task(take_lock)
    with LOCK:
        for _ in range(2):
            assert dpcore.run(registry=tasks, plugins=plugins, executor="multiprocess?workers=1")["take_lock"] is True


async def test_x14_who_reads_all_topics_takes_nothing_from_those_who_wait_for_an_answer(tasks, plugins):
    tasks.task(name="answer")(os.getpid)
    async with dpcore.App(tasks, plugins=plugins) as app, app.consume("**", group="greedy") as greedy:
        async with app.subscribe("$run.finished") as finished:
            await app.run_on("$run.request")
            await app.publish("$run.request", {"names": ["answer"], "correlation_id": "mine"})
            with anyio.fail_after(30):
                answer = await anext(finished)
        await app.publish("orders.paid", 1)
        first = await anext(greedy)
    assert (answer.headers["correlation-id"], answer.data["tasks"]) == ("mine", {"answer": "succeeded"})
    assert first.topic == "orders.paid"  # and nothing of what the platform tells


def test_x18_a_result_that_cannot_be_stored_is_named_and_its_run_fails_in_words(tasks, plugins):
    tasks.task(closure)
    result = dpcore.run(registry=tasks, plugins=plugins, executor="multiprocess?workers=1", check=False)
    outcome = result.outcomes["closure"]
    assert f"cannot store the result {result.run_id}/closure/1: " in str(outcome.error)
    assert "lock" in str(outcome.error)


def test_x18_who_did_an_attempt_and_where_it_failed_is_known(tasks, plugins):
    tasks.task(loud)
    result = dpcore.run(registry=tasks, plugins=plugins, executor="multiprocess?workers=1", check=False)
    outcome = result.outcomes["loud"]
    assert "in loud" in outcome.traceback
    assert outcome.worker.partition("/")[0].isdigit()
    assert outcome.duration > 0


async def test_x18_an_error_of_megabytes_is_not_copied_whole_into_events(tasks, plugins):
    tasks.task(loud)
    async with dpcore.App(tasks, plugins=plugins) as app, app.subscribe("$task.failed") as events:
        result = await app.run(check=False)
        event = await anext(events)
    assert len(str(result.outcomes["loud"].error)) == 5_000_000
    assert "xxxx" in str(event.data)
    assert len(str(event.data)) < 100_000


@pytest.mark.parametrize("executor", ["inline", "threads", "multiprocess?workers=1"])
async def test_x18_an_error_of_megabytes_is_recorded_with_its_beginning_and_its_end(tasks, plugins, executor):
    tasks.task(loud)
    async with dpcore.App(tasks, plugins=plugins, executor=executor, store="memory") as app:
        result = await app.run(check=False)
        [change] = [one for one in (await app.history(result.run_id)).changes if one.state is dpcore.State.FAILED]
    assert len(str(result.errors["loud"])) == 5_000_000
    assert change.error.startswith("ValueError: xxx")
    assert change.error.endswith("xxx")
    assert "characters are left out" in change.error
    assert "in loud" in change.traceback
    assert change.traceback.rstrip().endswith("xxx")
    assert max(len(change.error), len(change.traceback), len(result.outcomes["loud"].traceback)) < 66_000
    with pytest.raises(dpcore.errors.NoValueError) as raised:
        result["loud"]
    assert len(str(raised.value)) < 66_000
