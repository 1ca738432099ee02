"""Adapters: those of an app, each made when it is first asked for, and left with the app."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any, cast

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup

from dpcore.clock import Clock
from dpcore.config import AdapterString, Config, Value, settings_of
from dpcore.errors import AppStateError, ArgumentError
from dpcore.folders import PrivateFolder, sweep
from dpcore.plugins import Plugins
from dpcore.ports import Adapter, Broker, Executor, IOManager, RunStore

__all__ = ("Adapters",)

_PORTS: Mapping[str, type[Adapter]] = {"broker": Broker, "io": IOManager, "executor": Executor, "store": RunStore}
_DEFAULTS = {"broker": "memory", "io": None, "executor": "threads", "store": "memory"}


class _Making:
    """An adapter that is being made, for those who wait for it."""

    def __init__(self) -> None:
        self.ended = anyio.Event()
        self.error: Exception | None = None


class Adapters:
    """The adapters of an app, by kind.

    *given* has for each kind a name, a string such as ``"filesystem:./runs"``, an object,
    a :class:`~dpcore.config.Value` that says where it was written, or None: then *config*
    and the defaults count.  Raises :class:`~dpcore.errors.ArgumentError` for anything else.
    """

    def __init__(
        self, plugins: Plugins, config: Config, clock: Clock, given: Mapping[str, object], *, strict_events: bool
    ) -> None:
        for kind, port in _PORTS.items():
            _check_adapter(kind, port, given[kind])
        self.choices = {
            kind: value if isinstance(value, Value) else config.choice(kind, value, _DEFAULTS[kind])
            for kind, value in given.items()
        }
        """What is wanted of each kind, and who says so."""
        self.made: dict[str, Any] = {}
        """Those that are there."""
        self.folder: object = None
        """A private temporary folder of the results, which goes when nobody holds this any more; None if there is none."""
        self._plugins, self._config, self._clock, self._strict = plugins, config, clock, strict_events
        self._making: dict[str, _Making] = {}
        self._group: TaskGroup | None = None
        self._left: anyio.Event | None = None
        self._failed = False

    def open(self, group: TaskGroup) -> None:
        """Let adapters be made, each of which lives in a task of *group*."""
        self._group, self._left, self._making, self._failed = group, anyio.Event(), {}, False

    def close(self, *, failed: bool) -> None:
        """Have every adapter left that was made, by the tasks of the group; a broker at once if the app has *failed*."""
        assert self._left is not None
        self._failed = failed
        self._left.set()
        self._group = None
        self.made.clear()

    async def broker(self) -> Broker:
        """Return the broker, made and entered when first asked for."""
        return cast(Broker, await self._adapter("broker"))

    async def executor(self) -> Executor:
        """Return the executor, made and entered when first asked for."""
        return cast(Executor, await self._adapter("executor"))

    async def io(self) -> IOManager:
        """Return the I/O manager, made when first asked for."""
        return cast(IOManager, await self._adapter("io"))

    async def store(self) -> RunStore:
        """Return the run store, made and entered when first asked for."""
        return cast(RunStore, await self._adapter("store"))

    async def _adapter(self, kind: str) -> Adapter:
        if self._group is None:
            raise AppStateError("is not entered", "enter it first: async with App(...) as app")
        if kind not in self.made:
            making = self._making.get(kind)
            if making is None:
                making = self._making[kind] = _Making()
                # Not as a part of this call: who asks first may be cancelled, and others wait for it too.
                self._group.start_soon(self._hold, kind, making)
            await making.ended.wait()
            if making.error is not None:
                raise making.error
        return cast(Adapter, self.made[kind])

    @property
    def owns_results(self) -> bool:
        """Whether what results there are goes with the app: in memory that is its own, or in its private folder."""
        value = self.choices["io"].value
        if isinstance(value, str):
            value = AdapterString.parse(value)
        return value is None or (isinstance(value, AdapterString) and value.name == "memory")

    async def _make(self, kind: str) -> Any:
        choice = self.choices[kind]
        if kind == "io" and choice.value is None:
            if (await self.executor()).in_process:
                return self._plugins.make("io", "memory", self._config)
            self.folder = folder = PrivateFolder()
            if self._group is not None:
                self._group.start_soon(to_thread.run_sync, sweep)  # beside all else; the app's end waits for it
            return self._plugins.load("io", "filesystem")(path=folder.path)
        return self._plugins.make(kind, choice, self._config)

    async def _hold(self, kind: str, making: _Making) -> None:
        """Make an adapter, enter it, and leave it with the App: in one task, as the task groups inside of it ask for."""
        assert self._left is not None
        left = self._left
        try:
            adapter = await self._make(kind)
            if isinstance(adapter, RunStore | Broker):
                adapter.clock = self._clock
            if isinstance(adapter, Executor):
                adapter.plugins = self._plugins
            if isinstance(adapter, Broker):
                adapter.strict = adapter.strict or self._strict
                adapter.on_published = self._plugins.observers("dpcore_event_published")
                adapter.on_settled = self._plugins.observers("dpcore_event_settled")
            async with AsyncExitStack() as entered:
                if hasattr(adapter, "__aenter__"):
                    adapter = await entered.enter_async_context(adapter)
                self.made[kind] = adapter
                making.ended.set()
                with anyio.CancelScope(shield=True):
                    await left.wait()
                if self._failed and isinstance(adapter, Broker):
                    adapter.drain = 0.0
        except Exception as error:
            if making.ended.is_set():
                raise
            making.error = error
        finally:
            if not making.ended.is_set():
                self._making.pop(kind, None)  # who asks again may have it made after all
                making.error = making.error or AppStateError(
                    f"was left while its {kind} was being made", "stay in it until its runs have ended"
                )
                making.ended.set()

    def described(self, kind: str) -> str:
        """Write down which adapter was used, without its secrets, and so that it is found from any folder."""
        value = self.choices[kind].value
        if not isinstance(value, str | AdapterString):
            return str(self.made.get(kind, value))
        spec = AdapterString.parse(value) if isinstance(value, str) else value
        known = settings_of(type(self.made[kind]))
        shown = {name: text for name, text in spec.settings.items() if name in known and not known[name].secret}
        address = None if spec.is_url else spec.address
        path = getattr(self.made[kind], "path", None) if "path" in known else None
        if isinstance(path, str | os.PathLike) and not spec.is_url:
            shown.pop("path", None)
            address = str(Path(path).absolute())
        return str(replace(spec, settings=shown, address=address))


def _check_adapter(kind: str, port: type[Adapter], given: object) -> None:
    value = given.value if isinstance(given, Value) else given
    fits = isinstance(value, type) and issubclass(value, port)
    if not fits and not isinstance(value, port | str | AdapterString | None):
        cure = f", such as 'filesystem:{value}'" if kind == "io" and isinstance(value, PurePath) else ""
        wanted = (
            f"the name of an adapter with what it is told, in one string{cure}, or an object of class {port.__name__}"
        )
        raise ArgumentError(kind, value, wanted)
