"""A node with real ports inside the test's own loop, and certificates for it."""

from __future__ import annotations

import asyncio
import datetime as dt
import io
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from k2store.config import load
from k2store.node.logs import make_logger
from k2store.node.process import NodeProcess

BEGIN = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
END = dt.datetime(2126, 1, 1, tzinfo=dt.UTC)


@asynccontextmanager
async def running_node(
    folder: Path, log: io.StringIO | None = None, **overrides: object
) -> AsyncIterator[NodeProcess]:
    """A node on free loopback ports; `overrides` are settings with `__` for the dot."""
    said: dict[str, object] = {
        "node.data": str(folder / "data"),
        "node.listen": "127.0.0.1:0",
        "admin.listen": "127.0.0.1:0",
        "storage.segment": "1MiB",
    }
    said |= {name.replace("__", "."): value for name, value in overrides.items()}
    settings = load(env={}, overrides=said).settings
    logger = make_logger(log or io.StringIO(), level="debug", form="json")
    async with NodeProcess(settings, logger) as node:
        yield node


@asynccontextmanager
async def keeper(folder: Path, **overrides: object) -> AsyncIterator[NodeProcess]:
    """A node that is a cluster of its own and keeps the control plane; see `running_node`."""
    said: dict[str, object] = {"cluster__control": "embedded", "cluster__advertise": "localhost:1"}
    async with running_node(folder, None, **(said | overrides)) as node:
        yield node


def with_node(
    folder: Path,
    body: Callable[[NodeProcess, grpc.aio.Channel], Awaitable[None]],
    **overrides: object,
) -> None:
    """Run a body with a node and a plain channel to it."""

    async def run() -> None:
        async with (
            asyncio.timeout(30),
            running_node(folder, None, **overrides) as node,
            grpc.aio.insecure_channel(node.address) as channel,
        ):
            await body(node, channel)

    asyncio.run(run())


async def http(address: str, request: bytes) -> tuple[int, bytes]:
    """Status code and body of one request to the admin port; 0 when it does not answer."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return (int(head.split(b" ")[1]) if head else 0), body


class Certified(NamedTuple):
    """Names of PEM files: a certificate and its key."""

    certificate: str
    key: str


class Authority:
    """A certificate authority in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            self._builder(self._subject, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file = self._write(f"{name}.pem", certificate.public_bytes(_PEM))

    def settings(self, name: str) -> dict[str, object]:
        """The section `[tls]` of a node with a certificate of that name, for `running_node`."""
        pair = self.issue(name)
        return {
            "tls__certificate": pair.certificate,
            "tls__key": pair.key,
            "tls__authority": self.file,
        }

    def credentials(self, name: str) -> grpc.ChannelCredentials:
        """Of a client with a certificate of that name."""
        pair = self.issue(name)
        return grpc.ssl_channel_credentials(
            Path(self.file).read_bytes(),
            Path(pair.key).read_bytes(),
            Path(pair.certificate).read_bytes(),
        )

    def issue(self, name: str) -> Certified:
        """A certificate for `localhost` and 127.0.0.1 in that name."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        addresses = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        certificate = (
            self._builder(subject, key)
            .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        secret = key.private_bytes(
            _PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Certified(
            self._write(f"{name}.pem", certificate.public_bytes(_PEM)),
            self._write(f"{name}.key", secret),
        )

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(BEGIN)
            .not_valid_after(END)
        )

    def _write(self, name: str, content: bytes) -> str:
        path = self._folder / name
        path.write_bytes(content)
        return str(path)


_PEM = serialization.Encoding.PEM
