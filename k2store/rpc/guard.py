"""What a reader may not do on a session, stopped before the engine sees it.

`Guard` stands between a listener and the engine. Frames of sessions that may write pass untouched
and unread. Frames of readers are parsed: commits with writes, one-shots with writes and early
writes are taken out and answered with a Rejected failure each; the rest goes on.
"""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import DecodeError

from k2store.errors import Rejected
from k2store.rpc.failures import to_failure
from k2store.rpc.gate import PERMISSIONS_GRANTED
from k2store.rpc.tokens import Permission
from k2store.rpc.transport import Connection, Handler
from k2store.v1 import session_pb2


class Guard:
    """A handler that lets readers only read."""

    def __init__(self, engine: Handler) -> None:
        self._engine = engine
        self._readers: set[Connection] = set()

    def on_connect(self, connection: Connection) -> None:
        """Note whether the session is a reader's."""
        granted = connection.metadata.get(PERMISSIONS_GRANTED, "").split(",")
        if Permission.WRITE.value not in granted:
            self._readers.add(connection)
        self._engine.on_connect(connection)

    def on_frame(self, connection: Connection, frame: bytes) -> None:
        """Pass the frame on, without what its sender may not do."""
        if connection in self._readers:
            frame = self._without_writes(connection, frame)
        self._engine.on_frame(connection, frame)

    def on_close(self, connection: Connection, reason: str) -> None:
        """Pass it on."""
        self._readers.discard(connection)
        self._engine.on_close(connection, reason)

    def _without_writes(self, connection: Connection, frame: bytes) -> bytes:
        try:
            request = session_pb2.SessionRequest.FromString(frame)
        except DecodeError:
            return frame  # The engine says what it says of every malformed frame.
        numbers = list(_writes(request))
        if not numbers:
            return frame
        refusal = Rejected("this session's token may read but not write", field="permission")
        answer = session_pb2.SessionResponse(
            failures=[to_failure(refusal, number) for number in numbers]
        )
        connection.send(answer.SerializeToString())
        # Of one kind the reader's harmless ones go too: a mixture is nobody's honest client.
        for kind in ("commits", "one_shots", "writes"):
            request.ClearField(kind)
        return request.SerializeToString()


def _writes(request: session_pb2.SessionRequest) -> Iterator[int]:
    """The numbers of all commits, one-shots and early writes, if any of them writes."""
    if request.commits.key or request.one_shots.write_key or request.writes:
        yield from request.commits.request
        yield from request.one_shots.request
        yield from (call.request for call in request.writes)
