"""The serial replay by commit stamp, over all keys, ranges and workloads of a run.

Strict serializability by timestamps says: run the committed transactions one after the other in
order of their stamps, and each must see what it saw; and what began after another was
acknowledged has the larger stamp. Here that is done with plain dictionaries.

A transaction nobody was told the outcome of is placed by what the store shows of it: every
written value is marked with its transaction, so any version of it that anybody ever saw says that
it committed, and when. Such a version must bring all its others along.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping

import msgspec

from jepsen_like.sim.journal import ANY_VERSION, Entry, Journal, Reading, Scanned

FINDINGS_MAX = 20

Row = tuple[int, bytes | None]


class Shown(msgspec.Struct, frozen=True):
    """One version that the store holds, from its history of a key."""

    key: bytes
    version: int
    value: bytes | None


def place_unknown(
    journal: Journal, shown: Iterable[Shown], committed: Mapping[int, int] | None = None
) -> list[str]:
    """Give transactions of unknown outcome the stamp the store shows for them; problems found.

    `committed` says of transactions, by number, at which stamp they are committed as the store says
    (0: not at all). It only chooses between those that deleted the same keys and nothing else.
    """
    problems: list[str] = []
    writers: dict[tuple[bytes, bytes], Entry] = {}
    for entry in journal.entries:
        if entry.outcome in ("open", "unknown"):
            for key, value in entry.writes.items():
                if value is not None:
                    writers[key, value] = entry

    def saw(key: bytes, version: int, value: bytes | None, where: str) -> None:
        writer = None if value is None else writers.get((key, value))
        if writer is None or version == ANY_VERSION:
            return
        if writer.at and writer.outcome == "ok" and writer.at != version:
            problems.append(
                f"{where} shows {key!r} of transaction {writer.number} at {version}, another "
                f"version of it is at {writer.at}"
            )
        if writer.outcome != "ok":
            # It may have taken long after its client gave up.
            writer.ended = 0
        writer.at, writer.outcome = version, "ok"

    for entry in list(journal.entries):
        if entry.outcome != "ok":
            continue
        for reading in _all_readings(entry):
            saw(reading.key, reading.version, reading.value, f"transaction {entry.number}")
    rows = list(shown)
    for row in rows:
        saw(row.key, row.version, row.value, "the store")
    _place_deletions(journal, rows, committed or {})
    return problems


def _place_deletions(journal: Journal, shown: list[Shown], committed: Mapping[int, int]) -> None:
    """Place transactions that only deleted: they leave no mark, but tombstones nobody else left."""
    placed = {entry.at for entry in journal.entries if entry.outcome == "ok"}
    graves: dict[int, set[bytes]] = {}
    for row in shown:
        if row.value is None and row.version not in placed:
            graves.setdefault(row.version, set()).add(row.key)
    waiting = [
        entry
        for entry in journal.entries
        if entry.outcome in ("open", "unknown")
        and entry.writes
        and not any(value is not None for value in entry.writes.values())
    ]
    for version, keys in sorted(graves.items()):
        for entry in waiting:
            if (
                entry.outcome != "ok"
                and set(entry.writes) == keys
                and committed.get(entry.number, version) == version
            ):
                entry.at, entry.outcome, entry.ended = version, "ok", 0
                break


def _all_readings(entry: Entry) -> Iterable[Reading]:
    yield from entry.reads
    for scan in entry.scans:
        yield from scan.rows


def doubtful_keys(journal: Journal) -> frozenset[bytes]:
    """Keys of transactions whose outcome nobody knows any more, where history was not kept.

    They may have committed and been overwritten, and collected, before anybody saw them.
    """
    return frozenset(
        key
        for entry in journal.entries
        if entry.outcome in ("open", "unknown")
        for key in entry.writes
    )


def replay(journal: Journal, doubtful: frozenset[bytes] = frozenset()) -> list[str]:
    """What contradicts a serial run in order of stamps; empty for a correct store.

    Of `doubtful` keys nothing is said.
    """
    placed = [entry for entry in journal.entries if entry.outcome == "ok" and entry.at]
    placed.sort(key=lambda entry: (entry.at, entry.stale, entry.number))
    problems = _stamps(placed)
    state: dict[bytes, Row] = {}
    # Those of the state, in order: a scan looks at its own range only.
    keys: list[bytes] = []
    for entry in placed:
        problems += _contradictions(entry, state, keys, doubtful)
        for key, value in entry.writes.items():
            if key not in state:
                insort(keys, key)
            state[key] = (entry.at, value)
        if len(problems) >= FINDINGS_MAX:
            break
    return problems[:FINDINGS_MAX]


def final_state(journal: Journal) -> dict[bytes, Row]:
    """What the store must hold after everything, by the replay."""
    state: dict[bytes, Row] = {}
    for entry in sorted(journal.entries, key=lambda entry: entry.at):
        if entry.outcome == "ok" and entry.at:
            for key, value in entry.writes.items():
                state[key] = (entry.at, value)
    return state


def _stamps(placed: list[Entry]) -> list[str]:
    """Stamps are unique and agree with real time."""
    problems: list[str] = []
    latest: Entry | None = None
    previous: Entry | None = None
    for entry in placed:
        if entry.stale:
            continue
        if previous is not None and previous.at == entry.at:
            problems.append(f"{_name(previous)} and {_name(entry)} share a stamp")
        previous = entry
        if latest is not None and 0 < entry.ended < latest.began:
            problems.append(
                f"{_name(entry)} was acknowledged before {_name(latest)} began, which has the "
                "smaller stamp"
            )
        if latest is None or entry.began > latest.began:
            latest = entry
    return problems


def _contradictions(
    entry: Entry, state: dict[bytes, Row], keys: list[bytes], doubtful: frozenset[bytes]
) -> list[str]:
    problems: list[str] = []
    for reading in entry.reads:
        if reading.key in doubtful:
            continue
        version, value = state.get(reading.key, (0, None))
        other = reading.version not in (version, ANY_VERSION)
        if value != reading.value or (value is not None and other):
            problems.append(
                f"{_name(entry)} read {reading.key!r} as {reading.value!r} of {reading.version}; "
                f"in order of stamps it was {value!r} of {version}"
            )
    for scan in entry.scans:
        if doubtful and not scan.complete:
            continue  # where it stopped depends on what is in doubt
        expected = [row for row in _expected(scan, state, keys) if row.key not in doubtful]
        rows = tuple(row for row in scan.rows if row.key not in doubtful)
        if list(rows) != expected:
            problems.append(
                f"{_name(entry)} scanned {scan.start!r} to {scan.end!r} and saw "
                f"{_difference(rows, expected)}"
            )
    for reading in entry.refuted:
        if reading.key in doubtful:
            continue
        version, value = state.get(reading.key, (0, None))
        if value == reading.value:
            problems.append(
                f"{_name(entry)} was told that {reading.key!r} is not {reading.value!r}; in order "
                f"of stamps it was, of {version}"
            )
    return problems


def _expected(scan: Scanned, state: dict[bytes, Row], keys: list[bytes]) -> list[Reading]:
    begin = bisect_left(keys, scan.start)
    end = bisect_left(keys, scan.end) if scan.end else len(keys)
    rows = [
        Reading(key, version, value)
        for key in keys[begin:end]
        for version, value in (state[key],)
        if value is not None and key not in scan.hidden
    ]
    if scan.reverse:
        rows.reverse()
    return rows if scan.complete else rows[: len(scan.rows)]


def _difference(rows: tuple[Reading, ...], expected: list[Reading]) -> str:
    extra = [row for row in rows if row not in expected]
    missing = [row for row in expected if row not in rows]
    return f"{extra[:2]} that was not there and not {missing[:2]} that was"


def _name(entry: Entry) -> str:
    return f"{entry.what} {entry.number} at {entry.at}"
