"""Namespaces: everything that must be equal before one block may stand in for another.

A namespace is named by a digest over its description, so a worker with another revision of the
weights, another layout or another adapter lives in another namespace and simply misses; it can never
be handed a block that it would misread. What a namespace knows of an adapter is the digest of its
*content*: two adapters of one name, or one adapter under two numbers, are told apart rightly.

A namespace may name a *parent*. Then its prompts begin with blocks of the parent (a system prompt
that many tenants share) and go on with blocks of their own, which nobody outside can match::

    parent   ──▶ s0 ── s1 ── s2
                              ├── a3 ── a4      namespace of tenant a, parent named
                              └── b3 ── b4      namespace of tenant b, parent named

The salt that keeps tenants apart is derived here from a secret of the service: a salt that the
caller may choose is no boundary.

This module knows nothing of rows or workers.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from typing import Final

import msgspec
from msgspec import Struct

DIGEST_BYTES: Final = 16
SALT_BYTES: Final = 16
SCHEMA: Final = 1
"""Version of the description; a change of its fields is another schema and other digests."""

_DOMAIN: Final = b"k2.namespace"
_SALT_DOMAIN: Final = b"k2.salt"


class Kind(enum.IntEnum):
    """What the bytes of a block are worth; kinds are never offered for one another.

    EXACT    what the model computes for these tokens behind exactly this prefix
    SPARSE   exact, but a retention policy has dropped some of it
    LINKED   computed at another place and linked in: approximate
    ADAPTER  computed through an adapter of the weights
    """

    EXACT = 0
    SPARSE = 1
    LINKED = 2
    ADAPTER = 3


class Scheme(enum.StrEnum):
    """Who names the blocks of a namespace, and how.

    K2 is the scheme of `kv_pool.blocks`. The others are engines' own names, taken as they come.
    """

    K2 = "k2-sha256"
    VLLM_SHA256 = "vllm-sha256"
    VLLM_SHA256_CBOR = "vllm-sha256-cbor"
    VLLM_XXHASH = "vllm-xxhash"
    SGLANG_INT64 = "sglang-int64"
    XXH3 = "xxh3-64"


class Namespace(Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """The description of a namespace; also the value of its row, which never changes.

    tenant         whose prompts; empty for prompts that everybody may share
    model          name of the model
    revision       digest or revision of its weights
    dtype          logical type of the cached numbers, such as ``bf16`` or ``fp8_e4m3``
    layout         order of the axes of a block, heads and layers, as the engine names it
    block_tokens   tokens of a block
    attention      kind of the attention group, such as ``full`` or ``sliding:4096``
    scheme, seed   who names the blocks, and the seed of the names
    kind           see `Kind`
    retention      the policy that made a SPARSE block sparse; empty for all others
    adapter        sha256 of the adapter's content; empty without one
    salt           derived by `derive_salt`; empty without one
    parent         digest of the namespace in which prompts begin; empty for none
    """

    tenant: str
    model: str
    revision: str
    dtype: str
    layout: str
    block_tokens: int
    attention: str = "full"
    scheme: Scheme = Scheme.K2
    seed: bytes = b""
    kind: Kind = Kind.EXACT
    retention: str = ""
    adapter: bytes = b""
    salt: bytes = b""
    parent: bytes = b""

    def __post_init__(self) -> None:
        if not 1 <= self.block_tokens <= 65_536:
            raise ValueError(f"a block has 1 to 65,536 tokens, not {self.block_tokens}")
        if not self.model:
            raise ValueError("a namespace names its model")
        if (self.kind is Kind.SPARSE) != bool(self.retention):
            raise ValueError("sparse blocks, and only they, name the policy that made them sparse")
        if (self.kind is Kind.ADAPTER) != bool(self.adapter):
            raise ValueError("blocks of an adapter, and only they, carry the digest of its content")
        if len(self.adapter) not in {0, 32}:
            raise ValueError(f"an adapter's digest has 32 bytes, not {len(self.adapter)}")
        if len(self.salt) not in {0, SALT_BYTES}:
            raise ValueError(f"a salt has {SALT_BYTES} bytes, not {len(self.salt)}")
        if len(self.parent) not in {0, DIGEST_BYTES}:
            raise ValueError(f"a parent is named by {DIGEST_BYTES} bytes, not {len(self.parent)}")

    def digest(self) -> bytes:
        """16 bytes that name the namespace."""
        body = msgspec.msgpack.encode((SCHEMA, self))
        tagged = len(_DOMAIN).to_bytes(2, "big") + _DOMAIN + body
        return hashlib.sha256(tagged).digest()[:DIGEST_BYTES]

    def encode(self) -> bytes:
        """The value of the namespace's row."""
        return msgspec.msgpack.encode((SCHEMA, self))

    @staticmethod
    def decode(value: bytes) -> Namespace:
        """Inverse of `encode`; ``ValueError`` for what is no namespace of this schema."""
        try:
            schema, namespace = _ROWS.decode(value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(f"not a namespace: {error}") from None
        if schema != SCHEMA:
            raise ValueError(f"a namespace of schema {schema}; this version knows {SCHEMA}")
        return namespace

    def follows(self, digest: bytes) -> bool:
        """Whether a prompt may begin in the namespace with this digest and go on here."""
        return bool(self.parent) and self.parent == digest


_ROWS: Final = msgspec.msgpack.Decoder(tuple[int, Namespace])


def derive_salt(secret: bytes, tenant: str, label: str = "") -> bytes:
    """The salt of a tenant (and of one barrier inside it), from a secret of the service.

    Without the secret nobody can name another tenant's blocks, so nobody can probe for them.
    """
    if len(secret) < 16:
        raise ValueError(f"a secret has at least 16 bytes, not {len(secret)}")
    parts = (_SALT_DOMAIN, tenant.encode(), label.encode())
    message = b"".join([len(part).to_bytes(4, "big") + part for part in parts])
    return hmac.digest(secret, message, "sha256")[:SALT_BYTES]
