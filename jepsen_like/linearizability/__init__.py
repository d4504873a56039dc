"""Linearizability: does every operation seem to happen at one instant between its call and its return?

The property is *local* (Herlihy and Wing 1990): a history is linearizable exactly if the part of every object
is. So a history is cut by key and the parts are decided one by one, *round robin*: a hard part must not keep
an easy, wrong one waiting. Two deciders share the work:

    registers whose written values are all different      ->  `zones`   polynomial, O(n log n)
    everything else                                        ->  `search`  exponential at worst, remembers what failed

`objects` has the sequential specifications, `calls` reads them out of operations, `decide` does the rest.
"""
