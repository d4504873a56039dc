"""Decoding with fewer keys than tokens: retention policies over pages of a single layer.

A long answer costs time and memory for every token that it already has. Reasoning models rarely need
them all: some tokens are used heavily for a while and then never again (*milestones*), and the few that come
back after a long silence are nearly always in the prompt (*phoenixes*). RaaS (arXiv 2502.11147) keeps what
is in use::

    prompt pages            decode pages, those of one layer
    [0][1][2][3][4][5]      [a: 212] [b: 212] [c: 190] [d: 57] [e: 212 ← current]
     kept, all of them        stamps: the last step at which the page weighed more than alpha
                                                          └─ over the budget: the oldest stamp goes

Every layer decides for itself, since layers look at different things; hence pages of a single layer, in the
arena (`serving.pages.arena`). Not every head by itself: a head that needs a lemma only at the end of a block
would let it go, while another keeps it warm. The prompt's pages stay where they are, in the pool that holds
all layers and that sequences share.

``policies`` are RaaS and what it is compared with: dense, Quest, which keeps all and attends to few; H2O and a
window, which keep as little as RaaS. ``cache`` holds the pages and lets a policy decide, ``attention`` is
the attention object of a step, ``milestones`` counts how many heads attend as RaaS expects, and
``experiment`` measures policies on the probe model. ``retention`` is a policy in an engine; ``choice``
has them by name. What a policy has dropped from is never offered as exact: `publication`.
"""
