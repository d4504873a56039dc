"""Namespaces for what an engine says: one model here, its adapters, salts and attention groups.

An engine's events tell apart blocks that its hashes do not. Each such *scope* gets a namespace of its own. An
adapter is known by the digest of its content, which no event carries: blocks of an adapter that nobody
has described are passed over, since a name alone must never make two contents equal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

import msgspec

from kv_pool.events.wire import Scope
from kv_pool.namespace import SALT_BYTES, Kind, Namespace

_SALT_TAG: Final = b"k2.cache-salt"
_FULL: Final = frozenset({"", "full", "full_attention"})


class Scopes:
    """Resolves scopes for `kv_pool.events.engine.Engine`; remembers what has to be declared.

    base      the engine's model without adapter; its `block_tokens` stand in where an event has none
    adapters  sha256 of the content of each adapter, by name
    """

    def __init__(self, base: Namespace, adapters: Mapping[str, bytes]) -> None:
        self._base = base
        self._adapters = dict(adapters)
        self._new: list[Namespace] = []

    def resolve(self, scope: Scope, block_tokens: int) -> bytes | None:
        """The namespace's digest; None for blocks that are not served."""
        changes: dict[str, object] = {"attention": _attention(scope, self._base.attention)}
        if block_tokens:
            changes["block_tokens"] = block_tokens
        if scope.adapter is not None:
            content = self._adapters.get(scope.adapter)
            if content is None:
                return None
            changes |= {"kind": Kind.ADAPTER, "adapter": content}
        if scope.salt:
            changes["salt"] = salt_of(scope.salt, self._base.salt)
        try:
            namespace = msgspec.structs.replace(self._base, **changes)
        except ValueError:
            return None
        self._new.append(namespace)
        return namespace.digest()

    def take_new(self) -> list[Namespace]:
        """Namespaces that were resolved since the last call, to be declared."""
        new, self._new = self._new, []
        return new


def salt_of(text: str, before: bytes = b"") -> bytes:
    """A salt out of somebody's word; empty for no word.

    It keeps names apart and guards nothing: who must not match blocks of others is kept from it by
    `kv_pool.namespace.derive_salt`, with a secret.
    """
    if not text:
        return before
    return hashlib.sha256(_SALT_TAG + before + text.encode()).digest()[:SALT_BYTES]


def _attention(scope: Scope, usual: str) -> str:
    """The kind of an attention group, as a namespace names it."""
    kind = usual if scope.spec in _FULL else scope.spec
    if scope.window:
        kind += f":{scope.window}"
    return f"{kind}#{scope.group}" if scope.group else kind
