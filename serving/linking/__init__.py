"""Position-independent reuse: documents computed once, alone, and linked into any prompt in any order.

Prefix caching reuses what stands at the beginning of a prompt, unchanged, and nothing behind the first
difference. A retrieval prompt is a set of documents in some order, so most of it is computed again and
again. EPIC (arXiv 2410.15332) splits the work in two::

    compile   a chunk alone, from position 0            once for each chunk, anywhere
    link      put chunks one behind the other, turn their keys to where they stand now, compute
              a few rows anew over everything, and go on as if it had all been computed

Keys are kept *before* rotation: that form belongs to no place, has one canonical copy in a region, and is
moved to any place by one rotation. What cannot be moved is what the rows believed: a chunk computed
alone took its first tokens for the beginning of everything, and they gather attention that belongs to
the prompt's real beginning. *LegoLink-k* computes the first k rows of every chunk but the first anew, which
takes that belief from them; the last segment (the question) is always computed::

    chunk A           chunk B               chunk C             question
    |.............|   |kkkk.........|   |kkkk.........|   |qqqqqqqqqq|        k, q: computed anew

*LegoLink-0* pays at compile time instead: chunks are compiled behind a few dummy tokens whose rows are then
dropped, so no row of the chunk ever was a beginning. For comparison there are naive concatenation
(k = 0 without dummies) and CacheBlend (arXiv 2405.16444), which computes the rows anew whose keys and
values deviate most in an early layer.

What was linked is an approximation. It is never stored under the names of exact blocks
(`serving.linking.naming`), and with k at least as long as every chunk it is the full computation itself.
"""

from __future__ import annotations

from serving.linking.blending import Blended, blend
from serving.linking.chunk import Chunk, compile_chunk
from serving.linking.lego import Linked, link, recomputed_rows
from serving.linking.linker import LinkCounts, Linker, Placing
from serving.linking.naming import chunk_namespace, linked_namespace
from serving.linking.splitting import split_fixed, split_semantic
from serving.linking.store import ChunkStore

__all__ = [
    "Blended",
    "Chunk",
    "ChunkStore",
    "LinkCounts",
    "Linked",
    "Linker",
    "Placing",
    "blend",
    "chunk_namespace",
    "compile_chunk",
    "link",
    "linked_namespace",
    "recomputed_rows",
    "split_fixed",
    "split_semantic",
]
