"""Schedules of faults: one format for simulated machines and for real processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from jepsen_like.nemesis import KINDS, BadSchedule, Fault, Schedule, read, write
from jepsen_like.sim.cluster.plan import draw as draw_cluster
from jepsen_like.sim.plan import draw
from k2store.testing.simulation import ACTIONS

HOSTS = {"fra-1": "fra", "fra-2": "fra", "iad-1": "iad", "client-1": "iad"}


def schedule(*faults: Fault) -> Schedule:
    """A schedule of some hosts."""
    return Schedule(duration_ns=1_000, hosts=HOSTS, faults=faults)


def test_a_schedule_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Through text and through a file, with one fault a line."""
    before = schedule(
        Fault(5, "kill", 10, "fra-1"),
        Fault(7, "isolate", 10, pairs=(("fra", "iad"), ("iad-1", "fra-2"))),
        Fault(9, "clock-step", 10, "iad-1", amount=-2.5),
    )
    text = write(before)
    assert read(text) == before
    assert len(text.splitlines()) == 3 + len(before.faults)
    path = tmp_path / "schedule.json"
    path.write_bytes(text)
    assert read(path) == before


def test_a_region_stands_for_its_hosts() -> None:
    """So a schedule need not know how many nodes a region has."""
    cut = Fault(0, "one-way", 1, pairs=(("fra", "iad-1"), ("iad", "iad-1")))
    assert schedule(cut).pairs(cut) == (
        ("fra-1", "iad-1"),
        ("fra-2", "iad-1"),
        ("client-1", "iad-1"),
    )


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        (Fault(0, "earthquake"), "unknown fault"),
        (Fault(0, "kill", 1, "sin-1"), "no 'sin-1'"),
        (Fault(-1, "kill", 1, "fra-1"), "before the schedule"),
        (Fault(0, "isolate", 1), "names none"),
        (Fault(0, "isolate", 1, pairs=(("sin", "fra"),)), "no region 'sin'"),
    ],
)
def test_what_cannot_happen_is_refused(fault: Fault, what: str) -> None:
    """With the reason, before anything of it is run."""
    with pytest.raises(BadSchedule, match=what):
        read(write(schedule(fault)))


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"[]", b'{"duration_ns": 0, "hosts": {}, "faults": []}']
)
def test_nonsense_is_refused(text: bytes) -> None:
    """As what it is, whatever it is."""
    with pytest.raises(BadSchedule):
        read(text)


def test_every_fault_that_a_seed_draws_has_a_name_of_the_format() -> None:
    """And so has every action of the simulator."""
    assert set(ACTIONS) <= set(KINDS)
    for seed in range(40):
        plan, cluster = draw(seed), draw_cluster(seed)
        assert {fault.name for fault in (*plan.schedule, *cluster.schedule)} <= set(KINDS)


def test_who_cannot_do_a_kind_is_known_before() -> None:
    """A driver says what it cannot do instead of leaving it out in silence."""
    some = schedule(Fault(0, "kill", 1, "fra-1"), Fault(0, "flip-bit", 1, "fra-1"))
    assert some.unknown_to({"kill", "pause"}) == ("flip-bit",)
