"""Plugins that are really installed: distributions with entry points, in interpreters of their own."""

import ensurepip
import importlib.util
import json
import os
import random
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import importlib_metadata
import pytest

ROOT = Path(__file__).parent.parent

OFFERING = """
import pathlib
pathlib.Path(__file__).with_suffix(".ran").touch()
from dpcore import providers
def dpcore_brokers():
    return [providers.Provider(name={name!r}, target="{module}_adapter:Broker")]
"""

PREAMBLE = """
import json, sys
from dpcore.config import Config
from dpcore.errors import DpcoreError
from dpcore.plugins import Plugins
from dpcore.providers import Provider

class Bundle:
    def dpcore_brokers(self):
        return [Provider(name="memory", target="dpcore.providers:Command")]

def shown(plugins):
    return [[one.qualified, one.state, one.cause, one.version, one.source] for one in plugins.installed]

def words(question, *arguments):
    try:
        return str(question(*arguments))
    except DpcoreError as error:
        return f"{type(error).__name__}: {error}"
"""


def files_of(name, text, version="1.0", entry=None, module=None):
    """Return the files of a distribution as a wheel has them: one module, its metadata, its entry point."""
    module = module or name.replace("-", "_")
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    files = {
        f"{module}.py": text,
        f"{module}_adapter.py": "class Broker:\n    pass\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[dpcore]\n{entry or name} = {module}\n",
    }
    record = f"{info}/RECORD"
    return files | {record: "".join(f"{file},,\n" for file in [*files, record])}


class Environment:
    """A folder on the path of another interpreter, in which distributions are installed.

    Beside it there is what dpcore needs, without its metadata: plugins that are
    installed where the tests run are not seen.
    """

    def __init__(self, folder, needed):
        self.folder, self.needed = folder, needed
        folder.mkdir(exist_ok=True)

    def install(self, name, text=None, broker="loud", **options):
        module = options.get("module") or name.replace("-", "_")
        text = OFFERING.format(name=broker, module=module) if text is None else text
        for file, content in files_of(name, text, **options).items():
            (self.folder / file).parent.mkdir(exist_ok=True)
            (self.folder / file).write_text(content)

    def has_run(self, module):
        return (self.folder / f"{module}.ran").exists()

    def ask(self, question, arguments="bundle=Bundle()", setup="", **environ):
        """Return what *question*, an expression about ``plugins``, is in that interpreter."""
        code = f"{PREAMBLE}\n{setup}\nplugins = Plugins({arguments})\nprint(json.dumps({question}))\n"
        return json.loads(run(sys.executable, code, self.folder, self.needed, **environ))

    def states(self, arguments="bundle=Bundle()", **environ):
        """Return the state of each plugin but the bundle."""
        found = self.ask("shown(plugins)", arguments, **environ)
        return {qualified: state for qualified, state, _, _, source in found if source != "bundle"}


def run(interpreter, code, *path, **environ):
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("DPCORE_", "PYTHON"))}
    clean |= {"PYTHONPATH": os.pathsep.join(map(str, [*path, ROOT]))} | environ
    command = [interpreter, "-S", "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=clean, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def needed(tmp_path_factory):
    """Every module that is installed here, but of the metadata only dpcore's."""
    folder = tmp_path_factory.mktemp("needed")
    for site in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for file in Path(site).iterdir():
            is_ours = file.name.startswith("dpcore-")
            if is_ours or not file.name.endswith((".dist-info", ".egg-info", ".pth", "__pycache__")):
                (folder / file.name).symlink_to(file)
    return folder


@pytest.fixture
def environment(tmp_path, needed):
    return Environment(tmp_path / "site", needed)


# ---------------------------------------------------------------- found


def test_an_installed_plugin_is_found_with_its_distribution_and_version(environment):
    environment.install("Acme_Loud", version="2.1", entry="loud-plugin", module="acme_loud")
    plugins, offers, adapters = environment.ask(
        "[shown(plugins), [one.qualified for one in plugins.offers('broker')],"
        " [name for name in sys.modules if name.endswith('_adapter')]]"
    )
    assert plugins[1] == ["loud-plugin@acme-loud", "active", None, "2.1", "installed"]
    assert offers == ["memory@dpcore", "loud@acme-loud"]
    assert adapters == []
    assert "acme_loud_adapter.Broker" in environment.ask("str(plugins.make('broker', 'loud'))")


def test_the_order_does_not_depend_on_that_of_the_folder(tmp_path, needed):
    expected = ["default@dpcore", "b@acme", "z@acme2", "a@beta", "y@zeta"]
    for number in range(3):
        environment = Environment(tmp_path / f"site{number}", needed)
        some = [("zeta", "y"), ("beta", "a"), ("acme", "b"), ("acme2", "z")]
        random.Random(number).shuffle(some)
        for name, entry in some:
            environment.install(name, entry=entry, broker=name)
        assert [qualified for qualified, *_ in environment.ask("shown(plugins)")] == expected


def test_the_order_is_ours_even_if_metadata_comes_in_any_order(environment):
    for name in ("acme", "beta", "zeta"):
        environment.install(name, broker=name)
    shuffle = (
        "import importlib_metadata\n"
        "found = importlib_metadata.distributions\n"
        "importlib_metadata.distributions = lambda: reversed(list(found()))\n"
    )
    assert environment.ask("shown(plugins)", setup=shuffle) == environment.ask("shown(plugins)")


def test_the_first_of_a_distribution_that_lies_twice_on_the_path_hides_the_other(tmp_path, needed):
    first, second = Environment(tmp_path / "first", needed), Environment(tmp_path / "second", needed)
    first.install("acme", version="2.0")
    second.install("acme", version="1.0")
    code = f"{PREAMBLE}\nprint(json.dumps(shown(Plugins(bundle=False))))"
    found = json.loads(run(sys.executable, code, first.folder, second.folder, needed))
    assert found == [["acme@acme", "active", None, "2.0", "installed"]]


def test_the_bundle_is_there_once(environment):
    [[name, state, _, version, source]] = environment.ask("shown(plugins)", "")
    assert (name, state, source) == ("default@dpcore", "active", "bundle")
    assert version == importlib_metadata.version("dpcore")


# ---------------------------------------------------------------- broken


def test_a_plugin_that_fails_to_import_stops_nobody(environment):
    environment.install("broken", "import surely_not_there\n", version="0.3")
    environment.install("exiting", "raise SystemExit('no')\n")
    environment.install("loud")
    found = {one[0]: one for one in environment.ask("shown(plugins)")}
    file = environment.folder / "broken.py"
    cause = f"ModuleNotFoundError: No module named 'surely_not_there' ({file}:1)"
    assert found["broken@broken"] == ["broken@broken", "broken", cause, "0.3", "installed"]
    assert found["exiting@exiting"][1] == "broken"
    assert found["loud@loud"][1] == "active"
    error = environment.ask("words(plugins.offer, 'broker', 'redis')")
    assert error.startswith("AdapterNotFoundError: no plugin offers the broker 'redis' (there are: 'memory', 'loud'")
    assert f"these plugins are broken and might offer it: broken@broken ({cause}); exiting@exiting (SystemExit" in error


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("def dpcore_broker(): ...\n", "implements dpcore_broker, which is no hook; did you mean 'dpcore_brokers'?"),
        ("async def dpcore_plan(plan): ...\n", "implements dpcore_plan with 'async def', but hooks never wait"),
        ("def dpcore_plan(plna): ...\n", "the unknown argument 'plna' (it takes: plan); did you mean 'plan'?"),
    ],
)
def test_a_plugin_with_a_hook_that_could_not_work_is_broken(environment, text, cause):
    environment.install("wrong", text)
    assert environment.states()["wrong@wrong"] == "broken"
    assert cause in next(one for one in environment.ask("shown(plugins)") if one[0] == "wrong@wrong")[2]


def test_a_broken_plugin_that_was_asked_for_raises(environment):
    environment.install("broken", "import surely_not_there\n")
    environment.install("wrong", "def dpcore_broker(): ...\n")
    for named, words in (
        ("broken", "PluginNotFoundError: plugin 'broken@broken' (asked for by -p broken) does not import: ModuleNot"),
        ("wrong@wrong", "PluginError: plugin 'wrong@wrong' implements dpcore_broker, which is no hook; did you mean"),
    ):
        question, arguments = "words(plugins.offers, 'broker')", f"bundle=Bundle(), load=[{named!r}]"
        assert environment.ask(question, arguments).startswith(words)


def test_damaged_metadata_of_one_package_is_not_everybodys_trouble(environment):
    environment.install("loud")
    environment.install("damaged")
    (environment.folder / "damaged-1.0.dist-info/entry_points.txt").write_bytes(b"[dpcore]\nx = \xff\xff")
    assert environment.states()["loud@loud"] == "active"


# ---------------------------------------------------------------- clashing


def test_two_that_offer_one_name_conflict_when_it_is_used(environment):
    environment.install("acme")
    environment.install("rival")
    environment.install("third", broker="other")
    assert environment.ask("words(plugins.load, 'broker', 'other')") == "<class 'third_adapter.Broker'>"
    assert environment.ask("words(plugins.load, 'broker', 'loud')") == (
        "ConflictError: the broker 'loud' is offered by acme and by rival; "
        "say which is meant with loud@acme or loud@rival, or block one of the plugins"
    )
    assert environment.ask("words(plugins.load, 'broker', 'loud@rival')") == "<class 'rival_adapter.Broker'>"


def test_to_shadow_what_is_bundled_is_the_same_conflict(environment):
    environment.install("acme", broker="memory")
    assert "memory@dpcore or memory@acme" in environment.ask("words(plugins.load, 'broker', 'memory')")
    assert environment.ask("words(plugins.load, 'broker', 'memory')", "bundle=Bundle(), block=['acme']") == (
        "<class 'dpcore.providers.Command'>"
    )


def test_two_entries_of_one_name_both_live(environment):
    environment.install("acme", entry="same", broker="one")
    environment.install("rival", entry="same", broker="two")
    assert environment.states() == {"same@acme": "active", "same@rival": "active"}
    assert environment.ask("[one.qualified for one in plugins.offers('broker')][1:]") == ["one@acme", "two@rival"]
    assert environment.states("block=['same@acme']") == {"same@acme": "blocked", "same@rival": "active"}


def test_two_entries_for_one_module_are_not_registered_twice(environment):
    environment.install("acme")
    environment.install("rival", module="acme")
    assert environment.states() == {"acme@acme": "active", "rival@rival": "broken"}


# ---------------------------------------------------------------- blocked


@pytest.mark.parametrize("name", ["loud-plugin", "acme-loud", "Acme.Loud", "loud-plugin@acme_loud"])
@pytest.mark.parametrize("way", ["block", "load", "environment", "file"])
def test_a_blocked_plugin_is_never_imported(environment, tmp_path, name, way):
    environment.install("acme-loud", entry="loud-plugin")
    (tmp_path / "pyproject.toml").write_text(f"[tool.dpcore]\ndisable = [{name!r}]\n")
    arguments, environ, cause = {
        "block": (f"block=[{name!r}]", {}, "block="),
        "load": (f"load=['no:{name}']", {}, f"-p no:{name}"),
        "environment": ("", {"DPCORE_DISABLE_PLUGINS": name}, "DPCORE_DISABLE_PLUGINS"),
        "file": (f"config=Config({str(tmp_path / 'pyproject.toml')!r})", {}, "pyproject.toml [tool.dpcore]"),
    }[way]
    found = environment.ask("(plugins.offers('broker'), shown(plugins))[1]", arguments, **environ)
    assert ["loud-plugin@acme-loud", "blocked", f"blocked by {cause}", "1.0", "installed"] in found
    assert not environment.has_run("acme_loud")


def test_the_call_unblocks_what_the_environment_blocks_whatever_it_calls_it(environment):
    environment.install("acme-loud", entry="loud-plugin")
    disabled = {"DPCORE_DISABLE_PLUGINS": "acme-loud"}
    assert environment.states("load=['loud-plugin']", **disabled) == {"loud-plugin@acme-loud": "active"}
    assert environment.states("load=['loud-plugin'], block=['acme-loud']") == {"loud-plugin@acme-loud": "blocked"}


def test_what_is_not_blocked_is_imported(environment):
    environment.install("acme-loud", entry="loud-plugin")
    environment.states()
    assert environment.has_run("acme_loud")


def test_without_autoload_only_named_plugins_are_loaded(environment):
    environment.install("acme", entry="one", broker="one")
    environment.install("rival", entry="two", broker="two")
    off = {"DPCORE_PLUGIN_AUTOLOAD": "0"}
    assert environment.states(**off) == {"one@acme": "blocked", "two@rival": "blocked"}
    assert not environment.has_run("acme")
    assert not environment.has_run("rival")
    both = {"one@acme": "active", "two@rival": "blocked"}
    assert environment.states("load=['one']", **off) == both
    assert environment.states("load=['acme'], autoload=False") == both
    assert environment.states(DPCORE_PLUGINS="one@acme", **off) == both
    assert environment.states("autoload=True", **off) == {"one@acme": "active", "two@rival": "active"}
    assert environment.states("load=['one@ACME', 'rival']", **off) == {"one@acme": "active", "two@rival": "active"}
    assert environment.ask("shown(plugins)", "bundle=Bundle()", **off)[0][:2] == ["default@dpcore", "active"]


def test_nothing_installed_is_looked_for_unless_it_is_wanted(environment):
    environment.install("acme")
    assert environment.states("installed=False") == {}
    assert not environment.has_run("acme")


# ---------------------------------------------------------------- with pip


def pip():
    """Return how to run a pip, and with which path: an installed one, or the wheel that comes with Python."""
    if importlib.util.find_spec("pip"):
        return Path(importlib.util.find_spec("pip").origin).parent.parent
    return next((Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl"), None)


@pytest.mark.skipif(pip() is None, reason="there is no pip to install with")
def test_a_wheel_that_pip_installed_is_found_and_gone_when_it_is_uninstalled(tmp_path, needed):
    wheel = tmp_path / "acme_loud-1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        text = OFFERING.format(name="loud", module="acme_loud")
        for file, content in files_of("acme-loud", text, version="1.2", entry="loud-plugin").items():
            archive.writestr(file, content)
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv/bin/python"

    def ask():
        question = "print(words(Plugins(bundle=Bundle()).load, 'broker', 'loud'))"
        return run(python, f"import site; site.main()\n{PREAMBLE}\n{question}", needed).strip()

    def install(*arguments):
        code = "import runpy, sys; sys.argv[0] = 'pip'; runpy.run_module('pip', run_name='__main__')"
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "PYTHON"))}
        environ |= {"PYTHONPATH": str(pip()), "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        subprocess.run([python, "-c", code, *arguments], env=environ, check=True, timeout=120, capture_output=True)

    assert ask().startswith("AdapterNotFoundError")
    install("install", "--no-index", "--no-deps", str(wheel))
    assert ask() == "<class 'acme_loud_adapter.Broker'>"
    install("uninstall", "--yes", "acme-loud")
    assert ask().startswith("AdapterNotFoundError")
