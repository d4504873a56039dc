"""What the nodes of a cluster say of themselves, all asked at once."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from k2store.testing.cluster.node import ClusterNode

if TYPE_CHECKING:
    import grpc

    from k2store.client.connect import Tls
    from k2store.v1 import admin_pb2

PATIENCE_S: Final = 0.5


class Look(NamedTuple):
    """One node at one moment.

    state   what the node says (``SERVING``...), or ``DOWN``, ``PAUSED``, or ``SILENT`` for one that
            runs and did not answer
    status  its own account; None when it did not answer
    """

    node: ClusterNode
    state: str
    status: admin_pb2.GetStatusResponse | None

    @property
    def leads(self) -> list[int]:
        """The partitions that it leads, as it says itself."""
        from k2store.v1.admin_pb2 import REPLICA_ROLE_LEADER

        partitions = () if self.status is None else self.status.partitions
        return [one.partition for one in partitions if one.replica.role == REPLICA_ROLE_LEADER]


class Looks:
    """Connections to the admin services of nodes, for ``with``; they last over restarts."""

    def __init__(self, nodes: Sequence[ClusterNode], tls: Tls | None) -> None:
        self._nodes = tuple(nodes)
        self._tls = tls
        self._channels: list[grpc.Channel] = []

    def __enter__(self) -> Self:
        import grpc

        credentials = None
        if self._tls is not None:
            credentials = grpc.ssl_channel_credentials(
                *(
                    None if path is None else _read(path)
                    for path in (self._tls.authority, self._tls.key, self._tls.certificate)
                )
            )
        # A node that comes back is seen within a moment, not after a minute of growing pauses.
        options = [("grpc.max_reconnect_backoff_ms", 500), ("grpc.min_reconnect_backoff_ms", 100)]
        for node in self._nodes:
            self._channels.append(
                grpc.insecure_channel(node.seat.address, options)
                if credentials is None
                else grpc.secure_channel(node.seat.address, credentials, options)
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for channel in self._channels:
            channel.close()
        self._channels.clear()

    def look(self, patience_s: float = PATIENCE_S) -> list[Look]:
        """Ask every node that runs."""
        import grpc

        from k2store.v1 import admin_pb2
        from k2store.v1.admin_pb2_grpc import AdminServiceStub

        request = admin_pb2.GetStatusRequest()
        asked = [
            AdminServiceStub(channel).GetStatus.future(request, timeout=patience_s)
            if node.state == "up"
            else None
            for node, channel in zip(self._nodes, self._channels, strict=True)
        ]
        found = []
        for node, call in zip(self._nodes, asked, strict=True):
            if call is None:
                found.append(Look(node, node.state.upper(), None))
                continue
            try:
                status = call.result()
            except grpc.RpcError:
                found.append(Look(node, "SILENT" if node.running else "DOWN", None))
            else:
                found.append(Look(node, status.state, status))
        return found

    def clock(
        self, node: ClusterNode, patience_s: float = PATIENCE_S
    ) -> admin_pb2.GetClockResponse | None:
        """A node's clock, by itself so that the answer is quick; None without an answer."""
        import grpc

        from k2store.v1 import admin_pb2
        from k2store.v1.admin_pb2_grpc import AdminServiceStub

        channel = self._channels[self._nodes.index(node)]
        try:
            answer: admin_pb2.GetClockResponse = AdminServiceStub(channel).GetClock(
                admin_pb2.GetClockRequest(), timeout=patience_s
            )
        except grpc.RpcError:
            return None
        return answer


def _read(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123 - the settings of a client are plain text
        return file.read()
