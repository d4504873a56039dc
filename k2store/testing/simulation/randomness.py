"""Streams of chance: one seed, as many independent generators as there are uses for them.

Every user of chance has its own stream, named by who draws and what for. So a draw added in one
place shifts no draw in another, and a recorded seed keeps its meaning through small changes.
"""

from __future__ import annotations

import hashlib
import random


def derive(seed: int, *names: str | int) -> int:
    """A 64-bit seed for the stream with these names; independent of Python's own hashing."""
    digest = hashlib.blake2b(digest_size=8)
    for name in (seed, *names):
        part = str(name).encode()
        # Lengths keep ("a", "bc") and ("ab", "c") apart.
        digest.update(len(part).to_bytes(4, "big") + part)
    return int.from_bytes(digest.digest(), "big")


def stream(seed: int, *names: str | int) -> random.Random:
    """The generator for these names, at its beginning."""
    return random.Random(derive(seed, *names))
