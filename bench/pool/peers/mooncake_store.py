"""Runs in the peers' environment: Mooncake's master, asked through its own client.

``python mooncake_store.py CHAINS SECONDS MASTER METADATA``: puts the new blocks of each publish as one
batch of small objects, then asks for each prompt which of its blocks exist. Prints one JSON object.
"""

import json
import struct
import sys
import time
from array import array

OBJECT = b"k" * 64
"""What stands for a block: the metadata is measured, not the copying of bytes."""


def chains(path: str) -> list[tuple[list[str], int]]:
    """Keys of the blocks and the first new one, of each prompt (`bench.pool.chains.write`)."""
    found = []
    with open(path, "rb") as file:  # noqa: PTH123 - as plain as it can be
        while head := file.read(12):
            worker, blocks, new = struct.unpack("<III", head)
            names = file.read(16 * blocks).hex()
            keys = [f"{worker}-{names[at : at + 32]}" for at in range(0, len(names), 32)]
            found.append((keys, new))
    return found


def main() -> None:
    """Measure and print."""
    from mooncake.store import MooncakeDistributedStore

    path, seconds, master, metadata = sys.argv[1:]
    prompts = chains(path)
    store = MooncakeDistributedStore()
    failed = store.setup("127.0.0.1", metadata, 2 << 30, 64 << 20, "tcp", "", master)
    if failed:
        raise SystemExit(f"the store's client does not start: {failed}")
    clock = time.perf_counter_ns
    puts, asks = array("q"), array("q")
    blocks = 0
    until = time.perf_counter() + float(seconds)
    for keys, new in prompts:
        if new < len(keys):
            began = clock()
            failed = store.put_batch(keys[new:], [OBJECT] * (len(keys) - new))
            puts.append(clock() - began)
            if failed:
                raise SystemExit(f"a put failed: {failed}")
            blocks += len(keys) - new
        if time.perf_counter() > until:
            break
    until = time.perf_counter() + float(seconds)
    for keys, _ in prompts:
        began = clock()
        store.batch_is_exist(keys)
        asks.append(clock() - began)
        if time.perf_counter() > until:
            break
    print(
        json.dumps(
            {
                "publish_per_s": len(puts) / (sum(puts) / 1e9),
                "publish_blocks_per_s": blocks / (sum(puts) / 1e9),
                "publish_p50_us": sorted(puts)[len(puts) // 2] / 1e3,
                "match_p50_us": sorted(asks)[len(asks) // 2] / 1e3,
                "match_p99_us": sorted(asks)[len(asks) * 99 // 100] / 1e3,
            }
        )
    )
    sys.stdout.flush()
    store.close()


if __name__ == "__main__":
    main()
