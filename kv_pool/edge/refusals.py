"""What the directory refuses, as errors of the store's tree.

The core gives refusals as values (`kv_pool.shots.Refused`). Whoever uses a session gets them raised: a
worker whose life is over gets `Fenced`, which is an `Expired`; everything else is a `Denied`, which is
a `Conflict` that is not to be retried as it is.
"""

from __future__ import annotations

import k2store
from kv_pool.shots import Reason, Refused
from truetime.timestamp import describe

_OVER = frozenset({Reason.FENCED, Reason.UNKNOWN})


class Denied(k2store.Conflict):
    """The directory refused, and nothing was done.

    reason  why
    at      stamp at which that was so
    blocks  how much would be there, for a claim that asked for more
    """

    retry = k2store.Retry.NEVER
    fields = ("reason", "at", "blocks")

    def __init__(self, what: str, refused: Refused) -> None:
        super().__init__(f"{what}: {refused.reason.value} (at {describe(refused.at)})")
        self.reason = refused.reason
        self.at = refused.at
        self.blocks = refused.blocks


class Fenced(k2store.Expired):
    """The worker's life is over: it must register anew, and what it had counts for nothing."""

    def __init__(self, what: str, refused: Refused) -> None:
        super().__init__(
            f"{what}: {refused.reason.value} (at {describe(refused.at)}); register anew",
            what="registration",
        )
        self.reason = refused.reason
        self.at = refused.at


def of_worker(what: str, refused: Refused) -> Denied | Fenced:
    """A refusal of something that a worker does with its own blocks."""
    return (Fenced if refused.reason in _OVER else Denied)(what, refused)
