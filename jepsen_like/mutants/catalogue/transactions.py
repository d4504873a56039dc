"""Transactions over several partitions: the decision, its record and its verdict."""

from __future__ import annotations

from typing import Final

from jepsen_like.mutants.mutant import Change, Mutant, Stage

_GOLDEN: Final = "tests/golden/test_golden.py"
_ANCHOR: Final = "mvcc.anchor"

MUTANTS: Final = (
    Mutant(
        name="commit-before-all-writes",
        rule="§5.7 (14): a transaction commits when every one of its writes is acknowledged",
        changes=(
            Change(
                "mvcc.coordinator",
                "        if transaction.phase != COMMITTING or transaction.waiting:",
                "        if transaction.phase != COMMITTING:",
            ),
        ),
        stages=(Stage.CONTESTED, Stage.SCRIPTS),
        workloads=("append", "dawdle"),
        scripts=(_GOLDEN,),
    ),
    Mutant(
        name="commit-despite-a-refusal",
        rule="§5.5: one refused write aborts the transaction",
        changes=(
            Change(
                "mvcc.coordinator",
                "        self._end(transaction, commit=transaction.refusal is None)",
                "        transaction.refusal = None\n        self._end(transaction, commit=True)",
            ),
        ),
        stages=(Stage.CONTESTED, Stage.SCRIPTS),
        workloads=("append", "dawdle"),
        scripts=(_GOLDEN,),
    ),
    Mutant(
        name="verdict-before-it-is-durable",
        rule="§5.7 (17): a verdict is durable before anybody hears it",
        changes=(
            Change(
                _ANCHOR,
                "    state.records.append(Decided(local.txn, local.stamp, commit, participants))\n"
                "    state.when_durable(local.lsn, local)",
                "    state.records.append(Decided(local.txn, local.stamp, commit, participants))\n"
                "    state.finish(local)",
            ),
        ),
        stages=(Stage.SCRIPTS,),
        unseen="no seed that was run shows it: a leader has to die between a verdict and its sync, when "
        "somebody has been told",
        scripts=(_GOLDEN,),
    ),
    Mutant(
        name="decided-twice",
        rule="§5.8 (37): the first decision stands, whoever comes meanwhile",
        changes=(
            Change(
                _ANCHOR,
                "    elif local.state == ACTIVE and (silent or too_old) and state.owns(local.anchor):",
                "    elif local.state in (ACTIVE, COMMITTING) and state.owns(local.anchor):",
            ),
            Change(
                _ANCHOR,
                "    assert local.state == ACTIVE, local.state\n    local.state = COMMITTING if",
                "    local.state = COMMITTING if",
            ),
        ),
        stages=(Stage.CONTESTED, Stage.SCRIPTS),
        workloads=("append", "dawdle"),
        scripts=(_GOLDEN,),
    ),
    Mutant(
        name="unknown-transaction-not-remembered",
        rule="§5.8 (13): who was told that a transaction is aborted is not contradicted by its "
        "late writes",
        changes=(
            Change(
                _ANCHOR,
                '        local = Local(txn, stamp, ABORTED, b"", [])\n'
                "        state.transactions[txn] = local\n"
                "    else:\n        local.state = ABORTED",
                '        local = Local(txn, stamp, ABORTED, b"", [])\n'
                "    else:\n        state.transactions.pop(txn, None)\n        local.state = ABORTED",
            ),
        ),
        stages=(Stage.SCRIPTS,),
        unseen="verdicts stay unconfirmed: something never ends, but in no seed that was run is anything "
        "wrong told",
        scripts=(_GOLDEN, "tests/model/test_mvcc_serial.py"),
    ),
    Mutant(
        name="push-kills-the-young",
        rule="§5.8 (35): a push that comes before the first write of its transaction waits",
        changes=(
            Change(
                _ANCHOR,
                "PLACEHOLDER, message.anchor, [], seen_ns=time_ns(stamp))",
                "PLACEHOLDER, message.anchor, [], seen_ns=0)",
            ),
        ),
        stages=(Stage.SCRIPTS,),
        unseen="the transaction is aborted and run again: slower, and right",
        scripts=(_GOLDEN,),
    ),
    Mutant(
        name="confirmed-before-it-is-durable",
        rule="§5.5: a participant confirms a verdict when that is durable with it",
        changes=(
            Change(
                _ANCHOR,
                "    if lsn > state.durable_lsn:\n        state.when_durable(lsn, (message.anchor",
                "    if False:\n        state.when_durable(lsn, (message.anchor",
            ),
        ),
        stages=(Stage.SCRIPTS,),
        unseen="no seed that was run shows it: a leader has to die between a confirmation and its sync, "
        "and the record to be dropped before it is back",
        scripts=(_GOLDEN,),
    ),
    Mutant(
        name="record-dropped-unconfirmed",
        rule="§5.8 (43): a record outlives the last participant that has not confirmed",
        changes=(
            Change(
                _ANCHOR,
                "    if not local.decided or local.unconfirmed is not None or local.lsn",
                "    if not local.decided or local.lsn",
            ),
        ),
        stages=(Stage.CONTESTED, Stage.SCRIPTS),
        workloads=("append", "dawdle"),
        scripts=(_GOLDEN,),
    ),
    Mutant(
        name="dropped-record-told-as-aborted",
        rule="§5.8 (14): below the edge of dropped records an outcome is unknown, never aborted",
        changes=(
            Change(
                _ANCHOR,
                "    if not message.decide or (state.record_edge and oldest <= state.record_edge):",
                "    if not message.decide:",
            ),
        ),
        stages=(Stage.SCRIPTS,),
        unseen="no seed that was run shows it: a client has to ask for an outcome after the record of its "
        "transaction was dropped",
        scripts=(_GOLDEN,),
    ),
    Mutant(
        name="abort-forgotten-too-early",
        rule="§5.5: an abort is kept until nobody can write at its stamp",
        changes=(
            Change(
                _ANCHOR,
                "    return local.state != ABORTED or local.stamp <= state.closed",
                "    return True",
            ),
        ),
        stages=(Stage.SCRIPTS,),
        unseen="no seed that was run shows it: a write has to come after the abort of its transaction was "
        "forgotten",
        scripts=(_GOLDEN,),
    ),
    Mutant(
        name="orphans-left-alone",
        rule="§5.7 (19): what a dead client has left is resolved without it",
        changes=(
            Change(
                _ANCHOR,
                "    silent = lo_ns - local.seen_ns > settings.heartbeat_expiry_ns",
                "    silent = False",
            ),
            Change(
                _ANCHOR,
                "    too_old = lo_ns - time_ns(local.stamp) > settings.lifetime_ns_max",
                "    too_old = False",
            ),
        ),
        stages=(Stage.NODE,),
        unseen="keys stay locked: something never ends, but nothing wrong is told",
    ),
    Mutant(
        name="verdict-for-some-participants",
        rule="§5.7 (16): the writes of a transaction appear at all participants or at none",
        changes=(
            Change(
                "mvcc.state",
                "        committed = local.state == COMMITTED\n        message = Resolve(",
                '        committed = local.state == COMMITTED and first < b"c"\n'
                "        message = Resolve(",
            ),
        ),
        stages=(Stage.CONTESTED,),
    ),
    Mutant(
        name="version-at-the-time-of-its-verdict",
        rule="§5.7 (16): a version stands at the stamp of its transaction, whenever it is decided",
        changes=(
            Change(
                "mvcc.state",
                "                if chain.commit(intent.stamp, value, self.round):",
                "                intent.stamp = max(intent.stamp, self.lo)\n"
                "                if chain.commit(intent.stamp, value, self.round):",
            ),
        ),
        stages=(Stage.CONTESTED,),
        workloads=("append", "dawdle"),
    ),
    Mutant(
        name="split-loses-what-is-open",
        rule="§5.8 (26): the intents of open transactions go to the side where their keys are",
        changes=(
            Change(
                "mvcc.splitting",
                "            if torn is not None:\n                pending.append(torn)",
                "            if torn is None:\n                continue",
            ),
        ),
        stages=(Stage.SCRIPTS,),
        unseen="no seed that was run shows it: the transaction has to be decided between the split and "
        "the next look of its anchor",
        scripts=("tests/unit/test_mvcc_splitting.py", _GOLDEN),
    ),
    Mutant(
        name="split-forgets-outcomes",
        rule="§5.8 (26): both sides of a split know what was decided before it",
        changes=(
            Change(
                "mvcc.splitting",
                '            ended.append(Ended(txn, local, True, b"", None, None))\n'
                "        elif local.state == ACTIVE:",
                "            continue\n        elif local.state == ACTIVE:",
            ),
        ),
        stages=(Stage.SCRIPTS,),
        unseen="no seed that was run shows it: a request has to come again after its partition was split",
        scripts=("tests/unit/test_mvcc_splitting.py", "tests/model/test_mvcc_splits.py"),
    ),
    Mutant(
        name="leader-begins-no-other-half",
        rule="docs/replication.md: who was given a whole state from behind a split begins the other half",
        changes=(
            Change(
                "k2store.node.cluster.placing",
                "    return not origin.is_splitting and",
                "    return not origin.leading and",
            ),
        ),
        stages=(Stage.SCRIPTS,),
        scripts=("tests/simulation/test_cluster_scripted.py",),
        unseen="keys of the other half stay locked: something never ends, but nothing wrong is told",
    ),
)
"""Mistakes of anchors, coordinators and participants."""
