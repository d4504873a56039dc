"""The pages of one tier: a tensor, and a seal for each page whose bytes are complete.

A seal has the generation of the page's slot and a checksum of its bytes. The order is: bytes, then seal; and
on the way out, seal, then bytes. So bytes under a seal never change, and whoever copied them and
finds the checksum has what was sealed.
"""

from __future__ import annotations

import ctypes
from typing import Final

import torch
import xxhash
from msgspec import Struct

from serving.pages.geometry import Geometry
from serving.pages.memory import Memory, PageMemory

CPU: Final = torch.device("cpu")


class Seal(Struct, frozen=True):
    """What a sealed page is: the generation of its slot, and xxh3-64 of its bytes."""

    generation: int
    checksum: int


class PageStore:
    """Pages of one tier.

    tensor  ``[pages, layers, 2, page_tokens, kv_heads, head_dim]``
    memory  where the bytes are: memory of this process unless one is given; None on another device
    """

    def __init__(
        self,
        geometry: Geometry,
        pages: int,
        *,
        memory: PageMemory | None = None,
        device: torch.device = CPU,
    ) -> None:
        if pages < 1:
            raise ValueError(f"a tier has at least one page, not {pages}")
        self.geometry = geometry
        self.pages = pages
        self.page_bytes = geometry.page_bytes
        self._seals: list[Seal | None] = [None] * pages
        shape = (pages, *geometry.page_shape)
        self.memory: PageMemory | None = None
        if device.type == "cpu":
            self.memory = memory or Memory(pages * self.page_bytes)
            self._bytes = self.memory.data[: pages * self.page_bytes]
            self.tensor = torch.frombuffer(self._bytes, dtype=geometry.torch_dtype).view(shape)
        else:
            assert memory is None, "memory of the host is for tiers on the CPU"
            self.tensor = torch.zeros(shape, dtype=geometry.torch_dtype, device=device)

    def read(self, page: int) -> memoryview:
        """The bytes of a page: on the CPU the page itself, elsewhere a copy."""
        if self.memory is not None:
            return self._bytes[page * self.page_bytes : (page + 1) * self.page_bytes]
        copy = self.tensor[page].cpu().contiguous()
        return memoryview(ctypes.string_at(copy.data_ptr(), self.page_bytes))

    def write(self, page: int, payload: bytes | memoryview) -> None:
        """Put bytes into a page that is not sealed."""
        assert self._seals[page] is None, "a sealed page is not written"
        assert len(payload) == self.page_bytes, "a page is written as a whole"
        if self.memory is not None:
            self._bytes[page * self.page_bytes : (page + 1) * self.page_bytes] = payload
        else:
            numbers = torch.frombuffer(bytearray(payload), dtype=self.geometry.torch_dtype)
            self.tensor[page].copy_(numbers.view(self.geometry.page_shape))

    def checksum(self, page: int) -> int:
        """xxh3-64 of the bytes that are in a page now."""
        return xxhash.xxh3_64_intdigest(self.read(page))

    def seal(self, page: int, generation: int) -> Seal:
        """The bytes are complete: from here on they do not change until `void`."""
        seal = Seal(generation, self.checksum(page))
        self._seals[page] = seal
        if self.memory is not None:
            self.memory.seal(page, generation, seal.checksum)
        return seal

    def seal_of(self, page: int) -> Seal | None:
        """The seal of a page; None while its bytes are nobody's."""
        return self._seals[page]

    def void(self, page: int) -> None:
        """The bytes are nobody's any more."""
        self._seals[page] = None
        if self.memory is not None:
            self.memory.free(page)

    def close(self) -> None:
        """Let go of what outlives the process."""
        if self.memory is not None:
            self.memory.close()
