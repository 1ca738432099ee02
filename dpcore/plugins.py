"""Plugins: finding them, and the adapters in them.

A :class:`Plugins` is an object that you pass, never a global.  It looks for
plugins when it is first asked something, and never when it is made.  Adapters
are records, found by name and imported when they are used; hooks are for what
happens in a platform's life.  One broken plugin never stands in the way of
another: it is kept, with what is wrong with it, and shown.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
import pickle
import re
import sys
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, count, repeat
from operator import itemgetter
from pathlib import Path
from time import perf_counter
from types import ModuleType, TracebackType
from typing import Any, Literal, TypeVar

import pluggy

from dpcore import hookspecs
from dpcore.config import AdapterString, Config, Level, Value, build, canonical, kind_named
from dpcore.errors import AdapterImportError, AdapterNotFoundError, ConflictError, PluginError, PluginNotFoundError
from dpcore.hookspecs import PREFIX, SPECS, check
from dpcore.providers import KINDS, Command, Provider
from dpcore.tracebacks import users_text

__all__ = ("Offer", "PluginRecord", "Plugins", "blame", "import_target")

logger = logging.getLogger(__name__)

GROUP = "dpcore"
BUNDLE = "dpcore_plugins"
CONF = "dpcore_conf.py"

R = TypeVar("R")
Source = Literal["bundle", "installed", "option", "project", "object"]

# Plugins are called in this order, whatever the order in which they were found.
_TIERS: tuple[Source, ...] = ("bundle", "installed", "option", "project", "object")


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginRecord:
    """What is known of a plugin."""

    name: str
    """Its entry point's name; for others that of the module, or as it was passed."""

    module: str
    """Where it is from, as its entry point says it: ``package.module`` or ``package.module:object``."""

    source: Source
    distribution: str | None = None
    version: str | None = None
    state: Literal["active", "blocked", "broken"] = "active"
    cause: str | None = None
    """Why it is blocked or broken."""

    hooks: tuple[str, ...] = ()
    """The hooks it implements."""

    seconds: float = 0.0
    """How long its import took."""

    @property
    def qualified(self) -> str:
        """The name that no two plugins share: ``name@distribution``, or the name where there is none."""
        return f"{self.name}@{self.distribution}" if self.distribution else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """An adapter that a plugin offers."""

    kind: str
    provider: Provider[Any]
    plugin: str
    distribution: str | None
    version: str | None
    state: Literal["ok", "conflict", "incompatible"] = "ok"
    """A conflict is two offers of one name; incompatible is one written against a version of the port we lack."""

    @property
    def source(self) -> str:
        """Who offers it: the distribution, or the plugin where there is none."""
        return self.distribution or self.plugin

    @property
    def qualified(self) -> str:
        """What selects this one among others of its name: ``name@distribution``."""
        return f"{self.provider.name}@{self.source}"


@dataclass(slots=True)
class _Known:
    """A plugin, its record, and its place among the others."""

    record: PluginRecord
    place: tuple[int, str, str, int]
    plugin: object = None

    def to_send(self) -> _Known:
        """Return what another process needs to have this plugin, too."""
        is_named = self.record.source in ("installed", "option", "project") or isinstance(self.plugin, ModuleType)
        if is_named or not _pickles(self.plugin):
            return _Known(self.record, self.place)
        return self

    def find(self) -> object:
        """Return the plugin, which is imported now unless it came with this."""
        record = self.record
        if self.plugin is not None:
            return self.plugin
        if record.source == "project":
            return _conf(Path(record.module))
        if record.source == "object" and ":" in record.module:
            raise PluginError(record.qualified, f"does not pickle: it is an object of {record.module}")
        return import_target(record.module)


class Plugins:
    """The plugins of a platform.

    >>> class Loud:
    ...     def dpcore_brokers(self):
    ...         return [Provider(name="loud", target="acme_loud:LoudBroker")]
    >>> plugins = Plugins(Loud(), installed=False, bundle=False)
    >>> [offer.qualified for offer in plugins.offers("broker")]
    ['loud@Loud']

    *plugins* are plugins as objects or modules.  *block* keeps plugins out by entry
    name, distribution, or ``name@distribution``, before they are imported.  *load*
    names plugins as ``-p`` does: installed ones, modules, or ``no:NAME`` to block
    one.  With *autoload* False, installed plugins are only those that are named.
    *installed* False looks for none.  *bundle* is True for the one that ships, False
    for none, or an object in its place.  *config* says what the environment and the
    project file want; without one the environment is read.  What the call says
    outweighs the environment, and that the file.

    A plugin passed as an object is checked at once, and one that is named is checked
    at the first question; what is wrong with them raises.  An installed plugin that
    nobody named is kept as broken instead.
    """

    def __init__(
        self,
        *plugins: object,
        block: Iterable[str] = (),
        load: Iterable[str] = (),
        autoload: bool | None = None,
        installed: bool = True,
        bundle: object = True,
        config: Config | None = None,
    ) -> None:
        self.config = Config() if config is None else config
        self._choice = _Choice(self.config, load, block)
        self._autoload = self.config.autoload if autoload is None else Value(autoload, "autoload=False", Level.CALL)
        self._installed = installed
        self._bundle = bundle
        self._manager = _Manager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        self._known: dict[str, _Known] = {}
        self._elsewhere: dict[
            str, _Known
        ] = {}  # of them, those that another process has found and none has called here
        self._offers: dict[str, list[Offer]] = {}
        self._observers: dict[str, list[Callable[..., None]]] = {}
        self._count = count()
        self._found = False
        self._lock = threading.RLock()
        for plugin in plugins:
            self.register(plugin)

    def __repr__(self) -> str:
        return f"<Plugins {', '.join(known.record.qualified for known in self._in_order()) or 'none yet'}>"

    # ------------------------------------------------------------ asking

    @property
    def installed(self) -> list[PluginRecord]:
        """Every plugin, also blocked and broken ones, in the order in which they are called."""
        self._find()
        return [known.record for known in self._in_order()]

    @property
    def misnamed(self) -> list[tuple[str, str]]:
        """The names that somebody blocks, and no plugin has and nobody asks for; each with who blocks it."""
        known = {name for record in self.installed for name in _names(record)}
        known |= {name for name, _, blocks in self._choice.said if not blocks}
        return [
            (name, who)
            for name, who, blocks in self._choice.said
            if blocks and not {name, _canonical_tail(name)} & known
        ]

    @property
    def overruled(self) -> list[tuple[str, str, str]]:
        """The plugins that somebody asks for and somebody else, who has the last word, blocks: name, and both."""
        found = []
        for name, who, blocks in self._choice.said:
            names = {name, _canonical_tail(name)}
            names |= {one for record in self.installed if names & _names(record) for one in _names(record)}
            blocker = self._choice.who_blocks(names)
            if not blocks and blocker is not None:
                found.append((name, who, blocker))
        return found

    def offers(self, kind: str) -> list[Offer]:
        """Return the adapters of *kind* that are offered, in the order of the plugins; imports none of them."""
        kind_named(kind)
        self._find()
        if kind not in self._offers:
            found = [
                Offer(
                    kind=kind,
                    provider=provider,
                    plugin=record.name,
                    distribution=record.distribution,
                    version=record.version,
                )
                for record, provider in self._collect(KINDS[kind].hook, Provider)
            ]
            names = Counter(offer.provider.name for offer in found)
            self._offers[kind] = [replace(offer, state=_state(offer, names)) for offer in found]
        return list(self._offers[kind])

    def offer(self, kind: str, name: str, distribution: str | None = None) -> Offer:
        """Return the one adapter of *kind* with that name or scheme.

        *distribution* picks among several; the name of the plugin will do, too.
        Raises :class:`~dpcore.errors.AdapterNotFoundError` when there is none, and
        :class:`~dpcore.errors.ConflictError` when there are several.
        """
        offers = self.offers(kind)
        named = [offer for offer in offers if name == offer.provider.name or name in offer.provider.schemes]
        found = [offer for offer in named if distribution is None or _is_from(offer, distribution)]
        if not found:
            raise self._not_found(kind, name, distribution, named or offers)
        if len(found) > 1:
            by_source = Counter(offer.source for offer in found)
            sources = [offer.source if by_source[offer.source] == 1 else offer.plugin for offer in found]
            raise ConflictError(KINDS[kind].word, name, sources)
        return found[0]

    def _not_found(self, kind: str, name: str, distribution: str | None, offers: list[Offer]) -> AdapterNotFoundError:
        records = self.installed
        return AdapterNotFoundError(
            KINDS[kind].word,
            name if distribution is None else f"{name}@{distribution}",
            [offer.provider.name if distribution is None else offer.qualified for offer in offers],
            broken=[f"{record.qualified} ({record.cause})" for record in records if record.state == "broken"],
            blocked=[record.qualified for record in records if record.state == "blocked"],
        )

    def load(self, kind: str, spec: str | AdapterString) -> type:
        """Import the class of the adapter that *spec* names."""
        spec = AdapterString.parse(spec) if isinstance(spec, str) else spec
        return _imported(self.offer(kind, spec.name, spec.distribution))

    def make(self, kind: str, spec: object, config: Config | None = None) -> Any:
        """Make the adapter that *spec* says: a string, a class, or the adapter itself, which is returned as it is.

        A :class:`~dpcore.config.Value` says where its string was written, so that the
        settings in it count as much as others from there.  *config* is this object's
        own unless another is given.
        """
        kind_named(kind)
        said = spec if isinstance(spec, Value) else Value(spec, "the call", Level.CALL)
        config = self.config if config is None else config
        if isinstance(said.value, type):
            return build(said.value, kind, None, config)
        if not isinstance(said.value, str | AdapterString):
            return said.value
        where = None if said.level is Level.CALL else said.source
        parsed = AdapterString.parse(said.value, where) if isinstance(said.value, str) else said.value
        offer = self.offer(kind, parsed.name, parsed.distribution)
        others = {other.provider.name for other in self.offers(kind)}
        return build(
            _imported(offer), kind, replace(said, value=parsed), config, name=offer.provider.name, others=others
        )

    def check_broker(self, choice: Value) -> None:
        """Raise if nobody offers the broker that was chosen by name; the default is looked for when it is used."""
        if not isinstance(choice.value, str | AdapterString) or choice.level is Level.DEFAULT:
            return
        where = None if choice.level is Level.CALL else choice.source
        spec = AdapterString.parse(choice.value, where) if isinstance(choice.value, str) else choice.value
        self.offer("broker", spec.name, spec.distribution)

    # ------------------------------------------------------------ calling hooks

    def observers(self, hook: str) -> list[Callable[..., None]]:
        """Return what to call with the arguments of an observing *hook*, by position.

        It is one list for the life of this object, kept up to date in place: hold on
        to it, and ``if observers:`` is all that nobody watching costs.  Its entries
        log what a plugin raises and raise nothing themselves, but for what ends the
        program (KeyboardInterrupt, SystemExit) or cancels the task.
        """
        self._find()
        if hook not in self._observers:
            self._observers[hook] = self._compiled(hook)
        return self._observers[hook]

    def shape(self, plan: R) -> R:
        """Pass *plan* through the chain of ``dpcore_plan`` hooks."""
        self._find()
        for record, function, arguments in self._implementations("dpcore_plan"):
            with _named(record, "dpcore_plan"):
                changed = function(*[plan] * len(arguments))
            if changed is not None and not isinstance(changed, type(plan)):
                raise PluginError(record.qualified, f"returned {changed!r} from dpcore_plan, which is no plan")
            plan = plan if changed is None else changed
        return plan

    def commands(self) -> list[tuple[Command, str]]:
        """Return the commands that plugins add to the command line, each with its plugin's name."""
        self._find()
        return [(command, record.qualified) for record, command in self._collect("dpcore_commands", Command)]

    def live(self, hook: str, subject: Any) -> None:
        """Call a hook of the kind live with its one argument.

        ``dpcore_started`` raises what a plugin raises, with its name in a note; the others
        log it.  What stops goes in the reverse order.
        """
        self._find()
        implementations = self._implementations(hook)
        if not SPECS[hook].isolated:
            for record, function, arguments in implementations:
                with _named(record, hook):
                    function(*[subject] * len(arguments))
            return
        for implementation in implementations[::-1] if hook.endswith("_stopping") else implementations:
            _observer(hook, *implementation)(subject)

    # ------------------------------------------------------------ changing

    def register(self, plugin: object, name: str | None = None) -> str:
        """Add a plugin, and return its name.

        Raises :class:`~dpcore.errors.PluginError` when something is wrong with it, or
        it is here already.  If its name is blocked, it is listed and left out.
        """
        if plugin is None or isinstance(plugin, str):
            raise PluginError(repr(plugin), "is no object with hooks; plugins are named with load=[...] (-p NAME)")
        name = name or self._free_name(plugin)
        record = PluginRecord(name=name, module=_where(plugin), source="object")
        if name in self._known:
            raise PluginError(name, "is registered already")
        if self._admits(record):
            self._add(record, plugin)
        return name

    def unregister(self, name: str) -> object:
        """Take a plugin out, by its name or ``name@distribution``, and return it."""
        found = [known for known in self._known.values() if name in (known.record.name, known.record.qualified)]
        if len(found) != 1:
            problem = "is the name of several" if found else "is not registered"
            raise PluginNotFoundError(name, problem, [known.record.qualified for known in found or self._in_order()])
        known = found[0]
        if self._manager.has_plugin(known.record.qualified):
            self._manager.unregister(name=known.record.qualified)
        del self._known[known.record.qualified]
        self._changed()
        return known.plugin

    @contextmanager
    def temporary(self, plugin: object, name: str | None = None) -> Iterator[str]:
        """Have a plugin for the length of a ``with`` block, whose value is its name."""
        name = self.register(plugin, name)
        try:
            yield name
        finally:
            self.unregister(name)

    def load_conf(self, path: str | Path) -> PluginRecord | None:
        """Load a project's own plugin: the file *path*, or ``dpcore_conf.py`` in the folder *path*.

        Its folder is put on ``sys.path``, and the file is imported under a private
        name, so that several projects can have one.  A folder without it has no such
        plugin, which is None.  What is wrong with the file raises.
        """
        file = Path(path).absolute()
        if file.is_dir():
            file /= CONF
            if not file.is_file():
                return None
        name = CONF
        if name in self._known and self._known[name].record.module != str(file):
            name = str(file)  # that of another project
        record = PluginRecord(name=name, module=str(file), source="project")
        if name not in self._known and self._admits(record):
            self._add(record, self._asked(record, "the project", lambda: _conf(file)))
        return self._known[name].record

    # ------------------------------------------------------------ finding

    def _find(self) -> None:
        """Find the plugins that nobody passed, once.

        Should one that was named fail, the next question fails in the same way:
        what was added is kept, and the rest is tried again.
        """
        with self._lock:
            if not self._found:
                self._find_bundle()
                wanted = self._find_installed()
                for name, who in self._choice.wanted().items():
                    if not {name, _canonical_tail(name)} & wanted:
                        self._find_module(name, who)
                self._found = True

    def _find_bundle(self) -> None:
        record = PluginRecord(name="default", module=BUNDLE, source="bundle", distribution="dpcore")
        if self._bundle is False:
            return
        if self._bundle is not True:
            record = replace(record, module=_where(self._bundle))
        self._admit(record, lambda: importlib.import_module(BUNDLE) if self._bundle is True else self._bundle)

    def _find_installed(self) -> set[str]:
        """Admit what is installed, and return the names by which it could be asked for."""
        names = {"default", "default@dpcore", "dpcore"}
        for distribution, version, entries in _installed() if self._installed else ():
            for name, module, find in entries:
                record = PluginRecord(
                    name=name, module=module, source="installed", distribution=distribution, version=version
                )
                if record.qualified == "default@dpcore":
                    self._note_version(version)  # the bundle, which is loaded without being looked for
                    continue
                names |= _names(record)
                who = self._choice.who_wants(record)
                if who is None and not self._autoload.value and not self._choice.who_blocks(_names(record)):
                    cause = f"not named, and none is loaded without ({self._autoload.source})"
                    self._keep(replace(record, state="blocked", cause=cause))
                else:
                    self._admit(record, find, who)
        return names

    def _note_version(self, version: str) -> None:
        known = self._known.get("default@dpcore")
        if known is not None:
            known.record = replace(known.record, version=version)

    def _find_module(self, name: str, who: str) -> None:
        record = PluginRecord(name=name, module=name, source="option")
        self._admit(record, lambda: import_target(name), who)

    def _admit(self, record: PluginRecord, find: Callable[[], object], who: str | None = None) -> None:
        """Add what *find* finds, unless it is blocked; if *who* asked for it by name, a failure raises."""
        if record.qualified in self._known or not self._admits(record):
            return
        began = perf_counter()
        if who is not None:
            plugin = self._asked(record, who, find)
            self._add(replace(record, seconds=perf_counter() - began), plugin)
            return
        try:
            plugin = find()
            self._add(replace(record, seconds=perf_counter() - began), plugin)
        except PluginError as error:
            self._keep(replace(record, state="broken", cause=error.problem))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin's import may raise anything
            self._keep(replace(record, state="broken", cause=_cause(error)))

    def _admits(self, record: PluginRecord) -> bool:
        who = self._choice.who_blocks(_names(record))
        if who is not None:
            self._keep(replace(record, state="blocked", cause=f"blocked by {who}"))
        return who is None

    def _asked(self, record: PluginRecord, who: str, find: Callable[[], object]) -> object:
        try:
            return find()
        except (Exception, SystemExit) as error:
            problem, known = f"(asked for by {who}) does not import: {_cause(error)}", []
            if isinstance(error, ModuleNotFoundError) and _is_missing(error, record.module):
                problem = f"(asked for by {who}) is neither an installed plugin nor a module that can be imported"
                known = [one.record.name for one in self._in_order() if one.record.source in ("bundle", "installed")]
            elif isinstance(error, FileNotFoundError) and record.source == "project":
                problem = f"is not there: {record.module}"
            raise PluginNotFoundError(record.qualified, problem, known) from error

    # ------------------------------------------------------------ in another process

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle as the same plugins with the same offers, which are imported there when they are called, and not looked for."""
        offers = {kind: self.offers(kind) for kind in KINDS}
        return _in_another_process, (self.config, [known.to_send() for known in self._in_order()], offers)

    def _arrive(self, known: Iterable[_Known], offers: dict[str, list[Offer]]) -> None:
        self._found = True
        self._known = {one.record.qualified: one for one in known}
        self._elsewhere = {name: one for name, one in self._known.items() if one.record.state == "active"}
        self._count = count(len(self._known))
        self._offers = offers

    def _summon(self, known: _Known) -> None:
        """Have a plugin here that another process has found."""
        name = known.record.qualified
        del self._elsewhere[name]
        try:
            plugin = known.find()
            self._manager.hooks_of(name, plugin)
            self._manager.register(plugin, name)
            known.plugin = plugin
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin's import may raise anything
            known.record = replace(known.record, state="broken", cause=_cause(error))
            logger.warning("plugin %r is not to be had in this process: %s", name, known.record.cause)

    # ------------------------------------------------------------ keeping

    def _add(self, record: PluginRecord, plugin: object) -> None:
        """Check a plugin, and only then register it."""
        hooks = self._manager.hooks_of(record.qualified, plugin)
        other = self._manager.get_name(plugin)
        if other is not None:
            raise PluginError(record.qualified, f"is the same object as the plugin {other!r}")
        self._manager.register(plugin, record.qualified)
        self._keep(replace(record, hooks=hooks), plugin)

    def _keep(self, record: PluginRecord, plugin: object = None) -> None:
        tier = _TIERS.index(record.source)
        sorted_by_name = record.source == "installed"
        place = (tier, record.distribution or "", record.name if sorted_by_name else "", next(self._count))
        self._known[record.qualified] = _Known(record, place, plugin)
        self._changed()

    def _in_order(self) -> list[_Known]:
        return sorted(self._known.values(), key=lambda known: known.place)

    def _free_name(self, plugin: object) -> str:
        name = first = getattr(plugin, "__name__", None) or type(plugin).__name__
        number = 2
        while name in self._known and self._known[name].plugin is not plugin:
            name, number = f"{first}-{number}", number + 1
        return name

    def _changed(self) -> None:
        self._offers.clear()
        for hook in self._observers:
            self._observers[hook][:] = self._compiled(hook)

    def _compiled(self, hook: str) -> list[Callable[..., None]]:
        return [_observer(hook, *each) for each in self._implementations(hook)]

    def _implementations(self, hook: str) -> list[tuple[PluginRecord, Callable[..., Any], tuple[str, ...]]]:
        """Return who implements *hook*, with what, and the arguments it wants, in the order of the plugins."""
        for away in [away for away in self._elsewhere.values() if hook in away.record.hooks]:
            self._summon(away)

        def place(one: pluggy.HookImpl) -> tuple[object, ...]:
            return (not one.tryfirst, one.trylast, self._known[one.plugin_name].place)

        known = [one for one in getattr(self._manager.hook, hook).get_hookimpls() if one.plugin_name in self._known]
        return [
            (self._known[one.plugin_name].record, one.function, tuple(inspect.signature(one.function).parameters))
            for one in sorted(known, key=place)
        ]

    def _collect(self, hook: str, wanted: type[R]) -> Iterator[tuple[PluginRecord, R]]:
        """Yield what the plugins return from *hook*; one that fails is marked as broken, and offers nothing."""
        for record, function, _ in self._implementations(hook):
            try:
                found = _records(hook, function(), wanted)
            except Exception as error:  # noqa: BLE001 - a plugin may raise anything, and the others go on
                problem = str(error) if isinstance(error, _WrongResult) else f"{hook} raised {_cause(error)}"
                known = self._known[record.qualified]
                known.record = replace(known.record, state="broken", cause=problem)
                logger.warning("plugin %r is broken: %s", record.qualified, problem)
            else:
                yield from ((record, one) for one in found)


# ---------------------------------------------------------------- which plugins are wanted


def _pickles(plugin: object) -> bool:
    try:
        pickle.dumps(plugin)
    except Exception:  # noqa: BLE001 - whatever its own pickling raises
        return False
    return True


def _in_another_process(config: Config, known: list[_Known], offers: dict[str, list[Offer]]) -> Plugins:
    plugins = Plugins(installed=False, bundle=False, config=config)
    plugins._arrive(known, offers)
    return plugins


class _Choice:
    """Who wants which plugins by name, and who does not want them.

    The last word on a plugin counts, by whichever of its names it was said: the file
    speaks first, then the environment, then the call, and each of them first of what
    it wants and then of what it blocks.
    """

    def __init__(self, config: Config, load: Iterable[str], block: Iterable[str]) -> None:
        self.said: list[tuple[str, str, bool]] = []
        """Everything that was said, in order: a name, who said it, and whether to block it."""
        said = [(value, False) for value in config.plugins] + [(value, True) for value in config.disable]
        for value, blocks in sorted(said, key=lambda each: each[0].level):
            self._say(value.value, value.source, blocks)
        for name in _texts("load", load):
            self._say(name, f"-p {name}", blocks=False)
        for name in _texts("block", block):
            self._say(name, "block=", blocks=True)

    def _say(self, name: str, who: str, blocks: bool) -> None:
        self.said.append((name.removeprefix("no:"), who, blocks or name.startswith("no:")))

    def _last_word(self, names: set[str]) -> tuple[str | None, bool]:
        for name, who, blocks in reversed(self.said):
            if name in names or _canonical_tail(name) in names:
                return who, blocks
        return None, False

    def who_wants(self, record: PluginRecord) -> str | None:
        who, blocks = self._last_word(_names(record))
        return None if blocks else who

    def who_blocks(self, names: set[str]) -> str | None:
        who, blocks = self._last_word(names)
        return who if blocks else None

    def wanted(self) -> dict[str, str]:
        """Return what is wanted by which name, and who said so."""
        return {name: who for name, who, blocks in self.said if not blocks and not self._last_word({name})[1]}


def _names(record: PluginRecord) -> set[str]:
    """Return the names by which a plugin can be blocked or asked for."""
    return {record.name, record.qualified} | ({record.distribution} if record.distribution else set())


def _canonical_tail(name: str) -> str:
    entry, at, distribution = name.rpartition("@")
    return f"{entry}{at}{canonical(distribution)}"


def _texts(argument: str, names: Iterable[str]) -> Iterable[str]:
    if isinstance(names, str):
        raise TypeError(f"{argument}={names!r} must be a list of names, such as {argument}=[{names!r}]")
    return names


# ---------------------------------------------------------------- what is installed

_Entry = tuple[str, str, Callable[[], object]]


def _installed() -> list[tuple[str, str, list[_Entry]]]:
    """Return distribution, version and entries of everything in the group, by the name of the distribution.

    The order in which a file system lists folders must not decide who comes first.
    """
    import importlib_metadata  # noqa: PLC0415 - costs more than all else here, and only discovery wants it

    def entries(distribution: Any) -> list[_Entry]:
        found = [(each.name, each.value, each.load) for each in distribution.entry_points if each.group == GROUP]
        return sorted(found, key=itemgetter(0, 1))

    names = set()
    for distribution in importlib_metadata.distributions():
        with _unless_damaged(distribution):
            if entries(distribution):
                names.add(canonical(distribution.name))
    installed = []
    for name in sorted(names):
        # A distribution may lie twice on sys.path; the first hides the others, as it does for imports.
        distribution = importlib_metadata.distribution(name)
        with _unless_damaged(distribution):
            installed.append((name, distribution.version, entries(distribution)))
    return installed


@contextmanager
def _unless_damaged(distribution: object) -> Iterator[None]:
    # The metadata of one package, left over by half an uninstall, is not everybody's trouble.
    try:
        yield
    except Exception as error:  # noqa: BLE001 - its parsers may raise anything
        logger.warning("skipping %r, whose metadata cannot be read: %s", distribution, _cause(error))


def import_target(target: str) -> Any:
    """Import what ``package.module:object`` names, or the module ``package.module``.

    >>> import_target("dpcore.providers:Provider.__name__")
    'Provider'
    """
    module, _, name = target.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split(".") if name else ():
        found = getattr(found, part)
    return found


def _conf(file: Path) -> ModuleType:
    # A module's name has no dots or slashes; encoded like this, no two files share one.
    name = "_dpcore_conf" + re.sub("[^a-zA-Z0-9]", lambda match: f"_{ord(match[0]):x}_", str(file))
    if name in sys.modules:
        return sys.modules[name]
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python file")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


# ---------------------------------------------------------------- adapters


def _imported(offer: Offer) -> type:
    """Import the class of an offer, after asking whether it was written for this dpcore."""
    provider, kind = offer.provider, KINDS[offer.kind]
    if offer.state == "incompatible" or not kind.oldest <= provider.api <= kind.api:
        cure = "dpcore" if provider.api > kind.api else "the plugin"
        raise PluginError(
            offer.plugin if offer.distribution is None else f"{offer.plugin}@{offer.distribution}",
            f"offers the {kind.word} {provider.name!r} for version {provider.api} of its port, "
            f"and this dpcore takes {kind.oldest} to {kind.api}; upgrade {cure}",
        )
    if isinstance(provider.target, type):
        return provider.target
    try:
        found = import_target(provider.target)
        if not isinstance(found, type):
            raise TypeError(f"{provider.target} is no class, but {found!r}")
    except (Exception, SystemExit) as error:
        source = f"{offer.source} {offer.version}" if offer.version else offer.source
        raise AdapterImportError(kind.word, provider.name, source, _cause(error), provider.extra) from error
    return found


def _state(offer: Offer, names: Counter[str]) -> Literal["ok", "conflict", "incompatible"]:
    kind = KINDS[offer.kind]
    if not kind.oldest <= offer.provider.api <= kind.api:
        return "incompatible"
    return "conflict" if names[offer.provider.name] > 1 else "ok"


def _is_from(offer: Offer, distribution: str) -> bool:
    return distribution in (offer.source, offer.plugin) or canonical(distribution) == offer.distribution


# ---------------------------------------------------------------- hooks


class _Manager(pluggy.PluginManager):
    """pluggy's, which also takes a function for a hook by its name, as pytest does."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        static = inspect.getattr_static(plugin, name, None)
        if static is None:
            return None  # made by a __getattr__: looking at a plugin imports nothing
        options = super().parse_hookimpl_opts(plugin, name)
        if options is None and name.startswith(PREFIX) and _is_function(static):
            options = pluggy.HookimplOpts(
                wrapper=False, hookwrapper=False, optionalhook=False, tryfirst=False, trylast=False, specname=None
            )
        return options

    def hooks_of(self, name: str, plugin: object) -> tuple[str, ...]:
        """Return the hooks that *plugin* implements, or raise what is wrong with them."""
        hooks = []
        for attribute in dir(plugin):
            options = self.parse_hookimpl_opts(plugin, attribute)
            if options is None:
                _check_no_hook(name, attribute, inspect.getattr_static(plugin, attribute, None))
                continue
            hook = options.get("specname") or attribute
            if hook in SPECS or not options.get("optionalhook"):
                wrapper = bool(options.get("wrapper") or options.get("hookwrapper"))
                check(name, hook, getattr(plugin, attribute), wrapper=wrapper)
                hooks.append(hook)
        return tuple(sorted(hooks))


def _is_function(static: object) -> bool:
    return inspect.isfunction(static) or isinstance(static, staticmethod | classmethod) or inspect.ismethod(static)


def _check_no_hook(plugin: str, name: str, static: object) -> None:
    # Left alone, a hook that is a partial or a cached function would silently never be called.
    if name in SPECS and callable(static) and not isinstance(static, type):
        raise PluginError(plugin, f"has a {name} that is no plain function, but {static!r}; write it with 'def'")


def _observer(
    hook: str, record: PluginRecord, function: Callable[..., Any], arguments: Sequence[str]
) -> Callable[..., None]:
    """Return *function* as one that takes every argument of *hook* and keeps its exceptions to itself.

    The first one is a warning, and those after it are told at debug level: one that
    fails does so at each transition.
    """
    wanted = [SPECS[hook].arguments.index(argument) for argument in arguments]
    levels = chain([logging.WARNING], repeat(logging.DEBUG))

    def failed(error: Exception) -> None:
        level = next(levels)
        more = " (what it raises from now on is logged at debug level)" if level == logging.WARNING else ""
        if logger.isEnabledFor(level):
            logger.log(level, "plugin %r failed in %s%s:\n%s", record.qualified, hook, more, users_text(error).rstrip())

    def observe_all(*given: Any) -> None:
        try:
            function(*given)
        except Exception as error:  # noqa: BLE001 - whatever it is, it breaks no run
            failed(error)

    def observe(*given: Any) -> None:
        try:
            function(*[given[index] for index in wanted])
        except Exception as error:  # noqa: BLE001
            failed(error)

    return observe_all if wanted == [*range(len(SPECS[hook].arguments))] else observe


@contextmanager
def _named(record: PluginRecord, hook: str) -> Iterator[None]:
    """Have what is raised say where it came from."""
    try:
        yield
    except Exception as error:
        error.add_note(f"in {hook} of plugin {record.qualified!r}")
        raise


def blame(error: BaseException) -> str | None:
    """Say which plugin's hook raised *error*, and what and where; None if no hook did."""
    notes = [note for note in getattr(error, "__notes__", ()) if note.startswith(f"in {PREFIX}")]
    return f"{_cause(error)}, {notes[0]}" if notes else None


class _WrongResult(Exception):  # noqa: N818 - it never leaves this module
    """A plugin returned something else than records."""


def _records(hook: str, result: object, wanted: type[R]) -> list[R]:
    if not isinstance(result, Iterable) or isinstance(result, str):
        raise _WrongResult(f"{hook} returned {result!r}, which is no list of {wanted.__name__}")
    records: list[R] = []
    for one in result:
        if not isinstance(one, wanted):
            raise _WrongResult(f"{hook} returned {one!r}, which is no {wanted.__name__}")
        records.append(one)
    twice = _twice([getattr(one, "name", "") for one in records])
    if twice:
        raise _WrongResult(f"{hook} returned {twice!r} twice")
    return records


def _twice(names: Collection[str]) -> str:
    return next((name for name, count in Counter(names).items() if count > 1), "")


# ---------------------------------------------------------------- saying what went wrong


def _where(plugin: object) -> str:
    """Return where the code of a plugin object is."""
    if isinstance(plugin, ModuleType):
        return plugin.__name__
    cls = plugin if isinstance(plugin, type) else type(plugin)
    return f"{cls.__module__}:{cls.__qualname__}"


def _cause(error: BaseException) -> str:
    """Say in one line what was raised, and the last line of the plugin's that it passed."""
    text = (str(error).strip().splitlines() or [""])[0]
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    place = _place(error.__traceback__)
    return f"{said} ({place})" if place and not isinstance(error, SyntaxError) else said


def _place(traceback: TracebackType | None) -> str:
    place = ""
    while traceback is not None:
        frame, line = traceback.tb_frame, traceback.tb_lineno
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if package not in ("dpcore", "importlib", "importlib_metadata") and frame.f_code.co_filename[:1] != "<":
            place = f"{frame.f_code.co_filename}:{line}"
        traceback = traceback.tb_next
    return place


def _is_missing(error: ModuleNotFoundError, module: str) -> bool:
    """Whether what is missing is the module itself or a package around it, not something that it imports."""
    module = module.partition(":")[0]
    return error.name is not None and f"{module}.".startswith(f"{error.name}.")
