"""Replicas that do not lead, closed time, and the change feed."""

from __future__ import annotations

from typing import Final

from jepsen_like.mutants.mutant import Change, Mutant, Stage

_LOG: Final = (
    "tests/golden/replication/test_replication_golden.py",
    "tests/model/test_replication_log.py",
)
_GOLDEN: Final = "tests/golden/test_golden.py"

MUTANTS: Final = (
    Mutant(
        name="safe-time-above-open-transactions",
        rule="§5.8 (7): what is undecided holds the safe time back",
        changes=(
            Change(
                "mvcc.state",
                "            if local.keys and local.stamp <= safe:",
                "            if False:",
            ),
        ),
        stages=(Stage.SCRIPTS,),
        unseen="no seed that was run shows it: a leader holds its time back by what it has heard of open "
        "transactions as well",
        scripts=(_GOLDEN,),
    ),
    Mutant(
        name="copy-shows-what-is-not-closed",
        rule="§5.7 (27): a copy answers up to its safe time",
        changes=(
            Change(
                "mvcc.partition",
                "        state.shown = max(state.shown, safe)",
                "        state.shown = max(state.shown, state.lo)",
            ),
        ),
        stages=(Stage.CONTESTED,),
        workloads=("append", "dawdle"),
    ),
    Mutant(
        name="closed-time-without-its-entry",
        rule="§5.8 (8): a closed timestamp counts when its entry is applied",
        changes=(
            Change(
                "replication.closed",
                "        if lsn <= applied_lsn:\n",
                "        if True:\n",
            ),
        ),
        stages=(Stage.CONTESTED, Stage.SCRIPTS),
        workloads=("append", "dawdle"),
        scripts=_LOG,
    ),
    Mutant(
        name="closed-time-at-the-committed-entry",
        rule="§5.8 (9): closed time is told with the last entry enqueued, not the last one durable",
        changes=(
            Change(
                "replication.leader",
                "    lsn = state.log.last.lsn  # the last one enqueued",
                "    lsn = state.commit_lsn  # the last one enqueued",
            ),
        ),
        stages=(Stage.CONTESTED, Stage.SCRIPTS),
        workloads=("append", "dawdle"),
        scripts=_LOG,
    ),
    Mutant(
        name="copy-applies-what-may-fall",
        rule="§5.8 (45): a replica applies what is committed and nothing beyond",
        changes=(
            Change(
                "replication.follower",
                "    state.commit_lsn = max(state.commit_lsn, min(lsn, state.verified_lsn))",
                "    state.commit_lsn = max(state.commit_lsn, state.verified_lsn)",
            ),
        ),
        stages=(Stage.CONTESTED, Stage.SCRIPTS),
        workloads=("append", "dawdle"),
        asserts=False,
        scripts=_LOG,
    ),
    Mutant(
        name="copy-forgets-a-deletion",
        rule="§5.7 (36): at rest all copies are equal",
        changes=(
            Change(
                "mvcc.recovery",
                "    state.landed.append(Flight(state.lsn, 0, [], txns, stamps, txns, stamps, keys, "
                "values, [], []))",
                "    state.landed.append(Flight(state.lsn, 0, [], txns, stamps, txns, "
                "stamps[:-1], keys[:-1], values[:-1], [], []))",
            ),
        ),
        stages=(Stage.CONTESTED,),
        workloads=("append", "dawdle"),
    ),
    Mutant(
        name="cut-keeps-what-lies-above",
        rule="§5.7 (32): a promotion begins at one cut, above which nothing is left",
        changes=(
            Change(
                "mvcc.cutting",
                "        above = [(key, version) for key, version, _ in batch if version > stamp]",
                "        above = [(key, version) for key, version, _ in batch if version < 0]",
            ),
        ),
        stages=(Stage.SCRIPTS,),
        unseen="histories over a promotion are judged by nobody: it gives up what only the lost region had",
        scripts=("tests/unit/test_mvcc_cutting.py",),
    ),
    Mutant(
        name="watch-begins-at-its-cursor",
        rule="§5.7 (31): a watch tells what lies above its cursor, each commit once",
        changes=(
            Change(
                "k2store.node.feed",
                "                if watch.cursor < stamp <= watch.join",
                "                if watch.cursor <= stamp <= watch.join",
            ),
        ),
        stages=(Stage.SCRIPTS,),
        scripts=("tests/simulation/test_store_scripted.py",),
        unseen="the client library passes over what it has heard already",
    ),
    Mutant(
        name="watch-loses-the-join",
        rule="§5.7 (31): where the past of a watch meets its present nothing is left out",
        changes=(
            Change(
                "k2store.node.feed",
                "                watch.cursor = watch.join\n                watch.take_safe(safe)",
                "                watch.cursor = safe\n                watch.take_safe(safe)",
            ),
        ),
        stages=(Stage.NODE,),
        workloads=("bank", "watch"),
    ),
    Mutant(
        name="watch-splits-a-commit",
        rule="§5.7 (31): a commit is told whole",
        changes=(
            Change(
                "k2store.node.feed",
                "        (stamp, [(key, value) for _, key, value in group])\n"
                "        for stamp, group in groupby(changes, key=itemgetter(0))",
                "        (stamp, [(key, value)]) for stamp, key, value in changes",
            ),
        ),
        stages=(Stage.NODE,),
        workloads=("bank", "watch"),
    ),
    Mutant(
        name="watch-marks-what-it-has-not-sent",
        rule="§5.7 (31): nothing comes at or below a mark that was given",
        changes=(
            Change(
                "k2store.node.feed",
                "        mark = watch.cursor if watch.live and not watch.queue else 0",
                "        mark = self._engine.furthest(engine.now) if watch.live else 0",
            ),
        ),
        stages=(Stage.NODE,),
        workloads=("bank", "watch"),
    ),
)
"""Mistakes of replicas and of the feed."""
