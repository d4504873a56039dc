"""Partitions that are split under long transactions, against the serial order.

The world and what must hold are those of :mod:`tests.model.test_mvcc_serial`; here the dice are
loaded: transactions write early and over many keys, and partitions are split while they are open.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from tests.model.mvcc_driver import MS
from tests.model.test_mvcc_serial import KEYS, SPLITS, Serial

STEPS = 70


class Dice:
    """Steps of one history, drawn by chance."""

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)
        self.world = Serial()
        self.world.make(random.choice(SPLITS[:2]), seed, random.randint(0, 3))

    def number(self) -> int:
        """A number to pick one of many by."""
        return self.random.randint(0, 10**6)

    def writes(self) -> dict[bytes, bytes | None]:
        """Some keys, with values or deletions."""
        keys = self.random.sample(KEYS, self.random.randint(1, 4))
        return {key: self.random.choice([None, b"v%d" % self.number()]) for key in keys}

    def steps(self) -> list[tuple[int, Callable[[], object]]]:
        """What may be done now, with weights."""
        world, random = self.world, self.random
        key = random.choice(KEYS)
        found: list[tuple[int, Callable[[], object]]] = [
            (4, lambda: world.persist(self.number(), random.randint(1, 3))),
            (3, lambda: world.pass_time(random.choice([1, 5, 30, 70, 300]), 0)),
            (2, lambda: world.read_snapshot(key, random.choice([0, 60]))),
            (2, lambda: world.scan_snapshot(KEYS[0], KEYS[-1], random.choice([0, 60]), 9)),
            (1, lambda: world.batch_of_commits(self.number(), 3, key)),
            (1, lambda: world.batch_of_one_shots(self.number(), 3, key, random.random() < 0.5)),
            (3, lambda: world.replicate(self.number(), random.choice([None, 1, 3]))),
            (2, lambda: world.ask_a_replica(self.number(), self.number(), "scan")),
            (1, lambda: world.checkpoint_a_replica(self.number())),
            (1, lambda: world.rebuild_a_replica(self.number(), random.random() < 0.5)),
            (1, lambda: world.forget(3, random.random() < 0.5)),
        ]
        if random.random() < 0.1:
            found += [
                (1, lambda: world.depose(self.number())),
                (1, world.checkpoint),
                (1, world.collect),
                (1, lambda: world.crash(False)),
            ]
        if len(world.open) < 4:
            found.append((4, lambda: world.begin(0)))
        if world.open:
            found += [
                (5, lambda: world.write_early(self.number(), self.writes())),
                (3, lambda: world.commit(self.number(), {})),
                (1, lambda: world.commit(self.number(), self.writes())),
                (1, lambda: world.roll_back(self.number())),
                (2, lambda: world.read(self.number(), key)),
                (1, lambda: world.scan(self.number(), KEYS[0], KEYS[-1], 3, True)),
            ]
        if world.driver.mail:
            found.append((5, lambda: world.deliver(self.number(), random.random() < 0.2)))
            found.append((1, lambda: world.lose(self.number())))
        if len(world.driver.nodes) < 5:
            found.append((2, lambda: world.split(random.choice(KEYS[1:]))))
        return found

    def play(self) -> None:
        """The whole history."""
        for _ in range(STEPS):
            steps = self.steps()
            _, step = self.random.choices(steps, [weight for weight, _ in steps])[0]
            step()
            self.world.safe_time_never_falls()
        self.world.driver.pass_time(1 * MS)
        self.world.teardown()


@given(seed=st.integers(0, 10**9))
def test_histories_with_splits_are_serial(seed: int) -> None:
    """No answer, outcome, stored version or replica contradicts the serial execution by stamp."""
    Dice(seed).play()
