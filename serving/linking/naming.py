"""Under which names chunks and linked prompts go into the directory: never those of exact blocks.

::

    exact     Kind.EXACT   layout as it is           rows as the model computes them for their prefix
    chunk     Kind.EXACT   layout + ", unrotated"    rows of a text that begins at 0; found by content
    chunk behind dummies, and every linked prompt:   Kind.LINKED, approximate

A chunk behind nothing is exactly what the model computes for it; only its keys have another form, so the
layout keeps it apart. Directory and learner offer blocks of one namespace only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from kv_pool.blocks import Chain, Names, chain, content_names, root
from kv_pool.namespace import Kind, Namespace

_UNROTATED: Final = ", unrotated"


def chunk_namespace(exact: Namespace, lead: int = 0) -> Namespace:
    """Where compiled chunks of a model live, of those behind `lead` dummy tokens."""
    _check(exact)
    layout = exact.layout + _UNROTATED
    if not lead:
        return msgspec.structs.replace(exact, layout=layout)
    return msgspec.structs.replace(exact, layout=f"{layout} behind {lead}", kind=Kind.LINKED)


def linked_namespace(exact: Namespace, k: int) -> Namespace:
    """Where prompts that LegoLink-k has put together may be kept for their own continuation."""
    _check(exact)
    return msgspec.structs.replace(exact, layout=f"{exact.layout}, linked {k}", kind=Kind.LINKED)


def chunk_blocks(namespace: Namespace, token_ids: Sequence[int]) -> tuple[Chain, Names]:
    """The whole blocks of a chunk: their chain in its namespace, and their content names.

    The rows behind the last whole block have no name; who fetches a chunk computes them itself.
    """
    digest = namespace.digest()
    names = chain(root(digest, namespace.seed), token_ids, namespace.block_tokens)
    return names, content_names(digest, token_ids, namespace.block_tokens)


def _check(exact: Namespace) -> None:
    if exact.kind is not Kind.EXACT:
        raise ValueError(f"chunks are of an exact namespace, not of one of kind {exact.kind.name}")
