"""Keys and rows of the directory are in stores: what is written must stay readable."""

from __future__ import annotations

from pathlib import Path

import msgspec

from kv_pool import keys
from kv_pool.directory.moving import Move
from kv_pool.directory.ownership import Owner
from kv_pool.keys import Worker
from kv_pool.records import (
    ENCODE,
    EPOCHS,
    Cursor,
    Escrow,
    Grant,
    Id,
    Lease,
    Phase,
    Pin,
    Run,
    State,
    Tier,
    position,
)

FILE = Path(__file__).parent / "kv_pool" / "rows.txt"
A = Worker("fra", "gpu-7")
NAMESPACE = bytes(range(16))
FIRST = bytes(range(16, 32))
PART = keys.run_id(NAMESPACE, Tier.HOST, FIRST)
KEYS = {
    "id": keys.identity(A),
    "lease": keys.lease(A),
    "cursor": keys.cursor(A, "kv-0"),
    "quota": keys.quota(A, "acme"),
    "run": keys.run(A, NAMESPACE, Tier.HOST, FIRST),
    "pin": keys.pin(A, PART, bytes(range(32, 48))),
    "namespace": keys.namespace(NAMESPACE),
    "task": keys.task("fra", "move-1"),
    "escrow": keys.escrow("fra", "acme", 3),
    "owner": keys.owner(PART),
}
ROWS: dict[str, msgspec.Struct] = {
    "id": Id(3, bytes(16), State.DRAINING, 1, 2, 3, 4, ("tcp://a:1",), suspect=True),
    "lease": Lease(3, 1_700_000_000_000_000_000),
    "cursor": Cursor(bytes(16), 41),
    "run": Run(
        *(3, 2, bytes(16), 7, FIRST, 1, Phase.RESERVED, 3 << 40 | 9, 1_700_000_000_000_000_000),
        *(b"at", 4_096, 8, b"engine", FIRST),
    ),
    "pin": Pin("router", 1_700_000_000_000_000_000, 1, 9, 12_345),
    "grant": Grant(3, 1_000),
    "escrow": Escrow(2_000),
    "owner": Owner("iad", "b"),
    "move": Move(1, "fra", "a", 9, "iad", "b", PART, bytes(16), 77),
}


def test_keys_and_rows_are_as_recorded(update: bool) -> None:
    """Every kind of key and row is, byte for byte, what the file says."""
    found = "".join(f"key {name}: {key.hex()}\n" for name, key in KEYS.items())
    found += "".join(f"row {name}: {ENCODE(row).hex()}\n" for name, row in ROWS.items())
    if update:
        FILE.write_text(found, encoding="utf-8")
    assert found == FILE.read_text(encoding="utf-8")


def test_recorded_rows_are_read() -> None:
    """The bytes of the file give the rows back, with their kinds of numbers."""
    for line in FILE.read_text(encoding="utf-8").splitlines():
        what, name, value = line.replace(":", "").split()
        if what == "row":
            row = ROWS[name]
            assert msgspec.msgpack.decode(bytes.fromhex(value), type=type(row)) == row


def test_rows_without_their_newest_fields_are_read() -> None:
    """A row that was written before a field with a default was added has that default."""
    fields = msgspec.msgpack.decode(ENCODE(ROWS["run"]))
    old = msgspec.msgpack.decode(ENCODE(fields[:8]), type=Run)
    assert (old.deadline_ns, old.locator, old.shards, old.engine) == (0, b"", 1, b"")


def test_conditions_find_their_fields() -> None:
    """Positions by which conditions name fields are those of the rows, also of the epochs."""
    for name, row in ROWS.items():
        values = msgspec.msgpack.decode(ENCODE(row))
        for field in row.__struct_fields__:
            value = getattr(row, field)
            stored = values[position(type(row), field)]
            assert stored == (list(value) if isinstance(value, tuple) else value), name
    identity = ROWS["id"]
    assert isinstance(identity, Id)
    assert [identity.epoch(tier) for tier in Tier] == [1, 2, 3, 4]
    assert [getattr(identity, name) for name in EPOCHS] == [1, 2, 3, 4]


def test_a_worker_comes_before_its_runs() -> None:
    """In key order a worker's row comes before its runs, and all it owns lies together."""
    mine = [key for key in KEYS.values() if key.startswith(A.prefix)]
    assert len(mine) == 6
    assert keys.identity(A) < keys.run(A, bytes(16), 0, bytes(16))
    others = [keys.identity(Worker("fra", name)) for name in ("gpu-6", "gpu-70", "gpu-8", "gpu")]
    for other in others:
        assert other < min(mine) or other > max(mine)
