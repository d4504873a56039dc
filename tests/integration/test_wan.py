"""The network emulator, with real sockets: between namespaces (as root) and by proxy.

Delays are asserted from below, where they are a promise; from above only by the link's own count
of what came too late to be called a delay, since the machine may be busy.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from k2store.errors import Rejected, Unavailable
from k2store.testing.wan import Wan, leftovers, namespaces, open_wan

REFUSAL = namespaces.refusal()
needs_namespaces = pytest.mark.skipif(
    REFUSAL is not None, reason=f"NOT TESTED, real packets between namespaces: {REFUSAL}"
)
CLONE_NEWNET = 0x4000_0000
REGIONS = ("fra", "iad", "sin")
WAIT_S = 10.0


def until(holds: Callable[[], bool]) -> None:
    """Return when a condition holds; fail when it never does."""
    patience = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < patience, "it never held"
        time.sleep(0.01)


def socket_in(wan: Wan, region: str, kind: socket.SocketKind) -> socket.socket:
    """A socket that belongs to a region's namespace: made by a thread that has gone there."""
    made: list[socket.socket] = []
    space = Path("/run/netns") / wan.command(region, [])[3]

    def make() -> None:
        with space.open("rb") as file:
            assert ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET) == 0
        made.append(socket.socket(socket.AF_INET, kind))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    made[0].settimeout(WAIT_S)
    return made[0]


@pytest.fixture
def namespaced() -> Iterator[Wan]:
    """Three regions of namespaces, without jitter."""
    with open_wan(REGIONS, kind="namespaces", jitter_ms=0) as wan:
        yield wan


@pytest.fixture
def proxied() -> Iterator[Wan]:
    """Three regions by proxy, without jitter."""
    with open_wan(REGIONS, kind="proxy", jitter_ms=0) as wan:
        yield wan


class Ends:
    """Datagrams from one region to another."""

    def __init__(self, wan: Wan, source: str, target: str, stack: contextlib.ExitStack) -> None:
        self.near = stack.enter_context(socket_in(wan, source, socket.SOCK_DGRAM))
        self.far = stack.enter_context(socket_in(wan, target, socket.SOCK_DGRAM))
        self.near.bind((wan.host(source), 0))
        self.far.bind((wan.host(target), 0))

    def send(self, count: int) -> None:
        """Send so many datagrams that tell their time."""
        for _ in range(count):
            self.near.sendto(repr(time.monotonic()).encode(), self.far.getsockname())

    def took_s(self, count: int) -> list[float]:
        """How long so many datagrams were under way."""
        sent = (self.far.recv(100) for _ in range(count))
        return [time.monotonic() - float(told) for told in sent]


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    """Closes what a test opened."""
    with contextlib.ExitStack() as opened:
        yield opened


# ------------------------------------------------------------------------------ namespaces


@needs_namespaces
@pytest.mark.root
def test_each_direction_has_its_delay(namespaced: Wan, stack: contextlib.ExitStack) -> None:
    """Datagrams take the delay of their direction, also after it changed, and are counted."""
    ends = Ends(namespaced, "fra", "iad", stack)
    back = Ends(namespaced, "iad", "fra", stack)
    ends.send(200)
    took = ends.took_s(200)
    assert min(took) >= 0.045
    assert sorted(took)[100] < 0.045 + 0.1
    namespaced.delay("fra", "iad", 150, jitter_ms=0)
    ends.send(1)
    back.send(1)
    assert ends.took_s(1)[0] >= 0.150
    assert back.took_s(1)[0] >= 0.045
    counts = namespaced.statistics()["fra", "iad"]
    assert (counts.sent, counts.delivered) == (201, 201)
    assert counts.delivered_bytes > 201 * 28
    assert namespaced.statistics()["iad", "fra"].delivered == 1


@needs_namespaces
@pytest.mark.root
def test_a_cut_has_one_direction_and_heals(namespaced: Wan, stack: contextlib.ExitStack) -> None:
    """What is sent into a cut is gone and counted; the other direction and a healed one pass."""
    ends, back = Ends(namespaced, "fra", "iad", stack), Ends(namespaced, "iad", "fra", stack)
    namespaced.cut("fra", "iad")
    ends.send(20)
    back.send(20)
    assert len(back.took_s(20)) == 20
    counts = namespaced.statistics()
    assert (counts["fra", "iad"].cut, counts["fra", "iad"].delivered) == (20, 0)
    assert counts["iad", "fra"].cut == 0
    namespaced.heal()
    ends.send(1)
    assert len(ends.took_s(1)) == 1
    ends.far.setblocking(False)
    with pytest.raises(BlockingIOError):
        ends.far.recv(100)


@needs_namespaces
@pytest.mark.root
def test_a_cut_takes_what_is_under_way(namespaced: Wan, stack: contextlib.ExitStack) -> None:
    """Datagrams between their ends when the link is cut do not arrive."""
    namespaced.delay("fra", "iad", 1000, jitter_ms=0)
    ends = Ends(namespaced, "fra", "iad", stack)
    ends.send(5)
    until(lambda: namespaced.statistics()["fra", "iad"].sent == 5)
    namespaced.cut("fra", "iad")
    until(lambda: namespaced.statistics()["fra", "iad"].cut == 5)
    assert namespaced.statistics()["fra", "iad"].delivered == 0


@needs_namespaces
@pytest.mark.root
def test_loss_takes_its_part(namespaced: Wan, stack: contextlib.ExitStack) -> None:
    """About half is lost where half is to be lost; the rest arrives, and the counts add up."""
    namespaced.loss("fra", "iad", 0.5)
    ends = Ends(namespaced, "fra", "iad", stack)
    ends.send(400)

    def all_told() -> bool:
        counts = namespaced.statistics()["fra", "iad"]
        return counts.lost + counts.delivered == 400

    until(all_told)
    counts = namespaced.statistics()["fra", "iad"]
    assert 120 < counts.lost < 280
    assert len(ends.took_s(counts.delivered)) == counts.delivered


@needs_namespaces
@pytest.mark.root
def test_doubled_packets_arrive_twice(namespaced: Wan, stack: contextlib.ExitStack) -> None:
    """Where everything is doubled every datagram comes twice, and is counted once as sent."""
    namespaced.double("fra", "iad", 1.0)
    ends = Ends(namespaced, "fra", "iad", stack)
    ends.send(50)
    assert len(ends.took_s(100)) == 100
    counts = namespaced.statistics()["fra", "iad"]
    assert (counts.sent, counts.doubled, counts.delivered) == (50, 50, 100)


@needs_namespaces
@pytest.mark.root
def test_isolation_is_from_all_others(namespaced: Wan) -> None:
    """An isolated region has both directions to everybody cut; the others keep theirs."""
    namespaced.isolate("sin")
    cut = {link for link in namespaced.statistics() if namespaced.rule(*link).cut}
    assert cut == {("sin", "fra"), ("sin", "iad"), ("fra", "sin"), ("iad", "sin")}
    namespaced.heal("sin", "fra")
    assert not namespaced.rule("sin", "fra").cut
    assert namespaced.rule("fra", "sin").cut


@needs_namespaces
@pytest.mark.root
def test_a_connection_lives_through_a_cut(namespaced: Wan, stack: contextlib.ExitStack) -> None:
    """TCP over the emulated network: round trip of the handshake, all bytes, and a short cut."""
    server = stack.enter_context(socket_in(namespaced, "sin", socket.SOCK_STREAM))
    server.bind((namespaced.host("sin"), 0))
    server.listen()
    client = stack.enter_context(socket_in(namespaced, "fra", socket.SOCK_STREAM))
    begun = time.monotonic()
    client.connect(server.getsockname())
    assert time.monotonic() - begun >= 0.160
    far = stack.enter_context(server.accept()[0])
    far.settimeout(WAIT_S)
    namespaced.part("fra", "sin")
    client.sendall(b"x" * 100_000)
    until(lambda: namespaced.statistics()["fra", "sin"].cut > 0)
    namespaced.heal()
    got = 0
    while got < 100_000:
        got += len(far.recv(1 << 16))
    assert got == 100_000


@needs_namespaces
@pytest.mark.root
def test_the_outside_stands_where_it_says(namespaced: Wan, stack: contextlib.ExitStack) -> None:
    """A socket of this process reaches a node as from a region: there and back over its links."""
    far = stack.enter_context(socket_in(namespaced, "iad", socket.SOCK_DGRAM))
    far.bind(("0.0.0.0", 0))
    real = f"{namespaced.host('iad')}:{far.getsockname()[1]}"
    near = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    near.settimeout(WAIT_S)
    host, _, port = namespaced.address("sin", real).rpartition(":")
    assert host in namespaced.hosts("iad")
    begun = time.monotonic()
    near.sendto(b"ask", (host, int(port)))
    asked, came_from = far.recvfrom(10)
    # Answer from the address that was asked, as a connection or a wildcard UDP server would.
    answering = stack.enter_context(socket_in(namespaced, "iad", socket.SOCK_DGRAM))
    answering.bind((host, 0))
    answering.sendto(asked, came_from)
    assert near.recv(10) == b"ask"
    assert time.monotonic() - begun >= 0.220
    counts = namespaced.statistics()
    assert counts["sin", "iad"].delivered == counts["iad", "sin"].delivered == 1
    near.sendto(b"near", (namespaced.host("iad"), int(port)))
    assert far.recv(10) == b"near"
    assert namespaced.statistics()["sin", "iad"].delivered == 1


@needs_namespaces
@pytest.mark.root
def test_commands_run_in_their_region(namespaced: Wan) -> None:
    """A command started in a region sees that region's network and nothing of this machine's."""
    done = subprocess.run(
        namespaced.command("sin", ["ip", "-o", "link"]), capture_output=True, text=True, check=True
    )
    assert len(done.stdout.splitlines()) == 2
    assert "eth0" not in done.stdout


@needs_namespaces
@pytest.mark.root
def test_networks_stand_side_by_side() -> None:
    """Two networks on one machine have different namespaces and addresses; both go when closed."""
    with open_wan(REGIONS, kind="namespaces") as one, open_wan(REGIONS, kind="namespaces") as other:
        assert one.host("fra") != other.host("fra")
        names = {wan.command("fra", [])[3] for wan in (one, other)}
        assert len(names) == 2
        assert names <= set(leftovers())
    assert not names & set(leftovers())


OWNER = """
import sys, time
from k2store.testing.wan import open_wan
with open_wan(("fra", "iad"), kind=sys.argv[1]) as wan:
    wan.place("iad", "127.0.0.1:1")
    told = wan.command("fra", [])[3] if sys.argv[1] == "namespaces" else wan.address("fra", "127.0.0.1:1")
    print(told, wan._engine.pid, flush=True)
    time.sleep(600)
"""


def gone(engine: int) -> bool:
    """Whether a process has ended; it is another's child, so its entry vanishes."""
    try:
        state = Path(f"/proc/{engine}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


@pytest.mark.root
@pytest.mark.parametrize("kind", [pytest.param("namespaces", marks=needs_namespaces), "proxy"])
def test_nothing_outlives_a_killed_owner(kind: str) -> None:
    """kill -9 of the owner: its engine ends by itself and takes the namespaces along."""
    owner = subprocess.Popen([sys.executable, "-c", OWNER, kind], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    told, engine = owner.stdout.readline().split()
    assert kind == "proxy" or told in leftovers()
    owner.kill()
    owner.wait()
    owner.stdout.close()
    until(lambda: gone(int(engine)))
    assert told not in leftovers()


@needs_namespaces
@pytest.mark.root
def test_what_a_killed_engine_left_is_cleared() -> None:
    """kill -9 of the engine leaves namespaces; whoever takes the slot next removes them."""
    with open_wan(REGIONS, kind="namespaces") as wan:
        name = wan.command("fra", [])[3]
        engine = wan._engine
        assert engine is not None
        os.kill(engine.pid, signal.SIGKILL)
        engine.wait()
        with pytest.raises(Unavailable, match="engine of the network ended"):
            wan.cut("fra", "iad")
    assert name in leftovers()
    held = []
    try:
        while True:
            slot, holder = namespaces.claim()
            held.append(holder)
            if name.startswith(f"k2wan{slot}-"):
                break
        assert name not in leftovers()
    finally:
        for holder in held:
            os.close(holder)


@needs_namespaces
@pytest.mark.root
def test_without_capabilities_the_proxy_is_taken() -> None:
    """Root that may not change networks, as in a container, gets the proxy, or is told why not."""
    code = """
from k2store.errors import Unavailable
from k2store.testing.wan import open_wan
print(open_wan().kind)
try:
    open_wan(kind="namespaces")
except Unavailable as error:
    print(error.message)
"""
    bare = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]
    done = subprocess.run(
        [*bare, sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    kind, message = done.stdout.splitlines()
    assert kind == "proxy"
    assert "CAP_NET_ADMIN" in message


# ----------------------------------------------------------------------------------- proxy


class Echo:
    """A TCP server that sends back what it gets, until the other end is done."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                threading.Thread(target=self._echo, args=(near,)).start()

    def _echo(self, near: socket.socket) -> None:
        with near, contextlib.suppress(OSError):
            while piece := near.recv(1 << 16):
                near.sendall(piece)

    def __enter__(self) -> Echo:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()


@pytest.fixture
def echo() -> Iterator[Echo]:
    """A server on this machine."""
    with Echo() as server:
        yield server


def dial(address: str) -> socket.socket:
    """A connection to ``host:port``."""
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=WAIT_S)


def receive(near: socket.socket, count: int) -> bytes:
    """So many bytes."""
    got = b""
    while len(got) < count and (piece := near.recv(1 << 16)):
        got += piece
    return got


def test_the_proxy_delays_both_ways(proxied: Wan, echo: Echo) -> None:
    """A connection costs a round trip, an echo another; from inside the region neither."""
    proxied.place("sin", echo.address)
    begun = time.monotonic()
    with dial(proxied.address("fra", echo.address)) as near:
        near.sendall(b"ping")
        assert receive(near, 4) == b"ping"
        assert time.monotonic() - begun >= 0.320
        begun = time.monotonic()
        near.sendall(b"pong")
        assert receive(near, 4) == b"pong"
        assert time.monotonic() - begun >= 0.160
    counts = proxied.statistics()
    assert counts["fra", "sin"].delivered_bytes == counts["sin", "fra"].delivered_bytes == 8
    with dial(proxied.address("sin", echo.address)) as near:
        near.sendall(b"near")
        assert receive(near, 4) == b"near"
    assert proxied.statistics()["sin", "sin"].delivered_bytes == 8
    assert proxied.statistics()["fra", "sin"].delivered_bytes == 8


def test_the_proxy_keeps_every_byte_and_the_end(proxied: Wan, echo: Echo) -> None:
    """Many bytes come back whole and in order, through losses that only make them late."""
    proxied.place("iad", echo.address)
    proxied.loss("fra", "iad", 0.05)
    sent = os.urandom(1 << 20)
    with dial(proxied.address("fra", echo.address)) as near:
        writer = threading.Thread(target=near.sendall, args=(sent,))
        writer.start()
        assert receive(near, len(sent)) == sent
        writer.join()
        near.shutdown(socket.SHUT_WR)
        assert near.recv(1) == b""


def test_the_proxy_loses_by_being_late(proxied: Wan, echo: Echo) -> None:
    """Where everything is lost once, it comes a retransmission later, and is counted."""
    proxied.place("iad", echo.address)
    with dial(proxied.address("fra", echo.address)) as near:
        near.sendall(b"one")
        assert receive(near, 3) == b"one"
        proxied.loss("fra", "iad", 1.0)
        begun = time.monotonic()
        near.sendall(b"two")
        assert receive(near, 3) == b"two"
        assert time.monotonic() - begun >= 0.290
    assert proxied.statistics()["fra", "iad"].lost_bytes == 3


def test_a_cut_of_the_proxy_has_one_direction(proxied: Wan, echo: Echo) -> None:
    """Bytes into the cut wait for its end, those from the other side come, new ones get nothing."""
    proxied.place("iad", echo.address)
    address = proxied.address("fra", echo.address)
    with dial(address) as near:
        near.sendall(b"one")
        assert receive(near, 3) == b"one"
        proxied.cut("iad", "fra")
        near.sendall(b"two")
        until(lambda: proxied.statistics()["iad", "fra"].cut > 0)
        counts = proxied.statistics()
        assert counts["fra", "iad"].delivered_bytes == 6
        assert counts["iad", "fra"].delivered_bytes == 3
        with dial(address) as fresh:
            fresh.sendall(b"new")
            proxied.heal("iad", "fra")
            assert receive(near, 3) == b"two"
            assert receive(fresh, 3) == b"new"


def test_a_server_that_is_gone_closes_the_connection(proxied: Wan) -> None:
    """A dial to an address where nobody listens ends as one that was closed."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    proxied.place("iad", address)
    with dial(proxied.address("fra", address)) as near, contextlib.suppress(ConnectionResetError):
        assert near.recv(1) == b""
    assert proxied.statistics()["fra", "iad"].refused == 1


def test_wrong_calls_are_refused(proxied: Wan) -> None:
    """Unknown regions and addresses, and figures that mean nothing, change nothing."""
    before = {link: proxied.rule(*link) for link in proxied.statistics()}
    for call in (
        lambda: proxied.cut("fra", "moon"),
        lambda: proxied.isolate("moon"),
        lambda: proxied.loss("fra", "iad", 1.5),
        lambda: proxied.delay("fra", "iad", -1),
        lambda: proxied.address("fra", "127.0.0.1:9"),
        lambda: proxied.host("fra", 15),
        lambda: proxied.heal("fra"),
    ):
        with pytest.raises(Rejected):
            call()
    assert before == {link: proxied.rule(*link) for link in proxied.statistics()}
    proxied.close()
    with pytest.raises(Rejected, match="not open"):
        proxied.statistics()
