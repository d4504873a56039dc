"""Kills of a real node under load: nothing acknowledged is lost, nothing unknown stays so.

::

    clients ── unique inserts, pairs, counters, transfers ──▶ node ── kill -9 ──▶ node again ...
       │                                                                             │
       └──▶ Ledger: acknowledged (stamp) | refused | unknown ◀── judged by what the store holds

The simulator can stop a process at any line of ours; only a real kill also stops RocksDB, gRPC and
the kernel's calls in the middle. So here everything is real: processes, sockets, the disk.

After each kill the node comes back on its data and all rows of the round are read at one stamp:

- an acknowledged write is there, with the value and the stamp that were told;
- a refused one is not;
- an unknown one is asked for by `Database.outcome`, and the store holds what the answer says;
- both rows of a pair are there, or none; a counter is as high as it was acknowledged to be, and
  the accounts hold together what they held at the beginning.
"""

from __future__ import annotations
