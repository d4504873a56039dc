"""A node: partitions, their log and their clients on one event loop.

::

    frames ──► Session ──► Coordinator ──► Partition ──► entries ──► Log (one sync a turn)
                  ▲                           │                        │ durable
                  │                           ◄────────────────────────┘
    frames ◄── Columns ◄── Held (rule T3) ◄── answers

Everything happens in *turns* (:mod:`k2store.node.engine`).  A turn takes all frames that have
arrived, runs them through the machines, makes what they produced durable with one sync, and sends
each session one frame.  Under load a turn carries hundreds of operations; nothing waits for a timer
to gather them.
"""
