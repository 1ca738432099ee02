"""Settings, their sources, and the grammar of adapters."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dpcore.config import (
    AdapterString,
    Config,
    Level,
    Secret,
    Value,
    build,
    canonical,
    kind_named,
    settings_of,
    settle,
)
from dpcore.errors import AdapterNotMadeError, ConfigError, DpcoreError, SettingError

parse = AdapterString.parse


def empty():
    return Config(environ={})


# ---------------------------------------------------------------- the grammar


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("threads", AdapterString("threads")),
        ("redis@dp-redis", AdapterString("redis", "dp-redis")),
        ("multiprocess?workers=4&x=", AdapterString("multiprocess", settings={"workers": "4", "x": ""})),
        ("multiprocess?name=a%20b%26c", AdapterString("multiprocess", settings={"name": "a b&c"})),
        ("filesystem:./runs", AdapterString("filesystem", address="./runs")),
        ("filesystem:/a%3Fb?mode=x", AdapterString("filesystem", address="/a?b", settings={"mode": "x"})),
        ("sqlite@dpcore:runs.db", AdapterString("sqlite", "dpcore", "runs.db")),
        ("fsspec:s3://bucket/prefix", AdapterString("fsspec", address="s3://bucket/prefix")),
        ("redis://localhost:6379/0", AdapterString("redis", address="redis://localhost:6379/0")),
        ("redis@dp-redis://u:p@h/0?a=1", AdapterString("redis", "dp-redis", "redis://u:p@h/0?a=1", {"a": "1"})),
        ("file:///runs", AdapterString("file", address="file:///runs")),
        ("filesystem:100%", AdapterString("filesystem", address="100%")),
    ],
)
def test_an_adapter_is_written_in_one_string(text, expected):
    assert parse(text) == expected
    assert parse(str(parse(text))) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "does not begin with the name of an adapter"),
        ("Redis", "does not begin with the name of an adapter"),
        ("redis@", "does not begin with the name of an adapter"),
        ("redis/0", "does not begin with the name of an adapter"),
        ("threads\n", "does not begin with the name of an adapter"),
        ("filesystem:", "there is no path after the ':'"),
        ("threads?slots", "there must be setting=value"),
        ("threads?=4", "there must be setting=value"),
        ("threads?slots=4&&x=1", "there must be setting=value"),
        ("threads?slots=4&slots=5", "setting 'slots' is there twice"),
        ("redis:redis%3A//host", "the name is there twice"),
        ("\ud800", "surrogates not allowed"),
        (4, "it is no text"),
    ],
)
def test_a_string_that_is_no_adapter_is_told_the_grammar(text, problem):
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert problem in str(caught.value)
    assert "write 'name', 'name?setting=value', 'name:path' or 'name://host/...'" in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_bad_string_says_where_it_stands():
    with pytest.raises(ConfigError, match=r"^DPCORE_IO: adapter 'Nope': it does not begin"):
        parse("Nope", "DPCORE_IO")


@given(st.text() | st.from_regex(r"[a-z]{1,4}(@[a-z-]{1,3})?(:|://|\?)?[a-z/%:?&=#@. ]{0,12}", fullmatch=True))
@example("a:%2F%2Fx")
@example("a:%2f/x?b=%3D")
@example("a:\ud800")
def test_whatever_the_text_it_is_read_or_refused_and_reads_the_same_when_written(text):
    try:
        read = parse(text)
    except DpcoreError:
        return
    assert parse(str(read)) == read
    assert pickle.loads(pickle.dumps(read)) == read


@given(
    st.from_regex(r"[a-z][a-z0-9-]{0,5}", fullmatch=True),
    st.none() | st.text(min_size=1),
    st.dictionaries(st.text(min_size=1), st.text()),
)
def test_whatever_an_adapter_is_told_can_be_written(name, path, settings):
    adapter = AdapterString(name, None, path, settings)
    if not adapter.is_url:
        assert parse(str(adapter)) == adapter


def test_an_adapter_string_does_not_show_what_may_be_secret():
    shown = repr(parse("redis://me:hunter2@host/0")) + repr(parse("redis?password=hunter2"))
    assert shown == "<AdapterString redis://me:***@host/0><AdapterString redis?password=***>"
    assert repr(parse("redis://host?password=hunter2")) == "<AdapterString redis://host?***>"
    with pytest.raises(ConfigError) as caught:
        parse("Redis://me:hunter2@host/0")
    assert "hunter2" not in str(caught.value)


def test_the_names_of_distributions_compare_as_indexes_compare_them():
    assert canonical("DP__Redis.x") == "dp-redis-x"


def test_a_kind_that_is_none_is_told_the_nearest():
    assert kind_named("io") == "io"
    with pytest.raises(ConfigError, match=r"there is no kind 'brokr' .* did you mean 'broker'"):
        kind_named("brokr")


# ---------------------------------------------------------------- the sources


def write(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_the_call_outweighs_the_environment_and_that_the_file_and_that_the_default(tmp_path):
    file = write(tmp_path / "pyproject.toml", '[tool.dpcore]\nio = "filesystem:runs"\n')
    both = Config(file, environ={"DPCORE_IO": "memory"})
    assert both.choice("io", "null") == Value("null", "the call", Level.CALL)
    assert both.choice("io") == Value("memory", "DPCORE_IO", Level.ENVIRONMENT)
    assert Config(file, environ={}).choice("io") == Value("filesystem:runs", "pyproject.toml [tool.dpcore]", Level.FILE)
    assert empty().choice("io", default="memory") == Value("memory", "default", Level.DEFAULT)


def test_an_empty_variable_is_none():
    assert Config(environ={"DPCORE_IO": ""}).choice("io", default="x").source == "default"


def test_a_config_reads_no_file_that_it_is_not_given(tmp_path, monkeypatch):
    write(tmp_path / "dpcore.toml", 'io = "filesystem"')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DPCORE_EXECUTOR", "inline")
    assert Config().choice("io").value is None
    assert Config().choice("executor").value == "inline"
    assert Config.read().choice("io").value == "filesystem"


def test_the_nearest_file_upward_with_settings_is_read(tmp_path):
    write(tmp_path / "pyproject.toml", '[tool.dpcore]\nio = "outer"\n')
    write(tmp_path / "a/pyproject.toml", '[project]\nname = "inner"\n')
    inner = tmp_path / "a/b"
    inner.mkdir()
    found = Config.read(inner, environ={})
    assert (found.choice("io").value, found.root) == ("outer", tmp_path)
    write(tmp_path / "a/dpcore.toml", 'io = "own"')
    assert Config.read(inner, environ={}).choice("io") == Value("own", "dpcore.toml", Level.FILE)
    assert Config.read(tmp_path / "pyproject.toml", environ={}).choice("io").value == "outer"


def test_without_settings_the_project_is_where_the_pyproject_is(tmp_path):
    write(tmp_path / "a/pyproject.toml", '[project]\nname = "inner"\n')
    write(tmp_path / "a/b/c.py", "")
    assert Config.read(tmp_path / "a/b", environ={}).root == tmp_path / "a"


def test_plugins_to_load_and_to_block_add_up(tmp_path):
    file = write(tmp_path / "dpcore.toml", 'plugins = ["one"]\ndisable = ["two"]\n')
    config = Config(file, environ={"DPCORE_PLUGINS": "three, four,", "DPCORE_DISABLE_PLUGINS": "five"})
    assert [value.value for value in config.plugins] == ["one", "three", "four"]
    assert [(value.value, value.source) for value in config.disable] == [
        ("two", "dpcore.toml"),
        ("five", "DPCORE_DISABLE_PLUGINS"),
    ]


@pytest.mark.parametrize(("text", "expected"), [("0", False), ("False", False), ("1", True), ("", True)])
def test_loading_installed_plugins_can_be_switched_off(text, expected):
    assert Config(environ={"DPCORE_PLUGIN_AUTOLOAD": text}).autoload.value is expected


def test_a_switch_is_on_or_off():
    with pytest.raises(ConfigError, match=r"^DPCORE_PLUGIN_AUTOLOAD: 'maybe' must be 0 or 1$"):
        _ = Config(environ={"DPCORE_PLUGIN_AUTOLOAD": "maybe"}).autoload


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('exeutor = "threads"', "unknown key 'exeutor' (there are: 'broker', 'io',"),
        ('exeutor = "threads"', "; did you mean 'executor'?"),
        ("io = 4", "io = 4 must be an adapter in one string, such as 'memory'"),
        ('disable = "acme"', "disable = 'acme' must be a list of names of plugins"),
        ("executors = 4", "executors = 4 must hold a table per adapter: [executors.NAME]"),
        ("[executors]\nthreads = 4", "must hold a table per adapter"),
        ("[limits]\ndb = 0", "limits = {'db': 0} must hold a whole number from 1 on for each tag"),
        ("limits = 4", "limits = 4 must hold a whole number from 1 on for each tag"),
        ("[tool.dpcore]\nio = 'memory'", "the keys stand at the top, without [tool.dpcore]"),
    ],
)
def test_a_file_with_what_it_should_not_have_says_so(tmp_path, text, problem):
    file = write(tmp_path / "dpcore.toml", text)
    with pytest.raises(ConfigError) as caught:
        Config(file, environ={})
    assert problem in str(caught.value)
    assert str(caught.value).startswith(str(file))


@pytest.mark.parametrize(("text", "line"), [("io = 'a'\nio = = 4\n", 2), ("io = 'a'\nx = [1,\n", 3)])
def test_a_file_that_is_not_toml_is_named_with_its_line(tmp_path, text, line):
    file = write(tmp_path / "pyproject.toml", text)
    with pytest.raises(ConfigError) as caught:
        Config.read(tmp_path, environ={})
    assert str(caught.value).startswith(f"{file}:{line}: is not TOML: ")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nope\.toml: there is no such file"):
        Config(tmp_path / "nope.toml", environ={})
    (tmp_path / "dpcore.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="cannot be read"):
        Config.read(tmp_path, environ={})


def test_a_pyproject_may_have_other_tools_and_odd_ones(tmp_path):
    assert Config(write(tmp_path / "pyproject.toml", "tool = 4"), environ={}).choice("io").value is None
    with pytest.raises(ConfigError, match="must be a table"):
        Config(write(tmp_path / "pyproject.toml", "[tool]\ndpcore = 4"), environ={})


# ---------------------------------------------------------------- the settings of an adapter


class Threads:
    def __init__(self, *, slots: int = 8, name: "str | None" = None, odd: "Nowhere" = 1):  # noqa: F821
        self.slots, self.name, self.odd = slots, name, odd


class Redis:
    def __init__(self, url: str, *, retain: int = 10, password: Secret | None = None):
        self.url, self.retain, self.password = url, retain, password


class Files:
    def __init__(self, path: str, *, mode: str = "w"):
        self.path, self.mode = path, mode


class SlowFiles(Files):
    def __init__(self, *, delay: float = 0.0, **rest):
        super().__init__(**rest)
        self.delay = delay


class Keyed:
    def __init__(self, *, key: Annotated[Secret, "a key"], port: Secret | int = 0):
        self.key, self.port = key, port


class Wired:
    def __init__(self, client, *, slots: int = 1):
        pass


class Plain:
    pass


def test_settings_are_the_keyword_only_parameters_and_the_address():
    found = settings_of(Redis)
    assert [*found] == ["url", "retain", "password"]
    assert (found["url"].required, found["retain"].default, found["retain"].hint) == (True, 10, int)
    assert [setting.name for setting in found.values() if setting.secret] == ["password"]
    assert settings_of(Plain) == {}


def test_settings_of_parents_count_where_they_are_passed_on():
    assert [*settings_of(SlowFiles)] == ["delay", "path", "mode"]
    made = build(SlowFiles, "io", parse("slow:runs?delay=0.5&mode=x"))
    assert (made.path, made.mode, made.delay) == ("runs", "x", 0.5)


def test_a_hint_that_cannot_be_resolved_loses_only_itself():
    made = build(Threads, "executor", parse("threads?slots=4&odd=5"))
    assert (made.slots, made.odd) == (4, "5")


def test_each_setting_comes_from_the_weightiest_source_that_has_it(tmp_path):
    file = write(tmp_path / "pyproject.toml", '[tool.dpcore.executors.threads]\nslots = 2\nname = "file"\nodd = 3\n')
    config = Config(file, environ={"DPCORE_EXECUTOR_THREADS_SLOTS": "3", "DPCORE_EXECUTOR_THREADS_NAME": "environ"})
    values = settle(Threads, "executor", parse("threads?slots=4"), config)
    assert values == {
        "slots": Value(4, "the call", Level.CALL),
        "name": Value("environ", "DPCORE_EXECUTOR_THREADS_NAME", Level.ENVIRONMENT),
        "odd": Value(3, "pyproject.toml [tool.dpcore.executors.threads]", Level.FILE),
    }


def test_a_string_counts_as_much_as_the_place_where_it_is_written(tmp_path):
    file = write(tmp_path / "dpcore.toml", 'executor = "threads?slots=2"\n[executors.threads]\nslots = 1\n')
    for environ, expected in (({}, 2), ({"DPCORE_EXECUTOR_THREADS_SLOTS": "3"}, 3)):
        config = Config(file, environ=environ)
        said = config.choice("executor")
        spec = Value(parse(said.value), said.source, said.level)
        assert build(Threads, "executor", spec, config).slots == expected


class Filed:
    def __init__(self, *, path: str = "here", key: Path | None = None, name: str = "x"):
        self.path, self.key, self.name = path, key, name


def test_a_path_in_the_project_file_is_relative_to_its_folder(tmp_path):
    file = tmp_path / "dpcore.toml"
    file.write_text("io = 'filed:./data'\n[io_managers.filed]\nkey = 'sub/key.pem'\nname = './name'\n")
    config = Config(file, environ={})
    choice = config.choice("io")
    written = replace(choice, value=AdapterString.parse(choice.value))
    found = build(Filed, "io", written, config)
    assert (found.path, found.key, found.name) == (str(tmp_path / "data"), tmp_path / "sub" / "key.pem", "./name")
    file.write_text("[io_managers.filed]\npath = '/absolute'\nkey = '~/key'\n")
    found = build(Filed, "io", None, Config(file, environ={}), name="filed")
    assert (found.path, found.key) == ("/absolute", Path.home() / "key")


def test_a_path_of_the_call_or_the_environment_is_left_as_it_is(tmp_path):
    file = tmp_path / "dpcore.toml"
    file.write_text("[io_managers.filed]\npath = './data'\n")
    assert build(Filed, "io", AdapterString.parse("filed:./other"), Config(file, environ={})).path == "./other"
    config = Config(file, environ={"DPCORE_IO_FILED_PATH": "./third"})
    assert build(Filed, "io", None, config, name="filed").path == "./third"
    assert build(Filed, "io", None, Config(environ={}), name="filed").path == "here"


def test_the_variables_of_another_adapter_are_not_taken_for_ours():
    config = Config(environ={"DPCORE_EXECUTOR_THREADS_FAST_SLOTS": "3"})
    assert build(Threads, "executor", parse("threads"), config, others=["threads-fast"]).slots == 8
    with pytest.raises(SettingError, match="setting 'fast_slots' is unknown, from DPCORE_EXECUTOR_THREADS_FAST_SLOTS"):
        build(Threads, "executor", parse("threads"), config)


def test_the_address_goes_to_the_url_whole_but_for_what_is_a_setting():
    redis = build(Redis, "broker", parse("redis@dp-redis://me:pw@host/0?retain=5&protocol=3#f"))
    assert (redis.url, redis.retain) == ("redis://me:pw@host/0?protocol=3#f", 5)
    assert build(Redis, "broker", parse("redis://host?retain=5")).url == "redis://host"
    assert build(Redis, "broker", parse("redis?url=redis://x")).url == "redis://x"
    assert build(Redis, "broker", parse("fsspec:s3://bucket")).url == "s3://bucket"


def test_the_address_goes_to_the_path():
    assert build(Files, "io", parse("filesystem:./a b?mode=r")).path == "./a b"
    assert build(Files, "io", parse("file:///runs/x%20y?mode=r")).path == "/runs/x y"
    with pytest.raises(SettingError, match=r"I/O manager 'file': setting 'path' cannot be on a host .*write file:PATH"):
        build(Files, "io", parse("file://host/runs"))


def test_a_url_of_a_path_takes_no_unknown_settings():
    with pytest.raises(SettingError, match=r"setting 'mod' is unknown, from the call .* did you mean 'mode'"):
        build(Files, "io", parse("file:///runs?mod=r"))


@pytest.mark.parametrize(
    ("cls", "text", "words"),
    [
        (
            Threads,
            "threads?slot=4",
            "executor 'threads': setting 'slot' is unknown, from the call (it takes: 'slots', '",
        ),
        (Threads, "threads?slot=4", "; did you mean 'slots'?"),
        (
            Threads,
            "threads?slots=many",
            "executor 'threads': setting 'slots' = 'many', from the call, does not convert:",
        ),
        (Threads, "threads:here", "executor 'threads': setting 'address' is given ('here'), but it takes none"),
        (Redis, "redis", "executor 'redis': setting 'url' is missing; write it as 'name://host/...', or set it in"),
        (Files, "files", "setting 'path' is missing; write it as 'name:path'"),
        (Keyed, "keyed", "setting 'key' is missing; write it as 'name?key=...'"),
        (Wired, "wired", "executor 'wired': setting 'client' is not keyword-only, so only Python can give it"),
    ],
)
def test_settings_that_do_not_fit_are_told_what_does(cls, text, words):
    with pytest.raises(SettingError) as caught:
        build(cls, "executor", parse(text), empty())
    assert words in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_an_unknown_setting_in_a_file_names_the_table(tmp_path):
    file = write(tmp_path / "dpcore.toml", "[executors.threads]\nslot = 4\n")
    with pytest.raises(SettingError, match=r"setting 'slot' is unknown, from dpcore\.toml \[executors\.threads\]"):
        build(Threads, "executor", parse("threads"), Config(file, environ={}))


def test_a_class_alone_is_made_with_its_defaults():
    assert build(Threads, "executor").slots == 8
    assert isinstance(build(Plain, "executor"), Plain)
    with pytest.raises(SettingError, match="executor 'Redis': setting 'url' is missing"):
        build(Redis, "executor")


def test_what_a_constructor_raises_says_what_was_being_made():
    class Picky:
        def __init__(self, *, slots: int):
            raise ValueError("at least one")

    with pytest.raises(AdapterNotMadeError) as caught:
        build(Picky, "executor", parse("picky?slots=0"))
    assert str(caught.value) == "at least one, while making the executor 'picky'"
    assert repr(caught.value.__cause__) == "ValueError('at least one')"

    class Broken:
        def __init__(self):
            raise OSError("no such device")

    with pytest.raises(OSError, match="no such device") as caught:
        build(Broken, "executor", parse("broken"))
    assert caught.value.__notes__ == ["while making the executor 'broken'"]


# ---------------------------------------------------------------- secrets


def test_a_secret_is_a_text_that_is_not_shown():
    secret = Secret("hunter2")
    assert repr(secret) == "***"
    assert repr({"password": secret}) == "{'password': ***}"
    assert secret == "hunter2"
    assert secret.encode() == b"hunter2"
    again = pickle.loads(pickle.dumps(secret))
    assert (type(again), again.reveal(), type(again.reveal())) == (Secret, "hunter2", str)


def test_a_secret_setting_is_hidden_among_the_settings():
    values = settle(Redis, "broker", parse("redis?url=x&password=hunter2"))
    assert isinstance(values["password"].value, Secret)
    assert "hunter2" not in repr(values)
    assert build(Redis, "broker", parse("redis?url=x&password=hunter2")).password.reveal() == "hunter2"


def test_a_secret_that_does_not_convert_stays_hidden(tmp_path):
    file = write(tmp_path / "dpcore.toml", "[executors.keyed]\nkey = [12345]\n")
    with pytest.raises(SettingError) as caught:
        build(Keyed, "executor", parse("keyed"), Config(file, environ={}))
    assert str(caught.value) == (
        "executor 'keyed': setting 'key' (hidden), from dpcore.toml [executors.keyed], does not convert"
    )
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_required_setting_that_nobody_set_may_be_left_out():
    class Required:
        def __init__(self, *, size: int, mode: str = "fast"): ...

    assert {key: value.value for key, value in settle(Required, "io", missing_ok=True).items()} == {"mode": "fast"}


def test_the_adapters_that_the_file_has_tables_for_are_known(tmp_path):
    file = tmp_path / "pyproject.toml"
    file.write_text("[tool.dpcore.executors.threads]\nslots = 4\n[tool.dpcore.io_managers.mine]\n")
    found = {(kind, name.value, name.source) for kind, name in Config(file, environ={}).adapters}
    assert found == {
        ("executor", "threads", "pyproject.toml [tool.dpcore] (executors)"),
        ("io", "mine", "pyproject.toml [tool.dpcore] (io_managers)"),
    }
    assert Config(environ={}).adapters == []
