"""The command itself: help, versions, the commands of plugins, and what it says of mistakes."""

import ast
import os
import re
import subprocess
import sys

import pytest
from importlib_metadata import version

from dpcore.cli.commands import BUILT_IN
from dpcore.cli.options import KINDS
from dpcore.cli.plugins import plugins
from dpcore.cli.runs import runs
from dpcore.providers import KINDS as KINDS_OF_PROVIDERS

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("DPCORE_")}

PLUGINS = ["dpcore.cli.plugins"] + [
    f"dpcore.cli.plugins.{name}" for name in ("doctor", "found", "info", "listing", "why")
]

COMMANDS = [
    [],
    *([name] for name in BUILT_IN),
    *([group, name] for group, one in (("plugins", plugins), ("runs", runs)) for name in one.commands),
]

HELLO = """
import click
from dpcore import Command
print("imported the plugin", file=__import__("sys").stderr)
def dpcore_commands():
    return [Command("hello", "acme_hello:hello", "Say hello."), *EXTRA]
"""

COMMAND = """
import click
@click.command()
@click.argument("name")
def hello(name):
    print(f"hello {name}")
"""


@pytest.fixture
def acme(write):
    """A plugin with a command, and more of them."""

    def acme(extra="[]", name="acme", command=COMMAND):
        write(f"{name}.py", HELLO.replace("EXTRA", extra))
        write("acme_hello.py", command)

    return acme


def test_help_lists_every_command_with_its_summary(command):
    said = command("--help").stdout
    assert re.search(r"^  run +Run the tasks of a file or a module\.$", said, re.MULTILINE)
    assert [line.split()[0] for line in said.partition("Commands:\n")[2].splitlines()] == [
        "completion", "config", "plan", "plugins", "publish", "resume", "run", "runs", "schedules", "serve",
        "tail", "tasks",
    ]  # fmt: skip


@pytest.mark.parametrize("name", [one for one in COMMANDS if one != ["completion"]], ids=" ".join)
def test_the_help_of_each_command_has_an_example(command, name):
    assert re.search(rf"Examples?:\n +dpcore {' '.join(name)}", command(*name, "--help").stdout)


def test_the_version_is_that_of_the_distribution(command):
    assert command("--version").stdout == f"dpcore {version('dpcore')}\n"


def test_a_misspelt_command_is_told_the_nearest(command):
    said = command("rnu", code=2).stderr
    assert (
        "there is no command 'rnu' (there are: completion, config, plan, plugins, publish, resume, run, runs, schedules, serve, tail, tasks); did you mean 'run'?"
        in said
    )


@pytest.mark.parametrize("name", COMMANDS, ids=" ".join)
def test_the_help_of_no_command_imports_what_takes_its_time(folder, name):
    code = (
        "import sys\nfrom dpcore.cli.commands import cli\n"
        f"cli({[*name, '--help']}, standalone_mode=False)\nprint(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=CLEAN, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    ours = {one for one in loaded if one.startswith("dpcore.") and not one.startswith("dpcore.cli.")}
    assert ours == {"dpcore.cli", "dpcore.words"}
    assert not loaded & {"asyncio", "anyio", "json", "logging", "pluggy", "msgspec", "rich"}


def test_the_kinds_that_options_name_are_those_of_providers():
    assert (*KINDS_OF_PROVIDERS,) == KINDS


def test_help_and_the_list_of_plugins_import_no_adapter_and_no_other_command(folder):
    code = (
        "import sys\nfrom dpcore.cli.commands import cli\ncli([{!r}], standalone_mode=False)\n"
        "print([name for name in sys.modules if name.startswith(('dpcore_plugins.', 'dpcore.cli.r', 'dpcore.cli.pl'))])"
    )
    for argument, modules in (("--help", []), ("plugins", PLUGINS)):
        command = [sys.executable, "-c", code.format(argument)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        loaded = set(ast.literal_eval(done.stdout.splitlines()[-1]))
        assert loaded - {"dpcore.cli.refusal", "dpcore.cli.project"} == set(modules)


# ---------------------------------------------------------------- commands of plugins


def test_a_command_of_a_plugin_is_listed_and_imported_only_when_it_is_called(command, acme):
    acme(command="raise ValueError('imported')")
    said = command("-p", "acme", "--help").stdout
    assert re.search(r"Commands of plugins:\n  hello +Say hello\.", said)
    acme()
    assert command("-p", "acme", "hello", "you").stdout == "hello you\n"


def test_a_command_of_a_plugin_that_has_a_name_of_ours_is_refused(command, acme):
    acme("[Command('run', 'acme_hello:hello', 'Not ours.')]")
    help_ = command("-p", "acme", "--help")
    assert "the command 'run' of plugin 'acme' is left out, because dpcore has one of that name" in help_.stderr
    assert "Not ours." not in help_.stdout
    assert "hello" in help_.stdout
    assert "REFUSED: dpcore has a command of that name" in command("plugins", "-p", "acme").stdout


def test_a_command_that_two_plugins_offer_is_refused_when_it_is_called(command, acme):
    acme()
    acme(name="beta")
    said = command("-p", "acme", "-p", "beta", "hello", "you", code=2).stderr
    assert "the command 'hello' is offered by the plugins 'acme' and by 'beta'; block one of them" in said
    assert "dpcore -p no:beta hello" in said
    assert command("-p", "acme", "-p", "beta", "-p", "no:beta", "hello", "you").stdout == "hello you\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import surely_not_there", "ModuleNotFoundError: No module named 'surely_not_there'"),
        ("hello = 7", "the command 'hello' of plugin 'acme' is no click command, but 7"),
    ],
)
def test_a_command_that_cannot_be_had_is_one_message(command, acme, text, words):
    acme(command=text)
    said = command("-p", "acme", "hello", code=2).stderr
    assert "the command 'hello' of plugin 'acme'" in said
    assert words in said
    assert "Traceback" not in said


def test_help_is_shown_although_a_plugin_cannot_be_loaded(command):
    said = command("-p", "nobody", "--help")
    assert "Run the tasks of a file" in said.stdout
    assert "the commands of plugins are not listed: plugin 'nobody'" in said.stderr


# ---------------------------------------------------------------- settings that are wrong


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("dpcore.toml", "exceutor = 'threads'", "unknown key 'exceutor'"),
        ("dpcore.toml", "io = ", "dpcore.toml:1: is not TOML"),
        ("pyproject.toml", "[tool.dpcore]\nio = 7", "io = 7 must be an adapter in one string"),
    ],
)
def test_a_project_file_that_is_wrong_is_one_message(command, orders, write, file, text, words):
    write(file, text)
    for name in (["run", "orders.py"], ["plan", "orders.py"], ["runs"], ["plugins"]):
        said = command(*name, code=2).stderr
        assert said.startswith("dpcore: ")
        assert words in said
        assert "Traceback" not in said
