"""Histories of the directory under concurrent clients, judged by a checker that shares no code with it."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from jepsen_like import History, check
from k2store.testing import embedded
from kv_pool.edge.store import DirectoryStore
from kv_pool.records import Pin, Run, position
from kv_pool.shots import Field, NoRow, Shot
from tests.contract.kv_pool_store import MemoryStore
from tests.contract.kv_pool_workload import run_load


class Yielding(MemoryStore):
    """A store in a dictionary whose clients take turns between transactions, as over a network."""

    async def shoot(self, shot):
        """Others come first."""
        await asyncio.sleep(0)
        return await super().shoot(shot)

    async def transact(self, function):
        """Others come first."""
        await asyncio.sleep(0)
        return await super().transact(function)


class Careless(Yielding):
    """A store that takes some conditions for granted."""

    def __init__(self, ignored) -> None:
        super().__init__()
        self._ignored = ignored

    async def shoot(self, shot):
        """Without the conditions that are ignored."""
        conditions = tuple(one for one in shot.conditions if not self._ignored(one))
        return await super().shoot(Shot(conditions, shot.reads, shot.writes))


def counts(history) -> dict[str, int]:
    """What was done, by kind."""
    done: dict[str, int] = {}
    for operation in history.operations:
        if operation.outcome == "ok":
            done[operation.f] = done.get(operation.f, 0) + 1
    return done


@pytest.mark.parametrize("seed", range(24))
def test_histories_over_a_dictionary_are_valid(seed: int) -> None:
    """With clients taking turns between transactions, everything handed out was there, every claim
    held, and nothing was lost, leaked or owned twice."""
    history = asyncio.run(run_load(Yielding(), seed, steps=40, tasks=8))
    verdict = check(history, model="kv-directory")
    assert verdict.valid is True, verdict.findings[:3]
    done = counts(history)
    assert all(done.get(f, 0) for f in ("publish", "acquire", "evict", "report", "retire"))


@pytest.mark.parametrize("seed", range(2))
def test_histories_over_the_store_are_valid(seed: int) -> None:
    """The same over the embedded store, with real transactions at the same time."""

    async def main():
        async with embedded(storage__sync=False) as db:
            return await run_load(DirectoryStore(db), seed, steps=25, tasks=8)

    history = asyncio.run(main())
    verdict = check(history, model="kv-directory")
    assert verdict.valid is True, verdict.findings[:3]
    assert counts(history)["acquire"] > 10


GENERATION = position(Run, "generation")
EXPIRY = position(Pin, "expiry_ns")
CARELESS = {
    "pins are not looked at": (
        lambda one: isinstance(one, NoRow) and one.position == EXPIRY,
        "evicted-while-claimed",
    ),
    "runs are not looked at": (
        lambda one: isinstance(one, Field) and b"/run/" in one.key,
        "phantom",
    ),
    "lives are not looked at": (
        lambda one: isinstance(one, Field) and one.key.endswith(b"/id"),
        "published-by-the-dead",
    ),
}


@pytest.mark.parametrize("name", CARELESS)
def test_a_careless_store_is_found_out(name: str) -> None:
    """Where conditions are taken for granted the checker sees what they were for."""
    ignored, anomaly = CARELESS[name]
    found: set[str] = set()
    for seed in range(20):
        history = asyncio.run(run_load(Careless(ignored), seed, steps=60, tasks=8))
        found |= set(check(history, model="kv-directory").anomalies)
    assert anomaly in found


def test_an_altered_history_is_found_out() -> None:
    """A valid history in which one removal is left out, or one publish, is no longer valid."""
    history = asyncio.run(run_load(Yielding(), 1, steps=60, tasks=8))
    for f, anomaly in (("evict", "lost"), ("publish", "phantom")):
        found: set[str] = set()
        for operation in history.operations:
            if operation.f == f and operation.outcome == "ok":
                events = [event for event in history.events if event.process != operation.process]
                found |= set(check(renumbered(events), model="kv-directory").anomalies)
        assert anomaly in found


def renumbered(events):
    """A history of other events, numbered anew."""
    return History(
        msgspec.structs.replace(event, index=number) for number, event in enumerate(events)
    )
