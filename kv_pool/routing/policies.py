"""Policies: which parts, with which weights."""

from __future__ import annotations

from typing import Final

from msgspec import Struct


class Policy(Struct, frozen=True, kw_only=True):
    """Names of parts, in the order in which they are used."""

    name: str
    what: str
    filters: tuple[str, ...] = ()
    scorers: tuple[tuple[str, float], ...]
    picker: str = "highest"
    pulls: bool = False
    counts_phantoms: bool = False


POLICIES: Final = {
    policy.name: policy
    for policy in (
        Policy(
            name="round-robin",
            what="everybody in turn",
            scorers=(("turn", 1.0),),
        ),
        Policy(
            name="least-load",
            what="who has least to do",
            scorers=(("idleness", 1.0),),
        ),
        Policy(
            name="session",
            what="a conversation stays where it began",
            scorers=(("session", 1.0),),
        ),
        Policy(
            name="longest-prefix",
            what="who has most of the prompt; of several, who has least to do",
            filters=("longest-prefix",),
            scorers=(("idleness", 1.0),),
        ),
        Policy(
            name="prefix-unless-unbalanced",
            what="who has most of the prompt among those who do not have much more to do than others",
            filters=("not-overloaded", "longest-prefix"),
            scorers=(("idleness", 1.0),),
        ),
        Policy(
            name="cost",
            what="where the prefill is done first, counting queues and cached blocks",
            scorers=(("cost", 1.0),),
        ),
        Policy(
            name="cost-pull",
            what="the same, and blocks are fetched from others where that is quicker",
            scorers=(("cost", 1.0),),
            pulls=True,
        ),
        Policy(
            name="cost-pull-stale",
            what="the same, and blocks count less the likelier they are gone",
            scorers=(("cost", 1.0),),
            pulls=True,
            counts_phantoms=True,
        ),
    )
}
"""All policies by name."""
