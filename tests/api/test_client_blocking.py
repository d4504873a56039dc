"""The blocking client: the same names as the asynchronous one, and the same behaviour."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import k2store
from k2store import blocking
from k2store.client import (
    attempts,
    collection,
    connect,
    database,
    lease,
    scan,
    snapshot,
    transaction,
    transactional,
    watch,
)

PAIRS: list[tuple[type, type]] = [
    (database.Database, blocking.Database),
    (attempts.Attempts, blocking.Attempts),
    (transaction.Transaction, blocking.Transaction),
    (snapshot.View, blocking.View),
    (scan.Scan, blocking.Scan),
    (watch.Watch, blocking.Watch),
    (lease.Lease, blocking.Lease),
    (collection.Entries, blocking.Entries),
    (collection.Reading, blocking.Reading),
    (collection.Writing, blocking.Writing),
    (collection.Collection, blocking.Collection),
]
# What parts of the client say to each other; nobody else calls it.
MACHINERY = {
    "Database": {"session", "rng", "timeout_s", "welcome"},
    "Attempts": {"failed"},
    "Transaction": {"page", "layers"},
    "View": {"page", "layers"},
    "Watch": {"message", "restarted", "take", "fail"},
    "Lease": {"disown"},
}
DUNDERS = {
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
}


def shape(function: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    """Names, kinds and defaults of parameters."""
    parameters = inspect.signature(function).parameters.values()
    return [(one.name, one.kind, one.default) for one in parameters]


@pytest.mark.parametrize("pair", PAIRS, ids=[pair[0].__name__ for pair in PAIRS])
def test_names_and_signatures_agree(pair: tuple[type, type]) -> None:
    """Every public name of a class exists on the blocking side with the same parameters."""
    one, other = pair
    hidden = MACHINERY.get(one.__name__, set())
    names = {name for name in dir(one) if not name.startswith("_")} - hidden
    assert names == {name for name in dir(other) if not name.startswith("_")}
    for name in names:
        theirs, ours = inspect.getattr_static(one, name), inspect.getattr_static(other, name)
        if inspect.isfunction(theirs):
            assert shape(ours) == shape(theirs), name
        else:
            assert isinstance(ours, property), name
    for name, twin in DUNDERS.items():
        assert hasattr(one, name) == hasattr(other, twin), name


def test_doors_agree() -> None:
    """`connect` and `transactional` take the same, ports for tests and simulators aside."""
    hidden = {"dialer", "monotonic_ns", "rng"}
    theirs = [one for one in shape(connect.connect) if one[0] not in hidden]
    assert shape(blocking.connect) == theirs
    assert shape(blocking.transactional) == shape(transactional.transactional)
    assert shape(k2store.open) == shape(k2store.open_async)


class Block(msgspec.Struct, frozen=True):
    """A record for the collection below."""

    tier: str
    size: int


def test_a_program_without_a_loop(tmp_path: Path) -> None:
    """Every kind of call works from plain threads, on an embedded store."""

    def move(txn: blocking.Transaction, amount: int) -> int:
        left = int(txn.get(b"a") or 0) - amount
        txn.put(b"a", b"%d" % left)
        txn.put(b"b", b"%d" % (int(txn.get(b"b") or 0) + amount))
        return left

    with k2store.open(tmp_path / "data") as db:
        start = db.put(b"a", b"100")
        assert db.run(move, 30) == 70
        wrapped = blocking.transactional(move)
        assert wrapped(db, 5) == 65
        threads = [threading.Thread(target=db.run, args=(move, 1)) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert db.get_many([b"a", b"b"]) == {b"a": b"60", b"b": b"40"}
        for txn in db.transactions():
            with txn:
                assert [row.key for row in txn.scan(b"")] == [b"a", b"b"]
                txn.delete(b"b")
        assert txn.committed_at == db.history(b"b")[0].at
        with pytest.raises(ZeroDivisionError):
            for txn in db.transactions():
                with txn:
                    txn.put(b"a", b"0")
                    _ = 1 // 0
        with db.snapshot(at=start) as view:
            assert view.get(b"a") == b"100"
            assert view.get(b"b") is None
        with db.watch(b"a", since=start) as changes:
            event = next(changes)
            assert isinstance(event, k2store.Changes)
            assert event.records[0].value == b"70"
        with db.lease(b"l", "5s") as held:
            assert held.held
            assert held.token > start
        blocks = db.collection("blocks", Block)
        blocks.put(b"x", Block("hbm", 1), conditions=[blocks.missing(b"x")])
        with pytest.raises(k2store.ConditionFailed):
            blocks.compare_and_put(b"x", Block("dram", 1), missing=True)
        for txn in db.transactions():
            with txn:
                blocks.within(txn).put(b"y", Block("dram", 2))
        assert [entry.key for entry in blocks.scan()] == [b"x", b"y"]
    with pytest.raises(k2store.Rejected, match="inside its block"):
        db.get(b"a")
