"""``dpcore plugins``: plugins and what they offer, whatever is wrong with some of them."""

import json
import re
import sys
from pathlib import Path

import pytest

PLUGIN = """
from dpcore import Provider
def dpcore_{hook}():
    return [Provider(name="{name}", target="{name}_adapter:Adapter", summary="{summary}", api={api})]
"""


@pytest.fixture
def plugin(write):
    """Write a plugin module that offers one adapter, whose module would fail."""

    def plugin(module, hook="brokers", name="loud", summary="says what passes", api=1):
        write(f"{module}.py", PLUGIN.format(hook=hook, name=name, summary=summary, api=api))
        write(f"{name}_adapter.py", "raise RuntimeError('imported')")

    return plugin


@pytest.fixture
def installed(write, folder, monkeypatch):
    """Install distributions, as far as entry points and metadata go."""
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delenv("DPCORE_PLUGIN_AUTOLOAD")

    def installed(module, version):
        info = f"{module}-{version}.dist-info"
        write(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {module.replace('_', '-')}\nVersion: {version}\n")
        write(f"{info}/entry_points.txt", f"[dpcore]\n{module} = {module}\n")

    return installed


def rows(text):
    return [line.split() for line in text.splitlines()]


def test_the_bundle_and_what_it_offers_are_listed(command):
    said = command("plugins").stdout
    assert rows(said)[1][:2] == ["default", "dpcore"]
    assert rows(said)[1][-1] == "active"
    assert any(row[:2] == ["filesystem", "dpcore"] for row in rows(said))


def test_a_plugin_is_listed_with_what_it_offers_and_nothing_is_imported(command, plugin):
    plugin("acme")
    said = command("plugins", "-p", "acme").stdout
    assert ["acme", "-", "-", "option", "acme", "active"] in rows(said)
    assert re.search(r"^brokers$.*^  loud +acme +says what passes$", said, re.MULTILINE | re.DOTALL)
    assert "loud_adapter" not in sys.modules


def test_json_has_everything(command, plugin):
    plugin("acme")
    found = json.loads(command("plugins", "--json", "-p", "acme").stdout)
    assert [(one["name"], one["state"], one["source"]) for one in found["plugins"]] == [
        ("default", "active", "bundle"),
        ("acme", "active", "option"),
    ]
    loud = next(one for one in found["adapters"] if one["name"] == "loud")
    assert (loud["kind"], loud["qualified"], loud["target"]) == ("broker", "loud@acme", "loud_adapter:Adapter")
    store = next(one for one in found["adapters"] if one["name"] == "sqlite")
    assert (store["kind"], store["capabilities"]) == ("store", ["durable", "shared"])
    assert found["commands"] == []


def test_one_kind_is_shown_if_it_is_asked_for(command, plugin):
    plugin("acme")
    found = json.loads(command("plugins", "--kind", "broker", "--json", "-p", "acme").stdout)
    assert [one["name"] for one in found["adapters"] if one["plugin"] == "acme"] == ["loud"]
    assert {one["kind"] for one in found["adapters"]} == {"broker"}
    assert "'brokers' is not one of" in command("plugins", "--kind", "brokers", code=2).stderr


def test_names_that_clash_and_ports_that_do_not_fit_are_marked(command, plugin):
    plugin("acme")
    plugin("beta")
    plugin("gamma", hook="executors", name="threads")
    plugin("delta", hook="queues", name="newer", api=9)
    said = command("plugins", *(f"-p{name}" for name in ("acme", "beta", "gamma", "delta"))).stdout
    assert "CONFLICT: say loud@acme; says" in said
    assert "CONFLICT: say loud@beta; says" in said
    assert "shadows the bundled one; CONFLICT: say threads@gamma" in said
    assert "CONFLICT: say threads@dpcore" in said
    assert "INCOMPATIBLE: written for version 9 of its port" in said


def test_an_installed_plugin_is_listed_with_its_version_and_a_broken_one_with_its_cause(
    command, plugin, installed, write
):
    plugin("dp_acme")
    installed("dp_acme", "2.1")
    write("dp_broken.py", "import surely_not_there")
    installed("dp_broken", "0.3")
    said = command("plugins").stdout
    assert ["dp_acme", "dp-acme", "2.1", "installed", "dp_acme", "active"] in rows(said)
    assert ["dp_broken", "dp-broken", "0.3", "installed", "dp_broken", "broken:"] in [row[:6] for row in rows(said)]
    assert "ModuleNotFoundError: No module named 'surely_not_there'" in said
    assert "blocked: blocked by -p no:dp-acme" in command("plugins", "-p", "no:dp-acme").stdout


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (None, "is neither an installed plugin nor a module that can be imported"),
        ("import surely_not_there", "does not import: ModuleNotFoundError: No module named 'surely_not_there'"),
        ("raise SystemExit('no')", "does not import: SystemExit: no"),
        ("async def dpcore_plan(plan): ...", "implements dpcore_plan with 'async def', but hooks never wait"),
        ("def dpcore_brokers(): raise ValueError('no')", "dpcore_brokers raised ValueError: no"),
        ("def dpcore_commands(): return 7", "dpcore_commands returned 7, which is no list of Command"),
    ],
)
def test_a_plugin_that_was_asked_for_and_is_broken_is_listed_as_that(command, plugin, write, text, cause):
    plugin("acme")
    if text is not None:
        write("broken.py", text)
    found = json.loads(command("plugins", "-p", "broken", "-p", "acme", "--json").stdout)
    broken = next(one for one in found["plugins"] if one["name"] == "broken")
    assert (broken["state"], broken["source"]) == ("broken", "option")
    assert cause in broken["cause"]
    assert "loud" in [one["name"] for one in found["adapters"]]


def test_a_projects_own_plugin_that_is_broken_is_listed_as_that(command, write, folder):
    write("dpcore.toml", "")
    write("dpcore_conf.py", "1 / 0")
    found = json.loads(command("plugins", "--json").stdout)
    conf = found["plugins"][-1]
    assert (conf["name"], conf["state"], conf["source"]) == ("dpcore_conf.py", "broken", "project")
    assert conf["module"] == str(folder / "dpcore_conf.py")
    assert "ZeroDivisionError" in conf["cause"]


def test_two_that_are_broken_are_both_listed(command, write):
    said = command("plugins", "-p", "first", "-p", "second").stdout
    assert [row[0] for row in rows(said) if "broken:" in row] == ["first", "second"]


# ---------------------------------------------------------------- info

REDIS = """
from dpcore import Executor, Provider
from dpcore.config import Secret
class Redis(Executor):
    capabilities = frozenset({"kills"})
    slots = window = 1
    def __init__(self, url: str, *, password: Secret | None = None, size: int, mode: str = "fast"): ...
    async def run(self, job, line): ...
def dpcore_executors():
    return [Provider(name="redis", target=Redis, schemes=("rediss",))]
"""


def test_info_tells_each_setting_with_its_type_its_value_and_where_that_comes_from(command, write, monkeypatch):
    write("dpcore.toml", "io = 'filesystem:./results'\n[executors.threads]\nslots = 7\n")
    monkeypatch.setenv("DPCORE_IO_FILESYSTEM_SYNC", "yes")
    said = command("plugins", "info", "filesystem").stdout
    assert "I/O manager filesystem: results as pickles below a folder\n" in said
    assert "capabilities  copies, shared" in said
    assert "chosen        by dpcore.toml" in said
    lines = [re.split("  +", line.strip()) for line in said.splitlines()]
    folder = str(Path.cwd() / "results")
    assert ["path", "str | Path", repr(folder), "dpcore.toml", "(default: '.dpcore/runs')"] in lines
    assert ["sync", "bool", "True", "DPCORE_IO_FILESYSTEM_SYNC", "(default: False)"] in lines
    assert "slots  int   7      dpcore.toml [executors.threads]" in command("plugins", "info", "threads").stdout
    assert "slots  int   3      option" in command("plugins", "info", "threads?slots=3").stdout
    said = command("plugins", "info", "inline").stdout
    assert "chosen        no\n  it has no settings\n" in said


def test_info_hides_secrets_and_says_what_is_required(command, write, monkeypatch):
    write("acme.py", REDIS)
    monkeypatch.setenv("DPCORE_EXECUTOR_REDIS_PASSWORD", "hunter2")
    said = command("plugins", "info", "rediss://user:hunter2@host/0", "-p", "acme")
    assert "hunter2" not in said.output
    assert re.search(r"password +Secret \| None +\*\*\* +DPCORE_EXECUTOR_REDIS_PASSWORD", said.stdout)
    assert re.search(r"url +str +'rediss://user:\*\*\*@host/0' +option$", said.stdout, re.MULTILINE)
    assert re.search(r"size +int +\(required, and not set\) +-$", said.stdout, re.MULTILINE)
    found = json.loads(command("plugins", "info", "redis", "-p", "acme", "--json").stdout)["adapters"][0]
    assert found["capabilities"] == ["kills"]
    password = next(one for one in found["settings"] if one["name"] == "password")
    assert (password["value"], password["secret"], password["required"]) == ("***", True, False)


def test_info_of_a_name_of_several_shows_each_and_what_is_wrong_with_it(command, plugin):
    plugin("acme", hook="run_stores", name="memory")
    said = command("plugins", "info", "memory", "-p", "acme").stdout
    assert (said.count("run store memory:"), said.count("I/O manager memory:")) == (2, 1)
    assert "state         conflict" in said
    assert "problem: the run store 'memory' of acme cannot be imported" in said
    assert "RuntimeError: imported" in said
    assert (
        command("plugins", "info", "memory@acme", "--kind", "store", "-p", "acme").stdout.count("run store memory:")
        == 1
    )


def test_info_of_a_plugin_says_what_it_offers(command, plugin):
    plugin("acme")
    said = command("plugins", "info", "acme", "-p", "acme").stdout
    assert said.startswith("plugin acme\n")
    assert re.search(r"hooks +dpcore_brokers\n +offers +broker loud\n", said)
    assert "executor threads" in command("plugins", "info", "default").stdout


def test_info_of_what_is_not_there_is_told_the_nearest(command):
    said = command("plugins", "info", "sqlte", code=2).stderr
    assert "there is no adapter or plugin 'sqlte'; dpcore plugins lists them; did you mean 'sqlite'?" in said
    assert "there is no executor 'sqlite'" in command("plugins", "info", "sqlite", "--kind", "executor", code=2).stderr


# ---------------------------------------------------------------- why


def test_why_says_who_offers_it_and_what_is_used(command, plugin, write):
    said = command("plugins", "why", "store", "sqlite").stdout
    assert "the run store 'sqlite' is sqlite@dpcore, the only one of that name" in said
    assert "dpcore run uses sqlite@dpcore: store = sqlite:.dpcore/runs.db, by default" in said
    write("dpcore.toml", "io = 'nobodys'\n")
    said = command("plugins", "why", "io", "file").stdout
    assert "the I/O manager 'file' is filesystem@dpcore" in said
    assert "dpcore run would use what cannot be had: io = 'nobodys', by dpcore.toml" in said


def test_why_tells_a_conflict_and_both_ways_out_of_it(command, plugin):
    plugin("acme")
    plugin("beta")
    options = ["-p", "acme", "-p", "beta"]
    said = command("plugins", "why", "broker", "loud", *options, code=1).stdout
    assert "the broker 'loud' is offered by 2 plugins, and none is taken silently; say loud@acme or loud@beta" in said
    assert "block one: -p no:acme or -p no:beta" in said
    said = command("plugins", "why", "broker", "loud@beta", *options).stdout
    assert "the broker 'loud@beta' is loud@beta, because 'loud@beta' says so, of these:\n  loud@acme: " in said
    assert (
        "no plugin offers the broker 'loud@gamma'"
        in command("plugins", "why", "broker", "loud@gamma", *options, code=1).stdout
    )


def test_why_tells_what_was_left_out_and_might_have_offered_it(command, plugin, write):
    plugin("acme", api=9)
    write("broken.py", "import surely_not_there")
    said = command("plugins", "why", "broker", "loud", "-p", "acme", code=1).stdout
    assert "it cannot be used: it was written for version 9 of its port" in said
    said = command("plugins", "why", "queue", "loud", "-p", "broken", "-p", "no:default", code=1).stdout
    assert "no plugin offers the queue 'loud'\n" in said
    assert "default@dpcore might, but it is blocked: blocked by -p no:default" in said
    assert "broken might, but it is broken: " in said
    assert "'name?setting=value'" in command("plugins", "why", "queue", "Loud!", code=2).stderr


# ---------------------------------------------------------------- doctor


def test_the_doctor_finds_nothing_where_nothing_is_wrong(command, folder, monkeypatch):
    monkeypatch.setenv("DPCORE_EXECUTOR_THREADS_SLOTS", "2")
    for name in ("DPCORE_TEST_WHEEL", "DPCORE_REQUIRE_SERVICES"):
        monkeypatch.delenv(name, raising=False)
    assert command("plugins", "doctor").stdout == "looked at 1 plugin and 17 adapters: nothing wrong\n"
    assert command("plugins", "doctor", "--json").stdout == "[]\n"
    assert [*folder.iterdir()] == []


def test_the_doctor_finds_what_is_wrong_with_plugins(command, plugin, write):
    plugin("acme")
    plugin("beta")
    plugin("gamma", hook="executors", name="multiprocess")
    plugin("delta", hook="queues", name="newer", api=9)
    write("broken.py", "import surely_not_there")
    write("loud_commands.py", "from dpcore import Command\ndef dpcore_commands(): return [Command('run', 'a:b')]")
    names = ("acme", "beta", "gamma", "delta", "broken", "loud_commands")
    said = command("plugins", "doctor", *(f"-p{name}" for name in names), code=1).stdout
    for words in (
        "wrong   plugin broken: is broken: ",
        "wrong   broker loud: is offered by 2 plugins; say loud@acme or loud@beta",
        "wrong   executor multiprocess: is offered by 2 plugins (one shadows what ships with dpcore); say",
        "wrong   queue newer@delta: is written for version 9 of its port, and this dpcore takes 1 to 1",
        "wrong   command run: of plugin loud_commands is refused",
        "wrong   executor, chosen by default: the executor 'multiprocess' is offered by",
        ": 6 things wrong",
    ):
        assert words in said


def test_the_doctor_finds_names_that_nobody_has_and_what_is_blocked(command, plugin, write, monkeypatch):
    plugin("acme")
    write(
        "dpcore.toml",
        "plugins = ['acme']\ndisable = ['defualt']\nstore = 'sqlite?path=x&sync=maybe'\n[io_managers.filesystm]\n",
    )
    monkeypatch.setenv("DPCORE_DISABLE_PLUGINS", "acme")
    monkeypatch.setenv("DPCORE_EXECUTR", "inline")
    monkeypatch.setenv("DPCORE_SOMETHING_ELSE", "x")
    monkeypatch.syspath_prepend(Path.cwd())
    said = command("plugins", "doctor", "-p", "no:acne", code=1).stdout
    for words in (
        "wrong   no:defualt: blocks no plugin, in dpcore.toml; did you mean 'default'?",
        "wrong   no:acne: blocks no plugin, in -p no:acne; did you mean 'acme'?",
        "remark  plugin acme: is asked for by dpcore.toml, and blocked by DPCORE_DISABLE_PLUGINS",
        "wrong   DPCORE_EXECUTR: is read by nobody; did you mean 'DPCORE_EXECUTOR'?",
        "remark  DPCORE_SOMETHING_ELSE: is read by nobody",
        "wrong   I/O manager filesystm: has settings in dpcore.toml (io_managers), and no plugin offers it; did you mean",
        "wrong   store, chosen by dpcore.toml: run store 'sqlite': setting 'sync' = 'maybe', from dpcore.toml, does not",
    ):
        assert words in said


def test_the_doctor_finds_installations_that_hide_others_and_slow_imports(command, plugin, installed, write):
    plugin("dp_acme")
    installed("dp_acme", "2.1")
    installed("dp_acme", "2.0")
    said = command("plugins", "doctor", code=1).stdout
    assert "wrong   distribution dp-acme: is there 2 times, and the first is used: 2." in said
    write("slow.py", "import threading\nthreading.Event().wait(0.3)\n")
    said = command("plugins", "doctor", "-p", "slow", code=1).stdout
    assert re.search(r"^remark  plugin slow: takes 0\.\d\d s to import, which everybody waits for", said, re.MULTILINE)
