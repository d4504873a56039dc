"""Unary methods, admin service, health and the admin port of a real node."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import k2store
from k2store import errors
from k2store.errors import K2Error
from k2store.metrics.catalogue import CATALOGUE
from k2store.node.process import NodeProcess
from k2store.rpc.status import from_rpc_error
from k2store.v1 import admin_pb2, admin_pb2_grpc, session_pb2, store_pb2, store_pb2_grpc
from tests.integration.rpc_node import http, running_node, with_node

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def failure_of(call: object) -> K2Error:
    """The error of the tree with which a call ends."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return from_rpc_error(caught.value)


def store_of(channel: grpc.aio.Channel) -> store_pb2_grpc.StoreServiceAsyncStub:
    """A stub of the store."""
    return store_pb2_grpc.StoreServiceStub(channel)


def test_values_written_are_read_back_with_their_stamps(tmp_path: Path) -> None:
    """Put, Get, Delete, Scan in pages and History tell one story, at rising stamps."""

    async def body(node: NodeProcess, channel: grpc.aio.Channel) -> None:
        store = store_of(channel)
        first = await store.Put(store_pb2.PutRequest(key=b"a", value=b"1"))
        await store.Put(store_pb2.PutRequest(key=b"b", value=b"2"))
        await store.Put(store_pb2.PutRequest(key=b"a", value=b"3"))
        got = await store.Get(store_pb2.GetRequest(key=b"a"))
        assert (got.found, got.value) == (True, b"3")
        old = await store.Get(store_pb2.GetRequest(key=b"a", at=first.at))
        assert (old.value, old.version, old.at) == (b"1", first.at, first.at)
        absent = await store.Get(store_pb2.GetRequest(key=b"zz"))
        assert not absent.found
        assert absent.at > got.version > first.at

        page = await store.Scan(store_pb2.ScanRequest(limit=1))
        assert [row.key for row in page.rows] == [b"a"]
        rest = await store.Scan(store_pb2.ScanRequest(start=page.resume, at=page.at))
        assert [row.key for row in rest.rows] == [b"b"]
        assert not rest.HasField("resume")
        back = await store.Scan(store_pb2.ScanRequest(reverse=True))
        assert [row.key for row in back.rows] == [b"b", b"a"]

        gone = await store.Delete(store_pb2.DeleteRequest(key=b"a"))
        history = await store.History(store_pb2.HistoryRequest(key=b"a"))
        assert [(one.value, one.deleted) for one in history.versions] == [
            (b"", True),
            (b"3", False),
            (b"1", False),
        ]
        assert history.versions[0].at == gone.at
        newest = await store.History(store_pb2.HistoryRequest(key=b"a", limit=1))
        assert len(newest.versions) == 1
        assert newest.more

    with_node(tmp_path, body)


def test_one_shots_check_read_and_write_at_once(tmp_path: Path) -> None:
    """Transact applies under its conditions, once for an id, and says which condition failed."""

    async def body(node: NodeProcess, channel: grpc.aio.Channel) -> None:
        store = store_of(channel)
        absent = store_pb2.Condition(kind=session_pb2.CONDITION_KIND_ABSENT, key=b"k")
        named = store_pb2.TransactRequest(
            conditions=[absent],
            reads=[b"k"],
            writes=[store_pb2.Mutation(key=b"k", value=b"v")],
            txn=b"0123456789abcdef",
        )
        first = await store.Transact(named)
        assert not first.values[0].found
        assert (await store.Transact(named)).at == first.at, "the same attempt, not a second one"
        assert len((await store.History(store_pb2.HistoryRequest(key=b"k"))).versions) == 1

        error = await failure_of(
            store.Put(store_pb2.PutRequest(key=b"x", value=b"", conditions=[absent]))
        )
        assert isinstance(error, errors.ConditionFailed)
        assert (error.key, error.condition) == (b"k", 0)
        older = store_pb2.Condition(
            kind=session_pb2.CONDITION_KIND_FIELD,
            key=b"k",
            predicate=session_pb2.FieldPredicate(
                name="expires",
                comparison=session_pb2.COMPARISON_LESS,
                own=session_pb2.OWN_OPERAND_TIME_NS,
            ),
        )
        error = await failure_of(
            store.Delete(store_pb2.DeleteRequest(key=b"k", conditions=[older]))
        )
        assert isinstance(error, errors.K2Error)

    with_node(tmp_path, body)


def test_interactive_transactions_span_calls(tmp_path: Path) -> None:
    """Begin, Get, Scan and Commit run one transaction; it is gone after its end."""

    async def body(node: NodeProcess, channel: grpc.aio.Channel) -> None:
        store = store_of(channel)
        await store.Put(store_pb2.PutRequest(key=b"a", value=b"1"))
        txn = (await store.Begin(store_pb2.BeginRequest())).txn
        read = await store.Get(store_pb2.GetRequest(key=b"a", txn=txn))
        page = await store.Scan(store_pb2.ScanRequest(txn=txn))
        assert page.at == read.at
        writes = [
            store_pb2.Mutation(key=b"b", value=read.value),
            store_pb2.Mutation(key=b"a", deleted=True),
        ]
        done = await store.Commit(store_pb2.CommitRequest(txn=txn, writes=writes))
        assert done.at == read.at
        rows = (await store.Scan(store_pb2.ScanRequest())).rows
        assert [(row.key, row.value) for row in rows] == [(b"b", b"1")]
        told = await store.Outcome(store_pb2.OutcomeRequest(txn=txn, anchor=b"b", at=done.at))
        assert (told.state, told.at) == (session_pb2.OUTCOME_STATE_COMMITTED, done.at)
        again = await failure_of(store.Commit(store_pb2.CommitRequest(txn=txn)))
        assert isinstance(again, errors.Expired)

        other = (await store.Begin(store_pb2.BeginRequest())).txn
        await store.Get(store_pb2.GetRequest(key=b"b", txn=other))
        await store.Rollback(store_pb2.RollbackRequest(txn=other))
        await store.Rollback(store_pb2.RollbackRequest(txn=other))
        gone = await failure_of(store.Get(store_pb2.GetRequest(key=b"b", txn=other)))
        assert isinstance(gone, errors.Expired)

    with_node(tmp_path, body)


def test_conflicting_transactions_get_a_conflict(tmp_path: Path) -> None:
    """Of two transactions that read and write one key, the older one is refused as a Conflict."""

    async def body(node: NodeProcess, channel: grpc.aio.Channel) -> None:
        store = store_of(channel)
        await store.Put(store_pb2.PutRequest(key=b"n", value=b"0"))
        one = (await store.Begin(store_pb2.BeginRequest())).txn
        two = (await store.Begin(store_pb2.BeginRequest())).txn
        await store.Get(store_pb2.GetRequest(key=b"n", txn=one))
        await store.Get(store_pb2.GetRequest(key=b"n", txn=two))
        write = [store_pb2.Mutation(key=b"n", value=b"1")]
        error = await failure_of(store.Commit(store_pb2.CommitRequest(txn=one, writes=write)))
        assert isinstance(error, errors.Conflict)
        assert error.key == b"n"
        await store.Commit(store_pb2.CommitRequest(txn=two, writes=write))

    with_node(tmp_path, body)


BAD_INPUT: tuple[tuple[str, Any, type[K2Error], str | None], ...] = (
    ("Put", store_pb2.PutRequest(key=b"k" * 5000), errors.Rejected, "key"),
    ("Put", store_pb2.PutRequest(key=b"k", value=b"v" * 1_100_000), errors.Rejected, "value"),
    (
        "Put",
        store_pb2.PutRequest(key=b"k", conditions=[store_pb2.Condition(key=b"k")]),
        errors.Rejected,
        "conditions[0]",
    ),
    (
        "Delete",
        store_pb2.DeleteRequest(
            key=b"k",
            conditions=[store_pb2.Condition(kind=session_pb2.CONDITION_KIND_FIELD, key=b"k")],
        ),
        errors.Rejected,
        "conditions[0]",
    ),
    ("Transact", store_pb2.TransactRequest(txn=b"short"), errors.Rejected, "txn"),
    ("Rollback", store_pb2.RollbackRequest(txn=b"short"), errors.Rejected, "txn"),
    ("Outcome", store_pb2.OutcomeRequest(txn=b"short"), errors.Rejected, "transaction"),
    ("Commit", store_pb2.CommitRequest(txn=b"0123456789abcdef"), errors.Expired, None),
    ("Get", store_pb2.GetRequest(key=b"k", at=1), errors.TooOld, None),
)


def test_bad_input_gets_its_typed_error_and_changes_nothing(tmp_path: Path) -> None:
    """Each kind of bad input ends with its class and field, and leaves the store empty."""

    async def body(node: NodeProcess, channel: grpc.aio.Channel) -> None:
        for method, message, kind, field in BAD_INPUT:
            error = await failure_of(getattr(store_of(channel), method)(message))
            assert type(error) is kind, (method, field)
            assert field is None or error.details()["field"] == field
        assert not (await store_of(channel).Scan(store_pb2.ScanRequest())).rows

    with_node(tmp_path, body)


def test_every_call_has_a_deadline(tmp_path: Path) -> None:
    """A read of the far future waits for its own deadline, or the node's when it states none."""

    async def body(node: NodeProcess, channel: grpc.aio.Channel) -> None:
        far = store_pb2.GetRequest(key=b"k", at=2**63)
        assert isinstance(await failure_of(store_of(channel).Get(far)), K2Error)
        assert isinstance(await failure_of(store_of(channel).Get(far, timeout=0.1)), K2Error)

    with_node(tmp_path, body, client__deadline="200ms")


def test_stamps_are_granted_within_the_bound(tmp_path: Path) -> None:
    """GrantStamps gives distinct stamps of this oracle; none for a count of zero."""

    async def body(node: NodeProcess, channel: grpc.aio.Channel) -> None:
        admin = admin_pb2_grpc.AdminServiceStub(channel)
        one = await admin.GrantStamps(admin_pb2.GrantStampsRequest(count=50))
        two = await admin.GrantStamps(admin_pb2.GrantStampsRequest(count=50))
        assert 0 < one.count <= 50
        assert two.base > one.base + (one.count - 1) * one.step
        zero = await failure_of(admin.GrantStamps(admin_pb2.GrantStampsRequest()))
        assert isinstance(zero, errors.Rejected)

    with_node(tmp_path, body)


def test_status_and_clock_say_what_happened(tmp_path: Path) -> None:
    """GetStatus and GetClock show commits, partitions, the clock's bound and that it is assumed."""

    async def body(node: NodeProcess, channel: grpc.aio.Channel) -> None:
        await store_of(channel).Put(store_pb2.PutRequest(key=b"k", value=b"v"))
        admin = admin_pb2_grpc.AdminServiceStub(channel)
        status = await admin.GetStatus(admin_pb2.GetStatusRequest())
        assert (status.state, status.node) == ("SERVING", "node-1")
        assert status.durable_turn > 0
        assert [one.keys_in_memory for one in status.partitions] == [1]
        clock = await admin.GetClock(admin_pb2.GetClockRequest())
        assert (clock.source, clock.assumed, clock.commits) == ("declared", True, 1)
        assert clock.hi_ns - clock.lo_ns == 300_000

    with_node(tmp_path, body, clock__bound="300us")


def test_draining_turns_health_off_and_ends_in_order(tmp_path: Path) -> None:
    """Drain: NOT_SERVING and 503 first, open transactions may still commit, then the node ends."""

    async def body(node: NodeProcess, channel: grpc.aio.Channel) -> None:
        await store_of(channel).Put(store_pb2.PutRequest(key=b"k", value=b"begun"))
        # The type hints of this stub know neither Watch nor asynchronous channels.
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service="k2store.v1.StoreService"))
        assert (await watch.read()).status == SERVING
        assert node.ready is not None
        assert (await http(node.ready.admin, b"GET /readyz HTTP/1.1\r\n\r\n"))[0] == 200
        async with k2store.connect(f"k2://{node.address}") as db:
            async for txn in db.transactions(attempts=1):
                async with txn:
                    await txn.get(b"k")
                    admin = admin_pb2_grpc.AdminServiceStub(channel)
                    await admin.Drain(admin_pb2.DrainRequest(grace_ms=5000))
                    assert (await watch.read()).status == NOT_SERVING
                    ready, _ = await http(node.ready.admin, b"GET /readyz HTTP/1.1\r\n\r\n")
                    live, _ = await http(node.ready.admin, b"GET /healthz HTTP/1.1\r\n\r\n")
                    assert (ready, live) == (503, 200)
                    txn.put(b"k", b"finished")
            assert txn.committed_at
        await node.wait()

    with_node(tmp_path, body)

    async def after() -> None:
        async with running_node(tmp_path) as node, grpc.aio.insecure_channel(node.address) as ch:
            got = await store_of(ch).Get(store_pb2.GetRequest(key=b"k"))
            assert got.value == b"finished"

    asyncio.run(after())


OF_A_CLUSTER = (
    "k2_cluster_",
    "k2_partition_apply_lag_",
    "k2_partition_elections_",
    "k2_partition_epoch",
    "k2_partition_installs_",
    "k2_partition_leader",
    "k2_partition_lease_",
    "k2_partition_log_lag_",
    "k2_partition_voters",
    "k2_peer_",
)


def test_every_metric_of_the_catalogue_is_told(tmp_path: Path) -> None:
    """A scrape has a sample of every metric in the table, and nothing of a key or value."""

    async def body(node: NodeProcess, channel: grpc.aio.Channel) -> None:
        await store_of(channel).Put(store_pb2.PutRequest(key=b"secretkey", value=b"secretvalue"))
        assert node.ready is not None
        code, text = await http(node.ready.admin, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert code == 200
        lines = text.decode().splitlines()
        told = {line.split()[2] for line in lines if line.startswith("# TYPE")}
        assert {row.name for row in CATALOGUE} <= told
        names = {line.partition(" ")[0].partition("{")[0] for line in lines}
        silent = {row.name for row in CATALOGUE} - names
        # What only a member of a cluster has a figure for; this node is alone.
        assert silent == {row.name for row in CATALOGUE if row.name.startswith(OF_A_CLUSTER)}
        assert b"k2_commits_total 1.0" in text
        assert b"secret" not in text

    with_node(tmp_path, body)


REQUESTS = (
    (b"GET / HTTP/1.1\r\n\r\n", 404),
    (b"HEAD /metrics HTTP/1.1\r\n\r\n", 200),
    (b"POST /metrics HTTP/1.1\r\n\r\n", 405),
    (b"nonsense\r\n\r\n", 400),
    (b"\x00\xff" * 100 + b"\r\n\r\n", 400),
    (b"GET /" + b"x" * 20_000, 0),
)


def test_the_admin_port_answers_any_request_shortly(tmp_path: Path) -> None:
    """Wrong paths, methods, garbage and endless heads get a short answer or none, and no more."""

    async def body(node: NodeProcess, channel: grpc.aio.Channel) -> None:
        assert node.ready is not None
        for head, code in REQUESTS:
            assert (await http(node.ready.admin, head))[0] == code, head[:20]
        assert (await http(node.ready.admin, b"GET /healthz HTTP/1.1\r\n\r\n"))[0] == 200

    with_node(tmp_path, body)


def test_reads_say_how_stale_they_are(tmp_path: Path) -> None:
    """Bounded, local and session reads come from the node's copy, with their stamp and age."""

    async def body(node: NodeProcess, channel: grpc.aio.Channel) -> None:
        store = store_of(channel)
        put = await store.Put(store_pb2.PutRequest(key=b"k", value=b"v"))
        local = await store.Get(store_pb2.GetRequest(key=b"k", freshness=store_pb2.FRESHNESS_LOCAL))
        assert (local.value, local.at > put.at) == (b"v", True)
        since = await store.Get(
            store_pb2.GetRequest(
                key=b"k",
                freshness=store_pb2.FRESHNESS_BOUNDED,
                max_staleness_ms=60_000,
                since=put.at,
            )
        )
        assert since.value == b"v"
        assert since.at >= put.at
        for answer in (local, since):
            assert 0 < answer.staleness_ms < 60_000
        absent = await store.Get(
            store_pb2.GetRequest(key=b"no", freshness=store_pb2.FRESHNESS_LOCAL)
        )
        assert not absent.found

    with_node(tmp_path, body)
