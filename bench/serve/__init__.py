"""`k2 bench serve`: what reuse of keys and values is worth, on a real model.

One part a question; each is measured alone and told in one table:

    epic      documents linked in any order: deviation, accuracy, rows and operations (`epic`)
    pd        prefill and decode on different workers, in four steps: tokens computed again, bytes moved (`pd`)
    routing   where requests are placed: share of cached tokens, time to the first token (`routing`)
    raas      keys and values dropped while decoding: exact chains of the probe, pages held, by policy (`raas`)
    memory    what a worker has for itself, and whether that grows with what it has answered (`memory`)

Counts (tokens, pages, rows, operations, divergences) are the same on every machine; times are not.

``records`` keeps what a long part has found; ``estimate`` says how far a figure may be off.
``fleet``  real processes: a node, workers, a router; ``client`` asks them; ``talks`` is what is asked
"""
