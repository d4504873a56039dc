"""Power cuts under a whole node with clients on it: what they were told survives the cut."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from random import Random

import pytest

from jepsen_like.kill.campaign import Campaign
from jepsen_like.kill.server import Server
from k2store.testing.disk_image import DiskImage
from tests.integration.power_switch import power

__all__ = ["power"]

CUTS = int(os.environ.get("K2_POWER_CUTS", "3"))


@pytest.mark.slow
@pytest.mark.root
def test_power_cuts_under_a_node_lose_nothing_acknowledged(
    power: DiskImage, tmp_path: Path
) -> None:
    """A loaded node whose disk loses power comes back with all it had acknowledged, nothing it had
    refused, and an answer for every outcome its clients did not learn (K2_POWER_CUTS)."""

    async def cut(server: Server) -> None:
        # The node runs on for a moment, on a disk that takes nothing: it may acknowledge nothing.
        power.cut()
        await asyncio.sleep(random.uniform(0, 0.05))
        await server.kill()
        power.restore()

    random = Random(13)
    server = Server(power.path / "data", tmp_path / "node.log")
    result = asyncio.run(Campaign(server, random, crash=cut).run(rounds=CUTS))
    assert result.violations == []
    assert result.rounds == CUTS
    assert result.acknowledged >= 10 * CUTS
    assert result.unknown == result.committed + result.aborted
