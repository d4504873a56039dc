"""A process's membership in a cluster: what it is called there, and what it remembers of it.

The node's id and the last map stand in a file beside the store, so that a node that starts while
the control plane is away takes up what it had. Only a folder that has never been a member has to
wait for it.

How often the folder was started stands there as well, and in the map. A folder that has counted less
than the map is an old copy, put back from a backup or a snapshot of a disk: entries and promises that
the node has acknowledged since are not in it, so it may take no part. The count goes to the disk
first, so that no crash makes a present folder look old. A copy that is put back while the process runs
that it was taken from has the same count; leaders tell that one what it has forgotten.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from k2store.config import Settings
from k2store.config.dial import read_dial
from k2store.control.channel import node_credentials
from k2store.control.map import Map, NodeInfo
from k2store.control.opening import EMBEDDED, advertised, node_control
from k2store.control.ports import Control, join
from k2store.control.transitions import old_copy
from k2store.errors import Corruption, K2Error, Rejected
from k2store.node.cluster.agent import Agent
from k2store.node.cluster.host import ClusterHost, ClusterSettings
from k2store.node.engine import Engine
from k2store.rpc.grpc_transport import PEER_PATH, GrpcDialer

FILE: Final = "cluster.json"
JOIN_S: Final = 0.2
"""Between two attempts to reach the control plane."""
LIFE_BYTES: Final = 8
PATIENT_S: Final = 2.0
"""How long a node that remembers its cluster tries the control plane before it starts without."""


class Remembered(Struct, frozen=True):
    """What is kept on disk. `node` is 0 before the first answer of the control plane."""

    node: int
    disk: str
    map: Map
    starts: int = 0


class Member:
    """The membership of one process."""

    def __init__(
        self,
        settings: Settings,
        control: Control,
        path: Path,
        remembered: Remembered,
        life: bytes,
        *,
        trouble: Callable[[str], None],
        told: bool = True,
    ) -> None:
        """`life` names this process; `trouble` is told why the map cannot be followed; `told`:
        the control plane knows of this start.
        """
        self.node = remembered.node
        self.control = control
        self._settings = settings
        self._path = path
        self._disk = remembered.disk
        self._known = remembered.map
        self._starts = remembered.starts
        self._trouble = trouble
        self._life = life
        self._told = told
        self._telling: asyncio.Task[None] | None = None
        self._engine: Engine | None = None
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
        remembered = _read(path, disk) or Remembered(0, disk, Map())
        known = remembered.node > 0
        life = os.urandom(LIFE_BYTES)
        this = replace(remembered, starts=remembered.starts + 1)
        control = node_control(settings)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        told = counted = False
        while True:
            try:
                if known:
                    check_continuity(remembered, await control.load(), life)
                if not counted:
                    _write(path, this)
                    counted = True
                info = await _join(control, settings, this, life)
                present = await control.load()
            except (Rejected, Corruption):
                await control.close()
                raise
            except K2Error as error:
                if known and loop.time() - began_s > PATIENT_S:
                    waiting(f"{error.message}; going on with what is remembered")
                    _write(path, this)
                    return cls(settings, control, path, this, life, trouble=trouble, told=False)
                if not told:
                    told = True
                    waiting(error.message)
                await asyncio.sleep(JOIN_S)
                continue
            joined = replace(this, node=info.id, map=present)
            member = cls(settings, control, path, joined, life, trouble=trouble)
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
            self._engine = engine
            host = ClusterHost(engine, replace(own, starts=self._starts), dialer)
            self._agent = Agent(self.control, host, keep=self.keep, trouble=self._trouble)
            return host

        return make

    def start(self) -> None:
        """Follow the map from here on; others must be able to reach this node."""
        assert self._agent is not None, "the engine was made without this member's host"
        self._agent.start(self._known)
        if not self._told:
            self._telling = asyncio.get_running_loop().create_task(self._tell())

    def keep(self, present: Map) -> None:
        """Remember a map, durably."""
        self._known = present
        _write(self._path, self._remembered)

    @property
    def _remembered(self) -> Remembered:
        return Remembered(self.node, self._disk, self._known, self._starts)

    async def _tell(self) -> None:
        """Tell of a start that the control plane was not there for, once it is; an old copy ends."""
        assert self._engine is not None, "the engine was made with this member's host"
        while True:
            try:
                await _join(self.control, self._settings, self._remembered, self._life)
            except Rejected as error:
                self._engine.fail(Corruption(error.message, what="cluster"))
                return
            except K2Error:
                await asyncio.sleep(JOIN_S)
            else:
                return

    async def leave(self) -> None:
        """Let go of the control plane and of the streams."""
        if self._telling is not None:
            self._telling.cancel()
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


def check_continuity(remembered: Remembered, present: Map, life: bytes = b"") -> None:
    """Refuse a control plane that is not the one this node has known, or no more.

    `life` names this process. Raises Corruption when the control plane has forgotten maps, and
    Rejected when it has replaced this node, or has seen it started more often than its folder was.
    """
    if present.version < remembered.map.version:
        raise Corruption(
            f"this node has seen version {remembered.map.version} of the map and the control plane "
            f"has version {present.version}: it has lost its data, or belongs to another cluster. "
            "Epochs and ids that it gave would be given again",
            what="control plane",
        )
    node = present.node(remembered.node)
    if node is None:
        raise Rejected(
            f"this folder is that of node {remembered.node}, whose place another disk of the same "
            "name has taken: start with an empty data folder, or under another name",
            field="node.data",
        )
    if node.starts > remembered.starts and node.life != life:
        raise Rejected(old_copy(node, remembered.starts), field="node.data")


async def _join(
    control: Control, settings: Settings, remembered: Remembered, life: bytes
) -> NodeInfo:
    return await join(
        control,
        settings.node.name,
        settings.node.region,
        advertised(settings, settings.node.listen),
        bytes.fromhex(remembered.disk),
        settings.admin.listen,
        remembered.starts,
        life,
    )


def _write(path: Path, remembered: Remembered) -> None:
    """Durably, in place of what was there."""
    beside = path.with_suffix(".new")
    with beside.open("wb") as file:
        file.write(msgspec.json.encode(remembered))
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # A power cut that took the name back would leave a count that looks old.
        os.fsync(folder)
    finally:
        os.close(folder)


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
