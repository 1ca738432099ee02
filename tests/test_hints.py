"""dpcore.hints: schemas of functions, what fits what, values made from text."""

# ruff: noqa: F821, UP006, UP007, UP045 - old spellings of hints, and names that do not resolve, are what is tested

import asyncio
import collections
import contextlib
import dataclasses
import doctest
import enum
import functools
import inspect
import io
import pickle
import subprocess
import sys
import textwrap
import threading
import types
import typing
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Generator,
    Hashable,
    ItemsView,
    Iterable,
    Iterator,
    Mapping,
    MutableSequence,
    Sequence,
    Set,
    Sized,
)
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NewType, NotRequired, Optional, Protocol, TypedDict, TypeVar, Union
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dpcore.hints
from dpcore.hints import (
    MISSING,
    Parameter,
    accepts_none,
    convert,
    fits,
    item_hint,
    schema,
    shown,
    stream_fits,
    stream_kind,
)

settings.register_profile("hints", deadline=None, derandomize=True)
settings.load_profile("hints")

T = TypeVar("T")
Number = TypeVar("Number", bound=float)
Text = TypeVar("Text", str, bytes)
P = typing.ParamSpec("P")
UserId = NewType("UserId", int)
AdminId = NewType("AdminId", UserId)


class Color(enum.Enum):
    RED = "r"
    BLUE = "b"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Parent: ...


class Child(Parent): ...


class Ints(list[int]): ...


class MoreInts(Ints): ...


class Box(Generic[T]):
    def __init__(self, inside: T) -> None:
        self.inside = inside


class IntBox(Box[int]): ...


class Rows(Generic[T]):
    """Iterates over something that its argument does not say."""

    def __iter__(self) -> Iterator[str]:
        return iter(())


class Named(Protocol):
    name: str


class Closes(Protocol):
    def close(self) -> None: ...


class Shelf(Protocol[T]):
    def take(self) -> T: ...


class Door:
    def __init__(self) -> None:
        self.name = "front"

    def close(self) -> None: ...


class Slotted:
    __slots__ = ("size",)


class Order(TypedDict):
    id: int
    note: NotRequired[str]


class BigOrder(Order):
    total: float


class Tree(TypedDict):
    value: int
    children: list["Tree"]


class Leaf(TypedDict):
    value: bool
    children: list["Leaf"]


class Point(typing.NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Day:
    when: date
    tags: list[str] = dataclasses.field(default_factory=list)


class Paid(msgspec.Struct):
    id: int
    day: date


# ---------------------------------------------------------------- the words


def test_missing_is_one_thing_everywhere():
    assert pickle.loads(pickle.dumps(MISSING)) is MISSING
    assert repr(MISSING) == "MISSING"


def test_a_parameter_without_default_is_required():
    assert Parameter("x").required
    assert not Parameter("x", default=None).required


@pytest.mark.parametrize("part", ["apart", "fitting", "reading", "streams", "values"])
def test_the_documented_examples_are_true(part):
    done = doctest.testmod(sys.modules[f"dpcore.hints.{part}"])
    assert done.attempted
    assert done.failed == 0


def test_importing_it_does_not_import_beartype():
    code = """
import sys, typing, dpcore.hints
assert dpcore.hints.fits(list[int], typing.Sequence[float] | None)
print("beartype" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


# ---------------------------------------------------------------- schema


def plain(a: int, b: list[str] = (), /, c: float = 1.5, *, d: "str", e: bytes = b"") -> dict[str, int]: ...


PLAIN = {"a": int, "b": list[str], "c": float, "d": str, "e": bytes}


def bare(a, b=1): ...
def variadic(first: int, *rest: int, **more: str) -> None: ...
async def coroutine(a: int) -> str: ...
def stream(a: int) -> Iterator[int]:
    yield a


async def astream(a: int) -> AsyncIterator[int]:
    yield a


def wrapped_by(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def collected(function):
    @functools.wraps(function)
    async def wrapper(*args, **kwargs):
        return list(function(*args, **kwargs))

    return wrapper


class Callables:
    def method(self, a: int) -> Iterator[int]:
        yield a

    @classmethod
    def of_class(cls, a: int) -> int: ...

    @staticmethod
    def of_nothing(a: int) -> int: ...

    async def __call__(self, a: int) -> str: ...


@pytest.mark.parametrize(
    ("function", "parameters", "result", "streams", "is_async"),
    [
        (bare, {"a": MISSING, "b": MISSING}, MISSING, False, False),
        (variadic, {"first": int}, types.NoneType, False, False),
        (coroutine, {"a": int}, str, False, True),
        (stream, {"a": int}, Iterator[int], True, False),
        (astream, {"a": int}, AsyncIterator[int], True, True),
        (wrapped_by(plain), PLAIN, dict[str, int], False, False),
        (wrapped_by(stream), {"a": int}, Iterator[int], True, False),
        (wrapped_by(wrapped_by(astream)), {"a": int}, AsyncIterator[int], True, True),
        (collected(stream), {"a": int}, Iterator[int], False, True),
        (functools.partial(stream, 1), {}, Iterator[int], True, False),
        (functools.partial(functools.partial(coroutine), a=1), {"a": int}, str, False, True),
        (functools.lru_cache(plain), PLAIN, dict[str, int], False, False),
        (Callables().method, {"a": int}, Iterator[int], True, False),
        (Callables.of_class, {"a": int}, int, False, False),
        (Callables.of_nothing, {"a": int}, int, False, False),
        (Callables(), {"a": int}, str, False, True),
        (functools.partial(Callables().method, a=2), {"a": int}, Iterator[int], True, False),
        (Callables, {}, Callables, False, False),
        (Day, {"when": date, "tags": list[str]}, Day, False, False),
        (Paid, {"id": int, "day": date}, Paid, False, False),
        (Point, {"x": int, "y": int}, Point, False, False),
        (lambda x, y=2: x, {"x": MISSING, "y": MISSING}, MISSING, False, False),
        (len, {"obj": MISSING}, MISSING, False, False),
    ],
    ids=lambda value: getattr(value, "__qualname__", None),
)
def test_a_schema_says_what_is_taken_and_given(function, parameters, result, streams, is_async):
    found = schema(function)
    assert {name: parameter.hint for name, parameter in found.parameters.items()} == parameters
    assert (found.result, found.streams, found.is_async, found.problems) == (result, streams, is_async, ())


def test_defaults_and_kinds_of_parameters_are_read():
    found = schema(plain).parameters
    assert [parameter.positional_only for parameter in found.values()] == [True, True, False, False, False]
    assert [parameter.default for parameter in found.values()] == [MISSING, (), 1.5, MISSING, b""]
    assert dict(found) == dict(schema(wrapped_by(plain)).parameters), "the quick way and inspect agree"


def test_only_double_stars_take_extra_keywords():
    assert schema(variadic).extra_keywords
    assert schema(wrapped_by(variadic)).extra_keywords
    assert not schema(plain).extra_keywords


def test_what_a_partial_binds_by_keyword_is_a_default():
    found = schema(functools.partial(plain, 1, c=2.5)).parameters
    assert list(found) == ["b", "c", "d", "e"]
    assert found["c"].default == 2.5


def test_a_default_of_none_does_not_widen_the_hint():
    def load(limit: int = None): ...  # noqa: RUF013 - the very thing under test

    assert schema(load).parameters["limit"].hint is int


def test_annotated_is_kept():
    def load(limit: Annotated[int, "positive"], rest: "Annotated[list['int'], 1]"): ...

    found = schema(load).parameters
    assert found["limit"].hint == Annotated[int, "positive"]
    assert found["rest"].hint == Annotated[list[int], 1]


def test_an_explicit_signature_is_believed():
    def load(*args): ...

    load.__signature__ = inspect.signature(plain)
    assert list(schema(load).parameters) == ["a", "b", "c", "d", "e"]


def test_a_builtin_that_does_not_say_what_it_takes_is_a_problem_and_no_error():
    found = schema(dict)
    assert found.result is dict
    assert found.parameters == {}
    assert "cannot be read" in found.problems[0]


def test_what_cannot_be_called_is_a_type_error():
    with pytest.raises(TypeError, match="5 cannot be called"):
        schema(5)


def test_a_function_that_wraps_itself_ends():
    def load(): ...

    load.__wrapped__ = load
    assert "wrapper loop" in schema(load).problems[0]


@pytest.mark.parametrize(
    "bad", ["Nowhere", "list[Nowhere]", "int[", "1 / 0", "a doc string", "'deep' + 1", "7", ["x"], list["Nowhere"], 3.5]
)
def test_a_bad_hint_loses_only_itself(bad):
    def load(a: int, b, c: "list[str]") -> "float": ...

    load.__annotations__["b"] = bad
    found = schema(load)
    assert [parameter.hint for parameter in found.parameters.values()] == [int, MISSING, list[str]]
    assert found.result is float
    assert len(found.problems) == 1
    assert "of parameter 'b'" in found.problems[0]


def test_a_bad_result_names_the_result():
    def load(a: int) -> "Nowhere": ...

    found = schema(load)
    assert found.result is MISSING
    (problem,) = found.problems
    assert problem == "the hint 'Nowhere' of the result does not resolve: NameError: name 'Nowhere' is not defined"


def module_of(source: str, name: str = "made_for_hints") -> types.ModuleType:
    module = types.ModuleType(name)
    sys.modules[name] = module
    exec(textwrap.dedent(source), vars(module))
    return module


POSTPONED = """
    from __future__ import annotations
    import dataclasses, functools, typing
    from typing import Annotated, Any, Literal, NotRequired, Optional, TypedDict

    T = typing.TypeVar("T")
    P = typing.ParamSpec("P")
    def later(a: Later, b: list[Later] | None, c: "Later", d: dict[str, "Later"]) -> typing.Self: ...
    def kinds(a: Optional[int], b: Literal["int"], c: Annotated[int, "x"], d: T, e: typing.Callable[P, Later],
              f: typing.Callable[[Later], int], g: tuple[int, ...], h: type[Later], i: Keys, j: Any, k: None): ...
    class Later: ...
    class Keys(TypedDict, total=False):
        a: NotRequired[int]
    @dataclasses.dataclass
    class Record:
        a: Later
        b: Nowhere = None
    def local():
        class Inner: ...
        def used(a: Inner) -> Inner: return Inner()
        def unused(a: Inner, b: int): ...
        return Inner, used, unused
"""


def test_postponed_hints_resolve_even_to_names_defined_later():
    module = module_of(POSTPONED)
    found = schema(module.later)
    later = module.Later
    hints = [parameter.hint for parameter in found.parameters.values()]
    assert hints == [later, list[later] | None, later, dict[str, later]]
    assert (found.result, found.problems) == (typing.Self, ())


def test_postponed_hints_of_every_kind_resolve():
    module = module_of(POSTPONED)
    found = schema(module.kinds)
    later = module.Later
    assert found.problems == ()
    assert [parameter.hint for parameter in found.parameters.values()] == [
        Optional[int], Literal["int"], Annotated[int, "x"], module.T, typing.Callable[module.P, later],
        typing.Callable[[later], int], tuple[int, ...], type[later], module.Keys, Any, types.NoneType,
    ]  # fmt: skip


def test_a_dataclass_resolves_field_by_field():
    module = module_of(POSTPONED)
    found = schema(module.Record)
    assert found.parameters["a"].hint is module.Later
    assert found.parameters["b"].hint is MISSING
    assert len(found.problems) == 1


def test_the_fields_a_dataclass_inherits_resolve_where_they_were_written():
    base = module_of(POSTPONED, "base_for_hints").Record

    @dataclasses.dataclass
    class Derived(base):
        c: int = 1

    assert schema(Derived).parameters["a"].hint is sys.modules["base_for_hints"].Later


def test_names_local_to_a_function_resolve_where_the_closure_has_them():
    inner, used, unused = module_of(POSTPONED).local()
    assert schema(used).parameters["a"].hint is inner
    found = schema(unused)
    assert [parameter.hint for parameter in found.parameters.values()] == [MISSING, int]
    assert len(found.problems) == 1


# ---------------------------------------------------------------- fits

FITTING = [
    (int, int), (MISSING, int), (int, MISSING), (Any, int), (int, Any), (int, object), (MISSING, MISSING),
    (Child, Parent), (bool, int), (int, float), (bool, float), (int, complex), (float, complex), (None, None),
    (types.NoneType, None), (None, int | None), (None, Hashable), (None, object),
    (int | str, int | str), (int | str, str | int | None), (Optional[int], Optional[float]), (int, Union[int, str]),
    (Union[bool, int], int), (list[int] | None, Sequence[int] | None),
    (list[bool], list[int]), (list[int], list[float]), (list[int], Sequence[int]), (list[int], Iterable[int]),
    (list[int], Collection[int]), (list[int], list), (list, list[int]), (list[Any], list[int]), (list[int], list[Any]),
    (list, Sequence[int]), (typing.List[int], list[int]), (typing.List, list[int]), (list[int], typing.Iterable[int]),
    (dict[str, int], Mapping[str, int]), (dict[str, int], Iterable[str]), (dict[str, bool], dict[str, int]),
    (dict, Mapping[str, int]),
    (collections.Counter[str], Mapping[str, int]), (collections.Counter[str], dict[str, int]),
    (collections.OrderedDict[str, int], dict[str, int]),
    (dict[str, list[int]], Mapping[str, Sequence[float]]), (ItemsView[str, int], Iterable[tuple[str, int]]),
    (tuple[int, int], tuple[int, ...]), (tuple[int, int], Sequence[int]), (tuple[int, ...], Iterable[int]),
    (tuple[bool, int], tuple[int, int]),
    (tuple[int, *tuple[int, ...]], tuple[int, ...]), (tuple[int, int], tuple[int, *tuple[int, ...]]),
    (tuple[()], tuple[int, ...]), (tuple[()], tuple[()]), (tuple, tuple[int, int]),
    (tuple[int, str], Sequence[int | str]), (tuple[int, int], tuple),
    (Point, tuple), (Point, Sequence), (set[int], Set[int]), (set[int], Sized), (frozenset[int], Set[int]),
    (str, Sequence[str]), (str, Iterable[str]), (bytes, Sequence[int]), (range, Sequence[int]), (str, Sized),
    (Literal["a"], str), (Literal["a"], Literal["a", "b"]), (Literal["a", "b"], Literal["b", "a"]), (Literal[1], float),
    (Literal["a", 1], str | int), (Literal["a", None], Optional[str]), (Literal["a"], Literal["a"] | int),
    (None, Literal[None]),
    (Literal[1, 2], Literal[1] | Literal[2]), (bool, Literal[True, False]), (Color, Literal[Color.RED, Color.BLUE]),
    (Literal[Color.RED], Color),
    (Level, int), (Literal["a"], typing.LiteralString), (typing.LiteralString, str),
    (UserId, int), (UserId, float), (AdminId, int), (AdminId, UserId), (UserId, UserId), (UserId, UserId | None),
    (list[UserId], list[int]), (AdminId, UserId | str),
    (T, int), (int, T), (T, T), (Number, float), (int, Number), (str, Text), (Text, str | bytes), (list[T], list[int]),
    (typing.Self, int),
    (Annotated[int, "x"], int), (int, Annotated[float, "x"]), (list[Annotated[int, {}]], list[int]),
    (Annotated[int, []], Annotated[int, {}]),
    (Door, Closes), (Door, Named), (Door, Hashable), (Ints, Closes | list[int]), (Shelf[int], Shelf[float]),
    (Path, typing.Any), (int, typing.SupportsInt),
    (Order, dict), (Order, Mapping[str, Any]), (Order, dict[str, object]), (Order, Mapping[str, int | str]),
    (BigOrder, Order), (Order, Order), (Leaf, Tree),
    (list[BigOrder], Sequence[Order]),
    (Callable[[int], str], Callable[[int], str]), (Callable[[float], bool], Callable[[int], int]),
    (Callable[..., int], Callable[[str], int]),
    (Callable[[str], int], Callable[..., int]), (Callable, Callable[[int], int]), (Callable[[int], int], Callable),
    (types.FunctionType, Callable[[int], int]),
    (type[int], Callable[[str], int]), (Callable[P, int], Callable[[int], float]),
    (type[Child], type[Parent]), (type, type[int]), (type[int], type), (type[Any], type[int]), (type[int], object),
    (type[int], type[int | str]),
    (Ints, list[int]), (Ints, Sequence[int]), (MoreInts, Iterable[float]), (IntBox, Box[int]), (IntBox, Box[float]),
    (Box[bool], Box[int]), (Box, Box[int]),
    (Rows[int], Iterable[str]), (Generator[int, None, None], Iterator[int]),
    (Generator[int, str, bool], Iterable[float]),
    (AsyncGenerator[int, None], AsyncIterator[int]), (Coroutine[Any, Any, int], Awaitable[int]), (typing.NoReturn, int),
    (typing.Never, typing.Never),
    (Any, typing.Never), (typing.TextIO, Iterable[str]), (io.TextIOWrapper, typing.IO[str]),
    (contextlib.ExitStack, contextlib.AbstractContextManager[Any]), ("Unresolved", int),
    (list["Unresolved"], list[int]), (5, int), (threading.Thread, object),
]  # fmt: skip

REFUSED = [
    (int, str), (Parent, Child), (int, bool), (float, int), (complex, float), (object, int), (str, bytes),
    (Decimal, float), (bytearray, bytes),
    (None, int), (int, None), (Optional[int], int), (int | str, int), (int | str, int | bytes),
    (Optional[int], Optional[str]), (Union[int, None], str | None),
    (list[int] | int, list[int]), (list[int], list[str]), (list[float], list[int]), (list[int], Sequence[str]),
    (list[int], tuple[int, ...]),
    (list[int], dict), (list, dict), (list[int], set[int]), (Sequence[int], list[int]), (Iterable[int], list[int]),
    (list[int], Mapping[str, int]),
    (list[int | None], list[int]), (list[int], Iterator[int]), (list[int], Hashable), (list, int),
    (dict[str, int], dict[str, str]), (dict[int, int], Mapping[str, int]), (dict[str, int], Iterable[int]),
    (dict[str, int], list[str]),
    (collections.Counter[str], Mapping[str, str]), (dict[str, list[int]], Mapping[str, Sequence[str]]),
    (ItemsView[str, int], Iterable[str]),
    (tuple[int, str], tuple[int, ...]), (tuple[int, int], tuple[int]), (tuple[int, ...], tuple[int, int]),
    (tuple[int, str], tuple[str, int]),
    (tuple[int, str], Sequence[int]), (tuple[()], tuple[int]), (tuple[int], tuple[()]), (tuple[int, int], list[int]),
    (str, Sequence[int]), (str, list[str]),
    (bytes, Iterable[str]), (range, Sequence[str]),
    (Literal["a"], int), (Literal["a", "c"], Literal["a", "b"]), (str, Literal["a"]), (Literal[1], Literal[True]),
    (Literal["a", 1], str), (bool, Literal[True]),
    (Color, Literal[Color.RED]), (Literal[Color.RED], Literal[Color.BLUE]), (Literal["a", None], str), (Color, str),
    (int, Level), (None, Literal["a"]),
    (int, UserId), (UserId, AdminId), (UserId, str), (list[int], list[UserId]), (UserId, AdminId | None),
    (bool, UserId),
    (Number, str), (str, Number), (int, Text), (Text, str), (list[Number], list[str]), (Annotated[int, "x"], str),
    (int, Annotated[str, []]),
    (Slotted, Closes), (Slotted, Named), (int, Named), (Parent, Closes), (list[Parent], list[Closes]), (None, Closes),
    (Shelf[str], Shelf[int]), (list, Shelf[int]),
    (Order, BigOrder), (dict[str, int], Order), (dict, Order), (Order, dict[str, int]), (Order, Mapping[int, Any]),
    (Order, list), (Tree, Leaf), (Order, Day),
    (Callable[[int], str], Callable[[int], int]), (Callable[[int], str], Callable[[str], str]),
    (Callable[[int], str], Callable[[], str]), (int, Callable[[int], int]),
    (Callable[[bool], int], Callable[[int], int]), (Callable[..., str], Callable[..., int]),
    (Callable[[int], int], int),
    (type[Parent], type[Child]), (int, type[int]), (type[int], int), (type[int | str], type[int]),
    (Ints, list[str]), (Ints, Sequence[str]), (MoreInts, Iterable[str]), (IntBox, Box[str]), (Box[int], IntBox),
    (Box[int], list[int]),
    (Generator[int, None, None], Iterator[str]), (Generator[int, None, None], list[int]),
    (Generator[int, None, None], int), (Iterator[int], AsyncIterator[int]),
    (Coroutine[Any, Any, int], Awaitable[str]), (Coroutine[Any, Any, int], int), (int, typing.Never),
    (int, typing.NoReturn), (asyncio.Queue, list),
]  # fmt: skip


def name_of(pair):
    return " -> ".join(map(shown, pair))


@pytest.mark.parametrize("pair", FITTING, ids=name_of)
def test_fits(pair):
    assert fits(*pair)


@pytest.mark.parametrize("pair", REFUSED, ids=name_of)
def test_does_not_fit(pair):
    assert not fits(*pair)


def test_a_hint_that_raises_at_every_touch_is_left_unchecked():
    class Hostile:
        def __eq__(self, other):
            raise RuntimeError

        def __hash__(self):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        hash(Hostile())
    assert fits(Hostile(), int)
    assert fits(list[int], list[Hostile()] | None)


def test_a_typed_dict_with_a_bad_hint_is_still_known_by_its_keys():
    class Bad(TypedDict):
        id: "Nowhere"

    assert fits(Bad, Mapping[str, int])
    assert fits(Order, Bad)
    assert not fits(Bad, BigOrder)
    assert convert({"id": 1}, Bad) == {"id": 1}


class Knot(TypedDict):
    more: list["Knot"]
    end: int


class Noose(TypedDict):
    more: list["Noose"]
    end: str


def test_what_was_concluded_from_a_wrong_supposition_is_forgotten():
    # list[Knot] fits list[Noose] as long as Knot is supposed to fit Noose, which its last field disproves.
    assert not fits(Knot | tuple[list[Knot]], Noose | Mapping[str, Any] | tuple[list[Noose]])


def test_a_key_that_may_be_left_out_does_not_fit_one_that_must_be_there():
    keys = module_of(
        """
        from __future__ import annotations
        from typing import NotRequired, Required, TypedDict
        class Some(TypedDict):
            a: NotRequired[int]
        class Every(TypedDict, total=False):
            a: Required[int]
        """
    )
    assert fits(keys.Every, keys.Some)
    assert not fits(keys.Some, keys.Every)


def test_a_class_that_makes_its_attributes_may_have_any():
    class Made:
        __slots__ = ()

        def __getattr__(self, name): ...

    assert fits(Made, Closes)


def test_a_protocol_that_compares_does_not_ask_for_a_hash():
    class Compares(Protocol):
        def __eq__(self, other: object) -> bool: ...

    assert fits(list[int], Compares)


def test_a_hint_that_no_rule_knows_is_a_question_for_beartype():
    assert fits(int, typing.Concatenate[int, P])
    code = """
import sys, typing, dpcore.hints
dpcore.hints.fits(int, typing.Concatenate[int, typing.ParamSpec("P")])
print("beartype" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "True\n"


def test_hints_nested_deeper_than_any_stack_are_answered():
    deep = int
    for _ in range(5_000):
        deep = list[deep]
    assert fits(deep, list[deep])
    assert fits(deep, deep)


def test_asking_where_the_stack_is_nearly_full_raises_nothing():
    def dig():
        try:
            return dig()
        except RecursionError:
            return fits(dict[str, list[Order]], Mapping[str, Sequence[Leaf]])

    assert dig() in (True, False)
    assert not fits(dict[str, list[Order]], Mapping[str, Sequence[Leaf]]), "nothing wrong was remembered"


def test_answers_are_remembered_for_hints_that_are_equal_though_not_the_same():
    fits(list[Parent], list[Child])
    before = dpcore.hints.fitting._hashed_answer.cache_info().hits
    assert not fits(list[Parent], list[Child])
    assert dpcore.hints.fitting._hashed_answer.cache_info().hits == before + 1


def test_the_memory_of_answers_is_bounded():
    kept = [type(f"Kind{index}", (), {}) for index in range(5_000)]
    for kind in kept:
        fits(kind, Parent)
    assert len(dpcore.hints.fitting._answers) <= dpcore.hints.fitting._MEMORY


HINTS = st.recursive(
    st.sampled_from([
        int, str, bool, float, None, Any, object, MISSING, Color, UserId, T, Number,
        Parent, Child, Order, Leaf, Point, Named,
        Closes, list, dict, tuple, Literal["a", 1], Literal[True], Callable, typing.Never, Ints, IntBox, "Later", 5,
    ]),
    lambda inner: st.one_of(
        inner.map(lambda a: list[a]),
        inner.map(lambda a: Sequence[a]),
        inner.map(lambda a: tuple[a, ...]),
        inner.map(lambda a: type[a]),
        inner.map(lambda a: Annotated[a, "x"] if a not in (MISSING, 5) else a),
        inner.map(lambda a: Iterator[a]),
        st.tuples(inner, inner).map(lambda pair: dict[pair]),
        st.tuples(inner, inner).map(lambda pair: tuple[pair]),
        st.tuples(inner, inner).map(lambda pair: pair[0] if MISSING in pair or 5 in pair else Union[pair]),
        st.tuples(inner, inner).map(lambda pair: Callable[[pair[0]], pair[1]]),
    ),
    max_leaves=8,
)  # fmt: skip


@given(HINTS)
def test_every_hint_fits_itself_and_any_both_ways(hint):
    assert fits(hint, hint)
    assert fits(hint, Any)
    assert fits(Any, hint)
    assert fits(hint, MISSING)
    assert fits(MISSING, hint)
    assert fits(hint, object)


@given(HINTS, HINTS)
def test_no_pair_of_hints_makes_it_raise(output, into):
    assert fits(output, into) in (True, False)
    assert isinstance(shown(output), str)
    assert stream_kind(into) in ("iterator", "async", "list")
    assert stream_fits(output, into) in (True, False)
    assert accepts_none(into) in (True, False)
    item_hint(output)


SIMPLE = st.sampled_from([int, str, bytes, None, list[int], Parent, Child, Order])


@given(st.lists(SIMPLE, min_size=2, max_size=4), HINTS)
def test_a_union_fits_where_each_member_does_and_each_member_fits_the_union(members, other):
    union = Union[tuple(members)]
    assert all(fits(member, union) for member in members)
    assert fits(union, other) == all(fits(member, other) for member in members)
    if any(fits(other, member) for member in members):
        assert fits(other, union)


# ---------------------------------------------------------------- streams, None, and how a hint is written


@pytest.mark.parametrize(
    ("result", "item"),
    [
        (Generator[int, None, None], int), (Iterator[str], str), (Iterable[str], str), (AsyncGenerator[int, None], int),
        (AsyncIterator[list[int]], list[int]), (AsyncIterable[int], int), (typing.Iterator[int], int),
        (Annotated[Iterator[int], 1], int),
        (Optional[Iterator[int]], int), (list[int], int), (dict[str, int], str),
        (Iterator[int] | Iterator[str], int | str),
        (Iterator, MISSING), (Generator, MISSING), (typing.Iterator, MISSING), (MISSING, MISSING), (Any, MISSING),
        (int, MISSING), (None, MISSING),
    ],
)  # fmt: skip
def test_the_item_of_a_stream_is_in_its_hint(result, item):
    assert item_hint(result) == item
    assert item_hint(result, is_async=True) == item


@pytest.mark.parametrize(
    "into", [Iterator, AsyncIterator, Iterable, AsyncIterable, list, Sequence, Collection, MutableSequence]
)
def test_a_stream_fits_what_can_read_it(into):
    assert stream_fits(bool, into[int])
    assert stream_fits(MISSING, into[int])
    assert stream_fits(int, into)
    assert stream_fits(int, Optional[into[int]])
    assert not stream_fits(str, into[int])
    assert not stream_fits(int | None, into[int])


@pytest.mark.parametrize(
    "into", [int, str, tuple[int, ...], set[int], dict[str, int], Generator[int, None, None], Order, None]
)
def test_a_stream_fits_nothing_else(into):
    assert not stream_fits(int, into)


@pytest.mark.parametrize("into", [MISSING, Any, object])
def test_a_stream_fits_what_is_not_checked(into):
    assert stream_fits(int, into)


@pytest.mark.parametrize(
    ("into", "kind"),
    [
        (Iterator[int], "iterator"), (typing.Iterator[int], "iterator"), (Generator[int, None, None], "iterator"),
        (Iterator, "iterator"),
        (Optional[Iterator[int]], "iterator"), (Annotated[Iterator[int], 1], "iterator"),
        (NewType("Rows", Iterator[int]), "iterator"),
        (AsyncIterator[int], "async"), (AsyncIterable[int], "async"), (AsyncGenerator[int, None], "async"),
        (AsyncIterator[int] | None, "async"),
        (Iterable[int], "list"), (list[int], "list"), (MISSING, "list"), (Any, "list"), (int, "list"),
        (Sequence[int] | None, "list"),
    ],
)  # fmt: skip
def test_a_hint_says_how_it_wants_a_stream(into, kind):
    assert stream_kind(into) == kind


@pytest.mark.parametrize(
    "hint",
    [
        None,
        types.NoneType,
        Any,
        object,
        int | None,
        Optional[int],
        Annotated[int | None, 1],
        Literal["a", None],
        Union[Any, int],
    ],
)
def test_a_hint_that_says_so_accepts_none(hint):
    assert accepts_none(hint)


@pytest.mark.parametrize("hint", [MISSING, int, list[None], T, str | int, UserId, Literal["None"]])
def test_a_hint_that_does_not_say_so_does_not_accept_none(hint):
    assert not accepts_none(hint)


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (MISSING, "anything"), (int, "int"), (None, "None"), (list[int], "list[int]"), (typing.List[int], "list[int]"),
        (int | None, "int | None"),
        (Optional[int], "int | None"), (dict[str, Sequence[int]], "dict[str, Sequence[int]]"), (Any, "Any"),
        (Literal["a", 1], "Literal['a', 1]"),
        (Literal[Color.RED], "Literal[Color.RED]"), (Callable[[int, str], None], "Callable[[int, str], None]"),
        (Callable[..., int], "Callable[..., int]"),
        (tuple[int, ...], "tuple[int, ...]"), (tuple[()], "tuple[()]"),
        (tuple[int, *tuple[str, ...]], "tuple[int, *tuple[str, ...]]"), (list, "list"), (typing.List, "List"),
        (UserId, "UserId"), (T, "T"),
        (Annotated[int, "x"], "int"), (type[int], "type[int]"),
        (Box[int], "Box[int]"), ("Later", "Later"), (list["Later"], "list[Later]"),
        (typing.List["Later"], "list[Later]"), (Callables.method, "Callables.method"),
        (typing.Self, "Self"), (Iterator, "Iterator"), (5, "5"),
        (type("Local", (), {"__qualname__": "f.<locals>.Local"}), "Local"),
    ],
)  # fmt: skip
def test_a_hint_is_shown_as_one_would_write_it(hint, text):
    assert shown(hint) == text


# ---------------------------------------------------------------- convert


@pytest.mark.parametrize(
    ("text", "hint", "value"),
    [
        ("5", int, 5), ("-5", int, -5), ("1e3", float, 1000.0), ("5", float, 5.0), ("yes", bool, True),
        ("OFF", bool, False), ("0", bool, False),
        ("x", str, "x"), ("", str, ""), ("None", None, None), ("null", Optional[int], None), ("none", str | None, None),
        ("5", Optional[int], 5),
        ("2026-01-02", date, date(2026, 1, 2)),
        ("2026-01-02T03:04:05Z", datetime, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)), ("03:04", time, time(3, 4)),
        ("90", timedelta, timedelta(seconds=90)), ("1.5", timedelta, timedelta(seconds=1.5)),
        ("PT1H", timedelta, timedelta(hours=1)),
        ("1.10", Decimal, Decimal("1.10")), ("a/b", Path, Path("a/b")), ("a/b", Path | None, Path("a/b")),
        ("none", Path | None, None),
        ("12345678-1234-5678-1234-567812345678", UUID, UUID("12345678-1234-5678-1234-567812345678")),
        ("RED", Color, Color.RED), ("r", Color, Color.RED), ("2", Level, Level.HIGH), ("HIGH", Level, Level.HIGH),
        ("a", Literal["a", "b"], "a"), ("2", Literal[1, 2], 2), ("true", Literal[True, "auto"], True),
        ("auto", Literal[True, "auto"], "auto"),
        ("RED", Literal[Color.RED], Color.RED), ("", Literal["", "x"], ""), ("none", Literal["x", None], None),
        ("5", str | int, 5), ("x", str | int, "x"), ("2026-01-02", int | date | str, date(2026, 1, 2)),
        ("5.5", int | float, 5.5),
        ("[1, 2]", list[int], [1, 2]), ("1,2", list[int], [1, 2]), ("1, 2", list[int], [1, 2]), ("7", list[int], [7]),
        ("a,b", list[str], ["a", "b"]), ("a,b", list, ["a", "b"]),
        ("1,2", Sequence[int], [1, 2]), ("1,2", Iterable[int], [1, 2]), ("1,2", tuple[int, ...], (1, 2)),
        ("1,x", tuple[int, str], (1, "x")), ("1,2,1", set[int], {1, 2}),
        ("1,2", Iterator[int], [1, 2]), ("a,b", frozenset[str], frozenset("ab")),
        ('{"a": "1"}', dict[str, int], {"a": 1}), ('{"1": 2}', Mapping[int, int], {1: 2}),
        ("[[1], [2]]", list[list[int]], [[1], [2]]), ('["2026-01-02"]', list[date | str], [date(2026, 1, 2)]),
        ("[]", list[int], []), ('["RED"]', list[Color], [Color.RED]),
        ('{"when": "2026-01-02"}', Day, Day(date(2026, 1, 2))), ('{"id": "7"}', Order, {"id": 7}),
        ('{"id": 1, "day": "2026-01-02"}', Paid, Paid(1, date(2026, 1, 2))),
        ('[{"when": "2026-01-02"}]', list[Day], [Day(date(2026, 1, 2))]), ("[1, 2]", Point, Point(1, 2)),
        ("5", UserId, 5), ("5", Annotated[int, "x"], 5), ("5", Number, 5.0), ("x", MISSING, "x"), ("5", Any, "5"),
        ("5", object, "5"), ("x", T, "x"),
    ],
)  # fmt: skip
def test_text_becomes_what_the_hint_asks_for(text, hint, value):
    made = convert(text, hint)
    assert made == value
    assert type(made) is type(value)


@pytest.mark.parametrize(
    ("value", "hint", "why"),
    [
        ("x", int, "'x' is not an int"), ("", int, "'' is not an int"), ("5.5", int, "'5.5' is not an int"),
        ("x", float, "'x' is not a float"),
        ("maybe", bool, "'maybe' is not a bool"), ("x", None, "'x' is not None"), ("", Path, "'' is not a Path"),
        ("", Optional[int], "'' is not an int | None"),
        ("2026-13-01", date, "'2026-13-01' is not a date: month must be in 1..12"),
        ("x", datetime, "'x' is not a datetime"), ("x", timedelta, "'x' is not a timedelta: Invalid ISO8601 duration"),
        ("x", Decimal, "'x' is not a Decimal"), ("x", UUID, "'x' is not a UUID: badly formed hexadecimal UUID string"),
        ("GREEN", Color, "'GREEN' is not a Color: there are RED, BLUE"),
        ("c", Literal["a", "b"], "'c' is not one of 'a', 'b'"), ("c", Literal["a"], "'c' is not Literal['a']"),
        ("x", int | date, "'x' is not an int | date"),
        ("1,x", list[int], "'1,x' is not a list[int]: 'x' is not an int"), ("", list[int], "'' is not a list[int]"),
        ("1", list[list[int]], "'1' is not a list[list[int]]"),
        ("{", dict[str, int], "as JSON, Input data was truncated"),
        ("1,2,3", tuple[int, int], "'1,2,3' is not a tuple[int, int]: it has 3 items instead of 2"),
        ("{}", Order, "missing required field `id`"), ('{"when": "x"}', Day, "Invalid RFC3339 encoded date"),
        ("7", Day, "is not a Day"), ("[1]", dict[str, int], "is not a dict"),
        ("x", Parent, "'x' is not a Parent: that cannot be written as text, so give a value"),
        ("x", Callable[[int], int], "'x' is not a Callable[[int], int]"), ("x", bytes, "'x' is not a bytes"),
        (5, str, "5 is not a str"), (None, int, "None is not an int"), (1.5, int, "1.5 is not an int"),
        (5, Parent, "5 is not a Parent"), ([1], dict[str, int], "[1] is not a dict[str, int]"),
        (["x"], list[int], "['x'] is not a list[int]: 'x' is not an int"), (5, list[int], "5 is not a list[int]"),
        ([1, None], Sequence[int], "None is not an int"), (Parent, type[int], "is not a type[int]"),
        (5, typing.Never, "5 is not a Never"), ({"id": "x"}, Order, "is not an Order"),
        (5, int.__class__, "5 is not a type"), ("x" * 1000, int, "xxx... (1002 characters) is not an int"),
    ],
)  # fmt: skip
def test_what_does_not_convert_is_a_sentence(value, hint, why):
    with pytest.raises(ValueError, match="is not") as caught:
        convert(value, hint)
    assert why in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ([1, 2], list[int]), ([1, 2], Sequence[int]), ([1, 2], Iterable[float]), ([1, 2], list),
        ({"a": 1}, dict[str, int]), ({"id": 1, "more": 2}, Order),
        (Child(), Parent), (Day(date(2026, 1, 1)), Day), (Color.RED, Color), (Level.LOW, int), (1, float),
        (None, Optional[int]), ((1, "a"), tuple[int, str]),
        (iter([1]), Iterator[int]), (len, Callable[[Any], int]), (Child, type[Parent]), (7, UserId),
        ([7], list[UserId]), (1.5, Any), ([1], MISSING), ([1], object),
        ("a", Literal["a"]), (Path("a"), Path), (Door(), Closes), (Box(1), Box[int]), (b"x", bytes), ({1, 2}, Set[int]),
        ([["a"]], list[Sequence[str]]),
        (datetime(2026, 1, 1, tzinfo=UTC), date), (threading.Lock(), Any), (Decimal(1), Decimal | None),
    ],
    ids=lambda one: str(one).partition(" at 0x")[0],
)  # fmt: skip
def test_an_instance_passes_as_itself(value, hint):
    assert convert(value, hint) is value


@pytest.mark.parametrize(
    ("value", "hint", "made"),
    [
        (["1", 2], list[int], [1, 2]), ((1, 2), list[int], [1, 2]), ([1, 2], tuple[int, int], (1, 2)),
        ({"when": "2026-01-02"}, Day, Day(date(2026, 1, 2))),
        ({"when": date(2026, 1, 2)}, Day, Day(date(2026, 1, 2))), ({"a": "1"}, dict[str, int], {"a": 1}), (3.0, int, 3),
        (90, timedelta, timedelta(seconds=90)),
        ("r", Color | None, Color.RED), (2, Level, Level.HIGH), ([1, 2], set[int], {1, 2}),
        ({"id": "7"}, Order, {"id": 7}),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_converted(value, hint, made):
    assert convert(value, hint) == made


def test_many_values_are_looked_at_by_class():
    many = list(range(100_000))
    assert convert(many, list[int]) is many
    assert convert(many, Sequence[float | None]) is many
    with pytest.raises(ValueError, match="'x' is not an int"):
        convert([*many, "x"], list[int])


NUMBERS = (st.integers(), st.booleans(), st.floats(allow_nan=False), st.decimals(allow_nan=False))


@given(st.one_of(*NUMBERS, st.dates(), st.times(), st.datetimes(), st.uuids()))
def test_what_is_printed_converts_back(value):
    assert convert(str(value), type(value)) == value


def assert_made_or_refused(value, hint):
    try:
        convert(value, hint)
        sentence = "it is not refused"
    except ValueError as error:
        sentence = str(error)
    assert " is not " in sentence


@given(st.text(), HINTS)
def test_text_and_any_hint_make_a_value_or_a_sentence(text, hint):
    assert_made_or_refused(text, hint)


@given(st.lists(st.one_of(st.integers(), st.text(), st.none())), HINTS)
def test_values_and_any_hint_make_a_value_or_a_sentence(values, hint):
    assert_made_or_refused(values, hint)


# ---------------------------------------------------------------- PEP 695

GENERICS = """
    {future}
    from collections.abc import Iterator, Sequence
    from typing import NewType

    type Number = int | float
    type Pair[T] = tuple[T, T]
    type Maybe[T] = T | None
    type Json = dict[str, Json] | list[Json] | str | int | None
    type Json2 = dict[str, Json2] | list[Json2] | str | bool | None
    type Loop = Loop
    type Widening[T] = list[Widening[list[T]]]
    type Other[T] = list[Other[list[T]]]
    type Growing[T] = Growing[list[T]]
    type Broken = list[Nowhere]
    type Ints = Iterator[int]
    def first[T](items: Sequence[T], n: Number, pair: Pair[int]) -> T: ...
    class Box[T](list[T]): ...
    class Bounded[T: float]: ...
    def take[T: float](x: T) -> T: ...
"""

new_syntax = pytest.mark.skipif(sys.version_info < (3, 12), reason="the syntax of PEP 695 is new in Python 3.12")


@new_syntax
@pytest.mark.parametrize("future", ["", "from __future__ import annotations"])
def test_type_parameters_and_aliases_resolve(future):
    module = module_of(GENERICS.format(future=future))
    found = schema(module.first)
    assert found.problems == ()
    (variable,) = module.first.__type_params__
    assert found.result is variable
    hints = [parameter.hint for parameter in found.parameters.values()]
    assert hints == [Sequence[variable], module.Number, module.Pair[int]]


@new_syntax
def test_aliases_are_what_they_stand_for():
    m = module_of(GENERICS.format(future=""))
    (bounded,) = m.take.__type_params__
    for output, into in [
        (int, m.Number), (m.Number, float), (m.Pair[int], tuple[int, int]), (tuple[bool, bool], m.Pair[int]),
        (None, m.Maybe[int]), (m.Maybe[int], int | None),
        (m.Json, m.Json), (m.Json2, m.Json), (list[str], m.Json), (list[dict[str, list[int]]], m.Json),
        (m.Box[int], list[int]), (m.Box[int], Sequence[float]),
        (m.Loop, int), (int, m.Loop), (m.Widening[int], m.Other[int]), (m.Growing[int], int),
        (m.Broken, int), (int, m.Broken | None), (bounded, float),
        (int, bounded), (list[m.Maybe[int]], list[m.Maybe[float]]),
    ]:  # fmt: skip
        assert fits(output, into), (output, into)
    for output, into in [
        (m.Number, int), (m.Pair[int], tuple[str, str]), (m.Maybe[int], int), (m.Json, m.Json2), (list[bytes], m.Json),
        (m.Box[int], list[str]), (str, bounded),
        (dict[str, list[bytes]], m.Json), (bytes, m.Json),
    ]:  # fmt: skip
        assert not fits(output, into), (output, into)


@new_syntax
def test_the_rest_sees_through_aliases_too():
    m = module_of(GENERICS.format(future=""))
    assert stream_kind(m.Ints) == "iterator"
    assert item_hint(m.Ints) is int
    assert stream_fits(int, m.Ints)
    assert accepts_none(m.Maybe[int])
    assert accepts_none(m.Json)
    assert not accepts_none(m.Number)
    assert stream_kind(m.Broken) == "list"
    assert convert("x", m.Broken) == "x"
    assert shown(m.Pair[int]) == "Pair[int]"
    assert shown(m.Json) == "Json"
    assert convert("1,2", m.Pair[int]) == (1, 2)
    assert convert("5", m.Number) == 5
