"""Epochs, leases, and the log that is agreed on."""

from __future__ import annotations

from typing import Final

from jepsen_like.mutants.mutant import Change, Mutant, Stage

_LOG: Final = (
    "tests/golden/replication/test_replication_golden.py",
    "tests/model/test_replication_log.py",
)
_HOME: Final = ("tests/golden/home/test_home_golden.py", "tests/model/test_home_lease.py")

MUTANTS: Final = (
    Mutant(
        name="minority-is-enough",
        rule="§5.6a: what counts has a majority, and two majorities share a voter",
        changes=(
            Change(
                "replication.quorum",
                "    return count // 2 + 1",
                "    return max(1, count // 2)",
            ),
        ),
        stages=(Stage.CONTESTED, Stage.SCRIPTS),
        workloads=("append", "dawdle"),
        scripts=_LOG,
    ),
    Mutant(
        name="longest-log-wins",
        rule="§5.8 (38): the best log has the highest epoch, then the greatest length",
        changes=(
            Change(
                "replication.candidate",
                "each.last.order, bool(each.membership.voters)",
                "each.last.lsn, bool(each.membership.voters)",
            ),
        ),
        stages=(Stage.CONTESTED, Stage.SCRIPTS),
        workloads=("append", "dawdle"),
        asserts=False,
        scripts=_LOG,
    ),
    Mutant(
        name="seal-answered-before-its-promise",
        rule="§5.8 (39): the promise of an epoch is durable before the seal is answered",
        changes=(
            Change(
                "replication.voter",
                "    if state.seal_sender is None or state.promise_durable < state.promise:",
                "    if state.seal_sender is None:",
            ),
        ),
        stages=(Stage.SCRIPTS,),
        unseen="no seed that was run shows it: power has to fail at a voter within the sync of a promise, "
        "and the old leader to be heard again before the new one",
        scripts=_LOG,
    ),
    Mutant(
        name="old-leader-goes-on",
        rule="§5.8 (44): a seal binds the leader on the same node as well",
        changes=(
            Change(
                "replication.voter",
                "    assert epoch > state.promise, (epoch, state.promise)\n    state.stand_down()\n",
                "    assert epoch > state.promise, (epoch, state.promise)\n",
            ),
        ),
        stages=(Stage.CONTESTED, Stage.SCRIPTS),
        workloads=("append", "dawdle"),
        asserts=False,
        scripts=_LOG,
    ),
    Mutant(
        name="acknowledged-before-it-is-durable",
        rule="§5.6a: a voter acknowledges what is on its disk",
        changes=(
            Change(
                "replication.follower",
                "    lsn = min(state.verified_lsn, state.log.durable_lsn)",
                "    lsn = state.verified_lsn",
            ),
        ),
        stages=(Stage.SCRIPTS,),
        unseen="no seed that was run shows it: power has to fail within one sync at a majority, and a "
        "node that had the entry to come back last",
        scripts=_LOG,
    ),
    Mutant(
        name="older-epoch-counted",
        rule="§5.6a: an entry of an older epoch stands when one of the leader's own covers it",
        changes=(
            Change(
                "replication.leader",
                "    if position.epoch == lead.epoch:\n",
                "    if True:\n",
            ),
        ),
        stages=(Stage.SCRIPTS,),
        unseen="no seed that was run shows it: an entry has to be copied by two leaders in a row, and "
        "fall to the log of a third",
        scripts=_LOG,
    ),
    Mutant(
        name="lease-not-waited-for",
        rule="§5.6a: a successor begins when every lease that was promised has passed",
        changes=(
            Change(
                "replication.candidate",
                "    if state.now.lo_ns <= leased_ns and not alone(state):",
                "    if False:",
            ),
        ),
        stages=(Stage.CONTESTED, Stage.SCRIPTS),
        workloads=("register", "compare"),
        scripts=_LOG,
    ),
    Mutant(
        name="lease-by-the-wrong-edges",
        rule="§5.8 (6): a lease is compared with hi by its holder and with lo by the successor",
        changes=(
            Change(
                "replication.candidate",
                "    if state.now.lo_ns <= leased_ns and not",
                "    if state.now.hi_ns <= leased_ns and not",
            ),
            Change(
                "replication.leader",
                "state.applied_lsn >= lead.own_lsn and now.hi_ns < lease_end(state)",
                "state.applied_lsn >= lead.own_lsn and now.lo_ns < lease_end(state)",
            ),
        ),
        stages=(Stage.SCRIPTS,),
        unseen="no seed that was run shows it: a lead has to change within the width of two clocks",
        scripts=_LOG,
    ),
    Mutant(
        name="lease-not-tested",
        rule="§5.7 (21): a leader answers only while its lease lasts",
        changes=(
            Change(
                "replication.leader",
                "state.applied_lsn >= lead.own_lsn and now.hi_ns < lease_end(state)",
                "state.applied_lsn >= lead.own_lsn",
            ),
        ),
        stages=(Stage.SCRIPTS,),
        unseen="a leader looks at its lease with every tick as well, and resigns: what is left are "
        "milliseconds",
        scripts=_LOG,
    ),
    Mutant(
        name="promised-lease-forgotten",
        rule="§5.6a: a restarted voter reports the longest lease it may have promised",
        changes=(
            Change(
                "replication.state",
                "now.hi_ns + settings.lease_longest_ns if saved.promise else 0",
                "0",
            ),
        ),
        stages=(Stage.SCRIPTS,),
        unseen="no seed that was run shows it: a voter has to start again and follow another leader "
        "before its promise to the old one has passed",
        scripts=_LOG,
    ),
    Mutant(
        name="lease-counted-from-hi",
        rule="§5.6a: a voter counts a lease from the lower edge of its clock",
        changes=(
            Change(
                "replication.voter",
                "    end_ns = state.now.lo_ns + state.settings.lease_ns",
                "    end_ns = state.now.hi_ns + state.settings.lease_ns",
            ),
        ),
        stages=(Stage.SCRIPTS,),
        unseen="holder and successor compare the same end, so the lease is longer than asked for, and safe",
        scripts=_LOG,
    ),
    Mutant(
        name="membership-of-the-candidate",
        rule="§5.6a: the majority of a takeover is counted in the membership of the chosen log",
        changes=(
            Change(
                "replication.candidate",
                "    voters = best.membership.voters\n",
                "    voters = state.log.membership.voters\n",
            ),
        ),
        stages=(Stage.SCRIPTS,),
        unseen="no seed that was run shows it: a takeover has to fall into the change of a member",
        scripts=_LOG,
    ),
    Mutant(
        name="late-snapshot-installed",
        rule="§5.6a: a snapshot never replaces a log that already holds it",
        changes=(
            Change(
                "replication.follower",
                "    if position.lsn > log.base.lsn and log.position(position.lsn) != position:",
                "    if position.lsn > log.base.lsn:",
            ),
        ),
        stages=(Stage.SCRIPTS,),
        unseen="no seed that was run shows it: a snapshot has to be overtaken by all that came after it",
        scripts=_LOG,
    ),
    Mutant(
        name="takeover-without-a-low-water-mark",
        rule="§5.7 (22): a new leader's low-water mark lies above every read that was served",
        changes=(
            Change(
                "mvcc.recovery",
                "    state.raise_low_water(ceiling(now.hi_ns + state.settings.ahead_ns_max), "
                "Rule.LOW_WATER)",
                "    if not state.settings.replicated:\n"
                "        state.raise_low_water("
                "ceiling(now.hi_ns + state.settings.ahead_ns_max), Rule.LOW_WATER)",
            ),
        ),
        stages=(Stage.CONTESTED, Stage.SCRIPTS),
        workloads=("append", "dawdle"),
        scripts=("tests/golden/test_golden.py", "tests/model/test_mvcc_serial.py"),
    ),
    Mutant(
        name="deposed-leader-keeps-its-machine",
        rule="§5.6a: a deposed leader, which applied ahead, rebuilds from what stands",
        changes=(
            Change(
                "k2store.node.cluster.group",
                "        self._replace(ahead)\n        self.partition.watch(watched)",
                "        self.partition.watch(watched)",
            ),
        ),
        stages=(Stage.CONTESTED,),
        workloads=("append", "dawdle"),
        asserts=False,
    ),
    Mutant(
        name="home-promise-not-durable",
        rule="§5.6: who has stopped promising to a home has that on its disk before it says so",
        changes=(
            Change(
                "replication.home",
                "        if self._durable == self.incarnation:\n            self._answer(message)\n"
                "        else:",
                "        if True:\n            self._durable = self.incarnation\n"
                "            self._answer(message)\n        else:",
            ),
        ),
        stages=(Stage.SCRIPTS,),
        unseen="histories over a promotion are judged by nobody: it gives up what only the lost region had",
        scripts=_HOME,
    ),
    Mutant(
        name="home-lease-not-waited-for",
        rule="§5.6: another region becomes home when every promise to the old one has passed",
        changes=(
            Change(
                "replication.home",
                "        if len(ends_ns) >= needed and self.now.lo_ns > ends_ns[needed - 1]:",
                "        if len(ends_ns) >= needed:",
            ),
        ),
        stages=(Stage.SCRIPTS,),
        unseen="histories over a promotion are judged by nobody: it gives up what only the lost region had",
        scripts=_HOME,
    ),
)
"""Mistakes of voters, candidates and leaders."""
