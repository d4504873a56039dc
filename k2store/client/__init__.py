"""The client library: transactions with certain outcomes over one connection.

::

    Database ─ transactions() ─▶ Attempts ─▶ Transaction ─┐
       │                          (retry: when and whether)│
       ├─ transact, put, ... ───▶ OneShots ────────────────┤
       ├─ snapshot() ───────────▶ View ─ scan() ─▶ Scan ───┼─▶ Session ─▶ Outbox ═frames═▶ node
       ├─ watch() ──────────────▶ Watch ───────────────────┤      ▲
       └─ lease(), collection()   (built on the above)     │      └── answers to futures
                                           BoundedTime ◀───┘

Theory of operation, in four sentences.

*A commit has three ends*: committed, aborted, unknown. The client names a transaction before it
sends anything, and the node keeps its record; so the third end is never handed to a retry loop: it
is resolved from the record first, and only what certainly did not take is done again.

*Nothing is told before true time has passed its stamp* (rule T3 of docs/time.md). The node holds
the answers of commits; for reads that belong to no commit this side waits, with the lower bounds
of true time that every frame carries.

*Operations share frames.* Whatever has gathered since the last turn of the loop leaves as one
frame of columns: no task, timer or lock per operation, and backpressure as a typed error.

*Policy is apart from machinery.* When to retry is a generator (`retry`) without clock or loop;
clock, randomness and transport are arguments, so a simulator can run all of this.

Importing this package imports nothing; `k2store` exports the public names.
"""
