"""The learner against a scan of the same rows, whatever was published, fenced, cleared or lost."""

from __future__ import annotations

import random

import msgspec
import pytest

from k2store.client.watch import Change
from kv_pool import keys
from kv_pool.blocks import NAME_BYTES
from kv_pool.keys import Worker
from kv_pool.learner import Learner
from kv_pool.records import ENCODE, Id, Phase, Run, State
from kv_pool.windows import Group
from tests.model.test_kv_pool_tree import name, names_of

WORKERS = tuple(Worker(region, one) for region in ("fra", "iad") for one in ("a", "b"))
NAMESPACES = (b"1" * 16, b"2" * 16)
FEEDS = {"fra": (b"d/fra/", b"d/fra0"), "iad": (b"d/iad/", b"d/iad0")}


class World:
    """A learner, and the rows that it was told of."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.learner = Learner(fragments=True)
        self.rows: dict[bytes, bytes] = {}
        self.at = 1
        self.generation = 0
        for feed in FEEDS:
            self.snapshot(feed)

    def snapshot(self, feed: str) -> None:
        """Give a feed anew, in parts."""
        start, end = FEEDS[feed]
        rows = sorted((key, value) for key, value in self.rows.items() if start <= key < end)
        self.learner.begin(feed, start, end)
        cut = self.rng.randrange(len(rows) + 1)
        self.learner.load(feed, rows[:cut])
        self.learner.load(feed, rows[cut:])
        self.learner.finish(feed, self.at)

    def write(self, *changes: tuple[bytes, bytes | None]) -> None:
        """A commit, to the rows and by the feed."""
        self.at += 1
        for key, value in changes:
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value
        feed = changes[0][0].split(b"/")[1].decode()
        self.learner.apply(feed, self.at, [Change(key, value) for key, value in changes])
        for other in FEEDS:
            self.learner.resolved(other, self.at)

    def identity(self, worker: Worker) -> Id | None:
        """The worker's row."""
        value = self.rows.get(keys.identity(worker))
        return None if value is None else keys_decode(Id, value)

    def runs(self, worker: Worker, tier: int) -> dict[bytes, Run]:
        """All rows of a holder, valid or not."""
        start = worker.prefix + keys.RUN
        return {
            key: keys_decode(Run, value)
            for key, value in self.rows.items()
            if key.startswith(start) and key[len(start) + 16] == tier
        }

    def step(self) -> None:
        """Something happens."""
        rng = self.rng
        worker = rng.choice(WORKERS)
        tier = rng.randrange(2)
        identity = self.identity(worker)
        choice = rng.random()
        if identity is None or choice < 0.04:
            incarnation = identity.incarnation + 1 if identity else 1
            row = Id(incarnation, b"boot", rng.choice([State.LIVE] * 4 + [State.FENCED]))
            self.write((keys.identity(worker), ENCODE(row)))
        elif choice < 0.07:
            row = Id(
                identity.incarnation,
                identity.boot,
                rng.choice([State.LIVE, State.DRAINING]),
                identity.epoch_device + rng.randrange(2),
                identity.epoch_host,
            )
            self.write((keys.identity(worker), ENCODE(row)))
        elif choice < 0.09:
            self.write((keys.identity(worker), None))
        elif choice < 0.11:
            self.snapshot(rng.choice(list(FEEDS)))
        elif choice < 0.14:
            key = keys.run(worker, NAMESPACES[0], tier, name((9,)))
            self.write((key, rng.choice([b"", b"\x90", ENCODE(Id(1, b"", 0))])))
            self.write((key, None))
        elif choice < 0.75:
            self.publish(worker, tier, identity)
        else:
            self.shrink(worker, tier)

    def publish(self, worker: Worker, tier: int, identity: Id) -> None:
        """A row that shares no block with the holder's other rows of the namespace."""
        rng = self.rng
        namespace = rng.choice(NAMESPACES)
        path = tuple(rng.randrange(2) for _ in range(rng.randrange(1, 10)))
        start = rng.choice([0, 0, 0, 1, 2, 4])
        if start >= len(path):
            return
        names = names_of(path, start)
        taken = b"".join(
            run.names
            for key, run in self.runs(worker, tier).items()
            if key[-33:-17] == namespace and key[-16:] != names[:NAME_BYTES]
        )
        if {taken[at : at + 16] for at in range(0, len(taken), 16)} & {
            names[at : at + 16] for at in range(0, len(names), 16)
        }:
            return
        self.generation += 1
        run = Run(
            identity.incarnation - (rng.random() < 0.1),
            identity.epoch(tier) - (rng.random() < 0.1),
            name(path[:start]),
            start,
            names,
            rng.randrange(len(path) - start + 1) if rng.random() < 0.2 else len(path) - start,
            rng.choice([Phase.READY] * 6 + [Phase.RESERVED, Phase.DRAINING]),
            self.generation,
            content=b"".join(bytes([one]) * 16 for one in path[start:]),
        )
        self.write((keys.run(worker, namespace, tier, names[:NAME_BYTES]), ENCODE(run)))

    def shrink(self, worker: Worker, tier: int) -> None:
        """Fewer blocks of a row, or none; or all of them again."""
        runs = sorted(self.runs(worker, tier).items())
        if not runs:
            return
        key, run = self.rng.choice(runs)
        count = len(run.names) // NAME_BYTES
        if self.rng.random() < 0.4:
            self.write((key, None))
        elif self.rng.random() < 0.4 and count > 1:
            # In the middle, as an engine's report does: the tail goes on as a run of its own.
            self.generation += 1
            place = self.rng.randrange(1, count)
            fields = {name: getattr(run, name) for name in Run.__struct_fields__}
            head = fields | {
                "names": run.names[: place * 16],
                "live": min(run.live, place),
                "content": run.content[: place * 16],
            }
            tail = fields | {
                "names": run.names[place * 16 :],
                "live": count - place,
                "parent": run.names[place * 16 - 16 : place * 16],
                "depth": run.depth + place,
                "generation": self.generation,
                "content": run.content[place * 16 :],
            }
            changes = [
                (key, ENCODE(Run(**head))),
                (key[:-16] + run.names[place * 16 : place * 16 + 16], ENCODE(Run(**tail))),
            ]
            self.write(*self.rng.sample(changes, 2))
        else:
            fields = {name: getattr(run, name) for name in Run.__struct_fields__}
            fields["live"] = self.rng.randrange(count + 1)
            fields["phase"] = self.rng.choice([run.phase, Phase.READY])
            self.write((key, ENCODE(Run(**fields))))

    def check(self) -> None:
        """Every question, for a random prompt, gives what a scan of the rows gives."""
        rng = self.rng
        namespace = rng.choice(NAMESPACES)
        path = tuple(rng.randrange(2) for _ in range(11))
        names = names_of(path)
        wanted: dict[tuple[Worker, int], int] = {}
        both: dict[Worker, int] = {}
        for worker in WORKERS:
            identity = self.identity(worker)
            everything: set[bytes] = set()
            for tier in range(2):
                blocks = set()
                for key, run in self.runs(worker, tier).items():
                    valid = identity is not None and run.is_valid(identity, tier)
                    if valid and key[-33:-17] == namespace:
                        live = run.live_names()
                        blocks |= {live[at : at + 16] for at in range(0, len(live), 16)}
                everything |= blocks
                depth = prefix_in(blocks, names)
                if depth:
                    wanted[worker, tier] = depth
            if prefix_in(everything, names):
                both[worker] = prefix_in(everything, names)
        learner = self.learner
        match = learner.match(namespace, names)
        assert {(one.worker, one.tier): depth for one, depth in match.depths.items()} == wanted
        longest = max(wanted.values(), default=0)
        holders = {holder for holder, depth in wanted.items() if depth == longest}
        assert match.blocks == longest
        assert {(one.worker, one.tier) for one in match.holders} == holders
        assert match.as_of == self.at
        found = learner.longest(namespace, names)
        assert (found.blocks, set(found.holders)) == (longest, set(match.holders))
        assert learner.workers(namespace, names) == both
        self.check_groups(namespace, names)
        for worker in WORKERS:
            cover = learner.cover(worker, namespace, names)
            deepest = max(wanted.get((worker, tier), 0) for tier in range(2))
            covered = 0 if cover is None else cover.blocks
            assert deepest <= covered <= both.get(worker, 0)
            if cover is not None:
                assert sum(piece.blocks for piece in cover.pieces) == covered
        self.check_fragments()

    def check_groups(self, namespace: bytes, names: bytes) -> None:
        """For models with windows, depths are those at which all groups have what they need."""
        windows = [self.rng.randrange(4) for _ in range(self.rng.randrange(1, 3))]
        groups = [Group(self.rng.choice([namespace, *NAMESPACES]), names, one) for one in windows]
        wanted = {}
        for worker in WORKERS:
            identity = self.identity(worker)
            blocks: dict[bytes, set[bytes]] = {one: set() for one in NAMESPACES}
            for tier in range(2):
                for key, run in self.runs(worker, tier).items():
                    if identity is not None and run.is_valid(identity, tier):
                        live = run.live_names()
                        blocks[key[-33:-17]] |= {
                            live[at : at + 16] for at in range(0, len(live), 16)
                        }
            for depth in range(1, len(names) // 16 + 1):
                if all(
                    all(
                        names[at * 16 : at * 16 + 16] in blocks[group.namespace]
                        for at in range(max(0, depth - (group.window or depth)), depth)
                    )
                    for group in groups
                ):
                    wanted[worker] = depth
        assert self.learner.match_groups(groups) == wanted

    def check_fragments(self) -> None:
        """Content is found where a valid row has it, and nowhere else."""
        content = bytes([self.rng.randrange(2)]) * 16
        wanted = set()
        for worker in WORKERS:
            identity = self.identity(worker)
            for tier in range(2):
                for key, run in self.runs(worker, tier).items():
                    if identity is not None and run.is_valid(identity, tier):
                        wanted |= {
                            (worker, tier, key[-33:-17], key[-16:], offset, run.depth + offset)
                            for offset in range(run.live)
                            if run.content[offset * 16 : offset * 16 + 16] == content
                        }
        found = [
            (one.holder.worker, one.holder.tier, one.namespace, one.first, one.offset, one.depth)
            for one in self.learner.fragments(content)
        ]
        assert len(found) == len(set(found))
        assert set(found) == wanted


def keys_decode(kind, value):
    """A row, for the naive side."""
    return msgspec.msgpack.decode(value, type=kind)


def prefix_in(blocks: set[bytes], names: bytes) -> int:
    """How many names from the first on are in the set."""
    depth = 0
    while depth * 16 < len(names) and names[depth * 16 : depth * 16 + 16] in blocks:
        depth += 1
    return depth


@pytest.mark.parametrize("seed", range(12))
def test_the_learner_is_a_scan_of_the_rows(seed: int) -> None:
    """After every step of a random history each answer equals that of a scan, to the block."""
    world = World(seed)
    for _ in range(250):
        world.step()
        world.check()
    assert world.learner.counts().malformed > 0
    assert world.learner.counts().rows == sum(keys.RUN in key for key in world.rows)


def test_nothing_is_left_when_feeds_go() -> None:
    """A learner whose feeds are dropped holds no rows, runs or fragments any more."""
    world = World(99)
    for _ in range(200):
        world.step()
    for feed in FEEDS:
        world.learner.drop(feed)
    world.learner.begin("rest", b"x", b"y")
    for at in range(1, 200):
        world.learner.resolved("rest", at)
    counts = world.learner.counts()
    assert (counts.rows, counts.blocks, counts.stretches, counts.retired) == (0, 0, 0, 0)
    assert counts.workers == 0
