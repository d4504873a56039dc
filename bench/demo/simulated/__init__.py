"""`k2 demo --simulated`: a trace replayed at many times its speed, with an accelerator that is a pause.

Real are processes, transactions, syncs, delays, faults and the history that is judged. *Simulated* is the accelerator:
a prefill is a pause of the length that the cost model says (`kv_pool.routing.cost`), and a block's content
is a page of some bytes that whoever fetches it checks. Prompts come `speed` times as fast as recorded,
and prefills are as much shorter; the store and the network are not scaled.

``plan``       what a run is to do; ``arrivals``: which prompt comes to which region
``scene``      the processes, what they are told, and the connections to them
``wire``       how those speak; ``messages``: what they say; ``process``: what they have in common
``worker``     the process of a worker, over ``shelf``: blocks, pages, and room for them
``router``     the process of a router
``conductor``  the run from beginning to end
``causes``     why a hit fell short
``findings``   figures of a run; ``telling``: for people; ``page``: as a file to look at
"""
