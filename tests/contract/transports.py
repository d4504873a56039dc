"""Both transports, for the tests of what they must have in common; and a peer in a process of its own.

``python -m tests.contract.transports KIND NAME`` serves eight sealed pages and says its address.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys

from serving.transport import Endpoint, Geometry, Limits, Memory, SharedCarrier, TcpCarrier

KINDS = ("shared", "tcp")
LAYERS = 3
GEOMETRY = Geometry(8, 2 * LAYERS * 96, 96)
_numbers = itertools.count()


def endpoint(kind: str, name: str, *memories: Memory, **limits) -> Endpoint:
    """An endpoint of a kind, at an address that nobody else has."""
    bounds = Limits(**{"timeout_s": 5.0, **limits})
    if kind == "shared":
        return Endpoint(
            SharedCarrier(f"test-{os.getpid()}-{next(_numbers)}"), name, memories, bounds
        )
    return Endpoint(TcpCarrier("127.0.0.1:0", limits=bounds), name, memories, bounds)


def filled(salt: int, geometry: Geometry = GEOMETRY) -> Memory:
    """A memory with different bytes in each page, none of them sealed."""
    memory = Memory(geometry)
    for page in range(geometry.pages):
        memory.page(page)[:] = content(salt, page, geometry)
    return memory


def content(salt: int, page: int, geometry: Geometry = GEOMETRY) -> bytes:
    """What `filled` puts into a page."""
    word = (salt * 1_000_003 + page * 7919 + 1) % (1 << 32)
    words = -(-geometry.page_bytes // 4)
    return b"".join(
        [((word + step * 2_654_435_761) % (1 << 32)).to_bytes(4, "big") for step in range(words)]
    )[: geometry.page_bytes]


async def _serve(kind: str, name: str) -> None:
    memory = filled(9)
    for page in range(memory.geometry.pages):
        memory.seal(page, 1)
    async with endpoint(kind, name, memory) as here:
        sys.stdout.write(here.address + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], sys.argv[2]))
