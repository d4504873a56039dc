"""Block pools: which block lies in which slot of which tier, and which one goes when room is needed.

``eviction``    how much a block is worth keeping
``block_pool``  slots, blocks, references, and making room

Only accounting: bytes are somebody else's.
"""
