"""A small authority, and the certificates of nodes and clients, as files of one folder.

::

    FOLDER/authority.pem   who signs; everybody's tls.authority and client.authority
    FOLDER/authority.key   keep it away from the nodes
    FOLDER/fra-1.pem .key  a node: at its addresses and its name, and as k2://node/fra-1
    FOLDER/alice.pem .key  a client: k2://client/alice, good for nothing but being one

Keys are elliptic (P-256) and readable by their owner only. A node's certificate serves in both
directions, since nodes dial one another. Making a certificate again replaces it, which a running
node notices by itself: that is how they are renewed. There is no list of revoked certificates; who
must be kept out needs a new authority.

For installations that have no authority of their own. Certificates of another one do as well, if
those of nodes have the URI (:mod:`k2store.rpc.identity`).
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from k2store.clock.declared import DeclaredClock
from k2store.errors import Rejected
from k2store.rpc.identity import CLIENT_SCHEME, NODE_SCHEME, is_name

AUTHORITY: Final = "authority"
AUTHORITY_DAYS: Final = 3650
DAYS: Final = 730
DAYS_MAX: Final = 3650
EARLY: Final = dt.timedelta(hours=1)
"""Certificates are good from a little before they are made: clocks differ."""

LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
"""At which every node may be reached as well, by whoever is on its machine."""

_ALTERNATIVE: Final = x509.SubjectAlternativeName


class Files(NamedTuple):
    """A certificate, its key and its authority, in PEM form."""

    certificate: Path
    key: Path
    authority: Path


class Described(NamedTuple):
    """What a certificate says. `kind`: authority, node, client, or other."""

    name: str
    kind: str
    addresses: tuple[str, ...]
    begins: dt.datetime
    ends: dt.datetime


def now() -> dt.datetime:
    """The host's time, which is what certificates are judged by."""
    earliest_ns, _ = DeclaredClock().read()
    return dt.datetime.fromtimestamp(earliest_ns / 1e9, dt.UTC)


class Authority:
    """Signs what it makes, in a folder of its own.

    `clock` gives the time that certificates begin at.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], dt.datetime] = now) -> None:
        """Take the authority that is in the folder, or make both. Raises `Rejected`."""
        self._folder = folder
        self._clock = clock
        self._own = _files(folder, AUTHORITY)
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise Rejected(f"cannot make {folder}: {error.strerror}", field="folder") from None
        if not self._own.certificate.exists():
            self._make()
        self._certificate = _load_certificate(self._own.certificate)
        self._key = _load_key(self._own.key)
        if _public(self._certificate.public_key()) != _public(self._key.public_key()):
            raise Rejected(
                f"{self._own.key} is not the key of {self._own.certificate}", field="folder"
            )

    @property
    def certificate(self) -> Path:
        """File that everybody trusts."""
        return self._own.certificate

    def node(self, name: str, addresses: Sequence[str], *, days: int = DAYS) -> Files:
        """Certificate of a node at host names and IP addresses, without ports."""
        _check_name(name)
        names = [_alternative(address) for address in (*addresses, *LOOPBACK)]
        if _host_name(name) is not None:
            names.append(x509.DNSName(name))
        names.append(x509.UniformResourceIdentifier(NODE_SCHEME + name))
        usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        return self._issue(name, names, usage, days)

    def client(self, name: str, *, days: int = DAYS) -> Files:
        """Certificate of a client; it cannot serve, and no node takes it for a node."""
        _check_name(name)
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(CLIENT_SCHEME + name)]
        return self._issue(name, names, [ExtendedKeyUsageOID.CLIENT_AUTH], days)

    def _make(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = _common_name("K2store authority")
        begins = self._clock()
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins - EARLY)
            .not_valid_after(begins + dt.timedelta(days=AUTHORITY_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(_key_identifier(key), critical=False)
            .sign(key, hashes.SHA256())
        )
        _write(self._own, certificate, key)

    def _issue(
        self,
        name: str,
        alternatives: Sequence[x509.GeneralName],
        usage: Sequence[x509.ObjectIdentifier],
        days: int,
    ) -> Files:
        if not 1 <= days <= DAYS_MAX:
            raise Rejected(f"a certificate is good for 1 to {DAYS_MAX} days", field="days")
        key = ec.generate_private_key(ec.SECP256R1())
        begins = self._clock()
        # A certificate that outlives its authority only seems to be good.
        ends = min(begins + dt.timedelta(days=days), self._certificate.not_valid_after_utc)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_common_name(name))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins - EARLY)
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
            .add_extension(_ALTERNATIVE(list(dict.fromkeys(alternatives))), critical=False)
            .add_extension(_key_identifier(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        files = _files(self._folder, name)
        _write(files, certificate, key)
        return files


def describe(path: Path) -> Described:
    """What a certificate file says. Raises `Rejected` for one that cannot be read."""
    certificate = _load_certificate(path)
    try:
        found = certificate.extensions.get_extension_for_class(_ALTERNATIVE).value
    except x509.ExtensionNotFound:
        found = _ALTERNATIVE([])
    uris = found.get_values_for_type(x509.UniformResourceIdentifier)
    hosts = [
        *found.get_values_for_type(x509.DNSName),
        *(str(address) for address in found.get_values_for_type(x509.IPAddress)),
    ]
    kind = "other"
    if _is_authority(certificate):
        kind = "authority"
    elif any(uri.startswith(NODE_SCHEME) for uri in uris):
        kind = "node"
    elif any(uri.startswith(CLIENT_SCHEME) for uri in uris):
        kind = "client"
    return Described(
        path.stem,
        kind,
        tuple(hosts),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
    )


def _files(folder: Path, name: str) -> Files:
    return Files(folder / f"{name}.pem", folder / f"{name}.key", folder / f"{AUTHORITY}.pem")


def _write(files: Files, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    _replace(files.key, private, 0o600)
    _replace(files.certificate, certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _replace(path: Path, content: bytes, mode: int) -> None:
    """Put a whole file in the place of whatever was there; nobody sees half of it."""
    try:
        # The file is its owner's only from its first moment on.
        descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(descriptor, mode)
        Path(beside).replace(path)
    except OSError as error:
        raise Rejected(f"cannot write {path}: {error.strerror}", field="folder") from None


def _load_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Rejected(f"{path} is no readable certificate: {error}", field="folder") from None


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise Rejected(f"{path} is no readable key: {error}", field="folder") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Rejected(f"{path} is not an elliptic key", field="folder")
    return key


def _check_name(name: str) -> None:
    if not is_name(name) or name == AUTHORITY:
        raise Rejected(
            f"{name!r} cannot be the name of a node or client: letters, digits, `.`, `_` and "
            f"`-`, up to 63, and not {AUTHORITY!r}",
            field="name",
        )


def _alternative(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address.strip("[]")))
    except ValueError:
        pass
    name = _host_name(address)
    if name is None:
        raise Rejected(
            f"{address!r} is neither an IP address nor a host name (without a port)",
            field="address",
        )
    return x509.DNSName(name)


def _host_name(text: str) -> str | None:
    """A host name as certificates have it, `*` for one whole label; None for what is none."""
    labels = text.removeprefix("*.").split(".")
    fits = all(
        label.isascii() and label.replace("-", "").isalnum() and label.strip("-") == label
        for label in labels
    )
    return text if fits and len(text) <= 253 else None


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _key_identifier(key: ec.EllipticCurvePrivateKey) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(key.public_key())


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _public(key: object) -> bytes:
    assert isinstance(key, ec.EllipticCurvePublicKey), "authorities of this module are elliptic"
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
