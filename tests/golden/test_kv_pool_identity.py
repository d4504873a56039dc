"""Names of blocks and namespaces are in stores and in engines: they must never change."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from kv_pool.blocks import chain, content_names, root
from kv_pool.namespace import Kind, Namespace, Scheme, derive_salt

FILE = Path(__file__).parent / "kv_pool" / "identity.txt"
PLAIN = Namespace(
    tenant="acme", model="llama", revision="r1", dtype="bf16", layout="nhd", block_tokens=4
)
FULL = Namespace(
    tenant="acme",
    model="llama",
    revision="r1",
    dtype="fp8_e4m3",
    layout="hnd",
    block_tokens=4,
    attention="sliding:4096",
    scheme=Scheme.VLLM_SHA256,
    seed=b"7",
    kind=Kind.ADAPTER,
    adapter=bytes(range(32)),
    salt=derive_salt(b"a secret of the service", "acme", "inner"),
    parent=PLAIN.digest(),
)
TOKENS = [0, 1, 2, 3, 4, 5, 6, 2**32 - 1, 9]


def recorded() -> str:
    """Everything that is fixed, one a line."""
    start = root(PLAIN.digest())
    lines = {
        "namespace plain": PLAIN.digest(),
        "namespace full": FULL.digest(),
        "row full": FULL.encode(),
        "salt": FULL.salt,
        "root": start,
        "root with seed": root(PLAIN.digest(), b"7"),
        "chain": chain(start, TOKENS, 4).names,
        "tail": chain(start, TOKENS, 4).tail,
        "chain with an extra": chain(start, TOKENS, 4, {1: b"image"}).names,
        "content": content_names(PLAIN.digest(), TOKENS, 4),
    }
    return "".join(f"{what}: {value.hex()}\n" for what, value in lines.items())


def test_names_are_as_recorded(update: bool) -> None:
    """Digests, chains and rows are, byte for byte, what the file says."""
    found = recorded()
    if update:
        FILE.write_text(found, encoding="utf-8")
    assert found == FILE.read_text(encoding="utf-8")


@pytest.mark.parametrize("namespace", [PLAIN, FULL], ids=["plain", "full"])
def test_a_field_more_is_another_schema(namespace: Namespace) -> None:
    """A row with more fields than this schema has is not read as if they were not there."""
    fields = list(msgspec.structs.astuple(namespace))
    row = msgspec.msgpack.encode((1, [*fields, "more"]))
    with pytest.raises(ValueError, match="not a namespace"):
        Namespace.decode(row)
