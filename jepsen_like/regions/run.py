"""A run from nothing to its verdict: cluster, schedule, campaign, record."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from random import Random
from typing import Final

import msgspec

from jepsen_like.nemesis.drawing import SECOND_NS, Plan, draw
from jepsen_like.nemesis.drivers import DRIVERS
from jepsen_like.nemesis.schedule import Schedule, write
from jepsen_like.regions.campaign import Campaign, Result
from jepsen_like.regions.load import PACE_S, Load
from jepsen_like.regions.scene import BOUND_NS, REGIONS, Scene, scene
from jepsen_like.report import record as records

SCHEDULE: Final = "schedule.json"


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a run shall be."""

    seed: int
    seconds: float = 60.0
    nodes: int = 9
    """In all, as many in each region."""
    clients: int = 2
    """Connections in each region."""
    kinds: tuple[str, ...] = tuple(sorted(DRIVERS))
    honest: bool = True
    schedule: Schedule | None = None
    images: Path | None = None
    record: Path | None = None
    pace_s: float = PACE_S


async def run(wanted: Wanted) -> Result:
    """Start everything, run, stop everything."""
    rng = Random(wanted.seed)
    stage = scene(
        REGIONS,
        max(1, wanted.nodes // len(REGIONS)),
        folder=None if wanted.record is None else _fresh(wanted.record) / "nodes",
        images=wanted.images,
    )
    opened = await asyncio.to_thread(stage.__enter__)
    try:
        campaign, schedule = _campaign(wanted, opened, rng)
        result = await campaign.run()
    finally:
        await asyncio.to_thread(stage.__exit__, None, None, None)
    result.seed = wanted.seed
    campaign.judge(result)
    if wanted.record is not None:
        (wanted.record / SCHEDULE).write_bytes(write(schedule))
        if campaign.record is not None:
            records.write(campaign.record, wanted.record / records.NAME)
    return result


def _campaign(wanted: Wanted, stage: Scene, rng: Random) -> tuple[Campaign, Schedule]:
    load = Load(stage.cluster, rng, wanted.clients)
    schedule = wanted.schedule or _draw(wanted, stage, load, rng)
    campaign = Campaign(
        stage.cluster,
        schedule,
        load=load,
        disks=stage.disks,
        honest=wanted.honest,
        pace_s=wanted.pace_s,
    )
    return campaign, schedule


def _draw(wanted: Wanted, stage: Scene, load: Load, rng: Random) -> Schedule:
    nodes = {name: node.region for name, node in stage.cluster.nodes.items()}
    clients = {f"client-{region}": region for region in stage.cluster.regions}
    plan = Plan(
        hosts={**nodes, **clients},
        nodes=list(nodes),
        keeper=next(iter(nodes)),
        borders=load.borders,
        bound_ns=BOUND_NS,
        kinds=wanted.kinds,
        honest=wanted.honest,
    )
    return draw(rng, plan, int(wanted.seconds * SECOND_NS))


def _fresh(folder: Path) -> Path:
    """An empty folder in that place."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder
