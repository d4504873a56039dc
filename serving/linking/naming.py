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

FILLER: Final = 2**32 - 1
"""Stands behind a chunk's last token up to the end of its last block: no vocabulary has it."""

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


def filled(token_ids: Sequence[int], block_tokens: int) -> tuple[int, ...]:
    """The tokens of a chunk in whole blocks: the last one is filled up, so that all rows have a name."""
    return (*token_ids, *([FILLER] * (-len(token_ids) % block_tokens)))


def chunk_blocks(namespace: Namespace, token_ids: Sequence[int]) -> tuple[Chain, Names]:
    """The blocks of a chunk, the last one filled up: their chain in its namespace, and their content names."""
    digest, size = namespace.digest(), namespace.block_tokens
    tokens = filled(token_ids, size)
    return chain(root(digest, namespace.seed), tokens, size), content_names(digest, tokens, size)


def _check(exact: Namespace) -> None:
    if exact.kind is not Kind.EXACT:
        raise ValueError(f"chunks are of an exact namespace, not of one of kind {exact.kind.name}")
