"""The admin service of a node, for verbs: address, TLS and token from the settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from k2store.config import Settings
from k2store.errors import Rejected, Unavailable

if TYPE_CHECKING:
    import grpc

    from k2store.v1 import admin_pb2
    from k2store.v1.admin_pb2_grpc import AdminServiceStub


class Admin:
    """Calls to one node; failures are errors of the tree."""

    def __init__(self, settings: Settings, address: str, stub: AdminServiceStub) -> None:
        self.address = address
        self._stub = stub
        self._timeout_s = settings.client.deadline.seconds
        token = token_of(settings)
        self._metadata = () if token is None else (("authorization", f"Bearer {token}"),)

    def status(self) -> admin_pb2.GetStatusResponse:
        """The node's state."""
        from k2store.v1 import admin_pb2

        return self._stub.GetStatus(
            admin_pb2.GetStatusRequest(), timeout=self._timeout_s, metadata=self._metadata
        )

    def clock(self) -> admin_pb2.GetClockResponse:
        """The node's clock."""
        from k2store.v1 import admin_pb2

        return self._stub.GetClock(
            admin_pb2.GetClockRequest(), timeout=self._timeout_s, metadata=self._metadata
        )

    def drain(self, grace_ms: int) -> None:
        """Begin to drain; 0 means the node's own grace."""
        from k2store.v1 import admin_pb2

        self._stub.Drain(
            admin_pb2.DrainRequest(grace_ms=grace_ms),
            timeout=self._timeout_s,
            metadata=self._metadata,
        )

    def is_there(self, incarnation: bytes) -> bool:
        """Whether the same run of the node still answers; a restarted one is another."""
        import grpc

        try:
            return self.status().incarnation == incarnation
        except grpc.RpcError as failure:
            if failure.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}:
                return False
            raise


@contextmanager
def admin(settings: Settings) -> Iterator[Admin]:
    """The admin service of the first node of `client.endpoint`."""
    import grpc

    from k2store.client.address import parse
    from k2store.v1.admin_pb2_grpc import AdminServiceStub

    address = parse(settings.client.endpoint)[0]
    with _channel(settings, address) as channel:
        try:
            yield Admin(settings, address, AdminServiceStub(channel))
        except grpc.RpcError as failure:
            from k2store.rpc.status import from_rpc_error

            if failure.code() is grpc.StatusCode.UNAVAILABLE:
                raise Unavailable(f"no node answers at {address}: {failure.details()}") from None
            raise from_rpc_error(failure) from None


def token_of(settings: Settings) -> str | None:
    """The token in the file of `client.token`; None without one."""
    content = _file(settings.client.token, "client.token")
    return None if content is None else content.decode("ascii", "replace").strip()


def _channel(settings: Settings, address: str) -> grpc.Channel:
    import grpc

    client = settings.client
    if not client.authority:
        return grpc.insecure_channel(address)
    credentials = grpc.ssl_channel_credentials(
        _file(client.authority, "client.authority"),
        _file(client.key, "client.key"),
        _file(client.certificate, "client.certificate"),
    )
    return grpc.secure_channel(address, credentials)


def _file(name: str, setting: str) -> bytes | None:
    if not name:
        return None
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise Rejected(f"{setting}: cannot read {name}: {error.strerror}", field=setting) from error
