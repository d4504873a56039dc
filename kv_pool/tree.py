"""The prompt tree: which holders have which blocks, for all prompts of a namespace at once.

A block's name stands for its whole prefix, so a tree needs no edges: whoever knows the next name of
a prompt knows the only place where it can be. The tree is therefore one dictionary of *runs*, each
under the name of its first block::

    prompt      h0 h1 h2 h3 h4 h5 h6 h7
                                                    holders
    runs        h0 ──▶ h0 h1 h2                     {a, b, c}
                h3 ──▶ h3 h4 h5 h6                  {a, b}
                h7 ──▶ h7                           {a}

    match       at h0: a b c live on, 3 blocks; at h3: c stops at 3; at h7: b stops at 7; a has 8

A run is a ``bytes`` of packed names beside an ``int`` whose bits are holders. Every holder of a run
has all of it: where somebody has less, the run is split there.

**Threads.** A holder adds *stretches*, consecutive blocks of one prompt, disjoint from each other. The
one invariant: from the first name of a stretch, going from run to run by their lengths, one meets
the whole stretch and nothing else, and the holder's bit is in every run on the way. Adding makes such
a thread; splitting a run at any place keeps all threads through it, since what is split off is added
again under its own first name. A stretch that branches off in the middle of another one begins under
a name of its own, so the walk goes on wherever prompt and run part. From this follows that a walk
along a prompt gives every holder exactly its longest prefix, *whatever the order in which stretches
came and went*: a stretch whose
predecessor is missing lies in the dictionary and is not reached. No orphan waits for its parent,
and a holder with a hole in the middle of a prompt is no special case. Nothing is searched for:
cost grows with the number of runs on the way, about one for ten blocks, and not with holders.

What is not promised: a holder whose stretches overlap each other may be given less than it has,
never more. The directory publishes disjoint ones.
"""

from __future__ import annotations

from typing import TypeAlias

from kv_pool.blocks import NAME_BYTES, Names

Run: TypeAlias = tuple[Names, int]
"""Consecutive blocks, and a bit for each holder that has all of them."""


class PromptTree:
    """Runs of blocks with their holders; a holder is a bit, and what it means is the caller's."""

    __slots__ = ("runs",)

    def __init__(self) -> None:
        self.runs: dict[bytes, Run] = {}

    def add(self, names: Names, mask: int) -> None:
        """Note that the holders of `mask` have these consecutive blocks."""
        runs = self.runs
        # What is split off is added again. It may meet runs that lie behind it already and split
        # those in turn, as often as a stretch has blocks: a list, not a recursion.
        waiting = [(names, mask)]
        for names, mask in waiting:
            at = 0
            size = len(names)
            while at < size:
                first = names[at : at + NAME_BYTES]
                run = runs.get(first)
                if run is None:
                    runs[first] = (names[at:], mask)
                    break
                blocks, holders = run
                if names.startswith(blocks, at):
                    if holders | mask != holders:
                        runs[first] = (blocks, holders | mask)
                    at += len(blocks)
                else:
                    shared = common(names, at, blocks)
                    runs[first] = (blocks[:shared], holders | mask)
                    waiting.append((blocks[shared:], holders))
                    at += shared

    def discard(self, names: Names, mask: int) -> None:
        """Note that the holders of `mask` have these blocks no longer; others keep theirs.

        `names` begins where a stretch was added: to shorten one, discard it and add what is left.
        Every block is looked up, also inside a run that is already done: if a holder's stretches
        overlap, some of its runs lie there, and none may outlive the stretches.
        """
        runs = self.runs
        for at in range(0, len(names), NAME_BYTES):
            first = names[at : at + NAME_BYTES]
            run = runs.get(first)
            if run is None or not run[1] & mask:
                continue
            blocks, holders = run
            left = holders & ~mask
            shared = len(blocks) if names.startswith(blocks, at) else common(names, at, blocks)
            if left:
                runs[first] = (blocks[:shared], left)
            else:
                del runs[first]
            if shared < len(blocks):
                self.add(blocks[shared:], holders)

    def depth(self, names: Names, mask: int) -> tuple[int, int]:
        """The longest prefix that any one holder of `mask` has: blocks, and who has them."""
        runs = self.runs
        at = 0
        size = len(names)
        while at < size:
            run = runs.get(names[at : at + NAME_BYTES])
            if run is None:
                break
            blocks, holders = run
            holders &= mask
            if not holders:
                break
            mask = holders
            at += len(blocks) if names.startswith(blocks, at) else common(names, at, blocks)
        return (at // NAME_BYTES, mask) if at else (0, 0)

    def walk(self, names: Names, mask: int) -> list[tuple[int, int]]:
        """Where holders of `mask` stop: (blocks, who has exactly so many), shortest first.

        Who has none is not among them.
        """
        runs = self.runs
        stops = []
        at = 0
        size = len(names)
        while at < size:
            run = runs.get(names[at : at + NAME_BYTES])
            if run is None:
                break
            blocks, holders = run
            holders &= mask
            if holders != mask:
                if at:
                    stops.append((at // NAME_BYTES, mask ^ holders))
                if not holders:
                    return stops
                mask = holders
            width = len(blocks)
            # Most runs are of one block, which has been compared already.
            if width == NAME_BYTES or names.startswith(blocks, at):
                at += width
            else:
                at += common(names, at, blocks)
        if at:
            stops.append((at // NAME_BYTES, mask))
        return stops

    def path(self, names: Names) -> list[tuple[int, int]]:
        """The runs on the way of a prompt: (blocks up to its end, holders of it)."""
        runs = self.runs
        steps = []
        at = 0
        size = len(names)
        while at < size:
            run = runs.get(names[at : at + NAME_BYTES])
            if run is None:
                break
            blocks, holders = run
            at += len(blocks) if names.startswith(blocks, at) else common(names, at, blocks)
            steps.append((at // NAME_BYTES, holders))
        return steps


def common(names: Names, at: int, run: Names) -> int:
    """How many bytes of a run the names have from `at` on; whole names."""
    low = 0
    high = min(len(run), len(names) - at) // NAME_BYTES
    while low < high:
        middle = (low + high + 1) // 2
        if names.startswith(run[low * NAME_BYTES : middle * NAME_BYTES], at + low * NAME_BYTES):
            low = middle
        else:
            high = middle - 1
    return low * NAME_BYTES
