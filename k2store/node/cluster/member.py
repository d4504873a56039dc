"""A process's membership in a cluster: what it is called there, and what it remembers of it.

The node's id and the last map stand in a file beside the store, so that a node that starts while
the control plane is away takes up what it had. Only a folder that has never been a member has to
wait for it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from k2store.config import Settings
from k2store.config.dial import read_dial
from k2store.control.channel import node_credentials
from k2store.control.map import Map
from k2store.control.opening import EMBEDDED, advertised, node_control
from k2store.control.ports import Control, join
from k2store.errors import Corruption, K2Error, Rejected
from k2store.node.cluster.agent import Agent
from k2store.node.cluster.host import ClusterHost, ClusterSettings
from k2store.node.engine import Engine
from k2store.rpc.grpc_transport import PEER_PATH, GrpcDialer

FILE: Final = "cluster.json"
JOIN_S: Final = 0.2
"""Between two attempts to reach the control plane."""
PATIENT_S: Final = 2.0
"""How long a node that remembers its cluster tries the control plane before it starts without."""


class Remembered(Struct, frozen=True):
    """What is kept on disk."""

    node: int
    disk: str
    map: Map


class Member:
    """The membership of one process."""

    def __init__(
        self,
        settings: Settings,
        control: Control,
        path: Path,
        remembered: Remembered,
        *,
        trouble: Callable[[str], None],
    ) -> None:
        """`trouble` is told why the map cannot be followed."""
        self.node = remembered.node
        self.control = control
        self._settings = settings
        self._path = path
        self._disk = remembered.disk
        self._known = remembered.map
        self._trouble = trouble
        self._agent: Agent | None = None
        self._dialer: GrpcDialer | None = None

    @classmethod
    async def enter(
        cls,
        settings: Settings,
        disk: str,
        *,
        waiting: Callable[[str], None],
        trouble: Callable[[str], None],
    ) -> Member:
        """Join, or take up a membership that is remembered; `disk` names the data folder.

        `waiting` is told once why it takes long, `trouble` afterwards why the map cannot be
        followed. Raises K2Error when it can never succeed.
        """
        check(settings)
        path = Path(settings.node.data) / FILE
        remembered = _read(path, disk)
        control = node_control(settings)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        told = False
        address = advertised(settings, settings.node.listen)
        while True:
            try:
                if remembered is not None:
                    check_continuity(remembered, await control.load())
                info = await join(
                    control,
                    settings.node.name,
                    settings.node.region,
                    address,
                    bytes.fromhex(disk),
                    settings.admin.listen,
                )
                present = await control.load()
            except (Rejected, Corruption):
                await control.close()
                raise
            except K2Error as error:
                if remembered is not None and loop.time() - began_s > PATIENT_S:
                    waiting(f"{error.message}; going on with what is remembered")
                    return cls(settings, control, path, remembered, trouble=trouble)
                if not told:
                    told = True
                    waiting(error.message)
                await asyncio.sleep(JOIN_S)
                continue
            joined = Remembered(info.id, disk, present)
            member = cls(settings, control, path, joined, trouble=trouble)
            member.keep(present)
            return member

    @property
    def embedded(self) -> Control | None:
        """The control plane, if this node keeps it for the others."""
        return self.control if self._settings.cluster.control == EMBEDDED else None

    def host(self, own: ClusterSettings) -> Callable[[Engine], ClusterHost]:
        """What the engine takes to become a member."""
        settings = self._settings
        credentials = node_credentials(settings) if settings.tls.authority else None
        dial = read_dial(settings.cluster.dial) if settings.cluster.dial else None
        self._dialer = GrpcDialer(credentials, dial, path=PEER_PATH)
        dialer = self._dialer

        def make(engine: Engine) -> ClusterHost:
            host = ClusterHost(engine, own, dialer)
            self._agent = Agent(self.control, host, keep=self.keep, trouble=self._trouble)
            return host

        return make

    def start(self) -> None:
        """Follow the map from here on; others must be able to reach this node."""
        assert self._agent is not None, "the engine was made without this member's host"
        self._agent.start(self._known)

    def keep(self, present: Map) -> None:
        """Remember a map, durably."""
        self._known = present
        content = msgspec.json.encode(Remembered(self.node, self._disk, present))
        beside = self._path.with_suffix(".new")
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path)

    async def leave(self) -> None:
        """Let go of the control plane and of the streams."""
        if self._agent is not None:
            self._agent.stop()
        await self.control.close()
        if self._dialer is not None:
            await self._dialer.close()


def check(settings: Settings) -> None:
    """Refuse settings under which a member could not be reached, or not be told from strangers."""
    advertise = advertised(settings, settings.node.listen)
    if advertise.rpartition(":")[2] in ("", "0"):
        raise Rejected(
            f"the other nodes cannot reach {advertise}: give node.listen a port of its own, or say "
            "cluster.advertise",
            field="cluster.advertise",
        )
    if settings.tls.certificate and not settings.tls.authority:
        raise Rejected(
            "nodes know each other by their certificates: set tls.authority beside "
            "tls.certificate (`k2 certificates make` makes all of them)",
            field="tls.authority",
        )
    if settings.auth.tokens and not settings.tls.authority:
        raise Rejected(
            "with auth.tokens the streams between nodes must be closed to others: set "
            "tls.certificate, tls.key and tls.authority (`k2 certificates make`)",
            field="tls.authority",
        )
    if settings.cluster.lease_longest < settings.cluster.lease:
        raise Rejected(
            "cluster.lease_longest is the longest cluster.lease that was ever in force; it cannot "
            "be shorter than the present one",
            field="cluster.lease_longest",
        )


def check_continuity(remembered: Remembered, present: Map) -> None:
    """Refuse a control plane that is not the one this node has known, or no more.

    Raises Corruption when it has forgotten maps, and Rejected when it has replaced this node.
    """
    if present.version < remembered.map.version:
        raise Corruption(
            f"this node has seen version {remembered.map.version} of the map and the control plane "
            f"has version {present.version}: it has lost its data, or belongs to another cluster. "
            "Epochs and ids that it gave would be given again",
            what="control plane",
        )
    if present.node(remembered.node) is None:
        raise Rejected(
            f"this folder is that of node {remembered.node}, whose place another disk of the same "
            "name has taken: start with an empty data folder, or under another name",
            field="node.data",
        )


def _read(path: Path, disk: str) -> Remembered | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        remembered = msgspec.json.decode(content, type=Remembered)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Corruption(f"{path} cannot be understood: {error}", what="cluster") from error
    # A file copied from another folder says nothing about this one.
    return remembered if remembered.disk == disk else None
