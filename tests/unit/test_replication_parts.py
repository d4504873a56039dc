"""The parts of a replicated log: chains, majorities, memberships, the log's way to the disk."""

from __future__ import annotations

from itertools import combinations
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replication import (
    GENESIS,
    Append,
    Differs,
    Entry,
    HomeFenced,
    HomeMessage,
    HomeRenew,
    HomeStopped,
    Install,
    Kind,
    Membership,
    Message,
    Position,
    Saved,
    Sealed,
    Snapshot,
    chain,
)
from replication.closed import WAITING_MAX, Closed
from replication.entries import chained
from replication.log import ENTRY_BYTES, Log
from replication.membership import decode, encode
from replication.quorum import is_majority, majority, reached
from replication.takeover import NOBODY, Takeover
from replication.takeover import decode as decode_takeover
from replication.takeover import encode as encode_takeover

BASE = Snapshot(GENESIS, Membership((1, 2, 3)), 0, b"")


def entries(count: int, epoch: int = 1, previous: Position = GENESIS) -> list[Entry]:
    """A chain of entries."""
    made: list[Entry] = []
    for number in range(count):
        made.append(chain(previous, epoch, Kind.DATA, 0, b"%d" % number))
        previous = made[-1].position
    return made


# -- entries ---------------------------------------------------------------------------------------


def test_a_chain_notices_every_changed_field() -> None:
    """An entry with any field changed, or out of its place, does not follow its predecessor."""
    first, second = entries(2)
    assert chained(GENESIS, [first, second])
    assert not chained(GENESIS, [second])
    assert not chained(first.position, [first])
    for changed in (
        msgspec.structs.replace(second, payload=b"x"),
        msgspec.structs.replace(second, closed=1),
        msgspec.structs.replace(second, kind=Kind.MEMBERS),
        msgspec.structs.replace(second, epoch=2),
        msgspec.structs.replace(second, lsn=3),
    ):
        assert not changed.follows(first.position), changed


def test_an_older_epoch_never_follows_a_newer_one() -> None:
    """Epochs do not go down along a log."""
    first = chain(GENESIS, 2, Kind.DATA, 0, b"a")
    assert not chain(first.position, 1, Kind.DATA, 0, b"b").follows(first.position)


@pytest.mark.parametrize(
    "message",
    [
        Append(3, 1, 0, GENESIS, entries(2), 1, 0),
        Differs(3, 1, 2, [GENESIS]),
        Install(3, 1, BASE, 0),
        Sealed(3, 1, GENESIS, 17, 0, Membership((1, 2), (3,))),
    ],
    ids=lambda message: type(message).__name__,
)
def test_messages_survive_the_wire(message: Message) -> None:
    """A message decodes to what was encoded, with its type told from its tag."""
    data = msgspec.msgpack.encode(message)
    assert msgspec.msgpack.decode(data, type=Message) == message


def test_first_entries_and_snapshots_of_old_name_no_leader() -> None:
    """A payload of eight bytes, and a snapshot of four fields, decode as led by nobody known."""
    takeover = Takeover(77, 5)
    assert decode_takeover(encode_takeover(takeover)) == takeover
    assert decode_takeover(encode_takeover(takeover)[:8]) == Takeover(77, NOBODY)
    with pytest.raises(ValueError, match="8 or 16 bytes"):
        decode_takeover(b"short")
    old = msgspec.msgpack.encode([GENESIS, Membership((1,)), 7, b"state"])
    assert msgspec.msgpack.decode(old, type=Snapshot).leader == NOBODY


def test_a_log_knows_who_led_last() -> None:
    """The leader of an epoch is told from its first entry, also when a snapshot covers that."""
    first = chain(GENESIS, 1, Kind.TAKEOVER, 0, encode_takeover(Takeover(1, 4)))
    second = chain(first.position, 1, Kind.DATA, 0, b"")
    third = chain(second.position, 2, Kind.TAKEOVER, 0, encode_takeover(Takeover(1, 5)))
    log = Log(BASE, [first, second, third])
    assert [log.leader_at(lsn) for lsn in (0, 1, 2, 3)] == [NOBODY, 4, 4, 5]
    log.compact(2, 0, b"")
    assert (log.snapshot.leader, log.leader_at(2), log.leader_at(3)) == (4, 4, 5)
    log.cut(3)
    assert log.leader_at(2) == 4


@pytest.mark.parametrize("message", [HomeRenew(3, 1), HomeStopped(3, 1, 17), HomeFenced(4, 2)])
def test_both_kinds_of_messages_share_a_stream(message: HomeMessage) -> None:
    """Tags of home leases and of logs differ, so one union decodes both."""
    data = msgspec.msgpack.encode(message)
    assert msgspec.msgpack.decode(data, type=HomeMessage | Message) == message


# -- quorums and memberships -----------------------------------------------------------------------


@pytest.mark.parametrize("count", range(1, 8))
def test_two_majorities_share_a_voter(count: int) -> None:
    """Any two majorities of the same voters have one in common."""
    groups = list(combinations(range(count), majority(count)))
    assert all(set(a) & set(b) for a in groups for b in groups)
    assert is_majority(range(count), groups[0])
    assert not is_majority(range(count), groups[0][1:])


@given(
    st.sets(st.integers(0, 8), min_size=1), st.dictionaries(st.integers(0, 8), st.integers(0, 9))
)
def test_a_mark_is_reached_when_a_majority_has_it(voters: set[int], marks: dict[int, int]) -> None:
    """The mark is the largest that a majority has reached, and strangers do not count."""
    mark = reached(voters, marks)
    assert is_majority(voters, [each for each in voters if marks.get(each, 0) >= mark])
    assert not is_majority(voters, [each for each in voters if marks.get(each, 0) > mark])


def test_nobody_reaches_anything_without_voters() -> None:
    """An empty membership commits nothing."""
    assert reached((), {1: 5}) == 0


MEMBERS = st.builds(
    lambda voters, learners: Membership(tuple(sorted(voters)), tuple(sorted(learners - voters))),
    st.sets(st.integers(1, 6), min_size=1),
    st.sets(st.integers(1, 6)),
)


@given(MEMBERS, MEMBERS)
def test_one_step_keeps_majorities_together(old: Membership, new: Membership) -> None:
    """Where one step is allowed, every majority before shares a voter with every one after."""
    if not old.step_to(new):
        return
    before = combinations(old.voters, majority(len(old.voters)))
    after = list(combinations(new.voters, majority(len(new.voters))))
    assert all(set(a) & set(b) for a in before for b in after)


@given(MEMBERS, st.integers(1, 6))
def test_steps_are_well_formed(members: Membership, replica: int) -> None:
    """The three ways to change a membership give well-formed ones, and survive encoding."""
    learner = members.with_learner(replica)
    for new in (learner, learner.with_voter(replica), members.without(replica)):
        assert decode(encode(new)) == new
        assert new.well_formed() or not new.voters
    assert learner.step_to(learner.with_voter(replica))
    if replica not in members.everyone:
        assert not members.step_to(members.with_voter(replica))


@pytest.mark.parametrize(
    "members",
    [Membership(), Membership((2, 1)), Membership((1, 1)), Membership((1,), (1,))],
)
def test_ill_formed_memberships_are_seen(members: Membership) -> None:
    """Empty, unsorted, repeated and overlapping memberships are not well formed."""
    assert not members.well_formed()


# -- closed timestamps -----------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 100)), max_size=40), st.randoms())
def test_closed_values_count_from_their_lsn(beats: list[tuple[int, int]], random: Random) -> None:
    """What is attached is the largest value heard so far whose LSN has been applied."""
    closed = Closed()
    applied = 0
    heard: list[tuple[int, int]] = []
    for lsn, value in beats:
        closed.hear(lsn, value, applied)
        heard.append((lsn, value))
        if random.random() < 0.5:
            applied += random.randint(0, 3)
            closed.apply(applied, 0)
        expected = max((value for lsn, value in heard if lsn <= applied), default=0)
        assert closed.attached == expected
        assert closed.known == max(value for _, value in heard)
        assert closed.safe(None) == expected
        assert closed.safe(50) == min(expected, 49)


def test_beats_that_wait_are_bounded() -> None:
    """A replica that applies nothing keeps a bounded number of beats."""
    closed = Closed()
    for number in range(WAITING_MAX + 10):
        closed.hear(number + 1, number + 1, 0)
    closed.apply(WAITING_MAX + 10, 0)
    assert closed.attached == WAITING_MAX


# -- the log ---------------------------------------------------------------------------------------


def test_a_trail_keeps_the_newest_of_what_a_snapshot_covers() -> None:
    """Compacted entries stay in memory up to the limit; points do not reach back into them."""
    made = entries(10)
    log = Log(BASE, made, trail_bytes_max=3 * (ENTRY_BYTES + 1))
    log.compact(6, 0, b"")
    assert (log.start.lsn, log.base.lsn, log.last.lsn) == (3, 6, 10)
    assert log.after(3, 10) == made[3:]
    assert log.position(3) == made[2].position
    assert log.position(2) is None
    assert [point.lsn for point in log.points()] == [10, 9, 7, 6]
    assert log.equal_lsn([made[4].position, made[0].position]) == 5
    log.compact(7, 0, b"")
    assert log.start.lsn == 4
    log.cut(8)
    assert log.last == made[6].position
    log.install(Snapshot(Position(2, 9, bytes(16)), Membership((1,)), 0, b""))
    assert (log.start.lsn, log.trail_bytes) == (9, 0)


def test_points_lead_to_where_logs_part() -> None:
    """Points double their distance, end at the snapshot, and name the last equal place."""
    long, short = Log(BASE, entries(40)), Log(BASE, entries(40)[:33])
    points = long.points()
    assert [point.lsn for point in points] == [40, 39, 37, 33, 25, 9, 0]
    assert short.equal_lsn(points) == 33
    other = Log(BASE, entries(5, epoch=2))
    assert other.equal_lsn(points) == 0
    compacted = Log(BASE, entries(5, epoch=2))
    compacted.compact(5, 0, b"")
    assert compacted.equal_lsn(points) is None


class Disk:
    """The twin of a log's way to the disk: every ``Persist`` is applied in order."""

    def __init__(self, trail_bytes_max: int) -> None:
        self.log = Log(BASE, trail_bytes_max=trail_bytes_max)
        self.trail_bytes_max = trail_bytes_max
        self.saved = Saved(BASE)
        self.under_way: list = []
        self.epoch = 1

    def check(self) -> None:
        """What the log takes for durable is on the disk, entry for entry."""
        log, saved = self.log, self.saved
        held = log.after(log.start.lsn, 10**6)
        trail = held[: log.base.lsn - log.start.lsn]
        assert chained(log.start, held)
        sizes = [len(each.payload) + ENTRY_BYTES for each in held]
        for at in range(0, len(held) + 1, 7):
            lsn = log.start.lsn + at
            assert log.bytes_to(lsn) - log.bytes_to(log.start.lsn) == sum(sizes[:at])
            fits = [n for n in range(len(held) - at + 1) if sum(sizes[at : at + n]) <= 800]
            expected = held[at : at + min(max(fits[-1], 1), 4)]
            assert log.batch(lsn, 4, 800) == expected
        assert (trail[-1].position if trail else log.start) == log.base
        assert log.trail_bytes == sum(len(each.payload) + ENTRY_BYTES for each in trail)
        assert log.trail_bytes <= self.trail_bytes_max
        if log.durable_lsn < log.base.lsn:
            return
        on_disk = {entry.lsn: entry for entry in saved.entries}
        for entry in log.after(log.base.lsn, log.durable_lsn - log.base.lsn):
            if entry.lsn > saved.snapshot.position.lsn:
                assert on_disk[entry.lsn] == entry
        assert log.durable_lsn <= log.last.lsn

    def step(self, random: Random) -> None:
        """One thing that may happen to a log."""
        log = self.log
        match random.randrange(7):
            case 0 | 1:
                members = random.random() < 0.2
                kind = Kind.MEMBERS if members else Kind.DATA
                data = bytes(random.choice((0, 1, 300, 2_000)))
                payload = encode(Membership((self.epoch,))) if members else data
                log.append(chain(log.last, self.epoch, kind, 0, payload))
            case 2 if log.last.lsn > log.base.lsn:
                self.epoch += 1
                log.cut(random.randint(log.base.lsn + 1, log.last.lsn))
            case 3 if random.random() < 0.3:
                self.epoch += 1
                lsn = log.base.lsn + random.randint(1, 9)
                position = Position(self.epoch, lsn, random.randbytes(16))
                log.install(Snapshot(position, Membership((7,)), 0, b"s"))
            case 4 if log.durable_lsn > log.base.lsn:
                log.compact(random.randint(log.base.lsn + 1, log.durable_lsn), 0, b"c")
            case 5:
                persist = log.take(0, promised_before=0, lost=False)
                if persist is not None:
                    self.under_way.append(persist)
            case 6 if self.under_way:
                persist = self.under_way.pop(0)
                self.saved = self.saved.then(persist)
                log.landed(persist.token)


@pytest.mark.parametrize("seed", range(40))
def test_what_counts_as_durable_is_on_the_disk(seed: int) -> None:
    """Through appends, cuts, snapshots and flushes in any order, the log never claims too much,
    and when all flushes have ended, disk and memory are equal.
    """
    random = Random(seed)
    disk = Disk(random.choice((0, 5 * ENTRY_BYTES, 100 * ENTRY_BYTES)))
    for _ in range(300):
        disk.step(random)
        disk.check()
    persist = disk.log.take(0, promised_before=0, lost=False)
    disk.under_way += [persist] if persist is not None else []
    for each in disk.under_way:
        disk.saved = disk.saved.then(each)
        disk.log.landed(each.token)
    log = disk.log
    assert disk.saved.snapshot == log.snapshot
    assert list(disk.saved.entries) == log.after(log.base.lsn, 10**6)
    assert log.durable_lsn == log.last.lsn
    again = Log(disk.saved.snapshot, disk.saved.entries)
    assert (again.last, again.membership) == (log.last, log.membership)
