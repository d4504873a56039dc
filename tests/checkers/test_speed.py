"""Figures of speed, in processor time, with room for a machine that does other things too."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

import pytest

from jepsen_like import Recorder, check
from jepsen_like.files import check_file
from jepsen_like.formats.write import write
from jepsen_like.generate import Settings, generate

ROOM = 4
"""How many times slower than the promised figure a busy, unknown machine may be here."""


def test_list_append_with_decoding(tmp_path: Path) -> None:
    """20,000 transactions are read and judged at 100,000 a second."""
    path = tmp_path / "h.edn"
    write(
        path, generate("list-append", Settings(operations=20_000, keys=2000, spread=0), Random(1))
    )
    check_file(path, model="list-append")
    started = time.process_time()
    verdict = check_file(path, model="list-append")
    assert verdict.valid is True
    assert time.process_time() - started <= ROOM * 20_000 / 100_000


def test_unique_registers(tmp_path: Path) -> None:
    """50,000 operations on registers of unique values are judged at 500,000 a second."""
    path = tmp_path / "h.edn"
    settings = Settings(operations=50_000, processes=50, keys=100, spread=0)
    write(path, generate("register", settings, Random(2)))
    verdict = check_file(path, model="register")
    assert verdict.valid is True
    assert verdict.seconds <= ROOM * 50_000 / 500_000


def test_a_hard_key_does_not_hide_a_wrong_one() -> None:
    """Fifty clients on a key that would take for ever, and a wrong second key: decided in a second."""
    random = Random(3)
    settings = Settings(operations=1500, processes=50, keys=1, spread=1000)
    recorder = Recorder()
    for event in generate("cas-register", settings, random).events:
        if event.type == "invoke":
            recorder.invoke(event.process, event.f, event.value, key="hard")
        else:
            recorder.ok(event.process, event.value)
    recorder.invoke("other", "write", 1, key="wrong")
    recorder.ok("other")
    recorder.invoke("other", "read", key="wrong")
    recorder.ok("other", 2)
    verdict = check(recorder.history(), model="cas-register", timeout_s=20)
    assert verdict.valid is False
    assert verdict.seconds <= ROOM * 1.0


@pytest.mark.parametrize("kind", ["writes", "anti-dependencies"])
def test_a_large_component_is_explained(kind: str) -> None:
    """A ring of 5,000 transactions is one component; its only cycle is found and told edge by edge."""
    count = 5_000
    recorder = Recorder()
    mops: list[list[list[object]]] = []
    for t in range(count):
        after = (t + 1) % count
        if kind == "writes":
            mops.append([["append", t, 1], ["append", after, 2]])
        else:
            mops.append([["r", t, []], ["append", after, 1]])
    if kind == "writes":
        mops += [[["r", t, [1, 2]]] for t in range(count)]
    for process, txn in enumerate(mops):
        recorder.invoke(process, "txn", [[f, k, None if f == "r" else v] for f, k, v in txn])
    for process, txn in enumerate(mops):
        recorder.ok(process, txn)
    verdict = check(recorder.history(), model="list-append")
    assert verdict.anomalies == (("G0",) if kind == "writes" else ("G2-item",))
    assert len(verdict.findings[0].steps) == count
    assert verdict.seconds <= ROOM * 30 * count / 100_000
