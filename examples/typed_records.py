"""Records instead of bytes, and conditions on their fields.

python examples/typed_records.py [k2://host:port]
"""

from __future__ import annotations

import sys

import msgspec

import k2store


class Block(msgspec.Struct, frozen=True):
    """Where a block of a KV cache lies."""

    tier: str
    bytes: int


def main(address: str) -> None:
    with k2store.blocking.connect(address) as db:
        blocks = db.collection("block", Block)
        blocks.put(b"7f", Block("hbm", 4096))
        # Checked at the stamp of the write, in one message: nobody can come between.
        db.delete(b"block/7f", conditions=[k2store.field(b"block/7f", "tier").equals("hbm")])
        blocks.put(b"7f", Block("disk", 4096))
        try:
            db.delete(b"block/7f", conditions=[k2store.field(b"block/7f", "tier").equals("hbm")])
        except k2store.ConditionFailed as error:
            print(f"kept: {type(error).__name__}")
        print(blocks.get(b"7f"))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "k2://127.0.0.1:7400")
