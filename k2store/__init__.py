"""K2store: a strictly serializable, multi-version, multi-region metadata store.

::

    async with k2store.connect("k2://127.0.0.1:7400") as db:
        async for txn in db.transactions():
            async with txn:
                balance = int(await txn.get(b"alice") or 0)
                txn.put(b"alice", b"%d" % (balance + 5))

Importing this module is cheap: each name brings its own part in when it is first used, and the
network library comes with the first connection.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from k2store import blocking as blocking
    from k2store.client.attempts import Attempts as Attempts
    from k2store.client.collection import Collection as Collection
    from k2store.client.collection import Entry as Entry
    from k2store.client.conditions import Condition as Condition
    from k2store.client.conditions import absent as absent
    from k2store.client.conditions import field as field
    from k2store.client.conditions import no_row as no_row
    from k2store.client.conditions import own_stamp as own_stamp
    from k2store.client.conditions import own_time as own_time
    from k2store.client.conditions import present as present
    from k2store.client.conditions import value_is as value_is
    from k2store.client.conditions import version_is as version_is
    from k2store.client.connect import Tls as Tls
    from k2store.client.connect import connect as connect
    from k2store.client.database import Database as Database
    from k2store.client.lease import Lease as Lease
    from k2store.client.ranges import EVERYTHING as EVERYTHING
    from k2store.client.ranges import KeyRange as KeyRange
    from k2store.client.ranges import prefix as prefix
    from k2store.client.records import Outcome as Outcome
    from k2store.client.records import Record as Record
    from k2store.client.records import Result as Result
    from k2store.client.records import Version as Version
    from k2store.client.records import Write as Write
    from k2store.client.settings import ClientSettings as ClientSettings
    from k2store.client.snapshot import View as View
    from k2store.client.transaction import Transaction as Transaction
    from k2store.client.transactional import transactional as transactional
    from k2store.client.watch import Changes as Changes
    from k2store.client.watch import Resolved as Resolved
    from k2store.client.watch import Watch as Watch
    from k2store.embedded import open as open  # noqa: A004 - k2store.open(path) is the name
    from k2store.embedded import open_async as open_async
    from k2store.errors import ClockUncertain as ClockUncertain
    from k2store.errors import ConditionFailed as ConditionFailed
    from k2store.errors import Conflict as Conflict
    from k2store.errors import Corruption as Corruption
    from k2store.errors import Deadline as Deadline
    from k2store.errors import Expired as Expired
    from k2store.errors import K2Error as K2Error
    from k2store.errors import OutcomeUnknown as OutcomeUnknown
    from k2store.errors import Overloaded as Overloaded
    from k2store.errors import Rejected as Rejected
    from k2store.errors import Retry as Retry
    from k2store.errors import TooOld as TooOld
    from k2store.errors import Unavailable as Unavailable

_HOMES = {
    "client.attempts": ("Attempts",),
    "client.collection": ("Collection", "Entry"),
    "client.conditions": (
        "Condition",
        "absent",
        "field",
        "no_row",
        "own_stamp",
        "own_time",
        "present",
        "value_is",
        "version_is",
    ),
    "client.connect": ("Tls", "connect"),
    "client.database": ("Database",),
    "client.lease": ("Lease",),
    "client.ranges": ("EVERYTHING", "KeyRange", "prefix"),
    "client.records": ("Outcome", "Record", "Result", "Version", "Write"),
    "client.settings": ("ClientSettings",),
    "client.snapshot": ("View",),
    "client.transaction": ("Transaction",),
    "client.transactional": ("transactional",),
    "client.watch": ("Changes", "Resolved", "Watch"),
    "embedded": ("open", "open_async"),
    "errors": (
        "ClockUncertain",
        "ConditionFailed",
        "Conflict",
        "Corruption",
        "Deadline",
        "Expired",
        "K2Error",
        "OutcomeUnknown",
        "Overloaded",
        "Rejected",
        "Retry",
        "TooOld",
        "Unavailable",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [*_HOME_OF, "blocking"]  # noqa: PLE0604 - all of them are str


def __getattr__(name: str) -> object:
    if name == "blocking":
        return importlib.import_module("k2store.blocking")
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'k2store' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"k2store.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
