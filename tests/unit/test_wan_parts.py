"""The parts of the network emulator that do no I/O: distances, links, addresses, the dial file."""

from __future__ import annotations

import itertools
import random
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2store.config.dial import dial_lines, read_dial
from k2store.config.loading import SettingsRefused
from k2store.errors import Rejected
from k2store.testing.wan import (
    DEFAULT_REGIONS,
    PLACES,
    LinkRule,
    addresses,
    open_wan,
    round_trip_ms,
)
from k2store.testing.wan.link import Link
from k2store.testing.wan.network import Network
from k2store.testing.wan.orders import Count, Counted, Lines, SetRule


def test_every_pair_of_places_has_a_distance() -> None:
    """The table is whole, the same in both directions, and zero inside a region."""
    for one, other in itertools.product(PLACES, PLACES):
        assert round_trip_ms(one, other) == round_trip_ms(other, one)
        assert (round_trip_ms(one, other) == 0) == (one == other)


def test_distances_keep_the_speed_of_light() -> None:
    """No detour over a third region is much shorter than the way itself, as cables would have it."""
    for one, other, by in itertools.permutations(PLACES, 3):
        detour = round_trip_ms(one, by) + round_trip_ms(by, other)
        assert round_trip_ms(one, other) <= detour + 30, (one, other, by)


def test_default_regions_are_oceans_apart() -> None:
    """One way between the default three takes 40 to 110 ms."""
    for one, other in itertools.combinations(DEFAULT_REGIONS, 2):
        assert 40 <= round_trip_ms(one, other) / 2 <= 110


def test_unknown_regions_are_refused() -> None:
    """A region without distances, a bad name, a doubled one and too many are told, not guessed."""
    for regions in (("fra", "moon"), ("Fra", "iad"), ("fra", "fra"), (), tuple("abcdefghijklmnop")):
        with pytest.raises(Rejected):
            open_wan(regions)


def test_own_distances_replace_the_table() -> None:
    """A network between regions of one's own needs only the figures."""
    wan = open_wan(("moon", "mars"), round_trips_ms={frozenset(("moon", "mars")): 750_000.0})
    assert wan.rule("moon", "mars").delay_s == 375


@given(delay=st.floats(0, 1), jitter=st.floats(0, 1), gaps=st.lists(st.floats(0, 0.1), max_size=50))
def test_a_link_keeps_order_and_bounds(delay: float, jitter: float, gaps: list[float]) -> None:
    """No piece leaves before its delay, after delay and jitter, or before one sent earlier."""
    link = Link(LinkRule(delay_s=delay, jitter_s=jitter), random.Random(7))
    now, last = 0.0, 0.0
    for gap in gaps:
        now += gap
        due = link.due_s(now)
        assert due >= max(now + delay, last)
        assert due <= now + delay + jitter + 1e-9
        last = due


def test_a_link_counts_what_it_does() -> None:
    """Sent pieces are the lost, the cut and the passed ones; nothing is lost without a loss."""
    link = Link(LinkRule(loss=0.5), random.Random(3))
    lost = sum(link.loses(10) for _ in range(1000))
    assert 400 < lost < 600
    assert (link.counts.lost, link.counts.lost_bytes) == (lost, lost * 10)
    link.rule = LinkRule(cut=True)
    assert link.stopped(7)
    assert not link.loses(7)
    assert (link.counts.cut, link.counts.cut_bytes) == (1, 7)
    link.rule = LinkRule()
    assert not link.stopped(7)
    assert not link.doubles(7)
    link.rule = LinkRule(double=0.5)
    doubled = sum(link.doubles(10) for _ in range(1000))
    assert 400 < doubled < 600
    assert (link.counts.doubled, link.counts.doubled_bytes) == (doubled, doubled * 10)


def test_rules_and_counts_are_of_one_direction() -> None:
    """A rule set from fra to iad leaves iad to fra alone."""
    network = Network(("fra", "iad"), seed=1)
    network.obey(SetRule("fra", "iad", LinkRule(cut=True)))
    assert network.link(1, 2).stopped(9)
    assert not network.link(2, 1).stopped(9)
    counted = network.obey(Count())
    assert isinstance(counted, Counted)
    assert {(source, target) for source, target, counts in counted.links if counts.cut} == {
        ("fra", "iad")
    }


def packet(source: str, target: str) -> bytes:
    """The head of an IPv4 packet."""
    parts = [bytes(int(part) for part in text.split(".")) for text in (source, target)]
    return struct.pack("!BBHHHBBH", 0x45, 0, 20, 0, 0, 64, 17, 0) + parts[0] + parts[1]


def test_packets_find_their_link() -> None:
    """Between regions by leg and target; from and to the outside by who it is taken to be."""
    slot = 5
    fra, iad = addresses.address(slot, 1, 1), addresses.address(slot, 2, 3)
    assert addresses.route(packet(fra, iad), 1) == (1, 2, 2)
    outside, as_fra = addresses.own_address(slot), addresses.own_address(slot, 1)
    assert addresses.route(packet(outside, iad), 0) == (0, 2, 2)
    assert addresses.route(packet(iad, outside), 2) == (2, 0, 0)
    iad_from_fra = addresses.seen_from(iad, 1)
    assert addresses.route(packet(as_fra, iad_from_fra), 0) == (1, 2, 2)
    assert addresses.route(packet(iad_from_fra, as_fra), 2) == (2, 1, 0)
    assert addresses.route(b"\x60" + bytes(39), 1) is None
    assert addresses.route(b"", 1) is None


def test_addresses_are_apart() -> None:
    """No two holders, viewers or slots share an address, and each tells its region."""
    every = [
        addresses.address(slot, region, number, viewer)
        for slot in (0, 1, 31)
        for region in range(16)
        for number in (1, 14)
        for viewer in range(16)
    ]
    assert len(set(every)) == len(every)
    assert addresses.region_of(addresses.address(31, 15, 14, 15)) == 15
    assert addresses.region_of("10.0.0.1") is None
    assert addresses.region_of("node.example") is None


def test_lines_come_out_whole() -> None:
    """Orders that arrive in pieces, or several at once, come out line by line."""
    lines = Lines()
    assert lines.feed(b"on") == []
    assert lines.feed(b"e\ntwo\nth") == [b"one", b"two"]
    assert lines.feed(b"ree\n") == [b"three"]


def test_a_dial_file_reads_back(tmp_path: Path) -> None:
    """What is written is read; remarks and empty lines mean nothing."""
    table = {"10.0.0.1:7400": "127.0.0.1:4001", "[::1]:7400": "127.0.0.1:4002"}
    path = tmp_path / "dial"
    path.write_text("# peers\n\n" + dial_lines(table).replace("\n", "  # near\n"))
    assert read_dial(path) == table


@pytest.mark.parametrize(
    "line", ["a:1", "a:1=b", "a=b:1", "a:1=b:0", "a:1=b:65536", "a:1=b:2=c:3", "a:1=:2", "a:1=b:x"]
)
def test_a_wrong_dial_line_is_named(tmp_path: Path, line: str) -> None:
    """A line that is no pair of addresses is refused with its number."""
    path = tmp_path / "dial"
    path.write_text(f"h:1=g:1\n{line}\n")
    with pytest.raises(SettingsRefused, match=":2:"):
        read_dial(path)


def test_a_dial_file_says_one_thing(tmp_path: Path) -> None:
    """Two addresses for one peer, and a file that is not there, are refused."""
    path = tmp_path / "dial"
    path.write_text("h:1=g:1\nh:1=g:2\n")
    with pytest.raises(SettingsRefused, match="two addresses"):
        read_dial(path)
    with pytest.raises(SettingsRefused, match="cannot read"):
        read_dial(tmp_path / "none")
