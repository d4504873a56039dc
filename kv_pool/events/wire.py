"""Batches of engine events, as vLLM and SGLang put them on their sockets.

A batch is msgpack: ``[time, [event, ...], rank]``, or the same as a map. An event is a map with its
kind under ``type`` (since vLLM 0.33, and in SGLang), or an array with its kind first (before)::

    {"type": "BlockStored", "block_hashes": [h, ...], "parent_block_hash": p, "medium": "GPU", ...}
    ["BlockStored", [h, ...], p, [token, ...], 16, lora_id, "GPU", lora_name, ...]

Hashes are bytes, or integers of 64 bits with or without sign. Fields and events that are not known
are passed over, so a newer engine is understood as far as it goes. What is no batch at all raises
``ValueError``; nothing else does. Tokens are skipped unread, since names are the engine's own, but one
by one: to look for the key behind them is quicker, and would let a user's text (a salt) end them.
"""

from __future__ import annotations

import struct
from typing import Any, Final, cast

import msgspec
from msgspec import Struct

from kv_pool.blocks import NAME_BYTES, Names, alias
from kv_pool.records import Tier

_MEDIA: Final = {
    "GPU": Tier.DEVICE,
    "CPU": Tier.HOST,
    "CPU_PINNED": Tier.HOST,
    "CPU_TIER1": Tier.HOST,
    "CPU_TIER2": Tier.HOST,
    "DISK": Tier.DISK,
    "STORAGE": Tier.DISK,
    "EXTERNAL": Tier.SHARED,
}

Hash = int | bytes


class Scope(Struct, frozen=True):
    """What tells blocks of one engine apart beside their hashes.

    adapter  name of the adapter; None without one
    salt     cache salt, where the engine tells it; else empty: it is in the hash then
    group    number of the attention group
    spec     kind of the group's cache; empty where the engine does not say
    window   tokens of a sliding window; 0 without one
    """

    adapter: str | None = None
    salt: str = ""
    group: int = 0
    spec: str = ""
    window: int = 0


class Stored(Struct, frozen=True):
    """Consecutive blocks are there. `engine`: the engine's own digests, where they are longer."""

    names: Names
    parent: bytes | None
    tier: int
    block_tokens: int
    scope: Scope
    engine: bytes = b""


class Removed(Struct, frozen=True):
    """Blocks are gone from a tier."""

    names: tuple[bytes, ...]
    tier: int
    group: int = 0


class Cleared(Struct, frozen=True):
    """Everything is gone."""


Event = Stored | Removed | Cleared


class Batch(Struct, frozen=True):
    """The events of a batch that are understood, in order, and how many are not."""

    events: tuple[Event, ...]
    rank: int = 0
    strange: int = 0


class _StoredMap(Struct, frozen=True, tag_field="type", tag="BlockStored", gc=False):
    block_hashes: list[Hash]
    parent_block_hash: Hash | None = None
    block_size: int = 0
    lora_id: int | None = None
    medium: str | None = None
    lora_name: str | None = None
    cache_salt: str | None = None
    group_idx: int | None = None
    kv_cache_spec_kind: str | None = None
    kv_cache_spec_sliding_window: int | None = None


class _RemovedMap(Struct, frozen=True, tag_field="type", tag="BlockRemoved", gc=False):
    block_hashes: list[Hash]
    medium: str | None = None
    group_idx: int | None = None


class _ClearedMap(Struct, frozen=True, tag_field="type", tag="AllBlocksCleared", gc=False):
    pass


_EVENTS: Final = msgspec.msgpack.Decoder(
    tuple[msgspec.Raw, list[_StoredMap | _RemovedMap | _ClearedMap], int | None]
)
_ANY: Final = msgspec.msgpack.Decoder()

_KINDS: Final[dict[str, type[_StoredMap | _RemovedMap | _ClearedMap]]] = {
    "BlockStored": _StoredMap,
    "BlockRemoved": _RemovedMap,
    "AllBlocksCleared": _ClearedMap,
}
_POSITIONS: Final = {
    "BlockStored": (
        "block_hashes",
        "parent_block_hash",
        "token_ids",
        "block_size",
        "lora_id",
        "medium",
        "lora_name",
    ),
    "BlockRemoved": ("block_hashes", "medium"),
    "AllBlocksCleared": (),
}
"""Fields by position, in the older form."""


def decode_batch(payload: bytes) -> Batch:
    """The events of a batch; ``ValueError`` when it is none."""
    try:
        _, events, rank = _EVENTS.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _decode_slowly(payload)
    understood: list[Event] = []
    strange = 0
    for event in events:
        try:
            one = _of_map(event)
        except ValueError:
            one = None
        if one is None:
            strange += 1
        else:
            understood.append(one)
    return Batch(tuple(understood), rank or 0, strange)


def decode_sequence(frame: bytes) -> int:
    """The number in a sequence frame, -1 for the end of a replay; ``ValueError`` if it is none."""
    if len(frame) != 8:
        raise ValueError(f"a sequence has 8 bytes, not {len(frame)}")
    return int.from_bytes(frame, "big", signed=True)


def _of_map(event: _StoredMap | _RemovedMap | _ClearedMap) -> Event | None:
    match event:
        case _StoredMap():
            tier = _tier(event.medium)
            if tier is None or not event.block_hashes:
                return None
            parent = event.parent_block_hash
            names, engine = _names(event.block_hashes)
            scope = _PLAIN
            if (
                event.lora_name is not None
                or event.lora_id is not None
                or event.cache_salt
                or event.group_idx
                or event.kv_cache_spec_kind
                or event.kv_cache_spec_sliding_window
            ):
                adapter = event.lora_name
                if adapter is None and event.lora_id is not None:
                    adapter = str(event.lora_id)
                scope = Scope(
                    adapter,
                    event.cache_salt or "",
                    event.group_idx or 0,
                    event.kv_cache_spec_kind or "",
                    event.kv_cache_spec_sliding_window or 0,
                )
            return Stored(
                names,
                None if parent is None else alias(parent),
                tier,
                event.block_size,
                scope,
                engine,
            )
        case _RemovedMap():
            tier = _tier(event.medium)
            if tier is None:
                return None
            gone = tuple([alias(one) for one in event.block_hashes])
            return Removed(gone, tier, event.group_idx or 0)
        case _ClearedMap():
            return Cleared()


_PLAIN: Final = Scope()


def _decode_slowly(payload: bytes) -> Batch:
    """Any other form: arrays for events, a map for the batch, kinds and types that are not known."""
    try:
        batch = _ANY.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError) as error:
        raise ValueError(f"not a batch of events: {error}") from None
    rank: Any = 0
    if isinstance(batch, dict):
        events = batch.get("events")
        rank = batch.get("data_parallel_rank", batch.get("attn_dp_rank", 0))
    elif isinstance(batch, list) and len(batch) >= 2:
        events = batch[1]
        rank = batch[2] if len(batch) > 2 else 0
    else:
        events = None
    if not isinstance(events, list):
        raise ValueError("a batch of events has a list of events")
    understood: list[Event] = []
    strange = 0
    for event in events:
        try:
            one = _of_anything(event)
        except (msgspec.MsgspecError, ValueError):
            one = None
        if one is None:
            strange += 1
        else:
            understood.append(one)
    return Batch(tuple(understood), rank if isinstance(rank, int) else 0, strange)


def _of_anything(event: object) -> Event | None:
    if isinstance(event, list) and event:
        positions = _POSITIONS.get(event[0]) if isinstance(event[0], str) else None
        if positions is None:
            return None
        event = {"type": event[0], **dict(zip(positions, event[1:], strict=False))}
    if not isinstance(event, dict):
        return None
    name = event.get("type")
    kind = _KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        return None
    known = {field: event[field] for field in (*kind.__struct_fields__, "type") if field in event}
    return _of_map(msgspec.convert(known, kind))


def _tier(medium: str | None) -> int | None:
    """The tier that an engine's word stands for; None for a word that is not known."""
    return int(Tier.DEVICE) if medium is None else _MEDIA.get(medium.upper())


def _names(hashes: list[Hash]) -> tuple[Names, bytes]:
    """Names of an engine's hashes, and its digests in full where they are longer than names.

    The same as `alias` of each, which is done only where the hashes are not all of one kind.
    """
    first = hashes[0]
    if type(first) is bytes:
        sizes = {len(one) if type(one) is bytes else 0 for one in hashes}
        if len(sizes) == 1 and len(first) >= NAME_BYTES:
            digests = cast("list[bytes]", hashes)
            names = b"".join([one[:NAME_BYTES] for one in digests])
            return names, b"".join(digests) if len(first) > NAME_BYTES else b""
    else:
        for form in ("8xQ", "8xq"):
            try:
                return struct.pack(">" + form * len(hashes), *hashes), b""
            except struct.error:
                continue  # Of the other sign, or of both kinds.
    return b"".join([alias(one) for one in hashes]), b""
