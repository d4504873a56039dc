"""Stamps and the commit wait."""

from __future__ import annotations

from typing import Final

from jepsen_like.mutants.mutant import Change, Mutant, Stage

_ENGINE: Final = "k2store.node.engine"
_DISPATCH: Final = "        lo = floor(self.now.lo_ns)\n        for answer in answers:"

MUTANTS: Final = (
    Mutant(
        name="commit-wait-left-out",
        rule="§5.7 (4): a commit is told only when true time has passed its stamp",
        changes=(
            Change(_ENGINE, _DISPATCH, _DISPATCH.replace("floor(self.now.lo_ns)", "1 << 64")),
        ),
        stages=(Stage.CONTESTED,),
    ),
    Mutant(
        name="commit-wait-to-the-upper-edge",
        rule="§5.7 (4): the commit wait is over when the *lower* edge of the clock has passed",
        changes=(Change(_ENGINE, _DISPATCH, _DISPATCH.replace("lo_ns", "hi_ns")),),
        stages=(Stage.CONTESTED,),
    ),
    Mutant(
        name="stamp-from-the-lower-edge",
        rule="§5.7 (1): a stamp lies at or above true time when it is given",
        changes=(
            Change(
                "truetime.oracle",
                "        first = (hi_ns - _ROUND_UP_NS)",
                "        first = (lo_ns - _ROUND_UP_NS)",
            ),
        ),
        stages=(Stage.CONTESTED, Stage.SCRIPTS),
        scripts=("tests/unit/test_truetime_oracle.py", "tests/model/test_truetime_world.py"),
    ),
    Mutant(
        name="read-only-without-commit-wait",
        rule="§5.8 (4): a transaction that only reads waits for its stamp like any other",
        changes=(
            Change(
                "k2store.client.transaction",
                "            if not bounded_time.covers(self._at):",
                "            if False:",
            ),
        ),
        stages=(Stage.CONTESTED,),
        workloads=("register",),
    ),
    Mutant(
        name="failed-condition-without-commit-wait",
        rule="§5.8 (4): the answer that a condition failed is a read, and waits for its stamp",
        changes=(
            Change(
                "k2store.client.one_shot",
                "                await session.bounded_time.past(error.at)",
                "                pass",
            ),
            Change(
                _ENGINE,
                "            elif isinstance(answer, Failed) or (\n"
                "                isinstance(answer, Outcome)",
                "            elif isinstance(answer, Failed) and False or (\n"
                "                isinstance(answer, Outcome)",
            ),
        ),
        stages=(Stage.CONTESTED,),
        workloads=("compare",),
    ),
    Mutant(
        name="oracle-forgets-its-reservation",
        rule="§5.8 (22): a restarted oracle gives no stamp that an earlier life can have given",
        changes=(
            Change(
                "truetime.oracle",
                "        oracle._last = oracle._reserved\n",
                "        oracle._last = oracle._low_bits\n",
            ),
        ),
        stages=(Stage.SCRIPTS,),
        unseen="the clock of a node that starts again has passed the stamps of its earlier life, unless they "
        "ran ahead of it",
        scripts=("tests/unit/test_truetime_oracle.py", "tests/golden/test_golden.py"),
    ),
    Mutant(
        name="told-at-the-very-tick",
        rule="§5.8 (21): the comparison of stamp and clock is strict, for another oracle may tie",
        changes=(
            Change(
                "k2store.node.held",
                "        while heap and heap[0][0] < lo:",
                "        while heap and heap[0][0] <= lo | 0xFFFF:",
            ),
            Change(
                "truetime.commit_wait",
                "    return max(0, time_ns(stamp) + 1 - lo_ns)",
                "    return max(0, time_ns(stamp) - lo_ns)",
            ),
        ),
        stages=(Stage.SCRIPTS,),
        unseen="two stamps and a clock would have to meet in one tick of 256 ns",
        scripts=("tests/unit/test_truetime_commit_wait.py", "tests/golden/test_golden.py"),
    ),
    Mutant(
        name="session-floor-ignored",
        rule="§5.8 (33): what a session has seen lies below the stamps it gets",
        changes=(Change("mvcc.one_shot", "    highest = message.floor\n", "    highest = 0\n"),),
        stages=(Stage.SCRIPTS,),
        unseen="the commit wait has let a stamp pass before anybody hears of it: the floor decides only "
        "inside of transactions that are still open, and what those saw counts for nothing",
        scripts=("tests/golden/test_golden.py",),
    ),
    Mutant(
        name="retries-share-a-stamp",
        rule="§5.4: the number of a retry is part of its stamp, so that no two are equal",
        changes=(
            Change(
                "truetime.timestamp",
                "    return stamp + (OFFSET_TICKS[level] << TICK_SHIFT) | level",
                "    return stamp + (OFFSET_TICKS[level] << TICK_SHIFT)",
            ),
        ),
        stages=(Stage.SCRIPTS,),
        unseen="two stamps would have to meet in one tick of 256 ns",
        scripts=("tests/unit/test_truetime_timestamp.py", "tests/golden/test_golden.py"),
    ),
    Mutant(
        name="closed-over-what-was-held-back",
        rule="§5.6: what followers are told is closed counts from the last entry of the log on",
        changes=(
            Change(
                "k2store.node.cluster.upkeep",
                "        if epoch > group.closed_epoch and not partition.state.records:",
                "        if epoch > group.closed_epoch:",
            ),
        ),
        stages=(Stage.SCRIPTS,),
        unseen="no seed that was run shows it: a commit has to be held back while the tick that lets it "
        "in closes time",
        scripts=("tests/simulation/test_cluster_scripted.py",),
    ),
)
"""Mistakes about time."""
