"""`k2 pool match`: how much of a prompt is held, and by whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from k2store.cli.reach import StoreVerb, stamp_fields
from k2store.cli.verb import output
from k2store.errors import Rejected
from kv_pool.blocks import NAME_BYTES, Names, chain, root
from kv_pool.edge.cli.asking import Digest, learner, tier_word
from kv_pool.namespace import Scheme

if TYPE_CHECKING:
    from kv_pool.edge.following import Tree


@click.command("match", cls=StoreVerb)
@click.argument("namespace", type=Digest())
@click.option("--names", metavar="HEX", help="Names of the prompt's blocks, 32 digits each.")
@click.option("--tokens", metavar="N,N,...", help="The prompt's tokens, instead of names.")
async def match(*, namespace: bytes, names: str | None, tokens: str | None) -> None:
    """Show how much of a prompt each holder in NAMESPACE has: a hint, as of a stamp.

    With --tokens the blocks are named by the namespace's own description, which must be declared.
    """
    if (names is None) == (tokens is None):
        raise click.UsageError("give --names or --tokens")
    async with learner() as (_, tree):
        packed = _names(names) if names is not None else _named(tree, namespace, tokens or "")
        found = tree.match(namespace, packed)
        staleness_s = tree.staleness_s
    rows = [
        (str(holder.worker), tier_word(holder.tier), blocks)
        for holder, blocks in sorted(
            found.depths.items(), key=lambda item: (-item[1], str(item[0].worker), item[0].tier)
        )
    ]
    if output().as_json:
        columns = ("worker", "tier", "blocks")
        document = {
            "blocks": len(packed) // NAME_BYTES,
            "longest": found.blocks,
            "holders": [dict(zip(columns, row, strict=True)) for row in rows],
            "staleness_s": staleness_s,
        }
        output().document(document | stamp_fields(found.as_of), "")
        return
    output().note(
        f"{found.blocks} of {len(packed) // NAME_BYTES} blocks, {staleness_s:.3f} s behind at most"
    )
    output().table("holders", ("worker", "tier", "blocks"), rows)


def _names(text: str) -> Names:
    try:
        packed = bytes.fromhex(text)
    except ValueError:
        packed = b""
    if not packed or len(packed) % NAME_BYTES:
        raise Rejected(f"names are {2 * NAME_BYTES} hexadecimal digits each", field="names")
    return packed


def _named(tree: Tree, digest: bytes, text: str) -> Names:
    namespace = tree.learner.namespace(digest)
    if namespace is None:
        raise Rejected(f"nobody has declared the namespace {digest.hex()}", field="namespace")
    if namespace.scheme is not Scheme.K2:
        raise Rejected(
            f"blocks of this namespace are named by an engine ({namespace.scheme.value}): give --names",
            field="tokens",
        )
    try:
        tokens = [int(word) for word in text.split(",")]
        return chain(root(digest, namespace.seed), tokens, namespace.block_tokens).names
    except ValueError as error:
        raise Rejected(f"tokens are numbers of 32 bits: {error}", field="tokens") from None
