"""The control plane in etcd, for installations that must survive the loss of any node.

::

    <prefix>map          the document of the present map       compared by its revision
    <prefix>epoch/<id>   the largest epoch granted             compared by its revision, and the
                                                               map's: no grant under an old map

Every read is linearizable and every write a transaction that compares revisions, so all the
deciding is etcd's. One member is asked at a time; when it fails, or says that it has no leader, the
next one is, until the call's deadline.

Of the package `aetcd` only the messages and stubs are used. Its client knows one member, no TLS and
no way to tell a lost answer from a refusal, which are the very things that matter here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, Final, NamedTuple, TypeVar

import grpc
import grpc.aio
from aetcd import rpc

from k2store.control.channel import (
    DEADLINE_S,
    PAUSE_S,
    PAUSE_S_MAX,
    SILENCE_S_MAX,
    TRANSIENT,
    Life,
    channel,
)
from k2store.control.map import Map, decode, encode
from k2store.control.ports import check_grant, check_ids, check_update
from k2store.errors import Corruption, OutcomeUnknown, Overloaded, Rejected, Unavailable

T = TypeVar("T")

PREFIX: Final = "k2store/"
"""What the keys begin with, unless the address says otherwise."""

ATTEMPT_S_MAX: Final = 1.5
"""How long one member is waited for: longer than its election of a leader by default."""

_METADATA: Final = (("hasleader", "true"),)
"""A member without a leader refuses at once, instead of waiting with us for one."""


class Stored(NamedTuple):
    """A key as it was read: the value (None: there is none) and the revision to compare with."""

    value: bytes | None
    revision: int


class _Collided(Exception):
    """Somebody else's transaction was first: look again, at once."""


class _MemberFailed(Exception):
    """One attempt at one member came to nothing; whether it took effect there is not known."""


class EtcdControl:
    """See :class:`k2store.control.ports.Control`."""

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        prefix: str = PREFIX,
        credentials: grpc.ChannelCredentials | None = None,
        deadline_s: float = DEADLINE_S,
        silence_s_max: float = SILENCE_S_MAX,
    ) -> None:
        """`endpoints`: `host:port` of the members that may be asked; nothing is sent before a call.

        `credentials` turn TLS on, for all of them.
        """
        if not endpoints:
            raise Rejected("etcd has at least one endpoint", field="cluster.control")
        self._endpoints = tuple(endpoints)
        self._channels = [channel(one, credentials) for one in self._endpoints]
        # Made once: to make a stub on a channel that is closed ends the process (gRPC 1.85).
        self._transact_at = [rpc.KVStub(one).Txn for one in self._channels]
        self._watch_at = [rpc.WatchStub(one).Watch for one in self._channels]
        self._at = 0
        self._map_key = f"{prefix}map".encode()
        self._epoch_key = f"{prefix}epoch/".encode()
        self._deadline_s = deadline_s
        self._silence_s_max = silence_s_max
        self._life = Life()

    async def load(self) -> Map:
        """The present map, read through etcd's leader."""
        return (await self._tried("load", self._load))[0]

    async def update(self, wanted: Map) -> None:
        """Store the next map if nobody else did since it was made."""
        doubtful = False

        async def update() -> None:
            nonlocal doubtful
            present, revision = await self._load()
            if doubtful and present == wanted:
                return  # An earlier attempt's answer was lost, not the attempt.
            if doubtful and present.version > wanted.version:
                raise OutcomeUnknown(
                    f"the map has version {present.version} by now; whether that of version "
                    f"{wanted.version} was this one is not known"
                )
            check_update(present, wanted)
            before, doubtful = doubtful, True
            stored = await self._transact(
                [_unchanged(self._map_key, revision)], _put(self._map_key, encode(wanted))
            )
            if not stored:
                doubtful = before
                raise _Collided

        try:
            await self._tried("update", update)
        except Unavailable as error:
            if doubtful:
                raise OutcomeUnknown(
                    f"{error.message}; the map of version {wanted.version} may or may not be stored"
                ) from error
            raise

    async def grant_epoch(self, partition: int, node: int, incarnation: bytes, above: int) -> int:
        """The next epoch, compared and swapped; one whose answer was lost is nobody's."""
        check_ids(partition, node, above)
        key = self._epoch_key + b"%010d" % partition

        async def grant() -> int:
            (stored_map, last), _ = await self._read(self._map_key, key)
            check_grant(_map_of(stored_map), partition, node, incarnation, above)
            epoch = max(above, _epoch_of(key, last)) + 1
            unchanged = [
                _unchanged(self._map_key, stored_map.revision),
                _unchanged(key, last.revision),
            ]
            if not await self._transact(unchanged, _put(key, b"%d" % epoch)):
                raise _Collided
            return epoch

        return await self._tried("grant_epoch", grant)

    async def watch(self) -> AsyncIterator[Map]:
        """The present map and newer ones, from whichever member answers."""
        told = -1
        pause_s = PAUSE_S
        while not self._life.over:
            try:
                async with aclosing(self._stream()) as maps:
                    async for found in maps:
                        pause_s = PAUSE_S
                        if found.version > told:
                            told = found.version
                            yield found
            except (_MemberFailed, Unavailable, Overloaded):
                pass
            await self._life.pause(pause_s)
            pause_s = min(2 * pause_s, PAUSE_S_MAX)

    async def close(self) -> None:
        """Close the connections."""
        await self._life.end()
        for one in self._channels:
            await one.close()

    # ---------------------------------------------------------------------------- attempts

    async def _tried(self, what: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """An attempt that came through, with one member or another, before the deadline."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._deadline_s
        pause_s = PAUSE_S
        why = "no answer"
        try:
            async with asyncio.timeout_at(deadline):
                while True:
                    self._life.check(what)
                    try:
                        return await attempt()
                    except _Collided:
                        why = "others were first again and again"
                    except _MemberFailed as failure:
                        why = str(failure)
                        await self._life.pause(pause_s)
                        pause_s = min(2 * pause_s, PAUSE_S_MAX)
        except TimeoutError:
            raise Unavailable(
                f"etcd at {', '.join(self._endpoints)} did not do {what} in "
                f"{self._deadline_s:g} s: {why}"
            ) from None

    async def _load(self) -> tuple[Map, int]:
        """The map, and the revision to compare its key with."""
        (found,), _ = await self._read(self._map_key)
        return _map_of(found), found.revision

    async def _read(self, *keys: bytes) -> tuple[list[Stored], int]:
        """Keys as they are at one moment, and the revision of the whole store then."""
        operations = [rpc.RequestOp(request_range=rpc.RangeRequest(key=key)) for key in keys]
        answer = await self._once(rpc.TxnRequest(success=operations))
        rows = [one.response_range.kvs for one in answer.responses]
        found = [
            Stored(row[0].value, row[0].mod_revision) if row else Stored(None, 0) for row in rows
        ]
        return found, answer.header.revision

    async def _transact(self, unchanged: Sequence[Any], put: Any) -> bool:
        """Put a key if others are unchanged; says whether they were."""
        request = rpc.TxnRequest(compare=unchanged, success=[put])
        answer = await self._once(request)
        return bool(answer.succeeded)

    async def _once(self, request: Any) -> Any:
        """One transaction at one member."""
        at = self._at
        begin = self._transact_at[at]
        try:
            return await self._life.call(
                "Txn", lambda: begin(request, timeout=ATTEMPT_S_MAX, metadata=_METADATA)
            )
        except grpc.RpcError as failure:
            raise self._failed(at, failure) from failure

    async def _stream(self) -> AsyncGenerator[Map, None]:
        """The map and its successors from one member, until it fails or falls silent."""
        (found,), revision = await self._tried("watch", lambda: self._read(self._map_key))
        yield _map_of(found)
        at = self._at
        create = rpc.WatchCreateRequest(key=self._map_key, start_revision=revision + 1)
        request = rpc.WatchRequest(create_request=create)
        watch = self._watch_at[at]
        try:
            with self._life.stream("watch", lambda: watch(metadata=_METADATA)) as call:
                await self._life.call("watch", lambda: call.write(request))
                while True:
                    async with asyncio.timeout(self._silence_s_max):
                        answer = await self._life.call("watch", call.read)
                    if answer is grpc.aio.EOF or answer.canceled:
                        return  # Among other reasons: what we wanted to see was compacted.
                    for event in answer.events:
                        yield _map_of(Stored(event.kv.value or None, event.kv.mod_revision))
        except TimeoutError:
            return  # The map does not change often: begin anew, and so learn who is there.
        except asyncio.InvalidStateError as failure:  # gRPC's word for a stream that ended already
            raise _MemberFailed(f"{self._endpoints[at]}: {failure}") from failure
        except grpc.RpcError as failure:
            raise self._failed(at, failure) from failure

    def _failed(self, at: int, failure: grpc.RpcError) -> Exception:
        """What a failed call of a member amounts to; the next attempt is at the next member."""
        member, code, details = self._endpoints[at], failure.code(), failure.details()
        told = f"{member}: {details or code.name}"
        if code in TRANSIENT or code is grpc.StatusCode.ABORTED:
            if self._at == at:
                self._at = (at + 1) % len(self._endpoints)
            return _MemberFailed(told)
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return Overloaded(f"etcd refuses: {told}")
        return Rejected(f"etcd refuses: {told}", field="cluster.control")


def _map_of(stored: Stored) -> Map:
    return Map() if stored.value is None else decode(stored.value)


def _epoch_of(key: bytes, stored: Stored) -> int:
    if stored.value is None:
        return 0
    if not stored.value.isdigit():
        raise Corruption(f"{key.decode()} in etcd holds no epoch: {stored.value!r}", what="control")
    return int(stored.value)


def _unchanged(key: bytes, revision: int) -> Any:
    """True in a transaction while nobody has written the key since; 0 means it does not exist."""
    return rpc.Compare(
        key=key, target=rpc.Compare.MOD, result=rpc.Compare.EQUAL, mod_revision=revision
    )


def _put(key: bytes, value: bytes) -> Any:
    return rpc.RequestOp(request_put=rpc.PutRequest(key=key, value=value))
