"""The promises of a run store."""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from signal import SIGKILL
from typing import Any, ClassVar

import anyio
import pytest
from anyio.lowlevel import checkpoint

from dpcore.errors import InvalidIdError, LeaseLostError, RunNotFoundError, StoreError, UnsupportedError
from dpcore.jobs import State
from dpcore.ports import RunStore
from dpcore.ports.runstore import EXISTING, Document, Fence, RunRecord, TaskChange
from dpcore.processes import this_process
from dpcore.testing.clock import FakeClock
from dpcore.testing.suite import AsyncConformance, Writers, leave_no_room, leftovers, moments

__all__ = ("RunStoreConformance",)


_MUCH = b"much" * 500_000
_REFUSED, _STORED = 0, 1


def _change(task: str, state: State = State.SUCCEEDED, at: float = 1.0) -> TaskChange:
    return TaskChange(task=task, state=state, at=at)


class RunStoreConformance(AsyncConformance, suite=True):
    """What a run store promises: subclass it, and say how one is made.

    Every promise is kept on asyncio and on trio.
    """

    kills: ClassVar[int] = 20
    """How many writers are killed, of a store that is durable."""
    examples: ClassVar[int] = 40
    """How many random histories are compared with a dictionary."""

    def make(self, tmp_path: Path) -> RunStore:
        """Return a new store, not entered; two that are made of one *tmp_path* have the same settings."""
        raise NotImplementedError(f"{type(self).__name__} must say in make(self, tmp_path) how its store is made")

    # ---------------------------------------------------------------- documents

    async def test_each_value_adds_one_to_the_version(self, tmp_path: Path) -> None:
        """What does not exist has version 0; what is fetched is the last value that was written."""
        async with self.make(tmp_path) as store:
            assert await store.fetch("k") is None
            assert [await store.commit("k", value=value) for value in (b"a", b"b", b"c")] == [1, 2, 3]
            assert await store.fetch("k") == Document(b"c", 3)
            assert await store.commit("other", value=b"a") == 1

    async def test_entries_are_appended_in_order_and_add_nothing_to_the_version(self, tmp_path: Path) -> None:
        """All entries are kept, also equal ones, also beside a value; they are fetched when asked for."""
        async with self.make(tmp_path) as store:
            assert await store.commit("k", value=b"a", entries=[b"1", b"2"]) == 1
            assert await store.commit("k", entries=[b"3", b"1"]) == 1
            assert await store.commit("k", value=b"b", entries=[b""]) == 2
            assert await store.commit("k") == 2
            assert await store.fetch("k", entries=True) == Document(b"b", 2, [b"1", b"2", b"3", b"1", b""])
            assert await store.fetch("k") == Document(b"b", 2)

    async def test_what_was_fetched_does_not_change(self, tmp_path: Path) -> None:
        """A document is what was there at the moment of fetching."""
        async with self.make(tmp_path) as store:
            await store.commit("k", value=b"a", entries=[b"1"])
            found = await store.fetch("k", entries=True)
            await store.commit("k", value=b"b", entries=[b"2"])
            assert found == Document(b"a", 1, [b"1"])

    @pytest.mark.parametrize("size", [0, 1, 100, 1_000_000])
    async def test_values_and_entries_are_any_bytes(self, tmp_path: Path, size: int) -> None:
        """Of any length, also none, and of any content, also none that is text."""
        async with self.make(tmp_path) as store:
            value = (bytes(range(256)) * (size // 256 + 1))[:size]
            assert await store.commit("k", value=value, entries=[value, b"\0"]) == 1
            assert await store.fetch("k", entries=True) == Document(value, 1, [value, b"\0"])

    async def test_a_commit_that_expects_another_version_is_refused(self, tmp_path: Path) -> None:
        """It returns None and changes nothing; the version that is there is accepted, 0 that of what is not."""
        async with self.make(tmp_path) as store:
            assert await store.commit("k", value=b"a", expected=1) is None
            assert await store.fetch("k") is None
            assert await store.commit("k", value=b"a", expected=0) == 1
            for wrong in (0, 2, 99):
                assert await store.commit("k", value=b"wrong", entries=[b"wrong"], expected=wrong) is None
            assert await store.fetch("k", entries=True) == Document(b"a", 1)
            assert await store.commit("k", value=b"b", expected=1) == 2
            assert await store.commit("k", entries=[b"x"], expected=1) is None
            assert await store.commit("k", entries=[b"x"], expected=2) == 2

    async def test_existing_expects_any_version_but_none(self, tmp_path: Path) -> None:
        """A commit that expects EXISTING never makes a document."""
        async with self.make(tmp_path) as store:
            assert await store.commit("k", value=b"a", entries=[b"x"], expected=EXISTING) is None
            assert await store.fetch("k") is None
            await store.commit("k", value=b"a")
            assert await store.commit("k", value=b"b", expected=EXISTING) == 2
            assert await store.commit("k", entries=[b"x"], expected=EXISTING) == 2

    async def test_entries_alone_make_no_document(self, tmp_path: Path) -> None:
        """Without a value, what does not exist is refused, and stays what it is."""
        async with self.make(tmp_path) as store:
            assert await store.commit("k", entries=[b"x"]) is None
            assert await store.commit("k", entries=[b"x"], expected=0) is None
            assert await store.commit("k") is None
            assert await store.scan("") == []
            await store.commit("k", value=b"a")
            assert await store.fetch("k", entries=True) == Document(b"a", 1)

    async def test_a_fence_that_does_not_hold_refuses_the_commit(self, tmp_path: Path) -> None:
        """The document it names must have its version, or else nothing is written, neither value nor entries."""
        async with self.make(tmp_path) as store:
            await store.commit("k", value=b"a")
            await store.commit("gate", value=b"1")
            await store.commit("gate", value=b"2")
            for fence in (Fence("gate", 1), Fence("gate", 3), Fence("gate", 0), Fence("nowhere", 1)):
                assert await store.commit("k", value=b"wrong", entries=[b"wrong"], fence=fence) is None
                assert await store.commit("new", value=b"wrong", fence=fence) is None
            assert await store.fetch("k", entries=True) == Document(b"a", 1)
            assert await store.fetch("new") is None
            assert await store.commit("k", entries=[b"right"], fence=Fence("gate", 2)) == 1
            assert await store.commit("k", entries=[b"right"], fence=Fence("nowhere", 0)) == 1
            assert await store.commit("k", value=b"b", expected=7, fence=Fence("gate", 2)) is None

    async def test_scan_begins_with_the_last_created(self, tmp_path: Path) -> None:
        """Writing to a document again does not move it; entries are left out; the limit counts from the last."""
        async with self.make(tmp_path) as store:
            for number in (3, 1, 2, 5, 4):
                await store.commit(f"k/{number}", value=b"%d" % number, entries=[b"x"])
                await store.commit(f"other/{number}", value=b"other")
            await store.commit("k/3", value=b"again")
            found = await store.scan("k/")
            assert [key for key, _ in found] == ["k/4", "k/5", "k/2", "k/1", "k/3"]
            assert found[-1] == ("k/3", Document(b"again", 2))
            assert await store.scan("k/", 2) == found[:2]
            assert await store.scan("k/", 0) == []
            assert await store.scan("k/", 99) == found

    async def test_a_prefix_is_taken_as_it_is_written(self, tmp_path: Path) -> None:
        """No character of it stands for others, capitals are no small letters, and the empty one is of all keys."""
        keys = ["a_b", "axb", "a%b", "a*b", "a[x]b", "A_b", "a_", "a", "b", "a_\U0010ffff", "ä", "a\\b", "a'b"]
        async with self.make(tmp_path) as store:
            for key in keys:
                await store.commit(key, value=b"")
            for prefix in ("a_", "a%", "a*", "a[", "A", "a", "", "a_b", "ä", "a_\U0010ffff", "a\\", "a'", "c"):
                wanted = [key for key in reversed(keys) if key.startswith(prefix)]
                assert [key for key, _ in await store.scan(prefix)] == wanted, f"prefix {prefix!r}"

    async def test_what_was_dropped_leaves_nothing(self, tmp_path: Path) -> None:
        """The same key begins again at version 1, without entries, as the last created; its neighbours stay."""
        async with self.make(tmp_path) as store:
            for key in ("a", "ab", "b"):
                await store.commit(key, value=b"old", entries=[b"old"])
            assert await store.drop("a") is True
            assert await store.drop("a") is False
            assert await store.fetch("a") is None
            assert [key for key, _ in await store.scan("")] == ["b", "ab"]
            assert await store.commit("a", value=b"new", expected=0) == 1
            assert await store.fetch("a", entries=True) == Document(b"new", 1)
            assert [key for key, _ in await store.scan("")] == ["a", "b", "ab"]
            assert await store.fetch("ab", entries=True) == Document(b"old", 1, [b"old"])

    def test_any_history_is_that_of_a_dictionary(self, tmp_path: Path) -> None:
        """Whatever is committed, refused and dropped, in whatever order: what is there is what a dictionary would hold."""
        from dpcore.testing.machines import compare_store

        compare_store(self.make, tmp_path, self.examples)

    # ---------------------------------------------------------------- runs

    async def test_a_run_is_what_was_recorded(self, tmp_path: Path) -> None:
        """Its record and all its changes, oldest first, with everything they say."""
        record = RunRecord(run_id="r1", began=1.5, source="orders.py", params={"day": "7"}, carried=b"\x80\0", tasks=2)
        changes = [
            TaskChange(task="a", state=State.RETRYING, at=2.0, attempt=1, error="ValueError: no", traceback="..."),
            TaskChange(task="a", state=State.SUCCEEDED, at=3.0, attempt=2, duration=0.5, result="2"),
            TaskChange(task="b", state=State.SUCCEEDED, at=4.0, count=3, attempts={1: 2}, missing=[2], index=1),
        ]
        async with self.make(tmp_path) as store:
            assert await store.begin(record) is True
            await store.append("r1", changes[:1])
            await store.append("r1", [])
            await store.append("r1", changes[1:])
            history = await store.get("r1")
            assert history.record == record
            assert history.changes == changes
            assert history.tasks == {"a": changes[1]}

    async def test_a_run_begins_once(self, tmp_path: Path) -> None:
        """The second beginning says so, and changes nothing of the first."""
        async with self.make(tmp_path) as store:
            assert await store.begin(RunRecord(run_id="r1", source="first"))
            await store.append("r1", [_change("a")])
            assert await store.begin(RunRecord(run_id="r1", source="second")) is False
            history = await store.get("r1")
            assert history.record.source == "first"
            assert history.changes == [_change("a")]

    async def test_an_append_may_replace_the_record(self, tmp_path: Path) -> None:
        """Both or neither: they are one commit."""
        async with self.make(tmp_path) as store:
            await store.begin(RunRecord(run_id="r1"))
            await store.append("r1", [_change("a")], record=RunRecord(run_id="r1", state=State.SUCCEEDED))
            history = await store.get("r1")
            assert history.record.state is State.SUCCEEDED
            assert history.changes == [_change("a")]

    async def test_a_run_that_is_not_there_is_named_and_the_latest_are_listed(self, tmp_path: Path) -> None:
        """Whether asked for or appended to, it is a RunNotFoundError, and nothing is made."""
        async with self.make(tmp_path) as store:
            await store.begin(RunRecord(run_id="known"))
            asks = (store.get("knwon"), store.append("knwon", [_change("a")]))
            for ask in asks:
                with pytest.raises(RunNotFoundError) as nothing:
                    await ask
                words = f"there is no run 'knwon' in {store} (latest: 'known'); did you mean 'known'?"
                assert str(nothing.value) == words
            assert [record.run_id for record in await store.list()] == ["known"]

    async def test_what_is_not_an_id_is_refused(self, tmp_path: Path) -> None:
        """An InvalidIdError, before anything is written."""
        async with self.make(tmp_path) as store:
            for wrong in ("", "../x", "a/b", "a\0", "x" * 300):
                asks: tuple[Awaitable[Any], ...] = (
                    store.begin(RunRecord(run_id=wrong)), store.get(wrong), store.append(wrong, []), store.remove(wrong),
                )  # fmt: skip
                for ask in asks:
                    with pytest.raises(InvalidIdError):
                        await ask
            assert await store.scan("") == []

    async def test_list_begins_with_the_last_run(self, tmp_path: Path) -> None:
        """As many as asked for; what is appended to a run does not move it; documents and leases are no runs."""
        async with self.make(tmp_path) as store:
            for name in ("b", "c", "a"):
                await store.begin(RunRecord(run_id=name))
                await store.write(name, {})
                await store.lease(name, 10)
            await store.append("b", [], record=RunRecord(run_id="b", state=State.FAILED))
            assert [record.run_id for record in await store.list()] == ["a", "c", "b"]
            assert [record.run_id for record in await store.list(2)] == ["a", "c"]
            assert (await store.list())[2].state is State.FAILED

    async def test_a_removed_run_is_forgotten(self, tmp_path: Path) -> None:
        """It tells whether there was one; the run may begin anew, without its old changes."""
        async with self.make(tmp_path) as store:
            await store.begin(RunRecord(run_id="r1"))
            await store.append("r1", [_change("a")])
            assert await store.remove("r1") is True
            assert await store.remove("r1") is False
            assert await store.begin(RunRecord(run_id="r1"))
            assert (await store.get("r1")).changes == []

    async def test_small_documents_have_versions(self, tmp_path: Path) -> None:
        """What is read is what was written and its version; of two that expect one version, the second is refused."""
        async with self.make(tmp_path) as store:
            assert await store.read("schedule/nightly") == (None, 0)
            value = {"next": 1.5, "name": "größe", "list": [None, True]}
            assert await store.write("schedule/nightly", value, expected=0) == 1
            assert await store.read("schedule/nightly") == (value, 1)
            assert await store.write("schedule/nightly", "a", expected=1) == 2
            assert await store.write("schedule/nightly", "b", expected=1) is None
            assert await store.read("schedule/nightly") == ("a", 2)
            assert await store.write("schedule/nightly", "c") == 3

    # ---------------------------------------------------------------- leases

    async def test_one_holds_a_lease_at_a_time(self, tmp_path: Path) -> None:
        """Another gets None until the time is over; then the token is greater."""
        async with self.make(tmp_path) as store:
            clock = store.clock = FakeClock()
            first = await store.lease("scheduler", 10)
            assert first is not None
            assert await first.held()
            await clock.advance(9.9)
            assert await store.lease("scheduler", 10) is None
            assert await store.lease("another", 10) is not None
            await clock.advance(0.2)
            second = await store.lease("scheduler", 10)
            assert second is not None
            assert second.token > first.token
            assert not await first.held()

    async def test_a_renewed_lease_lasts(self, tmp_path: Path) -> None:
        """From the moment of renewing on; who lost it learns so instead."""
        async with self.make(tmp_path) as store:
            clock = store.clock = FakeClock()
            lease = await store.lease("scheduler", 10)
            assert lease is not None
            for _ in range(5):
                await clock.advance(9)
                assert await store.lease("scheduler", 10) is None
                await lease.renew(10)
            await clock.advance(11)
            taken = await store.lease("scheduler", 10)
            assert taken is not None
            with pytest.raises(LeaseLostError):
                await lease.renew(10)
            assert await taken.held()
            await clock.advance(9)
            assert await store.lease("scheduler", 10) is None

    async def test_a_released_lease_is_free_at_once(self, tmp_path: Path) -> None:
        """Leaving it releases it; releasing what somebody else holds takes nothing from them."""
        async with self.make(tmp_path) as store:
            store.clock = FakeClock()
            first = await store.lease("scheduler", 10)
            assert first is not None
            async with first:
                assert await store.lease("scheduler", 10) is None
            second = await store.lease("scheduler", 10)
            assert second is not None
            assert second.token > first.token
            await first.release()
            assert await second.held()
            assert await store.lease("scheduler", 10) is None

    async def test_an_append_with_a_lost_lease_is_refused(self, tmp_path: Path) -> None:
        """LeaseLostError, and nothing is written, neither changes nor record; the holder's is accepted."""
        async with self.make(tmp_path) as store:
            clock = store.clock = FakeClock()
            await store.begin(RunRecord(run_id="r1"))
            old = await store.lease("scheduler", 1)
            assert old is not None
            await store.append("r1", [_change("a")], lease=old)
            await clock.advance(2)
            new = await store.lease("scheduler", 1)
            assert new is not None
            with pytest.raises(LeaseLostError):
                await store.append("r1", [_change("b")], record=RunRecord(run_id="r1", reason="late"), lease=old)
            await store.append("r1", [_change("c")], lease=new)
            history = await store.get("r1")
            assert [change.task for change in history.changes] == ["a", "c"]
            assert history.record.reason == ""
            with pytest.raises(RunNotFoundError):
                await store.append("r2", [_change("c")], lease=new)

    async def test_of_many_who_ask_for_a_lease_one_gets_it(self, tmp_path: Path) -> None:
        """Twenty at once, and the others get None."""
        async with self.make(tmp_path) as store:
            leases = await _all_at_once(20, lambda _: store.lease("scheduler", 10))
            assert sum(lease is not None for lease in leases) == 1

    # ---------------------------------------------------------------- several at once

    async def test_commits_at_once_happen_each_exactly_once(self, tmp_path: Path) -> None:
        """Of a hundred tasks each appends three times two entries: all are there, in pairs, each task's in order."""
        async with self.make(tmp_path) as store:
            await store.commit("k", value=b"")

            async def append(number: int) -> None:
                for turn in range(3):
                    assert await store.commit("k", entries=[b"%d %d" % (number, turn), b"second"]) == 1

            await _all_at_once(100, append)
            found = await store.fetch("k", entries=True)
            assert found is not None
            firsts = found.entries[::2]
            assert set(found.entries[1::2]) == {b"second"}, "another's entry between two of one commit"
            assert sorted(firsts) == sorted(b"%d %d" % (number, turn) for number in range(100) for turn in range(3))
            for number in range(100):
                of_one = [entry for entry in firsts if entry.split()[0] == b"%d" % number]
                assert of_one == [b"%d %d" % (number, turn) for turn in range(3)]

    async def test_of_commits_that_expect_one_version_one_happens(self, tmp_path: Path) -> None:
        """Twenty at once, ten times: each time one is accepted, and its value is there."""
        async with self.make(tmp_path) as store:
            for version in range(10):
                commit = partial(store.commit, "k", expected=version)
                versions = await _all_at_once(20, lambda number: commit(value=b"%d" % number, entries=[b"x"]))  # noqa: B023
                assert sorted(versions, key=str) == [version + 1, *[None] * 19]
                found = await store.fetch("k", entries=True)
                assert found == Document(b"%d" % versions.index(version + 1), version + 1, [b"x"] * (version + 1))

    async def test_a_refused_commit_does_no_harm_to_those_beside_it(self, tmp_path: Path) -> None:
        """Accepted and refused ones at once: each gets its own answer."""
        async with self.make(tmp_path) as store:
            await store.commit("k", value=b"")

            async def commit(number: int) -> int | None:
                return await store.commit("k", entries=[b"%d" % number], expected=1 if number % 3 else 5)

            answers = await _all_at_once(60, commit)
            assert answers == [1 if number % 3 else None for number in range(60)]
            found = await store.fetch("k", entries=True)
            assert found is not None
            assert sorted(map(int, found.entries)) == [number for number in range(60) if number % 3]

    async def test_a_cancelled_commit_has_happened_whole_or_not_at_all(self, tmp_path: Path) -> None:
        """Whenever it is cancelled, and whatever happens beside it; what it returned for has happened."""
        chance, returned = random.Random(11), set[int]()
        async with self.make(tmp_path) as store:
            await store.commit("k", value=b"")

            async def append(number: int) -> None:
                await store.commit("k", entries=[b"%d" % number, b"%d" % -number])
                returned.add(number)

            for first in range(1, 241, 4):
                with anyio.CancelScope() as scope:
                    async with anyio.create_task_group() as tasks:
                        for number in range(first, first + 3):
                            tasks.start_soon(append, number)
                        await _a_moment(chance)
                        scope.cancel()
                await append(first + 3)  # the store goes on as if nothing had been
            found = await store.fetch("k", entries=True)
            assert found is not None
            happened = [int(entry) for entry in found.entries[::2]]
            assert [-number for number in happened] == [int(entry) for entry in found.entries[1::2]], "half a commit"
            assert len(happened) == len(set(happened))
            assert returned <= set(happened)

    async def test_cancelling_one_commit_cancels_no_other(self, tmp_path: Path) -> None:
        """Those that wait beside it are committed."""
        chance = random.Random(5)
        async with self.make(tmp_path) as store:
            await store.commit("k", value=b"")

            async def append(scope: anyio.CancelScope, entry: bytes) -> None:
                with scope:
                    assert await store.commit("k", entries=[entry]) == 1

            for turn in range(30):
                async with anyio.create_task_group() as tasks:
                    doomed = anyio.CancelScope()
                    entry = b"kept %d" % turn
                    for scope in chance.sample([doomed, anyio.CancelScope(), anyio.CancelScope()], 3):
                        tasks.start_soon(append, scope, b"doomed" if scope is doomed else entry)
                    await _a_moment(chance)
                    doomed.cancel()
            found = await store.fetch("k", entries=True)
            assert found is not None
            assert [found.entries.count(b"kept %d" % turn) for turn in range(30)] == [2] * 30

    # ---------------------------------------------------------------- capabilities

    async def test_capabilities_are_data(self, tmp_path: Path) -> None:
        """They are those that the port names, the same on the class and on the object; the others can be asked for in vain."""
        store = self.make(tmp_path)
        self.check_capabilities(store, {"durable", "shared"})
        for capability in {"durable", "shared"} - store.capabilities:
            with pytest.raises(UnsupportedError, match=capability):
                store.require(capability, "do that")

    async def test_durable_or_not_as_it_says(self, tmp_path: Path) -> None:
        """With ``durable``, another of the same settings finds all that was committed; without, it finds nothing."""
        async with self.make(tmp_path) as store:
            await store.commit("a", value=b"1", entries=[b"x", b"y"])
            await store.commit("b", value=b"1")
            await store.commit("b", value=b"2")
        async with self.make(tmp_path) as store:
            if "durable" not in store.capabilities:
                assert await store.scan("") == []
                return
            assert await store.fetch("a", entries=True) == Document(b"1", 1, [b"x", b"y"])
            assert [key for key, _ in await store.scan("")] == ["b", "a"]
            assert await store.commit("b", value=b"3", expected=2) == 3

    def test_a_killed_writer_keeps_what_commit_returned_for(self, tmp_path: Path) -> None:
        """After SIGKILL at any moment, every commit that returned is there, each of them whole.  (With ``durable``.)"""
        if "durable" not in self.make(tmp_path).capabilities:
            return
        with Writers.of(_append_for_ever, type(self), tmp_path) as writers:
            for said, seconds in moments(seed=3, times=self.kills, most=0.03):
                heard = writers.kill_after(said, seconds)
                entries = anyio.run(_entries_of, self.make(tmp_path))
                assert len(entries) % 3 == 0, "a part of a commit"
                assert [int(entry) for entry in entries] == [*range(len(entries))]
                assert not heard or len(entries) - heard[-1] in (0, 3), "what commit returned for is not there"

    async def test_shared_or_not_as_it_says(self, tmp_path: Path) -> None:
        """With ``shared``, two of the same settings see each other's commits at once; without, never."""
        async with self.make(tmp_path) as one, self.make(tmp_path) as other:
            await one.commit("k", value=b"1")
            if "shared" not in one.capabilities:
                assert await other.fetch("k") is None
                return
            assert await other.fetch("k") == Document(b"1", 1)
            assert await other.commit("k", value=b"2", expected=1) == 2
            assert await one.commit("k", value=b"wrong", expected=1) is None
            lease = await one.lease("scheduler", 10)
            assert lease is not None
            assert await other.lease("scheduler", 10) is None
            answers = await _all_at_once(20, lambda n: (one, other)[n % 2].commit("race", value=b"", expected=0))
            assert sorted(answers, key=str) == [1, *[None] * 19]

    async def test_a_fence_holds_between_two_of_the_same_settings(self, tmp_path: Path) -> None:
        """Who lost a lease to somebody who uses another object can append nothing.  (With ``shared``.)"""
        async with self.make(tmp_path) as one, self.make(tmp_path) as other:
            if "shared" not in one.capabilities:
                return
            one.clock = other.clock = clock = FakeClock()
            await one.begin(RunRecord(run_id="r1"))
            old = await one.lease("run/r1", 10)
            assert old is not None
            await one.append("r1", [_change("a")], lease=old)
            await clock.advance(11)
            new = await other.lease("run/r1", 10)
            assert new is not None
            with pytest.raises(LeaseLostError):
                await one.append("r1", [_change("b")], lease=old)
            await other.append("r1", [_change("c")], lease=new)
            assert [change.task for change in (await one.get("r1")).changes] == ["a", "c"]

    def test_a_lease_ends_with_the_process_that_held_it(self, tmp_path: Path) -> None:
        """While it lives nobody else has it; when it was killed it is free at once.  (With ``shared`` and ``durable``.)"""
        if not self.make(tmp_path).capabilities >= {"shared", "durable"}:
            return
        if this_process().endswith("/"):
            pytest.skip("this system does not tell which process has ended")
        with Writers.of(_hold, type(self), tmp_path) as writers:
            process = writers.start()
            (token,) = writers.hear(1)
            assert anyio.run(_token_of, self.make(tmp_path)) is None, "somebody else had it"
            os.kill(process, SIGKILL)
            writers.rest()
            taken = anyio.run(_token_of, self.make(tmp_path))
            assert taken is not None, "a dead process had it still"
            assert taken > token

    async def test_what_is_large_is_whole(self, tmp_path: Path) -> None:
        """Ten thousand entries in one commit, a value of 20 MB, and a thousand runs."""
        async with self.make(tmp_path) as store:
            entries = [b"%d" % number for number in range(10_000)]
            value = bytes(range(250)) * 80_000
            assert await store.commit("k", value=value, entries=entries) == 1
            found = await store.fetch("k", entries=True)
            assert found is not None
            assert found.entries == entries
            assert hash(found.value) == hash(value)  # not compared, since a failure would show both
            ids = [f"r{number}" for number in range(1000)]
            for run_id in ids:
                await store.begin(RunRecord(run_id=run_id))
            assert [record.run_id for record in await store.list()] == ids[::-1]

    def test_what_does_not_fit_keeps_what_was_there(self, tmp_path: Path) -> None:
        """On a full disk a commit is a StoreError, which changes nothing; the store goes on.  (With ``durable``.)"""
        if "durable" not in self.make(tmp_path).capabilities:
            return
        with Writers.of(_commit_too_much, type(self), tmp_path) as writers:
            said = writers.run()
        assert said in ([_REFUSED, _STORED], [_STORED, _STORED]), "another error than StoreError, or it did not go on"
        entries = [b"small", *([_MUCH] if said[0] == _STORED else []), b"small"]
        assert anyio.run(_entries_of, self.make(tmp_path)) == entries

    def test_processes_that_write_at_once_lose_nothing(self, tmp_path: Path) -> None:
        """Two processes count to 200 together, each step expecting the version it has read.  (With ``shared``.)"""
        if "shared" not in self.make(tmp_path).capabilities:
            return
        work = partial(Writers.of, _count, type(self), tmp_path)
        with work() as one, work() as other:
            one.start()
            other.start()
            assert one.rest() == other.rest() == [100]
        assert anyio.run(_version_of, self.make(tmp_path)) == 200

    # ---------------------------------------------------------------- opening and closing

    async def test_it_is_used_between_entering_and_leaving(self, tmp_path: Path) -> None:
        """Before and after, every method is a StoreError."""
        store = self.make(tmp_path)
        await self._refuses_all(store)
        async with store:
            await store.commit("k", value=b"")
        await self._refuses_all(store)

    async def _refuses_all(self, store: RunStore) -> None:
        for ask in (store.commit("k", value=b""), store.fetch("k"), store.scan(""), store.drop("k")):
            with pytest.raises(StoreError):
                await ask

    async def test_it_is_left_twice_and_entered_again(self, tmp_path: Path) -> None:
        """Leaving it twice does nothing; entered again, the same object knows what it knew."""
        store = self.make(tmp_path)
        async with store:
            await store.commit("k", value=b"")
        await store.__aexit__(None, None, None)
        async with store:
            assert await store.fetch("k") == Document(b"", 1)

    async def test_it_is_left_while_it_is_cancelled(self, tmp_path: Path) -> None:
        """What it holds is given back on that way out, too."""
        store = self.make(tmp_path)
        with anyio.CancelScope() as scope:
            async with store:
                await store.commit("k", value=b"")
                scope.cancel()
                await checkpoint()
        with pytest.raises(StoreError):
            await store.fetch("k")

    def test_nothing_is_left_open(self, tmp_path: Path, backend: str) -> None:
        """Twenty times opened and closed, there are no more open files and threads than after the first time."""

        async def work() -> None:
            async with self.make(tmp_path) as store:
                await store.commit("k", value=b"")
                await _all_at_once(5, lambda _: store.commit("k", entries=[b"x"]))
                await store.scan("")

        anyio.run(work, backend=backend)
        before = leftovers()
        for _ in range(20):
            anyio.run(work, backend=backend)
        after = leftovers(since=before)
        assert after.no_more_than(before)


async def _all_at_once(times: int, work: Callable[[int], Awaitable[Any]]) -> list[Any]:
    answers: list[Any] = [None] * times

    async def one(number: int) -> None:
        answers[number] = await work(number)

    async with anyio.create_task_group() as tasks:
        for number in range(times):
            tasks.start_soon(one, number)
    return answers


async def _a_moment(chance: random.Random) -> None:
    """Let a random, short time pass: some turns of the loop, or as long as a commit takes."""
    for _ in range(chance.randint(0, 4)):
        await checkpoint()
    if chance.random() < 0.5:
        await anyio.sleep(chance.uniform(0, 0.002))


def _append_for_ever(suite: type[RunStoreConformance], path: Path, say: Callable[[int], None]) -> None:
    async def work() -> None:
        async with suite().make(path) as store:
            await store.commit("k", value=b"", expected=0)
            count = len(await _fetched(store))
            while True:
                await store.commit("k", entries=[b"%d" % number for number in range(count, count + 3)])
                count += 3
                say(count)

    anyio.run(work)


def _hold(suite: type[RunStoreConformance], path: Path, say: Callable[[int], None]) -> None:
    async def work() -> None:
        async with suite().make(path) as store:
            lease = await store.lease("run/r1", 3600)
            assert lease is not None
            say(lease.token)
            await anyio.sleep_forever()

    anyio.run(work)


async def _token_of(store: RunStore) -> int | None:
    async with store:
        lease = await store.lease("run/r1", 3600)
        return lease.token if lease is not None else None


def _commit_too_much(suite: type[RunStoreConformance], path: Path, say: Callable[[int], None]) -> None:
    async def work() -> None:
        async with suite().make(path) as store:
            await store.commit("k", value=b"", entries=[b"small"])
            leave_no_room(len(_MUCH) // 2)
            for entry in (_MUCH, b"small"):
                try:
                    await store.commit("k", entries=[entry])
                    say(_STORED)
                except StoreError:
                    say(_REFUSED)

    anyio.run(work)


def _count(suite: type[RunStoreConformance], path: Path, say: Callable[[int], None]) -> None:
    async def work() -> None:
        async with suite().make(path) as store:
            steps = 0
            while steps < 100:
                found = await store.fetch("count")
                version = found.version if found is not None else 0
                steps += await store.commit("count", value=b"%d" % version, expected=version) is not None
        say(steps)

    anyio.run(work)


async def _fetched(store: RunStore) -> list[bytes]:
    found = await store.fetch("k", entries=True)
    return found.entries if found is not None else []


async def _entries_of(store: RunStore) -> list[bytes]:
    async with store:
        return await _fetched(store)


async def _version_of(store: RunStore) -> int:
    async with store:
        found = await store.fetch("count")
        return found.version if found is not None else 0
