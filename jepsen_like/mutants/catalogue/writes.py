"""Writes and one-shots."""

from __future__ import annotations

from typing import Final

from jepsen_like.mutants.mutant import Change, Mutant, Stage

_GOLDEN: Final = "tests/golden/test_golden.py"

MUTANTS: Final = (
    Mutant(
        name="writes-under-reads",
        rule="§5.7 (9): a write below the mark of its key is refused",
        changes=(
            Change("mvcc.writes", "    if mark > stamp:\n", "    if False:\n"),
            Change(
                "mvcc.batches",
                "chain.intents is not None or chain.read > stamp or chain.stamp == stamp",
                "chain.intents is not None or chain.stamp == stamp",
            ),
            Change(
                "mvcc.batches",
                "            and chain.read <= stamp\n            and lowest <= stamp <= highest",
                "            and lowest <= stamp <= highest",
            ),
        ),
        stages=(Stage.NODE,),
    ),
    Mutant(
        name="writes-below-closed-time",
        rule="§5.7 (29): nothing is written at or below a closed timestamp",
        changes=(
            Change("mvcc.writes", "    if stamp <= state.closed:\n", "    if False:\n"),
            Change(
                "mvcc.batches",
                "    lowest = max(state.closed + 1, state.low_water)\n    highest = state.future\n"
                "    lsn = state.lsn",
                "    lowest = state.low_water\n    highest = state.future\n    lsn = state.lsn",
            ),
            Change(
                "mvcc.batches",
                "    lowest = max(state.closed + 1, state.low_water)\n    highest = state.future\n"
                "    keys, values",
                "    lowest = state.low_water\n    highest = state.future\n    keys, values",
            ),
        ),
        stages=(Stage.CONTESTED, Stage.NODE, Stage.CLUSTER),
        workloads=("dawdle", "register"),
    ),
    Mutant(
        name="far-future-stamps-taken",
        rule="§5.8 (20): a stamp beyond what any correct clock gives is refused",
        changes=(
            Change(
                "mvcc.writes",
                "    if stamp > state.future:\n",
                "    if False:\n",
            ),
            Change("mvcc.reads", "    if stamp > state.future:\n", "    if False:\n"),
        ),
        stages=(Stage.SCRIPTS,),
        unseen="nobody who keeps the protocol asks at such a stamp",
        scripts=(_GOLDEN,),
    ),
    Mutant(
        name="older-write-replaces-newer",
        rule="§5.8 (41): only a write of a smaller number is replaced",
        changes=(
            Change(
                "mvcc.writes",
                "        elif own.sequence >= sequence:",
                "        elif own.sequence == sequence:",
            ),
        ),
        stages=(Stage.SCRIPTS,),
        unseen="no seed that was run shows it: two nodes have to speak for one transaction, and the first "
        "of them to be heard last",
        scripts=(_GOLDEN,),
    ),
    Mutant(
        name="repeated-write-answered-early",
        rule="§5.8 (40): the copy of a write is answered when the first one is durable",
        changes=(
            Change(
                "mvcc.writes",
                "    if lsn > state.durable_lsn:\n        state.when_durable(lsn, Written(",
                "    if not overtaken and lsn > state.durable_lsn:\n"
                "        state.when_durable(lsn, Written(",
            ),
        ),
        stages=(Stage.SCRIPTS,),
        unseen="no seed that was run shows it: a write has to come twice within one sync, at a leader "
        "that dies before the end of it",
        scripts=(_GOLDEN,),
    ),
    Mutant(
        name="own-rewrite-refused",
        rule="§5.8 (3): replacing one's own intent is exempt from the test of readers",
        changes=(
            Change(
                "mvcc.writes",
                "            continue\n        fresh.append((key, value, sequence))",
                "            continue\n"
                "        else:\n"
                "            refusal = refusal or check(state, key, message.stamp)\n"
                "        fresh.append((key, value, sequence))",
            ),
        ),
        stages=(Stage.SCRIPTS,),
        unseen="the transaction is refused and run again: slower, and right",
        scripts=(_GOLDEN,),
    ),
    Mutant(
        name="write-after-the-abort",
        rule="§5.8 (12): a late write of an aborted transaction is refused",
        changes=(
            Change(
                "mvcc.writes",
                "    if refusal is None and local is not None and local.state not in "
                "(ACTIVE, PLACEHOLDER):\n        _write_after",
                "    if refusal is None and local is not None and local.state not in "
                "(ACTIVE, PLACEHOLDER, ABORTED):\n        _write_after",
            ),
        ),
        stages=(Stage.SCRIPTS,),
        unseen="the node that does it ends itself in the same turn",
        scripts=(_GOLDEN,),
    ),
    Mutant(
        name="repeated-write-planted-again",
        rule="§5.8 (15): a write that comes again after its commit plants no second intent",
        changes=(
            Change(
                "mvcc.writes",
                "        if state.version_at(key, chain, stamp)[0] != stamp:\n            return False",
                "        if state.version_at(key, chain, stamp)[0] != -1:\n            return False",
            ),
        ),
        stages=(Stage.SCRIPTS,),
        unseen="readers see the same value; what is planted again only keeps time from being closed",
        scripts=(_GOLDEN,),
    ),
    Mutant(
        name="commit-without-its-early-writes",
        rule="§5.8 (16): a commit names the writes it counts on, and is refused without them",
        changes=(
            Change(
                "k2store.node.commits",
                "    if isinstance(known, Open) and known.sequence == count:\n        return None",
                "    if known is None or isinstance(known, Open):\n        return None",
            ),
            Change(
                "mvcc.writes",
                "        if not have.issuperset(message.sequences):",
                "        if False:",
            ),
        ),
        stages=(Stage.CONTESTED, Stage.SCRIPTS),
        workloads=("append", "dawdle"),
        scripts=(
            "tests/simulation/test_store_scripted.py",
            _GOLDEN,
            "tests/model/test_mvcc_serial.py",
        ),
    ),
    Mutant(
        name="one-shot-below-readers",
        rule="§5.4: a one-shot is stamped above every read of what it writes",
        changes=(
            Change(
                "mvcc.one_shot",
                "        highest = max(highest, mark)\n",
                "        highest = max(highest, 0 * mark)\n",
            ),
        ),
        stages=(Stage.CONTESTED, Stage.SCRIPTS),
        workloads=("register",),
        scripts=(_GOLDEN, "tests/model/test_mvcc_serial.py"),
    ),
    Mutant(
        name="one-shot-applied-twice",
        rule="§5.8 (42): the second copy of a one-shot gets the outcome of the first",
        changes=(
            Change(
                "mvcc.one_shot",
                "    local = state.known(message.txn)\n    if local is not None:\n",
                "    local = state.known(message.txn)\n"
                "    if local is not None and not local.decided:\n",
            ),
        ),
        stages=(Stage.NODE, Stage.CLUSTER, Stage.CONTESTED),
    ),
    Mutant(
        name="one-shot-after-its-deadline",
        rule="§5.8 (42): a one-shot is refused after its deadline, for its outcome may be forgotten",
        changes=(
            Change(
                "mvcc.one_shot",
                "    if state.now.hi_ns > message.deadline_ns:\n",
                "    if False:\n",
            ),
        ),
        stages=(Stage.SCRIPTS,),
        unseen="no seed that was run shows it: a request has to be on its way for longer than outcomes "
        "are kept",
        scripts=(_GOLDEN,),
    ),
    Mutant(
        name="one-shot-does-not-wait",
        rule="§5.4: a one-shot waits for older transactions that are undecided on what it reads",
        changes=(
            Change(
                "mvcc.one_shot",
                "        raise Blocked(state.blocking(blocker.txn))\n    return version, value",
                "        return version, value\n    return version, value",
            ),
        ),
        stages=(Stage.CONTESTED, Stage.SCRIPTS),
        workloads=("guard", "compare"),
        scripts=(_GOLDEN, "tests/model/test_mvcc_serial.py"),
    ),
)
"""Mistakes of writers."""
