"""Tasks: functions registered under a name, with their settings.

Pure.  :func:`Registry.task` validates every argument when the function is
decorated, so that a mistake is told where it was made; type hints are read later,
when a plan asks for them, so that names defined further down resolve.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import re
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from types import CodeType
from typing import Any, TypeVar, cast, overload

from dpcore.errors import DuplicateTaskError, HintWarning, TaskDefinitionError, TaskNotFoundError, UsedOutsideError
from dpcore.functions import Function, qualified
from dpcore.hints import MISSING, Parameter, Schema, item_hint, schema
from dpcore.words import nearest

__all__ = ("Registry", "Task", "registry", "task")

F = TypeVar("F", bound=Callable[..., Any])

# Identifiers of any script joined by . or -; + : / | [ are operators of selections and never part of a name.
_NAME = re.compile(r"[^\W\d]\w*([.\-]\w+)*\Z")
_LONGEST_NAME = 200
_SETTINGS = (
    "name", "tags", "dependencies", "description", "max_retries", "retry_delay", "backoff", "max_delay", "jitter",
    "retry_on", "timeout", "fail_safe", "stream_output", "lead", "drain", "priority", "each", "inputs", "version",
)  # fmt: skip


class Task:
    """A function registered under a name, with its settings.

    The settings are those of :func:`task`.  ``streams`` says whether the output is
    kept item by item; ``place`` is where the function is written (``file:line``).
    """

    __slots__ = (
        "_execution",
        "_fingerprint",
        "_function",
        "_positional",
        "_result",
        "_schema",
        "_streams",
        "backoff",
        "call",
        "dependencies",
        "description",
        "drain",
        "each",
        "fail_safe",
        "inputs",
        "jitter",
        "lead",
        "max_delay",
        "max_retries",
        "name",
        "priority",
        "retry_delay",
        "retry_on",
        "stream_output",
        "tags",
        "timeout",
        "version",
    )

    call: Callable[..., Any]
    name: str
    tags: tuple[str, ...]
    dependencies: tuple[str, ...]
    description: str
    max_retries: int
    retry_delay: float
    backoff: float
    max_delay: float | None
    jitter: float
    retry_on: tuple[type[BaseException], ...]
    timeout: float | None
    fail_safe: bool
    stream_output: bool | None
    lead: int | None
    drain: bool
    priority: int
    each: str | None
    inputs: Mapping[str, str]
    version: str

    def __init__(self, call: Callable[..., Any], name: str, settings: Mapping[str, Any]) -> None:
        self.call, self.name = call, name
        for setting, value in settings.items():
            setattr(self, setting, value)
        self._execution = _execution(call)
        self._schema: Schema | None = None
        self._fingerprint: str | None = None
        self._function: Function | None = None
        self._positional: tuple[str, ...] = ()  # this and the next two are filled in with the schema
        self._streams = False
        self._result: Any = MISSING

    def __repr__(self) -> str:
        return f"<Task {self.name!r} at {self.place}>"

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of :func:`task` that register this function like this again."""
        return {setting: getattr(self, setting) for setting in _SETTINGS}

    @property
    def function(self) -> Function:
        """The function, named so that another process finds it."""
        if self._function is None:
            self._function = Function(self.call)
        return self._function

    @property
    def schema(self) -> Schema:
        """What the function takes and returns; each hint that does not resolve is warned of once, by name."""
        if self._schema is None:
            self._schema = schema(self.call)
            self._positional = tuple(p.name for p in self._schema.parameters.values() if p.positional_only)
            self._streams = self._schema.streams if self.stream_output is None else self.stream_output
            self._result = self._stored(self._schema)
            for problem in self._schema.problems:
                self._warn(f"task {self.name!r}: {problem}; it is left unchecked")
        return self._schema

    def _warn(self, message: str) -> None:
        """Warn of a hint where the function is written: whoever asks first for the schema did nothing wrong."""
        file, _, line = self.place.rpartition(":")
        module = getattr(self.call, "__module__", None)
        if line.isdecimal():
            warnings.warn_explicit(message, HintWarning, file, int(line), module)
        else:
            warnings.warn_explicit(message, HintWarning, self.place, 1, module)

    def _stored(self, found: Schema) -> Any:
        returns = found.result
        if self.each is None and self._streams:
            return item_hint(returns)
        if found.streams:  # a generator that is not stored item by item is collected
            item = item_hint(returns)
            return list if item is MISSING else list.__class_getitem__(item)
        return returns

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """The parameters that can be supplied, by name."""
        return self.schema.parameters

    @property
    def positional(self) -> tuple[str, ...]:
        """The parameters that can only be passed by position."""
        self.schema  # noqa: B018  (fills it in, here and below)
        return self._positional

    @property
    def streams(self) -> bool:
        """Whether the output is stored item by item: a generator's, unless ``stream_output`` says otherwise."""
        self.schema  # noqa: B018
        return self._streams

    @property
    def many(self) -> bool:
        """Whether the result is a series of items: of a stream, or of a task mapped over one."""
        return self.each is not None or self.streams

    @property
    def result(self) -> Any:
        """The hint of one value that is stored: of an item, where there are :attr:`many`."""
        self.schema  # noqa: B018
        return self._result

    @property
    def returns_nothing(self) -> bool:
        """Whether the hint says that there is no value: ``-> None``."""
        return self.schema.result is type(None)

    @property
    def place(self) -> str:
        """Where the function is written, as ``file:line``."""
        return _place(self.call)

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change when the function does.

        Covers its source without comments, docstrings and layout, its defaults and
        ``version=``; not retries, timeout or tags, and not the code that it calls.
        """
        if self._fingerprint is None:
            text = "\0".join([_source(self.call), _defaults(self.call), self.version])
            self._fingerprint = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return self._fingerprint


class Registry(Mapping[str, Task]):
    """Tasks by name, in the order in which they were registered.

    >>> tasks = Registry()
    >>> @tasks.task(tags=["demo"])
    ... def orders() -> list[int]:
    ...     return [30, 10, 2]
    >>> "orders" in tasks, tasks["orders"].tags, [task.name for task in tasks.tagged("demo")]
    (True, ('demo',), ['orders'])
    """

    def __init__(self) -> None:
        self._tasks: dict[str, Task] = {}
        self._names: dict[object, list[str]] = {}  # by the identity of the function, for dependencies=[function]
        self._tagged: dict[str, dict[str, Task]] = {}  # by tag, then by name

    def __getitem__(self, name: str) -> Task:
        try:
            return self._tasks[name]
        except KeyError:
            raise TaskNotFoundError(name, self._tasks) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, name: object) -> bool:
        return name in self._tasks

    def __repr__(self) -> str:
        return f"<Registry of {len(self)} tasks>"

    @overload
    def task(self, function: F, /) -> F: ...

    @overload
    def task(  # what follows is checked by hand, so that each wrong argument gets a sentence
        self,
        function: None = None,
        /,
        *,
        name: str | None = None,
        tags: Iterable[str] = (),
        dependencies: Iterable[str | Callable[..., Any]] = (),
        description: str | None = None,
        max_retries: int = 0,
        retry_delay: float = 0,
        backoff: float = 1,
        max_delay: float | None = None,
        jitter: float = 0,
        retry_on: type[BaseException] | tuple[type[BaseException], ...] = (Exception,),
        timeout: float | None = None,
        fail_safe: bool = False,
        stream_output: bool | None = None,
        lead: int | None = None,
        drain: bool = False,
        priority: int = 0,
        each: str | Callable[..., Any] | None = None,
        inputs: Mapping[str, str | Callable[..., Any]] | None = None,
        version: str = "",
    ) -> Callable[[F], F]: ...

    def task(self, function: Any = None, /, **settings: Any) -> Any:
        """Register a function as a task and return it as it was.

        Works bare (``@task``) and called (``@task(tags=["etl"])``).  Times are seconds.

        :param name: identifiers joined by ``.`` or ``-``; by default the function's own name.
        :param tags: words to select it by.
        :param dependencies: tasks that must have ended before it starts, by name or as functions.
        :param description: by default the docstring.
        :param max_retries: further attempts after the first one has failed.
        :param retry_delay: wait before the first retry; each further wait is *backoff* times as long, *max_delay* at most,
            and up to a fraction of *jitter* (0 to 1) longer or shorter.
        :param retry_on: exceptions after which it is tried again.
        :param timeout: how long an attempt may take.
        :param fail_safe: whether the run may succeed though this task fails.
        :param stream_output: whether the items of its output are stored one by one; by default a generator's are.
        :param lead: how many items it may be ahead of a running task that reads them as they come; by default 64.
        :param drain: whether it runs to its end though every task that reads its items has ended before.
        :param priority: of the tasks that are ready, one with a higher number starts first.
        :param each: the streaming task over whose items this one is mapped: one job an item, and the parameter that
            its stream would go to receives the item.  Items that a generator makes are taken as they come, those of
            another mapped task when all of them are there.
        :param inputs: which task's result a parameter receives, where the names differ.
        :param version: part of the fingerprint; change it when code changes that the task calls.

        Raises :class:`~dpcore.errors.TaskDefinitionError` for an argument that makes no sense and
        :class:`~dpcore.errors.DuplicateTaskError` for a name that is taken.
        """
        for setting in settings:
            if setting not in _SETTINGS:
                raise TypeError(f"task() takes no {setting!r}{nearest(setting, _SETTINGS)}")
        if function is not None:
            if settings:
                raise TypeError("write @task(...) or task(...)(function): a function and settings do not go together")
            if not callable(function):
                raise TaskDefinitionError("@task", "function", function, "a function; settings are given by keyword")
            self._register(function, {})
            return function

        def decorate(function: F) -> F:
            if not callable(function):
                raise TaskDefinitionError(str(settings.get("name")), "function", function, "callable")
            self._register(function, settings)
            return function

        return decorate

    def tagged(self, tag: str) -> list[Task]:
        """Return the tasks that carry *tag*, in the order of registration."""
        return list(self._tagged.get(tag, {}).values())

    @property
    def tags(self) -> tuple[str, ...]:
        """Every tag that some task carries, in the order of registration."""
        return tuple(dict.fromkeys(tag for task in self._tasks.values() for tag in task.tags))

    def remove(self, name: str) -> None:
        """Forget a task; what depends on it will not plan any more."""
        task = self[name]
        del self._tasks[name]
        for tag in task.tags:
            del self._tagged[tag][name]
        names = self._names[_identity(task.call)]
        names.remove(name)
        if not names:
            del self._names[_identity(task.call)]

    def problems(self) -> list[str]:
        """Say what would keep tasks from being planned or checked, one sentence each; none is an empty list."""
        found: list[str] = []
        for task in self._tasks.values():
            wanted = dict.fromkeys([*task.dependencies, *task.inputs.values(), *([task.each] if task.each else [])])
            found += [str(TaskNotFoundError(name, self._tasks, task.name)) for name in wanted if name not in self]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", HintWarning)
                found += [f"task {task.name!r}: {problem}" for problem in task.schema.problems]
        return found

    def _register(self, function: Callable[..., Any], settings: Mapping[str, Any]) -> None:
        name = _name(function, settings.get("name"))
        checked = _Check(self, name, function).settings(settings)
        task = Task(function, name, checked)
        before = self._tasks.get(name)
        if before is not None:
            if not _again(before, task):
                raise DuplicateTaskError(name, before.place, task.place)
            self.remove(name)
        self._tasks[name] = task
        for tag in task.tags:
            self._tagged.setdefault(tag, {})[name] = task
        self._names.setdefault(_identity(function), []).append(name)

    def named(self, function: object) -> tuple[str, ...]:
        """Return the names under which *function* is registered, in the order of registration; none if it is not."""
        return tuple(self._names.get(_identity(function), ()))

    def _named(self, owner: str, argument: str, wanted: object) -> str:
        """Return the task name that *wanted*, a name or a task's function, stands for."""
        if isinstance(wanted, str):
            if not _NAME.match(wanted):
                raise TaskDefinitionError(owner, argument, wanted, "a task name, or a function that is a task")
            return wanted
        if not callable(wanted):
            raise TaskDefinitionError(owner, argument, wanted, "a task name, or a function that is a task")
        names = self.named(wanted)
        if len(names) > 1:
            raise TaskDefinitionError(owner, argument, wanted, f"named: it is several tasks ({', '.join(names)})")
        if not names:
            raise UsedOutsideError(owner, qualified(wanted))
        return names[0]


def _name(function: Callable[..., Any], name: object) -> str:
    if name is None:
        name = getattr(function, "__name__", None)
        if name is None or name == "<lambda>":
            raise TaskDefinitionError(repr(function), "name", None, "given: the function has none of its own")
    if not isinstance(name, str) or not _NAME.match(name) or len(name.encode()) > _LONGEST_NAME:
        raise TaskDefinitionError(
            str(name)[:80], "name", name, f"identifiers joined by . or -, {_LONGEST_NAME} bytes at the most"
        )
    return name


class _Check:
    """Checks the arguments of ``task()`` for one task, each with a sentence of what it must be."""

    def __init__(self, registry: Registry, name: str, function: Callable[..., Any]) -> None:
        self.registry, self.name, self.function = registry, name, function

    def settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        stream = given.get("stream_output")
        return {
            "tags": self.words("tags", given.get("tags", ())),
            "dependencies": self.dependencies(given.get("dependencies", ())),
            "description": self.description(given.get("description")),
            "max_retries": self.count("max_retries", given.get("max_retries", 0)),
            "retry_delay": self.seconds("retry_delay", given.get("retry_delay", 0)),
            "backoff": self.number("backoff", given.get("backoff", 1), 1, None, "a number of at least 1"),
            "max_delay": None if given.get("max_delay") is None else self.seconds("max_delay", given["max_delay"]),
            "jitter": self.number("jitter", given.get("jitter", 0), 0, 1, "a number from 0 to 1"),
            "retry_on": self.exceptions(given.get("retry_on", (Exception,))),
            "timeout": self.timeout(given.get("timeout")),
            "fail_safe": self.flag("fail_safe", given.get("fail_safe", False)),
            "stream_output": None if stream is None else self.flag("stream_output", stream),
            "lead": None if given.get("lead") is None else self.count("lead", given["lead"], 1),
            "drain": self.flag("drain", given.get("drain", False)),
            "priority": self.whole("priority", given.get("priority", 0)),
            "each": None if given.get("each") is None else self.task("each", given["each"]),
            "inputs": self.inputs(given.get("inputs")),
            "version": self.text("version", given.get("version", "")),
        }

    def fault(self, argument: str, value: object, wanted: str) -> TaskDefinitionError:
        return TaskDefinitionError(self.name, argument, value, wanted)

    def words(self, argument: str, value: object) -> tuple[str, ...]:
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise self.fault(argument, value, "a list of words")
        words = tuple(value)
        for word in words:
            if not isinstance(word, str) or not _NAME.match(word):
                raise self.fault(argument, word, "words: identifiers joined by . or -")
        if len(set(words)) < len(words):
            raise self.fault(argument, list(words), "without repetition")
        return words

    def dependencies(self, value: object) -> tuple[str, ...]:
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise self.fault("dependencies", value, "a list of task names or functions")
        names = tuple(self.task("dependencies", item) for item in value)
        if len(set(names)) < len(names):
            raise self.fault("dependencies", list(names), "without repetition")
        return names

    def task(self, argument: str, value: object) -> str:
        name = self.registry._named(self.name, argument, value)
        if name == self.name:
            raise self.fault(argument, name, "another task: this one cannot wait for itself")
        return name

    def inputs(self, value: object) -> dict[str, str]:
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise self.fault("inputs", value, "a mapping from parameter to task")
        takes = _parameter_names(self.function)
        for parameter in value:
            if takes is not None and parameter not in takes:
                raise self.fault(
                    "inputs", parameter, f"parameters of the function: {', '.join(takes) or 'it has none'}"
                )
        return {parameter: self.task("inputs", upstream) for parameter, upstream in value.items()}

    def number(self, argument: str, value: object, least: float, most: float | None, wanted: str) -> float:
        # Beyond the largest float is infinity, also for an int.
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= sys.float_info.max:
            raise self.fault(argument, value, wanted)
        if most is not None and value > most:
            raise self.fault(argument, value, wanted)
        return value

    def seconds(self, argument: str, value: object) -> float:
        return self.number(argument, value, 0, None, "a number of seconds, 0 or more")

    def timeout(self, value: object) -> float | None:
        if value is None:
            return None
        wanted = "a number of seconds above 0, or None"
        seconds = self.number("timeout", value, 0, None, wanted)
        if seconds == 0:
            raise self.fault("timeout", value, wanted)
        return seconds

    def count(self, argument: str, value: object, least: int = 0) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.fault(argument, value, f"a whole number, {least} or more")
        return value

    def whole(self, argument: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.fault(argument, value, "a whole number")
        return value

    def flag(self, argument: str, value: object) -> bool:
        if not isinstance(value, bool):
            raise self.fault(argument, value, "True or False")
        return value

    def text(self, argument: str, value: object) -> str:
        if not isinstance(value, str):
            raise self.fault(argument, value, "a text")
        return value

    def description(self, value: object) -> str:
        return self.text("description", (inspect.getdoc(self.function) or "") if value is None else value)

    def exceptions(self, value: object) -> tuple[type[BaseException], ...]:
        kinds = value if isinstance(value, tuple | list) else (value,)
        for kind in kinds:
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                raise self.fault("retry_on", value, "an exception class, or a tuple of them")
        return tuple(kinds)


def _parameter_names(function: Callable[..., Any]) -> list[str] | None:
    """Return the names that can be supplied; None if they cannot be told or there is a ``**kwargs``."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_POSITIONAL]


def _again(before: Task, now: Task) -> bool:
    """Tell whether *now* is the same definition, run once more: a reloaded module, or a cell of a notebook."""
    if before.call is now.call or qualified(before.call) != qualified(now.call) or "<locals>" in qualified(now.call):
        return False
    if getattr(now.call, "__module__", None) == "__main__":
        return "__file__" not in getattr(now.call, "__globals__", {"__file__": 0})
    return now._execution is not None and now._execution is not before._execution


def _execution(function: Callable[..., Any]) -> object:
    """Return what stands for one execution of the function's module: a reload has a new spec, a script none."""
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    return getattr(module, "__spec__", None) or module


def _identity(function: object) -> object:
    """Return what two references to one function have in common; a method is a new object at each look."""
    owner, inner = getattr(function, "__self__", None), getattr(function, "__func__", None)
    return id(function) if inner is None else (id(owner), id(inner))


def _place(function: Callable[..., Any]) -> str:
    inner = inspect.unwrap(getattr(function, "func", function))
    code = getattr(inner, "__code__", None) or getattr(getattr(type(inner), "__call__", None), "__code__", None)  # noqa: B004
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else qualified(function)


def _defaults(function: Callable[..., Any]) -> str:
    """Write the defaults down, and what a partial has bound; without addresses, which differ in every process."""
    bound = (getattr(function, "args", ()), getattr(function, "keywords", {})) if hasattr(function, "func") else ()
    inner = getattr(function, "func", function)
    by_name = tuple(sorted((getattr(inner, "__kwdefaults__", None) or {}).items()))
    return re.sub(r" at 0x[0-9A-Fa-f]+", "", _constant((bound, getattr(inner, "__defaults__", None), by_name)))


def _source(function: Callable[..., Any]) -> str:
    """Return the source, normalised; the compiled code where there is no source."""
    inner = inspect.unwrap(getattr(function, "func", function))
    code = getattr(inner, "__code__", None)
    if (
        code is not None and code.co_filename == "<string>"
    ):  # Python 3.13 would show the text of `python -c` for any exec()
        return _compiled(code)
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inner)))
    except (OSError, TypeError, SyntaxError):
        return qualified(function) if code is None else _compiled(code)
    for part in ast.walk(tree):
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            part.decorator_list = []  # settings are not the function
            if part.body and ast.get_docstring(part, clean=False) is not None:
                part.body = part.body[1:] or [ast.Pass()]
    return ast.dump(tree)


def _compiled(code: CodeType) -> str:
    """Write compiled code down, and the functions in it."""
    return f"{code.co_code!r} {code.co_names!r} ({', '.join(map(_constant, code.co_consts))})"


def _constant(value: object) -> str:
    """Write a value down as every process does: code has an address, and a set the order of its hashes."""
    if isinstance(value, CodeType):
        return _compiled(value)
    if type(value) in (set, frozenset):
        return f"{{{', '.join(sorted(map(_constant, cast(Set[object], value))))}}}"
    return f"({', '.join(map(_constant, value))})" if type(value) is tuple else repr(value)


registry = Registry()
"""The registry that :func:`task` fills: the only global of dpcore."""

task = registry.task
