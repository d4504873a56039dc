"""Identity: what differs has another name, what is equal has the same, and nothing is guessed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv_pool.blocks import (
    NAME_BYTES,
    alias,
    chain,
    content_names,
    is_weak,
    pack_names,
    root,
    split_names,
)
from kv_pool.namespace import Kind, Namespace, Scheme, derive_salt

BASE = Namespace(
    tenant="acme", model="llama", revision="r1", dtype="bf16", layout="nhd", block_tokens=16
)
SECRET = b"a secret of the service"
TOKENS = st.lists(st.integers(0, 2**32 - 1), max_size=40)


@dataclass(frozen=True)
class Change:
    """One field of a namespace and another value of it."""

    field: str
    value: object


CHANGES = [
    Change("tenant", "other"),
    Change("model", "llama2"),
    Change("revision", "r2"),
    Change("dtype", "fp8_e4m3"),
    Change("layout", "hnd"),
    Change("block_tokens", 32),
    Change("attention", "sliding:4096"),
    Change("scheme", Scheme.VLLM_SHA256),
    Change("seed", b"1"),
    Change("salt", derive_salt(SECRET, "acme")),
    Change("parent", bytes(16)),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.field)
def test_every_field_decides_the_namespace(change: Change) -> None:
    """Two namespaces that differ in one field have two digests, so neither matches the other."""
    other = msgspec.structs.replace(BASE, **{change.field: change.value})
    assert other.digest() != BASE.digest()
    assert Namespace.decode(other.encode()) == other


def test_the_changes_cover_every_field() -> None:
    """No field of a namespace is missing from the table above; the kinds have a test of their own."""
    covered = {change.field for change in CHANGES} | {"kind", "retention", "adapter"}
    assert covered == set(Namespace.__struct_fields__)


def test_kinds_are_kept_apart() -> None:
    """Exact, sparse, linked and adapter blocks live in four namespaces, and say why they differ."""
    replace = msgspec.structs.replace
    content = hashlib.sha256(b"adapter weights").digest()
    kinds = [
        BASE,
        replace(BASE, kind=Kind.SPARSE, retention="raas:4096"),
        replace(BASE, kind=Kind.SPARSE, retention="raas:1024"),
        replace(BASE, kind=Kind.LINKED),
        replace(BASE, kind=Kind.ADAPTER, adapter=content),
        replace(BASE, kind=Kind.ADAPTER, adapter=hashlib.sha256(b"trained on").digest()),
    ]
    assert len({one.digest() for one in kinds}) == len(kinds)
    for wrong in (
        {"kind": Kind.SPARSE},
        {"retention": "raas:4096"},
        {"kind": Kind.ADAPTER},
        {"adapter": content},
        {"adapter": b"name", "kind": Kind.ADAPTER},
        {"salt": b"short"},
        {"parent": b"short"},
        {"block_tokens": 0},
        {"model": ""},
    ):
        with pytest.raises(ValueError, match=r"\w"):
            replace(BASE, **wrong)


def test_what_is_no_namespace_is_refused() -> None:
    """Rows that are damaged, or of another schema, are refused; no namespace is half filled."""
    for value in (b"", b"\x00", BASE.encode()[:-1], msgspec.msgpack.encode((1, ["acme"]))):
        with pytest.raises(ValueError, match=r"\w"):
            Namespace.decode(value)
    with pytest.raises(ValueError, match="schema 2"):
        Namespace.decode(msgspec.msgpack.encode((2, BASE)))


def test_barriers_name_their_parent() -> None:
    """A prompt may cross from a namespace into those that name it as parent, and into no other."""
    tenant = msgspec.structs.replace(BASE, parent=BASE.digest())
    assert tenant.follows(BASE.digest())
    assert not tenant.follows(tenant.digest())
    assert not BASE.follows(b"")


def test_salts_depend_on_everything() -> None:
    """A salt is that of one secret, tenant and label; parts do not run into each other."""
    salts = {
        derive_salt(SECRET, "acme"),
        derive_salt(SECRET, "acme", "inner"),
        derive_salt(SECRET, "acmeinner"),
        derive_salt(SECRET, "acmei", "nner"),
        derive_salt(b"another secret of it", "acme"),
    }
    assert len(salts) == 5
    with pytest.raises(ValueError, match=r"\w"):
        derive_salt(b"short", "acme")


@given(TOKENS, TOKENS, st.integers(1, 8))
def test_names_are_equal_as_long_as_prefixes_are(
    left: list[int], right: list[int], block_tokens: int
) -> None:
    """Two prompts have equal names for exactly the whole blocks of their common prefix."""
    start = root(BASE.digest())
    mine = split_names(chain(start, left, block_tokens).names)
    theirs = split_names(chain(start, right, block_tokens).names)
    for number, (one, other) in enumerate(zip(mine, theirs, strict=False)):
        end = (number + 1) * block_tokens
        assert (one == other) == (left[:end] == right[:end])


@given(TOKENS, st.integers(1, 8), st.integers(0, 5))
def test_a_chain_goes_on_from_its_tail(tokens: list[int], block_tokens: int, cut: int) -> None:
    """Naming a prompt in two parts gives the names of naming it at once."""
    start = root(BASE.digest(), b"seed")
    whole = chain(start, tokens, block_tokens)
    first = chain(start, tokens[: cut * block_tokens], block_tokens)
    second = chain(first.tail, tokens[cut * block_tokens :], block_tokens)
    assert first.names + second.names == whole.names
    assert second.tail == whole.tail
    assert whole.blocks == len(tokens) // block_tokens


def test_extras_and_seeds_change_names_from_there_on() -> None:
    """An image in block 1 changes block 1 and all behind it, and nothing before it."""
    start = root(BASE.digest())
    tokens = list(range(12))
    plain = split_names(chain(start, tokens, 4).names)
    image = split_names(chain(start, tokens, 4, {1: b"image"}).names)
    assert image[0] == plain[0]
    assert not set(image[1:]) & set(plain)
    assert chain(start, tokens, 4, {1: b""}).names != chain(start, tokens, 4, {1: b"\0" * 4}).names
    assert root(BASE.digest(), b"seed") != start


def test_content_names_ignore_the_place() -> None:
    """Equal tokens have one content name wherever they stand; it is never a chained name."""
    digest = BASE.digest()
    names = split_names(content_names(digest, [1, 2, 3, 4, 1, 2, 9], 2))
    assert len(names) == 3
    assert names[0] == names[2] != names[1]
    assert not set(names) & set(split_names(chain(root(digest), [1, 2, 3, 4, 1, 2], 2).names))
    assert content_names(bytes(16), [1, 2], 2) != content_names(digest, [1, 2], 2)


def test_engine_hashes_are_aliases() -> None:
    """64-bit hashes of either sign are one weak name; longer ones are cut and are strong."""
    assert alias(-1) == alias(2**64 - 1) == bytes(8) + b"\xff" * 8 == alias(b"\xff" * 8)
    assert is_weak(alias(7))
    digest = hashlib.sha256(b"block").digest()
    assert alias(digest) == digest[:NAME_BYTES]
    assert not is_weak(alias(digest))
    for wrong in (2**64, -(2**63) - 1, b"", b"nine byte", b"\0" * 15):
        with pytest.raises(ValueError, match=r"\w"):
            alias(wrong)


def test_bad_input_is_refused() -> None:
    """Tokens that do not fit, tails that are none and names of another length raise ValueError."""
    start = root(BASE.digest())
    for tokens in ([-1, 0], [2**32, 0]):
        with pytest.raises(ValueError, match=r"\w"):
            chain(start, tokens, 2)
        with pytest.raises(ValueError, match=r"\w"):
            content_names(bytes(16), tokens, 2)
    with pytest.raises(ValueError, match=r"\w"):
        chain(b"tail", [1], 1)
    with pytest.raises(ValueError, match=r"\w"):
        chain(start, [1], 0)
    with pytest.raises(ValueError, match=r"\w"):
        pack_names([b"short"])
    with pytest.raises(ValueError, match=r"\w"):
        pack_names([b"x" * 15, b"x" * 17])
    with pytest.raises(ValueError, match=r"\w"):
        split_names(b"x" * 17)
