"""Plans: which tasks a run needs, what each receives, and in what order they can run.

Pure, linear in tasks and edges, and without recursion.  :func:`plan` finds every
fault and reports them together; nothing that was asked for is dropped silently.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from graphlib import CycleError as GraphCycleError
from graphlib import TopologicalSorter
from types import MappingProxyType
from typing import Any, NamedTuple

from dpcore.errors import (
    ArgumentError,
    CycleError,
    GivenTaskError,
    InputMismatchError,
    MissingHintError,
    MissingInputError,
    ParamError,
    PlanningError,
    SelectionError,
    TaskNotFoundError,
    UnreadStreamError,
    check_argument,
)
from dpcore.hints import MISSING, convert, fits, shown, stream_fits
from dpcore.tasks import Registry, Task
from dpcore.tasks import registry as default_registry
from dpcore.words import Shown, listed, printed

__all__ = ("Edge", "Plan", "plan")

Selector = str | Callable[..., Any]


class Edge(NamedTuple):
    """One task waits for another; with a *parameter*, it receives its result.

    *inferred* says that nobody wrote the edge down: the parameter is named like the
    task, or was the only one left.
    """

    upstream: str
    task: str
    parameter: str | None
    inferred: bool


class Wiring(NamedTuple):
    """What one task receives and waits for, whatever is selected beside it."""

    data: dict[str, str]  # parameter -> task
    inferred: frozenset[str]  # parameters whose edge nobody wrote down
    guessed: str | None  # the parameter that took the only dependency left
    order: tuple[str, ...]  # dependencies that give nothing
    params: tuple[str, ...]  # parameters that params= supplies
    missing: tuple[str, ...]  # parameters that nothing supplies


class Plan:
    """The DAG of selected tasks: what feeds what, in which order, and under which id.

    ``tasks`` are in :attr:`order`; ``needs`` says for each task which others of the
    plan must have ended before it, and ``dependents`` which wait for it, in the order
    of registration; ``inputs`` which task's result each parameter
    receives; ``earlier`` the same for results of an earlier run; ``arguments`` the
    run parameters it takes, converted; ``left_out`` are order-only dependencies
    outside the selection, as (task, dependency).

    Made by :func:`plan`, and not changed afterwards.
    """

    def __init__(
        self,
        tasks: Mapping[str, Task],
        levels: Sequence[Sequence[str]],
        needs: Mapping[str, tuple[str, ...]],
        wirings: Mapping[str, Wiring],
        inputs: Mapping[str, Mapping[str, str]],
        dependents: Mapping[str, Sequence[str]],
        earlier: Mapping[str, Mapping[str, str]],
        arguments: Mapping[str, Mapping[str, Any]],
        left_out: tuple[tuple[str, str], ...],
        from_run: str | None,
    ) -> None:
        self.levels: tuple[tuple[str, ...], ...] = tuple(map(tuple, levels))
        self.order: tuple[str, ...] = tuple(name for level in levels for name in level)
        self.tasks: Mapping[str, Task] = MappingProxyType({name: tasks[name] for name in self.order})
        self.needs, self.inputs, self.earlier = needs, inputs, earlier
        self.dependents: Mapping[str, tuple[str, ...]] = {name: tuple(after) for name, after in dependents.items()}
        self.arguments, self.left_out, self.from_run = arguments, left_out, from_run
        self._wirings = wirings

    def __len__(self) -> int:
        return len(self.order)

    def __contains__(self, name: object) -> bool:
        return name in self.tasks

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks.values())

    def __repr__(self) -> str:
        return f"<Plan {self.id}: {len(self)} tasks, {len(self.levels)} levels>"

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """Every edge between tasks of the plan, in the order of the plan."""
        found: list[Edge] = []
        for name in self.order:
            fed = self.inputs.get(name, {})
            wiring = self._wirings[name]
            found += [Edge(up, name, parameter, inferred=parameter in wiring.inferred) for parameter, up in fed.items()]
            data = set(fed.values())
            found += [Edge(up, name, None, inferred=False) for up in self.needs[name] if up not in data]
        return tuple(found)

    @cached_property
    def id(self) -> str:
        """16 hex digits made of names and edges only: the same structure has the same id."""
        parts: list[str] = []
        for name in sorted(self.order):
            parts.append(f"\0{name}")
            if self.needs[name]:
                fed = self.inputs[name]
                data = set(fed.values())
                edges = [f"{up}\1{parameter}" for parameter, up in fed.items()]
                parts += sorted(edges + [f"{up}\1" for up in self.needs[name] if up not in data])
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that cover the structure and the tasks' own fingerprints."""
        prints = "\0".join(f"{name}\1{self.tasks[name].fingerprint}" for name in sorted(self.order))
        return hashlib.sha256(f"{self.id}\0{prints}".encode()).hexdigest()[:16]

    def fingerprint_of(self, name: str) -> str:
        """16 hex digits that cover one task's own fingerprint and what it receives and waits for."""
        fed = sorted([*self.inputs.get(name, {}).items(), *self.earlier.get(name, {}).items()])
        parts = [self.tasks[name].fingerprint, *(f"{parameter}\1{up}" for parameter, up in fed)]
        parts += ["", *sorted(self.needs[name])]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    def ready(self, done: Collection[str]) -> list[str]:
        """Return the tasks that are not in *done* and need nothing outside of it, in the order of the plan."""
        ended = done if isinstance(done, set | frozenset | Mapping) else set(done)
        return [name for name in self.order if name not in ended and all(up in ended for up in self.needs[name])]


def plan(
    *selection: Selector,
    registry: Registry | None = None,
    tags: Iterable[str] | None = None,
    root_tasks: Iterable[Selector] | None = None,
    include_upstream: bool = False,
    exclude: Iterable[Selector] = (),
    params: Mapping[str, Any] | Iterable[str] = (),
    from_run: str | None = None,
    strict: bool = False,
) -> Plan:
    """Plan a run of the selected tasks; of every task of the registry if nothing is selected.

    A selection is names, task functions, ``tag:etl``, and the graph operators
    ``+name`` (what it waits for too), ``name+`` (what waits for it too) and
    ``+name+``.  Names and tags close over what feeds them data.  *root_tasks* is
    exact: the roots and all that waits for them, and nothing else unless
    *include_upstream*.  *exclude* takes away, in the same grammar.

    *params* are the run parameters that will be given: their names, or a mapping
    whose values are converted here by the hints of who takes them.  A name that is a
    task's gives that task's result; there only text is converted, and any other value
    is taken as it is.  *from_run* is the id of an earlier run from
    which data comes that the selection does not make.  With *strict*, a missing hint
    on a data edge is a fault.

    Raises :class:`~dpcore.errors.PlanningError` with every fault, and before that
    :class:`~dpcore.errors.ArgumentError` for what is no registry, no mapping and so on.
    """
    return _Planning(default_registry if registry is None else registry, params, from_run, strict).plan(
        selection, tags, root_tasks, include_upstream, exclude
    )


def _worded(selector: object) -> str:
    """Return what to call *selector* in an error."""
    return selector if isinstance(selector, str) else Shown(printed(selector))


class _Planning:
    """One call of :func:`plan`: collects faults instead of stopping at the first."""

    def __init__(
        self, registry: Registry, params: Mapping[str, Any] | Iterable[str], from_run: str | None, strict: bool
    ) -> None:
        check_argument("registry", registry, Registry, "a Registry")
        check_argument("from_run", from_run, str | None, "the id of a run, or None")
        check_argument("strict", strict, bool, "True or False")
        if isinstance(params, str) or not isinstance(params, Iterable):
            raise ArgumentError("params", params, "a mapping from parameter to value, or a list of parameters")
        if not isinstance(params, Mapping):
            params = list(params)
            for name in params:
                check_argument("params", name, str, "the name of a parameter, each of them")
        self.registry = registry
        self.tasks: dict[str, Task] = dict(registry.items())
        self.names = tuple(self.tasks)  # one for all faults, which may be as many
        self.rank = {name: rank for rank, name in enumerate(self.tasks)}
        self.values: Mapping[str, Any] = params if isinstance(params, Mapping) else dict.fromkeys(params, MISSING)
        self.from_run, self.strict = from_run, strict
        self.wirings: dict[str, Wiring] = {}
        self.gives: dict[str, Any] = {}  # the hints of results that are one value; the others are not looked up
        self.faults: list[Exception] = []
        self.asked_for: set[str] = set()  # tasks that are selected though params= gives their results
        self.after: dict[str, list[str]] | None = None
        self.unknown: set[tuple[str, str]] = set()

    def plan(
        self,
        selection: tuple[Selector, ...],
        tags: Iterable[str] | None,
        root_tasks: Iterable[Selector] | None,
        include_upstream: bool,
        exclude: Iterable[Selector],
    ) -> Plan:
        check_argument("include_upstream", include_upstream, bool, "True or False")
        chosen = self.chosen(selection, tags, root_tasks, include_upstream)
        for selector in self.words("exclude", exclude):
            for name in self.expand(selector, closed=False):
                chosen.pop(name, None)
        names = sorted(chosen, key=self.rank.__getitem__)
        made = self.joined(names)
        levels, dependents = self.levelled(made.needs)
        if not self.faults and not names:
            chosen_some = bool(selection) or tags is not None or root_tasks is not None
            problem = "the selection is empty"
            if not (chosen_some or exclude):
                problem = "the registry is empty; decorate a function with @task, or pass the registry that has them (registry=...)"
            self.faults.append(
                SelectionError(Shown(listed(selection) if selection else "every task"), problem, self.names)
            )
        if self.faults:
            raise PlanningError("cannot plan", self.faults)
        return Plan(
            self.tasks,
            levels,
            made.needs,
            self.wirings,
            made.inputs,
            dependents,
            made.earlier,
            made.arguments,
            tuple(made.left_out),
            self.from_run,
        )

    # ---------------------------------------------------------------- selection

    def chosen(
        self,
        selection: tuple[Selector, ...],
        tags: Iterable[str] | None,
        root_tasks: Iterable[Selector] | None,
        include_upstream: bool,
    ) -> dict[str, None]:
        found: dict[str, None] = {}
        for selector in selection:
            found.update(self.expand(selector))
        for tag in self.words("tags", tags):
            if isinstance(tag, str):
                found.update(self.expand(f"tag:{tag}"))
            else:
                self.faults.append(SelectionError(Shown(printed(tag)), "tags= takes words"))
        roots = [name for root in self.words("root_tasks", root_tasks) for name in self.pick(root, _worded(root))]
        if roots:
            below = self.downstream(roots)
            found.update(self.upstream(below, order_too=True) if include_upstream else below)
        if not selection and tags is None and root_tasks is None:
            found.update(dict.fromkeys(name for name in self.tasks if name not in self.values))
        for name in [name for name in found if name in self.values]:
            del found[name]
        return found

    def words(self, argument: str, given: Any) -> list[Any]:
        if given is None:
            return []
        if isinstance(given, str) or not isinstance(given, Iterable):
            cure = f"; write {argument}=[{printed(given)}]" if isinstance(given, str) else ""
            self.faults.append(SelectionError(_worded(given), f"{argument}= takes a list{cure}"))
            return []
        return list(given)

    def expand(self, selector: Selector, *, closed: bool = True) -> dict[str, None]:
        """Return the tasks that *selector* stands for; if *closed*, with what feeds them data."""
        if not isinstance(selector, str):
            names = self.pick(selector, _worded(selector), excluding=not closed)
            return self.upstream(names, order_too=False) if closed else dict.fromkeys(names)
        match = _SELECTOR.fullmatch(selector.strip())
        if match is None:
            self.faults.append(SelectionError(selector, "a selection is name, +name, name+, +name+ or tag:word"))
            return {}
        before, name, after = match.groups()
        names = self.pick(name, selector, excluding=not closed)
        if after:
            names = list(self.downstream(names))
        if before:
            return self.upstream(names, order_too=True)
        return self.upstream(names, order_too=False) if closed else dict.fromkeys(names)

    def pick(self, selector: Selector, whole: str, *, excluding: bool = False) -> list[str]:
        """Return the tasks of one name, one function, or one tag; a fault if there are none."""
        if not isinstance(selector, str):
            names = list(self.registry.named(selector))
            if not names:
                problem = "it is no name and no function"
                if callable(selector):
                    problem = "that function is not a task of the registry"
                elif isinstance(selector, Iterable):
                    problem = "tasks are given one by one, as in run('a', 'b')"
                self.faults.append(SelectionError(whole, problem, self.names))
        elif selector.startswith("tag:"):
            names = [task.name for task in self.registry.tagged(selector[4:])]
            if not names:
                self.faults.append(
                    SelectionError(
                        whole, f"no task has the tag {selector[4:]!r}", [f"tag:{tag}" for tag in self.registry.tags]
                    )
                )
        else:
            names = [selector] if selector in self.tasks else []
            if not names:
                self.faults.append(TaskNotFoundError(selector, self.names))
        for name in names:
            if name in self.values and not excluding and not str(selector).startswith("tag:"):
                self.asked_for.add(name)
                self.faults.append(GivenTaskError(name))
        return names

    def upstream(self, names: Iterable[str], *, order_too: bool) -> dict[str, None]:
        """Close over what feeds *names*, and over what they only wait for if *order_too*."""
        found = dict.fromkeys(names)
        waiting = list(found)
        while waiting:
            wiring = self.wiring(waiting.pop())
            for name in [*wiring.data.values(), *(wiring.order if order_too else ())]:
                if name in self.tasks and name not in found:
                    found[name] = None
                    waiting.append(name)
        return found

    def downstream(self, names: Iterable[str]) -> dict[str, None]:
        """Close over all that waits for *names*, in whatever way."""
        if self.after is None:
            self.after = {}
            for name in self.tasks:
                wiring = self.wiring(name)
                for up in dict.fromkeys([*wiring.data.values(), *wiring.order]):
                    self.after.setdefault(up, []).append(name)
        found = dict.fromkeys(names)
        waiting = list(found)
        while waiting:
            for name in self.after.get(waiting.pop(), ()):
                if name not in found:
                    found[name] = None
                    waiting.append(name)
        return found

    # ---------------------------------------------------------------- wiring

    def wiring(self, name: str) -> Wiring:
        """Return what task *name* receives and waits for, by the rules (a) to (d) of the design."""
        known = self.wirings.get(name)
        if known is None:
            task = self.tasks[name]
            known = self.wirings[name] = self.wire(task)
            if not task.many:
                self.gives[name] = task.result
        return known

    def wire(self, task: Task) -> Wiring:
        tasks, given = self.tasks, self.values
        declared = task.dependencies if task.each is None else (*task.dependencies, task.each)
        data: dict[str, str] = {}
        inferred: list[str] = []
        params: list[str] = []
        open_: list[str] = []  # required, and not supplied yet
        for name, parameter in task.parameters.items():
            source = task.inputs.get(name) or (name if name in declared else None)
            if source is not None:  # (a) named in inputs=, (b) named like a dependency
                if source in given:
                    params.append(name)
                else:
                    data[name] = source
            elif name in given:  # params= beats what is inferred
                params.append(name)
            elif parameter.required:
                if name in tasks and name != task.name:  # (c) named like a task, as a pytest fixture would be
                    data[name] = name
                    inferred.append(name)
                else:
                    open_.append(name)
        guessed = self.guess(task, declared, data, open_) if len(open_) == 1 else None
        if guessed is not None:  # (d) the only parameter and the only dependency left
            parameter_name, source = guessed
            open_.remove(parameter_name)
            if source in given:
                params.append(parameter_name)
            else:
                data[parameter_name] = source
                inferred.append(parameter_name)
        order: tuple[str, ...] = ()
        if declared:
            used = set(data.values())
            order = tuple(up for up in declared if up not in used and up not in given)
        return Wiring(data, frozenset(inferred), guessed and guessed[0], order, tuple(params), tuple(open_))

    def guess(
        self, task: Task, declared: Sequence[str], data: Mapping[str, str], open_: Sequence[str]
    ) -> tuple[str, str] | None:
        used = {*data.values(), *task.inputs.values()}
        left = [up for up in dict.fromkeys(declared) if up not in used and up not in task.parameters]
        if len(left) != 1 or (left[0] in self.tasks and self.tasks[left[0]].returns_nothing):
            return None
        return open_[0], left[0]

    # ---------------------------------------------------------------- joining the selected tasks

    def joined(self, names: Sequence[str]) -> _Made:
        """Join the wirings of the selected tasks; what they lack outside of the selection is a fault."""
        made = _Made({}, {}, {}, {}, [])
        selected = dict.fromkeys(names)
        taken: set[str] = set()
        for name in names:
            task, wiring = self.tasks[name], self.wiring(name)
            inputs = wiring.data
            if inputs:
                inputs, earlier = self.fed(task, wiring, selected)
                if earlier:
                    made.earlier[name] = earlier
            if wiring.missing:
                self.faults += [MissingInputError(name, parameter, None, self.names) for parameter in wiring.missing]
            if task.each is not None:
                self.check_mapped(task, wiring)
            made.inputs[name] = inputs
            made.needs[name] = tuple(dict.fromkeys([*inputs.values(), *self.waited_for(name, wiring, selected, made)]))
            if wiring.params:
                made.arguments[name] = self.given(task, wiring)
                taken.update(self.param_of(task, parameter) for parameter in wiring.params)
        self.untaken(names, taken)
        return made

    def waited_for(self, name: str, wiring: Wiring, selected: Mapping[str, None], made: _Made) -> Iterator[str]:
        """Yield the tasks of the plan that *name* waits for and gets nothing from; note those outside of it."""
        for up in wiring.order:
            if up in selected:
                yield up
            elif up in self.tasks:
                made.left_out.append((name, up))
            else:
                self.not_found(up, name)

    def fed(self, task: Task, wiring: Wiring, selected: Mapping[str, None]) -> tuple[dict[str, str], dict[str, str]]:
        """Return which parameters are fed by the plan, and which by an earlier run."""
        elsewhere: dict[str, str] = {}
        parameters, is_plain = task.parameters, task.each is None and not self.strict
        for parameter, up in wiring.data.items():
            upstream = self.tasks.get(up)
            if up not in selected:
                elsewhere[parameter] = up
            if upstream is None:
                self.not_found(up, task.name)
            elif up not in selected and self.from_run is None:
                self.faults.append(MissingInputError(task.name, parameter, up))
            elif not is_plain or self.gives.get(up, MISSING) is not parameters[parameter].hint:
                self.check(task, parameter, upstream, guessed=parameter == wiring.guessed)
        if not elsewhere:
            return wiring.data, elsewhere
        return {at: up for at, up in wiring.data.items() if at not in elsewhere}, elsewhere

    def check_mapped(self, task: Task, wiring: Wiring) -> None:
        assert task.each is not None
        if task.each in self.values:
            self.faults.append(
                ParamError(task.each, f"would replace the stream that task {task.name!r} is mapped over")
            )
        elif task.each not in wiring.data.values():
            self.faults.append(UnreadStreamError(task.name, task.each))

    def not_found(self, name: str, wanted_by: str) -> None:
        if (name, wanted_by) not in self.unknown:
            self.unknown.add((name, wanted_by))
            self.faults.append(TaskNotFoundError(name, self.names, wanted_by))

    def param_of(self, task: Task, parameter: str) -> str:
        """Return the run parameter that supplies *parameter*: of its own name, or of the task that would have fed it."""
        wired = task.inputs.get(parameter)
        if wired is not None and wired in self.values:
            return wired
        if parameter in self.values:
            return parameter
        declared = task.dependencies if task.each is None else (*task.dependencies, task.each)
        return next(up for up in declared if up in self.values and up not in task.parameters)

    def given(self, task: Task, wiring: Wiring) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for parameter in wiring.params:
            name = self.param_of(task, parameter)
            value = self.values[name]
            if value is MISSING:
                continue
            try:
                found[parameter] = convert(value, self.hint_for(name, task, parameter, value))
            except (ValueError, TypeError, RecursionError) as error:
                why = "it is nested too deeply" if isinstance(error, RecursionError) else error
                self.faults.append(ParamError(name, f"does not fit {parameter!r} of task {task.name!r}: {why}"))
        return found

    def hint_for(self, name: str, task: Task, parameter: str, value: Any) -> Any:
        """Return by which hint the run parameter *name* is converted for *parameter* of *task*; MISSING for none."""
        hint = task.parameters[parameter].hint
        stands_for = self.tasks.get(name)
        if stands_for is None:
            return hint
        if type(value) is not str:
            return MISSING  # whatever a test puts in the place of a result is taken as it is; text is from a shell
        if hint is MISSING and (hint := stands_for.result) is not MISSING and stands_for.many:
            return list.__class_getitem__(hint)
        return hint

    def untaken(self, names: Iterable[str], taken: set[str]) -> None:
        left = [name for name in self.values if name not in taken and name not in self.asked_for]
        if left:
            takes = {
                parameter
                for name in names
                for parameter in self.tasks[name].parameters
                if parameter not in self.wirings[name].data
            }
            known = tuple(sorted(takes))
            self.faults += [ParamError(name, "is taken by no selected task", known) for name in left]

    def check(self, task: Task, parameter: str, upstream: Task, *, guessed: bool) -> None:
        """Record a fault if what *upstream* returns does not fit *parameter* of *task*."""
        wants, gives = task.parameters[parameter].hint, upstream.result
        mapped = task.each == upstream.name
        if mapped and not upstream.many:
            self.faults.append(
                InputMismatchError(task.name, parameter, "each item of a stream", upstream.name, "one value", ())
            )
            return
        if self.strict and (wants is MISSING or gives is MISSING):
            self.faults.append(
                MissingHintError(*((task.name, parameter) if wants is MISSING else (upstream.name, None)))
            )
        if wants is MISSING:
            return
        streamed = upstream.many and not mapped
        if not (stream_fits(gives, wants) if streamed else fits(gives, wants)):
            given = f"a stream of {shown(gives)}" if streamed else shown(gives)
            places = (f"{upstream.name} at {upstream.place}", f"{task.name} at {task.place}")
            self.faults.append(
                InputMismatchError(task.name, parameter, shown(wants), upstream.name, given, places, guessed)
            )

    def levelled(self, needs: Mapping[str, tuple[str, ...]]) -> tuple[list[list[str]], dict[str, list[str]]]:
        """Return the parallel levels, and who waits for whom, all in the order of registration; every cycle is a fault."""
        dependents: dict[str, list[str]] = {name: [] for name in needs}
        waits: dict[str, int] = {}
        for name, ups in needs.items():
            if ups:
                waits[name] = len(ups)
                for up in ups:
                    dependents[up].append(name)
        levels: list[list[str]] = []
        level = [name for name in needs if name not in waits]
        while level:
            levels.append(level)
            level = []
            for name in levels[-1]:
                for after in dependents[name]:
                    waits[after] -= 1
                    if not waits[after]:
                        level.append(after)
            level.sort(key=self.rank.__getitem__)
        if any(waits.values()):
            self.find_cycles({name: ups for name, ups in needs.items() if waits.get(name)})
        return levels, dependents

    def find_cycles(self, graph: dict[str, tuple[str, ...]]) -> None:
        """Record every cycle of what could not be brought into an order."""
        while True:
            try:
                TopologicalSorter(graph).prepare()
            except GraphCycleError as error:
                # graphlib reports one cycle; without its tasks, the next one shows.
                path = error.args[1]
                self.faults.append(CycleError(_turned(path)))
                gone = set(path)
                graph = {
                    name: tuple(n for n in ups if n not in gone) for name, ups in graph.items() if name not in gone
                }
            else:
                return


class _Made(NamedTuple):
    needs: dict[str, tuple[str, ...]]
    inputs: dict[str, dict[str, str]]
    earlier: dict[str, dict[str, str]]
    arguments: dict[str, dict[str, Any]]
    left_out: list[tuple[str, str]]


_SELECTOR = re.compile(r"(\+?)((?:tag:)?[^+:/|\[\]\s]+)(\+?)")


def _turned(path: Sequence[str]) -> list[str]:
    """Write a cycle so that it begins with its least name, whatever the search met first.

    >>> _turned(["b", "c", "a", "b"])
    ['a', 'b', 'c', 'a']
    """
    ring = list(path[:-1])
    least = ring.index(min(ring))
    return [*ring[least:], *ring[:least], ring[least]]
