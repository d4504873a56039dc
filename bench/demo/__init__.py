"""`k2 demo`: the main job on real processes, over regions that are apart, and what became of it.

Prompts arrive in several regions at once. Each region has a router, workers and a node::

        region fra                    │ delays of a WAN │             region iad, sin, ...
                                      │                 │
    prompts ─▶ router ──serve──▶ worker ◀────fetch blocks────▶ worker ◀── router ◀─ prompts
                 │ match: learner     │                 │
                 │ acquire, release   │ publish, evict  │
                 ▼                    ▼                 │
               node of the region ◀── feed of the directory ──▶ node

There are two runs of it. ``real`` has workers that run a model: people talk to it in one region and go on in another
one, where their conversation's keys and values are fetched and not computed again. ``simulated`` replays a trace of
thousands of prompts, with an accelerator that is a pause. What both have in common is here:

``command``    the verb
``regions``    the store, a node a region
``member``     a process; ``company``: routers and workers, and where they answer
``run``        all of it while it lasts: what faults and conductors do to it; ``course``: what it leaves
``faults``     kills and cuts, and how long until all is well
``leading``    which node leads what
``comparing``  a learner beside a scan of the store
``ending``     what is looked at in the end
``judging``    the checker's verdict over what every process took down (`kv_pool.edge.journal`)
``timeline``   what the journals say of blocks
``figures``    what every run counts, and how it is told
``live``       what is shown meanwhile; ``sheet``, ``plots`` and ``drawing``: parts of a page to look at afterwards
"""
