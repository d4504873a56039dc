"""All mutants, by the part of the protocol that they break."""

from __future__ import annotations

from typing import Final

from jepsen_like.mutants.catalogue import (
    clients,
    copies,
    leadership,
    pool,
    reads,
    storing,
    time,
    transactions,
    writes,
)
from jepsen_like.mutants.mutant import Mutant

MUTANTS: Final[tuple[Mutant, ...]] = (
    *time.MUTANTS,
    *reads.MUTANTS,
    *writes.MUTANTS,
    *transactions.MUTANTS,
    *storing.MUTANTS,
    *leadership.MUTANTS,
    *copies.MUTANTS,
    *clients.MUTANTS,
    *pool.MUTANTS,
)


def named(name: str) -> Mutant:
    """The mutant of that name; KeyError if there is none."""
    for mutant in MUTANTS:
        if mutant.name == name:
            return mutant
    raise KeyError(name)
