"""What a client library makes of the answers it gets, and of those it does not get."""

from __future__ import annotations

from typing import Final

from jepsen_like.mutants.mutant import Change, Mutant, Stage

MUTANTS: Final = (
    Mutant(
        name="lost-answer-taken-as-aborted",
        rule="§5.8 (31): a commit without an answer is asked for before it is done again",
        changes=(
            Change(
                "k2store.client.transaction",
                "        outcome = await resolve(\n"
                "            session, self._id, self._anchor, self._at, self._deadline, "
                "self._not_before\n        )\n",
                "        outcome = type(await resolve(\n"
                "            session, self._id, self._anchor, self._at, self._deadline, "
                'self._not_before\n        ))("aborted")\n',
            ),
        ),
        stages=(Stage.CONTESTED,),
        workloads=("append", "dawdle"),
    ),
    Mutant(
        name="one-shot-repeated-under-another-id",
        rule="§5.8 (31): the retry of a one-shot that may have taken keeps its id",
        changes=(
            Change(
                "k2store.client.one_shot",
                "            if error.retry is Retry.NOW and not doubt:",
                "            if True:",
            ),
        ),
        stages=(Stage.CONTESTED, Stage.SCRIPTS),
        workloads=("register", "compare"),
        scripts=("tests/unit/test_client_session.py",),
    ),
    Mutant(
        name="own-writes-not-seen",
        rule="§5.7 (12): a transaction sees what it has written itself",
        changes=(
            Change(
                "k2store.client.transaction",
                "        if key in self._writes:\n            return self._writes[key]\n"
                "        if self._sent is not None and key in self._sent:",
                "        if self._sent is not None and key in self._sent:",
            ),
            Change(
                "k2store.client.transaction",
                "        for layer in (self._writes, self._sent):",
                "        for layer in (self._sent,):",
            ),
        ),
        stages=(Stage.NODE, Stage.SCRIPTS),
        scripts=("tests/unit/test_client_transactions.py",),
    ),
    Mutant(
        name="two-stamps-for-one-attempt",
        rule="§5.5: an attempt that was begun twice has read at two stamps, and may not commit",
        changes=(
            Change(
                "k2store.client.transaction",
                "        if self._at:\n            error = Conflict(",
                "        if self._at < 0:\n            error = Conflict(",
            ),
        ),
        stages=(Stage.SCRIPTS,),
        unseen="no seed that was run shows it: a node has to forget a transaction between two of its "
        "reads that are on their way together",
        scripts=("tests/unit/test_client_transactions.py",),
    ),
)
"""Mistakes of clients."""
