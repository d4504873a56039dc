"""Collections: typed records under a common prefix.

A collection encodes records (msgspec Structs, or any type msgspec knows) as msgpack, so field
conditions of one-shots can look into them, and decodes them strictly: a value of another shape is
`Corruption`, never a half-filled record. Its keys are ``name/`` followed by the caller's key.

::

    blocks = db.collection("blocks", Block)
    await blocks.put(b"7f3a", Block(tier="hbm", bytes=4096))
    async for txn in db.transactions():
        async with txn:
            mine = blocks.within(txn)
            block = await mine.get(b"7f3a")
            mine.put(b"7f3a", replace(block, tier="dram"))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec
from msgspec import Struct

from k2store.client.conditions import Condition, FieldOf, absent, field, no_row, version_is
from k2store.client.ranges import KeyRange, prefix
from k2store.errors import Corruption, Rejected

if TYPE_CHECKING:
    from collections.abc import Iterable

    from k2store.client.database import Database
    from k2store.client.scan import Scan
    from k2store.client.settings import Span
    from k2store.client.snapshot import View
    from k2store.client.transaction import Transaction

T = TypeVar("T")


class Entry(Struct, Generic[T], frozen=True):
    """A record with its key inside the collection and the stamp of the commit that wrote it."""

    key: bytes
    record: T
    version: int


class Codec(Generic[T]):
    """Keys and values of one collection."""

    __slots__ = ("_decoder", "_encode", "name", "stem")

    def __init__(self, name: str, record: type[T]) -> None:
        if not name or "/" in name:
            raise Rejected(f"{name!r} does not name a collection", field="name")
        self.name = name
        self.stem = name.encode() + b"/"
        self._encode = msgspec.msgpack.Encoder().encode
        try:
            self._decoder = msgspec.msgpack.Decoder(record)
        except TypeError as error:
            raise Rejected(f"records cannot be {record!r}: {error}", field="record") from None

    def key(self, key: bytes) -> bytes:
        """A key in the store."""
        if type(key) is not bytes:
            raise Rejected(f"a key is bytes, not {type(key).__name__}", field="key")
        return self.stem + key

    def encode(self, record: T) -> bytes:
        """A record as it is stored."""
        return self._encode(record)

    def decode(self, key: bytes, value: bytes) -> T:
        """A stored value as a record."""
        try:
            return self._decoder.decode(value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Corruption(
                f"the value at {key!r} is no record of {self.name!r}: {error}", what=self.name
            ) from None

    def range_of(self, start: bytes) -> KeyRange:
        """The range of all keys of the collection that begin with `start`."""
        return prefix(self.key(start))


class Entries(Generic[T]):
    """Iterates over the `Entry`s of a scan."""

    __slots__ = ("_codec", "_scan")

    def __init__(self, codec: Codec[T], scan: Scan) -> None:
        self._codec = codec
        self._scan = scan

    def __aiter__(self) -> Entries[T]:
        return self

    async def __anext__(self) -> Entry[T]:
        row = await self._scan.__anext__()
        key = row.key[len(self._codec.stem) :]
        return Entry(key, self._codec.decode(row.key, row.value), row.version)

    async def all(self) -> list[Entry[T]]:
        """The rest, as a list."""
        return [entry async for entry in self]


class Reading(Generic[T]):
    """A collection as a database, a view or a transaction shows it."""

    __slots__ = ("_codec", "_source")

    def __init__(self, codec: Codec[T], source: Database | View | Transaction) -> None:
        self._codec = codec
        self._source = source

    async def get(self, key: bytes) -> T | None:
        """The record at a key; None when there is none."""
        stored = self._codec.key(key)
        value = await self._source.get(stored)
        return None if value is None else self._codec.decode(stored, value)

    async def get_entry(self, key: bytes) -> Entry[T] | None:
        """The record at a key with its version."""
        row = await self._source.get_record(self._codec.key(key))
        if row is None:
            return None
        return Entry(key, self._codec.decode(row.key, row.value), row.version)

    async def get_many(self, keys: Iterable[bytes]) -> dict[bytes, T | None]:
        """The records at several keys, asked for together."""
        codec = self._codec
        stored = {codec.key(key): key for key in keys}
        values = await self._source.get_many(stored)
        return {
            key: None if (value := values[name]) is None else codec.decode(name, value)
            for name, key in stored.items()
        }

    def scan(
        self, start: bytes = b"", *, limit: int | None = None, reverse: bool = False
    ) -> Entries[T]:
        """The entries whose keys begin with `start`, in key order."""
        where = self._codec.range_of(start)
        return Entries(self._codec, self._source.scan(where, limit=limit, reverse=reverse))


class Writing(Reading[T]):
    """A collection inside a transaction: writes travel with its commit."""

    __slots__ = ("_txn",)

    def __init__(self, codec: Codec[T], txn: Transaction) -> None:
        super().__init__(codec, txn)
        self._txn = txn

    def put(self, key: bytes, record: T) -> None:
        """Write a record."""
        self._txn.put(self._codec.key(key), self._codec.encode(record))

    def delete(self, key: bytes) -> None:
        """Delete a record, whether it is there or not."""
        self._txn.delete(self._codec.key(key))


class Collection(Reading[T]):
    """Typed records of a `Database`; made by `Database.collection`."""

    __slots__ = ("_database",)

    def __init__(self, database: Database, name: str, record: type[T]) -> None:
        super().__init__(Codec(name, record), database)
        self._database = database

    def __repr__(self) -> str:
        return f"<Collection {self._codec.name}>"

    @property
    def range(self) -> KeyRange:
        """All keys of the collection, for watches."""
        return self._codec.range_of(b"")

    def within(self, txn: Transaction) -> Writing[T]:
        """The collection as part of a transaction."""
        return Writing(self._codec, txn)

    def at(self, view: View) -> Reading[T]:
        """The collection as a snapshot shows it."""
        return Reading(self._codec, view)

    async def put(
        self,
        key: bytes,
        record: T,
        *,
        conditions: Iterable[Condition] = (),
        timeout: Span | None = None,
    ) -> int:
        """Write a record; gives the stamp of its commit."""
        return await self._database.put(
            self._codec.key(key),
            self._codec.encode(record),
            conditions=conditions,
            timeout=timeout,
        )

    async def delete(
        self, key: bytes, *, conditions: Iterable[Condition] = (), timeout: Span | None = None
    ) -> int:
        """Delete a record, whether it is there or not; gives the stamp of the commit."""
        return await self._database.delete(
            self._codec.key(key), conditions=conditions, timeout=timeout
        )

    async def compare_and_put(
        self,
        key: bytes,
        record: T,
        *,
        expected: T | None = None,
        version: int | None = None,
        missing: bool = False,
        timeout: Span | None = None,
    ) -> int:
        """Write if the key has the expected record, version, or none; `ConditionFailed` else."""
        return await self._database.compare_and_put(
            self._codec.key(key),
            self._codec.encode(record),
            expected=None if expected is None else self._codec.encode(expected),
            version=version,
            missing=missing,
            timeout=timeout,
        )

    def missing(self, key: bytes) -> Condition:
        """The condition that there is no record at a key."""
        return absent(self._codec.key(key))

    def version_is(self, key: bytes, stamp: int) -> Condition:
        """The condition that the record was written by the commit with this stamp."""
        return version_is(self._codec.key(key), stamp)

    def field(self, key: bytes, name: str | int) -> FieldOf:
        """A field of the record at a key, to be compared in a condition."""
        return field(self._codec.key(key), name)

    def no_entry(self, name: str | int, *, start: bytes = b"") -> FieldOf:
        """That no record whose key begins with `start` has a field that compares as said."""
        return no_row(self._codec.range_of(start), name)
