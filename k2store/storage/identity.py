"""The file that says what a directory is."""

from __future__ import annotations

import json

from xxhash import xxh3_64_hexdigest

from k2store.storage.failures import Damaged, FormatUnknown
from k2store.storage.frame import FORMAT
from k2store.storage.ports import Identity

__all__ = ["FORMAT", "decode_identity", "encode_identity"]


def encode_identity(identity: Identity) -> bytes:
    """One line of JSON."""
    body = {
        "k2store": "store",
        "format": identity.format,
        "store": identity.store,
        "created_ns": identity.created_ns,
    }
    return json.dumps(body | {"check": _check(body)}).encode() + b"\n"


def decode_identity(content: bytes, name: str) -> Identity:
    """FormatUnknown for another format, Damaged when it does not verify."""
    try:
        body = json.loads(content)
        check = body.pop("check")
        verified = check == _check(body) and body["k2store"] == "store"
        identity = Identity(int(body["format"]), str(body["store"]), int(body["created_ns"]))
        store = bytes.fromhex(identity.store)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{name} is damaged: {error}", file=name) from error
    if verified and identity.format != FORMAT:
        raise FormatUnknown(
            f"{name}: the store has format {identity.format}, this version of k2store knows"
            f" {FORMAT}; use a version that knows it, or restore a backup into a new directory",
            field="format",
        )
    if not verified or len(store) != 16:
        raise Damaged(f"{name} is damaged: its check does not match", file=name)
    return identity


def _check(body: dict[str, object]) -> str:
    digest: str = xxh3_64_hexdigest(json.dumps(body, sort_keys=True).encode())
    return digest
