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

Who caught it is told apart:

- the *history*: checkers that know the values which clients and watchers saw, and when;
- the *stamps*: the serial replay of what clients saw, in the order of the stamps they were told;
- what only a look *inside* shows: copies that differ, a stamp told before true time has passed it;
- an *invariant*: an assertion of the store that ended it; *liveness*, where something never ends;
- a *script*: a test that was written for the case, which is how mistakes show that random faults do
  not find.

The first two need nothing but the clients. A mutant is pursued until they suffice, unless it says why
nobody outside can see it. Where an assertion of the store would be quicker than any client, its seeds
are run without assertions.
"""

from __future__ import annotations

from jepsen_like.mutants.catalogue import MUTANTS, named
from jepsen_like.mutants.mutant import Change, Mutant, Stage

__all__ = ["MUTANTS", "Change", "Mutant", "Stage", "named"]
