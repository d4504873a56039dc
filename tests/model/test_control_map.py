"""Maps under random sequences of steps: what must hold of every map, however it came about."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from k2store.control.map import (
    Keyspace,
    Map,
    Survive,
    decode,
    encode,
    flaw,
    keyspace_of,
    successor_flaw,
)
from k2store.control.placement import VOTERS_MAX
from k2store.control.transitions import (
    moved,
    placed,
    promoted,
    split,
    with_keyspace,
    with_node,
    with_region,
)
from k2store.errors import Rejected

REGIONS = ("fra", "iad", "sin", "gru")
KEYS = st.binary(min_size=1, max_size=3)
PREFIXES = st.text("ab/", min_size=1, max_size=3).map(str.encode) | st.just(b"\xff")


class Steps(RuleBasedStateMachine):
    """Every step, in any order, also with nonsense; refusals leave the map as it was."""

    def __init__(self) -> None:
        super().__init__()
        self.map = Map()
        self.disks = 0
        self.ids: dict[str, set[int]] = {"node": set(), "partition": set()}

    @initialize(regions=st.lists(st.sampled_from(REGIONS), min_size=1, max_size=7))
    def begin(self, regions: list[str]) -> None:
        """Some nodes, and the keyspace that takes everything."""
        for number, region in enumerate(regions):
            self.join(f"n{number}", region, new_disk=True)
        self.go(with_keyspace(self.map, Keyspace("default", b"", "region", regions[0])))

    def go(self, wanted: Map) -> None:
        """Take a step, as the control plane would."""
        assert flaw(wanted) is None
        assert successor_flaw(self.map, wanted) is None
        self.map = wanted

    @rule(
        name=st.sampled_from([f"n{one}" for one in range(10)]),
        region=st.sampled_from(REGIONS),
        new_disk=st.booleans(),
    )
    def join(self, name: str, region: str, new_disk: bool) -> None:
        """A node joins, comes back, or comes back without its disk."""
        known = self.map.node_named(name)
        self.disks += 1
        disk = str(self.disks).encode() if new_disk or known is None else known.disk
        try:
            wanted = with_node(self.map, name, region, f"{name}:1", disk)
        except Rejected:
            assert known is not None
            assert not new_disk
            assert known.region != region
            return
        same = known is not None and known.disk == disk
        node = wanted.node_named(name)
        assert node is not None
        assert node.id == (known.id if known is not None and same else self.map.next_node)
        self.go(wanted)

    @rule()
    def place(self) -> None:
        """The placement finds its own work done, and wants members only."""
        self.go(placed(self.map))
        assert placed(self.map) == self.map
        ids = {one.id for one in self.map.nodes}
        for one in self.map.partitions:
            assert set(one.learners) <= ids
            assert set(one.voters) <= ids or not set(one.voters) & ids
            assert ids <= set(one.voters) | set(one.learners)
            assert 1 <= len(one.voters) <= VOTERS_MAX
            keyspace = self.map.keyspace(one.keyspace)
            assert keyspace is not None
            regions = [self.map.region_of(voter) for voter in one.voters]
            if keyspace.survive == "region" and None not in regions:
                assert len(set(regions)) == len(regions)
                homes = {node.region for node in self.map.nodes}
                assert keyspace.home in regions or keyspace.home not in homes
                assert len(regions) == min(VOTERS_MAX, len(homes))

    @rule(
        name=st.sampled_from(("a", "b", "c", "d")),
        prefix=PREFIXES,
        survive=st.sampled_from(("zone", "region")),
        home=st.sampled_from(REGIONS),
    )
    def keyspace(self, name: str, prefix: bytes, survive: Survive, home: str) -> None:
        """A keyspace comes to be, or is refused."""
        try:
            self.go(with_keyspace(self.map, Keyspace(name, prefix, survive, home)))
        except Rejected:
            return
        assert self.map.partition_at(prefix).keyspace == keyspace_of(self.map, prefix)

    @rule(key=KEYS)
    def split(self, key: bytes) -> None:
        """A partition is split where the key says."""
        self.go(split(self.map, self.map.partition_at(key).id, key))
        assert self.map.partition_at(key).start == key

    @rule(data=st.data())
    def move(self, data: st.DataObject) -> None:
        """A partition moves, or may not."""
        partition = data.draw(st.sampled_from(self.map.partitions)).id
        node = data.draw(st.sampled_from(self.map.nodes)).id
        try:
            self.go(moved(self.map, partition, node))
        except Rejected:
            return
        assert [one.leader for one in self.map.partitions if one.id == partition] == [node]

    @rule(lost=st.sampled_from(REGIONS), home=st.sampled_from(REGIONS))
    def promote(self, lost: str, home: str) -> None:
        """A region is declared off and another takes over, then it is back."""
        if self.map.region(lost) is None:
            return
        generations = {one.start: one.generation for one in self.map.partitions}
        self.go(with_region(self.map, lost, off=True))
        try:
            self.go(promoted(self.map, lost, home, cut=5))
        except Rejected:
            pass
        else:
            assert not [
                one for one in self.map.keyspaces if one.home == lost and one.survive == "zone"
            ]
        for one in self.map.partitions:
            new = one.id not in self.ids["partition"]
            assert one.generation == generations[one.start] + new
        self.go(with_region(self.map, lost, off=False))

    @invariant()
    def keys_are_covered_once(self) -> None:
        """Each key has one partition, of the keyspace with the longest prefix that begins it."""
        for key in (b"\x00", b"a", b"a/b", b"aa", b"b/", b"\xff", b"\xff\xff", b"0"):
            if self.map.partitions:
                holding = [one for one in self.map.partitions if one.contains(key)]
                assert [self.map.partition_at(key)] == holding
                assert holding[0].keyspace == keyspace_of(self.map, key)

    @invariant()
    def ids_are_never_reused(self) -> None:
        """An id that was seen and left does not come back, and new ones only rise."""
        for kind, used in (
            ("node", {one.id for one in self.map.nodes}),
            ("partition", {one.id for one in self.map.partitions}),
        ):
            ever = self.ids[kind]
            assert all(new > max(ever, default=0) for new in used - ever)
            ever |= used
            gone = f"gone {kind}"
            left = self.ids.setdefault(gone, set())
            assert not left & used
            left |= ever - used

    @invariant()
    def documents_keep_everything(self) -> None:
        """The map comes back from its document as it was."""
        assert decode(encode(self.map)) == self.map


TestSteps = Steps.TestCase
