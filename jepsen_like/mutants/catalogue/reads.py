"""Reads, scans, and what is remembered of them."""

from __future__ import annotations

from typing import Final

from jepsen_like.mutants.mutant import Change, Mutant, Stage

_BATCH_NOTE: Final = (
    "            if stamp > closed and stamp > chain.read:\n                chain.read = stamp"
)
_NOTE: Final = "    if stamp > state.closed and stamp > chain.read:\n        chain.read = stamp"
_SCAN_NOTE: Final = (
    "    if message.stamp > state.closed:\n"
    "        note_range(state, low, high, message.stamp, message.txn)"
)

MUTANTS: Final = (
    Mutant(
        name="read-passes-over-an-intent",
        rule="§5.8 (1): a read waits for an older transaction that is undecided on its key",
        changes=(
            Change(
                "mvcc.versions",
                "                if above < intent.stamp <= stamp and intent.txn != txn:",
                "                if False:",
            ),
        ),
        stages=(Stage.NODE,),
    ),
    Mutant(
        name="read-returns-an-intent",
        rule="§5.7 (10): no read returns the intent of another transaction",
        changes=(
            Change(
                "mvcc.reads",
                "        wait(state, state.blocking(blocker.txn), message)\n        return\n"
                "    version = 0 if value is None else version",
                "        version, value = blocker.stamp, blocker.value\n"
                "    version = 0 if value is None else version",
            ),
        ),
        stages=(Stage.NODE,),
    ),
    Mutant(
        name="read-leaves-no-mark",
        rule="§5.7 (9): nobody writes under what a later stamp has read",
        changes=(
            Change("mvcc.batches", _BATCH_NOTE, _BATCH_NOTE.replace("stamp > closed", "False")),
            Change("mvcc.reads", _NOTE, _NOTE.replace("stamp > state.closed", "False")),
        ),
        stages=(Stage.NODE,),
    ),
    Mutant(
        name="absent-key-leaves-no-mark",
        rule="§5.8 (2): what was read as absent is protected like what is there",
        changes=(
            Change(
                "mvcc.batches",
                _BATCH_NOTE,
                _BATCH_NOTE.replace("stamp > closed", "chain.value is not None"),
            ),
            Change(
                "mvcc.reads",
                _NOTE,
                _NOTE.replace("stamp > state.closed", "chain.value is not None"),
            ),
        ),
        stages=(Stage.NODE,),
    ),
    Mutant(
        name="scan-leaves-no-mark",
        rule="§5.7 (11): no row appears in a range below the stamp of its scan",
        changes=(Change("mvcc.reads", _SCAN_NOTE, "    assert True"),),
        stages=(Stage.NODE,),
    ),
    Mutant(
        name="scan-marks-only-its-rows",
        rule="§5.8 (2): a scan protects the gaps between its rows",
        changes=(
            Change(
                "mvcc.reads",
                _SCAN_NOTE,
                "    for key, _, _ in page.rows:\n"
                '        note_range(state, key, key + b"\\0", message.stamp, message.txn)',
            ),
        ),
        stages=(Stage.NODE,),
    ),
    Mutant(
        name="scan-passes-over-intents",
        rule="§5.8 (1): a scan waits for older transactions inside its range",
        changes=(
            Change(
                "mvcc.reads",
                "            elif _blocks(state, key, chain, message):",
                "            elif False:",
            ),
        ),
        stages=(Stage.NODE,),
    ),
    Mutant(
        name="evicted-ranges-forgotten",
        rule="§5.8 (32): what the cache of ranges forgets goes into the low-water mark",
        changes=(
            Change(
                "mvcc.reads",
                "        state.raise_low_water(state.ranges.evict(), Rule.CACHE)",
                "        state.ranges.evict()",
            ),
        ),
        stages=(Stage.NODE,),
    ),
    Mutant(
        name="evicted-keys-forget-their-readers",
        rule="§5.8 (32): a key leaves the memory only when nobody can write below its mark",
        changes=(
            Change(
                "mvcc.upkeep",
                "chain.intents is not None or chain.read > closed or dropped >= excess",
                "chain.intents is not None or dropped >= excess",
            ),
        ),
        stages=(Stage.NODE,),
    ),
    Mutant(
        name="conditions-leave-no-mark",
        rule="§5.8 (24): a condition is a read, whether it holds or not",
        changes=(
            Change(
                "mvcc.one_shot",
                "    if stamp > chain.read:\n        chain.read = stamp",
                "    if False:\n        chain.read = stamp",
            ),
            Change(
                "mvcc.batches",
                "            if kind:\n                chain.read = stamp",
                "            if False:\n                chain.read = stamp",
            ),
            Change(
                "mvcc.batches",
                "    for chain in read:\n        if stamp > chain.read:",
                "    for chain in read:\n        if False:",
            ),
        ),
        stages=(Stage.CONTESTED, Stage.SCRIPTS),
        workloads=("guard",),
        scripts=("tests/golden/test_golden.py", "tests/model/test_mvcc_serial.py"),
    ),
    Mutant(
        name="reads-below-the-horizon",
        rule="§5.8 (29): a read below the horizon fails, and never shows a key as absent",
        changes=(
            Change("mvcc.reads", "    if stamp < state.horizon:", "    if False:"),
            Change("mvcc.batches", "    lowest = state.horizon\n", "    lowest = 0\n"),
        ),
        stages=(Stage.CONTESTED, Stage.SCRIPTS),
        workloads=("append", "dawdle"),
        scripts=("tests/golden/test_golden.py",),
    ),
    Mutant(
        name="collection-keeps-no-version",
        rule="§5.6: the newest version at or below the horizon stays",
        changes=(
            Change(
                "mvcc.upkeep",
                "            if self._kept:\n",
                "            if True:\n",
            ),
        ),
        stages=(Stage.NODE,),
    ),
    Mutant(
        name="scan-ends-at-the-border",
        rule="§5.7 (11): a scan that leaves a partition goes on in the next one",
        changes=(
            Change(
                "mvcc.reads",
                "    return None if ends_here else state.end",
                "    return None if ends_here else None",
            ),
        ),
        stages=(Stage.NODE,),
        workloads=("bank", "phantom"),
    ),
)
"""Mistakes of readers."""
