"""What every transport of pages must do, and what it must never do, against both backends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import k2store
from serving.transport import (
    Address,
    Damaged,
    Geometry,
    Local,
    Lost,
    Memory,
    Mode,
    Notice,
    PeerLost,
    Stale,
)
from tests.contract.transports import GEOMETRY, KINDS, LAYERS, content, endpoint, filled

PAGES = GEOMETRY.pages
each = pytest.mark.parametrize("kind", KINDS)


@asynccontextmanager
async def pair(kind: str, geometry: Geometry = GEOMETRY, **limits):
    """Two endpoints with a link: here, there, the peer as here sees it, and both memories."""
    async with AsyncExitStack() as stack:
        mine, theirs = filled(1, geometry), filled(2, geometry)
        for memory in (mine, theirs):
            stack.callback(memory.close)
        there = await stack.enter_async_context(endpoint(kind, "there", theirs, **limits))
        here = await stack.enter_async_context(endpoint(kind, "here", mine, **limits))
        yield here, there, await here.connect(there.address), mine, theirs


@contextmanager
def peer_process(kind: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """A peer in a process of its own, and its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.contract.transports", kind, "child"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def calls(geometry: Geometry, count: int, mode: Mode) -> int:
    """How many calls a transfer must take."""
    return count if mode is Mode.AGGREGATED else count * geometry.pieces


ragged = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=7)
shapes = st.builds(
    lambda pieces, size: Geometry(7, pieces * size, size),
    st.integers(1, 6),
    st.sampled_from([1, 5, 64, 4096]),
)


@each
@settings(max_examples=25, deadline=None)
@given(pairs=ragged, mode=st.sampled_from(Mode), geometry=shapes)
def test_reading_any_pages_in_any_mode(kind: str, pairs, mode: Mode, geometry: Geometry) -> None:
    """What is read is what lies there, for any pages in any order, repeated ones included; other pages are
    not touched, and the calls are those of the mode."""

    async def scene() -> None:
        async with pair(kind, geometry) as (here, _, peer, mine, theirs):
            for page in range(7):
                theirs.seal(page, 10 + page)
            wanted = [(Address(far, 10 + far), Local(near)) for far, near in pairs]
            await here.read(peer, wanted, mode=mode)
            expected = {near: content(2, far, geometry) for far, near in pairs}
            # A page that is named twice is judged by who came last.
            for page in range(7):
                assert bytes(mine.page(page)) == expected.get(page, content(1, page, geometry))
            assert here.counts.read_calls == calls(geometry, len(pairs), mode)
            assert here.counts.read_bytes == len(pairs) * geometry.page_bytes

    if len({near for _, near in pairs}) == len(pairs):
        asyncio.run(scene())


@each
@settings(max_examples=25, deadline=None)
@given(pairs=ragged, mode=st.sampled_from(Mode), geometry=shapes)
def test_writing_any_pages_in_any_mode(kind: str, pairs, mode: Mode, geometry: Geometry) -> None:
    """What is written is there when the notice comes, once; pages that were not named are not touched."""
    pairs = list({far: (far, near) for far, near in pairs}.values())

    async def scene() -> None:
        async with pair(kind, geometry) as (here, there, peer, _, theirs):
            for far, _ in pairs:
                theirs.grant(far, 3)
            wanted = [(Local(near), Address(far, 3)) for far, near in pairs]
            await here.write(peer, wanted, notify=b"all there", mode=mode)
            arrivals = there.poll()
            assert [(one.peer.name, one.message) for one in arrivals] == [("here", b"all there")]
            expected = {far: content(1, near, geometry) for far, near in pairs}
            for page in range(7):
                assert bytes(theirs.page(page)) == expected.get(page, content(2, page, geometry))
            assert here.counts.write_calls == calls(geometry, len(pairs), mode)

    asyncio.run(scene())


@each
def test_aggregation_divides_calls_by_twice_the_layers(kind: str) -> None:
    """The same pages take exactly 2 x layers times fewer calls when a page is one, in both directions."""

    async def scene() -> None:
        async with pair(kind) as (here, _, peer, _, theirs):
            took = {}
            for mode in Mode:
                for page in range(PAGES):
                    theirs.seal(page, 1)
                before = here.counts.read_calls, here.counts.write_calls
                await here.read(
                    peer, [(Address(page, 1), Local(page)) for page in range(5)], mode=mode
                )
                for page in range(5):
                    theirs.grant(page, 2)
                await here.write(
                    peer,
                    [(Local(page), Address(page, 2)) for page in range(5)],
                    notify=b"",
                    mode=mode,
                )
                took[mode] = (
                    here.counts.read_calls - before[0],
                    here.counts.write_calls - before[1],
                )
            assert took[Mode.AGGREGATED] == (5, 5)
            assert took[Mode.BY_LAYER] == took[Mode.BY_REQUEST] == (10 * LAYERS, 10 * LAYERS)

    asyncio.run(scene())


@each
def test_a_page_of_another_generation_is_not_read(kind: str) -> None:
    """A page that is free, granted, or sealed under another generation is refused, and the refusal says how many
    before it are good; a read behind that works on the same link."""

    async def scene() -> None:
        async with pair(kind) as (here, _, peer, mine, theirs):
            theirs.seal(0, 1)
            theirs.seal(1, 2)
            theirs.grant(2, 1)
            for wrong, good in (([0, 1], 1), ([0, 2], 1), ([3], 0)):
                with pytest.raises(Stale) as stale:
                    await here.read(peer, [(Address(page, 1), Local(page)) for page in wrong])
                assert (stale.value.page, stale.value.pages_good) == (wrong[-1], good)
                assert stale.value.retry is k2store.Retry.NEVER
            await here.read(peer, [(Address(1, 2), Local(5))])
            assert bytes(mine.page(5)) == content(2, 1)
            assert here.counts.stale == 3
            theirs.free(1)
            with pytest.raises(Stale):
                await here.read(peer, [(Address(1, 2), Local(5))])

    asyncio.run(scene())


@each
def test_a_page_that_was_not_granted_is_not_written(kind: str) -> None:
    """A write to a page that is free, sealed, or granted under another generation changes nothing there, and no
    notice comes; a write behind that works on the same link."""

    async def scene() -> None:
        async with pair(kind) as (here, there, peer, _, theirs):
            theirs.seal(1, 7)
            theirs.grant(2, 7)
            for page, generation in ((0, 7), (1, 7), (2, 6)):
                with pytest.raises(Stale) as stale:
                    await here.write(peer, [(Local(0), Address(page, generation))], notify=b"never")
                assert stale.value.page == page
                assert bytes(theirs.page(page)) == content(2, page)
            assert there.poll() == []
            await here.write(peer, [(Local(3), Address(2, 7))], notify=b"now")
            assert bytes(theirs.page(2)) == content(1, 3)
            assert [one.message for one in there.poll()] == [b"now"]

    asyncio.run(scene())


@each
def test_damage_is_found_by_who_reads(kind: str) -> None:
    """One bit that changed after the page was sealed is found out, whichever it is; the pages before it are good."""

    async def scene() -> None:
        async with pair(kind) as (here, _, peer, _, theirs):
            for page in range(PAGES):
                theirs.seal(page, 1)
            for at in (0, GEOMETRY.page_bytes // 2, GEOMETRY.page_bytes - 1):
                theirs.page(4)[at] ^= 1
                with pytest.raises(Damaged) as damaged:
                    await here.read(
                        peer, [(Address(page, 1), Local(page)) for page in (2, 3, 4, 5)]
                    )
                assert (damaged.value.page, damaged.value.pages_good) == (4, 2)
                theirs.page(4)[at] ^= 1
            await here.read(peer, [(Address(4, 1), Local(4))])

    asyncio.run(scene())


@each
def test_messages_come_in_order_in_both_directions(kind: str) -> None:
    """Messages between two endpoints come in the order in which they were sent, behind writes too; what is too
    long is refused and what nobody polls holds the sender up without losing anything."""

    async def scene() -> None:
        async with pair(kind, arrivals_max=4) as (here, there, peer, _, theirs):
            theirs.grant(0, 1)
            await here.send(peer, b"0")
            await here.write(peer, [(Local(0), Address(0, 1))], notify=b"1")
            for number in range(2, 30):
                await here.send(peer, b"%d" % number)
            with pytest.raises(k2store.Rejected):
                await here.send(peer, bytes(1 << 20))
            told: list[Notice] = []
            while len(told) < 30:
                arrivals = await there.arrivals()
                assert len(arrivals) <= 5
                told += arrivals
            assert [one.message for one in told] == [b"%d" % number for number in range(30)]
            await there.send(told[0].peer, b"back")
            assert [one.message for one in await here.arrivals()] == [b"back"]

    asyncio.run(scene())


@each
def test_requests_that_make_no_sense_are_refused_here(kind: str) -> None:
    """No pages, pages or memories that do not exist, and pages of another shape never leave this process."""

    async def scene() -> None:
        async with pair(kind, request_pages_max=3) as (here, _, peer, mine, _):
            for pairs in (
                [],
                [(Address(0, 1), Local(PAGES))],
                [(Address(PAGES, 1), Local(0))],
                [(Address(0, 1, 1), Local(0))],
                [(Address(0, 1), Local(0, 1))],
                [(Address(0, 1), Local(0))] * 4,
            ):
                with pytest.raises(k2store.Rejected):
                    await here.read(peer, pairs)
            other = Memory(Geometry(2, 50, 50))
            async with endpoint(kind, "other", other) as another:
                with pytest.raises(k2store.Rejected):
                    await here.read(
                        await here.connect(another.address), [(Address(0, 1), Local(0))]
                    )
            assert not peer.is_lost
            assert bytes(mine.page(0)) == content(1, 0)

    asyncio.run(scene())


@each
def test_a_killed_peer_is_noticed_and_leaves_nothing_behind(kind: str) -> None:
    """A peer killed with -9 is announced as lost, requests to it fail with `PeerLost`, its name can be dialled no more,
    and an endpoint of the same process goes on with others."""

    async def scene() -> None:
        mine = filled(1)
        async with endpoint(kind, "here", mine) as here:
            with peer_process(kind) as (process, address):
                peer = await here.connect(address)
                await here.read(peer, [(Address(3, 1), Local(0))])
                assert bytes(mine.page(0)) == content(9, 3)
                process.kill()
                lost = (await here.arrivals())[0]
                assert isinstance(lost, Lost)
                assert lost.peer is peer
                assert peer.is_lost
                for request in (
                    here.read(peer, [(Address(3, 1), Local(0))]),
                    here.write(peer, [(Local(0), Address(3, 1))], notify=b""),
                    here.send(peer, b"hello?"),
                    here.connect(address),
                ):
                    with pytest.raises(PeerLost):
                        await request
            assert here.peers == []
            with peer_process(kind) as (_, address):
                peer = await here.connect(address)
                await here.read(peer, [(Address(5, 1), Local(1))])
                assert bytes(mine.page(1)) == content(9, 5)

    asyncio.run(scene())


@each
def test_a_peer_that_stands_still_costs_its_time_and_no_more(kind: str) -> None:
    """A peer whose process is stopped: what needs it ends with `Deadline` and the link with it, so nothing can be
    written late. Shared memory is read all the same: that is one-sided."""

    async def scene() -> None:
        mine = filled(1)
        async with endpoint(kind, "here", mine) as here:
            with peer_process(kind) as (process, address):
                peer = await here.connect(address)
                process.send_signal(signal.SIGSTOP)
                if kind == "shared":
                    await here.read(peer, [(Address(3, 1), Local(0))])
                    assert bytes(mine.page(0)) == content(9, 3)
                    with pytest.raises(Stale):
                        await here.write(peer, [(Local(0), Address(3, 1))], notify=b"")
                else:
                    with pytest.raises(k2store.Deadline):
                        await here.read(peer, [(Address(3, 1), Local(0))], timeout_s=0.2)
                    assert peer.is_lost
                    assert bytes(mine.page(0)) == content(1, 0)
                process.send_signal(signal.SIGCONT)

    asyncio.run(scene())


@each
def test_a_peer_is_gone_when_it_can_write_no_more(kind: str) -> None:
    """A link that this side gives up while the peer stands still: over shared memory the peer is lost at once and gone
    only when its process has ended, since until then it could be in the middle of a copy."""

    async def scene() -> None:
        async with endpoint(kind, "here", filled(1)) as here:
            with peer_process(kind) as (process, address):
                peer = await here.connect(address)
                process.send_signal(signal.SIGSTOP)
                peer.link.close(PeerLost("given up"))
                if kind == "shared":
                    with pytest.raises(TimeoutError):
                        await asyncio.wait_for(peer.gone.wait(), 0.2)
                    assert here.peers == [peer]
                process.kill()
                await peer.gone.wait()
                assert here.peers == []
                assert isinstance(here.poll()[0], Lost)

    asyncio.run(scene())


@each
def test_a_write_whose_sender_goes_is_never_announced(kind: str) -> None:
    """A link that ends in the middle of a write: no notice comes, and `Lost` says that nothing more will be written."""

    async def scene() -> None:
        geometry = Geometry(8, 1 << 20, 1 << 16)
        async with pair(kind, geometry) as (here, there, peer, _, theirs):
            for page in range(8):
                theirs.grant(page, 1)
            pairs = [(Local(page), Address(page, 1)) for page in range(8)]
            writing = asyncio.create_task(here.write(peer, pairs, notify=b"whole"))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            writing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await writing
            assert peer.is_lost
            arrivals = await there.arrivals()
            assert [type(one) for one in arrivals] == [Lost]

    asyncio.run(scene())


@each
@settings(max_examples=20, deadline=None)
@given(noise=st.binary(max_size=200))
def test_noise_at_the_door_ends_nothing(kind: str, noise: bytes) -> None:
    """Whatever somebody sends to the listening socket, the endpoint goes on serving its peers."""

    async def scene() -> None:
        async with pair(kind) as (here, there, peer, mine, theirs):
            theirs.seal(0, 1)
            if kind == "shared":
                sock = socket.socket(socket.AF_UNIX)
                sock.connect("\0k2-" + there.address.removeprefix("shm://"))
            else:
                host, port = there.address.removeprefix("tcp://").split(":")
                sock = socket.create_connection((host, int(port)))
            with sock:
                sock.sendall(noise)
                sock.shutdown(socket.SHUT_WR)
                sock.setblocking(False)
                try:
                    while await asyncio.get_running_loop().sock_recv(sock, 65536):
                        pass
                except OSError:
                    pass
            await here.read(peer, [(Address(0, 1), Local(0))])
            assert bytes(mine.page(0)) == content(2, 0)
            assert there.poll() == []

    asyncio.run(scene())


async def relayed(address: str, *, cut_at: int = -1, flip_at: int = -1):
    """A relay to an address that breaks the stream towards the dialler: ends it, or changes a bit, at a byte."""
    host, port = address.removeprefix("tcp://").split(":")

    async def forward(reader, writer, *, broken: bool) -> None:
        seen = 0
        try:
            while data := await reader.read(4096):
                if broken and 0 <= cut_at < seen + len(data):
                    writer.write(data[: cut_at - seen])
                    break
                if broken and seen <= flip_at < seen + len(data):
                    wrong = bytearray(data)
                    wrong[flip_at - seen] ^= 4
                    data = bytes(wrong)
                seen += len(data)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.close()

    async def serve(reader, writer) -> None:
        there_reader, there_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(
            forward(reader, there_writer, broken=False),
            forward(there_reader, writer, broken=True),
        )

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"


_STREAM_BYTES = 2_600


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, _STREAM_BYTES), flips=st.booleans())
def test_a_torn_or_changed_stream_is_never_taken_for_the_pages(at: int, flips: bool) -> None:
    """A TCP stream that ends or changes at any byte: the read gives the right bytes or an error, never others, and
    touches no page that it was not to fill."""

    async def scene() -> None:
        async with pair("tcp") as (here, there, _, mine, theirs):
            for page in range(PAGES):
                theirs.seal(page, 1)
            fault = {"flip_at": at} if flips else {"cut_at": at}
            server, address = await relayed(there.address, **fault)
            async with server:
                try:
                    peer = await here.connect(address)
                    await here.read(
                        peer,
                        [(Address(page, 1), Local(page)) for page in range(4)],
                        timeout_s=1.0,
                    )
                except (PeerLost, Damaged, Stale, k2store.Deadline, k2store.Rejected):
                    pass
                else:
                    for page in range(4):
                        assert bytes(mine.page(page)) == content(2, page)
                for page in range(4, PAGES):
                    assert bytes(mine.page(page)) == content(1, page)
                for other in here.peers:
                    other.link.close(PeerLost("the scene is over"))

    asyncio.run(scene())


def test_memory_that_could_vanish_is_not_mapped() -> None:
    """A descriptor that is too small, or whose file may shrink later, is refused: mapping it could end the process."""
    loose = os.memfd_create("loose")
    os.truncate(loose, GEOMETRY.bytes)
    with pytest.raises(ValueError, match="does not stay"):
        Memory(GEOMETRY, loose)
    small = Memory(Geometry(1, 8, 8))
    with pytest.raises(ValueError, match="does not stay"):
        Memory(GEOMETRY, os.dup(small.descriptor))
    small.close()
    whole = Memory(GEOMETRY)
    with pytest.raises(OSError, match="Operation not permitted"):
        os.truncate(whole.descriptor, 100)
    whole.close()


def test_only_shapes_that_exist_are_memories() -> None:
    """No pages, no bytes, and pages that are no whole number of pieces are refused."""
    for shape in (Geometry(0, 8, 8), Geometry(1, 0, 1), Geometry(1, 8, 3), Geometry(1 << 40, 8, 8)):
        with pytest.raises(ValueError, match="memory has"):
            Memory(shape)
