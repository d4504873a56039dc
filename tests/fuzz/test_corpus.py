"""Every input that fuzzing has kept, and every one that once failed, is taken as it should be."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.fuzz.run import NAMES
from tests.fuzz.targets import TARGETS, Target

CORPUS = Path(__file__).resolve().parent / "corpus"


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_kept_inputs_are_taken(target: Target):
    """The corpus of a target passes, and there is one."""
    kept = sorted((CORPUS / target.name).iterdir())
    assert len(kept) >= 5, "run `./k2 fuzz --keep`"
    for path in kept:
        target.feed(path.read_bytes())


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_seeds_are_taken_whole_and_broken(target: Target):
    """Well-formed inputs pass, and so does each with some of its bytes wrong."""
    rng = random.Random(target.name)
    for seed in target.seeds():
        target.feed(seed)
        for _ in range(20):
            broken = bytearray(seed)
            for _ in range(rng.randrange(1, 4)):
                if broken:
                    broken[rng.randrange(len(broken))] = rng.randrange(256)
            target.feed(
                bytes(broken[: rng.randrange(len(broken) + 1)] if rng.random() < 0.3 else broken)
            )


def test_every_target_has_a_name_to_run():
    """`./k2 fuzz` knows them all, without importing what they need."""
    assert tuple(target.name for target in TARGETS) == NAMES
