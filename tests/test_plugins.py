"""Finding plugins, and the adapters in them: with objects alone, whatever is installed."""

import functools
import logging
import pickle
import re
import subprocess
import sys
import types

import anyio
import pytest

from dpcore import App
from dpcore.config import AdapterString, Config, Level, Secret, Value
from dpcore.errors import (
    AdapterImportError,
    AdapterNotFoundError,
    ArgumentError,
    ConfigError,
    ConflictError,
    PluginError,
    PluginNotFoundError,
    SettingError,
)
from dpcore.hookspecs import PREFIX, SPECS, hookimpl
from dpcore.plugins import Plugins, blame, import_target
from dpcore.providers import KINDS, Command, Provider


class Loud:
    def __init__(self, *, volume: int = 1, password: Secret | None = None):
        self.volume = volume


class Quiet:
    def __init__(self, url: str):
        self.url = url


class LoudPlugin:
    def dpcore_brokers(self):
        return [Provider(name="loud", target=Loud, schemes=("louds",)), Provider(name="quiet", target=Quiet)]


class Bundle:
    @staticmethod
    def dpcore_brokers():
        return [Provider(name="memory", target="not_there:MemoryBroker", extra="dpcore[memory]")]


def alone(*plugins, config=None, bundle=False, **options):
    return Plugins(*plugins, installed=False, bundle=bundle, config=config or Config(environ={}), **options)


def offering(*providers, hook="dpcore_brokers"):
    return types.SimpleNamespace(**{hook: lambda: providers})


def again(error):
    """The words of an error, which are the same after a trip to another process."""
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    return str(error)


def python(*lines):
    code = "\n".join(lines)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout


# ---------------------------------------------------------------- adapters by name


def test_an_adapter_is_found_by_its_name_and_by_its_schemes():
    plugins = alone(LoudPlugin())
    assert plugins.load("broker", "loud") is Loud
    assert plugins.load("broker", "louds://x") is Loud
    assert plugins.offer("broker", "loud").qualified == "loud@LoudPlugin"
    assert plugins.offers("queue") == []


def test_an_adapter_is_made_from_a_string_a_class_or_is_one_already():
    plugins = alone(LoudPlugin())
    assert plugins.make("broker", "loud?volume=3").volume == 3
    assert plugins.make("broker", AdapterString.parse("loud?volume=3")).volume == 3
    assert plugins.make("broker", Loud).volume == 1
    assert plugins.make("broker", "quiet://here").url == "quiet://here"
    made = Loud()
    assert plugins.make("broker", made) is made


def test_settings_are_those_of_the_adapter_also_under_another_scheme():
    config = Config(environ={"DPCORE_BROKER_LOUD_VOLUME": "7"})
    assert alone(LoudPlugin(), config=config).make("broker", "louds").volume == 7
    assert alone(LoudPlugin()).make("broker", "loud", config).volume == 7
    said = Value("loud?volume=2", "pyproject.toml [tool.dpcore]", Level.FILE)
    assert alone(LoudPlugin(), config=config).make("broker", said).volume == 7
    assert alone(LoudPlugin(), config=config).make("broker", "loud?volume=2").volume == 2


def test_a_bad_string_says_where_it_was_written():
    with pytest.raises(ConfigError, match=r"^DPCORE_BROKER: adapter 'Loud'"):
        alone().make("broker", Value("Loud", "DPCORE_BROKER", Level.ENVIRONMENT))
    with pytest.raises(SettingError, match="broker 'loud': setting 'volum' is unknown"):
        alone(LoudPlugin()).make("broker", "loud?volum=3")


def test_an_unknown_adapter_is_told_what_there_is():
    failing = types.SimpleNamespace(dpcore_brokers=lambda: 1 / 0)
    plugins = alone(LoudPlugin(), failing, LoudPlugin(), block=["LoudPlugin-2"])
    with pytest.raises(AdapterNotFoundError) as caught:
        plugins.offer("broker", "laud")
    words = again(caught.value)
    assert "no plugin offers the broker 'laud' (there are: 'loud', 'quiet'); did you mean 'loud'?" in words
    assert "these plugins are broken and might offer it: SimpleNamespace (dpcore_brokers raised ZeroDiv" in words
    assert "these plugins are blocked and might offer it: LoudPlugin-2" in words


def test_an_adapter_of_another_distribution_is_told_whose_there_are():
    with pytest.raises(AdapterNotFoundError) as caught:
        alone(LoudPlugin()).offer("broker", "loud", "acme")
    assert "no plugin offers the broker 'loud@acme' (there are: 'loud@LoudPlugin')" in again(caught.value)


def test_an_unknown_kind_is_told_the_nearest():
    with pytest.raises(ConfigError, match=r"there is no kind 'brokers' .*did you mean 'broker'"):
        alone().offers("brokers")


def test_two_of_one_name_conflict_when_the_name_is_used_and_one_can_be_picked():
    plugins = alone(bundle=Bundle())
    plugins.register(offering(Provider(name="memory", target=Loud)), "acme")
    plugins.register(offering(Provider(name="other", target=Quiet)), "other")
    assert [(offer.qualified, offer.state) for offer in plugins.offers("broker")] == [
        ("memory@dpcore", "conflict"),
        ("memory@acme", "conflict"),
        ("other@other", "ok"),
    ]
    with pytest.raises(ConflictError) as caught:
        plugins.make("broker", "memory")
    words = again(caught.value)
    assert "the broker 'memory' is offered by dpcore and by acme" in words
    assert "say which is meant with memory@dpcore or memory@acme" in words
    assert isinstance(plugins.make("broker", "memory@acme"), Loud)
    assert plugins.offer("broker", "memory", "default").distribution == "dpcore"


def test_a_scheme_that_is_another_ones_name_is_a_conflict_too():
    plugins = alone(LoudPlugin(), offering(Provider(name="louds", target=Loud)))
    with pytest.raises(ConflictError, match="louds@LoudPlugin or louds@SimpleNamespace"):
        plugins.load("broker", "louds://x")


def test_an_adapter_that_cannot_be_imported_says_what_to_install():
    with pytest.raises(AdapterImportError) as caught:
        alone(bundle=Bundle()).load("broker", "memory")
    assert again(caught.value) == (
        "the broker 'memory' of dpcore cannot be imported: ModuleNotFoundError: No module named 'not_there'; "
        "what it needs comes with: pip install 'dpcore[memory]'"
    )
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("dpcore.providers:Nope", "AttributeError: module 'dpcore.providers' has no attribute 'Nope'"),
        ("dpcore.providers:KINDS", "TypeError: dpcore.providers:KINDS is no class"),
    ],
)
def test_a_target_that_is_no_class_is_an_adapter_that_cannot_be_imported(target, words):
    with pytest.raises(AdapterImportError) as caught:
        alone(offering(Provider(name="odd", target=target))).load("broker", "odd")
    assert words in again(caught.value)


def test_an_adapter_for_a_later_port_is_refused_before_it_is_imported():
    plugins = alone(offering(Provider(name="new", target="not_there:New", api=2)))
    assert [offer.state for offer in plugins.offers("broker")] == ["incompatible"]
    with pytest.raises(PluginError) as caught:
        plugins.load("broker", "new")
    assert again(caught.value) == (
        "plugin 'SimpleNamespace' offers the broker 'new' for version 2 of its port, and this dpcore takes 1 to 1; "
        "upgrade dpcore"
    )


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (None, "dpcore_brokers returned None, which is no list of Provider"),
        ("loud", "dpcore_brokers returned 'loud', which is no list of Provider"),
        ({"loud": Loud}, "dpcore_brokers returned 'loud', which is no Provider"),
        ([Provider(name="loud", target=Loud)] * 2, "dpcore_brokers returned 'loud' twice"),
    ],
)
def test_a_plugin_that_offers_no_providers_is_broken_and_the_others_go_on(result, words, caplog):
    plugins = alone(types.SimpleNamespace(dpcore_brokers=lambda: result), LoudPlugin())
    assert [offer.provider.name for offer in plugins.offers("broker")] == ["loud", "quiet"]
    assert [(record.state, record.cause) for record in plugins.installed] == [("broken", words), ("active", None)]
    assert "plugin 'SimpleNamespace' is broken" in caplog.text


def test_a_plugin_that_makes_a_bad_provider_is_broken_at_its_own_line():
    plugins = alone(types.SimpleNamespace(dpcore_brokers=lambda: [Provider(name="Loud", target=Loud)]))
    assert plugins.offers("broker") == []
    cause = plugins.installed[0].cause
    assert cause.startswith("dpcore_brokers raised ProviderError: provider 'Loud': name='Loud' must be")
    assert f"({__file__}:" in cause


def test_offers_are_collected_once_and_again_when_plugins_change():
    calls = []
    plugins = alone(types.SimpleNamespace(dpcore_brokers=lambda: calls.append(1) or []))
    plugins.offers("broker")
    plugins.offers("broker")
    assert len(calls) == 1
    with plugins.temporary(LoudPlugin()):
        assert [offer.provider.name for offer in plugins.offers("broker")] == ["loud", "quiet"]
    assert plugins.offers("broker") == []


@pytest.mark.parametrize("kind", KINDS)
def test_hook_of_each_kind_offers_adapters(kind):
    plugins = alone(offering(Provider(name="one", target=Loud), hook=KINDS[kind].hook))
    assert plugins.load(kind, "one") is Loud
    with pytest.raises(AdapterNotFoundError, match=f"no plugin offers the {KINDS[kind].word} 'two'"):
        plugins.load(kind, "two")


# ---------------------------------------------------------------- what a hook may look like


class Misspelt:
    def dpcore_run_chnged(self):
        pass


class Waiting:
    async def dpcore_run_changed(self):
        pass


class WaitingGenerator:
    async def dpcore_brokers(self):
        yield


class WrongArgument:
    def dpcore_task_changed(self, tsk):
        pass


class Defaulting:
    def dpcore_plan(self, plan=None):
        pass


class KeywordOnly:
    def dpcore_plan(self, *, plan):
        pass


class Greedy:
    def dpcore_plan(self, *plans):
        pass


class Wrapping:
    @hookimpl(wrapper=True)
    def dpcore_brokers(self):
        yield


class Yielding:
    def dpcore_started(self):
        yield


class Partial:
    dpcore_plan = functools.partial(print)


@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        (Misspelt(), "'Misspelt' implements dpcore_run_chnged, which is no hook; did you mean 'dpcore_run_changed'?"),
        (Waiting(), "implements dpcore_run_changed with 'async def', but hooks never wait; make it a plain 'def'"),
        (WaitingGenerator(), "implements dpcore_brokers with 'async def', but hooks never wait"),
        (WrongArgument(), "implements dpcore_task_changed with the unknown argument 'tsk' (it takes: run, task,"),
        (WrongArgument(), "; did you mean 'task'?"),
        (Defaulting(), "implements dpcore_plan with a default for 'plan', which would never be used; drop it"),
        (KeywordOnly(), "implements dpcore_plan with the keyword-only argument 'plan'; drop the '*' before it"),
        (Greedy(), "implements dpcore_plan with *plans, but a hook names the arguments it wants (plan)"),
        (Wrapping(), "implements dpcore_brokers as a hook wrapper, but there is nothing to wrap around"),
        (Yielding(), "implements dpcore_started with a 'yield', so its body would never run"),
        (Partial(), "has a dpcore_plan that is no plain function, but functools.partial("),
        (LoudPlugin, "unknown argument 'self' (it takes: no arguments); the plugin is a class: pass an object of it"),
        ("acme", "plugin \"'acme'\" is no object with hooks; plugins are named with load=[...]"),
        (None, "is no object with hooks"),
    ],
)
def test_a_hook_that_could_not_work_is_refused_when_it_is_registered(plugin, words):
    with pytest.raises(PluginError) as caught:
        alone(plugin)
    assert words in again(caught.value)


def test_a_plugin_that_was_refused_leaves_nothing_behind():
    plugins = alone()
    with pytest.raises(PluginError):
        plugins.register(types.SimpleNamespace(dpcore_brokers=list, dpcore_plan=lambda p: p))
    assert plugins.installed == []
    assert plugins.offers("broker") == []


def test_a_hook_may_be_marked_and_renamed_and_optional():
    class Marked:
        @hookimpl(specname="dpcore_brokers")
        def mine(self):
            return [Provider(name="mine", target=Loud)]

        @hookimpl(optionalhook=True)
        def dpcore_of_tomorrow(self):
            pass

    plugins = alone(Marked())
    assert plugins.load("broker", "mine") is Loud
    assert [record.hooks for record in plugins.installed] == [("dpcore_brokers",)]


def test_looking_at_a_plugin_imports_nothing_from_it():
    module = types.ModuleType("lazy")

    def load(name):
        raise AssertionError(f"imported {name}")

    module.__getattr__ = load
    module.__dir__ = lambda: [*vars(module), "dpcore_brokers", "MemoryBroker"]
    assert alone(module).installed[0].hooks == ()


def test_every_hook_says_when_in_which_process_and_what_an_exception_does():
    assert {spec.kind for spec in SPECS.values()} == {"offer", "shape", "observe", "live"}
    for spec in SPECS.values():
        assert spec.name.startswith(PREFIX)
        for word in ("Called", "process", "exception"):
            assert word in spec.doc, spec.name


# ---------------------------------------------------------------- registering


def test_plugins_are_listed_with_what_they_are():
    record = alone(LoudPlugin()).installed[0]
    assert (record.name, record.qualified) == ("LoudPlugin", "LoudPlugin")
    assert (record.source, record.state) == ("object", "active")
    assert record.module.endswith("test_plugins:LoudPlugin")
    assert record.hooks == ("dpcore_brokers",)


def test_a_plugin_is_registered_once():
    plugin = LoudPlugin()
    plugins = alone(plugin, LoudPlugin())
    assert [record.name for record in plugins.installed] == ["LoudPlugin", "LoudPlugin-2"]
    with pytest.raises(PluginError, match="'LoudPlugin' is registered already"):
        plugins.register(plugin)
    with pytest.raises(PluginError, match="'other' is the same object as the plugin 'LoudPlugin'"):
        plugins.register(plugin, "other")


def test_a_plugin_can_be_taken_out():
    plugin = LoudPlugin()
    plugins = alone(plugin)
    assert plugins.unregister("LoudPlugin") is plugin
    assert plugins.installed == []
    with pytest.raises(PluginNotFoundError, match="plugin 'LoudPlugin' is not registered"):
        plugins.unregister("LoudPlugin")
    assert plugins.register(plugin) == "LoudPlugin"


def test_a_temporary_plugin_goes_also_when_the_block_fails():
    plugins = alone()
    with pytest.raises(ZeroDivisionError), plugins.temporary(LoudPlugin(), "loud") as name:
        raise ZeroDivisionError(name)
    assert plugins.installed == []


@pytest.mark.parametrize(
    ("options", "environ", "cause"),
    [
        ({"block": ["LoudPlugin"]}, {}, "blocked by block="),
        ({"load": ["no:LoudPlugin"]}, {}, "blocked by -p no:LoudPlugin"),
        ({}, {"DPCORE_DISABLE_PLUGINS": "x,LoudPlugin"}, "blocked by DPCORE_DISABLE_PLUGINS"),
    ],
)
def test_a_blocked_plugin_is_listed_and_left_out(options, environ, cause):
    plugins = alone(LoudPlugin(), config=Config(environ=environ), **options)
    assert [(record.state, record.cause) for record in plugins.installed] == [("blocked", cause)]
    assert plugins.offers("broker") == []


def test_the_call_unblocks_what_the_environment_blocks():
    config = Config(environ={"DPCORE_DISABLE_PLUGINS": "json.tool"})
    assert alone(load=["json.tool"], config=config).installed[0].state == "active"
    assert alone(load=["json.tool", "no:json.tool"]).installed == []
    assert alone(load=["no:json.tool", "json.tool"]).installed[0].state == "active"
    assert alone(load=["json.tool"], block=["json.tool"]).installed == []


def test_names_are_passed_in_a_list():
    with pytest.raises(TypeError, match=r"block='acme' must be a list of names, such as block=\['acme'\]"):
        alone(block="acme")


def test_a_bundle_can_be_another_object_none_or_blocked():
    assert [record.qualified for record in alone(bundle=Bundle()).installed] == ["default@dpcore"]
    assert alone(bundle=False).installed == []
    assert alone(bundle=Bundle(), block=["default"]).installed[0].state == "blocked"
    assert alone(bundle=Bundle(), autoload=False).installed[0].state == "active"
    shipped = alone(bundle=True).installed[0]
    assert (shipped.module, shipped.source) == ("dpcore_plugins", "bundle")


# ---------------------------------------------------------------- plugins by name, and a project's own


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to import from, which is forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_module_is_loaded_by_its_name(folder):
    (folder / "named_plugin.py").write_text("class Inner:\n    @staticmethod\n    def dpcore_plan(plan): ...\n")
    config = Config(environ={"DPCORE_PLUGINS": "named_plugin:Inner"})
    for options in ({"load": ["named_plugin:Inner"]}, {"config": config}):
        record = alone(**options).installed[0]
        assert (record.name, record.source, record.hooks) == ("named_plugin:Inner", "option", ("dpcore_plan",))


def test_a_module_that_is_not_there_raises_at_every_question():
    plugins = alone(load=["not_there_at_all"], bundle=Bundle())
    for _ in range(2):
        with pytest.raises(PluginNotFoundError) as caught:
            plugins.offers("broker")
        assert again(caught.value) == (
            "plugin 'not_there_at_all' (asked for by -p not_there_at_all) is neither an installed plugin nor a module "
            "that can be imported (installed: 'default')"
        )


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("import not_there\n", "ModuleNotFoundError: No module named 'not_there' ({file}:1)"),
        ("\n1 / 0\n", "ZeroDivisionError: division by zero ({file}:2)"),
        ("raise SystemExit(3)\n", "SystemExit: 3 ({file}:1)"),
        ("def\n", "SyntaxError: invalid syntax (failing_plugin.py, line 1)"),
    ],
)
def test_a_named_module_that_fails_to_import_raises_with_the_line(folder, text, cause):
    file = folder / "failing_plugin.py"
    file.write_text(text)
    with pytest.raises(PluginNotFoundError) as caught:
        _ = alone(load=["failing_plugin"]).installed
    assert again(caught.value) == (
        f"plugin 'failing_plugin' (asked for by -p failing_plugin) does not import: {cause.format(file=file)}"
    )


def test_a_named_module_with_a_bad_hook_raises(folder):
    (folder / "misspelt_plugin.py").write_text("def dpcore_broker(): ...\n")
    with pytest.raises(PluginError, match="'misspelt_plugin' implements dpcore_broker, which is no hook"):
        _ = alone(load=["misspelt_plugin"]).installed


def test_a_project_has_a_plugin_of_its_own(folder, tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    plugins = alone()
    assert plugins.load_conf(project) is None
    (project / "beside_conf.py").write_text("NAME = 'loud'\n")
    (project / "dpcore_conf.py").write_text(
        "import beside_conf\nfrom dpcore.providers import Provider\n"
        "def dpcore_brokers():\n    return [Provider(name=beside_conf.NAME, target='x:Y')]\n"
    )
    record = plugins.load_conf(project)
    assert (record.name, record.source, record.hooks) == ("dpcore_conf.py", "project", ("dpcore_brokers",))
    assert plugins.load_conf(project / "dpcore_conf.py") == record
    assert "dpcore_conf" not in sys.modules
    assert [offer.qualified for offer in plugins.offers("broker")] == ["loud@dpcore_conf.py"]
    assert alone(block=["dpcore_conf.py"]).load_conf(project).state == "blocked"


def test_two_projects_can_have_one_each(folder):
    for name in "ab":
        (folder / name).mkdir()
        (folder / name / "dpcore_conf.py").write_text(f"def dpcore_commands():\n    return {name!r}\n")
    plugins = alone()
    first, second = plugins.load_conf(folder / "a"), plugins.load_conf(folder / "b")
    assert (first.name, second.name) == ("dpcore_conf.py", str(folder / "b" / "dpcore_conf.py"))


def test_a_project_plugin_that_fails_raises(folder):
    file = folder / "dpcore_conf.py"
    with pytest.raises(PluginNotFoundError, match=r"plugin 'dpcore_conf\.py' is not there: /"):
        alone().load_conf(file)
    file.write_text("1 / 0\n")
    for _ in range(2):
        with pytest.raises(PluginNotFoundError, match="does not import: ZeroDivisionError: division by zero") as caught:
            alone().load_conf(folder)
        assert f"({file}:1)" in again(caught.value)


# ---------------------------------------------------------------- calling hooks


class Seen:
    """An observer that remembers."""

    def __init__(self):
        self.seen = []

    def dpcore_run_changed(self, new, run):
        self.seen.append((new, run))


def test_hook_run_changed_gives_an_observer_what_it_asks_for():
    plugin = Seen()
    for observe in alone(plugin).observers("dpcore_run_changed"):
        observe("run", "old", "new")
    assert plugin.seen == [("new", "run")]


def test_hook_task_changed_may_take_everything_or_nothing():
    seen = []

    class All:
        def dpcore_task_changed(self, run, task, attempt, old, new, outcome):
            seen.append((run, task, attempt, old, new, outcome))

    class Nothing:
        def dpcore_task_changed(self):
            seen.append(())

    for observe in alone(All(), Nothing()).observers("dpcore_task_changed"):
        observe(1, 2, 3, 4, 5, 6)
    assert seen == [(1, 2, 3, 4, 5, 6), ()]


@pytest.mark.anyio
async def test_hook_event_published_and_event_settled_see_each_event_once():
    seen = []

    class Watching:
        def dpcore_event_published(self, event):
            seen.append(("published", event.data))

        def dpcore_event_settled(self, settled, group, event):
            seen.append((settled, group, event.data))

    async with App(plugins=Plugins(Watching(), autoload=False)) as app:
        await app.publish("a", 1)
        await app.publish_many("a", [2, 3])
        async with app.consume("a", group="g") as events:
            assert [(await anext(events)).data for _ in range(3)] == [1, 2, 3]
    assert seen == [*(("published", number) for number in (1, 2, 3)), *(("ack", "g", number) for number in (1, 2, 3))]


@pytest.mark.anyio
async def test_hook_schedule_fired_sees_each_firing_and_hook_add_schedules_adds_them_once():
    seen = []

    class Adding:
        def dpcore_add_schedules(self, app):
            app.schedule("a", {"manual": True}, publish="tick")

        def dpcore_schedule_fired(self, firing, schedule):
            seen.append((schedule.name, firing.body))

    app = App(plugins=Plugins(Adding(), autoload=False))
    for _ in range(2):
        async with app, anyio.create_task_group() as group:
            await group.start(app.serve)
            await app.fire("a", 7)
            group.cancel_scope.cancel()
    assert seen == [("a", 7)] * 2


@pytest.mark.anyio
async def test_hook_add_schedules_that_fails_ends_the_start_with_the_name_of_its_plugin():
    class Failing:
        def dpcore_add_schedules(self, app):
            app.schedule("a b", {"manual": True}, publish="tick")

    async with App(plugins=Plugins(Failing(), autoload=False)) as app:
        with pytest.raises(ArgumentError, match="name='a b' must be identifiers") as caught:
            await app.serve()
    assert "Failing" in caught.value.__notes__[0]


def test_the_list_of_observers_is_one_and_is_kept_up_to_date():
    plugins = alone()
    observers = plugins.observers("dpcore_run_changed")
    assert observers == []
    plugin = Seen()
    with plugins.temporary(plugin):
        assert len(observers) == 1
        assert plugins.observers("dpcore_run_changed") is observers
    assert observers == []


def test_an_observer_that_raises_is_logged_and_stops_nobody(caplog):
    class Failing:
        def dpcore_run_changed(self, run):
            raise ZeroDivisionError("nothing")

    plugin = Seen()
    with caplog.at_level(logging.DEBUG, "dpcore.plugins"):
        for observe in alone(Failing(), plugin).observers("dpcore_run_changed"):
            observe("run", "old", "new")
            observe("run", "old", "newer")
    assert plugin.seen == [("new", "run"), ("newer", "run")]
    assert [record.levelname for record in caplog.records] == ["WARNING", "DEBUG"]
    for record in caplog.records:
        assert "plugin 'Failing' failed in dpcore_run_changed" in record.message
        assert "ZeroDivisionError: nothing" in record.message
        assert re.findall(r'File "(.*)"', record.message) == [__file__]


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_is_not_kept_from_it(ending):
    class Ending:
        def dpcore_run_changed(self):
            raise ending

    with pytest.raises(ending):
        alone(Ending()).observers("dpcore_run_changed")[0](1, 2, 3)


def adding(text, **options):
    class Adding:
        @hookimpl(**options)
        def dpcore_plan(self, plan):
            return plan + text

    return Adding()


def test_hook_plan_is_a_chain_in_the_order_of_the_plugins():
    nothing = types.SimpleNamespace(dpcore_plan=lambda plan: None)
    plugins = alone(adding("b"), nothing, adding("c"), adding("d", trylast=True), adding("a", tryfirst=True))
    assert plugins.shape("-") == "-abcd"
    assert alone().shape("-") == "-"


def test_a_plan_hook_that_fails_or_returns_no_plan_is_named():
    with pytest.raises(ZeroDivisionError) as caught:
        alone(types.SimpleNamespace(dpcore_plan=lambda plan: 1 / 0)).shape("-")
    assert caught.value.__notes__ == ["in dpcore_plan of plugin 'SimpleNamespace'"]
    with pytest.raises(PluginError) as wrong:
        alone(types.SimpleNamespace(dpcore_plan=lambda plan: 4)).shape("-")
    assert again(wrong.value) == "plugin 'SimpleNamespace' returned 4 from dpcore_plan, which is no plan"


def test_hook_commands_offers_commands_and_imports_none():
    hello = Command("hello", "not_there:hello", "Say hello.")
    broken = types.SimpleNamespace(dpcore_commands=lambda: [1])
    plugins = alone(types.SimpleNamespace(dpcore_commands=lambda: [hello]), broken)
    assert plugins.commands() == [(hello, "SimpleNamespace")]
    assert plugins.installed[1].cause == "dpcore_commands returned 1, which is no Command"


class Living:
    def __init__(self, name, log, fails=False):
        self.name, self.log, self.fails = name, log, fails

    def dpcore_started(self, app):
        self.log.append(("started", self.name, app))
        if self.fails:
            raise ZeroDivisionError

    def dpcore_stopping(self):
        self.log.append(("stopping", self.name))
        if self.fails:
            raise ZeroDivisionError


def test_hooks_started_and_stopping_go_in_order_and_back():
    log = []
    plugins = alone(Living("a", log), Living("b", log))
    plugins.live("dpcore_started", "app")
    plugins.live("dpcore_stopping", "app")
    assert log == [("started", "a", "app"), ("started", "b", "app"), ("stopping", "b"), ("stopping", "a")]


def test_hooks_worker_started_and_worker_stopping_go_in_order_and_back_and_fail_for_themselves(caplog):
    log = []

    class Working:
        def __init__(self, name):
            self.name = name

        def dpcore_worker_started(self, worker):
            log.append((worker, self.name))
            raise ZeroDivisionError

        def dpcore_worker_stopping(self, worker):
            log.append((worker, self.name))

    plugins = alone(Working("a"), Working("b"))
    plugins.live("dpcore_worker_started", 1)
    plugins.live("dpcore_worker_stopping", 1)
    assert log == [(1, "a"), (1, "b"), (1, "b"), (1, "a")]
    assert "plugin 'Working' failed in dpcore_worker_started" in caplog.text


def test_plugins_that_were_pickled_are_the_same_and_are_imported_when_they_are_called():
    plugins = Plugins(LoudPlugin(), block=["nobody"], installed=False)
    arrived = pickle.loads(pickle.dumps(plugins))
    assert arrived.installed == plugins.installed
    assert {kind: arrived.offers(kind) for kind in KINDS} == {kind: plugins.offers(kind) for kind in KINDS}
    assert arrived.load("broker", "loud") is Loud
    later = arrived.register(offering(Provider(name="later", target=Loud)))
    assert [offer.qualified for offer in arrived.offers("broker")] == [
        *(offer.qualified for offer in plugins.offers("broker")),
        f"later@{later}",
    ]


def test_a_plugin_that_does_not_pickle_still_has_its_offers_and_is_missed_when_it_is_called(caplog):
    plugin = types.SimpleNamespace(dpcore_brokers=lambda: [Provider(name="lambda", target=Loud)])
    arrived = pickle.loads(pickle.dumps(alone(plugin)))
    assert arrived.load("broker", "lambda") is Loud
    arrived.register(LoudPlugin())
    with pytest.raises(AdapterNotFoundError, match="these plugins are broken and might offer it: SimpleNamespace"):
        arrived.load("broker", "lambda")
    assert "plugin 'SimpleNamespace' is not to be had in this process: PluginError" in caplog.text


def test_a_start_that_fails_is_raised_and_a_stop_that_fails_is_logged(caplog):
    log = []
    plugins = alone(Living("a", log), Living("b", log, fails=True), Living("c", log))
    with pytest.raises(ZeroDivisionError) as caught:
        plugins.live("dpcore_started", "app")
    assert caught.value.__notes__ == ["in dpcore_started of plugin 'Living-2'"]
    assert blame(caught.value).endswith("in dpcore_started of plugin 'Living-2'")
    assert blame(ValueError("no hook's")) is None
    assert [entry[1] for entry in log] == ["a", "b"]
    log.clear()
    plugins.live("dpcore_stopping", "app")
    assert [entry[1] for entry in log] == ["c", "b", "a"]
    assert "plugin 'Living-2' failed in dpcore_stopping" in caplog.text


def test_every_hook_has_a_test_here():
    tested = " ".join(name for name in globals() if name.startswith("test_hook"))
    for spec in SPECS.values():
        assert spec.kind == "offer" or spec.name.removeprefix(PREFIX) in tested, spec.name


# ---------------------------------------------------------------- what it costs


def test_importing_and_making_plugins_looks_for_none():
    loaded = python(
        "import sys, dpcore.plugins",
        "dpcore.plugins.Plugins()",
        "print(*sys.modules)",
    ).split()
    assert not {"importlib_metadata", "importlib.metadata", "dpcore_plugins", "tomllib", "asyncio"} & {*loaded}


def test_a_question_that_needs_no_discovery_makes_none():
    loaded = python(
        "import sys, dpcore.plugins",
        "dpcore.plugins.Plugins(installed=False).installed",
        "print(*sys.modules)",
    ).split()
    assert "dpcore_plugins" in loaded
    assert "importlib_metadata" not in loaded


def test_a_target_may_be_deep():
    assert import_target("dpcore.providers") is sys.modules["dpcore.providers"]
    assert import_target("dpcore.providers:Provider.name") is Provider.name


def test_names_that_block_nothing_and_names_that_are_overruled_are_known(tmp_path):
    file = tmp_path / "dpcore.toml"
    file.write_text("plugins = ['dp_one', 'kept']\ndisable = ['misspelt']\n")
    config = Config(file, environ={"DPCORE_DISABLE_PLUGINS": "dp_one"})
    plugins = alone(LoudPlugin(), config=config, block=["LoudPlugin", "kept", "nobody@DP_None"])
    assert plugins.misnamed == [("misspelt", "dpcore.toml"), ("nobody@DP_None", "block=")]
    assert plugins.overruled == [("dp_one", "dpcore.toml", "DPCORE_DISABLE_PLUGINS"), ("kept", "dpcore.toml", "block=")]
    assert alone(LoudPlugin()).misnamed == alone(LoudPlugin()).overruled == []


def test_a_plugin_says_how_long_its_import_took(tmp_path, monkeypatch):
    (tmp_path / "dp_slow.py").write_text("import threading\nthreading.Event().wait(0.05)\n")
    monkeypatch.syspath_prepend(tmp_path)
    plugins = alone(load=["dp_slow"])
    assert [record.seconds >= 0.05 for record in plugins.installed] == [True]
