"""What must be on the disk, and what a restart makes of it."""

from __future__ import annotations

from typing import Final

from jepsen_like.mutants.mutant import Change, Mutant, Stage

MUTANTS: Final = (
    Mutant(
        name="told-before-the-sync",
        rule="docs/storage.md: a turn is on the disk before anybody hears of it",
        changes=(
            Change(
                "k2store.node.solo",
                "        if engine.settings.sync:\n",
                "        if False:\n",
            ),
        ),
        stages=(Stage.NODE,),
    ),
    Mutant(
        name="failed-sync-shrugged-off",
        rule="docs/storage.md: a node whose disk has refused a sync stops",
        changes=(
            Change(
                "k2store.node.solo",
                "            self._log.sync(self._settle if waiting >= SETTLE_BESIDE_MIN else None)",
                "            try:\n"
                "                self._log.sync(None)\n"
                "            except Exception:\n"
                "                pass",
            ),
        ),
        stages=(Stage.NODE,),
    ),
    Mutant(
        name="replay-stops-early",
        rule="docs/storage.md: a restart replays every turn of the log",
        changes=(
            Change(
                "k2store.node.recovery",
                "        for entry in decoded.entries:\n            partitions[entry.partition]",
                "        for entry in decoded.entries[:1]:\n            partitions[entry.partition]",
            ),
        ),
        stages=(Stage.NODE,),
        asserts=False,
    ),
    Mutant(
        name="checkpoint-without-intents",
        rule="§5.6a: a checkpoint has the intents of open transactions",
        changes=(
            Change(
                "mvcc.recovery",
                "    for pending in saved.pending:\n        _planted(",
                "    for pending in saved.pending[:0]:\n        _planted(",
            ),
        ),
        stages=(Stage.CONTESTED, Stage.SCRIPTS),
        workloads=("append", "dawdle"),
        scripts=("tests/unit/test_mvcc_recovery.py", "tests/model/test_mvcc_serial.py"),
    ),
    Mutant(
        name="checkpoint-without-outcomes",
        rule="§5.6a: a checkpoint has the outcomes that somebody may still ask for",
        changes=(
            Change(
                "mvcc.recovery",
                "    for ended in saved.ended:\n        local = Local(",
                "    for ended in saved.ended[:0]:\n        local = Local(",
            ),
        ),
        stages=(Stage.CONTESTED, Stage.SCRIPTS),
        scripts=("tests/unit/test_mvcc_recovery.py", "tests/model/test_mvcc_serial.py"),
    ),
    Mutant(
        name="restart-without-a-low-water-mark",
        rule="§5.8 (5): a start refuses writes below every read of its earlier lives",
        changes=(
            Change(
                "mvcc.recovery",
                "    state.raise_low_water(ceiling(now.hi_ns + state.settings.ahead_ns_max), "
                "Rule.LOW_WATER)",
                "    state.low_water_rule = Rule.LOW_WATER",
            ),
        ),
        stages=(Stage.CONTESTED, Stage.NODE, Stage.SCRIPTS),
        workloads=("append", "dawdle"),
        scripts=("tests/golden/test_golden.py",),
    ),
    Mutant(
        name="low-water-mark-without-the-lead",
        rule="§5.8 (5): reads may carry stamps that lie H ahead of the clock",
        changes=(
            Change(
                "mvcc.recovery",
                "    state.raise_low_water(ceiling(now.hi_ns + state.settings.ahead_ns_max), "
                "Rule.LOW_WATER)",
                "    state.raise_low_water(ceiling(now.hi_ns), Rule.LOW_WATER)",
            ),
        ),
        stages=(Stage.SCRIPTS,),
        unseen="no seed that was run shows it: the stamp of a read has to lie further ahead of its clock "
        "than a node takes to start again",
        scripts=("tests/golden/test_golden.py",),
    ),
)
"""Mistakes of who stores and of who begins again."""
