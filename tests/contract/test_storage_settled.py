"""What settled rows promise, on RocksDB and on the naive twin in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2store.errors import Corruption
from k2store.storage import LATEST, OpenStore, Page, Row, Settled, StorageFailed
from k2store.storage.memory import MemorySettled, MemoryTable
from k2store.storage.row import SPACE_MAX, range_rows, row_key, space_prefix, split_row
from tests.contract.storage_machines import KINDS, FileMachine, Machine, machine_of

AWKWARD = [b"", b"\x00", b"\x00\x00", b"\x00\x01", b"\x00\xff", b"a", b"a\x00", b"a\x00b", b"a\x01"]
AWKWARD += [b"ab", b"b", b"\xff", b"\xff\x00", b"\xff\xff\xff"]


@pytest.fixture(params=KINDS)
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    """Each kind of machine, empty."""
    return machine_of(request.param, tmp_path / "store")


@pytest.fixture
def store(machine: Machine) -> Iterator[OpenStore]:
    """A store on it."""
    opened = machine.open()
    yield opened
    opened.close()


@pytest.fixture
def settled(store: OpenStore) -> Settled:
    """Its settled rows."""
    return store.settled


def everything(settled: Settled, space: int, **options: int | bytes | bool | None) -> list[Row]:
    """All pages of a scan."""
    rows: list[Row] = []
    options = dict(options)
    edge = "end" if options.get("reverse") else "start"
    for _ in range(1000):
        page: Page = settled.scan(space, **options)  # type: ignore[arg-type]
        rows += page.rows
        if page.resume is None:
            return rows
        options[edge] = page.resume
    raise AssertionError("the scan does not end")


keys = st.lists(st.sampled_from([0, 1, 2, 254, 255]), max_size=5).map(bytes)
stamps = st.integers(0, LATEST)


@given(st.lists(st.tuples(keys, stamps), max_size=20))
def test_rows_sort_by_key_then_newest_first(versions: list[tuple[bytes, int]]) -> None:
    """The bytes of rows are ordered as (user key, descending stamp) and read back exactly."""
    prefix = space_prefix(7)
    rows = sorted(row_key(prefix, key, stamp) for key, stamp in versions)
    assert [split_row(row) for row in rows] == sorted(versions, key=lambda v: (v[0], -v[1]))


@given(keys, stamps, keys, st.none() | keys)
def test_ranges_of_rows_are_ranges_of_keys(
    key: bytes, stamp: int, start: bytes, end: bytes | None
) -> None:
    """A row lies between the bounds of a range exactly when its key does."""
    lower, upper = range_rows(7, start, end)
    inside = start <= key and (end is None or key < end)
    assert inside == (lower <= row_key(space_prefix(7), key, stamp) < upper)


def test_the_newest_version_at_a_stamp(settled: Settled) -> None:
    """A read at a stamp sees the newest version at or before it, tombstones as tombstones."""
    settled.settle(1, [(b"k", 10, b"ten"), (b"k", 20, None), (b"k", 30, b"")])
    assert [settled.newest(1, b"k", stamp) for stamp in (9, 10, 19, 20, 29, 30, LATEST)] == [
        None,
        (10, b"ten"),
        (10, b"ten"),
        (20, None),
        (20, None),
        (30, b""),
        (30, b""),
    ]
    assert settled.newest(1, b"kk") is None
    assert settled.newest(2, b"k") is None


def test_extreme_stamps(settled: Settled) -> None:
    """The first and the last stamp are stamps like any other; others are refused."""
    settled.settle(1, [(b"k", 0, b"first"), (b"k", LATEST, b"last")])
    assert settled.newest(1, b"k", 0) == (0, b"first")
    assert settled.newest(1, b"k") == (LATEST, b"last")
    for stamp in (-1, LATEST + 1):
        with pytest.raises(OverflowError):
            settled.settle(1, [(b"k", stamp, b"")])
    assert len(settled.versions(1, b"k")) == 2


def test_settling_again_replaces(settled: Settled) -> None:
    """Replaying the same version is harmless; the last writing of it counts."""
    for value in (b"a", b"a", None, b"b"):
        settled.settle(1, [(b"k", 5, value)])
    assert settled.versions(1, b"k") == [(5, b"b")]


def test_awkward_keys_keep_their_order_and_their_rows(settled: Settled) -> None:
    """Empty keys, zeros and high bytes are ordered as bytes are, and none sees another's rows."""
    settled.settle(1, [(key, 5, b"v" + key) for key in AWKWARD])
    assert everything(settled, 1) == [(key, 5, b"v" + key) for key in sorted(AWKWARD)]
    for key in AWKWARD:
        assert settled.newest(1, key) == (5, b"v" + key)
        assert settled.versions(1, key) == [(5, b"v" + key)]
        for start in AWKWARD:
            inside = [other for other in sorted(AWKWARD) if start <= other < key]
            for reverse in (False, True):
                found = everything(settled, 1, start=start, end=key, reverse=reverse, rows_max=3)
                assert [row[0] for row in found] == (inside[::-1] if reverse else inside)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("limits", [(1, 1), (1, 10_000), (3, 2), (1000, 7), (1000, 10_000)])
def test_scans_with_any_limits_agree(
    settled: Settled, limits: tuple[int, int], *, reverse: bool
) -> None:
    """However small its pages, a scan at a stamp ends and gives every visible row once, also over
    keys with many versions that are too new or too old."""
    expected = []
    for number in range(40):
        key = b"key %02d" % number
        depth = 60 if number % 10 == 3 else number % 4 + 1
        versions = [(stamp, None if stamp % 3 == 0 else b"%d" % stamp) for stamp in range(depth)]
        first = 40 if number % 7 == 5 else number % 5
        settled.settle(1, [(key, first + stamp, value) for stamp, value in versions])
        visible = [(first + stamp, value) for stamp, value in versions if first + stamp <= 30]
        if visible:
            expected.append((key, *visible[-1]))
    if reverse:
        expected.reverse()
    rows_max, examined_max = limits
    options = {"stamp": 30, "rows_max": rows_max, "examined_max": examined_max, "reverse": reverse}
    assert everything(settled, 1, tombstones=True, **options) == expected
    live = [row for row in expected if row[2] is not None]
    assert everything(settled, 1, **options) == live


def test_a_page_says_where_to_go_on(settled: Settled) -> None:
    """A page stops at its limit and names the next start (or, in reverse, the next end); the last
    page names none; a limit below one is refused."""
    settled.settle(1, [(key, 1, key) for key in (b"a", b"b", b"c")])
    assert settled.scan(1, rows_max=2).resume == b"c"
    assert settled.scan(1, rows_max=3).resume is None
    assert settled.scan(1, rows_max=2, reverse=True).resume == b"b"
    assert settled.scan(1, b"c", b"a") == Page([], None)
    with pytest.raises(ValueError, match="at least 1"):
        settled.scan(1, rows_max=0)
    with pytest.raises(ValueError, match="at least 1"):
        settled.scan(1, examined_max=0)


def test_spaces_are_apart(settled: Settled) -> None:
    """Rows of one space are never seen from another, up to the last space; others are refused."""
    for space in (1, 2, 255, 256, SPACE_MAX):
        settled.settle(space, [(b"", 1, b"%d" % space), (b"\xff" * 9, 1, b"%d" % space)])
    settled.put_meta({b"": b"meta", b"\xff" * 255: b"meta"})
    for space in (1, 2, 255, 256, SPACE_MAX):
        assert {row[2] for row in everything(settled, space)} == {b"%d" % space}
        assert {row[2] for row in everything(settled, space, reverse=True)} == {b"%d" % space}
        assert sum(len(batch) for batch in settled.newest_rows(space)) == 2
    for space in (0, SPACE_MAX + 1, -1):
        with pytest.raises(ValueError, match="space"):
            settled.settle(space, [(b"", 1, b"")])


def test_forgetting_versions(settled: Settled) -> None:
    """Single versions are deleted, absent ones are no error, the rest stays."""
    settled.settle(1, [(b"k", stamp, b"%d" % stamp) for stamp in range(5)])
    settled.forget(1, [(b"k", 1), (b"k", 3), (b"k", 99), (b"absent", 1)])
    assert [stamp for stamp, _ in settled.versions(1, b"k")] == [4, 2, 0]
    assert settled.versions(1, b"k", at_most=3, count_max=1) == [(2, b"2")]
    settled.forget(1, [(b"k", stamp) for stamp in range(5)])
    assert everything(settled, 1, tombstones=True) == []


def test_replacing_a_range(settled: Settled) -> None:
    """A range of keys disappears with all versions, but for those that take its place; its neighbours and
    other spaces stay."""
    for space in (1, 2):
        settled.settle(space, [(key, stamp, key) for key in AWKWARD for stamp in (1, 2)])
    settled.replace_range(1, b"a", b"b", [])
    kept = [key for key in sorted(AWKWARD) if not b"a" <= key < b"b"]
    assert [row[0] for row in everything(settled, 1)] == kept
    settled.replace_range(1, b"b", b"a", [])
    assert [row[0] for row in everything(settled, 1)] == kept
    instead = [(b"a1", 7, b"x"), (b"a1", 2, None), (max(AWKWARD), 2, b"y")]
    settled.replace_range(1, b"", None, instead)
    assert settled.versions(1, b"a1") == [(7, b"x"), (2, None)]
    assert [row[0] for row in everything(settled, 1)] == [b"a1", max(AWKWARD)]
    settled.replace_range(1, b"", None, [])
    assert everything(settled, 1) == []
    assert len(everything(settled, 2)) == len(AWKWARD)


def test_a_crash_leaves_the_old_rows_of_a_range_or_the_new_ones() -> None:
    """Whatever part of what was written last survives, there is never a hole."""
    old, new = [(b"k", 1, b"old"), (b"l", 1, b"old")], [(b"k", 2, b"new"), (b"l", 2, b"new")]
    survived = []
    for seed in range(20):
        table = MemoryTable()
        MemorySettled(table).settle(1, old)
        MemorySettled(table).flush()
        MemorySettled(table).replace_range(1, b"k", None, new)
        table.kill(Random(seed))
        survived.append(everything(MemorySettled(table), 1))
    assert sorted(map(tuple, {tuple(rows) for rows in survived})) == [tuple(old), tuple(new)]


def test_named_values(settled: Settled) -> None:
    """Named values are set, replaced, deleted and listed by prefix, in order."""
    settled.put_meta({b"a/2": b"x", b"a/1": b"", b"b": b"y", b"a": b"z"})
    settled.put_meta({b"b": None, b"a/2": b"new", b"absent": None})
    assert settled.get_meta(b"a/1") == b""
    assert settled.get_meta(b"b") is None
    assert settled.meta(b"a/") == [(b"a/1", b""), (b"a/2", b"new")]
    mine = [item for item in settled.meta() if item[0].startswith(b"a")]
    assert mine == [(b"a", b"z"), (b"a/1", b""), (b"a/2", b"new")]
    with pytest.raises(ValueError, match="at most 255"):
        settled.put_meta({b"x" * 256: b""})


def test_loading_gives_the_newest_of_every_key(settled: Settled) -> None:
    """Loading a space gives one row a key, tombstones too, in order, over many batches."""
    count = 9000
    settled.settle(1, [(b"%06d" % n, 1, b"old") for n in range(count)])
    settled.settle(1, [(b"%06d" % n, 2, None if n % 5 == 0 else b"new") for n in range(count)])
    batches = list(settled.newest_rows(1))
    assert len(batches) > 1
    assert [row for batch in batches for row in batch] == [
        (b"%06d" % n, 2, None if n % 5 == 0 else b"new") for n in range(count)
    ]
    assert list(settled.newest_rows(2)) == []


def test_all_versions_as_of_the_first_step(settled: Settled) -> None:
    """Reading all versions gives the state when reading began, whatever is written meanwhile."""
    rows = [(b"%05d" % number, stamp, b"x") for number in range(5000) for stamp in (2, 1)]
    settled.settle(1, rows)
    reading = settled.all_rows(1, b"00001", b"04999")
    found = next(reading)
    settled.settle(1, [(b"04998", 9, b"late"), (b"00002", 9, b"late")])
    settled.replace_range(1, b"04000", None, [])
    for batch in reading:
        found += batch
    assert found == rows[2:-2]


def test_how_far_the_log_is_settled(settled: Settled) -> None:
    """The mark starts at 0, only rises, and flushing tells what is durable."""
    assert settled.applied_lsn == 0
    assert settled.flush() == 0
    settled.mark_applied(5)
    settled.mark_applied(5)
    assert settled.applied_lsn == settled.flush() == 5
    with pytest.raises(AssertionError):
        settled.mark_applied(4)


def test_flushed_rows_survive_and_no_mark_without_its_rows(machine: Machine) -> None:
    """After a stop everything flushed is there; of the rest a prefix: never a mark whose rows are
    missing, never half a batch."""
    for _ in range(5):
        store = machine.open()
        settled = store.settled
        base = settled.applied_lsn
        for number in range(base + 1, base + 41):
            store.log.append(b"turn")
            settled.settle(1, [(b"%d" % number, number, b"a"), (b"%d" % number, 0, b"b")])
            settled.mark_applied(number)
            if number == base + 20:
                assert settled.flush() == number
        store.log.sync()
        machine.stop(store)
        store = machine.open()
        applied = store.settled.applied_lsn
        assert base + 20 <= applied <= base + 40
        for number in range(1, applied + 1):
            assert store.settled.versions(1, b"%d" % number) == [(number, b"a"), (0, b"b")]
        after = store.settled.versions(1, b"%d" % (applied + 1))
        assert len(after) in {0, 2}
        store.close()


def test_flushing_in_a_thread(settled: Settled) -> None:
    """Flushing elsewhere while settling goes on here covers at least what was settled before."""
    settled.settle(1, [(b"%06d" % number, 1, bytes(100)) for number in range(20_000)])
    settled.mark_applied(1)
    results: list[int] = []
    worker = threading.Thread(target=lambda: results.append(settled.flush()))
    worker.start()
    for number in range(100):
        settled.settle(2, [(b"%d" % number, 1, b"")])
    worker.join()
    assert results == [1]
    assert len(everything(settled, 2)) == 100


def test_closed_rows_refuse(store: OpenStore) -> None:
    """After closing nothing is written."""
    store.settled.close()
    with pytest.raises(StorageFailed, match="closed"):
        store.settled.settle(1, [(b"k", 1, b"")])
    with pytest.raises(StorageFailed):
        store.settled.flush()


def test_damage_that_a_compaction_meets_is_told_as_damage(tmp_path: Path) -> None:
    """Whoever writes next is told that the rows are damaged, so that the store is put into quarantine: not
    that the disk has refused a write, after which another opening would be worth a try."""
    machine = FileMachine(tmp_path / "store")
    store = machine.open()
    rows = [(b"%06d" % n, 1, b"%d" % n * 9) for n in range(5000)]
    store.settled.settle(1, rows)
    store.settled.flush()
    store.close()
    table = max((machine.path / "settled").glob("*.sst"), key=lambda path: path.stat().st_size)
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 16
    table.write_bytes(content)
    store = machine.open()

    def write_until_it_is_met() -> None:
        for stamp in range(2, 1_000):
            store.settled.settle(1, [(key, stamp, value) for key, _, value in rows[::100]])
            store.settled.flush()

    with pytest.raises(Corruption, match="settled rows are damaged"):
        write_until_it_is_met()
    with pytest.raises(StorageFailed, match="settled rows are damaged"):
        store.settled.settle(1, rows[:1])
    with pytest.raises(Corruption):
        store.close()


def test_a_damaged_table_never_shortens_an_answer(tmp_path: Path) -> None:
    """With a damaged block in a table, point reads, scans in both directions and loading raise
    Corruption instead of leaving rows out."""
    machine = FileMachine(tmp_path / "store")
    store = machine.open()
    count = 5000
    store.settled.settle(1, [(b"%06d" % n, 1, b"%d" % n * 9) for n in range(count)])
    store.settled.flush()
    store.close()
    table = max((machine.path / "settled").glob("*.sst"), key=lambda path: path.stat().st_size)
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 16
    table.write_bytes(content)
    store = machine.open()
    settled = store.settled
    damaged = 0
    for number in range(0, count, 3):
        try:
            assert settled.newest(1, b"%06d" % number) == (1, b"%d" % number * 9)
        except Corruption:
            damaged += 1
    assert damaged > 0
    for reverse in (False, True):
        with pytest.raises(Corruption):
            settled.scan(1, rows_max=count * 2, examined_max=count * 9, reverse=reverse)
    for reading in (settled.newest_rows(1), settled.all_rows(1)):
        with pytest.raises(Corruption):
            list(reading)
    store.close()


@pytest.mark.parametrize("part", ["settled", "log", "settled/CURRENT", "IDENTITY", "log/watermark"])
def test_a_missing_part_is_refused(tmp_path: Path, part: str) -> None:
    """A store without its rows, its log, or the files that say what it is does not open."""
    machine = FileMachine(tmp_path / "store")
    store = machine.open()
    store.settled.settle(1, [(b"k", 1, b"v")])
    store.log.append(b"x")
    store.log.sync()
    store.settled.flush()
    store.close()
    (machine.path / part).rename(tmp_path / "away")
    with pytest.raises(Corruption):
        machine.open()
