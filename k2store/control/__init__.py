"""The control plane: who is a member, who holds which keys, and who may lead under which epoch.

A cluster needs one place where a question has one answer, for three questions that are asked
seldom:

- **membership**: which node is number 7? Given once to a name and a disk, never to another;
- **the map**: which keys are a partition, and which nodes should hold it? One value, replaced as a
  whole by whoever made the next one from the present one (compare-and-set on its version);
- **epochs**: who may lead next? Each epoch goes to one life of one node, once, for ever.

Everything else does without it. Leases are renewed by the voters of a partition, reads and writes
go to its members, and nodes keep the map that they saw last. So while the control plane is away
nothing stops; only what is new must wait: takeovers, members, splits, promotions.

- `map`: the value, its invariants, its form when stored;
- `transitions`, `placement`: the steps from one map to the next, and who should hold what;
- `ports`: the interface, and `change` and `join`, which are written once for all;
- `embedded`, `service`, `remote`: in one node on RocksDB, and for the others over gRPC;
- `etcd`: in an etcd cluster, for installations that must survive any node;
- `opening`: from settings to the implementation that they name.

`map`, `transitions` and `placement` do no I/O.
"""

from k2store.control.map import Keyspace, Map, NodeInfo, PartitionInfo, Region
from k2store.control.placement import placed
from k2store.control.ports import Control, MapChanged, change, join
from k2store.control.transitions import (
    moved,
    promoted,
    split,
    with_keyspace,
    with_keyspaces,
    with_node,
    with_region,
)

__all__ = [
    "Control",
    "Keyspace",
    "Map",
    "MapChanged",
    "NodeInfo",
    "PartitionInfo",
    "Region",
    "change",
    "join",
    "moved",
    "placed",
    "promoted",
    "split",
    "with_keyspace",
    "with_keyspaces",
    "with_node",
    "with_region",
]
