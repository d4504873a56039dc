"""`connect`: from an address to a `Database`."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from k2store.client.address import parse
from k2store.client.database import Database
from k2store.client.settings import ClientSettings, Span, seconds
from k2store.clock.boottime import boottime_ns
from k2store.errors import Rejected

if TYPE_CHECKING:
    from k2store.client.retry import Rng
    from k2store.rpc.transport import Dialer


class Tls(Struct, frozen=True, kw_only=True):
    """Files of an encrypted connection, in PEM form.

    authority    who signs the node's certificate; None for those the system trusts
    certificate  this client's certificate chain, for mutual TLS
    key          its private key
    """

    authority: str | None = None
    certificate: str | None = None
    key: str | None = None


def connect(
    address: str,
    *,
    timeout: Span | None = None,
    token: str | None = None,
    tls: Tls | None = None,
    name: str | None = None,
    dial: Mapping[str, str] | None = None,
    dialer: Dialer | None = None,
    settings: ClientSettings | None = None,
    monotonic_ns: Callable[[], int] = boottime_ns,
    rng: Rng | None = None,
) -> Database:
    """A store at ``k2://host:port,host2:port``, to be opened with ``async with``.

    timeout       deadline of every call that states none
    token         bearer token
    tls           encrypt; None speaks in the clear
    name          how the node's logs call this client
    dial          where to dial an address instead, where the network translates addresses
    dialer        another transport than gRPC
    settings      limits and pauses
    monotonic_ns  a clock for durations that counts suspended time
    rng           where names and jitter come from

    Nothing happens before the block is entered. Raises `Rejected` for an address that is none.
    """
    settings = settings or ClientSettings()
    if timeout is not None:
        settings = msgspec.structs.replace(settings, timeout_s=seconds(timeout))
    metadata: dict[str, str] = {}
    if token is not None:
        if not token.isascii() or not token.isprintable() or not token:
            raise Rejected("a token is printable ASCII", field="token")
        metadata["token"] = token

    def make() -> tuple[Dialer, Callable[[], Awaitable[None]] | None]:
        if dialer is not None:
            return dialer, None
        return _grpc(tls, dial)

    return Database(
        parse(address),
        make,
        metadata=metadata,
        name=name or "python",
        settings=settings,
        monotonic_ns=monotonic_ns,
        rng=rng or random.Random(),
    )


def _grpc(
    tls: Tls | None, dial: Mapping[str, str] | None
) -> tuple[Dialer, Callable[[], Awaitable[None]]]:
    import grpc

    from k2store.rpc.grpc_transport import GrpcDialer

    credentials = None
    if tls is not None:
        credentials = grpc.ssl_channel_credentials(
            root_certificates=_file(tls.authority, "authority"),
            private_key=_file(tls.key, "key"),
            certificate_chain=_file(tls.certificate, "certificate"),
        )
    made = GrpcDialer(credentials, dial)
    return made, made.close


def _file(path: str | None, field: str) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise Rejected(f"cannot read {path}: {error.strerror}", field=field) from None
