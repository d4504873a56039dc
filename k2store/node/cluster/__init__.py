"""A node as a member of a cluster: every partition's log is replicated, and somebody leads it.

::

    clients ──► sessions ──► coordinator ──► ClusterHost.deliver
                                                 │ led here          │ led elsewhere
                                                 ▼                   ▼
                              Group: Partition + Replica        Link to the leader's node
                                       │        ▲                    │
                                 entry │        │ what stands        │ requests, answers,
                                       ▼        │                    │ entries of logs, hints
                              one turn of the node's log, one sync   ▼
                                                                 other nodes

- :mod:`~k2store.node.cluster.host`: which partitions there are and what happens in a turn.
- :mod:`~k2store.node.cluster.group`: one partition here, its machine and its replica of the log.
- :mod:`~k2store.node.cluster.links`, :mod:`~k2store.node.cluster.frames`: what nodes say to each
  other, and the streams that carry it.
- :mod:`~k2store.node.cluster.incoming`, :mod:`~k2store.node.cluster.upkeep`: what a turn takes from others,
  what a tick does.
- :mod:`~k2store.node.cluster.forwarding`: requests that are answered by another node.
- :mod:`~k2store.node.cluster.pulling`: a whole partition for a replica whose log is too far behind.
- :mod:`~k2store.node.cluster.placing`: from the map of the control plane to logs and their members.
- :mod:`~k2store.node.cluster.agent`: the control plane's ear and voice in the node.
- :mod:`~k2store.node.cluster.turns`: what stands in the node's log, and the way back.

Why the whole cluster looks like one machine: a partition's entries are applied only when a majority
has them (:mod:`replication`), its leader alone answers what is newer than the closed timestamp, and
everybody answers what is older (docs/protocol.md §4, §5.6).
"""
