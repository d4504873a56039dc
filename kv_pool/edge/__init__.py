"""The edge of the pool: what does I/O for the core, through the store's client.

``store``      the directory's transactions over a `k2store.Database`
``bounds``     true time between two bounds, as far as this process knows
``refusals``   what the directory refuses, as errors of the store's tree
``session``    a worker: registered, renewed, with its own book
``following``  a learner that follows the local replica
``pool``       all of it, over one database: `Pool` is what a program opens
``relay``      an engine's events become rows; ``engine_sockets`` reads them, ``scopes`` names what they are about
``facade``     the pool in the words of other indexers, over ``http_server``; ``republisher`` tells it as events
``trace``      traces of prompts; ``replay`` plays one in order, which must hit the ideal
``cli``        `k2 pool`
"""
