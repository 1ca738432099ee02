"""Adapters that break one promise each, under the suite that must notice; test_suites.py runs this file."""

from __future__ import annotations

import os
import pickle
import re
import tempfile
import threading
from pathlib import Path

from anyio.lowlevel import checkpoint

from dpcore.errors import DamagedResultError, ResultNotStoredError, StoreError
from dpcore.jobs import Ref
from dpcore.ports import IOManager
from dpcore.ports.runstore import Document
from dpcore.testing import IOManagerConformance, RunStoreConformance
from dpcore_plugins.io.filesystem import FilesystemIO
from dpcore_plugins.io.memory import MemoryIO
from dpcore_plugins.runstores.memory import MemoryRunStore
from dpcore_plugins.runstores.sqlite import SqliteRunStore

# ---------------------------------------------------------------- I/O managers


class WritesInPlace(FilesystemIO):
    def write(self, ref, value):
        path = self.path / ref.run_id / ref.task / f"{ref.result_id}.pkl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            pickle.dump(value, file, protocol=5)
        return str(path)


class ListsEveryRun(MemoryIO):
    def refs(self, run_id, task):
        return super().refs(None, task)


class RemembersTheFirst(MemoryIO):
    def write(self, ref, value):
        return "memory" if self.has(ref) else super().write(ref, value)


class DeletesTheTask(MemoryIO):
    def remove(self, ref):
        there = self.has(ref)
        for beside in list(self.refs(ref.run_id, ref.task)):
            super().remove(beside)
        return there


class ClearsByPrefix(MemoryIO):
    def remove_run(self, run_id):
        return sum(super(ClearsByPrefix, self).remove_run(run) for run in self.run_ids() if run.startswith(run_id))


class SaysItCopies(MemoryIO):
    capabilities = frozenset({"copies"})


class SaysItIsShared(FilesystemIO):
    def __init__(self):
        super().__init__(path=tempfile.mkdtemp())


class LeavesFilesOpen(FilesystemIO):
    def read(self, ref):
        os.dup(1)
        return super().read(ref)


class StoresWhatIsPrinted(FilesystemIO):
    def write(self, ref, value):
        try:
            pickle.dumps(value)
        except Exception:  # noqa: BLE001
            value = repr(value)
        return super().write(ref, value)


class MixesUpTasks(MemoryIO):
    def write(self, ref, value):
        return super().write(Ref(ref.run_id, ref.task.split(".")[0], ref.result_id), value)


class ListsAThousand(MemoryIO):
    def refs(self, run_id, task):
        return sorted(super().refs(run_id, task))[:1000]


class CutsWhatIsHuge(FilesystemIO):
    def write(self, ref, value):
        return super().write(ref, value[:16_000_000] if isinstance(value, bytes) else value)


class TakesAFullDiskForDone(FilesystemIO):
    def write(self, ref, value):
        try:
            return super().write(ref, value)
        except (OSError, ResultNotStoredError):
            return "somewhere"


class TakesWhatDoesNotLoadForNothing(FilesystemIO):
    def read(self, ref):
        try:
            return super().read(ref)
        except DamagedResultError:
            return None


class ReadsThenWritesTheRun(IOManager):
    """One file a run, which others may have changed between reading and writing it."""

    capabilities = frozenset({"copies", "shared"})

    def __init__(self, path):
        self.path = path

    def run(self, run_id):
        file = self.path / run_id
        return pickle.loads(file.read_bytes()) if file.exists() else {}

    def write(self, ref, value):
        self.path.mkdir(exist_ok=True)
        results = {**self.run(ref.run_id), (ref.task, ref.result_id): pickle.dumps(value)}
        torso = self.path / f".{os.getpid()}.{threading.get_ident()}"
        torso.write_bytes(pickle.dumps(results))
        torso.replace(self.path / ref.run_id)
        return str(self.path / ref.run_id)

    def read(self, ref):
        return pickle.loads(self.run(ref.run_id)[ref.task, ref.result_id])

    def has(self, ref):
        return (ref.task, ref.result_id) in self.run(ref.run_id)

    def remove(self, ref):
        raise NotImplementedError("not what is tested here")

    def refs(self, run_id, task):
        return [Ref(run_id, *key) for key in self.run(run_id) if task in (None, key[0])]


class TestReadsThenWritesTheRun(IOManagerConformance):
    def make(self, tmp_path):
        return ReadsThenWritesTheRun(tmp_path / "runs")


class TestListsAThousand(IOManagerConformance):
    def make(self, tmp_path):
        return ListsAThousand()


class TestCutsWhatIsHuge(IOManagerConformance):
    def make(self, tmp_path):
        return CutsWhatIsHuge(path=tmp_path / "runs")


class TestTakesAFullDiskForDone(IOManagerConformance):
    def make(self, tmp_path):
        return TakesAFullDiskForDone(path=tmp_path / "runs")


class TestTakesWhatDoesNotLoadForNothing(IOManagerConformance):
    def make(self, tmp_path):
        return TakesWhatDoesNotLoadForNothing(path=tmp_path)


class TestWritesInPlace(IOManagerConformance):
    def make(self, tmp_path):
        return WritesInPlace(path=tmp_path / "runs")


class TestListsEveryRun(IOManagerConformance):
    def make(self, tmp_path):
        return ListsEveryRun()


class TestRemembersTheFirst(IOManagerConformance):
    def make(self, tmp_path):
        return RemembersTheFirst()


class TestDeletesTheTask(IOManagerConformance):
    def make(self, tmp_path):
        return DeletesTheTask()


class TestClearsByPrefix(IOManagerConformance):
    def make(self, tmp_path):
        return ClearsByPrefix()


class TestSaysItCopies(IOManagerConformance):
    def make(self, tmp_path):
        return SaysItCopies()


class TestSaysItIsShared(IOManagerConformance):
    kills = 1

    def make(self, tmp_path):
        return SaysItIsShared()


class TestLeavesFilesOpen(IOManagerConformance):
    kills = 1

    def make(self, tmp_path):
        return LeavesFilesOpen(path=tmp_path / "runs")


class TestStoresWhatIsPrinted(IOManagerConformance):
    kills = 1

    def make(self, tmp_path):
        return StoresWhatIsPrinted(path=tmp_path / "runs")


class TestMixesUpTasks(IOManagerConformance):
    def make(self, tmp_path):
        return MixesUpTasks()


# ---------------------------------------------------------------- run stores


class IgnoresExpected(MemoryRunStore):
    async def commit(self, key, *, expected=None, **rest):
        return await super().commit(key, **rest)


class IgnoresTheFence(MemoryRunStore):
    async def commit(self, key, *, fence=None, **rest):
        return await super().commit(key, **rest)


class LosesTheSeventhEntry(MemoryRunStore):
    count = 0

    async def commit(self, key, *, entries=(), **rest):
        kept = []
        for entry in entries:
            self.count += 1
            kept += [entry] * (self.count % 7 != 0)
        return await super().commit(key, entries=kept, **rest)


class WritesEntriesOneByOne(MemoryRunStore):
    async def commit(self, key, *, entries=(), **rest):
        version = await super().commit(key, **rest)
        for entry in entries if version else ():
            await checkpoint()
            await super().commit(key, entries=[entry])
        return version


class WritesEntriesOneByOneToDisk(SqliteRunStore):
    async def commit(self, key, *, entries=(), **rest):
        version = await super().commit(key, **rest)
        for entry in entries if version else ():
            await super().commit(key, entries=[entry])
        return version


class LooksThenWrites(MemoryRunStore):
    async def commit(self, key, *, value=None, expected=None, **rest):
        found = await self.fetch(key)
        if expected is not None and expected >= 0 and expected != (found.version if found else 0):
            return None
        await checkpoint()
        return await super().commit(key, value=value, **rest)


class TakesUnderscoresForAnything(MemoryRunStore):
    async def scan(self, prefix, limit=None):
        pattern = re.compile(re.escape(prefix).replace("_", "."))
        return [(key, found) for key, found in await super().scan("") if pattern.match(key)][:limit]


class ScansFromTheFirst(MemoryRunStore):
    async def scan(self, prefix, limit=None):
        return (await super().scan(prefix))[::-1][:limit]


class DropsTheValueOnly(MemoryRunStore):
    def __init__(self):
        super().__init__()
        self.left = {}

    async def drop(self, key):
        found = await self.fetch(key, entries=True)
        self.left[key] = found.entries if found else self.left.get(key, [])
        return await super().drop(key)

    async def fetch(self, key, *, entries=False):
        found = await super().fetch(key, entries=entries)
        if found is None or not entries:
            return found
        return Document(found.value, found.version, [*self.left.get(key, ()), *found.entries])


class SaysItIsDurable(MemoryRunStore):
    capabilities = frozenset({"durable"})


class RemembersLeases(SqliteRunStore):
    """Asks nobody whether a lease that it once had is still there."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.had = set()

    async def commit(self, key, *, fence=None, **rest):
        if fence is not None and fence in self.had:
            fence = None
        version = await super().commit(key, fence=fence, **rest)
        if fence is not None and version is not None:
            self.had.add(fence)
        return version


class LosesLargeCommits(SqliteRunStore):
    async def commit(self, key, *, entries=(), **rest):
        return await super().commit(key, entries=[one for one in entries if len(one) < 1_000_000][:5000], **rest)


class TakesAFullDiskForDoneToo(SqliteRunStore):
    async def commit(self, key, **fields):
        try:
            return await super().commit(key, **fields)
        except StoreError:
            return 1


class WorksWhenClosed(MemoryRunStore):
    async def __aexit__(self, *_):
        pass


class LeavesFilesOpenToo(SqliteRunStore):
    async def __aexit__(self, *way):
        os.dup(1)
        await super().__aexit__(*way)


class TestLeavesFilesOpenToo(RunStoreConformance):
    def make(self, tmp_path):
        return LeavesFilesOpenToo(path=tmp_path / "runs.db")


class TestIgnoresExpected(RunStoreConformance):
    def make(self, tmp_path):
        return IgnoresExpected()


class TestIgnoresTheFence(RunStoreConformance):
    def make(self, tmp_path):
        return IgnoresTheFence()


class TestLosesTheSeventhEntry(RunStoreConformance):
    def make(self, tmp_path):
        return LosesTheSeventhEntry()


class TestWritesEntriesOneByOne(RunStoreConformance):
    def make(self, tmp_path):
        return WritesEntriesOneByOne()


class TestWritesEntriesOneByOneToDisk(RunStoreConformance):
    examples = 3

    def make(self, tmp_path: Path):
        return WritesEntriesOneByOneToDisk(path=tmp_path / "runs.db")


class TestRemembersLeases(RunStoreConformance):
    def make(self, tmp_path):
        return RemembersLeases(path=tmp_path / "runs.db")


class TestLosesLargeCommits(RunStoreConformance):
    def make(self, tmp_path):
        return LosesLargeCommits(path=tmp_path / "runs.db")


class TestTakesAFullDiskForDoneToo(RunStoreConformance):
    def make(self, tmp_path):
        return TakesAFullDiskForDoneToo(path=tmp_path / "runs.db")


class TestLooksThenWrites(RunStoreConformance):
    def make(self, tmp_path):
        return LooksThenWrites()


class TestTakesUnderscoresForAnything(RunStoreConformance):
    def make(self, tmp_path):
        return TakesUnderscoresForAnything()


class TestScansFromTheFirst(RunStoreConformance):
    def make(self, tmp_path):
        return ScansFromTheFirst()


class TestDropsTheValueOnly(RunStoreConformance):
    def make(self, tmp_path):
        return DropsTheValueOnly()


class TestSaysItIsDurable(RunStoreConformance):
    kills = 1

    def make(self, tmp_path):
        return SaysItIsDurable()


class TestWorksWhenClosed(RunStoreConformance):
    def make(self, tmp_path):
        return WorksWhenClosed()
