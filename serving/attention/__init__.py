"""Attention over keys and values that are kept in pages.

A pool is one tensor, ``[pages, layers, 2, page_tokens, kv_heads, head_dim]``: page-major, so that a
page with all its layers is one contiguous piece of memory that can be copied, sent and summed up in
one go. Keys lie in it *after* rotation by their positions. A sequence reaches its rows through a
table of pages; row ``i`` of a sequence is the token at position ``i``.

::

    sequence     0 ......... 15 | 16 ........ 31 | 32 .. 37
    table           page 7      |    page 2      |  page 9
    slot of 35                                      9 * 16 + 3

**One order of summation.** A key that was computed here, found in a cache, or pulled from another
worker must be the same key to the last bit, or greedy decoding drifts. So the bits of a row may not
depend on what else is in the batch: sequences are attended alone, keys in blocks of a fixed number,
and every matrix product gets a number of rows for which the library takes the same path
(`serving.attention.blockwise`, `serving.model.llama`). The tests compare bits, not tolerances.

The reference (`reference`) is float64 without pages. `paged` is the backend of the CPU; the Triton
kernels are the one of a GPU.
"""

from __future__ import annotations

from serving.attention.batch import Batch, Part
from serving.attention.paged import PagedAttention
from serving.attention.protocol import Attention
from serving.attention.rotary import Rotary

__all__ = ["Attention", "Batch", "PagedAttention", "Part", "Rotary"]
