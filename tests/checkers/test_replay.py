"""The serial replay: what it takes for committed where nobody was told."""

from __future__ import annotations

import pytest

from jepsen_like.sim.journal import Journal, Reading, Scanned
from jepsen_like.sim.replay import Shown, place_unknown, replay


def journal() -> Journal:
    """One whose true time stands still at 0, so that only order is looked at."""
    return Journal(lambda: 0, lambda stamp: 0)


@pytest.mark.parametrize("committed", [0, 1])
def test_deletions_of_unknown_outcome_are_placed_as_the_store_says(committed: int) -> None:
    """Two transactions that deleted the same key and nothing else leave the same trace."""
    seen = journal()
    for _ in range(2):
        entry = seen.begin(seen.process(), "stream")
        entry.writes = {b"key": None}
        seen.end(entry, "unknown", error="OutcomeUnknown")
    said = {number: 7 if number == committed else 0 for number in range(2)}
    assert place_unknown(seen, [Shown(b"key", 7, None)], said) == []
    assert [entry.outcome for entry in seen.entries] == [
        "ok" if number == committed else "unknown" for number in range(2)
    ]
    assert seen.entries[committed].at == 7


def test_scans_see_their_range_in_either_direction() -> None:
    """All rows of the range, none outside, none deleted; a row too few or too many is told."""
    seen = journal()
    for at, key in enumerate((b"a", b"b", b"c", b"d"), 1):
        entry = seen.begin(1, "write")
        entry.writes = {key: key}
        seen.end(entry, "ok", at)
    entry = seen.begin(1, "delete")
    entry.writes = {b"c": None}
    seen.end(entry, "ok", 5)
    a, b, d = Reading(b"a", 1, b"a"), Reading(b"b", 2, b"b"), Reading(b"d", 4, b"d")
    scans = [
        Scanned(b"", b"", (a, b, d), frozenset(), complete=True, reverse=False),
        Scanned(b"b", b"d", (b,), frozenset(), complete=True, reverse=False),
        Scanned(b"a", b"", (d, b), frozenset(), complete=False, reverse=True),
        Scanned(b"a", b"c", (a,), frozenset({b"b"}), complete=True, reverse=False),
    ]
    entry = seen.begin(1, "read")
    entry.scans = scans
    seen.end(entry, "ok", 6)
    assert replay(seen) == []
    entry.scans = [Scanned(b"a", b"c", (a,), frozenset(), complete=True, reverse=False)]
    assert len(replay(seen)) == 1
