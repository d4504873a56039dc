"""TLS from files, and the rule about listening beyond this machine.

Server certificates are read again for every handshake when the files have changed, so that they
can be rotated under a running node; a new pair that does not parse leaves the old one in force.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Final

import grpc

from k2store.config.settings import Tls
from k2store.errors import Rejected

_LOCAL_NAMES: Final = frozenset({"localhost", "ip6-localhost", "ip6-loopback"})


def is_loopback(address: str) -> bool:
    """Whether `host:port` can be reached from this machine only."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    if host in _LOCAL_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(address: str, tls: Tls) -> None:
    """Refuse to listen beyond loopback in plain text unless the settings say so outright."""
    if is_loopback(address) or tls.certificate or tls.insecure:
        return
    raise Rejected(
        f"{address} can be reached from other machines and no certificate is set: keys, values and "
        "tokens would travel in plain text. Set tls.certificate and tls.key, or listen on "
        "127.0.0.1, or say tls.insecure = true if the network itself is trusted",
        field="node.listen",
    )


def server_credentials(tls: Tls) -> grpc.ServerCredentials | None:
    """The listener's credentials; None for plain text. Raises Rejected for unreadable files.

    With `tls.authority` every client has to show a certificate that this authority signed.
    """
    if not tls.certificate:
        return None
    files = _ServerFiles(tls)
    first = files.configuration()
    return grpc.dynamic_ssl_server_credentials(
        first,
        files.configuration_if_changed,  # type: ignore[arg-type] # None is what gRPC documents
        require_client_authentication=bool(tls.authority),
    )


class _ServerFiles:
    """The certificate files of a listener, and when they were last seen to change."""

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._seen = self._stamps()

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        """What the files hold now."""
        tls = self._tls
        key = _read(tls.key, "tls.key")
        certificate = _read(tls.certificate, "tls.certificate")
        authority = _read(tls.authority, "tls.authority") if tls.authority else None
        return grpc.ssl_server_certificate_configuration([(key, certificate)], authority)

    def configuration_if_changed(self) -> grpc.ServerCertificateConfiguration | None:
        """For gRPC, before each handshake: None keeps what is in force."""
        stamps = self._stamps()
        if stamps == self._seen:
            return None
        self._seen = stamps
        try:
            return self.configuration()
        except Rejected:
            return None

    def _stamps(self) -> list[int]:
        tls = self._tls
        names = [name for name in (tls.certificate, tls.key, tls.authority) if name]
        return [Path(name).stat().st_mtime_ns if Path(name).exists() else 0 for name in names]


def _read(path: str, setting: str) -> bytes:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise Rejected(f"{setting}: cannot read {path}: {error.strerror}", field=setting) from error
    if b"-----BEGIN " not in content:
        raise Rejected(f"{setting}: {path} is not a PEM file", field=setting)
    return content
