"""Both storages beside a naive model, through random lives and deaths."""

from __future__ import annotations

import tempfile
from pathlib import Path
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from k2store.storage import LATEST, OpenStore, Row
from tests.contract.storage_machines import SMALL, FileMachine, SimulatedMachine

keys = st.lists(st.sampled_from([0, 1, 97, 255]), max_size=3).map(bytes)
stamps = st.integers(0, 6) | st.just(LATEST)
values = st.none() | st.binary(max_size=3)
spaces = st.sampled_from([1, 2])


class Storages(RuleBasedStateMachine):
    """The same operations on files, on the simulated machine, and on a list and a dict."""

    @initialize(seed=st.integers(0, 1 << 32))
    def begin(self, seed: int) -> None:
        """Three empty stores."""
        self.directory = tempfile.TemporaryDirectory()
        self.files = FileMachine(Path(self.directory.name) / "store", SMALL)
        self.memory = SimulatedMachine(SMALL, seed)
        self.stores: list[OpenStore] = [self.files.open(), self.memory.open()]
        self.turns: list[bytes] = []
        self.first = 1
        self.checkpoint = 0
        self.rows: dict[tuple[int, bytes, int], bytes | None] = {}
        self.meta: dict[bytes, bytes] = {}
        self.applied = 0

    # ---- the log
    @rule(payload=st.binary(max_size=40), repeat=st.sampled_from([1, 1, 1, 400]))
    def append(self, payload: bytes, repeat: int) -> None:
        """A turn."""
        self.turns.append(payload * repeat)
        assert {store.log.append(payload * repeat) for store in self.stores} == {len(self.turns)}

    @rule()
    def sync(self) -> None:
        """All of it durable."""
        assert {store.log.sync() for store in self.stores} == {len(self.turns)}

    @rule(payload=st.binary(max_size=40))
    def begin_segment(self, payload: bytes) -> None:
        """A checkpoint."""
        self.turns.append(payload)
        self.checkpoint = len(self.turns)
        begun = {store.log.begin_segment(payload) for store in self.stores}
        assert begun == {self.checkpoint}

    @rule()
    def drop(self) -> None:
        """Everything before the checkpoint goes, after a flush."""
        if self.checkpoint > self.applied:
            self.applied = self.checkpoint - 1
            for store in self.stores:
                store.settled.mark_applied(self.applied)
        for store in self.stores:
            assert store.settled.flush() == self.applied
            store.log.drop_before(min(self.applied, store.log.durable_lsn) + 1)
        assert len({store.log.first_lsn for store in self.stores}) == 1
        self.first = self.stores[0].log.first_lsn

    @invariant()
    def logs_agree(self) -> None:
        """Numbers and turns are those of the list."""
        if not hasattr(self, "stores"):
            return
        for store in self.stores:
            assert store.log.next_lsn == len(self.turns) + 1
            assert store.log.checkpoint_lsn == self.checkpoint
            start = max(self.checkpoint, self.first)
            replayed = [turn.payload for turn in store.log.replay()]
            assert replayed == self.turns[start - 1 :]

    # ---- settled rows
    @rule(space=spaces, rows=st.lists(st.tuples(keys, stamps, values), max_size=6))
    def settle(self, space: int, rows: list[Row]) -> None:
        """Some versions."""
        for store in self.stores:
            store.settled.settle(space, rows)
        for key, stamp, value in rows:
            self.rows[space, key, stamp] = value

    @rule(space=spaces, versions=st.lists(st.tuples(keys, stamps), max_size=6))
    def forget(self, space: int, versions: list[tuple[bytes, int]]) -> None:
        """Some versions less."""
        for store in self.stores:
            store.settled.forget(space, versions)
        for key, stamp in versions:
            self.rows.pop((space, key, stamp), None)

    @rule(
        space=spaces,
        start=keys,
        end=st.none() | keys,
        rows=st.lists(st.tuples(keys, stamps, st.none() | values), max_size=6),
    )
    def replace_range(
        self,
        space: int,
        start: bytes,
        end: bytes | None,
        rows: list[tuple[bytes, int, bytes | None]],
    ) -> None:
        """A range less, and other rows in it."""
        inside = [one for one in rows if start <= one[0] and (end is None or one[0] < end)]
        for store in self.stores:
            store.settled.replace_range(space, start, end, inside)
        for found in list(self.rows):
            if found[0] == space and start <= found[1] and (end is None or found[1] < end):
                del self.rows[found]
        for key, stamp, value in inside:
            self.rows[space, key, stamp] = value

    @rule(name=keys, value=values)
    def put_meta(self, name: bytes, value: bytes | None) -> None:
        """A named value."""
        for store in self.stores:
            store.settled.put_meta({b"m" + name: value})
        if value is None:
            self.meta.pop(b"m" + name, None)
        else:
            self.meta[b"m" + name] = value

    @rule(space=spaces, key=keys, stamp=stamps)
    def read(self, space: int, key: bytes, stamp: int) -> None:
        """The newest version at a stamp, and all of them."""
        chain = [
            (at, value)
            for (in_space, of_key, at), value in self.rows.items()
            if (in_space, of_key) == (space, key) and at <= stamp
        ]
        chain.sort(key=lambda version: -version[0])
        for store in self.stores:
            assert store.settled.newest(space, key, stamp) == (chain[0] if chain else None)
            assert store.settled.versions(space, key, at_most=stamp) == chain

    @rule(
        space=spaces,
        bounds=st.tuples(keys, st.none() | keys),
        stamp=stamps,
        limits=st.tuples(st.integers(1, 4), st.sampled_from([1, 5, 10_000])),
        reverse=st.booleans(),
        tombstones=st.booleans(),
    )
    def scan(
        self,
        space: int,
        bounds: tuple[bytes, bytes | None],
        stamp: int,
        limits: tuple[int, int],
        *,
        reverse: bool,
        tombstones: bool,
    ) -> None:
        """All pages of a range."""
        newest: dict[bytes, tuple[int, bytes | None]] = {}
        for (in_space, key, at), value in sorted(self.rows.items(), key=lambda row: row[0]):
            if in_space == space and at <= stamp:
                newest[key] = (at, value)
        start, end = bounds
        expected = [
            (key, *newest[key])
            for key in sorted(newest, reverse=reverse)
            if start <= key
            and (end is None or key < end)
            and (tombstones or newest[key][1] is not None)
        ]
        for store in self.stores:
            low, high = start, end
            found: list[Row] = []
            while True:
                page = store.settled.scan(
                    space,
                    low,
                    high,
                    stamp=stamp,
                    rows_max=limits[0],
                    examined_max=limits[1],
                    reverse=reverse,
                    tombstones=tombstones,
                )
                found += page.rows
                if page.resume is None:
                    break
                if reverse:
                    high = page.resume
                else:
                    low = page.resume
            assert found == expected

    @rule()
    def load(self) -> None:
        """Everything, newest only and all versions."""
        for space in (1, 2):
            chains: dict[bytes, list[tuple[int, bytes | None]]] = {}
            for (in_space, key, at), value in sorted(
                self.rows.items(), key=lambda row: (row[0][1], -row[0][2])
            ):
                if in_space == space:
                    chains.setdefault(key, []).append((at, value))
            for store in self.stores:
                rows = [row for batch in store.settled.all_rows(space) for row in batch]
                assert rows == [(key, *version) for key, v in chains.items() for version in v]
                newest = [row for batch in store.settled.newest_rows(space) for row in batch]
                assert newest == [(key, *versions[0]) for key, versions in chains.items()]
        for store in self.stores:
            assert store.settled.meta(b"m") == sorted(self.meta.items())
            assert store.settled.applied_lsn == self.applied

    # ---- lives
    @rule(seed=st.integers(0, 1 << 32))
    def restart(self, seed: int) -> None:
        """The process ends after a flush and begins again; appended turns survive it."""
        for store in self.stores:
            store.settled.flush()
        self.memory.random = Random(seed)
        self.files.stop(self.stores[0])
        self.memory.stop(self.stores[1])
        self.stores = [self.files.open(), self.memory.open()]
        assert {store.log.durable_lsn for store in self.stores} == {len(self.turns)}

    def teardown(self) -> None:
        """Release the files."""
        if hasattr(self, "stores"):
            for store in self.stores:
                store.close()
            self.directory.cleanup()


TestStorages = Storages.TestCase
TestStorages.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
