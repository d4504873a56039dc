"""A log that survives a machine or a region: who may append, who holds what, what is safe to read.

The package is a core: machines that take messages and the time and give back records to persist,
messages to send and answers to give. It may import ``truetime`` and nothing else of the project.

Four ideas carry it:

*Epochs.* Every leader writes under an epoch that the control plane granted once. A follower that
has seen a later epoch refuses the earlier one, so two leaders can never both reach a majority.

*Quorums.* An entry of the log stands when a majority of the voters has it on disk. A new leader
first seals a majority at its own epoch, then takes the most complete log among them, so nothing
that was acknowledged can be missing from what it starts with.

*Leases.* The voters renew the leader's right to answer without asking around. A lease is counted
on bounded clocks: the leader stops at its earliest possible end, the voters wait for the latest.

*Closed timestamps.* With its entries a leader sends a promise never to write at or below a stamp
again. A replica that has applied everything up to the promise serves reads below it on its own,
in whichever region it stands.

::

    leader   e1 e2 e3 | closed 40          follower (voter)   replica (asynchronous)
       |---- append e3, closed 40 -------------->|                   |
       |<--- on disk --------------------------- |                   |
       |---- append e1..e3, closed 40 ------------------------------>|  reads at <= 40 served here

A store of one node has one voter and its log is that node's own; this package has no modules yet,
and nothing in the project imports it.
"""

from replication.entries import GENESIS, Entry, Kind, Position, chain
from replication.membership import Membership
from replication.messages import (
    Append,
    Appended,
    CloseBeat,
    Differs,
    Fenced,
    Fetch,
    Fetched,
    Install,
    Message,
    Renew,
    Renewed,
    Seal,
    Sealed,
    Send,
)
from replication.persistence import Persist, Saved, Snapshot
from replication.replica import Replica
from replication.state import Note, NoteKind, Ready, Refusal, ReplicaSettings, Role

__all__ = [
    "GENESIS",
    "Append",
    "Appended",
    "CloseBeat",
    "Differs",
    "Entry",
    "Fenced",
    "Fetch",
    "Fetched",
    "Install",
    "Kind",
    "Membership",
    "Message",
    "Note",
    "NoteKind",
    "Persist",
    "Position",
    "Ready",
    "Refusal",
    "Renew",
    "Renewed",
    "Replica",
    "ReplicaSettings",
    "Role",
    "Saved",
    "Seal",
    "Sealed",
    "Send",
    "Snapshot",
    "chain",
]
