"""Protocol mistakes, made on purpose: would anybody notice?

A *mutant* is the store with one rule of the protocol left out. It is made from outside: while a
process imports the store, the source of a module is read with one passage replaced. The production
code has no switch for it, and a mutant whose passage no longer stands exactly once in the source
fails loudly, as stale.

::

    catalogue ─▶ mutant ─▶ a process of its own: changed sources, then seeds of the simulator
                                │ a seed fails            no seed fails
                                ▼                          ▼
                   the same seed without the change    its scripts and models, under the change
                   must hold: then it is caught        must fail: then it is caught

Who caught it is told apart: the *history* that clients saw, judged from outside; the *replay* of
all transactions by their stamps; the *copies* that must be equal; an *invariant* of the store that
stopped it; *liveness*, where something never ends; or a *script* that was written for the case,
which is how mistakes show that random faults do not find.
"""

from __future__ import annotations

from jepsen_like.mutants.catalogue import MUTANTS, named
from jepsen_like.mutants.mutant import Change, Mutant, Stage

__all__ = ["MUTANTS", "Change", "Mutant", "Stage", "named"]
