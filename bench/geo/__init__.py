"""`k2 bench geo`: what geography costs, measured on real nodes with an emulated network between.

::

    clients in fra ──▶ fra-1 ◀──45 ms──▶ iad-1 ◀── clients in iad      default   zone    home fra
                          ▲                  ▲                         sin/      zone    home sin
                          80 ms         110 ms                         all/      region  home fra
                          ▼                  ▼
                          sin-1 ◀── clients in sin

Every measurement uses the public client as a program in that region would, and says where it cannot
be exact:

- :mod:`~bench.geo.commits`: round trips a commit takes, by shape of transaction and kind of
  keyspace. A link is made longer, and how much longer the transaction takes is how often it crosses
  that link; local work cancels out.
- :mod:`~bench.geo.visibility`: from the acknowledgement at home until a replica far away shows it.
- :mod:`~bench.geo.reads`: stale reads of a replica against snapshot reads of a node that is alone,
  and strong reads that ask nobody far away.
- :mod:`~bench.geo.failover`: leaders killed with SIGKILL, in a region with three voters.

:mod:`~bench.geo.scene` has the cluster, :mod:`~bench.geo.report` the words.
"""
