"""Power cuts under the store alone: a writer of turns and rows, stopped in the middle of its work."""

from __future__ import annotations

import os
import subprocess
import sys
from random import Random

from k2store.testing.disk_image import DiskImage
from tests.contract.storage_writer import last_acknowledged, verify
from tests.integration.power_switch import power

__all__ = ["power"]

CUTS = int(os.environ.get("K2_POWER_CUTS", "3"))


def test_power_cuts_lose_nothing_acknowledged(power: DiskImage) -> None:
    """A writer on a disk whose power is cut again and again finds everything it had acknowledged
    after each restart: turns, and rows as far as they are marked settled (K2_POWER_CUTS)."""
    random = Random(7)
    store = power.path / "store"
    last = 0
    for cut in range(CUTS):
        command = [sys.executable, "-m", "tests.contract.storage_writer", str(store), str(cut)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as writer:
            acknowledged = last_acknowledged(writer, random.randrange(20, 250))
            power.cut()
            # Acknowledgements that were on their way count; a sync after the cut must fail.
            acknowledged = last_acknowledged(writer) or acknowledged
        assert writer.returncode != 0
        power.restore()
        assert acknowledged > last
        last = verify(store, acknowledged)
