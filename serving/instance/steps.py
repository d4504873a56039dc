"""The four ways in which prefill and decode workers share a prompt (MemServe, arXiv 2406.17565, section 5).

::

                    prefill keeps    decode keeps    decode returns
    BASIC                 -               -                -
    CACHING_1             x               -                -
    CACHING_2             x               x                -         only what decode lacks is sent
    CACHING_3             x               x                x         what decode has generated comes back

With BASIC a conversation is computed whole in every turn. With CACHING_1 and _2 what the prefill worker has
computed is there in the next turn, and what the decode worker has generated is not. With CACHING_3 it is, too.
"""

from __future__ import annotations

import enum


class Step(enum.StrEnum):
    """See the module."""

    BASIC = "pd-basic"
    CACHING_1 = "pd-caching-1"
    CACHING_2 = "pd-caching-2"
    CACHING_3 = "pd-caching-3"

    @property
    def prefill_keeps(self) -> bool:
        """Whether a prefill worker keeps the pages of a prompt."""
        return self is not Step.BASIC

    @property
    def decode_keeps(self) -> bool:
        """Whether a decode worker keeps the pages of a conversation."""
        return self in {Step.CACHING_2, Step.CACHING_3}

    @property
    def decode_returns(self) -> bool:
        """Whether a decode worker sends the pages of its answer back."""
        return self is Step.CACHING_3


class Role(enum.StrEnum):
    """What a worker does: everything; compute prompts for others; generate behind prompts of others."""

    COLOCATED = "colocated"
    PREFILL = "prefill"
    DECODE = "decode"
