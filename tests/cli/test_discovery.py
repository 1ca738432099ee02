"""Whether plugins can be there: never no, where there are some."""

import os
import subprocess
import sys

import pytest

import dpcore_plugins
from dpcore.hookspecs import SPECS

ASK = "from dpcore.cli.discovery import only_the_bundle; print(only_the_bundle())"


@pytest.fixture
def certain(folder):
    """Ask in a process of its own, with the folder on its path."""

    def certain(path=folder, **environ):
        environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("DPCORE_")},
            "PYTHONPATH": str(path),
            **environ,
        }
        done = subprocess.run(
            [sys.executable, "-P", "-c", ASK], env=environ, capture_output=True, text=True, check=True
        )
        return done.stdout.strip() == "True"

    return certain


def test_without_a_word_of_any_there_is_only_the_bundle(certain, write):
    assert certain()
    write("pyproject.toml", "[project]\nname = 'x'\n")
    write("other-1.dist-info/entry_points.txt", "[console_scripts]\ndpcore = other\n\n[pytest11]\ndpcore = other\n")
    assert certain()
    assert certain(path="/nowhere/at/all")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("dpcore.toml", ""),
        ("pyproject.toml", "[tool.dpcore]\n"),
        ("acme-1.dist-info/entry_points.txt", "[other]\na = b\n[dpcore]\nacme = acme\n"),
        ("acme.egg-info/entry_points.txt", "[dpcore]\nacme = acme\n"),
        ("acme-1.egg/EGG-INFO/entry_points.txt", "[dpcore]\nacme = acme\n"),
        ("dpcore-9.dist-info/entry_points.txt", "[dpcore]\ndefault = somebody_else\n"),
    ],
)
def test_what_may_bring_a_plugin_is_seen(certain, write, file, text):
    write(file, text)
    assert not certain()


def test_a_plugin_beside_the_project_file_is_seen(certain, write):
    write("dpcore_conf.py", "")
    assert certain()
    write("pyproject.toml", "[project]\nname = 'x'\n")
    assert not certain()


@pytest.mark.parametrize("name", ["DPCORE_PLUGINS", "DPCORE_DISABLE_PLUGINS", "DPCORE_PLUGIN_AUTOLOAD"])
def test_a_word_in_the_environment_is_seen(certain, name):
    assert not certain(**{name: "1"})


def test_a_place_that_is_no_folder_is_not_passed_over(certain, write):
    archive = write("plugins.zip", "")
    assert not certain(path=archive)


def test_the_bundle_itself_offers_no_commands():
    assert "dpcore_commands" in SPECS
    assert not hasattr(dpcore_plugins, "dpcore_commands")
