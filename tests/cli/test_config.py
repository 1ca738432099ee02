"""``dpcore config``: what holds here, and who said so."""

import json
import re

REDIS = """
from dpcore import Executor, Provider
from dpcore.config import Secret
class Redis(Executor):
    slots = window = 1
    def __init__(self, url: str, *, password: Secret | None = None): ...
    async def run(self, job, line): ...
def dpcore_executors():
    return [Provider(name="redis", target=Redis, extra="dpcore[redis]")]
"""


def test_every_adapter_is_there_with_its_settings_and_their_sources(command, write, folder, monkeypatch):
    write("dpcore.toml", "io = 'filesystem:./results'\ndisable = ['acme']\n[executors.multiprocess]\nworkers = 7\n")
    monkeypatch.setenv("DPCORE_IO_FILESYSTEM_SYNC", "1")
    said = command("config", "--store", "memory").stdout
    lines = [re.split("  +", line.strip()) for line in said.splitlines()]
    for line in (
        ["project", str(folder)],
        ["file", str(folder / "dpcore.toml")],
        ["disable", "acme (dpcore.toml)"],
        ["autoload", "no", "(DPCORE_PLUGIN_AUTOLOAD)"],
        ["executor = multiprocess", "(default)"],
        ["io = filesystem:./results", "(dpcore.toml)"],
        ["path", "str | Path", repr(str(folder / "results")), "dpcore.toml", "(default: '.dpcore/runs')"],
        ["store = memory", "(--store)"],
    ):
        assert line in lines
    workers = next(line for line in lines if line[0] == "workers")
    assert workers[:4] == ["workers", "int | None", "7", "dpcore.toml [executors.multiprocess]"]


def test_json_has_the_same(command, write, folder):
    write("pyproject.toml", "[tool.dpcore]\nstore = 'sqlite:r.db'\n")
    found = json.loads(command("config", "--json").stdout)
    assert found["file"] == str(folder / "pyproject.toml")
    store = found["adapters"]["store"]
    assert (store["adapter"], store["source"], store["problem"]) == (
        "sqlite:r.db",
        "pyproject.toml [tool.dpcore]",
        None,
    )
    path = store["settings"][0]
    assert (path["name"], path["value"], path["source"]) == ("path", repr(str(folder / "r.db")), store["source"])
    assert found["autoload"] == {"value": False, "source": "DPCORE_PLUGIN_AUTOLOAD"}


def test_secrets_are_hidden_wherever_they_stand(command, write, monkeypatch):
    write("acme.py", REDIS)
    monkeypatch.setenv("DPCORE_EXECUTOR_REDIS_PASSWORD", "hunter2")
    for text in ("redis://user:hunter2@host/0?token=hunter2", "redis:host?password=hunter2"):
        for options in ([], ["--json"]):
            said = command("config", "-p", "acme", "--executor", text, *options).output
            assert "hunter2" not in said
            assert "***" in said
    said = command("config", "--executor", "nobody://user:hunter2@host?x=hunter2").output
    assert "hunter2" not in said
    assert "problem: no plugin offers the executor 'nobody'" in said


def test_to_look_at_the_settings_makes_nothing(command, folder):
    said = command("config").stdout
    assert "no project file from here upward" in said
    assert "problem" not in said
    assert [*folder.iterdir()] == []


def test_an_adapter_that_is_not_written_as_one_is_told_where_it_stands(command, write):
    write("dpcore.toml", "io = 'File System'\n")
    said = command("config", code=2).stderr
    assert said.startswith("dpcore: dpcore.toml: adapter 'File System'")
