"""What a shell is offered, asked as a shell asks."""

import subprocess

import pytest

FLOW = """
from dpcore import Registry, task
import nothing_of_this_is_imported
tasks = Registry()

@task(tags=["nightly"], max_retries=limit)
def total(): ...

@tasks.task(name="named", tags=("etl",))
async def other(): ...

@task
def table(): ...

def no_task(): ...
"""


@pytest.fixture
def completed(start):
    """Complete the last word; return what is offered."""

    def completed(*words):
        process = start(
            _DPCORE_COMPLETE="bash_complete", COMP_WORDS=" ".join(["dpcore", *words]), COMP_CWORD=str(len(words))
        )
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        return [line.partition(",")[2] for line in out.splitlines() if line]

    return completed


def test_commands_are_completed_and_options(completed):
    assert completed("pl") == ["plan", "plugins"]
    assert completed("plugins", "d") == ["doctor"]
    assert "--fail-fast" in completed("run", "--f")


def test_tasks_and_tags_are_read_off_the_file_and_nothing_of_it_is_run(completed, write):
    write("flow.py", FLOW)
    assert completed("run", "flow.py", "") == ["total", "named", "table", "tag:nightly", "tag:etl"]
    assert completed("plan", "flow", "ta") == ["table", "tag:nightly", "tag:etl"]
    assert completed("run", "flow.py", "+to") == ["+total"]
    assert completed("run", "flow.py", "--tag", "n") == ["nightly"]
    assert completed("run", "nowhere.py", "") == []
    write("broken.py", "def (")
    assert completed("run", "broken.py", "") == []


def test_files_and_folders_are_completed(completed, write):
    write("flow.py", "")
    write("flows/nightly.py", "")
    write("flows/notes.txt", "")
    assert completed("run", "f") == ["flow.py", "flows/"]
    assert completed("run", "flows/n") == ["flows/nightly.py"]
    assert completed("run", "nowhere/") == []


def test_adapters_are_completed_also_those_of_plugins(completed, write):
    assert completed("run", "flow.py", "--executor", "") == ["inline", "threads", "multiprocess"]
    write("dpcore.toml", "plugins = ['not_there']")
    assert completed("pl") == ["plan", "plugins"]
    assert completed("run", "flow.py", "--executor", "") == []


def test_plugins_are_completed_and_adapters_by_their_kind_or_all_of_them(completed):
    assert completed("plugins", "info", "") == [
        "memory",
        "multiprocess",
        "cron",
        "interval",
        "once",
        "event",
        "manual",
        "api",
        "filesystem",
        "inline",
        "threads",
        "sqlite",
        "default",
    ]
    assert completed("plugins", "why", "io", "f") == ["filesystem"]
    assert completed("run", "flow.py", "-p", "") == ["default"]
    assert completed("run", "flow.py", "-p", "no:") == ["no:default"]


def test_runs_are_completed_that_the_store_has(completed, command, orders, folder):
    assert completed("runs", "show", "") == ["latest"]
    assert [file.name for file in folder.iterdir()] == ["orders.py"]
    command("run", "orders.py")
    run_id = command("runs").stdout.split()[-1]
    assert completed("runs", "show", "") == ["latest", run_id]
    assert completed("runs", "show", run_id[:6]) == [run_id]
    assert completed("run", "orders.py", "--from-run", "l") == ["latest"]
    assert completed("runs", "show", "--store", "nonsense", "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_is_one_that_asks_dpcore(command, shell):
    said = command("completion", shell).stdout
    assert f"_DPCORE_COMPLETE={shell}_complete" in said
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=said, text=True, check=True)


def test_without_a_shell_it_says_what_to_do(command):
    assert 'eval "$(dpcore completion zsh)"' in command("completion").stdout
    assert "'tcsh' is not one of" in command("completion", "tcsh", code=2).stderr
