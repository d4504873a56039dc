"""kill -9 of real nodes under load; `k2 check kill --rounds 50` is the long form."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import pytest

from jepsen_like.kill.campaign import Campaign
from jepsen_like.kill.ledger import End, Ledger, Row
from jepsen_like.kill.server import Server


@pytest.mark.slow
def test_kills_lose_nothing_acknowledged_and_leave_nothing_unknown(tmp_path: Path) -> None:
    """After each of five kills of a loaded node it holds what was acknowledged, nothing that was
    refused, and what it says itself of every outcome that its clients did not learn."""
    server = Server(tmp_path / "data", tmp_path / "node.log")
    result = asyncio.run(Campaign(server, Random(11)).run(rounds=5))
    assert result.violations == []
    assert result.rounds == 5
    assert result.kills >= 5
    assert result.acknowledged >= 50
    assert result.unknown == result.committed + result.aborted


def ledger_of_each_end() -> tuple[Ledger, dict[bytes, Row]]:
    """Two acknowledged writes, one refused, one unknown, one addition; and a store that agrees."""
    ledger = Ledger()
    for number in range(2):
        write = ledger.begin({b"k%d" % number: b"v"})
        write.end, write.at = End.ACKNOWLEDGED, 70 + number
    ledger.begin({b"refused": b"v"}).end = End.REFUSED
    ledger.begin({}, counter=b"c").end = End.ACKNOWLEDGED
    unknown = ledger.begin({b"unknown": b"v"})
    ledger.resolve(unknown, committed=True, at=90)
    rows = {
        b"k0": Row(b"v", 70),
        b"k1": Row(b"v", 71),
        b"c": Row(b"1", 80),
        b"unknown": Row(b"v", 90),
    }
    return ledger, rows


@pytest.mark.parametrize(
    "change, said",
    [
        ({b"k0": None}, "is lost"),
        ({b"k1": Row(b"w", 71)}, "acknowledged was b'v'"),
        ({b"k1": Row(b"v", 99)}, "has stamp 99"),
        ({b"refused": Row(b"v", 5)}, "its write was refused"),
        ({b"c": Row(b"2", 81)}, "additions were acknowledged"),
        ({b"unknown": None}, "is lost"),
    ],
)
def test_the_ledger_finds_each_breach(change: dict[bytes, Row | None], said: str) -> None:
    """Every way in which a store can contradict its clients is found, and named."""
    ledger, rows = ledger_of_each_end()
    assert list(ledger.violations(rows, [b"c"])) == []
    broken = {key: row for key, row in (rows | change).items() if row is not None}
    found = list(ledger.violations(broken, [b"c"]))
    assert len(found) == 1
    assert said in found[0]


def test_the_ledger_insists_on_an_outcome() -> None:
    """A write whose outcome nobody can tell is a breach whatever the store holds."""
    ledger = Ledger()
    ledger.begin({b"k": b"v"}).transaction = "ab"
    for rows in ({}, {b"k": Row(b"v", 7)}):
        assert ["stays unknown" in found for found in ledger.violations(rows, [])] == [True]
