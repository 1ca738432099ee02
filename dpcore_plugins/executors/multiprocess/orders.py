"""A job as it is sent to a worker: what many jobs share goes once, and is named by a number after that."""

from __future__ import annotations

import inspect
import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable
from operator import attrgetter
from types import FunctionType
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from dpcore import Job, Ref
from dpcore.errors import FunctionNotFoundError
from dpcore.functions import Function
from dpcore.jobs import Stream

__all__ = ("Order", "Orders", "Shared", "Thing", "pickled")

_MOST_KEPT = 8 << 20  # bytes of what no job in flight needs, and the next ones may
_ENTRY = 2048  # bytes that each costs beside its pickle: a generous guess
_MOST_NAMES = 1024


class Order(msgspec.Struct, array_like=True, frozen=True):
    """A job; *io*, *params* and *metadata* are numbers of what was sent before, 0 for nothing."""

    run_id: str
    task: str
    attempt: int
    index: int | None
    function: bytes
    is_named: bool
    io: int
    params: int
    metadata: int
    refs: dict[str, Ref]
    items: dict[str, Stream]
    rest: bytes
    positional: tuple[str, ...]
    streams: bool
    room: int | None
    is_async: bool
    on_trio: bool
    timeout: float | None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Order).decode


class Thing:
    """What many jobs need, its number, and how it is sent: workers have it for as long as somebody here holds this."""

    __slots__ = ("__weakref__", "number", "sent", "value")

    def __init__(self, number: int, value: object, sent: bytes) -> None:
        self.number, self.value, self.sent = number, value, sent


_NOTHING = Thing(0, {}, b"")


class _Name:
    """The name of a function as it is sent, for as long as it is the function's."""

    __slots__ = ("_find", "_home", "_module", "_spec", "call", "sent")

    def __init__(self, call: Callable[..., Any], locator: tuple[str, str | None, str]) -> None:
        self.call, self.sent = call, pickle.dumps(locator)
        self._module, self._find = call.__module__, attrgetter(locator[2])
        self._home = sys.modules[self._module]
        self._spec = getattr(self._home, "__spec__", None)

    @property
    def holds(self) -> bool:
        """Whether the module has not been loaded again, and has that function yet."""
        home = sys.modules.get(self._module)
        try:
            return (
                home is self._home and getattr(home, "__spec__", None) is self._spec and self._find(home) is self.call
            )
        except AttributeError:
            return False

    def is_of_another_loading(self, before: _Name) -> bool:
        """Whether workers that have loaded what *before* was in may have loaded something else."""
        return self._home is not before._home or self._spec is not before._spec

    @property
    def code(self) -> object:
        """What its module has for it, however often that is decorated."""
        return getattr(inspect.unwrap(self.call), "__code__", None)


class _Names:
    """The functions that are sent by name, and what workers have therefore loaded."""

    def __init__(self) -> None:
        self.age = 0  # so many times has something been loaded anew since it was sent
        self._by_id: OrderedDict[int, _Name] = OrderedDict()  # each holds its function
        self._codes: OrderedDict[bytes, object] = OrderedDict()  # by name
        self._modules: dict[str, _Name] = {}  # the latest name in each

    def name(self, function: Function) -> bytes | None:
        """Return the name of a function as it is sent; None if it has none, or has lost it to another."""
        name = self._by_id.get(id(function.call))
        if name is not None:
            if name.holds:
                return name.sent
            del self._by_id[id(function.call)]
        locator = function.locator
        if locator is None:
            return None
        name = self._by_id[id(function.call)] = _Name(function.call, locator)
        if len(self._by_id) > _MOST_NAMES:
            self._by_id.popitem(last=False)
        self._note(locator[0], name)
        return name.sent

    def _note(self, module: str, name: _Name) -> None:
        """Count one more if this is another loading than what workers have been sent."""
        before, self._modules[module] = self._modules.get(module, name), name
        code = name.code
        if name.is_of_another_loading(before) or self._codes.pop(name.sent, code) != code:
            self.age += 1
        self._codes[name.sent] = code
        if len(self._codes) > _MOST_NAMES:
            self._codes.popitem(last=False)


class Shared:
    """What many jobs need, by number: the program's side.

    A thing is held by the jobs in flight that need it, whatever its size, and by the job
    that was the last to be ordered.  Of others the latest are kept, up to some megabytes,
    and the latest that is larger than that.
    """

    def __init__(self) -> None:
        self._last = 0
        self._held: WeakValueDictionary[int, Thing] = WeakValueDictionary()  # by the id of its value, which it holds
        self._kept: OrderedDict[int, Thing] = OrderedDict()  # by number, the latest last
        self._bytes_kept = 0
        self._large: Thing | None = None
        self._names = _Names()
        self._latest: tuple[object, object, object] = (None, None, None)
        self._needs: tuple[Thing, ...] = ()

    @property
    def age(self) -> int:
        """A number that grows when a module has been loaded anew since workers were told of it."""
        return self._names.age

    def needs(self, job: Job) -> tuple[Thing, ...]:
        """Return what *job* shares with others: as a rule the same as the job before."""
        io, params, metadata = self._latest
        if job.io is not io or job.params is not params or job.metadata is not metadata:
            latest = job.io, job.params, job.metadata
            self._needs = tuple(self.need(value) for value in latest)  # one that does not pickle raises
            self._latest = latest
        return self._needs

    def need(self, value: object) -> Thing:
        """Return *value* with its number, 0 of what is empty, and how it is sent."""
        thing = self._held.get(id(value))
        if thing is None:
            if value == {}:
                return _NOTHING
            sent = pickled(value)
            self._last += 1
            thing = self._held[id(value)] = Thing(self._last, value, sent)
        self._keep(thing)
        return thing

    def _keep(self, thing: Thing) -> None:
        if thing.number in self._kept:
            self._kept.move_to_end(thing.number)
            return
        size = _size(thing)
        if size > _MOST_KEPT:
            self._large = thing
            return
        self._kept[thing.number] = thing
        self._bytes_kept += size
        while self._bytes_kept > _MOST_KEPT:
            _, oldest = self._kept.popitem(last=False)
            self._bytes_kept -= _size(oldest)

    def function(self, function: Function) -> tuple[bytes, bool]:
        """Return how to find *function*, and whether it has a name; what has none may have changed since it went last."""
        name = self._names.name(function)
        return (pickled(function.call), False) if name is None else (name, True)

    def order(self, job: Job, *, on_trio: bool) -> tuple[bytes, tuple[Thing, ...]]:
        """Return a job as it is sent, and what it needs beside that."""
        function, is_named = self.function(job.function)
        refs, items = job.inputs, {}
        if refs and any(type(source) is not Ref for source in refs.values()):
            refs = {name: source for name, source in job.inputs.items() if type(source) is Ref}
            items = {name: source for name, source in job.inputs.items() if type(source) is not Ref}
        rest = pickled((job.arguments, job.nominal)) if job.arguments or job.nominal is not None else b""
        needs = self.needs(job)
        order = (
            job.run_id, job.task, job.attempt, job.index, function, is_named,
            needs[0].number, needs[1].number, needs[2].number, refs, items, rest, job.positional, job.streams, job.room, job.is_async, on_trio, job.timeout,
        )  # fmt: skip
        return _encode(order), needs


def _size(thing: Thing) -> int:
    return len(thing.sent) + _ENTRY


class Orders:
    """What many jobs need, by number: the worker's side, which has what it is told to have."""

    def __init__(self) -> None:
        self._sent: dict[int, bytes] = {}  # what has not been loaded
        self._things: dict[int, Any] = {}  # what has
        self._functions: OrderedDict[bytes, Function] = OrderedDict()

    def define(self, number: int, sent: bytes) -> None:
        """Keep what was sent, for the job that needs it first: to load it may fail."""
        self._sent[number] = sent

    def forget(self, number: int) -> None:
        """Keep no longer what no job needs that is here."""
        self._sent.pop(number, None)
        self._things.pop(number, None)

    def read(self, body: bytes) -> Order:
        """Return what was ordered."""
        return _decode(body)

    def job(self, order: Order) -> Job:
        """Return the job; raises whatever loading raises of what the user has made."""
        arguments, nominal = pickle.loads(order.rest) if order.rest else ({}, None)
        return Job(
            run_id=order.run_id,
            task=order.task,
            function=self._function(order),
            io=self._thing(order.io),
            attempt=order.attempt,
            index=order.index,
            inputs={**order.refs, **order.items},
            arguments=arguments,
            positional=order.positional,
            streams=order.streams,
            room=order.room,
            is_async=order.is_async,
            timeout=order.timeout,
            params=self._thing(order.params),
            metadata=self._thing(order.metadata),
            nominal=nominal,
        )

    def _function(self, order: Order) -> Function:
        if not order.is_named:
            return Function(pickle.loads(order.function))
        function = self._functions.get(order.function)
        if function is None:
            function = _found(*pickle.loads(order.function))
            self._functions[order.function] = function
            if len(self._functions) > _MOST_NAMES:
                self._functions.popitem(last=False)
        return function

    def _thing(self, number: int) -> Any:
        if not number:
            return {}
        if number not in self._things:
            self._things[number] = pickle.loads(self._sent[number])
            del self._sent[number]
        return self._things[number]


def _found(module: str, file: str | None, name: str) -> Function:
    try:
        return Function.find(module, file, name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # it is there, and misses another
        problem = (
            f"workers have no module {error.name!r}, which the program has from {file}; install it, or have its folder "
            f"on the path, which is {', '.join(sys.path)}"
        )
        raise FunctionNotFoundError(f"{module}.{name}", problem) from error


def pickled(thing: object) -> bytes:
    """Pickle *thing*: by the names of what it holds, and by value where that has none in any other process."""
    try:
        sent = pickle.dumps(thing)
        if hasattr(sys.modules["__main__"], "__file__") or b"__main__" not in sent:
            return sent
    except Exception as error:  # noqa: BLE001  (whatever a value's own pickling raises)
        cause: Exception | None = error
    else:
        cause = None  # of a prompt or a notebook, which no other process can import
    try:
        return _by_value(thing)
    except Exception as error:
        if cause is not None:
            raise error from cause
        raise


def _by_value(thing: object) -> bytes:
    import io

    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        """Takes by name what another process finds in the script, so that its classes are the same there."""

        def reducer_override(self, value: Any) -> Any:
            if isinstance(value, type | FunctionType) and Function(value).locator is not None:
                return NotImplemented
            return super().reducer_override(value)

    into = io.BytesIO()
    Pickler(into).dump(thing)
    return into.getvalue()
