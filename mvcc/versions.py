"""The versions of one key that are in memory.

The newest committed version lives in the chain's own slots; ``old`` and ``intents`` exist only
while there is something to hold, which keeps a settled key at one small object
(docs/performance.md).  What is older and settled is in the settled store.
"""

from __future__ import annotations

from msgspec import Struct

UNREAD = -1
"""In place of a settling round: what the settled store holds of the key has not been looked up.  Only
a key that was written blindly (:mod:`mvcc.batches`) is in this state, and only until its intent has
become the newest version."""


class Intent(Struct, gc=False):
    """A version that is not decided yet.  ``lsn`` is the log entry that carries it."""

    stamp: int
    value: bytes | None
    txn: bytes
    sequence: int
    lsn: int


class Chain(Struct, gc=False):
    """Versions and read mark of one key.

    ``stamp``/``value``: newest committed version; stamp 0 where the key has never been written.
    ``read``/``reader``: the largest stamp that has read this key, and who (to explain refusals).
    ``round``: the settling round in which the newest version came; while it is the present one, the
    version is not in the settled store yet.  UNREAD: ``stamp``/``value`` say nothing so far.
    ``old``: (stamp, value) of older committed versions that are not settled yet, ascending.
    ``intents``: undecided versions, ascending by stamp; several transactions may have one each.
    """

    stamp: int
    value: bytes | None
    read: int = 0
    reader: bytes = b""
    round: int = 0
    old: list[tuple[int, bytes | None]] | None = None
    intents: tuple[Intent, ...] | None = None

    def commit(self, stamp: int, value: bytes | None, round_: int) -> bool:
        """Insert a committed version in settling round ``round_``; returns whether a version went
        to ``old``, which must be cleared once that round is settled.
        """
        newest = self.stamp
        if stamp > newest:
            kept = newest != 0 and self.round == round_
            if kept:
                if self.old is None:
                    self.old = []
                self.old.append((newest, self.value))
            self.stamp = stamp
            self.value = value
            self.round = round_
            return kept
        if stamp == newest:
            return False
        if self.old is None:
            self.old = []
        index = len(self.old)
        while index and self.old[index - 1][0] > stamp:
            index -= 1
        if index and self.old[index - 1][0] == stamp:
            return False
        self.old.insert(index, (stamp, value))
        return True

    def intent_of(self, txn: bytes) -> Intent | None:
        """The intent of one transaction."""
        if self.intents is not None:
            for intent in self.intents:
                if intent.txn == txn:
                    return intent
        return None

    def plant(self, intent: Intent) -> None:
        """Add an intent in stamp order; a transaction has at most one on a key."""
        intents = self.intents
        if intents is None:
            self.intents = (intent,)
            return
        assert self.intent_of(intent.txn) is None
        index = len(intents)
        while index and intents[index - 1].stamp > intent.stamp:
            index -= 1
        self.intents = (*intents[:index], intent, *intents[index:])

    def lift(self, txn: bytes) -> Intent | None:
        """Remove and return the intent of one transaction."""
        intents = self.intents
        if intents is None:
            return None
        for index, intent in enumerate(intents):
            if intent.txn == txn:
                self.intents = (*intents[:index], *intents[index + 1 :]) or None
                return intent
        return None

    def blocker(self, stamp: int, above: int, txn: bytes) -> Intent | None:
        """The oldest foreign intent that a read at ``stamp`` may not pass over: above version
        ``above``, not later.
        """
        if self.intents is not None:
            for intent in self.intents:
                if above < intent.stamp <= stamp and intent.txn != txn:
                    return intent
        return None
