"""The pool of KV blocks under faults: its own sessions and transactions, judged from outside.

::

    fra                       iad                        sin
     nodes                     nodes                      nodes        d/<region>/ at home in each
     workers w1 w2             workers w1 w2              ...          publish, evict, move, die, come back
     router                    router                                  match, claim, read, fence, sweep
        │
        ├─ every operation with its stamp ─▶ history ─▶ checker `kv-directory` (shares no code)
        ├─ bytes read under a claim that holds ─▶ are those that were claimed
        └─ what the learner shows ─▶ equals a naive scan of the store at the learner's stamp

The load (`load`) uses the pool as any program does. It runs in the simulator (`scene`: kills, pauses, power
cuts, partitions, wrong clocks, from a seed) and in processes of its own on a real cluster (`campaign`:
kill -9 of workers, nodes and leaders).

    from jepsen_like.pool.scene import run
    outcome = run(7)
    assert not outcome.failures, outcome.failures
"""
