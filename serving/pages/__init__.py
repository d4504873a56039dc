"""Memory for keys and values: pages in tiers, an index of what they hold, and how they move.

A *page* holds the keys and values of `page_tokens` consecutive tokens in all layers, in one piece
(`geometry`), so moving a page is one copy. Pages lie in *tiers*: device, host and disk, each of them one
tensor over one stretch of memory (`memory`, `store`). `MemPool` (after MemServe) has the verbs::

    memory     alloc_mem   free_mem   swap_out   swap_in
    index      insert      match      delete
    holding    acquire     hold       release

A page is *active* while somebody computes or reads it, and *cached* once it is in the index and nobody
holds it; cached pages go down the tiers as room is needed, and come up again when a prompt wants them::

    alloc_mem ──▶ taken ──insert──▶ held ──release──▶ cached ──(room)──▶ host ──▶ disk ──▶ gone
                    │                 ▲                 │                 │         │
                    └─free_mem─▶ free └──── acquire ────┴─────────────────┴─────────┘

Which page is where, who holds it and which goes first is accounted in `kv_pool.pool`; here are the
bytes. Each page that is in the index is *sealed*: beside it stand its generation and a checksum over its
bytes. A slot that is used anew has another generation, so neither a late reader nor a swap ever takes the
bytes of one prompt for those of another.

``arena`` is memory of another shape, for policies that let go of parts of a prompt layer by layer.
"""
