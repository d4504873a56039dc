"""A cluster under attack: three voters in one region, of which leaders are killed.

Everything the clients of a campaign write lies in three partitions, with leaders on different nodes;
transfers between accounts cross from one to the other. A node that is back gets its leads again, so
every kill meets a leader.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import k2store
from jepsen_like.kill.server import NodeFailed
from k2store.testing.child import K2
from k2store.testing.cluster import ClusterNode, LocalCluster, local_cluster

REGION: Final = "fra"
VOTERS: Final = 3
SPLITS: Final = ("bank/4", "c")
LEAD_S: Final = 60.0
LOOK_S: Final = 0.05


class ClusterServer:
    """Three nodes, and a way to kill one that leads. `Campaign` speaks to it as to one server.

    control  where the control plane is, if it is not in the first node; else that one is spared
    """

    def __init__(self, folder: Path, *, control: str | None = None) -> None:
        own: dict[str, Any] = {} if control is None else {"cluster__control": control}
        self._made = local_cluster(
            (REGION,),
            nodes_per_region=VOTERS,
            wan=None,
            tls=False,
            path=folder,
            keyspaces=(f"default:zone:{REGION}",),
            **own,
        )
        self._control = control
        self._stack = contextlib.ExitStack()
        self._cluster: LocalCluster | None = None
        self._starting: list[ClusterNode] = []
        self._turn = 0
        self.kills: list[str] = []

    @property
    def cluster(self) -> LocalCluster:
        """The cluster, once it was spawned."""
        assert self._cluster is not None, "it was spawned"
        return self._cluster

    @property
    def address(self) -> str:
        """Every node; the first one first."""
        return self.cluster.address()

    @property
    def victims(self) -> Sequence[str]:
        """The nodes that may be killed."""
        return list(self.cluster.nodes)[0 if self._control else 1 :]

    async def spawn(self) -> None:
        """Start what is down; the first time everything."""
        if self._cluster is None:
            self._cluster = await asyncio.to_thread(self._stack.enter_context, self._made)
            await asyncio.to_thread(self._arrange)
            return
        for node in self.cluster.nodes.values():
            if node.state == "down":
                await asyncio.to_thread(node.spawn)
                self._starting.append(node)

    async def ready(self) -> None:
        """Return when every node that was started can be used."""
        starting, self._starting = self._starting, []
        for node in starting:
            if not node.running:
                continue  # killed again
            try:
                await asyncio.to_thread(node.await_ready)
            except k2store.K2Error as error:
                raise NodeFailed(f"{node.name}: {error.message}") from None

    async def kill(self) -> None:
        """End everything: the campaign is over."""
        await asyncio.to_thread(self._stack.close)

    async def kill_a_leader(self) -> None:
        """kill -9 of the next node, once it leads something."""
        name = await self._next_leader()
        self.kills.append(name)
        await asyncio.to_thread(self.cluster.node(name).kill)

    async def pause_a_leader(self, seconds: float) -> None:
        """Stop the next leader where it is (SIGSTOP), long enough to lose its lease, and let it go on."""
        node = self.cluster.node(await self._next_leader())
        await asyncio.to_thread(node.pause)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(node.resume)

    async def _next_leader(self) -> str:
        name = self.victims[self._turn % len(self.victims)]
        self._turn += 1
        await asyncio.to_thread(self.until, f"{name} leads", lambda: name in self.leaders())
        return name

    def leaders(self) -> set[str]:
        """The nodes that lead a partition now, as they say themselves."""
        return {look.node.name for look in self.cluster.look() if look.leads}

    def until(self, what: str, holds: Callable[[], bool]) -> None:
        """Return when a condition holds; `NodeFailed` when it never does."""
        patience_s = time.monotonic() + LEAD_S
        while not holds():
            if time.monotonic() > patience_s:
                raise NodeFailed(f"it never held that {what}")
            time.sleep(LOOK_S)

    def _arrange(self) -> None:
        for key in SPLITS:
            self._k2("split", key)
        for number in range(len(SPLITS) + 1):
            self._k2("move", str(number + 1), self.victims[number % len(self.victims)])
        self.until("leads are spread", lambda: self.leaders() == set(self.victims))

    def _k2(self, *words: str) -> None:
        control = self._control or next(iter(self.cluster.nodes.values())).seat.address
        done = subprocess.run(
            [*K2, "--config", str(self.cluster.client_config()), *words, "--control", control],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise NodeFailed(f"k2 {' '.join(words)}: {done.stderr.strip()}")
