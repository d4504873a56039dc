"""From a store to running partitions: checkpoint, later turns, marks."""

from __future__ import annotations

import gc
from collections.abc import Callable

import msgspec
from msgspec import Struct

from k2store.errors import Corruption
from k2store.node.turns import decode_checkpoint, decode_turn
from k2store.storage import Store
from mvcc.partition import Partition
from mvcc.state import PartitionSettings
from truetime import Oracle, OracleSettings


class Recovered(Struct):
    """What came out of a store.  ``replayed``: how many turns it had; 0 for a new one."""

    oracle: Oracle
    partitions: list[Partition]
    replayed: int


def recover(
    store: Store,
    split_keys: tuple[bytes, ...],
    oracle_id: int,
    oracle_settings: OracleSettings,
    settings: PartitionSettings,
    space: int,
) -> Recovered:
    """Rebuild oracle and partitions.  Partitions do not serve yet.

    Raises Corruption when a turn cannot be understood.
    """
    oracle = Oracle(oracle_id, oracle_settings)

    def make(number: int, start: bytes, end: bytes) -> Partition:
        return Partition(
            number,
            start,
            end,
            space=space,
            settled=store.settled,
            oracle=oracle,
            settings=settings,
        )

    bounds = [b"", *sorted(split_keys), b""]
    partitions = [
        make(number, start, end)
        for number, (start, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True))
    ]
    collecting = gc.isenabled()
    gc.disable()  # a million new objects, no garbage: looking through them doubles the time
    try:
        reserved_until_ns, replayed, partitions = _replay(store, partitions, make)
    finally:
        if collecting:
            gc.enable()
    if reserved_until_ns:
        restored_oracle = Oracle.restore(oracle_id, oracle_settings, reserved_until_ns)
        for partition in partitions:
            partition.state.oracle = restored_oracle
        oracle = restored_oracle
    for partition in partitions:
        partition.state.settle()
    return Recovered(oracle, partitions, replayed)


def _replay(
    store: Store, partitions: list[Partition], make: Callable[[int, bytes, bytes], Partition]
) -> tuple[int, int, list[Partition]]:
    """Apply the newest usable checkpoint and every turn after it."""
    log = store.log
    reserved_until_ns = 0
    replayed = 0
    restored = False
    first = log.first_lsn
    if log.checkpoint_lsn and store.settled.applied_lsn >= log.checkpoint_lsn - 1:
        first = log.checkpoint_lsn
    for turn in log.replay(first):
        replayed += 1
        try:
            if turn.checkpoint:
                saved = decode_checkpoint(turn.payload)
                reserved_until_ns = max(reserved_until_ns, saved.reserved_until_ns)
                if not restored and saved.partitions:
                    partitions = [
                        make(one.partition, one.start, one.end) for one in saved.partitions
                    ]
                    for partition, one in zip(partitions, saved.partitions, strict=True):
                        partition.restore(one)
                restored = True
                continue
            decoded = decode_turn(turn.payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Corruption(
                f"turn {turn.lsn} of the log cannot be understood: {error}", what="log"
            ) from error
        restored = True
        reserved_until_ns = max(reserved_until_ns, decoded.reserved_until_ns)
        for entry in decoded.entries:
            partitions[entry.partition].replay(entry)
        if not replayed % 256:
            for partition in partitions:
                partition.state.settle()
    return reserved_until_ns, replayed, partitions
