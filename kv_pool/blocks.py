"""Names of blocks: hash chains over tokens, content hashes, and engines' own hashes as aliases.

A *chained* name stands for a block and everything before it::

    digest(-1) = sha256(root tag, namespace, salt of the engine)
    digest(i)  = sha256(block tag, digest(i-1), tokens of block i, extras of block i)
    name(i)    = first 16 bytes of digest(i)

Every part is preceded by its length and each use has its own tag, so no two different inputs run
together into one. Equal names mean equal prefixes: a collision would serve one prompt the state of
another, therefore the chain runs over whole digests and a name keeps 128 bits of one.

A *content* name stands for a block's tokens alone, wherever they stand. It finds fragments for
position-independent reuse, and never passes for a chained name: its tag is another one.

Names of a prompt travel packed, 16 bytes each in one ``bytes``: comparing two stretches of prompts
is then one comparison of memory (see `kv_pool.tree`).

Engines name blocks themselves. Names of 16 bytes and more are cut to 16; 64-bit ones are put behind
eight zero bytes, which marks them as *weak*: whoever acquires such a block checks its parent, depth
and length again, because 64 bits are too few to trust.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from msgspec import Struct

NAME_BYTES: Final = 16
ROOT_NAME: Final = bytes(NAME_BYTES)
"""Stands for what is before a prompt's first block."""

Names: TypeAlias = bytes
"""Names of consecutive blocks, packed: 16 bytes each."""

_ROOT_TAG: Final = b"k2.root"
_BLOCK_TAG: Final = b"k2.block"
_CONTENT_TAG: Final = b"k2.content"
_WEAK: Final = bytes(8)
_UINT64: Final = 2**64


class Chain(Struct, frozen=True, gc=False):
    """The whole blocks of a prompt.

    names   packed, one for each block
    tail    digest of the last block (of the root, if there is none), from which the chain goes on
    """

    names: Names
    tail: bytes

    @property
    def blocks(self) -> int:
        """How many blocks."""
        return len(self.names) // NAME_BYTES


def root(namespace: bytes, seed: bytes = b"") -> bytes:
    """The digest before the first block of every prompt of a namespace."""
    return hashlib.sha256(_tagged(_ROOT_TAG, namespace, seed)).digest()


def chain(
    tail: bytes,
    tokens: Sequence[int],
    block_tokens: int,
    extras: Mapping[int, bytes] | None = None,
) -> Chain:
    """Name the whole blocks of a stretch of tokens that follows the block with digest `tail`.

    tail    `root` of a namespace, or the tail of what comes before
    tokens  from the beginning of a block on; an incomplete last block gets no name
    extras  what else decides the state of a block (an image's digest, say), by number of the block

    Raises ``ValueError`` for a tail that is no digest and for tokens that do not fit 32 bits.
    """
    if len(tail) != 32:
        raise ValueError(f"a digest has 32 bytes, not {len(tail)}")
    if block_tokens < 1:
        raise ValueError(f"a block has at least one token, not {block_tokens}")
    count = len(tokens) // block_tokens
    pack = struct.Struct(f"<{block_tokens}I").pack
    # Lengths come first, and all of them are known beforehand: one prefix serves every block.
    head = _tag(_BLOCK_TAG) + (32).to_bytes(4, "big")
    middle = (4 * block_tokens).to_bytes(4, "big")
    plain = bytes(4)
    sha256 = hashlib.sha256
    names = []
    try:
        for number in range(count):
            start = number * block_tokens
            body = pack(*tokens[start : start + block_tokens])
            extra = plain
            if extras is not None and number in extras:
                extra = _sized(extras[number])
            tail = sha256(head + tail + middle + body + extra).digest()
            names.append(tail[:NAME_BYTES])
    except struct.error as error:
        raise ValueError(f"a token is a number of 32 bits: {error}") from None
    return Chain(b"".join(names), tail)


def content_names(namespace: bytes, tokens: Sequence[int], block_tokens: int) -> Names:
    """Names of the whole blocks by their tokens alone, packed, in one namespace."""
    pack = struct.Struct(f"<{block_tokens}I").pack
    head = _tag(_CONTENT_TAG) + _sized(namespace)
    middle = (4 * block_tokens).to_bytes(4, "big")
    sha256 = hashlib.sha256
    try:
        return b"".join(
            [
                sha256(head + middle + pack(*tokens[start : start + block_tokens])).digest()[
                    :NAME_BYTES
                ]
                for start in range(0, len(tokens) - block_tokens + 1, block_tokens)
            ]
        )
    except struct.error as error:
        raise ValueError(f"a token is a number of 32 bits: {error}") from None


def alias(engine: int | bytes) -> bytes:
    """The name under which an engine's own hash is kept: 16 bytes.

    Signed and unsigned forms of one 64-bit hash give one name.
    """
    if isinstance(engine, int):
        if not -(2**63) <= engine < _UINT64:
            raise ValueError(f"{engine} does not fit 64 bits")
        return _WEAK + (engine % _UINT64).to_bytes(8, "big")
    if len(engine) == 8:
        return _WEAK + engine
    if len(engine) < NAME_BYTES:
        raise ValueError(f"a hash has 8 bytes, or at least {NAME_BYTES}, not {len(engine)}")
    return engine[:NAME_BYTES]


def is_weak(name: bytes) -> bool:
    """Whether a name has 64 bits only, so that a claim on it must look closer."""
    return name.startswith(_WEAK)


def pack_names(names: Sequence[bytes]) -> Names:
    """Names in one piece; ``ValueError`` for one of another length."""
    packed = b"".join(names)
    if len(packed) != NAME_BYTES * len(names) or any(len(name) != NAME_BYTES for name in names):
        raise ValueError(f"a name has {NAME_BYTES} bytes")
    return packed


def split_names(names: Names) -> list[bytes]:
    """Packed names one by one; ``ValueError`` when the length is no multiple of a name's."""
    if len(names) % NAME_BYTES:
        raise ValueError(f"{len(names)} bytes are no whole number of names")
    return [names[at : at + NAME_BYTES] for at in range(0, len(names), NAME_BYTES)]


def _tagged(tag: bytes, *parts: bytes) -> bytes:
    return _tag(tag) + b"".join([_sized(part) for part in parts])


def _tag(tag: bytes) -> bytes:
    return len(tag).to_bytes(2, "big") + tag


def _sized(part: bytes) -> bytes:
    return len(part).to_bytes(4, "big") + part
