"""The unary methods and the watch of StoreService, for other languages, generic clients and people.

Each method is a thin adapter over a `Database` that is connected to the same node inside the
process. So it has the same handlers, retries, limits and commit wait as the session stream, and no
second way into the store exists. A unary call costs about fifty times what the same operation
costs in a frame: programs that care use the client library.

Every call has a deadline: the caller's, cut to the node's longest, or the node's default. When it
passes, reads had no effect and writes may or may not have taken, which is what DEADLINE_EXCEEDED
means to gRPC. Watches run until either side ends them.
"""

# ruff: noqa: N802 - gRPC names the methods

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Final, NoReturn, TypeVar

import grpc.aio

from k2store.client.conditions import FIELD, NO_ROW, Condition, Own, Predicate, Scalar
from k2store.client.database import Database
from k2store.client.ranges import KeyRange
from k2store.client.scan import StrongReader
from k2store.client.watch import Changes
from k2store.errors import Deadline, K2Error, Rejected
from k2store.rpc.interactive import OpenTransactions
from k2store.rpc.status import abort
from k2store.v1 import session_pb2, store_pb2, store_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]
T = TypeVar("T")

TXN_BYTES: Final = 16


class StoreMethods(store_pb2_grpc.StoreServiceServicer):
    """Everything of StoreService but the session stream."""

    def __init__(
        self, database: Database, *, deadline_s: float, deadline_s_max: float, lifetime_s: float
    ) -> None:
        """`deadline_s`: of calls that state none; `lifetime_s`: of interactive transactions."""
        self._database = database
        self._deadline_s = deadline_s
        self._deadline_s_max = deadline_s_max
        self._open = OpenTransactions(database.session, lifetime_s=lifetime_s)

    def close(self) -> None:
        """End what is still open."""
        self._open.close()

    # ------------------------------------------------------------------------------- reads

    async def Get(self, request: store_pb2.GetRequest, context: Context) -> store_pb2.GetResponse:
        """Read one key: strong, at a past stamp, or in an interactive transaction."""

        async def get(timeout_s: float) -> store_pb2.GetResponse:
            if request.txn:
                txn = self._open.find(request.txn)
                value, version = await txn.get(request.key, _milliseconds(timeout_s))
                return store_pb2.GetResponse(
                    found=value is not None, value=value or b"", version=version, at=txn.at
                )
            if request.at or not (request.freshness or request.since):
                return await self._read(request.key, request.at, timeout_s)
            return await self._view(request, timeout_s)

        return await self._answer(context, get, bounded=True)

    async def _view(self, request: store_pb2.GetRequest, timeout_s: float) -> store_pb2.GetResponse:
        """A read of this node's own copy."""
        bounded = request.freshness == store_pb2.FRESHNESS_BOUNDED
        async with self._database.snapshot(
            strong=not bounded,
            local=request.freshness == store_pb2.FRESHNESS_LOCAL,
            max_staleness=request.max_staleness_ms / 1000,
            since=request.since or None,
            timeout=timeout_s,
        ) as view:
            record = await view.get_record(request.key)
            answer = store_pb2.GetResponse(
                at=view.at, staleness_ms=math.ceil(view.staleness_s * 1000)
            )
        if record is not None:
            answer.found, answer.value, answer.version = True, record.value, record.version
        return answer

    async def Scan(
        self, request: store_pb2.ScanRequest, context: Context
    ) -> store_pb2.ScanResponse:
        """Read one page of a range."""

        async def scan(timeout_s: float) -> store_pb2.ScanResponse:
            message = session_pb2.ScanCall(
                start=request.start,
                end=request.end,
                limit=request.limit,
                reverse=request.reverse,
            )
            timeout_ms = _milliseconds(timeout_s)
            if request.txn:
                page = await self._open.find(request.txn).page(message, timeout_ms)
            else:
                session = self._database.session
                if request.at:
                    await session.bounded_time.past(request.at)
                page = await StrongReader(session, timeout_s, timeout_ms, request.at).page(message)
            answer = store_pb2.ScanResponse(at=page.at)
            for key, value, version in zip(page.key, page.value, page.version, strict=True):
                answer.rows.add(key=key, value=value, version=version)
            if page.HasField("resume"):
                answer.resume = page.resume
            return answer

        return await self._answer(context, scan, bounded=True)

    async def History(
        self, request: store_pb2.HistoryRequest, context: Context
    ) -> store_pb2.HistoryResponse:
        """List the versions of one key, newest first."""

        async def history(timeout_s: float) -> store_pb2.HistoryResponse:
            session = self._database.session
            call = session_pb2.HistoryCall(key=request.key, at=request.at, limit=request.limit)
            deadline = session.now_s() + timeout_s
            page: session_pb2.HistoryAnswer = await session.call("histories", call, deadline, None)
            if page.at:
                await session.bounded_time.past(page.at[0])
            answer = store_pb2.HistoryResponse(more=page.more)
            for at, value, deleted in zip(page.at, page.value, page.deleted, strict=True):
                answer.versions.add(at=at, value=value, deleted=deleted)
            return answer

        return await self._answer(context, history, bounded=True)

    async def Watch(
        self, request: store_pb2.WatchRequest, context: Context
    ) -> AsyncIterator[store_pb2.WatchResponse]:
        """Deliver the commits of a range, in order, with marks."""
        where = KeyRange(request.start, request.end)
        watch = self._database.watch(where, since=request.since or None)
        try:
            async with watch:
                async for event in watch:
                    if isinstance(event, Changes):
                        yield store_pb2.WatchResponse(
                            at=event.at,
                            changes=[_mutation(one.key, one.value) for one in event.records],
                        )
                    else:
                        yield store_pb2.WatchResponse(at=event.at, resolved=True)
        except K2Error as error:
            await abort(context, error)

    # ------------------------------------------------------------------------------ writes

    async def Put(self, request: store_pb2.PutRequest, context: Context) -> store_pb2.PutResponse:
        """Write one key."""

        async def put(timeout_s: float) -> store_pb2.PutResponse:
            at = await self._database.put(
                request.key,
                request.value,
                conditions=conditions_of(request.conditions),
                timeout=timeout_s,
            )
            return store_pb2.PutResponse(at=at)

        return await self._answer(context, put)

    async def Delete(
        self, request: store_pb2.DeleteRequest, context: Context
    ) -> store_pb2.DeleteResponse:
        """Delete one key."""

        async def delete(timeout_s: float) -> store_pb2.DeleteResponse:
            at = await self._database.delete(
                request.key, conditions=conditions_of(request.conditions), timeout=timeout_s
            )
            return store_pb2.DeleteResponse(at=at)

        return await self._answer(context, delete)

    async def Transact(
        self, request: store_pb2.TransactRequest, context: Context
    ) -> store_pb2.TransactResponse:
        """Run a one-shot transaction."""

        async def transact(timeout_s: float) -> store_pb2.TransactResponse:
            if request.txn:
                at, versions, values = await self._transact_as(request, timeout_s)
            else:
                result = await self._database.transact(
                    conditions=conditions_of(request.conditions),
                    reads=request.reads,
                    writes=_writes(request.writes),
                    timeout=timeout_s,
                )
                at, versions = result.at, result.versions
                values = tuple(value or b"" for value in result.values)
            answer = store_pb2.TransactResponse(at=at)
            for version, value in zip(versions, values, strict=True):
                answer.values.add(found=bool(version), value=value, version=version, at=at)
            return answer

        return await self._answer(context, transact)

    async def _transact_as(
        self, request: store_pb2.TransactRequest, timeout_s: float
    ) -> tuple[int, Iterable[int], Iterable[bytes]]:
        """One attempt under the caller's own id, which makes repeating the call harmless."""
        _check_txn(request.txn)
        session = self._database.session
        writes = _writes(request.writes)
        at, _, versions, values = await session.one_shot(
            request.txn,
            conditions_of(request.conditions),
            tuple(request.reads),
            tuple(key for key, _ in writes),
            tuple(value for _, value in writes),
            request.ByteSize(),
            session.now_s() + timeout_s,
            _milliseconds(timeout_s),
        )
        return at, versions, values

    # ------------------------------------------------------------- interactive transactions

    async def Begin(
        self, request: store_pb2.BeginRequest, context: Context
    ) -> store_pb2.BeginResponse:
        """Begin an interactive transaction."""

        async def begin(_: float) -> store_pb2.BeginResponse:
            return store_pb2.BeginResponse(txn=self._open.begin().id)

        return await self._answer(context, begin)

    async def Commit(
        self, request: store_pb2.CommitRequest, context: Context
    ) -> store_pb2.CommitResponse:
        """Commit an interactive transaction with its writes."""

        async def commit(timeout_s: float) -> store_pb2.CommitResponse:
            txn = self._open.take(request.txn)
            at = await txn.commit(_writes(request.writes), _milliseconds(timeout_s))
            return store_pb2.CommitResponse(at=at)

        return await self._answer(context, commit)

    async def Rollback(
        self, request: store_pb2.RollbackRequest, context: Context
    ) -> store_pb2.RollbackResponse:
        """End an interactive transaction without effect; one that is not open is over anyway."""

        async def rollback(_: float) -> store_pb2.RollbackResponse:
            _check_txn(request.txn)
            self._open.rollback(request.txn)
            return store_pb2.RollbackResponse()

        return await self._answer(context, rollback)

    async def Outcome(
        self, request: store_pb2.OutcomeRequest, context: Context
    ) -> store_pb2.OutcomeResponse:
        """Tell what became of a transaction."""

        async def outcome(timeout_s: float) -> store_pb2.OutcomeResponse:
            found = await self._database.outcome(
                request.txn, anchor=request.anchor, at=request.at, timeout=timeout_s
            )
            return store_pb2.OutcomeResponse(state=_OUTCOMES[found.state], at=found.at)

        return await self._answer(context, outcome)

    # ----------------------------------------------------------------------------- shared

    async def Session(
        self, request: object, context: Context
    ) -> AsyncIterator[session_pb2.SessionResponse]:
        """Refuse: a node's transport takes this method before it is looked for here."""
        await abort(context, Rejected("this server carries no sessions", field="method"))
        yield session_pb2.SessionResponse()

    async def _read(self, key: bytes, at: int, timeout_s: float) -> store_pb2.GetResponse:
        session = self._database.session
        if at:
            await session.bounded_time.past(at)
        deadline = session.now_s() + timeout_s
        value, version, read_at = await session.read(
            b"", at, key, deadline, _milliseconds(timeout_s), None
        )
        await session.bounded_time.past(read_at)
        return store_pb2.GetResponse(
            found=value is not None, value=value or b"", version=version, at=read_at
        )

    async def _answer(
        self,
        context: Context,
        run: Callable[[float], Awaitable[T]],
        *,
        bounded: bool = False,
    ) -> T:
        """Run a method under its deadline and turn failures into status.

        `bounded` methods have no effect and may be cut off here; the others are told their
        deadline and say themselves whether they may have taken.
        """
        left_s = context.time_remaining()
        timeout_s = self._deadline_s
        if left_s is not None:
            timeout_s = min(left_s, self._deadline_s_max)
        if timeout_s <= 0:
            return await _end(context, Deadline("the deadline had passed before the call began"))
        try:
            async with asyncio.timeout(timeout_s if bounded else None):
                return await run(timeout_s)
        except TimeoutError:
            return await _end(context, Deadline("the deadline passed before the answer"))
        except K2Error as error:
            return await _end(context, error)


async def _end(context: Context, error: K2Error) -> NoReturn:
    await abort(context, error)
    raise AssertionError("gRPC's abort raises")


_OUTCOMES: Final = {
    "committed": session_pb2.OUTCOME_STATE_COMMITTED,
    "aborted": session_pb2.OUTCOME_STATE_ABORTED,
    "unknown": session_pb2.OUTCOME_STATE_UNKNOWN,
}


# Numbers that a peer may send are not limited to those that the schema names.
_KINDS: Final = frozenset(session_pb2.ConditionKind.values()) - {0}
_COMPARISONS: Final = frozenset(session_pb2.Comparison.values()) - {0}
_OWN: Final = frozenset(session_pb2.OwnOperand.values()) - {0}


def conditions_of(messages: Iterable[store_pb2.Condition]) -> tuple[Condition, ...]:
    """Conditions as the client library states them; raises Rejected for incomplete ones."""
    return tuple(_condition(number, message) for number, message in enumerate(messages))


def _condition(number: int, message: store_pb2.Condition) -> Condition:
    where = f"conditions[{number}]"
    if message.kind not in _KINDS:
        raise Rejected(f"{where} does not say what it states", field=where)
    predicate = None
    if message.kind in {FIELD, NO_ROW}:
        predicate = _predicate(where, message.predicate)
    elif message.HasField("predicate"):
        raise Rejected(f"{where} has a predicate, which its kind does not use", field=where)
    return Condition(message.kind, message.key, message.version, message.value, predicate)


def _predicate(where: str, message: session_pb2.FieldPredicate) -> Predicate:
    field = message.WhichOneof("field")
    if field is None:
        raise Rejected(f"{where} names no field", field=where)
    if message.comparison not in _COMPARISONS:
        raise Rejected(f"{where} does not say how to compare", field=where)
    right: Scalar | Own
    own = int(message.own)
    if own == session_pb2.OWN_OPERAND_UNSPECIFIED:
        constant = message.WhichOneof("constant")
        right = None if constant is None else getattr(message, constant)
    elif own in _OWN:
        right = Own(own)
    else:
        raise Rejected(f"{where} compares with something unknown", field=where)
    return Predicate(getattr(message, field), message.comparison, right, message.end)


def _writes(messages: Iterable[store_pb2.Mutation]) -> list[tuple[bytes, bytes | None]]:
    return [(one.key, None if one.deleted else one.value) for one in messages]


def _mutation(key: bytes, value: bytes | None) -> store_pb2.Mutation:
    return store_pb2.Mutation(key=key, value=value or b"", deleted=value is None)


def _check_txn(txn: bytes) -> None:
    if len(txn) != TXN_BYTES:
        raise Rejected(f"a transaction id has {TXN_BYTES} bytes, not {len(txn)}", field="txn")


def _milliseconds(span_s: float) -> int:
    return min(max(1, int(span_s * 1000)), 0xFFFF_FFFF)
