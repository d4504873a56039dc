"""Fragments: where blocks with given tokens lie, whatever is before them in their prompts.

Position-independent reuse computes the parts of a prompt that depend on the place anew and takes the
rest from a block with the same tokens. The index costs as much memory as everything else in a
learner together, so it is there only where it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from kv_pool.blocks import NAME_BYTES
from kv_pool.namespace import DIGEST_BYTES

if TYPE_CHECKING:
    from kv_pool.learner import Holder
    from kv_pool.records import Run


class Fragment(Struct, frozen=True):
    """A block by its content: who has it, in which run (namespace, name of the first block), where.

    depth  the place of the block in the prompt for which it was computed
    """

    holder: Holder
    namespace: bytes
    first: bytes
    offset: int
    depth: int


class Fragments:
    """Content names with the places of their blocks."""

    __slots__ = ("_places",)

    def __init__(self) -> None:
        self._places: dict[bytes, list[tuple[Holder, bytes, int, int]]] = {}

    def find(self, content: bytes) -> tuple[Fragment, ...]:
        """All places of one content, in the order in which they came."""
        return tuple(
            [
                Fragment(
                    holder, part[:DIGEST_BYTES], part[DIGEST_BYTES + 1 :], offset, depth + offset
                )
                for holder, part, offset, depth in self._places.get(content, ())
            ]
        )

    def add(self, holder: Holder, part: bytes, run: Run) -> None:
        """The live blocks of a run, as far as their content is known."""
        for offset in range(_known(run)):
            name = run.content[offset * NAME_BYTES : (offset + 1) * NAME_BYTES]
            place = (holder, part, offset, run.depth)
            places = self._places.setdefault(name, [])
            if place not in places:
                places.append(place)

    def discard(self, holder: Holder, part: bytes, run: Run) -> None:
        """Forget a run."""
        for offset in range(_known(run)):
            name = run.content[offset * NAME_BYTES : (offset + 1) * NAME_BYTES]
            places = self._places.get(name, [])
            place = (holder, part, offset, run.depth)
            if place in places:
                places.remove(place)
            if not places:
                self._places.pop(name, None)


def _known(run: Run) -> int:
    return min(run.live, len(run.content) // NAME_BYTES)
