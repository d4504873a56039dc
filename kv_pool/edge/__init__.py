"""The edge of the pool: what does I/O for the core, through the store's client.

``store``  the directory's transactions over a `k2store.Database`
"""
