"""A router: one face for the workers of a region, which places each request where it is cheapest.

::

    client ── HTTP ──▶ api (as a worker's) ──▶ fleet ── Generate ──▶ worker ──▶ ... ──▶ Said
                                                 │
                        learner ── depths ──▶ policy ◀── load ── what is under way, by our own count

The face is the workers' own (`serving.api`), which asks whoever can `generate`. What is asked is cut into blocks,
matched on the learner, placed by a policy of `kv_pool.routing`, and sent over a link of `serving.transport`. Where
prefill and decode are apart, one policy chooses the prefill worker by what it has of the prompt, another one the
decode worker by what it has to do.

A worker that is lost in the middle of an answer is not the end of it: another one goes on behind the tokens that were
told, and the client sees a pause. Nothing is kept here that a restart would lose, but for the answers under way.

``load``     what is under way where, and how long it will take
``placing``  roles, facts and policies
``fleet``    placing, sending, going on elsewhere
``command``  `k2 serve router`
"""
