"""`k2 demo`: the main job on real processes, over regions that are apart, and what became of it.

A trace of prompts arrives in several regions at once. Each region has a router, some workers and a node::

        region fra                    │ delays of a WAN │             region iad, sin, ...
                                      │                 │
    prompts ─▶ router ──serve──▶ worker ◀────fetch blocks────▶ worker ◀── router ◀─ prompts
                 │ match: learner     │                 │
                 │ acquire, release   │ publish, evict  │
                 ▼                    ▼                 │
               node of the region ◀── feed of the directory ──▶ node

Real are processes, transactions, syncs, delays, faults and the history that is judged. *Simulated* is the accelerator:
a prefill is a pause of the length that the cost model says (`kv_pool.routing.cost`), and a block's content
is a page of some bytes that whoever fetches it checks. Prompts come `speed` times as fast as recorded,
and prefills are as much shorter; the store and the network are not scaled.

``command``    the verb
``plan``       what a run is to do; ``arrivals``: which prompt comes to which region
``scene``      the cluster, the processes of the demo in it, and their addresses
``wire``       how those speak; ``messages``: what they say; ``process``: what they have in common
``worker``     the process of a worker, over ``shelf``: blocks, pages, and room for them
``router``     the process of a router; ``comparing``: its learner beside a scan of the store
``journal``    what each process asked the store for, on disk before it asks
``faults``     kills and cuts, and how long until all is well
``conductor``  the run from beginning to end; ``live``: what is shown meanwhile
``timeline``   what the journals say of blocks; ``causes``: why a hit fell short; ``judging``: the checker
``findings``   figures of a run; ``page``: as a file to look at, drawn by ``plots``
"""
