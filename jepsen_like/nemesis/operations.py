"""What operators do while everything else goes wrong: leaders moved, partitions split."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Final

from jepsen_like.nemesis.schedule import Fault
from jepsen_like.nemesis.turning import turning
from jepsen_like.nemesis.world import Unable
from k2store.testing.child import K2

if TYPE_CHECKING:
    from jepsen_like.nemesis.world import Running, World

PATIENCE_S: Final = 10.0
"""How long an order may take that a fault beside it holds up."""
SPLIT_S: Final = 40.0
"""The same for a split, which its leader writes once it can, and which is led some time after."""
LOOK_S: Final = 0.3
COMMAND_S: Final = 30.0


def _k2(world: World, *words: str) -> str | None:
    """Run a verb of `k2` that asks the control plane; what it complains of, None for nothing."""
    cluster = world.cluster
    control = cluster.node(world.keeper).seat.address
    command = [*K2, "--config", str(cluster.client_config()), *words, "--control", control]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=COMMAND_S
        )
    except subprocess.TimeoutExpired:
        return "it took too long"
    return done.stderr.strip() if done.returncode else None


def move(world: World, fault: Fault) -> Running:
    """Another voter shall lead a partition; `amount` chooses both.

    An heir that another fault keeps from it is forgotten by its leader, so it is asked for again.
    """
    number, heir = _choose(world, int(fault.amount))
    led: list[str] = []

    def look() -> None:
        led.extend(name for one, name in world.leads().items() if one == number)

    with turning(LOOK_S, look):
        wrong = _k2(world, "move", str(number), heir)
        if wrong is not None:
            raise Unable(wrong)
        yield
        if not world.until(lambda: heir in led, PATIENCE_S):
            _k2(world, "move", str(number), "any")
            _k2(world, "move", str(number), heir)
            world.until(lambda: heir in led, PATIENCE_S)
    return f"{heir} led partition {number}, after {led[0]}" if heir in led else None


def _choose(world: World, chance: int) -> tuple[int, str]:
    """A partition, and a voter of it that does not lead it."""
    statuses = world.statuses()
    names = {status.cluster.node: name for name, status in statuses.items()}
    for status in statuses.values():
        names |= {peer.node: peer.name for peer in status.cluster.peers}
    leads = world.leads()
    able = [
        (one.partition, sorted({names[voter] for voter in voters if voter in names} - {name}))
        for name, status in sorted(statuses.items())
        for one in status.partitions
        for voters in (one.replica.voters,)
        if leads.get(one.partition) == name
    ]
    # Only heirs that answer: one that is down would not take it.
    able = [(number, [heir for heir in heirs if heir in statuses]) for number, heirs in able]
    able = [(number, heirs) for number, heirs in able if heirs]
    if not able:
        raise Unable("no partition has another voter that answers")
    number, heirs = able[chance % len(able)]
    return number, heirs[chance // len(able) % len(heirs)]


def split(world: World, fault: Fault) -> Running:
    """A partition begins at the key that is the target."""
    key = fault.target
    wrong = _k2(world, "split", key)
    if wrong is not None:
        raise Unable(wrong)
    yield

    def led() -> bool:
        leads = world.leads()
        return any(
            one.start == key.encode() and leads.get(one.partition) == name
            for name, status in world.statuses().items()
            for one in status.partitions
        )

    return f"a partition from {key} is led" if world.until(led, SPLIT_S) else None
