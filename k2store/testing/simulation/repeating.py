"""A client whose messages come again: early writes, and then their commit, after it was answered.

The library never does this. A client in another language, or the next bug of ours, may; and it has
to change nothing: writes that come again after their commit are answered as they were, and a commit
that counts on writes of which nothing is known any more is refused (docs/protocol.md, cases 15 and
16). What is said again names the transaction's stamp, as everything does after its first answer:
without one, and after the client has let the node forget the transaction, it would be a new one.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import accumulate
from typing import Final

from k2store.rpc.transport import Connection, Dialer, Handler
from k2store.testing.simulation.loop import Loop
from k2store.v1 import session_pb2 as wire

SHARE: Final = 0.5
"""Of the transactions that have written early."""
PAUSE_S: Final = (0.0, 0.4)
"""Between the answer and the writes, and between those and the commit."""


class Repeating:
    """A dialer whose connections repeat themselves; implements `k2store.rpc.transport.Dialer`."""

    def __init__(self, dialer: Dialer, rng: random.Random, loop: Loop) -> None:
        self._dialer = dialer
        self._rng = rng
        self._loop = loop

    async def connect(
        self, address: str, metadata: Mapping[str, str], handler: Handler | None = None
    ) -> Connection:
        """As the dialer behind it does."""
        assert handler is not None, "a session hears its connections through a handler"
        between = _Between(handler, self._rng, self._loop)
        connection = await self._dialer.connect(address, metadata, between)
        return between.connection or connection


class _Between:
    """The handler of a connection that repeats: hands everything on."""

    def __init__(self, handler: Handler, rng: random.Random, loop: Loop) -> None:
        self._handler = handler
        self._rng = rng
        self._loop = loop
        self.connection: _Connection | None = None

    def on_connect(self, connection: Connection) -> None:
        self.connection = _Connection(connection, self._rng, self._loop)
        self._handler.on_connect(self.connection)

    def on_frame(self, connection: Connection, frame: bytes) -> None:
        assert self.connection is not None, "a frame comes over a connection that stands"
        self._handler.on_frame(self.connection, frame)
        self.connection.answered(frame)

    def on_close(self, connection: Connection, reason: str) -> None:
        self._handler.on_close(self.connection or connection, reason)


class _Connection:
    """A connection that repeats; implements `k2store.rpc.transport.Connection`."""

    def __init__(self, connection: Connection, rng: random.Random, loop: Loop) -> None:
        self._connection = connection
        self._rng = rng
        self._loop = loop
        self._writes: dict[bytes, list[wire.WriteCall]] = {}
        self._commits: dict[int, wire.CommitColumns] = {}

    @property
    def peer(self) -> str:
        return self._connection.peer

    @property
    def metadata(self) -> Mapping[str, str]:
        return self._connection.metadata

    @property
    def closed(self) -> bool:
        return self._connection.closed

    @property
    def queued_bytes(self) -> int:
        return self._connection.queued_bytes

    async def drain(self) -> None:
        await self._connection.drain()

    async def receive(self) -> bytes:
        return await self._connection.receive()

    def close(self, reason: str = "closed here") -> None:
        self._connection.close(reason)

    def send(self, frame: bytes) -> None:
        self._connection.send(frame)
        request = wire.SessionRequest.FromString(frame)
        for call in request.writes:
            self._writes.setdefault(call.txn, []).append(call)
        commits = request.commits
        ends = accumulate(commits.write_count)
        for index, (number, end) in enumerate(zip(commits.request, ends, strict=True)):
            if commits.early_count and commits.early_count[index]:
                self._commits[number] = _one(commits, index, end)

    def answered(self, frame: bytes) -> None:
        """The answer of a commit is what makes it safe to say it again: nobody waits for it."""
        columns = wire.SessionResponse.FromString(frame).committed
        for number, at in zip(columns.request, columns.at, strict=True):
            commit = self._commits.pop(number, None)
            if commit is None or self._rng.random() >= SHARE:
                continue
            writes = self._writes.pop(commit.txn[0], [])
            commit.at[0] = at
            for call in writes:
                call.at = at
            pause_s = self._rng.uniform(*PAUSE_S)
            self._loop.call_later(pause_s, self._again, wire.SessionRequest(writes=writes))
            pause_s += self._rng.uniform(*PAUSE_S)
            self._loop.call_later(pause_s, self._again, wire.SessionRequest(commits=commit))

    def _again(self, request: wire.SessionRequest) -> None:
        if not self._connection.closed:
            self._connection.send(request.SerializeToString())


def _one(commits: wire.CommitColumns, index: int, end: int) -> wire.CommitColumns:
    """The columns of a single commit, whose writes end before `end`."""
    begin = end - commits.write_count[index]
    return wire.CommitColumns(
        request=[commits.request[index]],
        txn=[commits.txn[index]],
        at=[commits.at[index]],
        write_count=[end - begin],
        key=commits.key[begin:end],
        value=commits.value[begin:end],
        deleted=commits.deleted[begin:end],
        timeout_ms=commits.timeout_ms[index : index + 1],
        early_count=[commits.early_count[index]],
    )
