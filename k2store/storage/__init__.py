"""The durability layer of one node: a log that makes answers durable, and settled rows behind it.

Two ports (:mod:`k2store.storage.ports`) are all that a node sees.

* :class:`~k2store.storage.ports.Log`: what must survive before an answer may leave.  One
  append-only file sequence of our own, because a commit costs one fdatasync on a preallocated file
  (0.13 ms) and because it must *notice* loss: every turn carries a hash chained over everything
  before it, and a watermark beside the log remembers what was acknowledged.
* :class:`~k2store.storage.ports.Settled`: versions that are final, in RocksDB, written without a
  second log of their own and flushed before the log forgets them.

Recovery has three outcomes, never a fourth: everything acknowledged is there (a tail that nobody
was told about may be cut off in silence); or :class:`~k2store.errors.Corruption`, after which the
store stays in quarantine; or :class:`~k2store.storage.failures.FormatUnknown`.
"""

from __future__ import annotations

from k2store.storage.failures import (
    Damaged,
    FormatUnknown,
    Quarantined,
    StorageFailed,
    StoreLocked,
)
from k2store.storage.options import StorageOptions
from k2store.storage.ports import (
    LATEST,
    Identity,
    Log,
    Page,
    PendingSync,
    Row,
    Settled,
    Store,
    Turn,
)
from k2store.storage.store import (
    MemoryMachine,
    OpenStore,
    lift_quarantine,
    open_memory_store,
    open_store,
)

__all__ = [
    "LATEST",
    "Damaged",
    "FormatUnknown",
    "Identity",
    "Log",
    "MemoryMachine",
    "OpenStore",
    "Page",
    "PendingSync",
    "Quarantined",
    "Row",
    "Settled",
    "StorageFailed",
    "StorageOptions",
    "Store",
    "StoreLocked",
    "Turn",
    "lift_quarantine",
    "open_memory_store",
    "open_store",
]
