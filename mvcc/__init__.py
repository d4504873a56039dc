"""Multi-version timestamp ordering: one partition's truth, and the protocol that commits a
transaction on it.

VERSIONS.  Every key has a list of versions, each at the stamp of the transaction that wrote it.  A
transaction has one stamp, taken when it begins, and that stamp is its place in history, for what it
reads and for what it writes::

      Time
      6                        read at 6 ──► a=a3, b=b1
      5    a3
      4                        read at 4 ──► a=a1, b=b1 (c deleted)
      3                 x
      2          b1     c1
      1    a1
           a     b      c    Keys                            x: a deletion is a version as well

READS note themselves (:mod:`mvcc.versions`, :mod:`mvcc.ranges`) and return the newest version at or
below their stamp. WRITES are refused only if somebody later has already looked at what they would
change: write at 4 on ``b`` is fine unless somebody has read ``b`` at 5 or above.  Two blind writes
never conflict.  Nobody takes a lock and nobody deadlocks: a read waits for an *older* undecided
write, a write waits for nobody, so every wait goes from a larger stamp to a smaller one.

INTENTS are versions whose transaction is undecided.  Their verdict is one record on one partition,
the anchor (:mod:`mvcc.anchor`).  A transaction with a single participant needs no second step: its
last writes and its verdict are one log entry (:mod:`mvcc.writes`), and a one-shot does everything
in one message (:mod:`mvcc.one_shot`).

MARKS make forgetting safe, and only rise: ``closed`` (nobody writes at or below), ``low_water``
(stands for reads that were forgotten), ``horizon`` (history below is collected), ``record_edge``
(outcomes below may be gone).

REPLICAS are partitions that do not serve.  They replay what stands in the log
(:mod:`mvcc.recovery`), answer reads of the past as far as time is closed over what they have
applied, and delete and forget by the log as their leader does.  One of them may start to serve; a
leader that stops answers everybody who waits (:mod:`mvcc.stopping`) and is thrown away.  A partition
is split by an entry of its log (:mod:`mvcc.splitting`), and cut at a stamp when a region is lost
(:mod:`mvcc.cutting`).

MACHINES.  :class:`~mvcc.partition.Partition` and :class:`~mvcc.coordinator.Coordinator` do no I/O:
messages and clock readings go in, log entries, answers and messages come out.  The rules are D. P.
Reed's multi-version timestamp ordering ("Naming and Synchronization in a Decentralized Computer
System", MIT, 1978) as revived by K2 (PVLDB 2025); what is ours is written up in docs/protocol.md.
"""
