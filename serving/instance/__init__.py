"""A worker in a fleet: an engine whose pages others may use, and that may use theirs.

::

                     router ── HTTP ──▶ worker                    worker
                       │                ├ front ─ engine          │
                       │                │          └ MemPool ◀────┼─ reads and writes of pages
                       │                ├ residency ┐             │   (serving.transport)
                       ▼                ▼           ▼             ▼
                    learner ◀────── the directory (kv_pool, in the store) ──────▶ learner

A page is *complete*, then *published*, then *visible*; on the way out it is *evicted* in the directory, then used anew
(`residency`). Who wants pages of another worker matches its learner (a hint), claims what it found in the directory
(a fact), asks the worker where they lie, and reads them without its engine taking part (`exchange`). Generation and
checksum of every page are checked by who has read it. Whatever fails on this way, the prompt is computed instead.

Whether fetching pays is decided by what it costs and what computing costs, both as measured (`economy`).

Prefill and decode can be different workers. The client talks to the decode worker: it makes room, asks a prefill
worker to compute the prompt and to write the pages there, and goes on from the first token. What each of them
keeps, and whether the answer's pages are sent back, are the four steps of MemServe (`steps`).

Compiled chunks of documents (`serving.linking`) and what a retention policy has kept (`serving.sparse`) are pages in
namespaces of their own, and take the same way; what was linked of chunks takes none.

``steps``       roles, and who keeps what
``messages``    what workers say to each other; ``links`` the ways between them
``pages``       the engine's pages, from the loop
``residency``   pages and the directory
``economy``     fetch or compute
``exchange``    pages that move: fetched, computed for others, returned, moved away
``worker``      all of it in one process; ``command`` starts it
"""
