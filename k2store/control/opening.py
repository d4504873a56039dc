"""From an address to the control plane that it names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from k2store.client.address import parse
from k2store.control.ports import Control
from k2store.errors import Rejected

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

    from k2store.config import Settings

EMBEDDED: Final = "embedded"
FOLDER: Final = "control"
"""Where the embedded one lies, inside the node's data folder."""

_ETCD: Final = ("etcd://", "etcds://")


class EtcdAddress(NamedTuple):
    """What an `etcd://` address says."""

    endpoints: tuple[str, ...]
    prefix: str
    tls: bool


def node_control(settings: Settings) -> Control:
    """The control plane of a node, by `cluster.control`; the embedded one is opened here.

    Connections are encrypted when the node's own port is, with the node's certificate, and carry
    the token of `client.token`. Nothing is asked yet. Raises Rejected for an address that is none.
    """
    address = settings.cluster.control
    if address == EMBEDDED:
        from k2store.control.embedded import EmbeddedControl

        return EmbeddedControl(Path(settings.node.data) / FOLDER)
    if not address:
        raise Rejected("this node is alone: cluster.control is empty", field="cluster.control")
    from k2store.control.channel import node_credentials

    return _distant(
        address, settings, lambda: node_credentials(settings), tls=bool(settings.tls.certificate)
    )


def operator_control(settings: Settings, address: str | None = None) -> Control:
    """The control plane for a command: `address`, or what the settings name.

    Where they name none, or the embedded one, it is asked of the node at `client.endpoint`.
    Connections are encrypted and carry a token as the section `[client]` says.
    """
    from k2store.control.channel import client_credentials

    address = address or settings.cluster.control
    if not address or address == EMBEDDED:
        address = settings.client.endpoint
    client = settings.client
    return _distant(
        address, settings, lambda: client_credentials(settings), tls=bool(client.authority)
    )


def advertised(settings: Settings, listening: str) -> str:
    """Where the other nodes reach this one, given the address at which its port is open.

    Raises Rejected for a port that is open on every address of the machine, which is none to reach.
    """
    if settings.cluster.advertise:
        return settings.cluster.advertise
    host, _, _ = listening.rpartition(":")
    if host in {"", "0.0.0.0", "[::]", "::"}:  # noqa: S104 - compared, not bound
        raise Rejected(
            f"others cannot reach this node at {listening}: say where in cluster.advertise",
            field="cluster.advertise",
        )
    return listening


def _distant(
    address: str,
    settings: Settings,
    credentials: Callable[[], grpc.ChannelCredentials],
    *,
    tls: bool,
) -> Control:
    deadline_s = settings.client.deadline.seconds
    if address.startswith(_ETCD):
        from k2store.control.etcd import EtcdControl

        etcd = parse_etcd(address)
        return EtcdControl(
            etcd.endpoints,
            prefix=etcd.prefix,
            credentials=credentials() if etcd.tls else None,
            deadline_s=deadline_s,
        )
    from k2store.control.channel import token_of
    from k2store.control.remote import RemoteControl

    entries = parse(address)
    if len(entries) != 1:
        raise Rejected(
            f"{address} names {len(entries)} nodes; one keeps the control plane",
            field="cluster.control",
        )
    return RemoteControl(
        entries[0],
        credentials=credentials() if tls else None,
        token=token_of(settings),
        deadline_s=deadline_s,
    )


def parse_etcd(address: str) -> EtcdAddress:
    """The parts of `etcd://host:port,host:port,...[/PREFIX]`; raises Rejected."""
    scheme = next((one for one in _ETCD if address.startswith(one)), None)
    if scheme is None:
        raise Rejected(f"{address!r} is no address of an etcd", field="cluster.control")
    places, _, prefix = address.removeprefix(scheme).partition("/")
    endpoints = tuple(dict.fromkeys(one.strip() for one in places.split(",")))
    for endpoint in endpoints:
        host, _, port = endpoint.rpartition(":")
        if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise Rejected(f"{address!r}: {endpoint!r} is not host:port", field="cluster.control")
    prefix = prefix.rstrip("/") or "k2store"
    if not prefix.isascii() or not prefix.isprintable():
        raise Rejected(f"{address!r}: a prefix is printable ASCII", field="cluster.control")
    return EtcdAddress(endpoints, prefix + "/", scheme == "etcds://")
