"""A store in a folder of your own process: no server, the same transactions.

python examples/embedded.py [FOLDER]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import k2store


def main(folder: Path) -> None:
    with k2store.open(folder) as db:
        for txn in db.transactions():
            with txn:
                runs = int(txn.get(b"runs") or 0) + 1
                txn.put(b"runs", b"%d" % runs)
        versions = db.history(b"runs")
        print(f"run {runs}; the store remembers {len(versions)} of them")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as made:
            main(Path(made))
            main(Path(made))
