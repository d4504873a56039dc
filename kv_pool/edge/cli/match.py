"""`k2 pool match`: how much of a prompt is held, and by whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from k2store.cli.reach import StoreVerb, database, stamp_fields
from k2store.cli.verb import output
from k2store.errors import Rejected
from kv_pool import keys
from kv_pool.blocks import NAME_BYTES, Names, chain, root
from kv_pool.edge.cli.asking import Digest, learner, matcher, tier_word
from kv_pool.namespace import Namespace, Scheme

if TYPE_CHECKING:
    from k2store.client.database import Database
    from kv_pool.edge.thin import ThinMatch


@click.command("match", cls=StoreVerb)
@click.argument("namespace", type=Digest())
@click.option("--names", metavar="HEX", help="Names of the prompt's blocks, 32 digits each.")
@click.option("--tokens", metavar="N,N,...", help="The prompt's tokens, instead of names.")
async def match(*, namespace: bytes, names: str | None, tokens: str | None) -> None:
    """Show how much of a prompt each holder in NAMESPACE has: a hint, as of a stamp.

    The node answers out of its learner; where it serves no pool (`node.services`), one is made for the
    question. Either way the answer shows all that was committed before. With --tokens the blocks are named by
    the namespace's own description, which must be declared.
    """
    if (names is None) == (tokens is None):
        raise click.UsageError("give --names or --tokens")
    async with database() as db:
        async with db.snapshot(strong=True) as view:
            await view.get(b"d/")
        packed = _names(names) if names is not None else await _named(db, namespace, tokens or "")
    found = await _asked(namespace, packed, view.at)
    rows = [(str(one.worker), tier_word(one.tier), one.blocks) for one in found.holders]
    if output().as_json:
        columns = ("worker", "tier", "blocks")
        document = {
            "blocks": len(packed) // NAME_BYTES,
            "longest": found.blocks,
            "holders": [dict(zip(columns, row, strict=True)) for row in rows],
            "staleness_s": found.staleness_s,
        }
        output().document(document | stamp_fields(found.as_of), "")
        return
    output().note(
        f"{found.blocks} of {len(packed) // NAME_BYTES} blocks, {found.staleness_s:.3f} s behind at most"
    )
    output().table("holders", ("worker", "tier", "blocks"), rows)


async def _asked(namespace: bytes, names: Names, since: int) -> ThinMatch:
    from kv_pool.edge.thin import NOT_SERVED, HeldBy, ThinMatch

    async with matcher() as thin:
        try:
            return await thin.match([(namespace, names)], since=since)
        except Rejected as error:
            if error.field != NOT_SERVED:
                raise
    async with learner() as (_, tree):
        found, staleness_s = tree.match(namespace, names), tree.staleness_s
    holders = [HeldBy(holder.worker, holder.tier, depth) for holder, depth in found.depths.items()]
    holders.sort(key=lambda one: (-one.blocks, str(one.worker), one.tier))
    return ThinMatch(found.blocks, tuple(holders), found.as_of, staleness_s)


def _names(text: str) -> Names:
    try:
        packed = bytes.fromhex(text)
    except ValueError:
        packed = b""
    if not packed or len(packed) % NAME_BYTES:
        raise Rejected(f"names are {2 * NAME_BYTES} hexadecimal digits each", field="names")
    return packed


async def _named(db: Database, digest: bytes, text: str) -> Names:
    value = await db.get(keys.namespace(digest))
    if value is None:
        raise Rejected(f"nobody has declared the namespace {digest.hex()}", field="namespace")
    namespace = Namespace.decode(value)
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
