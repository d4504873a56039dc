"""The limits that every frame is held to, and the errors for what exceeds them."""

from __future__ import annotations

from msgspec import Struct

from k2store.errors import Rejected


class SessionLimits(Struct, frozen=True, kw_only=True):
    """Sizes in bytes, times in nanoseconds."""

    key_bytes_max: int = 4096
    value_bytes_max: int = 1 << 20
    operations_max: int = 10_000
    transaction_bytes_max: int = 16 << 20
    in_flight_max: int = 8_192
    open_transactions_max: int = 100_000
    scan_rows_max: int = 1_000
    timeout_ns: int = 10_000_000_000
    timeout_ns_max: int = 300_000_000_000
    watches_max: int = 1_000
    watch_queue_max: int = 65_536


class Malformed(Exception):
    """The frame breaks the protocol; the session ends."""


class Ahead(Malformed):
    """The client has been told a stamp that no clock of a good node can give yet.

    Some node's clock is wrong, or was: the session ends here, and the client may come again.
    """


def key_refused(key: bytes, limit: int) -> Rejected:
    """A key is empty of meaning only when it is too long: any bytes, also none, are a key."""
    return Rejected(f"a key of {len(key)} bytes; at most {limit} are allowed", field="key")


def value_refused(value: bytes, limit: int) -> Rejected:
    """A value is too long."""
    return Rejected(f"a value of {len(value)} bytes; at most {limit} are allowed", field="value")


def operations_refused(count: int, limit: int) -> Rejected:
    """A transaction has too many operations."""
    return Rejected(f"{count} operations in a transaction; at most {limit}", field="operations")


def transaction_refused(size: int, limit: int) -> Rejected:
    """A transaction writes too many bytes."""
    return Rejected(f"a transaction of {size} bytes; at most {limit} are allowed", field="writes")


def txn_refused(txn: bytes) -> Rejected:
    """A transaction id is malformed, or belongs to another client."""
    return Rejected(
        f"{txn.hex() or 'nothing'} is not a transaction id of this client: 16 bytes that begin with "
        "the 8 of its hello",
        field="txn",
    )
