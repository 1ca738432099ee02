"""Events that start runs, events that tell of runs, and events that tasks publish."""

import re
import threading

import anyio
import msgspec
import pytest

from dpcore import App, Event, Registry, RunRequest, State, current_job
from dpcore.errors import (
    AppStateError,
    ArgumentError,
    BrokerStateError,
    PayloadError,
    PlanningError,
    RunFailedError,
    TopicCompletedError,
    TopicError,
    UnsupportedError,
)
from dpcore.reactions import Announcer, RunFinished, TaskChanged
from dpcore.runs import Run
from dpcore_plugins import SqliteRunStore

pytestmark = pytest.mark.anyio

both_executors = pytest.mark.parametrize("executor", ["inline", "threads"])


def shop():
    """Return tasks that publish, and tasks that are started by events."""
    tasks = Registry()

    @tasks.task
    def extract(day: str) -> int:
        current_job().publish("orders.extracted", {"day": day}, key="k", headers={"tenant": "x"}, type="Extracted")
        current_job().publish("orders.counted", 3)
        return 3

    @tasks.task
    def transform(day: str) -> str:
        return day.upper()

    @tasks.task
    def fails() -> None:
        current_job().publish("orders.extracted", {"day": "never"})
        raise ValueError("no orders")

    return tasks


async def finished(events):
    """Return the next run that has finished."""
    return msgspec.convert((await anext(events)).data, RunFinished)


# ---------------------------------------------------------------- what tasks publish


@both_executors
async def test_what_a_task_publishes_is_sent_when_its_attempt_has_succeeded(executor):
    async with App(shop(), executor=executor) as app, app.subscribe("orders.*", "$task.*") as events:
        result = await app.run("extract", params={"day": "mon"})
        seen = [await anext(events) for _ in range(4)]
    assert [event.topic for event in seen] == ["$task.running", "orders.extracted", "orders.counted", "$task.succeeded"]
    extracted = seen[1]
    assert (extracted.data, extracted.key, extracted.type) == ({"day": "mon"}, "k", "Extracted")
    assert extracted.headers == {"tenant": "x"}
    assert [event.id for event in seen[1:3]] == [f"{result.run_id}/extract/0", f"{result.run_id}/extract/1"]


@both_executors
async def test_what_a_failed_attempt_wanted_to_publish_is_forgotten(executor):
    async with App(shop(), executor=executor) as app, app.subscribe("orders.*") as events:
        await app.run("fails", check=False)
        await app.publish("orders.end")
        assert (await anext(events)).topic == "orders.end"


@both_executors
async def test_only_the_attempt_that_succeeds_publishes(executor):
    tasks = Registry()

    @tasks.task(max_retries=2)
    def flaky():
        current_job().publish("tried", current_job().attempt)
        if current_job().attempt < 3:
            raise ValueError

    async with App(tasks, executor=executor) as app, app.subscribe("tried") as events:
        await app.run()
        await app.publish("tried", "end")
        assert [(await anext(events)).data for _ in range(2)] == [3, "end"]


@both_executors
async def test_with_now_it_is_published_before_the_attempt_has_ended(executor):
    tasks = Registry()

    @tasks.task
    def fails():
        current_job().publish("progress", 50, now=True)
        raise ValueError

    @tasks.task
    async def fails_async():
        current_job().publish("progress", 60, now=True)
        raise ValueError

    async with App(tasks, executor=executor) as app, app.subscribe("progress") as events:
        await app.run("fails", check=False)
        await app.run("fails_async", check=False)
        assert [(await anext(events)).data for _ in range(2)] == [50, 60]


async def test_a_thread_that_publishes_now_waits_until_the_broker_has_the_event():
    tasks = Registry()
    done = threading.Event()

    @tasks.task
    def produce():
        for number in range(3):
            current_job().publish("items", number, now=True)
        done.set()

    async with App(tasks) as app, app.subscribe("items", buffer=1, overflow="block") as events, \
            anyio.create_task_group() as group:  # fmt: skip
        group.start_soon(app.run, "produce")
        assert (await anext(events)).data == 0
        assert not done.is_set()  # two more are on their way, and there is room for one
        assert [(await anext(events)).data for _ in range(2)] == [1, 2]
    assert done.is_set()


async def test_a_task_gets_what_the_broker_raises_when_it_publishes_now():
    tasks = Registry()

    @tasks.task
    def late():
        current_job().publish("done", now=True)

    async with App(tasks) as app:
        await app.complete("done")
        result = await app.run("late", check=False)
    assert isinstance(result.errors["late"], TopicCompletedError)


@both_executors
async def test_an_attempt_whose_events_cannot_be_published_has_failed(executor):
    tasks = Registry()

    @tasks.task
    def late():
        current_job().publish("done")

    async with App(tasks, executor=executor) as app:
        await app.complete("done")
        with pytest.raises(RunFailedError) as raised:
            await app.run("late")
    assert isinstance(raised.value.exceptions[0], TopicCompletedError)


async def test_a_run_that_is_cancelled_while_its_task_waits_to_publish_ends():
    tasks = Registry()

    @tasks.task
    def produce():
        current_job().publish("items")

    async with App(tasks) as app:
        await app.declare("items", groups=["nobody"], buffer=1)
        await app.publish("items")
        async with anyio.create_task_group() as group, app.subscribe("$task.running") as running:

            async def run():
                result = await app.run("produce", run_id="r", check=False)
                assert result.state is State.CANCELLED
                assert result.outcomes["produce"].state is State.CANCELLED

            group.start_soon(run)
            await anext(running)
            await anyio.wait_all_tasks_blocked()
            app.cancel("r")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("a..b",), TopicError),
        (("orders.*",), TopicError),
        (("a", 1, {"key": 5}), ArgumentError),
        (("a", 1, {"headers": {"n": 1}}), ArgumentError),
    ],
)
async def test_a_task_is_told_what_it_cannot_publish(arguments, error):
    tasks = Registry()

    @tasks.task
    def wrong():
        topic, *rest = arguments
        current_job().publish(topic, *rest[:1], **(rest[1] if rest[1:] else {}))

    async with App(tasks) as app:
        result = await app.run(check=False)
    assert isinstance(result.errors["wrong"], error)


async def test_an_executor_that_gives_no_line_cannot_publish_now():
    from dpcore import perform
    from dpcore_plugins import InlineExecutor

    class Lineless(InlineExecutor):
        async def run(self, job, line):
            return perform(job)

    tasks = Registry()

    @tasks.task
    def hasty():
        current_job().publish("a", now=True)

    async with App(tasks, executor=Lineless()) as app:
        result = await app.run(check=False)
    assert isinstance(result.errors["hasty"], UnsupportedError)


# ---------------------------------------------------------------- what is told of runs


@both_executors
async def test_a_run_tells_how_it_goes_with_its_ids_refs_and_metadata(executor):
    async with App(shop(), executor=executor) as app, app.subscribe("$run.*", "$task.*") as events:
        result = await app.run(
            "transform", params={"day": "mon"}, metadata={"correlation_id": "c1", "by": "me", "odd": object}
        )
        seen = [await anext(events) for _ in range(4)]
    assert [event.topic for event in seen] == ["$run.started", "$task.running", "$task.succeeded", "$run.finished"]
    for event in seen:
        assert event.data["run_id"] == result.run_id
        assert event.data["correlation_id"] == "c1"
        assert event.headers == {"correlation-id": "c1"}
        assert event.data["metadata"]["by"] == "me"
        assert event.data["metadata"]["odd"] == "<class 'object'>"
    ref = {"run_id": result.run_id, "task": "transform", "result_id": "1"}
    assert seen[0].data["tasks"] == ["transform"]
    assert seen[2].data["result"] == ref
    last = msgspec.convert(seen[3].data, RunFinished)
    assert (last.state, last.tasks, last.results) == (
        State.SUCCEEDED,
        {"transform": State.SUCCEEDED},
        {"transform": ref},
    )
    assert last.plan_id == result.plan.id


async def test_a_failed_run_tells_what_went_wrong():
    async with App(shop()) as app, app.subscribe("$run.finished", "$task.failed") as events:
        await app.run("fails", check=False)
        task, run = await anext(events), await anext(events)
    assert msgspec.convert(task.data, TaskChanged).error == "ValueError: no orders"
    assert run.data["errors"] == {"fails": "ValueError: no orders"}
    assert run.data["state"] == "failed"


async def test_the_end_of_a_run_that_its_app_cancels_is_told():
    tasks = Registry()

    @tasks.task
    async def endless():
        await anyio.sleep_forever()

    told = []
    async with anyio.create_task_group() as group, App(tasks) as app:

        async def listen(*, task_status):
            async with app.subscribe("$run.finished") as events:
                task_status.started()
                told.extend([event.data["state"] async for event in events])

        await group.start(listen)
        async with app.subscribe("$task.running") as running:
            group.start_soon(lambda: app.run(check=False))
            await anext(running)
    assert told == ["cancelled"]


@pytest.mark.parametrize(("changes", "words"), [(1, "1 change"), (3, "3 changes")])
async def test_what_a_broker_that_is_too_slow_was_not_told_is_counted(changes, words, caplog):
    async with App(shop()) as app:
        broker = await app.broker()
        await broker.declare("$run.finished", groups=["nobody"], buffer=1)
        await broker.publish("$run.finished")
        announcer = Announcer(broker)
        announcer.patience = 0.0
        run = Run(app.plan("transform", params=["day"]), "r", io=await app.io(), params={"day": "mon"})
        async with announcer.telling():
            for _ in range(changes):
                announcer.run_changed(run, State.RUNNING, State.SUCCEEDED)
    assert f"the broker took too long, and was not told of {words}\n" in caplog.text


async def test_what_nobody_reads_is_not_told():
    async with App(shop()) as app:
        await app.publish("warm.up")  # the broker is there
        await app.run("transform", params={"day": "mon"})
        assert await (await app.broker()).topics() == ["warm.up"]


async def test_a_run_without_a_broker_makes_none():
    async with App(shop(), broker="memory?retain=-1") as app:  # which cannot be made
        await app.run("transform", params={"day": "mon"})


# ---------------------------------------------------------------- events that start runs


@both_executors
async def test_an_event_starts_a_run_with_parameters_made_of_it(executor):
    async with App(shop(), executor=executor) as app, app.subscribe("$run.finished") as runs:
        app.run_on("orders.extracted", ["transform"], params=lambda event: {"day": event.data["day"]})
        first = await app.run("extract", params={"day": "mon"})
        assert (await finished(runs)).run_id == first.run_id
        second = await finished(runs)
        assert second.tasks == {"transform": State.SUCCEEDED}
        about = second.metadata["event"]
        assert (about["topic"], about["id"]) == ("orders.extracted", f"{first.run_id}/extract/0")
        history = await app.history(second.run_id)
        assert history.record.params == {"day": "'mon'"}


async def test_a_pattern_starts_a_run_for_each_topic_and_the_runs_go_side_by_side():
    tasks = Registry()
    both = threading.Barrier(2, timeout=30)

    @tasks.task
    def report():
        both.wait()

    async with App(tasks, executor="threads?slots=2") as app, app.subscribe("$run.finished") as runs:
        await app.run_on("orders.*.closed", ["report"])
        for topic in ("orders.eu.closed", "orders.us.closed", "orders.us.open"):
            await app.publish(topic)
        assert {(await finished(runs)).metadata["event"]["topic"] for _ in range(2)} == {
            "orders.eu.closed",
            "orders.us.closed",
        }


async def test_no_more_runs_than_the_limit_go_at_once():
    tasks = Registry()
    running, most = [], []
    two = anyio.Event()

    @tasks.task
    async def report():
        running.append(1)
        most.append(len(running))
        if len(running) == 2:
            two.set()
        await two.wait()
        running.pop()

    async with App(tasks) as app, app.subscribe("$run.finished") as runs:
        app.run_on("go", ["report"], limit=2)
        await app.publish_many("go", range(10))
        for _ in range(10):
            await finished(runs)
    assert max(most) == 2


async def test_correlation_goes_from_the_event_through_the_run_to_what_its_tasks_publish():
    async with App(shop()) as app, app.subscribe("orders.extracted") as events:
        app.run_on("day.began", "extract", params={"day": "mon"})
        await app.publish("day.began", headers={"correlation-id": "c7"})
        assert (await anext(events)).headers == {"correlation-id": "c7", "tenant": "x"}


async def test_an_event_that_is_delivered_again_starts_no_second_run():
    async with App(shop()) as app, app.subscribe("$run.finished") as runs:
        app.run_on("go", ["transform"], params={"day": "mon"})
        event = await app.publish("go")
        await app.publish(event)  # the same, with its id
        await app.publish("go")
        ids = [(await finished(runs)).run_id for _ in range(2)]
        assert len(set(ids)) == 2
        assert len(await (await app.store()).list()) == 2


async def test_an_event_whose_run_fails_is_done_with():
    async with App(shop()) as app, app.subscribe("$run.finished", "$dead.**") as told:
        await app.run_on("go", ["fails"])
        await app.publish("go", 1)
        await app.publish("go", 2)
        assert [(await finished(told)).state for _ in range(2)] == [State.FAILED, State.FAILED]


@pytest.mark.parametrize(
    ("params", "words"),
    [
        (None, "day"),
        ({"dya": 1}, "dya"),
        (lambda event: event.data["nothing"], "KeyError: 'nothing'"),
        (lambda event: 5, "not iterable"),
    ],
)
async def test_an_event_of_which_no_run_can_be_made_goes_to_the_dead_letters(params, words, caplog):
    async with App(shop()) as app, app.subscribe("$dead.**") as dead:
        await app.run_on("go", ["transform"], params=params)
        await app.publish("go", {})
        letter = await anext(dead)
        assert letter.topic == "$dead.run-go-transform.go"
        assert words in letter.headers["dead-letter-reason"]
    assert "starts no run" in caplog.text


async def test_a_reaction_can_be_stopped_and_leaves_its_events():
    async with App(shop()) as app, app.subscribe("$run.finished") as runs:
        reaction = await app.run_on("go", ["transform"], params={"day": "mon"})
        await app.publish("go", 1)
        await finished(runs)
        reaction.stop()
        await app.publish("go", 2)
        await app.run_on("go", ["transform"], params={"day": "tue"})
        run = await finished(runs)
        assert (await app.history(run.run_id)).record.params == {"day": "'tue'"}


async def test_leaving_the_app_cancels_the_runs_of_its_reactions(caplog, tmp_path):
    tasks = Registry()

    @tasks.task
    async def endless():
        await anyio.sleep_forever()

    async with App(tasks, store=f"sqlite:{tmp_path}/runs.db") as app, app.subscribe("$task.running") as running:
        app.run_on("go", ["endless"])
        await app.publish("go")
        run_id = (await anext(running)).data["run_id"]
    async with SqliteRunStore(path=tmp_path / "runs.db") as store:
        assert (await store.get(run_id)).record.state is State.CANCELLED
    assert caplog.text == ""


async def test_a_reaction_that_cannot_listen_says_so_when_it_is_awaited():
    async with App(shop()) as app:
        with pytest.raises(TopicError):
            app.run_on("a..b", ["transform"])
    async with App(shop(), broker="memory?retain=-1") as app:
        reaction = app.run_on("a", ["transform"])
        with pytest.raises(Exception, match="retain"):
            await reaction


async def test_wrong_arguments_of_run_on_are_told():
    app = App(shop())
    with pytest.raises(AppStateError):
        app.run_on("a")
    async with app:
        with pytest.raises(ArgumentError, match="limit=0 must be a number of runs, at least 1"):
            app.run_on("a", limit=0)
        with pytest.raises(TypeError, match="run_on\\(\\) takes no 'tgas'; did you mean 'tags'"):
            app.run_on("a", tgas=["x"])
        with pytest.raises(TopicError):
            app.run_on(5, ["transform"])


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((["nope"],), PlanningError, "nope"),
        ((["trasnform"],), PlanningError, "did you mean 'transform'"),
        (([print],), PlanningError, "not a task of the registry"),
        ((5,), ArgumentError, "selection=5 must be names of tasks"),
        (([], {"tags": ["nope"]}), PlanningError, "no task has the tag 'nope'"),
        (([], {"tags": "nope"}), PlanningError, "tags= takes a list"),
        (([], {"root_tasks": ["nope"]}), PlanningError, "nope"),
        ((["transform"], {"exclude": ["nope"]}), PlanningError, "nope"),
        ((["transform"], {"params": 3}), ArgumentError, "params=3 must be a mapping, or a function"),
        ((["transform"], {"params": [("day", 1)]}), ArgumentError, "must be a mapping, or a function"),
        (([], {"params": {"day": 1}}), ArgumentError, "must be left out, because without a selection"),
        ((["transform"], {"metadata": 3}), ArgumentError, "metadata=3 must be a mapping"),
        ((["transform"], {"keep": "x"}), ArgumentError, "keep='x' must be 'all' or 'leaves'"),
        ((["transform"], {"fail_fast": 1}), ArgumentError, "fail_fast=1 must be True or False"),
        ((["transform"], {"name": 5}), ArgumentError, "name=5 must be a name"),
        ((["transform"], {"name": "a b"}), ArgumentError, "group='run-a b' must be letters"),
    ],
)
async def test_what_no_event_could_mend_is_told_before_one_has_come(arguments, error, words):
    selection, *named = arguments
    async with App(shop()) as app:
        with pytest.raises(error) as told:
            app.run_on("go", selection, **(named[0] if named else {}))
        assert words in str(told.value)


async def test_two_reactions_of_one_app_that_would_steal_each_other_s_events_need_two_names():
    async with App(shop()) as app, app.subscribe("$run.finished") as runs:
        monday, tuesday = {"day": "mon"}, {"day": "tue"}
        first = app.run_on("go", ["transform"], params=monday)
        app.run_on("go", ["transform"], params=dict(monday))  # the same, which takes nothing away
        with pytest.raises(ArgumentError, match="name='go-transform' must be another than that of <Reaction"):
            app.run_on("go", ["transform"], params=tuesday)
        with pytest.raises(ArgumentError, match="name='go-transform'"):
            app.run_on("went", ["transform"], params=monday, name=first.name)
        app.run_on("go", ["transform"], params=tuesday, name="tuesday")
        await app.publish("go")
        params = {(await app.history((await finished(runs)).run_id)).record.params["day"] for _ in range(2)}
        assert params == {"'mon'", "'tue'"}


@pytest.mark.parametrize(
    ("pattern", "selection", "arguments", "name"),
    [
        ("go", ["transform"], {}, "go-transform"),
        ("go", ["transform", "fails"], {}, "go-transform-fails"),
        ("go", [], {"root_tasks": ["transform"]}, "go-transform"),
        ("$run.request", [], {}, "requests"),
        ("$run.*", ["transform"], {}, "run-transform-........"),
        ("orders.*.paid", [], {}, "orders-paid-........"),
        ("o" * 80, ["transform"], {}, "o{51}-........"),
    ],
)
async def test_the_name_of_a_reaction_is_made_of_what_it_reads_and_what_it_runs(pattern, selection, arguments, name):
    async with App(shop()) as app:
        reaction = app.run_on(pattern, selection, **arguments)
        assert re.fullmatch(name, reaction.name)
        reaction.stop()
        functions = [app.registry[task].call for task in selection]
        assert re.fullmatch(name, app.run_on(pattern, functions, **arguments).name)


async def test_patterns_that_look_alike_in_a_name_have_names_of_their_own():
    async with App(shop()) as app:
        assert len({app.run_on(one, ["transform"]).name for one in ("a.b", "a-b", "a.*.b", "a.**.b", "a.b | a-b")}) == 5


# ---------------------------------------------------------------- requests


async def test_a_request_names_what_to_run():
    async with App(shop()) as app, app.subscribe("$run.finished") as runs:
        await app.run_on("$run.request")
        await app.publish("$run.request", RunRequest(names=["transform"], params={"day": "mon"}, correlation_id="c"))
        done = await finished(runs)
        assert (done.tasks, done.correlation_id) == ({"transform": State.SUCCEEDED}, "c")
        await app.publish("$run.request", {"names": ["transform"], "params": {"day": "tue"}, "run_id": "mine"})
        assert (await finished(runs)).run_id == "mine"


async def test_a_request_selects_by_tags_root_tasks_and_plans():
    tasks = Registry()

    @tasks.task(tags=["a"])
    def one() -> int:
        return 1

    @tasks.task(tags=["b"])
    def two(one: int) -> int:
        return one + 1

    async with App(tasks) as app, app.subscribe("$run.finished") as runs:
        app.plans["nightly"] = app.plan("two")
        await app.run_on("$run.request")
        for request, names in [
            ({"tags": ["a"]}, {"one"}),
            ({"root_tasks": ["two"], "params": {"one": 1}}, {"two"}),
            ({"root_tasks": ["two"], "include_upstream": True}, {"one", "two"}),
            ({"names": ["two"], "exclude": []}, {"one", "two"}),
            ({"plan": "nightly"}, {"one", "two"}),
            ({"plan": app.plans["nightly"].id}, {"one", "two"}),
            (None, {"one", "two"}),
        ]:
            await app.publish("$run.request", request)
            assert set((await finished(runs)).tasks) == names


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"nmaes": ["x"]}, "unknown field `nmaes`"),
        ({"names": "transform"}, "array"),
        ({"names": ["trasnform"]}, "transform"),
        ({"plan": "nightly"}, "plan='nightly' must be the name or the id of one of the app's plans: none"),
        ("transform", "object"),
        ({"names": ["fails"], "run_id": "../x"}, "'../x' cannot be a run id"),
        ({"names": ["fails"], "run_id": "x" * 201}, "longer than 200 bytes"),
        ({"names": ["fails"], "params": {"": 1}}, "'' is taken by no selected task"),
        ({"tags": ["none"]}, "none"),
        ({"root_tasks": ["none"]}, "none"),
        ({"exclude": ["none"]}, "none"),
    ],
)
async def test_a_request_that_makes_no_sense_goes_to_the_dead_letters_at_once(request_, words):
    async with App(shop()) as app, app.subscribe("$dead.**") as dead:
        await app.run_on("$run.request")
        await app.publish("$run.request", request_)
        letter = await anext(dead)
        assert words in letter.headers["dead-letter-reason"]
        assert letter.headers["dead-letter-attempts"] == "1"


@pytest.mark.parametrize("from_run", ["never-was", "../x"])
async def test_an_event_that_takes_data_from_a_run_that_is_not_there_goes_to_the_dead_letters_at_once(from_run):
    async with App(shop()) as app, app.subscribe("$dead.**") as dead:
        await app.run_on("go", ["fails"], from_run=from_run)
        await app.publish("go")
        letter = await anext(dead)
        assert from_run in letter.headers["dead-letter-reason"]
        assert letter.headers["dead-letter-attempts"] == "1"


async def test_an_app_that_serves_takes_requests():
    async with App(shop()) as app, app.subscribe("$run.finished") as runs, anyio.create_task_group() as group:
        group.start_soon(app.serve)
        await anyio.wait_all_tasks_blocked()
        await app.publish("$run.request", {"names": ["transform"], "params": {"day": "mon"}})
        await finished(runs)
        group.cancel_scope.cancel()


async def test_a_plan_that_was_made_before_may_be_run_with_other_parameters():
    async with App(shop()) as app:
        plan = app.plan("transform", params=["day"])
        result = await app.run(plan, params={"day": "mon"})
        assert result["transform"] == "MON"
        assert result.plan.id == plan.id
        assert (await app.history(result.run_id)).record.selection["selection"] == ["transform"]
        with pytest.raises(ArgumentError, match="alone, because a plan says by itself what is run"):
            await app.run(plan, "extract", params={"day": "mon"})


async def test_a_plan_that_its_tasks_do_not_select_again_is_told():
    tasks = Registry()

    @tasks.task
    def one() -> int:
        return 1

    @tasks.task
    def two(one: int) -> int:
        return one + 1

    async with App(tasks) as app:
        plan = app.plan(root_tasks=["two"], params={"one": 5})
        assert (await app.run(plan, params={"one": 7}))["two"] == 8
        with pytest.raises(ArgumentError, match="a plan that its tasks' names select again"):
            await app.run(plan)


# ---------------------------------------------------------------- the app's events


async def test_events_of_one_app_have_its_words():
    async with (
        App(shop()) as app,
        app.subscribe("orders.**", type=dict[str, int]) as events,
        app.consume("jobs") as jobs,
    ):
        event = await app.publish("orders.eu.paid", {"id": 7}, key="eu", headers={"a": "b"}, type="Paid")
        assert isinstance(event, Event)
        assert await anext(events) == event
        await app.publish_many("jobs", [1, 2])
        assert [(await anext(jobs)).data for _ in range(2)] == [1, 2]
        await app.declare("orders.us")
        assert [one.topic for one in await app.publish_matching("orders.*", {"id": 8})] == ["orders.us"]
        await app.complete("orders.us")
        with pytest.raises(TopicCompletedError):
            await app.publish("orders.us")
        await app.declare("jobs", groups=["nobody"])
        assert [await app.disband("nobody") for _ in range(2)] == [True, False]


async def test_an_app_that_was_left_publishes_nothing():
    async with App(shop()) as app:
        await app.publish("a")
    with pytest.raises(AppStateError):
        await app.publish("a")
    broker = None
    async with App(shop()) as app:
        broker = await app.broker()
    with pytest.raises(BrokerStateError):
        await broker.publish("a")


async def test_strict_events_go_through_the_wire_form_in_memory_too():
    async with App(shop(), strict_events=True) as app, app.subscribe("a") as events:
        await app.publish("a", (1, 2))
        assert (await anext(events)).data == [1, 2]
        with pytest.raises(PayloadError):
            await app.publish("a", object())
        with pytest.raises(PayloadError):
            await app.publish_many("a", [1, object()])


async def test_an_app_that_is_left_with_an_exception_does_not_wait_for_its_readers():
    async def leave(group):
        async with App(shop()) as app:

            async def idle(*, task_status):
                async with app.subscribe("a") as events:
                    task_status.started()
                    await anext(events)
                    await anyio.sleep_forever()

            await group.start(idle)
            await app.publish("a")
            raise ZeroDivisionError

    with anyio.fail_after(4):
        async with anyio.create_task_group() as group:
            with pytest.raises(ZeroDivisionError):
                await leave(group)
            group.cancel_scope.cancel()
