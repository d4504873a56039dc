"""Runs in the peers' environment: NVIDIA Dynamo's `RadixTree`, called from Python as we call ours.

``python dynamo_tree.py CHAINS ROUNDS``: applies the stored events of all publishes, then asks for the
scores of each prompt. Prints one JSON object. A block's 64 bits are the first half of its name.
"""

import gc
import json
import struct
import sys
import time
from array import array


def chains(path: str) -> list[tuple[int, list[int], int]]:
    """Worker, hashes of the blocks, and the first new one, of each prompt (`bench.pool.chains.write`)."""
    found = []
    with open(path, "rb") as file:  # noqa: PTH123 - as plain as it can be
        while head := file.read(12):
            worker, blocks, new = struct.unpack("<III", head)
            halves = struct.unpack(f"<{2 * blocks}Q", file.read(16 * blocks))
            found.append((worker, list(halves[::2]), new))
    return found


def stored(number: int, hashes: list[int], new: int) -> bytes:
    """The event that tells the new blocks of a prompt."""
    blocks = [
        {"block_hash": one, "tokens_hash": one, "mm_extra_info": None} for one in hashes[new:]
    ]
    data = {"stored": {"parent_hash": hashes[new - 1] if new else None, "blocks": blocks}}
    return json.dumps({"event_id": number, "data": data, "dp_rank": 0}).encode()


def main() -> None:
    """Measure and print."""
    from dynamo._core import RadixTree

    prompts = chains(sys.argv[1])
    events = [
        (worker, stored(number, hashes, new))
        for number, (worker, hashes, new) in enumerate(prompts)
        if new < len(hashes)
    ]
    blocks = sum(len(hashes) - new for _, hashes, new in prompts)
    gc.collect()
    gc.freeze()
    taken_s = []
    for _ in range(3):
        tree = RadixTree()
        began = time.perf_counter()
        for worker, event in events:
            tree.apply_event(worker, event)
        taken_s.append(time.perf_counter() - began)
    asked = [hashes for _, hashes, _ in prompts]
    clock = time.perf_counter_ns
    taken = array("q")
    scores = 0
    for _ in range(int(sys.argv[2])):
        scores = 0
        for hashes in asked:
            began = clock()
            found = tree.find_matches(hashes).scores
            taken.append(clock() - began)
            scores += sum(found.values())
    ordered = sorted(taken)
    print(
        json.dumps(
            {
                "match_p50_us": ordered[len(ordered) // 2] / 1e3,
                "match_p99_us": ordered[len(ordered) * 99 // 100] / 1e3,
                "apply_blocks_per_s": blocks / sorted(taken_s)[1],
                "scores": scores,
            }
        )
    )


if __name__ == "__main__":
    main()
