"""The directory: transactions over the rows that say who has which block.

::

    membership   register, renew, fence, clear, drain        one row each, however many blocks
    publishing   publish, reserve, commit, abort             a stretch of a prompt, whole or not at all
    pinning      acquire, renew, release                     what is claimed stays
    evicting     evict, retire, evict_guarded, report        a pool asks, an engine tells
    ownership    own, adopt, disown                      somebody, somewhere, keeps a precious run
    moving       migrate; land, retire_source, finish        never zero copies
    quotas       open_quota, take, give_back, reclaim        bytes of a tenant
    sweeping     sweep                                       what counts for nothing goes

Each is a function over a `kv_pool.shots.Store`; it gives what it did, or a `Refused` with a reason and
the stamp at which that was so. Failures of the store itself are the store's errors and pass
through. What concerns one worker is a one-shot transaction on that worker's partition wherever
the caller knows enough; where it does not (rows of an earlier life in the way, a claim on rows that
changed) a second, interactive one looks first.

A publisher and a claimer from two sides::

    worker a     publish h0..h9 ─────────────────────────── evict h0..h9 ─▶ PINNED
    router       match: a has 10 (a hint) ── acquire ─▶ claim, token 17 ────────── release
    sweeper                                                                          a may evict now
"""
