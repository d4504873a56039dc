"""Which worker holds which prefix: the prompt tree and the directory of KV-cache blocks.

A serving fleet cuts prompts into blocks of tokens and keeps the computed keys and values of each
block on some worker, in some tier of memory. This package owns the metadata of that pool:

*Names.* A block is named by the hash of its tokens chained onto the name of the block before
it, so equal names mean equal prefixes (`kv_pool.blocks`). Identity uses a cryptographic hash, because
a collision would serve one prompt the computed state of another. Everything else that must be equal
is in the namespace (`kv_pool.namespace`).

*The directory.* Who holds a block, in which tier, pinned by whom. Publishing, pinning, moving and
evicting are transactions of the store, so a block that is handed out cannot be evicted underneath.

*The prompt tree.* The shape that routers ask: how much of this prompt is held, and where. A
learner (`kv_pool.learner`) follows the store's change feed and answers from memory. Its answer is a
hint; a claim is made in the directory.

::

    namespace, blocks            what a block is called
    keys, records, shots         rows, and the transactions that a store must offer
    directory/                   register, publish, acquire, evict, move, sweep
    tree, learner                the prompt tree and the replica that answers from it
    fragments, windows           blocks by content; models that do not look at all of a prefix
    ledger, events/              what engines say, as actions for the directory
    routing/                     where a prompt should run
    pool/                        which block lies in which slot, and which goes when room is needed
    radix_tree                   a drop-in for another index's class

The core does no I/O and declares for itself the transaction protocol it needs; only ``kv_pool.edge``
may reach the network, through the store's client.
"""
