"""`local_cluster`: nodes, network, certificates and clients, in one handle."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Self

from k2store.cli.notation import parse
from k2store.clock import DECLARED_BOUND_NS_DEFAULT, ClockFile
from k2store.config.dial import dial_lines
from k2store.config.quantity import Duration
from k2store.errors import Rejected, Unavailable
from k2store.testing.child import K2
from k2store.testing.cluster.looks import Look, Looks
from k2store.testing.cluster.node import CLOCK, CONFIG, DATA, ClusterNode, Seat, toml
from k2store.testing.cluster.places import Apart, node_name, place_of, places_apart
from k2store.testing.keeper import Keeper
from k2store.testing.wan import DEFAULT_REGIONS, Kind, Wan, open_wan
from k2store.testing.wan.addresses import NUMBER_MAX

if TYPE_CHECKING:
    from k2store import blocking
    from k2store.client.connect import Tls
    from k2store.client.database import Database
    from k2store.v1 import admin_pb2

PORT: Final = 7400
ADMIN_PORT: Final = 7500
CERTIFICATE_DAYS: Final = 30
PORTS_FROM: Final = 10_000
DIAL: Final = "dial"
INIT_S: Final = 30
_EPHEMERAL: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_DEFAULTS: Final[Mapping[str, object]] = MappingProxyType(
    {
        # The processes share one machine, so one bound is right for all of them.
        "clock.source": "declared",
        "storage.segment": "4MiB",
        "logging.format": "json",
        "node.drain_timeout": "2s",
    }
)


def local_cluster(
    regions: Sequence[str] = DEFAULT_REGIONS,
    *,
    nodes_per_region: int = 1,
    wan: Kind | Literal["auto"] | None = "auto",
    apart: Apart = "regions",
    tls: bool = True,
    path: str | os.PathLike[str] | None = None,
    disks: str | os.PathLike[str] | None = None,
    keyspaces: Sequence[str] | None = None,
    **settings: object,
) -> LocalCluster:
    """A cluster, for ``with`` or ``async with``; its nodes run inside the block.

    wan       how the regions are kept apart: ``namespaces`` (root), ``proxy``, the better of both
              that can be had (``auto``), or None: not at all
    apart     what has links of its own that can be cut: ``regions``, or all ``nodes``, and then the
              clients of each region; see :mod:`~k2store.testing.cluster.places`
    tls       mutual TLS between nodes and with clients
    path      folder to keep; without one it is a folder that is removed at the end
    disks     folder below which each node has its data, in one named like the node, such as a mount
    keyspaces  as `k2 regions init --keyspace` takes them; see `default_keyspaces`
    settings  of every node, with two underscores for the dot: ``clock__bound="300us"``. The first
              node keeps the control plane unless ``cluster__control`` names another; with
              ``clock__source="file"`` each node's clock does what its `ClusterNode.clock` is told
    """
    if not 1 <= nodes_per_region <= NUMBER_MAX:
        raise Rejected(f"1 to {NUMBER_MAX} nodes fit into a region", field="nodes_per_region")
    network = None
    if wan is not None:
        kind = None if wan == "auto" else wan
        if apart == "nodes":
            places, round_trips_ms = places_apart(regions, nodes_per_region)
            network = open_wan(places, kind=kind, round_trips_ms=round_trips_ms)
        else:
            network = open_wan(regions, kind=kind)
    said = {name.replace("__", "."): value for name, value in settings.items()}
    return LocalCluster(
        tuple(regions),
        nodes_per_region,
        network,
        apart,
        tls,
        Folders(None if path is None else Path(path), None if disks is None else Path(disks)),
        tuple(default_keyspaces(regions) if keyspaces is None else keyspaces),
        said,
    )


def default_keyspaces(regions: Sequence[str]) -> list[str]:
    """One of each region's own, `fra/...`, at home there and fast there; the rest of all keys
    survives the loss of any region, where there are three.
    """
    own = [f"{region}:zone:{region}" for region in regions]
    return [*own, f"default:region:{regions[0]}"]


class Folders(NamedTuple):
    """Where everything of a cluster lies: `path`, and the data of nodes below `disks`."""

    path: Path | None
    disks: Path | None


class LocalCluster:
    """See `local_cluster`. Outside its block nothing of it runs."""

    def __init__(
        self,
        regions: tuple[str, ...],
        nodes_per_region: int,
        wan: Wan | None,
        apart: Apart,
        tls: bool,  # noqa: FBT001 - made by local_cluster only
        folders: Folders,
        keyspaces: tuple[str, ...],
        settings: Mapping[str, object],
    ) -> None:
        self.regions = regions
        self.nodes: dict[str, ClusterNode] = {}
        self.path = folders.path or Path()
        self._nodes_per_region = nodes_per_region
        self._wan = wan
        self._apart: Apart = apart
        self._with_tls = tls
        self._folders = folders
        self._keyspaces = keyspaces
        self._said = dict(settings)
        self._stack = contextlib.ExitStack()
        self._looks: Looks | None = None

    def __repr__(self) -> str:
        return f"<LocalCluster {' '.join(map(repr, self.nodes.values())) or 'not running'}>"

    # ------------------------------------------------------------------------------- life

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, trace)

    def _open(self) -> None:
        stack = self._stack
        given = self._folders.path
        if given is None:
            made = stack.enter_context(tempfile.TemporaryDirectory(prefix="k2-cluster-"))
            self.path = Path(made)
        self.path.mkdir(parents=True, exist_ok=True)
        self.path = self.path.resolve()
        keeper = stack.enter_context(Keeper(self.path if given is None else None))
        if self._wan is not None:
            stack.enter_context(self._wan)
        seats = self._seats()
        if self._with_tls:
            self._certify(seats)
        for seat in seats:
            before = [] if self._wan is None else self._wan.command(seat.place.name, [])
            folder = self.path / seat.name
            node = ClusterNode(seat, folder, self._settings(seat, seats), before, keeper)
            if self._said.get("clock.source") == "file":
                folder.mkdir(parents=True, exist_ok=True)
                node.clock = ClockFile.create(folder / CLOCK, self._bound_ns())
                stack.callback(node.clock.close)
            self.nodes[seat.name] = node
        stack.callback(self._stop)
        self._start()
        self._init()
        self._looks = stack.enter_context(Looks(list(self.nodes.values()), self.tls))

    def _start(self) -> None:
        for node in self.nodes.values():
            node.spawn()
        for node in self.nodes.values():
            try:
                node.await_ready()
            except Unavailable as error:
                raise Unavailable(f"{node.name}: {error.message}") from None

    def _init(self) -> None:
        """Make the keyspaces, or find them made, and wait until each of them answers."""
        words = ["--nodes", str(len(self.nodes)), "--timeout", str(INIT_S)]
        for keyspace in self._keyspaces:
            words += ["--keyspace", keyspace]
        keeper = next(iter(self.nodes.values())).seat.address
        control = str(self._said.get("cluster.control", keeper))
        done = subprocess.run(
            [
                *(*K2, "--config", str(self.client_config())),
                *("regions", "init", "--json", "--control", control, *words),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise Unavailable(f"k2 regions init failed: {done.stderr.strip()}")
        starts = [parse(one["start"]) for one in json.loads(done.stdout)["partitions"]]
        with self.blocking(timeout=INIT_S) as db:
            for start in starts:
                db.get(start or b"-")

    def _stop(self) -> None:
        """End every node; all are told first, so that they end side by side."""
        for node in self.nodes.values():
            node.terminate()
        for node in self.nodes.values():
            node.stop()

    # --------------------------------------------------------------------- what it is made of

    @property
    def wan(self) -> Wan:
        """The network between its regions, to cut and delay; `Rejected` without one."""
        if self._wan is None:
            raise Rejected("this cluster was made without a network between regions", field="wan")
        return self._wan

    @property
    def wan_kind(self) -> Kind | None:
        """How the regions are kept apart; None when they are not."""
        return None if self._wan is None else self._wan.kind

    def node(self, name: str) -> ClusterNode:
        """The node of that name, such as ``fra-1``."""
        found = self.nodes.get(name)
        if found is None:
            raise Rejected(
                f"there is no node {name!r}; there are {', '.join(self.nodes)}", field="node"
            )
        return found

    def nodes_in(self, region: str) -> list[ClusterNode]:
        """The nodes of a region."""
        return [node for node in self.nodes.values() if node.region == region]

    def look(self) -> list[Look]:
        """What every node says of itself now; those that do not answer in half a second do not."""
        if self._looks is None:
            raise Rejected("a cluster runs inside its `with` block only", field="cluster")
        return self._looks.look()

    def ask_clock(self, node: ClusterNode) -> admin_pb2.GetClockResponse | None:
        """What a node says of its clock now; None when it does not answer at once."""
        if self._looks is None:
            raise Rejected("a cluster runs inside its `with` block only", field="cluster")
        return self._looks.clock(node)

    # -------------------------------------------------------------------------------- clients

    def client_config(self, region: str | None = None) -> Path:
        """A settings file for `k2 --config`, to stand in a region; see `address`."""
        path = self.path / (CONFIG if region is None else f"{region}.toml")
        said: dict[str, object] = {"client.endpoint": self.address(region)}
        if self.tls is not None:
            said |= {
                "client.authority": self.tls.authority,
                "client.certificate": self.tls.certificate,
                "client.key": self.tls.key,
            }
        path.write_text(toml(said), encoding="utf-8")
        return path

    @property
    def tls(self) -> Tls | None:
        """Files with which a client connects; None for plain text."""
        if not self._with_tls:
            return None
        from k2store.client.connect import Tls

        folder = self.path / "certificates"
        return Tls(
            authority=str(folder / "authority.pem"),
            certificate=str(folder / "client.pem"),
            key=str(folder / "client.key"),
        )

    def address(self, region: str | None = None) -> str:
        """``k2://`` and every node, for a client that stands in a region: its own nodes first.

        None stands nowhere: it reaches every node at once. A client *inside* a region's namespace
        uses that one too, and the network does the rest.
        """
        scheme, _, rest = self._nearest(region).rpartition("/")
        return f"{scheme}/" + ",".join(self._dialled(real, region) for real in rest.split(","))

    def connect(self, region: str | None = None, **options: Any) -> Database:
        """A client that stands in a region, for ``async with``; options as of `k2store.connect`."""
        from k2store.client.connect import connect

        return connect(self._nearest(region), **self._options(region, options))

    def blocking(self, region: str | None = None, **options: Any) -> blocking.Database:
        """The same, for ``with``; options as of `k2store.blocking.connect`."""
        from k2store import blocking

        return blocking.connect(self._nearest(region), **self._options(region, options))

    def _options(self, region: str | None, given: dict[str, Any]) -> dict[str, Any]:
        # Nodes tell their own addresses, whoever asks: the client must dial those as from its region.
        addresses = [node.seat.address for node in self.nodes.values()]
        dial = {real: self._dialled(real, region) for real in addresses}
        return {"tls": self.tls, "dial": dial} | given

    def _nearest(self, region: str | None) -> str:
        if region is not None and region not in self.regions:
            raise Rejected(f"there is no region {region!r}", field="region")
        nodes = sorted(self.nodes.values(), key=lambda node: node.region != region)
        return "k2://" + ",".join(node.seat.address for node in nodes)

    def _dialled(self, real: str, region: str | None) -> str:
        if self._wan is None or region is None:
            return real
        return self._wan.address(region, real)

    # ------------------------------------------------------------------------------- settings

    def _seats(self) -> list[Seat]:
        places = [
            (region, number)
            for region in self.regions
            for number in range(1, self._nodes_per_region + 1)
        ]
        addresses = self._addresses(places)
        return [
            Seat(
                node_name(region, number),
                region,
                number,
                address,
                admin,
                place_of(region, number, self._apart),
            )
            for (region, number), (address, admin) in zip(places, addresses, strict=True)
        ]

    def _addresses(self, places: Sequence[tuple[str, int]]) -> list[tuple[str, str]]:
        """Address and admin address of each place, such as nobody else has."""
        wan = self._wan
        if wan is not None and wan.kind == "namespaces":
            return [
                (f"{host}:{PORT + number}", f"{host}:{ADMIN_PORT + number}")
                for region, number in places
                for host in [wan.host(*place_of(region, number, self._apart))]
            ]
        ports = free_ports(2 * len(places))
        found = [
            (f"127.0.0.1:{ports[2 * index]}", f"127.0.0.1:{ports[2 * index + 1]}")
            for index in range(len(places))
        ]
        if wan is not None:
            for (region, number), (address, _) in zip(places, found, strict=True):
                wan.place(place_of(region, number, self._apart).name, address)
        return found

    def _certify(self, seats: Sequence[Seat]) -> None:
        from k2store.rpc.certificates import Authority

        authority = Authority(self.path / "certificates")
        for seat in seats:
            hosts = ["127.0.0.1"]
            if self._wan is not None:
                hosts = self._wan.hosts(*seat.place)
            authority.node(seat.name, hosts, days=CERTIFICATE_DAYS)
        authority.client("client", days=CERTIFICATE_DAYS)

    def _settings(self, seat: Seat, seats: Sequence[Seat]) -> dict[str, object]:
        disks = self._folders.disks or self.path
        through_proxy = self.wan_kind == "proxy"
        listen = seat.address
        if self._wan is not None and self._wan.kind == "namespaces":
            # At every address of its own: they tell where a client from outside stands.
            listen = f"0.0.0.0:{PORT + seat.number}"
        said: dict[str, object] = {
            "node.name": seat.name,
            "node.region": seat.region,
            "node.data": str(disks.resolve() / seat.name / DATA),
            "node.listen": listen,
            "admin.listen": seat.admin,
            "cluster.advertise": seat.address,
            "cluster.control": "embedded",
        }
        if seat != seats[0]:
            keeps = seats[0]
            seen = self._dialled(keeps.address, seat.place.name if through_proxy else None)
            said["cluster.control"] = f"k2://{seen}"
        if self._with_tls:
            certificates = self.path / "certificates"
            said |= {
                "tls.certificate": str(certificates / f"{seat.name}.pem"),
                "tls.key": str(certificates / f"{seat.name}.key"),
                "tls.authority": str(certificates / "authority.pem"),
            }
        else:
            said["tls.insecure"] = True
        if through_proxy:
            said["cluster.dial"] = str(self._write_dial(seat, seats))
        if self._said.get("clock.source") == "file":
            said["clock.file"] = str(self.path / seat.name / CLOCK)
        return {**_DEFAULTS, **said, **self._said}

    def _bound_ns(self) -> int:
        """The bound that every clock begins with."""
        said = self._said.get("clock.bound")
        return DECLARED_BOUND_NS_DEFAULT if said is None else Duration.parse(str(said))

    def _write_dial(self, seat: Seat, seats: Sequence[Seat]) -> Path:
        """Let a node dial those of other regions through the proxy."""
        path = self.path / seat.name / DIAL
        path.parent.mkdir(parents=True, exist_ok=True)
        through = {
            other.address: self._dialled(other.address, seat.place.name)
            for other in seats
            if other.place.name != seat.place.name
        }
        path.write_text(dial_lines(through), encoding="utf-8")
        return path


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens at now, all different.

    None that the kernel gives to outgoing connections: those would take the port of a node that is
    about to start, or to come back.
    """
    first = int(_EPHEMERAL.read_text(encoding="ascii").split()[0])
    chance = random.SystemRandom()
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        while len(ports) < count:
            port = chance.randrange(PORTS_FROM, first)
            probe = held.enter_context(socket.socket())
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
        return ports
