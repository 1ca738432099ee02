"""``dpcore plugins``: plugins and what they offer, whatever is wrong with some of them."""

import json
import sys

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
    assert "brokers\n  loud  acme  says what passes" in said
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
