"""What a directory of KV blocks forgets: claims, lives, epochs, and copies that were to stay."""

from __future__ import annotations

from typing import Final

from jepsen_like.mutants.mutant import Change, Mutant, Stage

_POOL: Final = (Stage.POOL,)

MUTANTS: Final = (
    Mutant(
        name="evict-looks-at-no-pin",
        rule="docs/kv_pool.md: no pin of an evicted run expires later than the eviction's stamp",
        changes=(
            Change(
                "kv_pool.directory.evicting",
                "    rules.require(Reason.PINNED, NoRow(pins, expiry, Compare.GREATER, Own.TIME_NS))\n",
                "    _ = (Reason.PINNED, NoRow(pins, expiry, Compare.GREATER, Own.TIME_NS))\n",
            ),
        ),
        stages=_POOL,
    ),
    Mutant(
        name="trim-takes-what-is-claimed",
        rule="docs/kv_pool.md: what is trimmed lies behind all that claims cover",
        changes=(
            Change(
                "kv_pool.directory.evicting",
                "                left = max(left, pin.blocks)\n",
                "                left = max(left, min(pin.blocks, 1))\n",
            ),
        ),
        stages=_POOL,
    ),
    Mutant(
        name="engine-does-not-say-what-it-broke",
        rule="docs/kv_pool.md: an engine's report names the claims that it broke",
        changes=(
            Change(
                "kv_pool.directory.evicting",
                "                    voided.append(Voided(part, pin_row[0][-keys.PIN_BYTES :], pin))\n",
                "                    continue\n",
            ),
        ),
        stages=_POOL,
    ),
    Mutant(
        name="last-copy-taken-for-granted",
        rule="docs/kv_pool.md: a guarded eviction leaves all of the run at another worker",
        changes=(
            Change(
                "kv_pool.directory.evicting",
                "        if other.is_valid(identity, tier) and other.live_names()"
                ".startswith(run.live_names()):",
                "        if other.is_valid(identity, tier):",
            ),
            Change(
                "kv_pool.directory.evicting",
                "            if other != registration.worker and await _has(txn, other, part, run):",
                "            if await _has(txn, other, part, run):",
            ),
        ),
        stages=_POOL,
    ),
    Mutant(
        name="restart-keeps-its-incarnation",
        rule="docs/kv_pool.md: what an earlier life of a worker had counts for nothing",
        changes=(
            Change(
                "kv_pool.directory.membership",
                "            identity = Id(before.incarnation + 1, boot, State.LIVE, endpoints=endpoints)",
                "            identity = Id(before.incarnation, boot, State.LIVE, endpoints=endpoints)",
            ),
        ),
        stages=_POOL,
    ),
    Mutant(
        name="the-dead-may-publish",
        rule="docs/kv_pool.md: a publish names the life that it belongs to",
        changes=(
            Change(
                "kv_pool.directory.membership",
                '    rules.field(Reason.FENCED, key, Id, "incarnation", identity.incarnation)\n'
                '    rules.field(Reason.NOT_LIVE, key, Id, "state", int(State.LIVE))\n',
                '    rules.field(Reason.FENCED, key, Id, "incarnation", 0, Compare.GREATER)\n'
                '    rules.field(Reason.NOT_LIVE, key, Id, "state", 9, Compare.NOT_EQUAL)\n',
            ),
        ),
        stages=_POOL,
    ),
    Mutant(
        name="claim-takes-the-hint-for-a-fact",
        rule="docs/kv_pool.md: a claim looks whether every row is the one that was seen",
        changes=(
            Change(
                "kv_pool.directory.pinning",
                '    rules.field(Reason.CHANGED, key, Run, "generation", run.generation)\n'
                '    rules.field(Reason.CHANGED, key, Run, "phase", int(Phase.READY))\n'
                '    rules.field(Reason.CHANGED, key, Run, "live", held.blocks, Compare.AT_LEAST)\n',
                '    rules.field(Reason.CHANGED, key, Run, "depth", run.depth)\n',
            ),
        ),
        stages=_POOL,
    ),
    Mutant(
        name="cleared-claims-are-renewed",
        rule="docs/kv_pool.md: a claim on a tier that was cleared is lost",
        changes=(
            Change(
                "kv_pool.directory.pinning",
                "        rules.field(Reason.CLEARED, identity, Id, EPOCHS[tier], epoch)\n",
                "        _ = Reason.CLEARED, EPOCHS[tier], epoch\n",
            ),
        ),
        stages=_POOL,
    ),
    Mutant(
        name="shortened-runs-grow-again",
        rule="docs/kv_pool.md: a generation stands for one place of every block",
        changes=(
            Change(
                "kv_pool.directory.publishing",
                '    rules.field(Reason.CHANGED, key, Run, "names", run.names[: before * NAME_BYTES])\n',
                "",
            ),
        ),
        stages=_POOL,
    ),
    Mutant(
        name="sweep-takes-claims-that-hold",
        rule="docs/kv_pool.md: a sweep removes what counts for nothing",
        changes=(
            Change(
                "kv_pool.directory.sweeping",
                "                if gone or pin.expiry_ns <= now_ns:",
                "                if gone or pin.expiry_ns > 0:",
            ),
        ),
        stages=_POOL,
    ),
    Mutant(
        name="source-leaves-for-what-was-once-there",
        rule="docs/kv_pool.md: a source leaves for the copy that has landed while it is held",
        changes=(
            Change(
                "kv_pool.directory.moving",
                "        if timestamp.time_ns(txn.at) >= move.expiry_ns:\n            return Reason.LOST\n",
                "        assert timestamp.time_ns(txn.at)\n",
            ),
            Change(
                "kv_pool.directory.moving",
                "    if run is None or identity is None or run.generation != move.generation:\n"
                "        return False\n    return run.is_valid(identity, move.part[16])",
                "    return True",
            ),
        ),
        stages=_POOL,
    ),
    Mutant(
        name="what-has-landed-may-leave",
        rule="docs/kv_pool.md: a copy that has landed does not leave while the task holds it",
        changes=(
            Change(
                "kv_pool.directory.evicting",
                "    rules.require(Reason.PINNED, offered)\n",
                "    assert offered, rules\n",
            ),
        ),
        stages=_POOL,
    ),
    Mutant(
        name="learner-misses-clears",
        rule="docs/kv_pool.md: what a cleared epoch held is gone from the tree with one row",
        changes=(
            Change(
                "kv_pool.learner",
                "    return identity.incarnation, identity.epoch(tier)",
                "    return identity.incarnation, 0",
            ),
        ),
        stages=_POOL,
    ),
)
"""Mistakes of the directory, and of what learns from it."""
