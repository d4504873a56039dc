"""What the store says and holds in the end, against what its clients were told."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

import k2store
from jepsen_like.sim.journal import Entry, Journal
from jepsen_like.sim.replay import FINDINGS_MAX, Shown, final_state
from k2store.testing.simulation.node import stamp_time_ns

UNJOURNALED: Final = b"lease/"
"""Keys that the client library writes by itself, without an entry in the journal."""

CLIENT_PROBES: Final = (
    "client.condition_failed",
    "client.died_and_committed",
    "client.died_and_left_nothing",
    "client.outcome_unknown",
    "client.read_the_past",
    "client.stamps_tied",
    "client.unknown_was_aborted",
    "client.unknown_was_committed",
    "client.wrote_two_partitions",
)
"""What clients have met, from the journal."""


def outcomes_agree(
    outcomes: Sequence[tuple[Entry, k2store.Outcome]], *, keeps_history: bool
) -> list[str]:
    """What the store said of unknown transactions, against what it holds of them."""
    problems: list[str] = []
    for entry, outcome in outcomes:
        name = f"transaction {entry.number}"
        if outcome.state == "committed" and entry.outcome != "ok":
            if keeps_history:
                problems.append(
                    f"{name} is committed at {outcome.at}, as the store says, but nothing of it "
                    "is there"
                )
            # Else its versions were collected before anybody saw them.
            entry.at, entry.outcome, entry.ended = outcome.at, "ok", 0
        elif outcome.state == "committed" and entry.at != outcome.at:
            problems.append(
                f"{name} is committed at {outcome.at}, as the store says, and at {entry.at}, as "
                "its rows say"
            )
        elif outcome.state == "aborted" and entry.outcome == "ok":
            problems.append(
                f"{name} is aborted, as the store says, but its rows are there at {entry.at}"
            )
    return problems


def store_agrees(
    journal: Journal,
    shown: Sequence[Shown],
    final: dict[bytes, tuple[int, bytes | None]],
    *,
    keeps_history: bool,
    doubtful: frozenset[bytes] = frozenset(),
) -> list[str]:
    """The rows at the end, and the history of each key, against the replay.

    Of `doubtful` keys nothing is said.
    """
    expected = {key: row for key, row in final_state(journal).items() if row[1] is not None}
    problems = [
        f"in the end the store holds {final.get(key)} at {key!r}, not {expected.get(key)}"
        for key in sorted({*expected, *final})
        if not key.startswith(UNJOURNALED)
        and key not in doubtful
        and expected.get(key) != final.get(key)
    ]
    committed = [entry for entry in journal.entries if entry.outcome == "ok"]
    if keeps_history:
        there = {(row.key, row.version) for row in shown}
        problems += [
            f"{entry.what} {entry.number}, acknowledged at {entry.at}, is not in the history of "
            f"{key!r}"
            for entry in committed
            for key in entry.writes
            if (key, entry.at) not in there
        ]
    known = {(key, entry.at): value for entry in committed for key, value in entry.writes.items()}
    problems += [
        f"nobody committed {row.value!r} at {row.key!r}, {row.version}"
        for row in shown
        if not row.key.startswith(UNJOURNALED)
        and row.key not in doubtful
        and known.get((row.key, row.version), b"") != row.value
    ]
    return problems[:FINDINGS_MAX]


def client_probes(entries: Sequence[Entry], split_keys: Sequence[bytes]) -> dict[str, int]:
    """How often clients met each of `CLIENT_PROBES`, once unknown outcomes have been placed."""
    probes = dict.fromkeys(CLIENT_PROBES, 0)
    for entry in entries:
        if entry.error == "OutcomeUnknown" or (entry.outcome == "open" and entry.writes):
            probes["client.outcome_unknown"] += 1
        if entry.error and entry.outcome == "ok":
            probes["client.unknown_was_committed"] += 1
        if entry.error == "OutcomeUnknown" and entry.outcome == "unknown":
            probes["client.unknown_was_aborted"] += 1
        if not entry.ended and entry.outcome == "ok":
            probes["client.died_and_committed"] += 1
        if not entry.ended and entry.writes and entry.outcome == "open":
            probes["client.died_and_left_nothing"] += 1
        if entry.refuted:
            probes["client.condition_failed"] += 1
        partitions = {bisect_right(split_keys, key) for key in entry.writes}
        if entry.outcome == "ok" and len(partitions) > 1:
            probes["client.wrote_two_partitions"] += 1
        if entry.stale and entry.at:
            probes["client.read_the_past"] += 1
    stamps = {entry.at for entry in entries if entry.outcome == "ok" and entry.at and entry.writes}
    probes["client.stamps_tied"] = len(stamps) - len({stamp_time_ns(at) for at in stamps})
    return probes
