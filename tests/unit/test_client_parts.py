"""The client's small parts: retry plans, addresses, ranges, conditions, overlays, the local transport."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import k2store
from k2store import errors
from k2store.client.address import parse
from k2store.client.bounded_time import BoundedTime
from k2store.client.conditions import Condition, Own, Predicate
from k2store.client.outbox import Outbox, predicate_message
from k2store.client.ranges import KeyRange, prefix
from k2store.client.records import Record
from k2store.client.retry import Failed, RetryPolicy, retries
from k2store.client.write_buffer import overlay
from k2store.node.limits import Malformed
from k2store.node.one_shots import conditions_of
from k2store.rpc.local import LocalTransport
from k2store.rpc.transport import ConnectFailed, Connection, ConnectionClosed, SendQueueFull
from k2store.testing.simulation.loop import Loop
from k2store.v1 import session_pb2 as wire
from mvcc.conditions import Operand
from truetime import timestamp

KEYS = st.binary(max_size=3)


def pauses(error: errors.K2Error, *, deadline_s: float = 1e9, attempts: int = 8) -> list[float]:
    """What a plan offers when every attempt fails alike."""
    plan = retries(RetryPolicy(attempts_max=attempts), deadline_s, random.Random(3))
    next(plan)
    found: list[float] = []
    now_s = 0.0
    while True:
        try:
            found.append(plan.send(Failed(error, now_s)))
        except StopIteration:
            return found
        now_s += found[-1]


def test_a_plan_follows_the_class_of_failure() -> None:
    """Each class of the tree is retried as its `retry` says, and no other way."""
    for kind in errors.CLASSES:
        offered = pauses(kind("x"))
        if kind.retry is errors.Retry.NOW:
            assert len(offered) == 7
            assert offered[0] == 0
        elif kind.retry is errors.Retry.LATER:
            assert len(offered) == 7
            assert 0.01 <= offered[0] < 0.03
        else:
            assert offered == []


def test_a_plan_keeps_its_budget() -> None:
    """Pauses grow to their limit, honour what the node asks, and never pass the deadline."""
    later = pauses(errors.Unavailable("x"), attempts=30)
    assert len(later) == 29
    assert max(later) < 1.5
    assert later[6] > later[0]
    assert all(one >= 0.7 for one in pauses(errors.Overloaded("x", retry_after_s=0.7)))
    short = pauses(errors.Unavailable("x"), deadline_s=0.5, attempts=100)
    assert sum(short) < 0.5
    assert 0 < len(short) < 29
    assert pauses(errors.Conflict("x"), attempts=1) == []


@pytest.mark.parametrize(
    "text, found",
    [
        ("k2://a:1,b:2", ("a:1", "b:2")),
        ("a", ("a:7400",)),
        ("k2://a, a ,b/", ("a:7400", "b:7400")),
        ("k2://[::1]:9", ("[::1]:9",)),
        ("k2://[::1]", ("[::1]:7400",)),
    ],
)
def test_addresses(text: str, found: tuple[str, ...]) -> None:
    """Hosts, default ports, lists and IPv6 literals are understood."""
    assert parse(text) == found


@pytest.mark.parametrize(
    "text", ["", "k2://", "http://a:1", "a:0", "a:70000", "a:x", "::1", "a,,b"]
)
def test_wrong_addresses(text: str) -> None:
    """What is no address is Rejected and names the field."""
    with pytest.raises(k2store.Rejected) as raised:
        parse(text)
    assert raised.value.field == "address"


@given(st.binary(max_size=4), st.binary(max_size=6))
def test_a_prefix_is_a_range(start: bytes, key: bytes) -> None:
    """A key is in the range of a prefix exactly when it begins with it."""
    assert prefix(start).contains(key) == key.startswith(start)


@given(
    st.dictionaries(KEYS, st.binary(max_size=2)),
    st.lists(st.dictionaries(KEYS, st.none() | st.binary(max_size=2)), max_size=3),
    KEYS,
    KEYS,
    st.booleans(),
)
def test_an_overlay_is_what_a_dictionary_would_show(
    rows: dict[bytes, bytes],
    layers: list[dict[bytes, bytes | None]],
    start: bytes,
    end: bytes,
    reverse: bool,
) -> None:
    """Rows under layers of writes equal one dictionary updated in the same order."""
    covered = KeyRange(start, end)
    expected: dict[bytes, bytes | None] = {k: v for k, v in rows.items() if covered.contains(k)}
    for layer in layers:
        expected.update({key: value for key, value in layer.items() if covered.contains(key)})
    page = [Record(k, v, 1) for k, v in sorted(rows.items()) if covered.contains(k)]
    seen = [(row.key, row.value) for row in overlay(page, layers, covered, reverse=reverse)]
    wanted = [(key, value) for key, value in sorted(expected.items()) if value is not None]
    assert seen == (wanted[::-1] if reverse else wanted)


def test_predicates_travel_as_they_are_meant() -> None:
    """Every form of a field comparison becomes the message that says the same."""
    made = k2store.field(b"k", "expiry").later_than(k2store.own_time())
    assert made == Condition(5, b"k", predicate=Predicate("expiry", 5, Own.TIME_NS))
    message = predicate_message(made.predicate)  # type: ignore[arg-type]
    assert (message.name, message.comparison, message.own) == ("expiry", 5, 2)
    made = k2store.no_row(b"p/", 3).at_most(-7)
    assert (made.kind, made.key) == (6, b"p/")
    message = predicate_message(made.predicate)  # type: ignore[arg-type]
    assert (message.index, message.comparison, message.integer) == (3, 4, -7)
    assert message.end == b"p0"
    constants: list[tuple[bool | float | str | bytes | None, str | None]] = [
        (True, "boolean"),
        (1.5, "number"),
        ("t", "text"),
        (b"b", "binary"),
        (None, None),
    ]
    for value, chosen in constants:
        message = predicate_message(Predicate("f", 1, value))
        assert message.WhichOneof("constant") == chosen
        assert message.own == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: k2store.absent("k"),  # type: ignore[arg-type]
        lambda: k2store.version_is(b"k", 0),
        lambda: k2store.version_is(b"k", 2**64),
        lambda: k2store.value_is(b"k", "v"),  # type: ignore[arg-type]
        lambda: k2store.field(b"k", -1),
        lambda: k2store.field(b"k", 1.5),  # type: ignore[arg-type]
        lambda: k2store.field(b"k", "f").equals(2**63),
        lambda: k2store.field(b"k", "f").equals([]),  # type: ignore[arg-type]
        lambda: k2store.prefix("p"),  # type: ignore[arg-type]
        lambda: k2store.ClientSettings() and k2store.connect("k2://a", timeout="1 fortnight"),
        lambda: k2store.connect("k2://a", token="line\nbreak"),
    ],
    ids=range(11),
)
def test_wrong_parts_are_rejected(make: Any) -> None:
    """What could not travel is Rejected where it is made."""
    with pytest.raises(k2store.Rejected):
        make()


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from("apvx"), max_size=3),
            st.lists(KEYS, max_size=2),
            st.lists(st.tuples(KEYS, st.none() | KEYS), max_size=3),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_one_shot_columns_add_up(shots: list[Any]) -> None:
    """Counts and columns of any mixture of one-shots describe exactly what was asked."""
    makers = {
        "a": k2store.absent(b"c"),
        "p": k2store.present(b"c"),
        "v": k2store.version_is(b"c", 7),
        "x": k2store.value_is(b"c", b""),
    }
    outbox = Outbox(1 << 20, 1000)
    future: Any = None
    for number, (kinds, reads, writes) in enumerate(shots):
        outbox.one_shots.append(
            (
                future,
                0.0,
                2,
                number,
                b"t",
                0,
                tuple(makers[kind] for kind in kinds),
                tuple(reads),
                tuple(key for key, _ in writes),
                tuple(value for _, value in writes),
                0,
            )
        )
    columns = wire.SessionRequest.FromString(outbox.frame(None, 0, 0)).one_shots
    assert not outbox
    count = len(shots)
    kinds = [kind for shot in shots for kind in shot[0]]
    assert list(columns.condition_count or [0] * count) == [len(shot[0]) for shot in shots]
    assert list(columns.read_count or [0] * count) == [len(shot[1]) for shot in shots]
    assert list(columns.write_count or [0] * count) == [len(shot[2]) for shot in shots]
    assert [makers[kind].kind for kind in kinds] == list(columns.condition_kind)
    assert len(columns.condition_version) == (len(kinds) if "v" in kinds else 0)
    assert len(columns.condition_value) == (len(kinds) if "x" in kinds else 0)
    writes = [write for shot in shots for write in shot[2]]
    deleted = columns.write_deleted or [False] * len(writes)
    found = [
        None if gone else value for value, gone in zip(columns.write_value, deleted, strict=True)
    ]
    assert list(zip(columns.write_key, found, strict=True)) == writes


@given(st.lists(st.lists(st.integers(0, 11), max_size=6), min_size=1, max_size=6), st.booleans())
def test_shared_conditions_travel_once_and_arrive_as_they_were(
    shots: list[list[int]], shares: bool
) -> None:
    """A node that understands it gets each condition object once, and reads from the columns what
    was stated; equal numbers of different types stay what they are."""
    field = k2store.field
    stated = [
        field(b"id", 0).equals(1),
        field(b"id", 0).equals(True),
        field(b"id", 0).equals(k2store.own_stamp()),
        field(b"id", 0).equals(1.0),
        field(b"id", "name").differs("text"),
        field(b"id", 2).at_least(b"bytes"),
        field(b"lease", 1).later_than(k2store.own_time()),
        field(b"id", 3).equals(None),
        k2store.no_row(b"pin/", 1).greater_than(k2store.own_time()),
        k2store.absent(b"run"),
        k2store.version_is(b"run", 7),
        k2store.value_is(b"run", b"v"),
    ]
    operands = {None: Operand.CONSTANT, 1: Operand.OWN_STAMP, 2: Operand.OWN_TIME}
    outbox = Outbox(1 << 20, 1000)
    outbox.shares_conditions = shares
    future: Any = None
    for number, chosen in enumerate(shots):
        conditions = tuple(stated[one] for one in chosen)
        outbox.one_shots.append((future, 0.0, 2, number, b"t", 0, conditions, (), (), (), 0))
    columns = wire.SessionRequest.FromString(outbox.frame(None, 0, 0)).one_shots
    found, places = conditions_of(columns)
    every = [stated[one] for chosen in shots for one in chosen]
    assert len(places) == len(every)
    for place, wanted in zip(places, every, strict=True):
        one = found[place]
        assert (one.kind, one.key, one.version, one.value) == (
            *(wanted.kind, wanted.key),
            *(wanted.version, wanted.value),
        )
        predicate = wanted.predicate
        if predicate is None:
            continue
        own = predicate.right if isinstance(predicate.right, Own) else None
        assert (one.field, one.compare, one.end) == (
            *(predicate.field, predicate.comparison),
            predicate.end,
        )
        assert one.operand == operands[own]
        constant = None if own is not None else predicate.right
        assert (type(one.constant), one.constant) == (type(constant), constant)
    if shares and any(one.predicate for one in every):
        assert len(found) == len({id(one) for one in every})


@pytest.mark.parametrize(
    ("condition_index", "predicate_index"), [([1], [0]), ([0], [1]), ([0], [0, 0]), ([0], [])]
)
def test_indexes_that_lead_nowhere_are_malformed(
    condition_index: list[int], predicate_index: list[int]
) -> None:
    """A frame that names conditions or predicates it does not have ends the session."""
    columns = wire.OneShotColumns(
        condition_kind=[5],  # type: ignore[list-item]  # number of the enum
        condition_key=[b"k"],
        predicates=[wire.FieldPredicate(index=0, integer=1)] if predicate_index else [],
        condition_index=condition_index,
        predicate_index=predicate_index,
    )
    with pytest.raises(Malformed):
        conditions_of(columns)


def test_waits_for_true_time_share_one_timer() -> None:
    """Each waiter wakes when its own stamp has passed, in order, and better news wake earlier."""
    loop = Loop(random.Random(1))
    woken: list[int] = []

    async def main() -> None:
        time = BoundedTime(lambda: loop.now_ns, loop, spin_ns=0)
        base_ns = timestamp.EPOCH_NS + 10**18
        time.observe(base_ns)

        async def wait(ms: int) -> None:
            await time.past(timestamp.pack(base_ns + ms * 1_000_000, 1))
            assert time.lower_ns() > base_ns + ms * 1_000_000
            woken.append(ms)

        tasks = [asyncio.ensure_future(wait(ms)) for ms in (30, 10, 20, 400)]
        await asyncio.sleep(0.05)
        assert woken == [10, 20, 30]
        time.observe(base_ns + 500_000_000)
        await asyncio.gather(*tasks)
        assert loop.now_ns < 51_000_000
        time.close()

    try:
        loop.run(main())
    finally:
        loop.close()


class Echo:
    """Sends every frame back."""

    def __init__(self) -> None:
        self.closed: list[str] = []

    def on_connect(self, connection: Connection) -> None:
        pass

    def on_frame(self, connection: Connection, frame: bytes) -> None:
        if frame == b"boom":
            raise ValueError("boom")
        if not connection.closed:
            connection.send(frame)

    def on_close(self, connection: Connection, reason: str) -> None:
        self.closed.append(reason)


def test_the_local_transport_keeps_the_ports_promises() -> None:
    """Frames in order, then the end; refusals typed; a failing handler ends its connection."""

    async def main() -> None:
        heard: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
        transport, echo = LocalTransport(), Echo()
        with pytest.raises(ConnectFailed):
            await transport.connect("a", {})
        door = await transport.listen("a", echo)
        with pytest.raises(OSError, match="already"):
            await transport.listen("a", echo)
        near = await transport.connect("a", {"token": "t"})
        assert near.metadata == {"token": "t"}
        for number in range(5):
            near.send(b"%d" % number)
        assert [await near.receive() for _ in range(5)] == [b"%d" % n for n in range(5)]
        with pytest.raises(ValueError, match="limit"):
            near.send(bytes(5 * 1024 * 1024))
        with pytest.raises(SendQueueFull):
            for _ in range(5):
                near.send(bytes(4 * 1024 * 1024))
        await near.drain()
        near.send(b"last")
        near.close()
        with pytest.raises(ConnectionClosed):
            near.send(b"x")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert echo.closed == ["closed by the peer"]
        other = await transport.connect("a", {})
        other.send(b"boom")
        with pytest.raises(ConnectionClosed):
            await other.receive()
        assert [context["exception"].args for context in heard] == [("boom",)]
        third = await transport.connect("a", {})
        await door.close(grace_s=0.01)
        assert third.closed
        with pytest.raises(ConnectFailed):
            await transport.connect("a", {})

    asyncio.run(main())


@pytest.mark.parametrize(
    "program",
    [
        "import k2store",
        "import k2store, k2store.client, k2store.errors",
        "import k2store; k2store.connect('k2://a'); k2store.transactional; k2store.Conflict",
        "import k2store; k2store.blocking; k2store.open; k2store.Lease; k2store.Collection",
    ],
    ids=["package", "subpackages", "connect", "names"],
)
def test_imports_stay_light(program: str) -> None:
    """Neither the engine nor the network is imported before somebody connects."""
    judge = (
        "; import sys; heavy = {'grpc', 'rocksdict', 'k2store.node', 'k2store.storage', 'mvcc', "
        "'sortedcontainers', 'structlog', 'uvloop', 'numpy', 'click'} & set(sys.modules); "
        "sys.exit(str(sorted(heavy)) if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program + judge], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_public_name_exists() -> None:
    """All that the package exports can be had, and nothing else is invented."""
    for name in k2store.__all__:
        assert getattr(k2store, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = k2store.nonsense
    assert {kind.__name__ for kind in errors.CLASSES} < set(k2store.__all__)
