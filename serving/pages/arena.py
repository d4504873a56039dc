"""Pages of a single layer, private to the sequences of one worker.

A policy that drops keys and values layer by layer cannot use pages that hold all layers: no page would
ever be free. Sequences under such a policy decode into this arena, with a table of pages for each layer.
Its pages are in no index and are never shared; `pack` makes ordinary pages of a
stretch that is still there in all layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

import k2store
from serving.pages.geometry import Geometry
from serving.pages.store import CPU


class Arena:
    """So many pages of one layer each, and whose they are.

    tensor  ``[pages, 2, page_tokens, kv_heads, head_dim]``
    """

    def __init__(self, geometry: Geometry, pages: int, device: torch.device = CPU) -> None:
        if pages < 1:
            raise ValueError(f"an arena has at least one page, not {pages}")
        self.geometry = geometry
        self.pages = pages
        shape = (pages, *geometry.page_shape[1:])
        self.tensor = torch.zeros(shape, dtype=geometry.torch_dtype, device=device)
        self._free = list(range(pages - 1, -1, -1))
        self._owners: dict[int, int] = {}

    @property
    def free_pages(self) -> int:
        """How many pages are nobody's."""
        return len(self._free)

    def take(self, owner: int) -> int:
        """A page for a sequence; `k2store.Overloaded` when there is none."""
        if not self._free:
            raise k2store.Overloaded(
                f"all {self.pages} pages of the arena are taken", limit="arena"
            )
        page = self._free.pop()
        self._owners[page] = owner
        return page

    def give_back(self, page: int, owner: int) -> None:
        """A sequence needs one of its pages no more."""
        assert self._owners.get(page) == owner, "a page is given back by its owner"
        del self._owners[page]
        self._free.append(page)

    def release(self, owner: int) -> int:
        """A sequence needs none of its pages any more; gives how many it had."""
        pages = [page for page, other in self._owners.items() if other == owner]
        for page in pages:
            self.give_back(page, owner)
        return len(pages)

    def pack(self, layer_pages: Sequence[int], destination: torch.Tensor) -> None:
        """Copy one page of each layer, in order, into an ordinary page.

        destination  ``[layers, 2, page_tokens, kv_heads, head_dim]``
        """
        assert len(layer_pages) == self.geometry.layers, "a page holds all layers"
        torch.index_select(
            self.tensor,
            0,
            torch.tensor(layer_pages, device=self.tensor.device),
            out=destination,
        )

    def check_integrity(self) -> None:
        """Free and owned pages are all pages, each of them once."""
        assert len(self._free) + len(self._owners) == self.pages
        assert sorted([*self._free, *self._owners]) == list(range(self.pages))
