"""Steps from map to map, by example: what each does, and what each refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from k2store.control.map import Keyspace, Map, NodeInfo, PartitionInfo, decode, encode, flaw
from k2store.control.ports import check_grant, check_update
from k2store.control.transitions import (
    moved,
    placed,
    promoted,
    split,
    with_keyspace,
    with_keyspaces,
    with_node,
    with_region,
)
from k2store.errors import Corruption, Rejected

DEFAULT = Keyspace("default", b"", "region", "fra")
FRA = Keyspace("fra", b"fra/", "zone", "fra")


def joined(*regions: str) -> Map:
    """A map with a node in each of the named regions, ids from 1."""
    present = Map()
    for number, region in enumerate(regions, 1):
        present = with_node(present, f"n{number}", region, f"h{number}:7400", bytes([number]))
    return present


def built() -> Map:
    """Three regions of three nodes; `default` survives a region, `fra` a zone."""
    present = joined("fra", "fra", "fra", "iad", "iad", "iad", "sin", "sin", "sin")
    return with_keyspace(with_keyspace(present, DEFAULT), FRA)


def ranges(present: Map) -> list[tuple[int, bytes, bytes, str]]:
    """The layout of the keys."""
    return [(one.id, one.start, one.end, one.keyspace) for one in present.partitions]


def test_ids_begin_at_one_and_stay_with_name_and_disk() -> None:
    """A node that comes back with its disk keeps its id and may have moved its address."""
    present = joined("fra", "iad")
    again = with_node(present, "n1", "fra", "elsewhere:1", b"\x01")
    assert again.node_named("n1") == NodeInfo(1, "n1", "fra", "elsewhere:1", b"\x01")
    assert again.next_node == 3
    assert with_node(again, "n1", "fra", "elsewhere:1", b"\x01") is again


def test_a_lost_disk_makes_another_node() -> None:
    """The same name with another disk gets a new id; the old one leaves at the next placement."""
    present = with_node(built(), "n2", "fra", "h2:7400", b"new")
    assert present.node(2) is None
    assert present.nodes[-1].id == 10
    assert 2 in present.partitions[1].voters
    settled = placed(present)
    assert settled.partitions[1].voters == (1, 3, 10)
    assert settled.partitions[1].learners == (4, 5, 6, 7, 8, 9)
    assert 2 not in settled.partitions[0].learners


def test_an_old_copy_of_a_disk_does_not_join() -> None:
    """A folder whose count another process has had is refused; the same process may ask again."""

    def start(present: Map, starts: int, life: bytes) -> Map:
        return with_node(present, "n1", "fra", "h1:7400", b"\x01", "", starts, life)

    present = joined("fra")  # by nodes that did not count yet
    for starts, life in ((1, b"one"), (1, b"one"), (2, b"two"), (4, b"four")):
        present = start(present, starts, life)
        assert present.nodes == (NodeInfo(1, "n1", "fra", "h1:7400", b"\x01", "", starts, life),)
    assert start(present, 4, b"four") is present
    assert decode(encode(present)) == present
    for starts in (1, 2, 4):
        with pytest.raises(Rejected, match=f"started {starts - 1} times, and node 1 .* 4 times"):
            start(present, starts, b"another")
    assert start(present, 5, b"another").nodes[0].starts == 5


def test_the_last_voter_is_not_replaced() -> None:
    """A partition whose only voter lost its disk keeps naming it: nobody could carry the log on."""
    present = with_keyspace(joined("fra", "iad"), Keyspace("default", b"", "zone", "fra"))
    settled = placed(with_node(present, "n1", "fra", "h1:7400", b"new"))
    assert settled.partitions[0].voters == (1,)
    assert settled.partitions[0].learners == (2, 3)
    check_update(present, versioned(settled))


def versioned(present: Map) -> Map:
    """The map as the successor of version 0."""
    return decode(encode(present).replace(b'"version":0', b'"version":1'))


def test_zone_voters_stand_at_home_and_region_voters_apart() -> None:
    """Zone: three voters at home. Region: one in each of three regions. All others learn."""
    default, fra, rest = built().partitions
    assert (default.voters, default.learners) == ((1, 4, 7), (2, 3, 5, 6, 8, 9))
    assert (fra.voters, fra.learners) == ((1, 2, 3), (4, 5, 6, 7, 8, 9))
    assert (rest.voters, rest.origin) == ((1, 4, 7), 1)


def test_newcomers_learn_first_and_vote_where_voters_are_missing() -> None:
    """A node that joins takes no voter's place; it votes where fewer than three stand."""
    present = placed(with_node(built(), "n10", "fra", "h:1", b"ten"))
    assert all(10 in one.learners for one in present.partitions)
    small = with_keyspace(joined("fra", "fra"), Keyspace("default", b"", "zone", "fra"))
    grown = placed(with_node(small, "n3", "fra", "h:1", b"three"))
    assert grown.partitions[0].voters == (1, 2, 3)
    wide = with_keyspace(joined("iad", "sin", "gru", "fra"), DEFAULT)
    assert wide.partitions[0].voters == (1, 2, 4), "the home, then the oldest regions"


def test_a_region_that_is_off_votes_only_where_there_is_no_other() -> None:
    """Its votes go to another region if there is one, and come back to a home that is on again."""
    three = with_keyspace(joined("fra", "iad", "sin"), DEFAULT)
    assert placed(with_region(three, "fra", off=True)).partitions[0].voters == (1, 2, 3)
    four = with_keyspace(joined("fra", "iad", "sin", "gru"), DEFAULT)
    off = placed(with_region(four, "fra", off=True))
    assert off.partitions[0].voters == (2, 3, 4)
    assert placed(with_region(off, "fra", off=False)).partitions[0].voters == (1, 2, 3)


def test_keyspaces_divide_the_keys() -> None:
    """A keyspace takes what its prefix begins, also out of another one, and leaves the rest."""
    present = built()
    assert ranges(present) == [
        (1, b"", b"fra/", "default"),
        (3, b"fra/", b"fra0", "fra"),
        (2, b"fra0", b"", "default"),
    ]
    nested = with_keyspace(present, Keyspace("eu", b"fra/eu/", "zone", "iad"))
    assert ranges(nested)[1:4] == [
        (3, b"fra/", b"fra/eu/", "fra"),
        (5, b"fra/eu/", b"fra/eu0", "eu"),
        (4, b"fra/eu0", b"fra0", "fra"),
    ]
    assert [one.origin for one in nested.partitions] == [0, 1, 3, 3, 1]
    assert nested.partition_at(b"fra/eu/x").id == 5
    assert nested.partition_at(b"fra/eu0").id == 4
    outer = with_keyspace(nested, Keyspace("f", b"f", "zone", "sin"))
    assert [one[3] for one in ranges(outer)] == ["default", "f", "fra", "eu", "fra", "f", "default"]
    last = with_keyspace(present, Keyspace("last", b"\xff", "zone", "sin"))
    assert ranges(last)[-1] == (4, b"\xff", b"", "last")
    assert with_keyspace(present, FRA) is present


def test_the_first_keyspaces_begin_empty_together() -> None:
    """Partitions that are made with the first keyspace come out of no other one."""
    present = with_keyspaces(joined("fra", "iad"), [FRA, DEFAULT])
    assert [(one.id, one.origin) for one in present.partitions] == [(1, 0), (3, 0), (2, 0)]
    assert with_keyspaces(present, [DEFAULT, FRA]) is present
    later = with_keyspaces(present, [Keyspace("iad", b"iad/", "zone", "iad")])
    assert [one.origin for one in later.partitions] == [0, 0, 0, 2, 2]
    taken = later.partition_at(b"iad/")
    assert (taken.voters, taken.founders) == ((2,), (1, 2)), "it goes to its home by steps"


def test_a_split_gives_the_upper_half_a_new_id() -> None:
    """The lower half keeps id and log; the upper one comes out of it; a second time is nothing."""
    present = split(built(), 3, b"fra/m")
    lower, upper = present.partitions[1:3]
    assert (lower.id, lower.end, upper.id, upper.start, upper.end) == (
        3,
        b"fra/m",
        4,
        b"fra/m",
        b"fra0",
    )
    assert (upper.origin, upper.voters, upper.keyspace) == (3, (1, 2, 3), "fra")
    assert upper.founders == (1, 2, 3)
    assert split(present, 3, b"fra/m") is present


def test_a_move_makes_a_leader_and_if_need_be_a_voter() -> None:
    """A voter is preferred as it is; another node at home takes the vote of one there."""
    present = moved(built(), 3, 3)
    assert (present.partitions[1].leader, present.partitions[1].voters) == (3, (1, 2, 3))
    ten = placed(with_node(present, "n10", "fra", "h:1", b"ten"))
    there = moved(ten, 3, 10)
    assert (there.partitions[1].leader, there.partitions[1].voters) == (10, (1, 2, 10))
    assert 3 in there.partitions[1].learners
    apart = moved(ten, 1, 5)
    assert (apart.partitions[0].leader, apart.partitions[0].voters) == (5, (1, 5, 7))
    assert placed(apart) == apart, "the next placement leaves it so"
    assert moved(apart, 1, 5) is apart
    freed = moved(apart, 1, 0)
    assert freed.partitions[0].leader == 0, "`k2 move 1 any`"
    assert freed.partitions[0].voters == apart.partitions[0].voters


def test_a_promotion_replaces_the_logs_of_the_lost_home() -> None:
    """New ids, generation and home for what was at home there; everything else stays."""
    off = with_region(built(), "fra", off=True)
    present = promoted(off, "fra", "iad", cut=77)
    new = present.partitions[1]
    assert new == PartitionInfo(
        4, b"fra/", b"fra0", "fra", (4, 5, 6), (1, 2, 3, 7, 8, 9), 0, 2, 3, 77, (4, 5, 6)
    )
    assert [one.home for one in present.keyspaces] == ["fra", "iad"], "default has its quorum"
    assert present.partitions[0] == off.partitions[0]
    assert promoted(present, "fra", "iad", cut=99) is present
    assert split(present, 4, b"fra/m").partitions[2].cut == 0


@pytest.mark.parametrize(
    "step, says",
    [
        (lambda: with_node(Map(), "n 1", "fra", "h:1", b"d"), "letters, digits"),
        (lambda: with_node(Map(), "n1", "zone", "h:1", b"d"), "none of"),
        (lambda: with_node(Map(), "n1", "fra", "h:1", b""), "without a disk"),
        (lambda: with_node(Map(), "n1", "fra", "", b"d"), "names no address"),
        (lambda: with_node(built(), "copy", "fra", "h:1", b"\x01"), "belongs to node 1"),
        (lambda: with_node(built(), "n1", "iad", "h:1", b"\x01"), "joined in fra"),
        (lambda: with_node(Map(next_node=1024), "n", "fra", "h:1", b"d"), "all 1023 node ids"),
        (lambda: with_keyspace(built(), Keyspace("x", b"", "zone", "fra")), "the empty prefix"),
        (lambda: with_keyspace(built(), Keyspace("x", b"fra/", "zone", "fra")), "belongs to the"),
        (lambda: with_keyspace(built(), Keyspace("fra", b"f", "zone", "fra")), "exists, as"),
        (lambda: with_keyspace(built(), Keyspace("x", b"x", "zone", "gru")), "no region is called"),
        (lambda: with_keyspace(joined("fra"), FRA), "the first keyspace is default"),
        (lambda: with_keyspace(built(), Keyspace("x", b"x" * 257, "zone", "fra")), "at most 256"),
        (
            lambda: with_keyspace(with_region(built(), "gru"), Keyspace("x", b"x", "zone", "gru")),
            "no node stands in gru",
        ),
        (lambda: split(built(), 9, b"k"), "no partition has the id 9"),
        (lambda: split(built(), 3, b"a"), "belongs to partition 1, not to 3"),
        (lambda: split(built(), 1, b""), "1 to 65536 bytes"),
        (lambda: moved(built(), 3, 4), "stands in iad"),
        (lambda: moved(built(), 2, 99), "no member has the id 99"),
        (
            lambda: moved(placed(with_node(built(), "g", "gru", "h:1", b"g")), 1, 10),
            "no vote in gru",
        ),
        (lambda: promoted(built(), "fra", "iad", 7), "not declared off"),
        (lambda: promoted(built(), "fra", "fra", 7), "cannot take over from itself"),
        (lambda: promoted(built(), "fra", "gru", 7), "no region is called gru"),
        (lambda: promoted(with_region(built(), "fra", off=True), "fra", "iad", 0), "is a stamp"),
        (lambda: Map().partition_at(b"k"), "no keyspaces yet"),
    ],
)
def test_what_is_not_allowed_is_refused(step: Callable[[], Map], says: str) -> None:
    """Each refusal is typed and says what is in the way."""
    with pytest.raises(Rejected, match=says):
        step()


def test_documents_keep_maps_and_refuse_what_they_cannot_keep() -> None:
    """A map comes back from its document; damage and unknown formats are told apart."""
    present = built()
    document = encode(present)
    assert decode(document) == present
    with pytest.raises(Corruption, match="cannot be read"):
        decode(document[:-9])
    with pytest.raises(Corruption, match="contradicts itself"):
        decode(document.replace(b'"next_node":10', b'"next_node":9'))
    with pytest.raises(Rejected, match="format 2"):
        decode(document.replace(b'"format":1', b'"format":2'))


@pytest.mark.parametrize(
    "old, new, says",
    [
        (b'"name":"iad"', b'"name":"fra"', "two of a kind"),
        (b'"disk":"Ag=="', b'"disk":"AQ=="', "one disk"),
        (b'"voters":[1,4,7]', b'"voters":[]', "no voters"),
        (b'"voters":[1,4,7]', b'"voters":[1,4,2]', "one member twice"),
        (b'"voters":[1,4,7]', b'"voters":[1,4,77]', "never joined"),
        (b'"leader":0', b'"leader":2', "no voter"),
        (b'"next_partition":4', b'"next_partition":3', "not given out"),
    ],
)
def test_a_map_that_contradicts_itself_is_noticed(old: bytes, new: bytes, says: str) -> None:
    """Each invariant of a map is looked at before it is believed."""
    document = encode(built())
    assert old in document
    with pytest.raises(Corruption, match=says):
        decode(document.replace(old, new, 1))


def test_gaps_between_partitions_are_noticed() -> None:
    """Ranges that leave a gap, overlap, or reach over the border of a keyspace are refused."""
    first, second, third = built().partitions

    def with_partitions(*partitions: PartitionInfo) -> Map:
        present = built()
        return Map(
            next_partition=4,
            next_node=present.next_node,
            regions=present.regions,
            nodes=present.nodes,
            keyspaces=present.keyspaces,
            partitions=partitions,
        )

    assert flaw(with_partitions(first, second, third)) is None
    assert "gap" in (flaw(with_partitions(first, third)) or "")
    assert "last" in (flaw(with_partitions(first, second)) or "")
    whole = PartitionInfo(1, b"", b"", "default", (1,), ())
    assert "border" in (flaw(with_partitions(whole)) or "")
    assert "together" in (flaw(with_partitions()) or "")


def test_ids_do_not_come_back() -> None:
    """A map that uses an id again, or forgets how many were given out, may not follow."""
    present = built()
    off = with_region(present, "fra", off=True)
    later = promoted(off, "fra", "iad", 7)
    back = versioned(present)
    with pytest.raises(Rejected, match="never reused"):
        check_update(later, back)
    renamed = encode(later).replace(b'"id":4,"start"', b'"id":3,"start"')
    check_update(present, versioned(decode(renamed)))
    with pytest.raises(Rejected, match="come back"):
        check_update(later, versioned(decode(renamed)))


def test_grants_are_for_members_of_regions_that_are_not_off() -> None:
    """No epoch for a partition or a node that is not in the map, nor where a region is off."""
    present = built()
    check_grant(present, 2, 1, b"life", 0)
    off = with_region(present, "fra", off=True)
    for given, partition, node, life, above in (
        (present, 9, 1, b"life", 0),
        (present, 2, 99, b"life", 0),
        (off, 2, 1, b"life", 0),
        (present, 2, 1, b"", 0),
        (present, 2, 1, b"life", -1),
        (present, 2, 1, b"life", 1 << 63),
    ):
        with pytest.raises(Rejected):
            check_grant(given, partition, node, life, above)
    check_grant(off, 2, 4, b"life", 0)
